//! A sliced restore holds exactly what a full one does: random histories of a real server with much that ties keys together, for
//! single keys, globs, databases and everything.
//!
//! `REDTAPE_SLICES` is the number of histories (`make slice N=…`), `REDTAPE_SEED` that of the first one; each failure names its own.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod support;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use redtape_journal::query::When;
use redtape_journal::{Lsn, OpenOptions, SyncPolicy};
use redtape_restore::client::{Reply, Server as Client, Value};
use redtape_restore::slice::SliceReport;
use redtape_restore::source::binary::probe;
use redtape_restore::source::rebuild_in;
use redtape_restore::source::scratch::Scratch;
use redtape_restore::{ErrorKind, Filter, ForcedMethod, Limits, Request, Silent, prepare};
use redtape_wire::rdb::{Value as Decoded, decode_value, parse_dump};
use support::record::Recorder;
use support::{Running, request, run, version};

/// Databases that are written to.
const DATABASES: u32 = 3;
/// Histories where nobody says how many.
const HISTORIES: u64 = 12;

/// Commands; a letter and a dollar sign stand for a key that is mostly of this type, `$$` for one of any, `#` for a small number.
const COMMANDS: &[(u32, &str)] = &[
    (9, "SET s$ #"),
    (2, "SET $$ #"),
    (3, "SET s$ # NX"),
    (3, "SET s$ # XX"),
    (2, "SET s$ # KEEPTTL"),
    (3, "SET s$ # PX 900000"),
    (1, "SETEX s$ 900 #"),
    (1, "SETNX s$ #"),
    (2, "GETSET s$ #"),
    (3, "APPEND s$ #"),
    (2, "INCR s$"),
    (1, "INCRBYFLOAT s$ 0.5"),
    (2, "MSET s$ # s$ #"),
    (3, "MSETNX s$ # $$ #"),
    (1, "GETDEL s$"),
    (1, "GETEX s$ PERSIST"),
    (1, "SETRANGE s$ 2 x"),
    (2, "SETBIT s$ # 1"),
    (3, "BITOP OR s$ s$ s$"),
    (1, "BITOP NOT $$ s$"),
    (4, "DEL $$"),
    (2, "UNLINK $$ $$ $$"),
    (8, "RENAME $$ $$"),
    (6, "RENAMENX $$ $$"),
    (5, "COPY $$ $$"),
    (5, "COPY $$ $$ REPLACE"),
    (4, "COPY $$ $$ DB @"),
    (3, "COPY $$ $$ DB @ REPLACE"),
    (5, "MOVE $$ @"),
    (3, "PEXPIRE $$ 800000"),
    (1, "EXPIRE $$ -1"),
    (2, "PERSIST $$"),
    (5, "RPUSH l$ # # #"),
    (2, "LPUSH l$ #"),
    (2, "LPOP l$"),
    (4, "LMOVE l$ l$ LEFT RIGHT"),
    (2, "RPOPLPUSH l$ l$"),
    (1, "LTRIM l$ 0 3"),
    (1, "LREM l$ 1 #"),
    (1, "LMPOP 2 l$ l$ LEFT"),
    (4, "SORT l$ ALPHA STORE l$"),
    (2, "SORT t$ ALPHA LIMIT 0 2 STORE $$"),
    (3, "SORT l$ BY s* GET # GET s* ALPHA STORE $$"),
    (5, "SADD t$ # #"),
    (2, "SREM t$ #"),
    (2, "SPOP t$"),
    (4, "SMOVE t$ t$ #"),
    (3, "SUNIONSTORE t$ t$ t$"),
    (2, "SINTERSTORE t$ t$ t$"),
    (2, "SDIFFSTORE $$ t$ t$"),
    (5, "ZADD z$ # m#"),
    (1, "ZREM z$ m#"),
    (1, "ZPOPMIN z$"),
    (1, "ZMPOP 2 z$ z$ MIN"),
    (3, "ZUNIONSTORE z$ 2 z$ t$"),
    (2, "ZINTERSTORE $$ 2 z$ z$"),
    (2, "ZRANGESTORE z$ z$ 0 2"),
    (2, "GEOADD g$ 13.3# 38.1# m#"),
    (2, "GEORADIUS g$ 13 38 400 km STORE z$"),
    (1, "GEOSEARCHSTORE $$ g$ FROMLONLAT 13 38 BYRADIUS 400 km"),
    (5, "HSET h$ f# #"),
    (2, "HDEL h$ f#"),
    (2, "HINCRBY h$ f# 1"),
    (3, "XADD x$ * f #"),
    (2, "XGROUP CREATE x$ g$ 0 MKSTREAM"),
    (2, "XREADGROUP GROUP g1 c# COUNT 2 STREAMS x$ >"),
    (1, "XTRIM x$ MAXLEN 3"),
    (3, "PFADD p$ # #"),
    (2, "PFMERGE p$ p$ p$"),
    (2, "PFCOUNT p$"),
    (1, "PUBLISH channel #"),
    (2, "EVAL redis.call('set',KEYS[1],ARGV[1]);redis.call('rename',KEYS[1],KEYS[2]) 2 s$ $$ #"),
    (9, "SELECT @"),
    (3, "SWAPDB @ @"),
];

/// Seldom: behind them little of what came before is kept or left out.
const SELDOM: &[&str] = &[
    "FLUSHDB",
    "FLUSHALL",
    "FUNCTION LOAD REPLACE #!lua\u{1}name=lib\nredis.register_function('f#',\u{1}function()\u{1}return\u{1}1\u{1}end)",
    "SORT l$ BY nosort STORE l$",
];

/// Of hashes whose fields have TTLs (Redis 7.4).
const FIELDS: &[&str] = &["HPEXPIRE h$ 700000 FIELDS 1 f#", "HPERSIST h$ FIELDS 1 f#", "HEXPIRE h$ 700 FIELDS 1 f#"];

struct World {
    source: Running,
    client: Client,
    scratch: Scratch,
    db: u32,
}

impl World {
    fn new() -> Self {
        let source = Running::timeless();
        let client = source.client();
        let path = support::binary();
        let path = if path.is_absolute() { path } else { which(&path) };
        let limits = Limits::default();
        let scratch = Scratch::start(&probe(&path, limits.start).unwrap(), 16, limits).unwrap();
        Self { source, client, scratch, db: 0 }
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
        let template = match rng.random_range(0..100) {
            0 => SELDOM[rng.random_range(0..SELDOM.len())],
            1..4 if version().has_field_ttl() => FIELDS[rng.random_range(0..FIELDS.len())],
            _ => {
                let total: u32 = COMMANDS.iter().map(|(weight, _)| weight).sum();
                let mut at = rng.random_range(0..total);
                let chosen = COMMANDS.iter().find(|(weight, _)| {
                    let here = at < *weight;
                    at = at.saturating_sub(*weight);
                    here
                });
                chosen.unwrap().1
            }
        };
        let words: Vec<String> = template.split(' ').map(|word| word_of(word, rng)).collect();
        if words[0] == "SELECT" {
            self.db = words[1].parse().unwrap();
        }
        let _ = self.client.try_call(&words).unwrap();
    }
}

fn which(name: &std::path::Path) -> std::path::PathBuf {
    let path = std::env::var_os("PATH").unwrap();
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.is_file()).unwrap()
}

fn word_of(word: &str, rng: &mut StdRng) -> String {
    const TYPES: &[char] = &['s', 'l', 't', 'z', 'g', 'h', 'x', 'p'];
    let number = |rng: &mut StdRng, end: u32| rng.random_range(0..end).to_string();
    match word {
        "@" => number(rng, DATABASES),
        "$$" => format!("{}{}", TYPES[rng.random_range(0..TYPES.len())], number(rng, 4)),
        "#" => number(rng, 8),
        // The blanks of a script.
        _ if word.contains('\u{1}') => word.replace('\u{1}', " ").replace('#', "1").replacen('1', "#", 1),
        _ if word.len() == 2 && word.ends_with('$') => word.replace('$', &number(rng, 4)),
        _ => word.replace('#', &number(rng, 8)),
    }
}

/// What a key holds, decoded, and when it expires.
type State = BTreeMap<(u32, Vec<u8>), (Decoded, i64)>;

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
            let mut value = decode_value(dump.value_type, dump.value, u64::MAX).unwrap();
            if let Decoded::Stream(stream) = &mut value {
                stream.forget_unreplicated();
            }
            state.insert((db, key), (value, until));
        }
    }
    run(client, "SELECT 0");
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
fn selection(rng: &mut StdRng) -> (Vec<String>, Vec<u32>) {
    let key = |rng: &mut StdRng| word_of("$$", rng);
    match rng.random_range(0..8) {
        0 => (vec![], vec![]),
        1 => (vec![], vec![rng.random_range(0..DATABASES)]),
        2 => (vec![format!("{}*", &key(rng)[..1])], vec![]),
        3 => (vec![key(rng)], vec![]),
        4 => (vec![format!("?{}", rng.random_range(0..4))], vec![rng.random_range(0..DATABASES)]),
        _ => (vec![key(rng)], vec![rng.random_range(0..DATABASES)]),
    }
}

/// What was kept in all, of how many records, and how often everything was forced.
#[derive(Default)]
struct Totals {
    kept: u64,
    records: u64,
    forced: u64,
    selections: u64,
}

fn one_history(world: &mut World, seed: u64, totals: &mut Totals) {
    let rng = &mut StdRng::seed_from_u64(seed);
    run(&mut world.client, "FLUSHALL");
    if version().has_redis(7, 0) {
        run(&mut world.client, "FUNCTION FLUSH");
    }
    for _ in 0..rng.random_range(0..150) {
        world.step(rng);
    }
    let journal = tempfile::tempdir().unwrap();
    let dir = journal.path().join("j");
    let options = OpenOptions { segment_bytes: 4096, sync: SyncPolicy::No, ..OpenOptions::default() };
    let mut recorder = Recorder::start_with(&dir, &world.source, options);
    // A FLUSHALL ends the process that sends the base, and the link with it.
    let begun = Instant::now();
    while world.client.info(Some("persistence")).unwrap().number("rdb_bgsave_in_progress") != Some(0) {
        assert!(begun.elapsed() < Duration::from_secs(20), "seed {seed}: the base is still being sent");
        std::thread::sleep(Duration::from_millis(1));
    }
    // The base begins with a SELECT.
    run(&mut world.client, &format!("SELECT {}", world.db));
    let steps = rng.random_range(20..300);
    for n in 0..steps {
        world.step(rng);
        if n % 40 == 39 {
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
        asked.slice = false;
        let (full, functions_of_full, _) = rebuild(&mut world.scratch, &asked);
        if lsn == last {
            assert_eq!(full, state(&mut world.client), "seed {seed}: the full replay and the server");
            run(&mut world.client, &format!("SELECT {}", world.db));
        }
        asked.slice = true;
        for _ in 0..4 {
            let (globs, dbs) = selection(rng);
            asked.filter = Filter::new(&globs, &[], &dbs).unwrap();
            let (mut sliced, functions, report) = rebuild(&mut world.scratch, &asked);
            let wanted = |(db, key): &(u32, Vec<u8>)| asked.filter.wants_db(*db) && asked.filter.wants_key(key);
            sliced.retain(|key, _| wanted(key));
            let expected: State =
                full.iter().filter(|(key, _)| wanted(key)).map(|(k, v)| (k.clone(), v.clone())).collect();
            let what =
                format!("seed {seed}, LSN {} of {}, keys {globs:?}, databases {dbs:?}: {report:?}", lsn.0, last.0);
            assert_eq!(sliced, expected, "{what}");
            if asked.filter.is_everything() {
                assert_eq!(functions, functions_of_full, "{what}");
            }
            let report = report.unwrap();
            totals.kept += report.records_kept;
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
    let Totals { kept, records, forced, selections } = totals;
    println!("{selections} selections, {kept} of {records} records kept, {forced} times everything before an LSN");
    assert!(kept < records && forced < selections);
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
    let plan = |globs: &[&str], dbs: &[u32]| {
        let mut asked = request(&dir, When::Latest, &world.source, Some(ForcedMethod::Scratch));
        asked.filter = Filter::new(globs, &[], dbs).unwrap();
        prepare(&asked, &mut Silent).unwrap().plan().clone()
    };
    let wanted = plan(&["wanted"], &[0]);
    let slice = wanted.slice.clone().unwrap();
    let forced = slice.forced.clone().unwrap();
    assert_eq!((forced.lsn, slice.base_keys), (module, None));
    // It, all before it, and the one of the key itself.
    assert_eq!((slice.records_kept, slice.records_in_all), (module.0 + 1, last.0));
    assert!(slice.journal_bytes_skipped > 0, "{slice:?}");
    let text = wanted.to_string();
    assert!(text.contains(&format!("everything up to LSN {module} is replayed: what MOD.WRITE reads")), "{text}");
    // Set anew behind it, a key needs nothing of what was before.
    let slice = plan(&["key:7"], &[0]).slice.unwrap();
    assert_eq!((slice.records_kept, slice.base_keys, slice.forced), (1, Some(0), None));
    let slice = plan(&["*"], &[]).slice.unwrap();
    assert_eq!((slice.records_kept, slice.forced.map(|forced| forced.lsn)), (last.0, Some(module)));
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
    for (glob, by_index) in [("key:7", true), ("key:7", true), ("moved", true), ("key:8", true), ("key:77*", false)] {
        asked.filter = Filter::new(&[glob], &[], &[0]).unwrap();
        let (sliced, _, report) = rebuild(&mut world.scratch, &asked);
        let report = report.unwrap();
        let wanted = |key: &[u8]| asked.filter.wants_key(key);
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
        assert_eq!(report.base_bytes_read < base / 4, by_index, "{glob}: {report:?}, base of {base} bytes");
        assert_eq!(report.base_keys, Some(if by_index { 1 } else { 11 }), "{glob}: {report:?}");
    }
}
