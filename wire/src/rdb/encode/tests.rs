use super::*;
use crate::rdb::{
    Consumer, DECODED_MAX, Group, Idempotence, Loss, Pending, Score, Stream, StreamEntry, StreamId, decode_value,
    parse_dump, parse_header,
};

fn version(text: &str) -> RdbVersion {
    parse_header(text.as_bytes()).expect("a header")
}

#[track_caller]
fn there_and_back(value: &Value, loads: &str) -> u32 {
    let bytes = encode_dump(value, version(loads)).expect(loads);
    let payload = parse_dump(&bytes).expect("a sound payload");
    assert_eq!(&decode_value(payload.value_type, payload.value, DECODED_MAX).expect("a sound value"), value, "{loads}");
    payload.version.version
}

fn strings(texts: &[&str]) -> Vec<Vec<u8>> {
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

#[test]
fn plain_values_are_of_the_oldest_version() {
    let scores = [f64::NEG_INFINITY, -0.0, 3.000_000_000_000_000_4, f64::INFINITY];
    let members = scores.iter().map(|&s| (s.to_string().into_bytes(), Score::new(s).expect("a number")));
    let field = |name: &[u8]| Field { name: name.to_vec(), value: vec![b'v'; 70_000], expires_at_ms: None };
    for value in [
        Value::String(b"\0\xff".repeat(9000)),
        Value::String(vec![]),
        Value::List(strings(&["b", "a", "b", ""])),
        Value::Set(strings(&["", "-1", "a"])),
        Value::Zset(members.collect()),
        Value::Hash(vec![field(b""), field(b"\xff")]),
        Value::Module { id: 0x1234_5678_9abc_def0, data: b"\x02\x05\x00".to_vec() },
    ] {
        for loads in ["REDIS0009", "REDIS0013", "VALKEY080"] {
            assert_eq!(there_and_back(&value, loads), 9);
        }
    }
}

#[test]
fn field_ttls_in_each_family() {
    let field = |name: &str, expires_at_ms| Field { name: name.into(), value: b"v".to_vec(), expires_at_ms };
    let mut hash = Value::Hash(vec![field("a", Some(5_000)), field("b", None), field("c", Some(1_000))]);
    assert_eq!(there_and_back(&hash, "REDIS0012"), 12);
    assert_eq!(there_and_back(&hash, "REDIS0013"), 12);
    assert_eq!(there_and_back(&hash, "VALKEY080"), 80);
    let refused = encode_dump(&hash, version("REDIS0011")).expect_err("refused");
    assert_eq!(refused.to_string(), "REDIS0011 cannot hold all of this hash: when its fields expire");
    Loss::FieldTtls.take_from(&mut hash);
    assert_eq!(there_and_back(&hash, "REDIS0011"), 9);
}

fn stream() -> Stream {
    let entry = |ms, seq, fields: &[(&str, &str)]| StreamEntry {
        id: StreamId { ms, seq },
        fields: fields.iter().map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec())).collect(),
    };
    let long = "x".repeat(3000);
    let mut entries: Vec<_> = (1..250).map(|n| entry(n, 0, &[("name", "value"), ("n", "-7")])).collect();
    entries.extend((250..260).map(|n| entry(n, 5, &[("long", &long)])));
    entries.push(entry(u64::MAX, 3, &[("name", "value"), ("name", "twice"), ("", "")]));
    let consumer = |name: &str| Consumer { name: name.into(), seen_ms: 2000, active_ms: 1000 };
    let pending = |ms, consumer| Pending { id: StreamId { ms, seq: 0 }, delivered_ms: 77, deliveries: ms, consumer };
    let group = Group {
        name: b"g".to_vec(),
        last_id: StreamId { ms: 9, seq: 0 },
        entries_read: Some(9),
        consumers: vec![consumer("a"), consumer("b")],
        pending: vec![pending(2, 1), pending(3, 0), pending(u64::MAX, 1)],
    };
    let unread = Group { name: b"h".to_vec(), entries_read: None, consumers: vec![], pending: vec![], ..group.clone() };
    Stream {
        first_id: entries[0].id,
        last_id: StreamId { ms: u64::MAX, seq: 9 },
        max_deleted_id: StreamId { ms: 4, seq: 4 },
        entries_added: 1000,
        entries,
        groups: vec![group, unread],
        idempotence: Some(Idempotence {
            duration_seconds: 7,
            max_ids: 8,
            producers: vec![(b"p".to_vec(), vec![(b"i".to_vec(), StreamId { ms: 1, seq: 0 })])],
            added: 9,
            duplicates: 10,
        }),
    }
}

#[test]
fn streams_lose_only_what_is_named_and_accepted() {
    let whole = Value::Stream(Box::new(stream()));
    assert_eq!(there_and_back(&whole, "REDIS0013"), 13);
    let sevens = [Loss::MaxDeletedId, Loss::EntriesAdded, Loss::EntriesRead];
    for (loads, written, lost) in [
        ("REDIS0009", 9, [&sevens[..], &[Loss::ActiveTimes, Loss::Idempotence]].concat()),
        ("REDIS0010", 10, vec![Loss::ActiveTimes, Loss::Idempotence]),
        ("REDIS0012", 11, vec![Loss::Idempotence]),
        ("VALKEY080", 11, vec![Loss::Idempotence]),
    ] {
        let refused = encode_dump(&whole, version(loads)).expect_err("refused");
        assert_eq!(refused.losses, lost, "{loads}");
        let mut less = whole.clone();
        for loss in lost {
            loss.take_from(&mut less);
        }
        assert_eq!(there_and_back(&less, loads), written);
        assert_ne!(less, whole);
    }
}

#[test]
fn an_empty_stream() {
    let mut empty = stream();
    empty.entries.clear();
    empty.first_id = StreamId::default();
    there_and_back(&Value::Stream(Box::new(empty.clone())), "REDIS0013");
    // Idempotence that was never used is nothing that another version lacks.
    let unused = Idempotence { duration_seconds: 100, max_ids: 100, producers: vec![], added: 0, duplicates: 0 };
    empty.idempotence = Some(unused);
    assert!(losses(&Value::Stream(Box::new(empty)), version("REDIS0012")).is_empty());
}
