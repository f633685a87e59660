//! The server restarts, is demoted and promoted: recording goes on at once.

use crate::harness::{Dir, Redtape, Server, wait_for};
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
    let said = redtape.said();
    let line =
        said.lines().find(|l| l.contains("the upstream has become a replica")).unwrap_or_else(|| panic!("{said}"));
    assert!(line.contains("WARN") && line.contains(&format!("127.0.0.1:{}", other.port)), "{line}");
    server.conn().must(&args!["REPLICAOF", "NO", "ONE"]);
    is_replica(0.0);
    assert!(redtape.said().contains("the upstream has become a primary"), "{}", redtape.said());
}
