//! The connections of one worker to the server: which one each session uses, which is opened or closed. Decides and
//! returns actions; only the worker uses sockets (`S`; tests have none).
//!
//! Owns: pinned, shared and probe connections; the shared connection for each user, database and protocol; the lists of
//! connections to read and to flush; and the stall counters.
//!
//! Invariants:
//! - a shared connection is found under its key from its opening until it is removed or retired, and no other is;
//! - `connecting` counts the connections being established;
//! - a connection is in the flush list at most once; a listed reference to a connection that is gone finds nothing.

mod greeting;
mod progress;
mod shared_conns;
mod upkeep;
mod upstream_conn;

use std::ops::{Index, IndexMut};
use std::time::Instant;

use redtape_wire::resp::encode_command;
use slab::Slab;

pub(super) use self::greeting::Greeted;
use self::progress::Served;
use self::shared_conns::{Choice, SharedConns};
pub(super) use self::shared_conns::{SHARED_KEPT, SharedKey};
pub(super) use self::upkeep::SIGN_OF_LIFE;
pub(super) use self::upstream_conn::{CONN_OUT_MAX, Kept, Role, Stage, Unanswered, UpstreamConn};
use super::refs::ConnRef;
use super::socket::Socket;
use crate::session::Credential;

/// Which shared connection a multiplexable session may use.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum SharedRoute {
    /// This one.
    Use(usize),
    /// Open one with this key; meanwhile the session stays on its pinned connection.
    Open(SharedKey),
    /// The session stays on its pinned connection.
    None,
}

/// The connections of one worker.
#[derive(Debug)]
pub(super) struct UpstreamPool<S = Socket> {
    conns: Slab<UpstreamConn<S>>,
    shared: SharedConns,
    /// To be read in this turn or the next.
    ready: Vec<ConnRef>,
    /// Connections with buffered output.
    dirty: Vec<usize>,
    connecting: usize,
    next_generation: u64,
    /// What was answered since the last tick, as evidence about connections without an answer.
    served: Served,
    /// Some shared connection got no answer at the last tick.
    has_stalled: bool,
    /// Shows whether the server answers while a shared connection stalls.
    witness: Option<ConnRef>,
    /// The server advances a connection's write offset at any command.
    moves_by_any_command: bool,
}

impl<S> UpstreamPool<S> {
    /// Its connections get generations above this one.
    pub(super) fn new(generation: u64) -> Self {
        Self {
            conns: Slab::new(),
            shared: SharedConns::default(),
            ready: Vec::new(),
            dirty: Vec::new(),
            connecting: 0,
            next_generation: generation,
            served: Served::default(),
            has_stalled: false,
            witness: None,
            moves_by_any_command: false,
        }
    }

    /// The index of the next connection.
    pub(super) fn vacant_key(&self) -> usize {
        self.conns.vacant_key()
    }

    /// Adds a connection that is being established.
    pub(super) fn insert(&mut self, socket: S, role: Role, stage: Stage, now: Instant) -> ConnRef {
        self.next_generation += 1;
        let generation = self.next_generation;
        self.connecting += usize::from(matches!(stage, Stage::Connecting { .. }));
        let key = if let Role::Shared(key) = &role { Some(key.clone()) } else { None };
        let index = self.conns.insert(UpstreamConn::new(socket, role, stage, generation, now));
        if let Some(key) = key {
            self.shared.opened(key, index);
        }
        ConnRef { index, generation }
    }

    /// Removes a connection of any role.
    pub(super) fn remove(&mut self, index: usize) -> Option<UpstreamConn<S>> {
        let conn = self.conns.try_remove(index)?;
        self.connecting -= usize::from(matches!(conn.stage, Stage::Connecting { .. }));
        if let Role::Shared(key) = &conn.role {
            self.shared.closed(key, index);
        }
        Some(conn)
    }

    /// The connection, unless it is gone.
    pub(super) fn get(&self, conn: ConnRef) -> Option<&UpstreamConn<S>> {
        self.conns.get(conn.index).filter(|c| c.generation == conn.generation)
    }

    /// As [`Self::get`], mutable.
    pub(super) fn get_mut(&mut self, conn: ConnRef) -> Option<&mut UpstreamConn<S>> {
        self.conns.get_mut(conn.index).filter(|c| c.generation == conn.generation)
    }

    /// The connection at this index.
    pub(super) fn at(&mut self, index: usize) -> Option<&mut UpstreamConn<S>> {
        self.conns.get_mut(index)
    }

    /// A session's pinned connection, if it has one.
    pub(super) fn pinned(&self, pinned: Option<usize>) -> Option<&UpstreamConn<S>> {
        self.conns.get(pinned?)
    }

    /// All shared connections that accept requests.
    pub(super) fn open_shared(&self) -> Vec<usize> {
        self.shared.open().collect()
    }

    /// True while connections are being established.
    pub(super) fn is_connecting(&self) -> bool {
        self.connecting > 0
    }

    /// True if the server advances a connection's write offset at any command, as far as known.
    pub(super) fn moves_by_any_command(&self) -> bool {
        self.moves_by_any_command
    }

    /// The shared connection that a session may use now. `last`: the one it used last, which is updated.
    pub(super) fn route(
        &mut self,
        last: &mut Option<ConnRef>,
        key: impl FnOnce() -> SharedKey,
        now: Instant,
    ) -> SharedRoute {
        if let Some(shared) = last.and_then(|last| self.get(last).filter(|conn| !conn.retired).map(|conn| (last, conn)))
        {
            return if shared.1.flows(now) { SharedRoute::Use(shared.0.index) } else { SharedRoute::None };
        }
        let key = key();
        match self.shared.choose(&key, now) {
            Choice::Take(index) => {
                let conn = &self.conns[index];
                if !conn.flows(now) {
                    return SharedRoute::None;
                }
                *last = Some(conn.reference(index));
                SharedRoute::Use(index)
            }
            Choice::Open if key.introduction().is_none() => {
                self.shared.refused(key, now);
                SharedRoute::None
            }
            Choice::Open if self.is_showing(&key) => SharedRoute::None,
            Choice::Open => SharedRoute::Open(key),
            Choice::None => SharedRoute::None,
        }
    }

    /// True if a shared connection uses the same credentials and the server has not answered yet.
    fn is_showing(&self, key: &SharedKey) -> bool {
        let is_ready = |index: usize| self.conns.get(index).is_some_and(UpstreamConn::is_ready);
        self.shared.is_showing(key.credential.as_ref(), is_ready)
    }

    /// True if a session with requests in flight on this shared connection may add to them.
    pub(super) fn goes_on(&self, shared: ConnRef) -> bool {
        self.get(shared).is_some_and(|conn| !conn.retired && conn.out.len() < CONN_OUT_MAX)
    }

    /// The server has accepted these credentials from a session.
    pub(super) fn proved(&mut self, credential: Option<&std::sync::Arc<Credential>>) {
        self.shared.proved(credential);
    }

    /// Retires a shared connection: it gets no more requests of others, so its write offset no longer changes.
    pub(super) fn retire(&mut self, shared: ConnRef) {
        let Some(conn) = self.conns.get_mut(shared.index).filter(|c| c.generation == shared.generation) else { return };
        conn.retired = true;
        if let Role::Shared(key) = &conn.role {
            self.shared.closed(key, shared.index);
        }
    }

    /// A connection is established, to the returned `attempt`-th address; its first bytes are buffered. The offset
    /// probe's login is up to the caller.
    pub(super) fn connected(&mut self, index: usize, now: Instant) -> Option<usize> {
        let conn = self.conns.get_mut(index)?;
        let Stage::Connecting { attempt, .. } = conn.stage else { return None };
        self.connecting -= 1;
        conn.stage = Stage::Ready;
        match &conn.role {
            Role::Pinned(_) | Role::OffsetProbe => {}
            Role::Shared(key) => {
                if let Some((bytes, answers)) = key.introduction() {
                    conn.out.push(&bytes);
                    conn.progress = now;
                    conn.stage = Stage::Greeting(answers);
                }
            }
            // Any answer is sufficient, and this request needs no right.
            Role::Probe | Role::Witness => {
                let mut hello = Vec::new();
                encode_command(&mut hello, &["HELLO", "2"]);
                conn.out.push(&hello);
            }
        }
        // TLS may have read more than the handshake.
        conn.readable = true;
        Some(attempt)
    }

    /// Queues a connection to be read.
    pub(super) fn queue(&mut self, conn: ConnRef) {
        self.ready.push(conn);
    }

    /// Input that was left on a pinned connection is retried.
    pub(super) fn nudge(&mut self, pinned: Option<usize>) {
        if let Some(index) = pinned
            && let Some(conn) = self.conns.get(index)
            && conn.readable
        {
            self.ready.push(conn.reference(index));
        }
    }

    pub(super) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Takes the connections to read.
    pub(super) fn take_ready(&mut self) -> Vec<ConnRef> {
        std::mem::take(&mut self.ready)
    }

    /// Queues a connection with output.
    pub(super) fn make_dirty(&mut self, index: usize) {
        let conn = &mut self.conns[index];
        if !conn.dirty {
            conn.dirty = true;
            self.dirty.push(index);
        }
    }

    pub(super) fn is_clean(&self) -> bool {
        self.dirty.is_empty()
    }

    /// Takes the connections with output; an index may belong to another connection by now.
    pub(super) fn take_dirty(&mut self) -> Vec<usize> {
        std::mem::take(&mut self.dirty)
    }

    /// True if a connection of [`Self::take_dirty`] still needs a flush.
    pub(super) fn begin_flush(&mut self, index: usize) -> bool {
        self.conns.get_mut(index).is_some_and(|conn| std::mem::take(&mut conn.dirty))
    }

    /// Number of requests about to be sent by shared connections.
    pub(super) fn gathered(&self) -> usize {
        self.dirty.iter().filter_map(|index| self.conns.get(*index)).map(|conn| conn.unsent).sum()
    }
}

impl<S> Index<usize> for UpstreamPool<S> {
    type Output = UpstreamConn<S>;

    fn index(&self, index: usize) -> &UpstreamConn<S> {
        &self.conns[index]
    }
}

impl<S> IndexMut<usize> for UpstreamPool<S> {
    fn index_mut(&mut self, index: usize) -> &mut UpstreamConn<S> {
        &mut self.conns[index]
    }
}

#[cfg(test)]
mod tests;
