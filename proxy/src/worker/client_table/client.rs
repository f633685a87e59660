//! The client's end of one session.

use std::collections::VecDeque;
use std::io;
use std::time::{Duration, Instant};

use super::memory::Account;
use crate::commands::CancelOnDrop;
use crate::session::{RequestScan, SessionState};
use crate::worker::refs::ConnRef;
use crate::worker::session_writes::{ReplicaWait, Wrote};
use crate::worker::socket::{Outgoing, Socket};

/// Limit of requests in flight of one session; at the limit it is not read.
pub(in crate::worker) const IN_FLIGHT_MAX: usize = 1 << 20;
/// The limit while the server has accepted none of its requests.
const UNADMITTED_IN_FLIGHT_MAX: usize = 1024;
/// Limit of refusals buffered for such a client, in bytes. (Servers since 2025 keep 1 KiB of them.)
const UNADMITTED_OUT_MAX: usize = 1 << 20;
/// Limit of requests in flight on a shared connection, for one session.
pub(in crate::worker) const SHARED_IN_FLIGHT_MAX: usize = 1024;
/// A client with this many unsent bytes is slow: its pinned connection is not read until it has read, and it uses no
/// shared connection.
pub(in crate::worker) const CLIENT_OUT_HIGH: usize = 1 << 20;
/// After its server connection ended, a client has this long to read what is buffered.
pub(in crate::worker) const FINISH_MAX: Duration = Duration::from_mins(1);
/// How long to wait for a client to close after redtape has.
pub(in crate::worker) const LINGER: Duration = Duration::from_secs(1);

/// State of the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::worker) enum Stage {
    /// The PROXY protocol header is read first, then TLS if set.
    Header { tls: bool },
    /// Requests are served.
    Open,
    /// Its pinned connection is gone; requests in flight on a shared connection are answered until this time.
    Ending { until: Instant },
    /// No more requests are served; buffered replies are sent until this time.
    Finishing { until: Instant },
    /// Everything was sent and the write side is closed; input is discarded until this time.
    Lingering { until: Instant },
}

/// State of a client's socket that needs no I/O.
pub(in crate::worker) trait Handshake {
    /// True during the TLS handshake.
    fn is_handshaking(&self) -> bool;
}

impl Handshake for Socket {
    fn is_handshaking(&self) -> bool {
        Self::is_handshaking(self)
    }
}

/// Replies that wait until their writes are durable.
#[derive(Debug)]
struct Withheld {
    ticket: u64,
    bytes: Vec<u8>,
}

/// A client. An idle one owns no buffers.
#[allow(clippy::struct_excessive_bools)] // Independent facts.
#[derive(Debug)]
pub(in crate::worker) struct Client<S = Socket> {
    pub(in crate::worker) socket: S,
    pub(in crate::worker) generation: u64,
    pub(in crate::worker) stage: Stage,
    pub(in crate::worker) state: SessionState,
    pub(in crate::worker) scan: RequestScan,
    /// Bytes read and not yet forwarded.
    pub(in crate::worker) input: Vec<u8>,
    pub(in crate::worker) out: Outgoing,
    /// With `--ack journal`: withheld replies, oldest first.
    withheld: VecDeque<Withheld>,
    withheld_bytes: usize,
    /// Its share in the sum over all clients.
    pub(super) account: Account,
    /// Its own connection to the server.
    pub(in crate::worker) pinned: Option<usize>,
    /// The shared connections it used last: for reads, for writes.
    pub(in crate::worker) shared_conns: [Option<ConnRef>; 2],
    /// Requests are in flight on a shared connection: the one for writes, if set.
    pub(in crate::worker) on_shared: bool,
    pub(in crate::worker) on_writes: bool,
    /// A shared connection was used since the last activity on the pinned connection.
    pub(in crate::worker) behind: bool,
    /// The shared connections that carried its writes since it last learned which replicas have them.
    pub(in crate::worker) wrote: Wrote,
    /// Its running `WAIT`: see [`crate::worker::replica_wait`].
    pub(in crate::worker) replica_wait: Option<Box<ReplicaWait>>,
    /// Bytes of a reply that is rewritten or dropped.
    pub(in crate::worker) held: Option<Vec<u8>>,
    /// The socket may have more to read.
    pub(in crate::worker) readable: bool,
    /// The client has closed its write side; buffered input is still read.
    pub(in crate::worker) read_closed: bool,
    /// All its input was read.
    pub(in crate::worker) eof: bool,
    /// Its next request waits for replies in flight, or for room.
    pub(in crate::worker) waiting: bool,
    /// Its shared connection broke; a probe checks whether the server lives.
    pub(in crate::worker) probing: bool,
    /// One of its requests is being answered on another thread.
    pub(in crate::worker) asking: bool,
    /// Dropped with the client, it cancels that work.
    pub(in crate::worker) cancel: Option<CancelOnDrop>,
    /// The server has been asked whether it accepts the client.
    pub(in crate::worker) questioned: bool,
    /// Queued to be served.
    pub(in crate::worker) queued: bool,
    pub(in crate::worker) opened: Instant,
    pub(in crate::worker) active: Instant,
    /// Last activity on its pinned connection.
    pub(in crate::worker) pinned_active: Instant,
}

impl<S> Client<S> {
    pub(in crate::worker) fn new(socket: S, addr: String, session: u64, stage: Stage, now: Instant) -> Self {
        Self {
            socket,
            generation: session,
            stage,
            state: SessionState::new(session, addr),
            scan: RequestScan::default(),
            input: Vec::new(),
            out: Outgoing::default(),
            withheld: VecDeque::new(),
            withheld_bytes: 0,
            account: Account::default(),
            pinned: None,
            shared_conns: [None; 2],
            on_shared: false,
            on_writes: false,
            behind: false,
            wrote: Wrote::default(),
            replica_wait: None,
            held: None,
            readable: false,
            read_closed: false,
            eof: false,
            waiting: false,
            probing: false,
            asking: false,
            cancel: None,
            questioned: false,
            queued: false,
            opened: now,
            active: now,
            pinned_active: now,
        }
    }

    /// True if its requests are served.
    pub(in crate::worker) fn takes_requests(&self) -> bool {
        self.stage == Stage::Open && !self.waiting && !self.probing && !self.asking && self.replica_wait.is_none()
    }

    /// True if input on its pinned connection must wait: unsolicited pushes may come between replies, never inside one.
    pub(in crate::worker) fn listens_elsewhere(&self) -> bool {
        self.on_shared && self.state.replies.resp3 && !self.probing && self.in_flight() > 0
    }

    /// True if it gets only what is already buffered.
    pub(in crate::worker) fn is_finished(&self) -> bool {
        matches!(self.stage, Stage::Finishing { .. } | Stage::Lingering { .. })
    }

    /// The shared connection with its requests in flight.
    pub(in crate::worker) fn shared(&self) -> Option<ConnRef> {
        self.shared_conns[usize::from(self.on_writes)]
    }

    /// Stores the answer to an internal count of replicas, if one was requested.
    pub(in crate::worker) fn take_count(&mut self, answer: Vec<u8>) {
        if let Some(wait) = self.replica_wait.as_mut().filter(|wait| wait.on_pinned) {
            wait.said = answer;
        }
    }

    /// True if its pinned connection is counting replicas.
    pub(in crate::worker) fn waits_on_pinned(&self) -> bool {
        self.replica_wait.as_ref().is_some_and(|wait| wait.on_pinned)
    }

    pub(in crate::worker) fn in_flight(&self) -> usize {
        self.state.replies.in_flight()
    }

    /// True if a shared connection was used since the last activity on the pinned connection, which has nothing in
    /// flight. An empty line on the pinned connection is harmless then.
    pub(in crate::worker) fn works_on_shared(&self) -> bool {
        self.behind
            && self.pinned.is_some()
            && (self.on_shared || self.in_flight() == 0)
            && self.state.replies_can_be_told()
    }

    /// Limit of requests in flight.
    pub(in crate::worker) fn in_flight_max(&self) -> usize {
        if self.state.is_refused_so_far() { UNADMITTED_IN_FLIGHT_MAX } else { IN_FLIGHT_MAX }
    }

    /// Limit of buffered reply bytes. `in_reply`: a reply is incomplete; it may be the first that is not a refusal.
    pub(in crate::worker) fn out_max(&self, limit: usize, in_reply: bool) -> usize {
        if self.state.is_refused_so_far() && !in_reply { limit.min(UNADMITTED_OUT_MAX) } else { limit }
    }

    /// Bytes in its buffers, without those waiting to be sent to the server.
    pub(in crate::worker) fn buffered(&self) -> usize {
        self.input.capacity()
            + self.out.memory()
            + self.withheld_bytes
            + self.withheld.len() * size_of::<Withheld>()
            + self.held.as_ref().map_or(0, Vec::capacity)
            + self.state.buffered()
    }

    /// Appends output after everything buffered.
    pub(in crate::worker) fn say(&mut self, bytes: &[u8]) {
        match self.withheld.back_mut() {
            Some(last) => {
                last.bytes.extend_from_slice(bytes);
                self.withheld_bytes += bytes.len();
            }
            None => self.out.push(bytes),
        }
    }

    /// Releases the replies up to this ticket.
    pub(in crate::worker) fn release(&mut self, covered: u64) {
        while let Some(Withheld { bytes, .. }) = self.withheld.pop_front_if(|w| w.ticket <= covered) {
            self.withheld_bytes -= bytes.len();
            self.out.push(&bytes);
        }
    }

    /// True if replies are withheld.
    pub(in crate::worker) fn withholds(&self) -> bool {
        !self.withheld.is_empty()
    }

    /// Bytes not handed to the socket.
    pub(in crate::worker) fn unsaid(&self) -> usize {
        self.out.len() + self.withheld_bytes
    }

    /// True if nothing is in flight: it can be closed without losing a reply.
    pub(in crate::worker) fn is_idle(&self) -> bool {
        !self.asking
            && self.replica_wait.is_none()
            && self.unsaid() == 0
            && self.input.is_empty()
            && self.state.is_idle()
            && !self.scan.is_inside()
    }
}

impl<S: Handshake> Client<S> {
    /// True after header and handshake.
    pub(in crate::worker) fn is_introduced(&self) -> bool {
        !matches!(self.stage, Stage::Header { .. }) && !self.socket.is_handshaking()
    }
}

impl Client {
    /// Sends what the socket accepts and buffers the rest. With a ticket, everything is withheld until the ticket is
    /// covered.
    pub(in crate::worker) fn pass(&mut self, bytes: &[u8], ticket: Option<u64>) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        match ticket {
            Some(ticket) if self.withheld.back().is_none_or(|last| last.ticket != ticket) => {
                self.withheld_bytes += bytes.len();
                self.withheld.push_back(Withheld { ticket, bytes: bytes.to_vec() });
                Ok(())
            }
            None if self.withheld.is_empty() => self.out.send_through(&mut self.socket, bytes),
            _ => {
                self.say(bytes);
                Ok(())
            }
        }
    }
}
