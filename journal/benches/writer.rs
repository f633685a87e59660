//! What does the writer's thread cost: as blocks come, packed at the seal (compressed, with key filters), encrypted, and both?
//!
//! `cargo bench -p redtape-journal --bench writer`. Blocks are built beforehand; the clock runs from the first `submit` to
//! the end of `close`, so that each figure has its share of seals. CPU time is that of the process, nearly all of it the writer's
//! thread. On a disk in memory if there is one: the device's speed is not the question.

// A bench may print, and fail.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::sync::Arc;
use std::time::Instant;

use redtape_journal::{
    Block, BlockBuilder, GroupRef, Journal, Keyring, KeysAt, Lsn, Micros, OpenOptions, Origin, OriginKind, RecordRef,
    ReplOffset, SyncPolicy, TimelineId, TimelineStart,
};

/// Of encoded groups.
const BYTES: usize = 192 << 20;
const BLOCK_BYTES: usize = 128 << 10;
const ROUNDS: usize = 3;

/// `SET key:<random> <value>`, half of each value random digits, as JSON and counters are neither noise nor all alike.
fn blocks(value_bytes: usize) -> (Vec<Block>, i64) {
    let mut seed = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    let origin = Arc::new(Origin { addr: "10.0.0.1:50000".to_owned(), ..Origin::of(OriginKind::Client) });
    let mut builder = BlockBuilder::new(Lsn(1), Micros(0), ReplOffset(0), 0);
    let (mut blocks, mut bytes, mut records) = (Vec::new(), 0, 0i64);
    while bytes < BYTES {
        while builder.len_bytes() < BLOCK_BYTES {
            let key = format!("key:{}", random() % 1_000_000);
            let mut value = String::new();
            while value.len() < value_bytes {
                value += &format!("field:{:06},", random() % 1_000_000);
            }
            value.truncate(value_bytes);
            let args: [&[u8]; 3] = [b"SET", key.as_bytes(), value.as_bytes()];
            let record = RecordRef { db: 0, args: &args, keys: KeysAt::Arguments(&[1]) };
            records += 1;
            let offset = builder.end_offset().0 + args.iter().map(|a| a.len() as u64 + 8).sum::<u64>();
            builder
                .push(&GroupRef {
                    ts: Micros(records * 20),
                    slack: 0,
                    origin: &origin,
                    atomic: false,
                    end_offset: ReplOffset(offset),
                    records: &[record],
                })
                .unwrap();
        }
        let block = builder.finish(builder.last_ts());
        bytes += block.len_bytes();
        blocks.push(block);
    }
    (blocks, records)
}

/// User and system time of this process, in seconds.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}

fn main() {
    let key = || Keyring::parse(&format!("bench:{}", "00".repeat(32))).unwrap();
    for value_bytes in [64, 1024] {
        let (blocks, records) = blocks(value_bytes);
        let mib = blocks.iter().map(Block::len_bytes).sum::<usize>() as f64 / f64::from(1 << 20);
        println!("values of {value_bytes} B: {records} SETs, {mib:.0} MiB in blocks of {} KiB", BLOCK_BYTES >> 10);
        for (what, pack, keyring) in [
            ("as it comes", false, Keyring::default()),
            ("encrypted", false, key()),
            ("packed", true, Keyring::default()),
            ("encrypted and packed", true, key()),
        ] {
            let mut best: Option<(f64, f64, u64)> = None;
            for _ in 0..ROUNDS {
                let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
                let keyring = keyring.clone();
                let options = OpenOptions { sync: SyncPolicy::No, pack, keyring, ..OpenOptions::default() };
                let writer = Journal::create_or_open(dir.path(), options).unwrap().0.start(|_| ());
                let (timeline, offset) = (TimelineId(1), ReplOffset(0));
                let (source_id, reason) = (String::new(), String::new());
                writer.begin_timeline(TimelineStart { timeline, source_id, offset, reason, ts: Micros(0) }).unwrap();
                let all = blocks.clone();
                let (begun, cpu) = (Instant::now(), cpu_seconds());
                for block in all {
                    writer.submit(block).unwrap();
                }
                writer.close().unwrap();
                let (wall, cpu) = (begun.elapsed().as_secs_f64(), cpu_seconds() - cpu);
                let files = std::fs::read_dir(dir.path().join("segments")).unwrap();
                let stored = files.map(|e| e.unwrap().metadata().unwrap().len()).sum();
                if best.is_none_or(|(_, least, _)| cpu < least) {
                    best = Some((wall, cpu, stored));
                }
            }
            let (wall, cpu, stored) = best.unwrap();
            println!(
                "  {what:<22} {:>6.0} MiB/s   {:>5.2} s CPU, {:>5.2} us for each SET   {:>4.1} bytes stored for each",
                mib / wall,
                cpu,
                cpu * 1e6 / records as f64,
                stored as f64 / records as f64
            );
        }
    }
}
