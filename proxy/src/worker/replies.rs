//! From the server to clients: reads connections, assigns each reply to its client, and writes.

use std::io;

use redtape_journal::Micros;

use super::client_table::{AfterReplies, CLIENT_OUT_HIGH, Client};
use super::refs::{ClientRef, ConnRef};
use super::replica_wait::ANSWER_MAX;
use super::upstream_pool::{Greeted, Role, Stage};
use super::{CONN_READS_MAX, READ_BYTES, Worker};
use crate::commands::AdminCommands;
use crate::session::Intent;

/// Passes on a reply that was held back, as far as the client should see it.
fn pass_held(
    admin: &AdminCommands,
    client: &mut Client,
    answered: Option<&Intent>,
    held: Vec<u8>,
    ticket: Option<u64>,
) -> io::Result<()> {
    match answered {
        Some(Intent::Internal) => {
            client.take_count(held);
            Ok(())
        }
        Some(Intent::Complete(lack)) => {
            let whole = admin.complete(lack, &held, client.state.replies.resp3);
            client.pass(&whole, ticket)
        }
        // A push came before it.
        _ => client.pass(&held, ticket),
    }
}

/// Facts from replies of a pinned connection that were read together.
#[derive(Debug, Clone, Copy, Default)]
struct PinnedRun {
    /// The client's socket is broken.
    failed: bool,
    /// A write ran that the server would delay during a pause.
    wrote: bool,
    /// The server accepted the session's credentials.
    proved: bool,
}

impl Worker {
    /// Reads a ready connection.
    pub(super) fn serve_conn(&mut self, reference: ConnRef) {
        let index = reference.index;
        let Some(conn) = self.pool.get_mut(reference) else { return };
        if matches!(conn.stage, Stage::Connecting { .. }) {
            self.go_on_connecting(index);
        }
        let mut scratch = std::mem::take(&mut self.scratch);
        for _ in 0..CONN_READS_MAX {
            if !self.may_read(reference) {
                break;
            }
            let Some(conn) = self.pool.get_mut(reference) else { break };
            match conn.socket.read(&mut scratch) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    conn.readable = false;
                }
                // A killed server resets the connection: treated like an orderly close.
                Ok(0) | Err(_) => {
                    conn.readable = false;
                    self.conn_lost(index);
                }
                Ok(n) => {
                    if conn.socket.is_drained_by(n, READ_BYTES) && !conn.read_closed {
                        conn.readable = false;
                    }
                    self.take_replies(index, &scratch[..n]);
                }
            }
        }
        self.scratch = scratch;
        if self.may_read(reference) {
            self.pool.queue(reference);
        }
    }

    /// True if there is input, and room for it at its destination.
    fn may_read(&self, reference: ConnRef) -> bool {
        let Some(conn) = self.pool.get(reference) else {
            return false;
        };
        if !conn.readable || matches!(conn.stage, Stage::Connecting { .. }) {
            return false;
        }
        match &conn.role {
            Role::Shared(_) | Role::Probe | Role::OffsetProbe | Role::Witness => true,
            // With this many requests in flight no more are read, so replies must be passed on: a client that reads
            // only after sending everything would otherwise wait for ever.
            // A push must not come in the middle of a reply from a shared connection.
            Role::Pinned(owner) => self.clients.at(owner.index).is_none_or(|c| {
                !c.listens_elsewhere() && (c.unsaid() < CLIENT_OUT_HIGH || c.in_flight() > c.in_flight_max() / 2)
            }),
        }
    }

    fn take_replies(&mut self, index: usize, bytes: &[u8]) {
        match &self.pool[index].role {
            Role::Pinned(owner) => {
                let owner = *owner;
                self.pinned_replies(index, owner, bytes);
            }
            Role::Shared(_) => self.shared_replies(index, bytes),
            Role::Probe => self.probe_answered(true),
            Role::OffsetProbe => self.offset_probe_replies(bytes),
            Role::Witness => self.witness_answered(true),
        }
    }

    /// Replies of a pinned connection: all belong to its session.
    fn pinned_replies(&mut self, index: usize, owner: ClientRef, bytes: &[u8]) {
        let Some(client) = self.clients.get_mut(owner) else {
            return;
        };
        let has_stalled = self.pool.has_stalled();
        let conn = &mut self.pool[index];
        let now = Micros::now();
        let PinnedRun { mut failed, mut wrote, mut proved } = PinnedRun::default();
        let (mut passed, mut at) = (0, 0);
        let mut ticket = None;
        if client.state.replies.is_desynced()
            && let Some(held) = client.held.take()
        {
            failed |= client.pass(&held, None).is_err();
        }
        while at < bytes.len() && !client.state.replies.is_desynced() {
            let held = matches!(client.state.replies.front(), Some(Intent::Internal | Intent::Complete(_)));
            if held && client.held.is_none() && conn.scanner.at_boundary() {
                failed |= client.pass(&bytes[passed..at], ticket).is_err();
                passed = at;
                client.held = Some(Vec::new());
            }
            let Ok((len, frame)) = conn.scanner.scan(&bytes[at..]) else {
                client.state.close(&mut self.tee, now);
                if let Some(held) = client.held.take() {
                    failed |= client.pass(&held, None).is_err();
                }
                break;
            };
            at += len;
            if let Some(held) = &mut client.held {
                held.extend_from_slice(&bytes[passed..at]);
                passed = at;
            }
            let Some(frame) = frame else { continue };
            // Only these replies of a pinned connection show that the server works: while all clients are paused, it
            // still refuses requests, and ends the waits of clients blocked before.
            wrote |= has_stalled && !matches!(frame.kind, b'-' | b'!') && client.state.front_would_pause(&self.table);
            let answered = client.state.reply(&frame, &mut self.tee, now);
            if let Some(gate) = &mut self.ack_gate
                && client.state.take_acknowledged()
            {
                ticket = Some(gate.hold(owner, self.now));
            }
            if let Some(held) = client.held.take() {
                failed |= pass_held(&self.shared.admin, client, answered.as_ref(), held, ticket).is_err();
            }
            match answered {
                None | Some(Intent::Plain | Intent::Internal | Intent::Complete(_)) => {}
                Some(Intent::Pause(millis)) => self.shared.pause.agreed(millis, self.now),
                Some(intent) => {
                    client.shared_conns = [None; 2];
                    let (_, _, credential) = client.state.context();
                    proved |= !matches!(frame.kind, b'-' | b'!') && intent.proves(credential.is_some());
                }
            }
        }
        if let Some(gate) = &mut self.ack_gate
            && client.state.may_acknowledge(conn.scanner.at_boundary())
        {
            ticket = Some(gate.hold(owner, self.now));
        }
        failed |= client.pass(&bytes[passed..], ticket).is_err();
        self.counts.sent += bytes.len() as u64;
        client.active = self.now;
        self.after_pinned_replies(owner, PinnedRun { failed, wrote, proved });
    }

    /// Follow-up work after replies of a pinned connection.
    fn after_pinned_replies(&mut self, owner: ClientRef, run: PinnedRun) {
        let Some(client) = self.clients.get(owner) else { return };
        if run.wrote {
            self.pool.wrote_elsewhere();
        }
        if run.proved {
            let (_, _, credential) = client.state.context();
            self.pool.proved(credential);
        }
        let counted = client.replica_wait.as_ref().is_some_and(|wait| wait.on_pinned && !wait.said.is_empty());
        match (run.failed, counted) {
            (true, _) => self.close_client(owner.index),
            (false, true) => self.replicas_counted(owner),
            (false, false) => self.after_replies(owner),
        }
    }

    /// Replies of a shared connection: each belongs to the longest-waiting session.
    fn shared_replies(&mut self, index: usize, bytes: &[u8]) {
        let now = Micros::now();
        let mut at = 0;
        while at < bytes.len() {
            let conn = &mut self.pool[index];
            if conn.is_at_push(bytes[at]) {
                // A client has redirected invalidations here. They are not replies.
                let Ok((len, frame)) = conn.scanner.scan(&bytes[at..]) else { return self.shared_lost(index) };
                conn.in_push = frame.is_none();
                at += len;
                continue;
            }
            let used = if matches!(conn.stage, Stage::Ready) {
                self.run_of_replies(index, &bytes[at..], now)
            } else {
                self.greet(index, &bytes[at..])
            };
            // The connection is gone.
            let Some(used) = used else { return };
            at += used;
        }
        let conn = &self.pool[index];
        if !conn.out.is_empty() && !conn.gathers() {
            self.pool.make_dirty(index);
        }
    }

    /// Passes consecutive replies to the longest-waiting client in one write. Returns how many bytes were used; `None`
    /// = the connection was closed.
    fn run_of_replies(&mut self, index: usize, bytes: &[u8], now: Micros) -> Option<usize> {
        let conn = &mut self.pool[index];
        let Some(front) = conn.queue.front().copied() else {
            // The server sends an unsolicited message: it is about to close.
            let said = String::from_utf8_lossy(&bytes[..bytes.len().min(100)]).into_owned();
            tracing::debug!(said, "an unasked reply on a shared connection; it is given up");
            self.shared_lost(index);
            return None;
        };
        let mut client = self.clients.get_mut(front.client);
        let for_writes = conn.is_for_writes();
        // An internal request is always alone in flight.
        let internal = client.as_ref().is_some_and(|c| matches!(c.state.replies.front(), Some(Intent::Internal)));
        let counts = client.as_ref().is_some_and(|c| c.replica_wait.is_some());
        let (mut at, mut left, mut wrote) = (0, front.count, false);
        while at < bytes.len() && left > 0 && !conn.is_at_push(bytes[at]) {
            let Ok((len, frame)) = conn.scanner.scan(&bytes[at..]) else {
                tracing::warn!("what the server sends on a shared connection is no RESP; it is given up");
                self.shared_lost(index);
                return None;
            };
            at += len;
            if let Some(frame) = frame {
                left -= 1;
                conn.answered(self.now);
                wrote |= for_writes && frame.kind != b'-';
                if let Some(client) = &mut client {
                    client.state.reply(&frame, &mut self.tee, now);
                }
            }
        }
        let at_boundary = conn.scanner.at_boundary();
        let answered = left < front.count;
        if answered {
            self.pool.served(wrote);
        }
        if counts {
            self.counting_replies(front.client, &bytes[..at], answered);
        } else if !internal {
            // The client may have left its WAIT.
            self.pass_shared(front.client, &bytes[..at], at_boundary);
        }
        Some(at)
    }

    /// An answer to an internal `WAIT` on a shared connection, or a part of it.
    fn counting_replies(&mut self, reference: ClientRef, bytes: &[u8], answered: bool) {
        let Some(client) = self.clients.get_mut(reference) else { return };
        let Some(wait) = &mut client.replica_wait else { return };
        wait.said.extend_from_slice(bytes);
        if wait.said.len() > ANSWER_MAX {
            self.finish(reference.index);
        } else if answered {
            self.replicas_counted(reference);
        }
    }

    /// Passes replies from a shared connection to their client.
    fn pass_shared(&mut self, reference: ClientRef, bytes: &[u8], at_boundary: bool) {
        let now = self.now;
        let Some(client) = self.clients.get_mut(reference) else {
            return;
        };
        if client.is_finished() {
            return;
        }
        let mut ticket = None;
        if let Some(gate) = &mut self.ack_gate
            && (client.state.take_acknowledged() || client.state.may_acknowledge(at_boundary))
        {
            ticket = Some(gate.hold(reference, now));
        }
        client.active = now;
        self.counts.sent += bytes.len() as u64;
        if client.pass(bytes, ticket).is_err() {
            self.close_client(reference.index);
        } else {
            self.after_replies(reference);
        }
    }

    /// Handles the first answers on a new shared connection. Returns how many bytes were used; `None` = it is not used
    /// as one.
    fn greet(&mut self, index: usize, bytes: &[u8]) -> Option<usize> {
        match self.pool.greet(index, bytes, self.now) {
            Greeted::Took(len) => return Some(len),
            Greeted::NoResp => self.shared_lost(index),
            Greeted::Refused(mut conn, said) => {
                tracing::debug!(said, "no shared connection for this user and database; its sessions use their own");
                self.let_go(&mut conn);
            }
        }
        None
    }

    /// A session got replies: what waited for them continues.
    pub(super) fn after_replies(&mut self, reference: ClientRef) {
        self.account(reference.index);
        let Some(client) = self.clients.get(reference) else { return };
        let in_reply = self.pool.pinned(client.pinned).is_some_and(|pinned| !pinned.scanner.at_boundary());
        if client.on_shared && client.in_flight() == 0 {
            self.pool.nudge(client.pinned);
        }
        match self.clients.after_replies(reference, in_reply, self.live.output_limit) {
            AfterReplies::Nothing => {}
            AfterReplies::TooMuchUnread { session, limit } => {
                self.shared.metrics.error("output_limit");
                tracing::warn!(session, limit, "a client that does not read its replies is disconnected");
                self.close_client(reference.index);
            }
            AfterReplies::Finish => self.finish(reference.index),
        }
    }
}
