//! `redtape undo` where what looks right may be wrong: times of expiry at the edge, selections that cut a write in two, and what an
//! earlier undo has left.

use std::time::Duration;

use crate::harness::conn::{Value, int, text};
use crate::harness::redtape::{Outcome, run};
use crate::harness::{Conn, Dir, Redtape, Server};

struct World {
    server: Server,
    redtape: Redtape,
    journal: Dir,
    state: Dir,
    good: Conn,
    bad: Conn,
}

impl World {
    fn new() -> Self {
        let server = Server::start();
        let (journal, state) = (Dir::new("journal"), Dir::new("state"));
        let redtape = Redtape::start(&server.url(), journal.path(), &[]);
        let open = |name: &str| {
            let mut conn = Conn::open(&redtape.url()).expect("redtape");
            conn.must(&args!["CLIENT", "SETNAME", name]);
            conn
        };
        let (good, bad) = (open("good"), open("bad"));
        Self { server, redtape, journal, state, good, bad }
    }

    fn undo(&mut self, more: &[&str]) -> Outcome {
        self.redtape.wait_caught_up();
        let (from, url) = (self.journal.path().display().to_string(), self.redtape.url());
        let state = self.state.path().display().to_string();
        let usual = ["undo", "--from", &from, "--to", &url, "--yes", "--json", "--state-dir", &state];
        run(&[&usual, more].concat())
    }

    fn good(&mut self, line: &str) -> Value {
        self.good.must(&words(line))
    }

    fn bad(&mut self, line: &str) -> Value {
        self.bad.must(&words(line))
    }

    fn get(&mut self, key: &str) -> String {
        text(&self.good.must(&args!["GET", key]))
    }
}

fn words(line: &str) -> crate::harness::conn::Args {
    crate::harness::conn::Args(line.split(' ').map(|word| word.as_bytes().to_vec()).collect())
}

/// The report, where this is how it ended.
fn ended(outcome: &Outcome, code: i32) -> serde_json::Value {
    assert_eq!(outcome.code, Some(code), "{outcome:?}");
    serde_json::from_str(&outcome.stdout).unwrap_or_else(|error| panic!("{error}: {outcome:?}"))
}

/// The keys that it lists.
fn listed(report: &serde_json::Value) -> Vec<String> {
    let listed = report["repair"]["listed"].as_array().expect("a list");
    let mut keys: Vec<String> =
        listed.iter().map(|one| one["key"].as_str().expect("a key").trim_matches('"').to_owned()).collect();
    keys.sort();
    keys
}

#[test]
fn a_key_that_expired_in_the_midst_of_anothers_transaction_comes_back() {
    let mut world = World::new();
    // Then the server removes a key when it is met.
    world.server.conn().must(&args!["DEBUG", "SET-ACTIVE-EXPIRE", 0]);
    for line in ["SET read precious", "SET read2 precious", "SET written precious", "SET deleted precious"] {
        world.good(line);
    }
    for key in ["read", "read2", "written", "deleted"] {
        world.bad(&format!("PEXPIRE {key} 50"));
    }
    // One that lives when somebody deletes it stays deleted.
    world.good("SET theirs 1");
    world.bad("PEXPIRE theirs 1000000");
    // The clocks of server and redtape may differ by a second.
    std::thread::sleep(Duration::from_millis(1300));
    for line in ["MULTI", "GET read", "SET a 1", "DEL theirs", "EXEC"] {
        world.good(line);
    }
    world.good.must(&args!["EVAL", "redis.call('EXISTS', KEYS[1]) return 1", 1, "read2"]);
    world.good.must(&args!["EVAL", "return redis.call('HSET', KEYS[1], 'f', 'new')", 1, "written"]);
    let report = ended(&world.undo(&["--client", "bad"]), 1);
    assert_eq!((world.get("read"), world.get("read2")), ("precious".to_owned(), "precious".to_owned()));
    // Met by nobody: it is still in the server, and nobody sees it.
    assert_eq!(world.get("deleted"), "precious");
    assert_eq!(world.good("EXISTS theirs"), Value::Int(0));
    // Without the time of expiry the script would have failed.
    assert_eq!(listed(&report), ["written"]);
    assert_eq!(text(&world.good("HGET written f")), "new");
}

#[test]
fn what_was_written_just_behind_a_time_of_expiry_is_not_lost() {
    let mut world = World::new();
    for line in
        ["HSET h f 1", "PEXPIRE h 1000", "SADD early f", "PEXPIRE early 1000", "SADD late f", "PEXPIRE late 1000"]
    {
        world.good(line);
    }
    for key in ["h", "early", "late"] {
        world.bad(&format!("PERSIST {key}"));
    }
    world.good("SADD early good");
    std::thread::sleep(Duration::from_millis(1300));
    world.good("HSET h good 1");
    std::thread::sleep(Duration::from_millis(2000));
    world.good("SADD late good");
    std::thread::sleep(Duration::from_millis(1500));
    world.good("SET later 1");
    let report = ended(&world.undo(&["--client", "bad"]), 1);
    assert_eq!(listed(&report), ["h"]);
    assert_eq!(int(&world.good("HLEN h")), 2, "it stays as it is");
    assert_eq!(world.good("EXISTS early"), Value::Int(0), "it had expired, with what was in it");
    assert_eq!((int(&world.good("SCARD late")), int(&world.good("SISMEMBER late good"))), (1, 1));
}

#[test]
fn a_stream_that_is_trimmed_about_loses_its_wrong_entry() {
    let mut world = World::new();
    for n in 1..=300 {
        world.good(&format!("XADD s {n}-1 f v"));
    }
    world.bad("XADD s 400-1 f bad");
    for n in 500..800 {
        world.good(&format!("XADD s MAXLEN ~ 200 LIMIT 1000 {n}-1 f v"));
        world.good(&format!("XADD t MINID ~ {}-0 LIMIT 1000 {n}-1 MAXLEN =", n - 200));
    }
    world.good("XTRIM s MAXLEN ~ 150 LIMIT 1000");
    let report = ended(&world.undo(&["--client", "bad"]), 0);
    assert_eq!(report["repair"]["replaced"], 1, "{report}");
    let entries = |world: &mut World, from: &str, to: &str| match world.good(&format!("XRANGE s {from} {to}")) {
        Value::Array(entries) => entries.len(),
        other => panic!("{other:?}"),
    };
    assert_eq!(entries(&mut world, "400-1", "400-1"), 0);
    assert_eq!(entries(&mut world, "600-1", "+"), 200);
}

#[test]
fn a_key_made_from_one_that_is_not_selected_stays() {
    let mut world = World::new();
    world.good("MSET a good b good c good");
    world.bad("MSET a bad b bad c bad");
    // It holds what b holds, and b stays as it is.
    world.good("COPY b a REPLACE");
    let report = ended(&world.undo(&["--client", "bad", "--key", "a", "--key", "c"]), 1);
    assert_eq!(listed(&report), ["a"]);
    assert_eq!(["a", "b", "c"].map(|key| world.get(key)), ["bad", "bad", "good"]);
    // Together they are what they would be.
    ended(&world.undo(&["--client", "bad", "--key", "a", "--key", "b"]), 0);
    assert_eq!(["a", "b", "c"].map(|key| world.get(key)), ["good", "good", "good"]);
}

#[test]
fn what_is_left_out_is_said_in_the_report() {
    let mut world = World::new();
    let library = "#!lua name=lib\nredis.register_function('f', function() return 1 end)";
    world.good.must(&args!["FUNCTION", "LOAD", library]);
    world.good("SET k good");
    world.bad("FUNCTION FLUSH");
    let outcome = world.undo(&["--client", "bad"]);
    assert!(outcome.stderr.contains("functions are not undone"), "{outcome:?}");
    world.bad("DEL k");
    let report = ended(&world.undo(&["--client", "bad"]), 1);
    assert_eq!(world.get("k"), "good");
    let not_judged = report["not_judged"].as_array().expect("a list");
    assert!(not_judged.iter().any(|why| why.as_str().is_some_and(|why| why.contains("FUNCTION"))), "{report}");
}

#[test]
fn what_was_undone_before_does_not_come_back() {
    let mut world = World::new();
    for line in ["SET k good", "SET m good", "SET n good"] {
        world.good(line);
    }
    world.bad("SET k bad");
    let by_bad = ["--client", "bad"];
    let first = ended(&world.undo(&by_bad), 0);
    // Again: there is nothing to do, and nothing to say.
    ended(&world.undo(&by_bad), 0);
    let file = first["undo_file"].as_str().expect("an undo file").to_owned();
    let (url, state) = (world.redtape.url(), world.state.path().display().to_string());
    let back = run(&["undo", "--file", &file, "--to", &url, "--yes", "--json", "--state-dir", &state]);
    back.expect_success("the undo of the undo");
    assert_eq!(world.get("k"), "bad");
    // And once more: what redtape itself has put back is no write of anybody's.
    ended(&world.undo(&by_bad), 0);
    assert_eq!(world.get("k"), "good");
    // One mistake stands above another: whichever is undone first, neither comes back.
    world.good.must(&args!["CLIENT", "SETNAME", "worse"]);
    world.good("SET m worse");
    world.good("SET n worse");
    world.bad("SET m bad");
    world.bad("SET n bad");
    ended(&world.undo(&["--client", "bad", "--key", "m"]), 0);
    assert_eq!(world.get("m"), "worse");
    ended(&world.undo(&["--client", "worse", "--key", "m"]), 0);
    assert_eq!(world.get("m"), "good");
    let report = ended(&world.undo(&["--client", "worse", "--key", "n"]), 0);
    assert_eq!((world.get("n"), report["undo_file"].is_null()), ("bad".to_owned(), true));
    ended(&world.undo(&["--client", "bad", "--key", "n"]), 0);
    assert_eq!(world.get("n"), "good");
}

#[test]
fn redtapes_own_later_writes_are_reported() {
    let mut world = World::new();
    world.good("SET k good");
    world.bad("SET k bad");
    world.good("SET other 1");
    world.redtape.wait_caught_up();
    // A restore is a write like any other.
    let (from, url) = (world.journal.path().display().to_string(), world.redtape.url());
    let state = world.state.path().display().to_string();
    world.bad("SET k worse");
    let restore = ["restore", "--from", &from, "--before", "lsn:3", "--key", "k", "--on-conflict", "replace"];
    run(&[&restore[..], &["--to", &url, "--yes", "--state-dir", &state]].concat()).expect_success("a restore");
    assert_eq!(world.get("k"), "bad");
    let report = ended(&world.undo(&["--client", "bad"]), 1);
    assert!(report["not_judged"].to_string().contains("redtape itself"), "{report}");
}
