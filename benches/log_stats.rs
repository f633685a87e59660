//! How long does `redtape log --stats` take over 10 million writes, and with how much memory? Beside it: one line for each of them,
//! and a search for one key.
//!
//! `cargo bench --bench log_stats` fills a journal once, and asks the binary. WRITES: another number.

#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::pedantic)]

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use redtape_journal::{
    BlockBuilder, GroupRef, Journal, KeysAt, Lsn, Micros, OpenOptions, Origin, OriginKind, RecordRef, ReplOffset,
    SyncPolicy, TimelineId, TimelineStart,
};

const CLIENTS: u64 = 50;
const PREFIXES: u64 = 200;
const BLOCK_BYTES: usize = 256 << 10;

fn main() {
    let writes: u64 = std::env::var("WRITES").map_or(10_000_000, |text| text.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let begun = Instant::now();
    fill(dir.path(), writes);
    println!(
        "{writes} SETs of 64 bytes in {:.1} MiB, written in {:.1} s",
        size(dir.path()),
        begun.elapsed().as_secs_f64()
    );
    println!("{:<44} {:>8} {:>14}", "redtape log …", "seconds", "peak, MiB");
    for question in [
        &["--stats", "client"][..],
        &["--stats", "user"],
        &["--stats", "command"],
        &["--stats", "prefix"],
        // As many as there are keys.
        &["--stats", "prefix", "--depth", "2", "--limit", "20"],
        &["--stats", "client", "--command", "!FLUSH*", "--key", "p7:*"],
        &["--grep", "nowhere"],
        &["--key", "p7:1:77", "--db", "0"],
    ] {
        let (seconds, peak) = ask(dir.path(), question);
        println!("{:<44} {seconds:>8.2} {peak:>14.1}", question.join(" "));
    }
}

fn fill(dir: &Path, writes: u64) {
    let options = OpenOptions { sync: SyncPolicy::No, ..OpenOptions::default() };
    let writer = Journal::create_or_open(dir, options).unwrap().0.start(|_| ());
    let (timeline, offset) = (TimelineId(1), ReplOffset(0));
    let (source_id, reason) = (String::new(), String::new());
    writer.begin_timeline(TimelineStart { timeline, source_id, offset, reason, ts: Micros(0) }).unwrap();
    let client = |n| Origin {
        addr: format!("10.0.0.{}:{}", n % 7, 50_000 + n),
        user: format!("user-{}", n % 5),
        name: if n % 3 == 0 { format!("app-{}", n % 10) } else { String::new() },
        ..Origin::of(OriginKind::Client)
    };
    let clients: Vec<Arc<Origin>> = (0..CLIENTS).map(|n| Arc::new(client(n))).collect();
    let mut seed = 7u64;
    let mut random = move || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        seed >> 33
    };
    let mut builder = BlockBuilder::new(Lsn(1), Micros(0), ReplOffset(0), 0);
    for n in 1..=writes {
        let key = format!("p{}:{}:{}", random() % PREFIXES, random() % 100_000, random() % 100);
        let value = format!("{:064}", random());
        let args: [&[u8]; 3] = [b"SET", key.as_bytes(), value.as_bytes()];
        let record = RecordRef { db: 0, args: &args, keys: KeysAt::Arguments(&[1]) };
        let group = GroupRef {
            ts: Micros(1_795_000_000_000_000 + n as i64 * 20),
            slack: 0,
            origin: &clients[(random() % CLIENTS) as usize],
            atomic: false,
            end_offset: ReplOffset(n * 100),
            records: &[record],
        };
        builder.push(&group).unwrap();
        if builder.len_bytes() >= BLOCK_BYTES || n == writes {
            writer.submit(builder.finish(builder.last_ts())).unwrap();
        }
    }
    writer.close().unwrap();
}

fn size(dir: &Path) -> f64 {
    let files = std::fs::read_dir(dir.join("segments")).unwrap();
    let bytes: u64 = files.map(|file| file.unwrap().metadata().unwrap().len()).sum();
    bytes as f64 / f64::from(1 << 20)
}

/// Seconds, and the most memory that it had.
fn ask(dir: &Path, question: &[&str]) -> (f64, f64) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_redtape"));
    command.args(["log", "--from"]).arg(dir).args(question).stdout(Stdio::null()).stderr(Stdio::null());
    let begun = Instant::now();
    let mut child = command.spawn().unwrap();
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0.0f64;
    loop {
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<f64>().ok());
        peak = peak.max(kib.unwrap_or(0.0));
        if let Some(ended) = child.try_wait().unwrap() {
            assert!(ended.success(), "{question:?}");
            return (begun.elapsed().as_secs_f64(), peak / 1024.0);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}
