//! What a small SET costs on the disk, compared with the append-only file that holds the same.
//!
//! `cargo test -p redtape-journal --test size -- --nocapture` prints the figures.

#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout)]

mod common;

use std::sync::Arc;

use common::{begin, push_set, segments};
use redtape_journal::{BlockBuilder, Lsn, Micros, OpenOptions, Origin, OriginKind, ReplOffset, SyncPolicy};

/// Sealed, a small SET takes at most this share of its bytes in an append-only file.
const MOST: f64 = 0.35;
const SETS: u64 = 40_000;
const CLIENTS: usize = 50;

/// Steps of a generator that needs no crate; the upper half is worth something.
fn next(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *seed >> 33
}

fn as_benchmark(_: &mut u64) -> Vec<u8> {
    vec![b'x'; 64]
}

fn as_json(seed: &mut u64) -> Vec<u8> {
    let statuses = ["active", "pending", "blocked"];
    let (id, status, score) = (next(seed) % 1_000_000, statuses[(next(seed) % 3) as usize], next(seed) % 10_000);
    format!(r#"{{"id":{id},"status":"{status}","score":{score},"tags":["eu-west","web"]}}"#).into_bytes()
}

/// Bytes for each SET: in the append-only file, in the journal while it is open, and once it is sealed.
fn measure(value: impl Fn(&mut u64) -> Vec<u8>, sets_in_a_block: u64) -> [f64; 3] {
    let dir = tempfile::tempdir().unwrap();
    let options = OpenOptions { sync: SyncPolicy::No, ..OpenOptions::default() };
    let writer = begin(dir.path(), options);
    let clients: Vec<Arc<Origin>> = (0..CLIENTS)
        .map(|n| Arc::new(Origin { addr: format!("10.0.0.7:{}", 50_000 + n), ..Origin::of(OriginKind::Client) }))
        .collect();
    let mut builder = BlockBuilder::new(Lsn(1), Micros(1), ReplOffset(0), 0);
    let (mut seed, mut aof, mut now) = (7, 0, 1_795_000_000_000_000);
    for n in 0..SETS {
        let (key, value) = (format!("key:{:012}", next(&mut seed) % 100_000), value(&mut seed));
        let effect = format!("*3\r\n$3\r\nSET\r\n${}\r\n{key}\r\n${}\r\n", key.len(), value.len());
        aof += (effect.len() + value.len() + 2) as u64;
        now += (next(&mut seed) % 100) as i64;
        let origin = &clients[next(&mut seed) as usize % CLIENTS];
        push_set(&mut builder, origin, Micros(now), ReplOffset(aof), [key.as_bytes(), &value]);
        if (n + 1) % sets_in_a_block == 0 {
            writer.submit(builder.finish(Micros(now))).unwrap();
        }
    }
    writer.submit(builder.finish(Micros(now))).unwrap();
    while writer.watermarks().written_lsn < Lsn(SETS) {
        std::thread::yield_now();
    }
    let open = writer.watermarks().journal_bytes;
    writer.close().unwrap();
    let sealed: u64 = segments(dir.path()).iter().sum();
    [aof, open, sealed].map(|bytes| bytes as f64 / SETS as f64)
}

#[test]
fn a_small_set_sealed_takes_a_third_of_its_append_only_file() {
    println!("bytes for each SET            AOF   open  sealed  sealed/AOF");
    for (name, value) in [("64 x `x`", as_benchmark as fn(&mut u64) -> Vec<u8>), ("JSON", as_json)] {
        for sets in [1, 20, 1000] {
            let [aof, open, sealed] = measure(value, sets);
            let ratio = sealed / aof;
            println!("{name:10} {sets:5} in a block  {aof:5.1}  {open:5.1}  {sealed:6.1}  {ratio:10.2}");
            assert!(ratio <= MOST, "{name}, {sets} in a block: {ratio:.2}");
        }
    }
}
