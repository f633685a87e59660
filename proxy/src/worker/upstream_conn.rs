//! One connection to the server: *pinned* (a session's own), *shared* by sessions, or a probe.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use redtape_wire::resp::ReplyScanner;

use super::progress::Stall;
use super::refs::{ClientRef, ConnRef};
use super::shared_conns::SharedKey;
use super::socket::{Outgoing, Socket};

/// A shared connection whose oldest request waits for so long takes no more: a script runs, or clients are paused.
pub(super) const STALLED_AFTER: Duration = Duration::from_millis(50);
/// While the server works on what a shared connection has sent, so many bytes wait for its answer and then go together: one system
/// call for each of many requests is what a server spends most of its time on. More go at once, so that both work.
pub(super) const SHARED_BATCH: usize = 16 * 1024;
/// Bytes that may wait for a server that does not read; then who would add to them is not read from either.
pub(super) const CONN_OUT_MAX: usize = 1 << 20;

/// Requests of one client, one behind the other, on a shared connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Waiter {
    pub(super) client: ClientRef,
    pub(super) count: usize,
}

/// Why a shared connection that carried writes is kept, though nobody writes by it any more: the larger, the more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) enum Kept {
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

/// What a connection is for.
#[derive(Debug)]
pub(super) enum Role {
    Pinned(ClientRef),
    Shared(SharedKey),
    /// Asks whether the server lives; see [`super::disconnect`].
    Probe,
    /// Tells how far the server is; see [`super::ack_gate`].
    OffsetProbe,
    /// Asks whether the server answers while a shared connection stalls; see [`super::stalls`].
    Witness,
}

/// How far a connection is.
#[derive(Debug)]
pub(super) enum Stage {
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
pub(super) struct UpstreamConn {
    pub(super) socket: Socket,
    pub(super) role: Role,
    pub(super) stage: Stage,
    pub(super) generation: u64,
    pub(super) out: Outgoing,
    pub(super) scanner: ReplyScanner,
    /// On a shared connection: who waits for replies, oldest first.
    pub(super) queue: VecDeque<Waiter>,
    /// On a shared connection: requests that were sent and not answered, and those that were not sent.
    pub(super) sent: usize,
    pub(super) unsent: usize,
    /// On a shared connection: in the middle of a push.
    pub(super) in_push: bool,
    /// The socket may have more to read.
    pub(super) readable: bool,
    /// The server has ended its side; what it said before is still read.
    pub(super) read_closed: bool,
    /// In the list of those to be flushed.
    pub(super) dirty: bool,
    /// No more will be sent once `out` is empty.
    pub(super) ending: bool,
    /// When the oldest request began to be the oldest.
    pub(super) progress: Instant,
    /// When a shared connection was last given a request.
    pub(super) used: Instant,
    /// A shared connection that takes no more requests but those of [`super::replica_wait`].
    pub(super) retired: bool,
    /// Whether a shared connection carried the last writes of some session, as of the last look.
    pub(super) kept: Kept,
    /// Ticks in which a stalled shared connection saw the server answer others.
    pub(super) stall: Stall,
    /// Of a new shared connection: the answer to its `HELLO`.
    pub(super) hello: Vec<u8>,
}

impl UpstreamConn {
    /// As long as it is at this index.
    pub(super) fn reference(&self, index: usize) -> ConnRef {
        ConnRef { index, generation: self.generation }
    }

    pub(super) fn new(socket: Socket, role: Role, stage: Stage, generation: u64, now: Instant) -> Self {
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
    pub(super) fn is_for_writes(&self) -> bool {
        matches!(&self.role, Role::Shared(key) if key.writes)
    }

    pub(super) fn is_ready(&self) -> bool {
        matches!(self.stage, Stage::Ready)
    }

    /// Of a pinned connection: nothing there concerns the client now. With RESP3, pushes may come that nobody has asked for.
    pub(super) fn is_quiet(&self, resp3: bool) -> bool {
        !self.read_closed && self.scanner.at_boundary() && !(resp3 && self.readable)
    }

    /// Whether a shared connection may be given another request.
    pub(super) fn flows(&self, now: Instant) -> bool {
        self.is_ready()
            && !self.retired
            && self.out.len() < CONN_OUT_MAX
            && (self.queue.is_empty() || now.saturating_duration_since(self.progress) < STALLED_AFTER)
    }

    /// One more request of `client` is on its way.
    pub(super) fn wait(&mut self, client: ClientRef, now: Instant) {
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

    /// What waits to be sent waits on: the server has work of this shared connection, and its answer will come.
    pub(super) fn gathers(&self) -> bool {
        self.sent > 0 && self.out.len() < SHARED_BATCH
    }

    /// All that waited was handed to the socket.
    pub(super) fn all_sent(&mut self) {
        self.sent += std::mem::take(&mut self.unsent);
    }

    /// The oldest request was answered.
    pub(super) fn answered(&mut self, now: Instant) {
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
