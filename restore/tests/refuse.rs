//! Bad input and bad days: one clear message, a kind of failure, and nothing changed.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod support;

use std::path::{Path, PathBuf};

use redtape_journal::ErrorKind::{Damaged, NotAJournal};
use redtape_journal::Micros;
use redtape_journal::query::When;
use redtape_restore::ErrorKind::{Denied, NotInJournal, Occupied, Storage, Unavailable, Usage};
use redtape_restore::client::Value;
use redtape_restore::{ErrorKind, ForcedMethod, Request, Silent, Target, prepare};
use support::record::Recorder;
use support::{Running, request, restore, run, version};

/// A journal with one key, and a point in time in it.
fn journal(dir: &Path) -> Micros {
    let source = Running::start(&[]);
    let mut client = source.client();
    let mut recorder = Recorder::start(dir, &source);
    run(&mut client, "SET k v");
    let at = recorder.catch_up();
    recorder.finish();
    at
}

#[track_caller]
fn refused(request: &Request, kind: ErrorKind, words: &[&str]) {
    let error = restore(request).map(|r| r.1).unwrap_err();
    let text = error.to_string();
    assert_eq!(error.kind(), kind, "{text}");
    for word in words {
        assert!(text.contains(word), "{word:?} is not in: {text}");
    }
    println!("{kind:?}: {text}\n");
}

#[test]
fn points_in_time_that_do_not_exist() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("j");
    let before = Micros::now();
    let first_end = journal(&path);
    std::thread::sleep(std::time::Duration::from_millis(20));
    let inside = Micros::now();
    std::thread::sleep(std::time::Duration::from_millis(20));
    journal(&path);
    let target = Running::start(&[]);
    let ask = |at| request(&path, at, &target, None);
    refused(&ask(When::At(before)), NotInJournal, &["outside", "Restorable:", "LSN 0 to 1", "timeline 2"]);
    refused(
        &ask(When::At(Micros(before.0 + 3_600_000_000))),
        NotInJournal,
        &["later than the journal's end", "--at latest"],
    );
    refused(
        &ask(When::At(inside)),
        NotInJournal,
        &["gap", "the server was replaced", "Nearest", &first_end.to_string()],
    );
    refused(&ask(When::Lsn(redtape_journal::Lsn(99))), NotInJournal, &["LSN 99", "Restorable:"]);
    refused(&ask(When::Mark("x".to_owned())), NotInJournal, &["no mark named \"x\"", "no marks"]);
    assert_eq!(run(&mut target.client(), "DBSIZE"), Value::Int(0));
}

#[test]
fn journals_that_are_none_or_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let target = Running::start(&[]);
    let ask = |path: &Path| request(path, When::Latest, &target, None);
    refused(
        &ask(&dir.path().join("nowhere")),
        Storage(NotAJournal),
        &["there is no journal at", "nowhere; give --from DIR"],
    );
    std::fs::write(dir.path().join("photo.jpg"), "x").unwrap();
    refused(&ask(dir.path()), Storage(NotAJournal), &["not a journal"]);
    let path = dir.path().join("j");
    journal(&path);
    let base = std::fs::read_dir(path.join("snapshots"))
        .unwrap()
        .map(|e| e.unwrap().path())
        .find(|p| p.extension().is_some_and(|e| e == "rdb"))
        .unwrap();
    let sound = std::fs::read(&base).unwrap();
    let mut bad = sound.clone();
    bad[20] ^= 1;
    std::fs::write(&base, &bad).unwrap();
    refused(&ask(&path), Storage(Damaged), &["is damaged", "digest"]);
    std::fs::write(&base, &sound).unwrap();
    let segment = std::fs::read_dir(path.join("segments")).unwrap().next().unwrap().unwrap().path();
    let mut bytes = std::fs::read(&segment).unwrap();
    // The value of SET k v.
    let at = bytes.windows(5).position(|w| w == b"\x03SET\x01").unwrap();
    bytes[at + 1] ^= 0xff;
    std::fs::write(&segment, &bytes).unwrap();
    let error = restore(&ask(&path)).unwrap_err();
    assert!([Storage(Damaged), NotInJournal].contains(&error.kind()), "{error}");
    assert_eq!(run(&mut target.client(), "DBSIZE"), Value::Int(0));
}

#[test]
fn a_journal_that_is_damaged_before_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("j");
    let source = Running::start(&[]);
    let mut client = source.client();
    let mut recorder = Recorder::start(&path, &source);
    let mut moments = Vec::new();
    for key in ["first", "needle", "last"] {
        run(&mut client, &format!("SET {key} v"));
        moments.push(recorder.catch_up());
    }
    // As kill -9 leaves it: no footer.
    drop(recorder);
    let segment = std::fs::read_dir(path.join("segments")).unwrap().next().unwrap().unwrap().path();
    let mut bytes = std::fs::read(&segment).unwrap();
    let at = bytes.windows(6).position(|w| w == b"needle").unwrap();
    bytes[at..at + 2].copy_from_slice(b"XX");
    std::fs::write(&segment, &bytes).unwrap();
    let target = Running::start(&[]);
    let ask = |at| request(&path, at, &target, None);
    let end = moments[0].to_string();
    let words = [&format!("damaged after {end}"), "journal verify", &format!("use --at {end}")];
    refused(&ask(When::Latest), Storage(Damaged), &words);
    refused(&ask(When::At(moments[2])), NotInJournal, &words);
    refused(&ask(When::Lsn(redtape_journal::Lsn(3))), NotInJournal, &words);
    assert_eq!(run(&mut target.client(), "DBSIZE"), Value::Int(0));
    // What is advised works, and does not pretend.
    let (plan, report) = restore(&ask(end.parse().unwrap())).unwrap();
    assert_eq!((report.keys[&0], report.lsn), (1, 1));
    assert!(plan.warnings.iter().any(|w| w.contains("at offset")), "{:?}", plan.warnings);
}

/// As between the base and the first segment: the copy is there, and what came behind it is not yet.
#[test]
fn a_base_alone_is_not_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("j");
    let source = Running::start(&[]);
    run(&mut source.client(), "SET k v");
    Recorder::start(&path, &source).finish();
    for segment in std::fs::read_dir(path.join("segments")).unwrap() {
        std::fs::remove_file(segment.unwrap().path()).unwrap();
    }
    let target = Running::start(&[]);
    let (_, report) = restore(&request(&path, When::Latest, &target, None)).unwrap();
    assert_eq!((report.keys[&0], report.lsn), (1, 0));
    assert_eq!(run(&mut target.client(), "GET k"), Value::Bytes(b"v".to_vec()));
}

#[test]
fn the_recorded_server_itself_is_pointed_out() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("j");
    let source = Running::start(&[]);
    let mut client = source.client();
    let mut recorder = Recorder::start(&path, &source);
    run(&mut client, "SET k v");
    recorder.catch_up();
    run(&mut client, "FLUSHALL");
    let plan = |via| {
        let wanted = request(&path, When::Lsn(redtape_journal::Lsn(1)), &source, via);
        prepare(&wanted, &mut Silent).unwrap().plan().clone()
    };
    // A copy lets its history go on.
    assert_eq!(plan(None).method, redtape_restore::Method::Scratch);
    let warnings = plan(Some(ForcedMethod::Link)).warnings;
    assert!(warnings.len() == 1 && warnings[0].contains("this is the server that the journal follows"), "{warnings:?}");
}

#[test]
fn targets_that_cannot_be() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("j");
    journal(&path);
    let target = Running::start(&["--requirepass", "sesame"]);
    let ask = |to: &str| {
        let mut request = request(&path, When::Latest, &target, None);
        request.to = Target::Server(to.parse().unwrap());
        request
    };
    let port = target.port;
    refused(&ask("redis://127.0.0.1:1"), Unavailable, &["cannot reach 127.0.0.1:1"]);
    refused(&ask("rediss://127.0.0.1:1"), Unavailable, &["cannot reach 127.0.0.1:1"]);
    refused(&ask("redis://127.0.0.1:1/3"), Usage, &["--db"]);
    refused(&ask(&format!("redis://127.0.0.1:{port}")), Denied, &["NOAUTH"]);
    refused(
        &ask(&format!("redis://:wrong-one@127.0.0.1:{port}")),
        Denied,
        &["refuses the login", "REDTAPE_TO_PASSWORD"],
    );
    let error = restore(&ask(&format!("redis://:wrong-one@127.0.0.1:{port}"))).unwrap_err();
    assert!(!format!("{error} {error:?}").contains("wrong-one"));

    let right = format!("redis://:sesame@127.0.0.1:{port}");
    let mut client = redtape_restore::client::Server::connect(&right.parse().unwrap()).unwrap();
    if version().has_redis(7, 0) {
        run(&mut client, "ACL SETUSER weak on >pw ~* +ping +info +config|get +command +select +client +function|list");
        refused(&ask(&format!("redis://weak:pw@127.0.0.1:{port}")), Denied, &["NOPERM"]);
    }
    run(&mut client, "SET other 1");
    refused(&ask(&right), Occupied, &["not empty", "1 key in db 0", "--key"]);
    run(&mut client, "FLUSHALL");
    run(&mut client, "REPLICAOF 127.0.0.1 1");
    refused(&ask(&right), Unavailable, &["replica of 127.0.0.1:1", "REPLICAOF NO ONE"]);
    run(&mut client, "REPLICAOF NO ONE");

    // The right password: it works, with the plan first.
    let prepared = prepare(&ask(&right), &mut Silent).unwrap();
    assert!(!prepared.plan().to_string().contains("sesame"));
    assert_eq!(run(&mut client, "DBSIZE"), Value::Int(0));
    assert_eq!(prepared.run(&mut Silent).unwrap().keys[&0], 1);
    assert_eq!(run(&mut client, "GET k"), Value::Bytes(b"v".to_vec()));
}

#[test]
fn scratch_servers_that_are_missing_or_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("j");
    journal(&path);
    let target = Running::start(&[]);
    let mut ask = request(&path, When::Latest, &target, Some(ForcedMethod::Scratch));
    ask.server_bin = Some(PathBuf::from("/nowhere/redis-server"));
    refused(&ask, Unavailable, &["/nowhere/redis-server", "--server-bin"]);
    ask.server_bin = Some(PathBuf::from("/bin/true"));
    refused(&ask, Unavailable, &["/bin/true is not a redis-server"]);
    let old = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.servers/redis-6.0/redis-server");
    if old.exists() && version().has_redis(7, 0) {
        ask.server_bin = Some(old);
        refused(&ask, Unavailable, &["does not load"]);
    }
    assert_eq!(run(&mut target.client(), "DBSIZE"), Value::Int(0));
}

#[test]
fn targets_that_are_too_old() {
    let old = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.servers/redis-6.0/redis-server");
    if !old.exists() || !version().has_redis(7, 0) {
        println!("needs .servers/redis-6.0 (make compat)");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("j");
    journal(&path);
    let target = Running::start_binary(&old, &[], false);
    refused(
        &request(&path, When::Latest, &target, None),
        Unavailable,
        &["Redis 6.0", "does not load the base", "at least as new"],
    );
    refused(
        &request(&path, When::Latest, &target, Some(ForcedMethod::Scratch)),
        Unavailable,
        &["does not load the base"],
    );
    assert_eq!(run(&mut target.client(), "DBSIZE"), Value::Int(0));
}

#[test]
fn a_link_that_fails_leaves_the_target_as_it_was() {
    if !version().has_redis(7, 0) {
        println!("servers before 7.0 do not count errors of their link");
        return;
    }
    let source = Running::start(&[]);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("j");
    let mut client = source.client();
    let mut recorder = Recorder::start(&path, &source);
    run(&mut client, "RPUSH list a");
    recorder.catch_up();
    recorder.inject("INCR list");
    recorder.catch_up();
    let target = Running::start(&[]);
    refused(
        &request(&path, When::Latest, &target, Some(ForcedMethod::Link)),
        Unavailable,
        // Where a scratch server goes first, the target was never touched.
        &[
            "refused 1 of the journal's commands",
            if version().has_field_ttl() { "the scratch server" } else { "emptied again" },
        ],
    );
    let mut target_client = target.client();
    let info = target_client.info(None).unwrap();
    assert_eq!((info.get("role"), info.keyspace().len()), (Some("master"), 0));
    assert_eq!(run(&mut target_client, "SET writable 1"), Value::Status("OK".to_owned()));
    run(&mut target_client, "DEL writable");

    recorder.inject("NOSUCHCOMMAND x");
    recorder.catch_up();
    recorder.finish();
    refused(
        &request(&path, When::Latest, &target, Some(ForcedMethod::Link)),
        Unavailable,
        &[if version().has_field_ttl() { "the scratch server" } else { "does not know NOSUCHCOMMAND" }],
    );
    assert_eq!(run(&mut target_client, "DBSIZE"), Value::Int(0));
}
