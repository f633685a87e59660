//! A sliced restore holds exactly what a full one does: random histories of a real server with much that ties keys together, for
//! single keys, globs, databases and everything.
//!
//! `REDTAPE_SLICES` is the number of histories (`make slice N=…`), `REDTAPE_SEED` that of the first one; each failure names its own.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use redtape_journal::query::When;
use redtape_journal::{Keyring, Lsn, OpenOptions, SyncPolicy};
use redtape_restore::client::{Reply, Server as Client, Value};
use redtape_restore::slice::{BaseSearch, SliceReport};
use redtape_restore::source::binary::probe;
use redtape_restore::source::scratch::Scratch;
use redtape_restore::source::{examine, rebuild_in};
use redtape_restore::{ErrorKind, Filter, ForcedMethod, Interrupt, Limits, Request, Silent};
use redtape_wire::rdb::{Value as Decoded, decode_value, parse_dump};
use support::history::{DATABASES, foldable_command, random_command, random_key};
use support::record::Recorder;
use support::{Running, request, run, version};

/// Histories where nobody says how many.
const HISTORIES: u64 = 12;

struct World {
    source: Running,
    client: Client,
    scratch: Scratch,
    db: u32,
    /// Little ties keys together in this history: much of it can be folded.
    foldable: bool,
}

impl World {
    fn new() -> Self {
        let source = Running::timeless();
        let client = source.client();
        let path = support::binary();
        let path = if path.is_absolute() { path } else { which(&path) };
        let limits = Limits::default();
        let scratch = Scratch::start(&probe(&path, limits.start).unwrap(), 16, limits, &Interrupt::default()).unwrap();
        Self { source, client, scratch, db: 0, foldable: false }
    }

    /// One random command; what the server refuses is not in the stream.
    fn step(&mut self, rng: &mut StdRng) {
        if rng.random_range(0..12) == 0 {
            run(&mut self.client, "MULTI");
            for _ in 0..rng.random_range(1..5) {
                self.command(rng);
            }
            let _ = self.client.try_call(&["EXEC"]).unwrap();
            run(&mut self.client, &format!("SELECT {}", self.db));
        } else {
            self.command(rng);
        }
    }

    fn command(&mut self, rng: &mut StdRng) {
        let words = if self.foldable { foldable_command(rng) } else { random_command(rng) };
        if words[0] == b"SELECT" {
            self.db = std::str::from_utf8(&words[1]).unwrap().parse().unwrap();
        }
        let _ = self.client.try_call(&words).unwrap();
    }
}

fn which(name: &std::path::Path) -> std::path::PathBuf {
    let path = std::env::var_os("PATH").unwrap();
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.is_file()).unwrap()
}

/// What a key holds, decoded, and when it expires.
type State = BTreeMap<(u32, Vec<u8>), (Decoded, i64)>;

fn state(client: &mut Client) -> State {
    let mut state = State::new();
    // Before, only how long it has yet, by a clock that runs: that there is one is all that can be compared.
    let absolute = version().has_redis(7, 0);
    let ttl = if absolute { "PEXPIRETIME" } else { "PTTL" };
    for db in client.info(Some("keyspace")).unwrap().keyspace().into_keys() {
        run(client, &format!("SELECT {db}"));
        let Value::Array(keys) = run(client, "KEYS *") else { panic!("KEYS") };
        for key in keys {
            let Value::Bytes(key) = key else { panic!("a key") };
            let Value::Bytes(dump) = client.call(&[b"DUMP", &key[..]]).unwrap() else { panic!("DUMP") };
            let Value::Int(until) = client.call(&[ttl.as_bytes(), &key[..]]).unwrap() else { panic!("{ttl}") };
            let until = if absolute { until } else { until.signum() };
            let dump = parse_dump(&dump).unwrap();
            let mut value = decode_value(dump.value_type, dump.value, u64::MAX).unwrap();
            if let Decoded::Stream(stream) = &mut value {
                // They follow the scratch server's clock.
                for consumer in stream.groups.iter_mut().flat_map(|group| &mut group.consumers) {
                    (consumer.seen_ms, consumer.active_ms) = (0, 0);
                }
            }
            state.insert((db, key), (value, until));
        }
    }
    run(client, "SELECT 0");
    state
}

/// Of two datasets, only keys that differ are shown.
fn assert_same(found: &State, expected: &State, what: &str) {
    let keys: BTreeSet<_> = found.keys().chain(expected.keys()).collect();
    let other: Vec<_> = keys.into_iter().filter(|key| found.get(*key) != expected.get(*key)).collect();
    let show = |(db, key): &(u32, Vec<u8>)| {
        let at = (*db, key.clone());
        format!("{db} {}: {:?} instead of {:?}", key.escape_ascii(), found.get(&at), expected.get(&at))
    };
    assert!(other.is_empty(), "{what}: {}", other.into_iter().map(show).collect::<Vec<_>>().join("; "));
}

/// Without what a server does not replicate: a consumer for whom there was nothing, and how much groups have read; and without the
/// ends of fields, as commands that change them see the time of the journal, which the source's clock does not follow here.
fn replicated(mut state: State) -> State {
    for (value, _) in state.values_mut() {
        if let Decoded::Hash(fields) = value {
            for field in fields {
                field.expires_at_ms = None;
            }
        }
        let Decoded::Stream(stream) = value else { continue };
        stream.forget_unreplicated();
        for group in &mut stream.groups {
            let idle = |n: usize| group.pending.iter().all(|pending| pending.consumer != n);
            let kept: Vec<usize> = (0..group.consumers.len()).filter(|n| !idle(*n)).collect();
            for pending in &mut group.pending {
                pending.consumer = kept.binary_search(&pending.consumer).unwrap();
            }
            group.consumers = kept.iter().map(|n| group.consumers[*n].clone()).collect();
        }
    }
    state
}

fn functions(client: &mut Client) -> Option<Value> {
    match client.try_call(&["FUNCTION", "DUMP"]).unwrap() {
        Reply::Value(dump) => Some(dump),
        Reply::Error(_) => None,
    }
}

/// The dataset of a request, in the scratch server.
fn rebuild(scratch: &mut Scratch, request: &Request) -> (State, Option<Value>, Option<SliceReport>) {
    run(&mut scratch.server, "FLUSHALL");
    if version().has_redis(7, 0) {
        run(&mut scratch.server, "FUNCTION FLUSH");
    }
    let report = rebuild_in(scratch, request, &mut Silent).unwrap();
    (state(&mut scratch.server), functions(&mut scratch.server), report)
}

/// What is selected at random.
fn selection(rng: &mut StdRng) -> Filter {
    let db = |rng: &mut StdRng| rng.random_range(0..DATABASES);
    let number = rng.random_range(0..4);
    // A glob of keys that begin like a random one.
    let beginning = |rng: &mut StdRng| {
        let key = random_key(rng);
        let len = rng.random_range(1..3);
        key.into_iter().take(len).chain(*b"*").collect::<Vec<u8>>()
    };
    let (globs, regexes, dbs) = match rng.random_range(0..13) {
        0 => (vec![], vec![], vec![]),
        1 => (vec![], vec![], vec![db(rng)]),
        2 => (vec![beginning(rng)], vec![], vec![]),
        3 => (vec![random_key(rng)], vec![], vec![]),
        4 => (vec![format!("?{number}*").into_bytes()], vec![], vec![db(rng)]),
        5 => (vec![random_key(rng), random_key(rng)], vec![], vec![db(rng), db(rng)]),
        6 => (vec![random_key(rng)], vec![format!("^[slz]{number}")], vec![db(rng)]),
        7 => (vec![beginning(rng), random_key(rng)], vec![], vec![db(rng)]),
        8 => (vec![beginning(rng), beginning(rng)], vec![], vec![db(rng), db(rng)]),
        _ => (vec![random_key(rng)], vec![], vec![db(rng)]),
    };
    let mut filter = Filter::new(&globs, &regexes, &dbs).unwrap();
    for _ in 0..rng.random_range(0..3) * rng.random_range(0..2) {
        // A key of one database, with others or alone.
        filter.add_key(Some(db(rng)), random_key(rng));
    }
    if rng.random_range(0..4) == 0 {
        filter = filter.excluding(&[random_key(rng), format!("?{number}*").into_bytes()]).unwrap();
    }
    filter
}

/// What was kept in all, of how many records, and how often everything was forced.
#[derive(Default)]
struct Totals {
    kept: u64,
    records: u64,
    forced: u64,
    selections: u64,
    /// Records that were folded, how often, and how often behind keys of the base.
    folded: u64,
    folds: u64,
    cut_bases: u64,
}

/// Segments of one part or of several, packed or not, encrypted or not.
fn journal_options(rng: &mut StdRng) -> OpenOptions {
    let key = "k:1111111111111111111111111111111111111111111111111111111111111111";
    OpenOptions {
        segment_bytes: [4096, 64 << 20][rng.random_range(0..2)],
        sync: SyncPolicy::No,
        compact: rng.random(),
        keyring: if rng.random() { Keyring::parse(key).unwrap() } else { Keyring::default() },
        ..OpenOptions::default()
    }
}

/// Writes so much that the index of a segment gets another entry.
fn fill(client: &mut Client, rng: &mut StdRng) {
    let value: Vec<u8> = (0..300_000).map(|_| rng.random()).collect();
    client.call(&[&b"SET"[..], b"filler", &value]).unwrap();
}

fn one_history(world: &mut World, seed: u64, totals: &mut Totals) {
    let rng = &mut StdRng::seed_from_u64(seed);
    world.foldable = rng.random();
    run(&mut world.client, "FLUSHALL");
    if version().has_redis(7, 0) {
        run(&mut world.client, "FUNCTION FLUSH");
    }
    for _ in 0..rng.random_range(0..150) {
        world.step(rng);
    }
    let journal = tempfile::tempdir().unwrap();
    let dir = journal.path().join("j");
    let options = journal_options(rng);
    let mut recorder = Recorder::start_with(&dir, &world.source, options.clone());
    // A FLUSHALL ends the process that sends the base, and the link with it.
    let begun = Instant::now();
    while world.client.info(Some("persistence")).unwrap().number("rdb_bgsave_in_progress") != Some(0) {
        assert!(begun.elapsed() < Duration::from_secs(20), "seed {seed}: the base is still being sent");
        std::thread::sleep(Duration::from_millis(1));
    }
    // The base begins with a SELECT.
    run(&mut world.client, &format!("SELECT {}", world.db));
    let steps = rng.random_range(20..300);
    let (every, fills) = (rng.random_range(5..60), rng.random_range(0..3) == 0);
    for n in 0..steps {
        world.step(rng);
        if n % every == every - 1 {
            if fills {
                fill(&mut world.client, rng);
            }
            recorder.catch_up();
        }
    }
    recorder.catch_up();
    let last = recorder.lsn();
    if rng.random() {
        recorder.finish();
    }
    let mut lsns = vec![last];
    lsns.extend((last.0 > 0).then(|| Lsn(rng.random_range(1..=last.0))));
    for lsn in lsns {
        let mut asked = request(&dir, format!("lsn:{}", lsn.0).parse::<When>().unwrap(), &world.source, None);
        asked.keyring = options.keyring.clone();
        asked.slice = false;
        let (full, functions_of_full, _) = rebuild(&mut world.scratch, &asked);
        if lsn == last {
            let (replayed, original) = (replicated(full.clone()), replicated(state(&mut world.client)));
            assert_same(&replayed, &original, &format!("seed {seed}: the full replay and the server"));
            run(&mut world.client, &format!("SELECT {}", world.db));
        }
        asked.slice = true;
        for n in 0..4 {
            asked.filter = if n == 0 && world.foldable { Filter::default() } else { selection(rng) };
            let (mut sliced, functions, report) = rebuild(&mut world.scratch, &asked);
            let wanted = |(db, key): &(u32, Vec<u8>)| asked.filter.wants(*db, key);
            sliced.retain(|key, _| wanted(key));
            let expected: State =
                full.iter().filter(|(key, _)| wanted(key)).map(|(k, v)| (k.clone(), v.clone())).collect();
            let what = format!("seed {seed}, LSN {} of {}, {:?}: {report:?}", lsn.0, last.0, asked.filter);
            assert_same(&sliced, &expected, &what);
            if asked.filter.is_everything() {
                assert_eq!(functions, functions_of_full, "{what}");
            }
            let report = report.unwrap();
            totals.kept += report.records_kept;
            totals.folded += report.records_folded;
            totals.folds += u64::from(report.records_folded > 0);
            totals.cut_bases += u64::from(report.records_folded > 0 && report.base_keys > Some(0));
            totals.records += report.records_in_all;
            totals.forced += u64::from(report.forced.is_some());
            totals.selections += 1;
        }
    }
}

#[test]
fn a_slice_equals_the_full_replay() {
    let number = |name: &str| std::env::var(name).ok().map(|n| n.parse::<u64>().unwrap());
    let seed = number("REDTAPE_SEED").unwrap_or_else(|| rand::rng().random_range(0..1 << 40));
    let histories = number("REDTAPE_SLICES").unwrap_or(HISTORIES);
    println!("REDTAPE_SEED={seed} REDTAPE_SLICES={histories}");
    let mut world = World::new();
    let mut totals = Totals::default();
    for n in 0..histories {
        one_history(&mut world, seed + n, &mut totals);
    }
    let Totals { kept, records, forced, selections, folded, folds, cut_bases } = totals;
    println!("{selections} selections, {kept} of {records} records kept, {forced} times everything before an LSN");
    println!("{folded} records folded, in {folds} selections, {cut_bases} of them behind keys of the base");
    assert!(kept < records && forced < selections);
    // Of a single history (REDTAPE_SEED), nothing may have been folded.
    assert!(histories < HISTORIES || folds > 0 && cut_bases > 0);
}

/// Options with which segments are small and stay as they are.
fn small_segments() -> OpenOptions {
    OpenOptions { segment_bytes: 4096, sync: SyncPolicy::No, compact: false, ..OpenOptions::default() }
}

#[test]
fn damage_stops_only_a_restore_that_may_need_what_is_damaged() {
    let mut world = World::new();
    let journal = tempfile::tempdir().unwrap();
    let dir = journal.path().join("j");
    let mut recorder = Recorder::start_with(&dir, &world.source, small_segments());
    for n in 0..60 {
        run(&mut world.client, &format!("SET key:{n} {}", "x".repeat(300)));
        recorder.catch_up();
    }
    recorder.finish();
    let needle = b"key:20";
    let mut segments = std::fs::read_dir(dir.join("segments")).unwrap().map(|entry| entry.unwrap().path());
    let place = |path: &std::path::PathBuf| {
        let bytes = std::fs::read(path).unwrap();
        bytes.windows(needle.len()).position(|w| w == needle).map(|at| (bytes, at))
    };
    let (path, (mut bytes, at)) = segments.find_map(|path| Some((path.clone(), place(&path)?))).unwrap();
    bytes[at + 50] ^= 1;
    std::fs::write(&path, bytes).unwrap();

    let mut asked = request(&dir, When::Latest, &world.source, None);
    let mut restored = |glob: &str, slice: bool| {
        asked.filter = Filter::new(&[glob], &[], &[0]).unwrap();
        asked.slice = slice;
        run(&mut world.scratch.server, "FLUSHALL");
        rebuild_in(&mut world.scratch, &asked, &mut Silent).map(|_| state(&mut world.scratch.server).len())
    };
    assert_eq!(restored("key:50", true).unwrap(), 1);
    assert_eq!(restored("key:3", true).unwrap(), 1);
    for (glob, slice) in [("key:20", true), ("key:5*", true), ("key:50", false)] {
        let error = restored(glob, slice).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Storage(_)), "{glob}: {error}");
    }
}

#[test]
fn a_command_of_a_module_keeps_everything_before_it_whatever_keys_it_names() {
    let mut world = World::new();
    let journal = tempfile::tempdir().unwrap();
    let dir = journal.path().join("j");
    run(&mut world.client, "SET in-the-base 1");
    let mut recorder = Recorder::start_with(&dir, &world.source, small_segments());
    recorder.knows("mod.write -2 write,module 1 1 1");
    let mut write = |recorder: &mut Recorder, n: std::ops::Range<u32>| {
        for n in n {
            run(&mut world.client, &format!("SET key:{n} {}", "x".repeat(300)));
            recorder.catch_up();
        }
    };
    write(&mut recorder, 0..20);
    recorder.inject("MOD.WRITE something");
    let module = recorder.lsn();
    recorder.submit();
    write(&mut recorder, 0..20);
    run(&mut world.client, "APPEND wanted x");
    recorder.catch_up();
    let last = recorder.lsn();
    recorder.finish();
    let examined = |globs: &[&str], dbs: &[u32]| {
        let mut asked = request(&dir, When::Latest, &world.source, Some(ForcedMethod::Scratch));
        asked.filter = Filter::new(globs, &[], dbs).unwrap();
        examine(&asked, &mut Silent).unwrap().unwrap()
    };
    let slice = examined(&["wanted"], &[0]);
    let forced = slice.forced.clone().unwrap();
    assert_eq!((forced.lsn, slice.base_keys), (module, None));
    // It, all before it, and the one of the key itself.
    assert_eq!((slice.records_kept, slice.records_in_all), (module.0 + 1, last.0));
    assert!(slice.journal_bytes_skipped > 0, "{slice:?}");
    let text = slice.to_string();
    assert!(
        text.contains(&format!("everything up to LSN {module} is replayed: the keys that MOD.WRITE reads")),
        "{text}"
    );
    // Set anew behind it, a key needs nothing of what was before.
    let slice = examined(&["key:7"], &[0]);
    assert_eq!((slice.records_kept, slice.base_keys, slice.forced), (1, Some(0), None));
    let slice = examined(&["*"], &[]);
    assert_eq!((slice.records_kept, slice.forced.map(|forced| forced.lsn)), (last.0, Some(module)));
}

/// A whole restore into the scratch server, compared with what the source holds; what slicing has found.
fn whole(world: &mut World, dir: &std::path::Path) -> SliceReport {
    let asked = request(dir, When::Latest, &world.source, None);
    let (found, functions_found, report) = rebuild(&mut world.scratch, &asked);
    assert_same(&found, &state(&mut world.client), &format!("{report:?}"));
    assert_eq!(functions_found, functions(&mut world.client));
    report.unwrap()
}

#[test]
fn keys_that_are_only_set_are_loaded_as_values() {
    let mut world = World::new();
    let journal = tempfile::tempdir().unwrap();
    let dir = journal.path().join("j");
    let both = "SET overwritten old; RPUSH of-another-type a b; SET stays 1; SELECT 2; SET overwritten stays; SELECT 0";
    both.split("; ").for_each(|line| drop(run(&mut world.client, line)));
    if version().has_redis(7, 0) {
        let library = "#!lua name=lib\nredis.register_function('f', function() return 1 end)";
        world.client.call(&["FUNCTION", "LOAD", library]).unwrap();
    }
    let mut recorder = Recorder::start_with(&dir, &world.source, small_segments());
    let folded = "SET overwritten 1; SET of-another-type v; SET a 1; SET a 2; SET b 1 PX 900000; SELECT 2; SET a 1; \
                  SET number 12345; SELECT 0; MULTI; SET in-multi 1; INCR n; EXEC";
    // Of these, each is set or touched by another command as well.
    let replayed = "SET c 1; APPEND c x; SET d 1; MSET e 1 d 2; SET d 3; SET f 1; RENAME f g; SET g2 1; COPY g2 h; SET g2 2; \
                    SET i 1 NX; SET j 1; PEXPIRE j 900000";
    for line in
        folded.split("; ").chain(replayed.split("; ").filter(|line| version().has_redis(6, 2) || !line.contains("g2")))
    {
        run(&mut world.client, line);
    }
    recorder.catch_up();
    let report = whole(&mut world, &dir);
    // Before Redis 7.0, `PX` stands in the stream as it was sent.
    let folds = if version().has_redis(7, 0) { 7 } else { 6 };
    assert_eq!((report.records_folded, report.base_keys), (folds, Some(2)), "{report:?}");

    // Over the link; the target has the clock of the source, by which nothing has expired.
    recorder.finish();
    let target = Running::timeless();
    let (plan, done) = support::restore(&request(&dir, When::Latest, &target, None)).unwrap();
    assert_eq!(plan.slice.map(|slice| slice.records_folded), Some(folds));
    assert_same(&state(&mut target.client()), &state(&mut world.client), &format!("{done:?}"));
}

#[test]
fn where_databases_are_emptied_or_change_places_nothing_is_folded() {
    for line in ["FLUSHDB", "SWAPDB 0 1", "SWAPDB 2 1", "FLUSHALL"] {
        let mut world = World::new();
        let journal = tempfile::tempdir().unwrap();
        let dir = journal.path().join("j");
        let mut recorder = Recorder::start_with(&dir, &world.source, small_segments());
        for line in ["SET before 1", line, "SET behind 1", "SELECT 1", "SET behind 1"] {
            run(&mut world.client, line);
        }
        recorder.catch_up();
        let report = whole(&mut world, &dir);
        assert_eq!((report.records_folded, report.base_keys), (0, None), "{line}: {report:?}");
    }
}

#[test]
fn of_a_base_only_the_wanted_values_are_read() {
    let mut world = World::new();
    let journal = tempfile::tempdir().unwrap();
    let dir = journal.path().join("j");
    for n in 0..3000u64 {
        // Values that do not shrink when they are compressed.
        let value: Vec<String> =
            (0..40u64).map(|i| format!("{:x}", (n * 40 + i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15))).collect();
        run(&mut world.client, &format!("SET key:{n} {}", value.concat()));
    }
    let mut recorder = Recorder::start_with(&dir, &world.source, small_segments());
    run(&mut world.client, "APPEND key:7 more");
    run(&mut world.client, "RENAME key:8 moved");
    recorder.catch_up();
    recorder.finish();
    let full = state(&mut world.client);
    let mut asked = request(&dir, When::Latest, &world.source, None);
    // The first one makes the index.
    for (glob, dbs, keys, search) in [
        ("key:7", &[0][..], 1, BaseSearch::KeyIndex),
        ("key:7", &[0], 1, BaseSearch::KeyIndex),
        ("moved", &[0], 1, BaseSearch::KeyIndex),
        ("key:8", &[0], 1, BaseSearch::KeyIndex),
        ("key:77*", &[0], 11, BaseSearch::KeyRanges),
        ("key:77*", &[], 11, BaseSearch::KeyRanges),
        ("key:77", &[], 1, BaseSearch::KeyRanges),
        ("k*:7", &[0], 1, BaseSearch::KeyRanges),
        ("*:77*", &[0], 11, BaseSearch::WholeBase),
    ] {
        asked.filter = Filter::new(&[glob], &[], dbs).unwrap();
        let (sliced, _, report) = rebuild(&mut world.scratch, &asked);
        let report = report.unwrap();
        let wanted = |key: &[u8]| asked.filter.wants(0, key);
        let expected = full.iter().filter(|((_, key), _)| wanted(key)).map(|(key, value)| (key.clone(), value.clone()));
        assert_eq!(
            sliced.into_iter().filter(|((_, key), _)| wanted(key)).collect::<State>(),
            expected.collect(),
            "{glob}"
        );
        let base = std::fs::read_dir(dir.join("snapshots")).unwrap().map(|entry| entry.unwrap().path());
        let base = base
            .filter(|path| path.extension().is_some_and(|end| end == "rdb"))
            .map(|path| path.metadata().unwrap().len());
        let base: u64 = base.sum();
        let few = search != BaseSearch::WholeBase;
        assert_eq!(report.base_bytes_read < base / 2, few, "{glob}: {report:?}, base of {base} bytes");
        assert_eq!((report.base_keys, report.base_search), (Some(keys), Some(search)), "{glob}: {report:?}");
    }
}
