//! Marks that redtape sets by itself: a restore at the mark brings back what the write behind it took, in whichever way it was sent.
//! A client that deletes little gets none. Marks outlive a restart and compaction, and go with the history that they name.

use std::time::Duration;

use crate::harness::conn::{Args, int};
use crate::harness::journal::assert_verified;
use crate::harness::moment::State;
use crate::harness::redtape::run;
use crate::harness::{Conn, Dir, Redtape, Server, wait_for};

const KEYS: usize = 1000;
/// A mark is set within this time.
const SOON: Duration = Duration::from_secs(20);

struct Scene {
    journal: Dir,
    server: Server,
    redtape: Redtape,
}

impl Scene {
    fn with(options: &[&str]) -> Self {
        let (journal, server) = (Dir::new("journal"), Server::start());
        let redtape = Redtape::start(&server.url(), journal.path(), options);
        let scene = Self { journal, server, redtape };
        scene.fill();
        scene
    }

    fn fill(&self) {
        let sets: Vec<Args> = (0..KEYS).map(|n| args!["SET", format!("key:{n}"), n]).collect();
        self.client().pipeline(&sets).expect("the keys");
        self.client().must(&args!["HSET", "hash", "field", "value"]);
    }

    fn client(&self) -> Conn {
        Conn::open(&self.redtape.url()).expect("redtape")
    }

    /// Names of all marks, oldest first.
    fn marks(&self) -> Vec<String> {
        let listed = run(&["journal", "ls", "--json", "--from", &self.from()]).expect_success("journal ls");
        let listed: serde_json::Value = serde_json::from_str(&listed.stdout).expect("JSON");
        let marks = listed["marks"].as_array().expect("marks");
        assert!(marks.iter().all(|mark| mark["automatic"] == true), "{marks:?}");
        marks.iter().map(|mark| mark["name"].as_str().expect("a name").to_owned()).collect()
    }

    /// So many there are, and not one more.
    fn wait_marks(&self, n: usize) -> Vec<String> {
        let marks = wait_for("the marks", SOON, || Some(self.marks()).filter(|marks| marks.len() >= n));
        assert_eq!(marks.len(), n, "{marks:?}");
        marks
    }

    fn from(&self) -> String {
        self.journal.path().to_str().expect("a path").to_owned()
    }

    fn restored(&self, at: &str) -> Server {
        let target = Server::start();
        run(&["restore", "--from", &self.from(), "--at", at, "--to", &target.url(), "--yes"]).expect_success(at);
        target
    }

    /// What is restored at the mark is what was there then.
    fn assert_restores(&self, mark: &str, before: &State) {
        let target = self.restored(&format!("mark:{mark}"));
        before.assert_same(&State::record_calm(&mut target.conn()), mark);
    }

    /// Sends commands; then the newest of `n` marks has this command in its name, and restores what was there before.
    fn accident(&mut self, n: usize, command: &str, mut conn: Conn, commands: &[Args]) {
        let before = State::record_calm(&mut self.server.conn());
        assert!(before.keys() > KEYS);
        for command in commands {
            conn.must(command);
        }
        let marks = self.wait_marks(n);
        let mark = &marks[n - 1];
        assert!(mark.starts_with(&format!("before-{command}@")), "{command}: {marks:?}");
        self.assert_restores(mark, &before);
        self.fill();
    }
}

#[test]
fn a_mark_is_set_before_every_form_of_flush() {
    let mut scene = Scene::with(&[]);
    scene.accident(1, "FLUSHALL", scene.client(), &[args!["FLUSHALL"]]);
    scene.accident(2, "FLUSHALL", scene.client(), &[args!["EVAL", "return redis.call('FLUSHALL')", 0]]);
    let transaction = [args!["MULTI"], args!["SET", "a", 1], args!["FLUSHDB"], args!["SET", "b", 1], args!["EXEC"]];
    scene.accident(3, "FLUSHDB", scene.client(), &transaction);
    scene.accident(4, "FLUSHALL", scene.server.conn(), &[args!["FLUSHALL", "ASYNC"]]);
    scene.accident(5, "SWAPDB", scene.client(), &[args!["SWAPDB", 0, 1]]);
    scene.redtape.wait_caught_up();
    // A pipeline has one time; each write has its mark.
    let replies = scene.client().pipeline(&[args!["FLUSHALL"], args!["SET", "between", 1], args!["FLUSHALL"]]);
    assert_eq!(replies.expect("replies").len(), 3);
    let marks = scene.wait_marks(7);
    assert_eq!(marks.iter().collect::<std::collections::HashSet<_>>().len(), 7, "{marks:?}");
    let target = scene.restored(&format!("mark:{}", marks[6]));
    assert_eq!(int(&target.conn().must(&args!["DBSIZE"])), 1, "{marks:?}");
    // The exclusive form leaves out the write before the mark as well, as for any mark.
    let earlier = run(&[
        "restore",
        "--from",
        &scene.from(),
        "--before",
        &format!("mark:{}", marks[6]),
        "--to",
        &Server::start().url(),
        "--yes",
    ]);
    earlier.expect_success("--before");
    assert_eq!(scene.redtape.terminate(), Some(0));
    assert_verified(scene.journal.path());
}

#[test]
fn a_mark_is_set_before_mass_deletions() {
    let mut scene = Scene::with(&[]);
    let each = |command: &str| -> Vec<Args> { (0..KEYS).map(|n| args![command, format!("key:{n}")]).collect() };
    scene.accident(1, "DEL", scene.client(), &each("DEL"));
    let many: Vec<Args> = (0..KEYS)
        .step_by(50)
        .map(|from| (from..from + 50).fold(args!["UNLINK"], |all, n| all.and(format!("key:{n}"))))
        .collect();
    scene.accident(2, "UNLINK", scene.client(), &many);
    let script = "for n = 0, tonumber(ARGV[1]) - 1 do redis.call('DEL', 'key:' .. n) end";
    scene.accident(3, "DEL", scene.client(), &[args!["EVAL", script, 0, KEYS]]);
    scene.accident(4, "DEL", scene.server.conn(), &each("DEL"));
    let expiries: Vec<Args> = (0..KEYS).map(|n| args!["EXPIRE", format!("key:{n}"), 100]).collect();
    scene.accident(5, "EXPIRE", scene.client(), &expiries);
    assert_eq!(scene.redtape.terminate(), Some(0));
    assert_eq!(scene.marks().len(), 5);
    assert_verified(scene.journal.path());
}

#[test]
fn few_deletions_get_no_mark_and_settings_say_what_is_many() {
    let mut scene = Scene::with(&["--mass-delete-keys", "50"]);
    for client in 0..10 {
        let mut conn = scene.client();
        for n in 0..49 {
            conn.must(&args!["DEL", format!("key:{}", client * 50 + n)]);
        }
    }
    // Keys that expire are deleted by the server.
    let short: Vec<Args> = (0..200).map(|n| args!["SET", format!("short:{n}"), 1, "PX", 300]).collect();
    scene.client().pipeline(&short).expect("keys that expire");
    wait_for("the keys to expire", SOON, || {
        let mut direct = scene.server.conn();
        direct.must(&args!["MGET", "short:0", "short:100"]);
        (direct.info("stats", "expired_keys") == "200").then_some(())
    });
    scene.redtape.wait_caught_up();
    // The next one shows that no other was on its way.
    let mut conn = scene.client();
    for n in 0..50 {
        conn.must(&args!["DEL", format!("key:{}", 900 + n)]);
    }
    let marks = scene.wait_marks(1);
    let target = scene.restored(&format!("mark:{}", marks[0]));
    assert_eq!(int(&target.conn().must(&args!["EXISTS", "key:900", "key:949", "key:999"])), 3);
    assert_eq!(scene.redtape.terminate(), Some(0));

    let mut off = Scene::with(&["--automatic-marks", "off"]);
    off.client().must(&args!["FLUSHALL"]);
    off.redtape.wait_caught_up();
    assert_eq!(off.redtape.terminate(), Some(0));
    assert_eq!(off.marks(), [""; 0]);

    let mut flushes = Scene::with(&["--mass-delete-keys", "0", "--sync", "no"]);
    flushes.client().must(&(0..KEYS).fold(args!["DEL"], |all, n| all.and(format!("key:{n}"))));
    flushes.client().must(&args!["FLUSHDB"]);
    let marks = flushes.wait_marks(1);
    assert!(marks[0].starts_with("before-FLUSHDB@"), "{marks:?}");
    assert_eq!(flushes.redtape.terminate(), Some(0));
}

#[test]
fn a_mark_outlives_restarts_and_its_write_gets_no_second_one() {
    let mut scene = Scene::with(&["--segment-mib", "1"]);
    let before = State::record_calm(&mut scene.server.conn());
    scene.client().must(&args!["FLUSHALL"]);
    let marks = scene.wait_marks(1);
    let plainly = run(&["journal", "mark", &marks[0], "--from", &scene.from()]);
    assert_eq!(plainly.code, Some(64), "{}", plainly.stderr);
    assert!(plainly.stderr.contains("by itself"), "{}", plainly.stderr);
    for round in 0..3 {
        scene.redtape.kill9();
        scene.redtape.start_again();
        scene.redtape.wait_streaming();
        // Enough for segments to be sealed and compacted.
        let large = "x".repeat(20_000);
        let sets: Vec<Args> = (0..150).map(|n| args!["SET", format!("large:{round}:{n}"), &large]).collect();
        scene.client().pipeline(&sets).expect("writes");
        scene.redtape.wait_caught_up();
    }
    assert_eq!(scene.marks(), marks);
    // A flush just before a crash has one mark, or, if the crash came between, none; never two.
    for round in 0..5 {
        scene.client().must(&args!["SET", "round", round]);
        scene.client().must(&args!["FLUSHALL"]);
        std::thread::sleep(Duration::from_millis(400 * round));
        scene.redtape.kill9();
        scene.redtape.start_again();
        scene.redtape.wait_streaming();
        scene.redtape.wait_caught_up();
    }
    assert_eq!(scene.redtape.terminate(), Some(0));
    let all = scene.marks();
    println!("{} of 6 flushes have their mark", all.len());
    assert!((3..=6).contains(&all.len()), "{all:?}");
    assert_eq!(all[0], marks[0]);
    assert_verified(scene.journal.path());
    for mark in &all[1..] {
        let target = scene.restored(&format!("mark:{mark}"));
        assert_eq!(int(&target.conn().must(&args!["EXISTS", "round"])), 1, "{mark}");
    }
    scene.assert_restores(&marks[0], &before);
}

#[test]
fn a_stop_and_a_server_that_goes_away_lose_no_mark() {
    let mut scene = Scene::with(&[]);
    let before = State::record_calm(&mut scene.server.conn());
    scene.client().must(&args!["FLUSHALL"]);
    assert_eq!(scene.redtape.terminate(), Some(0));
    assert_restores_only(&scene, 1, &before);

    let mut scene = Scene::with(&[]);
    let before = State::record_calm(&mut scene.server.conn());
    scene.client().must(&args!["FLUSHALL"]);
    scene.redtape.wait_caught_up();
    scene.server.kill9();
    scene.wait_marks(1);
    assert_restores_only(&scene, 1, &before);
}

fn assert_restores_only(scene: &Scene, n: usize, before: &State) {
    let marks = scene.wait_marks(n);
    scene.assert_restores(&marks[n - 1], before);
}

#[test]
fn automatic_marks_go_with_the_history_that_they_name() {
    let mut scene = Scene::with(&["--segment-mib", "1"]);
    scene.client().must(&args!["FLUSHALL"]);
    scene.wait_marks(1);
    run(&["journal", "mark", "of a person", "--from", &scene.from()]).expect_success("journal mark");
    scene.redtape.wait_caught_up();
    assert_eq!(scene.redtape.terminate(), Some(0));
    scene.redtape.start_again();
    scene.redtape.wait_streaming();
    scene.fill();
    scene.redtape.wait_caught_up();
    run(&["snapshot", "create", "--dir", &scene.from(), "--upstream", &scene.server.url()]).expect_success("snapshot");
    let before = State::record_calm(&mut scene.server.conn());
    scene.client().must(&args!["FLUSHALL"]);
    wait_for("the second mark", SOON, || (marks_of(&scene).len() == 3).then_some(()));
    assert_eq!(scene.redtape.terminate(), Some(0));
    let all = marks_of(&scene);
    let prune = |more: &str| run(&["journal", "prune", "--dir", &scene.from(), "--max-size", "1", more]);
    let plan = prune("--plan").expect_success("a plan").stdout;
    assert!(plan.contains("1 automatic mark names history") && plan.contains("mark:of a person"), "{plan}");
    assert_eq!(marks_of(&scene), all, "a plan changes nothing");
    prune("--yes").expect_success("prune");
    assert_eq!(marks_of(&scene), all[1..]);
    scene.assert_restores(&all[2], &before);
    assert_verified(scene.journal.path());
}

/// Names of all marks, those of people as well.
fn marks_of(scene: &Scene) -> Vec<String> {
    let listed = run(&["journal", "ls", "--json", "--from", &scene.from()]).expect_success("journal ls");
    let listed: serde_json::Value = serde_json::from_str(&listed.stdout).expect("JSON");
    let marks = listed["marks"].as_array().expect("marks");
    marks.iter().map(|mark| mark["name"].as_str().expect("a name").to_owned()).collect()
}
