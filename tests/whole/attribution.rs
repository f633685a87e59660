//! Attribution: scripts, functions and transactions have the client that sent them, and a time at which they can have run.
//!
//! Clients send writes of many kinds at many paces. Each effect tells which request it belongs to, by a signature `~CLIENT.N~` in one
//! of its arguments or by the number that the client was told; a script builds the signature itself, so that redtape cannot find it
//! in the request. Then the journal is compared with what the clients know.

use crate::harness::conn::{Value, int};
use crate::harness::journal::{self, Group};
use crate::harness::server::Version;
use crate::harness::{Args, Conn, Dir, Redtape, Server, env_number, now_us, seed};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// What a client does at one time: its effects carry the signature, or give the number that it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Kind {
    /// A plain SET of a shared key.
    Plain,
    /// A script whose argument stands in the effect.
    Argument,
    /// A script whose argument does not stand in the effect, on the client's own key.
    Computed,
    /// The same on one key that all clients share: two at the same moment cannot be told apart.
    ComputedShared,
    /// A lock is taken, and let go by a script that deletes it.
    Unlock,
    /// A library function.
    Function,
    /// A script that declares no keys and is given one as an argument.
    Undeclared,
    /// A script that declares no keys and makes its own: two at the same moment cannot be told apart.
    Invented,
    /// A script with two effects.
    Several,
    /// A script that often does nothing, on shared keys: two at the same moment cannot be told apart.
    Sometimes,
    /// A transaction on shared keys.
    Transaction,
}

const KINDS: [Kind; 11] = [
    Kind::Plain,
    Kind::Argument,
    Kind::Computed,
    Kind::ComputedShared,
    Kind::Unlock,
    Kind::Function,
    Kind::Undeclared,
    Kind::Invented,
    Kind::Several,
    Kind::Sometimes,
    Kind::Transaction,
];

impl Kind {
    /// Whether two of its requests at the same moment leave no evidence of who caused which effect.
    fn may_be_alike(self) -> bool {
        matches!(self, Self::ComputedShared | Self::Invented | Self::Sometimes)
    }

    fn is_supported(self) -> bool {
        self != Self::Function || Version::tested().at_least((7, 0), (0, 0))
    }

    /// The requests, sent one after the other; the last has the effect with the signature, or the number.
    fn requests(self, client: usize, n: usize) -> Vec<Args> {
        // Redis before 7.0 sends scripts as such unless told otherwise.
        let effects = if Version::tested().at_least((7, 0), (0, 0)) { "" } else { "redis.replicate_commands() " };
        let script = |text: &str| format!("{effects}{text}");
        let (id, shared) = (format!("{client}.{n}"), n % 5);
        let sign = format!("~{id}~");
        let multiply = script("return redis.call('INCRBY',KEYS[1],ARGV[1]*2)");
        match self {
            Self::Plain => vec![args!["SET", format!("p:{shared}"), sign]],
            Self::Argument => {
                let text = script("return redis.call('SET',KEYS[1],ARGV[1])");
                vec![args!["EVAL", text, 1, format!("p:{shared}"), sign]]
            }
            Self::Computed => vec![args!["EVAL", multiply, 1, format!("acct:{client}"), 3]],
            Self::ComputedShared => vec![args!["EVAL", multiply, 1, "acct", 3 + client % 3]],
            Self::Unlock => {
                let (key, token) = (format!("lock:{sign}"), format!("token-{id}"));
                let text = script(
                    "if redis.call('GET',KEYS[1])==ARGV[1] then return redis.call('DEL',KEYS[1]) else return 0 end",
                );
                vec![args!["SET", key, token, "NX", "PX", 30_000], args!["EVAL", text, 1, key, token]]
            }
            Self::Function => vec![args!["FCALL", "sign", 1, format!("f:{client}"), id]],
            Self::Undeclared => {
                vec![args!["EVAL", script("return redis.call('SET',ARGV[1],1)"), 0, format!("u:{sign}")]]
            }
            Self::Invented => {
                vec![args!["EVAL", script("return redis.call('SET','i:~'..ARGV[1]..'~',1)"), 0, id]]
            }
            Self::Several => {
                let text = "redis.call('RPUSH',KEYS[1],'~'..ARGV[1]..'~') return redis.call('EXPIRE',KEYS[1],7200)";
                vec![args!["EVAL", script(text), 1, format!("l:{client}"), id]]
            }
            Self::Sometimes => {
                let text = "if ARGV[2]=='0' then redis.call('SET',KEYS[1],'~'..ARGV[1]..'~') end return 1";
                vec![args!["EVAL", script(text), 1, format!("o:{shared}"), id, n % 3]]
            }
            Self::Transaction => vec![
                args!["MULTI"],
                args!["SET", format!("p:{shared}"), sign],
                args!["INCR", "transactions"],
                args!["EXEC"],
            ],
        }
    }
}

const LIBRARY: &str = "#!lua name=signs\nredis.register_function('sign', function(keys, args) \
     return redis.call('RPUSH', keys[1], '~'..args[1]..'~') end)";

/// What a client knows of a write.
#[derive(Clone, Debug)]
struct Told {
    name: String,
    kind: Kind,
    sent: i64,
    replied: i64,
}

/// What clients know, by signature, or by counter and number.
type Known = HashMap<String, Told>;

/// How clients work.
#[derive(Clone, Copy, Debug)]
struct Round {
    clients: usize,
    /// Pause between two writes of a client.
    pace: Duration,
    time: Duration,
    /// Threads that take the cores away.
    burners: usize,
}

fn run_round(redtape: &Redtape, round: Round, first_client: usize, seed: u64) -> Known {
    let over = Arc::new(AtomicBool::new(false));
    let burners: Vec<_> = (0..round.burners)
        .map(|_| {
            let over = Arc::clone(&over);
            std::thread::spawn(move || while !over.load(Ordering::Relaxed) {})
        })
        .collect();
    let clients: Vec<_> = (first_client..first_client + round.clients)
        .map(|client| {
            let url = redtape.url();
            std::thread::spawn(move || write(&url, client, round, seed))
        })
        .collect();
    let known = clients.into_iter().flat_map(|c| c.join().unwrap()).collect();
    over.store(true, Ordering::Relaxed);
    burners.into_iter().for_each(|b| b.join().unwrap());
    known
}

fn write(url: &str, client: usize, round: Round, seed: u64) -> Known {
    let mut rng = StdRng::seed_from_u64(seed + client as u64);
    let mut conn = Conn::open(url).unwrap();
    let name = format!("client-{client}");
    conn.must(&args!["CLIENT", "SETNAME", name]);
    let mut known = Known::new();
    let started = Instant::now();
    let kinds: Vec<Kind> = KINDS.into_iter().filter(|k| k.is_supported()).collect();
    for n in 0.. {
        // Everybody begins at a time of his own.
        std::thread::sleep(round.pace.mul_f64(if n == 0 { rng.random_range(0.0..1.0) } else { 1.0 }));
        if started.elapsed() >= round.time {
            break;
        }
        let kind = kinds[rng.random_range(0..kinds.len())];
        let (mut sent, mut reply) = (0, Value::Nil);
        for request in kind.requests(client, n) {
            sent = now_us();
            reply = conn.call(&request).unwrap();
            assert!(!matches!(reply, Value::Error(_)), "{kind:?}: {reply:?}");
        }
        let told = Told { name: name.clone(), kind, sent, replied: now_us() };
        let key = match kind {
            Kind::Computed => format!("acct:{client}={}", int(&reply)),
            Kind::ComputedShared => format!("acct={}", int(&reply)),
            _ => format!("~{client}.{n}~"),
        };
        known.insert(key, told);
    }
    known
}

/// What was found of one kind of write.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    seen: usize,
    wrong: usize,
    unknown: usize,
    outside: usize,
    /// The time lies outside of [sent, replied].
    misdated: usize,
    /// It ran at no time that time and slack allow.
    impossible: usize,
}

fn compare(groups: &[Group], known: &Known) -> BTreeMap<Kind, Tally> {
    let mut tallies: BTreeMap<Kind, Tally> = BTreeMap::new();
    let mut counters: HashMap<Vec<u8>, i64> = HashMap::new();
    for group in groups {
        let Some((key, told)) = group.records.iter().find_map(|r| {
            let key = identify(&r.args, &mut counters)?;
            known.get(&key).map(|told| (key, told))
        }) else {
            continue;
        };
        let tally = tallies.entry(told.kind).or_default();
        let is_setup = told.kind == Kind::Unlock && group.records[0].name() == "SET";
        let origin = &group.origin;
        tally.seen += 1;
        let right = origin.kind == "client" && origin.name == told.name;
        tally.unknown += usize::from(origin.kind == "unknown");
        tally.outside += usize::from(!matches!(origin.kind.as_str(), "client" | "unknown"));
        tally.wrong += usize::from(origin.kind == "client" && !right);
        let misdated = !is_setup && (group.ts_us < told.sent || group.ts_us > told.replied);
        let earliest = group.ts_us - group.slack_us;
        let impossible = !is_setup && (earliest > told.replied || group.ts_us < told.sent);
        tally.misdated += usize::from(misdated);
        tally.impossible += usize::from(impossible);
        if (!right && origin.kind != "unknown") || impossible {
            println!("  {key} {told:?}: {origin:?}, {} .. {}", earliest, group.ts_us);
        }
    }
    tallies
}

/// The signature in an effect, or the counter and its value.
fn identify(args: &[Vec<u8>], counters: &mut HashMap<Vec<u8>, i64>) -> Option<String> {
    if args[0].eq_ignore_ascii_case(b"INCRBY") {
        let by: i64 = std::str::from_utf8(&args[2]).unwrap().parse().unwrap();
        let value = counters.entry(args[1].clone()).or_default();
        *value += by;
        return Some(format!("{}={value}", String::from_utf8_lossy(&args[1])));
    }
    args[1..].iter().find_map(|arg| {
        let text = std::str::from_utf8(arg).ok()?;
        let from = text.find('~')?;
        let to = from + 1 + text[from + 1..].find('~')?;
        Some(text[from..=to].to_owned())
    })
}

/// Runs the rounds, one after the other, and gives what was found of each kind, and of all.
fn run(sharing: &str, rounds: &[Round]) -> Vec<(Round, BTreeMap<Kind, Tally>)> {
    let seed = seed();
    let journal_dir = Dir::new("journal");
    let server = Server::start();
    let mut redtape = Redtape::start(&server.url(), journal_dir.path(), &["--sharing", sharing]);
    if Kind::Function.is_supported() {
        Conn::open(&redtape.url()).unwrap().must(&args!["FUNCTION", "LOAD", LIBRARY]);
    }
    let mut known = Vec::new();
    for (n, round) in rounds.iter().enumerate() {
        known.push(run_round(&redtape, *round, n * 1000, seed));
    }
    redtape.wait_caught_up();
    assert_eq!(redtape.terminate(), Some(0));
    let groups = journal::cat(journal_dir.path());
    // The journal's counters run through all rounds, so all are compared at once.
    let all: Known = known.iter().flatten().map(|(k, t)| (k.clone(), t.clone())).collect();
    let found = compare(&groups, &all);
    println!("{found:?}");
    rounds.iter().zip(&known).map(|(round, known)| (*round, compare(&groups, known))).collect()
}

/// What may be wrong, in thousandths of all writes.
const WRONG_MAX: f64 = 1.0;
/// What may be unknown where there is evidence, in thousandths.
const UNKNOWN_MAX: f64 = 10.0;
/// What may be dated outside of [sent, replied] where there is evidence, in thousandths: the slack says so.
const MISDATED_MAX: f64 = 300.0;

fn judge(what: &str, found: &[(Round, BTreeMap<Kind, Tally>)]) {
    let (mut all, mut clear) = (Tally::default(), Tally::default());
    for (round, tallies) in found {
        for (kind, tally) in tallies {
            println!("{what}, {round:?}: {kind:?} {tally:?}");
            add(&mut all, *tally);
            if !kind.may_be_alike() {
                add(&mut clear, *tally);
            }
        }
    }
    println!("{what}: all {all:?}");
    println!("{what}: those with evidence {clear:?}");
    let share = |n: usize, of: Tally| n as f64 * 1000.0 / of.seen.max(1) as f64;
    assert!(all.seen > 500, "enough writes to speak of: {all:?}");
    assert!(share(all.wrong, all) <= WRONG_MAX, "{what}: a wrong client: {all:?}");
    assert_eq!(all.outside, 0, "{what}: a client's write is nobody else's: {all:?}");
    assert_eq!(all.impossible, 0, "{what}: times at which it cannot have run: {all:?}");
    assert!(share(clear.unknown, clear) <= UNKNOWN_MAX, "{what}: unknown where there is evidence: {clear:?}");
    assert!(share(clear.misdated, clear) <= MISDATED_MAX, "{what}: dated when it did not run: {clear:?}");
}

fn add(sum: &mut Tally, tally: Tally) {
    sum.seen += tally.seen;
    sum.wrong += tally.wrong;
    sum.unknown += tally.unknown;
    sum.outside += tally.outside;
    sum.misdated += tally.misdated;
    sum.impossible += tally.impossible;
}

/// `REDTAPE_ATTRIBUTION_MILLIS`: how long each round takes.
fn rounds() -> Vec<Round> {
    let time = Duration::from_millis(env_number("REDTAPE_ATTRIBUTION_MILLIS", 1500) as u64);
    let round = |clients, pace_ms, burners| Round { clients, pace: Duration::from_millis(pace_ms), time, burners };

    vec![
        Round { time: time * 3, ..round(1, 300, 0) },
        round(2, 20, 0),
        round(8, 5, 0),
        round(2, 0, 0),
        round(50, 1, 0),
        round(50, 0, 0),
        Round { time: time * 2, ..round(50, 1000, 0) },
        round(8, 1, 3),
    ]
}

#[test]
fn scripts_have_their_client_and_their_time_with_shared_connections() {
    judge("sharing auto", &run("auto", &rounds()));
}

#[test]
fn scripts_have_their_client_and_their_time_without_shared_connections() {
    judge("sharing off", &run("off", &rounds()));
}
