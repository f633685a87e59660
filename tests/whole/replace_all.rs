//! `--replace-all`: what a target held makes room for what is wanted. Refused unless the target is named; killed and run again; undone.

use std::path::Path;
use std::process::Child;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::harness::conn::{int, items, text};
use crate::harness::killed::{spawn, undo_files};
use crate::harness::moment::State;
use crate::harness::redtape::{Outcome, run};
use crate::harness::{Conn, Dir, Redtape, Server};

const KEYS: usize = 900;
/// Keys that clients write to all the time.
const HOT: usize = 2;

struct Scene {
    server: Server,
    redtape: Redtape,
    journal: Dir,
    state: Dir,
    at: String,
    before: State,
    /// What has become of it since.
    after: State,
}

fn library(name: &str, function: &str, value: u32) -> String {
    format!("#!lua name={name}\nredis.register_function('{function}', function() return {value} end)")
}

impl Scene {
    fn new() -> Self {
        let server = Server::start();
        let (journal, state) = (Dir::new("journal"), Dir::new("state"));
        let mut redtape = Redtape::start(&server.url(), journal.path(), &[]);
        let mut conn = Conn::open(&redtape.url()).expect("redtape");
        for n in 0..KEYS {
            let commands = [
                args!["SET", format!("s:{n}"), format!("value{n}")],
                args!["HSET", format!("h:{n}"), "a", n, "b", n * 2],
            ];
            conn.pipeline(&commands).expect("replies");
        }
        conn.must(&args!["XADD", "x", "5-1", "f", "v"]);
        conn.must(&args!["XGROUP", "CREATE", "x", "g", "0"]);
        for code in [library("gone", "f", 1), library("changed", "g", 1), library("same", "h", 1)] {
            conn.must(&args!["FUNCTION", "LOAD", code]);
        }
        conn.must(&args!["SELECT", 3]);
        conn.must(&args!["RPUSH", "l", 1, 2, 3]);
        conn.must(&args!["SELECT", 0]);
        let before = State::record(&mut server.conn());
        for n in 0..HOT {
            conn.must(&args!["SET", format!("hot:{n}"), 1000]);
        }
        redtape.wait_caught_up();
        let mut scene =
            Self { server, redtape, journal, state, at: String::new(), before: before.clone(), after: before };
        scene.at = format!("lsn:{}", scene.last_lsn());
        scene.accident(&mut conn);
        scene
    }

    fn accident(&mut self, conn: &mut Conn) {
        for n in (0..KEYS).step_by(3) {
            let commands = [
                args!["DEL", format!("s:{n}")],
                args!["SET", format!("s:{}", n + 1), "BROKEN"],
                args!["PEXPIRE", format!("h:{n}"), 100_000_000],
                args!["SET", format!("added:{n}"), 1],
            ];
            conn.pipeline(&commands).expect("replies");
        }
        conn.must(&args!["XADD", "x", "6-1", "f", "BROKEN"]);
        // The function of the one that goes is another one's now.
        conn.must(&args!["FUNCTION", "DELETE", "gone"]);
        conn.must(&args!["FUNCTION", "LOAD", "REPLACE", library("changed", "g", 2)]);
        conn.must(&args!["FUNCTION", "LOAD", library("added", "f", 2)]);
        for db in [3, 5] {
            conn.must(&args!["SELECT", db]);
            conn.must(&args!["SADD", "added", "m"]);
        }
        conn.must(&args!["SELECT", 0]);
        self.redtape.wait_caught_up();
        self.after = self.state();
    }

    fn last_lsn(&self) -> u64 {
        let from = self.journal.path().display().to_string();
        let last =
            run(&["log", "--from", &from, "--limit", "1", "--reverse", "--json"]).expect_success("the last").stdout;
        let first = run(&["log", "--from", &from, "--limit", "1", "--json"]).expect_success("the first").stdout;
        let lsn = |line: &str| serde_json::from_str::<serde_json::Value>(line).expect("JSON")["lsn"].as_u64();
        let lsns = last.lines().chain(first.lines()).filter_map(lsn);
        lsns.max().expect("a write")
    }

    fn address(&self) -> String {
        self.redtape.url().trim_start_matches("redis://").to_owned()
    }

    fn arguments(&self, more: &[&str]) -> Vec<String> {
        let (from, url) = (self.journal.path().display().to_string(), self.redtape.url());
        let state = self.state.path().display().to_string();
        let usual =
            ["restore", "--from", &from, "--at", &self.at, "--to", &url, "--state-dir", &state, "--replace-all"];
        usual.iter().chain(more).map(|argument| (*argument).to_owned()).collect()
    }

    fn restore(&self, more: &[&str]) -> Outcome {
        run(&self.arguments(more))
    }

    /// What the server holds, but for the keys that clients write to.
    fn state(&self) -> State {
        let mut conn = self.server.conn();
        let held: Vec<_> = (0..HOT).map(|n| conn.must(&args!["GET", format!("hot:{n}")])).collect();
        conn.must(&args!["DEL", "hot:0", "hot:1"]);
        let state = State::record(&mut conn);
        conn.must(&args!["SELECT", 0]);
        for (n, value) in held.iter().enumerate() {
            conn.must(&args!["SET", format!("hot:{n}"), text(value)]);
        }
        state
    }

    fn undo(&self, file: &Path) -> Outcome {
        let (file, url) = (file.display().to_string(), self.redtape.url());
        let state = self.state.path().display().to_string();
        run(&["undo", "--file", &file, "--to", &url, "--yes", "--state-dir", &state])
    }

    /// Does something while clients write; what each has met.
    fn beside<T>(&self, work: impl FnOnce() -> T) -> (T, Vec<Vec<String>>) {
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let stop = &stop;
            let write = |n: usize, mut conn: Conn| {
                move || {
                    let mut errors = Vec::new();
                    while !stop.load(Ordering::Relaxed) {
                        for command in [args!["INCR", format!("hot:{n}")], args!["FCALL", "h", 0]] {
                            match conn.call(&command) {
                                Ok(crate::harness::conn::Value::Int(_)) => {}
                                other => errors.push(format!("{other:?}")),
                            }
                        }
                    }
                    errors
                }
            };
            let clients: Vec<_> =
                (0..HOT).map(|n| scope.spawn(write(n, Conn::open(&self.redtape.url()).expect("redtape")))).collect();
            std::thread::sleep(Duration::from_millis(100));
            let result = work();
            stop.store(true, Ordering::Relaxed);
            (result, clients.into_iter().map(|client| client.join().expect("a client")).collect())
        })
    }
}

#[test]
fn nothing_is_removed_unless_the_target_is_named() {
    let scene = Scene::new();
    let named = format!("--confirm {}", scene.address());
    let other = format!("localhost:{}", scene.address().rsplit(':').next().expect("a port"));
    for more in [&["--yes"][..], &["--yes", "--confirm", &other], &["--plan", "--confirm", "x:1"]] {
        let refused = scene.restore(more);
        assert_eq!(refused.code, Some(64), "{refused:?}");
        assert!(refused.stderr.contains("nothing was changed") && refused.stderr.contains(&named), "{refused:?}");
    }
    for more in
        [&["--on-conflict", "skip"][..], &["--delete-absent"], &["--if-unchanged"], &["--broken-by", "client=x"]]
    {
        assert_eq!(scene.restore(&[more, &["--confirm", &scene.address()]].concat()).code, Some(64), "{more:?}");
    }
    // A selection that matches nothing would only remove.
    let nothing = scene.restore(&["--confirm", &scene.address(), "--key", "tpyo:*"]);
    assert!(nothing.stderr.contains("no key matches"), "{nothing:?}");
    let plan = scene.restore(&["--plan"]).expect_success("a plan").stdout;
    for told in [
        "replace all  the target holds 1806 keys",
        "removed      302 keys (db 0: 300, db 3: 1, db 5: 1)",
        "functions    \"gone\" loaded; \"changed\" replaced; \"added\" removed",
    ] {
        assert!(plan.contains(told), "{told}\n{plan}");
    }
    let plan = scene.restore(&["--plan", "--json"]).expect_success("a plan").stdout;
    let plan: serde_json::Value = serde_json::from_str(&plan).expect("JSON");
    let repair = &plan["repair"];
    assert_eq!((&plan["functions"], &repair["policy"]["replace_all"]), (&true.into(), &true.into()));
    assert_eq!(repair["survey"]["absent_by_db"], serde_json::json!({"0": 300, "3": 1, "5": 1}));
    assert_eq!(repair["libraries"]["removed"], serde_json::json!(["\"added\""]));
    assert_eq!(repair["target_keys"]["5"], 1);
    assert!(repair["undo_room"]["most_bytes"].as_u64() > Some(0), "{repair}");
    scene.after.assert_same(&scene.state(), "nothing was confirmed");
    assert!(undo_files(scene.state.path()).is_empty());
}

#[test]
fn replace_all_beside_clients_can_be_undone() {
    let scene = Scene::new();
    let (outcome, errors) = scene.beside(|| scene.restore(&["--confirm", &scene.address()]));
    assert_eq!((outcome.code, errors), (Some(0), vec![Vec::<String>::new(); HOT]), "{outcome:?}");
    assert!(outcome.stdout.contains("function libraries: 1 loaded, 1 replaced, 1 removed"), "{}", outcome.stdout);
    assert!(outcome.stdout.contains("302 deleted"), "{}", outcome.stdout);
    scene.before.assert_same(&scene.state(), "replaced");
    let mut conn = scene.server.conn();
    for n in 0..HOT {
        assert!(text(&conn.must(&args!["GET", format!("hot:{n}")])).parse::<u64>().expect("a number") >= 1000);
    }
    assert_eq!(items(&conn.must(&args!["KEYS", "redtape:*"])).len(), 0);
    // Onto the recorded server, so the history went on.
    let marks = std::fs::read_to_string(scene.journal.path().join("marks")).expect("marks");
    assert!(marks.contains("\"before-restore-") && marks.contains("\"after-restore-"), "{marks}");
    let undone = scene.undo(&undo_files(scene.state.path())[0]);
    // Clients have written to the hot keys since.
    assert!(matches!(undone.code, Some(0 | 1)), "{undone:?}");
    assert!(!undone.stdout.contains("left: function"), "{undone:?}");
    scene.after.assert_same(&scene.state(), "undone");
}

/// How large the undo files are.
fn undo_bytes(state: &Path) -> u64 {
    undo_files(state).iter().filter_map(|file| std::fs::metadata(file).ok()).map(|found| found.len()).sum()
}

/// Kills it once it has written so much to its undo file; whether it was still at work.
fn kill_when_beyond(mut child: Child, state: &Path, bytes: u64) -> bool {
    let started = Instant::now();
    while undo_bytes(state) <= bytes && child.try_wait().expect("its state").is_none() {
        assert!(started.elapsed() < Duration::from_mins(1), "it does not begin");
        std::thread::sleep(Duration::from_micros(100));
    }
    let at_work = child.try_wait().expect("its state").is_none();
    let _ = child.kill();
    let _ = child.wait();
    at_work
}

#[test]
fn a_replacement_that_is_killed_twice_goes_on_and_can_be_undone() {
    let scene = Scene::new();
    let tmp = Dir::new("tmp");
    let address = scene.address();
    let confirmed = scene.arguments(&["--confirm", &address]);
    let (mut killed, mut from) = (0, 4096);
    for _ in 0..2 {
        if kill_when_beyond(spawn(&confirmed, tmp.path()), scene.state.path(), from) {
            killed += 1;
            // A half-done one cannot be taken for a finished one.
            assert_eq!(int(&scene.server.conn().must(&args!["EXISTS", "redtape:unfinished-restore"])), 1);
        }
        from = undo_bytes(scene.state.path());
    }
    println!("{killed} of 2 were killed at work");
    let again = run(&confirmed);
    assert_eq!(again.code, Some(0), "{killed}: {again:?}");
    scene.before.assert_same(&scene.state(), "replaced");
    assert_eq!(items(&scene.server.conn().must(&args!["KEYS", "redtape:*"])).len(), 0, "{killed}");
    let files = undo_files(scene.state.path());
    let first = files.iter().find(|f| !f.to_string_lossy().ends_with("-2.undo")).expect("an undo file");
    let undone = scene.undo(first);
    assert!(matches!(undone.code, Some(0 | 1)), "{undone:?}");
    scene.after.assert_same(&scene.state(), "undone");
}

#[test]
fn replace_all_with_a_selection_includes_functions() {
    let scene = Scene::new();
    let keys = ["--key", "s:*", "--key", "hot:*", "--exclude-key", "s:1*"];
    let outcome = scene.restore(&[&["--confirm", &scene.address()], &keys[..]].concat());
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    let mut conn = scene.server.conn();
    let wanted = (0..KEYS).filter(|n| !n.to_string().starts_with('1')).count();
    assert_eq!(int(&conn.must(&args!["DBSIZE"])), (wanted + HOT) as i64);
    assert_eq!(text(&conn.must(&args!["GET", "s:4"])), "value4");
    let found = scene.state();
    assert_eq!(found.functions, scene.before.functions);
    // Without it a selection leaves functions as they are, and the plan says so.
    let (from, url) = (scene.journal.path().display().to_string(), scene.redtape.url());
    let plan = ["restore", "--from", &from, "--at", &scene.at, "--to", &url, "--key", "h:*", "--plan"];
    let plan = run(&plan).expect_success("a plan").stdout;
    assert!(plan.contains("functions are left out: only some keys are wanted"), "{plan}");
    let undone = scene.undo(&undo_files(scene.state.path())[0]);
    assert!(matches!(undone.code, Some(0 | 1)), "{undone:?}");
    scene.after.assert_same(&scene.state(), "undone");
}
