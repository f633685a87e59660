//! The hash slot of a key in a cluster (`keyHashSlot` in `cluster.c`): CRC16 of the key, or of the hash tag in it.

use crc_fast::{CrcAlgorithm, checksum};

/// Slots of a cluster.
pub const SLOTS: u16 = 16_384;

/// The slot of a key.
pub fn hash_slot(key: &[u8]) -> u16 {
    slot_of_tag(hash_tag(key).unwrap_or(key))
}

/// What stands between the first `{` of a key and the first `}` behind it, unless that is nothing: it alone decides the slot.
pub fn hash_tag(key: &[u8]) -> Option<&[u8]> {
    let open = memchr::memchr(b'{', key)? + 1;
    let len = memchr::memchr(b'}', &key[open..])?;
    (len > 0).then(|| &key[open..open + len])
}

/// A hash tag of this slot, for keys that are to lie in it: the smallest number whose digits do. A key itself cannot always
/// be put between braces: it may hold some.
pub fn tag_in_slot(slot: u16) -> String {
    // A test finds one for each slot.
    let mut tags = (0..u32::MAX).map(|number| number.to_string());
    tags.find(|tag| slot_of_tag(tag.as_bytes()) == slot % SLOTS).unwrap_or_default()
}

/// Some of a cluster's slots.
#[derive(Clone, PartialEq, Eq)]
pub struct SlotSet {
    bits: Box<[u64; SLOTS as usize / 64]>,
}

impl Default for SlotSet {
    fn default() -> Self {
        Self { bits: Box::new([0; SLOTS as usize / 64]) }
    }
}

impl SlotSet {
    /// All of them.
    pub fn all() -> Self {
        Self { bits: Box::new([u64::MAX; SLOTS as usize / 64]) }
    }

    /// Adds one; a number that is no slot adds nothing.
    pub fn insert(&mut self, slot: u16) {
        if let Some(bits) = self.bits.get_mut(usize::from(slot / 64)) {
            *bits |= 1 << (slot % 64);
        }
    }

    /// Takes one away.
    pub fn remove(&mut self, slot: u16) {
        if let Some(bits) = self.bits.get_mut(usize::from(slot / 64)) {
            *bits &= !(1 << (slot % 64));
        }
    }

    /// Adds all of another set.
    pub fn add(&mut self, other: &Self) {
        self.bits.iter_mut().zip(other.bits.iter()).for_each(|(bits, more)| *bits |= more);
    }

    /// Takes all of another set away.
    pub fn subtract(&mut self, other: &Self) {
        self.bits.iter_mut().zip(other.bits.iter()).for_each(|(bits, less)| *bits &= !less);
    }

    /// Whether it has this one.
    pub fn has(&self, slot: u16) -> bool {
        self.bits.get(usize::from(slot / 64)).is_some_and(|bits| bits >> (slot % 64) & 1 == 1)
    }

    /// Whether it has the slot of this key.
    pub fn has_key(&self, key: &[u8]) -> bool {
        self.has(hash_slot(key))
    }

    /// How many there are.
    pub fn len(&self) -> u32 {
        self.bits.iter().map(|bits| bits.count_ones()).sum()
    }

    /// There are none.
    pub fn is_empty(&self) -> bool {
        self.bits.iter().all(|bits| *bits == 0)
    }

    /// So many of them at most, the lowest.
    #[must_use]
    pub fn lowest(&self, count: usize) -> Self {
        let mut lowest = Self::default();
        (0..SLOTS).filter(|slot| self.has(*slot)).take(count).for_each(|slot| lowest.insert(slot));
        lowest
    }

    /// The lowest.
    pub fn first(&self) -> Option<u16> {
        (0..SLOTS).find(|slot| self.has(*slot))
    }
}

impl std::fmt::Debug for SlotSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SlotSet({} slots)", self.len())
    }
}

fn slot_of_tag(tag: &[u8]) -> u16 {
    (checksum(CrcAlgorithm::Crc16Xmodem, tag) as u16) % SLOTS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_of_slots() {
        let mut set = SlotSet::default();
        assert!(set.is_empty() && set.first().is_none());
        for slot in [0, 63, 64, 16_383, 16_384, u16::MAX] {
            set.insert(slot);
        }
        assert_eq!((set.len(), set.first()), (4, Some(0)));
        assert!(set.has(16_383) && !set.has(16_384) && !set.has(1));
        let mut rest = SlotSet::all();
        assert_eq!(rest.len(), u32::from(SLOTS));
        rest.subtract(&set);
        rest.remove(1);
        assert_eq!((rest.len(), rest.first()), (u32::from(SLOTS) - 5, Some(2)));
        rest.add(&set);
        rest.insert(1);
        assert_eq!(rest, SlotSet::all());
        assert_eq!((set.lowest(2).len(), set.lowest(2).has(63), set.lowest(9)), (2, true, set.clone()));
        set.insert(hash_slot(b"{user:7}.cart"));
        assert!(set.has_key(b"user:7"));
    }

    #[test]
    fn slots_as_a_server_counts_them() {
        // `CLUSTER KEYSLOT` of Redis 7.0.15.
        for (key, slot) in [
            (&b"123456789"[..], 0x31c3),
            (b"", 0),
            (b"foo", 12_182),
            (b"{foo}bar", 12_182),
            (b"x{foo}{bar}", 12_182),
            (b"{}foo", 9500),
            (b"foo{bar", 15_278),
            (b"}{", 12_793),
        ] {
            assert_eq!(hash_slot(key), slot, "{}", key.escape_ascii());
        }
    }

    #[test]
    fn each_slot_has_a_tag() {
        let mut first = vec![None; SLOTS.into()];
        for number in 0..250_000u32 {
            let tag = number.to_string();
            first[usize::from(hash_slot(tag.as_bytes()))].get_or_insert(tag);
        }
        for slot in (0..SLOTS).step_by(61) {
            assert_eq!(Some(tag_in_slot(slot)), first[usize::from(slot)]);
        }
        assert!(first.iter().all(Option::is_some));
    }
}
