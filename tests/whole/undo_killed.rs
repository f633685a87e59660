//! `redtape undo` of writes, killed at random points and run again; and where it is refused.

use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng as _, RngExt as _, SeedableRng as _};

use crate::harness::conn::items;
use crate::harness::killed::{kill, spawn, undo_files};
use crate::harness::moment::State;
use crate::harness::redtape::{Outcome, run};
use crate::harness::{Conn, Dir, Redtape, Server};

const KEYS: usize = 1500;

struct Scene {
    server: Server,
    redtape: Redtape,
    journal: Dir,
}

impl Scene {
    fn new() -> Self {
        let server = Server::start();
        let journal = Dir::new("journal");
        let redtape = Redtape::start(&server.url(), journal.path(), &[]);
        Self { server, redtape, journal }
    }

    /// What the culprit breaks: values, elements, times of expiry, whole keys.
    fn broken() -> (Self, State) {
        let mut scene = Self::new();
        let mut good = scene.client("good");
        for n in 0..KEYS {
            let commands = [
                args!["SET", format!("s:{n}"), format!("value{n}")],
                args!["HSET", format!("h:{n}"), "a", n, "b", n * 2, "kept", 0],
                args!["ZADD", format!("z:{n}"), n, "a", 2, "b"],
            ];
            good.pipeline(&commands).expect("replies");
        }
        let before = State::record(&mut scene.server.conn());
        let mut bad = scene.client("bad");
        for n in (0..KEYS).step_by(2) {
            let commands = [
                args!["SET", format!("s:{n}"), "BROKEN"],
                args!["DEL", format!("s:{}", n + 1)],
                args!["HDEL", format!("h:{n}"), "a", "b"],
                args!["PEXPIRE", format!("h:{}", n + 1), 100_000_000],
                args!["ZREM", format!("z:{n}"), "b"],
                args!["SET", format!("added:{n}"), 1],
            ];
            bad.pipeline(&commands).expect("replies");
        }
        scene.redtape.wait_caught_up();
        (scene, before)
    }

    fn client(&self, name: &str) -> Conn {
        let mut conn = Conn::open(&self.redtape.url()).expect("redtape");
        conn.must(&args!["CLIENT", "SETNAME", name]);
        conn
    }

    fn arguments(&self, to: &str, state: &Path) -> Vec<String> {
        let (from, state) = (self.journal.path().display().to_string(), state.display().to_string());
        ["undo", "--from", &from, "--client", "bad", "--to", to, "--yes", "--state-dir", &state]
            .map(str::to_owned)
            .into()
    }

    fn spawn(&self, state: &Path, tmp: &Path) -> Child {
        spawn(&self.arguments(&self.redtape.url(), state), tmp)
    }

    fn state(&self) -> State {
        State::record(&mut self.server.conn())
    }
}

/// Killed as often as `REDTAPE_N` says, each time in a history that goes on: the undo of the undo is a part of it.
#[test]
fn an_undo_that_is_killed_goes_on_and_can_be_undone() {
    let kills = std::env::var("REDTAPE_N").ok().and_then(|n| n.parse().ok()).unwrap_or(2);
    let seed =
        std::env::var("REDTAPE_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| rand::rng().next_u64());
    println!("REDTAPE_SEED={seed}");
    let mut random = SmallRng::seed_from_u64(seed);
    let mut at_work = 0;
    for n in 0..kills {
        let (mut scene, before) = Scene::broken();
        let broken = scene.state();
        let (states, tmp) = (Dir::new("state"), Dir::new("tmp"));
        let after = Duration::from_micros(random.random_range(0..1_500_000));
        at_work += usize::from(kill(scene.spawn(states.path(), tmp.path()), states.path(), after));
        let what = format!("kill {n}, {after:?} behind its beginning");
        scene.redtape.wait_caught_up();
        let outcome = run(&scene.arguments(&scene.redtape.url(), states.path()));
        assert_eq!(outcome.code, Some(0), "{what}: {outcome:?}");
        before.assert_same(&scene.state(), &what);
        assert_eq!(items(&scene.server.conn().must(&args!["KEYS", "redtape:*"])).len(), 0, "{what}");
        let files = undo_files(states.path());
        assert_eq!(files.len(), 1, "{what}: {files:?}");
        let (file, url) = (files[0].display().to_string(), scene.redtape.url());
        let state = states.path().display().to_string();
        run(&["undo", "--file", &file, "--to", &url, "--yes", "--state-dir", &state]).expect_success("its undo");
        broken.assert_same(&scene.state(), &what);
    }
    println!("{at_work} of {kills} were killed at work");
}

fn refused(outcome: &Outcome, words: &[&str]) {
    assert_ne!(outcome.code, Some(0), "{outcome:?}");
    assert_ne!(outcome.code, Some(1), "{outcome:?}");
    for word in words {
        assert!(outcome.stderr.contains(word), "{word}: {outcome:?}");
    }
}

#[test]
fn another_server_and_lost_writes_are_refused_with_advice() {
    let mut scene = Scene::new();
    let (mut good, mut bad) = (scene.client("good"), scene.client("bad"));
    good.must(&args!["SET", "a", "good"]);
    bad.must(&args!["SET", "a", "bad"]);
    scene.redtape.wait_caught_up();
    let states = Dir::new("state");
    // A server that is not the recorded one.
    let other = Server::start();
    refused(
        &run(&scene.arguments(&other.url(), states.path())),
        &["is not the server that", "redtape restore --before"],
    );
    // Between the mistake and now, writes are lost.
    assert_eq!(scene.redtape.terminate(), Some(0));
    let mut conn = scene.server.conn();
    conn.must(&args!["CONFIG", "SET", "repl-backlog-size", "16kb"]);
    for n in 0..64 {
        conn.must(&args!["SET", "unseen", format!("{n}").repeat(4096)]);
    }
    scene.redtape.start_again();
    scene.redtape.wait_caught_up();
    let (from, url) = (scene.journal.path().display().to_string(), scene.redtape.url());
    let state = states.path().display().to_string();
    let undo =
        |what: &[&str]| run(&[&["undo", "--from", &from, "--to", &url, "--yes", "--state-dir", &state], what].concat());
    refused(&undo(&["lsn:2"]), &["is not whole", "redtape restore --before lsn:2"]);
    refused(&undo(&["--client", "bad"]), &["no write of the present timeline is selected"]);
    assert_eq!(undo_files(states.path()), Vec::<PathBuf>::new());
    // A restore does not need to know what came between.
    run(&[
        "restore",
        "--from",
        &from,
        "--before",
        "lsn:2",
        "--to",
        &scene.server.url(),
        "--key",
        "a",
        "--on-conflict",
        "replace",
        "--yes",
        "--state-dir",
        &state,
    ])
    .expect_success("the way out");
    assert_eq!(crate::harness::conn::text(&conn.must(&args!["GET", "a"])), "good");
}
