//! The clients of one worker: who is connected, who is to be served, and whose time or memory is over. Decides and returns
//! actions; the worker carries them out, and alone knows of sockets (`S`; tests have none).
//!
//! Owns: the clients with their session state and buffers; the list of those to be served; the sums of what their buffers
//! hold ([`memory`]); and who waits for replicas to be counted again.
//!
//! Invariants:
//! - a client is in the list of those to be served once at most; one that is gone may be in it, and is found by its
//!   reference to be gone;
//! - what is counted of a client's buffers is taken off when the client is removed;
//! - the table never ends a client: it says who is to be closed, and the worker tells the tee and the metrics.

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

/// A session that works on a shared connection is heard of on its pinned connection after so long, at the next tick:
/// then no server takes it for idle, not even with a `timeout` of one second, and whatever it is set to meanwhile. One
/// that rests is not heard of, and the server ends it.
const KEEP_ALIVE: Duration = Duration::from_millis(400);
/// For each so many of them, it takes as much longer, up to this.
const KEEP_ALIVE_SESSIONS: u32 = 1000;
const KEEP_ALIVE_MAX: Duration = Duration::from_secs(5);
/// A client that has ended its side while what it said last waits for a reply, is gone after so long without one: the
/// server, which would drop a blocked client at once, cannot see that it left.
const GONE_AFTER: Duration = Duration::from_mins(1);

/// What limits how long a client stays.
#[derive(Debug, Clone, Copy)]
pub(super) struct Timeouts {
    pub(super) handshake: Duration,
    pub(super) idle: Option<Duration>,
    /// Idle clients go at once.
    pub(super) draining: bool,
}

/// What has to be done by the clock.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct ClientCheck {
    /// Their time is over.
    pub(super) close: Vec<usize>,
    /// The server is to hear of them on their pinned connections.
    pub(super) alive: Vec<usize>,
}

/// What has to be done for a client that got replies. If it has more to say, it is in the list of those to be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AfterReplies {
    Nothing,
    /// It does not read its replies: to be disconnected.
    TooMuchUnread {
        session: u64,
        limit: usize,
    },
    /// All is answered that was in flight when its pinned connection ended.
    Finish,
}

/// What has to be done for a client whose replicas are to be counted again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Recount {
    /// They are to be counted.
    Ask,
    /// The client has left: to be closed. A server lets go of a client that leaves while it waits.
    Close,
}

/// What has to be done when all clients' buffers together hold too much.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OverMemory {
    /// Nothing, or nobody may be disconnected.
    No,
    /// This worker has the largest client: [`ClientTable::largest`].
    Here,
    /// Another one has.
    Elsewhere(usize),
}

/// See the module.
#[derive(Debug)]
pub(super) struct ClientTable<S = Socket> {
    clients: Slab<Client<S>>,
    /// To be served in this turn or the next.
    ready: Vec<ClientRef>,
    memory: WorkerMemory,
    /// Sessions that work by shared connections, at the last look.
    behind: usize,
    /// Whose replicas are to be counted again, and when the first of them.
    counting: Vec<ClientRef>,
    next_count: Option<Instant>,
}

impl ClientTable {
    /// For the `n`-th worker, which others wake when its clients take too much memory.
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

    /// The client, unless it has gone.
    pub(super) fn get(&self, client: ClientRef) -> Option<&Client<S>> {
        self.clients.get(client.index).filter(|c| c.generation == client.generation)
    }

    /// The same.
    pub(super) fn get_mut(&mut self, client: ClientRef) -> Option<&mut Client<S>> {
        self.clients.get_mut(client.index).filter(|c| c.generation == client.generation)
    }

    /// The client that is at this index now.
    pub(super) fn at(&self, index: usize) -> Option<&Client<S>> {
        self.clients.get(index)
    }

    /// The same.
    pub(super) fn at_mut(&mut self, index: usize) -> Option<&mut Client<S>> {
        self.clients.get_mut(index)
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Client<S>> {
        self.clients.iter_mut().map(|(_, client)| client)
    }

    /// Indexes of the clients that are such.
    pub(super) fn which(&self, is_such: impl Fn(&Client<S>) -> bool) -> Vec<usize> {
        self.clients.iter().filter(|(_, client)| is_such(client)).map(|(index, _)| index).collect()
    }

    /// A client is to be served.
    pub(super) fn queue(&mut self, client: ClientRef) {
        if let Some(c) = self.get_mut(client)
            && !std::mem::replace(&mut c.queued, true)
        {
            self.ready.push(client);
        }
    }

    /// What a client's request waited for is there: it is to be served.
    pub(super) fn resume(&mut self, client: ClientRef) {
        if let Some(c) = self.get_mut(client) {
            c.waiting = false;
            self.queue(client);
        }
    }

    /// All that waited to be sent on a client's pinned connection was sent.
    pub(super) fn pinned_has_room(&mut self, client: ClientRef) {
        if self.get(client).is_some_and(|c| c.waiting && !c.on_shared) {
            self.resume(client);
        }
    }

    pub(super) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Those to be served. Who is put on the list from here on has its turn in the next round.
    pub(super) fn take_ready(&mut self) -> Vec<ClientRef> {
        std::mem::take(&mut self.ready)
    }

    /// Takes note of what a client's buffers hold now. `to_server`: what waits on its pinned connection.
    #[inline]
    pub(super) fn account(&mut self, index: usize, to_server: usize) {
        let Some(client) = self.clients.get_mut(index) else { return };
        let bytes = client.buffered() + to_server;
        self.memory.set(&mut client.account, bytes, client.state.is_not_evicted());
    }

    /// Tells the other workers what the buffers hold; whose clients are to go, if that is more than the limit.
    pub(super) fn check_memory(&mut self, limit: Option<usize>) -> OverMemory {
        self.memory.over(limit)
    }

    /// The clients that may be disconnected for their memory, largest first, with what they hold.
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

    /// A session got replies: what waited for them goes on. `in_reply`: one has begun on its pinned connection and not ended;
    /// `limit`: bytes of replies that may pile up.
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
            // One that was let in asks no more.
            client.questioned = !client.state.is_admitted();
            self.queue(reference);
        } else if client.eof && client.on_shared && in_flight == 0 && !client.waiting {
            client.on_shared = false;
            self.queue(reference);
        }
        AfterReplies::Nothing
    }

    /// The replicas of a client that waits for them are to be counted again.
    pub(super) fn count_later(&mut self, client: ClientRef, at: Instant) {
        self.next_count = Some(self.next_count.map_or(at, |next| next.min(at)));
        self.counting.push(client);
    }

    /// When the first of those has its turn.
    pub(super) fn next_count(&self) -> Option<Instant> {
        self.next_count
    }

    /// Those whose turn has come, and what is to be done for them.
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
    /// At each tick.
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

/// A client's time is over.
fn is_over<S: Handshake>(client: &Client<S>, now: Instant, timeouts: Timeouts) -> bool {
    let silent = now.saturating_duration_since(client.active);
    match client.stage {
        Stage::Ending { until } | Stage::Finishing { until } | Stage::Lingering { until } => now >= until,
        _ if timeouts.draining && client.is_idle() => true,
        _ if !client.is_introduced() => now.saturating_duration_since(client.opened) >= timeouts.handshake,
        Stage::Open if client.waiting && client.read_closed && silent >= GONE_AFTER => true,
        // Its pinned connection waits in the server, which lets go of a client that leaves.
        // Nobody reads what is being worked out for it.
        Stage::Open if client.cancel.is_some() && client.read_closed && silent >= TICK => true,
        Stage::Open if client.waits_on_pinned() && client.read_closed && silent >= TICK => true,
        // Redis does not count those who wait for something either.
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
