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
        if !Version::tested().at_least((7, 0), (0, 0)) {
            // It ends without looking whether its replicas have everything.
            continue;
        }
        let mut redtape = scene.redtape;
        assert_eq!(redtape.terminate(), Some(0));
        assert_eq!(crate::harness::journal::cat(scene.journal.path()).len(), 2000);
    }
}

/// Before a copy begins, and while it comes, redtape is a replica that has not caught up.
#[test]
fn a_shutdown_does_not_wait_for_a_base() {
    if !Version::tested().at_least((7, 0), (0, 0)) {
        return;
    }
    // The second: a key is copied every 10 ms.
    for (option, value, state) in [
        ("--repl-diskless-sync-delay", "30", "state=wait_bgsave"),
        ("--rdb-key-save-delay", "10000", "state=send_bulk"),
    ] {
        let server = Server::with(&["--repl-diskless-sync-delay", "0", option, value]);
        let mut conn = server.conn();
        for n in 0..2000 {
            conn.must(&args!["SET", format!("k{n}"), n]);
        }
        let journal = Dir::new("journal");
        let mut redtape = Redtape::start_only(&server.url(), journal.path(), &[]);
        wait_for("redtape to wait for the copy", Duration::from_secs(10), || {
            let info = crate::harness::conn::text(&conn.must(&args!["INFO", "replication"]));
            (info.contains(state) || info.contains("state=wait_bgsave")).then_some(())
        });
        // It has not acknowledged this.
        conn.must(&args!["SET", "k", "moves the offset"]);
        std::thread::sleep(Duration::from_millis(500));
        let began = Instant::now();
        let refused = conn.call(&args!["SHUTDOWN", "NOSAVE"]);
        let took = began.elapsed();
        assert!(refused.is_err(), "{option}: {refused:?}");
        assert!(took < Duration::from_secs(3), "{option}: the server needed {took:?}");
        assert_eq!(redtape.terminate(), Some(0));
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

/// Writes until they go by a shared connection, so that what is written from here on is remembered by that one.
fn share(scene: &Scene, conn: &mut Conn) {
    wait_for("a shared connection", Duration::from_secs(10), || {
        for n in 0..5 {
            conn.must(&args!["SET", "k", n]);
        }
        (scene.redtape.metric("redtape_lanes") >= Some(1.0)).then_some(())
    });
    for n in 0..5 {
        conn.must(&args!["SET", "k", n]);
    }
}

/// The answer, and how long it took.
fn timed(conn: &mut Conn, command: &crate::harness::Args) -> (Value, Duration) {
    let began = Instant::now();
    let answer = conn.call(command).expect("an answer");
    (answer, began.elapsed())
}

/// What a session wrote by a shared connection counts for its WAIT: with a replica that stands still, and goes on.
fn waits_for_what_it_wrote(user: Option<&[&str]>) {
    let scene = Scene::start(true);
    if let Some(rules) = user {
        let mut rule = args!["ACL", "SETUSER", "app", "on", ">pw", "~*"];
        rules.iter().for_each(|r| rule.push(r));
        scene.server.conn().must(&rule);
    }
    let open = || {
        let mut conn = scene.conn();
        if user.is_some() {
            conn.must(&args!["AUTH", "app", "pw"]);
        }
        share(&scene, &mut conn);
        conn
    };
    let mut clients: Vec<Conn> = (0..6).map(|_| open()).collect();
    let mut other = open();
    assert_eq!(int(&clients[0].must(&args!["WAIT", 2, 5000])), 2, "the replica and redtape");
    let frozen = scene.replica.as_ref().expect("a replica").freeze();
    for conn in &mut clients {
        conn.must(&args!["SET", "k", "unseen by the replica"]);
    }
    // Each its own time, all by what may be one connection.
    std::thread::scope(|scope| {
        for (n, conn) in clients.iter_mut().enumerate() {
            scope.spawn(move || {
                let wanted = Duration::from_millis(600 + 150 * n as u64);
                let (answer, took) = timed(conn, &args!["WAIT", 2, wanted.as_millis() as u64]);
                assert_eq!(answer, Value::Int(1), "client {n}: the replica has nothing");
                assert!(took >= wanted && took < wanted + Duration::from_secs(1), "client {n}: {took:?}");
                // Less is there at once.
                let (answer, took) = timed(conn, &args!["WAIT", 1, 5000]);
                assert_eq!(answer, Value::Int(1));
                assert!(took < Duration::from_secs(1), "client {n}: {took:?}");
            });
        }
        for n in 0..50 {
            let (_, took) = timed(&mut other, &args!["SET", "other", n]);
            assert!(took < Duration::from_millis(400), "others are held up: {took:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    });
    // For as long as it takes.
    let mut late = open();
    late.must(&args!["SET", "k", "late"]);
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| (late.must(&args!["WAIT", 2, 0]), Instant::now()));
        std::thread::sleep(Duration::from_millis(500));
        let goes_on = Instant::now();
        drop(frozen);
        let (answer, answered) = waits.join().expect("no panic");
        assert_eq!(answer, Value::Int(2));
        assert!(answered >= goes_on, "it was answered before the replica went on");
    });
}

#[test]
fn wait_waits_for_what_went_by_a_shared_connection() {
    waits_for_what_it_wrote(None);
}

#[test]
fn wait_waits_for_what_a_user_without_the_right_to_ping_wrote() {
    waits_for_what_it_wrote(Some(&["+set", "+wait"]));
}

#[test]
fn wait_is_refused_in_the_servers_words() {
    let scene = Scene::start(false);
    scene.server.conn().must(&args!["ACL", "SETUSER", "app", "on", ">pw", "~*", "+set"]);
    let commands = [
        args!["WAIT"],
        args!["WAIT", "x", 0],
        args!["WAIT", 1, "x"],
        args!["WAIT", 1, -1],
        args!["WAIT", -1, 10],
        args!["WAIT", 0, 0],
        args!["WAITAOF", 0, 0, 0],
        args!["WAITAOF", 1, 0, 10],
        args!["WAITAOF", 2, 0, 10],
        args!["WAITAOF", 0, 7, 10],
        args!["WAITAOF", 0, 0],
    ];
    for user in [None, Some("app")] {
        for command in &commands {
            let [got, want] = [scene.conn(), scene.server.conn()].map(|mut conn| {
                if let Some(user) = user {
                    conn.must(&args!["AUTH", user, "pw"]);
                }
                // The other has none, and does not mind.
                share(&scene, &mut conn);
                conn.must(&args!["SET", "k", 1]);
                conn.call(command).expect("an answer")
            });
            assert_eq!(got, want, "{user:?}: {}", crate::harness::conn::show(command));
        }
    }
}

/// A client that asks while its earlier writes are still under way, or that leaves while it waits.
#[test]
fn wait_in_a_pipeline_and_of_clients_that_leave() {
    let scene = Scene::start(true);
    let frozen = scene.replica.as_ref().expect("a replica").freeze();
    let mut conn = scene.conn();
    share(&scene, &mut conn);
    let batch: Vec<_> =
        (0..20).map(|n| args!["SET", "k", n]).chain([args!["WAIT", 2, 300], args!["GET", "k"]]).collect();
    let replies = conn.pipeline(&batch).expect("replies");
    assert_eq!(replies[20..], [Value::Int(1), Value::Bytes(b"19".to_vec())]);
    for _ in 0..20 {
        let mut leaves = scene.conn();
        share(&scene, &mut leaves);
        leaves.send(b"WAIT 2 0\r\n").expect("sent");
    }
    drop(frozen);
    wait_for("those who left to be gone", Duration::from_secs(10), || {
        (scene.redtape.metric("redtape_sessions") <= Some(1.0)).then_some(())
    });
    // What nobody needs any more is closed.
    wait_for("retired connections to be closed", Duration::from_secs(20), || {
        conn.must(&args!["GET", "k"]);
        (scene.redtape.metric("redtape_lanes") <= Some(4.0)).then_some(())
    });
}

/// A client that leaves while its own connection waits, which is asked last.
#[test]
fn a_client_that_leaves_in_the_last_step_of_its_wait_is_gone() {
    let scene = Scene::start(true);
    let mut leaves = scene.conn();
    share(&scene, &mut leaves);
    assert_eq!(int(&leaves.must(&args!["WAIT", 2, 5000])), 2);
    let _frozen = scene.replica.as_ref().expect("a replica").freeze();
    leaves.must(&args!["SET", "k", "by its own connection"]);
    leaves.send(b"WAIT 2 0\r\n").expect("sent");
    let mut admin = scene.server.conn();
    let mut blocked = |count: &str| {
        wait_for(&format!("{count} blocked clients"), Duration::from_secs(10), || {
            (admin.info("clients", "blocked_clients") == count).then_some(())
        });
    };
    blocked("1");
    drop(leaves);
    blocked("0");
}
