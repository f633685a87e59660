//! Nothing lost: redtape is killed under load, again and again; the journal then is what it would be
//! without. A restore at `latest` equals the server, and there is one timeline: no effect was missed.
//!
//! Then redtape, the server, and both in turn, under eight pipelined clients that remember what they were told: with
//! `--ack journal` the journal has it all, whichever process died; replies are never out of order; and at the end the
//! journal equals the server, whatever it was acknowledged by.
//!
//! `kill -9` leaves the page cache alone: this is about redtape's own death, not the machine's.

use crate::harness::conn::Value;
use crate::harness::redtape::run;
use crate::harness::told::{assert_all_there, restore_latest, write_and_remember};
use crate::harness::workload::{Options, preload};
use crate::harness::{Conn, Dir, Redtape, Server, State, Workload, env_number, journal, seed, wait_for};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::sync::atomic::{AtomicBool, Ordering};
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

#[test]
fn crashes_lose_no_acknowledged_write() {
    for ack in ["journal", "upstream"] {
        kill_in_turn(6, ack);
    }
}

#[test]
#[ignore = "minutes: make crash"]
fn many_crashes_lose_no_acknowledged_write() {
    let kills = env_number("REDTAPE_CRASHES", 200);
    for ack in ["journal", "upstream"] {
        kill_in_turn(kills, ack);
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dies {
    Redtape,
    /// It keeps nothing: what is not in the journal is gone.
    Server,
    Both,
}

fn kill_in_turn(kills: usize, ack: &str) {
    let mut rng = StdRng::seed_from_u64(seed());
    let journal_dir = Dir::new("journal");
    let mut server = Server::with(&["--repl-backlog-size", "64mb"]);
    let mut options = vec!["--ack", ack];
    if ack == "upstream" {
        options.extend(["--sync", "everysec"]);
    }
    let mut redtape = Redtape::start(&server.url(), journal_dir.path(), &options);
    let (mut histories, mut told_all) = (1, 0);
    for kill in 0..kills {
        let dies = [Dies::Redtape, Dies::Server, Dies::Both][kill % 3];
        let (url, stop) = (redtape.url(), AtomicBool::new(false));
        let told = std::thread::scope(|scope| {
            let clients = scope.spawn(|| write_and_remember(&url, &stop, &format!("k{kill}")));
            std::thread::sleep(Duration::from_millis(rng.random_range(100..400)));
            let server_first = rng.random_bool(0.5);
            if dies == Dies::Server || dies == Dies::Both && server_first {
                server.kill9();
            }
            if dies != Dies::Server {
                redtape.kill9();
            }
            if dies == Dies::Both {
                server.kill9();
            }
            // Some go on asking for a while.
            std::thread::sleep(Duration::from_millis(rng.random_range(0..50)));
            stop.store(true, Ordering::Relaxed);
            clients.join().expect("the clients")
        });
        told_all += told.len();
        if ack == "journal" {
            // Before anybody could add to it.
            assert_all_there(&mut restore_latest(journal_dir.path()).conn(), &told);
        }
        if dies != Dies::Redtape {
            server.restart();
            histories += 1;
        }
        if dies != Dies::Server {
            redtape.start_again();
        }
        redtape.wait_streaming();
        wait_for("writes to be taken again", Duration::from_secs(20), || {
            let mut conn = Conn::open(&redtape.url()).ok()?;
            matches!(conn.call(&args!["SET", "again", kill]), Ok(Value::Text(_))).then_some(())
        });
        // A life of the server that ends before it is followed is in no journal, unless that acknowledges.
        redtape.wait_caught_up();
        if dies == Dies::Redtape {
            assert_all_there(&mut server.conn(), &told);
        }
    }
    let (url, stop) = (redtape.url(), AtomicBool::new(false));
    let told = std::thread::scope(|scope| {
        let clients = scope.spawn(|| write_and_remember(&url, &stop, "last"));
        std::thread::sleep(Duration::from_millis(300));
        stop.store(true, Ordering::Relaxed);
        clients.join().expect("the clients")
    });
    redtape.wait_caught_up();
    let state = State::record_calm(&mut server.conn());
    assert_eq!(redtape.terminate(), Some(0), "{}", redtape.said());
    println!("--ack {ack}: {kills} kills, {told_all} keys told; {}", state.summary());
    journal::assert_verified(journal_dir.path());
    assert_eq!(journal::timelines(journal_dir.path()), histories, "one history for each life of the server");
    let target = Server::at_clock(state.at_us);
    let from = journal_dir.path().to_str().expect("a folder with a plain name");
    run(&["restore", "--from", from, "--at", "latest", "--to", &target.url(), "--via", "link", "--yes"])
        .expect_success("restore");
    assert_all_there(&mut target.conn(), &told);
    state.assert_same(&State::record_restored(&mut target.conn(), state.at_us), "latest");
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
