//! From the server to clients: reads connections, finds out whose each reply is, and writes.

use std::io;

use redtape_journal::Micros;

use super::client::{CLIENT_OUT_HIGH, Client};
use super::refs::{ClientRef, ConnRef};
use super::replica_wait::ANSWER_MAX;
use super::session_writes::moves_by_any_command;
use super::upstream_conn::{Role, Stage};
use super::{CONN_READS_MAX, READ_BYTES, Worker};
use crate::commands::AdminCommands;
use crate::session::Intent;

/// Passes what was held back of a reply, as far as the client is to see it.
fn pass_held(
    admin: &AdminCommands,
    client: &mut Client,
    answered: Option<&Intent>,
    held: Vec<u8>,
    ticket: Option<u64>,
) -> io::Result<()> {
    match answered {
        Some(Intent::Ours) => {
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

/// Of the answer to `HELLO`, as much is looked at.
const HELLO_MAX: usize = 4096;

impl Worker {
    /// Reads a connection that is ready.
    pub(super) fn serve_conn(&mut self, reference: ConnRef) {
        let index = reference.index;
        let Some(conn) = self.conn(reference) else { return };
        if matches!(conn.stage, Stage::Connecting { .. }) {
            self.go_on_connecting(index);
        }
        let mut scratch = std::mem::take(&mut self.scratch);
        for _ in 0..CONN_READS_MAX {
            if !self.may_read(reference) {
                break;
            }
            let Some(conn) = self.conn(reference) else { break };
            match conn.socket.read(&mut scratch) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    conn.readable = false;
                }
                // A server that is killed resets the connection: it ended, as with an orderly close.
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
            self.ready_conns.push(reference);
        }
    }

    /// There is something to read, and room for it where it goes.
    fn may_read(&self, reference: ConnRef) -> bool {
        let Some(conn) = self.conns.get(reference.index).filter(|l| l.generation == reference.generation) else {
            return false;
        };
        if !conn.readable || matches!(conn.stage, Stage::Connecting { .. }) {
            return false;
        }
        match &conn.role {
            Role::Shared(_) | Role::Probe | Role::OffsetProbe | Role::Witness => true,
            // With so many requests in flight that no more are taken, replies have to go on, or a client that
            // reads only when it has sent everything would wait for ever.
            // A push must not come into the middle of a reply by a shared connection.
            Role::Pinned(owner) => self.clients.get(owner.index).is_none_or(|c| {
                !c.listens_elsewhere() && (c.unsaid() < CLIENT_OUT_HIGH || c.in_flight() > c.in_flight_max() / 2)
            }),
        }
    }

    fn take_replies(&mut self, index: usize, bytes: &[u8]) {
        match &self.conns[index].role {
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

    /// Replies of a session's own connection: all are its own.
    fn pinned_replies(&mut self, index: usize, owner: ClientRef, bytes: &[u8]) {
        let Some(client) = self.clients.get_mut(owner.index).filter(|c| c.generation == owner.generation) else {
            return;
        };
        let conn = &mut self.conns[index];
        let now = Micros::now();
        let (mut passed, mut at) = (0, 0);
        let mut failed = false;
        let mut ticket = None;
        let mut proved = false;
        if client.state.replies.is_lost()
            && let Some(held) = client.held.take()
        {
            failed |= client.pass(&held, None).is_err();
        }
        while at < bytes.len() && !client.state.replies.is_lost() {
            let held = matches!(client.state.replies.front(), Some(Intent::Ours | Intent::Complete(_)));
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
            // Of replies by a pinned connection only these show that the server works: while all clients are paused, it still refuses
            // requests, and ends the waiting of those who were blocked before.
            if self.has_stalled && !matches!(frame.kind, b'-' | b'!') && client.state.front_would_pause(&self.table) {
                (self.served.any, self.served.writes) = (true, true);
            }
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
                None | Some(Intent::Plain | Intent::Ours | Intent::Complete(_)) => {}
                Some(Intent::Pause(millis)) => self.shared.pause.agreed(millis, self.now),
                Some(intent) => {
                    client.shared_conns = [None; 2];
                    let (_, _, credential) = client.state.standing();
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
        if proved {
            let (_, _, credential) = client.state.standing();
            self.shared_conns.proved(credential);
        }
        let counted = client.replica_wait.as_ref().is_some_and(|wait| wait.on_pinned && !wait.said.is_empty());
        match (failed, counted) {
            (true, _) => self.close_client(owner.index),
            (false, true) => self.replicas_counted(owner),
            (false, false) => self.after_replies(owner),
        }
    }

    /// Replies of a shared connection: each belongs to whoever has waited longest.
    fn shared_replies(&mut self, index: usize, bytes: &[u8]) {
        let now = Micros::now();
        let mut at = 0;
        while at < bytes.len() {
            let conn = &mut self.conns[index];
            if conn.in_push || (bytes[at] == b'>' && conn.scanner.at_boundary()) {
                // Somebody has invalidations sent here. They are nobody's reply.
                let Ok((len, frame)) = conn.scanner.scan(&bytes[at..]) else { return self.shared_lost(index) };
                conn.in_push = frame.is_none();
                at += len;
                continue;
            }
            if !matches!(conn.stage, Stage::Ready) {
                match self.greet(index, &bytes[at..]) {
                    Some(len) => at += len,
                    None => return,
                }
                continue;
            }
            let conn = &mut self.conns[index];
            let Some(front) = conn.queue.front().copied() else {
                // The server says something that nobody has asked for: it is about to close.
                let said = String::from_utf8_lossy(&bytes[at..bytes.len().min(at + 100)]).into_owned();
                tracing::debug!(said, "an unasked reply on a shared connection; it is given up");
                return self.shared_lost(index);
            };
            let mut client =
                self.clients.get_mut(front.client.index).filter(|c| c.generation == front.client.generation);
            let from = at;
            let for_writes = conn.is_for_writes();
            let mut ticket = None;
            let mut left = front.count;
            // A question of ours is alone in flight.
            let ours = client.as_ref().is_some_and(|c| matches!(c.state.replies.front(), Some(Intent::Ours)));
            // A run of replies for one client is one write.
            while at < bytes.len() && left > 0 && !(bytes[at] == b'>' && conn.scanner.at_boundary()) {
                let Ok((len, frame)) = conn.scanner.scan(&bytes[at..]) else {
                    tracing::warn!("what the server sends on a shared connection is no RESP; it is given up");
                    return self.shared_lost(index);
                };
                at += len;
                if let Some(frame) = frame {
                    left -= 1;
                    conn.answered(self.now);
                    self.served.any = true;
                    self.served.writes |= for_writes && frame.kind != b'-';
                    if let Some(client) = &mut client {
                        client.state.reply(&frame, &mut self.tee, now);
                    }
                }
            }
            let Some(client) = client else { continue };
            if let Some(wait) = &mut client.replica_wait {
                wait.said.extend_from_slice(&bytes[from..at]);
                if wait.said.len() > ANSWER_MAX {
                    self.finish(front.client.index);
                } else if left < front.count {
                    self.replicas_counted(front.client);
                }
                continue;
            }
            if ours || client.is_finished() {
                // The client left its WAIT, or is told nothing more.
                continue;
            }
            if let Some(gate) = &mut self.ack_gate
                && (client.state.take_acknowledged() || client.state.may_acknowledge(conn.scanner.at_boundary()))
            {
                ticket = Some(gate.hold(front.client, self.now));
            }
            client.active = self.now;
            self.counts.sent += (at - from) as u64;
            if client.pass(&bytes[from..at], ticket).is_err() {
                self.close_client(front.client.index);
            } else {
                self.after_replies(front.client);
            }
        }
        let conn = &self.conns[index];
        if !conn.out.is_empty() && !conn.gathers() {
            self.make_dirty(index);
        }
    }

    /// What a new shared connection hears first. Gives how many bytes were used; `None` = it is given up as one.
    fn greet(&mut self, index: usize, bytes: &[u8]) -> Option<usize> {
        let conn = &mut self.conns[index];
        let Stage::Greeting(answers) = &mut conn.stage else { return None };
        let Ok((len, frame)) = conn.scanner.scan(bytes) else {
            self.shared_lost(index);
            return None;
        };
        self.served.any = true;
        conn.progress = self.now;
        if conn.hello.len() < HELLO_MAX {
            conn.hello.extend_from_slice(&bytes[..len]);
        }
        let Some(frame) = frame else { return Some(len) };
        *answers = answers.saturating_sub(1);
        let ready = *answers == 0;
        if matches!(frame.kind, b'-' | b'!') {
            let Role::Shared(key) = &conn.role else { return None };
            let key = key.clone();
            let line = frame.line.as_bytes();
            tracing::debug!(
                said = String::from_utf8_lossy(line).as_ref(),
                "no shared connection for this user and database; its sessions use their own"
            );
            let codes: &[&[u8]] = match key.credential {
                Some(_) => &[b"WRONGPASS", b"NOPERM", b"NOAUTH"],
                // Nothing was shown, and nothing stands in the ACL LOG.
                None => &[b"NOPERM"],
            };
            let denied = codes.iter().any(|code| line.starts_with(code));
            self.drop_conn(index);
            if denied {
                self.shared_conns.denied(&key);
            } else {
                self.shared_conns.refused(key, self.now);
            }
            return None;
        }
        if ready {
            self.moves_by_any_command = moves_by_any_command(&std::mem::take(&mut conn.hello));
            conn.stage = Stage::Ready;
        }
        Some(len)
    }

    /// A session got replies: what waited for them goes on.
    pub(super) fn after_replies(&mut self, reference: ClientRef) {
        self.account(reference.index);
        let Some(client) = self.clients.get(reference.index).filter(|c| c.generation == reference.generation) else {
            return;
        };
        let in_reply =
            client.pinned.and_then(|pinned| self.conns.get(pinned)).is_some_and(|h| !h.scanner.at_boundary());
        let limit = client.out_max(self.live.output_limit, in_reply);
        if client.unsaid() > limit {
            let session = client.state.id();
            self.shared.metrics.error("output_limit");
            tracing::warn!(session, limit, "a client that does not read its replies is disconnected");
            return self.close_client(reference.index);
        }
        let in_flight = client.in_flight();
        if in_flight == 0 && client.on_shared {
            self.nudge_pinned(reference.index);
        }
        let Some(client) = self.client(reference) else { return };
        if matches!(client.stage, super::client::Stage::Ending { .. }) {
            if in_flight == 0 {
                self.finish(reference.index);
            }
            return;
        }
        if client.waiting && (in_flight == 0 || (!client.on_shared && in_flight <= client.in_flight_max() / 2)) {
            client.waiting = false;
            self.queue_client(reference);
        } else if client.questioned && in_flight == 0 {
            // One that was let in asks no more.
            client.questioned = !client.state.is_admitted();
            self.queue_client(reference);
        } else if client.eof && client.on_shared && in_flight == 0 && !client.waiting {
            client.on_shared = false;
            self.queue_client(reference);
        }
    }
}
