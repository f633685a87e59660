//! `--ack journal`: decides which replies are withheld, when the server is asked for its offset, and which replies are
//! released. Returns actions; the worker (`acks.rs`) carries them out.
//!
//! ```text
//! reply read ─► withheld with a ticket ─► end of the turn: INFO replication on the offset probe ─► (history, offset)
//!                                                                   durable position covers it ─► reply goes
//! ```
//!
//! Owns: the tickets, their holders, the clients blocked without a probe, and the protocol state of the **offset
//! probe**, a connection of the worker's own with redtape's user. Whatever the server did before an answer on the probe
//! lies at or before the offset in that answer (Redis advances the offset while a command runs; replies leave later).
//!
//! Invariants:
//! - shared and pinned connections lead to the same server as the probe: all use one address, and if the probe finds
//!   another history, all clients are disconnected;
//! - a write is forwarded only while the probe is ready, and its reply is released only if the same probe stayed ready
//!   throughout: then both belong to the same run of the server. If the probe is lost, every client with a write in
//!   flight is disconnected without an answer, as when a server dies;
//! - so is every client that waits longer than [`ACK_TIMEOUT`]: the write may have run and is not known to be durable;
//! - when the journal fails, the durable position stops. Withheld replies keep waiting: they are released if a later
//!   position of the same history covers them, and their clients are disconnected after [`ACK_TIMEOUT`] otherwise.

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

/// A reply whose write is not durable within this time is discarded.
pub(super) const ACK_TIMEOUT: Duration = Duration::from_secs(10);
/// An idle probe is used after this time: a server with a `timeout` would close it.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// What to do after bytes from the server on the probe.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ProbeAction {
    /// Nothing.
    None,
    /// These clients continue. `other_history`: earlier connections may lead to another server than the probe, and are
    /// closed first, with their clients.
    Resume { other_history: bool, blocked: Vec<ClientRef> },
    /// Call [`AckGate::probe_lost`], with this reason.
    Lose(Cow<'static, str>),
}

/// What to do for a client whose write finds no probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Missing {
    /// The probe is there or being opened.
    No,
    /// Open a probe.
    Open,
    /// There is no replica link: blocked clients try again, and may get an error.
    NotFollowing,
}

/// What to do when the probe is lost, besides disconnecting all clients with a write in flight.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ProbeLoss {
    /// Connection to close.
    pub(super) conn: Option<ConnRef>,
    pub(super) blocked: BlockedBy,
}

/// The clients that wait for a lost probe.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum BlockedBy {
    /// The probe was ready before: they wait for the next one.
    Interruption(Vec<ClientRef>),
    /// The probe was never ready, nor would the next one be: they are disconnected. `is_news`: not logged yet.
    Refusal { clients: Vec<ClientRef>, is_news: bool },
}

/// What to do at a tick.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct GateTick {
    /// Number of offset requests to send.
    pub(super) requests: usize,
    /// The server does not answer: call [`AckGate::probe_lost`].
    pub(super) is_silent: bool,
    /// Clients to disconnect after their time limit.
    pub(super) late: Vec<ClientRef>,
}

/// The write acknowledgement gate of one worker.
#[derive(Debug)]
pub(super) struct AckGate {
    tickets: Tickets,
    probe: OffsetProbe,
    /// The absence of a probe was logged.
    complained: bool,
    /// Last value given to the metrics.
    reported: i64,
    /// Clients with withheld replies, with ticket and start time, oldest first.
    holders: VecDeque<(u64, ClientRef, Instant)>,
    /// Clients whose write waits for the probe.
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

    /// Withholds a reply of this client; returns the ticket.
    pub(super) fn hold(&mut self, client: ClientRef, now: Instant) -> u64 {
        let ticket = self.tickets.take();
        if self.holders.back().is_none_or(|(t, c, _)| (*t, *c) != (ticket, client)) {
            self.holders.push_back((ticket, client, now));
        }
        ticket
    }

    /// True if a write of this client may be forwarded; otherwise the client is blocked until the probe is ready.
    pub(super) fn admits(&mut self, client: ClientRef) -> bool {
        if !self.probe.is_ready() {
            self.blocked.push(client);
        }
        self.probe.is_ready()
    }

    /// True if clients are blocked and no probe is being opened. A server may change its replication id when the
    /// replica link attaches, so the probe is opened after that.
    pub(super) fn wants_probe(&self, following: bool) -> bool {
        self.probe.conn().is_none() && !self.blocked.is_empty() && following
    }

    /// At a tick: a probe is opened before the first write needs it.
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

    /// The probe is connected: returns its first bytes.
    pub(super) fn introduce(&mut self, login: Option<(Option<&str>, &str)>, now: Instant) -> Vec<u8> {
        self.probe.introduce(login, now)
    }

    /// The blocked clients, which try again.
    pub(super) fn take_blocked(&mut self) -> Vec<ClientRef> {
        std::mem::take(&mut self.blocked)
    }

    /// At the end of a turn: the connection on which to ask for the offset, if replies were withheld in this turn.
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

    /// An offset request is sent now: returns its connection.
    pub(super) fn question(&mut self, now: Instant) -> Option<ConnRef> {
        let conn = self.probe.conn()?;
        self.probe.asked_at = now;
        Some(conn)
    }

    /// Takes bytes from the probe, up to the end of one answer; returns how many, and what to do.
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
                    ProbeAction::Lose("an unsolicited answer".into())
                }
            }
            ProbeEvent::Failed(why) => ProbeAction::Lose(why),
        };
        (used, action)
    }

    /// The probe is lost: the offset for the replies in flight can no longer be learned.
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

    /// The newest covered ticket. `position` is called only if replies wait.
    pub(super) fn covered(&mut self, position: impl FnOnce() -> Arc<DurablePosition>) -> Option<u64> {
        if !self.tickets.wait() {
            return None;
        }
        self.tickets.covered(&position())
    }

    /// The next client whose replies up to this ticket are released, and since when it has waited.
    pub(super) fn next_covered(&mut self, covered: u64) -> Option<(ClientRef, Instant)> {
        let (_, client, since) = self.holders.pop_front_if(|(ticket, ..)| *ticket <= covered)?;
        Some((client, since))
    }

    /// Change of the number of waiting clients since the last call.
    pub(super) fn waiting_change(&mut self) -> i64 {
        let holders = self.holders.len() as i64;
        holders - std::mem::replace(&mut self.reported, holders)
    }

    /// Called at each tick.
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
