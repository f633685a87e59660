//! `redtape restore --to-aof DIR --with-history`: a server that loads it holds what was held, and `redis-check-aof` cuts it back to an
//! earlier second.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value as Json;

use crate::files::{ended, text};
use crate::harness::clock::Clock;
use crate::harness::redtape::{Outcome, run};
use crate::harness::server::Version;
use crate::harness::workload::preload;
use crate::harness::{Dir, Redtape, Server, State, now_us, rfc3339, seed};

/// Times of expiry that pass, transactions, scripts, several databases, and effects that an ordinary client may not send.
fn busy(server: &Server, round: i64) {
    let mut conn = server.conn();
    let code = format!("#!lua name=lib\nredis.register_function('f', function() return {round} end)");
    let script = "redis.call('SET', KEYS[1], ARGV[1]) redis.call('INCR', KEYS[2]) return redis.call('TIME')";
    for command in [
        args!["SET", format!("gone:{round}"), 1, "PX", 30],
        args!["SET", format!("lives:{round}"), 1, "PX", 100_000_000],
        args!["SET", "counter", 1, "PX", 20],
        args!["INCRBYFLOAT", "float", "0.1"],
        args!["RPUSH", "list", round, "x", "y"],
        args!["SADD", "set", "a", "b", "c", round],
        args!["SPOP", "set"],
        args!["ZADD", "zset", round, "m", "inf", "n"],
        args!["HSET", "hash", "f", round, "g", &b"\xff\x00\r\n#TS:1\r\n"[..]],
        args!["XADD", "stream", "MAXLEN", "~", 100, "LIMIT", 50, "*", "a", round],
        args!["XGROUP", "CREATE", "stream", format!("readers:{round}"), 0],
        args!["XREADGROUP", "GROUP", format!("readers:{round}"), "alice", "COUNT", 1, "STREAMS", "stream", ">"],
        args!["MULTI"],
        args!["SET", "a", round],
        args!["SELECT", 3],
        args!["SET", "b", round],
        args!["EXEC"],
        args!["EVAL", script, 2, "scripted", "counted", round],
        args!["SELECT", 0],
        args!["FUNCTION", "LOAD", "REPLACE", code],
        args!["LMOVE", "list", "other", "LEFT", "RIGHT"],
    ] {
        conn.must(&command);
    }
    if round == 2 {
        conn.must(&args!["SWAPDB", 0, 5]);
        conn.must(&args!["DEL", "absent"]);
    }
    std::thread::sleep(Duration::from_millis(60));
    // Their time has passed.
    conn.must(&args!["INCR", "counter"]);
    conn.must(&args!["EXISTS", format!("gone:{round}")]);
}

struct Past {
    journal: Dir,
    files: Dir,
    /// What was held at the end of a second each.
    states: Vec<State>,
}

/// Two rounds of writes, with a second's end between them.
fn recorded(write: impl Fn(&Server, i64)) -> Past {
    let (server, journal) = (Server::with(&["--repl-backlog-size", "64mb"]), Dir::new("journal"));
    server.conn().must(&args!["SET", "in the base", 1]);
    let mut redtape = Redtape::start(&server.url(), journal.path(), &[]);
    let state = |round| {
        write(&server, round);
        State::record_calm(&mut server.conn())
    };
    let first = state(1);
    std::thread::sleep(Duration::from_micros((1_050_000 - now_us() % 1_000_000) as u64));
    let states = vec![first, state(2)];
    redtape.wait_caught_up();
    assert_eq!(redtape.terminate(), Some(0));
    Past { journal, files: Dir::new("files"), states }
}

impl Past {
    fn restore(&self, to: &Path, more: &[&str]) -> Outcome {
        let (from, at) = (text(self.journal.path()), rfc3339(self.states[1].at_us));
        let args = ["restore", "--from", from, "--at", &at, "--to-aof", text(to), "--with-history", "--json"];
        run(&[&args[..], more].concat())
    }
}

/// What a server holds that has started from this folder, at that time.
fn started(folder: &Path, state: &State) -> State {
    let server = Server::new(&["--dir", text(folder), "--appendonly", "yes"], Clock::At(state.at_us));
    State::record_restored(&mut server.conn(), state.at_us)
}

/// Cuts the history back to the end of a second.
fn cut_back(folder: &Path, second: i64) {
    let files = folder.join("appendonlydir");
    // The tool of that version checks the base as well.
    let tool = Command::new("redis-check-aof").arg("--version").output().map(|said| said.stdout).unwrap_or_default();
    if !Version::tested().valkey && String::from_utf8_lossy(&tool).contains(&version_number()) {
        let manifest = files.join("appendonly.aof.manifest");
        let args = ["--truncate-to-timestamp", &second.to_string(), text(&manifest)];
        let done = Command::new("redis-check-aof").args(args).output().expect("redis-check-aof");
        assert!(done.status.success(), "{done:?}");
        return;
    }
    // As that tool does: before the first annotation of a later second.
    let increment = files.join("appendonly.aof.1.incr.aof");
    let bytes = fs::read(&increment).expect("the history");
    let later = (0..bytes.len()).find(|at| {
        bytes[*at..].strip_prefix(b"#TS:").is_some_and(|rest| {
            let digits: Vec<u8> = rest.iter().take_while(|b| b.is_ascii_digit()).copied().collect();
            String::from_utf8_lossy(&digits).parse::<i64>().is_ok_and(|found| found > second)
        })
    });
    fs::write(&increment, &bytes[..later.expect("a later second")]).expect("the history");
}

fn version_number() -> String {
    let Version { major, minor, patch, .. } = Version::tested();
    format!("{major}.{minor}.{patch}")
}

fn loads_and_can_be_cut_back(past: &Past) {
    let folder = past.files.join("aof");
    let report = past.restore(&folder, &[]).expect_success("an append-only file with its history");
    let report: Json = serde_json::from_str(&report.stdout).expect("a report");
    let history = &report["file"]["history"];
    let increment = folder.join("appendonlydir/appendonly.aof.1.incr.aof");
    assert_eq!(history["bytes"], fs::metadata(&increment).expect("the history").len());
    assert_eq!((&history["records"], report["records"].as_u64() > Some(20)), (&report["records"], true), "{report}");
    let [first, last] = &past.states[..] else { panic!("two states") };
    let keys: u64 = report["keys"].as_object().expect("keys").values().filter_map(Json::as_u64).sum();
    assert!(keys >= last.keys() as u64, "{report}");
    // A server appends to what it has loaded.
    let whole = fs::read(&increment).expect("the history");
    last.assert_same(&started(&folder, last), "all of it");
    fs::write(&increment, whole).expect("the history");
    cut_back(&folder, first.at_us / 1_000_000);
    first.assert_same(&started(&folder, first), "cut back");
}

fn has_parts() -> bool {
    Version::tested().at_least((7, 0), (0, 0))
}

#[test]
fn the_history_loads_and_can_be_cut_back_to_a_second() {
    if !has_parts() {
        return;
    }
    let past = recorded(busy);
    loads_and_can_be_cut_back(&past);
    let other = past.files.join("other");
    ended(&past.restore(&other, &["--key", "a*"]), 64, &["--with-history keeps every record"]);
    let plan = past.restore(&other, &["--plan"]).expect_success("a plan");
    let plan: Json = serde_json::from_str(&plan.stdout).expect("a plan");
    assert_eq!((&plan["file"]["history"], &plan["slice"]), (&Json::Bool(true), &Json::Null), "{plan}");
    assert!(!other.exists());
}

#[test]
fn the_history_of_a_workload_loads_where_no_fields_expire() {
    if !has_parts() {
        return;
    }
    let seed = seed();
    let past = recorded(|server, round| preload(server, seed + round as u64, 100));
    if Version::tested().at_least((7, 4), (9, 0)) {
        ended(&past.restore(&past.files.join("aof"), &[]), 69, &["HPEXPIREAT", "Leave out --with-history"]);
        return;
    }
    loads_and_can_be_cut_back(&past);
}
