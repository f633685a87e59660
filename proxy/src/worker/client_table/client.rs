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

/// Requests of one session that may wait for their replies; then it is not read from.
pub(in crate::worker) const IN_FLIGHT_MAX: usize = 1 << 20;
/// The same as long as the server has admitted none of its requests.
const UNADMITTED_IN_FLIGHT_MAX: usize = 1024;
/// Bytes of refusals that may pile up for such a client. (Servers since 2025 keep 1 KiB of them.)
const UNADMITTED_OUT_MAX: usize = 1 << 20;
/// Requests of one session that may wait on a shared connection.
pub(in crate::worker) const SHARED_IN_FLIGHT_MAX: usize = 1024;
/// A client with so many unsent bytes is slow: its own connection to the server is not read from until it has
/// read, and it shares none.
pub(in crate::worker) const CLIENT_OUT_HIGH: usize = 1 << 20;
/// A client whose connection to the server has ended gets so long to read what was said before.
pub(in crate::worker) const FINISH_MAX: Duration = Duration::from_mins(1);
/// So long we wait for a client to close after we have.
pub(in crate::worker) const LINGER: Duration = Duration::from_secs(1);

/// How far the connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::worker) enum Stage {
    /// The load balancer's header comes first; then TLS, if so.
    Header { tls: bool },
    /// Requests are served.
    Open,
    /// Its pinned connection is gone; what is in flight on a shared connection is still answered, until then.
    Ending { until: Instant },
    /// Nothing is served any more; what was said is still sent, until then.
    Finishing { until: Instant },
    /// All was sent and our side is closed; what comes is thrown away, until then.
    Lingering { until: Instant },
}

/// What a client's socket says of itself without I/O.
pub(in crate::worker) trait Handshake {
    /// The TLS handshake is not through.
    fn is_handshaking(&self) -> bool;
}

impl Handshake for Socket {
    fn is_handshaking(&self) -> bool {
        Self::is_handshaking(self)
    }
}

/// Replies that wait until the writes of which they tell are on the disk.
#[derive(Debug)]
struct Withheld {
    ticket: u64,
    bytes: Vec<u8>,
}

/// See the module. An idle one owns no buffers.
#[allow(clippy::struct_excessive_bools)] // Each is a fact of its own.
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
    /// With `--ack journal`: what may not be said yet, oldest first.
    withheld: VecDeque<Withheld>,
    withheld_bytes: usize,
    /// What of its buffers is counted in the sum over all clients.
    pub(super) account: Account,
    /// Its own connection to the server.
    pub(in crate::worker) pinned: Option<usize>,
    /// The shared connections that it used last: for reads, for writes.
    pub(in crate::worker) shared_conns: [Option<ConnRef>; 2],
    /// What is in flight, is so on a shared connection: on that for writes, if so.
    pub(in crate::worker) on_shared: bool,
    pub(in crate::worker) on_writes: bool,
    /// A shared connection was used since the server last heard of this session on its pinned connection.
    pub(in crate::worker) behind: bool,
    /// The shared connections that carried its writes since it last knew which replicas have them.
    pub(in crate::worker) wrote: Wrote,
    /// It asks which replicas have its writes: see [`crate::worker::replica_wait`].
    pub(in crate::worker) replica_wait: Option<Box<ReplicaWait>>,
    /// Bytes of a reply that the client gets otherwise than as they are, or not at all.
    pub(in crate::worker) held: Option<Vec<u8>>,
    /// The socket may have more to read.
    pub(in crate::worker) readable: bool,
    /// Its side is closed for writing; what it sent before is still read.
    pub(in crate::worker) read_closed: bool,
    /// All that it sent was read.
    pub(in crate::worker) eof: bool,
    /// Its next request waits until what is in flight is answered, or until there is room for it.
    pub(in crate::worker) waiting: bool,
    /// Its shared connection broke; whether the server lives is being asked.
    pub(in crate::worker) probing: bool,
    /// A request of its own is being answered by the proxy, on another thread.
    pub(in crate::worker) asking: bool,
    /// Dropped with the client, it ends that work.
    pub(in crate::worker) cancel: Option<CancelOnDrop>,
    /// The server has been asked whether it may ask the proxy.
    pub(in crate::worker) questioned: bool,
    /// In the list of those to be served.
    pub(in crate::worker) queued: bool,
    pub(in crate::worker) opened: Instant,
    pub(in crate::worker) active: Instant,
    /// When the server last heard of it on its pinned connection.
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

    /// Its requests are taken now.
    pub(in crate::worker) fn takes_requests(&self) -> bool {
        self.stage == Stage::Open && !self.waiting && !self.probing && !self.asking && self.replica_wait.is_none()
    }

    /// What comes by its pinned connection has to wait: pushes that were not asked for stand between replies, never inside.
    pub(in crate::worker) fn listens_elsewhere(&self) -> bool {
        self.on_shared && self.state.replies.resp3 && !self.probing && self.in_flight() > 0
    }

    /// Nothing more is said to it than was said already.
    pub(in crate::worker) fn is_finished(&self) -> bool {
        matches!(self.stage, Stage::Finishing { .. } | Stage::Lingering { .. })
    }

    /// The shared connection on which it has requests in flight.
    pub(in crate::worker) fn shared(&self) -> Option<ConnRef> {
        self.shared_conns[usize::from(self.on_writes)]
    }

    /// The answer to our own question: how many replicas have its writes, if that was asked.
    pub(in crate::worker) fn take_count(&mut self, answer: Vec<u8>) {
        if let Some(wait) = self.replica_wait.as_mut().filter(|wait| wait.on_pinned) {
            wait.said = answer;
        }
    }

    /// Its own connection is asked which replicas have its writes.
    pub(in crate::worker) fn waits_on_pinned(&self) -> bool {
        self.replica_wait.as_ref().is_some_and(|wait| wait.on_pinned)
    }

    pub(in crate::worker) fn in_flight(&self) -> usize {
        self.state.replies.in_flight()
    }

    /// A shared connection was used since the server last heard of it on its pinned connection, where nothing is under
    /// way: what is in flight, is so on the shared connection. An empty line to its pinned connection changes nothing
    /// then.
    pub(in crate::worker) fn works_on_shared(&self) -> bool {
        self.behind
            && self.pinned.is_some()
            && (self.on_shared || self.in_flight() == 0)
            && self.state.replies_can_be_told()
    }

    /// Requests that may wait for their replies.
    pub(in crate::worker) fn in_flight_max(&self) -> usize {
        if self.state.is_refused_so_far() { UNADMITTED_IN_FLIGHT_MAX } else { IN_FLIGHT_MAX }
    }

    /// Bytes of replies that may pile up. `in_reply`: one has begun and not ended; it may be the first that the server
    /// does not refuse.
    pub(in crate::worker) fn out_max(&self, limit: usize, in_reply: bool) -> usize {
        if self.state.is_refused_so_far() && !in_reply { limit.min(UNADMITTED_OUT_MAX) } else { limit }
    }

    /// Bytes in its buffers, but for what waits to be sent to the server.
    pub(in crate::worker) fn buffered(&self) -> usize {
        self.input.capacity()
            + self.out.memory()
            + self.withheld_bytes
            + self.withheld.len() * size_of::<Withheld>()
            + self.held.as_ref().map_or(0, Vec::capacity)
            + self.state.buffered()
    }

    /// Says something, behind all that was said before.
    pub(in crate::worker) fn say(&mut self, bytes: &[u8]) {
        match self.withheld.back_mut() {
            Some(last) => {
                last.bytes.extend_from_slice(bytes);
                self.withheld_bytes += bytes.len();
            }
            None => self.out.push(bytes),
        }
    }

    /// What waited for this ticket or one before it may be said.
    pub(in crate::worker) fn release(&mut self, covered: u64) {
        while let Some(Withheld { bytes, .. }) = self.withheld.pop_front_if(|w| w.ticket <= covered) {
            self.withheld_bytes -= bytes.len();
            self.out.push(&bytes);
        }
    }

    /// Something may not be said yet.
    pub(in crate::worker) fn withholds(&self) -> bool {
        !self.withheld.is_empty()
    }

    /// Bytes that were not handed to the socket.
    pub(in crate::worker) fn unsaid(&self) -> usize {
        self.out.len() + self.withheld_bytes
    }

    /// Nothing is under way: it may be closed without losing a reply.
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
    /// Header and handshake are through.
    pub(in crate::worker) fn is_introduced(&self) -> bool {
        !matches!(self.stage, Stage::Header { .. }) && !self.socket.is_handshaking()
    }
}

impl Client {
    /// Sends what the socket takes and keeps the rest. With a ticket, it is kept until that is covered.
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
