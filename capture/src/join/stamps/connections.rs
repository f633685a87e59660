//! The stamps of each upstream connection, in the order in which the server runs them. Pure.
//!
//! The order is evidence: once a request is known to have had its effect, what stands before it on its connection has run, too. If
//! its effect was not seen by then, it had none. And a request whose effect must still come holds back those behind it.

use std::collections::{HashMap, VecDeque};

use foldhash::fast::FixedState;

use super::Place;

/// Connections without a stamp that are kept, so that one that is used again and again costs nothing.
const IDLE_MAX: usize = 1024;

/// Requests of a connection that are looked at to find a later one of the same client.
const BEHIND_MAX: usize = 64;

#[derive(Debug, Default)]
struct Connection {
    /// All that wait, oldest first; some of them may have left.
    open: VecDeque<Place>,
    /// Those of `open` whose replies say that their effect must come.
    certain: VecDeque<Place>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Connections {
    by_id: HashMap<u64, Connection, FixedState>,
}

impl Connections {
    /// Adds a place. Above `limit` of them, those that no longer wait are dropped.
    pub(super) fn add(&mut self, id: u64, place: Place, limit: usize, waits: impl Fn(Place) -> bool) {
        let connection = self.by_id.entry(id).or_default();
        connection.open.push_back(place);
        if connection.open.len() > limit {
            connection.open.retain(|place| waits(*place));
            connection.certain.retain(|place| waits(*place));
        }
    }

    /// The effect of the stamp at this place must come. Replies come in the order of the requests.
    pub(super) fn set_certain(&mut self, id: u64, place: Place) {
        if let Some(connection) = self.by_id.get_mut(&id) {
            connection.certain.push_back(place);
        }
    }

    /// The effect of something before `place` must come first. `waits`: whether a place still waits for its effect.
    pub(super) fn holds_back(&self, id: u64, place: Place, waits: impl Fn(Place) -> bool) -> bool {
        let Some(connection) = self.by_id.get(&id) else { return false };
        connection.certain.iter().take_while(|before| **before < place).any(|before| waits(*before))
    }

    /// Whether something behind `place` may be meant as well; what lies too far behind is not looked at, and may be.
    pub(super) fn any_behind(&self, id: u64, place: Place, is_meant: impl Fn(Place) -> bool) -> bool {
        let Some(connection) = self.by_id.get(&id) else { return false };
        let mut behind = connection.open.iter().rev().take_while(|other| **other > place);
        behind.by_ref().take(BEHIND_MAX).any(|other| is_meant(*other)) || behind.next().is_some()
    }

    /// The effect of `place` came: what stands before it has run.
    pub(super) fn ran(&mut self, id: u64, place: Place, mut passed: impl FnMut(Place)) {
        let Some(connection) = self.by_id.get_mut(&id) else { return };
        while connection.certain.front().is_some_and(|first| *first <= place) {
            connection.certain.pop_front();
        }
        while let Some(first) = connection.open.front().copied().filter(|first| *first <= place) {
            connection.open.pop_front();
            if first < place {
                passed(first);
            }
        }
    }

    /// A stamp has left: what does not wait any more goes from the fronts.
    pub(super) fn left(&mut self, id: u64, place: Place, waits: impl Fn(Place) -> bool) {
        let Some(connection) = self.by_id.get_mut(&id) else { return };
        for queue in [&mut connection.open, &mut connection.certain] {
            if queue.front() == Some(&place) {
                while queue.front().is_some_and(|first| !waits(*first)) {
                    queue.pop_front();
                }
            }
        }
    }

    /// Connections that have nothing to wait for are forgotten when there are many.
    pub(super) fn give_back_room(&mut self) {
        if self.by_id.len() > IDLE_MAX {
            self.by_id.retain(|_, connection| !connection.open.is_empty());
            if self.by_id.capacity() > 4 * IDLE_MAX.max(self.by_id.len()) {
                self.by_id.shrink_to(2 * IDLE_MAX.max(self.by_id.len()));
            }
        }
    }
}
