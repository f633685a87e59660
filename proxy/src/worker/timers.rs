//! What happens by the clock: timeouts of clients and connections, the end of idle shared connections, draining.

use std::time::{Duration, Instant};

use redtape_net::CONNECT_TIMEOUT;

use super::Worker;
use super::client::Stage;
use super::refs::ConnRef;
use super::shared_conns::{SHARED_IDLE, SHARED_KEPT};
use super::upstream_conn::{Kept, Role, Stage as ConnStage};

/// How often all clients are looked at.
pub(super) const TICK: Duration = Duration::from_millis(500);
/// The same while something is being connected.
pub(super) const TICK_CONNECTING: Duration = Duration::from_millis(100);
/// The same while clients are drained.
const TICK_DRAINING: Duration = Duration::from_millis(5);
/// A session that works on a shared connection is heard of on its pinned connection after so long, at the next tick:
/// then no server takes it for idle, not even with a `timeout` of one second, and whatever it is set to meanwhile. One
/// that rests is not heard of, and the server ends it.
const KEEP_ALIVE: Duration = Duration::from_millis(400);
/// For each so many of them, it takes as much longer, up to this.
const KEEP_ALIVE_SESSIONS: u32 = 1000;
const KEEP_ALIVE_MAX: Duration = Duration::from_secs(5);
/// What a server takes note of, and neither answers nor counts as a command: an empty line.
const SIGN_OF_LIFE: &[u8] = b"\r\n";
/// Shared connections that take no more requests, of one worker; then those are closed that are needed least, unless they are in use.
const RETIRED_MAX: usize = 64;

/// A client that has ended its side while what it said last waits for a reply, is gone after so long without one: the
/// server, which would drop a blocked client at once, can't see that it left.
const GONE_AFTER: Duration = Duration::from_mins(1);

impl Worker {
    pub(super) fn tick(&mut self) {
        if self.now < self.next_tick && self.draining.is_none() {
            return;
        }
        if self.connecting > 0 || self.probe.is_some() {
            self.check_conns();
        }
        let is_due = self.now >= self.next_check;
        if is_due || self.draining.is_some() {
            self.check_clients();
        }
        // Stalls are counted in ticks of this length, while clients are drained as well.
        if is_due {
            self.next_check = self.now + TICK;
            self.shared.metrics.clients.memory_bytes.set(self.shared.client_memory.bytes() as i64);
            self.check_stalls();
            self.check_shared();
            self.check_acks();
        }
        let pause = match self.draining {
            Some(_) => TICK_DRAINING,
            None if self.connecting > 0 || self.probe.is_some() => TICK_CONNECTING,
            None => TICK,
        };
        self.next_tick = (self.now + pause).min(self.next_check.max(self.now));
    }

    fn check_conns(&mut self) {
        let late: Vec<usize> = self
            .conns
            .iter()
            .filter(|(_, l)| matches!(l.stage, ConnStage::Connecting { until, .. } if self.now >= until))
            .map(|(index, _)| index)
            .collect();
        for index in late {
            self.connect_failed(index, &format!("no answer within {} s", CONNECT_TIMEOUT.as_secs()));
        }
        if let Some(probe) = self.probe
            && let Some(probe) = self.conn(probe)
            && probe.is_ready()
        {
            // Connected, and silent for so long: a busy server counts as alive.
            let since = probe.progress;
            if self.now.saturating_duration_since(since) >= super::disconnect::ALIVE_TIMEOUT {
                self.probe_answered(true);
            }
        }
    }

    fn check_clients(&mut self) {
        let live = self.live.clone();
        let mut close = Vec::new();
        let mut alive = Vec::new();
        let stretch = 1 + u32::try_from(self.behind).unwrap_or(u32::MAX) / KEEP_ALIVE_SESSIONS;
        let keep_alive = KEEP_ALIVE.saturating_mul(stretch).min(KEEP_ALIVE_MAX);
        self.behind = self.clients.iter().filter(|(_, c)| c.behind).count();
        for (index, client) in &self.clients {
            let silent = self.now.saturating_duration_since(client.active);
            let over = match client.stage {
                Stage::Ending { until } | Stage::Finishing { until } | Stage::Lingering { until } => self.now >= until,
                _ if self.draining.is_some() && client.is_idle() => true,
                _ if !client.is_introduced() => {
                    self.now.saturating_duration_since(client.opened) >= live.handshake_timeout
                }
                Stage::Open if client.waiting && client.read_closed && silent >= GONE_AFTER => true,
                // Its pinned connection waits in the server, which lets go of a client that leaves.
                Stage::Open if client.waits_on_pinned() && client.read_closed && silent >= TICK => true,
                // Redis does not count those who wait for something either.
                Stage::Open => {
                    live.idle_timeout.is_some_and(|t| silent >= t)
                        && !client.asking
                        && client.state.is_idle()
                        && !client.state.is_listening()
                }
                Stage::Header { .. } => false,
            };
            if over {
                close.push(index);
            } else if client.works_on_shared() && self.now.saturating_duration_since(client.pinned_active) >= keep_alive
            {
                alive.push(index);
            }
        }
        for index in close {
            self.close_client(index);
        }
        for index in alive {
            self.keep_pinned_alive(index);
        }
        self.flush_conns();
    }

    /// Lets the server hear of a session on its own connection, which has nothing in flight; what the session has in
    /// flight on a shared connection stays there.
    fn keep_pinned_alive(&mut self, index: usize) {
        let client = &mut self.clients[index];
        let Some(pinned) = client.pinned else { return };
        // With nothing in flight, it rests until it uses a shared connection again.
        client.behind = client.in_flight() > 0;
        client.pinned_active = self.now;
        // A server that has not read the last line yet needs no other.
        if self.conns[pinned].out.is_empty() {
            self.conns[pinned].out.push(SIGN_OF_LIFE);
            self.make_dirty(pinned);
        }
    }

    /// Closes shared connections that nobody needs, and lets the server hear of the others.
    fn check_shared(&mut self) {
        self.mark_kept_conns();
        let now = self.now;
        let (mut idle, mut resting, mut retired) = (Vec::new(), Vec::new(), Vec::new());
        for (index, conn) in &self.conns {
            if matches!(conn.role, Role::OffsetProbe) && conn.is_ready() {
                resting.push(index);
            }
            if !matches!(conn.role, Role::Shared(_)) || !conn.is_ready() || !conn.queue.is_empty() {
                continue;
            }
            let rests = now.saturating_duration_since(conn.used);
            if conn.kept == Kept::No && (conn.retired || rests >= SHARED_IDLE) {
                idle.push(index);
                continue;
            }
            if conn.retired {
                retired.push((conn.kept, conn.used, index));
            }
            resting.push(index);
        }
        idle.extend(surplus(retired));
        for index in resting {
            // A server with a `timeout` would end it, maybe just when it is used again.
            self.conns[index].out.push(SIGN_OF_LIFE);
            self.make_dirty(index);
        }
        for index in idle {
            self.shared_lost(index);
        }
        self.flush_conns();
    }

    /// Which shared connections carried the last writes of some session.
    fn mark_kept_conns(&mut self) {
        for (_, conn) in &mut self.conns {
            conn.kept = Kept::No;
        }
        let conns = &mut self.conns;
        let mut keep = |shared: ConnRef, why: Kept| {
            let conn = conns.get_mut(shared.index).filter(|l| l.generation == shared.generation);
            conn.map(|l| l.kept = l.kept.max(why)).is_some()
        };
        for (_, client) in &mut self.clients {
            let why = client.wrote.kept();
            client.wrote.look(|shared| keep(shared, why), self.now, SHARED_KEPT);
            // It may take longer than what was written is remembered.
            for shared in client.replica_wait.iter().flat_map(|wait| wait.shared_conns()) {
                keep(*shared, Kept::InUse);
            }
        }
    }

    /// Ends all that is left.
    pub(super) fn close_all(&mut self) {
        let left: Vec<usize> = self.clients.iter().map(|(index, _)| index).collect();
        for index in left {
            self.close_client(index);
        }
        self.tee.flush();
    }
}

/// Which retired shared connections are closed where there are too many: those that are needed least, of them the oldest; none in use.
fn surplus(mut retired: Vec<(Kept, Instant, usize)>) -> impl Iterator<Item = usize> {
    retired.sort_unstable();
    let too_many = retired.len().saturating_sub(RETIRED_MAX);
    retired.into_iter().take(too_many).filter(|(kept, ..)| *kept != Kept::InUse).map(|(_, _, index)| index)
}

#[cfg(test)]
mod tests {
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
