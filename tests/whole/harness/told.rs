//! What clients were told, to be held against what is there afterwards.

use super::conn::{Conn, Value, text};
use super::redtape::run;
use super::server::Server;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const BEGIN_WITHIN: Duration = Duration::from_secs(20);
/// Writes that clients of this process were told of.
static ACKNOWLEDGED: AtomicU64 = AtomicU64::new(0);

/// Waits until clients that were just started have been told of so many more writes, at most [`BEGIN_WITHIN`]: what a busy
/// machine needs to begin says nothing. No panic: who joins the clients has to stop them first.
pub fn wait_until_told(writes: u64) {
    let (wanted, until) = (ACKNOWLEDGED.load(Ordering::Relaxed) + writes, Instant::now() + BEGIN_WITHIN);
    while ACKNOWLEDGED.load(Ordering::Relaxed) < wanted && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// By key, the last value that was acknowledged.
pub type Told = BTreeMap<String, String>;

/// Eight clients write by pipelines and remember what they were told, until `stop`; they come again when they are
/// disconnected. Each value is greater than those before it. Behind each write stands a question of which the answer is
/// known, so that a reply out of order cannot go unnoticed.
pub fn write_and_remember(url: &str, stop: &AtomicBool, marks: &str) -> Told {
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..8).map(|n| scope.spawn(move || one_client(url, stop, marks, n))).collect();
        clients.into_iter().flat_map(|c| c.join().expect("a client")).collect()
    })
}

fn one_client(url: &str, stop: &AtomicBool, marks: &str, n: usize) -> Told {
    let mut told = Told::new();
    let mut value = 0u64;
    while !stop.load(Ordering::Relaxed) {
        let Ok(mut conn) = Conn::open(url) else {
            std::thread::sleep(Duration::from_millis(2));
            continue;
        };
        while !stop.load(Ordering::Relaxed) {
            let batch: Vec<(String, String)> = (0..16)
                .map(|i| {
                    value += 1;
                    (format!("{marks}:{n}:{i}"), value.to_string())
                })
                .collect();
            let mut bytes = Vec::new();
            for (key, value) in &batch {
                args!["SET", key, value].pack(&mut bytes);
                args!["ECHO", value].pack(&mut bytes);
            }
            if conn.send(&bytes).is_err() || !take_replies(&mut conn, batch, &mut told) {
                break;
            }
        }
    }
    told
}

/// False when the connection has ended.
fn take_replies(conn: &mut Conn, batch: Vec<(String, String)>, told: &mut Told) -> bool {
    for (key, value) in batch {
        match conn.reply() {
            Ok(Value::Text(ok)) => {
                assert_eq!(ok, "OK");
                ACKNOWLEDGED.fetch_add(1, Ordering::Relaxed);
                told.insert(key, value.clone());
            }
            // Refused, or of a server that is gone: it is not acknowledged.
            Ok(Value::Error(e)) => assert!(e.starts_with("JOURNAL ") || e.starts_with("ERR redtape: "), "{e}"),
            Ok(other) => panic!("out of order: {other:?}"),
            Err(_) => return false,
        }
        match conn.reply() {
            Ok(Value::Error(e)) => assert!(e.starts_with("ERR redtape: "), "{e}"),
            Ok(echo) => assert_eq!(text(&echo), value, "out of order"),
            Err(_) => return false,
        }
    }
    true
}

/// Every key holds what its client was told, or what was written behind it and not acknowledged.
#[track_caller]
pub fn assert_all_there(conn: &mut Conn, told: &Told) {
    for (key, value) in told {
        let found = match conn.must(&args!["GET", key]) {
            Value::Nil => panic!("{key} was acknowledged with {value} and is not there"),
            found => text(&found).parse::<u64>().expect("a number"),
        };
        assert!(found >= value.parse().expect("a number"), "{key} was acknowledged with {value} and is {found}");
    }
}

/// The end of the journal, in a server of its own.
pub fn restore_latest(journal: &Path) -> Server {
    let target = Server::start();
    let from = journal.to_str().expect("a plain path");
    run(&["restore", "--from", from, "--at", "latest", "--to", &target.url(), "--via", "link", "--yes"])
        .expect_success("restore");
    target
}
