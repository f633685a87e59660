//! The dependents, and which parts of which keys each has touched first.

use std::collections::HashMap;

use redtape_journal::Lsn;

use super::Dependent;
use super::bounds::{Bounds, Room};

/// The number of a dependent: a smaller one stands earlier in the journal.
pub(super) type Number = u32;

/// Of one key: the first dependent that touched each part.
#[derive(Debug, Default)]
pub(super) struct Parts {
    /// Of the value as a whole.
    pub(super) whole: Option<Number>,
    pub(super) ttl: Option<Number>,
    elements: HashMap<Box<[u8]>, Number>,
}

/// What of a key a dependent has touched.
#[derive(Debug, Clone, Copy)]
pub(super) enum Touches<'a> {
    Whole,
    Element(&'a [u8]),
    Ttl,
}

impl Parts {
    /// The first that touched this element; without one, anything of the value.
    pub(super) fn of_value(&self, element: Option<&[u8]>) -> Option<Number> {
        let of_elements = match element {
            Some(element) => self.elements.get(element).copied(),
            None => self.elements.values().min().copied(),
        };
        first(self.whole, of_elements)
    }

    /// The first that touched anything of the key.
    pub(super) fn any(&self) -> Option<Number> {
        first(self.of_value(None), self.ttl)
    }

    /// One is noted for this part.
    pub(super) fn has(&self, touches: Touches<'_>) -> bool {
        match touches {
            Touches::Whole => self.whole.is_some(),
            Touches::Ttl => self.ttl.is_some(),
            Touches::Element(element) => self.whole.is_some() || self.elements.contains_key(element),
        }
    }

    /// Notes one. Where there is no room any more for its element: of the whole key.
    fn note(&mut self, touches: Touches<'_>, number: Number, room: &mut Room, bounds: &Bounds) -> Noted {
        let place = match touches {
            Touches::Whole => &mut self.whole,
            Touches::Ttl => &mut self.ttl,
            Touches::Element(_) if self.has(touches) => return Noted::Done,
            Touches::Element(_) if self.elements.len() >= bounds.elements_of_key => &mut self.whole,
            Touches::Element(element) => {
                if !room.take(element.len()) {
                    return Noted::NoRoom;
                }
                self.elements.insert(element.into(), number);
                return Noted::Done;
            }
        };
        place.get_or_insert(number);
        Noted::Done
    }
}

/// The earlier one.
pub(super) fn first(a: Option<Number>, b: Option<Number>) -> Option<Number> {
    a.into_iter().chain(b).min()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Noted {
    Done,
    NoRoom,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Dependents {
    all: Vec<Dependent>,
    room: Room,
    bounds: Bounds,
    /// The first that found no room: everything that is affected depends on it.
    overflow: Option<Dependent>,
}

impl Dependents {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self { all: Vec::new(), room: Room::new(bounds.parts, bounds.part_bytes), bounds, overflow: None }
    }

    pub(super) fn get(&self, number: Number) -> Option<&Dependent> {
        self.all.get(number as usize)
    }

    pub(super) fn lsn(&self, number: Number) -> Lsn {
        self.get(number).map_or(Lsn(u64::MAX), |dependent| dependent.at.lsn)
    }

    pub(super) fn list(&self) -> &[Dependent] {
        &self.all
    }

    pub(super) fn overflow(&self) -> Option<&Dependent> {
        self.overflow.as_ref()
    }

    /// Adds one; `None` = there is no room any more.
    pub(super) fn add(&mut self, dependent: Dependent) -> Option<Number> {
        if self.overflow.is_some() {
            return None;
        }
        if self.all.len() >= self.bounds.dependents {
            self.overflow = Some(dependent);
            return None;
        }
        self.all.push(dependent);
        Some((self.all.len() - 1) as Number)
    }

    /// Room for the parts of one more key.
    pub(super) fn room_for_key(&mut self, key: &[u8], number: Number) -> bool {
        let is = self.room.take(key.len());
        if !is {
            self.is_full(number);
        }
        is
    }

    pub(super) fn note(&mut self, parts: &mut Parts, touches: Touches<'_>, number: Number) {
        if parts.note(touches, number, &mut self.room, &self.bounds) == Noted::NoRoom {
            parts.whole.get_or_insert(number);
            self.is_full(number);
        }
    }

    fn is_full(&mut self, number: Number) {
        if self.overflow.is_none() {
            self.overflow = self.get(number).cloned();
        }
    }
}
