//! Storage of waiting stamps, numbered in the order of arrival; numbers are never reused.

use std::collections::{BTreeMap, VecDeque};

use super::{Place, Waiting};

/// Empty places kept beside twice the number of stamps.
pub(super) const EMPTY_MAX: usize = 1024;

#[derive(Debug, Default)]
pub(super) struct Places {
    /// Number of the first entry of `recent`.
    first: Place,
    pub(super) recent: VecDeque<Option<Waiting>>,
    /// Stamps that outlived nearly all their neighbours, moved here so that the empty places are released.
    staying: BTreeMap<Place, Waiting>,
    pub(super) len: usize,
}

impl Places {
    pub(super) fn add(&mut self, waiting: Waiting) -> Place {
        while let Some(front) = self.recent.front()
            && (front.is_none() || self.recent.len() > 2 * self.len + EMPTY_MAX)
        {
            if let Some(Some(stays)) = self.recent.pop_front() {
                self.staying.insert(self.first, stays);
            }
            self.first += 1;
        }
        self.recent.push_back(Some(waiting));
        self.len += 1;
        self.first + self.recent.len() as u64 - 1
    }

    #[inline]
    pub(super) fn get(&self, place: Place) -> Option<&Waiting> {
        match place.checked_sub(self.first) {
            Some(at) => self.recent.get(at as usize)?.as_ref(),
            None => self.staying.get(&place),
        }
    }

    #[inline]
    pub(super) fn get_mut(&mut self, place: Place) -> Option<&mut Waiting> {
        match place.checked_sub(self.first) {
            Some(at) => self.recent.get_mut(at as usize)?.as_mut(),
            None => self.staying.get_mut(&place),
        }
    }

    #[inline]
    pub(super) fn remove(&mut self, place: Place) -> Option<Waiting> {
        let waiting = match place.checked_sub(self.first) {
            Some(at) => self.recent.get_mut(at as usize)?.take(),
            None => self.staying.remove(&place),
        };
        self.len -= usize::from(waiting.is_some());
        waiting
    }

    pub(super) fn oldest(&self) -> Option<Place> {
        let staying = self.staying.first_key_value().map(|(place, _)| *place);
        staying.or_else(|| self.recent.iter().position(Option::is_some).map(|at| self.first + at as u64))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Place, &Waiting)> {
        let recent = (self.first..).zip(&self.recent).filter_map(|(place, w)| Some((place, w.as_ref()?)));
        self.staying.iter().map(|(place, w)| (*place, w)).chain(recent)
    }
}
