use std::sync::Arc;

use redtape_journal::{Lsn, ReplOffset};

use super::*;

fn origin(kind: OriginKind, addr: &str, user: &str, name: &str, via: &str) -> Origin {
    let [addr, user, name, via] = [addr, user, name, via].map(str::to_owned);
    Origin { kind, addr, user, name, via }
}

fn group(origin: Origin, records: &[(u32, &str, Option<&[usize]>)]) -> Group {
    let record = |(n, (db, line, keys)): (usize, &(u32, &str, Option<&[usize]>))| Record {
        lsn: Lsn(1 + n as u64),
        db: *db,
        args: line.split(' ').map(|word| word.as_bytes().to_vec().into()).collect(),
        keys: keys.map(Into::into),
    };
    Group {
        ts: Micros(1_795_176_000_000_000),
        slack: 0,
        origin: Arc::new(origin),
        atomic: false,
        end_offset: ReplOffset(1),
        records: records.iter().enumerate().map(record).collect(),
    }
}

fn outside(db: u32, line: &str, keys: Option<&[usize]>) -> Group {
    group(Origin::of(OriginKind::Outside), &[(db, line, keys)])
}

fn keys(globs: &[&str], dbs: &[u32]) -> Selection {
    of(Filter::new(globs, &[], dbs).expect("globs"))
}

fn of(keys: Filter) -> Selection {
    Selection::new(Wanted { keys, ..Wanted::default() }).expect("a selection")
}

#[test]
fn exact_keys_are_searched_for() {
    let some = keys(&["a", "b"], &[]).search().map(|keys| keys.len());
    assert_eq!(some, Some(32));
    assert_eq!(keys(&["a"], &[3, 20]).search(), Some(vec![(3, &b"a"[..]), (20, b"a")]));
    assert_eq!(keys(&["a", "b*"], &[3]).search(), None);
    assert_eq!(keys(&[], &[3]).search(), None);
    let exact = of(Filter::new::<&str>(&[], &[], &[3]).expect("a filter").and_exact_keys([*b"*\xff"]));
    assert_eq!(exact.search(), Some(vec![(3, &b"*\xff"[..])]));
    assert!(exact.only_key() == Some(b"*\xff") && !exact.search_is_limited());
}

#[test]
fn what_touches_a_key_is_wanted_and_said() {
    for (line, at, globs, dbs, said) in [
        ("SET k v", Some(&[1][..]), &["k"][..], &[][..], &["set"][..]),
        ("SET k v", Some(&[1]), &["x"], &[], &[]),
        ("SET k v", Some(&[1]), &["k"], &[1], &[]),
        ("SET k v", Some(&[1]), &["k"], &[2], &["set"]),
        ("DEL a k b", Some(&[1, 2, 3]), &["k", "b"], &[], &["deleted, if it was there", "deleted, if it was there"]),
        ("RENAME a k", Some(&[1, 2]), &["k"], &[], &["renamed from a"]),
        ("RENAME k a", Some(&[1, 2]), &["k*"], &[], &["renamed to a"]),
        ("LMOVE k k LEFT RIGHT", Some(&[1, 2]), &["k"], &[], &["element moved within"]),
        ("FLUSHALL", None, &["k"], &[], &["flushed"]),
        ("FLUSHALL", None, &["k"], &[7], &["flushed"]),
        ("FLUSHALL", None, &["k*"], &[], &["flushed"]),
        ("FLUSHDB", None, &["k"], &[], &["flushed"]),
        ("FLUSHDB", None, &["k"], &[7], &[]),
        ("SWAPDB 2 7", None, &["k"], &[7], &["swapped with db 2"]),
        ("SWAPDB 2 7", None, &["k"], &[], &["swapped with db 7", "swapped with db 2"]),
        ("SWAPDB 0 1", None, &["k"], &[7], &[]),
        ("MOVE k 7", None, &["k"], &[7], &["moved from db 2"]),
        ("MOVE k 7", None, &["k"], &[2], &["moved to db 7"]),
        ("MOVE x 7", None, &["k"], &[], &[]),
        ("COPY a k DB 7", None, &["k"], &[7], &["copied from a in db 2"]),
        ("EVAL s 1 x", None, &["k"], &[], &["perhaps touched by a script"]),
        ("JSON.SET x . 1", None, &["k"], &[], &["perhaps touched"]),
        ("PUBLISH k m", Some(&[]), &["k"], &[], &[]),
        ("SCRIPT LOAD k", None, &["k"], &[], &[]),
    ] {
        let (group, selection) = (outside(2, line, at), keys(globs, dbs));
        let done: Vec<String> = selection.done(&group, &group.records[0]).into_iter().map(|d| d.what).collect();
        assert_eq!(selection.wants(&group), !said.is_empty(), "{line} {globs:?} {dbs:?}");
        if !said.is_empty() {
            assert_eq!(done, said, "{line} {globs:?} {dbs:?}");
        }
    }
    let expired = group(Origin::of(OriginKind::Expiry), &[(0, "DEL k", Some(&[1]))]);
    assert_eq!(keys(&["k"], &[]).done(&expired, &expired.records[0])[0].what, "expired");
}

#[test]
fn databases_without_keys() {
    let wants = |db, line, at, dbs: &[u32]| keys(&[], dbs).wants(&outside(db, line, at));
    assert!(wants(2, "SET k v", Some(&[1][..]), &[2, 3]) && !wants(2, "SET k v", Some(&[1]), &[3]));
    assert!(wants(2, "FLUSHALL", None, &[3]) && !wants(2, "FLUSHDB", None, &[3]));
    assert!(wants(2, "MOVE k 3", None, &[3]) && wants(2, "SWAPDB 0 3", None, &[3]));
    assert!(wants(2, "PUBLISH a b", Some(&[]), &[2]) && !wants(2, "PUBLISH a b", Some(&[]), &[3]));
    assert!(wants(2, "SET k v", Some(&[1]), &[]));
}

#[test]
fn who_and_by_which_command() {
    let by = origin(OriginKind::Client, "10.0.0.5:51234", "alice", "billing", "evalsha");
    let v6 = origin(OriginKind::Client, "[::1]:51234", "default", "", "");
    let named = group(by, &[(0, "SET k v", Some(&[1])), (0, "INCR n", Some(&[1]))]);
    let plain = group(v6, &[(0, "DEL k", Some(&[1]))]);
    let expiry = group(Origin::of(OriginKind::Expiry), &[(0, "DEL k", Some(&[1]))]);
    let select = |wanted: Wanted| Selection::new(wanted).expect("a selection");
    let client = |x: &str| select(Wanted { clients: vec![x.to_owned()], ..Wanted::default() });
    for x in ["10.0.0.5:51234", "10.0.0.5", "billing", "bill*", "10.0.*"] {
        assert!(client(x).wants(&named) && !client(x).wants(&plain) && !client(x).wants(&expiry), "{x}");
    }
    for x in ["[::1]:51234", "[::1]", "::1"] {
        assert!(client(x).wants(&plain) && !client(x).wants(&named), "{x}");
    }
    assert!(!client("*").wants(&expiry) && !client("bill").wants(&named) && !client("alice").wants(&named));
    let user = |u: &str| select(Wanted { users: vec![u.to_owned()], ..Wanted::default() });
    assert!(user("alice").wants(&named) && user("default").wants(&plain) && !user("").wants(&named));
    let command = |c: &str| select(Wanted { commands: vec![c.to_owned()], ..Wanted::default() });
    assert!(command("incr").wants(&named) && command("EVALSHA").wants(&named) && !command("DEL").wants(&named));
    let only = command("incr");
    let wanted: Vec<bool> = named.records.iter().map(|r| only.wants_record(&named, r)).collect();
    assert_eq!(wanted, [false, true]);
    // Globs, and what is left out.
    assert!(command("INC*").wants(&named) && command("E*").wants(&named) && !command("F*").wants(&named));
    assert!(command("!del").wants(&named) && !command("!del").wants(&plain) && !command("!eval*").wants(&named));
    assert!(user("al*").wants(&named) && !user("!alice").wants(&named) && user("!alice").wants(&plain));
    assert!(!client("!bill*").wants(&named) && client("!bill*").wants(&plain) && client("!bill*").wants(&expiry));
    let both = Wanted { clients: vec!["10.*".to_owned(), "!billing".to_owned()], ..Wanted::default() };
    assert!(!select(both).wants(&named));
    let kind = select(Wanted { origins: vec!["expiry".to_owned()], ..Wanted::default() });
    assert!(kind.wants(&expiry) && !kind.wants(&named));
    // All must hold, for one and the same record.
    let both = |key: &str, command: &str| {
        let keys = Filter::new(&[key], &[], &[]).expect("a glob");
        let wanted = Wanted { keys, commands: vec![command.to_owned()], ..Wanted::default() };
        select(wanted).wants(&named)
    };
    assert!(both("k", "set") && !both("k", "incr"));
}

#[test]
fn keys_of_a_database_and_exclusions() {
    let mut filter = Filter::default();
    filter.add_key(Some(2), *b"k");
    filter.add_key(Some(7), *b"k");
    let pairs = of(filter.clone());
    assert_eq!(pairs.search(), Some(vec![(2, &b"k"[..]), (7, b"k")]));
    assert!(!pairs.search_is_limited() && pairs.has_keys() && pairs.only_key() == Some(b"k"));
    let set = |db| outside(db, "SET k v", Some(&[1]));
    assert!(pairs.wants(&set(2)) && pairs.wants(&set(7)) && !pairs.wants(&set(0)));
    assert!(pairs.wants(&outside(0, "FLUSHALL", None)) && !pairs.wants(&outside(0, "FLUSHDB", None)));
    filter.add_key(None, *b"other");
    let both = of(filter);
    assert!(both.search_is_limited() && both.only_key().is_none());
    assert_eq!(both.search().map(|keys| keys.len()), Some(16 + 2));

    // Exclusions hide what touches nothing else.
    let without = of(Filter::default().excluding(&["tmp:*"]).expect("globs"));
    let del = |line: &str| outside(0, line, Some(&[1, 2]));
    assert!(without.wants(&del("DEL tmp:1 a")) && !without.wants(&del("DEL tmp:1 tmp:2")));
    assert!(without.wants(&outside(0, "FLUSHALL", None)) && without.wants(&outside(0, "PUBLISH tmp:1 m", Some(&[]))));
    assert!(!without.has_keys() && without.search().is_none());
    let some = of(Filter::new(&["t*"], &[], &[]).expect("globs").excluding(&["tmp:*"]).expect("globs"));
    assert!(some.wants(&set_of("t")) && !some.wants(&set_of("tmp:1")) && !some.wants(&set_of("a")));
}

fn set_of(key: &str) -> Group {
    outside(0, &format!("SET {key} v"), Some(&[1]))
}

#[test]
fn touched_keys_are_the_wanted_ones() {
    let mut pair = Filter::default();
    pair.add_key(Some(7), *b"k");
    let all = Filter::default;
    let key = |dbs: &[u32]| Filter::new(&["k"], &[], dbs).expect("a glob");
    let glob = || Filter::new(&["k*"], &[], &[]).expect("a glob");
    let (two, seven) = ((Some(2), &b"k"[..]), (Some(7), &b"k"[..]));
    for (line, at, filter, want) in [
        ("DEL k a k", Some(&[1, 2, 3][..]), all(), Some(vec![(Some(2), &b"a"[..]), two])),
        ("DEL k a k", Some(&[1, 2, 3]), glob(), Some(vec![two])),
        ("DEL k a", Some(&[1, 2]), all().excluding(&["k"]).expect("globs"), Some(vec![(Some(2), b"a")])),
        ("MOVE k 7", None, all(), Some(vec![two, seven])),
        ("MOVE k 7", None, pair.clone(), Some(vec![seven])),
        ("PUBLISH k m", Some(&[]), all(), Some(vec![])),
        ("FLUSHALL", None, all(), None),
        ("FLUSHALL", None, glob(), None),
        ("FLUSHALL", None, key(&[]), Some(vec![(None, b"k")])),
        ("FLUSHALL", None, key(&[2, 7]), Some(vec![two, seven])),
        ("FLUSHALL", None, pair.clone(), Some(vec![seven])),
        ("EVAL s 1 x", None, key(&[2]), Some(vec![two])),
        ("EVAL s 1 x", None, all(), None),
        ("FLUSHDB", None, key(&[]), Some(vec![two])),
        ("FLUSHDB", None, pair.clone(), Some(vec![])),
        ("SWAPDB 2 7", None, pair, Some(vec![seven])),
        ("SWAPDB 2 7", None, all(), None),
    ] {
        let (group, selection) = (outside(2, line, at), of(filter));
        assert_eq!(selection.touched(&group.records[0]), want, "{line}");
        if selection.wants(&group) {
            assert_eq!(selection.touched_by(&group), want, "{line}");
        }
    }
}

#[test]
fn causes_are_patterns_too() {
    let of_kind = |kind| group(Origin::of(kind), &[(0, "DEL k", Some(&[1]))]);
    let wanted = |patterns: &[&str]| -> Vec<&str> {
        let origins = patterns.iter().map(|pattern| (*pattern).to_owned()).collect();
        let selection = Selection::new(Wanted { origins, ..Wanted::default() }).expect("a selection");
        let kinds = OriginKind::ALL.into_iter().filter(|kind| selection.wants(&of_kind(*kind)));
        kinds.map(OriginKind::name).collect()
    };
    assert_eq!(wanted(&["!client"]), ["expiry", "eviction", "outside", "unknown"]);
    assert_eq!(wanted(&["e*"]), ["expiry", "eviction"]);
    assert_eq!(wanted(&["Expiry", "client"]), ["client", "expiry"]);
    assert_eq!(wanted(&["*", "!e*", "!outside"]), ["client", "unknown"]);
    assert_eq!(wanted(&["!*"]), Vec::<&str>::new());
    for wrong in ["nobody", "!nobody", "x*", ""] {
        let wanted = Wanted { origins: vec![wrong.to_owned()], ..Wanted::default() };
        let error = Selection::new(wanted).expect_err(wrong).to_string();
        assert!(error.contains("client, expiry, eviction, outside or unknown"), "{error}");
    }
}

#[test]
fn no_pattern_means_a_name_that_is_not_there() {
    let named =
        |addr, user, name, via| group(origin(OriginKind::Client, addr, user, name, via), &[(0, "SET k v", Some(&[1]))]);
    let (plain, scripted) = (named("1.2.3.4:5", "", "", ""), named("1.2.3.4:5", "u", "n", "eval"));
    let command = |c: &str| Selection::new(Wanted { commands: vec![c.to_owned()], ..Wanted::default() }).expect("one");
    assert!(!command("").wants(&plain) && command("!").wants(&plain) && command("!").wants(&scripted));
    assert!(command("*").wants(&plain) && !command("!s*").wants(&scripted) && !command("!EVAL").wants(&scripted));
}

#[test]
fn fields_that_are_named_or_may_be_touched() {
    let wants = |line: &str, keys: Option<&[usize]>, key: &str, fields: &[&str]| {
        let wanted = Wanted {
            keys: Filter::new(&[key], &[], &[]).expect("a glob"),
            fields: fields.iter().map(|field| field.as_bytes().to_vec()).collect(),
            ..Wanted::default()
        };
        Selection::new(wanted).expect("a selection").wants(&outside(0, line, keys))
    };
    let one = Some(&[1][..]);
    for (line, keys, key, fields, want) in [
        ("HSET h a 1 b 2", one, "h", &["b"][..], true),
        ("HSET h a 1 b 2", one, "h", &["c"], false),
        ("HSET h a 1 b 2", one, "h", &["c", "a"], true),
        // A value that has the name of the field.
        ("HSET h a b", one, "h", &["b"], false),
        ("HSET h a 1", one, "x", &["a"], false),
        ("HDEL h a", one, "h", &["a"], true),
        ("HINCRBY h b 1", one, "h", &["a"], false),
        ("SADD s a b", one, "s*", &["b"], true),
        ("ZADD z 1 a", one, "z", &["a"], true),
        ("ZADD z 1 a", one, "z", &["1"], false),
        ("SMOVE s t m", Some(&[1, 2]), "t", &["m"], true),
        ("SMOVE s t m", Some(&[1, 2]), "t", &["n"], false),
        ("ZREMRANGEBYSCORE z 0 1", one, "z", &["a"], true),
        ("DEL h", one, "h", &["a"], true),
        ("RENAME x h", Some(&[1, 2]), "h", &["a"], true),
        ("SUNIONSTORE d s", Some(&[1, 2]), "d", &["a"], true),
        // It is only read.
        ("SUNIONSTORE d s", Some(&[1, 2]), "s", &["a"], false),
        ("PEXPIREAT h 5", one, "h", &["a"], false),
        ("FLUSHALL", None, "h", &["a"], true),
        ("EVAL x 1 h", None, "h", &["a"], true),
        ("PUBLISH h a", Some(&[]), "h", &["a"], false),
    ] {
        assert_eq!(wants(line, keys, key, fields), want, "{line} of {key}: {fields:?}");
    }
    let error = Selection::new(Wanted { fields: vec![b"a".to_vec()], ..Wanted::default() }).expect_err("no keys");
    assert!(error.to_string().contains("--exact-key"), "{error}");
}

#[test]
fn a_line_is_matched_as_it_is_and_as_it_is_printed() {
    let record = |args: &[&[u8]]| {
        let mut group = outside(0, "SET k v", Some(&[1]));
        group.records[0].args = args.iter().map(|arg| arg.to_vec().into()).collect();
        group
    };
    let long = [&[b'x'; 100][..], b"end"].concat();
    let binary = record(&[b"SET", b"k 1", b"\xff\x00'", &long]);
    let wants = |patterns: &[&str]| {
        let lines = patterns.iter().map(|pattern| (*pattern).to_owned()).collect();
        Selection::new(Wanted { lines, ..Wanted::default() }).expect("a selection").wants(&binary)
    };
    for (pattern, want) in [
        ("^SET k 1 ", true),
        (r#"^SET "k 1" "#, true),
        (r"(?-u:\xff\x00)", true),
        (r"\\xff\\x00\\x27", true),
        ("x{100}end$", true),
        ("^set", false),
        ("(?i)^set", true),
        ("GET", false),
    ] {
        assert_eq!(wants(&[pattern]), want, "{pattern}");
    }
    assert!(wants(&["GET", "SET"]));
    assert!(Selection::new(Wanted { lines: vec!["(".to_owned()], ..Wanted::default() }).is_err());
}
