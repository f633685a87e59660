//! redtape beside the server's real replicas: `WAIT` counts it, `FAILOVER` never chooses it, `SHUTDOWN` does not wait for it.

use std::time::{Duration, Instant};

use crate::harness::conn::{Value, int, items};
use crate::harness::server::Version;
use crate::harness::{Conn, Dir, Redtape, Server, wait_for};

/// A server with redtape in front, and a real replica if wanted.
struct Scene {
    server: Server,
    replica: Option<Server>,
    redtape: Redtape,
    journal: Dir,
}

impl Scene {
    fn start(with_replica: bool) -> Self {
        let journal = Dir::new("journal");
        let server = Server::start();
        // The server looks at its replicas in the order in which they came: redtape is the first.
        let redtape = Redtape::start(&server.url(), journal.path(), &[]);
        let replica = with_replica.then(|| replica_of(&server));
        Self { server, replica, redtape, journal }
    }

    fn conn(&self) -> Conn {
        Conn::open(&self.redtape.url()).expect("a client")
    }
}

/// A replica that has caught up, with the server and in its eyes.
fn replica_of(server: &Server) -> Server {
    let replica = Server::with(&["--replicaof", "127.0.0.1", &server.port.to_string(), "--repl-timeout", "600"]);
    let mut conn = server.conn();
    conn.must(&args!["CONFIG", "SET", "repl-timeout", 600]);
    wait_for("the replica", Duration::from_secs(20), || {
        let up = replica.conn().info("replication", "master_link_status") == "up";
        (up && int(&conn.must(&args!["WAIT", 2, 100])) == 2).then_some(())
    });
    replica
}

fn has_failover() -> bool {
    Version::tested().at_least((6, 2), (0, 0))
}

#[test]
fn wait_counts_redtape_in_transactions_too() {
    let scene = Scene::start(false);
    for mut conn in [scene.server.conn(), scene.conn()] {
        for n in 0..20 {
            conn.must(&args!["SET", "k", n]);
            assert_eq!(int(&conn.must(&args!["WAIT", 1, 5000])), 1);
        }
        // The question that WAIT sent to the replicas counts as well, and is acknowledged within a second.
        std::thread::sleep(Duration::from_millis(1500));
        conn.must(&args!["MULTI"]);
        conn.must(&args!["WAIT", 1, 0]);
        assert_eq!(items(&conn.must(&args!["EXEC"])), [Value::Int(1)], "what was journaled before");
    }
}

#[test]
fn a_failover_never_chooses_redtape() {
    if !has_failover() {
        return;
    }
    let scene = Scene::start(false);
    let mut conn = scene.server.conn();
    conn.must(&args!["SET", "k", 1]);
    assert_eq!(int(&conn.must(&args!["WAIT", 1, 5000])), 1);
    // Also when it has acknowledged everything, some time ago.
    std::thread::sleep(Duration::from_millis(1500));
    conn.must(&args!["FAILOVER", "TIMEOUT", 1500]);
    wait_for("the end of the failover", Duration::from_secs(10), || {
        let state = conn.info("replication", "master_failover_state");
        assert_ne!(state, "failover-in-progress");
        (state == "no-failover").then_some(())
    });
    assert_eq!(conn.info("replication", "role"), "master");
    conn.must(&args!["SET", "k", 2]);
}

#[test]
fn a_failover_chooses_the_real_replica_beside_redtape() {
    if !has_failover() {
        return;
    }
    let scene = Scene::start(true);
    let replica = scene.replica.as_ref().expect("a replica");
    let mut conn = scene.server.conn();
    for n in 0..50 {
        scene.conn().must(&args!["SET", "k", n]);
    }
    conn.must(&args!["FAILOVER", "TIMEOUT", 10_000]);
    wait_for("the replica to be the primary", Duration::from_secs(15), || {
        (replica.conn().info("replication", "role") == "master").then_some(())
    });
    assert_eq!(conn.info("replication", "role"), "slave");
    assert_eq!(conn.info("replication", "master_port"), replica.port.to_string());
    assert_eq!(crate::harness::conn::text(&replica.conn().must(&args!["GET", "k"])), "49");
}

#[test]
fn a_shutdown_does_not_wait_for_redtape_which_has_all_of_it() {
    for _ in 0..3 {
        let scene = Scene::start(false);
        let mut conn = scene.server.conn();
        for n in 0..2000 {
            conn.must(&args!["SET", format!("k{n}"), n]);
        }
        let began = Instant::now();
        // It answers only if it does not shut down.
        let refused = conn.call(&args!["SHUTDOWN", "NOSAVE"]);
        let took = began.elapsed();
        assert!(refused.is_err(), "{refused:?}");
        assert!(took < Duration::from_secs(1), "the server needed {took:?}");
        drop(scene.server);
        let mut redtape = scene.redtape;
        wait_for("the journal to have it all", Duration::from_secs(10), || {
            (redtape.metric("redtape_journal_durable_lsn") >= Some(2000.0)).then_some(())
        });
        assert_eq!(redtape.terminate(), Some(0));
        assert_eq!(crate::harness::journal::cat(scene.journal.path()).len(), 2000);
    }
}

/// A shutdown that waits for another replica, and is called off: redtape follows again, without a gap.
#[test]
fn a_shutdown_that_is_called_off_costs_nothing() {
    if !Version::tested().at_least((7, 0), (0, 0)) {
        return;
    }
    let mut scene = Scene::start(true);
    let frozen = scene.replica.as_ref().expect("a replica").freeze();
    let mut conn = scene.server.conn();
    conn.must(&args!["SET", "before", 1]);
    std::thread::scope(|scope| {
        let leaving = scope.spawn(|| scene.server.conn().call(&args!["SHUTDOWN", "NOSAVE"]));
        wait_for("redtape to leave", Duration::from_secs(5), || {
            (conn.info("replication", "connected_slaves") == "1").then_some(())
        });
        std::thread::sleep(Duration::from_millis(700));
        assert_eq!(conn.info("replication", "connected_slaves"), "1", "it comes back only when the server stays");
        conn.must(&args!["SHUTDOWN", "ABORT"]);
        assert!(matches!(leaving.join().expect("no panic"), Ok(Value::Error(_))));
    });
    drop(frozen);
    conn.must(&args!["SET", "after", 1]);
    scene.redtape.wait_streaming();
    scene.redtape.wait_caught_up();
    assert_eq!(scene.redtape.metric("redtape_journal_gaps"), Some(0.0));
    assert_eq!(scene.redtape.metric("redtape_timeline"), Some(1.0));
    assert_eq!(scene.redtape.terminate(), Some(0));
    assert_eq!(crate::harness::journal::cat(scene.journal.path()).len(), 2);
}

/// A replica that redtape follows is a server like any other: its own shutdown does not wait for redtape either.
#[test]
fn the_shutdown_of_a_replica_that_is_followed_does_not_wait() {
    let (primary, journal) = (Server::start(), Dir::new("journal"));
    let mut replica = Server::with(&["--replicaof", "127.0.0.1", &primary.port.to_string()]);
    wait_for("the replica", Duration::from_secs(20), || {
        (replica.conn().info("replication", "master_link_status") == "up").then_some(())
    });
    let follow = replica.url();
    let mut redtape = Redtape::start(&primary.url(), journal.path(), &["--follow", &follow]);
    primary.conn().must(&args!["SET", "k", 1]);
    redtape.wait_caught_up();
    let began = Instant::now();
    let refused = replica.conn().call(&args!["SHUTDOWN", "NOSAVE"]);
    assert!(refused.is_err(), "{refused:?}");
    let took = began.elapsed();
    assert!(took < Duration::from_secs(1), "the replica needed {took:?}");
    replica.restart();
    redtape.wait_streaming();
}
