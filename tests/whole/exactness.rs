//! Exactness: what a server held at ten points in time comes back, each time, by both ways.
//!
//! Many clients use every kind of write at once; one writer goes round the proxy; keys expire and are
//! evicted; the replication link is cut. At each point in time the world is held still and written down. When
//! all is over, every point in time is restored into a fresh server whose clock stands at that moment (else
//! what lived then would have expired since), and must be equal: `harness/moment.rs` says what that
//! means, `harness/workload/generate.rs` what is written and what is left out.
//!
//! At last `redtape diff` compares points in time with each other, and must say what the recorded states say
//! (`harness/difference.rs`).
//!
//! `REDTAPE_TEST_SERVER` chooses the server, `REDTAPE_SEED` repeats a run's commands,
//! `REDTAPE_MOMENTS` sets how many points in time.

use crate::harness::difference;
use crate::harness::redtape::{Outcome, run};
use crate::harness::server::Version;
use crate::harness::workload::{Options, preload};
use crate::harness::{Conn, Dir, Redtape, Relay, Server, State, Workload, env_number, journal, now_us, rfc3339, seed};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::time::{Duration, Instant};

/// Databases of which points in time are compared alone.
const DBS_ALONE: u32 = 4;

#[test]
fn every_point_in_time_is_restored_exactly() {
    let seed = seed();
    let mut rng = StdRng::seed_from_u64(seed);
    println!("server: {:?}", Version::tested());
    let moments = env_number("REDTAPE_MOMENTS", 10);
    let journal_dir = Dir::new("journal");

    // --- write, and write down ---
    let server = Server::with(&["--repl-backlog-size", "64mb"]);
    preload(&server, seed ^ 1, 200);
    let relay = Relay::to(server.port);
    let mut redtape = Redtape::start(&relay.url(), journal_dir.path(), &[]);
    let mut clients = Workload::start(&server, &redtape.url(), &Options::seeded(seed));
    let mut states = Vec::new();
    for moment in 0..moments {
        clients.run_for(Duration::from_millis(rng.random_range(300..1500)));
        if moment % 3 == 1 {
            relay.cut_replication_when_there();
            clients.run_for(Duration::from_millis(rng.random_range(100..600)));
        }
        match moment {
            2 => {
                // Once, early, through the proxy: everything is written anew after it.
                Conn::open(&redtape.url()).expect("the proxy").must(&args!["FLUSHALL"]);
                clients.run_for(Duration::from_secs(1));
            }
            5 => clients.start_evicting(),
            6 => {
                clients.stop_evicting();
                // What was evicted is written anew.
                clients.run_for(Duration::from_secs(1));
            }
            _ => {}
        }
        let held_since = Instant::now();
        let state = {
            let mut held = clients.hold();
            // The shortest lives end, and what nobody asked for has time to arrive.
            std::thread::sleep(Duration::from_millis(400));
            redtape.wait_caught_up();
            State::record_calm(held.conn())
        };
        println!(
            "moment {moment} at {}: {}; held for {:?}",
            rfc3339(state.at_us),
            state.summary(),
            held_since.elapsed()
        );
        assert!(state.keys() > 50, "a world worth comparing: {}", state.summary());
        states.push(state);
    }
    clients.run_for(Duration::from_millis(200));
    let stats = clients.stop();
    println!("{} commands, {} of them errors, {} reconnects", stats.total(), stats.failed(), stats.reconnects);
    println!("never worked: {:?}", stats.never_worked());
    redtape.wait_caught_up();
    assert_eq!(redtape.terminate(), Some(0), "the exit code after SIGTERM; it said:\n{}", redtape.said());
    drop(server);
    journal::assert_verified(journal_dir.path());
    assert_eq!(journal::timelines(journal_dir.path()), 1, "a link that was cut resumes");

    // --- restore, and compare ---
    let mut wrong = Vec::new();
    for (moment, state) in states.iter().enumerate() {
        for via in ["link", "scratch"] {
            let started = now_us();
            let target = Server::at_clock(state.at_us);
            let outcome = restore(&journal_dir, state.at_us, &target, via);
            if outcome.code != Some(0) && may_refuse(via, &outcome) {
                println!("moment {moment} by {via}: refused, as it cannot be exact: {}", outcome.stderr.trim());
                continue;
            }
            let outcome = outcome.expect_success(&format!("moment {moment} by {via}"));
            let restored = State::record_restored(&mut target.conn(), state.at_us);
            let differences = state.differences(&restored);
            println!("moment {moment} by {via}: {} differences, {} ms", differences.len(), (now_us() - started) / 1000);
            if !differences.is_empty() {
                let first: Vec<_> = differences.iter().take(12).cloned().collect();
                wrong.push(format!(
                    "moment {moment} at {} by {via}: {} differences\n  {}\n  restore said: {}",
                    rfc3339(state.at_us),
                    differences.len(),
                    first.join("\n  "),
                    outcome.stderr.trim()
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));

    // --- compare two points in time with each other ---
    let mut pairs: Vec<(usize, usize)> = (1..states.len()).map(|moment| (moment - 1, moment)).collect();
    // Over the FLUSHALL, the cuts and the evictions.
    pairs.extend([(0, states.len() - 1), (3, states.len() - 1)].into_iter().filter(|(first, last)| first < last));
    let mut narrowed = 0;
    for (first, second) in pairs {
        let (before, after) = (&states[first], &states[second]);
        let started = now_us();
        let sliced = diff(&journal_dir, before.at_us, after.at_us, &[]);
        let whole = diff(&journal_dir, before.at_us, after.at_us, &["--no-slice"]);
        println!(
            "diff of moments {first} and {second}: {} keys differ, {} ms; {}",
            difference::count(before, after),
            (now_us() - started) / 1000,
            sliced.lines().last().unwrap_or_default()
        );
        let mut outputs = vec![("sliced".to_owned(), None, sliced), ("whole".to_owned(), None, whole)];
        // All databases are flushed, swapped, and their functions changed, all the time; one of them is not.
        for db in 0..DBS_ALONE {
            let stdout = diff(&journal_dir, before.at_us, after.at_us, &["--db", &db.to_string()]);
            narrowed += usize::from(stdout.lines().last().is_some_and(|sums| sums.contains("\"all_because\":null")));
            outputs.push((format!("database {db}"), Some(db), stdout));
        }
        for (how, db, stdout) in outputs {
            let mistakes = difference::mistakes(before, after, db, &stdout);
            if !mistakes.is_empty() {
                let first_ones: Vec<_> = mistakes.iter().take(12).cloned().collect();
                wrong.push(format!(
                    "diff of moments {first} and {second}, {how}: {} mistakes\n  {}",
                    mistakes.len(),
                    first_ones.join("\n  ")
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    println!("{narrowed} of them compared the keys that were written");
}

fn diff(journal_dir: &Dir, first_us: i64, second_us: i64, more: &[&str]) -> String {
    let dir = journal_dir.path().to_str().expect("a folder with a plain name");
    let (first, second) = (rfc3339(first_us), rfc3339(second_us));
    let args = ["diff", "--dir", dir, "--at", &first, "--and", &second, "--json", "--limit", "1000000"];
    run(&[&args, more].concat()).expect_success("a diff").stdout
}

fn restore(journal_dir: &Dir, at_us: i64, target: &Server, via: &str) -> Outcome {
    let from = journal_dir.path().to_str().expect("a folder with a plain name");
    run(&["restore", "--from", from, "--at", &rfc3339(at_us), "--to", &target.url(), "--via", via, "--yes"])
}

/// Hash fields with a TTL that has passed cannot be replayed into a running server: there the link may
/// say so and name the other way. It may never be wrong.
fn may_refuse(via: &str, outcome: &Outcome) -> bool {
    let has_field_ttls = Version::tested().at_least((7, 4), (9, 0));
    via == "link" && has_field_ttls && outcome.stderr.contains("scratch")
}
