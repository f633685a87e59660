//! A restore says that it is done only when the target holds what was meant, and else what became of it: targets that are too
//! small, that somebody else writes to, changes or ends in the middle.
#![allow(clippy::unwrap_used)]

mod support;

use redtape_journal::Micros;
use redtape_journal::query::When;
use redtape_restore::ErrorKind::{Busy, Interrupted, Occupied, Unavailable};
use redtape_restore::client::{Server as Client, Value};
use redtape_restore::plan::LimitState;
use redtape_restore::{
    ErrorKind, Filter, ForcedMethod, Method, Observer, Report, Request, RestoreError, Silent, Target, prepare,
};
use support::record::Recorder;
use support::{AtStep, Running, request, restore, run, version};

/// A journal of a server with so many keys of so many bytes.
fn journal(keys: usize, bytes: usize) -> (tempfile::TempDir, Micros) {
    let dir = tempfile::tempdir().unwrap();
    let source = Running::start(&[]);
    let mut client = source.client();
    let mut recorder = Recorder::start(&dir.path().join("j"), &source);
    // What DUMP cannot compress.
    let mut seed = 7u64;
    let mut next = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from(b'0' + (seed >> 58) as u8)
    };
    let value: String = (0..bytes).map(|_| next()).filter(|c| *c != '\\').collect();
    for n in 0..keys {
        run(&mut client, &format!("SET key:{n} {value}"));
    }
    let at = recorder.catch_up();
    recorder.finish();
    (dir, at)
}

fn ask(dir: &tempfile::TempDir, at: Micros, target: &Running, via: Option<ForcedMethod>) -> Request {
    request(&dir.path().join("j"), When::At(at), target, via)
}

fn observed(request: &Request, observer: &mut dyn Observer) -> Result<Report, RestoreError> {
    prepare(request, &mut Silent)?.run(observer)
}

#[track_caller]
fn failed(result: Result<Report, RestoreError>, kind: ErrorKind, words: &[&str]) -> String {
    let error = result.map(|report| format!("{report:?}")).unwrap_err();
    let text = error.to_string();
    assert_eq!(error.kind(), kind, "{text}");
    for word in words {
        assert!(text.contains(word), "{word:?} is not in: {text}");
    }
    assert!(!text.contains("report this"), "{text}");
    text
}

fn keys(client: &mut Client) -> i64 {
    let Value::Int(keys) = run(client, "DBSIZE") else { panic!("DBSIZE") };
    keys
}

const SMALL: &[&str] = &["--maxmemory", "3mb", "--maxmemory-policy", "allkeys-lru"];

/// Somebody takes memory away while a restore is at work.
fn shrink(target: &Running, policy: &str) {
    let mut client = target.client();
    run(&mut client, &format!("CONFIG SET maxmemory-policy {policy}"));
    run(&mut client, "CONFIG SET maxmemory 3mb");
}

#[test]
fn a_target_that_would_evict_is_put_back_before_its_promotion() {
    let (dir, at) = journal(20_000, 100);
    let target = Running::start(&[]);
    let mut request = ask(&dir, at, &target, None);
    let mut during = AtStep::new("replaying the journal", 0, || shrink(&target, "allkeys-lru"));
    let words = ["cannot hold the data", "maxmemory of 3145728 bytes", "allkeys-lru", "detached and emptied again"];
    failed(observed(&request, &mut during), Unavailable, &words);
    assert!(during.reached());
    let mut client = target.client();
    assert_eq!((client.info(None).unwrap().get("role"), keys(&mut client)), (Some("master"), 0));
    // It holds to its limit while it is a replica, too: then it is not made one.
    run(&mut client, "CONFIG SET replica-ignore-maxmemory no");
    let prepared = prepare(&request, &mut Silent).unwrap();
    assert_eq!(prepared.plan().method, Method::Scratch, "{}", prepared.plan().reason);
    request.method = Some(ForcedMethod::Link);
    failed(observed(&request, &mut Silent), Unavailable, &["replica-ignore-maxmemory no"]);
}

#[test]
fn a_target_that_evicts_while_it_is_copied_to_is_told() {
    let (dir, at) = journal(20_000, 100);
    let some = Filter::new(&["key:*"], &[], &[]).unwrap();
    for (filter, step) in [(Filter::default(), "copying keys"), (some, "writing keys")] {
        let target = Running::start(&[]);
        let mut request = ask(&dir, at, &target, Some(ForcedMethod::Scratch));
        request.filter = filter;
        let mut during = AtStep::new(step, 0, || shrink(&target, "allkeys-lru"));
        let words = ["does not hold all that was restored", "has evicted", "allkeys-lru", "Raise maxmemory"];
        failed(observed(&request, &mut during), Unavailable, &words);
    }
}

#[test]
fn a_target_that_loses_its_room_says_what_to_do() {
    let (dir, at) = journal(20_000, 100);
    let target = Running::start(&[]);
    let mut during = AtStep::new("copying keys", 0, || shrink(&target, "noeviction"));
    let words = ["refuses RESTORE", "OOM", "raise maxmemory", "may hold a part of the data"];
    failed(observed(&ask(&dir, at, &target, Some(ForcedMethod::Scratch)), &mut during), Unavailable, &words);

    // Over the link all of it arrives; the server keeps it and takes no more.
    let target = Running::start(&[]);
    let mut during = AtStep::new("replaying the journal", 0, || shrink(&target, "noeviction"));
    let report = observed(&ask(&dir, at, &target, None), &mut during).unwrap();
    assert!(report.warnings.iter().any(|w| w.contains("refuses writes until")), "{report:?}");
    let mut client = target.client();
    assert_eq!(keys(&mut client), 20_000);
    assert_eq!(client.try_call(&["SET", "a", "b"]).unwrap().error().unwrap().code, "OOM");
}

#[test]
fn too_little_memory_is_known_before_the_first_write() {
    let (dir, at) = journal(20_000, 100);
    for policy in ["allkeys-lru", "noeviction"] {
        for (via, some) in [(None, false), (Some(ForcedMethod::Scratch), false), (None, true)] {
            let target = Running::start(&[SMALL[0], SMALL[1], SMALL[2], policy]);
            let mut request = ask(&dir, at, &target, via);
            if some {
                request.filter = Filter::new(&["key:*"], &[], &[]).unwrap();
            }
            let plan = prepare(&request, &mut Silent).unwrap().plan().clone();
            let warnings = plan.warnings.join("\n");
            let limit = format!("memory limit of 3145728 bytes (maxmemory-policy {policy})");
            assert!(warnings.contains(&limit), "{warnings}");
            assert!(plan.limits.iter().any(|l| l.name == "memory" && l.state == LimitState::Open), "{:?}", plan.limits);
            let words = ["has no room for the data", "Nothing was written", "Raise maxmemory to"];
            let text = failed(observed(&request, &mut Silent), Unavailable, &words);
            assert_eq!(text.contains("--accept-eviction"), policy != "noeviction", "{text}");
            let mut client = target.client();
            let info = client.info(Some("all")).unwrap();
            assert_eq!((info.get("role"), info.keyspace().len()), (Some("master"), 0));
            for command in ["restore", "hset", "replicaof", "flushall"] {
                assert_eq!(info.get(&format!("cmdstat_{command}")), None, "{policy} {via:?}");
            }
            request.accept_eviction = true;
            let outcome = observed(&request, &mut Silent);
            if policy == "noeviction" {
                failed(outcome, Unavailable, &words);
                continue;
            }
            let report = outcome.unwrap();
            assert!(report.warnings.iter().any(|w| w.contains("has evicted")), "{report:?}");
            assert!((1..20_000).contains(&keys(&mut client)));
        }
    }
}

#[test]
fn a_cache_that_is_full_evicts_for_what_is_restored_only_if_that_is_wanted() {
    let (dir, at) = journal(2000, 100);
    let target = Running::start(&["--maxmemory", "4mb", "--maxmemory-policy", "allkeys-lru"]);
    let (mut client, filling) = (target.client(), "x".repeat(200));
    for n in 0..20_000 {
        run(&mut client, &format!("SET cached:{n} {filling}"));
    }
    assert!(client.info(None).unwrap().number("evicted_keys") > Some(0));
    let mut request = ask(&dir, at, &target, None);
    request.filter = Filter::new(&["key:1*"], &[], &[]).unwrap();
    failed(observed(&request, &mut Silent), Unavailable, &["has no room for the data", "--accept-eviction"]);
    request.accept_eviction = true;
    let report = observed(&request, &mut Silent).unwrap();
    assert_eq!(report.keys[&0], 1111, "{report:?}");
    assert!(report.warnings.iter().any(|w| w.contains("the target has evicted")), "{report:?}");
}

#[test]
fn one_restore_at_a_time() {
    let (dir, at) = journal(3000, 200);
    let mut withdrew = 0;
    for ways in [
        [ForcedMethod::Link, ForcedMethod::Link],
        [ForcedMethod::Scratch, ForcedMethod::Scratch],
        [ForcedMethod::Link, ForcedMethod::Scratch],
    ] {
        for _ in 0..4 {
            let target = Running::start(&[]);
            let prepared: Vec<_> =
                ways.iter().map(|via| prepare(&ask(&dir, at, &target, Some(*via)), &mut Silent).unwrap()).collect();
            let start = std::sync::Barrier::new(prepared.len());
            let results: Vec<_> = std::thread::scope(|scope| {
                let start = &start;
                let run = |prepared: redtape_restore::Prepared| {
                    scope.spawn(move || {
                        start.wait();
                        prepared.run(&mut Silent)
                    })
                };
                let threads: Vec<_> = prepared.into_iter().map(run).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            let (done, refused): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
            assert_eq!(done.len(), 1, "{ways:?}: {done:?} {refused:?}");
            for refused in refused.into_iter().map(Result::unwrap_err) {
                // Or it looked when the first one was through.
                let (kind, text) = (refused.kind(), refused.to_string());
                let busy = ["another restore is at work", "at 127.0.0.1:", "changed nothing"].map(|w| text.contains(w));
                let late = text.contains("is not empty (3000 keys in db 0); nothing was changed");
                assert!((kind == Busy && busy == [true; 3]) || (kind == Occupied && late), "{ways:?} {kind:?}: {text}");
                withdrew += u32::from(kind == Busy);
            }
            assert_eq!(keys(&mut target.client()), 3000, "{ways:?}");
        }
    }
    assert!(withdrew > 0, "some restore met another");
}

#[test]
fn a_later_restore_is_warned_of_the_first() {
    let (dir, at) = journal(3000, 200);
    let target = Running::start(&[]);
    let second = ask(&dir, at, &target, Some(ForcedMethod::Scratch));
    let mut outcome = None;
    let mut during = AtStep::new("replaying the journal", 0, || {
        let prepared = prepare(&second, &mut Silent).unwrap();
        let warnings = prepared.plan().warnings.join("\n");
        assert!(warnings.contains("another restore is at work on the target (client "), "{warnings}");
        outcome = Some(prepared.run(&mut Silent));
    });
    observed(&second, &mut during).unwrap();
    assert!(during.reached());
    failed(outcome.unwrap(), Busy, &["another restore is at work"]);
    // When that one is at its end, its name is gone with its connection.
    let mut client = target.client();
    run(&mut client, "FLUSHALL");
    assert_eq!(restore(&second).unwrap().1.keys[&0], 3000);
}

#[test]
fn a_user_who_may_not_see_other_restores_is_warned() {
    if !version().has_redis(7, 0) {
        return;
    }
    let (dir, at) = journal(30, 10);
    let target = Running::start(&[]);
    run(&mut target.client(), "ACL SETUSER few on >pw ~* +@all -client");
    let mut request = ask(&dir, at, &target, Some(ForcedMethod::Scratch));
    request.to = Target::Server(format!("redis://few:pw@127.0.0.1:{}", target.port).parse().unwrap());
    let (plan, report) = restore(&request).unwrap();
    assert!(plan.warnings.iter().any(|w| w.contains("cannot be seen")), "{:?}", plan.warnings);
    assert_eq!(report.keys[&0], 30);
}

/// Enough for several batches of a copy.
fn large() -> (tempfile::TempDir, Micros) {
    journal(300, 100_000)
}

#[test]
fn a_copy_that_did_not_end_leaves_a_sign() {
    let (dir, at) = large();
    let target = Running::start(&[]);
    let request = ask(&dir, at, &target, Some(ForcedMethod::Scratch));
    let interrupt = request.interrupt.clone();
    let mut end = AtStep::new("copying keys", 1, || interrupt.set());
    failed(observed(&request, &mut end), Interrupted, &["of 300 keys had been written", "may hold a part"]);
    let mut client = target.client();
    assert!((1..300).contains(&keys(&mut client)));
    assert_eq!(run(&mut client, "HLEN redtape:unfinished-restore"), Value::Int(1));
    // The next restore of everything, by whatever way, says what it finds.
    for via in [None, Some(ForcedMethod::Scratch)] {
        let words =
            ["only a part of a restore that did not end: everything (300 keys) of", "LSN 300, begun at", "FLUSHALL"];
        failed(observed(&ask(&dir, at, &target, via), &mut Silent), Occupied, &words);
    }
    // One of some keys is told of it, and leaves that marker alone.
    let mut some = ask(&dir, at, &target, None);
    some.filter = Filter::new(&["key:nothing*", "key:1"], &[], &[]).unwrap();
    run(&mut client, "DEL key:1");
    let (plan, _) = restore(&some).unwrap();
    let warnings = plan.warnings.join("\n");
    assert!(warnings.contains("did not end: everything (300 keys)") && warnings.contains("HDEL"), "{warnings}");
    assert_eq!(run(&mut client, "HLEN redtape:unfinished-restore"), Value::Int(1));
    run(&mut client, "FLUSHALL");
    assert_eq!(restore(&ask(&dir, at, &target, Some(ForcedMethod::Scratch))).unwrap().1.keys[&0], 300);
    assert_eq!(keys(&mut client), 300, "no marker is left");
}

#[test]
fn changes_by_others_during_a_copy_are_reported() {
    let (dir, at) = large();
    for (line, kind, words) in [
        ("SET foreign 1", Occupied, &["holds 1 keys more than were restored", "other clients wrote"][..]),
        ("FLUSHALL", Unavailable, &["does not hold all that was restored", "other clients removed them"]),
        ("REPLICAOF 127.0.0.1 1", Unavailable, &["refuses", "it has become a replica", "may hold a part of the data"]),
    ] {
        let target = Running::start(&[]);
        let request = ask(&dir, at, &target, Some(ForcedMethod::Scratch));
        let mut client = target.client();
        let mut change = AtStep::new("copying keys", 1, || drop(run(&mut client, line)));
        failed(observed(&request, &mut change), kind, words);
        assert!(change.reached());
    }
}

#[test]
fn a_target_that_was_taken_over_is_left_alone() {
    if version().has_field_ttl() {
        // A scratch server goes first there; what happens to the target is the same.
        return;
    }
    let (dir, at) = journal(20_000, 100);
    let (target, other) = (Running::start(&[]), Running::start(&[]));
    let mut client = target.client();
    let follow = format!("REPLICAOF 127.0.0.1 {}", other.port);
    let mut change = AtStep::new("replaying the journal", 0, || drop(run(&mut client, &follow)));
    let text = failed(
        observed(&ask(&dir, at, &target, Some(ForcedMethod::Link)), &mut change),
        Unavailable,
        &["It was left alone"],
    );
    assert!(text.contains(&format!("it follows 127.0.0.1:{}", other.port)), "{text}");
    assert_eq!(client.info(None).unwrap().get("master_port"), Some(other.port.to_string().as_str()));

    // Detached by somebody who then writes to it.
    let target = Running::start(&[]);
    let mut client = target.client();
    let mut change = AtStep::new("replaying the journal", 0, || {
        run(&mut client, "REPLICAOF NO ONE");
        run(&mut client, "SET precious 1");
    });
    let text = failed(
        observed(&ask(&dir, at, &target, Some(ForcedMethod::Link)), &mut change),
        Unavailable,
        &["It was left alone"],
    );
    assert!(text.contains("is a master and holds"), "{text}");
    assert_eq!(run(&mut client, "EXISTS precious"), Value::Int(1));
}

#[test]
fn a_target_that_cannot_save_is_refused_before() {
    let (dir, at) = journal(30, 10);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap().to_owned();
    let target = Running::start(&["--dir", &path]);
    drop(folder);
    let mut client = target.client();
    client.call(&["CONFIG", "SET", "save", "3600 1"]).unwrap();
    // It cannot fork or write: the status is the same.
    let _ = client.try_call(&["BGSAVE"]).unwrap();
    let start = std::time::Instant::now();
    while client.info(None).unwrap().get("rdb_last_bgsave_status") != Some("err") {
        assert!(start.elapsed().as_secs() < 20, "the save fails");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    for via in [None, Some(ForcedMethod::Scratch)] {
        failed(
            observed(&ask(&dir, at, &target, via), &mut Silent),
            Unavailable,
            &["takes no writes", "last save", "BGSAVE"],
        );
    }
    // It fails in the middle: the server's own word, and what to do.
    run(&mut client, "CONFIG SET save ");
    let mut change = AtStep::new("copying keys", 0, || {
        client.call(&["CONFIG", "SET", "save", "3600 1"]).unwrap();
    });
    let request = ask(&dir, at, &target, Some(ForcedMethod::Scratch));
    failed(observed(&request, &mut change), Unavailable, &["refuses RESTORE: MISCONF", "make room or repair"]);
}

#[test]
fn expired_keys_are_counted_by_every_method() {
    let source = Running::start(&[]);
    let dir = tempfile::tempdir().unwrap();
    let mut client = source.client();
    let mut recorder = Recorder::start(&dir.path().join("j"), &source);
    for n in 0..40 {
        run(&mut client, &format!("SET short:{n} 1 PX 2000"));
    }
    for line in ["SET stays 1", "SET long 1 PX 500000", "SELECT 3", "SET other 1 PX 2000", "SET keeps 1"] {
        run(&mut client, line);
    }
    let at = recorder.catch_up();
    recorder.finish();
    std::thread::sleep(std::time::Duration::from_millis(2100));
    for via in [ForcedMethod::Link, ForcedMethod::Scratch] {
        let target = Running::start(&[]);
        let (_, report) = restore(&ask(&dir, at, &target, Some(via))).unwrap();
        assert_eq!((report.keys[&0], report.keys[&3], report.expired), (42, 2, Some(41)), "{via:?}: {report:?}");
    }
}
