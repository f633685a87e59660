use super::*;
use crate::judge::{JudgedRange, QUESTIONS_MAX, Why, judge};

/// Histories of groups, one a second: writer, `|`, and commands with `;` between, each in its database (`1:SET k v`, else 0).
fn history(lines: &[&str]) -> Vec<Group> {
    let mut lsn = 1;
    let mut groups = Vec::new();
    for (line, second) in lines.iter().zip(1i64..) {
        let (who, commands) = line.split_once('|').expect("a writer");
        let commands: Vec<(u32, &str)> = commands
            .split(';')
            .map(|command| match command.split_once(':') {
                Some((db, rest)) if db.len() == 1 => (db.parse().expect("a database"), rest),
                _ => (0, command),
            })
            .collect();
        groups.push(group(lsn, second * 1000, who, &commands));
        lsn += commands.len() as u64;
    }
    groups
}

/// A history; questions with their verdicts.
type Case<'a> = (&'a [&'a str], &'a [(&'a str, &'a str)]);

/// For each: a history, and verdicts for what `bad` wrote.
#[track_caller]
fn check(cases: &[Case<'_>]) {
    check_by("client=bad", cases);
}

#[track_caller]
fn check_by(text: &str, cases: &[Case<'_>]) {
    for (lines, expected) in cases {
        let questions: Vec<Question> = expected.iter().map(|(asked, _)| question(asked)).collect();
        let verdicts = ask(&history(lines), &questions, &filter(text));
        for ((asked, expected), verdict) in expected.iter().zip(&verdicts) {
            assert_eq!(show(verdict), *expected, "{asked} of {lines:?} by {text}");
        }
    }
}

#[test]
fn the_last_write_of_each_element_decides() {
    check(&[
        (
            &["bad|HSET h f 1 g 1", "app|HSET h g 2", "bad|HSET h i 1", "app|HDEL h j"],
            &[("0:h/f", "selected 1"), ("0:h/g", "other 2"), ("0:h/i", "selected 3"), ("0:h/k", "not written")],
        ),
        (
            &["app|SADD s a", "bad|SREM s a"],
            &[("0:s/a", "selected 2"), ("0:s/b", "not written"), ("0:s", "selected 2")],
        ),
        (&["bad|ZADD z 1 a", "app|ZINCRBY z 1 a"], &[("0:z/a", "other 2")]),
        (&["bad|HINCRBY h f 1"], &[("0:h/f", "selected 1")]),
        (&["bad|SET k 1", "app|SET k 2"], &[("0:k", "other 2")]),
        (&["app|SET k 1", "bad|SET k 2"], &[("0:k", "selected 2"), ("1:k", "not written")]),
        // A string has no fields: it took them away.
        (&["app|HSET h f 1", "bad|SET h 1"], &[("0:h/f", "selected 2")]),
    ]);
}

#[test]
fn what_changed_nothing_is_no_write() {
    check(&[
        // Deleted by others before.
        (&["app|DEL k", "bad|FLUSHALL"], &[("0:k", "other 1")]),
        (&["app|SET k 1", "bad|FLUSHALL"], &[("0:k", "selected 2")]),
        (
            &["app|HSET k f 1", "app|HDEL k g", "bad|DEL k"],
            &[("0:k/f", "selected 3"), ("0:k/g", "other 2"), ("0:k", "selected 3")],
        ),
        (&["bad|FLUSHALL"], &[("0:k", "selected 1"), ("7:k/f", "selected 1"), ("0:k@", "selected 1")]),
        (&["bad|DEL k", "bad|DEL k j", "bad|FLUSHDB"], &[("0:k", "selected 1")]),
        (&["app|SREM s a", "bad|SREM s a b"], &[("0:s/a", "other 1"), ("0:s/b", "selected 2")]),
        (&["app|SADD s a", "bad|SADD s a b"], &[("0:s/a", "other 1"), ("0:s/b", "selected 2")]),
        (&["app|HSET h f 1", "bad|HSET h f 1"], &[("0:h/f", "other 1")]),
        (&["app|HSET h f 2", "bad|HSET h f 1"], &[("0:h/f", "selected 2")]),
        (&["app|ZADD z 1.0 a", "bad|ZADD z 1 a 2 b"], &[("0:z/a", "other 1"), ("0:z/b", "selected 2")]),
        // Named twice, the last one counts.
        (&["app|HSET h f 2", "bad|HSET h f 1 f 2"], &[("0:h/f", "other 1")]),
        (&["app|SET k 2", "bad|MSET k 1 k 2"], &[("0:k", "other 1")]),
        (&["app|PEXPIREAT k 5", "bad|PEXPIREAT k 5"], &[("0:k@", "other 1")]),
        // What others write would be there without the selected writes, too.
        (&["bad|DEL k", "app|DEL k j"], &[("0:k", "other 2")]),
        // It may have been the last element.
        (&["app|LPOP l", "bad|FLUSHALL"], &[("0:l", "uncertain 1 MayHaveBeenSo")]),
        (&["bad|LPOP l", "bad|FLUSHALL"], &[("0:l", "selected 2")]),
        (&["app|LPUSH l a", "bad|FLUSHALL"], &[("0:l", "selected 2")]),
    ]);
}

#[test]
fn what_cannot_be_listed_is_certain_only_among_equals() {
    check(&[
        (&["bad|ZREMRANGEBYSCORE z 0 1"], &[("0:z/a", "selected 1"), ("0:z", "selected 1")]),
        (&["app|ZADD z 1 a", "bad|ZREMRANGEBYSCORE z 0 1"], &[("0:z/a", "uncertain 2 MayHaveWritten")]),
        (&["bad|ZADD z 1 a", "bad|ZREMRANGEBYSCORE z 0 1"], &[("0:z/a", "selected 1")]),
        (&["bad|ZREM z a", "app|ZREMRANGEBYSCORE z 0 1"], &[("0:z/a", "uncertain 2 MayHaveWritten")]),
        (&["app|ZREM z a", "app|ZREMRANGEBYSCORE z 0 1"], &[("0:z/a", "other 1")]),
        (&["app|ZREMRANGEBYSCORE z 0 1", "bad|ZREM z a b"], &[("0:z/a", "uncertain 1 MayHaveWritten")]),
        (&["bad|ZADD z NX 1 a 2 b", "app|ZADD z 1 a"], &[("0:z/a", "other 2"), ("0:z/b", "selected 1")]),
        // With the last element the TTL goes.
        (&["bad|PEXPIREAT h 9", "app|HDEL h f"], &[("0:h@", "uncertain 2 MayHaveWritten")]),
    ]);
    let mut ttl = question("0:h@");
    ttl.expires_after = Some(9);
    let groups = history(&["bad|PEXPIREAT h 9", "app|HDEL h f"]);
    assert_eq!(ask(&groups, &[ttl], &filter("client=bad")), [Verdict::Selected { lsn: Lsn(1) }]);
}

#[test]
fn an_unknown_cause_is_uncertain() {
    check(&[
        (&["bad|HSET h f 1", "?|HSET h f 2"], &[("0:h/f", "uncertain 2 UnknownCause")]),
        (&["?|HSET h f 1", "bad|HSET h f 2"], &[("0:h/f", "selected 2")]),
        (&["?|HSET h f 2", "bad|HSET h f 2"], &[("0:h/f", "uncertain 1 UnknownCause")]),
        (&["bad|HSET h f 1", "outside|HSET h f 2"], &[("0:h/f", "other 2")]),
        (&["bad|HSET h f 1", "?|ZREMRANGEBYRANK h 0 0"], &[("0:h/f", "uncertain 2 UnknownCause")]),
    ]);
    check_by("lsn:1..1", &[(&["?|HSET h f 1", "?|HSET h g 2"], &[("0:h/f", "selected 1"), ("0:h/g", "other 2")])]);
}

#[test]
fn keys_that_are_not_meant_are_never_selected() {
    check_by(
        "client=bad,key=k*,db=0",
        &[
            (&["bad|DEL k1 j1", "bad|1:SET k1 1"], &[("0:k1", "selected 1"), ("0:j1", "other 1"), ("1:k1", "other 2")]),
            (&["bad|FLUSHALL"], &[("0:k1", "selected 1"), ("0:j1", "other 1")]),
            (&["?|FLUSHALL"], &[("0:k1", "uncertain 1 UnknownCause"), ("0:j1", "other 1")]),
            (&["bad|EVAL x 0"], &[("0:k1", "uncertain 1 UnknownCommand"), ("0:j1", "other 1")]),
        ],
    );
}

#[test]
fn what_replaces_a_key_is_the_last_write_of_its_elements() {
    check(&[
        (
            &["app|HSET t f 1", "bad|RENAME t h"],
            &[("0:h/f", "selected 2"), ("0:h", "selected 2"), ("0:t/f", "selected 2"), ("0:t", "selected 2")],
        ),
        (&["bad|HSET t f 1", "app|RENAME t h"], &[("0:h/f", "other 2"), ("0:t/f", "other 2")]),
        (&["bad|SUNIONSTORE d a b"], &[("0:d/x", "selected 1"), ("0:a/x", "not written")]),
        (&["bad|COPY a b DB 3"], &[("3:b", "selected 1"), ("0:a", "not written")]),
        (&["bad|MOVE a 3"], &[("3:a", "selected 1"), ("0:a", "selected 1")]),
        (&["bad|RESTORE k 0 \u{4}payload REPLACE"], &[("0:k/f", "selected 1"), ("0:k@", "selected 1")]),
        // It may have brought the same.
        (
            &["app|COPY a b REPLACE", "bad|SET b 1"],
            &[("0:b", "uncertain 1 MayHaveBeenSo"), ("0:b@", "uncertain 1 MayHaveBeenSo")],
        ),
        (&["app|RENAME t h", "bad|SREM h a b"], &[("0:h/a", "uncertain 1 MayHaveBeenSo")]),
    ]);
}

#[test]
fn databases_change_places() {
    check(&[
        // What was written before an exchange is in doubt: others may have written in between.
        (
            &["bad|HSET h f 1", "app|SWAPDB 0 1", "app|SWAPDB 1 0"],
            &[("0:h/f", "uncertain 3 Swapped"), ("1:h/f", "not written")],
        ),
        (&["app|SWAPDB 0 1", "bad|1:HSET h f 1", "app|SWAPDB 0 1"], &[("0:h/f", "uncertain 3 Swapped")]),
        (&["bad|HSET h f 1", "app|SWAPDB 0 1"], &[("1:h/f", "uncertain 2 Swapped"), ("0:h/f", "other 2")]),
        (&["bad|HSET h f 1", "bad|SWAPDB 0 1"], &[("1:h/f", "uncertain 2 Swapped"), ("0:h/f", "uncertain 2 Swapped")]),
        (&["app|HSET h f 1", "bad|SWAPDB 0 1"], &[("1:h/f", "uncertain 2 Swapped"), ("2:h/f", "not written")]),
        (&["app|SWAPDB 0 1", "bad|FLUSHDB"], &[("0:h/f", "uncertain 1 Swapped"), ("1:h/f", "other 1")]),
        (&["app|SWAPDB 3 3", "bad|3:SET k 1"], &[("3:k", "selected 2")]),
    ]);
}

#[test]
fn unknown_commands_may_have_written_everything() {
    check(&[
        (&["app|EVAL x 0"], &[("0:k", "other 1")]),
        (&["bad|HSET h f 1", "app|EVAL x 0"], &[("0:h/f", "uncertain 2 UnknownCommand"), ("0:k", "other 2")]),
        (&["app|EVAL x 0", "bad|HDEL h f"], &[("0:h/f", "selected 2")]),
        (&["app|EVAL x 0", "bad|FLUSHALL"], &[("0:k", "uncertain 1 UnknownCommand")]),
        (
            &["bad|EVAL x 0", "app|EVAL x 0", "app|SET k 1"],
            &[("0:k", "other 3"), ("0:j", "uncertain 1 UnknownCommand")],
        ),
        (&["?|EVAL x 0"], &[("0:k", "uncertain 1 UnknownCommand")]),
        (&["bad|JSON.SET d . 1", "app|SET k 1"], &[("0:d", "selected 1"), ("0:k", "other 2")]),
        // Another command of a module may write a module's value, but no hash.
        (
            &["app|JSON.SET e . 1", "bad|HSET h f 1", "bad|TS.ADD d 1 1"],
            &[("0:h/f", "selected 2"), ("0:d", "uncertain 1 UnknownCommand")],
        ),
    ]);
}

#[test]
fn what_expired_counts_as_the_write_that_set_its_end() {
    check(&[
        (&["bad|PEXPIREAT k 1500", "expiry|DEL k"], &[("0:k", "selected 1"), ("0:k@", "selected 1")]),
        (&["app|PEXPIREAT k 1500", "expiry|DEL k"], &[("0:k", "other 1")]),
        (&["expiry|DEL k"], &[("0:k", "other 1"), ("0:k/f", "other 1")]),
        (&["?|PEXPIREAT k 1500", "expiry|DEL k"], &[("0:k", "uncertain 1 UnknownCause")]),
        (&["bad|SET k 1 PXAT 1500", "app|LPUSH l 1", "expiry|UNLINK k"], &[("0:k", "selected 1")]),
        (&["bad|PEXPIREAT h 1500", "app|HDEL h g", "expiry|DEL h"], &[("0:h/f", "selected 1"), ("0:h/g", "other 2")]),
        (&["app|HSET h f 1", "bad|PEXPIREAT h 1500", "expiry|DEL h"], &[("0:h/f", "selected 2")]),
        (&["app|HDEL h f", "bad|PEXPIREAT h 1500", "expiry|DEL h"], &[("0:h/f", "other 1")]),
        // It removed what had expired already.
        (&["app|PEXPIREAT k 1500", "expiry|DEL k", "bad|FLUSHALL"], &[("0:k", "other 1")]),
        (&["bad|PEXPIREAT k 1500", "expiry|DEL k", "bad|FLUSHALL"], &[("0:k", "selected 1")]),
        // It cannot be.
        (&["bad|PERSIST k", "expiry|DEL k"], &[("0:k", "uncertain 2 CauseOfExpiry")]),
    ]);
    check_by("origin=expiry", &[(&["app|PEXPIREAT k 1500", "expiry|DEL k"], &[("0:k", "selected 2")])]);
}

#[test]
fn fields_expire_as_well() {
    check(&[
        (&["bad|HPEXPIREAT h 1500 FIELDS 1 f", "expiry|HDEL h f"], &[("0:h/f", "selected 1"), ("0:h", "other 2")]),
        (&["app|HPEXPIREAT h 1500 FIELDS 2 f g", "expiry|HDEL h f"], &[("0:h/f", "other 1")]),
        (&["bad|HPEXPIREAT h 1500 NX FIELDS 1 f", "expiry|HDEL h f"], &[("0:h/f", "uncertain 1 CauseOfExpiry")]),
        (&["bad|HSETEX h PXAT 1500 FIELDS 1 f 1", "app|HINCRBY h f 1", "expiry|HDEL h f"], &[("0:h/f", "selected 1")]),
        (&["bad|HSET h f 1", "expiry|HDEL h f"], &[("0:h/f", "uncertain 2 CauseOfExpiry")]),
        (&["app|RENAME t h", "expiry|HDEL h f"], &[("0:h/f", "other 1")]),
        (&["expiry|HDEL h f"], &[("0:h/f", "other 1")]),
    ]);
}

#[test]
fn a_deletion_within_a_group_may_be_an_expiry() {
    check(&[
        // Long before, and long behind: nothing to doubt.
        (&["bad|PEXPIREAT k 1", "app|SET x 1", "app|DEL k;HSET k f 1"], &[("0:k/g", "selected 1")]),
        (
            &["app|PEXPIREAT k 1", "app|SET x 1", "bad|DEL k;HSET k f 1"],
            &[("0:k/g", "other 1"), ("0:k/f", "selected 4")],
        ),
        (&["app|PEXPIREAT k 99000", "bad|DEL k;HSET k f 1"], &[("0:k/g", "selected 2")]),
        (&["bad|PEXPIREAT k 99000", "app|DEL k;HSET k f 1"], &[("0:k/g", "other 2")]),
        // At about that time.
        (&["app|PEXPIREAT k 2500", "bad|DEL k;HSET k f 1"], &[("0:k/g", "uncertain 2 CauseOfExpiry")]),
        (&["bad|PEXPIREAT k 2500", "bad|DEL k;HSET k f 1"], &[("0:k/g", "selected 1")]),
        (&["app|PERSIST k", "bad|DEL k;DEL j"], &[("0:k", "selected 2"), ("0:j", "selected 3")]),
        (&["app|RENAME t k", "bad|DEL k;DEL j"], &[("0:k", "uncertain 2 CauseOfExpiry")]),
        // The key was there, and had no TTL any more.
        (&["app|FLUSHALL", "bad|SADD k c;DEL k", "app|SADD k d"], &[("0:k@", "other 1")]),
        (&["app|PEXPIREAT k 99000", "bad|SADD k c;DEL k"], &[("0:k@", "selected 3")]),
        // A DEL that stands alone is its client's.
        (&["app|PEXPIREAT k 1", "bad|DEL k"], &[("0:k", "selected 2")]),
    ]);
    for (before, expected) in [
        (None, "selected 1"),
        (Some(1), "other 1"),
        (Some(900_000), "selected 1"),
        (Some(1100), "uncertain 1 CauseOfExpiry"),
    ] {
        let mut asked = question("0:k/g");
        asked.expires_before = before;
        // At second 2.
        let mut groups = history(&["bad|DEL k;HSET k f 1"]);
        groups[0].ts = Micros(2_000_000);
        assert_eq!(show(&ask(&groups, &[asked], &filter("client=bad"))[0]), expected, "{before:?}");
    }
}

#[test]
fn a_question_may_be_asked_twice_and_there_is_a_limit() {
    let twice = [question("0:k"), question("0:k"), question("0:k/f"), question("0:k/f")];
    let verdicts = ask(&history(&["bad|DEL k"]), &twice, &filter("client=bad"));
    assert!(verdicts.iter().all(|verdict| *verdict == Verdict::Selected { lsn: Lsn(1) }), "{verdicts:?}");
    let many = vec![question("0:k"); QUESTIONS_MAX + 1];
    let dir = tempfile::tempdir().expect("a directory");
    let journal = redtape_journal::Journal::create_or_open(dir.path(), redtape_journal::OpenOptions::default());
    drop(journal.expect("a journal"));
    let catalog = redtape_journal::Catalog::open(dir.path()).expect("a catalog");
    let range =
        JudgedRange { catalog: &catalog, timeline: redtape_journal::TimelineId(1), after: Lsn(0), upto: Lsn(1) };
    let judged = judge(range, &many, &filter("client=bad"), &crate::Interrupt::default(), &mut |_| {});
    let message = judged.expect_err("too many").to_string();
    assert!(message.contains("choose fewer keys"), "{message}");
    // A journal without that history cannot be asked.
    let judged = judge(range, &many[..1], &filter("client=bad"), &crate::Interrupt::default(), &mut |_| {});
    let verdicts = judged.expect("verdicts").verdicts;
    assert!(matches!(verdicts[..], [Verdict::Uncertain { why: Why::Unreadable, .. }]), "{verdicts:?}");
}

/// For each: a history, and the last writes of all.
#[track_caller]
fn check_any(cases: &[Case<'_>]) {
    for (lines, expected) in cases {
        let questions: Vec<Question> = expected.iter().map(|(asked, _)| question(asked)).collect();
        let verdicts = ask_any(&history(lines), &questions);
        for ((asked, expected), verdict) in expected.iter().zip(&verdicts) {
            assert_eq!(show(verdict), *expected, "{asked} of {lines:?}");
        }
    }
}

#[test]
fn the_last_write_of_any_client() {
    check_any(&[
        (
            &["a|HSET h f 1 g 1", "b|HSET h g 2", "?|HDEL h f"],
            &[("0:h/f", "selected 3"), ("0:h/g", "selected 2"), ("0:h", "selected 3"), ("0:k", "not written")],
        ),
        // What changed nothing is no write.
        (&["a|SET k 1", "b|DEL k", "c|FLUSHALL"], &[("0:k", "selected 2")]),
        (&["a|SADD s m", "b|SADD s m x"], &[("0:s/m", "selected 1"), ("0:s/x", "selected 2")]),
        (&["a|SET k 1 PXAT 2000", "expiry|DEL k"], &[("0:k", "selected 1")]),
        (&["expiry|DEL k"], &[("0:k", "other 1")]),
        // The only one that can have done it did it.
        (&["a|ZREMRANGEBYSCORE z 1 2"], &[("0:z/m", "selected 1")]),
        (&["a|ZREMRANGEBYSCORE z 1 2", "b|ZPOPMIN z"], &[("0:z/m", "uncertain 2 MayHaveWritten")]),
        (&["a|ZADD z 1 m", "b|ZPOPMIN z"], &[("0:z/m", "uncertain 2 MayHaveWritten")]),
        // What stands before the write that was found says nothing.
        (&["a|ZPOPMIN z", "b|ZADD z 1 m", "c|ZADD z 2 m 2 n"], &[("0:z/m", "selected 3"), ("0:z/n", "selected 3")]),
        (&["a|SET k 1", "b|EVAL x 0"], &[("0:k", "uncertain 2 UnknownCommand")]),
        (&["a|EVAL x 0", "b|SET k 1"], &[("0:k", "selected 2")]),
        (&["a|SET k 1", "b|SWAPDB 0 1"], &[("1:k", "uncertain 2 Swapped"), ("0:j", "uncertain 2 Swapped")]),
        (&["a|PEXPIREAT k 5", "b|PERSIST k"], &[("0:k@", "selected 2")]),
    ]);
}
