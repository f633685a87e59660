//! What it takes to find one key, and what encryption costs.
//!
//! `make measure` prints the figures; `REDTAPE_SEARCH_MIB=10240` says how large the large journal is.

#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout)]

mod common;

use std::sync::Arc;
use std::time::Instant;

use common::{begin, push_set, segments};
use redtape_journal::{
    BlockBuilder, Catalog, Keyring, Lsn, Micros, OpenOptions, Origin, OriginKind, ReplOffset, SnapshotWriter,
    SyncPolicy, TimelineId,
};

const SETS: u64 = 200_000;
const SETS_IN_A_BLOCK: u64 = 1000;

fn keyring() -> Keyring {
    Keyring::parse("test:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=").unwrap()
}

/// Each key once, in segments of 1 MiB, sealed; returns the size of all.
fn record(dir: &std::path::Path, keyring: Keyring) -> u64 {
    let options = OpenOptions { sync: SyncPolicy::No, segment_bytes: 1 << 20, keyring, ..OpenOptions::default() };
    let writer = begin(dir, options);
    let origin = Arc::new(Origin::of(OriginKind::Client));
    let mut builder = BlockBuilder::new(Lsn(1), Micros(1), ReplOffset(0), 0);
    for n in 0..SETS {
        // Not in any order, and each once.
        let key = format!("user:{:016x}", n.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let value = format!("{:064x}", n.wrapping_mul(0xd6e8_feb8_6659_fd93));
        let args = [key.as_bytes(), value.as_bytes()];
        push_set(&mut builder, &origin, Micros(n as i64), ReplOffset(n * 100), args);
        if (n + 1) % SETS_IN_A_BLOCK == 0 {
            writer.submit(builder.finish(Micros(n as i64))).unwrap();
        }
    }
    writer.close().unwrap();
    segments(dir).iter().sum()
}

#[test]
fn one_key_is_found_in_a_small_part_of_the_journal() {
    for keyring in [Keyring::default(), keyring()] {
        let dir = tempfile::tempdir().unwrap();
        let bytes = record(dir.path(), keyring.clone());
        let catalog = Catalog::open_with(dir.path(), &keyring).unwrap();
        let segments = catalog.segments().len();
        assert!(segments > 3);
        for n in [0u64, SETS / 2, SETS - 1] {
            let key = format!("user:{:016x}", n.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            let mut reader = catalog.groups_for_keys(Lsn(0), TimelineId(1), &[(0, key.as_bytes())]);
            let lsns: Vec<Lsn> = reader.by_ref().map(|group| group.unwrap().records[0].lsn).collect();
            assert_eq!(lsns, [Lsn(n + 1)]);
            let read = reader.searched().read_bytes;
            println!("{keyring:?}: one key of {SETS} in {segments} segments: {read} of {bytes} bytes read");
            assert!(read < bytes / 20, "{read} of {bytes} bytes");
        }
    }
}

/// Bytes that this process has read from files, as the kernel counts them; 0 where it does not.
fn read_so_far() -> u64 {
    let io = std::fs::read_to_string("/proc/self/io").unwrap_or_default();
    let rchar = io.lines().find_map(|line| line.strip_prefix("rchar: ")?.parse().ok());
    rchar.unwrap_or_default()
}

#[test]
#[ignore = "measures, and writes hundreds of MiB"]
fn one_key_in_a_large_journal() {
    const KEYS: u64 = 1_000_000;
    const VALUE_BYTES: usize = 200;
    const SEGMENT_BYTES: u64 = 64 << 20;
    let mib: u64 = std::env::var("REDTAPE_SEARCH_MIB").map_or(512, |n| n.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let options = OpenOptions { sync: SyncPolicy::No, ..OpenOptions::default() };
    let writer = begin(dir.path(), options);
    let origin = Arc::new(Origin::of(OriginKind::Client));
    let mut builder = BlockBuilder::new(Lsn(1), Micros(1), ReplOffset(0), 0);
    let (mut n, mut random, mut value) = (0u64, 88_172_645_463_325_252u64, [0u8; VALUE_BYTES]);
    let mut written = Vec::new();
    let begun = Instant::now();
    while writer.watermarks().journal_bytes < mib << 20 {
        for chunk in value.chunks_mut(8) {
            // xorshift: bytes that cannot be compressed.
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            chunk.copy_from_slice(&random.to_le_bytes()[..chunk.len()]);
        }
        let key = random % KEYS;
        n += 1;
        if key == 4711 {
            written.push(Lsn(n));
        }
        let key = format!("user:{key}");
        push_set(&mut builder, &origin, Micros(n as i64), ReplOffset(n * 100), [key.as_bytes(), &value]);
        if n % 200 == 0 {
            writer.submit(builder.finish(Micros(n as i64))).unwrap();
        }
    }
    if !builder.is_empty() {
        writer.submit(builder.finish(Micros(n as i64))).unwrap();
    }
    while writer.watermarks().written_lsn < Lsn(n) {
        std::thread::yield_now();
    }
    let bytes: u64 = segments(dir.path()).iter().sum();
    println!(
        "{n} writes of {KEYS} keys: {:.1} MiB in {} segments, in {:?}",
        bytes as f64 / 1_048_576.0,
        segments(dir.path()).len(),
        begun.elapsed()
    );
    println!("in use:");
    look_for_one(dir.path(), &written, SEGMENT_BYTES);
    writer.close().unwrap();
    println!("closed:");
    look_for_one(dir.path(), &written, 0);
}

/// Looks for a key as `redtape log` does: in one database, or in all that a server has by default. `tail`: so much may be read of the
/// segment in use.
fn look_for_one(dir: &std::path::Path, written: &[Lsn], tail: u64) {
    let bytes: u64 = segments(dir).iter().sum();
    for dbs in [1, 16] {
        let (before, begun) = (read_so_far(), Instant::now());
        let catalog = Catalog::open_for_search(dir, &Keyring::default()).unwrap();
        let opened = read_so_far() - before;
        let keys: Vec<(u32, &[u8])> = (0..dbs).map(|db| (db, &b"user:4711"[..])).collect();
        let mut reader = catalog.groups_back_for_keys(Lsn(u64::MAX), TimelineId(1), &keys);
        let mut found: Vec<Lsn> = reader.by_ref().map(|group| group.unwrap().records[0].lsn).collect();
        found.reverse();
        assert_eq!(found, written);
        let read = read_so_far() - before;
        println!(
            "one key in {dbs} databases, {} writes: {:.2} MiB read ({:.2} to open), {:.2} %, in {:?}",
            found.len(),
            read as f64 / 1_048_576.0,
            opened as f64 / 1_048_576.0,
            100.0 * read as f64 / bytes as f64,
            begun.elapsed()
        );
        // Of a small journal, a large part are the pages that are read anyway.
        let most = if dbs == 1 && bytes > 4 << 30 { bytes / 100 } else { bytes / 10 };
        assert!(read < most + tail && reader.searched().read_bytes <= read, "{read} of {bytes} bytes");
    }
}

#[test]
#[ignore = "measures, and needs a quiet machine"]
fn cost_of_encryption() {
    const BYTES: usize = 256 << 20;
    let chunk: Vec<u8> = (0..1 << 20).map(|n: u32| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    for keyring in [Keyring::default(), keyring()] {
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let mut writer = SnapshotWriter::create_with(dir.path(), &keyring).unwrap();
        let begun = Instant::now();
        for _ in 0..BYTES / chunk.len() {
            writer.write(&chunk).unwrap();
        }
        let speed = BYTES as f64 / 1e6 / begun.elapsed().as_secs_f64();
        println!("{keyring:?}: a snapshot is written with {speed:.0} MB/s");
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let begun = Instant::now();
        record(dir.path(), keyring.clone());
        let each = begun.elapsed().as_nanos() as f64 / SETS as f64;
        println!("{keyring:?}: {each:.0} ns for each SET, encoded, written, packed and sealed");
    }
}
