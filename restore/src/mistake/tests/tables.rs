use super::*;
use crate::mistake::Why;

const ASKED: [&str; 12] =
    ["0:a", "0:b", "0:c", "0:user:1", "0:user:2", "0:x", "1:a", "1:b", "1:user:1", "1:x", "2:a", "2:user:1"];

/// Histories, a filter, and what of [`ASKED`] is affected.
#[track_caller]
fn check(filter: &str, cases: &[(&[&str], &str)]) {
    for (lines, want) in cases {
        let mistake = find(lines, filter);
        assert_eq!(affected(&mistake, &ASKED), *want, "{lines:?} by {filter}");
        assert_eq!(mistake.affected.is_empty(), want.is_empty(), "{lines:?} by {filter}");
        if let Some(filter) = mistake.affected.filter() {
            for asked in want.split(' ') {
                let (db, key) = asked.split_once(':').expect("a database");
                assert!(filter.wants(db.parse().expect("a number"), key.as_bytes()), "{asked} of {lines:?}");
            }
        }
    }
}

#[test]
fn what_is_made_of_an_affected_key_is_affected() {
    check(
        "client=bad",
        &[
            (&["app|SET a 1", "app|RENAME a b"], ""),
            (&["bad|SET a 1"], "0:a"),
            (&["app|RENAME a b", "bad|SET a 1"], "0:a"),
            (&["bad|SET a 1", "app|RENAME a b", "app|RENAME b c"], "0:a 0:b 0:c"),
            (&["bad|SET a 1", "app|SUNIONSTORE x b a"], "0:a 0:x"),
            (&["bad|SET a 1", "app|SUNIONSTORE x b c"], "0:a"),
            (&["bad|SET a 1", "app|COPY a b DB 1 REPLACE", "app|1:MOVE b 0"], "0:a 0:b 1:b"),
            (&["bad|SADD a 1", "app|SMOVE a b 1", "app|LMOVE x c LEFT LEFT"], "0:a 0:b"),
            (&["bad|SET a 1", "app|BITOP AND b x a", "app|PFMERGE c b"], "0:a 0:b 0:c"),
            (&["bad|SET a 1", "app|MSET a 1 b 2", "app|DEL a c"], "0:a"),
            (&["bad|SET a 1", "app|SORT x STORE b"], "0:a"),
            // It may have read any key.
            (&["bad|SET a 1", "app|SORT x BY w_* STORE b"], "0:a 0:b"),
            (&["app|SORT x BY w_* STORE b"], ""),
            (&["bad|RENAME a b;1:SET x 1"], "0:a 0:b 1:x"),
            (&["bad|PUBLISH a b", "bad|SCRIPT FLUSH"], ""),
        ],
    );
}

#[test]
fn only_keys_that_are_meant_are_affected_first() {
    check(
        "client=bad,key=user:*",
        &[
            (&["bad|DEL a user:1"], "0:user:1"),
            (&["bad|DEL a"], ""),
            (&["bad|FLUSHALL"], "0:user:1 0:user:2 1:user:1 2:user:1"),
            (&["bad|1:FLUSHDB"], "1:user:1"),
            (&["bad|EVAL x 0"], "0:user:1 0:user:2 1:user:1 2:user:1"),
            // What was made of them is so whatever it is called.
            (&["bad|SET user:1 1", "app|RENAME user:1 a"], "0:a 0:user:1"),
            (&["bad|FLUSHDB", "app|RENAME user:1 a", "app|RENAME b x"], "0:a 0:user:1 0:user:2"),
        ],
    );
    let mistake = find(&["bad|DEL a user:1", "bad|DEL user:2", "bad|FLUSHALL"], "client=bad,key=user:*");
    let selected = &mistake.selected;
    assert_eq!((selected.lsns.count(), selected.also_others.count()), (3, 2));
    assert!(!selected.also_others.contains(Lsn(2)));
    // The patterns as they were given, not whole databases.
    assert!(!mistake.affected.filter().expect("some").wants(0, b"a"));
}

#[test]
fn databases_change_places() {
    check(
        "client=bad",
        &[
            (&["bad|SET a 1", "app|SWAPDB 0 1"], "1:a"),
            (&["bad|SET a 1", "app|SWAPDB 0 1", "app|SWAPDB 1 2"], "2:a"),
            (&["bad|SET a 1", "app|SWAPDB 0 1", "app|1:RENAME a b"], "1:a 1:b"),
            (&["bad|1:FLUSHDB", "app|SWAPDB 1 2"], "2:a 2:user:1"),
            (&["bad|SWAPDB 1 2"], "1:a 1:b 1:user:1 1:x 2:a 2:user:1"),
            (&["bad|SWAPDB 2 2"], ""),
        ],
    );
    check(
        "client=bad,key=user:*",
        &[
            (&["bad|SWAPDB 1 2"], "1:user:1 2:user:1"),
            // What was affected in one of them is so in both.
            (&["bad|1:SET user:1 1", "app|1:RENAME user:1 a", "bad|SWAPDB 1 2"], "1:a 1:user:1 2:a 2:user:1"),
        ],
    );
    // What is meant is so by the number that the database had.
    check("client=bad,db=0", &[(&["bad|FLUSHALL", "app|SWAPDB 0 2"], "2:a 2:user:1")]);
}

#[test]
fn commands_that_nobody_knows_are_not_judged() {
    check(
        "client=bad",
        &[
            (&["bad|SET a 1", "app|EVAL s 1 b", "app|EVAL s 0"], "0:a 0:b"),
            (&["app|EVAL s 1 b"], ""),
            (&["bad|JSON.SET a . 1", "app|JSON.SET b . 1"], "0:a 0:b"),
            (&["bad|SET a 1", "app|JSON.SET b . 1"], "0:a"),
        ],
    );
    let mistake = find(&["app|EVAL s 0", "bad|SET a 1", "app|EVAL s 1 b", "app|JSON.SET a . 1"], "client=bad");
    let reasons: Vec<_> = mistake.not_judged.first.iter().map(|sample| (sample.at.lsn.0, sample.why)).collect();
    assert_eq!(reasons, [(3, Some(Why::ReadsAnything)), (4, Some(Why::Module))]);
    assert_eq!((depends(&mistake, "0:b"), depends(&mistake, "0:a")), (3, 4));
}

#[test]
fn what_reads_an_affected_key_is_built_on_it() {
    type Case<'a> = (&'a [&'a str], &'a [(&'a str, u64)]);
    let cases: &[Case<'_>] = &[
        (&["bad|SET a 1", "app|INCR a"], &[("0:a", 2), ("0:a@", 0)]),
        // Before it, and blind ones.
        (&["app|INCR a", "bad|SET a 1", "app|SET a 2"], &[("0:a", 0)]),
        (&["bad|SET a 1", "app|SET a 2 PXAT 9"], &[("0:a", 2), ("0:a@", 2)]),
        (&["bad|HSET a f 1", "app|HINCRBY a g 1", "app|HSET a f 2"], &[("0:a/f", 0), ("0:a/g", 2), ("0:a", 2)]),
        (&["bad|HSET a f 1", "app/evalsha|HSET a f 2"], &[("0:a/f", 2), ("0:a/g", 0)]),
        (&["bad|HSET a f 1", "app/evalsha|DEL a"], &[("0:a/f", 2), ("0:a/g", 2)]),
        (&["bad|HSET a f 1", "outside|HSET a f 2"], &[("0:a/f", 2)]),
        (&["bad|HSET a f 1", "app|HSET a f 2;HSET b f 2"], &[("0:a/f", 2), ("0:b/f", 0)]),
        (&["bad|SET a 1", "app/expire|PEXPIREAT a 5", "app|PEXPIREAT a 6 GT"], &[("0:a", 0), ("0:a@", 3)]),
        (&["bad|SET a 1", "app/spop|SREM b x", "expiry|DEL a", "eviction|DEL a"], &[("0:a", 0)]),
        // It goes with the value.
        (&["bad|SET a 1", "app|INCR a", "app|RENAME a b"], &[("0:a", 2), ("0:b", 2)]),
        (&["bad|SET a 1", "app|RENAME a b", "app|INCR b"], &[("0:a", 0), ("0:b", 3)]),
        (&["bad|SET a 1", "app|INCR a", "app|SWAPDB 0 1"], &[("0:a", 0), ("1:a", 2)]),
        (&["bad|FLUSHALL", "app|INCR a", "app|1:LPOP x"], &[("0:a", 2), ("1:x", 3), ("0:b", 0)]),
        // Of those that were affected before.
        (&["bad|SET a 1", "outside|FLUSHDB", "bad|SET b 1"], &[("0:a", 2), ("0:b", 0)]),
    ];
    for (lines, asked) in cases {
        let mistake = find(lines, "client=bad");
        for (asked, want) in *asked {
            assert_eq!(depends(&mistake, asked), *want, "{asked} of {lines:?}");
        }
    }
    let mistake = find(&["bad|SET a 1", "app|HSET a f 2;HSET b f 2"], "client=bad");
    assert_eq!(mistake.affected.dependents()[0].why, Some(Why::Transaction));
}

#[test]
fn expiry_is_selected_only_by_its_name() {
    let lines = ["bad|SET a 1 PXAT 5", "expiry|DEL a", "expiry|DEL b", "eviction|DEL x"];
    let mistake = find(&lines, "lsn:1..4");
    assert_eq!(affected(&mistake, &ASKED), "0:a 0:x");
    assert_eq!((mistake.selected.lsns.count(), mistake.expiries.count()), (2, 1));
    assert!(mistake.expiries.contains(Lsn(2)));
    let mistake = find(&lines, "origin=expiry");
    assert_eq!((affected(&mistake, &ASKED), mistake.expiries.count()), ("0:a 0:b".to_owned(), 0));
}

#[test]
fn what_is_in_doubt_is_counted_and_taken_in_when_asked() {
    let mut groups = history(&["bad|SET a 1", "?|SET b 1", "outside|SET c 1", "app|SET x 1"]);
    let found = |groups: &[Group], filter: &str, include: bool| {
        let mistake = find_of(groups, filter, include, Bounds::default());
        (affected(&mistake, &ASKED), mistake.doubtful.count, mistake.selected.in_doubt)
    };
    assert_eq!(found(&groups, "client=bad", false), ("0:a".to_owned(), 1, 0));
    assert_eq!(found(&groups, "client=bad", true), ("0:a 0:b".to_owned(), 0, 1));
    assert_eq!(found(&groups, "client=bad,key=a", true), ("0:a".to_owned(), 0, 0));
    // What somebody else sent is not known, but that it was somebody else.
    assert_eq!(found(&groups, "command=del", true), ("0:b".to_owned(), 1, 1));
    // In doubt by its time alone.
    groups[0].slack = 500_000;
    let since = "client=bad,since=1970-01-01T00:00:00.8Z";
    assert_eq!(found(&groups[..1], since, false), (String::new(), 1, 0));
    assert_eq!(found(&groups[..1], since, true), ("0:a".to_owned(), 0, 1));
}

#[test]
fn what_is_told_of_the_selected_writes() {
    let lines = ["bad|SET a 1", "worse|SET a 2;SET b 2", "app|SET c 3", "worse|DEL c"];
    let selected = find(&lines, "client=bad,client=worse").selected;
    let clients: Vec<_> = selected.clients.iter().map(|(writer, count)| (writer.name.as_str(), *count)).collect();
    assert_eq!(clients, [("worse", 3), ("bad", 1)]);
    let (first, last) = selected.span.expect("some");
    assert_eq!((first.lsn, last.lsn, last.ts), (Lsn(1), Lsn(5), Micros(4_000_000)));
    let commands: Vec<_> = selected.samples.first.iter().map(|sample| sample.command.as_str()).collect();
    assert_eq!(commands, ["SET a 1", "SET a 2", "SET b 2", "DEL c"]);
    assert!(find(&lines, "client=none").affected.filter().is_none());
}

#[test]
fn a_deletion_beside_an_end_that_was_set_by_mistake_may_be_the_server_s() {
    // Groups are a second apart; the clocks may differ by one.
    let server = |lines: &[&str], lsn| {
        let mistake = find(lines, "client=bad");
        (mistake.expiries.contains(Lsn(lsn)), depends(&mistake, "0:a"))
    };
    // Long behind the end, long before it, about that time.
    assert_eq!(server(&["bad|PEXPIREAT a 2000", "app|SET x 1", "app|SET x 1", "app|DEL a;HSET a f 1"], 4), (true, 5));
    assert_eq!(server(&["bad|PEXPIREAT a 90000", "app|DEL a;HSET a f 1"], 2), (false, 2));
    assert_eq!(server(&["bad|PEXPIREAT a 2000", "app|DEL a;HSET a f 1"], 2), (true, 2));
    // A plain DEL removes the key in any case; an end of others is the same without the mistake.
    assert_eq!(server(&["bad|PEXPIREAT a 2000", "app|DEL a"], 2), (false, 0));
    assert_eq!(server(&["bad|HSET a f 1", "app|PEXPIREAT a 2000", "app|DEL a;HSET a f 1"], 3), (false, 3));
    // What is there by an exchange of databases has an end that is not known.
    assert_eq!(server(&["bad|SWAPDB 0 1", "app|DEL a;HSET a f 1"], 2), (true, 2));
    assert_eq!(server(&["bad|SWAPDB 0 1", "app|SET a 1", "app|DEL a;HSET a f 1"], 3), (false, 3));
    // It goes with the value, and ends with it.
    assert_eq!(server(&["bad|PEXPIREAT b 2000", "app|RENAME b a", "outside|DEL a"], 3), (true, 0));
    assert_eq!(server(&["bad|PEXPIREAT a 2000", "app|SET a 1", "outside|DEL a"], 3), (false, 3));
    assert_eq!(server(&["bad|1:PEXPIREAT a 2000", "app|SWAPDB 0 1", "outside|DEL a"], 3), (true, 0));
}
