//! Nothing lost: redtape is killed under load, again and again; the journal then is what it would be
//! without. A restore at `latest` equals the server, and there is one timeline: no effect was missed.
//!
//! `kill -9` leaves the page cache alone: this is about redtape's own death, not the machine's.

#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr, clippy::pedantic)]

mod harness;

use harness::redtape::run;
use harness::workload::{Options, preload};
use harness::{Dir, Redtape, Server, State, Workload, env_number, journal, seed};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::time::Duration;

#[test]
fn twenty_kills_under_load_lose_nothing() {
    kill_and_compare(20, &["--sync", "everysec"]);
}

#[test]
#[ignore = "minutes: make crash"]
fn many_kills_under_load_lose_nothing() {
    let kills = env_number("REDTAPE_CRASHES", 200);
    for sync in ["always", "everysec", "no"] {
        println!("--sync {sync}");
        kill_and_compare(kills, &["--sync", sync]);
    }
}

fn kill_and_compare(kills: usize, options: &[&str]) {
    let seed = seed();
    let mut rng = StdRng::seed_from_u64(seed);
    let journal_dir = Dir::new("journal");
    let server = Server::with(&["--repl-backlog-size", "64mb"]);
    preload(&server, seed ^ 1, 200);
    let mut redtape = Redtape::start(&server.url(), journal_dir.path(), options);
    let mut clients = Workload::start(&server, &redtape.url(), &Options::seeded(seed));
    for kill in 0..kills {
        clients.run_for(Duration::from_millis(rng.random_range(50..500)));
        redtape.kill9();
        // The writer that goes round the proxy goes on meanwhile.
        std::thread::sleep(Duration::from_millis(rng.random_range(0..150)));
        redtape.start_again();
        // Mostly killed at work; sometimes while it still recovers.
        if kill % 4 != 0 {
            redtape.wait_streaming();
        }
    }
    redtape.wait_streaming();
    clients.run_for(Duration::from_millis(500));
    let state = {
        let mut held = clients.hold();
        std::thread::sleep(Duration::from_millis(400));
        redtape.wait_caught_up();
        let state = State::record_calm(held.conn());
        // Nothing may be written after what was written down: redtape ends while the world is held.
        assert_eq!(redtape.terminate(), Some(0), "the exit code after SIGTERM; it said:\n{}", redtape.said());
        state
    };
    let stats = clients.stop();
    println!("{kills} kills, {} commands, {} reconnects; {}", stats.total(), stats.reconnects, state.summary());
    assert!(stats.reconnects as usize >= kills, "the clients were there when it was killed");
    journal::assert_verified(journal_dir.path());
    assert_eq!(journal::timelines(journal_dir.path()), 1, "every restart went on where the last run had stopped");

    let from = journal_dir.path().to_str().expect("a folder with a plain name");
    for via in ["link", "scratch"] {
        let target = Server::at_clock(state.at_us);
        let to = target.url();
        run(&["restore", "--from", from, "--at", "latest", "--to", &to, "--via", via, "--yes"])
            .expect_success(&format!("restore by {via}"));
        state.assert_same(&State::record_restored(&mut target.conn(), state.at_us), &format!("latest, by {via}"));
    }
}
