//! What the table of effects says of elements, values and TTLs, beside what a server does: random commands on random values, and
//! after each of them all that has changed must be among what its effects write, and must be what they say. And whose the last
//! write of each was, read from the journal: never that of a command that has not changed it.
//!
//! `REDTAPE_SEED` is the number of the first history, `REDTAPE_HISTORIES` how many there are; each failure names its own.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::{BTreeMap, BTreeSet};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use redtape_journal::query::{LsnRange, WriteFilter};
use redtape_journal::{Catalog, Keyring, Lsn, OpenOptions, Record, SyncPolicy, TimelineId};
use redtape_restore::Interrupt;
use redtape_restore::client::{Server as Client, Value};
use redtape_restore::judge::{JudgedRange, Part, Question, Verdict, judge};
use redtape_wire::effect::{After, Elements, Write, Writes, writes};
use redtape_wire::rdb::{Value as Decoded, decode_value, parse_dump};
use support::history::random_command;
use support::record::Recorder;
use support::{Running, run, version};

const STEPS: u64 = 150;

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|n| n.parse().ok()).unwrap_or(otherwise)
}

/// A history takes some seconds; many of them run by `REDTAPE_HISTORIES`.
fn histories() -> std::ops::Range<u64> {
    let first = number("REDTAPE_SEED", 0);
    first..first + number("REDTAPE_HISTORIES", 1)
}

/// What a key holds, element by element; of a stream only that it is there, as servers do not tell replicas all of it.
#[derive(Debug, Clone, Default, PartialEq)]
struct Key {
    value: String,
    /// What a string is.
    string: Option<Vec<u8>>,
    elements: BTreeMap<Vec<u8>, Element>,
    until: Option<i64>,
}

#[derive(Debug, Clone, PartialEq)]
enum Element {
    Member,
    Field(Vec<u8>, Option<i64>),
    Score(f64),
}

type State = BTreeMap<(u32, Vec<u8>), Key>;

fn state(client: &mut Client) -> State {
    let mut state = State::new();
    let ttl = if version().has_redis(7, 0) { "PEXPIRETIME" } else { "PTTL" };
    for db in client.info(Some("keyspace")).unwrap().keyspace().into_keys() {
        run(client, &format!("SELECT {db}"));
        let Value::Array(keys) = run(client, "KEYS *") else { panic!("KEYS") };
        for key in keys {
            let Value::Bytes(key) = key else { panic!("a key") };
            let Value::Bytes(dump) = client.call(&[b"DUMP", &key[..]]).unwrap() else { panic!("DUMP") };
            let Value::Int(until) = client.call(&[ttl.as_bytes(), &key[..]]).unwrap() else { panic!("{ttl}") };
            let dump = parse_dump(&dump).unwrap();
            let value = decode_value(dump.value_type, dump.value, u64::MAX).unwrap();
            // Before Redis 7.0, only how long it has yet, by a clock that runs: that there is one is all that can be compared.
            let until = (until >= 0).then_some(if version().has_redis(7, 0) { until } else { 1 });
            state.insert((db, key), Key { until, ..decoded(&value) });
        }
    }
    state
}

fn decoded(value: &Decoded) -> Key {
    let mut key = Key { value: format!("{value:?}"), ..Key::default() };
    match value {
        Decoded::String(string) => key.string = Some(string.clone()),
        Decoded::Set(members) => key.elements = members.iter().map(|m| (m.clone(), Element::Member)).collect(),
        Decoded::Zset(members) => {
            let element = |(member, score): &(redtape_wire::rdb::Bytes, redtape_wire::rdb::Score)| {
                (AsRef::<[u8]>::as_ref(member).to_vec(), Element::Score(score.get()))
            };
            key.elements = members.iter().map(element).collect();
        }
        Decoded::Hash(fields) => {
            let element = |field: &redtape_wire::rdb::Field| {
                (field.name.clone(), Element::Field(field.value.clone(), field.expires_at_ms))
            };
            key.elements = fields.iter().map(element).collect();
        }
        Decoded::Stream(_) => "a stream".clone_into(&mut key.value),
        _ => {}
    }
    key
}

/// What the effects of one step write of a key; the last write of each part, and how many there were.
#[derive(Debug, Default)]
struct Written<'a> {
    value: Option<(Write<'a>, usize)>,
    ttl: Option<(Write<'a>, usize)>,
    listed: BTreeMap<&'a [u8], (Write<'a>, usize)>,
    any_element: bool,
}

#[derive(Debug, Default)]
struct Step<'a> {
    keys: BTreeMap<(u32, &'a [u8]), Written<'a>>,
    /// Of these databases, everything.
    databases: BTreeSet<u32>,
    everything: bool,
}

fn note<'a>(place: &mut Option<(Write<'a>, usize)>, write: Option<Write<'a>>) {
    if let Some(write) = write {
        *place = Some((write, place.map_or(1, |(_, n)| n + 1)));
    }
}

impl<'a> Step<'a> {
    fn of(records: &'a [Record]) -> Self {
        let mut step = Self::default();
        for record in records {
            match writes(record.db, &record.args, record.keys.as_deref()) {
                Writes::Nothing => {}
                Writes::FlushDb => drop(step.databases.insert(record.db)),
                Writes::SwapDb(a, b) => step.databases.extend([a, b]),
                Writes::FlushAll | Writes::Unknown | Writes::UnknownOf { .. } => step.everything = true,
                Writes::Keys(keys) => {
                    for write in keys {
                        let written = step.keys.entry((write.db, write.key)).or_default();
                        note(&mut written.value, write.value);
                        note(&mut written.ttl, write.ttl);
                        match write.elements {
                            Elements::None => {}
                            Elements::Unlisted | Elements::Whole => written.any_element = true,
                            Elements::Listed(listed) => {
                                for (element, write) in listed {
                                    let count = written.listed.get(element).map_or(0, |(_, n)| *n);
                                    written.listed.insert(element, (write, count + 1));
                                }
                            }
                        }
                    }
                }
            }
        }
        step
    }

    /// Everything may have changed there.
    fn covers(&self, db: u32) -> bool {
        self.everything || self.databases.contains(&db)
    }
}

/// Whether what is there is what was said; one write alone that has certainly changed it has done so.
fn agrees<T: PartialEq>(
    said: Option<(Write<'_>, usize)>,
    before: Option<&T>,
    after: Option<&T>,
    is: impl Fn(After<'_>, Option<&T>) -> bool,
) -> bool {
    let Some((write, count)) = said else { return before == after };
    is(write.after, after) && (before != after || !write.certain || write.after == After::Any || count > 1)
}

fn check_key(written: &Written<'_>, before: Option<&Key>, after: Option<&Key>) -> Result<(), String> {
    let empty = Key::default();
    let value = |key: Option<&Key>| key.map(|key| key.value.clone());
    let is_stream = [before, after].into_iter().flatten().any(|key| key.value == "a stream");
    let value_is = |said: After<'_>, _: Option<&String>| match said {
        After::Absent => after.is_none(),
        After::Is(string) => after.is_some_and(|key| key.string.as_deref() == Some(string)),
        After::ChangedOrAbsent | After::Any => true,
        _ => after.is_some(),
    };
    // An element may be written with what it was; and of a stream not all is compared.
    let value_said =
        written.value.map(|(write, n)| if is_stream || !written.any_element { (write, n + 1) } else { (write, n) });
    if !agrees(value_said, value(before).as_ref(), value(after).as_ref(), value_is) {
        return Err(format!("the value: {:?}", written.value));
    }
    let until = |key: Option<&Key>| key.and_then(|key| key.until);
    let ttl_is = |said: After<'_>, until: Option<&i64>| match said {
        After::Absent => until.is_none(),
        After::Until(ms) => !version().has_redis(7, 0) || until == Some(&ms),
        _ => true,
    };
    let absolute = version().has_redis(7, 0);
    let ttl_said = written.ttl.map(|(write, n)| if absolute { (write, n) } else { (write, n + 1) });
    if !agrees(ttl_said, until(before).as_ref(), until(after).as_ref(), ttl_is) {
        return Err(format!("the TTL: {:?}", written.ttl));
    }
    if written.any_element {
        return Ok(());
    }
    let (before, after) = (&before.unwrap_or(&empty).elements, &after.unwrap_or(&empty).elements);
    let element_is = |said: After<'_>, element: Option<&Element>| match said {
        After::Absent => element.is_none(),
        After::Present => element == Some(&Element::Member),
        After::Is(value) => matches!(element, Some(Element::Field(there, _)) if there == value),
        After::Score(score) => element == Some(&Element::Score(score)),
        _ => true,
    };
    let all: BTreeSet<&[u8]> =
        before.keys().chain(after.keys()).map(Vec::as_slice).chain(written.listed.keys().copied()).collect();
    for element in all {
        let said = written.listed.get(element).copied();
        if !agrees(said, before.get(element), after.get(element), element_is) {
            return Err(format!("the element {}: {said:?}", element.escape_ascii()));
        }
    }
    Ok(())
}

fn check(step: &Step<'_>, before: &State, after: &State) -> Result<(), String> {
    let named = step.keys.keys().map(|(db, key)| (*db, key.to_vec()));
    let all: BTreeSet<(u32, Vec<u8>)> = before.keys().chain(after.keys()).cloned().chain(named).collect();
    let nothing = Written::default();
    for at in all.iter().filter(|(db, _)| !step.covers(*db)) {
        let written = step.keys.get(&(at.0, &at.1[..])).unwrap_or(&nothing);
        let (before, after) = (before.get(at), after.get(at));
        let shown = || format!("of {} {}, {before:?} became {after:?}", at.0, at.1.escape_ascii());
        check_key(written, before, after).map_err(|what| format!("{what} {}", shown()))?;
    }
    Ok(())
}

/// Runs random commands; what is there after each, and the LSN behind it.
fn record(
    seed: u64,
    source: &Running,
    client: &mut Client,
    dir: &std::path::Path,
    swaps: bool,
) -> Vec<(String, Lsn, State)> {
    let rng = &mut StdRng::seed_from_u64(seed);
    run(client, "FLUSHALL");
    let options = OpenOptions {
        segment_bytes: 4096,
        sync: SyncPolicy::No,
        compact: seed.is_multiple_of(2),
        ..OpenOptions::default()
    };
    let mut recorder = Recorder::start_with(dir, source, options);
    let mut db = 0;
    let mut states = vec![("the beginning".to_owned(), recorder.lsn(), state(client))];
    for _ in 0..STEPS {
        run(client, &format!("SELECT {db}"));
        let words = random_command(rng);
        if words[0] == b"SWAPDB" && !swaps {
            continue;
        }
        if words[0] == b"SELECT" {
            db = std::str::from_utf8(&words[1]).unwrap().parse().unwrap();
        }
        let _ = client.try_call(&words).unwrap();
        recorder.catch_up();
        let shown: Vec<String> = words.iter().map(|word| word.escape_ascii().to_string()).collect();
        states.push((shown.join(" "), recorder.lsn(), state(client)));
        run(client, "SELECT 0");
    }
    recorder.finish();
    states
}

#[test]
fn what_has_changed_is_what_the_effects_write() {
    let source = Running::timeless();
    let mut client = source.client();
    let mut effects = BTreeSet::new();
    for seed in histories() {
        let journal = tempfile::tempdir().unwrap();
        let dir = journal.path().join("j");
        let states = record(seed, &source, &mut client, &dir, true);
        let catalog = Catalog::open(&dir).unwrap();
        let groups = catalog.groups(states[0].1, TimelineId(1));
        let records: Vec<Record> = groups.flat_map(|group| group.unwrap().records).collect();
        let mut rest = &records[..];
        for pair in states.windows(2) {
            let [(_, _, before), (command, lsn, after)] = pair else { panic!("two") };
            let (here, behind) = rest.split_at(rest.partition_point(|record| record.lsn <= *lsn));
            rest = behind;
            effects.extend(here.iter().map(|record| record.args[0].to_ascii_uppercase()));
            if let Err(what) = check(&Step::of(here), before, after) {
                panic!("seed {seed}, LSN {}, {command}: {what}; its effects: {here:?}", lsn.0);
            }
        }
        assert!(rest.is_empty());
    }
    assert!(effects.len() > 20, "{effects:?}");
}

/// Every part of every key, and what it is.
fn parts(state: &State) -> BTreeMap<(u32, Vec<u8>, Part), String> {
    let mut parts = BTreeMap::new();
    for ((db, name), key) in state {
        let mut add = |part: Part, what: String| drop(parts.insert((*db, name.clone(), part), what));
        add(Part::Whole, key.value.clone());
        if let Some(until) = key.until {
            add(Part::Ttl, until.to_string());
        }
        for (element, value) in &key.elements {
            add(Part::Element(element.clone()), format!("{value:?}"));
        }
    }
    parts
}

/// Whether a record writes a part, whatever was there before.
fn replaces(record: &Record, (db, key, part): &(u32, Vec<u8>, Part)) -> bool {
    let Writes::Keys(keys) = writes(record.db, &record.args, record.keys.as_deref()) else { return false };
    keys.iter().filter(|write| write.db == *db && write.key == &key[..]).any(|write| {
        let certain = |write: Option<Write<'_>>| write.is_some_and(|write| write.certain);
        match part {
            Part::Whole => certain(write.value),
            Part::Ttl => certain(write.ttl),
            Part::Element(_) => write.elements == Elements::Whole && certain(write.value),
        }
    })
}

#[test]
fn nobody_is_blamed_by_a_recorded_journal() {
    let source = Running::timeless();
    let mut client = source.client();
    let (mut selected, mut other, mut uncertain) = (0, 0, 0);
    for seed in histories() {
        let journal = tempfile::tempdir().unwrap();
        let dir = journal.path().join("j");
        let states = record(seed, &source, &mut client, &dir, false);
        let catalog = Catalog::open_for_search(&dir, &Keyring::default()).unwrap();
        let records: Vec<Record> =
            catalog.groups(states[0].1, TimelineId(1)).flat_map(|group| group.unwrap().records).collect();
        let rng = &mut StdRng::seed_from_u64(seed);
        for _ in 0..20 {
            let from = rng.random_range(0..states.len() - 1);
            // A third of the steps is bad.
            let bad: Vec<bool> = states.iter().map(|_| rng.random_range(0..3) == 0).collect();
            let ranges = (1..states.len()).filter(|n| bad[*n] && states[*n].1 > states[*n - 1].1);
            let ranges = ranges.map(|n| LsnRange { first: Lsn(states[n - 1].1.0 + 1), last: states[n].1 });
            let filter = WriteFilter { lsns: ranges.collect(), ..WriteFilter::default() };
            if filter.lsns.is_empty() {
                continue;
            }
            let all: Vec<_> = states.iter().map(|(_, _, state)| parts(state)).collect();
            let (before, after) = (&all[from], &all[states.len() - 1]);
            let differing: BTreeSet<_> =
                before.keys().chain(after.keys()).filter(|at| before.get(*at) != after.get(*at)).cloned().collect();
            let questions: Vec<Question> = differing
                .iter()
                .map(|(db, key, part)| {
                    let until = |n: usize| states[n].2.get(&(*db, key.clone())).and_then(|key| key.until);
                    let (expires_before, expires_after) = (until(from), until(states.len() - 1));
                    Question { db: *db, key: key.clone(), part: part.clone(), expires_before, expires_after }
                })
                .collect();
            let upto = states[states.len() - 1].1;
            let range = JudgedRange { catalog: &catalog, timeline: TimelineId(1), after: states[from].1, upto };
            let judged = judge(range, &questions, &filter, &Interrupt::default(), &mut |_| {}).unwrap();
            assert!(judged.damage.is_none());
            for (at, verdict) in differing.iter().zip(&judged.verdicts) {
                let last = (from + 1..states.len()).rev().find(|n| all[*n].get(at) != all[*n - 1].get(at)).unwrap();
                let what = || {
                    format!(
                        "seed {seed}, from LSN {}, {at:?}, changed by {}: {verdict:?}",
                        states[from].1, states[last].0
                    )
                };
                match verdict {
                    Verdict::Selected { lsn } => {
                        selected += 1;
                        let decided = records.iter().find(|record| record.lsn == *lsn).unwrap();
                        assert!(
                            filter.lsns.iter().any(|range| range.first <= *lsn && *lsn <= range.last),
                            "{}",
                            what()
                        );
                        assert!(bad[last] || replaces(decided, at), "{}", what());
                    }
                    Verdict::Other { .. } => other += 1,
                    Verdict::Uncertain { .. } => uncertain += 1,
                    Verdict::NotWritten => panic!("{}", what()),
                }
            }
        }
    }
    assert!(selected > 5 && other > 5 && uncertain < selected + other, "{selected} {other} {uncertain}");
}
