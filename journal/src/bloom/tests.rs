use proptest::prelude::*;

use super::*;

/// The filters of a segment in which each of the keys has a block, the index an entry for the first.
fn encoded<'a>(keys: impl IntoIterator<Item = (u32, &'a [u8])>, position: u64) -> (Places, Vec<u8>) {
    let mut builder = FilterBuilder::new(1 << 20);
    builder.begin_block(1 << 10, true);
    for (db, key) in keys {
        builder.add(Some((db, key)));
    }
    let (places, bytes) = builder.encode(position, None);
    let end = places.intervals.last().map_or(position, |place| place.position + place.len(false));
    assert_eq!(end, position + bytes.len() as u64);
    (places, bytes)
}

/// Asks the filter at a place; the first byte is at `begin`.
fn ask(place: Place, (begin, bytes): (u64, &[u8]), hash: u64) -> Result<bool, Damage> {
    let read = |at: u64, out: &mut [u8]| {
        let at = (at - begin) as usize;
        out.copy_from_slice(&bytes[at..at + out.len()]);
        Ok(())
    };
    Lookup::new(place, None, read).may_hold(hash).unwrap()
}

#[test]
fn every_key_is_found_and_one_in_a_hundred_others() {
    // From half a thousand on, a filter may be built before the number of its keys is known.
    for count in [0usize, 1, 24, 25, 500, 1000, 5000, 100_000, 390_000] {
        let keys: Vec<Vec<u8>> = (0..count + 20_000).map(|n| format!("key:{n}").into_bytes()).collect();
        let twice = keys[..count].iter().chain(&keys[..count]);
        let (places, bytes) = encoded(twice.map(|key| (3, &key[..])), 77);
        for place in [places.all, places.intervals[0]] {
            let has = |key: &Vec<u8>| ask(place, (77, &bytes), hash_key(3, key)).unwrap();
            assert!(keys[..count].iter().all(has));
            let wrong = keys[count..].iter().filter(|key| has(key)).count();
            assert!(wrong < 300, "{wrong} of 20000 with {count} keys");
            let bits = place.len(false) * 8;
            assert!(bits <= count as u64 * 22 + 600, "{bits} bits for {count} keys");
            assert!(count > 500 || bits <= count as u64 * 11 + 600, "{bits} bits for {count} keys");
        }
    }
}

#[test]
fn with_more_keys_than_a_filter_may_have_room_for_none_is_missed() {
    let keys: Vec<[u8; 4]> = (0..900_000u32).map(u32::to_le_bytes).collect();
    let (places, bytes) = encoded(keys.iter().map(|key| (0, &key[..])), 0);
    for place in [places.all, places.intervals[0]] {
        assert_eq!(place.blocks, 1 << 14);
        assert!(keys.iter().step_by(7).all(|key| ask(place, (0, &bytes), hash_key(0, key)).unwrap()));
    }
}

#[test]
fn the_hash_and_the_bits_are_the_formats() {
    assert_eq!(hash_key(0, b""), 0x2d06_8005_38d3_94c2, "XXH3 as published");
    assert_ne!(hash_key(0, b"key"), hash_key(1, b"key"));
    let mut filter = BloomFilter::with_blocks(1);
    filter.add(0);
    assert_eq!(filter.blocks, [[1; 8]]);
}

#[test]
fn a_damaged_or_moved_page_never_says_no() {
    let keys: Vec<[u8; 1]> = (0..10).map(|n| [n]).collect();
    let (places, mut bytes) = encoded(keys.iter().map(|key| (0, &key[..])), 9);
    let place = places.all;
    for bit in 0..place.len(false) as usize * 8 {
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(ask(place, (9, &bytes), hash_key(0, b"x")).is_err(), "bit {bit}");
        bytes[bit / 8] ^= 1 << (bit % 8);
    }
    assert!(ask(Place { position: 8, ..place }, (8, &bytes), hash_key(0, b"x")).is_err());
}

#[test]
fn each_interval_has_its_own_keys_and_an_unknown_one_is_never_ruled_out() {
    let mut builder = FilterBuilder::new(1 << 20);
    for n in 0..3u8 {
        builder.begin_block(u64::from(n) * 100, n != 1);
        builder.add(Some((0, &[n])));
        if n == 2 {
            builder.add(None);
        }
    }
    let (places, bytes) = builder.encode(300, None);
    let has = |place, key: u8| ask(place, (300, &bytes), hash_key(0, &[key])).unwrap();
    let [first, second] = places.intervals[..] else { panic!("{places:?}") };
    assert_eq!((has(first, 0), has(first, 1), has(first, 2)), (true, true, false));
    assert_eq!((has(second, 0), has(second, 1), has(second, 2)), (false, false, true));
    assert_eq!((places.all.unknown, first.unknown, second.unknown), (true, false, true));
    assert!((0..3).all(|key| has(places.all, key)));
}

proptest! {
    #[test]
    fn a_place_comes_back_and_arbitrary_bytes_never_panic(position: u64, blocks: u32, unknown: bool, bytes: [u8; 16]) {
        let place = Place { position, blocks, unknown };
        let mut out = Vec::new();
        place.encode(&mut out);
        prop_assert_eq!(out.len(), PLACE_LEN);
        prop_assert_eq!(Place::decode(&mut Cursor::new(&out)), Ok(place));
        let _ = Place::decode(&mut Cursor::new(&bytes)).map(|place| place.len(true));
    }
}
