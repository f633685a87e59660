//! What does the writer cost: as blocks come, packed behind the seals (compressed, with key filters), encrypted, and both? And how
//! long does a start take behind a crash?
//!
//! `cargo bench -p redtape-journal --bench writer`. Blocks are built beforehand; the clock runs from the first `submit` to
//! the end of `close`, so that each figure has its share of seals and packs all that was written. CPU time is that of the process, nearly
//! all of it the threads that write and compact. On a disk in memory if there is one: the device's speed is not the question.

// A bench may print, and fail.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::sync::Arc;
use std::time::Instant;

use redtape_journal::{
    Block, BlockBuilder, GroupRef, Journal, Keyring, KeysAt, Lsn, Micros, OpenOptions, Origin, OriginKind, RecordRef,
    ReplOffset, SyncPolicy, TimelineId, TimelineStart, Writer,
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

/// A journal in a folder of its own, with a timeline.
fn begin(options: &OpenOptions) -> (tempfile::TempDir, Writer) {
    let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let writer = Journal::create_or_open(dir.path(), options.clone()).unwrap().0.start(|_| ());
    let (timeline, offset) = (TimelineId(1), ReplOffset(0));
    let (source_id, reason) = (String::new(), String::new());
    writer.begin_timeline(TimelineStart { timeline, source_id, offset, reason, ts: Micros(0) }).unwrap();
    (dir, writer)
}

/// Writes all blocks and closes: how long, with how much CPU, and how many bytes are stored.
fn write(blocks: &[Block], options: &OpenOptions) -> (f64, f64, u64) {
    let (dir, writer) = begin(options);
    let all = blocks.to_vec();
    let (begun, cpu) = (Instant::now(), cpu_seconds());
    for block in all {
        writer.submit(block).unwrap();
    }
    writer.close().unwrap();
    let (wall, cpu) = (begun.elapsed().as_secs_f64(), cpu_seconds() - cpu);
    let files = std::fs::read_dir(dir.path().join("segments")).unwrap();
    (wall, cpu, files.map(|e| e.unwrap().metadata().unwrap().len()).sum())
}

/// How long the next start takes when the writer died with all of it in one segment that was not sealed.
fn recover(blocks: &[Block], options: &OpenOptions) -> f64 {
    let options = OpenOptions { segment_bytes: 1 << 40, compact: false, ..options.clone() };
    let (dir, writer) = begin(&options);
    for block in blocks.iter().cloned() {
        writer.submit(block).unwrap();
    }
    drop(writer);
    let begun = Instant::now();
    let (journal, found) = Journal::create_or_open(dir.path(), options).unwrap();
    let wall = begun.elapsed().as_secs_f64();
    assert!(found.last.unwrap().last_lsn > Lsn(0));
    drop(journal);
    wall
}

fn main() {
    let key = || Keyring::parse(&format!("bench:{}", "00".repeat(32))).unwrap();
    for value_bytes in [64, 1024] {
        let (blocks, records) = blocks(value_bytes);
        let mib = blocks.iter().map(Block::len_bytes).sum::<usize>() as f64 / f64::from(1 << 20);
        println!("values of {value_bytes} B: {records} SETs, {mib:.0} MiB in blocks of {} KiB", BLOCK_BYTES >> 10);
        for (what, compact, keyring) in [
            ("as it comes", false, Keyring::default()),
            ("encrypted", false, key()),
            ("packed", true, Keyring::default()),
            ("encrypted and packed", true, key()),
        ] {
            let options = OpenOptions { sync: SyncPolicy::No, compact, keyring, ..OpenOptions::default() };
            let runs = (0..ROUNDS).map(|_| write(&blocks, &options));
            let (wall, cpu, stored) = runs.min_by(|one, other| one.1.total_cmp(&other.1)).unwrap();
            println!(
                "  {what:<22} {:>6.0} MiB/s   {:>5.2} s CPU, {:>5.2} us for each SET   {:>4.1} bytes stored for each",
                mib / wall,
                cpu,
                cpu * 1e6 / records as f64,
                stored as f64 / records as f64
            );
            if !compact {
                let best = (0..ROUNDS).map(|_| recover(&blocks, &options)).fold(f64::MAX, f64::min);
                println!("  {:<22} {:>6.0} MiB/s", "  a start after a crash", mib / best);
            }
        }
    }
}
