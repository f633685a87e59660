//! The walk over small RDBs made by hand.

use super::*;
use crc_fast::{CrcAlgorithm, checksum};

/// Header, body, end, CRC64.
fn rdb(header: &str, body: &[u8]) -> Vec<u8> {
    let mut out = header.as_bytes().to_vec();
    out.extend_from_slice(body);
    out.push(255);
    let crc = checksum(CrcAlgorithm::Crc64Redis, &out);
    out.extend_from_slice(&crc.to_le_bytes());
    out
}

/// What a walk says, as text; the last line is the end or the fault.
fn walk(bytes: &[u8]) -> Vec<String> {
    let mut lines = Vec::new();
    let mut walker = match Walker::new(bytes) {
        Ok(walker) => walker,
        Err(e) => return vec![e.to_string()],
    };
    loop {
        match walker.next_entry() {
            Ok(Some(entry)) => lines.push(format!("{entry:?}")),
            Ok(None) => return lines,
            Err(e) => lines.push(e.to_string()),
        }
    }
}

/// A bit of everything: fields, a function, two databases, a key with everything in front of it.
const BODY: &[u8] = b"\xfa\x09redis-ver\x067.0.15\xfa\x05ctime\xc2\x01\x02\x03\x04\xf5\x03lua\
    \xfe\x00\xfb\x02\x01\
    \x00\x01a\x01x\
    \xfc\x00\x00\x00\x00\x01\x00\x00\x00\xf8\x40\x50\x04\x01h\x01\x01f\xc0\x05\
    \xfe\x03\xfd\x01\x00\x00\x00\xf9\x07\x02\xc1\x10\x27\x02\x01m\x01n";

#[test]
fn a_walk_tells_everything_in_its_order() {
    let file = rdb("REDIS0010", BODY);
    let mut walker = Walker::new(&file[..]).expect("a header");
    assert_eq!(walker.version().to_string(), "REDIS0010");
    let mut next = || format!("{:?}", walker.next_entry().expect("sound"));
    assert!(next().contains("Aux { name: [114, 101"), "redis-ver");
    assert!(next().contains("value: Some([54, 55, 51, 48, 53, 57, 56, 53])"), "an integer as text");
    assert_eq!(next(), "Some(Function(Extent { offset: 40, len: 4 }))");
    assert_eq!(next(), "Some(SelectDb(0))");
    assert_eq!(next(), "Some(ResizeDb { keys: 2, expiring: 1 })");
    let mut keys = Vec::new();
    while let Some(entry) = walker.next_entry().expect("sound") {
        match entry {
            Entry::Key(key) => {
                let value = &file[key.value.offset as usize..key.value.end() as usize];
                keys.push((key.db, key.key.to_vec(), key.expires_at_ms, key.value_type, value.to_vec()));
                let mut name = Vec::new();
                let raw = &file[key.entry.offset as usize..key.entry.end() as usize];
                let again = read_key_entry(walker_version(), key.db, raw, &mut name).expect("the same entry");
                assert_eq!((again.key, again.expires_at_ms), (key.key, key.expires_at_ms));
                assert_eq!(again.value.offset + key.entry.offset, key.value.offset);
            }
            Entry::SelectDb(db) => assert_eq!(db, 3),
            Entry::End(end) => {
                assert_eq!(end.bytes, file.len() as u64);
                assert!(end.crc64.is_some());
            }
            other => panic!("{other:?}"),
        }
    }
    let want = [
        (0, b"a".to_vec(), None, ValueType::String, b"\x01x".to_vec()),
        (0, b"h".to_vec(), Some(1 << 32), ValueType::Hash, b"\x01\x01f\xc0\x05".to_vec()),
        (3, b"10000".to_vec(), Some(1000), ValueType::Set, b"\x02\x01m\x01n".to_vec()),
    ];
    assert_eq!(keys, want);
}

fn walker_version() -> RdbVersion {
    parse_header(b"REDIS0010").expect("a header")
}

#[test]
fn every_truncation_and_every_flipped_bit_is_refused() {
    let file = rdb("REDIS0010", BODY);
    assert!(walk(&file).last().expect("an end").starts_with("End"));
    for len in 0..file.len() {
        let last = walk(&file[..len]).pop().expect("a fault");
        assert!(last.starts_with("the RDB cannot be read at byte"), "cut at {len}: {last}");
    }
    for bit in 0..file.len() * 8 {
        let mut bad = file.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        let last = walk(&bad).pop().expect("a fault");
        assert!(last.starts_with("the RDB cannot be read at byte"), "bit {bit}: {last}");
    }
    let mut longer = file.clone();
    longer.push(0);
    assert_eq!(
        walk(&longer).pop().expect("a fault"),
        format!("the RDB cannot be read at byte {}: more bytes follow its checksum", file.len())
    );
}

#[test]
fn a_checksum_of_zero_is_none() {
    let mut file = rdb("REDIS0010", BODY);
    let len = file.len();
    file[len - 8..].fill(0);
    let last = walk(&file).pop().expect("an end");
    assert_eq!(last, format!("End(End {{ crc64: None, bytes: {len} }})"));
}

#[test]
fn what_a_version_does_not_have_is_refused_by_name_and_place() {
    let last = |header: &str, body: &[u8]| walk(&rdb(header, body)).pop().expect("a fault");
    let at = "the RDB cannot be read at byte";
    assert_eq!(
        last("REDIS0009", b"\x14\x01a\x00"),
        format!("{at} 9: value type 20 (SET_LISTPACK) is not read in REDIS0009")
    );
    assert_eq!(last("REDIS0009", b"\xf5\x00"), format!("{at} 9: opcode 245 (FUNCTION2) is not part of REDIS0009"));
    assert_eq!(
        last("REDIS0013", b"\xf6\x00"),
        format!("{at} 9: opcode 246 (FUNCTION_PRE_GA) is not part of REDIS0013")
    );
    assert_eq!(
        last("REDIS0013", b"\xfe\x00\xf2"),
        format!("{at} 11: value type 242 (of no known version) is not read in REDIS0013")
    );
    let later = last("REDIS0014", b"");
    assert!(later.contains("REDIS0014 is an unsupported version"), "{later}");
    assert!(last("RUBBISH__", b"").contains("not an RDB"));
    // An opcode that belongs to no key, behind one that does.
    let last_line = last("REDIS0010", b"\xf9\x01\xfe\x00\x00\x01a\x01b");
    assert_eq!(last_line, format!("{at} 11: an opcode between a key and its attributes"));
}

#[test]
fn a_length_that_lies_takes_no_memory() {
    // 2^63 bytes of a string, of a key, of a compressed key; as many elements.
    let long = b"\x81\x7f\xff\xff\xff\xff\xff\xff\xff";
    for body in [
        [&b"\x00\x01a"[..], long].concat(),
        [&b"\x00"[..], long].concat(),
        [&b"\x00\xc3"[..], long, long].concat(),
        [&b"\x00\xc3\x05"[..], long].concat(),
        [&b"\x04\x01a"[..], long].concat(),
        [&b"\x0f\x01a"[..], long].concat(),
        [&b"\xfa\x01a"[..], long].concat(),
        [&b"\xfe"[..], long].concat(),
    ] {
        let last = walk(&rdb("REDIS0010", &body)).pop().expect("a fault");
        assert!(last.starts_with("the RDB cannot be read"), "{last}");
    }
}

#[test]
fn a_source_may_give_one_byte_at_a_time() {
    struct Slow<'a>(&'a [u8]);
    impl std::io::Read for Slow<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            std::io::Read::read(&mut self.0, &mut buffer[..1])
        }
    }
    let file = rdb("REDIS0010", BODY);
    let mut walker = Walker::new(Slow(&file)).expect("a header");
    let mut lines = Vec::new();
    while let Some(entry) = walker.next_entry().expect("sound") {
        lines.push(format!("{entry:?}"));
    }
    assert_eq!(lines, walk(&file));
}

#[test]
fn what_was_cut_out_makes_an_rdb_again() {
    let file = rdb("REDIS0010", BODY);
    let mut walker = Walker::new(&file[..]).expect("a header");
    let version = walker.version();
    let mut copied = RdbWriter::new(Vec::new(), version, Some("7.0.15")).expect("memory");
    let mut built = RdbWriter::new(Vec::new(), version, Some("7.0.15")).expect("memory");
    let cut = |extent: Extent| &file[extent.offset as usize..extent.end() as usize];
    let mut singles = Vec::new();
    while let Some(entry) = walker.next_entry().expect("sound") {
        match entry {
            Entry::Function(extent) => {
                copied.function(cut(extent)).expect("memory");
                built.function(cut(extent)).expect("memory");
            }
            Entry::Key(key) => {
                copied.entry(key.db, cut(key.entry)).expect("memory");
                built.key(&key, b"", cut(key.value)).expect("memory");
                singles.push(single_key_rdb(version, None, key.db, cut(key.entry)).expect("memory"));
            }
            _ => {}
        }
    }
    let (copied, built) = (copied.finish().expect("memory"), built.finish().expect("memory"));
    // The same, but for the field that is left out, the hint of sizes, and an expiry in seconds in the original.
    let keys = |file: &[u8]| {
        let mut walker = Walker::new(file).expect("a header");
        let mut out = Vec::new();
        while let Some(entry) = walker.next_entry().expect("sound") {
            if let Entry::Key(key) = entry {
                let value = file[key.value.offset as usize..key.value.end() as usize].to_vec();
                let named = (key.db, key.key.to_vec(), key.value_type, value);
                out.push((named, key.expires_at_ms, key.idle_seconds, key.frequency));
            }
        }
        out
    };
    assert_eq!(keys(&copied), keys(&file));
    assert_eq!(keys(&built), keys(&file));
    let each: Vec<_> = singles.iter().flat_map(|single| keys(single)).collect();
    assert_eq!(each, keys(&file));
    assert!(copied.starts_with(b"REDIS0010\xfa\x09redis-ver\x067.0.15\xf5\x03lua\xfe\x00"));
}

#[test]
fn strings_that_are_put_are_read_back() {
    let long = vec![b'x'; 70_000];
    let entries = [
        StringEntry { key: b"", value: b"", expires_at_ms: None },
        StringEntry { key: b"k", value: b"12345", expires_at_ms: Some(1_700_000_000_123) },
        StringEntry { key: &long[..64], value: &long[..0x4000], expires_at_ms: None },
        StringEntry { key: &long[..63], value: &long, expires_at_ms: Some(i64::MAX) },
    ];
    let mut encoded = Vec::new();
    put_select_db(300, &mut encoded);
    put_database_size(4, &mut encoded);
    for entry in &entries {
        let before = encoded.len();
        entry.put(&mut encoded);
        assert_eq!((encoded.len() - before) as u64, entry.size(), "{} bytes", entry.value.len());
    }
    let version = RdbVersion { family: Family::Redis, version: 10 };
    let mut writer = RdbWriter::new(Vec::new(), version, None).expect("memory");
    writer.entry(300, b"").expect("memory");
    writer.encoded(&encoded).expect("memory");
    let bytes = writer.finish().expect("memory");
    let mut walker = Walker::new(&bytes[..]).expect("an RDB");
    let mut left = entries.iter();
    let mut sizes = 0;
    while let Some(found) = walker.next_entry().expect("sound") {
        match found {
            Entry::SelectDb(db) => assert_eq!(db, 300),
            Entry::ResizeDb { keys, expiring } => (sizes, ()) = (sizes + keys, assert_eq!(expiring, 0)),
            Entry::Key(key) => {
                let entry = left.next().expect("no more than were put");
                assert_eq!((key.key, key.expires_at_ms, key.db), (entry.key, entry.expires_at_ms, 300));
                let value = &bytes[key.value.offset as usize..key.value.end() as usize];
                let decoded = decode_value(key.value_type, value, u64::MAX).expect("a string");
                assert_eq!(decoded, Value::String(entry.value.to_vec()));
            }
            other => assert!(matches!(other, Entry::End(_)), "{other:?}"),
        }
    }
    assert_eq!((left.next(), sizes), (None, 4));
}

#[test]
fn a_payload_of_dump() {
    // `SET k x`, `DUMP k` of redis-server 7.0.15, but for the checksum.
    let mut payload = b"\x00\x01x\x0a\x00".to_vec();
    let crc = checksum(CrcAlgorithm::Crc64Redis, &payload);
    payload.extend_from_slice(&crc.to_le_bytes());
    let parsed = parse_dump(&payload).expect("sound");
    assert_eq!(
        (parsed.version.to_string().as_str(), parsed.value_type, parsed.value),
        ("REDIS0010", ValueType::String, &b"\x01x"[..])
    );
    for bit in 0..payload.len() * 8 {
        let mut bad = payload.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        assert!(parse_dump(&bad).is_err(), "bit {bit}");
    }
    for len in 0..payload.len() {
        assert!(parse_dump(&payload[..len]).is_err(), "cut at {len}");
    }
}
