//! The tests' own instruments, tried on real servers: a replica that the server itself keeps equals its
//! primary by our comparison, and what differs is found.

use crate::harness::clock::Clock;
use crate::harness::conn::{Value, int};
use crate::harness::server::{Version, time_us};
use crate::harness::{Relay, Server, State, Workload, now_us, seed, wait_for, workload};
use std::time::Duration;

#[test]
fn a_server_at_a_clock_stands_still_and_works() {
    let long_ago = 1_600_000_000_123_456;
    let server = Server::new(&[], Clock::At(long_ago));
    let mut conn = server.conn();
    // Valkey 9 adds what passed since its loop's last turn, by the monotonic clock.
    let near = |us: i64| (us - long_ago).abs() < 50_000;
    assert!(near(time_us(&mut conn)));
    conn.must(&args!["SET", "k", "v", "PX", 100]);
    std::thread::sleep(Duration::from_millis(300));
    assert!(near(time_us(&mut conn)));
    assert!(int(&conn.must(&args!["PTTL", "k"])) > 50);

    let running = Server::new(&[], Clock::From(long_ago));
    let mut conn = running.conn();
    conn.must(&args!["SET", "k", "v", "PX", 1]);
    std::thread::sleep(Duration::from_millis(20));
    let at = time_us(&mut conn) - long_ago;
    assert!((20_000..60_000_000).contains(&at), "{at}");
    assert_eq!(conn.must(&args!["GET", "k"]), Value::Nil);
}

#[test]
fn a_replica_always_equals_its_primary() {
    if !Version::tested().at_least((7, 0), (0, 0)) {
        println!("skipped: before 7.0 a replica counts TTLs from its own clock, and differs");
        return;
    }
    let seed = seed();
    println!("server: {:?}", Version::tested());
    let server = Server::with(&["--repl-backlog-size", "64mb"]);
    workload::preload(&server, seed ^ 1, 300);
    let relay = Relay::to(server.port);
    let replica = Server::start();
    replica.conn().must(&args!["REPLICAOF", "127.0.0.1", relay.port]);
    let mut link = replica.conn();
    wait_for("the replica to follow", Duration::from_secs(20), || {
        (link.info("replication", "master_link_status") == "up").then_some(())
    });

    let mut clients = Workload::start(&server, &server.url(), &workload::Options::seeded(seed));
    for moment in 0..4 {
        clients.run_for(Duration::from_millis(1500));
        if moment == 1 {
            relay.cut_replication_when_there();
        }
        if moment == 2 {
            clients.start_evicting();
        }
        let started = now_us();
        let mut held = clients.hold();
        std::thread::sleep(Duration::from_millis(400));
        let state = State::record_calm(held.conn());
        let offset = held.conn().info("replication", "master_repl_offset");
        // What expires from now on must not reach the replica.
        let frozen = server.freeze();
        let offset: i64 = offset.trim().parse().expect("a number");
        wait_for("the replica's offset", Duration::from_secs(20), || {
            let mut at = |field: &str| link.info("replication", field).trim().parse::<i64>().expect("a number");
            (at("master_repl_offset") >= offset).then_some(())
        });
        println!("moment {moment}: {} held for {} ms", state.summary(), (now_us() - started) / 1000);
        assert!(state.keys() > 100, "a world worth comparing: {}", state.summary());
        // The copy: what a replica of the replica gets and keeps as a primary with its clock at T.
        let copy = Server::at_clock(state.at_us);
        let mut conn = copy.conn();
        conn.must(&args!["REPLICAOF", "127.0.0.1", replica.port]);
        wait_for("the copy's sync", Duration::from_secs(20), || {
            (conn.info("replication", "master_link_status") == "up").then_some(())
        });
        conn.must(&args!["REPLICAOF", "NO", "ONE"]);
        let copied = State::record_restored(&mut conn, state.at_us);
        drop(frozen);
        state.assert_same(&copied, &format!("moment {moment}, the replica"));
        drop(held);
        clients.stop_evicting();
    }
    let stats = clients.stop();
    println!("{} commands, {} errors, {} reconnects", stats.total(), stats.failed(), stats.reconnects);
    assert_eq!(stats.never_worked(), Vec::<String>::new(), "commands that the workload sends in vain");
}

#[test]
fn differences_are_found() {
    let server = Server::start();
    let mut conn = server.conn();
    conn.must(&args!["SET", "k", "v", "PX", 500_000]);
    conn.must(&args!["XADD", "x", "1-1", "f", "v"]);
    conn.must(&args!["XGROUP", "CREATE", "x", "g", "0"]);
    let first = State::record(&mut conn);
    assert!(first.differences(&State::record(&mut conn)).is_empty());
    // None of these changes DEBUG DIGEST.
    conn.must(&args!["PEXPIRE", "k", 600_000]);
    let found = first.differences(&State::record(&mut conn)).join("\n");
    assert!(found.contains("'k': expiry: expected Some"), "{found}");
    conn.must(&args!["XREADGROUP", "GROUP", "g", "c", "STREAMS", "x", ">"]);
    let found = first.differences(&State::record(&mut conn)).join("\n");
    assert!(found.contains("'x': stream: expected '"), "{found}");
    conn.must(&args!["DEL", "k"]);
    let found = first.differences(&State::record(&mut conn)).join("\n");
    assert!(found.contains("'k': missing") && found.contains("DEBUG DIGEST"), "{found}");
}
