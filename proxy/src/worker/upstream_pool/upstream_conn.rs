//! One connection to the server: *pinned* (of one session), *shared* by sessions, or a probe.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use redtape_wire::resp::ReplyScanner;

use super::progress::Stall;
use super::shared_conns::SharedKey;
use crate::worker::refs::{ClientRef, ConnRef};
use crate::worker::socket::{Outgoing, Socket};

/// A shared connection whose oldest request waits this long gets no more: a script runs, or clients are paused.
pub(in crate::worker) const STALLED_AFTER: Duration = Duration::from_millis(50);
/// While the server works on requests of a shared connection, up to this many bytes wait for its answer and are then
/// sent together, since a system call for each request is the server's largest cost. More bytes are sent at once, so
/// that both sides work.
pub(in crate::worker) const SHARED_BATCH: usize = 16 * 1024;
/// Limit of bytes buffered for a server that does not read; at the limit, the clients that would add to them are not
/// read.
pub(in crate::worker) const CONN_OUT_MAX: usize = 1 << 20;

/// Consecutive requests of one client on a shared connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::worker) struct Waiter {
    pub(in crate::worker) client: ClientRef,
    pub(in crate::worker) count: usize,
}

/// Why a retired shared connection that carried writes is kept; a larger value is more important.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(in crate::worker) enum Kept {
    /// Not needed.
    #[default]
    No,
    /// Sessions wrote through it, and as many replicas as requested had everything.
    Counted,
    /// As `Counted`, but a session does not know how many replicas have its writes.
    Uncounted,
    /// A running `WAIT` uses it.
    InUse,
}

/// A client's requests on a broken shared connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::worker) enum Unanswered {
    /// The client has received part of a reply: nothing can follow it.
    MidReply,
    /// Each of them may be answered with an error.
    Whole,
}

/// Purpose of a connection.
#[derive(Debug)]
pub(in crate::worker) enum Role {
    Pinned(ClientRef),
    Shared(SharedKey),
    /// Asks whether the server lives; see [`crate::worker::disconnect`].
    Probe,
    /// Reads the server's offset; see [`crate::worker::ack_gate`].
    OffsetProbe,
    /// Shows whether the server answers while a shared connection stalls; see [`crate::worker::stalls`].
    Witness,
}

/// State of a connection.
#[derive(Debug)]
pub(in crate::worker) enum Stage {
    /// Connecting, including the TLS handshake.
    Connecting { attempt: usize, until: Instant },
    /// A shared connection that logs in: number of answers still due.
    Greeting(usize),
    /// Requests pass.
    Ready,
}

/// A connection to the server.
#[allow(clippy::struct_excessive_bools)] // Independent facts.
#[derive(Debug)]
pub(in crate::worker) struct UpstreamConn<S = Socket> {
    pub(in crate::worker) socket: S,
    pub(in crate::worker) role: Role,
    pub(in crate::worker) stage: Stage,
    pub(in crate::worker) generation: u64,
    pub(in crate::worker) out: Outgoing,
    pub(in crate::worker) scanner: ReplyScanner,
    /// On a shared connection: clients that wait for replies, oldest first.
    pub(in crate::worker) queue: VecDeque<Waiter>,
    /// On a shared connection: number of requests sent and not answered, and number not sent yet.
    pub(in crate::worker) sent: usize,
    pub(in crate::worker) unsent: usize,
    /// On a shared connection: inside a push.
    pub(in crate::worker) in_push: bool,
    /// The socket may have more to read.
    pub(in crate::worker) readable: bool,
    /// The server has closed its side; what it sent before is still read.
    pub(in crate::worker) read_closed: bool,
    /// In the list to be flushed.
    pub(in crate::worker) dirty: bool,
    /// To be closed for writing once `out` is empty.
    pub(in crate::worker) ending: bool,
    /// When the oldest request became the oldest.
    pub(in crate::worker) progress: Instant,
    /// When a shared connection last got a request.
    pub(in crate::worker) used: Instant,
    /// A shared connection that gets no more requests except those of [`crate::worker::replica_wait`].
    pub(in crate::worker) retired: bool,
    /// Whether a shared connection carried the last writes of some session, at the last check.
    pub(super) kept: Kept,
    /// Ticks in which others were answered while this shared connection stalled.
    pub(super) stall: Stall,
    /// The answer to the `HELLO` of a new shared connection.
    pub(in crate::worker) hello: Vec<u8>,
}

impl<S> UpstreamConn<S> {
    /// A reference that is valid while it is at this index.
    pub(in crate::worker) fn reference(&self, index: usize) -> ConnRef {
        ConnRef { index, generation: self.generation }
    }

    pub(in crate::worker) fn new(socket: S, role: Role, stage: Stage, generation: u64, now: Instant) -> Self {
        Self {
            socket,
            role,
            stage,
            generation,
            out: Outgoing::default(),
            scanner: ReplyScanner::new(),
            queue: VecDeque::new(),
            sent: 0,
            unsent: 0,
            in_push: false,
            readable: false,
            read_closed: false,
            dirty: false,
            ending: false,
            progress: now,
            used: now,
            retired: false,
            kept: Kept::No,
            stall: Stall::default(),
            hello: Vec::new(),
        }
    }

    /// True for a shared connection for writes.
    pub(in crate::worker) fn is_for_writes(&self) -> bool {
        matches!(&self.role, Role::Shared(key) if key.writes)
    }

    pub(in crate::worker) fn is_ready(&self) -> bool {
        matches!(self.stage, Stage::Ready)
    }

    /// True if nothing on a pinned connection concerns the client now. With RESP3, unsolicited pushes may arrive.
    pub(in crate::worker) fn is_quiet(&self, resp3: bool) -> bool {
        !self.read_closed && self.scanner.at_boundary() && !(resp3 && self.readable)
    }

    /// True if a shared connection may get another request.
    pub(in crate::worker) fn flows(&self, now: Instant) -> bool {
        self.is_ready()
            && !self.retired
            && self.out.len() < CONN_OUT_MAX
            && (self.queue.is_empty() || now.saturating_duration_since(self.progress) < STALLED_AFTER)
    }

    /// Adds a request of `client` in flight.
    pub(in crate::worker) fn wait(&mut self, client: ClientRef, now: Instant) {
        if self.queue.is_empty() {
            self.progress = now;
        }
        self.used = now;
        self.unsent += 1;
        match self.queue.back_mut() {
            Some(last) if last.client == client => last.count += 1,
            _ => self.queue.push_back(Waiter { client, count: 1 }),
        }
    }

    /// The clients that waited on a lost shared connection.
    pub(in crate::worker) fn take_unanswered(&mut self) -> Vec<(ClientRef, Unanswered)> {
        let mid_reply = !self.scanner.at_boundary() && !self.in_push;
        let unanswered = |n| if n == 0 && mid_reply { Unanswered::MidReply } else { Unanswered::Whole };
        std::mem::take(&mut self.queue).into_iter().enumerate().map(|(n, w)| (w.client, unanswered(n))).collect()
    }

    /// True if a shared connection is inside a push, or the next byte starts one.
    pub(in crate::worker) fn is_at_push(&self, next: u8) -> bool {
        self.in_push || (next == b'>' && self.scanner.at_boundary())
    }

    /// True if output keeps waiting: the server works on requests of this shared connection, and its answer will come.
    pub(in crate::worker) fn gathers(&self) -> bool {
        self.sent > 0 && self.out.len() < SHARED_BATCH
    }

    /// All output was handed to the socket.
    pub(in crate::worker) fn all_sent(&mut self) {
        self.sent += std::mem::take(&mut self.unsent);
    }

    /// The oldest request was answered.
    pub(in crate::worker) fn answered(&mut self, now: Instant) {
        self.progress = now;
        // A request sent in part was not counted as sent yet.
        if self.sent > 0 {
            self.sent -= 1;
        } else {
            self.unsent = self.unsent.saturating_sub(1);
        }
        if let Some(front) = self.queue.front_mut() {
            front.count -= 1;
            if front.count == 0 {
                self.queue.pop_front();
            }
        }
    }
}
