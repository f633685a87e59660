//! Question: what does the capture cost for each write, and which part of it where?
//!
//! `make measure` prints nanoseconds for each. Everything runs on one thread, so transfers between cores are not
//! included. "Hot keys" are keys on which all requests wait; their cost must not grow with the number of requests.

#![allow(clippy::print_stdout)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use redtape_capture::measure::Steps;
use redtape_journal::Micros;
use redtape_wire::command::CommandTable;
use redtape_wire::resp::{ReplyScanner, encode_command};
use smallvec::SmallVec;

use crate::session::SessionState;

const SESSIONS: usize = 50;
const PIPELINE: usize = 16;
const ROUNDS: usize = 300;
const KEYS: u64 = 100_000;
const PARTS: [&str; 6] = ["requests", "replies", "drain", "parse", "join", "write"];

/// Requests, replies (`N` = number of the request), and effects. `#` is a random number.
struct Workload {
    request: &'static str,
    reply: &'static str,
    effects: &'static [&'static str],
}

const WORKLOADS: [Workload; 7] = [
    Workload { request: "SET key:# 64", reply: "+OK", effects: &[] },
    Workload { request: "INCR hot", reply: ":N", effects: &[] },
    Workload { request: "LPUSH hot job:#", reply: ":N", effects: &[] },
    Workload { request: "ZADD hot 1 member:#", reply: ":1", effects: &[] },
    Workload { request: "SPOP hot", reply: "$1\r\nm", effects: &["SREM hot member:#"] },
    Workload {
        request: "EVAL script 1 key:# 60",
        reply: ":1",
        effects: &["MULTI", "INCR key:#", "PEXPIREAT key:# 1800000000000", "EXEC"],
    },
    Workload {
        request: "EVAL script 1 hot 60",
        reply: ":1",
        effects: &["MULTI", "INCR hot", "PEXPIREAT hot 1800000000000", "EXEC"],
    },
];

/// The words of a line.
fn words(line: &str, random: u64) -> Vec<Vec<u8>> {
    let value = |word: &str| match word {
        "64" => vec![b'x'; 64],
        word => word.replace('#', &format!("{random:012}")).into_bytes(),
    };
    line.split(' ').map(value).collect()
}

#[test]
#[ignore = "measures, and needs a release build and a quiet machine"]
fn of_a_write() {
    println!("{:>8}  {}   nanoseconds for each", "together", PARTS.map(|part| format!("{part:>8}")).join("  "));
    for workload in &WORKLOADS {
        let each = measure(workload);
        let parts: Vec<_> = each.iter().map(|ns| format!("{ns:>8}")).collect();
        println!("{:>8}  {}   {}", each.iter().sum::<u128>(), parts.join("  "), workload.request);
    }
}

/// Nanoseconds of each part, for each request.
fn measure(workload: &Workload) -> [u128; PARTS.len()] {
    let table = Arc::new(CommandTable::builtin());
    let mut capture = Steps::new(table.clone());
    let mut sender = capture.tee().sender();
    let mut sessions: Vec<_> =
        (0..SESSIONS).map(|n| SessionState::new(n as u64 + 1, format!("127.0.0.1:{n}"))).collect();
    let mut spent = [Duration::ZERO; PARTS.len()];
    let (mut seed, mut now, mut asked, mut written) = (1u64, 1_000_000, 0, 0);
    for round in 0..ROUNDS {
        now += 10_000;
        let (mut wire, mut requests, mut replies) = (BytesMut::new(), Vec::new(), Vec::new());
        for _ in 0..SESSIONS * PIPELINE {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            asked += 1;
            let random = (seed >> 33) % KEYS;
            let effects = if workload.effects.is_empty() { &[workload.request][..] } else { workload.effects };
            for effect in effects {
                let mut one = Vec::new();
                encode_command(&mut one, &words(effect, random));
                wire.extend_from_slice(&one);
            }
            requests.push(words(workload.request, random));
            replies.push(format!("{}\r\n", workload.reply.replace('N', &asked.to_string())));
        }
        let mut lap = Instant::now();
        let mut part = 0;
        let mut ends = |spent: &mut [Duration; PARTS.len()]| {
            // The first rounds warm up.
            if round >= ROUNDS / 10 {
                spent[part] += lap.elapsed();
            }
            part += 1;
            lap = Instant::now();
        };
        for (session, requests) in sessions.iter_mut().zip(requests.chunks(PIPELINE)) {
            for request in requests {
                let args: SmallVec<[&[u8]; 8]> = request.iter().map(Vec::as_slice).collect();
                let request = session.classify(&table, &args, args.len());
                session.forward(request, &args, args.len(), &mut sender, Micros(now));
            }
            sender.flush();
        }
        ends(&mut spent);
        for (session, replies) in sessions.iter_mut().zip(replies.chunks(PIPELINE)) {
            for reply in replies {
                let (_, frame) = ReplyScanner::new().scan(reply.as_bytes()).expect("sound");
                session.reply(&frame.expect("whole"), &mut sender, Micros(now + 500));
            }
            sender.flush();
        }
        ends(&mut spent);
        capture.drain();
        ends(&mut spent);
        capture.parse(&mut wire, Micros(now + 1000), Micros(now));
        ends(&mut spent);
        capture.attribute(Micros(now + 1000));
        ends(&mut spent);
        written += capture.write(Micros(now));
        ends(&mut spent);
    }
    assert_eq!(written, SESSIONS * PIPELINE * ROUNDS, "{}", workload.request);
    let requests = (SESSIONS * PIPELINE * (ROUNDS - ROUNDS / 10)) as u128;
    spent.map(|spent| spent.as_nanos() / requests)
}
