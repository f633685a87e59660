//! What `redtape log` is asked on the worst day: which field, which words, how many by whom, under which name before, and how it
//! comes back. Each answer is compared with what the unfiltered log holds.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::harness::conn::{Conn, bytes};
use crate::harness::redtape::{BINARY, run};
use crate::harness::{Args, Dir, Redtape, Server, seed};
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};
use serde_json::Value as Json;

fn path(path: &Path) -> &str {
    path.to_str().expect("a plain path")
}

fn named(url: &str, name: &str) -> Conn {
    let mut conn = Conn::open(url).expect("a client");
    conn.must(&args!["CLIENT", "SETNAME", name]);
    conn
}

/// The lines of `redtape log --json`.
fn log(dir: &Path, more: &[&str]) -> Vec<Json> {
    let args = [&["log", "--json", "--from", path(dir)], more].concat();
    let out = run(&args).expect_success(&args.join(" "));
    out.stdout.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
}

fn lsns(writes: &[Json]) -> Vec<u64> {
    writes.iter().map(|write| write["lsn"].as_u64().expect("an LSN")).collect()
}

/// The commands, newest first.
fn commands(writes: &[Json]) -> Vec<String> {
    let line = |write: &Json| {
        let args = write["args"].as_array().expect("arguments").iter();
        args.map(|arg| arg.as_str().unwrap_or("?").to_owned()).collect::<Vec<_>>().join(" ")
    };
    writes.iter().map(line).collect()
}

/// Each of these with a connection of its own; then redtape ends.
fn recorded(server: &Server, dir: &Path, by: &[(&str, &[Args])]) {
    let mut redtape = Redtape::start(&server.url(), dir, &[]);
    for (name, writes) in by {
        let mut conn = named(&redtape.url(), name);
        for write in *writes {
            conn.call(write).expect("a reply");
        }
        // Effects of one connection have its order; of two, the journal's.
        redtape.wait_caught_up();
    }
    assert_eq!(redtape.terminate(), Some(0));
}

#[test]
fn fields_and_words() {
    let (server, journal) = (Server::start(), Dir::new("journal"));
    let dir = journal.path();
    let writes = [
        args!["HSET", "user:1", "name", "ann", "plan", "free"],
        args!["HSET", "user:1", "plan", "paid"],
        args!["HSET", "user:2", "plan", "name"],
        args!["HDEL", "user:2", "name"],
        args!["HSET", "user:1", &b"\xff\x00"[..], "binary"],
        args!["SADD", "tags", "name", "other"],
        args!["PEXPIREAT", "user:1", "99999999999999"],
        args!["HINCRBY", "user:1", "visits", 1],
        args!["SET", "note", &b"two words \xfe\x01 and name"[..]],
        args!["DEL", "user:1"],
        args!["FLUSHALL"],
    ];
    recorded(&server, dir, &[("app", &writes)]);

    let by_field = |more: &[&str]| commands(&log(dir, &[more, &["--db", "0", "--reverse"]].concat()));
    let of_user = by_field(&["--key", "user:1", "--field", "plan"]);
    let both = ["HSET user:1 name ann plan free", "HSET user:1 plan paid", "DEL user:1", "FLUSHALL"];
    assert_eq!(of_user, both);
    let binary = by_field(&["--key", "user:1", "--field", "\"\\xff\\x00\""]);
    assert_eq!(binary, ["HSET user:1 ? binary", "DEL user:1", "FLUSHALL"]);
    let several = by_field(&["--exact-key", "user:1", "--field", "visits", "--field", "name", "--command", "H*"]);
    assert_eq!(several, ["HSET user:1 name ann plan free", "HINCRBY user:1 visits 1"]);
    let of_some = by_field(&["--key-regex", "^(user|tags)", "--field", "name", "--command", "!flushall"]);
    assert_eq!(of_some, ["HSET user:1 name ann plan free", "SADD tags name other", "DEL user:1"]);
    let refused = run(&["log", "--from", path(dir), "--field", "plan"]);
    assert!(refused.code == Some(64) && refused.stderr.contains("add --key"), "{}", refused.stderr);

    for (pattern, count) in [
        ("plan", 3),
        ("^HSET user:. plan", 2),
        ("(?i)^hset", 4),
        (r"(?-u:\xfe)\x01", 1),
        (r#"note "two words \\xfe"#, 1),
        ("two words", 1),
        ("nowhere", 0),
    ] {
        assert_eq!(log(dir, &["--grep", pattern]).len(), count, "{pattern}");
    }
    assert_eq!(log(dir, &["--grep", "^SADD", "--grep", "^FLUSH"]).len(), 2);
    assert_eq!(log(dir, &["--grep", "plan", "--key", "user:1", "--client", "app", "--limit", "1"]).len(), 1);
    assert_eq!(log(dir, &["--grep", "plan", "--client", "!app"]).len(), 0);
    assert_eq!(run(&["log", "--from", path(dir), "--grep", "("]).code, Some(64));
}

#[test]
fn counts_are_those_of_the_log() {
    let (server, journal) = (Server::start(), Dir::new("journal"));
    let dir = journal.path();
    server.conn().must(&args!["ACL", "SETUSER", "alice", "on", ">secret", "~*", "&*", "+@all"]);
    let mut redtape = Redtape::start(&server.url(), dir, &["--segment-mib", "1"]);
    let mut random = StdRng::seed_from_u64(5);
    let mut alice = named(&redtape.url(), "billing");
    alice.must(&args!["AUTH", "alice", "secret"]);
    let mut conns =
        [alice, named(&redtape.url(), "it's"), Conn::open(&redtape.url()).expect("a client"), server.conn()];
    for n in 0..600 {
        let conn = &mut conns[random.random_range(0..4)];
        let mut value = vec![0; 5000];
        random.fill_bytes(&mut value);
        let user = random.random_range(0..9);
        conn.must(&match n % 10 {
            0 => args!["MSET", format!("user:{user}:x"), 1, format!("cart:{user}"), 2, "cart:", 3],
            1 => args!["SET", "plain", 1, "PX", 1],
            2 => args!["FLUSHDB"],
            3 => args!["HSET", &b"\xff:1"[..], "f", n],
            _ => args!["SET", format!("user:{user}:{n}"), &value[..]],
        });
    }
    // What has a TTL goes, and is found gone.
    std::thread::sleep(std::time::Duration::from_millis(300));
    redtape.wait_caught_up();

    let stats = |more: &[&str]| -> Json {
        let args = [&["log", "--json", "--from", path(dir), "--stats"], more].concat();
        let out = run(&args).expect_success(&args.join(" "));
        serde_json::from_str(&out.stdout).unwrap_or_else(|e| panic!("{e}: {}", out.stdout))
    };
    // Beside the writer, and at rest.
    for at_rest in [false, true] {
        if at_rest {
            assert_eq!(redtape.terminate(), Some(0));
        }
        let all = log(dir, &[]);
        let word = |write: &Json, name: &str| write["origin"][name].as_str().unwrap_or_default().to_owned();
        let client = |write: &Json| match (word(write, "name"), word(write, "addr"), word(write, "kind")) {
            (name, _, _) if !name.is_empty() => vec![name],
            (_, addr, _) if !addr.is_empty() => vec!["127.0.0.1".to_owned()],
            (_, _, kind) => vec![format!("({kind})")],
        };
        let user = |write: &Json| match (word(write, "user"), word(write, "kind")) {
            (user, _) if !user.is_empty() => vec![user],
            (_, kind) => vec![format!("({kind})")],
        };
        let command = |write: &Json| vec![write["args"][0].as_str().expect("a name").to_ascii_uppercase()];
        let prefix = |write: &Json| {
            let Some(keys) = write["keys"].as_array() else { return vec!["(every_key)".to_owned()] };
            let of = |key: &Json| match (key["key"].as_str(), key["key_base64"].as_str()) {
                (Some(key), _) => {
                    key.split_once(':').map_or("(no_prefix)".to_owned(), |(front, _)| format!("{front}:"))
                }
                (_, base64) => base64.map_or(String::new(), |_| "/zo=".to_owned()),
            };
            keys.iter().map(of).collect::<BTreeSet<_>>().into_iter().collect()
        };
        type Values<'a> = &'a dyn Fn(&Json) -> Vec<String>;
        for (by, values) in [("client", &client as Values), ("user", &user), ("command", &command), ("prefix", &prefix)]
        {
            let mut want: BTreeMap<String, (u64, i64, i64)> = BTreeMap::new();
            for write in &all {
                let ts = write["ts_us"].as_i64().expect("a time");
                for value in values(write) {
                    let row = want.entry(value).or_insert((0, ts, ts));
                    *row = (row.0 + 1, row.1.min(ts), row.2.max(ts));
                }
            }
            let found = stats(&[by]);
            let mut seen = BTreeMap::new();
            let mut before = u64::MAX;
            for row in found["rows"].as_array().expect("rows") {
                let value = match (row["value"].as_str(), row["value_base64"].as_str(), row["what"].as_str()) {
                    (Some(value), _, _) | (_, Some(value), _) => value.to_owned(),
                    (_, _, what) => format!("({})", what.expect("what it is")),
                };
                let number = |name: &str| row[name].as_i64().unwrap_or_else(|| panic!("{name}: {row}"));
                let writes = row["writes"].as_u64().expect("writes");
                assert!(writes <= before, "{found}");
                before = writes;
                let share = row["share"].as_f64().expect("a share");
                assert!((share - writes as f64 / all.len() as f64).abs() < 1e-9, "{row}");
                seen.insert(value, (writes, number("first_time_us"), number("last_time_us")));
            }
            assert_eq!(seen, want, "{by} (at rest: {at_rest})");
            assert!(want.len() >= 4 || by == "user", "{want:?}");
            assert_eq!((found["writes"].as_u64(), found["by"].as_str()), (Some(all.len() as u64), Some(by)));
            assert!(found["others"].is_null() && found["rows_left_out"] == 0);
        }
        // With filters, and with times that lie inside.
        let some = log(dir, &["--key", "cart:*", "--client", "billing"]);
        assert_eq!(stats(&["command", "--key", "cart:*", "--client", "billing"])["writes"], some.len());
        assert_eq!(stats(&["user", "--key", "plain"])["writes"], log(dir, &["--key", "plain"]).len());
        let (since, until) = (&all[400]["ts"], &all[100]["ts"]);
        let when = ["--since", since.as_str().unwrap(), "--until", until.as_str().unwrap()];
        let inside = log(dir, &when).len();
        assert!(inside > 200, "{inside}");
        assert_eq!(stats(&[&["client"], &when[..]].concat())["writes"], inside);
    }

    assert_eq!(stats(&["client", "--since", "latest"])["writes"], 0);
    let deeper = stats(&["prefix", "--depth", "2", "--limit", "6"]);
    assert_eq!((deeper["rows"].as_array().map(Vec::len), deeper["depth"].as_u64()), (Some(6), Some(2)));
    assert!(deeper["rows_left_out"].as_u64() > Some(5), "{deeper}");
    let values: Vec<&str> = deeper["rows"].as_array().unwrap().iter().filter_map(|row| row["value"].as_str()).collect();
    assert!(values.iter().any(|value| value.starts_with("user:") && value.matches(':').count() == 2), "{values:?}");

    let out = run(&["log", "--from", path(dir), "--stats", "client"]).expect_success("log --stats");
    println!("$ redtape log --stats client\n{}{}", out.stdout, out.stderr);
    let lines: Vec<&str> = out.stdout.lines().collect();
    assert!(lines[0].trim_start().starts_with("writes") && lines[0].ends_with("  client"), "{}", out.stdout);
    assert!(
        lines.iter().any(|line| line.ends_with("Z  billing"))
            && lines.iter().any(|line| line.ends_with(r#""it\x27s""#))
    );
    assert!(out.stderr.contains(" writes; read "), "{}", out.stderr);
    for (wrong, said) in [
        (&["--stats", "client", "--reverse"][..], "cannot be used with"),
        (&["--depth", "2"], "--stats"),
        (&["--stats", "key"], "prefix"),
        (&["--stats", "prefix", "--depth", "0"], "from 1 on"),
    ] {
        let out = run(&[&["log", "--from", path(dir)], wrong].concat());
        assert!(out.code == Some(64) && out.stderr.contains(said), "{wrong:?}: {}", out.stderr);
    }
}

/// What follows from damage in the middle is the same as for the log: it is told, and the rest is counted.
#[test]
fn counts_beside_damage_are_those_of_the_log() {
    let (server, journal) = (Server::start(), Dir::new("journal"));
    let mut redtape = Redtape::start(&server.url(), journal.path(), &["--segment-mib", "1"]);
    let mut conn = named(&redtape.url(), "app");
    let mut random = StdRng::seed_from_u64(9);
    for n in 0..600 {
        let mut value = vec![0; 8000];
        random.fill_bytes(&mut value);
        conn.must(&args!["SET", format!("k:{n}"), &value[..]]);
    }
    redtape.wait_caught_up();
    assert_eq!(redtape.terminate(), Some(0));
    let mut segments: Vec<_> = std::fs::read_dir(journal.join("segments")).expect("segments").flatten().collect();
    segments.sort_by_key(std::fs::DirEntry::file_name);
    assert!(segments.len() > 3, "{segments:?}");
    let damaged = segments[segments.len() / 2].path();
    let mut content = std::fs::read(&damaged).expect("a segment");
    let middle = content.len() / 2;
    content[middle] ^= 0x10;
    std::fs::write(&damaged, content).expect("the segment");
    let ask = |more: &[&str]| run(&[&["log", "--json", "--from", path(journal.path())], more].concat());
    let (lines, counted) = (ask(&[]), ask(&["--stats", "client"]));
    assert_eq!((lines.code, counted.code), (Some(65), Some(65)), "{}{}", lines.stderr, counted.stderr);
    let counted: Json = serde_json::from_str(&counted.stdout).expect("JSON");
    let shown = lines.stdout.lines().count();
    assert!(shown > 300 && shown < 600, "{shown}");
    assert_eq!(counted["writes"], shown);
}

const KEYS: [&str; 5] = ["a", "b", "c", "d", "e"];
const DBS: [u64; 2] = [0, 1];

type Name = (u64, String);

/// One random write of a kind of which [`moved`] and [`touches`] know all.
fn any_write(random: &mut StdRng) -> Args {
    let mut key = || KEYS[random.random_range(0..KEYS.len())];
    let (one, two) = (key(), key());
    match random.random_range(0..100) {
        0..30 => args!["SET", one, random.random_range(0..1000)],
        30..45 => args!["RENAME", one, two],
        45..50 => args!["RENAMENX", one, two],
        50..60 => args!["COPY", one, two, "REPLACE"],
        60..66 => args!["COPY", one, two, "DB", random.random_range(0..2)],
        66..76 => args!["MOVE", one, random.random_range(0..2)],
        76..92 => args!["APPEND", one, "x"],
        92..96 => args!["DEL", one, two],
        96..98 => args!["SWAPDB", 0, 1],
        98 => args!["FLUSHDB"],
        _ => args!["FLUSHALL"],
    }
}

fn words(write: &Json) -> Vec<String> {
    write["args"].as_array().expect("arguments").iter().map(|arg| arg.as_str().expect("text").to_owned()).collect()
}

/// Where the value of a name went by this write, if it did.
fn moved(write: &Json, (db, key): &Name) -> Vec<Name> {
    let args = words(write);
    let here = write["db"].as_u64().expect("a database");
    let number = |at: usize| args[at].parse::<u64>().expect("a database");
    let is_source = here == *db && args.get(1) == Some(key);
    match args[0].to_ascii_uppercase().as_str() {
        "RENAME" | "RENAMENX" if is_source => vec![(here, args[2].clone())],
        "COPY" if is_source => {
            let to = args.iter().position(|arg| arg.eq_ignore_ascii_case("db")).map_or(here, |at| number(at + 1));
            vec![(to, args[2].clone())]
        }
        "MOVE" if is_source => vec![(number(2), key.clone())],
        "SWAPDB" if number(1) == *db => vec![(number(2), key.clone())],
        "SWAPDB" if number(2) == *db => vec![(number(1), key.clone())],
        _ => vec![],
    }
}

fn touches(write: &Json, name: &Name) -> bool {
    let args = words(write);
    let here = write["db"].as_u64().expect("a database");
    let number = |at: usize| args[at].parse::<u64>().expect("a database");
    let is = |db: u64, key: &String| (db, key) == (name.0, &name.1);
    match args[0].to_ascii_uppercase().as_str() {
        "FLUSHALL" => true,
        "FLUSHDB" => name.0 == here,
        "SWAPDB" => number(1) == name.0 || number(2) == name.0,
        "MOVE" => is(here, &args[1]) || is(number(2), &args[1]),
        "COPY" => {
            is(here, &args[1])
                || KEYS.contains(&args[2].as_str()) && {
                    let to =
                        args.iter().position(|arg| arg.eq_ignore_ascii_case("db")).map_or(here, |at| number(at + 1));
                    is(to, &args[2])
                }
        }
        "RENAME" | "RENAMENX" | "DEL" | "UNLINK" => args[1..].iter().any(|key| is(here, key)),
        _ => is(here, &args[1]),
    }
}

/// The writes to what the wanted name holds in the end. Defined forwards, as the log looks backwards: a name counts at a write if it
/// is the wanted one, or if this write or a later one gives its value to a name that counts there.
fn lineage(writes: &[Json], wanted: &Name) -> Vec<u64> {
    let names: Vec<Name> = DBS.iter().flat_map(|db| KEYS.map(|key| (*db, key.to_owned()))).collect();
    let mut counts: BTreeSet<Name> = BTreeSet::from([wanted.clone()]);
    let mut at_each = Vec::new();
    // `writes` are the oldest first; what counts at one includes what counts behind it.
    for write in writes.iter().rev() {
        let sources = names.iter().filter(|name| moved(write, name).iter().any(|to| counts.contains(to)));
        let sources: Vec<Name> = sources.cloned().collect();
        counts.extend(sources);
        at_each.push(counts.clone());
    }
    at_each.reverse();
    let is_wanted = |(write, counts): &(&Json, BTreeSet<Name>)| counts.iter().any(|name| touches(write, name));
    writes.iter().zip(at_each).filter(is_wanted).map(|(write, _)| write["lsn"].as_u64().expect("an LSN")).collect()
}

#[test]
fn keys_are_followed_through_their_names() {
    let seed = seed();
    let mut random = StdRng::seed_from_u64(seed);
    let (server, journal) = (Server::start(), Dir::new("journal"));
    let dir = journal.path();
    let mut redtape = Redtape::start(&server.url(), dir, &[]);
    let mut conn = named(&redtape.url(), "app");
    // Nothing leads from here to there: an own key beside them, and rounds that end with everything gone.
    for _ in 0..40 {
        for _ in 0..25 {
            conn.must(&args!["SELECT", random.random_range(0..2)]);
            conn.call(&any_write(&mut random)).expect("a reply");
        }
    }
    for write in [
        args!["SELECT", 0],
        args!["FLUSHALL"],
        args!["SET", "draft", "1"],
        args!["RENAME", "draft", "final"],
        args!["SET", "draft", "of another"],
        args!["SET", "final", "2"],
    ] {
        conn.must(&write);
    }
    redtape.wait_caught_up();
    assert_eq!(redtape.terminate(), Some(0));

    let all = log(dir, &["--reverse"]);
    let mut more = 0;
    for (db, key) in [(0, "a"), (0, "b"), (1, "c"), (1, "d"), (0, "e")] {
        let number = db.to_string();
        let asked = ["--key", key, "--db", &number];
        // In the end, and as the names were in the middle.
        for upto in [all.len(), all.len() / 2, all.len() / 4] {
            let until = format!("lsn:{}", all[upto - 1]["lsn"]);
            let asked = [&asked[..], &["--until", &until]].concat();
            let want = lineage(&all[..upto], &(db, key.to_owned()));
            let oldest_first = lsns(&log(dir, &[&asked[..], &["--through-renames", "--reverse"]].concat()));
            assert_eq!(oldest_first, want, "{key} of db {db} up to {until} (seed {seed})");
            let newest_first: Vec<u64> = want.iter().rev().copied().collect();
            assert_eq!(lsns(&log(dir, &[&asked[..], &["--through-renames"]].concat())), newest_first);
            let some = log(dir, &[&asked[..], &["--through-renames", "--limit", "7"]].concat());
            assert_eq!(lsns(&some), newest_first[..newest_first.len().min(7)]);
            let plain = lsns(&log(dir, &[&asked[..], &["--reverse"]].concat()));
            assert!(plain.iter().all(|lsn| want.contains(lsn)), "nothing is hidden by it");
            more += want.len() - plain.len();
        }
    }
    assert!(more > 100, "names were followed: {more}");

    // Each line says under which name.
    let out = run(&["log", "--from", path(dir), "--key", "final", "--db", "0", "--through-renames", "--limit", "4"]);
    let out = out.expect_success("log");
    println!("{}{}", out.stdout, out.stderr);
    let lines: Vec<&str> = out.stdout.lines().filter(|line| !line.starts_with(' ')).collect();
    assert_eq!(lines.len(), 4, "{}", out.stdout);
    for (line, said) in lines.iter().zip([" final set ", "final renamed from draft", " draft set ", "flushed"]) {
        assert!(line.contains(said), "{said}: {line}");
    }
    assert!(!out.stdout.contains("of another"), "{}", out.stdout);
    for refused in [&["--key", "a*"][..], &[], &["--key-regex", "a"]] {
        let refused = run(&[&["log", "--from", path(dir), "--through-renames"], refused].concat());
        assert!(refused.code == Some(64) && refused.stderr.contains("add --exact-key"), "{}", refused.stderr);
    }
    println!("seed {seed}");
}

/// The lines under writes, without what leads to them.
fn hints(text: &str) -> Vec<&str> {
    text.lines()
        .filter_map(|line| line.trim_start().strip_prefix("to bring ")?.split_once(" back: "))
        .map(|(_, hint)| hint)
        .collect()
}

#[test]
fn what_a_write_took_can_be_pasted_back() {
    let (server, journal) = (Server::start(), Dir::new("journal"));
    let dir = journal.path();
    let keys: [&[u8]; 4] = [b"plain", b"it's two words", b"\xff\x00k", b"$HOME*"];
    let mut sets: Vec<Args> = keys.iter().map(|key| args!["SET", *key, "value"]).collect();
    sets.extend([args!["SET", "other", 1], args!["SET", "new", 2]]);
    let deletes: Vec<Args> = keys.iter().map(|key| args!["DEL", *key]).collect();
    let rename = [args!["RENAME", "new", "other"]];
    let flush = [args!["SELECT", 3], args!["SET", "x", 1], args!["FLUSHDB"], args!["SET", "y", 1], args!["FLUSHALL"]];
    let swap = [args!["SWAPDB", 0, 1]];
    recorded(
        &server,
        dir,
        &[("app", &sets), ("cleanup", &deletes), ("job", &rename), ("intern", &flush), ("op", &swap)],
    );

    let all = log(dir, &["--reverse"]);
    let lsn_of = |command: &str| {
        let found = all.iter().find(|write| write["args"][0].as_str().is_some_and(|name| name == command));
        found.unwrap_or_else(|| panic!("no {command}"))["lsn"].as_u64().expect("an LSN")
    };
    let (del, rename, flushdb) = (lsn_of("DEL"), lsn_of("RENAME"), lsn_of("FLUSHDB"));
    let (flushall, swapdb) = (lsn_of("FLUSHALL"), lsn_of("SWAPDB"));
    let from = format!("--from {}", path(dir));
    let newest = run(&["log", "--from", path(dir)]).expect_success("log").stdout;
    println!("$ redtape log --from {}\n{newest}", path(dir));
    let all_deletes = format!("redtape undo lsn:{del}..{} {from} --to URL  # or: redtape restore", del + 3);
    let undo = |lsn: u64| format!("redtape undo lsn:{lsn} {from} --to URL");
    for order in [&newest, &run(&["log", "--reverse", "--from", path(dir)]).expect_success("log").stdout] {
        let mut found = hints(order);
        found.sort_by_key(|line| {
            line.split(' ').nth(2).and_then(|lsns| lsns[4..].split('.').next()?.parse::<u64>().ok())
        });
        assert_eq!(found.len(), 5, "{order}");
        assert!(found[0].starts_with(&all_deletes), "{}", found[0]);
        let restore =
            |words: &str, lsn: u64| format!("  # or: redtape restore {from} --before lsn:{lsn} {words} --to URL");
        assert_eq!(found[1], undo(rename) + &restore("--db 0 --exact-key other --on-conflict rename", rename));
        assert_eq!(found[2], undo(flushdb) + &restore("--db 3 --on-conflict merge", flushdb));
        assert_eq!(found[3], undo(flushall) + &restore("--on-conflict merge", flushall));
        assert_eq!(found[4], undo(swapdb));
    }
    // Under the last of the deletes, and before the next write.
    let lines: Vec<&str> = newest.lines().collect();
    let at = lines.iter().position(|line| line.contains(&all_deletes)).expect("the hint");
    assert!(
        lines[at].contains("to bring them back: ") && newest.matches("to bring it back: ").count() == 4,
        "{newest}"
    );
    assert!(lines[at - 1].contains("DEL plain") && lines[at + 1].contains("SET new 2"), "{newest}");

    // For machines, with each write.
    let json = log(dir, &["--command", "DEL", "--command", "SET"]);
    let one = &json.iter().find(|write| write["lsn"] == del).expect("the first DEL");
    assert_eq!(one["undo"], undo(del));
    assert_eq!(
        one["restore"],
        format!("redtape restore {from} --before lsn:{del} --db 0 --exact-key plain --on-conflict skip --to URL")
    );
    assert!(json.iter().filter(|write| write["args"][0] == "SET").all(|write| write["undo"].is_null()));

    // What the filters hide between the deletes is not brought back with them.
    let some = run(&["log", "--from", path(dir), "--key", "[pi$]*", "--command", "!RENAME", "--limit", "6"]);
    let some = some.expect_success("log").stdout;
    let hint = hints(&some).into_iter().find(|line| line.contains("..")).unwrap_or_else(|| panic!("{some}"));
    let words = format!("redtape undo lsn:{del}..{} {from} --db 0 --exact-key ", del + 3);
    assert!(hint.starts_with(&words) && hint.contains(" --command '!RENAME' --to URL  # or"), "{hint}");
    assert!(!hint.contains("\\xff"), "{hint}");
    let grepped = run(&["log", "--from", path(dir), "--grep", "^DEL (plain|.HOME)"]).expect_success("log").stdout;
    assert_eq!(hints(&grepped).len(), 2, "{grepped}");

    pasted_into_a_shell(&newest, &all_deletes, &keys);
}

/// The restore of the hint, as a shell reads it.
fn pasted_into_a_shell(text: &str, hint: &str, keys: &[&[u8]]) {
    let target = Server::start();
    let line = hints(text).into_iter().find(|line| line.starts_with(hint)).expect("the hint");
    let (_, restore) = line.split_once("  # or: redtape ").expect("a restore");
    let line = format!("'{BINARY}' {} --yes", restore.replace("--to URL", &format!("--to {}", target.url())));
    let state = Dir::new("state");
    let mut shell = std::process::Command::new("bash");
    shell.args(["-c", &line]).env("XDG_STATE_HOME", state.path());
    if let Some(server) = std::env::var_os("REDTAPE_TEST_SERVER") {
        shell.env("REDTAPE_SERVER_BIN", server);
    }
    let out = shell.output().expect("bash");
    assert!(out.status.success(), "{line}\n{}", String::from_utf8_lossy(&out.stderr));
    let mut conn = target.conn();
    for key in keys {
        assert_eq!(bytes(&conn.must(&args!["GET", *key])), b"value", "{}", String::from_utf8_lossy(key));
    }
    assert_eq!(conn.must(&args!["DBSIZE"]), conn.must(&args!["EXISTS", keys[0], keys[1], keys[2], keys[3]]));
}
