//! The command `restore` as scripts see it: exit codes and words where the target is too small, taken, or was left half done;
//! and what a newcomer types.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::harness::conn::int;
use crate::harness::redtape::{Outcome, run};
use crate::harness::{Dir, Redtape, Server, free_port, wait_for};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// A journal of a server with so many keys of so many bytes that do not compress.
fn journal(keys: usize, bytes: usize) -> Dir {
    let dir = Dir::new("journal");
    let source = Server::start();
    let mut seed = 7u64;
    let mut next = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from(b'0' + (seed >> 58) as u8)
    };
    let value: String = (0..bytes).map(|_| next()).collect();
    let mut conn = source.conn();
    for n in 0..keys {
        conn.must(&args!["SET", format!("key:{n}"), value.as_str()]);
    }
    assert_eq!(Redtape::start(&source.url(), dir.path(), &[]).terminate(), Some(0));
    dir
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a plain name")
}

fn restore(journal: &Dir, to: &Server, more: &[&str]) -> Outcome {
    let (from, url) = (text(journal.path()), to.url());
    run(&[&["restore", "--from", from, "--at", "latest", "--to", &url, "--yes"], more].concat())
}

#[track_caller]
fn ended(outcome: &Outcome, code: i32, words: &[&str]) {
    assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(code), ""), "{outcome:?}");
    let message = &outcome.stderr[outcome.stderr.find("redtape: ").expect("a message")..];
    for word in words {
        assert!(message.contains(word), "{word:?} is not in: {message}");
    }
    assert!(!message.contains("report this"), "{message}");
}

#[test]
fn a_target_that_is_too_small_is_known_before_the_first_write() {
    let journal = journal(20_000, 100);
    for policy in ["allkeys-lru", "allkeys-random", "noeviction"] {
        for via in [&["--via", "link"][..], &["--via", "scratch"], &["--key", "key:*"]] {
            let target = Server::with(&["--maxmemory", "3mb", "--maxmemory-policy", policy]);
            let outcome = restore(&journal, &target, via);
            assert!(outcome.stderr.contains("has a memory limit of 3145728 bytes"), "{outcome:?}");
            let left = || int(&target.conn().must(&args!["DBSIZE"]));
            ended(&outcome, 69, &["has no room for the data", "Nothing was written", "Raise maxmemory to"]);
            assert_eq!(left(), 0);
            let outcome = restore(&journal, &target, &[via, &["--accept-eviction"]].concat());
            if policy == "noeviction" {
                ended(&outcome, 69, &["has no room for the data"]);
                assert_eq!(left(), 0);
            } else {
                assert!(outcome.stdout.contains("warning: the target has evicted "), "{outcome:?}");
                assert!(outcome.code == Some(0) && (1..20_000).contains(&left()), "{outcome:?}");
            }
        }
    }
}

/// The program, with a scratch server of the kind under test.
fn redtape() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_redtape"));
    if let Some(server) = std::env::var_os("REDTAPE_TEST_SERVER") {
        command.env("REDTAPE_SERVER_BIN", server);
    }
    command
}

fn spawn(journal: &Dir, to: &Server) -> Child {
    redtape()
        .args([
            "restore",
            "--from",
            text(journal.path()),
            "--at",
            "latest",
            "--via",
            "scratch",
            "--yes",
            "--to",
            &to.url(),
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("redtape restore")
}

#[test]
fn a_copy_that_is_killed_cannot_be_taken_for_a_finished_one() {
    const KEYS: i64 = 600;
    let journal = journal(KEYS as usize, 100_000);
    let target = Server::start();
    let mut conn = target.conn();
    let mut child = spawn(&journal, &target);
    let start = Instant::now();
    while int(&conn.must(&args!["DBSIZE"])) < 2 {
        assert!(start.elapsed() < Duration::from_secs(60) && child.try_wait().expect("its state").is_none());
    }
    // Held still, it is at work for as long as another restore tries to get in.
    kill_process(Pid::from_child(&child), Signal::STOP).expect("SIGSTOP");
    let beside = restore(&journal, &target, &["--via", "scratch", "--key", "key:*", "--on-conflict", "skip"]);
    ended(&beside, 75, &["another restore is at work on", "changed nothing"]);
    child.kill().expect("SIGKILL");
    child.wait().expect("its end");
    let left = int(&conn.must(&args!["DBSIZE"]));
    if left == KEYS {
        panic!("the copy was through before it was killed: more data is needed");
    }
    assert_eq!(int(&conn.must(&args!["HLEN", "redtape:unfinished-restore"])), 1);
    let words = ["only a part of a restore that did not end: everything (600 keys)", "FLUSHALL"];
    for more in [&[][..], &["--via", "scratch"]] {
        ended(&restore(&journal, &target, more), 73, &words);
    }
    conn.must(&args!["FLUSHALL"]);
    let whole = restore(&journal, &target, &["--via", "scratch"]).expect_success("into the emptied target");
    assert!(whole.stdout.starts_with("restored 600 keys"), "{whole:?}");
    assert_eq!(int(&conn.must(&args!["DBSIZE"])), KEYS);
}

#[test]
fn what_has_expired_is_counted_over_the_link() {
    let dir = Dir::new("journal");
    let source = Server::start();
    let mut proxy = Redtape::start(&source.url(), dir.path(), &[]);
    let mut conn = source.conn();
    for n in 0..40 {
        conn.must(&args!["SET", format!("short:{n}"), 1, "PX", 3000]);
    }
    conn.must(&args!["SET", "stays", 1]);
    proxy.wait_caught_up();
    // What expires from now on is recorded behind the last key.
    let at = format!("lsn:{}", 41);
    std::thread::sleep(Duration::from_millis(3100));
    assert_eq!(proxy.terminate(), Some(0));
    for via in ["link", "scratch"] {
        let target = Server::start();
        let (from, url) = (text(dir.path()), target.url());
        let args = ["restore", "--from", from, "--at", &at, "--to", &url, "--via", via];
        let told = run(&args).expect_success(via).stdout;
        assert!(told.starts_with("restored 41 keys"), "{told}");
        assert!(told.contains("40 of them had a TTL that has passed since: they are gone again"), "{via}: {told}");
        target.conn().must(&args!["FLUSHALL"]);
        let json = run(&[&args[..], &["--json"]].concat()).expect_success(via).stdout;
        let json: Value = serde_json::from_str(&json).expect("JSON");
        assert_eq!((&json["keys"]["0"], &json["expired"]), (&Value::from(41), &Value::from(40)), "{via}: {json}");
    }
}

#[test]
fn a_node_of_a_cluster_is_no_target_while_slots_have_no_node_and_pointed_out_as_an_upstream() {
    let journal = journal(10, 10);
    let node = Server::with(&["--cluster-enabled", "yes"]);
    for more in [&[][..], &["--db", "0"], &["--key", "key:*"], &["--via", "scratch"]] {
        ended(&restore(&journal, &node, more), 69, &["has no node for 16384 of its 16384 slots"]);
    }
    let dir = Dir::new("cluster");
    let proxy = Redtape::start(&node.url(), dir.path(), &[]);
    let said = proxy.said();
    let warnings: Vec<&str> =
        said.lines().filter(|l| l.contains("WARN") && l.contains("a node of a cluster")).collect();
    assert_eq!(warnings.len(), 1, "{said}");
    assert!(warnings[0].contains("MOVED") && warnings[0].contains("its own slots"), "{said}");
}

#[test]
fn lost_keys_come_back_through_redtape_itself() {
    let (server, dir) = (Server::start(), Dir::new("journal"));
    let mut proxy = Redtape::start(&server.url(), dir.path(), &[]);
    let mut conn = server.conn();
    conn.must(&args!["SET", "user:1", "ann"]);
    conn.must(&args!["DEL", "user:1"]);
    proxy.wait_caught_up();
    let (from, url) = (text(dir.path()), proxy.url());
    let args = ["restore", "--from", from, "--at", "lsn:1", "--key", "user:*", "--to", &url, "--yes"];
    // Twice: the first one has left neither a name nor a marker.
    for _ in 0..2 {
        let told = run(&args).expect_success("through the proxy").stdout;
        assert!(told.starts_with("restored 1 key "), "{told}");
        assert_eq!(int(&conn.must(&args!["DBSIZE"])), 1);
        conn.must(&args!["DEL", "user:1"]);
    }
}

#[test]
fn a_host_name_can_be_listened_on() {
    let (server, dir) = (Server::start(), Dir::new("journal"));
    let (port, metrics) = (free_port(), free_port());
    let log = dir.path().with_extension("log");
    let mut child = Command::new(env!("CARGO_BIN_EXE_redtape"))
        .args(["proxy", "--upstream", &server.url(), "--dir", text(dir.path())])
        .args(["--listen", &format!("localhost:{port}"), "--metrics", &format!("localhost:{metrics}")])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(&log).expect("a log"))
        .spawn()
        .expect("redtape proxy");
    let answered = wait_for("an answer", Duration::from_secs(20), || {
        if child.try_wait().expect("its state").is_some() {
            return Some(false);
        }
        let mut conn = crate::harness::Conn::open(&format!("redis://127.0.0.1:{port}")).ok()?;
        conn.call(&args!["ECHO", 1]).ok()?;
        std::net::TcpStream::connect(("127.0.0.1", metrics)).ok().map(|_| true)
    });
    let _ = child.kill();
    let _ = child.wait();
    assert!(answered, "{}", std::fs::read_to_string(&log).unwrap_or_default());
    let config = run(&["config", "check", "--upstream", "h", "--listen", "nowhere.invalid:1"]);
    assert_eq!(config.code, Some(64), "{config:?}");
    assert!(config.stderr.contains("--listen: cannot look up nowhere.invalid:1"), "{config:?}");
}

#[test]
fn output_that_cannot_be_written_is_an_io_error_and_no_defect() {
    let journal = journal(1, 10);
    for command in [&["journal", "ls"][..], &["snapshot", "ls"], &["restore", "--plan", "--at", "latest"]] {
        let target = Server::start();
        let url = target.url();
        let mut args = [command, &["--from", text(journal.path())]].concat();
        if command[0] == "restore" {
            args.extend(["--to", &url]);
        }
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("/dev/full");
        let out = redtape().args(&args).stdin(Stdio::null()).stdout(full).output().expect("redtape");
        let said = String::from_utf8_lossy(&out.stderr);
        assert_eq!(out.status.code(), Some(74), "{args:?}: {said}");
        assert!(said.contains("redtape: "), "{said}");
    }
}
