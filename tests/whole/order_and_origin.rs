//! Order and origin: the journal's order is the server's own, each effect has the client that caused
//! it, and times never go back and are those of the execution.

use crate::harness::conn::{Value, bytes, int, items};
use crate::harness::journal::{self, Group};
use crate::harness::server::Version;
use crate::harness::{Args, Conn, Dir, Redtape, Server, env_number, now_us, seed};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Two clients, one counter, one list: the journal replays to the server's own list, and the n-th
/// increment in the journal is that of the client which was told n.
#[test]
fn the_journal_has_the_servers_order() {
    let seed = seed();
    let journal_dir = Dir::new("journal");
    let server = Server::start();
    let mut redtape = Redtape::start(&server.url(), journal_dir.path(), &[]);
    let clients: Vec<_> = (0..2)
        .map(|client| {
            let url = redtape.url();
            std::thread::spawn(move || hammer(&url, client, seed))
        })
        .collect();
    let told: Vec<Vec<i64>> = clients.into_iter().map(|c| c.join().unwrap()).collect();
    redtape.wait_caught_up();
    let mut conn = server.conn();
    let list: Vec<_> = items(&conn.must(&args!["LRANGE", "list", 0, -1])).iter().map(bytes).collect();
    let counter = int(&conn.must(&args!["GET", "counter"]));
    assert_eq!(redtape.terminate(), Some(0));

    let groups = journal::cat(journal_dir.path());
    let mut replayed = VecDeque::new();
    let mut increments = Vec::new();
    for group in &groups {
        for record in &group.records {
            match record.name().as_str() {
                "RPUSH" => replayed.extend(record.args[2..].iter().cloned()),
                "LPUSH" => record.args[2..].iter().cloned().for_each(|v| replayed.push_front(v)),
                "LPOP" => drop(replayed.pop_front()),
                "RPOP" => drop(replayed.pop_back()),
                "INCR" => increments.push(group.origin.name.clone()),
                other => panic!("nobody sent {other}"),
            }
        }
    }
    assert_eq!(replayed.len(), list.len());
    let first_difference = replayed.iter().zip(&list).position(|(a, b)| a != b);
    assert_eq!(first_difference, None, "the journal's list, replayed, and the server's");
    assert_eq!(increments.len() as i64, counter);
    let mut misplaced = 0;
    for (client, numbers) in told.iter().enumerate() {
        let wrong = |n: &&i64| increments[**n as usize - 1] != format!("client-{client}");
        misplaced += numbers.iter().filter(wrong).count();
    }
    println!("{counter} increments, {} groups, {misplaced} increments with the other client", groups.len());
    // Two equal commands under way at once are told apart by the numbers in their replies.
    assert!(misplaced as i64 * 1000 <= counter, "{misplaced} of {counter} increments have the wrong client");
}

/// Returns the numbers that this client's increments gave.
fn hammer(url: &str, client: usize, seed: u64) -> Vec<i64> {
    let mut rng = StdRng::seed_from_u64(seed + client as u64);
    let mut conn = Conn::open(url).unwrap();
    conn.must(&args!["CLIENT", "SETNAME", format!("client-{client}")]);
    let mut told = Vec::new();
    let mut n = 0;
    for _ in 0..2000 {
        let batch: Vec<Args> = (0..rng.random_range(1..8))
            .map(|_| {
                n += 1;
                match rng.random_range(0..8) {
                    0..3 => args!["INCR", "counter"],
                    3..5 => args!["RPUSH", "list", format!("{client}:{n}")],
                    5 => args!["LPUSH", "list", format!("{client}:{n}")],
                    6 => args!["LPOP", "list"],
                    _ => args!["RPOP", "list"],
                }
            })
            .collect();
        for (command, reply) in batch.iter().zip(conn.pipeline(&batch).unwrap()) {
            if command.name() == "INCR" {
                told.push(int(&reply));
            }
        }
    }
    told
}

/// Eight clients on the same keys, each saying in its arguments who it is; one that goes round the proxy.
#[test]
fn effects_have_the_client_that_caused_them() {
    let seed = seed();
    let journal_dir = Dir::new("journal");
    let server = Server::start();
    let mut redtape = Redtape::start(&server.url(), journal_dir.path(), &[]);
    let over = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..9)
        .map(|client| {
            let url = if client == 8 { server.url() } else { redtape.url() };
            let over = Arc::clone(&over);
            std::thread::spawn(move || sign_everything(&url, client, seed, &over))
        })
        .collect();
    std::thread::sleep(Duration::from_secs(env_number("REDTAPE_SECONDS", 6) as u64));
    over.store(true, Ordering::SeqCst);
    let sent: u64 = clients.into_iter().map(|c| c.join().unwrap()).sum();
    redtape.wait_caught_up();
    assert_eq!(redtape.terminate(), Some(0));

    let (mut right, mut wrong) = (0_u64, 0_u64);
    let mut outside: BTreeMap<String, u64> = BTreeMap::new();
    let mut examples: BTreeMap<String, (u64, String)> = BTreeMap::new();
    for group in journal::cat(journal_dir.path()) {
        let Some(client) = signature(&group) else { continue };
        let origin = &group.origin;
        if client == 8 {
            *outside.entry(origin.kind.clone()).or_default() += 1;
        } else if origin.kind == "client" && origin.name == format!("client-{client}") {
            assert!(!origin.addr.is_empty() && origin.user == "default", "{group:?}");
            right += 1;
        } else {
            wrong += 1;
            let example = examples.entry(group.records[0].name()).or_default();
            *example = (example.0 + 1, format!("{group:?}").chars().take(400).collect());
        }
    }
    let share = right as f64 / (right + wrong) as f64;
    println!(
        "{sent} commands; effects of clients: {right} with the right client, {wrong} without ({:.3} %); \
         effects from outside, by the origin they were given: {outside:?}",
        share * 100.0
    );
    for (name, (count, example)) in &examples {
        println!("  {name}: {count} wrong, such as {example}");
    }
    assert!(right + wrong > 5_000, "enough effects to speak of");
    assert!(share >= 0.999, "the right client: {:.3} %", share * 100.0);
}

/// Which client's signature `~cN~` stands in a group's arguments.
fn signature(group: &Group) -> Option<u8> {
    let find = |arg: &[u8]| arg.windows(4).find(|w| w[0] == b'~' && w[1] == b'c' && w[3] == b'~').map(|w| w[2] - b'0');
    let mut found = group.records.iter().flat_map(|r| &r.args).filter_map(|a| find(a));
    let first = found.next()?;
    assert!(found.all(|other| other == first), "one group, two clients: {group:?}");
    Some(first)
}

/// Writes with the client's signature in a value where keys are shared, else in the key. No TTL ends.
fn sign_everything(url: &str, client: u64, seed: u64, over: &AtomicBool) -> u64 {
    let mut rng = StdRng::seed_from_u64(seed + client);
    let mut conn = Conn::open(url).unwrap();
    conn.must(&args!["CLIENT", "SETNAME", format!("client-{client}")]);
    let new_lists = Version::tested().at_least((6, 2), (0, 0));
    let effects = if Version::tested().at_least((7, 0), (0, 0)) { "" } else { "redis.replicate_commands() " };
    let script = format!("{effects}redis.call('RPUSH', KEYS[1], ARGV[1]) redis.call('SET', KEYS[2], ARGV[1]) return 1");
    let mut sent = 0;
    while !over.load(Ordering::SeqCst) {
        let mut batch = Vec::new();
        for _ in 0..rng.random_range(1..6) {
            sent += 1;
            let n = rng.random_range(0..4);
            // Some values are the same each time, so that one client's commands look alike.
            let mine = if rng.random_bool(0.5) { format!("~c{client}~") } else { format!("~c{client}~{sent}") };
            let my = |kind: &str| format!("{kind}:~c{client}~{n}");
            batch.extend(match rng.random_range(0..30) {
                0..3 => vec![args!["SET", format!("s:{n}"), mine]],
                3 => vec![args!["SET", format!("s:{n}"), mine, "EX", 7200]],
                4 => vec![args!["SETEX", format!("s:{n}"), 7200, mine]],
                5 => vec![args!["GETSET", format!("s:{n}"), mine]],
                6 => vec![args!["APPEND", format!("a:{n}"), mine]],
                7 => vec![args!["RPUSH", format!("l:{n}"), mine]],
                8 => vec![args!["LPUSH", format!("l:{n}"), mine, mine], args!["LTRIM", my("l"), 0, 50]],
                9 => vec![args!["SADD", format!("t:{n}"), mine], args!["SREM", format!("t:{n}"), mine]],
                10 => vec![args!["HSET", format!("h:{n}"), mine, n], args!["HDEL", format!("h:{n}"), mine]],
                11 => vec![args!["ZADD", format!("z:{n}"), sent, mine], args!["ZINCRBY", format!("z:{n}"), 2, mine]],
                12 => vec![args!["XADD", format!("x:{n}"), "MAXLEN", "~", 1000, "*", "by", mine]],
                13 => vec![args!["SETRANGE", format!("a:{n}"), 3, mine]],
                14 => vec![args!["EVAL", script, 2, format!("l:{n}"), format!("s:{n}"), mine]],
                15 => vec![
                    args!["MULTI"],
                    args!["SET", format!("s:{n}"), mine],
                    args!["SADD", format!("t:{n}"), mine],
                    args!["INCR", my("n")],
                    args!["EXEC"],
                ],
                16 => vec![args!["INCRBYFLOAT", my("f"), "1.5"], args!["HINCRBYFLOAT", my("hf"), "f", "0.5"]],
                17 => vec![args!["INCR", my("n")], args!["EXPIRE", my("n"), 7200 + sent]],
                18 => vec![args!["SET", my("d"), 1], args!["DEL", my("d")]],
                19 => vec![args!["SADD", my("p"), "a", "b", "c"], args!["SPOP", my("p")]],
                20 => vec![args!["SET", my("r"), 1], args!["RENAME", my("r"), my("q")]],
                21 => vec![args!["SUNIONSTORE", my("u"), format!("t:{n}"), my("p")]],
                22 => vec![args!["SORT", format!("l:{n}"), "ALPHA", "LIMIT", 0, 3, "STORE", my("o")]],
                23 if new_lists => vec![args!["RPUSH", my("m"), 1], args!["LMOVE", my("m"), my("m2"), "LEFT", "RIGHT"]],
                24 => vec![args!["SETNX", format!("nx:{n}"), mine], args!["UNLINK", my("nx")]],
                25 if new_lists => vec![args!["SET", my("ge"), 1], args!["GETEX", my("ge"), "EX", 7200]],
                26 => vec![args!["SELECT", 5], args!["SET", format!("s:{n}"), mine], args!["SELECT", 0]],
                27 => vec![args!["PFADD", format!("pf:{n}"), mine], args!["PFCOUNT", format!("pf:{n}")]],
                28 => vec![args!["RPUSH", my("b"), 1], args!["BLPOP", my("b"), 1]],
                _ => vec![args!["GET", format!("s:{n}")], args!["MSET", format!("s:{n}"), mine, my("ms"), 1]],
            });
        }
        conn.pipeline(&batch).unwrap();
        std::thread::sleep(Duration::from_millis(2));
    }
    sent
}

/// Distances of the journal's times from when the command can have run: [request sent, reply seen].
#[test]
fn times_are_those_of_the_execution() {
    let journal_dir = Dir::new("journal");
    let server = Server::start();
    let mut redtape = Redtape::start(&server.url(), journal_dir.path(), &[]);
    let seen = write_and_watch(&redtape, Duration::from_secs(3), || {});
    redtape.wait_caught_up();
    assert_eq!(redtape.terminate(), Some(0));
    let found = distances(&journal_dir, &seen);
    report("steady", &found, 1_000);
}

#[test]
fn times_are_right_while_the_first_full_sync_runs() {
    let journal_dir = Dir::new("journal");
    let server = Server::with(&["--repl-backlog-size", "64mb"]);
    let mut conn = server.conn();
    conn.must(&args!["DEBUG", "POPULATE", 40_000, "filler", 20]);
    // Microseconds for each key: some seconds in all.
    conn.must(&args!["CONFIG", "SET", "rdb-key-save-delay", 20]);
    let mut redtape = Redtape::start_only(&server.url(), journal_dir.path(), &[]);
    let started = now_us();
    let mut streaming_at = 0;
    let seen = write_and_watch(&redtape, Duration::from_secs(1), || {
        // The wait happens beside the writers.
        while redtape.metric(r#"redtape_capture_state{state="streaming"}"#) != Some(1.0) {
            assert!(now_us() - started < 60_000_000, "the first full sync does not end");
            std::thread::sleep(Duration::from_millis(20));
        }
        streaming_at = now_us();
    });
    redtape.wait_caught_up();
    assert_eq!(redtape.terminate(), Some(0));
    let during: HashMap<_, _> = seen.into_iter().filter(|(_, (_, replied))| *replied < streaming_at).collect();
    println!("the first full sync took {} ms; {} writes meanwhile", (streaming_at - started) / 1000, during.len());
    assert!(streaming_at - started > 1_000_000, "a sync that takes a while");
    let found = distances_of(&journal_dir, &during, true);
    report("during the first full sync", &found, 50_000);
}

type Seen = HashMap<Vec<u8>, (i64, i64)>;

/// Four clients write unique values, until `meanwhile` is done and `time` has passed.
fn write_and_watch(redtape: &Redtape, time: Duration, meanwhile: impl FnOnce()) -> Seen {
    let over = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..4)
        .map(|client| {
            let (url, over) = (redtape.url(), Arc::clone(&over));
            std::thread::spawn(move || {
                let mut conn = Conn::open(&url).unwrap();
                let mut seen = Seen::new();
                for n in 0_u64.. {
                    if over.load(Ordering::SeqCst) {
                        break;
                    }
                    let value = format!("{client}:{n}");
                    let sent = now_us();
                    let reply = conn.call(&args!["SET", format!("k:{}", n % 3), value]).unwrap();
                    assert!(!matches!(reply, Value::Error(_)), "{reply:?}");
                    seen.insert(value.into_bytes(), (sent, now_us()));
                    std::thread::sleep(Duration::from_micros(300));
                }
                seen
            })
        })
        .collect();
    meanwhile();
    std::thread::sleep(time);
    over.store(true, Ordering::SeqCst);
    clients.into_iter().flat_map(|c| c.join().unwrap()).collect()
}

fn distances(journal_dir: &Dir, seen: &Seen) -> Vec<i64> {
    distances_of(journal_dir, seen, false)
}

/// Zero when the time lies between request and reply; negative when it is too early. With `some`, writes
/// that are in the base and not in the journal are left out.
fn distances_of(journal_dir: &Dir, seen: &Seen, some: bool) -> Vec<i64> {
    let mut found = Vec::new();
    let (mut beyond, mut example) = (0, String::new());
    for group in journal::cat(journal_dir.path()) {
        for record in &group.records {
            let Some((sent, replied)) = record.args.get(2).and_then(|value| seen.get(value)) else { continue };
            found.push((group.ts_us - replied).max(0) + (group.ts_us - sent).min(0));
            let (earliest, latest) = (group.ts_us - group.slack_us, group.ts_us);
            if earliest > *replied || latest < *sent {
                beyond += 1;
                example = format!("{sent}..{replied} {group:?}");
            }
        }
    }
    if !some {
        assert_eq!(found.len(), seen.len(), "each write is in the journal once");
    }
    println!("{beyond} of {} ran at no time that the journal's time and slack allow {example}", found.len());
    assert_eq!(beyond, 0, "{beyond} of {}: {example}", found.len());
    assert!(found.len() > 200, "enough writes to measure: {}", found.len());
    found
}

fn report(what: &str, found: &[i64], limit_us: i64) {
    let mut away: Vec<i64> = found.iter().map(|d| d.abs()).collect();
    away.sort_unstable();
    let at = |p: usize| away[(away.len() - 1) * p / 1000];
    let outside = away.iter().filter(|&&d| d > 0).count();
    println!(
        "{what}: {} writes; distance of the journal's time from [sent, replied] in microseconds: \
         p50 {}, p99 {}, p99.9 {}, max {}; {outside} outside, {} too early",
        away.len(),
        at(500),
        at(990),
        at(999),
        at(1000),
        found.iter().filter(|&&d| d < 0).count()
    );
    assert!(at(990) <= limit_us, "{what}: p99 is {} us, more than {limit_us}", at(990));
}
