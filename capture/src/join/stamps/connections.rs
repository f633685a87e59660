//! The stamps of each upstream connection, in the order in which the server runs them. Pure.
//!
//! The order is evidence: once a request has had its effect, earlier requests of its connection have run. If the effect
//! of one was not seen by then, it had none. A request whose effect must still come holds back the later ones.

use std::collections::{HashMap, VecDeque};

use foldhash::fast::FixedState;

use super::Place;

/// Connections without a stamp that stay allocated, for reuse.
const IDLE_MAX: usize = 1024;

/// Requests of a connection that are examined to find a later one of the same client.
const BEHIND_MAX: usize = 64;

#[derive(Debug, Default)]
struct Connection {
    /// All waiting stamps, oldest first; some may have left.
    open: VecDeque<Place>,
    /// Those of `open` whose replies show that an effect must come.
    certain: VecDeque<Place>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Connections {
    by_id: HashMap<u64, Connection, FixedState>,
}

impl Connections {
    /// Adds a place. Above `limit` places, those that no longer wait are dropped.
    pub(super) fn add(&mut self, id: u64, place: Place, limit: usize, waits: impl Fn(Place) -> bool) {
        let connection = self.by_id.entry(id).or_default();
        connection.open.push_back(place);
        if connection.open.len() > limit {
            connection.open.retain(|place| waits(*place));
            connection.certain.retain(|place| waits(*place));
        }
    }

    /// The effect of the stamp at this place must come. Replies arrive in request order.
    pub(super) fn set_certain(&mut self, id: u64, place: Place) {
        if let Some(connection) = self.by_id.get_mut(&id) {
            connection.certain.push_back(place);
        }
    }

    /// True if an earlier effect must come before that of `place`. `waits`: whether a place still waits for its effect.
    pub(super) fn holds_back(&self, id: u64, place: Place, waits: impl Fn(Place) -> bool) -> bool {
        let Some(connection) = self.by_id.get(&id) else { return false };
        connection.certain.iter().take_while(|before| **before < place).any(|before| waits(*before))
    }

    /// True if a place behind `place` matches, or if too many lie behind it to examine all.
    pub(super) fn any_behind(&self, id: u64, place: Place, is_meant: impl Fn(Place) -> bool) -> bool {
        let Some(connection) = self.by_id.get(&id) else { return false };
        let mut behind = connection.open.iter().rev().take_while(|other| **other > place);
        behind.by_ref().take(BEHIND_MAX).any(|other| is_meant(*other)) || behind.next().is_some()
    }

    /// The effect of `place` came: earlier requests have run.
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

    /// A stamp has left: places that no longer wait are dropped from the front.
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

    /// Drops connections without waiting stamps when there are many.
    pub(super) fn give_back_room(&mut self) {
        if self.by_id.len() > IDLE_MAX {
            self.by_id.retain(|_, connection| !connection.open.is_empty());
            if self.by_id.capacity() > 4 * IDLE_MAX.max(self.by_id.len()) {
                self.by_id.shrink_to(2 * IDLE_MAX.max(self.by_id.len()));
            }
        }
    }
}
