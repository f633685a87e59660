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

fn slot_of_tag(tag: &[u8]) -> u16 {
    (checksum(CrcAlgorithm::Crc16Xmodem, tag) as u16) % SLOTS
}

#[cfg(test)]
mod tests {
    use super::*;

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
