//! A shared connection that makes no progress holds others up: it is cut when the server answers others meanwhile.
//!
//! | the oldest request of a shared connection is not answered | then |
//! | --- | --- |
//! | and nobody else is, on any connection | the server is busy, stopped or away: nothing is cut |
//! | of a shared connection for reads, and others are | after [`STALLED_TICKS`](super::progress::STALLED_TICKS) in which that was so, it is cut |
//! | of a shared connection for writes, and other *writes* are | the same |
//! | of a shared connection for writes, and other requests are, but no write | the server may pause writes: [`PAUSED_TICKS`](super::progress::PAUSED_TICKS), not while a pause is known |
//!
//! Ticks are counted, not time: after a stop the server answers the shared connection within the first. When nobody asks anything, a
//! witness does: a connection that says `HELLO` as nobody. Those who wait on a shared connection that is cut are
//! disconnected, as by a server that died: what they asked for may have run, and is not sent again.

use redtape_net::CONNECT_TIMEOUT;

use super::Worker;
use super::progress::Stall;
use super::timers::TICK;
use super::upstream_conn::Role;

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
            self.witness = Some(self.conns[conn].reference(conn));
        }
    }

    /// The witness was answered, or is gone.
    pub(super) fn witness_answered(&mut self, alive: bool) {
        self.served.any |= alive;
        if let Some(witness) = self.witness.take()
            && self.conn(witness).is_some()
        {
            self.drop_conn(witness.index);
        }
    }
}
