//! A shared connection that makes no progress holds others up: it is cut when the server answers others meanwhile.
//!
//! | the oldest request of a shared connection is not answered | then |
//! | --- | --- |
//! | and nobody else is, on any connection | the server is busy, stopped or away: nothing is cut |
//! | of a shared connection for reads, and others are | after [`STALLED_TICKS`] in which that was so, it is cut |
//! | of a shared connection for writes, and other *writes* are | the same |
//! | of a shared connection for writes, and other requests are, but no write | the server may pause writes: [`PAUSED_TICKS`], not while a pause is known |
//!
//! Ticks are counted, not time: after a stop the server answers the shared connection within the first. When nobody asks anything, a
//! witness does: a connection that says `HELLO` as nobody. Those who wait on a shared connection that is cut are
//! disconnected, as by a server that died: what they asked for may have run, and is not sent again.

use redtape_net::CONNECT_TIMEOUT;

use super::Worker;
use super::timers::TICK;
use super::upstream_conn::Role;

/// Ticks in which a stalled shared connection may see others answered.
const STALLED_TICKS: u32 = 20;
/// The same for a shared connection for writes, as long as no write is answered anywhere.
const PAUSED_TICKS: u32 = 240;

/// Ticks in which others were answered while a shared connection stalled.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Stall {
    any: u32,
    writes: u32,
}

/// What was answered since the last tick: on shared connections, to the witness, and of what came by pinned
/// connections the writes that were done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Served {
    pub(super) any: bool,
    /// A write that would wait while the server pauses writes.
    pub(super) writes: bool,
}

impl Stall {
    /// One more tick without progress; true = it has stalled for too long.
    fn tick(&mut self, served: Served, for_writes: bool) -> bool {
        self.any += u32::from(served.any);
        self.writes += u32::from(served.writes);
        if for_writes { self.writes >= STALLED_TICKS || self.any >= PAUSED_TICKS } else { self.any >= STALLED_TICKS }
    }
}

impl Worker {
    /// At each tick: looks which shared connections stall.
    pub(super) fn check_stalls(&mut self) {
        let served = std::mem::take(&mut self.served);
        let paused = self.shared.pause.holds(self.now);
        let (mut stalled, mut cut) = (false, Vec::new());
        for (index, conn) in &mut self.conns {
            let Role::Shared(key) = &conn.role else { continue };
            let waits = !conn.queue.is_empty() || matches!(conn.stage, super::upstream_conn::Stage::Greeting(_));
            if !waits || self.now.saturating_duration_since(conn.progress) < TICK {
                conn.stall = Stall::default();
                continue;
            }
            stalled = true;
            if !paused && conn.stall.tick(served, key.writes) {
                cut.push(index);
            }
        }
        self.has_stalled = stalled;
        for index in cut {
            self.cut_stalled(index);
        }
        if stalled && !served.any && self.witness.is_none() {
            self.ask_witness();
        }
    }

    fn cut_stalled(&mut self, index: usize) {
        let conn = &mut self.conns[index];
        let (seconds, queue) =
            (self.now.saturating_duration_since(conn.progress).as_secs(), std::mem::take(&mut conn.queue));
        let Role::Shared(key) = &conn.role else { return };
        self.shared_conns.closed(key, index);
        self.shared.metrics.error("shared_stalled");
        tracing::warn!(
            seconds,
            sessions = queue.len(),
            writes = key.writes,
            "a shared connection got no answer while the server answered others: it is closed, and the clients that wait on it are \
             disconnected; what they asked for may or may not have run"
        );
        self.drop_conn(index);
        for waiter in queue {
            if self.client(waiter.client).is_some() {
                self.finish(waiter.client.index);
            }
        }
    }

    /// Nobody asks the server anything: somebody has to, or a stalled shared connection would hold its sessions for ever.
    fn ask_witness(&mut self) {
        if let Ok(conn) = self.dial(Role::Witness, self.now + CONNECT_TIMEOUT) {
            self.witness = Some((conn, self.conns[conn].generation));
        }
    }

    /// The witness was answered, or is gone.
    pub(super) fn witness_answered(&mut self, alive: bool) {
        self.served.any |= alive;
        if let Some((conn, generation)) = self.witness.take()
            && self.conn(conn, generation).is_some()
        {
            self.drop_conn(conn);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOBODY: Served = Served { any: false, writes: false };
    const READS: Served = Served { any: true, writes: false };
    const WRITES: Served = Served { any: true, writes: true };

    /// After how many such ticks a shared connection is cut.
    fn cut_after(served: Served, for_writes: bool) -> Option<u32> {
        let mut stall = Stall::default();
        (1..=2 * PAUSED_TICKS).find(|_| stall.tick(served, for_writes))
    }

    #[test]
    fn a_shared_connection_is_cut_only_when_others_are_answered() {
        for (served, for_writes, after) in [
            (NOBODY, false, None),
            (NOBODY, true, None),
            (READS, false, Some(STALLED_TICKS)),
            (READS, true, Some(PAUSED_TICKS)),
            (WRITES, false, Some(STALLED_TICKS)),
            (WRITES, true, Some(STALLED_TICKS)),
        ] {
            assert_eq!(cut_after(served, for_writes), after, "{served:?}, for writes: {for_writes}");
        }
    }

    #[test]
    fn one_answer_to_others_behind_a_long_stop_is_not_enough() {
        let mut stall = Stall::default();
        assert!((0..1000).all(|_| !stall.tick(NOBODY, false)));
        assert!(!stall.tick(READS, false));
    }
}
