//! `--ack journal`: which replies are withheld, when the server is asked how far it is, and which replies may go. Decides
//! and returns actions; the worker (`acks.rs`) carries them out.
//!
//! ```text
//! reply read ─► withheld with a ticket ─► end of the turn: INFO replication on the offset probe ─► (history, offset)
//!                                                                   durable position covers it ─► reply goes
//! ```
//!
//! Owns: the tickets, who holds which, who is blocked for lack of a probe, and the protocol state of the **offset probe**,
//! a connection of the worker's own, as redtape's user. Whatever the server did before it answers there is at or before
//! the offset that it says (Redis moves the offset while a command runs; replies leave later).
//!
//! Invariants:
//! - shared and pinned connections lead to the server to which the probe leads: all go to one address, and when the probe
//!   finds another history there, all clients are disconnected;
//! - a write is forwarded only while the probe is ready, and its reply goes only if the same probe was ready all the
//!   while: then both speak of one life of the server. If the probe is lost, every client with a write under way is
//!   disconnected without an answer, as by a server that died;
//! - so is every client that waits longer than [`ACK_TIMEOUT`]: the write may have run, and is not known to be durable;
//! - when the journal fails, the durable position stands still. What waits goes on waiting: it goes out if a later
//!   position of the same history covers it, and its client is disconnected after [`ACK_TIMEOUT`] if none does.

mod probe;
mod tickets;

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use redtape_capture::DurablePosition;

pub(super) use self::probe::INFO_REPLICATION;
use self::probe::{OffsetProbe, ProbeEvent};
use self::tickets::Tickets;
use super::refs::{ClientRef, ConnRef};

/// A reply whose write is not on the disk after this time is not given any more.
pub(super) const ACK_TIMEOUT: Duration = Duration::from_secs(10);
/// A probe that was not used for so long is: a server with a `timeout` would close it.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// What has to be done when the server has spoken on the probe.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ProbeAction {
    /// Nothing.
    None,
    /// These go on. `other_history`: connections from before may lead to another server than the probe does, and are to be
    /// closed first, with their clients.
    Resume { other_history: bool, blocked: Vec<ClientRef> },
    /// [`AckGate::probe_lost`], for this reason.
    Lose(Cow<'static, str>),
}

/// What has to be done for a client whose write came while there is no probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Missing {
    /// There is one.
    No,
    /// One is to be opened.
    Open,
    /// Nobody follows the server: those who are blocked try again, and may be told so.
    NotFollowing,
}

/// What has to be done when the probe is lost, beside disconnecting all clients with a write under way.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ProbeLoss {
    /// To be closed.
    pub(super) conn: Option<ConnRef>,
    pub(super) blocked: BlockedBy,
}

/// What becomes of the clients that wait for a probe that is lost.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum BlockedBy {
    /// It was ready: they wait for the next one.
    Interruption(Vec<ClientRef>),
    /// It never was, nor would the next one be: they are disconnected. `is_news`: this was not said yet.
    Refusal { clients: Vec<ClientRef>, is_news: bool },
}

/// What has to be done by the clock.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct GateTick {
    /// So many requests for the offset are to be sent.
    pub(super) requests: usize,
    /// The server does not answer: [`AckGate::probe_lost`].
    pub(super) is_silent: bool,
    /// They have waited too long, and are to be disconnected.
    pub(super) late: Vec<ClientRef>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct AckGate {
    tickets: Tickets,
    probe: OffsetProbe,
    /// Why there is no probe was said.
    complained: bool,
    /// Told to the metrics.
    reported: i64,
    /// Who has withheld replies, with their tickets and since when, oldest first.
    holders: VecDeque<(u64, ClientRef, Instant)>,
    /// Clients that wait for the probe with a write.
    blocked: Vec<ClientRef>,
}

impl AckGate {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            tickets: Tickets::default(),
            probe: OffsetProbe::new(now),
            complained: false,
            reported: 0,
            holders: VecDeque::new(),
            blocked: Vec::new(),
        }
    }

    /// A reply of this client is withheld: with which ticket.
    pub(super) fn hold(&mut self, client: ClientRef, now: Instant) -> u64 {
        let ticket = self.tickets.take();
        if self.holders.back().is_none_or(|(t, c, _)| (*t, *c) != (ticket, client)) {
            self.holders.push_back((ticket, client, now));
        }
        ticket
    }

    /// Whether a write of this client may be forwarded; else the client is blocked until there is a probe.
    pub(super) fn admits(&mut self, client: ClientRef) -> bool {
        if !self.probe.is_ready() {
            self.blocked.push(client);
        }
        self.probe.is_ready()
    }

    /// Whether blocked clients wait for a probe that is not even being opened. A server may take another replication id
    /// when the replica link attaches: the probe is opened after that.
    pub(super) fn wants_probe(&self, following: bool) -> bool {
        self.probe.conn().is_none() && !self.blocked.is_empty() && following
    }

    /// By the clock: there is a probe before anybody asks for it.
    pub(super) fn missing(&self, following: bool) -> Missing {
        match (self.probe.conn(), following) {
            (Some(_), _) => Missing::No,
            (None, true) => Missing::Open,
            (None, false) => Missing::NotFollowing,
        }
    }

    /// A connection is being opened for the probe.
    pub(super) fn opening(&mut self, conn: ConnRef) {
        self.probe.opening(conn);
    }

    /// The probe is connected: what it says first.
    pub(super) fn introduce(&mut self, login: Option<(Option<&str>, &str)>, now: Instant) -> Vec<u8> {
        self.probe.introduce(login, now)
    }

    /// Clients that were blocked: they try again.
    pub(super) fn take_blocked(&mut self) -> Vec<ClientRef> {
        std::mem::take(&mut self.blocked)
    }

    /// At the end of a turn: whether the server has to be asked, for what was withheld in it; on which connection.
    pub(super) fn due(&mut self, now: Instant) -> Option<ConnRef> {
        let idle = !self.tickets.are_asked();
        if !self.probe.is_ready() || !self.tickets.ask() {
            return None;
        }
        if idle {
            self.probe.heard_at = now;
        }
        self.question(now)
    }

    /// A question is asked now: on which connection.
    pub(super) fn question(&mut self, now: Instant) -> Option<ConnRef> {
        let conn = self.probe.conn()?;
        self.probe.asked_at = now;
        Some(conn)
    }

    /// Takes bytes that came on the probe, up to the end of one answer: how many, and what has to be done.
    pub(super) fn receive(&mut self, bytes: &[u8], now: Instant) -> (usize, ProbeAction) {
        let (used, event) = self.probe.receive(bytes, now);
        let action = match event {
            ProbeEvent::Nothing => ProbeAction::None,
            ProbeEvent::Ready { other_history } => {
                self.complained = false;
                ProbeAction::Resume { other_history, blocked: self.take_blocked() }
            }
            ProbeEvent::Offset(replid, offset) => {
                if self.tickets.answered(replid, offset) {
                    ProbeAction::None
                } else {
                    ProbeAction::Lose("an answer that nobody has asked for".into())
                }
            }
            ProbeEvent::Failed(why) => ProbeAction::Lose(why),
        };
        (used, action)
    }

    /// Nobody can say how far the server was when it answered what is under way.
    pub(super) fn probe_lost(&mut self) -> ProbeLoss {
        let (conn, was_ready) = self.probe.reset();
        let complained = std::mem::replace(&mut self.complained, !was_ready);
        self.tickets.forget();
        self.holders.clear();
        let clients = self.take_blocked();
        let blocked = if was_ready {
            BlockedBy::Interruption(clients)
        } else {
            BlockedBy::Refusal { clients, is_news: !complained }
        };
        ProbeLoss { conn, blocked }
    }

    /// The newest ticket that is covered by now. `position` is called only if anything waits.
    pub(super) fn covered(&mut self, position: impl FnOnce() -> Arc<DurablePosition>) -> Option<u64> {
        if !self.tickets.wait() {
            return None;
        }
        self.tickets.covered(&position())
    }

    /// The next client, and since when it has waited, whose replies may go up to this ticket.
    pub(super) fn next_covered(&mut self, covered: u64) -> Option<(ClientRef, Instant)> {
        let (_, client, since) = self.holders.pop_front_if(|(ticket, ..)| *ticket <= covered)?;
        Some((client, since))
    }

    /// How many more wait than at the last call.
    pub(super) fn waiting_change(&mut self) -> i64 {
        let holders = self.holders.len() as i64;
        holders - std::mem::replace(&mut self.reported, holders)
    }

    /// By the clock.
    pub(super) fn tick(&mut self, now: Instant) -> GateTick {
        let mut late = Vec::new();
        while let Some((ticket, client, _)) =
            self.holders.pop_front_if(|(_, _, since)| now.saturating_duration_since(*since) >= ACK_TIMEOUT)
        {
            self.tickets.forget_until(ticket);
            late.push(client);
        }
        let (asked, heard) = (self.probe.asked_at, self.probe.heard_at);
        let ready = self.probe.is_ready();
        let open = (ready && self.tickets.are_asked()) || self.probe.is_logging_in();
        let put_off = self.probe.take_put_off();
        let idle = ready && !open && now.saturating_duration_since(asked) >= KEEP_ALIVE;
        if idle {
            self.tickets.ask_for_nobody();
            self.probe.heard_at = now;
        }
        let is_silent = open && put_off == 0 && now.saturating_duration_since(heard) >= ACK_TIMEOUT;
        GateTick { requests: put_off + usize::from(idle), is_silent, late }
    }
}

#[cfg(test)]
mod tests;
