//! The clients of one worker: which are connected, which are to be served, and which exceed a limit of time or memory.
//! Decides and returns actions; only the worker uses sockets (`S`; tests have none).
//!
//! Owns: the clients with session state and buffers; the queue of clients to serve; the memory sums ([`memory`]); and
//! the clients whose replicas are counted again.
//!
//! Invariants:
//! - a client is queued at most once; a queued reference to a client that has left finds nothing;
//! - a removed client's share is subtracted from the memory sum;
//! - the table never closes a client: it names the clients to close, and the worker informs the tee and the metrics.

mod client;
mod memory;

use std::ops::{Index, IndexMut};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::Waker;
use slab::Slab;

pub(super) use self::client::{CLIENT_OUT_HIGH, Client, FINISH_MAX, Handshake, LINGER, SHARED_IN_FLIGHT_MAX, Stage};
pub(crate) use self::memory::ClientMemory;
use self::memory::WorkerMemory;
use super::clock::TICK;
use super::refs::ClientRef;
use super::socket::Socket;

/// A session that uses a shared connection gets a sign of life on its pinned connection after this time, at the next
/// tick. No server then sees it as idle, even with a `timeout` of one second. An idle session gets none, and the server
/// closes it as usual.
const KEEP_ALIVE: Duration = Duration::from_millis(400);
/// Above this number of such sessions the interval grows in proportion, up to `KEEP_ALIVE_MAX`.
const KEEP_ALIVE_SESSIONS: u32 = 1000;
const KEEP_ALIVE_MAX: Duration = Duration::from_secs(5);
/// A client that has closed its write side while its last request waits for a reply is closed after this time: the
/// server would drop a blocked client at once but cannot see that it left.
const GONE_AFTER: Duration = Duration::from_mins(1);

/// Time limits for clients.
#[derive(Debug, Clone, Copy)]
pub(super) struct Timeouts {
    pub(super) handshake: Duration,
    pub(super) idle: Option<Duration>,
    /// Close idle clients at once.
    pub(super) draining: bool,
}

/// What to do at a tick.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct ClientCheck {
    /// Clients past their time limit.
    pub(super) close: Vec<usize>,
    /// Clients whose pinned connection needs a sign of life.
    pub(super) alive: Vec<usize>,
}

/// What to do for a client after replies. A client with more requests is queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AfterReplies {
    Nothing,
    /// It does not read its replies and is to be disconnected.
    TooMuchUnread {
        session: u64,
        limit: usize,
    },
    /// Everything in flight when its pinned connection ended is answered.
    Finish,
}

/// What to do for a client whose replicas are to be counted again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Recount {
    /// Count again.
    Ask,
    /// The client has left and is to be closed, as a server does with a client that leaves while blocked.
    Close,
}

/// What to do when all clients' buffers exceed the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OverMemory {
    /// Nothing, or no client may be disconnected.
    No,
    /// This worker has the largest client: see [`ClientTable::largest`].
    Here,
    /// Another worker has it.
    Elsewhere(usize),
}

/// The clients of one worker.
#[derive(Debug)]
pub(super) struct ClientTable<S = Socket> {
    clients: Slab<Client<S>>,
    /// Queue for this turn or the next.
    ready: Vec<ClientRef>,
    memory: WorkerMemory,
    /// Sessions that use shared connections, at the last check.
    behind: usize,
    /// Clients whose replicas are to be counted again, and the earliest time.
    counting: Vec<ClientRef>,
    next_count: Option<Instant>,
}

impl ClientTable {
    /// For the `n`-th worker. Other workers wake it when its clients must be disconnected for memory.
    pub(super) fn new(memory: Arc<ClientMemory>, n: usize, waker: Arc<Waker>) -> Self {
        Self::with_memory(WorkerMemory::new(memory, n, waker))
    }
}

impl<S> ClientTable<S> {
    fn with_memory(memory: WorkerMemory) -> Self {
        Self { clients: Slab::new(), ready: Vec::new(), memory, behind: 0, counting: Vec::new(), next_count: None }
    }

    pub(super) fn len(&self) -> usize {
        self.clients.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.clients.is_empty()
    }

    /// The index of the next client.
    pub(super) fn vacant_key(&self) -> usize {
        self.clients.vacant_key()
    }

    pub(super) fn insert(&mut self, client: Client<S>) -> ClientRef {
        let generation = client.generation;
        ClientRef { index: self.clients.insert(client), generation }
    }

    pub(super) fn remove(&mut self, index: usize) -> Option<Client<S>> {
        let client = self.clients.try_remove(index)?;
        self.memory.remove(client.account);
        Some(client)
    }

    /// The client, unless it has left.
    pub(super) fn get(&self, client: ClientRef) -> Option<&Client<S>> {
        self.clients.get(client.index).filter(|c| c.generation == client.generation)
    }

    /// As [`Self::get`], mutable.
    pub(super) fn get_mut(&mut self, client: ClientRef) -> Option<&mut Client<S>> {
        self.clients.get_mut(client.index).filter(|c| c.generation == client.generation)
    }

    /// The client at this index.
    pub(super) fn at(&self, index: usize) -> Option<&Client<S>> {
        self.clients.get(index)
    }

    /// As [`Self::at`], mutable.
    pub(super) fn at_mut(&mut self, index: usize) -> Option<&mut Client<S>> {
        self.clients.get_mut(index)
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Client<S>> {
        self.clients.iter_mut().map(|(_, client)| client)
    }

    /// Indexes of the clients for which `is_such` holds.
    pub(super) fn which(&self, is_such: impl Fn(&Client<S>) -> bool) -> Vec<usize> {
        self.clients.iter().filter(|(_, client)| is_such(client)).map(|(index, _)| index).collect()
    }

    /// Queues a client.
    pub(super) fn queue(&mut self, client: ClientRef) {
        if let Some(c) = self.get_mut(client)
            && !std::mem::replace(&mut c.queued, true)
        {
            self.ready.push(client);
        }
    }

    /// A client's request can continue: queues it.
    pub(super) fn resume(&mut self, client: ClientRef) {
        if let Some(c) = self.get_mut(client) {
            c.waiting = false;
            self.queue(client);
        }
    }

    /// A client's pinned connection has sent all its output.
    pub(super) fn pinned_has_room(&mut self, client: ClientRef) {
        if self.get(client).is_some_and(|c| c.waiting && !c.on_shared) {
            self.resume(client);
        }
    }

    pub(super) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Takes the queue. Clients queued from now on are served in the next round.
    pub(super) fn take_ready(&mut self) -> Vec<ClientRef> {
        std::mem::take(&mut self.ready)
    }

    /// Updates a client's share of memory. `to_server`: bytes waiting on its pinned connection.
    #[inline]
    pub(super) fn account(&mut self, index: usize, to_server: usize) {
        let Some(client) = self.clients.get_mut(index) else { return };
        let bytes = client.buffered() + to_server;
        self.memory.set(&mut client.account, bytes, client.state.is_not_evicted());
    }

    /// Publishes the memory sum; returns which worker must disconnect clients if it exceeds the limit.
    pub(super) fn check_memory(&mut self, limit: Option<usize>) -> OverMemory {
        self.memory.over(limit)
    }

    /// The clients that may be disconnected for memory, largest first, with their sizes.
    pub(super) fn largest(&self) -> Vec<(usize, usize)> {
        let of_size = self.clients.iter().filter(|(_, client)| client.account.may_be_disconnected());
        let mut by_size: Vec<_> = of_size.map(|(index, client)| (client.account.bytes(), index)).collect();
        by_size.sort_unstable_by_key(|(bytes, _)| std::cmp::Reverse(*bytes));
        by_size
    }

    /// Bytes in the buffers of all workers' clients.
    pub(super) fn total_memory(&self) -> usize {
        self.memory.total()
    }

    /// A session got replies: what waited for them continues. `in_reply`: a reply on its pinned connection is
    /// incomplete; `limit`: reply bytes that may be buffered.
    pub(super) fn after_replies(&mut self, reference: ClientRef, in_reply: bool, limit: usize) -> AfterReplies {
        let Some(client) = self.get_mut(reference) else { return AfterReplies::Nothing };
        let limit = client.out_max(limit, in_reply);
        if client.unsaid() > limit {
            return AfterReplies::TooMuchUnread { session: client.state.id(), limit };
        }
        let in_flight = client.in_flight();
        if matches!(client.stage, Stage::Ending { .. }) {
            return if in_flight == 0 { AfterReplies::Finish } else { AfterReplies::Nothing };
        }
        if client.waiting && (in_flight == 0 || (!client.on_shared && in_flight <= client.in_flight_max() / 2)) {
            client.waiting = false;
            self.queue(reference);
        } else if client.questioned && in_flight == 0 {
            // An accepted client needs no further question.
            client.questioned = !client.state.is_admitted();
            self.queue(reference);
        } else if client.eof && client.on_shared && in_flight == 0 && !client.waiting {
            client.on_shared = false;
            self.queue(reference);
        }
        AfterReplies::Nothing
    }

    /// Schedules another count of a client's replicas.
    pub(super) fn count_later(&mut self, client: ClientRef, at: Instant) {
        self.next_count = Some(self.next_count.map_or(at, |next| next.min(at)));
        self.counting.push(client);
    }

    /// Time of the first scheduled count.
    pub(super) fn next_count(&self) -> Option<Instant> {
        self.next_count
    }

    /// The scheduled counts that are due, and what to do for each.
    pub(super) fn due_counts(&mut self, now: Instant) -> Vec<(ClientRef, Recount)> {
        if self.next_count.is_none_or(|next| now < next) {
            return Vec::new();
        }
        self.next_count = None;
        let mut due = Vec::new();
        for reference in std::mem::take(&mut self.counting) {
            let Some(client) = self.get(reference) else { continue };
            let Some(wait) = &client.replica_wait else { continue };
            if now < wait.again_at {
                self.count_later(reference, wait.again_at);
            } else if client.read_closed || client.stage != Stage::Open {
                due.push((reference, Recount::Close));
            } else {
                due.push((reference, Recount::Ask));
            }
        }
        due
    }
}

impl<S: Handshake> ClientTable<S> {
    /// Called at each tick.
    pub(super) fn check(&mut self, now: Instant, timeouts: Timeouts) -> ClientCheck {
        let stretch = 1 + u32::try_from(self.behind).unwrap_or(u32::MAX) / KEEP_ALIVE_SESSIONS;
        let keep_alive = KEEP_ALIVE.saturating_mul(stretch).min(KEEP_ALIVE_MAX);
        self.behind = self.clients.iter().filter(|(_, c)| c.behind).count();
        let mut check = ClientCheck::default();
        for (index, client) in &self.clients {
            if is_over(client, now, timeouts) {
                check.close.push(index);
            } else if client.works_on_shared() && now.saturating_duration_since(client.pinned_active) >= keep_alive {
                check.alive.push(index);
            }
        }
        check
    }
}

/// True if a client exceeds a time limit.
fn is_over<S: Handshake>(client: &Client<S>, now: Instant, timeouts: Timeouts) -> bool {
    let silent = now.saturating_duration_since(client.active);
    match client.stage {
        Stage::Ending { until } | Stage::Finishing { until } | Stage::Lingering { until } => now >= until,
        _ if timeouts.draining && client.is_idle() => true,
        _ if !client.is_introduced() => now.saturating_duration_since(client.opened) >= timeouts.handshake,
        Stage::Open if client.waiting && client.read_closed && silent >= GONE_AFTER => true,
        // The client has left: a server would drop the blocked connection, and the answer of a thread has no reader.
        Stage::Open if client.cancel.is_some() && client.read_closed && silent >= TICK => true,
        Stage::Open if client.waits_on_pinned() && client.read_closed && silent >= TICK => true,
        // Redis does not count blocked clients as idle either.
        Stage::Open => {
            timeouts.idle.is_some_and(|t| silent >= t)
                && !client.asking
                && client.state.is_idle()
                && !client.state.is_listening()
        }
        Stage::Header { .. } => false,
    }
}

impl<S> Index<usize> for ClientTable<S> {
    type Output = Client<S>;

    fn index(&self, index: usize) -> &Client<S> {
        &self.clients[index]
    }
}

impl<S> IndexMut<usize> for ClientTable<S> {
    fn index_mut(&mut self, index: usize) -> &mut Client<S> {
        &mut self.clients[index]
    }
}

#[cfg(test)]
mod tests;
