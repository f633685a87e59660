//! Any bytes as an RDB: the walk ends, in small memory, the same however the bytes arrive; each value that it finds is
//! decoded within its limit or refused. Bytes that are no RDB are taken as one value of each type.
#![no_main]

use redtape_wire::rdb::{Entry, KeyEntry, ValueType, Walker, decode_value, parse_dump, parse_header, read_key_entry};
use std::io::Read;

/// What a decoded value may take.
const LIMIT: u64 = 1 << 20;

/// Gives a few bytes at a time.
struct Slow<'a>(&'a [u8]);

impl Read for Slow<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let len = buffer.len().min(7);
        self.0.read(&mut buffer[..len])
    }
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = parse_dump(bytes);
    if parse_header(bytes).is_err() {
        for magic in ["REDIS0009", "REDIS0013", "VALKEY080"] {
            one_value(magic, bytes);
        }
        return;
    }
    assert_eq!(walk(bytes, bytes), walk(Slow(bytes), bytes), "however it arrives");
});

/// How many entries there were, and the end or the fault.
fn walk(from: impl Read, file: &[u8]) -> (usize, String) {
    let mut walker = match Walker::new(from) {
        Ok(walker) => walker,
        Err(e) => return (0, e.to_string()),
    };
    let version = walker.version();
    let mut count = 0;
    loop {
        match walker.next_entry() {
            Ok(Some(Entry::Key(key))) => key_again(version, &key, file),
            Ok(Some(Entry::End(end))) => return (count, format!("{end:?}")),
            Ok(Some(_)) => {}
            Ok(None) => unreachable!("the end or a fault comes first"),
            Err(e) => return (count, e.to_string()),
        }
        count += 1;
    }
}

/// A key that was found is found again in its own bytes.
fn key_again(version: redtape_wire::rdb::RdbVersion, key: &KeyEntry<'_>, file: &[u8]) {
    let entry = &file[key.entry.offset as usize..key.entry.end() as usize];
    let mut name = Vec::new();
    let again = read_key_entry(version, key.db, entry, &mut name).expect("the same entry");
    assert_eq!((again.key, again.value.len, again.expires_at_ms), (key.key, key.value.len, key.expires_at_ms));
    let _ = decode_value(key.value_type, &file[key.value.offset as usize..key.value.end() as usize], LIMIT);
}

/// The first byte is the type.
fn one_value(magic: &str, bytes: &[u8]) {
    let version = parse_header(magic.as_bytes()).expect("a header");
    let Some((&number, value)) = bytes.split_first() else { return };
    let Ok(value_type) = ValueType::find(version, number) else { return };
    if let Ok(first) = decode_value(value_type, value, LIMIT) {
        assert_eq!(decode_value(value_type, value, LIMIT).ok(), Some(first), "the same each time");
        // What can be decoded can be passed over, to the very end.
        let mut entry = vec![number, 1, b'k'];
        entry.extend_from_slice(value);
        let mut name = Vec::new();
        let found = read_key_entry(version, 0, &entry, &mut name).expect("a value that was decoded");
        assert_eq!(found.value.len, value.len() as u64);
    }
}
