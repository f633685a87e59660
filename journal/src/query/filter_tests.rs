use proptest::prelude::*;

use super::*;

#[test]
fn exact_keys_are_bytes_and_can_be_listed() {
    let exact = [b"*".to_vec(), b"\xff\x00k".to_vec()];
    let filter = Filter::default().and_exact_keys(exact.clone());
    assert!(filter.wants(0, b"*") && filter.wants(7, b"\xff\x00k") && !filter.wants(0, b"a"));
    assert!(filter.has_names() && !filter.is_everything() && filter.databases().is_none());
    let listed = filter.exact_keys(2).expect("two keys");
    assert_eq!((listed.anywhere, listed.in_db), (vec![&b"*"[..], b"\xff\x00k"], vec![]));
    assert_eq!(filter.exact_keys(1), None, "more than were asked for");
    let with_glob = Filter::new(&["user:1", "a"], &[], &[7]).expect("globs").and_exact_keys(exact.clone());
    let listed = with_glob.exact_keys(9).expect("four keys");
    assert_eq!(listed.anywhere, [&b"*"[..], b"a", b"user:1", b"\xff\x00k"]);
    assert_eq!(listed.with_databases([7]), listed.anywhere.iter().map(|key| (7, *key)).collect::<Vec<_>>());
    assert_eq!(with_glob.databases(), Some(BTreeSet::from([7])));
    for (globs, regexes) in [(&["a*"][..], &[][..]), (&[], &["^a$".to_owned()])] {
        let filter = Filter::new(globs, regexes, &[]).expect("patterns").and_exact_keys(exact.clone());
        assert_eq!(filter.exact_keys(9), None, "{globs:?} {regexes:?}");
        assert!(filter.wants(0, b"a") && filter.wants(0, b"*") && !filter.wants(0, b"b"));
    }
    assert_eq!((Filter::default().exact_keys(9), Filter::default().databases()), (None, None));
}

#[test]
fn a_key_of_one_database_is_wanted_there_alone() {
    let mut filter = Filter::default();
    filter.add_key(Some(3), *b"a");
    filter.add_key(Some(5), *b"b");
    assert!(filter.wants(3, b"a") && !filter.wants(0, b"a") && !filter.wants(5, b"a") && filter.wants(5, b"b"));
    assert!(filter.wants_db(3) && !filter.wants_db(0) && !filter.is_everything());
    assert_eq!(filter.databases(), Some(BTreeSet::from([3, 5])));
    let listed = filter.exact_keys(2).expect("two keys");
    assert_eq!(listed.with_databases([0, 1]), [(3, &b"a"[..]), (5, b"b")]);
    // Beside one that is wanted everywhere; the same key twice is one.
    filter.add_key(None, *b"a");
    filter.add_key(Some(3), *b"a");
    assert!(filter.wants(9, b"a") && !filter.wants(9, b"b") && filter.databases().is_none() && filter.wants_db(0));
    let listed = filter.exact_keys(3).expect("two keys");
    assert_eq!((listed.anywhere, listed.in_db), (vec![&b"a"[..]], vec![(5, &b"b"[..])]));
}

#[test]
fn of_databases_that_exclude_each_other_nothing_is_wanted() {
    let mut filter = Filter::new::<&str>(&[], &[], &[0]).expect("filter");
    filter.add_key(Some(3), *b"a");
    assert!(!filter.wants(3, b"a") && !filter.wants(0, b"a") && !filter.wants_db(3) && !filter.wants_db(0));
    assert_eq!(filter.databases(), Some(BTreeSet::new()));
    assert_eq!(filter.exact_keys(9), Some(ExactKeys::default()));
    assert!(!filter.is_everything());
}

#[test]
fn kinds_combine() {
    let f = Filter::new(&["a*"], &["z$".to_owned()], &[1, 3]).expect("filter");
    assert!(f.wants(1, b"abc") && f.wants(3, b"xyz") && !f.wants(1, b"xyy"));
    assert!(f.wants_db(1) && !f.wants_db(0) && !f.wants(0, b"abc"));
    assert!(!f.is_everything() && f.has_names());
    let all = Filter::default();
    assert!(all.is_everything() && all.wants_db(9) && all.wants(9, b"\xff") && all.wants_type("hash"));
    let dbs = Filter::new::<&str>(&[], &[], &[2]).expect("filter");
    assert!(!dbs.is_everything() && !dbs.looks_at_names() && dbs.wants(2, b"any"));
    let error = Filter::new::<&str>(&[], &["(".to_owned()], &[]).expect_err("a pattern");
    assert!(error.to_string().starts_with("--key-regex cannot be used: "), "{error}");
}

#[test]
fn exclusions_come_last() {
    let f = Filter::new(&["a*"], &[], &[]).expect("filter").excluding(&["*:tmp", "ab"]).expect("globs");
    assert!(f.wants(0, b"a:1") && !f.wants(0, b"a:tmp") && !f.wants(0, b"ab") && !f.wants(0, b"b"));
    let alone = Filter::default().excluding(&["tmp:*"]).expect("globs");
    assert!(alone.wants(0, b"a") && !alone.wants(0, b"tmp:1") && alone.wants_db(4));
    assert!(!alone.is_everything() && alone.looks_at_names() && !alone.has_names());
    assert_eq!((alone.exact_keys(9), alone.databases()), (None, None));
    let exact = Filter::default().and_exact_keys([*b"a1", *b"b1"]).excluding(&["b*"]).expect("globs");
    assert_eq!(exact.exact_keys(9).map(|keys| keys.anywhere), Some(vec![&b"a1"[..]]));
    assert!(Filter::default().excluding::<&str>(&[]).expect("none").is_everything());
}

#[test]
fn types_are_asked_for_apart() {
    let f = Filter::new(&["a*"], &[], &[]).expect("filter").of_types(["hash", "ReJSON-RL"]);
    assert!(f.wants_type("hash") && f.wants_type("rejson-rl") && !f.wants_type("string"));
    assert!(f.looks_at_types() && f.wants(0, b"a"));
    let types = Filter::default().of_types(["list"]);
    assert!(!types.is_everything() && !types.looks_at_names() && types.wants(0, b"a"));
}

#[test]
fn its_digest_tells_choices_apart_and_not_their_order() {
    let of_db = |db| {
        let mut filter = Filter::default();
        filter.add_key(Some(db), *b"a");
        filter
    };
    let new = |globs: &[&str], dbs: &[u32]| Filter::new(globs, &[], dbs).expect("globs");
    let different = [
        Filter::default(),
        new(&["a"], &[]),
        new(&["a*"], &[]),
        new(&["a", "b"], &[]),
        new(&["ab"], &[]),
        new(&["a"], &[1]),
        of_db(1),
        of_db(2),
        Filter::default().of_types(["a"]),
        Filter::default().excluding(&["a"]).expect("globs"),
        Filter::default().excluding(&["a*"]).expect("globs"),
        new(&["a"], &[]).of_types(["hash"]),
    ];
    let digests: BTreeSet<String> = different.iter().map(Filter::canonical).collect();
    assert_eq!(digests.len(), different.len());
    assert_eq!(new(&["a", "b", "c*", "d*"], &[1, 2]).canonical(), new(&["d*", "b", "c*", "a"], &[2, 1]).canonical());
}

#[test]
fn it_says_what_it_asks_for() {
    assert_eq!(Filter::default().to_string(), "everything");
    let mut f = Filter::new(&["a*", "b"], &["c".to_owned()], &[0, 3]).expect("filter");
    f.add_key(Some(3), *b"d");
    let f = f.of_types(["hash", "list"]).excluding(&["x", "y*"]).expect("globs");
    let words =
        "2 keys, 2 patterns; databases 0, 3; types hash, list (looked at after the replay); without 1 key, 1 pattern";
    assert_eq!(f.to_string(), words);
    let one = Filter::new(&["a*"], &[], &[5]).expect("filter").of_types(["set"]);
    assert_eq!(one.to_string(), "1 pattern; database 5; type set (looked at after the replay)");
}

/// The rules once more, as they are told to people, over globs of `a`, `b`, `?` and `*`.
#[derive(Debug, Clone)]
struct Model {
    globs: Vec<String>,
    exact: Vec<String>,
    of_db: Vec<(u32, String)>,
    /// Each matches keys that hold it.
    regexes: Vec<String>,
    dbs: Vec<u32>,
    types: Vec<String>,
    excluded: Vec<String>,
}

fn naive_glob(glob: &[u8], key: &[u8]) -> bool {
    match (glob, key) {
        ([], []) => true,
        ([b'*', rest @ ..], _) => (0..=key.len()).any(|n| naive_glob(rest, &key[n..])),
        ([b'?', glob @ ..], [_, key @ ..]) => naive_glob(glob, key),
        ([g, glob @ ..], [k, key @ ..]) => g == k && naive_glob(glob, key),
        _ => false,
    }
}

impl Model {
    fn wants(&self, db: u32, key: &str, of_type: &str) -> bool {
        let glob = |glob: &String| naive_glob(glob.as_bytes(), key.as_bytes());
        let names: Vec<bool> = (self.globs.iter().map(glob))
            .chain(self.exact.iter().map(|exact| exact == key))
            .chain(self.of_db.iter().map(|(of, exact)| *of == db && exact == key))
            .chain(self.regexes.iter().map(|part| key.contains(part.as_str())))
            .collect();
        let any = |kind: &[bool]| kind.is_empty() || kind.contains(&true);
        let dbs: Vec<bool> = self.dbs.iter().map(|of| *of == db).collect();
        let types: Vec<bool> = self.types.iter().map(|name| name == of_type).collect();
        any(&names) && any(&dbs) && any(&types) && !self.excluded.iter().any(glob)
    }

    fn filter(&self) -> Filter {
        let filter = Filter::new(&self.globs, &self.regexes, &self.dbs).expect("patterns");
        let mut filter = filter.and_exact_keys(self.exact.iter().map(String::as_bytes));
        for (db, key) in &self.of_db {
            filter.add_key(Some(*db), key.as_bytes());
        }
        filter.of_types(&self.types).excluding(&self.excluded).expect("globs")
    }
}

fn models() -> impl Strategy<Value = Model> {
    let some = |of: &'static str| proptest::collection::vec(of, 0..3);
    let pairs = proptest::collection::vec((0u32..3, "[ab]{0,2}"), 0..3);
    let dbs = proptest::collection::vec(0u32..3, 0..3);
    let kinds = (some("[ab?*]{0,3}"), some("[ab]{0,2}"), pairs, some("[ab]{1,2}"));
    (kinds, dbs, some("hash|list"), some("[ab?*]{0,3}")).prop_map(|(names, dbs, types, excluded)| {
        let (globs, exact, of_db, regexes) = names;
        Model { globs, exact, of_db, regexes, dbs, types, excluded }
    })
}

fn every_key() -> Vec<String> {
    let mut keys = vec![String::new()];
    for from in 0..7 {
        let longer = ["a", "b"].map(|byte| format!("{}{byte}", keys[from]));
        keys.extend(longer);
    }
    keys
}

proptest! {
    #[test]
    fn the_rules_are_those_of_the_model(model in models()) {
        let filter = model.filter();
        let (databases, listed) = (filter.databases(), filter.exact_keys(usize::MAX));
        let listed = listed.map(|keys| keys.with_databases(databases.clone().unwrap_or_else(|| (0..4).collect())));
        let mut all = true;
        for db in 0..4 {
            for key in every_key() {
                let bytes = key.as_bytes();
                for of_type in ["hash", "list", "string"] {
                    let wants = filter.wants(db, bytes) && filter.wants_type(of_type);
                    prop_assert_eq!(wants, model.wants(db, &key, of_type), "{} {:?} {}", db, key, of_type);
                    all &= wants;
                }
                let wanted = filter.wants(db, bytes);
                prop_assert!(!wanted || filter.wants_db(db) && databases.as_ref().is_none_or(|dbs| dbs.contains(&db)));
                if let Some(listed) = &listed {
                    let times = listed.iter().filter(|(of, listed)| *of == db && *listed == bytes).count();
                    prop_assert_eq!(times, usize::from(wanted), "{} {:?} is listed as it is wanted", db, key);
                }
            }
            prop_assert_eq!(filter.wants_db(db), databases.as_ref().is_none_or(|dbs| dbs.contains(&db)));
        }
        prop_assert!(all || !filter.is_everything());
    }
}

#[test]
fn each_wanted_key_begins_with_a_prefix() {
    let of = |globs: &[&str], regexes: &[&str], exact: &[&str]| {
        let regexes: Vec<String> = regexes.iter().map(|&r| r.to_owned()).collect();
        let filter = Filter::new(globs, &regexes, &[]).expect("patterns");
        let filter = filter.and_exact_keys(exact.iter().map(|key| key.as_bytes().to_vec()));
        filter.prefixes(9).map(|all| all.into_iter().map(|p| String::from_utf8_lossy(p).into_owned()).collect())
    };
    let some = |prefixes: &[&str]| Some(prefixes.iter().map(|&p| p.to_owned()).collect::<Vec<_>>());
    assert_eq!(of(&["user:1*"], &[], &[]), some(&["user:1"]));
    assert_eq!(of(&["b?", "a[12]*", r"c\*d*e"], &[], &["x"]), some(&["a", "b", "c*d", "x"]));
    // One covers another, whichever kind it is.
    assert_eq!(of(&["user:*", "user:1*", "user:", "us*"], &[], &["user:7", "u"]), some(&["u"]));
    assert_eq!(of(&["ab*"], &[], &["a-b", "abc"]), some(&["a-b", "ab"]));
    assert_eq!(of(&["a", "b"], &[], &[]), some(&["a", "b"]));
    for (globs, regexes, exact) in [
        (&["*"][..], &[][..], &[][..]),
        (&["a*", "?b"], &[], &[]),
        (&["a*"], &["^a"], &[]),
        (&[], &["^a"], &["a"]),
        (&["a*"], &[], &[""]),
        (&[], &[], &[]),
    ] {
        assert_eq!(of(globs, regexes, exact), None, "{globs:?} {regexes:?} {exact:?}");
    }
    assert_eq!(Filter::default().prefixes(9), None);
    // Keys of one database count as others do; what is taken off does not.
    let mut filter = Filter::new(&["a*"], &[], &[]).expect("a glob").excluding(&["*"]).expect("a glob");
    filter.add_key(Some(3), *b"k");
    filter.add_key(Some(4), *b"k");
    assert_eq!(filter.prefixes(3), Some(vec![&b"a"[..], b"k"]));
    assert_eq!(filter.prefixes(2), None, "more names than are looked at");
    assert_eq!(Filter::default().excluding(&["a*"]).expect("a glob").prefixes(9), None);
    assert_eq!(Filter::default().of_types(["hash"]).prefixes(9), None);
}

#[test]
fn the_canonical_text_tells_selections_apart_and_no_orders() {
    let of = |globs: &[&str], regexes: &[&str], dbs: &[u32]| {
        let regexes: Vec<String> = regexes.iter().map(|&r| r.to_owned()).collect();
        Filter::new(globs, &regexes, dbs).expect("patterns")
    };
    let pairs = |pairs: &[(Option<u32>, &str)]| {
        let mut filter = Filter::default();
        for (db, key) in pairs {
            filter.add_key(*db, key.as_bytes());
        }
        filter
    };
    let without = |filter: Filter, globs: &[&str]| filter.excluding(globs).expect("globs");
    for (one, same) in [
        (of(&["a", "b*", "c*"], &["x", "y"], &[1, 2]), of(&["c*", "b*", "a", "c*"], &["y", "x"], &[2, 1])),
        (of(&["a", "b"], &[], &[]), Filter::default().and_exact_keys([*b"b", *b"a"])),
        (pairs(&[(Some(1), "a"), (Some(2), "b")]), pairs(&[(Some(2), "b"), (Some(1), "a"), (Some(1), "a")])),
        // The pair adds nothing.
        (pairs(&[(None, "a"), (Some(2), "a")]), pairs(&[(None, "a")])),
        (without(of(&["a*"], &[], &[]), &["b*", "c"]), without(of(&["a*"], &[], &[]), &["c", "b*"])),
        (Filter::default().of_types(["HASH", "list"]), Filter::default().of_types(["list", "hash"])),
    ] {
        assert_eq!(one.canonical(), same.canonical(), "{one:?} {same:?}");
    }
    let all = [
        Filter::default(),
        of(&["a"], &[], &[]),
        of(&["ab"], &[], &[]),
        of(&["a", "b"], &[], &[]),
        of(&["a*"], &[], &[]),
        Filter::default().and_exact_keys([*b"a*"]),
        of(&[], &["a"], &[]),
        of(&[], &["a", "b"], &[]),
        of(&[], &[], &[1]),
        of(&[], &[], &[2]),
        of(&["a"], &[], &[1]),
        pairs(&[(Some(1), "a")]),
        pairs(&[(Some(2), "a")]),
        pairs(&[(Some(1), "a"), (Some(2), "a")]),
        pairs(&[(Some(1), "a"), (None, "b")]),
        pairs(&[(Some(1), "b"), (None, "a")]),
        without(Filter::default(), &["a"]),
        without(Filter::default(), &["a*"]),
        without(of(&["a"], &[], &[]), &["a"]),
        Filter::default().of_types(["hash"]),
        Filter::default().of_types(["list"]),
        Filter::default().of_types(["hash", "list"]),
    ];
    let texts: BTreeSet<String> = all.iter().map(Filter::canonical).collect();
    assert_eq!(texts.len(), all.len());
    let many = Filter::default().and_exact_keys((0..10_000u32).map(u32::to_le_bytes));
    assert!(many.canonical().len() < 100);
}
