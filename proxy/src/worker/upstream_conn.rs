//! One connection to the server: a session's own (its *home*), a *lane* that sessions share, or a probe.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use redtape_wire::resp::ReplyScanner;

use super::shared_conns::LaneKey;
use super::socket::{Outgoing, Socket};
use super::stalls::Stall;

/// A lane whose oldest request waits for so long takes no more: a script runs, or clients are paused.
pub(super) const STALLED_AFTER: Duration = Duration::from_millis(50);
/// While the server works on what a lane has sent, so many bytes wait for its answer and then go together: one system
/// call for each of many requests is what a server spends most of its time on. More go at once, so that both work.
pub(super) const LANE_BATCH: usize = 16 * 1024;
/// Bytes that may wait for a server that does not read; then who would add to them is not read from either.
pub(super) const LINK_OUT_MAX: usize = 1 << 20;

/// A client of this worker, as long as it is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ClientRef {
    pub(super) index: usize,
    pub(super) generation: u64,
}

/// Requests of one client, one behind the other, on a lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Waiter {
    pub(super) client: ClientRef,
    pub(super) count: usize,
}

/// Why a lane that carried writes is kept, though nobody writes by it any more: the larger, the more.
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

/// What a link is for.
#[derive(Debug)]
pub(super) enum Role {
    Home(ClientRef),
    Lane(LaneKey),
    Probe,
    /// Tells how far the server is; see [`super::acks`].
    Barrier,
    /// Asks whether the server answers while a lane stalls; see [`super::stalls`].
    Witness,
}

/// How far a link is.
#[derive(Debug)]
pub(super) enum Stage {
    /// `connect` was called; a TLS handshake counts as well.
    Connecting { attempt: usize, until: Instant },
    /// A lane that introduces itself: so many answers are still to come.
    Greeting(usize),
    /// Requests pass.
    Ready,
}

/// See the module.
#[allow(clippy::struct_excessive_bools)] // Each is a fact of its own.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) socket: Socket,
    pub(super) role: Role,
    pub(super) stage: Stage,
    pub(super) generation: u64,
    pub(super) out: Outgoing,
    pub(super) scanner: ReplyScanner,
    /// On a lane: who waits for replies, oldest first.
    pub(super) queue: VecDeque<Waiter>,
    /// On a lane: requests that were sent and not answered, and those that were not sent.
    pub(super) sent: usize,
    pub(super) unsent: usize,
    /// On a lane: in the middle of a push.
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
    /// When a lane was last given a request.
    pub(super) used: Instant,
    /// A lane that takes no more requests but those of [`super::replica_wait`].
    pub(super) retired: bool,
    /// Whether a lane carried the last writes of some session, as of the last look.
    pub(super) kept: Kept,
    /// Ticks in which a stalled lane saw the server answer others.
    pub(super) stall: Stall,
    /// Of a new lane: the answer to its `HELLO`.
    pub(super) hello: Vec<u8>,
}

impl Link {
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

    /// It is a lane for writes.
    pub(super) fn is_for_writes(&self) -> bool {
        matches!(&self.role, Role::Lane(key) if key.writes)
    }

    pub(super) fn is_ready(&self) -> bool {
        matches!(self.stage, Stage::Ready)
    }

    /// Of a home: nothing there concerns the client now. With RESP3, pushes may come that nobody has asked for.
    pub(super) fn is_quiet(&self, resp3: bool) -> bool {
        !self.read_closed && self.scanner.at_boundary() && !(resp3 && self.readable)
    }

    /// Whether a lane may be given another request.
    pub(super) fn flows(&self, now: Instant) -> bool {
        self.is_ready()
            && !self.retired
            && self.out.len() < LINK_OUT_MAX
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

    /// What waits to be sent waits on: the server has work of this lane, and its answer will come.
    pub(super) fn gathers(&self) -> bool {
        self.sent > 0 && self.out.len() < LANE_BATCH
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
