//! `redtape undo` against a model: the same history without the bad writes, run on a real server beside it.
//!
//! Two servers get the same random commands of several clients; those of one client go to the recorded one alone. Then its writes are
//! undone there. Every key that differs from the other server must be in the report, and nothing in it that is equal.
//!
//! What no journal can know is left out: where a command of the others does nothing in the one server and something in the other,
//! its keys are not compared any more.

use std::collections::BTreeSet;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::harness::conn::{Args, Value, show};
use crate::harness::moment::{Key, State};
use crate::harness::redtape::run;
use crate::harness::{Conn, Dir, Redtape, Server};

const DBS: u32 = 2;
const NAMES: usize = 6;
const OTHERS: usize = 2;
const STEPS: usize = 60;
/// Of the histories in `make test`.
const SEED: u64 = 154_134_215_445;

struct World {
    recorded: Server,
    model: Server,
    redtape: Redtape,
    journal: Dir,
    state: Dir,
    admin: Conn,
    bad: Conn,
    others: Vec<Conn>,
    without: Conn,
}

impl World {
    fn new() -> Self {
        let (recorded, model) = (Server::start(), Server::start());
        let (journal, state) = (Dir::new("journal"), Dir::new("state"));
        let redtape = Redtape::start(&recorded.url(), journal.path(), &[]);
        let open = |name: &str| {
            let mut conn = Conn::open(&redtape.url()).expect("redtape");
            conn.must(&args!["CLIENT", "SETNAME", name]);
            conn
        };
        let (admin, bad) = (open("admin"), open("bad"));
        let others = (0..OTHERS).map(|n| open(&format!("good{n}"))).collect();
        let without = model.conn();
        Self { recorded, model, redtape, journal, state, admin, bad, others, without }
    }
}

/// A key, and what may be done to it.
fn key(rng: &mut StdRng) -> String {
    format!("k{}", rng.random_range(0..NAMES))
}

fn element(rng: &mut StdRng) -> String {
    format!("e{}", rng.random_range(0..5))
}

/// A command that does the same whatever was there, or that says what it found.
fn command(rng: &mut StdRng, fresh: &mut u64) -> Args {
    *fresh += 1;
    let (k, other, e, n) = (key(rng), key(rng), element(rng), *fresh);
    let far = 4_000_000_000_000_i64 + n as i64;
    match rng.random_range(0..38) {
        0..=3 => args!["SET", k, n],
        4 => args!["SET", k, n, "PXAT", far],
        5..=8 => args!["HSET", k, e, n],
        9 => args!["HDEL", k, e],
        10 => args!["HINCRBY", k, e, 1],
        11..=12 => args!["SADD", k, e],
        13 => args!["SREM", k, e],
        14..=15 => args!["ZADD", k, n, e],
        16 => args!["ZREM", k, e],
        17 => args!["ZINCRBY", k, 1, e],
        18..=19 => args!["RPUSH", k, n],
        20 => args!["LPOP", k],
        21 => args!["XADD", k, format!("{n}-1"), "f", n],
        22 => args!["XDEL", k, format!("{}-1", n.saturating_sub(2))],
        23 => args!["INCR", k],
        24 => args!["APPEND", k, "x"],
        25..=27 => args!["DEL", k],
        28 => args!["RENAME", k, other],
        29 => args!["COPY", k, other, "REPLACE"],
        30 => args!["SUNIONSTORE", k, other, other],
        31 => args!["PEXPIREAT", k, far],
        32 => args!["PERSIST", k],
        33 => args!["EVAL", "return redis.call('HINCRBY', KEYS[1], ARGV[1], 1)", 1, k, e],
        34 => args!["GETSET", k, n],
        35 => args!["PEXPIRE", k, 1],
        _ => args!["SETNX", k, n],
    }
}

/// One that nobody but the culprit sends.
fn terrible(rng: &mut StdRng) -> Args {
    match rng.random_range(0..7) {
        4..=6 => args!["PEXPIRE", key(rng), 1],
        0 => args!["FLUSHALL"],
        1 => args!["FLUSHDB"],
        2 => args!["SWAPDB", 0, 1],
        _ => args!["UNLINK", "k0", "k1", "k2", "k3"],
    }
}

/// It did nothing, as far as its answer tells.
fn did_nothing(command: &Args, reply: &Value) -> bool {
    const COUNT_NEW: [&str; 6] = ["HSET", "ZADD", "HINCRBY", "INCR", "ZINCRBY", "EVAL"];
    match reply {
        Value::Error(_) => true,
        Value::Nil => command.name() != "GETSET",
        Value::Int(0) => !COUNT_NEW.contains(&command.name().as_str()),
        _ => false,
    }
}

/// The keys that it names.
fn keys(command: &Args) -> Vec<Vec<u8>> {
    let names = |arg: &&Vec<u8>| arg.first() == Some(&b'k') && arg.len() == 2;
    command.0[1..].iter().filter(names).cloned().collect()
}

fn let_it_expire(command: &Args, ending: &mut BTreeSet<Vec<u8>>) {
    // It goes with the value.
    if keys(command).len() > 1 && keys(command).iter().any(|key| ending.contains(key)) {
        ending.extend(keys(command));
    }
    if command.name() == "PEXPIRE" {
        ending.extend(keys(command));
        std::thread::sleep(std::time::Duration::from_millis(3));
    }
}

/// What was found in one history, over all of them.
#[derive(Debug, Default)]
struct Totals {
    repaired: u64,
    listed: u64,
    compared: usize,
    tainted: usize,
    bad: usize,
    not_known: usize,
}

type Place = (u32, Vec<u8>);

/// Keys that are not the same.
fn differing(a: &State, b: &State) -> BTreeSet<Place> {
    let mut found = BTreeSet::new();
    for db in 0..DBS {
        let (a, b) = (a.dbs.get(&db), b.dbs.get(&db));
        let names = a.into_iter().chain(b).flat_map(|keys| keys.keys());
        for name in names {
            let of = |keys: Option<&std::collections::BTreeMap<Vec<u8>, Key>>| {
                keys.and_then(|keys| keys.get(name)).map(what)
            };
            if of(a) != of(b) {
                found.insert((db, name.clone()));
            }
        }
    }
    found
}

fn what(key: &Key) -> (String, Option<i64>, String, Option<String>) {
    (key.kind.clone(), key.expires_ms, key.digest.clone(), key.stream.clone())
}

fn one_history(world: &mut World, seed: u64, totals: &mut Totals) {
    let rng = &mut StdRng::seed_from_u64(seed);
    let mut fresh = 0;
    for conn in [&mut world.admin, &mut world.without] {
        conn.must(&args!["FLUSHALL"]);
    }
    let name = format!("bad-{seed}");
    world.bad.must(&args!["CLIENT", "SETNAME", &name]);
    let mut tainted: BTreeSet<Place> = BTreeSet::new();
    // Within a second of its end it is not certain what a key was: more may be reported than differs.
    let mut ending: BTreeSet<Vec<u8>> = BTreeSet::new();
    let mut story = Vec::new();
    let bad_share = rng.random_range(5..30);
    for step in 0..STEPS {
        let db = rng.random_range(0..DBS);
        let is_bad = step > STEPS / 4 && rng.random_range(0..100) < bad_share;
        let command = if is_bad && rng.random_range(0..8) == 0 { terrible(rng) } else { command(rng, &mut fresh) };
        if is_bad {
            world.bad.must(&args!["SELECT", db]);
            let reply = world.bad.call(&command).expect("a reply");
            let_it_expire(&command, &mut ending);
            story.push(format!("bad db {db}: {} -> {reply:?}", show(&command)));
            totals.bad += 1;
            continue;
        }
        let conn = &mut world.others[rng.random_range(0..OTHERS)];
        conn.must(&args!["SELECT", db]);
        world.without.must(&args!["SELECT", db]);
        let (real, model) = (conn.call(&command).expect("a reply"), world.without.call(&command).expect("a reply"));
        let_it_expire(&command, &mut ending);
        let places: Vec<Place> = keys(&command).into_iter().map(|key| (db, key)).collect();
        // An empty union removes what was there, or does nothing.
        let perhaps = command.name() == "SUNIONSTORE" && model == Value::Int(0);
        let lost = did_nothing(&command, &real) && (perhaps || !did_nothing(&command, &model));
        if lost || places.iter().any(|place| tainted.contains(place)) {
            tainted.extend(places);
        }
        story.push(format!(
            "good db {db}: {} -> {real:?}, without: {model:?}{}",
            show(&command),
            if lost { " (lost)" } else { "" }
        ));
    }
    world.redtape.wait_caught_up();
    let before = State::record(&mut world.recorded.conn());
    let model = State::record(&mut world.model.conn());
    let (from, url) = (world.journal.path().display().to_string(), world.redtape.url());
    let state = world.state.path().display().to_string();
    let usual = ["--to", &url, "--yes", "--json", "--state-dir", &state];
    let outcome = run(&[&["undo", "--from", &from, "--client", &name], &usual[..]].concat());
    let told = || format!("seed {seed}\n{}\n{outcome:?}", story.join("\n"));
    if outcome.code == Some(69) || outcome.stderr.contains("no write of the present timeline is selected") {
        assert!(outcome.stderr.contains("no write"), "{}", told());
        return;
    }
    assert!(matches!(outcome.code, Some(0 | 1)), "{}", told());
    let report: serde_json::Value = serde_json::from_str(&outcome.stdout).unwrap_or_else(|e| panic!("{e}: {}", told()));
    let list = &report["repair"]["listed"];
    let place = |one: &serde_json::Value| {
        let key = one["key"].as_str().expect("a key").trim_matches('"');
        (one["db"].as_u64().expect("a database") as u32, key.as_bytes().to_vec())
    };
    let listed: BTreeSet<Place> = list.as_array().expect("a list").iter().map(place).collect();
    let open = !listed.is_empty() || report["perhaps"] != 0 || report["not_judged"] != serde_json::json!([]);
    assert_eq!(outcome.code == Some(1), open, "{}", told());
    if report["perhaps"] != 0 {
        // A machine without time to spare: whose some writes were is not known, and the report has said so.
        totals.not_known += 1;
        return;
    }
    let after = State::record(&mut world.recorded.conn());
    let differ: BTreeSet<Place> =
        differing(&after, &model).into_iter().filter(|place| !tainted.contains(place)).collect();
    let reported: BTreeSet<Place> = listed.iter().filter(|place| !tainted.contains(*place)).cloned().collect();
    let show = |places: &BTreeSet<Place>| {
        format!("{:?}", places.iter().map(|(db, key)| format!("{db}:{}", key.escape_ascii())).collect::<Vec<_>>())
    };
    let certain = |places: &BTreeSet<Place>| -> BTreeSet<Place> {
        places.iter().filter(|(_, key)| !ending.contains(key)).cloned().collect()
    };
    assert!(
        differ.is_subset(&reported) && certain(&differ) == certain(&reported),
        "not as without the bad writes: {}; reported: {}\n{}",
        show(&differ),
        show(&reported),
        told()
    );
    totals.compared += DBS as usize * NAMES - tainted.len();
    totals.tainted += tainted.len();
    totals.listed += listed.len() as u64;
    totals.repaired += differing(&before, &after).len() as u64;
    let Some(file) = report["undo_file"].as_str() else {
        assert!(differing(&before, &after).is_empty(), "{}", told());
        return;
    };
    let outcome = run(&[&["undo", "--file", file], &usual[..]].concat());
    outcome.expect_success("the undo of the undo");
    let back = State::record(&mut world.recorded.conn());
    let differ = differing(&before, &back);
    assert!(differ.is_empty(), "the undo of the undo leaves {}\n{}", show(&differ), told());
}

#[test]
fn an_undo_leaves_what_would_be_there_without_the_writes() {
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    // `make undos` goes on with other histories each time.
    let fixed = number("REDTAPE_UNDOS").is_none().then_some(SEED);
    let seed = number("REDTAPE_SEED").or(fixed).unwrap_or_else(|| rand::rng().random_range(0..1 << 40));
    let histories = number("REDTAPE_UNDOS").unwrap_or(6);
    let worlds = number("REDTAPE_WORLDS").unwrap_or(2);
    println!("REDTAPE_SEED={seed} REDTAPE_UNDOS={histories} REDTAPE_WORLDS={worlds}");
    // Most of the time is spent waiting for marks.
    let run = |first: u64| {
        let (mut world, mut totals) = (World::new(), Totals::default());
        for n in (first..histories).step_by(worlds as usize) {
            one_history(&mut world, seed + n, &mut totals);
        }
        totals
    };
    let totals: Vec<Totals> = std::thread::scope(|scope| {
        let run = &run;
        let all: Vec<_> = (0..worlds).map(|first| scope.spawn(move || run(first))).collect();
        all.into_iter().map(|one| one.join().expect("its histories")).collect()
    });
    println!("{totals:?}");
    assert!(totals.iter().any(|totals| totals.repaired > 0 && totals.compared > totals.tainted), "{totals:?}");
}
