//! Question: what does finding the boundaries and arguments of one request cost, beside the field's own
//! parser, and does a half-received request make it start over?
//!
//! `cargo bench --bench framing` prints medians of interleaved rounds and ratios; quote the ratios.

#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::pedantic)]

use std::hint::black_box;
use std::time::Instant;

use redtape_wire::resp::{Args, ReplyScanner, encode_command, parse_request};

const ROUNDS: usize = 15;
const REQUESTS: usize = 20_000;

fn main() {
    let mut wire = Vec::new();
    for n in 0..REQUESTS {
        encode_command(&mut wire, &["SET", &format!("key:{n:012}"), &"v".repeat(64)]);
    }
    let replies = b"+OK\r\n".repeat(REQUESTS);
    let mut ours = Vec::new();
    let mut theirs = Vec::new();
    let mut scans = Vec::new();
    for _ in 0..ROUNDS {
        ours.push(time(|| {
            let (mut at, mut args) = (0, Args::new());
            while at < wire.len() {
                match parse_request(&wire[at..], &mut args).unwrap() {
                    redtape_wire::resp::Parsed::Whole { len } => at += len,
                    other => panic!("{other:?}"),
                }
                black_box(&args);
            }
        }));
        theirs.push(time(|| {
            let mut at = 0;
            while at < wire.len() {
                let (range, len) = redis_protocol::resp2::decode::decode_range(&wire[at..]).unwrap().unwrap();
                black_box(&range);
                at += len;
            }
        }));
        scans.push(time(|| {
            let (mut at, mut scanner) = (0, ReplyScanner::new());
            while at < replies.len() {
                at += black_box(scanner.scan(&replies[at..]).unwrap()).0;
            }
        }));
    }
    let (ours, theirs, scans) = (median(ours), median(theirs), median(scans));
    println!(
        "request, 64-byte SET: {ours:.0} ns; redis-protocol decode_range: {theirs:.0} ns; ratio {:.2}",
        ours / theirs
    );
    println!("reply, +OK: {scans:.0} ns");
}

/// Nanoseconds for one request.
fn time(work: impl FnOnce()) -> f64 {
    let started = Instant::now();
    work();
    started.elapsed().as_nanos() as f64 / REQUESTS as f64
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}
