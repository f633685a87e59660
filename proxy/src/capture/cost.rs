//! Question: what does the capture cost for each SET, and which part of it where?
//!
//! `make measure` prints nanoseconds for each SET. All on one thread: what it costs to bring bytes from one core to
//! another is not in it.

#![allow(clippy::print_stdout)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use redtape_journal::{BlockBuilder, Lsn, Micros, ReplOffset};
use redtape_wire::command::CommandTable;
use redtape_wire::resp::{ReplyScanner, encode_command};
use smallvec::SmallVec;

use super::effects::{EffectParser, StreamEvent};
use super::recorder::push_group;
use crate::join::Join;
use crate::session::SessionState;
use crate::tee::Tee;

const SESSIONS: usize = 50;
const PIPELINE: usize = 16;
const ROUNDS: usize = 500;
const KEYS: u64 = 100_000;

#[test]
#[ignore = "measures, and needs a release build and a quiet machine"]
fn of_a_set() {
    let table = Arc::new(CommandTable::builtin());
    let tee = Arc::new(Tee::default());
    let mut sender = tee.sender();
    let mut join = Join::new(table.clone(), true);
    let mut parser = EffectParser::new(ReplOffset(0), 0);
    let mut builder = BlockBuilder::new(Lsn(1), Micros(0), ReplOffset(0), 0);
    join.stream_starts(Micros(1), ReplOffset(0));
    let mut sessions: Vec<_> =
        (0..SESSIONS).map(|n| SessionState::new(n as u64 + 1, format!("127.0.0.1:{n}"))).collect();
    let names = ["requests", "replies", "drain", "parse and describe", "judge", "write"];
    let mut spent = [Duration::ZERO; 6];
    let (mut seed, mut now, mut written) = (1u64, 1_000_000, 0);
    for round in 0..ROUNDS {
        now += 2000;
        let mut wire = BytesMut::new();
        let mut commands = Vec::new();
        for _ in 0..SESSIONS * PIPELINE {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let key = format!("key:{:012}", (seed >> 33) % KEYS);
            let mut one = Vec::new();
            encode_command(&mut one, &[b"SET".as_slice(), key.as_bytes(), &[b'x'; 64]]);
            wire.extend_from_slice(&one);
            commands.push(key);
        }
        let mut lap = Instant::now();
        let mut stage = 0;
        let mut ends = |spent: &mut [Duration; 6]| {
            // The first rounds warm up.
            if round >= ROUNDS / 10 {
                spent[stage] += lap.elapsed();
            }
            stage += 1;
            lap = Instant::now();
        };
        for (session, keys) in sessions.iter_mut().zip(commands.chunks(PIPELINE)) {
            for key in keys {
                let args: SmallVec<[&[u8]; 8]> = [b"SET".as_slice(), key.as_bytes(), &[b'x'; 64]].into_iter().collect();
                let ask = session.understand(&table, &args, args.len());
                session.forward(ask, &args, args.len(), &mut sender, Micros(now));
            }
            sender.flush();
        }
        ends(&mut spent);
        let ok = b"+OK\r\n".repeat(PIPELINE);
        for session in &mut sessions {
            let (mut scanner, mut used) = (ReplyScanner::new(), 0);
            while used < ok.len() {
                let (n, frame) = scanner.scan(&ok[used..]).expect("sound");
                used += n;
                if let Some(frame) = frame {
                    session.reply(&frame, &mut sender, Micros(now + 500));
                }
            }
            sender.flush();
        }
        ends(&mut spent);
        tee.drain(|m| join.tee(m));
        ends(&mut spent);
        while let Some(StreamEvent::Group(group)) = parser.next(&mut wire, Micros(now + 1000)).expect("sound") {
            join.effect(group);
        }
        ends(&mut spent);
        let mut judged = Vec::with_capacity(SESSIONS * PIPELINE);
        while let Some(one) = join.next(Micros(now + 1000)) {
            judged.push(one);
        }
        ends(&mut spent);
        for one in &judged {
            push_group(&mut builder, one, &table).expect("small");
        }
        written += judged.len();
        drop(judged);
        builder.finish(Micros(now));
        ends(&mut spent);
    }
    assert_eq!((written, join.stamps().0), (SESSIONS * PIPELINE * ROUNDS, 0));
    let sets = (SESSIONS * PIPELINE * (ROUNDS - ROUNDS / 10)) as u128;
    for (name, spent) in names.iter().zip(spent) {
        println!("{:>6} ns  {name}", spent.as_nanos() / sets);
    }
    println!("{:>6} ns  together", spent.iter().map(Duration::as_nanos).sum::<u128>() / sets);
}
