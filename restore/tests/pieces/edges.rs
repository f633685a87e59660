//! Values at the borders of what commands can express.

use redtape_restore::client::{Server as Client, Value as Reply};
use redtape_restore::target::pieces::name::temporary_name;
use redtape_restore::target::pieces::{BuildError, Builder, PieceLimits};
use redtape_wire::rdb::{
    Consumer, Field, Group, Idempotence, Pending, Score, Stream, StreamEntry, StreamId, Value, losses,
};

use crate::server::Server;
use crate::{TINY, check, client, dumped, now_ms, version};

const USUAL: PieceLimits = PieceLimits { bytes: 256 * 1024, elements: 1000, unanswered: 4, pending: usize::MAX };

fn call(client: &mut Client, line: &str) -> Reply {
    let words: Vec<&str> = line.split(' ').collect();
    client.call(&words).unwrap_or_else(|e| panic!("{line}: {e}"))
}

fn many(client: &mut Client, command: &str, args: impl Iterator<Item = String>) {
    let mut all: Vec<String> = command.split(' ').map(str::to_owned).collect();
    all.extend(args);
    client.call(&all).unwrap();
}

#[test]
fn scores_to_the_last_bit() {
    let server = Server::start();
    let mut client = client(&server);
    let usual = (0..300).map(|n: i32| f64::from(n) / 7.0 - 20.0);
    let special = [
        f64::INFINITY,
        f64::NEG_INFINITY,
        0.1 + 0.2,
        f64::MIN_POSITIVE,
        5e-324,
        f64::MAX,
        -f64::MAX,
        9_007_199_254_740_993.0,
        1e21,
        -1e-7,
        0.0,
    ];
    let scores = usual.chain(special).enumerate();
    many(&mut client, "ZADD z", scores.flat_map(|(n, score)| [format!("{score:e}"), format!("member {n}")]));
    // Only a large sorted set keeps it.
    many(&mut client, "ZADD z", (0..5).flat_map(|n| ["-0".to_owned(), format!("negative zero {n}")]));
    let Value::Zset(members) = dumped(&mut client, b"z") else { panic!("a sorted set") };
    let negative = |score: &Score| score.get() == 0.0 && score.get().is_sign_negative();
    assert_eq!(members.iter().filter(|(_, score)| negative(score)).count(), 5);
    check(&mut client, b"z", USUAL);
    check(&mut client, b"z", PieceLimits { elements: 150, ..USUAL });
}

#[test]
fn long_elements_and_many() {
    let server = Server::start();
    let mut client = client(&server);
    let bytes = |len: usize| -> Vec<u8> { (0..len).map(|n| (n * n / 7 + n) as u8).collect() };
    for (key, value) in [(&b"empty"[..], vec![]), (b"number", b"-12345".to_vec()), (b"long", bytes((2 << 20) + 3))] {
        client.call(&[b"SET", key, &value]).unwrap();
        check(&mut client, key, USUAL);
    }
    check(&mut client, b"number", PieceLimits { bytes: 1, ..TINY });
    for len in [300_000, 5, 0, 300_000, 262_144, 1] {
        client.call(&[&b"RPUSH"[..], b"list", &bytes(len)]).unwrap();
    }
    check(&mut client, b"list", USUAL);
    many(&mut client, "RPUSH numbers", (0..5000).map(|n| (n * 1001).to_string()));
    many(&mut client, "SADD ints", (0..500).map(|n| (n * 70_001).to_string()));
    many(&mut client, "SADD set", (0..5000).map(|n| format!("member {n}")));
    many(&mut client, "HSET hash", (0..5000).flat_map(|n| [format!("field {n}"), "x".repeat(n % 300)]));
    for key in [&b"numbers"[..], b"ints", b"set", b"hash"] {
        check(&mut client, key, USUAL);
        check(&mut client, key, PieceLimits { bytes: 1000, elements: 100, unanswered: 1, ..USUAL });
    }
    if version().has_field_ttl() {
        let later = now_ms() + 5_000_000;
        let fields = (0..2500).map(|n| format!("field {n}"));
        for (n, field) in fields.enumerate() {
            // Some have the same time.
            let at = (later + n as i64 / 3).to_string();
            client.call(&[b"HPEXPIREAT", &b"hash"[..], at.as_bytes(), b"FIELDS", b"1", field.as_bytes()]).unwrap();
        }
        check(&mut client, b"hash", USUAL);
        check(&mut client, b"hash", PieceLimits { bytes: 1000, elements: 100, unanswered: 1, ..USUAL });
    }
}

#[test]
fn streams_with_all_that_they_can_have() {
    let server = Server::start();
    let mut client = client(&server);
    let client = &mut client;
    let seven = version().has_redis(7, 0);

    call(client, "XGROUP CREATE empty g 5-5 MKSTREAM");
    call(client, "XSETID empty 77-7");
    call(client, "XREADGROUP GROUP g nobody STREAMS empty >");

    for n in 1..=2500 {
        call(client, &format!("XADD long {n}-1 name value{n}"));
    }
    call(client, "XGROUP CREATE long g 0");
    call(client, "XREADGROUP GROUP g a COUNT 1200 STREAMS long >");
    call(client, "XREADGROUP GROUP g b COUNT 900 STREAMS long >");
    call(client, "XGROUP CREATE long h 100-1");
    call(client, "XCLAIM long g c 0 7-1 8-1 9-1 TIME 1000 RETRYCOUNT 55");
    // Pending, and deleted; the last one too.
    for id in ["8-1", "300-1", "2100-1", "2500-1"] {
        call(client, &format!("XDEL long {id}"));
    }

    for n in 1..=20 {
        call(client, &format!("XADD gone {n}-1 name value{n}"));
    }
    call(client, "XGROUP CREATE gone g 0");
    call(client, "XREADGROUP GROUP g a COUNT 15 STREAMS gone >");
    call(client, "XTRIM gone MAXLEN 0");

    // Claimed, but for those whose entries are gone: only the times of consumers are others.
    for (key, pending) in [("long", 100), ("long", 0), ("gone", 0)] {
        let mut want = dumped(client, key.as_bytes());
        let builder = Builder { version: version(), limits: PieceLimits { pending, ..USUAL } };
        assert!(builder.build(client, b"claimed", &want).unwrap().exists);
        let mut built = dumped(client, b"claimed");
        for value in [&mut want, &mut built] {
            let Value::Stream(stream) = value else { panic!("a stream") };
            for consumer in stream.groups.iter_mut().flat_map(|group| &mut group.consumers) {
                (consumer.seen_ms, consumer.active_ms) = (0, 0);
            }
        }
        assert_eq!(built, want, "{key} {pending}");
    }

    call(client, "XADD top 18446744073709551615-18446744073709551615 f v");
    if seven {
        call(client, "XADD counted 1-1 f v");
        call(client, "XSETID counted 9-9 ENTRIESADDED 100 MAXDELETEDID 8-8");
        call(client, "XGROUP CREATE counted g 3-3 ENTRIESREAD 5");
    }
    for key in ["empty", "long", "gone", "top", "counted"] {
        if key != "counted" || seven {
            check(client, key.as_bytes(), USUAL);
            check(client, key.as_bytes(), TINY);
        }
    }
}

#[test]
fn fields_that_have_expired_are_counted_and_left_out() {
    if !version().has_field_ttl() {
        // Then no value has such fields; that they are refused is tested below.
        return;
    }
    let server = Server::start();
    let mut client = client(&server);
    let field =
        |n: usize, expires_at_ms| Field { name: format!("f{n:02}").into(), value: b"v".to_vec(), expires_at_ms };
    let (past, later) = (Some(now_ms() - 1000), Some(now_ms() + 1_000_000));
    let builder = Builder { version: version(), limits: TINY };
    let mixed: Vec<Field> = (0..30).map(|n| field(n, [None, past, later][n % 3])).collect();
    let built = builder.build(&mut client, b"mixed", &Value::Hash(mixed.clone())).unwrap();
    assert_eq!((built.expired_fields, built.exists), (10, true));
    let left = mixed.into_iter().filter(|field| field.expires_at_ms != past).collect();
    assert_eq!(dumped(&mut client, b"mixed"), Value::Hash(left));
    let all: Vec<Field> = (0..10).map(|n| field(n, past)).collect();
    let built = builder.build(&mut client, b"all", &Value::Hash(all)).unwrap();
    assert_eq!((built.expired_fields, built.exists), (10, false));
    assert_eq!(call(&mut client, "EXISTS all"), Reply::Int(0));
}

/// A stream that only Redis 8.6 holds in full.
fn rich_stream() -> Stream {
    let id = |ms| StreamId { ms, seq: 0 };
    let consumer = Consumer { name: b"c".to_vec(), seen_ms: 2000, active_ms: 1000 };
    let pending = [1, 2].map(|ms| Pending { id: id(ms), delivered_ms: 500, deliveries: 3, consumer: 0 });
    Stream {
        entries: (2..5).map(|ms| StreamEntry { id: id(ms), fields: vec![(b"f".to_vec(), b"v".to_vec())] }).collect(),
        last_id: id(9),
        first_id: id(2),
        max_deleted_id: id(1),
        entries_added: 8,
        groups: vec![Group {
            name: b"g".to_vec(),
            last_id: id(3),
            entries_read: Some(3),
            consumers: vec![consumer],
            pending: pending.to_vec(),
        }],
        idempotence: Some(Idempotence {
            duration_seconds: 50,
            max_ids: 60,
            producers: vec![(b"p".to_vec(), vec![(b"i".to_vec(), id(4))])],
            added: 1,
            duplicates: 1,
        }),
    }
}

#[test]
fn what_a_server_cannot_hold_is_told_before_anything_is_written() {
    let server = Server::start();
    let mut client = client(&server);
    let builder = Builder { version: version(), limits: TINY };
    let ttl = Field { name: b"f".to_vec(), value: b"v".to_vec(), expires_at_ms: Some(now_ms() + 1_000_000) };
    for mut value in [Value::Stream(Box::new(rich_stream())), Value::Hash(vec![ttl])] {
        let lost = losses(&value, version().writes());
        let name = temporary_name(b"key", &crate::operation(), 0);
        if !lost.is_empty() {
            match builder.build(&mut client, &name, &value) {
                Err(BuildError::Inexpressible(told)) => assert_eq!(told.losses, lost),
                other => panic!("{other:?}"),
            }
            assert_eq!(call(&mut client, "DBSIZE"), Reply::Int(0));
            lost.iter().for_each(|loss| loss.take_from(&mut value));
        }
        assert!(builder.build(&mut client, &name, &value).unwrap().exists);
        let mut there = dumped(&mut client, &name);
        if let (Value::Stream(there), Value::Stream(want)) = (&mut there, &value)
            && want.idempotence.is_none()
        {
            there.idempotence = None;
        }
        assert_eq!(there, value);
        client.call(&[b"DEL", &name[..]]).unwrap();
    }
    let contradicting = Stream { last_id: StreamId::default(), ..rich_stream() };
    let mut contradicting = Value::Stream(Box::new(contradicting));
    losses(&contradicting, version().writes()).iter().for_each(|loss| loss.take_from(&mut contradicting));
    for value in [contradicting, Value::List(vec![]), Value::Hash(vec![])] {
        assert!(matches!(builder.build(&mut client, b"x", &value), Err(BuildError::NotInPieces(_))), "{value:?}");
        assert_eq!(call(&mut client, "DBSIZE"), Reply::Int(0));
    }
}
