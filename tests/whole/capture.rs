//! Following: as a sidecar, by a replica, through failovers; snapshots beside a running capture.

use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::harness::conn::{Conn, bytes, int};
use crate::harness::redtape::run;
use crate::harness::{Dir, Redtape, Server, rfc3339, wait_for};
use serde_json::Value;

/// `redtape follow`, ended when dropped.
struct Follower(Child);

impl Follower {
    fn start(upstream: &str, dir: &Dir) -> Self {
        let log = std::fs::File::create(dir.path().with_extension("log")).expect("a log");
        let child = Command::new(env!("CARGO_BIN_EXE_redtape"))
            .args(["follow", "--upstream", upstream, "--dir"])
            .arg(dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("redtape follow");
        Self(child)
    }

    fn terminate(mut self) -> Option<i32> {
        let pid = rustix::process::Pid::from_raw(self.0.id() as i32).expect("a pid");
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("SIGTERM");
        self.0.wait().expect("its end").code()
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn ls(dir: &Dir) -> Value {
    let out =
        run(&["journal", "ls", "--json", "--from", dir.path().to_str().expect("a path")]).expect_success("journal ls");
    serde_json::from_str(&out.stdout).expect("JSON")
}

fn path(dir: &Dir) -> &str {
    dir.path().to_str().expect("a path")
}

fn restore(dir: &Dir, at: &str) -> Server {
    let target = Server::start();
    run(&["restore", "--from", path(dir), "--at", at, "--to", &target.url(), "--yes"]).expect_success("restore");
    target
}

fn get(server: &Server, key: &str) -> String {
    String::from_utf8_lossy(&bytes(&server.conn().must(&args!["GET", key]))).into_owned()
}

#[test]
fn a_sidecar_records_outside_the_data_path() {
    let dir = Dir::new("journal");
    let server = Server::start();
    let mut conn = server.conn();
    conn.must(&args!["SET", "before", 1]);
    let follower = Follower::start(&server.url(), &dir);
    wait_for("the base", Duration::from_secs(10), || {
        let out = run(&["journal", "ls", "--json", "--from", path(&dir)]);
        let value: Value = serde_json::from_str(&out.stdout).ok()?;
        (!value["windows"].as_array()?.is_empty()).then_some(())
    });
    conn.must(&args!["SET", "after", 2]);
    conn.must(&args!["SET", "before", 3]);
    // WAIT counts us as a replica that has it on the disk.
    assert_eq!(int(&conn.must(&args!["WAIT", 1, 5000])), 1);
    assert_eq!(follower.terminate(), Some(0));
    let groups = crate::harness::journal::cat(dir.path());
    assert_eq!(groups.len(), 2);
    assert!(groups.iter().all(|g| g.origin.kind == "unknown"), "without a tee nobody is named: {groups:?}");
    let target = restore(&dir, "latest");
    assert_eq!((get(&target, "before"), get(&target, "after")), ("3".to_owned(), "2".to_owned()));
    let target = restore(&dir, "lsn:1");
    assert_eq!((get(&target, "before"), get(&target, "after")), ("1".to_owned(), "2".to_owned()));
}

#[test]
fn with_follow_the_copies_are_made_on_the_replica() {
    let dir = Dir::new("journal");
    let primary = Server::start();
    let replica = Server::start();
    primary.conn().must(&args!["SET", "k", 0]);
    replica.conn().must(&args!["REPLICAOF", "127.0.0.1", primary.port]);
    wait_for("the replica", Duration::from_secs(10), || {
        (replica.conn().info("replication", "master_link_status") == "up").then_some(())
    });
    let forks = |s: &Server| s.conn().info("stats", "total_forks");
    let before = forks(&primary);
    let mut redtape = Redtape::start(&primary.url(), dir.path(), &["--follow", &replica.url()]);
    assert_eq!(forks(&primary), before, "the primary has not forked");
    let mut conn = Conn::open(&redtape.url()).expect("a client");
    for n in 1..=500 {
        conn.must(&args!["SET", "k", n]);
    }
    redtape.wait_caught_up();
    assert_eq!(redtape.terminate(), Some(0));
    let groups = crate::harness::journal::cat(dir.path());
    assert_eq!(groups.len(), 500);
    assert!(groups.iter().all(|g| g.origin.kind == "client"));
    assert_eq!(get(&restore(&dir, "latest"), "k"), "500");
}

#[test]
fn a_followed_server_that_is_no_replica_any_more_is_not_taken_for_the_upstream() {
    let dir = Dir::new("journal");
    let primary = Server::start();
    let replica = Server::start();
    let stranger = Server::start();
    let up = || {
        wait_for("the replica", Duration::from_secs(20), || {
            (replica.conn().info("replication", "master_link_status") == "up").then_some(())
        })
    };
    replica.conn().must(&args!["REPLICAOF", "127.0.0.1", primary.port]);
    up();
    let nowhere = Dir::new("unused");
    let out = run(&[
        "proxy",
        "--listen",
        "127.0.0.1:0",
        "--upstream",
        &primary.url(),
        "--follow",
        &stranger.url(),
        "--dir",
        nowhere.join("j").to_str().expect("a path"),
    ]);
    assert_eq!(out.code, Some(69), "{}", out.stderr);
    assert!(out.stderr.contains("is not a replica of") && !nowhere.join("j").exists(), "{}", out.stderr);

    let mut redtape = Redtape::start(&primary.url(), dir.path(), &["--follow", &replica.url()]);
    let mut conn = Conn::open(&redtape.url()).expect("a client");
    conn.must(&args!["SET", "before", 1]);
    redtape.wait_caught_up();
    replica.conn().must(&args!["REPLICAOF", "NO", "ONE"]);
    wait_for("the alarm", Duration::from_secs(20), || {
        (redtape.metric(r#"redtape_capture_state{state="failed"}"#) == Some(1.0)).then_some(())
    });
    redtape.wait_said("writes are NOT being recorded");
    let complete = redtape.metric("redtape_journal_complete_until_seconds");
    conn.must(&args!["SET", "precious", 1]);
    std::thread::sleep(Duration::from_millis(2500));
    assert_eq!(
        redtape.metric("redtape_journal_complete_until_seconds"),
        complete,
        "the window ends where recording ended"
    );
    // As a replica it is followed again, with a new base and a gap that says why.
    replica.conn().must(&args!["REPLICAOF", "127.0.0.1", primary.port]);
    up();
    redtape.wait_streaming();
    redtape.wait_caught_up();
    assert_eq!(redtape.terminate(), Some(0));
    assert_eq!(ls(&dir)["gaps"].as_array().map(Vec::len), Some(1), "{}", ls(&dir));
    assert_eq!(get(&restore(&dir, "latest"), "precious"), "1");
}

#[test]
fn writes_during_an_outage_have_its_length_as_slack() {
    let dir = Dir::new("journal");
    let server = Server::start();
    let mut redtape = Redtape::start(&server.url(), dir.path(), &[]);
    redtape.wait_caught_up();
    let left = crate::harness::now_us();
    assert_eq!(redtape.terminate(), Some(0));
    std::thread::sleep(Duration::from_millis(300));
    server.conn().must(&args!["SET", "away", 1]);
    let ran = crate::harness::now_us();
    std::thread::sleep(Duration::from_millis(300));
    redtape.start_again();
    redtape.wait_streaming();
    redtape.wait_caught_up();
    assert_eq!(redtape.terminate(), Some(0));
    let group = &crate::harness::journal::cat(dir.path())[0];
    assert!(group.ts_us >= ran, "it ran before its time: {group:?}");
    assert!(
        group.ts_us - group.slack_us <= ran && group.ts_us - group.slack_us >= left - 1_500_000,
        "{group:?}, left at {left}"
    );
    assert_eq!(group.origin.kind, "unknown");
}

#[test]
fn another_history_begins_a_timeline_with_a_gap() {
    let dir = Dir::new("journal");
    let mut server = Server::start();
    let mut redtape = Redtape::start(&server.url(), dir.path(), &[]);
    Conn::open(&redtape.url()).expect("a client").must(&args!["SET", "k", "first"]);
    redtape.wait_caught_up();
    assert_eq!(redtape.terminate(), Some(0));
    let ended = crate::harness::now_us();
    // It restarts without data, so with a new replication id.
    server.kill9();
    std::thread::sleep(Duration::from_millis(300));
    server.restart();
    redtape.start_again();
    redtape.wait_streaming();
    Conn::open(&redtape.url()).expect("a client").must(&args!["SET", "k", "second"]);
    redtape.wait_caught_up();
    assert_eq!(redtape.terminate(), Some(0));

    let listed = ls(&dir);
    let windows = listed["windows"].as_array().expect("windows");
    let gaps = listed["gaps"].as_array().expect("gaps");
    assert_eq!((windows.len(), gaps.len()), (2, 1), "{listed}");
    assert!(gaps[0]["reason"].as_str().expect("a reason").contains("another history"), "{listed}");
    assert_eq!(get(&restore(&dir, "latest"), "k"), "second");
    let last_of_first = windows[0]["to_lsn"].as_u64().expect("an LSN");
    assert_eq!(get(&restore(&dir, &format!("lsn:{last_of_first}")), "k"), "first");
    // In the gap nothing is pretended.
    let target = Server::start();
    let at = rfc3339(ended + 150_000);
    let out = run(&["restore", "--from", path(&dir), "--at", &at, "--to", &target.url(), "--yes"]);
    assert_eq!(out.code, Some(66), "{}", out.stderr);
    assert!(out.stderr.contains("gap"), "{}", out.stderr);
    assert_eq!(int(&target.conn().must(&args!["DBSIZE"])), 0);
}

#[test]
fn a_promoted_server_goes_on_without_a_gap_and_gets_a_new_base_beside_the_stream() {
    let dir = Dir::new("journal");
    let primary = Server::start();
    let server = Server::start();
    server.conn().must(&args!["REPLICAOF", "127.0.0.1", primary.port]);
    wait_for("the replica", Duration::from_secs(10), || {
        (server.conn().info("replication", "master_link_status") == "up").then_some(())
    });
    let mut redtape = Redtape::start(&server.url(), dir.path(), &[]);
    primary.conn().must(&args!["SET", "k", "by the primary"]);
    wait_for("the write at the replica", Duration::from_secs(10), || {
        (int(&server.conn().must(&args!["EXISTS", "k"])) == 1).then_some(())
    });
    redtape.wait_caught_up();
    server.conn().must(&args!["REPLICAOF", "NO", "ONE"]);
    // Nobody waits for redtape: this is written in the moment of the promotion.
    server.conn().must(&args!["SET", "k", "after the promotion"]);
    wait_for("the base behind the promotion", Duration::from_secs(20), || {
        (redtape.metric(r#"redtape_snapshots_total{result="taken"}"#) == Some(1.0)).then_some(())
    });
    redtape.wait_streaming();
    Conn::open(&redtape.url()).expect("a client").must(&args!["SET", "k", "behind the base"]);
    redtape.wait_caught_up();
    redtape.wait_said("the server's replication id has changed");
    // That it was missing is not forgotten, and not said of one that is there.
    assert_eq!(redtape.terminate(), Some(0));
    redtape.start_again();
    redtape.wait_streaming();
    std::thread::sleep(Duration::from_millis(2500));
    assert_eq!(redtape.metric(r#"redtape_snapshots_total{result="taken"}"#), Some(0.0));
    assert_eq!(redtape.terminate(), Some(0));
    let listed = ls(&dir);
    assert_eq!(listed["gaps"].as_array().map(Vec::len), Some(0), "{listed}");
    assert_eq!(listed["windows"].as_array().map(Vec::len), Some(1), "{listed}");
    let bases = run(&["snapshot", "ls", "--dir", path(&dir), "--json"]).expect_success("snapshot ls");
    let kinds: Vec<Value> = bases.stdout.lines().map(|l| serde_json::from_str::<Value>(l).expect("JSON")).collect();
    assert!(kinds.len() == 2 && kinds.iter().all(|s| s["kind"] == "base" && s["timeline"] == 1), "{kinds:?}");
    let change = &listed["timelines"][0]["source_changes"][0];
    assert_eq!((&change["first_lsn"], &change["certain_from_lsn"]), (&Value::from(2), &Value::from(2)), "{listed}");
    let labelled = |at: &str| {
        let target = Server::start();
        let plan = run(&["restore", "--from", path(&dir), "--at", at, "--to", &target.url(), "--plan"]);
        plan.expect_success("a plan").stdout.contains("under another replication id")
    };
    // The point in time in between is the base's own, and so starts from it.
    assert_eq!(["lsn:1", "lsn:2", "latest"].map(labelled), [false, false, false]);
    for (at, value) in [("lsn:1", "by the primary"), ("lsn:2", "after the promotion"), ("latest", "behind the base")] {
        assert_eq!(get(&restore(&dir, at), "k"), value, "{at}");
    }
    crate::harness::journal::assert_verified(dir.path());
}

#[test]
fn a_base_behind_a_promotion_that_was_not_taken_is_taken_by_the_next_process() {
    let dir = Dir::new("journal");
    let (primary, server) = (Server::start(), Server::with(&["--repl-diskless-sync-delay", "3"]));
    server.conn().must(&args!["REPLICAOF", "127.0.0.1", primary.port]);
    wait_for("the replica", Duration::from_secs(10), || {
        (server.conn().info("replication", "master_link_status") == "up").then_some(())
    });
    let mut redtape = Redtape::start(&server.url(), dir.path(), &[]);
    redtape.wait_caught_up();
    server.conn().must(&args!["REPLICAOF", "NO", "ONE"]);
    wait_for("the promotion to be seen", Duration::from_secs(20), || {
        redtape.said().contains("the server's replication id has changed").then_some(())
    });
    redtape.wait_streaming();
    Conn::open(&redtape.url()).expect("a client").must(&args!["SET", "k", 1]);
    redtape.wait_caught_up();
    redtape.kill9();
    // Until it stands, what was written behind the promotion is labelled.
    let labels = |dir: &Dir| {
        let target = Server::start();
        let at = ["--at", "latest", "--to", &target.url(), "--plan"].map(str::to_owned);
        let plan: Vec<String> = ["restore", "--from", path(dir)].map(str::to_owned).into_iter().chain(at).collect();
        let listed = run(&["journal", "ls", "--from", path(dir)]).expect_success("journal ls").stdout;
        let plan = run(&plan).expect_success("a plan").stdout;
        [plan.contains("under another replication id"), listed.contains("the base after it is still to be taken")]
    };
    assert_eq!(labels(&dir), [true, true]);
    redtape.start_again();
    redtape.wait_streaming();
    wait_for("the base", Duration::from_secs(30), || {
        (redtape.metric(r#"redtape_snapshots_total{result="taken"}"#) == Some(1.0)).then_some(())
    });
    assert_eq!(redtape.terminate(), Some(0));
    assert_eq!(labels(&dir), [false, false]);
    assert_eq!(ls(&dir)["gaps"].as_array().map(Vec::len), Some(0));
    assert_eq!(get(&restore(&dir, "latest"), "k"), "1");
}

#[test]
fn snapshots_and_marks_beside_a_running_capture() {
    let dir = Dir::new("journal");
    let server = Server::with(&["--repl-backlog-size", "16mb"]);
    let mut redtape = Redtape::start(&server.url(), dir.path(), &[]);
    let url = redtape.url();
    let writer = std::thread::spawn(move || {
        let mut conn = Conn::open(&url).expect("a client");
        for n in 0..8_000 {
            conn.must(&args!["RPUSH", "l", n]);
        }
    });
    let mut direct = server.conn();
    wait_for("the writes to be under way", Duration::from_secs(20), || {
        (int(&direct.must(&args!["LLEN", "l"])) >= 200).then_some(())
    });
    let taken = run(&["snapshot", "create", "--dir", path(&dir), "--upstream", &server.url(), "--json"])
        .expect_success("snapshot create");
    let taken: Value = serde_json::from_str(&taken.stdout).expect("JSON");
    let lsn = taken["lsn"].as_u64().expect("an LSN");
    run(&["journal", "mark", "half-way", "--from", path(&dir)]).expect_success("journal mark");
    writer.join().expect("the writer");
    redtape.wait_caught_up();
    assert_eq!(redtape.terminate(), Some(0));
    println!("the snapshot stands at LSN {lsn}");
    assert!(lsn > 0 && lsn < 8_000, "in the middle of the writes: {lsn}");

    let listed = run(&["snapshot", "ls", "--dir", path(&dir), "--json"]).expect_success("snapshot ls");
    assert_eq!(listed.stdout.lines().count(), 2, "{}", listed.stdout);
    crate::harness::journal::assert_verified(dir.path());
    // The plan starts from the snapshot, and what comes out is exact: each push is there once.
    let plan = run(&["restore", "--from", path(&dir), "--at", "latest", "--to", &server.url(), "--plan", "--json"]);
    assert!(plan.code != Some(0) || plan.stdout.contains(&format!("{lsn}")), "{}", plan.stdout);
    let target = restore(&dir, "latest");
    assert_eq!(int(&target.conn().must(&args!["LLEN", "l"])), 8_000);
    let at = lsn + 100;
    let target = restore(&dir, &format!("lsn:{at}"));
    let mut conn = target.conn();
    assert_eq!(int(&conn.must(&args!["LLEN", "l"])) as u64, at);
    assert_eq!(bytes(&conn.must(&args!["LINDEX", "l", -1])), (at - 1).to_string().into_bytes());
    let marked = restore(&dir, "mark:half-way");
    let length = int(&marked.conn().must(&args!["LLEN", "l"])) as u64;
    assert!(length >= lsn && length <= 8_000);
}

/// The server answers some time after it has forked: what was written in between is not in the copy.
#[test]
fn a_snapshot_shows_a_time_before_the_next_write() {
    let dir = Dir::new("journal");
    let server = Server::with(&["--repl-backlog-size", "64mb", "--repl-diskless-sync-delay", "0"]);
    let mut redtape = Redtape::start(&server.url(), dir.path(), &[]);
    let (url, stop) = (redtape.url(), AtomicBool::new(false));
    let mut client = Conn::open(&url).expect("a client");
    client.must(&args!["INCR", "n"]);
    redtape.wait_caught_up();
    let snapshots: Vec<(u64, i64)> = std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut conn = Conn::open(&url).expect("a client");
            while !stop.load(Ordering::Relaxed) {
                conn.must(&args!["INCR", "n"]);
            }
        });
        let taken = (0..3).map(|_| {
            let taken = run(&["snapshot", "create", "--dir", path(&dir), "--upstream", &server.url(), "--json"])
                .expect_success("snapshot create");
            let taken: Value = serde_json::from_str(&taken.stdout).expect("JSON");
            (taken["lsn"].as_u64().expect("an LSN"), taken["ts_us"].as_i64().expect("a time"))
        });
        let taken = taken.collect();
        stop.store(true, Ordering::Relaxed);
        taken
    });
    // Each snapshot has a write before it and one behind it.
    client.must(&args!["INCR", "n"]);
    redtape.wait_caught_up();
    assert_eq!(redtape.terminate(), Some(0));
    let groups = crate::harness::journal::cat(dir.path());
    let time_of = |lsn: u64| groups.iter().find(|g| g.lsn == lsn).expect("a group").ts_us;
    for (lsn, ts) in snapshots {
        let (last, next) = (time_of(lsn), time_of(lsn + 1));
        println!("LSN {lsn}: {last} <= {ts} < {next}");
        assert!(last <= ts && (ts < next || last == next), "LSN {lsn}: {last} <= {ts} < {next}");
    }
}

#[test]
fn the_backlog_is_judged_at_the_start() {
    let dir = Dir::new("journal");
    let server = Server::with(&["--repl-backlog-size", "1mb"]);
    let redtape = Redtape::start(&server.url(), dir.path(), &[]);
    let mut conn = Conn::open(&redtape.url()).expect("a client");
    let value = "x".repeat(50_000);
    wait_for("the warning", Duration::from_secs(20), || {
        for _ in 0..20 {
            conn.must(&args!["SET", "k", value]);
        }
        redtape.said().contains("covers an outage of redtape of only").then_some(())
    });
    redtape.wait_said("repl-backlog-size");
    assert!(redtape.metric("redtape_backlog_covers_seconds").is_some_and(|s| s < 60.0));
}
