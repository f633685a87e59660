//! Repairs of a live server where something comes in between: interruptions, other servers, other policies. What the undo file says is
//! what was done, no more and no less.
#![allow(clippy::unwrap_used)]

mod support;

use std::path::{Path, PathBuf};

use redtape_journal::query::When;
use redtape_journal::undo_file::{Operation, OperationId, StateDir, UndoEntry, UndoReader, UndoTarget};
use redtape_journal::{Keyring, Micros};
use redtape_restore::client::{Server, Value, text};
use redtape_restore::target::pieces::name::temporary_name;
use redtape_restore::target::repair::{OnConflict, Outcome, Policy};
use redtape_restore::undo::{UndoRequest, prepare_undo};
use redtape_restore::{Filter, Interrupt, Limits, Observer, Request, RestoreError, Silent, prepare};
use support::record::Recorder;
use support::{AtStep, Running, request, run, version};

/// A recorded server, and the point in time before an accident.
struct Recorded {
    server: Running,
    folder: tempfile::TempDir,
    at: When,
}

impl Recorded {
    /// Records `before`, then `after`.
    fn new(before: &[&str], after: &[&str]) -> Self {
        let debug: &[&str] = if version().has_redis(7, 0) { &["--enable-debug-command", "yes"] } else { &[] };
        let server = Running::start(debug);
        let folder = tempfile::tempdir().unwrap();
        let mut client = server.client();
        let mut recorder = Recorder::start(&folder.path().join("j"), &server);
        for line in before {
            run(&mut client, line);
        }
        let at = When::At(recorder.catch_up());
        for line in after {
            run(&mut client, line);
        }
        recorder.catch_up();
        recorder.finish();
        Self { server, folder, at }
    }

    fn repair(&self, glob: &str, policy: Policy) -> Request {
        let filter = Filter::new(&[glob], &[], &[]).unwrap();
        let state_dir = Some(self.folder.path().join("state"));
        let dir = self.folder.path().join("j");
        // So that few keys are written at once, and an interruption finds others left.
        let rate = Some(40_000);
        Request { filter, repair: Some(policy), state_dir, rate, ..request(&dir, self.at.clone(), &self.server, None) }
    }

    /// Undo files of repairs, in the order of their numbers.
    fn undo_files(&self) -> Vec<PathBuf> {
        let mut found = files_below(&self.folder.path().join("state"));
        found.sort_by_key(|path| (path.to_string_lossy().len(), path.clone()));
        found
    }

    fn undo(&self, file: &Path, replace: bool) -> Outcome {
        let request = UndoRequest {
            file: file.to_owned(),
            keyring: Keyring::default(),
            to: self.server.url().parse().unwrap(),
            replace,
            state_dir: Some(self.folder.path().join("undo-state")),
            interrupt: Interrupt::default(),
            limits: Limits::default(),
        };
        prepare_undo(request).unwrap().run(&mut Silent).unwrap()
    }
}

fn files_below(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files_below(&path));
        } else if path.extension().is_some_and(|e| e == "undo") {
            found.push(path);
        }
    }
    found
}

fn policy(on_conflict: OnConflict) -> Policy {
    Policy { on_conflict, ..Policy::default() }
}

fn do_it_seen(request: &Request, observer: &mut dyn Observer) -> Result<Outcome, RestoreError> {
    Ok(prepare(request, &mut Silent)?.run(observer)?.repair.unwrap())
}

fn do_it(request: &Request) -> Result<Outcome, RestoreError> {
    do_it_seen(request, &mut Silent)
}

/// A run whose writes the target refuses as soon as this many keys were written.
fn interrupted_after(recorded: &Recorded, request: &Request, keys: u64) {
    let mut client = recorded.server.client();
    let mut refuse = AtStep::new("writing keys", keys, || drop(run(&mut client, "CONFIG SET min-replicas-to-write 1")));
    let refused = do_it_seen(request, &mut refuse).unwrap_err();
    assert!(refused.to_string().contains("NOREPLICAS"), "{refused}");
    run(&mut recorded.server.client(), "CONFIG SET min-replicas-to-write 0");
}

#[test]
fn two_interrupted_runs_lose_no_doubtful_key() {
    const KEYS: usize = 6000;
    let lines: Vec<String> = (0..KEYS).map(|n| format!("SET k:{n} {n}")).collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let recorded = Recorded::new(&lines, &["FLUSHALL"]);
    let mut client = recorded.server.client();
    let request = recorded.repair("k:*", policy(OnConflict::Replace));
    interrupted_after(&recorded, &request, 0);
    assert_eq!(run(&mut client, "DBSIZE"), Value::Int(1));
    interrupted_after(&recorded, &request, 1);
    let outcome = do_it(&request).unwrap();
    assert_eq!(run(&mut client, "DBSIZE"), Value::Int(KEYS as i64));
    assert_eq!(outcome.created + outcome.equal + outcome.done_before, KEYS as u64, "{outcome:?}");
    assert!(outcome.done_before > 0 && outcome.left == 0, "{outcome:?}");
    let files = recorded.undo_files();
    assert_eq!(files.len(), 1);
    assert_eq!(recorded.undo(&files[0], false).left, 0);
    assert_eq!(run(&mut client, "DBSIZE"), Value::Int(0));
}

#[test]
fn a_repair_that_was_interrupted_and_undone_begins_anew() {
    let lines: Vec<String> = (0..5000).map(|n| format!("SET k:{n} {n}")).collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let recorded = Recorded::new(&lines, &["FLUSHALL"]);
    let mut client = recorded.server.client();
    let request = recorded.repair("k:*", policy(OnConflict::Replace));
    interrupted_after(&recorded, &request, 1);
    let undone = recorded.undo(&recorded.undo_files()[0], false);
    assert_eq!(undone.left, 0, "{:?}", undone.listed);
    assert_eq!(run(&mut client, "DBSIZE"), Value::Int(0), "the marker is gone, too");
    let outcome = do_it(&request).unwrap();
    assert_eq!((outcome.created, outcome.done_before), (5000, 0));
    assert_eq!(run(&mut client, "DBSIZE"), Value::Int(5000));
    assert_eq!(recorded.undo_files().len(), 2);
}

#[test]
fn what_a_restarted_target_has_lost_is_written_again() {
    let lines: Vec<String> = (0..5000).map(|n| format!("SET k:{n} {n}")).collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let recorded = Recorded::new(&lines, &["FLUSHALL"]);
    let mut client = recorded.server.client();
    let request = recorded.repair("k:*", policy(OnConflict::Replace));
    interrupted_after(&recorded, &request, 1);
    // As a server that was restarted: it has lost what was not saved, and has another history.
    run(&mut client, "FLUSHALL");
    run(&mut client, "DEBUG CHANGE-REPL-ID");
    let outcome = do_it(&request).unwrap();
    assert_eq!((outcome.created, outcome.done_before), (5000, 0));
    assert_eq!(run(&mut client, "DBSIZE"), Value::Int(5000));
}

#[test]
fn a_name_that_was_there_is_not_deleted_by_the_undo_of_a_repair_that_did_not_write_it() {
    let recorded = Recorded::new(
        &["SET k:1 old", "SET k:2 old", "SET k:3 old"],
        &["SET k:1 new", "SET k:2 new", "SET k:3 new", "SET bak:k:1 old", "SET bak:k:2 mine"],
    );
    let mut client = recorded.server.client();
    let renamed = Policy { name_template: "bak:{key}".parse().unwrap(), ..policy(OnConflict::Rename) };
    let outcome = do_it(&recorded.repair("k:*", renamed)).unwrap();
    assert_eq!((outcome.renamed, outcome.equal, outcome.left), (1, 1, 1), "{outcome:?}");
    let undone = recorded.undo(&recorded.undo_files()[0], true);
    assert_eq!((undone.deleted, undone.left), (1, 0), "{undone:?}");
    let kept = ["GET bak:k:1", "GET bak:k:2"].map(|line| text(&run(&mut client, line)));
    assert_eq!(kept, ["old", "mine"]);
    assert_eq!(run(&mut client, "EXISTS bak:k:3"), Value::Int(0));
}

#[test]
fn keys_stored_under_other_names_are_not_deleted_as_absent_ones() {
    let recorded = Recorded::new(&["SET k:1 old"], &["SET k:1 new", "SET k:added 1"]);
    let mut client = recorded.server.client();
    let both = Policy { delete_absent: true, ..policy(OnConflict::Rename) };
    for deleted in [1, 0] {
        let outcome = do_it(&recorded.repair("k:*", both.clone())).unwrap();
        assert_eq!(outcome.deleted, deleted, "{outcome:?}");
        let Value::Array(names) = run(&mut client, "KEYS k:1:restored:*") else { panic!("KEYS") };
        assert_eq!(text(&run(&mut client, &format!("GET {}", text(&names[0])))), "old");
    }
}

#[test]
fn a_changed_container_is_not_merged_with_if_unchanged() {
    let recorded = Recorded::new(&["SADD k:a 1 2", "SADD k:b 1 2"], &["SREM k:a 1", "SREM k:b 1"]);
    let mut client = recorded.server.client();
    run(&mut client, "SADD k:b since");
    let unchanged =
        Request { unchanged_since: Some(When::Latest), ..recorded.repair("k:*", policy(OnConflict::Merge)) };
    let outcome = do_it(&unchanged).unwrap();
    assert_eq!((outcome.merged, outcome.left), (1, 1), "{outcome:?}");
    assert_eq!(run(&mut client, "SISMEMBER k:b 1"), Value::Int(0));
    assert_eq!(run(&mut client, "SISMEMBER k:a 1"), Value::Int(1));
}

#[test]
fn times_of_expiry_are_undone_once_and_replaced_when_asked_for() {
    let recorded = Recorded::new(
        &["SET k:1 x PXAT 33000000000000", "SET k:2 x", "SET k:3 x PXAT 33000000000000"],
        &["PERSIST k:1", "PEXPIREAT k:2 33000000000000", "SET k:3 x PXAT 34000000000000"],
    );
    let mut client = recorded.server.client();
    let outcome = do_it(&recorded.repair("k:*", policy(OnConflict::Replace))).unwrap();
    assert_eq!((outcome.ttl_set, outcome.left), (3, 0), "{outcome:?}");
    let file = &recorded.undo_files()[0];
    for expected in [(3, 0), (0, 3)] {
        let undone = recorded.undo(file, false);
        assert_eq!((undone.ttl_set, undone.equal, undone.left), (expected.0, expected.1, 0), "{undone:?}");
    }
    run(&mut client, "EXPIRE k:1 1000");
    assert_eq!(recorded.undo(file, false).left, 1);
    let undone = recorded.undo(file, true);
    assert_eq!((undone.ttl_set, undone.left), (1, 0), "{undone:?}");
    assert_eq!(run(&mut client, "PTTL k:1"), Value::Int(-1));
}

#[test]
fn keys_that_expire_at_the_same_time_are_equal() {
    let lines: Vec<String> = (0..500).map(|n| format!("SET k:{n} {n} EX {}", 5000 + n)).collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let recorded = Recorded::new(&lines, &["EXPIRE k:0 9000"]);
    let prepared = prepare(&recorded.repair("k:*", policy(OnConflict::Replace)), &mut Silent).unwrap();
    let survey = prepared.plan().repair.clone().unwrap().survey;
    assert_eq!((survey.equal, survey.ttl_only), (499, 1));
    let outcome = prepared.run(&mut Silent).unwrap().repair.unwrap();
    assert_eq!((outcome.equal, outcome.ttl_set), (499, 1), "{outcome:?}");
}

#[test]
fn what_has_expired_since_is_gone_after_an_undo() {
    let recorded = Recorded::new(&["SET k:1 old", "SET k:2 same"], &["SET k:1 new", "EXPIRE k:2 1000"]);
    let mut client = recorded.server.client();
    let prepared = prepare(&recorded.repair("k:*", policy(OnConflict::Replace)), &mut Silent).unwrap();
    // It is about to expire when the repair comes.
    let expires = Micros::now().0 / 1000 + 3000;
    run(&mut client, &format!("PEXPIREAT k:1 {expires}"));
    run(&mut client, &format!("PEXPIREAT k:2 {expires}"));
    let outcome = prepared.run(&mut Silent).unwrap().repair.unwrap();
    assert_eq!((outcome.replaced, outcome.ttl_set), (1, 1), "{outcome:?}");
    while Micros::now().0 / 1000 <= expires {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    assert_eq!(["GET k:1", "GET k:2"].map(|line| text(&run(&mut client, line))), ["old", "same"]);
    let undone = recorded.undo(&recorded.undo_files()[0], false);
    assert_eq!((undone.deleted, undone.left), (2, 0), "{undone:?}");
    assert_eq!(run(&mut client, "EXISTS k:1 k:2"), Value::Int(0), "as if nothing had been repaired");
    // What the undo has removed is in its own undo file.
    let undo_of_undo = &files_below(&recorded.folder.path().join("undo-state"))[0];
    assert_eq!(recorded.undo(undo_of_undo, false).left, 0);
    assert_eq!(["GET k:1", "GET k:2"].map(|line| text(&run(&mut client, line))), ["old", "same"]);
}

/// An undo file as a killed run leaves it: what is in `entries`, and nothing behind it.
fn left_file(recorded: &Recorded, entries: &[UndoEntry<'_>]) -> PathBuf {
    let operation = Operation {
        journal_id: "6a6f75726e616c20696e207465737473".to_owned(),
        id: OperationId::derive(&[]),
        target: UndoTarget { address: format!("127.0.0.1:{}", recorded.server.port), replication_id: String::new() },
        created: Micros::now(),
        what: "a repair that was killed".to_owned(),
    };
    let state_dir = StateDir::new(recorded.folder.path().join("killed"));
    let mut writer = state_dir.begin(&operation, &Keyring::default()).unwrap().writer;
    for entry in entries {
        writer.append(entry).unwrap();
    }
    writer.sync().unwrap();
    writer.path().to_owned()
}

#[test]
fn a_value_that_a_killed_run_moved_aside_is_put_back() {
    let recorded = Recorded::new(&["SET k:1 old"], &[]);
    let mut client = recorded.server.client();
    // What it holds as the repair wrote it: the digest is in the undo file of one that was not killed.
    run(&mut client, "SET k:1 new");
    do_it(&recorded.repair("k:1", policy(OnConflict::Replace))).unwrap();
    let mut reader = UndoReader::open(&recorded.undo_files()[0], &Keyring::default()).unwrap();
    let UndoEntry::Value { written, .. } = reader.next_entry().unwrap().unwrap().entry else { panic!("no value") };
    drop(reader);
    let id = "7f".repeat(16).parse().unwrap();
    // What takes its place has the next number.
    let temporary = |key: &str, number| String::from_utf8(temporary_name(key.as_bytes(), &id, number)).unwrap();
    let moved = |key: &str, written| UndoEntry::Moved {
        db: 0,
        key: key.as_bytes().to_vec().into(),
        temporary: temporary(key, 2).into_bytes().into(),
        written,
    };
    for line in [
        format!("SET {} new PX 5000000", temporary("k:1", 2)),
        format!("SET {} x", temporary("k:1", 3)),
        "SET k:2 since".to_owned(),
        format!("SET {} before", temporary("k:2", 2)),
        format!("RPUSH {} deleted", temporary("k:3", 2)),
        "SET k:4 never-moved".to_owned(),
    ] {
        run(&mut client, &line);
    }
    let entries = [moved("k:1", written), moved("k:2", written), moved("k:3", [0; 16]), moved("k:4", written)];
    let file = left_file(&recorded, &entries);
    let undone = recorded.undo(&file, false);
    assert_eq!((undone.replaced, undone.created), (1, 1), "{undone:?}");
    assert_eq!(
        ["GET k:1", "GET k:2", "GET k:4"].map(|line| text(&run(&mut client, line))),
        ["new", "since", "never-moved"]
    );
    assert!(matches!(run(&mut client, "PTTL k:1"), Value::Int(1..=5_000_000)));
    assert_eq!(text(&run(&mut client, "LINDEX k:3 0")), "deleted");
    // What a client has written since stays, and what was there before is not lost: it is named.
    let kept = temporary("k:2", 2);
    assert!(undone.listed.iter().any(|left| left.key == format!("\"{kept}\"")), "{undone:?}");
    assert_eq!(run(&mut client, "KEYS redtape:*"), Value::Array(vec![Value::Bytes(kept.into_bytes())]));
}

#[test]
fn fields_that_expire_are_compared_and_undone_with_their_times() {
    if !version().has_field_ttl() {
        return;
    }
    let recorded = Recorded::new(
        &[
            "HSET k:short a 1 b 2",
            "HPEXPIRE k:short 200 FIELDS 1 a",
            "HSET k:all a 1",
            "HPEXPIRE k:all 200 FIELDS 1 a",
            "HSET k:long a 1 b 2",
            "HPEXPIREAT k:long 33000000000000 FIELDS 1 a",
            "HSET k:long2 a 1 b 2",
            "HPEXPIREAT k:long2 33000000000000 FIELDS 1 a",
        ],
        &["HSET k:long a BROKEN", "HDEL k:long2 a"],
    );
    let mut client = recorded.server.client();
    std::thread::sleep(std::time::Duration::from_millis(250));
    run(&mut client, "SET k:all other");
    let outcome = do_it(&recorded.repair("k:*", policy(OnConflict::Merge))).unwrap();
    assert_eq!((outcome.equal, outcome.expired, outcome.elements, outcome.left), (1, 1, 1, 1), "{outcome:?}");
    let expiry = |client: &mut Server, key: &str| run(client, &format!("HPEXPIRETIME {key} FIELDS 1 a"));
    let at = |at| Value::Array(vec![Value::Int(at)]);
    assert_eq!(expiry(&mut client, "k:long2"), at(33_000_000_000_000));
    let merged = &recorded.undo_files()[0];
    assert_eq!(recorded.undo(merged, false).elements, 1);
    assert_eq!(run(&mut client, "HEXISTS k:long2 a"), Value::Int(0));
    // The undo of that brings the time of expiry back, too.
    let undo_of_undo = &files_below(&recorded.folder.path().join("undo-state"))[0];
    assert_eq!(recorded.undo(undo_of_undo, false).elements, 1);
    assert_eq!(expiry(&mut client, "k:long2"), at(33_000_000_000_000));
    assert_eq!(recorded.undo(undo_of_undo, false).equal, 1);
    run(&mut client, "HPERSIST k:long2 FIELDS 1 a");
    assert_eq!(recorded.undo(undo_of_undo, false).left, 1, "another time of expiry is a change");
    assert_eq!(recorded.undo(undo_of_undo, true).elements, 1);
    assert_eq!(expiry(&mut client, "k:long2"), at(33_000_000_000_000));
}

#[test]
fn an_element_that_is_gone_with_its_container_needs_no_undo() {
    let recorded = Recorded::new(&["SADD k:s 1 2", "HSET k:h a 1 b 2"], &["SREM k:s 1", "HDEL k:h a"]);
    let mut client = recorded.server.client();
    assert_eq!(do_it(&recorded.repair("k:*", policy(OnConflict::Merge))).unwrap().elements, 2);
    run(&mut client, "DEL k:s");
    run(&mut client, "SET k:h other");
    let undone = recorded.undo(&recorded.undo_files()[0], false);
    assert_eq!((undone.equal, undone.left), (2, 0), "{undone:?}");
}

#[test]
fn a_restored_key_that_is_gone_at_the_end_is_told_beside_keys_that_stay() {
    let recorded = Recorded::new(
        &["SADD k:s 1 2", "SET k:1 x EX 100000", "SET k:2 x"],
        &["SADD k:s bad", "SREM k:s 1", "DEL k:1 k:2"],
    );
    let mut client = recorded.server.client();
    run(&mut client, "SET k:2 other");
    // Of the keys, this one alone can be evicted; another one stays as it is.
    let mut evict = AtStep::new("writing keys", 3, || {
        run(&mut client, "CONFIG SET maxmemory-policy volatile-ttl");
        run(&mut client, "CONFIG SET maxmemory 1");
    });
    let prepared = prepare(&recorded.repair("k:*", policy(OnConflict::Merge)), &mut Silent).unwrap();
    let lost = prepared.run(&mut evict).unwrap_err();
    assert!(evict.reached());
    assert!(matches!(lost, RestoreError::Lost { lost: 1, .. }), "{lost}");
    run(&mut client, "CONFIG SET maxmemory 0");
    let outcome = do_it(&recorded.repair("k:*", policy(OnConflict::Merge))).unwrap();
    assert_eq!((outcome.created, outcome.left), (1, 1), "{outcome:?}");
}

#[test]
fn what_the_target_has_evicted_is_written_by_the_next_run() {
    const KEYS: usize = 3000;
    let padding = "x".repeat(1000);
    let lines: Vec<String> = (0..KEYS).map(|n| format!("SET k:{n} {padding}")).collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let recorded = Recorded::new(&lines, &["FLUSHALL"]);
    let mut client = recorded.server.client();
    let request = recorded.repair("k:*", policy(OnConflict::Replace));
    let prepared = prepare(&request, &mut Silent).unwrap();
    let used = client.info(Some("memory")).unwrap().number("used_memory").unwrap();
    // Before the first write there is room.
    let mut shrink = AtStep::new("writing keys", 0, || {
        run(&mut client, "CONFIG SET maxmemory-policy allkeys-random");
        run(&mut client, &format!("CONFIG SET maxmemory {}", used + (1 << 20)));
    });
    let lost = prepared.run(&mut shrink).unwrap_err();
    assert!(matches!(lost, RestoreError::Lost { .. }), "{lost}");
    run(&mut client, "CONFIG SET maxmemory 0");
    let outcome = do_it(&request).unwrap();
    assert_eq!((outcome.created + outcome.equal, outcome.done_before), (KEYS as u64, 0), "{outcome:?}");
    assert_eq!(run(&mut client, "DBSIZE"), Value::Int(KEYS as i64));
}

#[test]
fn a_container_that_only_has_more_is_counted() {
    let recorded = Recorded::new(&["SADD k:s 1 2"], &["SADD k:s more"]);
    let outcome = do_it(&recorded.repair("k:*", policy(OnConflict::Merge))).unwrap();
    assert_eq!((outcome.equal, outcome.written(), outcome.left), (1, 0, 0), "{outcome:?}");
}

/// Clients create keys while batches of new keys are under way to the target.
fn created_by_others_meanwhile(on_conflict: OnConflict) {
    const KEYS: usize = 12_000;
    let lines: Vec<String> = (0..KEYS).map(|n| format!("SET k:{n} {n}")).collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let recorded = Recorded::new(&lines, &["FLUSHALL"]);
    let (mut client, mut other) = (recorded.server.client(), recorded.server.client());
    let mut theirs = Vec::new();
    let mut create = AtStep::new("writing keys", 1, || {
        for n in (0..KEYS).step_by(7) {
            if run(&mut other, &format!("SETNX k:{n} theirs")) == Value::Int(1) {
                theirs.push(n);
            }
        }
    });
    let request = Request { rate: None, ..recorded.repair("k:*", policy(on_conflict)) };
    let outcome = do_it_seen(&request, &mut create).unwrap();
    assert!(create.reached());
    assert!(!theirs.is_empty() && theirs.len() < KEYS / 7, "{} keys came in between", theirs.len());
    let replaced = on_conflict == OnConflict::Replace;
    for n in 0..KEYS {
        let expected = if theirs.binary_search(&n).is_ok() && !replaced { "theirs".to_owned() } else { n.to_string() };
        assert_eq!(text(&run(&mut client, &format!("GET k:{n}"))), expected, "k:{n}");
    }
    let theirs = theirs.len() as u64;
    assert_eq!((outcome.created, outcome.left), (KEYS as u64 - theirs, 0), "{outcome:?}");
    assert_eq!((outcome.replaced, outcome.skipped), if replaced { (theirs, 0) } else { (0, theirs) }, "{outcome:?}");
    // What others have created is neither taken for the repair's own, nor lost.
    assert_eq!(recorded.undo(&recorded.undo_files()[0], false).left, 0);
    assert_eq!(run(&mut client, "DBSIZE"), Value::Int(theirs as i64));
    assert_eq!(run(&mut client, "EXISTS k:11999"), Value::Int(0));
}

#[test]
fn what_others_create_while_batches_are_under_way_is_skipped() {
    created_by_others_meanwhile(OnConflict::Skip);
}

#[test]
fn what_others_create_while_batches_are_under_way_is_replaced_and_can_be_put_back() {
    created_by_others_meanwhile(OnConflict::Replace);
}

#[test]
fn a_target_that_refuses_with_batches_under_way_is_filled_by_the_next_run() {
    const KEYS: usize = 12_000;
    let lines: Vec<String> = (0..KEYS).map(|n| format!("SET k:{n} {n}")).collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let recorded = Recorded::new(&lines, &["FLUSHALL"]);
    let request = Request { rate: None, ..recorded.repair("k:*", policy(OnConflict::Skip)) };
    interrupted_after(&recorded, &request, 1);
    let mut client = recorded.server.client();
    let Value::Int(written) = run(&mut client, "DBSIZE") else { panic!("DBSIZE") };
    assert!(written >= 256 && written < KEYS as i64, "{written}");
    let outcome = do_it(&request).unwrap();
    assert!(outcome.done_before >= 256, "{outcome:?}");
    for n in 0..KEYS {
        assert_eq!(text(&run(&mut client, &format!("GET k:{n}"))), n.to_string(), "k:{n}");
    }
    assert_eq!(recorded.undo(&recorded.undo_files()[0], false).left, 0);
    assert_eq!(run(&mut client, "DBSIZE"), Value::Int(0));
}
