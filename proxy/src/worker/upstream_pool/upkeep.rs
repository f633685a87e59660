//! Timed work on connections: attempts that take too long, unneeded or stalled shared connections, and connections that
//! a server with a `timeout` would close.

use std::time::Instant;

use super::UpstreamPool;
use super::progress::{Served, Stall};
use super::shared_conns::SHARED_IDLE;
use super::upstream_conn::{Kept, Role, Stage};
use crate::worker::clock::TICK;
use crate::worker::refs::ConnRef;

/// An empty line: resets the server's idle timer, is not answered and does not count as a command.
pub(in crate::worker) const SIGN_OF_LIFE: &[u8] = b"\r\n";
/// Limit of retired shared connections of one worker; beyond it the least needed ones are closed, unless in use.
pub(super) const RETIRED_MAX: usize = 64;

/// What to do for idle connections.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::worker) struct Upkeep {
    /// Send [`SIGN_OF_LIFE`]: a server with a `timeout` would close them, possibly just when they are used again.
    pub(in crate::worker) alive: Vec<usize>,
    /// Shared connections to be closed.
    pub(in crate::worker) close: Vec<usize>,
}

/// What to do for stalled shared connections.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::worker) struct Stalls {
    /// Cut: the server answers others.
    pub(in crate::worker) cut: Vec<usize>,
    /// No other requests are sent: open a witness, since stalled connections would hold their sessions for ever.
    pub(in crate::worker) ask_witness: bool,
}

impl<S> UpstreamPool<S> {
    /// Connections that were not established in time.
    pub(in crate::worker) fn overdue(&self, now: Instant) -> Vec<usize> {
        let is_overdue = |stage: &Stage| matches!(stage, Stage::Connecting { until, .. } if now >= *until);
        self.conns.iter().filter(|(_, conn)| is_overdue(&conn.stage)).map(|(index, _)| index).collect()
    }

    /// Clears which shared connections are kept; [`Self::keep`] sets it again.
    pub(in crate::worker) fn keep_none(&mut self) {
        for (_, conn) in &mut self.conns {
            conn.kept = Kept::No;
        }
    }

    /// A shared connection carried the last writes of some session. False = it is gone.
    pub(in crate::worker) fn keep(&mut self, shared: ConnRef, why: Kept) -> bool {
        self.get_mut(shared).map(|conn| conn.kept = conn.kept.max(why)).is_some()
    }

    /// At each tick: idle connections.
    pub(in crate::worker) fn upkeep(&self, now: Instant) -> Upkeep {
        let mut upkeep = Upkeep::default();
        let mut retired = Vec::new();
        for (index, conn) in &self.conns {
            if matches!(conn.role, Role::OffsetProbe) && conn.is_ready() {
                upkeep.alive.push(index);
            }
            if !matches!(conn.role, Role::Shared(_)) || !conn.is_ready() || !conn.queue.is_empty() {
                continue;
            }
            let rests = now.saturating_duration_since(conn.used);
            if conn.kept == Kept::No && (conn.retired || rests >= SHARED_IDLE) {
                upkeep.close.push(index);
                continue;
            }
            if conn.retired {
                retired.push((conn.kept, conn.used, index));
            }
            upkeep.alive.push(index);
        }
        upkeep.close.extend(surplus(retired));
        upkeep
    }

    /// A write was answered on a pinned connection.
    pub(in crate::worker) fn wrote_elsewhere(&mut self) {
        self.served = Served { any: true, writes: true };
    }

    /// A shared connection got an answer; `wrote`: one that shows that writes are not paused.
    pub(in crate::worker) fn served(&mut self, wrote: bool) {
        self.served.any = true;
        self.served.writes |= wrote;
    }

    /// True if a shared connection got no answer at the last tick.
    pub(in crate::worker) fn has_stalled(&self) -> bool {
        self.has_stalled
    }

    /// At each tick: finds stalled shared connections. `paused`: clients are known to be paused.
    pub(in crate::worker) fn check_stalls(&mut self, now: Instant, paused: bool) -> Stalls {
        let served = std::mem::take(&mut self.served);
        let (mut has_stalled, mut cut) = (false, Vec::new());
        for (index, conn) in &mut self.conns {
            let Role::Shared(key) = &conn.role else { continue };
            let waits = !conn.queue.is_empty() || matches!(conn.stage, Stage::Greeting(_));
            if !waits || now.saturating_duration_since(conn.progress) < TICK {
                conn.stall = Stall::default();
                continue;
            }
            has_stalled = true;
            if !paused && conn.stall.tick(served, key.writes) {
                cut.push(index);
            }
        }
        self.has_stalled = has_stalled;
        Stalls { cut, ask_witness: has_stalled && !served.any && self.witness.is_none() }
    }

    /// A witness is being opened.
    pub(in crate::worker) fn witness_opened(&mut self, witness: ConnRef) {
        self.witness = Some(witness);
    }

    /// The witness was answered or is gone; returns it, to be closed.
    pub(in crate::worker) fn witness_answered(&mut self, alive: bool) -> Option<ConnRef> {
        self.served.any |= alive;
        self.witness.take()
    }
}

/// The retired shared connections to close above the limit: the least needed, then the oldest, none in use.
fn surplus(mut retired: Vec<(Kept, Instant, usize)>) -> impl Iterator<Item = usize> {
    retired.sort_unstable();
    let too_many = retired.len().saturating_sub(RETIRED_MAX);
    retired.into_iter().take(too_many).filter(|(kept, ..)| *kept != Kept::InUse).map(|(_, _, index)| index)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn of_too_many_retired_connections_those_needed_least_are_closed_and_none_in_use() {
        let now = Instant::now();
        let age = |seconds: u64| now + Duration::from_secs(1000 - seconds);
        let mut shared_conns: Vec<_> = (0..RETIRED_MAX).map(|n| (Kept::Uncounted, age(900), n)).collect();
        assert_eq!(surplus(shared_conns.clone()).count(), 0);
        shared_conns.extend([(Kept::Counted, age(1), 100), (Kept::Counted, age(2), 101), (Kept::InUse, age(999), 102)]);
        assert_eq!(surplus(shared_conns.clone()).collect::<Vec<_>>(), [101, 100, 0]);
        let in_use: Vec<_> = (0..2 * RETIRED_MAX).map(|n| (Kept::InUse, now, n)).collect();
        assert_eq!(surplus(in_use).count(), 0);
    }
}
