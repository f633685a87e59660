//! `--ack journal`: a reply that tells of a write goes when the write is synced, and what comes behind it in its
//! session waits with it.
//!
//! ```text
//! reply read ─► withheld with a ticket ─► end of the turn: INFO replication on the barrier ─► (history, offset)
//!                                                                   durable position covers it ─► reply goes
//! ```
//!
//! The **barrier** is a connection of the worker's own, as redtape's user. Whatever the server did before it answers
//! there is at or before the offset that it says (Redis moves the offset while a command runs; replies leave later).
//!
//! Invariants:
//! - shared and pinned connections lead to the server to which the barrier leads: all go to one address, and when the barrier finds
//!   another history there, all clients are disconnected;
//! - a write is forwarded only while the barrier stands, and its reply goes only if the same barrier stood all the
//!   while: then both speak of one life of the server. If the barrier falls, whoever has a write under way is
//!   disconnected without an answer, as by a server that died;
//! - so is who waits longer than [`ACK_TIMEOUT`]: the write may have run, and is not known to be durable.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use redtape_capture::Waiter;
use redtape_journal::ReplOffset;
use redtape_net::CONNECT_TIMEOUT;
use redtape_wire::info::info_field;
use redtape_wire::resp::{ReplyScanner, encode_command};
use redtape_wire::url::Secret;

use super::Worker;
use super::tickets::Tickets;
use super::upstream_conn::{ClientRef, Role};
use crate::upstream::NoWay;

/// A reply whose write is not on the disk after this time is not given any more.
pub(super) const ACK_TIMEOUT: Duration = Duration::from_secs(10);
/// A barrier that nobody has used for so long is: a server with a `timeout` would close it.
const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// The question.
const ASK: &[u8] = b"*2\r\n$4\r\nINFO\r\n$11\r\nreplication\r\n";
/// No answer is longer.
const ANSWER_MAX: usize = 64 * 1024;

/// See the module.
#[derive(Debug)]
pub(super) struct Acks {
    pub(super) tickets: Tickets,
    /// Index and generation of its connection.
    barrier: Option<(usize, u64)>,
    /// It stands: the server has answered on it.
    stands: bool,
    /// The server's replication id when the barrier came to stand last.
    history: Option<String>,
    /// Why it does not stand was said.
    complained: bool,
    /// Answers before the first that counts.
    logging_in: usize,
    input: Vec<u8>,
    scanner: ReplyScanner,
    asked_at: Instant,
    /// When the server answered last, or the oldest open question was asked.
    heard_at: Instant,
    /// Questions that a busy server has put off.
    put_off: usize,
    /// Told to the metrics.
    reported: i64,
    /// Who has withheld replies, with their tickets, oldest first.
    holders: VecDeque<(u64, ClientRef, Instant)>,
    /// Who waits for the barrier.
    blocked_clients: Vec<ClientRef>,
    waiter: Arc<Waiter>,
}

impl Acks {
    pub(super) fn new(waiter: Arc<Waiter>, now: Instant) -> Self {
        Self {
            tickets: Tickets::default(),
            barrier: None,
            stands: false,
            history: None,
            complained: false,
            logging_in: 0,
            input: Vec::new(),
            scanner: ReplyScanner::new(),
            asked_at: now,
            heard_at: now,
            put_off: 0,
            reported: 0,
            holders: VecDeque::new(),
            blocked_clients: Vec::new(),
            waiter,
        }
    }

    /// A reply of this client is withheld.
    pub(super) fn hold(&mut self, client: ClientRef, now: Instant) -> u64 {
        let ticket = self.tickets.take();
        if self.holders.back().is_none_or(|(t, c, _)| (*t, *c) != (ticket, client)) {
            self.holders.push_back((ticket, client, now));
        }
        ticket
    }
}

impl Worker {
    /// Whether a write may be forwarded now; else the client waits for the barrier, or hears why there is none.
    pub(super) fn passes_barrier(&mut self, client: ClientRef) -> Result<bool, NoWay> {
        let Some(acks) = &mut self.acks else { return Ok(true) };
        if acks.stands {
            return Ok(true);
        }
        acks.blocked_clients.push(client);
        self.reopen_barrier()?;
        Ok(false)
    }

    fn open_barrier(&mut self) -> Result<(), NoWay> {
        self.shared.upstream.may_try()?;
        let conn = self.dial(Role::Barrier, self.now + CONNECT_TIMEOUT)?;
        let generation = self.conns[conn].generation;
        if let Some(acks) = &mut self.acks {
            acks.barrier = Some((conn, generation));
            acks.input.clear();
            acks.scanner = ReplyScanner::new();
        }
        Ok(())
    }

    /// What the barrier says first.
    pub(super) fn introduce_barrier(&mut self) -> Vec<u8> {
        let url = &self.shared.upstream.connector.url;
        let mut bytes = Vec::new();
        let mut logging_in = 1;
        if let Some(password) = url.password.as_ref().map(Secret::expose) {
            let auth: Vec<&str> = ["AUTH"].into_iter().chain(url.username.as_deref()).chain([password]).collect();
            encode_command(&mut bytes, &auth);
            logging_in += 1;
        }
        // Its answer says that the barrier stands.
        bytes.extend_from_slice(ASK);
        if let Some(acks) = &mut self.acks {
            acks.logging_in = logging_in;
            acks.put_off = 0;
            (acks.asked_at, acks.heard_at) = (self.now, self.now);
        }
        bytes
    }

    /// At the end of a turn: for what was withheld in it the server is asked how far it is.
    pub(super) fn ask_offset(&mut self) {
        let Some(acks) = &mut self.acks else { return };
        let idle = !acks.tickets.are_asked();
        if !acks.stands || !acks.tickets.ask() {
            return;
        }
        if idle {
            acks.heard_at = self.now;
        }
        self.ask_barrier();
        // The capture may wait for these replies to know whose the effects are.
        self.tee.flush_and_call();
        self.flush_conns();
    }

    fn ask_barrier(&mut self) {
        let Some(acks) = &mut self.acks else { return };
        let Some((conn, _)) = acks.barrier else { return };
        acks.asked_at = self.now;
        self.conns[conn].out.push(ASK);
        self.make_dirty(conn);
    }

    /// The server's answers on the barrier.
    pub(super) fn barrier_replies(&mut self, bytes: &[u8]) {
        let Some(acks) = &mut self.acks else { return };
        let mut at = 0;
        while at < bytes.len() {
            let Ok((len, frame)) = acks.scanner.scan(&bytes[at..]) else {
                return self.barrier_lost("what the server says is no RESP");
            };
            acks.input.extend_from_slice(&bytes[at..at + len]);
            at += len;
            if frame.is_none() {
                if acks.input.len() > ANSWER_MAX {
                    return self.barrier_lost("the answer to INFO replication is too long");
                }
                continue;
            }
            let said = String::from_utf8_lossy(&acks.input).into_owned();
            acks.input.clear();
            acks.heard_at = self.now;
            if said.starts_with("-BUSY") && acks.logging_in <= 1 {
                // A script runs for long. Whatever it is asked later is true of now as well.
                acks.put_off += 1;
                continue;
            }
            if said.starts_with('-') {
                let why = format!("the server refuses: {}", said.trim_end().trim_start_matches('-'));
                return self.barrier_lost(&why);
            }
            if acks.logging_in > 1 {
                acks.logging_in -= 1;
                continue;
            }
            let offset = info_field(&said, "master_repl_offset").and_then(|n| n.parse().ok());
            let (Some(replid), Some(offset)) = (info_field(&said, "master_replid"), offset) else {
                return self.barrier_lost("INFO replication has no replication id or offset");
            };
            if info_field(&said, "role") != Some("master") {
                return self.barrier_lost("the upstream is a replica");
            }
            if acks.logging_in == 0 && acks.history.as_deref() != Some(replid) {
                return self.barrier_lost("the server's history has changed");
            }
            if acks.logging_in == 1 {
                acks.logging_in = 0;
                acks.stands = true;
                acks.complained = false;
                let before = acks.history.replace(replid.to_owned());
                if before.is_some_and(|before| before != replid) {
                    // Connections from before may lead to another server than the barrier now does.
                    for shared in self.shared_conns.open().collect::<Vec<_>>() {
                        self.shared_lost(shared);
                    }
                    let old: Vec<usize> =
                        self.clients.iter().filter(|(_, c)| c.pinned.is_some()).map(|(i, _)| i).collect();
                    tracing::warn!(clients = old.len(), "the server has another history: clients are disconnected");
                    for index in old {
                        self.close_client(index);
                    }
                }
                self.unblock_clients();
                return self.barrier_replies(&bytes[at..]);
            }
            if !acks.tickets.answered(replid.to_owned(), ReplOffset(offset)) {
                return self.barrier_lost("an answer that nobody has asked for");
            }
        }
        self.release();
    }

    /// Clients blocked on a missing barrier get one when the replica link is back.
    pub(super) fn reopen_barrier(&mut self) -> Result<(), NoWay> {
        let Some(acks) = &self.acks else { return Ok(()) };
        let wanted = acks.barrier.is_none() && !acks.blocked_clients.is_empty();
        // A server may take another replication id when the tap attaches: the barrier comes behind it.
        if !wanted || !self.shared.durability.is_following() {
            return Ok(());
        }
        let opened = self.open_barrier();
        if opened.is_err() {
            self.unblock_clients();
        }
        opened
    }

    /// Those who wait for the barrier try again.
    fn unblock_clients(&mut self) {
        let Some(acks) = &mut self.acks else { return };
        for client in std::mem::take(&mut acks.blocked_clients) {
            if let Some(c) = self.client(client) {
                c.waiting = false;
                self.queue_client(client);
            }
        }
    }

    /// Nobody can say how far the server was when it answered what is under way.
    pub(super) fn barrier_lost(&mut self, why: &str) {
        let Some(acks) = &mut self.acks else { return };
        let stood = std::mem::take(&mut acks.stands);
        let complained = std::mem::replace(&mut acks.complained, !stood);
        acks.tickets.forget();
        acks.holders.clear();
        acks.logging_in = 0;
        if let Some((conn, generation)) = acks.barrier.take()
            && self.conn(conn, generation).is_some()
        {
            self.drop_conn(conn);
        }
        if stood {
            tracing::warn!("the connection that tells which writes are durable is lost ({why}); opening another");
        } else if !complained {
            tracing::error!("writes can't be acknowledged: {why}. redtape's user needs +info on the upstream");
            self.shared.metrics.error("ack_barrier");
        }
        let doubtful = |c: &super::client::Client| c.withholds() || c.state.has_write_under_way();
        let lost: Vec<usize> = self.clients.iter().filter(|(_, c)| doubtful(c)).map(|(index, _)| index).collect();
        for index in lost {
            self.close_client(index);
        }
        if stood {
            self.unblock_clients();
            return;
        }
        // One that never stood would not stand at the next try either.
        let waiting = self.acks.as_mut().map(|acks| std::mem::take(&mut acks.blocked_clients));
        for client in waiting.into_iter().flatten() {
            if self.client(client).is_some() {
                self.finish(client.index);
            }
        }
    }

    /// Gives the replies that are covered by now.
    pub(super) fn release(&mut self) {
        let Some(acks) = &mut self.acks else { return };
        if !acks.tickets.wait() {
            return;
        }
        // In this order: whatever moves the position from here on wakes us.
        acks.waiter.wants.store(true, Ordering::SeqCst);
        let position = self.shared.durability.position();
        let Some(covered) = acks.tickets.covered(&position) else { return };
        while let Some(acks) = &mut self.acks
            && let Some((_, reference, since)) = acks.holders.pop_front_if(|(ticket, ..)| *ticket <= covered)
        {
            let waited = self.now.saturating_duration_since(since);
            self.shared.metrics.clients.ack_seconds.observe(waited.as_secs_f64());
            let Some(client) = self.client(reference) else { continue };
            client.release(covered);
            self.client_writable(reference);
            self.after_replies(reference);
        }
    }

    /// By the clock: who has waited too long, and a barrier that nobody uses.
    pub(super) fn check_acks(&mut self) {
        let Some(acks) = &mut self.acks else { return };
        let holders = acks.holders.len() as i64;
        self.shared.metrics.clients.ack_waiting.add(holders - acks.reported);
        acks.reported = holders;
        // It stands before anybody asks for it.
        if acks.barrier.is_none() {
            if self.shared.durability.is_following() {
                let _ = self.open_barrier();
            } else {
                // By now they may be told that it does not follow.
                self.unblock_clients();
            }
        }
        let Some(acks) = &mut self.acks else { return };
        let mut late = Vec::new();
        while let Some((ticket, client, _)) =
            acks.holders.pop_front_if(|(_, _, since)| self.now.saturating_duration_since(*since) >= ACK_TIMEOUT)
        {
            acks.tickets.forget_until(ticket);
            late.push(client);
        }
        let (asked, heard) = (acks.asked_at, acks.heard_at);
        let open = (acks.stands && acks.tickets.are_asked()) || acks.logging_in > 0;
        let put_off = std::mem::take(&mut acks.put_off);
        let idle = acks.stands && !open && self.now.saturating_duration_since(asked) >= KEEP_ALIVE;
        if idle {
            acks.tickets.ask_for_nobody();
            acks.heard_at = self.now;
        }
        for _ in 0..put_off + usize::from(idle) {
            self.ask_barrier();
        }
        self.flush_conns();
        if open && put_off == 0 && self.now.saturating_duration_since(heard) >= ACK_TIMEOUT {
            self.barrier_lost("the server does not answer");
        }
        let mut closed = 0;
        for client in late {
            if self.client(client).is_some() {
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
