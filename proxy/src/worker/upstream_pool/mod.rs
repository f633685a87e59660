//! The connections to the server of one worker: which one serves whom, which is to be opened or closed. Decides and returns
//! actions; the worker carries them out, and alone knows of sockets (`S`; tests have none).
//!
//! Owns: pinned, shared and asking connections; which shared connection is used for which user, database and protocol; the
//! lists of connections to be read from and to be flushed; and what is known of shared connections that stall.
//!
//! Invariants:
//! - a shared connection is found under its key from when it is opened until it is removed or retired, and no other is;
//! - `connecting` counts the connections that are being connected;
//! - a connection is in the list of those to be flushed once at most; one that is gone may be in either list, and is found
//!   there by its reference to be gone.

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

/// Which shared connection a session may use that nothing pins.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum SharedRoute {
    /// This one.
    Use(usize),
    /// This one is to be opened; meanwhile the session stays on its pinned connection.
    Open(SharedKey),
    /// None: the session stays on its pinned connection.
    None,
}

/// See the module.
#[derive(Debug)]
pub(super) struct UpstreamPool<S = Socket> {
    conns: Slab<UpstreamConn<S>>,
    shared: SharedConns,
    /// To be read from in this turn or the next.
    ready: Vec<ConnRef>,
    /// With something to send.
    dirty: Vec<usize>,
    connecting: usize,
    next_generation: u64,
    /// What was answered since the last tick, for those that were not.
    served: Served,
    /// Some shared connection got no answer at the last tick.
    has_stalled: bool,
    /// Asks whether the server answers while a shared connection stalls.
    witness: Option<ConnRef>,
    /// The server moves a connection's write offset by any command.
    moves_by_any_command: bool,
}

impl<S> UpstreamPool<S> {
    /// Its connections have generations above this one.
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

    /// A connection that is being connected.
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

    /// Takes a connection out, whatever it is for.
    pub(super) fn remove(&mut self, index: usize) -> Option<UpstreamConn<S>> {
        let conn = self.conns.try_remove(index)?;
        self.connecting -= usize::from(matches!(conn.stage, Stage::Connecting { .. }));
        if let Role::Shared(key) = &conn.role {
            self.shared.closed(key, index);
        }
        Some(conn)
    }

    /// The connection, unless it has gone.
    pub(super) fn get(&self, conn: ConnRef) -> Option<&UpstreamConn<S>> {
        self.conns.get(conn.index).filter(|c| c.generation == conn.generation)
    }

    /// The same.
    pub(super) fn get_mut(&mut self, conn: ConnRef) -> Option<&mut UpstreamConn<S>> {
        self.conns.get_mut(conn.index).filter(|c| c.generation == conn.generation)
    }

    /// The connection that is at this index now.
    pub(super) fn at(&mut self, index: usize) -> Option<&mut UpstreamConn<S>> {
        self.conns.get_mut(index)
    }

    /// A session's own connection, if it has one.
    pub(super) fn pinned(&self, pinned: Option<usize>) -> Option<&UpstreamConn<S>> {
        self.conns.get(pinned?)
    }

    /// All shared connections that take requests.
    pub(super) fn open_shared(&self) -> Vec<usize> {
        self.shared.open().collect()
    }

    /// Connections are being connected.
    pub(super) fn is_connecting(&self) -> bool {
        self.connecting > 0
    }

    /// The server moves a connection's write offset by any command, as far as is known.
    pub(super) fn moves_by_any_command(&self) -> bool {
        self.moves_by_any_command
    }

    /// Which shared connection a session may use now. `last`: the one that it used last, which is renewed.
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

    /// A shared connection shows the same proof, and the server has not answered yet.
    fn is_showing(&self, key: &SharedKey) -> bool {
        let is_ready = |index: usize| self.conns.get(index).is_some_and(UpstreamConn::is_ready);
        self.shared.is_showing(key.credential.as_ref(), is_ready)
    }

    /// A session with requests in flight on this shared connection may add to them.
    pub(super) fn goes_on(&self, shared: ConnRef) -> bool {
        self.get(shared).is_some_and(|conn| !conn.retired && conn.out.len() < CONN_OUT_MAX)
    }

    /// The server has accepted this proof from a session.
    pub(super) fn proved(&mut self, credential: Option<&std::sync::Arc<Credential>>) {
        self.shared.proved(credential);
    }

    /// A shared connection takes no more requests of others: what the server remembers of it stands still.
    pub(super) fn retire(&mut self, shared: ConnRef) {
        let Some(conn) = self.conns.get_mut(shared.index).filter(|c| c.generation == shared.generation) else { return };
        conn.retired = true;
        if let Role::Shared(key) = &conn.role {
            self.shared.closed(key, shared.index);
        }
    }

    /// A connection is connected, by the `attempt`-th way that is given back; what it says first is in its buffer. The offset
    /// probe's introduction is the caller's.
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
            // Any answer will do, and this one needs no right.
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

    /// A connection is to be read from.
    pub(super) fn queue(&mut self, conn: ConnRef) {
        self.ready.push(conn);
    }

    /// What came by a pinned connection and was left there has its turn.
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

    /// Connections to be read from.
    pub(super) fn take_ready(&mut self) -> Vec<ConnRef> {
        std::mem::take(&mut self.ready)
    }

    /// A connection has something to send.
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

    /// Connections with something to send; another one may have the index of one that is gone.
    pub(super) fn take_dirty(&mut self) -> Vec<usize> {
        std::mem::take(&mut self.dirty)
    }

    /// Whether a connection of [`Self::take_dirty`] is still to be flushed.
    pub(super) fn begin_flush(&mut self, index: usize) -> bool {
        self.conns.get_mut(index).is_some_and(|conn| std::mem::take(&mut conn.dirty))
    }

    /// Requests that are about to go to the server by shared connections.
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
