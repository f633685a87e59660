//! The server restarts, fails over, is demoted and promoted, under load: recording goes on at once, and where the server
//! continued its history nothing is missing.
//!
//! What a server continues is asked of itself: it names the history before as its second one. Only then may there be no
//! gap. In every case the end of the journal equals the server.

use crate::harness::conn::{Conn, Value, bytes};
use crate::harness::redtape::run;
use crate::harness::{Dir, Redtape, Server, State, env_number, journal, wait_for};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Recording goes on within this time after a server answers again.
const AT_ONCE: Duration = Duration::from_secs(1);

#[test]
fn a_server_that_was_away_for_long_is_followed_as_soon_as_it_answers() {
    let journal = Dir::new("journal");
    let mut server = Server::start();
    let mut redtape = Redtape::start(&server.url(), journal.path(), &[]);
    let mut worst = Duration::ZERO;
    // Long enough for pauses to have grown; by different times, so that none is hit by luck.
    for away in [2500, 3600, 5200] {
        server.kill9();
        std::thread::sleep(Duration::from_millis(away));
        server.start_again();
        let answers = Instant::now();
        redtape.wait_streaming();
        worst = worst.max(answers.elapsed());
    }
    println!("followed after {worst:?} at most");
    assert!(worst < AT_ONCE, "followed only after {worst:?}");
    // Nobody wants to read of every attempt.
    let said = redtape.said().matches("the replication link ended").count();
    assert!(said <= 12, "the same was said {said} times:\n{}", redtape.said());
    assert_eq!(redtape.terminate(), Some(0));
}

#[test]
fn a_change_of_the_upstreams_role_is_told() {
    let journal = Dir::new("journal");
    let (server, other) = (Server::start(), Server::start());
    let redtape = Redtape::start(&server.url(), journal.path(), &[]);
    let is_replica = |wanted: f64| {
        wait_for("the role", Duration::from_secs(10), || {
            (redtape.metric("redtape_upstream_is_replica") == Some(wanted)).then_some(())
        });
    };
    is_replica(0.0);
    assert!(!redtape.said().contains("has become"), "{}", redtape.said());
    // As Sentinel does it.
    server.conn().must(&args!["REPLICAOF", "127.0.0.1", other.port]);
    is_replica(1.0);
    redtape.wait_said("the upstream has become a replica");
    let said = redtape.said();
    let line =
        said.lines().find(|l| l.contains("the upstream has become a replica")).unwrap_or_else(|| panic!("{said}"));
    assert!(line.contains("WARN") && line.contains(&format!("127.0.0.1:{}", other.port)), "{line}");
    server.conn().must(&args!["REPLICAOF", "NO", "ONE"]);
    is_replica(0.0);
    redtape.wait_said("the upstream has become a primary");
}

#[test]
fn restarts_and_failovers_leave_no_gap() {
    all_ways(2);
}

#[test]
#[ignore = "minutes: make restarts"]
fn many_restarts_and_failovers_leave_no_gap() {
    all_ways(env_number("REDTAPE_RESTARTS", 20));
}

fn all_ways(times: usize) {
    shut_down_and_start(times);
    kill(times, false);
    kill(times, true);
    fail_over(times);
    promote_by_hand(times);
}

/// Clients that write until this is dropped, whatever becomes of their connections.
struct Load<'a> {
    stop: &'a AtomicBool,
    written: &'a AtomicU64,
}

fn with_load<T>(urls: &[String], work: impl FnOnce(&Load) -> T) -> T {
    let (stop, written) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for (n, url) in urls.iter().enumerate() {
            let (stop, written) = (&stop, &written);
            scope.spawn(move || write_on(url, n, stop, written));
        }
        let load = Load { stop: &stop, written: &written };
        let result = work(&load);
        drop(load);
        result
    })
}

impl Load<'_> {
    /// Waits until so many more writes were acknowledged.
    fn wait_for(&self, writes: u64) {
        let wanted = self.written.load(Ordering::Relaxed) + writes;
        wait_for("clients to write", Duration::from_secs(30), || {
            (self.written.load(Ordering::Relaxed) >= wanted).then_some(())
        });
    }
}

impl Drop for Load<'_> {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn write_on(url: &str, client: usize, stop: &AtomicBool, written: &AtomicU64) {
    let mut n = 0u64;
    while !stop.load(Ordering::Relaxed) {
        let Ok(mut conn) = Conn::open(url) else {
            std::thread::sleep(Duration::from_millis(5));
            continue;
        };
        while !stop.load(Ordering::Relaxed) {
            n += 1;
            let batch = [
                args!["SET", format!("s:{client}:{}", n % 50), n],
                args!["INCR", "counter"],
                args!["MULTI"],
                args!["RPUSH", format!("l:{client}"), n],
                args!["HINCRBY", "h", n % 10, 1],
                args!["EXEC"],
                args![
                    "EVAL",
                    "redis.call('SADD', KEYS[1], ARGV[1]); return redis.call('INCR', KEYS[2])",
                    2,
                    "set",
                    "n",
                    n % 100
                ],
                args!["SELECT", n % 2],
            ];
            let Ok(replies) = conn.pipeline(&batch) else { break };
            // A server that loads, or is a replica at present, says so.
            if matches!(replies[0], Value::Error(_)) {
                std::thread::sleep(Duration::from_millis(5));
            } else {
                written.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// The server's history, and the one that it continues.
fn histories(server: &Server) -> [String; 2] {
    let mut conn = server.conn();
    ["master_replid", "master_replid2"].map(|name| conn.info("replication", name))
}

struct Scene {
    journal: Dir,
    redtape: Redtape,
    server: Server,
    /// Histories that did not continue one before.
    timelines: usize,
    history: String,
}

impl Scene {
    fn new(server: Server) -> Self {
        let journal = Dir::new("journal");
        let redtape = Redtape::start(&server.url(), journal.path(), &[]);
        let [history, _] = histories(&server);
        Self { journal, redtape, server, timelines: 1, history }
    }

    fn urls(&self) -> Vec<String> {
        // One goes round the proxy.
        vec![self.redtape.url(), self.redtape.url(), self.redtape.url(), self.server.url()]
    }

    /// Whether the server goes on where it was.
    fn look_at_history(&mut self) -> bool {
        let [now, before] = histories(&self.server);
        let continued = now == self.history || before == self.history;
        self.history = now;
        self.timelines += usize::from(!continued);
        continued
    }

    /// Nobody writes: the end of the journal is what the server holds, and no gap is there that need not be.
    fn assert_recorded(&mut self, what: &str) {
        self.redtape.wait_streaming();
        self.redtape.wait_caught_up();
        assert_eq!(journal::timelines(self.journal.path()), self.timelines, "{what}: {}", self.redtape.said());
        let expected = State::record(&mut self.server.conn());
        let target = restore_latest(self.journal.path());
        expected.assert_same(&State::record(&mut target.conn()), what);
    }

    fn end(mut self, what: &str) {
        assert_eq!(self.redtape.terminate(), Some(0), "{what}: {}", self.redtape.said());
        journal::assert_verified(self.journal.path());
    }
}

fn restore_latest(journal: &Path) -> Server {
    let target = Server::start();
    let from = journal.to_str().expect("a plain path");
    run(&["restore", "--from", from, "--at", "latest", "--to", &target.url(), "--yes"]).expect_success("restore");
    target
}

/// A planned restart: the server saves, ends and comes back.
fn shut_down_and_start(times: usize) {
    let mut scene = Scene::new(Server::with(&["--repl-backlog-size", "16mb"]));
    let mut continued = 0;
    for n in 0..times {
        with_load(&scene.urls(), |load| {
            load.wait_for(100);
            scene.server.shut_down_saving();
            std::thread::sleep(Duration::from_millis(300 * (n as u64 % 4)));
            scene.server.start_again();
            load.wait_for(100);
        });
        continued += usize::from(scene.look_at_history());
        scene.assert_recorded(&format!("SHUTDOWN SAVE and start, {n}"));
    }
    println!("SHUTDOWN SAVE and start: {continued} of {times} went on with their history");
    // Redis from 7.0 on, and Valkey, keep it in the RDB.
    if crate::harness::server::Version::tested().at_least((7, 0), (0, 0)) {
        assert_eq!(continued, times);
    }
    scene.end("SHUTDOWN SAVE and start");
}

/// The server's process dies; with an AOF its data are there again, its history is not.
fn kill(times: usize, aof: bool) {
    let what = format!("kill -9, AOF {aof}");
    let options = ["--appendonly", if aof { "yes" } else { "no" }, "--appendfsync", "always"];
    let mut scene = Scene::new(Server::with(&options));
    for n in 0..times {
        with_load(&scene.urls(), |load| {
            load.wait_for(100);
            scene.server.kill9();
            std::thread::sleep(Duration::from_millis(300 * (n as u64 % 4)));
            scene.server.start_again();
            load.wait_for(100);
        });
        scene.look_at_history();
        scene.assert_recorded(&format!("{what}, {n}"));
    }
    println!("{what}: {} timelines", scene.timelines);
    scene.end(&what);
}

fn follow(replica: &Server, primary: &Server) {
    replica.conn().must(&args!["REPLICAOF", "127.0.0.1", primary.port]);
    in_sync(replica);
}

fn in_sync(replica: &Server) {
    wait_for("the replica", Duration::from_secs(20), || {
        (replica.conn().info("replication", "master_link_status") == "up").then_some(())
    });
}

fn offset(server: &Server) -> u64 {
    server.conn().info("replication", "master_repl_offset").parse().expect("a number")
}

/// `FAILOVER TO`, there and back again.
fn fail_over(times: usize) {
    let what = "FAILOVER TO";
    let mut scene = Scene::new(Server::with(&["--repl-backlog-size", "16mb"]));
    if matches!(scene.server.conn().call(&args!["FAILOVER", "ABORT"]), Ok(Value::Error(e)) if e.contains("unknown")) {
        return println!("{what}: this server has none");
    }
    let other = Server::with(&["--repl-backlog-size", "16mb"]);
    follow(&other, &scene.server);
    let mut urls = scene.urls();
    urls.push(other.url());
    for n in 0..times {
        with_load(&urls, |load| {
            load.wait_for(100);
            for (from, to) in [(&scene.server, &other), (&other, &scene.server)] {
                let [before, _] = histories(from);
                // The primary calls a replica online some time after the replica itself calls its link up.
                wait_for("the replica to be online", Duration::from_secs(20), || {
                    let replica = format!("port={},state=online", to.port);
                    let info = bytes(&from.conn().must(&args!["INFO", "replication"]));
                    String::from_utf8_lossy(&info).contains(&replica).then_some(())
                });
                from.conn().must(&args!["FAILOVER", "TO", "127.0.0.1", to.port]);
                wait_for("the failover", Duration::from_secs(20), || {
                    (from.conn().info("replication", "role") == "slave").then_some(())
                });
                in_sync(from);
                let [now, continues] = histories(to);
                assert_eq!(continues, before, "{what}: the servers hand their history over");
                scene.history = now;
                // A server names one history before its own: of the second before it nobody could tell.
                wait_for("the new id to be followed", Duration::from_secs(20), || {
                    scene.redtape.said().contains(&format!("now=\"{}\"", scene.history)).then_some(())
                });
                load.wait_for(100);
            }
        });
        assert!(scene.look_at_history());
        scene.assert_recorded(&format!("{what}, {n}"));
    }
    scene.end(what);
}

/// The upstream is a replica that is promoted by hand, then follows the other server again, which took over from it.
fn promote_by_hand(times: usize) {
    let what = "REPLICAOF NO ONE";
    let options = ["--repl-backlog-size", "16mb"];
    let (other, server) = (Server::with(&options), Server::with(&options));
    follow(&server, &other);
    let mut scene = Scene::new(server);
    for n in 0..times {
        with_load(&[other.url()], |load| {
            load.wait_for(100);
            scene.server.conn().must(&args!["REPLICAOF", "NO", "ONE"]);
        });
        assert!(scene.look_at_history(), "{what}: a promoted replica continues");
        with_load(&scene.urls(), |load| load.wait_for(100));
        scene.assert_recorded(&format!("{what}, {n}"));
        // What the other server wrote since is lost with it: it starts from the promoted one's data.
        follow(&other, &scene.server);
        wait_for("the replica to have it all", Duration::from_secs(20), || {
            (offset(&other) == offset(&scene.server)).then_some(())
        });
        other.conn().must(&args!["REPLICAOF", "NO", "ONE"]);
        follow(&scene.server, &other);
        assert!(scene.look_at_history(), "{what}: a demoted primary continues");
        scene.assert_recorded(&format!("{what}, demoted again, {n}"));
    }
    scene.end(what);
}
