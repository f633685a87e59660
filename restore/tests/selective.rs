//! Only what is asked for comes back, into servers that hold other things, and never over them.
#![allow(clippy::unwrap_used)]

mod support;

use redtape_journal::Micros;
use redtape_journal::query::When;
use redtape_restore::client::Value;
use redtape_restore::{ErrorKind, Filter, ForcedMethod, Method, Silent, prepare};
use support::record::Recorder;
use support::{Running, request, restore, run, version};

struct Story {
    journal: tempfile::TempDir,
    at: Micros,
}

/// Users and orders in two databases, then an accident.
fn story() -> Story {
    let source = Running::start(&[]);
    let journal = tempfile::tempdir().unwrap();
    let dir = journal.path().join("j");
    let mut client = source.client();
    run(&mut client, "SET user:1 ann");
    let mut recorder = Recorder::start(&dir, &source);
    for n in 2..=1500 {
        run(&mut client, &format!("SET user:{n} name{n}"));
    }
    run(&mut client, r"SET user:\x00\xff\x0a binary");
    run(&mut client, "HSET order:1 total 5");
    run(&mut client, "PEXPIRE user:7 1000000");
    run(&mut client, &format!("SET user:big {}", "x".repeat(3_000_000)));
    run(&mut client, "SELECT 2");
    run(&mut client, "SET user:other-db 1");
    if version().has_redis(7, 0) {
        client
            .call(&["FUNCTION", "LOAD", "#!lua name=lib\nredis.register_function('f', function() return 1 end)"])
            .unwrap();
    }
    let at = recorder.catch_up();
    run(&mut client, "FLUSHALL");
    recorder.catch_up();
    recorder.finish();
    Story { journal, at }
}

#[test]
fn chosen_keys_into_a_server_with_others() {
    let story = story();
    let dir = story.journal.path().join("j");
    let target = Running::start(&[]);
    let mut client = target.client();
    run(&mut client, "SET mine 1");
    let mut wanted = request(&dir, When::At(story.at), &target, None);
    wanted.filter = Filter::new(&["user:*"], &["^order:".to_owned()], &[0]).unwrap();
    let prepared = prepare(&wanted, &mut Silent).unwrap();
    assert!(prepared.target_holds_data());
    assert_eq!(prepared.plan().method, Method::Scratch);
    let report = prepared.run(&mut Silent).unwrap();
    assert_eq!((report.keys.get(&0), report.keys.get(&2), report.functions), (Some(&1503), None, 0));
    assert_eq!(run(&mut client, "GET user:1500"), Value::Bytes(b"name1500".to_vec()));
    assert_eq!(run(&mut client, r"GET user:\x00\xff\x0a"), Value::Bytes(b"binary".to_vec()));
    assert_eq!(run(&mut client, "STRLEN user:big"), Value::Int(3_000_000));
    assert_eq!(run(&mut client, "GET mine"), Value::Bytes(b"1".to_vec()));
    let Value::Int(ttl) = run(&mut client, "PTTL user:7") else { panic!("PTTL") };
    assert!((900_000..=1_000_000).contains(&ttl), "{ttl}");
    assert_eq!(run(&mut client, "DBSIZE"), Value::Int(1504));

    // A second time: what is there already is equal, but for one key, and nothing is touched.
    run(&mut client, "SET user:1 changed-since");
    let error = restore(&wanted).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Occupied, "{error}");
    let text = error.to_string();
    assert!(
        text.contains("1 of the wanted keys") && text.contains("in db 0") && text.contains("nothing was changed"),
        "{text}"
    );
    assert_eq!(run(&mut client, "GET user:1"), Value::Bytes(b"changed-since".to_vec()));

    // One key is in the way: not a single other one is written.
    run(&mut client, "FLUSHALL");
    run(&mut client, "SET user:900 mine");
    let error = restore(&wanted).unwrap_err();
    assert!(error.to_string().contains("\"user:900\" in db 0"), "{error}");
    assert_eq!(run(&mut client, "DBSIZE"), Value::Int(1));

    // Nothing matches.
    wanted.filter = Filter::new(&["nothing*"], &[], &[]).unwrap();
    let error = restore(&wanted).unwrap_err();
    assert_eq!(
        (error.kind(), error.to_string().as_str()),
        (ErrorKind::NotInJournal, "no key matches; nothing was restored")
    );
    assert_eq!(run(&mut client, "DBSIZE"), Value::Int(1));
}

#[test]
fn databases_and_everything_by_scratch() {
    let story = story();
    let dir = story.journal.path().join("j");
    let target = Running::start(&[]);
    let mut wanted = request(&dir, When::At(story.at), &target, None);
    wanted.filter = Filter::new::<&str>(&[], &[], &[2]).unwrap();
    let (_, report) = restore(&wanted).unwrap();
    assert_eq!(report.keys.into_iter().collect::<Vec<_>>(), [(2, 1)]);

    let target = Running::start(&[]);
    let (plan, report) = restore(&request(&dir, When::At(story.at), &target, Some(ForcedMethod::Scratch))).unwrap();
    assert_eq!((report.keys[&0], report.keys[&2]), (1503, 1));
    assert_eq!(report.functions, usize::from(version().has_redis(7, 0)));
    assert!(plan.functions && plan.scratch.is_some());
}

#[test]
fn a_cluster_whose_slots_have_no_node_is_refused() {
    let story = story();
    let dir = story.journal.path().join("j");
    let target = Running::start(&["--cluster-enabled", "yes"]);
    for (via, filter) in [
        (None, Filter::default()),
        (Some(ForcedMethod::Scratch), Filter::default()),
        (None, Filter::new(&["user:*"], &[], &[0]).unwrap()),
    ] {
        let mut wanted = request(&dir, When::At(story.at), &target, via);
        wanted.filter = filter;
        let error = restore(&wanted).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        assert!(error.to_string().contains("has no node for 16384 of its 16384 slots"), "{error}");
    }
    assert_eq!(run(&mut target.client(), "DBSIZE"), Value::Int(0));
}
