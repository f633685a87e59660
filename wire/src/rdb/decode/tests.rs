//! Equal values in each of their encodings, and damage.

use super::super::header::{RdbVersion, parse_header};
use super::super::value::{Field, Score};
use super::*;

fn decode(header: &str, number: u8, bytes: &[u8]) -> Result<Value, String> {
    let version: RdbVersion = parse_header(header.as_bytes()).expect("a header");
    let of = ValueType::find(version, number).map_err(|e| e.to_string())?;
    decode_value(of, bytes, 1 << 20).map_err(|e| e.to_string())
}

/// A listpack as a string: elements of at most 63 bytes, or numbers below 128.
fn listpack(elements: &[&str]) -> Vec<u8> {
    let mut body = Vec::new();
    for element in elements {
        match element.parse::<u8>() {
            Ok(number) if number < 128 => body.extend_from_slice(&[number, 1]),
            _ => {
                body.push(0x80 | element.len() as u8);
                body.extend_from_slice(element.as_bytes());
                body.push(element.len() as u8 + 1);
            }
        }
    }
    let mut out = vec![0x40, body.len() as u8 + 7, body.len() as u8 + 7, 0, 0, 0, elements.len() as u8, 0];
    out.extend_from_slice(&body);
    out.push(0xff);
    out
}

fn strings(elements: &[&str]) -> Vec<u8> {
    let mut out = Vec::new();
    for element in elements {
        out.push(element.len() as u8);
        out.extend_from_slice(element.as_bytes());
    }
    out
}

fn bytes(list: &[&str]) -> Vec<Vec<u8>> {
    list.iter().map(|s| s.as_bytes().to_vec()).collect()
}

#[test]
fn strings_in_each_encoding() {
    let all = [&b"\x03100"[..], b"\xc0\x64", b"\xc1\x64\x00", b"\xc2\x64\x00\x00\x00", b"\xc3\x04\x03\x02100"];
    for form in all {
        assert_eq!(decode("REDIS0009", 0, form), Ok(Value::String(b"100".to_vec())), "{form:?}");
    }
    let long = decode("REDIS0009", 0, b"\xc3\x05\x0a\x00a\xe0\x00\x00");
    assert_eq!(long, Ok(Value::String(b"aaaaaaaaaa".to_vec())));
}

#[test]
fn equal_sets_compare_equal() {
    let want = Value::Set(bytes(&["1", "2", "7"]));
    let plain = [&b"\x03"[..], &strings(&["7", "1", "2"])].concat();
    assert_eq!(decode("REDIS0011", 2, &plain).as_ref(), Ok(&want));
    assert_eq!(decode("REDIS0011", 20, &listpack(&["2", "7", "1"])).as_ref(), Ok(&want));
    let intset = b"\x0e\x02\0\0\0\x03\0\0\0\x01\0\x02\0\x07\0";
    assert_eq!(decode("REDIS0011", 11, intset).as_ref(), Ok(&want));
    assert!(decode("REDIS0011", 2, b"\x02\x01a\x01a").is_err_and(|e| e.contains("twice")));
    assert!(decode("REDIS0011", 20, &listpack(&["7", "7"])).is_err_and(|e| e.contains("twice")));
}

#[test]
fn equal_sorted_sets_compare_equal() {
    let score = |s: f64| Score::new(s).expect("a number");
    let want = Value::Zset(vec![
        (b"z".to_vec(), score(f64::NEG_INFINITY)),
        (b"a".to_vec(), score(1.0)),
        (b"b".to_vec(), score(1.0)),
        (b"c".to_vec(), score(2.5)),
    ]);
    let text = b"\x04\x01b\x011\x01c\x032.5\x01a\x011\x01z\xff";
    assert_eq!(decode("REDIS0009", 3, text).as_ref(), Ok(&want));
    let mut doubles = vec![4];
    for (member, score) in [("c", 2.5), ("z", f64::NEG_INFINITY), ("b", 1.0), ("a", 1.0)] {
        doubles.extend_from_slice(&strings(&[member]));
        doubles.extend_from_slice(&f64::to_le_bytes(score));
    }
    assert_eq!(decode("REDIS0009", 5, &doubles).as_ref(), Ok(&want));
    let packed = listpack(&["z", "-inf", "a", "1", "b", "1", "c", "2.5"]);
    assert_eq!(decode("REDIS0010", 17, &packed).as_ref(), Ok(&want));
    let zero = |text| decode("REDIS0010", 17, &listpack(&["a", text]));
    assert_ne!(zero("0"), zero("-0"), "as ZSCORE answers");
    assert!(decode("REDIS0010", 17, &listpack(&["a", "nan"])).is_err());
    assert!(decode("REDIS0010", 17, &listpack(&["a"])).is_err());
    assert!(decode("REDIS0010", 17, &listpack(&["a", "1", "a", "2"])).is_err());
}

#[test]
fn equal_hashes_compare_equal_with_their_ttls() {
    let field = |name: &str, value: &str, expires_at_ms| Field {
        name: name.as_bytes().to_vec(),
        value: value.as_bytes().to_vec(),
        expires_at_ms,
    };
    let want = Value::Hash(vec![field("f", "v", None), field("g", "5", None)]);
    assert_eq!(decode("REDIS0009", 4, &[&b"\x02"[..], &strings(&["g", "5", "f", "v"])].concat()).as_ref(), Ok(&want));
    assert_eq!(decode("REDIS0010", 16, &listpack(&["f", "v", "g", "5"])).as_ref(), Ok(&want));
    assert!(decode("REDIS0010", 16, &listpack(&["f", "v", "g"])).is_err());
    assert!(decode("REDIS0010", 16, &listpack(&["f", "v", "f", "w"])).is_err());

    let want = Value::Hash(vec![field("f", "v", Some(100)), field("g", "5", None), field("h", "w", Some(103))]);
    let le = |n: u64| n.to_le_bytes();
    let relative = [&le(100)[..], b"\x03\x01\x01f\x01v\x00\x01g\x015\x04\x01h\x01w"].concat();
    assert_eq!(decode("REDIS0012", 24, &relative).as_ref(), Ok(&want));
    let absolute = b"\x03\x40\x64\x01f\x01v\x00\x01g\x015\x40\x67\x01h\x01w";
    assert_eq!(decode("REDIS0012", 22, absolute).as_ref(), Ok(&want));
    let pack = listpack(&["f", "v", "100", "h", "w", "103", "g", "5", "0"]);
    assert_eq!(decode("REDIS0012", 23, &pack).as_ref(), Ok(&want));
    assert_eq!(decode("REDIS0012", 25, &[&le(100)[..], &pack].concat()).as_ref(), Ok(&want));
    let none = le(u64::MAX);
    let behind = [&b"\x03\x01f\x01v"[..], &le(100), b"\x01g\x015", &none, b"\x01h\x01w", &le(103)].concat();
    assert_eq!(decode("VALKEY080", 22, &behind).as_ref(), Ok(&want));
    // Times that overflow, or lie before 1970.
    let far = [&le(i64::MAX as u64)[..], b"\x01\x40\xff\x01f\x01v"].concat();
    assert!(decode("REDIS0012", 24, &far).is_err());
    assert!(decode("VALKEY080", 22, &[&b"\x01\x01f\x01v"[..], &le(-2i64 as u64)].concat()).is_err());
}

#[test]
fn equal_lists_compare_equal() {
    let want = Value::List(bytes(&["b", "a", "b"]));
    assert_eq!(decode("REDIS0009", 1, &[&b"\x03"[..], &strings(&["b", "a", "b"])].concat()).as_ref(), Ok(&want));
    let nodes = [&b"\x02\x02"[..], &listpack(&["b", "a"]), b"\x01\x01b"].concat();
    assert_eq!(decode("REDIS0010", 18, &nodes).as_ref(), Ok(&want));
    let ziplist = b"\x14\x14\0\0\0\x10\0\0\0\x03\0\x00\x01b\x03\x01a\x03\x01b\xff";
    assert_eq!(decode("REDIS0009", 10, ziplist).as_ref(), Ok(&want));
    assert_eq!(decode("REDIS0009", 14, &[&b"\x01"[..], ziplist].concat()).as_ref(), Ok(&want));
    assert!(decode("REDIS0010", 18, b"\x01\x03\x01b").is_err_and(|e| e.contains("a kind that does not exist")));
}

#[test]
fn a_value_is_decoded_as_a_whole_or_not_at_all() {
    let hash = [&b"\x02"[..], &strings(&["g", "5", "f", "v"])].concat();
    for len in 0..hash.len() {
        assert!(decode("REDIS0009", 4, &hash[..len]).is_err(), "cut at {len}");
    }
    let longer = [&hash[..], b"\x00"].concat();
    assert_eq!(
        decode("REDIS0009", 4, &longer).expect_err("refused"),
        format!("the RDB cannot be read at byte {}: more bytes follow a value", hash.len())
    );
}

#[test]
fn what_would_take_too_much_memory_is_refused() {
    // 'a', then 264 times the byte before: eight bytes that become 265.
    let run = b"\xc3\x05\x41\x09\x00a\xe0\xff\x00";
    let one = decode_value(ValueType::String, run, 1000).expect("265 bytes");
    assert_eq!(one, Value::String(vec![b'a'; 265]));
    let list = [&b"\x0a"[..], &run.repeat(10)].concat();
    assert!(decode_value(ValueType::List, &list, 10 * (265 + 64)).is_ok());
    let refused = decode_value(ValueType::List, &list, 10 * (265 + 64) - 1).expect_err("too large").to_string();
    assert!(refused.contains("the decoded value takes more than 3289 bytes"), "{refused}");
    // Short elements cost more than their bytes.
    let short = [&b"\x0a"[..], &b"\x01a".repeat(10)].concat();
    assert!(decode_value(ValueType::List, &short, 600).is_err());
}

/// `XADD s 1-1 a 1`, `XADD s 1-2 a 2`, `XADD s 2-0 b 3`, `XDEL s 1-2`, one group with two consumers.
fn stream(version: u8) -> Vec<u8> {
    // Live, deleted, one field "a", end of the master; each entry: flags, id, values, how many elements.
    let pack = listpack(&[
        "2", "1", "1", "a", "0", "2", "0", "0", "1", "4", "3", "0", "1", "2", "4", "0", "1", "7", "1", "b", "3", "6",
    ]);
    let id = |ms: u8, seq: u8| [&[0; 7][..], &[ms], &[0; 7], &[seq]].concat();
    let mut out = [&b"\x01\x10"[..], &id(1, 1), &pack, b"\x02\x02\x08"].concat();
    if version >= 2 {
        out.extend_from_slice(b"\x01\x01\x01\x02\x03");
    }
    // The group "g" has read up to 2-8; two entries are pending.
    out.extend_from_slice(b"\x01\x01g\x02\x08");
    if version >= 2 {
        out.push(3);
    }
    out.push(2);
    for (ms, seq) in [(1, 1), (2, 8)] {
        out.extend_from_slice(&id(ms, seq));
        out.extend_from_slice(&1000u64.to_le_bytes());
        out.push(1);
    }
    out.push(2);
    for (name, ms, seq) in [(b'y', 2, 8), (b'x', 1, 1)] {
        out.extend_from_slice(&[1, name]);
        out.extend_from_slice(&1000u64.to_le_bytes());
        if version >= 3 {
            out.extend_from_slice(&999u64.to_le_bytes());
        }
        out.push(1);
        out.extend_from_slice(&id(ms, seq));
    }
    if version >= 4 {
        out.extend_from_slice(b"\x40\x64\x40\x64\x01\x01p\x01\x01i\x01\x01\x01\x02");
    }
    out
}

#[test]
fn streams_of_each_version() {
    for (version, header, number) in
        [(1, "REDIS0009", 15), (2, "REDIS0010", 19), (3, "REDIS0011", 21), (4, "REDIS0013", 26)]
    {
        let bytes = stream(version);
        let Ok(Value::Stream(stream)) = decode(header, number, &bytes) else { panic!("version {version}") };
        let entries: Vec<String> =
            stream.entries.iter().map(|e| format!("{} {}", e.id, e.fields[0].0.escape_ascii())).collect();
        assert_eq!(entries, ["1-1 a", "2-8 b"]);
        assert_eq!((stream.last_id.to_string(), stream.first_id.to_string()), ("2-8".into(), "1-1".into()));
        let (deleted, added) = if version >= 2 { ("1-2", 3) } else { ("0-0", 2) };
        assert_eq!((stream.max_deleted_id.to_string().as_str(), stream.entries_added), (deleted, added));
        let group = &stream.groups[0];
        let owner = |at: usize| group.consumers[group.pending[at].consumer].name.clone();
        assert_eq!((owner(0), owner(1)), (b"x".to_vec(), b"y".to_vec()));
        assert_eq!(group.consumers[0].active_ms, if version >= 3 { 999 } else { 1000 });
        assert_eq!(group.entries_read, (version >= 2).then_some(3));
        let producers = stream.idempotence.map(|i| (i.producers.len(), i.max_ids, i.added, i.duplicates));
        assert_eq!(producers, (version >= 4).then_some((1, 100, 1, 2)));
        for len in 0..bytes.len() {
            assert!(decode(header, number, &bytes[..len]).is_err(), "version {version} cut at {len}");
        }
    }
}

#[test]
fn a_stream_that_contradicts_itself_is_refused() {
    let good = stream(3);
    assert!(decode("REDIS0011", 21, &good).is_ok());
    // The count of live entries; the length of the id; the consumer of a pending entry.
    let live = good.iter().position(|&b| b == 0x40).expect("the listpack") + 8;
    for (at, value) in [(live, 3), (1, 0x0f), (good.len() - 1, 2)] {
        let mut bad = good.clone();
        bad[at] = value;
        assert!(decode("REDIS0011", 21, &bad).is_err(), "byte {at}");
    }
}
