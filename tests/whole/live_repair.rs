//! Repairs of a live server, killed at random points: the next run goes on, and nothing is left behind.

use std::path::Path;
use std::process::Child;
use std::time::Instant;

use rand::rngs::SmallRng;
use rand::{Rng as _, RngExt as _, SeedableRng as _};

use crate::harness::conn::{Value, int, items};
use crate::harness::killed::{kill, spawn, undo_files};
use crate::harness::moment::State;
use crate::harness::redtape::run;
use crate::harness::{Conn, Dir, Redtape, Server};

/// A server with a journal, an accident behind which it stands, and the last LSN before.
struct Scene {
    server: Server,
    journal: Dir,
    at: String,
}

const KEYS: usize = 1500;

fn scene() -> Scene {
    let server = Server::start();
    let journal = Dir::new("journal");
    let mut redtape = Redtape::start(&server.url(), journal.path(), &[]);
    let mut conn = server.conn();
    for n in 0..KEYS {
        let commands = [
            args!["SET", format!("s:{n}"), format!("value{n}")],
            args!["HSET", format!("h:{n}"), "a", n, "b", n * 2, "kept", 0],
            args!["SADD", format!("set:{n}"), "a", "b", n],
            args!["ZADD", format!("z:{n}"), n, "a", 2, "b"],
            args!["XADD", format!("x:{n}"), "1-1", "a", n],
            args!["XADD", format!("x:{n}"), "2-1", "a", n],
        ];
        conn.pipeline(&commands).expect("replies");
    }
    redtape.wait_caught_up();
    let at = format!("lsn:{}", KEYS * 6);
    for n in (0..KEYS).step_by(2) {
        let commands = [
            args!["SET", format!("s:{n}"), "BROKEN"],
            args!["DEL", format!("s:{}", n + 1)],
            args!["HDEL", format!("h:{n}"), "a", "b"],
            args!["PEXPIRE", format!("h:{}", n + 1), 100_000_000],
            args!["SREM", format!("set:{n}"), "a"],
            args!["ZREM", format!("z:{n}"), "b"],
            args!["SET", format!("added:{n}"), 1],
            args!["XDEL", format!("x:{n}"), "1-1"],
        ];
        conn.pipeline(&commands).expect("replies");
    }
    redtape.wait_caught_up();
    assert_eq!(redtape.terminate(), Some(0));
    Scene { server, journal, at }
}

impl Scene {
    fn arguments(&self, state: &Path, more: &[&str]) -> Vec<String> {
        let (from, state) = (self.journal.path().display().to_string(), state.display().to_string());
        let url = self.server.url();
        let usual = ["restore", "--from", &from, "--at", &self.at, "--to", &url, "--yes", "--state-dir", &state]
            .map(str::to_owned);
        usual.into_iter().chain(more.iter().map(|more| (*more).to_owned())).collect()
    }

    fn spawn(&self, state: &Path, tmp: &Path, more: &[&str]) -> Child {
        spawn(&self.arguments(state, more), tmp)
    }

    fn state(&self) -> State {
        State::record_calm(&mut self.server.conn())
    }

    /// Undoes what a repair has done.
    fn undo(&self, file: &Path, state: &Path) {
        let (file, state, url) = (file.display().to_string(), state.display().to_string(), self.server.url());
        run(&["undo", "--file", &file, "--to", &url, "--yes", "--state-dir", &state]).expect_success("undo");
    }
}

/// Names in the target that a repair uses for itself.
fn own_names(conn: &mut Conn) -> Vec<Value> {
    items(&conn.must(&args!["KEYS", "redtape:*"]))
}

fn killed_and_run_again(kinds: &[&[&str]], kills: usize) {
    let scene = scene();
    let broken = scene.state();
    let seed =
        std::env::var("REDTAPE_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| rand::rng().next_u64());
    println!("REDTAPE_SEED={seed}");
    let mut random = SmallRng::seed_from_u64(seed);
    let mut at_work = 0;
    for kind in kinds {
        // As it is where nothing comes in between.
        let states = Dir::new("state");
        let started = Instant::now();
        run(&scene.arguments(states.path(), kind)).expect_success("a repair");
        let whole = started.elapsed();
        let repaired = scene.state();
        scene.undo(&undo_files(states.path())[0], states.path());
        broken.assert_same(&scene.state(), "undone");
        for n in 0..kills {
            let (states, tmp) = (Dir::new("state"), Dir::new("tmp"));
            let after = whole.mul_f64(random.random_range(0.0..0.5));
            let killed = kill(scene.spawn(states.path(), tmp.path(), kind), states.path(), after);
            at_work += usize::from(killed);
            let what = format!("{kind:?}, kill {n}, {after:?} behind its beginning");
            let mut again = scene.spawn(states.path(), tmp.path(), kind);
            assert!(again.wait().expect("its end").success(), "{what}");
            assert_eq!(own_names(&mut scene.server.conn()).len(), 0, "{what}");
            repaired.assert_same(&scene.state(), &what);
            let left: Vec<_> = std::fs::read_dir(tmp.path()).expect("the folder").flatten().map(|e| e.path()).collect();
            assert!(left.is_empty(), "{what}: {left:?}");
            let files = undo_files(states.path());
            // A run that had ended before it was killed has a finished file, behind which the next one has its own.
            let first = files.iter().find(|f| !f.to_string_lossy().ends_with("-2.undo")).expect("an undo file");
            scene.undo(first, states.path());
            broken.assert_same(&scene.state(), &what);
        }
    }
    println!("{at_work} of {} were killed at work", kinds.len() * kills);
    assert!(at_work > 0 || kills < 10);
    assert!(int(&scene.server.conn().must(&args!["DBSIZE"])) > 0);
}

const KINDS: [&[&str]; 4] = [
    &["--on-conflict", "replace", "--delete-absent", "--key", "*"],
    &["--on-conflict", "merge", "--key", "set:*", "--key", "z:*", "--key", "x:*"],
    &["--on-conflict", "rename", "--key", "s:*"],
    &["--on-conflict", "skip", "--key", "s:*", "--key", "h:*"],
];

#[test]
fn a_repair_that_is_killed_goes_on_and_can_be_undone() {
    killed_and_run_again(&KINDS, 1);
}

/// `make repairs`: as often as `REDTAPE_N` says for each kind.
#[test]
#[ignore = "minutes: make repairs"]
fn repairs_that_are_killed_many_times() {
    let kills = std::env::var("REDTAPE_N").ok().and_then(|n| n.parse().ok()).unwrap_or(100);
    killed_and_run_again(&KINDS, kills);
}
