//! What the whole-program tests stand on: real servers, the real binary, and a world that can be
//! held still.
//!
//!     Server ◄── Relay ◄── Redtape ◄── workload (clients)      moment: what the server held, and when
//!       ▲                                  │
//!       └──────── one writer goes round ───┘
//!
//! Everything that is started is killed when its handle is dropped, also when a test panics; then the
//! folders and logs are kept and named. Ports are below the range that the kernel gives to clients.
#![allow(dead_code, unused_imports, unreachable_pub, missing_docs)]

#[macro_use]
pub mod conn;

pub mod certs;
pub mod clock;
pub mod cluster;
pub mod difference;
pub mod dir;
pub mod disk;
pub mod fault;
pub mod journal;
pub mod killed;
pub mod moment;
pub mod record;
pub mod redtape;
pub mod relay;
pub mod server;
pub mod told;
pub mod workload;

pub use conn::{Args, Conn};
pub use dir::Dir;
pub use disk::Disk;
pub use fault::Fault;
pub use moment::State;
pub use record::Recorder;
pub use redtape::Redtape;
pub use relay::Relay;
pub use server::Server;
pub use workload::Workload;

use std::fs::File;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The wall clock, in microseconds since 1970.
pub fn now_us() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970");
    i64::try_from(since.as_micros()).expect("the clock is before the year 294247")
}

/// `us` as `--at` takes it.
pub fn rfc3339(us: i64) -> String {
    jiff::Timestamp::from_microsecond(us).expect("a time that fits").to_string()
}

/// The seed of this run: `REDTAPE_SEED`, else a new one. Printed, so that a failure can be run again.
pub fn seed() -> u64 {
    let seed = std::env::var("REDTAPE_SEED")
        .map_or_else(|_| rand::random::<u64>() >> 16, |s| s.parse().expect("REDTAPE_SEED is a number"));
    println!("seed: REDTAPE_SEED={seed}");
    seed
}

/// A number that a recipe may set, e.g. `REDTAPE_CRASHES`.
pub fn env_number(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |v| v.parse().unwrap_or_else(|_| panic!("{name} must be a number: {v}")))
}

/// Files whose locks this process holds, as long as it lives.
static PORTS: Mutex<Vec<File>> = Mutex::new(Vec::new());

/// A port that nothing listens on now, and that no other test is given: each is a locked file.
pub fn free_port() -> u16 {
    let dir = std::env::temp_dir().join("redtape-test-ports");
    std::fs::create_dir_all(&dir).expect("a folder for the ports that are given");
    loop {
        let port = rand::random_range(12_000..32_000);
        let file = File::create(dir.join(port.to_string())).expect("a file for a port");
        if file.try_lock().is_ok() && TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            PORTS.lock().expect("no panic holds it").push(file);
            return port;
        }
    }
}

/// Asks until there is an answer; panics with `what` when there is none in time.
pub fn wait_for<T>(what: &str, limit: Duration, mut ask: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(started.elapsed() < limit, "waited {limit:?} in vain for: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The last lines of a log, for a failure's message.
pub fn tail(path: &std::path::Path, lines: usize) -> String {
    let text = std::fs::read(path).map(|b| String::from_utf8_lossy(&b).into_owned()).unwrap_or_default();
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}
