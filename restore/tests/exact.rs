//! A restore equals what the server held: by link, by scratch, by a link from scratch; every type,
//! TTLs, streams with groups, functions, transactions, binary keys; at several points in time.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod support;

use redtape_journal::Micros;
use redtape_journal::query::When;
use redtape_restore::{ForcedMethod, Method};
use support::record::Recorder;
use support::{Running, assert_same, request, restore, run, state, version};

/// What is in the base.
const BEFORE: &[&str] = &[
    "SET plain value",
    r"SET bin\x00\xff\x0d\x0akey v\x00\x0d\x0a",
    "SET long-lived 1 EX 100000",
    "SET short-lived 1 PX 80",
    "RPUSH list a b c d",
    "SADD set 1 2 3 x",
    "ZADD zset 1 a 2.5 b -inf c",
    "HSET hash f1 v1 f2 v2",
    "SETBIT bits 1000 1",
    "PFADD hll a b c d",
    "GEOADD geo 13.36 38.11 Palermo",
    "XADD stream 1-1 f v",
    "XADD stream 2-1 f v",
    "XGROUP CREATE stream group 0",
    "SELECT 9",
    "SET other-db 1",
    "SELECT 0",
];

/// What follows, in steps; after each the world is held still.
const STEPS: &[&[&str]] = &[
    &["INCR counter", "INCRBYFLOAT float 1.1", "LPUSH list z", "SPOP set", "EXPIRE plain 5000", "PERSIST long-lived"],
    &[
        "MULTI",
        "SET t1 1",
        "SELECT 3",
        "SET t2 2",
        "SELECT 0",
        "DEL hash",
        "EXEC",
        "EVAL redis.call('set','s1',ARGV[1]);redis.call('incr','s2') 0 v",
        "XREADGROUP GROUP group consumer COUNT 2 STREAMS stream >",
        "XACK stream group 1-1",
        "XADD stream MAXLEN ~ 100 * g h",
    ],
    &[
        "SET s 1 PX 30",
        "INCR s",
        "INCR s",
        "RENAME list list2",
        "COPY zset zset2",
        "MOVE bits 9",
        "SORT list2 ALPHA STORE sorted",
    ],
    &[
        "SWAPDB 3 9",
        "SET big-ttl 1",
        "PEXPIREAT big-ttl 9999999999999",
        "HSET hash new 1",
        "GETEX plain PX 700000",
        "APPEND plain more",
    ],
    &[
        "XCLAIM stream group consumer2 0 2-1",
        "XGROUP CREATECONSUMER stream group idle",
        "XDEL stream 1-1",
        "SETRANGE plain 20 x",
    ],
];

const FUNCTION: &str =
    "#!lua name=lib\nredis.register_function('f', function(keys) return redis.call('incr', keys[1]) end)";

#[test]
fn every_moment_comes_back_by_every_way() {
    let debug: &[&str] = if version().has_redis(7, 0) { &["--enable-debug-command", "yes"] } else { &[] };
    let source = Running::start(debug);
    let dir = tempfile::tempdir().unwrap();
    let journal = dir.path().join("journal");
    let mut client = source.client();
    for line in BEFORE {
        run(&mut client, line);
    }
    let mut recorder = Recorder::start(&journal, &source);
    let mut moments: Vec<(Micros, u64, Vec<String>)> = Vec::new();
    for (n, step) in STEPS.iter().enumerate() {
        for line in *step {
            // COPY is not in Redis 6.0.
            if line.starts_with("COPY") && !version().has_redis(6, 2) {
                continue;
            }
            if line.starts_with("GETEX") && !version().has_redis(6, 2) {
                continue;
            }
            if line.starts_with("XGROUP CREATECONSUMER") && !version().has_redis(6, 2) {
                continue;
            }
            run(&mut client, line);
        }
        if n == 1 && version().has_redis(7, 0) {
            client.call(&["FUNCTION", "LOAD", FUNCTION]).unwrap();
            run(&mut client, "FCALL f 1 by-function");
        }
        if version().has_field_ttl() {
            run(&mut client, &format!("HSET fields{n} keep 1 short 2 long 3"));
            // Gone before the point in time, or alive at it and gone before the restore.
            let short = if n % 2 == 0 { 40 } else { 300 };
            run(&mut client, &format!("HPEXPIRE fields{n} {short} FIELDS 1 short"));
            run(&mut client, &format!("HPEXPIRE fields{n} 4000000 FIELDS 1 long"));
        }
        // Long enough that what expires has expired and been removed.
        std::thread::sleep(std::time::Duration::from_millis(if n % 2 == 0 { 400 } else { 5 }));
        for key in ["short-lived", "s"] {
            run(&mut client, &format!("EXISTS {key}"));
        }
        let held = state(&mut client);
        let at = recorder.catch_up();
        moments.push((at, recorder.lsn().0, held));
        recorder.mark(&format!("step{n}"));
    }
    run(&mut client, "FLUSHALL");
    recorder.catch_up();
    recorder.finish();

    // What was alive at a moment is dead by the clocks of all who restore it.
    std::thread::sleep(std::time::Duration::from_millis(800));
    let link_is_exact = !version().has_field_ttl();
    for (n, (at, lsn, held)) in moments.iter().enumerate() {
        for forced in [None, Some(ForcedMethod::Scratch)] {
            let when = match n {
                1 => When::Lsn(redtape_journal::Lsn(*lsn)),
                2 => When::Mark("step2".to_owned()),
                _ => When::At(*at),
            };
            // A target's own clock clamps XCLAIM's times: it must not be behind the journal's. So a link
            // goes to a server with a real clock, when nothing is about to expire.
            let quiet = n % 2 == 0;
            if forced.is_none() && !quiet {
                continue;
            }
            let target = if forced.is_none() { Running::start(debug) } else { Running::timeless() };
            let (plan, report) = restore(&request(&journal, when, &target, forced)).unwrap();
            let want = match forced {
                Some(_) => Method::Scratch,
                None if link_is_exact => Method::Link,
                None => Method::LinkFromScratch,
            };
            assert_eq!(plan.method, want, "{}", plan.reason);
            assert_eq!(report.lsn, *lsn);
            let got = state(&mut target.client());
            assert_same(held, &got, &format!("moment {n} via {:?}; {:?}", plan.method, report.checks));
            println!("moment {n} via {:?}: {:?}", plan.method, report);
        }
    }
    // The accident itself is in the journal too.
    let target = Running::timeless();
    let (_, report) = restore(&request(&journal, When::Latest, &target, None)).unwrap();
    assert!(report.keys.is_empty(), "{report:?}");
}

#[test]
fn a_real_clock_expires_what_has_expired_since() {
    let source = Running::start(&[]);
    let dir = tempfile::tempdir().unwrap();
    let journal = dir.path().join("journal");
    let mut client = source.client();
    let mut recorder = Recorder::start(&journal, &source);
    for line in ["SET gone 1 PX 300", "SET stays 1", "SET later 1 PX 500000"] {
        run(&mut client, line);
    }
    let at = recorder.catch_up();
    recorder.finish();
    std::thread::sleep(std::time::Duration::from_millis(400));
    for via in [ForcedMethod::Link, ForcedMethod::Scratch] {
        let target = Running::start(&[]);
        let result = restore(&request(&journal, When::At(at), &target, Some(via)));
        if via == ForcedMethod::Link && version().has_field_ttl() {
            // The way is a link from scratch then; the outcome is the same.
            assert!(result.is_ok());
        }
        let (_, report) = result.unwrap();
        assert_eq!((report.keys[&0], report.expired), (3, Some(1)), "{report:?}");
        let mut client = target.client();
        assert_eq!(run(&mut client, "EXISTS gone"), redtape_restore::client::Value::Int(0));
        assert_eq!(run(&mut client, "EXISTS stays later"), redtape_restore::client::Value::Int(2));
    }
}
