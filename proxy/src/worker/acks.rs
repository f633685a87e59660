//! `--ack journal`, the worker's part: carries out the decisions of [`AckGate`](super::ack_gate). Opens, uses and
//! closes the offset probe, sends released replies, and disconnects clients after the time limit.

use std::sync::atomic::Ordering;

use redtape_net::CONNECT_TIMEOUT;
use redtape_wire::url::Secret;

use super::Worker;
use super::ack_gate::{ACK_TIMEOUT, BlockedBy, INFO_REPLICATION, Missing, ProbeAction};
use super::refs::{ClientRef, ConnRef};
use super::upstream_pool::Role;
use crate::upstream::Unreachable;

impl Worker {
    /// True if a write may be forwarded now; otherwise the client waits for the probe, or gets an error.
    pub(super) fn passes_ack_gate(&mut self, client: ClientRef) -> Result<bool, Unreachable> {
        let Some(gate) = &mut self.ack_gate else { return Ok(true) };
        if gate.admits(client) {
            return Ok(true);
        }
        self.reopen_offset_probe()?;
        Ok(false)
    }

    fn open_offset_probe(&mut self) -> Result<(), Unreachable> {
        self.shared.upstream.may_try()?;
        let conn = self.dial(Role::OffsetProbe, self.now + CONNECT_TIMEOUT)?;
        if let Some(gate) = &mut self.ack_gate {
            gate.opening(conn);
        }
        Ok(())
    }

    /// The first bytes on the offset probe.
    pub(super) fn introduce_offset_probe(&mut self) -> Vec<u8> {
        let url = &self.shared.upstream.connector.url;
        let password = url.password.as_ref().map(Secret::expose);
        let login = password.map(|password| (url.username.as_deref(), password));
        self.ack_gate.as_mut().map(|gate| gate.introduce(login, self.now)).unwrap_or_default()
    }

    /// At the end of a turn: requests the offset for the replies withheld in it.
    pub(super) fn ask_offset(&mut self) {
        let Some(gate) = &mut self.ack_gate else { return };
        let Some(conn) = gate.due(self.now) else { return };
        self.send_offset_request(conn);
        // The capture may need these replies to attribute the effects.
        self.tee.flush_and_call();
        self.flush_conns();
    }

    fn send_offset_request(&mut self, probe: ConnRef) {
        if let Some(conn) = self.pool.get_mut(probe) {
            conn.out.push(INFO_REPLICATION);
            self.pool.make_dirty(probe.index);
        }
    }

    /// Handles answers on the offset probe.
    pub(super) fn offset_probe_replies(&mut self, bytes: &[u8]) {
        let mut at = 0;
        while at < bytes.len() {
            let Some(gate) = &mut self.ack_gate else { return };
            let (used, action) = gate.receive(&bytes[at..], self.now);
            at += used;
            match action {
                ProbeAction::None => {}
                ProbeAction::Resume { other_history, blocked } => {
                    if other_history {
                        self.disconnect_all();
                    }
                    self.resume(blocked);
                }
                ProbeAction::Lose(why) => return self.offset_probe_lost(&why),
            }
        }
        self.release();
    }

    /// Earlier connections may lead to another server than the offset probe.
    fn disconnect_all(&mut self) {
        for shared in self.pool.open_shared() {
            self.shared_lost(shared);
        }
        let old = self.clients.which(|client| client.pinned.is_some());
        tracing::warn!(clients = old.len(), "the server has another history: clients are disconnected");
        for index in old {
            self.close_client(index);
        }
    }

    /// Clients blocked on a missing offset probe resume when the replica link is back.
    pub(super) fn reopen_offset_probe(&mut self) -> Result<(), Unreachable> {
        let Some(gate) = &self.ack_gate else { return Ok(()) };
        if !gate.wants_probe(self.shared.durability.is_following()) {
            return Ok(());
        }
        let opened = self.open_offset_probe();
        if opened.is_err() {
            self.resume_blocked();
        }
        opened
    }

    fn resume_blocked(&mut self) {
        let blocked = self.ack_gate.as_mut().map(super::ack_gate::AckGate::take_blocked);
        self.resume(blocked.unwrap_or_default());
    }

    /// Blocked clients try again.
    fn resume(&mut self, blocked: Vec<ClientRef>) {
        for client in blocked {
            self.clients.resume(client);
        }
    }

    /// The offset for the replies in flight can no longer be learned.
    pub(super) fn offset_probe_lost(&mut self, why: &str) {
        let Some(gate) = &mut self.ack_gate else { return };
        let loss = gate.probe_lost();
        self.close_conn(loss.conn);
        match &loss.blocked {
            BlockedBy::Interruption(_) => {
                tracing::warn!("the connection that tells which writes are durable is lost ({why}); opening another");
            }
            BlockedBy::Refusal { is_news: true, .. } => {
                tracing::error!("writes cannot be acknowledged: {why}. redtape's user needs +info on the upstream");
                self.shared.metrics.error("ack_barrier");
            }
            BlockedBy::Refusal { is_news: false, .. } => {}
        }
        for index in self.clients.which(|client| client.withholds() || client.state.has_write_under_way()) {
            self.close_client(index);
        }
        match loss.blocked {
            BlockedBy::Interruption(clients) => self.resume(clients),
            BlockedBy::Refusal { clients, .. } => {
                for client in clients {
                    if self.clients.get_mut(client).is_some() {
                        self.finish(client.index);
                    }
                }
            }
        }
    }

    /// Sends the replies that are covered.
    pub(super) fn release(&mut self) {
        let (Some(gate), Some(waiter)) = (&mut self.ack_gate, &self.durable_waiter) else { return };
        let durability = &self.shared.durability;
        let covered = gate.covered(|| {
            // The order matters: any later change of the position wakes this worker.
            waiter.wants.store(true, Ordering::SeqCst);
            durability.position()
        });
        let Some(covered) = covered else { return };
        while let Some(gate) = &mut self.ack_gate
            && let Some((reference, since)) = gate.next_covered(covered)
        {
            let waited = self.now.saturating_duration_since(since);
            self.shared.metrics.clients.ack_seconds.observe(waited.as_secs_f64());
            let Some(client) = self.clients.get_mut(reference) else { continue };
            client.release(covered);
            self.client_writable(reference);
            self.after_replies(reference);
        }
    }

    /// At each tick: disconnects late clients, and keeps the probe alive.
    pub(super) fn check_acks(&mut self) {
        let Some(gate) = &mut self.ack_gate else { return };
        self.shared.status.numbers.clients.ack_waiting.add(gate.waiting_change());
        match gate.missing(self.shared.durability.is_following()) {
            Missing::No => {}
            // Blocked clients get the reason when they try again.
            Missing::Open => drop(self.open_offset_probe()),
            Missing::NotFollowing => self.resume_blocked(),
        }
        let Some(gate) = &mut self.ack_gate else { return };
        let tick = gate.tick(self.now);
        for _ in 0..tick.requests {
            if let Some(conn) = self.ack_gate.as_mut().and_then(|gate| gate.question(self.now)) {
                self.send_offset_request(conn);
            }
        }
        self.flush_conns();
        if tick.is_silent {
            self.offset_probe_lost("the server does not answer");
        }
        let mut closed = 0;
        for client in tick.late {
            if self.clients.get_mut(client).is_some() {
                closed += 1;
                self.shared.metrics.error("ack_timeout");
                self.close_client(client.index);
            }
        }
        if closed > 0 {
            tracing::error!(
                clients = closed,
                "writes were not on the disk within {} s: their clients are disconnected without an answer",
                ACK_TIMEOUT.as_secs()
            );
        }
    }
}
