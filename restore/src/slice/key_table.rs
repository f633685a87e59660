//! A table of notes on keys by hash: 16 bytes per key, and one probe for an unknown key.
//!
//! Open addressing: an entry is the upper 104 bits of the hash and a note of 24 bits, at the first free place from the
//! hash's position. Entries are never removed. A probe reads nearly always one cache line, and can be prefetched
//! ([`KeyTable::touch`]).

/// Bits of the note.
const NOTE_BITS: u32 = 24;
/// The largest note.
pub(super) const NOTE_MAX: u32 = (1 << NOTE_BITS) - 1;
/// Places of the smallest table.
const SMALLEST: usize = 64;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct KeyTable {
    /// 0 = free. Their number is a power of two.
    places: Vec<u128>,
    used: usize,
}

/// The place of an entry whose note can be changed.
#[derive(Debug)]
pub(super) struct Noted<'a>(&'a mut u128);

impl Noted<'_> {
    pub(super) fn get(&self) -> u32 {
        note(*self.0)
    }

    /// Puts another note in its place; gives the one before.
    pub(super) fn replace(self, new: u32) -> u32 {
        let before = note(*self.0);
        *self.0 = *self.0 >> NOTE_BITS << NOTE_BITS | u128::from(new.min(NOTE_MAX));
        before
    }
}

fn note(entry: u128) -> u32 {
    (entry as u32) & NOTE_MAX
}

/// The hash as it stands in an entry, never 0.
fn tag(hash: u128) -> u128 {
    (hash >> NOTE_BITS << NOTE_BITS).max(1 << NOTE_BITS)
}

impl KeyTable {
    /// How many keys are noted.
    pub(super) fn len(&self) -> usize {
        self.used
    }

    fn first_place(&self, hash: u128) -> usize {
        // The uppermost bits that name a place.
        ((hash >> 64) as u64 >> (64 - self.places.len().trailing_zeros())) as usize
    }

    /// Where it is, or where it would be.
    fn find(&self, hash: u128) -> Result<usize, usize> {
        let (tag, mask) = (tag(hash), self.places.len() - 1);
        let mut at = self.first_place(hash);
        loop {
            match self.places[at] {
                0 => return Err(at),
                entry if entry >> NOTE_BITS == tag >> NOTE_BITS => return Ok(at),
                _ => at = (at + 1) & mask,
            }
        }
    }

    /// The note on a key.
    pub(super) fn get(&self, hash: u128) -> Option<u32> {
        if self.places.is_empty() {
            return None;
        }
        self.find(hash).ok().map(|at| note(self.places[at]))
    }

    /// The note on a key; where there is none, `new` is put there, if that gives one.
    pub(super) fn get_or_note(&mut self, hash: u128, new: impl FnOnce() -> Option<u32>) -> Option<Noted<'_>> {
        // Grows only when an entry is added, not by a lookup in a full table.
        if self.used > self.places.len() / 4 * 3 || self.places.is_empty() {
            self.grow();
        }
        match self.find(hash) {
            Ok(at) => Some(Noted(&mut self.places[at])),
            Err(at) => {
                if let Some(new) = new() {
                    self.places[at] = tag(hash) | u128::from(new.min(NOTE_MAX));
                    self.used += 1;
                }
                None
            }
        }
    }

    /// Prefetches the place of a key into the CPU cache; the result has no meaning.
    pub(super) fn touch(&self, hash: u128) -> u64 {
        if self.places.is_empty() { 0 } else { self.places[self.first_place(hash)] as u64 }
    }

    fn grow(&mut self) {
        let larger = vec![0; (self.places.len() * 2).max(SMALLEST)];
        let before = std::mem::replace(&mut self.places, larger);
        for entry in before.into_iter().filter(|entry| *entry != 0) {
            if let Err(at) = self.find(entry) {
                self.places[at] = entry;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_holds_what_was_noted(
            // Few upper bits, so that places are shared; and hashes that differ in the note's bits only.
            steps in prop::collection::vec((0u128..6, 0u128..50, 0u128..4, 0..=NOTE_MAX, any::<bool>()), 0..300),
        ) {
            let mut table = KeyTable::default();
            let mut model: HashMap<u128, u32> = HashMap::new();
            for (high, low, below, new, put) in steps {
                let hash = high << 126 | low << NOTE_BITS | below;
                // The hash 0 is the same as 1.
                let known = (hash >> NOTE_BITS).max(1);
                prop_assert_eq!(table.get(hash), model.get(&known).copied());
                table.touch(hash);
                let noted = table.get_or_note(hash, || put.then_some(new));
                if let Some(before) = model.get_mut(&known) {
                    let noted = noted.expect("noted");
                    prop_assert_eq!(noted.get(), *before);
                    prop_assert_eq!(noted.replace(new), *before);
                    *before = new;
                } else {
                    prop_assert!(noted.is_none());
                    if put {
                        model.insert(known, new);
                    }
                }
                prop_assert_eq!(table.len(), model.len());
            }
            for (hash, note) in model {
                prop_assert_eq!(table.get(hash << NOTE_BITS), Some(note));
            }
        }
    }
}
