//! One connection to the server: *pinned* (a session's own), *shared* by sessions, or a probe.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use redtape_wire::resp::ReplyScanner;

use super::progress::Stall;
use super::shared_conns::SharedKey;
use crate::worker::refs::{ClientRef, ConnRef};
use crate::worker::socket::{Outgoing, Socket};

/// A shared connection whose oldest request waits for so long takes no more: a script runs, or clients are paused.
pub(in crate::worker) const STALLED_AFTER: Duration = Duration::from_millis(50);
/// While the server works on what a shared connection has sent, so many bytes wait for its answer and then go together: one system
/// call for each of many requests is what a server spends most of its time on. More go at once, so that both work.
pub(in crate::worker) const SHARED_BATCH: usize = 16 * 1024;
/// Bytes that may wait for a server that does not read; then who would add to them is not read from either.
pub(in crate::worker) const CONN_OUT_MAX: usize = 1 << 20;

/// Requests of one client, one behind the other, on a shared connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::worker) struct Waiter {
    pub(in crate::worker) client: ClientRef,
    pub(in crate::worker) count: usize,
}

/// Why a shared connection that carried writes is kept, though nobody writes by it any more: the larger, the more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(in crate::worker) enum Kept {
    /// Nobody needs it.
    #[default]
    No,
    /// Sessions wrote by it, and as many replicas as they asked for had it all.
    Counted,
    /// The same, and a session does not know how many replicas have it.
    Uncounted,
    /// A running `WAIT` asks it.
    InUse,
}

/// A client's requests on a shared connection that broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::worker) enum Unanswered {
    /// The client has a part of a reply: nothing can follow it.
    MidReply,
    /// Each of them may be answered with an error.
    Whole,
}

/// What a connection is for.
#[derive(Debug)]
pub(in crate::worker) enum Role {
    Pinned(ClientRef),
    Shared(SharedKey),
    /// Asks whether the server lives; see [`crate::worker::disconnect`].
    Probe,
    /// Tells how far the server is; see [`crate::worker::ack_gate`].
    OffsetProbe,
    /// Asks whether the server answers while a shared connection stalls; see [`crate::worker::stalls`].
    Witness,
}

/// How far a connection is.
#[derive(Debug)]
pub(in crate::worker) enum Stage {
    /// `connect` was called; a TLS handshake counts as well.
    Connecting { attempt: usize, until: Instant },
    /// A shared connection that introduces itself: so many answers are still to come.
    Greeting(usize),
    /// Requests pass.
    Ready,
}

/// See the module.
#[allow(clippy::struct_excessive_bools)] // Each is a fact of its own.
#[derive(Debug)]
pub(in crate::worker) struct UpstreamConn<S = Socket> {
    pub(in crate::worker) socket: S,
    pub(in crate::worker) role: Role,
    pub(in crate::worker) stage: Stage,
    pub(in crate::worker) generation: u64,
    pub(in crate::worker) out: Outgoing,
    pub(in crate::worker) scanner: ReplyScanner,
    /// On a shared connection: who waits for replies, oldest first.
    pub(in crate::worker) queue: VecDeque<Waiter>,
    /// On a shared connection: requests that were sent and not answered, and those that were not sent.
    pub(in crate::worker) sent: usize,
    pub(in crate::worker) unsent: usize,
    /// On a shared connection: in the middle of a push.
    pub(in crate::worker) in_push: bool,
    /// The socket may have more to read.
    pub(in crate::worker) readable: bool,
    /// The server has ended its side; what it said before is still read.
    pub(in crate::worker) read_closed: bool,
    /// In the list of those to be flushed.
    pub(in crate::worker) dirty: bool,
    /// No more will be sent once `out` is empty.
    pub(in crate::worker) ending: bool,
    /// When the oldest request began to be the oldest.
    pub(in crate::worker) progress: Instant,
    /// When a shared connection was last given a request.
    pub(in crate::worker) used: Instant,
    /// A shared connection that takes no more requests but those of [`crate::worker::replica_wait`].
    pub(in crate::worker) retired: bool,
    /// Whether a shared connection carried the last writes of some session, as of the last look.
    pub(super) kept: Kept,
    /// Ticks in which a stalled shared connection saw the server answer others.
    pub(super) stall: Stall,
    /// Of a new shared connection: the answer to its `HELLO`.
    pub(in crate::worker) hello: Vec<u8>,
}

impl<S> UpstreamConn<S> {
    /// As long as it is at this index.
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

    /// It is a shared connection for writes.
    pub(in crate::worker) fn is_for_writes(&self) -> bool {
        matches!(&self.role, Role::Shared(key) if key.writes)
    }

    pub(in crate::worker) fn is_ready(&self) -> bool {
        matches!(self.stage, Stage::Ready)
    }

    /// Of a pinned connection: nothing there concerns the client now. With RESP3, pushes may come that nobody has asked for.
    pub(in crate::worker) fn is_quiet(&self, resp3: bool) -> bool {
        !self.read_closed && self.scanner.at_boundary() && !(resp3 && self.readable)
    }

    /// Whether a shared connection may be given another request.
    pub(in crate::worker) fn flows(&self, now: Instant) -> bool {
        self.is_ready()
            && !self.retired
            && self.out.len() < CONN_OUT_MAX
            && (self.queue.is_empty() || now.saturating_duration_since(self.progress) < STALLED_AFTER)
    }

    /// One more request of `client` is on its way.
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

    /// A shared connection is gone: who waited on it.
    pub(in crate::worker) fn take_unanswered(&mut self) -> Vec<(ClientRef, Unanswered)> {
        let mid_reply = !self.scanner.at_boundary() && !self.in_push;
        let unanswered = |n| if n == 0 && mid_reply { Unanswered::MidReply } else { Unanswered::Whole };
        std::mem::take(&mut self.queue).into_iter().enumerate().map(|(n, w)| (w.client, unanswered(n))).collect()
    }

    /// A shared connection is in a push, or the next byte begins one.
    pub(in crate::worker) fn is_at_push(&self, next: u8) -> bool {
        self.in_push || (next == b'>' && self.scanner.at_boundary())
    }

    /// What waits to be sent waits on: the server has work of this shared connection, and its answer will come.
    pub(in crate::worker) fn gathers(&self) -> bool {
        self.sent > 0 && self.out.len() < SHARED_BATCH
    }

    /// All that waited was handed to the socket.
    pub(in crate::worker) fn all_sent(&mut self) {
        self.sent += std::mem::take(&mut self.unsent);
    }

    /// The oldest request was answered.
    pub(in crate::worker) fn answered(&mut self, now: Instant) {
        self.progress = now;
        // One that went out in a part of what waits was not counted yet.
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
