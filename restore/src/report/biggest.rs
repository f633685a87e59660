//! The biggest keys that were met: so many as are asked for, no more.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::tally::KeyFacts;

/// So many can be asked for.
pub const TOP_MAX: usize = 10_000;
/// Bytes of a name that are kept. A longer one is cut.
pub const KEY_KEPT_BYTES: usize = 16 << 10;

/// One of the biggest keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BigKey {
    /// Its database.
    pub db: u32,
    /// Its name, or the front of it.
    pub key: Vec<u8>,
    /// Bytes of its name.
    pub key_bytes: u64,
    /// As `TYPE` gives it.
    pub type_name: String,
    /// As `OBJECT ENCODING` gives it.
    pub encoding: &'static str,
    /// Estimated.
    pub memory_bytes: u64,
    /// Bytes in the RDB.
    pub serialized_bytes: u64,
    /// See [`KeyFacts`].
    pub elements: Option<u64>,
    /// See [`KeyFacts`].
    pub largest: Option<u64>,
    /// When it expires, in ms since 1970.
    pub expires_at_ms: Option<i64>,
}

impl BigKey {
    fn of(key: &KeyFacts<'_>) -> Self {
        Self {
            db: key.db,
            key: key.key[..key.key.len().min(KEY_KEPT_BYTES)].to_vec(),
            key_bytes: key.key.len() as u64,
            type_name: key.type_name.to_owned(),
            encoding: key.encoding,
            memory_bytes: key.memory_bytes,
            serialized_bytes: key.serialized_bytes,
            elements: key.elements,
            largest: key.largest,
            expires_at_ms: key.expires_at_ms,
        }
    }

    /// All of its name is in it.
    pub fn is_whole(&self) -> bool {
        self.key.len() as u64 == self.key_bytes
    }
}

/// By memory; of the same, the one that was met first is the bigger one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    memory_bytes: u64,
    met: Reverse<u64>,
}

/// The kept ones, the smallest on top.
#[derive(Debug)]
pub(super) struct Biggest {
    top: usize,
    met: u64,
    ranks: BinaryHeap<Reverse<(Rank, usize)>>,
    /// Where ranks point to.
    keys: Vec<BigKey>,
}

impl Biggest {
    pub(super) fn new(top: usize) -> Self {
        Self { top: top.min(TOP_MAX), met: 0, ranks: BinaryHeap::new(), keys: Vec::new() }
    }

    pub(super) fn add(&mut self, key: &KeyFacts<'_>) {
        self.met += 1;
        let rank = Rank { memory_bytes: key.memory_bytes, met: Reverse(self.met) };
        if self.keys.len() < self.top {
            self.ranks.push(Reverse((rank, self.keys.len())));
            self.keys.push(BigKey::of(key));
        } else if let Some(mut smallest) = self.ranks.peek_mut()
            && smallest.0.0 < rank
        {
            let place = smallest.0.1;
            *smallest = Reverse((rank, place));
            self.keys[place] = BigKey::of(key);
        }
    }

    /// The biggest first.
    pub(super) fn finish(self) -> Vec<BigKey> {
        let mut keys: Vec<Option<BigKey>> = self.keys.into_iter().map(Some).collect();
        // Ascending by the reverse: the biggest first.
        self.ranks.into_sorted_vec().into_iter().filter_map(|Reverse((_, place))| keys[place].take()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::tally::string;
    use super::*;

    fn names(top: usize, keys: &[(&str, u64)]) -> Vec<String> {
        let mut biggest = Biggest::new(top);
        for (name, size) in keys {
            biggest.add(&string(name.as_bytes(), *size));
        }
        biggest.finish().into_iter().map(|key| String::from_utf8(key.key).expect("a name")).collect()
    }

    #[test]
    fn the_biggest_stay_whatever_the_order() {
        let keys = [("c", 3), ("e", 5), ("a", 1), ("d", 4), ("b", 2), ("D", 4)];
        assert_eq!(names(3, &keys), ["e", "d", "D"]);
        assert_eq!(names(9, &keys), ["e", "d", "D", "c", "b", "a"]);
        assert_eq!(names(0, &keys), [""; 0]);
        let mut backwards = keys;
        backwards.reverse();
        assert_eq!(names(2, &backwards), ["e", "D"]);
    }

    #[test]
    fn a_long_name_is_cut_and_says_so() {
        let long = vec![b'k'; KEY_KEPT_BYTES + 1];
        let mut biggest = Biggest::new(2);
        biggest.add(&string(&long, 1));
        biggest.add(&string(&long[1..], 1));
        let found = biggest.finish();
        assert_eq!((found[0].key.len(), found[0].key_bytes, found[0].is_whole()), (16 << 10, (16 << 10) + 1, false));
        assert!(found[1].is_whole());
    }
}
