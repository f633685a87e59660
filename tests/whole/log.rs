//! Who wrote what, when: filters give exactly what an unfiltered look holds, `redtape log` says what happened to a key, and
//! `journal tail` in another process gives every write once and in order, whatever happens to writer and segments.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::harness::conn::{Conn, bytes};
use crate::harness::redtape::run;
use crate::harness::{Args, Dir, Redtape, Server, rfc3339, seed, wait_for};
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

const BINARY: &str = env!("CARGO_BIN_EXE_redtape");

fn text(path: &Path) -> &str {
    path.to_str().expect("a plain path")
}

/// The lines of a command's JSON output.
fn json(command: &[&str], dir: &Path, more: &[&str]) -> Vec<Value> {
    let mut args = command.to_vec();
    args.extend(["--json", "--from", text(dir)]);
    args.extend(more);
    let out = run(&args).expect_success(&args.join(" "));
    out.stdout.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
}

fn lsns(values: &[Value]) -> Vec<u64> {
    values.iter().map(|v| v["lsn"].as_u64().unwrap_or_else(|| panic!("no LSN in {v}"))).collect()
}

fn word<'a>(value: &'a Value, path: &[&str]) -> &'a str {
    path.iter().fold(value, |v, name| &v[*name]).as_str().unwrap_or_default()
}

fn login(url: &str, user: &str, name: &str) -> Conn {
    let mut conn = Conn::open(url).expect("a client");
    if user != "default" {
        conn.must(&args!["AUTH", user, "secret"]);
    }
    if !name.is_empty() {
        conn.must(&args!["CLIENT", "SETNAME", name]);
    }
    conn
}

/// What a record of this test's own writes touches: databases and keys; no keys = all of the databases.
fn touched(record: &Value) -> (Vec<u64>, Vec<String>) {
    let args: Vec<String> = record["args"].as_array().unwrap().iter().map(|a| a.as_str().unwrap().to_owned()).collect();
    let db = record["db"].as_u64().unwrap();
    match args[0].to_ascii_uppercase().as_str() {
        "FLUSHALL" => ((0..16).collect(), vec![]),
        "FLUSHDB" => (vec![db], vec![]),
        "SWAPDB" => (args[1..3].iter().map(|n| n.parse().unwrap()).collect(), vec![]),
        "DEL" | "UNLINK" => (vec![db], args[1..].to_vec()),
        "MSET" => (vec![db], args[1..].iter().step_by(2).cloned().collect()),
        "RENAME" => (vec![db], args[1..3].to_vec()),
        _ => (vec![db], vec![args[1].clone()]),
    }
}

/// One random write of a kind of which `touched` knows what it touches.
fn any_write(random: &mut StdRng) -> Args {
    let key = |random: &mut StdRng| format!("k:{}", random.random_range(0..8));
    let one = key(random);
    match random.random_range(0..100) {
        0..30 => args!["SET", one, random.random_range(0..1000)],
        30..40 => args!["MSET", one, 1, key(random), 2],
        40..50 => args!["DEL", one, key(random)],
        50..60 => args!["INCRBY", format!("n:{}", random.random_range(0..4)), 2],
        60..75 => args!["HSET", format!("h:{}", random.random_range(0..4)), "f", "v"],
        75..80 => args!["SET", one, 1, "PX", 5],
        80..90 => args!["RPUSH", format!("l:{}", random.random_range(0..4)), "x", "y"],
        90..95 => args!["RENAME", one, key(random)],
        95 => args!["FLUSHDB"],
        96 => args!["SWAPDB", 0, 1],
        97 => args!["FLUSHALL"],
        _ => args!["EVAL", "return redis.call('set', KEYS[1], ARGV[1])", 1, one, "by script"],
    }
}

#[test]
fn filters_give_exactly_what_an_unfiltered_cat_holds() {
    let seed = seed();
    let mut random = StdRng::seed_from_u64(seed);
    let journal = Dir::new("journal");
    let dir = journal.path();
    let server = Server::start();
    for user in ["alice", "bob"] {
        server.conn().must(&args!["ACL", "SETUSER", user, "on", ">secret", "~*", "&*", "+@all"]);
    }
    let mut redtape = Redtape::start(&server.url(), dir, &["--segment-mib", "1"]);
    let url = redtape.url();
    let mut conns = [
        login(&url, "alice", "billing"),
        login(&url, "alice", "reports"),
        login(&url, "bob", "billing"),
        login(&url, "default", ""),
        server.conn(),
    ];
    for n in 0..1500 {
        let at = random.random_range(0..conns.len());
        let conn = &mut conns[at];
        if random.random_bool(0.1) {
            conn.must(&args!["SELECT", random.random_range(0..3)]);
        }
        if random.random_bool(0.05) {
            conn.must(&args!["MULTI"]);
            for _ in 0..3 {
                conn.must(&any_write(&mut random));
            }
            conn.call(&args!["EXEC"]).expect("a reply");
        } else {
            // RENAME of a key that is not there is refused.
            conn.call(&any_write(&mut random)).expect("a reply");
        }
        if n % 500 == 499 {
            // What has a TTL goes; the next round finds it expired. And enough to fill a segment.
            std::thread::sleep(Duration::from_millis(200));
            let mut value = vec![0; 700_000];
            random.fill_bytes(&mut value);
            conns[0].must(&args!["SET", "large", value.iter().map(|b| char::from(b'a' + b % 26)).collect::<String>()]);
        }
    }
    redtape.wait_caught_up();
    let cat = |more: &[&str]| json(&["journal", "cat"], dir, more);
    let log = |more: &[&str]| json(&["log"], dir, more);
    // Once beside the writer, when the last segment is not sealed, and once at rest.
    for at_rest in [false, true] {
        if at_rest {
            assert_eq!(redtape.terminate(), Some(0));
        }
        let all = cat(&[]);
        let first = |v: &Value| v["lsn"].as_u64().unwrap();
        // Some of a client, which has one.
        let addr = all[all.len() / 2..].iter().map(|g| word(g, &["origin", "addr"])).find(|addr| !addr.is_empty());
        let addr = addr.expect("a client's address").to_owned();
        let by = |path: [&'static str; 2], wanted: &'static str| move |g: &Value, _: &Value| word(g, &path) == wanted;
        // As it took effect, or as the client sent it.
        let name = |wanted: &'static str| {
            move |g: &Value, r: &Value| {
                let names = [r["args"][0].as_str().unwrap(), word(g, &["origin", "via"])];
                names.iter().any(|name| name.eq_ignore_ascii_case(wanted))
            }
        };
        let key = |key: &'static str, dbs: &'static [u64]| {
            move |_: &Value, r: &Value| {
                let (in_dbs, keys) = touched(r);
                (keys.is_empty() || keys.iter().any(|k| k == key))
                    && (dbs.is_empty() || dbs.iter().any(|db| in_dbs.contains(db)))
            }
        };
        type Is<'a> = Box<dyn Fn(&Value, &Value) -> bool + 'a>;
        let cases: Vec<(Vec<&str>, Is<'_>)> = vec![
            (vec![], Box::new(|_, _| true)),
            (vec!["--user", "alice"], Box::new(by(["origin", "user"], "alice"))),
            (vec!["--client", "billing"], Box::new(by(["origin", "name"], "billing"))),
            (vec!["--client", &addr], Box::new(|g, _| word(g, &["origin", "addr"]) == addr)),
            (vec!["--client", "127.0.0.1"], Box::new(by(["origin", "kind"], "client"))),
            (vec!["--client", "repor*"], Box::new(by(["origin", "name"], "reports"))),
            (vec!["--origin", "outside"], Box::new(by(["origin", "kind"], "outside"))),
            (vec!["--origin", "expiry"], Box::new(by(["origin", "kind"], "expiry"))),
            (vec!["--origin", "!client"], Box::new(|g, _| word(g, &["origin", "kind"]) != "client")),
            (vec!["--origin", "e*"], Box::new(by(["origin", "kind"], "expiry"))),
            (vec!["--user", "!alice"], Box::new(|g, _| word(g, &["origin", "user"]) != "alice")),
            (vec!["--user", "[ab]*", "--user", "!bo?"], Box::new(by(["origin", "user"], "alice"))),
            (vec!["--client", "!billing"], Box::new(|g, _| word(g, &["origin", "name"]) != "billing")),
            (vec!["--client", "!127.0.0.1"], Box::new(|g, _| word(g, &["origin", "addr"]).is_empty())),
            (
                vec!["--client", "127.*", "--client", "!b*", "--client", "![::1]"],
                Box::new(|g, _| {
                    !word(g, &["origin", "addr"]).is_empty() && !word(g, &["origin", "name"]).starts_with('b')
                }),
            ),
            (vec!["--command", "FLUSH*"], Box::new(|g, r| name("FLUSHALL")(g, r) || name("FLUSHDB")(g, r))),
            (vec!["--command", "!set", "--command", "!E*"], Box::new(|g, r| !name("SET")(g, r) && !name("EVAL")(g, r))),
            (
                vec!["--user", "alice", "--user", "bob", "--client", "billing"],
                Box::new(by(["origin", "name"], "billing")),
            ),
            (vec!["--command", "rename"], Box::new(name("RENAME"))),
            (vec!["--command", "EVAL"], Box::new(name("EVAL"))),
            (vec!["--key", "k:3"], Box::new(key("k:3", &[]))),
            (vec!["--key", "k:3", "--db", "1"], Box::new(key("k:3", &[1]))),
            (vec!["--key", "k:3", "--db", "0", "--db", "2"], Box::new(key("k:3", &[0, 2]))),
            (vec!["--key", "large"], Box::new(key("large", &[]))),
            (vec!["--key", "nobody"], Box::new(key("nobody", &[]))),
            (
                vec!["--key", "n:[12]"],
                Box::new(|_, r| {
                    let keys = touched(r).1;
                    keys.is_empty() || keys.iter().any(|k| k == "n:1" || k == "n:2")
                }),
            ),
            (vec!["--db", "1"], Box::new(|_, r| touched(r).0.contains(&1))),
            (
                vec!["--key", "k:1", "--user", "bob", "--command", "SET"],
                Box::new(move |g, r| key("k:1", &[])(g, r) && by(["origin", "user"], "bob")(g, r) && name("SET")(g, r)),
            ),
        ];
        let mut found = 0;
        for (filter, is) in &cases {
            let wanted = |g: &&Value| g["records"].as_array().unwrap().iter().any(|r| is(g, r));
            let groups: Vec<&Value> = all.iter().filter(wanted).collect();
            let expected: Vec<u64> = groups.iter().map(|g| first(g)).collect();
            assert_eq!(lsns(&cat(filter)), expected, "cat {filter:?} (at rest: {at_rest})");
            let writes: Vec<u64> = groups
                .iter()
                .flat_map(|g| g["records"].as_array().unwrap().iter().filter(|r| is(g, r)).map(first))
                .collect();
            let with = |more: &[&'static str]| lsns(&log(&[&filter[..], more].concat()));
            assert_eq!(with(&["--reverse"]), writes, "log {filter:?} (at rest: {at_rest})");
            let newest: Vec<u64> = writes.iter().rev().copied().collect();
            assert_eq!(with(&[]), newest, "log {filter:?} (at rest: {at_rest})");
            assert_eq!(with(&["--limit", "3"]), newest[..newest.len().min(3)], "log {filter:?}");
            assert_eq!(with(&["--limit", "3", "--reverse"]), writes[..writes.len().min(3)], "log {filter:?}");
            found += usize::from(!writes.is_empty() && writes.len() < all.len());
        }
        assert!(found + 3 >= cases.len(), "nearly every filter finds something, and not all: {found}");

        // From when to when.
        let (a, b) = (all.len() / 3, all.len() * 2 / 3);
        let ts = |n: usize| all[n]["ts_us"].as_i64().unwrap();
        let (since, until) = (rfc3339(ts(a)), rfc3339(ts(b)));
        let inside: Vec<u64> =
            all.iter().filter(|g| (ts(a)..=ts(b)).contains(&g["ts_us"].as_i64().unwrap())).map(first).collect();
        assert_eq!(lsns(&cat(&["--since", &since, "--until", &until])), inside);
        let between = format!("lsn:{}", first(&all[a]));
        let end = format!("lsn:{}", first(&all[b]) - 1);
        let groups: Vec<u64> = all[a..b].iter().map(first).collect();
        assert_eq!(lsns(&cat(&["--since", &between, "--until", &end])), groups);
        let shown = lsns(&log(&["--since", &between, "--until", &end]));
        assert_eq!((shown.last(), shown.len() as u64), (groups.first(), first(&all[b]) - first(&all[a])));
    }
    println!("seed {seed}");
    contradictions(dir);
}

fn contradictions(dir: &Path) {
    for (args, said) in [
        (&["log", "--since", "1m ago", "--until", "2m ago"][..], "is later than --until"),
        (&["journal", "cat", "--since", "lsn:9", "--until", "lsn:8"], "lies after --until"),
        (&["log", "--since", "mark:none"], "there is no mark"),
        (&["log", "--limit", "0"], "--limit"),
        (&["log", "--origin", "nobody"], "eviction"),
        (&["journal", "tail", "--since", "latest", "-n", "3"], "cannot be used with"),
        (&["journal", "tail", "--since", "lsn:0"], "lsn:1"),
    ] {
        let out = run(&[args, &["--from", text(dir)]].concat());
        assert_eq!(out.code, Some(64), "{args:?}: {}", out.stderr);
        assert!(out.stderr.contains(said), "{args:?}: {}", out.stderr);
    }
}

#[test]
fn the_log_says_what_happened_to_a_key() {
    let journal = Dir::new("journal");
    let dir = journal.path();
    let server = Server::start();
    let mut redtape = Redtape::start(&server.url(), dir, &[]);
    let mut conn = login(&redtape.url(), "default", "deploy");
    let at = crate::harness::now_us() / 1000 + 3_600_000;
    for (n, write) in [
        args!["SET", "user:1", "a", "NX"],
        args!["SET", "user:1", "b"],
        args!["SET", "other", "b"],
        args!["PEXPIREAT", "user:1", at],
        args!["RENAME", "user:1", "user:2"],
        args!["RENAME", "user:2", "user:1"],
        args!["DEL", "user:1"],
        args!["HSET", "user:1", "name", "x"],
        args!["SET", "user:1", "short", "PX", 30],
    ]
    .iter()
    .enumerate()
    {
        conn.must(write);
        assert!(n < 100);
    }
    std::thread::sleep(Duration::from_millis(60));
    conn.must(&args!["GET", "user:1"]);
    // A SET at the same time might be taken for what removed it: it can be, if its TTL has passed.
    std::thread::sleep(Duration::from_millis(300));
    conn.must(&args!["SET", "user:1", "last"]);
    conn.must(&args!["SELECT", 5]);
    conn.must(&args!["FLUSHALL"]);
    redtape.wait_caught_up();
    assert_eq!(redtape.terminate(), Some(0));

    let out = run(&["log", "--key", "user:1", "--db", "0", "--reverse", "--from", text(dir)]).expect_success("log");
    println!("$ redtape log --key user:1 --reverse\n{}{}", out.stdout, out.stderr);
    let until = rfc3339(at * 1000);
    let set_until = format!("TTL set until {}", until.trim_end_matches('Z'));
    let words = [
        "created",
        "set",
        &set_until,
        "renamed to user:2",
        "renamed from user:2",
        "deleted",
        "fields set",
        "set until 20",
        "expired",
        "set ",
        "flushed",
    ];
    // Under what took something away stands how it comes back.
    let lines: Vec<&str> = out.stdout.lines().filter(|line| !line.starts_with(' ')).collect();
    assert_eq!(lines.len(), words.len(), "{}", out.stdout);
    for (line, word) in lines.iter().zip(words) {
        assert!(line.contains(&format!("  {word}")) || line.contains(&format!(" {word}")), "{word}: {line}");
        let who = if word == "expired" { "expiry" } else { " deploy" };
        assert!(line.contains(who), "{line}");
    }
    assert!(lines[10].contains("db5") && lines[0].contains("db0"), "{}", out.stdout);
    assert!(out.stderr.contains("11 writes; read ") && out.stderr.contains(" %)"), "{}", out.stderr);
    let all = run(&["log", "--key", "user:*", "--limit", "7", "--from", text(dir)]).expect_success("log");
    let renamed = all.stdout.lines().rfind(|line| !line.starts_with(' ')).expect("a line");
    assert!(renamed.contains("user:2 renamed to user:1, user:1 renamed from user:2"), "{}", all.stdout);
    let did = &json(&["log"], dir, &["--key", "user:1", "--limit", "1"])[0]["did"][0];
    assert_eq!((word(did, &["what"]), word(did, &["key"])), ("flushed", "user:1"));
}

/// `redtape journal tail` in a process of its own, writing to a file.
struct Tail {
    child: Child,
    out: std::path::PathBuf,
    err: std::path::PathBuf,
    _dir: Dir,
}

impl Tail {
    fn start(journal: &Path, more: &[&str]) -> Self {
        let dir = Dir::new("tail");
        let (out, err) = (dir.join("out"), dir.join("err"));
        let mut command = Command::new(BINARY);
        command.args(["journal", "tail", "--from", text(journal)]).args(more).stdin(Stdio::null());
        command.stdout(File::create(&out).unwrap()).stderr(File::create(&err).unwrap());
        let child = command.spawn().expect("redtape journal tail");
        Self { child, out, err, _dir: dir }
    }

    fn said(&self) -> String {
        std::fs::read_to_string(&self.err).unwrap()
    }

    /// The lines so far; each is whole and JSON.
    fn lines(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(&self.out).unwrap();
        // A line that is being written has no end yet.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole.lines().map(|l| serde_json::from_str(l).unwrap_or_else(|e| panic!("{e}: {l}"))).collect()
    }

    fn wait_for(&self, what: &str, ask: impl Fn(&[Value]) -> bool) {
        wait_for(what, Duration::from_secs(30), || {
            assert_eq!(self.said(), "", "tail's stderr");
            ask(&self.lines()).then_some(())
        });
    }

    fn stop(mut self) -> Vec<Value> {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        let status = self.child.wait().unwrap();
        assert_eq!(status.code(), Some(0), "{}", self.said());
        let text = std::fs::read_to_string(&self.out).unwrap();
        assert!(text.is_empty() || text.ends_with('\n'), "it ends with a whole line");
        self.lines()
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Numbered values, so large that a segment of 1 MiB is full after some fifty; some are larger than what one write takes.
fn write(conn: &mut Conn, random: &mut StdRng, numbers: std::ops::Range<u64>) {
    for n in numbers {
        let mut value = vec![0; if n % 60 == 17 { 400_000 } else { 20_000 }];
        random.fill_bytes(&mut value);
        conn.must(&args!["SET", format!("k:{}", n % 20), [format!("{n}:").as_bytes(), &value].concat()]);
    }
}

/// The numbers of the values that the tail has shown.
fn numbers(lines: &[Value]) -> Vec<u64> {
    let groups = lines.iter().filter(|v| v["records"].is_array());
    let records = groups.flat_map(|v| v["records"].as_array().unwrap());
    let values = records.map(|r| match &r["args"][2] {
        Value::String(text) => text.clone().into_bytes(),
        other => base64_start(other["b64"].as_str().unwrap()),
    });
    values.map(|v| String::from_utf8_lossy(v.split(|b| *b == b':').next().unwrap()).parse().unwrap()).collect()
}

/// The first bytes of a value in base64.
fn base64_start(text: &str) -> Vec<u8> {
    let digits = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let six = |c: u8| digits.iter().position(|d| *d == c).unwrap() as u32;
    let chunks = text.as_bytes()[..16].chunks(4);
    chunks.flat_map(|c| (c.iter().fold(0, |n, c| n << 6 | six(*c)) << 8).to_be_bytes()[..3].to_vec()).collect()
}

#[test]
fn a_tail_gives_every_write_once_and_in_order() {
    let seed = seed();
    let mut random = StdRng::seed_from_u64(seed);
    let journal = Dir::new("journal");
    let dir = journal.path();
    let mut server = Server::with(&["--repl-backlog-size", "64mb", "--repl-diskless-sync-delay", "0"]);
    let mut redtape = Redtape::start(&server.url(), dir, &["--segment-mib", "1"]);
    let mut conn = Conn::open(&redtape.url()).unwrap();
    write(&mut conn, &mut random, 0..5);
    redtape.wait_caught_up();
    // From the end, from the beginning, the last two, and only one key.
    let tail = Tail::start(dir, &["--json"]);
    let whole = Tail::start(dir, &["--json", "--since", "lsn:1"]);
    let lines = Tail::start(dir, &["--json", "-n", "2"]);
    let one = Tail::start(dir, &["--json", "-n", "0", "--key", "k:7"]);
    whole.wait_for("the beginning", |lines| numbers(lines) == [0, 1, 2, 3, 4]);
    lines.wait_for("the last two", |lines| numbers(lines) == [3, 4]);
    // The others have found the end by now, or soon.
    std::thread::sleep(Duration::from_secs(1));

    // How long it takes until a write is seen.
    let mut delays = Vec::new();
    for n in 5..25 {
        write(&mut conn, &mut random, n..n + 1);
        let begun = Instant::now();
        wait_for("the write", Duration::from_secs(20), || numbers(&tail.lines()).contains(&n).then_some(()));
        delays.push(begun.elapsed());
    }
    delays.sort();
    println!(
        "from the reply to the tail's output: median {:?}, worst {:?}",
        delays[delays.len() / 2],
        delays[delays.len() - 1]
    );
    assert!(delays[delays.len() / 2] < Duration::from_millis(500), "{delays:?}");

    // Across segments, the writer's death and its end.
    write(&mut conn, &mut random, 25..200);
    redtape.kill9();
    redtape.start_again();
    let mut conn = Conn::open(&redtape.url()).unwrap();
    write(&mut conn, &mut random, 200..280);
    redtape.wait_caught_up();
    assert_eq!(redtape.terminate(), Some(0));
    redtape.start_again();
    let mut conn = Conn::open(&redtape.url()).unwrap();
    write(&mut conn, &mut random, 280..350);
    tail.wait_for("all writes", |lines| numbers(lines).last() == Some(&349));

    // Beside pruning, which does not wait for it.
    redtape.wait_caught_up();
    let before = std::fs::read_dir(dir.join("segments")).unwrap().count();
    run(&["snapshot", "create", "--dir", text(dir), "--upstream", &server.url()]).expect_success("snapshot");
    write(&mut conn, &mut random, 350..360);
    redtape.wait_caught_up();
    run(&["journal", "prune", "--dir", text(dir), "--max-size", "1", "--yes"]).expect_success("prune");
    let after = std::fs::read_dir(dir.join("segments")).unwrap().count();
    assert!(before > 5 && after < before, "{before} segments, then {after}");
    write(&mut conn, &mut random, 360..480);
    for each in [&tail, &whole, &lines, &one] {
        each.wait_for("all writes", |lines| numbers(lines).last() >= Some(&467));
    }
    redtape.wait_caught_up();

    // What was asked for and is gone is declared.
    let late = Tail::start(dir, &["--json", "--since", "lsn:1"]);
    late.wait_for("the end", |lines| numbers(lines).last() == Some(&479));
    let said = late.stop();
    assert_eq!((word(&said[0], &["note"]), said[0]["from_lsn"].as_u64()), ("removed", Some(1)), "{}", said[0]);
    let first = said[1]["lsn"].as_u64().unwrap();
    assert_eq!(said[0]["to_lsn"].as_u64(), Some(first - 1));
    assert_eq!(numbers(&said), (first - 1..480).collect::<Vec<_>>());

    // A new history is announced.
    server.restart();
    wait_for("the second timeline", Duration::from_secs(30), || {
        (redtape.metric("redtape_timeline") == Some(2.0)).then_some(())
    });
    redtape.wait_streaming();
    let mut conn = wait_for("clients being served", Duration::from_secs(10), || {
        let mut conn = Conn::open(&redtape.url()).ok()?;
        (conn.call(&args!["PING"]).is_ok_and(|pong| bytes(&pong) == b"PONG")).then_some(conn)
    });
    write(&mut conn, &mut random, 480..500);
    tail.wait_for("the last write", |lines| numbers(lines).last() == Some(&499));
    whole.wait_for("the last write", |lines| numbers(lines).last() == Some(&499));
    lines.wait_for("the last write", |lines| numbers(lines).last() == Some(&499));
    let (tail, whole, lines, one) = (tail.stop(), whole.stop(), lines.stop(), one.stop());
    assert_eq!(numbers(&tail), (5..500).collect::<Vec<_>>());
    assert_eq!(numbers(&whole), (0..500).collect::<Vec<_>>());
    assert_eq!(numbers(&lines), (3..500).collect::<Vec<_>>());
    assert_eq!(numbers(&one), (5..500).filter(|n| n % 20 == 7).collect::<Vec<_>>());
    let notes: Vec<&Value> = tail.iter().filter(|v| !v["note"].is_null()).collect();
    assert_eq!(notes.len(), 1, "{notes:?}");
    assert_eq!((word(notes[0], &["note"]), notes[0]["timeline"].as_u64()), ("timeline", Some(2)), "{notes:?}");
    assert_eq!(tail[475]["note"], "timeline", "in its place");
    println!("seed {seed}");
    ends(dir);
}

/// With the reader of its output, and with a signal while nobody reads.
fn ends(dir: &Path) {
    let tail = |more: &[&str]| {
        let mut command = Command::new(BINARY);
        command.args(["journal", "tail", "--from", text(dir)]).args(more).stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
    };
    let end_of = |child: &mut Child| wait_for("the end", Duration::from_secs(10), || child.try_wait().unwrap()).code();
    // Nothing is written any more, and yet it notices.
    let mut child = tail(&["-n", "1"]);
    let mut line = String::new();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    out.read_line(&mut line).unwrap();
    assert!(line.contains(" SET ") && line.ends_with('\n'), "{line}");
    drop(out);
    assert_eq!(end_of(&mut child), Some(0));
    // A full pipe: it cannot write, and ends all the same.
    let mut child = tail(&["--since", "lsn:1", "--json"]);
    std::thread::sleep(Duration::from_millis(500));
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    assert_eq!(end_of(&mut child), Some(0));
}

/// Of the segment in use, a search reads only the end: the writer keeps key filters of the rest beside it.
#[test]
fn a_search_beside_a_recording_redtape_reads_the_end_of_the_segment_in_use() {
    const KEYS: u64 = 3000;
    let (server, dir) = (Server::start(), Dir::new("journal"));
    let mut redtape = Redtape::start(&server.url(), dir.path(), &[]);
    let mut conn = Conn::open(&redtape.url()).expect("a client");
    let mut random = StdRng::seed_from_u64(7);
    for n in 0..KEYS {
        let mut value = vec![0; 4096];
        random.fill_bytes(&mut value);
        conn.must(&args!["SET", format!("key:{n}"), &value[..]]);
    }
    redtape.wait_caught_up();
    let filters = dir.join("filters");
    // It is extended when what it covers is synced: a second later at most.
    wait_for("the filters of all but the end", Duration::from_secs(10), || {
        let read = read_by_a_search(dir.path(), "key:17").0;
        (read < 7.0).then_some(())
    });
    let all = read_by_a_search(dir.path(), "key:17").1;
    assert!(all > 11.0 && filters.exists(), "{all} MiB in all");
    // Each key is found, wherever it lies, with one write.
    for n in (0..KEYS).step_by(500).chain([KEYS - 1]) {
        let found = json(&["log", "--db", "0"], dir.path(), &["--key", &format!("key:{n}")]);
        assert_eq!(found.len(), 1, "key:{n}: {found:?}");
    }
    assert_eq!(json(&["log", "--db", "0"], dir.path(), &["--key", "never"]), Vec::<Value>::new());
    run(&["journal", "verify", "--from", text(dir.path())]).expect_success("verify beside a writer");

    // Behind a crash it is as good; behind one of its own bits that is wrong, the segment is read.
    redtape.kill9();
    assert!(read_by_a_search(dir.path(), "key:17").0 < 7.0);
    let mut bytes = std::fs::read(&filters).expect("the file");
    bytes[60] ^= 1;
    std::fs::write(&filters, bytes).expect("the file");
    let (read, all) = read_by_a_search(dir.path(), "key:17");
    assert!(read > 0.9 * all, "{read} of {all} MiB");
    assert_eq!(json(&["log", "--db", "0"], dir.path(), &["--key", "key:17"]).len(), 1);
    run(&["journal", "verify", "--from", text(dir.path())]).expect_success("verify with a wrong bit in it");
    assert!(
        run(&["journal", "repair", "--plan", "--from", text(dir.path())])
            .expect_success("repair")
            .stdout
            .contains("sound")
    );

    // The next start makes it again, and the end of the segment takes it away.
    redtape.start_again();
    redtape.wait_caught_up();
    assert!(read_by_a_search(dir.path(), "key:17").0 < 7.0);
    redtape.terminate();
    assert!(!filters.exists(), "the segment is sealed");
}

/// MiB that a search for the key reads, and MiB of the journal, as the log says.
fn read_by_a_search(dir: &Path, key: &str) -> (f64, f64) {
    let said = run(&["log", "--key", key, "--db", "0", "--from", text(dir)]).expect_success("log").stderr;
    let line = said.lines().find(|line| line.contains("; read ")).unwrap_or_else(|| panic!("{said}"));
    let words: Vec<&str> = line.split("; read ").nth(1).expect("what was read").split_whitespace().collect();
    let size = |number: &str, unit: &str| {
        let factor = match unit {
            "B" | "bytes" => 1.0 / f64::from(1 << 20),
            "KiB" => 1.0 / 1024.0,
            "MiB" => 1.0,
            other => panic!("{other} in {line}"),
        };
        number.parse::<f64>().expect("a number") * factor
    };
    let [number, unit, "of", all, of_all, ..] = words[..] else { panic!("{line}") };
    (size(number, unit), size(all, of_all))
}
