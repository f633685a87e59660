//! What is found without looking at all that wait is what is found by looking at all of them.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use redtape_wire::command::CommandTable;

use super::key_queue::{CANDIDATES_MAX, Seen};
use super::search::{Candidates, Patience, Search, Wanted};
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

/// The first that waits for its reply on some connection: each answers in order.
fn somebody(rng: &mut StdRng, waiting: &mut [VecDeque<u64>]) -> Option<u64> {
    let connection = rng.random_range(0..waiting.len());
    waiting[connection].pop_front()
}

/// Compares all that wait with the effect, one after the other, slot by slot.
fn at_leisure(stamps: &Stamps, wanted: &Wanted<'_>) -> Option<Candidates> {
    let compared = std::collections::HashSet::new();
    let known = |_: &[u8]| true;
    let mut search = Search { stamps, wanted, without: &[], known, hurry: false, compared, found: None };
    let mut slots_wanted = SmallVec::new();
    part_slots(&wanted.parts[0], &mut slots_wanted);
    let mut live = None;
    for consumed in [false, true] {
        let more: &[Slot] = if live.is_none() { &[NO_KEY, SCRIPTS] } else { &[] };
        for slot in slots_wanted.iter().chain(more) {
            let there = stamps.places.iter().filter(|(_, waiting)| slots(&waiting.stamp).contains(slot));
            let seen = |(place, waiting)| {
                let entry = entry(place, waiting);
                Seen { place, fingerprint: entry.fingerprint, connection: entry.connection }
            };
            search.look_through(there.map(seen), consumed, None);
        }
        let fits = search.found.as_ref().is_some_and(|found| found.best.fit() >= Fit::Value);
        if consumed {
            return if fits || live.is_none() { search.found } else { live };
        }
        if search.found.as_ref().is_some_and(|found| !found.is_a_scripts_guess()) {
            return search.found;
        }
        live = search.found.take();
    }
    live
}

#[test]
fn who_is_found_in_a_hurry_is_who_would_be_found_at_leisure() {
    let table = CommandTable::builtin();
    let clients: Vec<_> = (0..4).map(|_| Arc::new(Identity::default())).collect();
    let (mut certain, mut hurried, mut crowded) = (0, 0, 0);
    for seed in 0..1000 {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut stamps = Stamps::default();
        // Each client has a connection of its own, or all share one.
        let connections = if seed % 2 == 0 { 4 } else { 1 };
        let (mut unanswered, mut number) = (vec![VecDeque::new(); connections as usize], 0);
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
            let (at, session) = (soon(&mut rng, now), rng.random_range(0..4));
            let (who, connection) = (clients[session].clone(), session as u64 % connections);
            stamps.add(Stamp { id, at, who, connection, parts, transaction });
            unanswered[connection as usize].push_back(id);
            while rng.random_bool(0.45)
                && let Some(id) = somebody(&mut rng, &mut unanswered)
            {
                number += rng.random_range(0..3);
                let place = stamps.by_id.get(&id).and_then(|place| stamps.get(*place));
                let (script, counts) = place.map_or((false, false), |w| {
                    let part = &w.stamp.parts[0];
                    (is_script(part.name.name()), replies_in_order(part) != 0)
                });
                let outcome = match rng.random_range(0..20) {
                    0 => Outcome::NoEffect,
                    1 => Outcome::Gone,
                    2 | 3 => Outcome::Ran,
                    _ if script => [Outcome::Ran, Outcome::Empty][rng.random_range(0..2)],
                    _ if counts => Outcome::Number(number),
                    _ => Outcome::Wrote,
                };
                stamps.reply(id, soon(&mut rng, now), outcome);
            }
            if rng.random_bool(0.02) && id > 9 {
                stamps.correct(id - 9, clients[0].clone(), rng.random_range(0..2));
            }
            let effect = part(&table, EFFECTS[rng.random_range(0..EFFECTS.len())]);
            let ran = (Micros(now - rng.random_range(0..300)), soon(&mut rng, now));
            let words = [hash_arg(b"7")];
            let words = &words[..rng.random_range(0..2)];
            let (atomic, quiet) = (rng.random_bool(0.1), Micros(now - rng.random_range(0..3000)));
            let mut place = None;
            for patience in [Patience::Fresh, Patience::Settled, Patience::Late] {
                let parts = std::slice::from_ref(&effect);
                let wanted = Wanted { parts, words: &|| words, atomic, ran, quiet, patience };
                let all = at_leisure(&stamps, &wanted);
                let hasty = stamps.best(&wanted, &[], |_| true);
                // Which of those that are not told apart leads makes no difference.
                let told = |found: &Option<Candidates>| {
                    found.as_ref().map(|f| ((!f.tie).then_some(f.best.place), f.best.fit(), f.tie))
                };
                assert_eq!(told(&hasty), told(&all), "seed {seed}, {effect:?}, {ran:?}, {patience:?}");
                // What stands behind a certain one of its connection is not compared, and contests nothing.
                let contested = |found: &Option<Candidates>| found.as_ref().is_some_and(|f| f.contested && !f.tie);
                assert!(!contested(&hasty) || contested(&all), "seed {seed}, {effect:?}, {ran:?}, {patience:?}");
                hurried += usize::from(all.is_some());
                if let Some(found) = stamps.certain(&effect, ran).filter(|_| !atomic) {
                    let all = all.as_ref().map(|all| (all.best.place, all.best.fit(), all.best.replied, all.tie));
                    let want = Some((found.best.place, Fit::Exact, true, false));
                    assert_eq!(all, want, "seed {seed}, {effect:?}, {ran:?}");
                    certain += 1;
                }
                place = all.map(|found| found.best.place);
            }
            let buckets = stamps.by_key.values().filter(|queue| matches!(queue, KeyQueue::Many(_))).count();
            crowded = crowded.max(buckets);
            if let Some(place) = place.filter(|_| rng.random_bool(0.4)) {
                stamps.explain(place, true);
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
            stamps.add(Stamp { id, at, who: who.clone(), connection: 0, parts, transaction: false });
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
            let (parts, patience) = (std::slice::from_ref(&effect), Patience::Fresh);
            let wanted = Wanted { parts, words: &|| &[], atomic: false, ran, quiet: Micros(0), patience };
            let found = stamps.certain(&effect, ran).or_else(|| stamps.best(&wanted, &[], |_| true));
            assert_eq!(found.map(|found| found.best.place), Some(n), "{requests:?}");
            stamps.explain(n, true);
        }
        let each = LOOKED_AT.get() / count;
        assert!(each <= 2 * CANDIDATES_MAX as u64, "{each} looked at for each effect of {requests:?}");
    }
}
