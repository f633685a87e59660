//! What is found without looking at all that wait is what is found by looking at all of them.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use redtape_wire::command::CommandTable;

use super::search::{CANDIDATES_MAX, Search};
use super::*;
use crate::join::causes::Fit;
use crate::tee::{describe, hash_arg};

const REQUESTS: [&str; 29] = [
    "BLMOVE a b LEFT RIGHT 0",
    "RPOPLPUSH a b",
    "INCRBYFLOAT a 2",
    "INCR a",
    "INCR a",
    "INCR b",
    "DECR a",
    "LPUSH a x",
    "LPUSH a x",
    "LPUSH a y",
    "RPUSH b x",
    "SET a 1",
    "SET a 2",
    "SET a 1 EX 9",
    "SETEX a 9 1",
    "EXPIRE a 9",
    "EXPIRE b 9",
    "DEL a",
    "DEL a b",
    "LPOP a",
    "BRPOP a 0",
    "SPOP a",
    "GETDEL a",
    "EVAL s 1 a 7",
    "EVAL s 1 a 8",
    "EVAL s 1 b",
    "EVAL s 1 a",
    "EVAL s 0",
    "FLUSHALL",
];
const EFFECTS: [&str; 21] = [
    "INCR a",
    "INCR b",
    "DECR a",
    "LPUSH a x",
    "LPUSH a y",
    "RPUSH b x",
    "SET a 1",
    "SET a 2",
    "SET a 1 PXAT 5",
    "PEXPIREAT a 5",
    "PEXPIREAT b 5",
    "DEL a",
    "DEL a b",
    "LPOP a",
    "RPOP a",
    "SREM a m",
    "SET c 7",
    "SET a 3",
    "LMOVE a b LEFT RIGHT",
    "RPOPLPUSH a b",
    "FLUSHALL",
];

fn part(table: &CommandTable, line: &str) -> Part {
    let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
    describe(table, &words, words.len(), 0)
}

/// Times of two stamps or replies may be the same, and those of several workers come a little out of order.
fn soon(rng: &mut StdRng, now: i64) -> Micros {
    Micros(now + rng.random_range(-3..=3))
}

/// What just came, or some of what waits.
fn somebody(rng: &mut StdRng, waiting: &mut Vec<u64>) -> Option<u64> {
    let last = waiting.len().checked_sub(1)?;
    let n = if rng.random_bool(0.7) { 0 } else { rng.random_range(0..=last) };
    Some(waiting.remove(n))
}

/// Compares all that wait with the effect, one after the other, slot by slot.
fn at_leisure(stamps: &Stamps, effects: &Effects<'_>, prefer_replied: bool) -> Option<Match> {
    let mut search = Search::new(stamps, effects, prefer_replied, &[], |_: &[u8]| true);
    search.hurry = false;
    let mut wanted = SmallVec::new();
    part_slots(effects.part, &mut wanted);
    if wanted.first() != Some(&NO_KEY) {
        wanted.push(NO_KEY);
    }
    for spent in [false, true] {
        for slot in &wanted {
            let there = stamps.places.iter().filter(|(_, waiting)| slots(&waiting.stamp).contains(slot));
            if let Some(first) = search.look_through(there.map(|(place, _)| (place, None)), spent, None) {
                return Some(first);
            }
        }
        if let Some(first) = search.first_twin() {
            return Some(first);
        }
    }
    search.found
}

#[test]
fn who_is_found_in_a_hurry_is_who_would_be_found_at_leisure() {
    let table = CommandTable::builtin();
    let who = Arc::new(Identity::default());
    let (mut certain, mut hurried, mut crowded) = (0, 0, 0);
    for seed in 0..600 {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut stamps = Stamps::default();
        let (mut unanswered, mut number) = (Vec::new(), 0);
        // Some have no scripts, and no commands without keys.
        let kinds = [REQUESTS.len() - 6, REQUESTS.len() - 2, REQUESTS.len()][seed as usize % 3];
        for id in 0..400 {
            let now = id as i64 * 2;
            let line = REQUESTS[rng.random_range(0..kinds)];
            let mut parts = smallvec::smallvec![part(&table, line)];
            let transaction = seed % 4 == 0 && rng.random_bool(0.05);
            if transaction && rng.random_bool(0.5) {
                parts.push(part(&table, "INCR a"));
            }
            stamps.add(Stamp { id, at: soon(&mut rng, now), who: who.clone(), parts, transaction });
            unanswered.push(id);
            while rng.random_bool(0.45)
                && let Some(id) = somebody(&mut rng, &mut unanswered)
            {
                number += rng.random_range(0..3);
                let outcome = match rng.random_range(0..20) {
                    0 => Outcome::NoEffect,
                    1 => Outcome::Gone,
                    2 => Outcome::Ran,
                    _ => Outcome::Number(number),
                };
                stamps.reply(id, soon(&mut rng, now), outcome);
            }
            if rng.random_bool(0.02) && id > 9 {
                stamps.correct(id - 9, who.clone(), rng.random_range(0..2));
            }
            let effect = part(&table, EFFECTS[rng.random_range(0..EFFECTS.len())]);
            let ran = (Micros(now - rng.random_range(0..300)), soon(&mut rng, now));
            let words = [hash_arg(b"7")];
            let words = &words[..rng.random_range(0..2)];
            let effects = Effects { part: &effect, words: &|| words, atomic: rng.random_bool(0.1), ran };
            let mut place = None;
            for late in [false, true] {
                let all = at_leisure(&stamps, &effects, late);
                assert_eq!(stamps.best(&effects, late, &[], |_| true), all, "seed {seed}, {effect:?}, {ran:?}");
                hurried += usize::from(all.is_some());
                if let Some(found) = stamps.certain(&effect, ran).filter(|_| !effects.atomic) {
                    let all = all.map(|all| (all.place, all.fit, all.replied));
                    assert_eq!(all, Some((found.place, Fit::Exact, true)), "seed {seed}, {effect:?}, {ran:?}");
                    certain += 1;
                }
                place = all.map(|m| m.place);
            }
            let crowd = stamps.by_key.values().filter(|line| matches!(line, Line::Many(_))).count();
            crowded = crowded.max(crowd);
            if let Some(place) = place.filter(|_| rng.random_bool(0.4)) {
                stamps.explain(place);
            }
            if rng.random_bool(0.05) {
                stamps.forget_replied_before(Micros(now - 200));
            }
        }
    }
    assert!(certain > 5_000 && hurried > 50_000 && crowded > 2, "{certain}, {hurried}, {crowded}");
}

/// Thousands wait on one key: each effect looks at a few of them.
#[test]
fn a_hot_key_costs_no_more_than_any() {
    let table = CommandTable::builtin();
    let who = Arc::new(Identity::default());
    for (requests, effects) in [
        (["INCR a"; 2], ["INCR a"; 2]),
        (["LPUSH a #", "LPUSH a #"], ["LPUSH a #", "LPUSH a #"]),
        (["ZADD a 1 #", "ZADD a 1 #"], ["ZADD a 1 #", "ZADD a 1 #"]),
        (["INCR a", "EXPIRE a 9"], ["INCR a", "PEXPIREAT a 5"]),
        (["RPUSH a #", "LPOP a"], ["RPUSH a #", "LPOP a"]),
        (["INCRBYFLOAT a 1.5"; 2], ["SET a 3"; 2]),
        (["SPOP a"; 2], ["SREM a m#"; 2]),
        (["XREADGROUP GROUP g c STREAMS a >"; 2], ["XCLAIM a g c 0 1-# TIME 5"; 2]),
        (["LPUSH a #", "BLMOVE a b LEFT RIGHT 0"], ["LPUSH a #", "LMOVE a b LEFT RIGHT"]),
        (["EVAL s 1 a 7"; 2], ["INCR a"; 2]),
        (["EVAL s 1 a#"; 2], ["INCR a#"; 2]),
    ] {
        let mut stamps = Stamps::default();
        let line = |lines: [&str; 2], n: u64| lines[(n % 2) as usize].replace('#', &n.to_string());
        let count = 20_000;
        let add = |stamps: &mut Stamps, id: u64, line: &str| {
            let (at, parts) = (Micros(id as i64), smallvec::smallvec![part(&table, line)]);
            stamps.add(Stamp { id, at, who: who.clone(), parts, transaction: false });
        };
        // Somebody stays in front of them all, and a script is under way elsewhere.
        add(&mut stamps, 0, "BZPOPMIN a 0");
        add(&mut stamps, 1, "EVAL s 1 other 8");
        for n in 2..count {
            add(&mut stamps, n, &line(requests, n));
            stamps.reply(n, Micros((n + 100) as i64), Outcome::Number(n as i64));
        }
        LOOKED_AT.set(0);
        for n in 2..count {
            let effect = part(&table, &line(effects, n));
            let ran = (Micros(n as i64), Micros((n + 15_000) as i64));
            let effects = Effects { part: &effect, words: &|| &[], atomic: false, ran };
            let found = stamps.certain(&effect, ran).or_else(|| stamps.best(&effects, false, &[], |_| true));
            assert_eq!(found.map(|m| m.place), Some(n), "{requests:?}");
            stamps.explain(n);
        }
        let each = LOOKED_AT.get() / count;
        assert!(each <= 2 * CANDIDATES_MAX as u64, "{each} looked at for each effect of {requests:?}");
    }
}
