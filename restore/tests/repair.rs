//! Wanted keys into a live server that holds others: each policy, hot keys, interruptions, and the undo of all of it.
#![allow(clippy::unwrap_used)]

mod support;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use redtape_journal::Keyring;
use redtape_journal::query::When;
use redtape_restore::client::{Server, Value, text};
use redtape_restore::target::repair::{OnConflict, Outcome, Policy, TtlPolicy};
use redtape_restore::undo::{UndoRequest, prepare_undo};
use redtape_restore::{ErrorKind, Filter, Interrupt, Limits, Request, RestoreError, Silent, prepare};
use support::record::Recorder;
use support::{Running, assert_same, request, run, state, version};

/// A server, what it held at a moment, and what an accident has made of it.
struct Accident {
    server: Running,
    folder: tempfile::TempDir,
    /// The last record before the accident.
    at: When,
    /// Before it, and after it.
    before: Vec<String>,
    after: Vec<String>,
}

impl Accident {
    fn dir(&self) -> PathBuf {
        self.folder.path().join("j")
    }

    /// A repair of keys that match a glob.
    fn repair(&self, glob: &str, policy: Policy) -> Request {
        let filter = Filter::new(&[glob], &[], &[]).unwrap();
        let state_dir = Some(self.folder.path().join("state"));
        Request { filter, repair: Some(policy), state_dir, ..request(&self.dir(), self.at.clone(), &self.server, None) }
    }

    fn undo_files(&self) -> Vec<PathBuf> {
        files_below(&self.folder.path().join("state"))
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

/// Values of all types; the accident changes some of each, deletes some, adds some.
fn accident() -> Accident {
    let server = Running::start(&["--enable-debug-command", "yes"]);
    let folder = tempfile::tempdir().unwrap();
    let mut client = server.client();
    let mut recorder = Recorder::start(&folder.path().join("j"), &server);
    for n in 0..300 {
        run(&mut client, &format!("SET k:s:{n} value{n}"));
        run(&mut client, &format!("HSET k:h:{n} a {n} b {} kept 0", n * 2));
    }
    run(&mut client, "SADD k:set a b c d");
    run(&mut client, "ZADD k:z 1.5 a -inf b 3 c");
    run(&mut client, "RPUSH k:l 1 2 3");
    run(&mut client, "XADD k:x 5-1 f v");
    run(&mut client, "SET k:ttl x");
    run(&mut client, "SET k:nottl x EX 100000");
    run(&mut client, "SET other 1");
    run(&mut client, "SELECT 3");
    run(&mut client, "SET k:three 3");
    run(&mut client, "SELECT 0");
    if version().has_redis(7, 0) {
        let code = "#!lua name=lib\nredis.register_function('f', function() return 1 end)";
        client.call(&["FUNCTION", "LOAD", code]).unwrap();
    }
    let at = When::At(recorder.catch_up());
    let before = state(&mut client);
    for n in (0..300).step_by(3) {
        run(&mut client, &format!("DEL k:s:{n}"));
        run(&mut client, &format!("HSET k:h:{n} a BROKEN new 1"));
    }
    for n in (1..300).step_by(30) {
        run(&mut client, &format!("SET k:s:{n} BROKEN"));
        run(&mut client, &format!("DEL k:h:{n}"));
    }
    for line in [
        "SREM k:set a b",
        "SADD k:set bad",
        "ZADD k:z 9 a",
        "ZREM k:z c",
        "RPUSH k:l BROKEN",
        "XADD k:x 6-1 f BROKEN",
        "EXPIRE k:ttl 5000",
        "PERSIST k:nottl",
        "SET k:added 1",
        "SELECT 3",
        "SET k:three BROKEN",
        "SELECT 0",
    ] {
        run(&mut client, line);
    }
    recorder.catch_up();
    recorder.finish();
    let after = state(&mut client);
    Accident { server, folder, at, before, after }
}

fn policy(on_conflict: OnConflict) -> Policy {
    Policy { on_conflict, ..Policy::default() }
}

fn do_it(request: &Request) -> Result<Outcome, RestoreError> {
    Ok(prepare(request, &mut Silent)?.run(&mut Silent)?.repair.unwrap())
}

#[test]
fn a_repair_that_replaces_and_deletes_brings_the_state_before_and_its_undo_the_state_after() {
    let accident = accident();
    let mut client = accident.server.client();
    let everything = Policy { delete_absent: true, ..policy(OnConflict::Replace) };
    let prepared = prepare(&accident.repair("k:*", everything.clone()), &mut Silent).unwrap();
    let plan = prepared.plan().repair.clone().unwrap();
    assert_eq!((plan.survey.new, plan.survey.absent), (110, 1));
    assert_eq!((plan.survey.different, plan.survey.ttl_only), (10 + 100 + 7, 2));
    assert_same(&accident.after, &state(&mut client), "a plan changes nothing");
    let outcome = prepared.run(&mut Silent).unwrap().repair.unwrap();
    assert_eq!((outcome.created, outcome.replaced, outcome.ttl_set, outcome.deleted), (110, 115, 2, 1));
    assert_eq!((outcome.left, outcome.equal), (0, 607 - 110 - 117));
    assert_same(&accident.before, &state(&mut client), "repaired");
    // Again: nothing is left to do, and the file of the first run stays.
    let again = do_it(&accident.repair("k:*", everything)).unwrap();
    assert_eq!((again.written(), again.equal), (0, 607));
    let files = accident.undo_files();
    assert_eq!(files.len(), 2);
    let first = files.iter().find(|f| !f.to_string_lossy().contains("-2.undo")).unwrap();
    let undone = accident.undo(first, false);
    assert_eq!(undone.left, 0, "{:?}", undone.listed);
    assert_same(&accident.after, &state(&mut client), "undone");
    // The undo of the undo.
    let undo_of_undo = &files_below(&accident.folder.path().join("undo-state"))[0];
    assert_eq!(accident.undo(undo_of_undo, false).left, 0);
    assert_same(&accident.before, &state(&mut client), "undone twice");
}

#[test]
fn what_was_changed_after_a_repair_stays_when_it_is_undone() {
    let accident = accident();
    let mut client = accident.server.client();
    do_it(&accident.repair("k:s:*", policy(OnConflict::Replace))).unwrap();
    run(&mut client, "SET k:s:0 written-since");
    run(&mut client, "SET k:s:1 written-since");
    run(&mut client, "DEL k:s:31");
    let file = &accident.undo_files()[0];
    let undone = accident.undo(file, false);
    assert_eq!(undone.left, 3, "{:?}", undone.listed);
    assert_eq!((undone.deleted, undone.replaced), (99, 8));
    assert_eq!(run(&mut client, "GET k:s:0"), Value::Bytes(b"written-since".to_vec()));
    assert_eq!(run(&mut client, "EXISTS k:s:31"), Value::Int(0));
    // Unless it is asked for.
    assert_eq!(accident.undo(file, true).left, 0);
    assert_same(&accident.after, &state(&mut client), "undone");
}

#[test]
fn each_policy_does_what_it_says() {
    let accident = accident();
    let mut client = accident.server.client();
    let refused = do_it(&accident.repair("k:s:*", policy(OnConflict::Fail))).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Occupied);
    assert!(refused.to_string().starts_with("10 of the wanted keys"), "{refused}");
    assert_same(&accident.after, &state(&mut client), "refused");
    let skipped = do_it(&accident.repair("k:s:*", policy(OnConflict::Skip))).unwrap();
    assert_eq!((skipped.created, skipped.skipped, skipped.left), (100, 10, 0));
    assert_eq!(run(&mut client, "GET k:s:1"), Value::Bytes(b"BROKEN".to_vec()));
    let template = "{key}/{id}".parse().unwrap();
    let renamed = Policy { name_template: template, ..policy(OnConflict::Rename) };
    let outcome = do_it(&accident.repair("k:s:*", renamed)).unwrap();
    assert_eq!((outcome.renamed, outcome.equal), (10, 290));
    let Value::Array(names) = run(&mut client, "KEYS k:s:1/*") else { panic!("KEYS") };
    assert_eq!(run(&mut client, &format!("GET {}", text(&names[0]))), Value::Bytes(b"value1".to_vec()));
    // Elements that are lacking are added; what differs stays, and is listed; what is more stays.
    let merged = do_it(&accident.repair("k:[shz]e*", policy(OnConflict::Merge))).unwrap();
    assert_eq!((merged.merged, merged.elements, merged.left), (1, 2, 0));
    assert_eq!(run(&mut client, "SCARD k:set"), Value::Int(5));
    let merged = do_it(&accident.repair("k:z", policy(OnConflict::Merge))).unwrap();
    assert_eq!((merged.elements, merged.left), (1, 1), "{:?}", merged.listed);
    assert!(merged.listed[0].why.contains("element \"a\""), "{:?}", merged.listed);
    let lists = do_it(&accident.repair("k:l", policy(OnConflict::Merge))).unwrap();
    assert_eq!((lists.left, lists.written()), (1, 0));
    let ttl = Policy { ttl: TtlPolicy::None, ..policy(OnConflict::Replace) };
    do_it(&accident.repair("k:noTTL", ttl.clone())).unwrap_err();
    assert_eq!(do_it(&accident.repair("k:nottl", ttl)).unwrap().equal, 1);
    let remaining = Policy { ttl: TtlPolicy::Remaining, ..policy(OnConflict::Replace) };
    assert_eq!(do_it(&accident.repair("k:nottl", remaining)).unwrap().ttl_set, 1);
    let Value::Int(left) = run(&mut client, "TTL k:nottl") else { panic!("TTL") };
    assert!((99_990..=100_000).contains(&left), "{left}");
}

#[test]
fn a_merge_is_undone_element_by_element() {
    let accident = accident();
    let mut client = accident.server.client();
    let merged = do_it(&accident.repair("k:[sz]*", policy(OnConflict::Merge))).unwrap();
    assert_eq!(merged.elements, 3);
    run(&mut client, "HSET k:h:0 kept 7");
    run(&mut client, "SREM k:set a");
    let undone = accident.undo(&accident.undo_files()[0], false);
    // Its member was removed since: what the repair wrote is not there any more, and what was there before is.
    assert_eq!(undone.left, 0, "{:?}", undone.listed);
    run(&mut client, "HSET k:h:0 kept 0");
    assert_same(&accident.after, &state(&mut client), "undone");
}

/// Clients that write to some keys all the time, until it is dropped.
fn beside<T>(server: &Running, lines: &[&str], work: impl FnOnce() -> T) -> (T, u64) {
    let (stop, written) = (AtomicBool::new(false), AtomicU64::new(0));
    let result = std::thread::scope(|scope| {
        for line in lines {
            let mut client = server.client();
            let (stop, written) = (&stop, &written);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    run(&mut client, line);
                    written.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        while written.load(Ordering::Relaxed) < 100 {
            std::thread::sleep(Duration::from_millis(1));
        }
        let result = work();
        stop.store(true, Ordering::Relaxed);
        result
    });
    (result, written.into_inner())
}

#[test]
fn a_key_that_clients_write_to_all_the_time_is_repaired_and_never_missing() {
    let accident = accident();
    let mut client = accident.server.client();
    run(&mut client, "DEL k:s:1 k:l");
    run(&mut client, "RPUSH k:l first");
    run(&mut client, "SADD k:set bad");
    let mut watcher = accident.server.client();
    let lines = ["APPEND k:s:1 x", "APPEND k:s:1 y", "RPUSH k:l z", "HINCRBY k:h:3 kept 1", "HINCRBY k:h:3 kept 1"];
    let (outcomes, _) = beside(&accident.server, &lines, || {
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let missing = scope.spawn(|| {
                let mut missing = 0;
                while !stop.load(Ordering::Relaxed) {
                    missing += u64::from(run(&mut watcher, "EXISTS k:s:1 k:l k:h:3") != Value::Int(3));
                }
                missing
            });
            let replaced: Vec<Outcome> = ["k:s:1", "k:l", "k:h:3"]
                .iter()
                .map(|key| do_it(&accident.repair(key, policy(OnConflict::Replace))).unwrap())
                .collect();
            stop.store(true, Ordering::Relaxed);
            (replaced, missing.join().unwrap())
        })
    });
    let (replaced, missing) = outcomes;
    assert!(replaced.iter().all(|outcome| (outcome.replaced, outcome.left) == (1, 0)), "{replaced:?}");
    assert_eq!(missing, 0);
    let Value::Bytes(now) = run(&mut client, "GET k:s:1") else { panic!("GET") };
    assert!(now.starts_with(b"value1") && !now.contains(&b'B'), "{}", now.escape_ascii());
    assert_eq!(text(&run(&mut client, "HGET k:h:3 a")), "3");
    assert_eq!(run(&mut client, "KEYS redtape:*"), Value::Array(Vec::new()));
    // What it held when it was replaced is in the undo file.
    for file in accident.undo_files() {
        assert_eq!(accident.undo(&file, true).left, 0);
    }
    let Value::Bytes(undone) = run(&mut client, "GET k:s:1") else { panic!("GET") };
    assert!(undone.iter().all(|byte| [b'x', b'y'].contains(byte)), "{}", undone.escape_ascii());
    assert_eq!(text(&run(&mut client, "LINDEX k:l 0")), "first");
    assert_eq!(text(&run(&mut client, "HGET k:h:3 a")), "BROKEN");
}

#[test]
fn elements_of_a_container_that_clients_write_to_are_repaired_beside_them() {
    let accident = accident();
    let mut client = accident.server.client();
    run(&mut client, "HDEL k:h:3 a b");
    let ((outcome, ()), written) = beside(&accident.server, &["HINCRBY k:h:3 kept 1", "HINCRBY k:h:3 kept 1"], || {
        (do_it(&accident.repair("k:h:3", policy(OnConflict::Merge))).unwrap(), ())
    });
    assert_eq!(outcome.elements, 2);
    let fields = ["a", "b", "kept"].map(|field| text(&run(&mut client, &format!("HGET k:h:3 {field}"))));
    assert_eq!(fields, ["3".to_owned(), "6".to_owned(), written.to_string()]);
}

/// Ends the connections of restores at the server, so long after they are seen.
fn kill_connections(server: &Running, after: Duration) {
    let mut client = server.client();
    let began = Instant::now();
    while !text(&run(&mut client, "CLIENT LIST")).contains("name=redtape-restore") {
        if began.elapsed() > Duration::from_secs(10) {
            return;
        }
    }
    std::thread::sleep(after);
    for line in text(&run(&mut client, "CLIENT LIST")).lines().filter(|line| line.contains("name=redtape-restore")) {
        let id = line.split(' ').next().unwrap().trim_start_matches("id=");
        let _ = client.try_call(&["CLIENT", "KILL", "ID", id]);
    }
}

#[test]
fn a_repair_that_lost_its_target_goes_on() {
    let accident = accident();
    let mut client = accident.server.client();
    let everything = Policy { delete_absent: true, ..policy(OnConflict::Replace) };
    let mut interrupted = 0;
    for attempt in 0..200u64 {
        let prepared = prepare(&accident.repair("k:*", everything.clone()), &mut Silent).unwrap();
        let result = std::thread::scope(|scope| {
            let after = Duration::from_micros(attempt % 40 * 100);
            let server = &accident.server;
            scope.spawn(move || kill_connections(server, after));
            prepared.run(&mut Silent)
        });
        match result {
            Err(error) => {
                interrupted += 1;
                assert!(error.to_string().contains("the connection was lost"), "{error}");
            }
            Ok(report) => {
                assert_eq!(report.repair.unwrap().left, 0);
                if interrupted > 0 {
                    break;
                }
                // It was through before it was seen: once more.
                assert_eq!(accident.undo(&accident.undo_files()[0], false).left, 0);
                std::fs::remove_dir_all(accident.folder.path().join("state")).unwrap();
            }
        }
    }
    assert!(interrupted > 0, "no run was interrupted");
    assert_same(&accident.before, &state(&mut client), "repaired");
    let files = accident.undo_files();
    assert_eq!(files.len(), 1, "{files:?}");
    assert_eq!(accident.undo(&files[0], false).left, 0);
    assert_same(&accident.after, &state(&mut client), "undone");
}

#[test]
fn everything_is_written_beside_others_when_a_policy_is_given() {
    let accident = accident();
    let mut client: Server = accident.server.client();
    run(&mut client, "FLUSHALL");
    if version().has_redis(7, 0) {
        run(&mut client, "FUNCTION FLUSH");
    }
    run(&mut client, "SET k:s:5 written-since");
    let all = Request { filter: Filter::default(), ..accident.repair("*", policy(OnConflict::Skip)) };
    let report = prepare(&all, &mut Silent).unwrap().run(&mut Silent).unwrap();
    assert_eq!(report.functions, usize::from(version().has_redis(7, 0)));
    let outcome = report.repair.unwrap();
    assert_eq!((outcome.created, outcome.skipped), (607, 1));
    run(&mut client, "SET k:s:5 value5");
    assert_same(&accident.before, &state(&mut client), "restored");
}

#[test]
fn only_values_of_the_selected_types_are_written_and_deleted() {
    let accident = accident();
    let mut client = accident.server.client();
    // What a wanted key has become does not matter, nor does what a key is that was no set and no hash then.
    for line in ["SADD k:new-set x", "DEL k:h:2", "SET k:h:2 a-string-now", "DEL k:s:4", "SADD k:s:4 a-set-now"] {
        run(&mut client, line);
    }
    let mut request = accident.repair("k:*", Policy { delete_absent: true, ..policy(OnConflict::Replace) });
    request.filter = request.filter.of_types(["set", "HASH"]);
    let prepared = prepare(&request, &mut Silent).unwrap();
    let survey = prepared.plan().repair.clone().unwrap().survey;
    assert_eq!((survey.wanted[&0], survey.wanted.len(), survey.absent), (301, 1, 1));
    let outcome = prepared.run(&mut Silent).unwrap().repair.unwrap();
    assert_eq!((outcome.created, outcome.replaced, outcome.deleted, outcome.left), (10, 102, 1, 0));
    for (line, held) in [
        ("TYPE k:s:4", "set"),
        ("TYPE k:h:2", "hash"),
        ("TYPE k:new-set", "none"),
        ("GET k:s:2", "value2"),
        ("GET k:s:31", "BROKEN"),
        ("TYPE k:s:0", "none"),
        ("GET k:added", "1"),
    ] {
        assert_eq!(text(&run(&mut client, line)), held, "{line}");
    }
    // The rest as well: all is as it was.
    let all = Policy { delete_absent: true, ..policy(OnConflict::Replace) };
    do_it(&accident.repair("k:*", all)).unwrap();
    assert_same(&accident.before, &state(&mut client), "repaired");
}

#[test]
fn what_was_written_behind_the_accident_stays_where_keys_are_to_be_unchanged() {
    let accident = accident();
    let mut client = accident.server.client();
    run(&mut client, "SET k:s:1 written-since");
    run(&mut client, "SET k:s:3 written-since");
    run(&mut client, "APPEND k:added more");
    let all = Policy { delete_absent: true, ..policy(OnConflict::Replace) };
    let unchanged = Request { unchanged_since: Some(When::Latest), ..accident.repair("k:*", all) };
    let prepared = prepare(&unchanged, &mut Silent).unwrap();
    let survey = prepared.plan().repair.clone().unwrap().survey;
    assert_eq!((survey.different, survey.changed), (117 + 1, 2));
    let outcome = prepared.run(&mut Silent).unwrap().repair.unwrap();
    assert_eq!(outcome.left, 3, "{:?}", outcome.listed);
    assert!(outcome.listed.iter().all(|left| left.why.ends_with("was changed since")), "{:?}", outcome.listed);
    for (line, held) in [("GET k:s:1", "written-since"), ("GET k:s:3", "written-since"), ("GET k:added", "1more")] {
        assert_eq!(text(&run(&mut client, line)), held, "{line}");
    }
    for line in ["SET k:s:1 value1", "SET k:s:3 value3", "DEL k:added"] {
        run(&mut client, line);
    }
    assert_same(&accident.before, &state(&mut client), "repaired");
}

/// A hash, a string, a list, a set, a sorted set and a stream, each of some MiB.
fn large_values(client: &mut Server) {
    for n in 0..300 {
        let range = n * 100..(n + 1) * 100;
        let all = |each: &dyn Fn(u32) -> String| range.clone().map(each).collect::<Vec<_>>().join(" ");
        run(client, &format!("HSET big:h {}", all(&|n| format!("field{n} {}", "v".repeat(60)))));
        run(client, &format!("RPUSH big:l {}", all(&|n| format!("element{n}{}", "l".repeat(50)))));
        run(client, &format!("SADD big:set {}", all(&|n| format!("member{n}{}", "s".repeat(50)))));
        run(client, &format!("ZADD big:z {}", all(&|n| format!("{n}.5 member{n}{}", "z".repeat(50)))));
        run(client, &format!("APPEND big:s {}", "x".repeat(10_000)));
        run(client, &format!("XADD big:x {}-1 field {}", n + 1, "x".repeat(6000)));
    }
    run(client, "XGROUP CREATE big:x group 5-1");
    run(client, "PEXPIRE big:h 100000000");
}

#[test]
fn large_values_are_built_in_pieces_and_replaced() {
    let server = Running::start(&["--enable-debug-command", "yes"]);
    let folder = tempfile::tempdir().unwrap();
    let mut client = server.client();
    let mut recorder = Recorder::start(&folder.path().join("j"), &server);
    large_values(&mut client);
    let at = When::At(recorder.catch_up());
    let before = state(&mut client);
    for line in
        ["HDEL big:h field7", "LSET big:l 3 BROKEN", "SREM big:set member1", "DEL big:s", "XADD big:x * f BROKEN"]
    {
        run(&mut client, line);
    }
    run(&mut client, &format!("ZREM big:z member5{}", "z".repeat(50)));
    recorder.catch_up();
    recorder.finish();
    let after = state(&mut client);
    let accident = Accident { server, folder, at, before, after };
    run(&mut client, "CONFIG RESETSTAT");
    let outcome = do_it(&accident.repair("big:*", policy(OnConflict::Replace))).unwrap();
    assert_eq!((outcome.created, outcome.replaced, outcome.left), (1, 4, 0), "{outcome:?}");
    assert_eq!(outcome.equal, 1, "a member that was not there was removed");
    assert_same(&accident.before, &state(&mut client), "repaired");
    // Read and built some elements at a time.
    let stats = text(&run(&mut client, "INFO commandstats"));
    assert!(!stats.contains("cmdstat_dump:"), "{stats}");
    for command in ["hscan", "rename", "hset", "rpush", "zadd", "append"] {
        assert!(stats.contains(&format!("cmdstat_{command}:")), "{command} is not in: {stats}");
    }
    assert_eq!(run(&mut client, "KEYS redtape:*"), Value::Array(Vec::new()));
    let undone = accident.undo(&accident.undo_files()[0], false);
    assert_eq!(undone.left, 0, "{:?}", undone.listed);
    assert_same(&accident.after, &state(&mut client), "undone");
}

#[test]
fn a_large_hash_that_clients_write_to_is_replaced_beside_them() {
    let server = Running::start(&["--enable-debug-command", "yes"]);
    let folder = tempfile::tempdir().unwrap();
    let mut client = server.client();
    let mut recorder = Recorder::start(&folder.path().join("j"), &server);
    large_values(&mut client);
    let at = When::At(recorder.catch_up());
    run(&mut client, "HSET big:h field7 BROKEN");
    recorder.catch_up();
    recorder.finish();
    let accident = Accident { server, folder, at, before: Vec::new(), after: Vec::new() };
    let (outcome, _) = beside(&accident.server, &["HINCRBY big:h visits 1", "HINCRBY big:h visits 1"], || {
        do_it(&accident.repair("big:h", policy(OnConflict::Replace))).unwrap()
    });
    assert_eq!((outcome.replaced, outcome.left), (1, 0), "{outcome:?}");
    assert_eq!(text(&run(&mut client, "HGET big:h field7")), "v".repeat(60));
    let Value::Int(fields) = run(&mut client, "HLEN big:h") else { panic!("HLEN") };
    assert!((30_000..=30_001).contains(&fields), "{fields}");
    assert_eq!(run(&mut client, "KEYS redtape:*"), Value::Array(Vec::new()));
}
