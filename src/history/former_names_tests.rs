use redtape_wire::effect::key_scope;

use super::*;

fn record(lsn: u64, db: u32, line: &str) -> Record {
    let args = line.split(' ').map(|word| word.as_bytes().to_vec().into()).collect();
    Record { lsn: Lsn(lsn), db, args, keys: None }
}

/// Passes records from the last one to the first; their LSNs are 1, 2, 3, …
fn follow(keys: &[&str], dbs: &[u32], records: &[(u32, &str)]) -> FormerNames {
    let filter = Filter::new(keys, &[], dbs).expect("keys");
    let mut names = FormerNames::of(&filter, 10).expect("names");
    for (n, (db, line)) in records.iter().enumerate().rev() {
        names.pass(&record(1 + n as u64, *db, line));
    }
    names
}

/// The former names, as `DB:KEY<=LSN`.
fn shown(names: &FormerNames) -> Vec<String> {
    let one = |((db, key), upto): (&(u32, Vec<u8>), &Lsn)| format!("{db}:{}<={upto}", String::from_utf8_lossy(key));
    let mut all: Vec<String> = names.upto.iter().map(one).collect();
    all.sort();
    all
}

#[test]
fn names_are_followed_backwards() {
    for (keys, dbs, records, want) in [
        (&["k"][..], &[][..], &[(0, "RENAME a k")][..], &["0:a<=1"][..]),
        (&["k"], &[], &[(0, "RENAME b a"), (0, "SET x 1"), (0, "renamenx a k")], &["0:a<=3", "0:b<=1"]),
        // Behind the last rename to it, the other name means something else.
        (&["k"], &[], &[(0, "RENAME a k"), (0, "RENAME b a")], &["0:a<=1"]),
        (&["k"], &[], &[(0, "RENAME a k"), (0, "SET k 1"), (0, "RENAME a k")], &["0:a<=3"]),
        (&["k"], &[], &[(0, "RENAME k a"), (0, "RENAME a k")], &["0:a<=2"]),
        (&["k"], &[], &[(0, "RENAME k k"), (0, "RENAME k other"), (0, "RENAME x y")], &[]),
        (&["k"], &[], &[(2, "COPY a k DB 5")], &["2:a<=1"]),
        (&["k"], &[5], &[(2, "COPY a k DB 5")], &["2:a<=1"]),
        (&["k"], &[4], &[(2, "COPY a k DB 5"), (2, "RENAME b k")], &[]),
        (&["k"], &[], &[(2, "COPY a k")], &["2:a<=1"]),
        (&["k"], &[5], &[(2, "MOVE k 5")], &["2:k<=1"]),
        // Wanted in every database anyway.
        (&["k"], &[], &[(2, "MOVE k 5"), (0, "SWAPDB 0 1")], &[]),
        (&["k"], &[0], &[(1, "RENAME a k"), (0, "SWAPDB 0 1")], &["1:a<=1", "1:k<=2"]),
        (&["k", "l"], &[0], &[(3, "SWAPDB 2 1"), (0, "SWAPDB 1 0")], &["1:k<=2", "1:l<=2", "2:k<=1", "2:l<=1"]),
        (&["k"], &[0], &[(0, "SWAPDB 2 1")], &[]),
        // Values that come from elsewhere, and what cannot be read.
        (&["k"], &[], &[(0, "RESTORE k 0 x"), (0, "SUNIONSTORE k a"), (0, "MOVE k"), (0, "RENAME a")], &[]),
        (&["k"], &[], &[(0, "MOVE k x"), (0, "SWAPDB a b"), (0, "COPY a k DB")], &[]),
    ] {
        assert_eq!(shown(&follow(keys, dbs, records)), want, "{keys:?} {dbs:?} {records:?}");
    }
}

#[test]
fn a_former_name_is_wanted_up_to_its_end() {
    let names = follow(&["k"], &[0], &[(0, "RENAME a k"), (0, "SET a 1")]);
    let wanted = |lsn, db, key: &str| names.is_wanted(Lsn(lsn), db, key.as_bytes());
    assert!(wanted(1, 0, "a") && !wanted(2, 0, "a") && !wanted(1, 1, "a") && wanted(2, 0, "k") && !wanted(1, 1, "k"));
    let filter = names.filter();
    assert!(filter.wants(0, b"a") && filter.wants(0, b"k") && !filter.wants(1, b"k"));

    let moved = follow(&["k"], &[0], &[(3, "MOVE k 0")]);
    let concerns = |lsn, db, line: &str| {
        let record = record(lsn, db, line);
        let args: Vec<&[u8]> = record.args.iter().map(|arg| &arg[..]).collect();
        moved.may_concern(record.lsn, &key_scope(db, &args, None))
    };
    assert!(concerns(9, 0, "FLUSHDB") && concerns(1, 3, "FLUSHDB") && !concerns(2, 3, "FLUSHDB"));
    assert!(!concerns(1, 4, "FLUSHDB") && concerns(9, 4, "FLUSHALL"));
}

#[test]
fn a_chain_that_is_too_long_is_cut_and_that_is_said() {
    let renames: Vec<String> = (0..=FORMER_NAMES_MAX).map(|n| format!("RENAME k{n} k{}", n + 1)).collect();
    let records: Vec<(u32, &str)> = renames.iter().map(|line| (0, line.as_str())).collect();
    let last = format!("k{}", FORMER_NAMES_MAX + 1);
    let cut = follow(&[&last], &[], &records);
    assert!(cut.is_cut() && cut.len() == FORMER_NAMES_MAX);
    let whole = follow(&[&last], &[], &records[1..]);
    assert!(!whole.is_cut() && whole.len() == FORMER_NAMES_MAX);
}

#[test]
fn only_keys_that_are_named_can_be_followed() {
    let of = |globs: &[&str]| FormerNames::of(&Filter::new(globs, &[], &[]).expect("globs"), 2);
    assert!(of(&["a*"]).is_none() && of(&[]).is_none() && of(&["a", "b", "c"]).is_none() && of(&["a", "b"]).is_some());
}
