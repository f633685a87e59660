//! Commands that read, in a loop beside a redtape that takes bases and snapshots, fills and compresses segments, prunes, and is started
//! again: none of them takes its work in progress for damage.
//!
//! `REDTAPE_BESIDE_SECONDS` says for how long.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::harness::conn::Conn;
use crate::harness::redtape::{BINARY, run};
use crate::harness::{Dir, Redtape, Server, env_number, seed};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// So large, and so random, that a segment of 1 MiB is soon full.
const VALUE_BYTES: usize = 20_000;

fn text(path: &Path) -> &str {
    path.to_str().expect("a plain path")
}

/// Ends everybody also when an assertion fails.
struct Stopper<'a>(&'a AtomicBool);

impl Drop for Stopper<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Writes and sets marks, whatever becomes of the connection.
fn write(url: &str, seed: u64, stop: &AtomicBool) -> u64 {
    let (mut random, mut value, mut done) = (StdRng::seed_from_u64(seed), vec![0; VALUE_BYTES], 0);
    while !stop.load(Ordering::Relaxed) {
        let Ok(mut conn) = Conn::open(url) else {
            std::thread::sleep(Duration::from_millis(20));
            continue;
        };
        while !stop.load(Ordering::Relaxed) {
            random.fill_bytes(&mut value);
            if conn.call(&args!["SET", format!("k:{}", done % 20), &value]).is_err() {
                break;
            }
            done += 1;
            if done % 50 == 0 && conn.call(&args!["REDTAPE.MARK", format!("m{done}")]).is_err() {
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    done
}

/// Each command again and again; gives how often.
fn read(words: &[&str], sound: &str, stop: &AtomicBool) -> u64 {
    let mut times = 0;
    while !stop.load(Ordering::Relaxed) {
        let outcome = run(words);
        let what = words.join(" ");
        assert_eq!(outcome.code, Some(0), "{what}: {}\n{}", outcome.stdout, outcome.stderr);
        assert!(outcome.stdout.contains(sound), "{what}: {}", outcome.stdout);
        for word in ["amage", "corrupt", "unfinished"] {
            assert!(!outcome.stderr.contains(word), "{what}: {}", outcome.stderr);
        }
        times += 1;
        // Pruning needs a time without readers.
        std::thread::sleep(Duration::from_millis(50));
    }
    times
}

/// A reader without an end: behind its first line, for which a busy machine may take a while, it goes on for a second.
fn tail(dir: &Path, stop: &AtomicBool) -> u64 {
    let mut times = 0;
    while !stop.load(Ordering::Relaxed) {
        let mut tail = Command::new(BINARY)
            .args(["journal", "tail", "-n", "5", "--from", text(dir)])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("redtape");
        let mut line = String::new();
        let mut out = BufReader::new(tail.stdout.take().expect("its output"));
        out.read_line(&mut line).expect("a line");
        let rest = std::thread::spawn(move || std::io::copy(&mut out, &mut std::io::sink()));
        std::thread::sleep(Duration::from_secs(1));
        let ended = tail.try_wait().expect("its state");
        let _ = tail.kill();
        let said = tail.wait_with_output().expect("its end");
        let said = String::from_utf8_lossy(&said.stderr);
        assert_eq!(ended, None, "it ended by itself: {said}");
        assert!(!line.is_empty(), "{said}");
        let _ = rest.join();
        times += 1;
    }
    times
}

#[test]
fn no_command_that_reads_takes_work_in_progress_for_damage() {
    let journal = Dir::new("journal");
    let dir = journal.path();
    let server = Server::with(&["--repl-backlog-size", "64mb", "--repl-diskless-sync-delay", "0"]);
    let target = Server::start();
    let options = ["--retention", "3s", "--snapshot-every", "1s", "--segment-mib", "1"];
    let mut redtape = Redtape::start(&server.url(), dir, &options);
    let (stop, seed) = (AtomicBool::new(false), seed());
    Conn::open(&redtape.url()).expect("the proxy").must(&args!["SET", "first", 1]);
    redtape.wait_caught_up();
    let (at, to) = (text(dir), target.url());
    let counts: Vec<u64> = std::thread::scope(|scope| {
        let _stopper = Stopper(&stop);
        let (stop, url) = (&stop, redtape.url());
        let guarded = move |work: &dyn Fn() -> u64| {
            let _stopper = Stopper(stop);
            work()
        };
        let mut threads = vec![
            scope.spawn(move || guarded(&|| write(&url, seed, stop))),
            scope.spawn(move || guarded(&|| tail(dir, stop))),
        ];
        let restore = ["restore", "--plan", "--from", at, "--at", "latest", "--to", &to];
        let commands: [(Vec<&str>, &str); 9] = [
            (vec!["journal", "verify", "--from", at], "sound"),
            (vec!["journal", "verify", "--quick", "--from", at], "sound"),
            (vec!["journal", "ls", "--from", at], "can be restored"),
            (vec!["journal", "cat", "--from", at], ""),
            (vec!["log", "--from", at, "--limit", "20"], ""),
            (restore.to_vec(), ""),
            (vec!["journal", "prune", "--plan", "--max-size", "1", "--dir", at], ""),
            (vec!["journal", "repair", "--plan", "--dir", at], "sound"),
            (vec!["snapshot", "ls", "--dir", at], "LSN"),
        ];
        for (words, sound) in commands {
            let words: Vec<String> = words.into_iter().map(str::to_owned).collect();
            threads.push(
                scope.spawn(move || {
                    guarded(&|| read(&words.iter().map(String::as_str).collect::<Vec<_>>(), sound, stop))
                }),
            );
        }
        let (started, limit) = (Instant::now(), Duration::from_secs(env_number("REDTAPE_BESIDE_SECONDS", 8) as u64));
        for round in 0.. {
            std::thread::sleep(Duration::from_secs(1));
            if started.elapsed() > limit || stop.load(Ordering::Relaxed) {
                break;
            }
            match round % 4 {
                1 => {
                    // Another history: a new base.
                    let mut direct = server.conn();
                    direct.must(&args!["DEBUG", "CHANGE-REPL-ID"]);
                    direct.must(&args!["CLIENT", "KILL", "TYPE", "replica"]);
                }
                3 => {
                    assert_eq!(redtape.terminate(), Some(0));
                    redtape.start_again();
                    redtape.wait_streaming();
                }
                _ => {}
            }
        }
        stop.store(true, Ordering::Relaxed);
        threads.into_iter().map(|thread| thread.join().expect("no assertion failed")).collect()
    });
    println!("writes, tails, then how often each command has read: {counts:?}");
    assert!(counts.iter().all(|n| *n > 0), "{counts:?}");
    assert_eq!(redtape.terminate(), Some(0));
    crate::harness::journal::assert_verified(dir);
}
