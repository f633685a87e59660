//! RDBs that real servers write: every value is what the server answers, and what was cut out loads again.
//!
//! `REDTAPE_TEST_SERVER` chooses the server, `REDTAPE_SEED` repeats a dataset.
#![allow(clippy::unwrap_used, clippy::pedantic, clippy::print_stdout, missing_docs)]

mod answers;
mod dataset;
mod golden;
mod server;

use dataset::{Generator, set_packed};
use redtape_wire::rdb::{
    DECODED_MAX, Entry, Extent, Measure, Parts, RdbVersion, RdbWriter, Value, ValueType, Walker, decode_value,
    parse_aux, parse_dump, single_key_rdb,
};
use server::{Conn, Reply, Server};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{SystemTime, UNIX_EPOCH};

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("past 1970").as_millis() as i64
}

/// The seed of this run: `REDTAPE_SEED`, else a new one. Printed, so that a failure can be run again.
fn seed() -> u64 {
    let seed = std::env::var("REDTAPE_SEED")
        .map_or_else(|_| rand::random::<u64>() >> 16, |s| s.parse().expect("REDTAPE_SEED is a number"));
    println!("seed: REDTAPE_SEED={seed}");
    seed
}

/// A key of a file.
struct Key {
    expires_at_ms: Option<i64>,
    value_type: ValueType,
    value: Extent,
    entry: Extent,
    decoded: Value,
}

/// A file, walked and decoded.
struct Walked {
    file: Vec<u8>,
    version: RdbVersion,
    keys: BTreeMap<(u32, Vec<u8>), Key>,
    functions: Vec<Extent>,
}

impl Walked {
    fn cut(&self, extent: Extent) -> &[u8] {
        &self.file[extent.offset as usize..extent.end() as usize]
    }

    fn server_version(&self) -> String {
        let fields = parse_aux(&self.file);
        let is = |name: &str| name == "redis-ver" || name == "valkey-ver";
        fields.into_iter().find(|(name, _)| is(name)).expect("a server's version").1
    }
}

/// What a decoded value is made of.
fn measure(value: &Value) -> Measure {
    let longest = |lens: &mut dyn Iterator<Item = usize>| lens.max().unwrap_or(0) as u64;
    let (elements, largest) = match value {
        Value::String(string) => (string.len(), Some(string.len() as u64)),
        Value::List(all) | Value::Set(all) => (all.len(), Some(longest(&mut all.iter().map(Vec::len)))),
        Value::Zset(all) => (all.len(), Some(longest(&mut all.iter().map(|(member, _)| member.len())))),
        Value::Hash(all) => (all.len(), Some(longest(&mut all.iter().map(|f| f.name.len().max(f.value.len()))))),
        Value::Stream(stream) => (stream.entries.len(), None),
        Value::Module { id, .. } => return Measure { module: Some(*id), ..Measure::default() },
    };
    Measure { elements: Some(elements as u64), largest, ..Measure::default() }
}

fn walk(file: Vec<u8>) -> Walked {
    let mut walker = Walker::new(&file[..]).expect("a header").measuring();
    let (mut keys, mut functions, mut ended) = (BTreeMap::new(), Vec::new(), false);
    let mut behind = 0;
    while let Some(entry) = walker.next_entry().unwrap() {
        match entry {
            Entry::Key(key) => {
                assert!(key.entry.offset >= behind && key.entry.end() == key.value.end(), "{key:?}");
                behind = key.entry.end();
                let bytes = &file[key.value.offset as usize..key.value.end() as usize];
                let decoded = decode_value(key.value_type, bytes, DECODED_MAX)
                    .unwrap_or_else(|e| panic!("{} {}: {e}", key.key.escape_ascii(), key.value_type.name()));
                let without_parts = key.measure.map(|found| Measure { parts: Parts::default(), ..found });
                assert_eq!(without_parts, Some(measure(&decoded)), "{}", key.key.escape_ascii());
                let found = Key {
                    expires_at_ms: key.expires_at_ms,
                    value_type: key.value_type,
                    value: key.value,
                    entry: key.entry,
                    decoded,
                };
                assert!(keys.insert((key.db, key.key.to_vec()), found).is_none(), "a key stands twice");
            }
            Entry::Function(extent) => functions.push(extent),
            Entry::End(end) => {
                assert_eq!(end.bytes, file.len() as u64);
                assert!(end.crc64.is_some());
                ended = true;
            }
            _ => {}
        }
    }
    assert!(ended);
    let version = walker.version();
    Walked { file, version, keys, functions }
}

fn save(server: &Server, conn: &mut Conn) -> Walked {
    conn.must(&["SAVE"]);
    walk(std::fs::read(server.file()).expect("the file"))
}

/// A producer's ids are in the file, and a server does not list them.
fn without_producers(value: &Value) -> Value {
    let mut value = value.clone();
    if let Value::Stream(stream) = &mut value
        && let Some(idempotence) = &mut stream.idempotence
    {
        idempotence.producers.iter_mut().for_each(|producer| *producer = Default::default());
    }
    value
}

/// That the server holds just these keys, with just these values and expiries.
fn assert_holds(conn: &mut Conn, walked: &Walked, keys: &[&(u32, Vec<u8>)]) {
    let mut sizes: BTreeMap<u32, i64> = BTreeMap::new();
    for (db, name) in keys {
        *sizes.entry(*db).or_default() += 1;
        conn.must(&["SELECT", &db.to_string()]);
        let key = &walked.keys[&(*db, name.clone())];
        let shown = format!("db {db} {} {}", name.escape_ascii(), key.value_type.name());
        match answers::read(conn, name) {
            Some(answer) => assert_eq!(without_producers(&key.decoded), answer, "{shown}"),
            None => assert!(matches!(key.decoded, Value::Module { .. }), "{shown}"),
        }
        let before = now_ms();
        let left = conn.must(&[&b"PTTL"[..], name]).int();
        match key.expires_at_ms {
            None => assert_eq!(left, -1, "{shown}"),
            Some(at) => assert!((before + left..=now_ms() + left).contains(&at), "{shown}: {at} {left}"),
        }
        if key.expires_at_ms.is_some() && conn.knows("PEXPIRETIME") {
            assert_eq!(Some(conn.must(&[&b"PEXPIRETIME"[..], name]).int()), key.expires_at_ms, "{shown}");
        }
    }
    for (db, size) in sizes {
        conn.must(&["SELECT", &db.to_string()]);
        assert_eq!(conn.must(&["DBSIZE"]).int(), size, "db {db}");
    }
}

/// `DEBUG DIGEST-VALUE` of each key.
fn digests(conn: &mut Conn, keys: &[&(u32, Vec<u8>)]) -> Vec<Vec<u8>> {
    let digest = |(db, name): &&(u32, Vec<u8>)| {
        conn.must(&["SELECT", &db.to_string()]);
        conn.must(&[&b"DEBUG"[..], b"DIGEST-VALUE", name]).items()[0].bytes()
    };
    keys.iter().map(digest).collect()
}

/// What a server of this version writes when it is brought to use every encoding.
fn expected_types(version: RdbVersion) -> Vec<ValueType> {
    use ValueType as T;
    let mut types = vec![T::String, T::Set, T::SetIntset, T::Zset2, T::Hash];
    let text = version.to_string();
    types.extend(match text.as_str() {
        "REDIS0009" => vec![T::ListQuicklist, T::ZsetZiplist, T::HashZiplist],
        _ => vec![T::ListQuicklist2, T::ZsetListpack, T::HashListpack],
    });
    types.extend(match text.as_str() {
        "REDIS0009" => vec![T::Stream1],
        "REDIS0010" => vec![T::Stream2],
        "REDIS0011" => vec![T::Stream3, T::SetListpack],
        "REDIS0012" => vec![T::Stream3, T::SetListpack, T::HashMetadata, T::HashListpackEx],
        "REDIS0013" => vec![T::Stream4, T::SetListpack, T::HashMetadata, T::HashListpackEx],
        "VALKEY080" => vec![T::Stream3, T::SetListpack, T::ValkeyHash2],
        other => panic!("{other}: what does a server of this version write?"),
    });
    types
}

#[test]
fn every_value_is_what_the_server_answers_and_loads_again() {
    let server = Server::start();
    let mut conn = server.conn();
    Generator::new(seed(), now_ms()).fill(&mut conn, 12);
    let code = "#!lua name=counting\nredis.register_function('one', function() return 1 end)";
    let has_functions = conn.knows("FUNCTION");
    if has_functions {
        conn.must(&["FUNCTION", "LOAD", code]);
    }
    let walked = save(&server, &mut conn);
    println!("{}: {} keys, {} bytes", walked.version, walked.keys.len(), walked.file.len());

    let types: BTreeSet<u8> = walked.keys.values().map(|key| key.value_type.number()).collect();
    for expected in expected_types(walked.version) {
        assert!(types.contains(&expected.number()), "no {} was written", expected.name());
    }
    let compressed = |key: &Key| key.value_type == ValueType::String && walked.cut(key.value)[0] == 0xc3;
    assert!(walked.keys.values().any(compressed), "no string was compressed");

    // What the file says is what the server answers, and what DUMP says.
    let keys: Vec<_> = walked.keys.keys().collect();
    assert_holds(&mut conn, &walked, &keys);
    for (db, name) in &keys {
        conn.must(&["SELECT", &db.to_string()]);
        let payload = conn.must(&[&b"DUMP"[..], name]).bytes();
        let dump = parse_dump(&payload).expect("a payload");
        let value = decode_value(dump.value_type, dump.value, DECODED_MAX).expect("a value");
        assert_eq!(value, walked.keys[&(*db, name.clone())].decoded, "{}", name.escape_ascii());
    }
    let functions: Vec<_> = walked
        .functions
        .iter()
        .map(|&extent| decode_value(ValueType::String, walked.cut(extent), 1 << 20).unwrap())
        .collect();
    let want = if has_functions { vec![Value::String(code.as_bytes().to_vec())] } else { vec![] };
    assert_eq!(functions, want);

    loads_again(&walked, &mut conn, &keys);
}

#[test]
fn equal_values_in_other_encodings_compare_equal() {
    let server = Server::start();
    let mut conn = server.conn();
    Generator::new(seed(), now_ms()).fill(&mut conn, 6);
    // The server packs as it is told when it loads.
    let mut saved = Vec::new();
    for packed in [true, false] {
        set_packed(&mut conn, packed);
        conn.must(&["DEBUG", "RELOAD"]);
        saved.push(save(&server, &mut conn));
    }
    let (packed, full) = (&saved[0].keys, &saved[1].keys);
    assert!(packed.keys().eq(full.keys()));
    let mut changed = BTreeSet::new();
    for (name, key) in packed {
        let other = &full[name];
        // A vector set is written in another order after each load: only its module could compare it.
        if matches!(key.decoded, Value::Module { .. }) {
            assert_eq!(key.value.len, other.value.len);
            continue;
        }
        assert_eq!(key.decoded, other.decoded, "{} {}", name.1.escape_ascii(), key.value_type.name());
        if key.value_type != other.value_type {
            changed.insert(key.decoded.type_name());
        }
    }
    assert!(changed.is_superset(&["hash", "set", "zset"].into()), "only {changed:?} were stored in another way");
}

/// All keys in another order, then each alone, on a server of the same version.
fn loads_again(walked: &Walked, conn: &mut Conn, keys: &[&(u32, Vec<u8>)]) {
    let target = Server::start();
    let mut there = target.conn();
    let server_version = walked.server_version();
    let mut writer = RdbWriter::new(Vec::new(), walked.version, Some(&server_version)).unwrap();
    for &extent in &walked.functions {
        writer.function(walked.cut(extent)).unwrap();
    }
    for key in keys.iter().rev() {
        writer.entry(key.0, walked.cut(walked.keys[*key].entry)).unwrap();
    }
    target.load(&writer.finish().unwrap());
    assert_holds(&mut there, walked, keys);
    assert_eq!(there.must(&["DEBUG", "DIGEST"]), conn.must(&["DEBUG", "DIGEST"]));
    if conn.knows("FUNCTION") {
        assert_eq!(there.must(&["FUNCTION", "DUMP"]), conn.must(&["FUNCTION", "DUMP"]));
    }

    let want = digests(conn, keys);
    for (key, want) in keys.iter().zip(want) {
        let entry = walked.cut(walked.keys[*key].entry);
        target.load(&single_key_rdb(walked.version, Some(&server_version), key.0, entry).unwrap());
        assert_holds(&mut there, walked, &[key]);
        assert_eq!(digests(&mut there, &[key]), [want], "{}", key.1.escape_ascii());
    }
}

/// Reads as far as it goes: whether the walk came to a sound end. What was found on the way is decoded.
fn is_sound(file: &[u8]) -> bool {
    let Ok(mut walker) = Walker::new(file) else { return false };
    loop {
        match walker.next_entry() {
            Ok(Some(Entry::Key(key))) => {
                let value = &file[key.value.offset as usize..key.value.end() as usize];
                let _ = decode_value(key.value_type, value, 1 << 20);
            }
            Ok(Some(Entry::End(_))) => return true,
            Ok(Some(_)) => {}
            Ok(None) | Err(_) => return false,
        }
    }
}

#[test]
fn every_flipped_bit_and_every_truncation_of_a_server_s_file_is_found() {
    let server = Server::start();
    let mut conn = server.conn();
    fill_a_little(&mut conn);
    let walked = save(&server, &mut conn);
    if std::env::var_os("REDTAPE_BLESS").is_some() {
        golden::write(&walked.server_version(), &walked.file);
    }
    assert_eq!(walked.keys.len(), 7);
    assert!(is_sound(&walked.file));
    for len in 0..walked.file.len() {
        assert!(!is_sound(&walked.file[..len]), "cut at {len}");
    }
    for bit in 0..walked.file.len() * 8 {
        let mut bad = walked.file.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        assert!(!is_sound(&bad), "bit {bit}");
    }
}

/// One key of each type.
fn fill_a_little(conn: &mut Conn) {
    for command in [
        "SET compressed aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa EX 10000",
        "RPUSH list a 1 -5000",
        "SADD ints 1 2 70000",
        "SADD set a b 1",
        "ZADD zset 1 a 2.5 b -inf c",
        "HSET hash f v g 1",
        "XADD stream 1-1 f v",
        "XADD stream 1-2 f w",
        "XGROUP CREATE stream group 0",
        "XREADGROUP GROUP group consumer STREAMS stream >",
    ] {
        let words: Vec<&str> = command.split(' ').collect();
        conn.must(&words);
    }
    if conn.knows("HEXPIRE") {
        conn.must(&["HEXPIRE", "hash", "10000", "FIELDS", "1", "f"]);
    }
    if conn.knows("FUNCTION") {
        conn.must(&["FUNCTION", "LOAD", "#!lua name=l\nredis.register_function('f', function() end)"]);
    }
}

#[test]
fn what_eviction_counts_is_read_and_written() {
    let server = Server::start();
    let mut conn = server.conn();
    conn.must(&["CONFIG", "SET", "rdbcompression", "no"]);
    conn.must(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lfu"]);
    conn.must(&["SET", "counted", "x"]);
    let lfu = save(&server, &mut conn);
    assert_eq!(before_the_only_key(&lfu.file).1, Some(5), "a new key's LFU counter");
    conn.must(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]);
    conn.must(&["SET", "counted", "y"]);
    let lru = save(&server, &mut conn);
    assert_eq!(before_the_only_key(&lru.file).0, Some(0), "seconds since it was used");
    // And they load again, also when they are written anew.
    let mut walker = Walker::new(&lfu.file[..]).unwrap();
    let rebuilt = loop {
        if let Entry::Key(key) = walker.next_entry().unwrap().expect("a key") {
            let value = &lfu.file[key.value.offset as usize..key.value.end() as usize];
            let mut writer = RdbWriter::new(Vec::new(), lfu.version, None).unwrap();
            writer.key(&key, b"", value).unwrap();
            break writer.finish().unwrap();
        }
    };
    server.load(&rebuilt);
    assert_eq!(conn.must(&["GET", "counted"]), Reply::Bytes(b"x".to_vec()));
}

#[test]
fn cluster_mode_and_missing_checksums_are_read() {
    let server = Server::with(&["--cluster-enabled", "yes", "--rdbchecksum", "no"]);
    let mut conn = server.conn();
    let slots: Vec<String> = (0..16_384).map(|slot: u32| slot.to_string()).collect();
    conn.must(&[vec!["CLUSTER".to_owned(), "ADDSLOTS".to_owned()], slots].concat());
    let started = std::time::Instant::now();
    while !conn.must(&["CLUSTER", "INFO"]).text().contains("cluster_state:ok") {
        assert!(started.elapsed().as_secs() < 20, "the cluster does not become ready");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    for number in 0..50 {
        conn.must(&["SET", &format!("key {number}"), "value"]);
    }
    conn.must(&["SAVE"]);
    let file = std::fs::read(server.file()).expect("the file");
    let mut walker = Walker::new(&file[..]).expect("a header");
    let version = walker.version();
    let (mut keys, mut in_slots, mut told) = (0, 0, 0);
    while let Some(entry) = walker.next_entry().unwrap() {
        match entry {
            Entry::Key(_) => keys += 1,
            Entry::SlotInfo { keys, .. } => in_slots += keys,
            Entry::Aux { name: b"slot-info", value } => told += value.map_or(0, |_| 1),
            Entry::End(end) => assert_eq!(end.crc64, None),
            _ => {}
        }
    }
    assert_eq!(keys, 50);
    match version.to_string().as_str() {
        "REDIS0009" | "REDIS0010" => assert_eq!((in_slots, told), (0, 0)),
        "REDIS0011" | "VALKEY080" => assert!(in_slots == 0 && told > 10, "{in_slots} {told}"),
        _ => assert_eq!((in_slots, told), (50, 0)),
    }
}

/// Idle seconds and LFU counter.
fn before_the_only_key(file: &[u8]) -> (Option<u64>, Option<u8>) {
    let mut walker = Walker::new(file).unwrap();
    while let Some(entry) = walker.next_entry().unwrap() {
        if let Entry::Key(key) = entry {
            return (key.idle_seconds, key.frequency);
        }
    }
    panic!("no key");
}
