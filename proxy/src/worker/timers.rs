//! Work at each tick: timeouts of clients and connections, the end of idle shared connections, draining.

use redtape_net::CONNECT_TIMEOUT;

use super::Worker;
use super::client_table::Timeouts;
use super::clock::{TICK, TICK_CONNECTING, TICK_DRAINING};
use super::upstream_pool::{Kept, SHARED_KEPT, SIGN_OF_LIFE};

impl Worker {
    pub(super) fn tick(&mut self) {
        if self.now < self.next_tick && self.draining.is_none() {
            return;
        }
        if self.pool.is_connecting() || self.liveness.probe().is_some() {
            self.check_conns();
        }
        let is_due = self.now >= self.next_check;
        if is_due || self.draining.is_some() {
            self.check_clients();
        }
        // Stalls are counted in ticks of this length, also while clients are drained.
        if is_due {
            self.next_check = self.now + TICK;
            self.shared.status.numbers.clients.memory_bytes.set(self.clients.total_memory() as i64);
            self.check_stalls();
            self.check_shared();
            self.check_acks();
        }
        let pause = match self.draining {
            Some(_) => TICK_DRAINING,
            None if self.pool.is_connecting() || self.liveness.probe().is_some() => TICK_CONNECTING,
            None => TICK,
        };
        self.next_tick = (self.now + pause).min(self.next_check.max(self.now));
    }

    fn check_conns(&mut self) {
        for index in self.pool.overdue(self.now) {
            self.connect_failed(index, &format!("no answer within {} s", CONNECT_TIMEOUT.as_secs()));
        }
        if let Some(probe) = self.liveness.probe()
            && let Some(probe) = self.pool.get(probe)
            && probe.is_ready()
        {
            // Connected, and silent for this long: a busy server counts as alive.
            let since = probe.progress;
            if self.now.saturating_duration_since(since) >= super::disconnect::ALIVE_TIMEOUT {
                self.probe_answered(true);
            }
        }
    }

    fn check_clients(&mut self) {
        let timeouts = Timeouts {
            handshake: self.live.handshake_timeout,
            idle: self.live.idle_timeout,
            draining: self.draining.is_some(),
        };
        let check = self.clients.check(self.now, timeouts);
        for index in check.close {
            self.close_client(index);
        }
        for index in check.alive {
            self.keep_pinned_alive(index);
        }
        self.flush_conns();
    }

    /// Sends a sign of life on a session's pinned connection, which has nothing in flight; requests in flight on a
    /// shared connection stay there.
    fn keep_pinned_alive(&mut self, index: usize) {
        let client = &mut self.clients[index];
        let Some(pinned) = client.pinned else { return };
        // With nothing in flight, it needs no sign of life until it uses a shared connection again.
        client.behind = client.in_flight() > 0;
        client.pinned_active = self.now;
        // A server that has not read the last line yet needs no other.
        if self.pool[pinned].out.is_empty() {
            self.pool[pinned].out.push(SIGN_OF_LIFE);
            self.pool.make_dirty(pinned);
        }
    }

    /// Closes unneeded shared connections, and keeps the others alive.
    fn check_shared(&mut self) {
        self.mark_kept_conns();
        let upkeep = self.pool.upkeep(self.now);
        for index in upkeep.alive {
            self.pool[index].out.push(SIGN_OF_LIFE);
            self.pool.make_dirty(index);
        }
        for index in upkeep.close {
            self.shared_lost(index);
        }
        self.flush_conns();
    }

    /// Marks the shared connections that carried some session's last writes.
    fn mark_kept_conns(&mut self) {
        self.pool.keep_none();
        for client in self.clients.iter_mut() {
            let why = client.wrote.kept();
            client.wrote.look(|shared| self.pool.keep(shared, why), self.now, SHARED_KEPT);
            // A `WAIT` may take longer than writes are remembered.
            for shared in client.replica_wait.iter().flat_map(|wait| wait.shared_conns()) {
                self.pool.keep(*shared, Kept::InUse);
            }
        }
    }

    /// Closes everything that is left.
    pub(super) fn close_all(&mut self) {
        for index in self.clients.which(|_| true) {
            self.close_client(index);
        }
        self.tee.flush();
    }
}
