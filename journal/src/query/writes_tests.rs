use std::sync::Arc;

use super::*;
use crate::query::{WriteQuery, Zone};
use crate::types::ReplOffset;

fn filter(text: &str) -> WriteFilter {
    let query: WriteQuery = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
    query.resolve(Micros(0), &Zone::utc(), &[]).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn origin(kind: OriginKind, addr: &str, user: &str, name: &str, via: &str) -> Origin {
    let [addr, user, name, via] = [addr, user, name, via].map(str::to_owned);
    Origin { kind, addr, user, name, via }
}

/// A group at second 100, with 2 s of slack, with the record 50.
fn group(origin: Origin, command: &str) -> Group {
    Group {
        ts: Micros(100_000_000),
        slack: 2_000_000,
        origin: Arc::new(origin),
        atomic: false,
        end_offset: ReplOffset(1),
        records: vec![Record {
            lsn: Lsn(50),
            db: 0,
            args: command.split(' ').map(|word| word.as_bytes().to_vec().into()).collect(),
            keys: None,
        }],
    }
}

#[track_caller]
fn check(origin: &Origin, command: &str, cases: &[(&str, Match)]) {
    let group = group(origin.clone(), command);
    for (text, expected) in cases {
        assert_eq!(filter(text).matches(&group, &group.records[0]), *expected, "{text} of {command} by {origin}");
    }
}

use Match::{No, Perhaps, Yes};

#[test]
fn a_client_is_known_altogether() {
    let client = origin(OriginKind::Client, "10.0.0.5:51", "alice", "billing", "evalsha");
    check(
        &client,
        "HSET h f v",
        &[
            ("client=billing", Yes),
            ("client=bill*,client=x", Yes),
            ("client=10.0.0.5", Yes),
            ("client=10.0.0.5:51", Yes),
            ("client=10.0.0.*,client=!billing", No),
            ("client=!billing", No),
            ("client=!intern", Yes),
            ("client=alice", No),
            ("user=alice", Yes),
            ("user=Alice", No),
            ("user=!alice", No),
            ("command=hset", Yes),
            ("command=EVAL*", Yes),
            ("command=H*,command=!EVALSHA", No),
            ("command=HDEL", No),
            ("command=!HDEL", Yes),
            ("origin=client", Yes),
            ("origin=expiry", No),
            ("origin=!client", No),
            ("origin=!expiry", Yes),
            ("client=billing,command=HSET,user=alice", Yes),
            ("client=billing,command=HSET,user=bob", No),
        ],
    );
}

#[test]
fn what_has_no_client_is_meant_by_none_and_left_by_all_exclusions() {
    for kind in [OriginKind::Expiry, OriginKind::Eviction, OriginKind::Outside] {
        let nobody = Origin::of(kind);
        check(
            &nobody,
            "DEL k",
            &[("client=*", No), ("client=!a", Yes), ("user=*", No), ("user=!a", Yes), ("command=DEL", Yes)],
        );
    }
    check(
        &Origin::of(OriginKind::Outside),
        "SET k v",
        // It may have been sent as something else.
        &[("command=EVAL", Perhaps), ("command=!EVAL", Perhaps), ("command=!SET", No), ("origin=outside", Yes)],
    );
}

#[test]
fn an_unknown_cause_is_neither_meant_nor_not() {
    let unknown = Origin::of(OriginKind::Unknown);
    check(
        &unknown,
        "HSET h f v",
        &[
            ("client=intern", Perhaps),
            ("client=!intern", Perhaps),
            ("user=u", Perhaps),
            ("user=!u", Perhaps),
            ("command=HSET", Yes),
            ("command=HDEL", Perhaps),
            ("command=!HSET", No),
            ("command=!HDEL", Perhaps),
            ("command=HSET,command=!EVAL", Perhaps),
            ("origin=client", Perhaps),
            ("origin=!client", Perhaps),
            ("origin=unknown", Yes),
            ("origin=unknown,origin=client", Yes),
            ("origin=!unknown", No),
            ("lsn:50", Yes),
            ("lsn:50,client=intern", Perhaps),
            ("lsn:51,client=intern", No),
        ],
    );
}

#[test]
fn of_a_client_in_doubt_the_address_and_the_command_are_known() {
    let in_doubt = origin(OriginKind::Unknown, "10.0.0.5:51", "", "", "evalsha");
    check(
        &in_doubt,
        "HSET h f v",
        &[
            ("client=10.0.0.5", Yes),
            ("client=10.0.0.6", Perhaps),
            ("client=!10.0.0.5", No),
            ("client=10.0.0.*,client=!intern", Perhaps),
            ("user=u", Perhaps),
            ("command=EVALSHA", Yes),
            ("command=HDEL", No),
            ("command=!HDEL", Yes),
        ],
    );
    let without_user = origin(OriginKind::Client, "10.0.0.5:51", "", "", "");
    check(&without_user, "SET k v", &[("user=u", Perhaps), ("client=10.0.0.6", No)]);
}

#[test]
fn a_group_may_have_run_as_early_as_its_slack_says() {
    let client = origin(OriginKind::Client, "10.0.0.5:51", "u", "", "");
    check(
        &client,
        "SET k v",
        &[
            ("since=@98", Yes),
            ("since=@99", Perhaps),
            ("since=@100", Perhaps),
            ("since=@101", No),
            ("until=@100", Yes),
            ("until=@99", Perhaps),
            ("until=@98", Perhaps),
            ("until=@97", No),
            ("since=lsn:50", Yes),
            ("since=lsn:51", No),
            ("until=lsn:50", Yes),
            ("until=lsn:49", No),
            ("lsn:50", Yes),
            ("lsn:1..49,lsn:50..60", Yes),
            ("lsn:1..49", No),
        ],
    );
}

#[test]
fn keys_are_asked_about_one_by_one() {
    let some = filter("key=user:*,key=a,key=!user:tmp*,db=2,db=3");
    assert!(some.wants_key(2, b"user:1") && some.wants_key(3, b"a"));
    assert!(!some.wants_key(0, b"user:1") && !some.wants_key(2, b"user:tmp1") && !some.wants_key(2, b"b"));
    assert!(filter("client=a").wants_key(9, b"x") && !filter("key=!x").wants_key(9, b"x"));
    assert!(filter("origin=expiry").names_origin(OriginKind::Expiry));
    assert!(!filter("origin=!client").names_origin(OriginKind::Expiry));
}

#[test]
fn three_values() {
    assert_eq!([Yes.and(Perhaps), Perhaps.and(No), No.and(Yes), Yes.and(Yes)], [Perhaps, No, No, Yes]);
    assert_eq!([!Yes, !Perhaps, !No], [No, Perhaps, Yes]);
}
