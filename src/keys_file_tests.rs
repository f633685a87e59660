use proptest::prelude::*;
use redtape_wire::quoted::quote;
use serde_json::{Value, json};

use super::*;

type Key = (Option<u32>, Vec<u8>);

fn keys(content: &[u8]) -> Result<Vec<Key>, String> {
    within(content, LIMITS).map(|(keys, _)| keys)
}

fn within(content: &[u8], mut limits: Limits) -> Result<(Vec<Key>, Limits), String> {
    let mut found = Vec::new();
    read(content, &mut limits, &mut |db, key| found.push((db, key))).map_err(|problem| problem.to_string())?;
    Ok((found, limits))
}

fn of_any(names: &[&[u8]]) -> Vec<Key> {
    names.iter().map(|name| (None, name.to_vec())).collect()
}

#[test]
fn lines_hold_keys_as_they_are_printed() {
    for (content, want) in [
        (&b"user:1"[..], &[&b"user:1"[..]][..]),
        (b"user:1\nuser:2\n", &[b"user:1", b"user:2"]),
        (b"\r\nuser:1\r\n\r\n", &[b"user:1"]),
        (b"\n\n  \na b\n", &[b"a b"]),
        (b"\"\\xff\\x00k\"\n\"a\\nb\"\n\"\"\n", &[b"\xff\x00k", b"a\nb", b""]),
        // Keys with hash tags, and others that look a little like JSON.
        (b"{user1}:cart\n{}\n[1,2]\n123\nnull\n", &[b"{user1}:cart", b"{}", b"[1,2]", b"123", b"null"]),
        (b"[abc\n[", &[b"[abc", b"["]),
        (b"[{user1}:cart]\n", &[b"[{user1}:cart]"]),
        (b"[\n{user1}\n", &[b"[", b"{user1}"]),
        (b"\xff\xfe\n", &[b"\xff\xfe"]),
        (b"a\na\n", &[b"a", b"a"]),
        // JSON strings, whose escapes are others, also between blanks.
        (b"\"caf\\u00e9\"\n\t\"a\\/b\" \n \"x\"\n", &["café".as_bytes(), b"a/b", b"x"]),
        (b"\"\\ud83d\\ude00\"", &["😀".as_bytes()]),
    ] {
        assert_eq!(keys(content), Ok(of_any(want)), "{}", content.escape_ascii());
    }
}

#[test]
fn entries_are_json_in_lines_or_in_a_list() {
    let want = vec![
        (None, b"a".to_vec()),
        (Some(3), b"b".to_vec()),
        (None, b"\xff".to_vec()),
        (Some(0), b"c".to_vec()),
        (None, b"d".to_vec()),
        (Some(7), b"e".to_vec()),
    ];
    let entries = [
        r#"{"key": "a", "exists": true, "elements": [{"key": 1}], "last_write": {"db": 4, "key": "no"}}"#,
        r#"{"db":3,"key":"b"}"#,
        r#"{"key_base64":"/w==","db":null}"#,
        r#"{"lsn":5,"keys":[{"db":0,"key":"c"},"d"],"args":["DEL","c","d"]}"#,
        r#"{"keys":[]}"#,
        r#"{"db":7,"key":"e","key_base64":null,"keys":null}"#,
    ];
    let list = entries.join(",");
    for content in [
        entries.join("\n"),
        format!("\n  {}\r\n", entries.join("\r\n\t")),
        format!("[{list}]"),
        format!("\n [ \n{}\n]\n", entries.join("\n,\n")),
    ] {
        assert_eq!(keys(content.as_bytes()), Ok(want.clone()), "{content}");
    }
    // All in one file.
    let mixed = format!("\"q\"\n{}\n{{plain}}", entries[1]);
    let want = [(None, b"q".to_vec()), (Some(3), b"b".to_vec()), (None, b"{plain}".to_vec())];
    assert_eq!(keys(mixed.as_bytes()), Ok(want.to_vec()));
    assert_eq!(keys(br#"["a", "b"]"#), Ok(of_any(&[b"a", b"b"])));
}

#[test]
fn what_cannot_be_used_is_named_by_its_line_and_not_shown() {
    let base64 = "`key_base64` is not Base64";
    for (content, line, why) in [
        ("a\n\"s3cret", 2, "the quote at its end is missing"),
        ("a\n\n\"s3cret\"…(6 B)", 3, "follows its closing quote"),
        ("\"s3cret\\q\"", 1, "after \\ comes one of"),
        (" s3cret", 1, "begins or ends with a blank"),
        ("a\ns3cret\t", 2, "begins or ends with a blank"),
        ("{\"key\": \"s3cret\"", 1, "not valid JSON (column 16)"),
        ("{\"s3cret\" x}", 1, "not valid JSON (column 11)"),
        ("{\"key\": \"s3cret\"} {\"key\": \"b\"}", 1, "not valid JSON"),
        ("a\n{\"key\": 17}", 2, "a key is a string, or an object"),
        ("{\"key\": {\"b64\": \"s3cret\"}}", 1, "a key is a string, or an object"),
        ("{\"key\": \"s3cret\", \"db\": \"0\"}", 1, "a key is a string, or an object"),
        ("{\"key\": \"s3cret\", \"db\": -1}", 1, "a key is a string, or an object"),
        ("{\"key\": \"s3cret\", \"db\": 4294967296}", 1, "a key is a string, or an object"),
        ("{\"key\": \"s3cret\", \"key_base64\": \"YQ==\"}", 1, "it names more than one key"),
        ("{\"key_base64\": \"s3cret\"}", 1, base64),
        ("{\"args\": [\"FLUSHALL\"], \"keys\": null}", 1, "it names no key"),
        ("{\"s3cret\": 1}", 1, "it names no key"),
        ("{\"keys\": \"s3cret\"}", 1, "a key is a string, or an object"),
        ("{\"keys\": [[\"s3cret\"]]}", 1, "a key is a string, or an object"),
        ("[\"a\",\n\"b\",\n17]", 3, "a key is a string, or an object"),
        ("[\"a\",\n\n\"s3cret\\q\"]", 3, "not valid JSON"),
        ("[\n{\"db\":\n1}]", 3, "it names no key"),
        ("[\"a\",\n{\"key_base64\": \"s3cret\"}]", 2, base64),
        ("[\"a\"\n", 2, "not valid JSON"),
        ("[\"a\"]\n\n\"s3cret\"", 3, "not valid JSON"),
    ] {
        let told = keys(content.as_bytes()).expect_err(content);
        assert!(told.starts_with(&format!("line {line}: {why}")) || told.contains(why), "{content}: {told}");
        assert!(told.starts_with(&format!("line {line}: ")), "{content}: {told}");
        assert!(!told.contains("s3cret") && !told.contains("17"), "{content}: {told}");
    }
}

#[test]
fn a_file_without_keys_is_no_choice_of_everything() {
    for empty in ["", "\n\n", " \r\n", "[]", "[ \n ]", "{\"keys\":[]}\n"] {
        assert_eq!(keys(empty.as_bytes()), Err("it holds no key".to_owned()), "{empty:?}");
    }
}

#[test]
fn keys_and_bytes_are_limited_over_all_files() {
    let few = Limits { keys: 3, bytes: 1 << 20 };
    let (_, left) = within(b"a\nb\n", few).expect("two keys");
    assert_eq!((left.keys, left.bytes), (1, (1 << 20) - 4));
    assert_eq!(
        within(b"a\nb\n", left).map(drop),
        Err("line 2: there are too many keys: at most 10 million can be given".to_owned())
    );
    assert_eq!(
        within(b"[\"a\",\n\"b\"]", left).map(drop),
        Err("line 2: there are too many keys: at most 10 million can be given".to_owned())
    );
    let large = format!("\"{}\"", "x".repeat(1 << 20));
    let told = Err("it and the files before it hold more than 1 MiB".to_owned());
    for content in [large.clone(), format!("[{large}]"), format!("a\n{large}")] {
        assert_eq!(within(content.as_bytes(), few).map(drop), told);
    }
    let (found, left) = within(large.as_bytes(), Limits { bytes: large.len() as u64, ..few }).expect("just enough");
    assert_eq!((found.len(), left.bytes), (1, 0));
}

#[test]
fn an_unreadable_file_is_an_error_of_the_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut filter = Filter::default();
    for path in [folder.path().join("missing"), folder.path().to_owned()] {
        let told = add_keys(&mut filter, std::slice::from_ref(&path)).expect_err("no file").to_string();
        assert!(told.starts_with(&format!("cannot read the keys of --keys-from {}: ", path.display())), "{told}");
    }
    let twice = add_keys(&mut filter, &["-".into(), "-".into()]).expect_err("twice").to_string();
    assert!(twice.contains("only once"), "{twice}");
    assert!(filter.is_everything(), "nothing was added");
    let (one, two) = (folder.path().join("one"), folder.path().join("two"));
    std::fs::write(&one, "a\nb\n").expect("a file");
    std::fs::write(&two, "{\"key\":\"b\",\"db\":3}\n\"c\"").expect("a file");
    add_keys(&mut filter, &[one, two]).expect("keys");
    assert!(filter.wants(0, b"a") && filter.wants(0, b"b") && filter.wants(9, b"c") && !filter.wants(0, b"d"));
}

fn any_key() -> impl Strategy<Value = Vec<u8>> {
    let odd = proptest::collection::vec(proptest::sample::select(&b"\"\\'{}[]:,\n\r\t a\0\xff"[..]), 0..8);
    prop_oneof![odd, proptest::collection::vec(any::<u8>(), 0..12)]
}

#[test]
fn brackets_before_a_quoted_key_are_no_json() {
    for key in [&b"["[..], b"{", b"[{", b"]}", b"[]a", b"[{}a", b"[{},b]"] {
        let printed = format!("{}\n{}", quote(key), quote(b""));
        assert_eq!(keys(printed.as_bytes()), Ok(of_any(&[key, b""])), "{printed}");
    }
}

proptest! {
    #[test]
    fn printed_keys_come_back(keys_of in proptest::collection::vec((any_key(), proptest::option::of(0u32..20)), 1..8)) {
        let lines: Vec<String> = keys_of.iter().map(|(key, _)| quote(key)).collect();
        let names = of_any(&keys_of.iter().map(|(key, _)| &key[..]).collect::<Vec<_>>());
        prop_assert_eq!(keys(lines.join("\n").as_bytes()), Ok(names.clone()));
        prop_assert_eq!(keys(lines.join("\r\n").as_bytes()), Ok(names));
        let entry = |(key, db): &(Vec<u8>, Option<u32>)| match std::str::from_utf8(key) {
            Ok(text) => json!({"db": db, "key": text}),
            Err(_) => json!({"db": db, "key_base64": base64::Engine::encode(&base64::prelude::BASE64_STANDARD, key)}),
        };
        let entries: Vec<Value> = keys_of.iter().map(entry).collect();
        let want: Vec<Key> = keys_of.iter().map(|(key, db)| (*db, key.clone())).collect();
        let in_lines = entries.iter().map(Value::to_string).collect::<Vec<_>>().join("\n");
        let list = Value::from(entries);
        for content in [in_lines, list.to_string(), format!("{list:#}"), json!({"keys": list}).to_string()] {
            prop_assert_eq!(keys(content.as_bytes()), Ok(want.clone()), "{}", content);
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused(content in proptest::collection::vec(proptest::sample::select(&b"\"\\{}[]:,\nkeydb0x /w=\xff"[..]), 0..60)) {
        if let Ok(found) = keys(&content) {
            prop_assert!(!found.is_empty() && found.iter().map(|(_, key)| key.len()).sum::<usize>() <= content.len());
        }
    }
}
