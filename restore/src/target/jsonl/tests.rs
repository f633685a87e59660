//! Values there and back, and files that are not whole.

use std::io::Write as _;

use redtape_wire::rdb::{Consumer, Field, Group, Idempotence, Pending, Score, Stream, StreamEntry, StreamId, Value};
use serde_json::{Value as Json, json};

use super::lines::{KeyHead, key_lines};
use super::reading::{Item, Reading};
use crate::error::RestoreError;

fn lines_of(db: u32, key: &[u8], expires_ms: i64, value: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    key_lines(&KeyHead { db, key, expires_ms }, value, &mut |line| {
        lines.push(Json::Object(line).to_string());
        Ok(())
    })
    .expect("lines");
    lines
}

fn header() -> String {
    let point = json!({"time": "T", "time_us": 5, "before": false, "lsn": 7, "timeline": 1});
    json!({"format": "redtape-jsonl", "version": 1, "point": point, "journal": "j", "server": "redis 7", "selection": null})
        .to_string()
}

fn file(lines: &[String]) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    for line in lines {
        writeln!(file, "{line}").expect("written");
    }
    file
}

/// With a header, and a last line that counts so many keys in database 0.
fn whole(lines: &[String], keys: u64) -> Vec<String> {
    let all = [&[header()], lines].concat();
    let end = json!({"end": true, "keys": {"0": keys}, "functions": 0, "lines": all.len() + 1});
    [all, vec![end.to_string()]].concat()
}

/// Database, key, time of expiry, value.
type ReadKeys = Vec<(u32, Vec<u8>, i64, Value)>;

fn read(lines: &[String]) -> Result<ReadKeys, RestoreError> {
    let file = file(lines);
    let mut reading = Reading::open(file.path())?;
    let mut all = Vec::new();
    while let Some(item) = reading.next()? {
        if let Item::Key(key) = item {
            all.push((key.db, key.key, key.expires_ms, key.value));
        }
    }
    Ok(all)
}

#[track_caller]
fn there_and_back(value: &Value) -> usize {
    let lines = lines_of(0, b"k\xff", 1_700_000_000_123, value);
    let back = read(&whole(&lines, 1)).expect("a sound file");
    assert!(
        back == [(0, b"k\xff".to_vec(), 1_700_000_000_123, value.clone())],
        "{}",
        &lines[0][..lines[0].len().min(300)]
    );
    lines.len()
}

fn score(number: f64) -> Score {
    Score::new(number).expect("a number")
}

fn stream(pending: u64) -> Value {
    let id = |ms, seq| StreamId { ms, seq };
    let entry =
        |ms| StreamEntry { id: id(ms, 1), fields: vec![(b"f".to_vec(), b"\xff".to_vec()), (b"f".to_vec(), vec![])] };
    let consumer = |name: &[u8]| Consumer { name: name.to_vec(), seen_ms: 1, active_ms: -1 };
    let pending =
        (0..pending).map(|n| Pending { id: id(n, 0), delivered_ms: 9, deliveries: n, consumer: (n % 2) as usize });
    let group = Group {
        name: b"g\xfe".to_vec(),
        last_id: id(3, 1),
        entries_read: Some(2),
        consumers: vec![consumer(b"a"), consumer(b"\xfd")],
        pending: pending.collect(),
    };
    let idle = Group { name: b"z".to_vec(), entries_read: None, consumers: vec![], pending: vec![], last_id: id(0, 0) };
    Value::Stream(Box::new(Stream {
        entries: (2..5).map(entry).collect(),
        last_id: id(u64::MAX, u64::MAX),
        first_id: id(2, 1),
        max_deleted_id: id(1, 1),
        entries_added: 9,
        groups: vec![group, idle],
        idempotence: Some(Idempotence {
            duration_seconds: 1,
            max_ids: 2,
            producers: vec![(b"p".to_vec(), vec![(b"i\xff".to_vec(), id(2, 1))])],
            added: 3,
            duplicates: 4,
        }),
    }))
}

#[test]
fn every_type_comes_back_as_it_was() {
    let strings = |all: &[&[u8]]| all.iter().map(|bytes| bytes.to_vec()).collect::<Vec<_>>();
    let numbers =
        [f64::NEG_INFINITY, -1e300, -0.0, 5e-324, 0.1, 1.0 / 3.0, 3.000_000_000_000_000_4, 1e22, f64::INFINITY];
    let field = |name: &[u8], expires_at_ms| Field { name: name.to_vec(), value: b"v\"\n".to_vec(), expires_at_ms };
    for value in [
        Value::String(vec![]),
        Value::String("ä\0\u{10ffff}".into()),
        Value::String(b"\xff\0".to_vec()),
        Value::List(strings(&[b"b", b"a", b"b", b""])),
        Value::List(strings(&[b"b", b"\xff"])),
        Value::Set(strings(&[b"", b"1", b"\xff"])),
        Value::Zset(numbers.iter().map(|n| (n.to_string().into_bytes(), score(*n))).collect()),
        Value::Zset(vec![(b"\xff".to_vec(), score(1.0))]),
        Value::Hash(vec![field(b"", None), field(b"a", None)]),
        Value::Hash(vec![field(b"a", Some(5)), field(b"b", None), field(b"c\xff", Some(i64::MAX))]),
        stream(3),
        Value::Module { id: u64::MAX, data: b"\x02\x05\x00".to_vec() },
    ] {
        assert_eq!(there_and_back(&value), if matches!(value, Value::Stream(_)) { 2 } else { 1 });
    }
}

#[test]
fn large_values_take_several_lines() {
    let mut text = "ä".repeat(1_500_000);
    text.insert(0, 'x');
    assert!(there_and_back(&Value::String(text.into_bytes())) == 3);
    assert!(there_and_back(&Value::String(vec![0xff; 3 << 20])) == 3);
    let name = |n: i32| format!("{n:06}").into_bytes();
    assert_eq!(there_and_back(&Value::Set((0..10_000).map(name).collect())), 3);
    let fields = (0..5000).map(|n| Field { name: name(n), value: vec![], expires_at_ms: None });
    assert_eq!(there_and_back(&Value::Hash(fields.collect())), 2);
    assert_eq!(there_and_back(&stream(5000)), 3);
    let lines = lines_of(0, b"k", 0, &Value::List(vec![b"x".to_vec(); 5000]));
    let first: Json = serde_json::from_str(&lines[0]).expect("JSON");
    assert_eq!((&first["part"], &first["more"], &first["size"]), (&json!(0), &json!(true), &json!(5000)));
    let last: Json = serde_json::from_str(&lines[1]).expect("JSON");
    assert_eq!((&last["part"], &last["more"], &last["size"]), (&json!(1), &Json::Null, &Json::Null));
}

#[test]
fn a_line_looks_as_other_tools_have_it() {
    let line = |value: &Value| lines_of(3, b"k", 0, value).remove(0);
    let strings = |all: &[&str]| all.iter().map(|text| text.as_bytes().to_vec()).collect::<Vec<_>>();
    assert_eq!(line(&Value::String(b"v".to_vec())), r#"{"db":3,"key":"k","size":1,"type":"string","value":"v"}"#);
    assert_eq!(
        line(&Value::List(strings(&["b", "a"]))),
        r#"{"db":3,"key":"k","size":2,"type":"list","values":["b","a"]}"#
    );
    let zset = Value::Zset(vec![(b"m".to_vec(), score(1.5)), (b"n".to_vec(), score(f64::INFINITY))]);
    let want = r#"{"db":3,"entries":[{"member":"m","score":1.5},{"member":"n","score":"inf"}],"key":"k","size":2,"type":"zset"}"#;
    assert_eq!(line(&zset), want);
    let hash = Value::Hash(vec![Field { name: b"f".to_vec(), value: b"v".to_vec(), expires_at_ms: None }]);
    assert_eq!(line(&hash), r#"{"db":3,"hash":{"f":"v"},"key":"k","size":1,"type":"hash"}"#);
    let coded = lines_of(0, b"\xff", 1000, &Value::Set(vec![b"\xfe".to_vec()])).remove(0);
    let want = r#"{"db":0,"expiration":"1970-01-01T00:00:01.000000Z","expiration_ms":1000,"key_base64":"/w==","members_base64":["/g=="],"size":1,"type":"set"}"#;
    assert_eq!(coded, want);
}

#[test]
fn what_is_wrong_is_said_with_its_line() {
    let key = |more: Json| {
        let mut line = json!({"db": 0, "key": "k", "type": "set", "size": 1, "members": ["a"]});
        line.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        line.to_string()
    };
    let sound = key(json!({}));
    assert_eq!(read(&whole(std::slice::from_ref(&sound), 1)).expect("sound").len(), 1);
    let bad = |lines: &[String], words: &[&str]| {
        let said = read(lines).expect_err(words[0]).to_string();
        for word in words {
            assert!(said.contains(word), "{word:?} is not in {said}");
        }
    };
    let one = |line: String, words: &[&str]| bad(&whole(&[line], 1), words);
    bad(&[], &["line 0", "empty"]);
    bad(&["{}".to_owned()], &["line 1", "no file of redtape"]);
    bad(&["[1]".to_owned()], &["line 1"]);
    bad(&[header().replace("\"version\":1", "\"version\":2")], &["line 1", "newer redtape"]);
    bad(&[header(), sound.clone()], &["line 2", "cut off"]);
    bad(&whole(std::slice::from_ref(&sound), 2), &["line 3", "counts other keys"]);
    bad(&[whole(std::slice::from_ref(&sound), 1), vec![sound.clone()]].concat(), &["line 4", "behind the last line"]);
    one("{\"db\": 0,".to_owned(), &["line 2", "column"]);
    one(key(json!({"unknown": 1})), &["line 2", "unknown"]);
    one(key(json!({"value": "x"})), &["value does not belong here"]);
    one(key(json!({"type": "tree"})), &["\"tree\" is no type"]);
    one(key(json!({"size": 2})), &["its size says 2"]);
    one(key(json!({"members": ["a", "a"], "size": 2})), &["twice"]);
    one(key(json!({"members": [], "size": 0})), &["no key"]);
    one(key(json!({"members_base64": ["!"], "members": null})), &["no Base64"]);
    one(key(json!({"part": 1})), &["part 0 of the key should be here"]);
    one(key(json!({"part": 0, "more": true})), &["another key begins"].map(|_| "line 3"));
    one(key(json!({"type": "zset", "members": null, "entries": [{"member": "m", "score": "x"}]})), &["inf"]);
    one(key(json!({"key_base64": "aw=="})), &["both there"]);
    let text = whole(&[sound], 1).join("\n");
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), text).expect("written");
    let mut reading = Reading::open(file.path()).expect("a header");
    reading.next().expect("a key");
    assert!(reading.next().expect_err("no line feed").to_string().contains("cut off"));
}
