//! `redtape snapshot report`: what it says of keys is what the server says of them, of the newest base and of any moment; what cannot be
//! is said.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::{Value as Json, json};

use crate::harness::conn::{Args, int, text};
use crate::harness::redtape::{Outcome, run};
use crate::harness::server::Version;
use crate::harness::{Conn, Dir, Redtape, Server};

/// By so much the estimate of memory may be off: a share of what the server says, and bytes of each key.
const OFF_BY: f64 = 0.25;
const OFF_BY_BYTES: f64 = 16.0;

fn plain(path: &Path) -> &str {
    path.to_str().expect("a plain path")
}

fn report(journal: &Dir, more: &[&str]) -> Outcome {
    run(&[&["snapshot", "report", "--from", plain(journal.path())], more].concat())
}

fn object(journal: &Dir, more: &[&str]) -> Json {
    let found = report(journal, &[&["--json"], more].concat()).expect_success("a report");
    serde_json::from_str(&found.stdout).expect("an object")
}

/// The lines of CSV without its header, split; no key of these tests holds a comma.
fn lines(journal: &Dir, more: &[&str]) -> Vec<Vec<String>> {
    let found = report(journal, &[&["--csv"], more].concat()).expect_success("CSV");
    let mut lines = found.stdout.lines();
    assert_eq!(
        lines.next(),
        Some("database,type,key,size_in_bytes,encoding,num_elements,len_largest_element,expiry,serialized_bytes")
    );
    lines.map(|line| line.split(',').map(str::to_owned).collect()).collect()
}

/// A base of the server as it is, and the end of the recording.
fn recorded(server: &Server) -> Dir {
    let journal = Dir::new("journal");
    let mut redtape = Redtape::start(&server.url(), journal.path(), &[]);
    redtape.wait_caught_up();
    assert_eq!(redtape.terminate(), Some(0));
    journal
}

fn add_all(conn: &mut Conn, command: &str, key: &str, elements: usize, element: impl Fn(usize) -> Vec<String>) {
    for from in (0..elements).step_by(500) {
        let mut args = args![command, key];
        (from..elements.min(from + 500)).flat_map(&element).for_each(|word| args.push(word));
        conn.must(&args);
    }
}

/// Values of every type and encoding, small and large.
fn fill(conn: &mut Conn) {
    let long_name = "n".repeat(100);
    for (name, len) in
        [("s:a", 1), ("s:b", 20), ("s:c", 100), ("s:d", 1000), ("s:e", 200_000), (long_name.as_str(), 500)]
    {
        conn.must(&args!["SET", name, "v".repeat(len)]);
    }
    conn.must(&args!["SET", "s:int", "123456789012345678"]);
    conn.must(&args!["SET", "s:ttl", "soon", "PX", 5_000_000]);
    for (size, len) in [(10, 8), (60, 10), (60, 30), (3000, 10), (1000, 70)] {
        let word = |n: usize| format!("{n:0len$}x");
        let name = |kind: &str| format!("{kind}:{size}:{len}");
        add_all(conn, "RPUSH", &name("list"), size, |n| vec![word(n)]);
        add_all(conn, "SADD", &name("set"), size, |n| vec![word(n)]);
        add_all(conn, "SADD", &name("numbers"), size, |n| vec![(n * 7).to_string()]);
        add_all(conn, "ZADD", &name("zset"), size, |n| vec![format!("{n}.5"), word(n)]);
        add_all(conn, "HSET", &name("hash"), size, |n| vec![format!("f{n}"), word(n)]);
        for n in 0..size {
            conn.must(&args!["XADD", name("stream"), format!("{}-1", n + 1), "sensor", "12345", "temp", word(n)]);
        }
    }
    add_all(conn, "RPUSH", "list:long", 20, |_| vec!["x".repeat(20_000)]);
    add_all(conn, "HSET", "hash:long", 20, |n| vec![format!("f{n}"), "v".repeat(2000)]);
    conn.must(&args!["XGROUP", "CREATE", "stream:1000:70", "readers", "0"]);
    conn.must(&args!["XREADGROUP", "GROUP", "readers", "alice", "COUNT", 300, "STREAMS", "stream:1000:70", ">"]);
    if Version::tested().at_least((7, 4), (9, 0)) {
        for hash in ["hash:60:10", "hash:1000:70"] {
            conn.must(&args!["HPEXPIRE", hash, 100_000_000, "FIELDS", 2, "f1", "f2"]);
        }
    }
    conn.must(&args!["SELECT", 5]);
    conn.must(&args!["SET", "in:five", "v"]);
    conn.must(&args!["SELECT", 0]);
}

/// How many elements the server counts; of a string its length.
fn elements(conn: &mut Conn, of: &str, key: &str) -> i64 {
    let command = match of {
        "string" => "STRLEN",
        "list" => "LLEN",
        "set" => "SCARD",
        "zset" => "ZCARD",
        "hash" => "HLEN",
        _ => "XLEN",
    };
    int(&conn.must(&args![command, key]))
}

#[test]
fn every_key_is_what_the_server_says() {
    let server = Server::start();
    let mut conn = server.conn();
    fill(&mut conn);
    // As a server holds it that has loaded it: without spare room from writes.
    conn.must(&args!["DEBUG", "RELOAD"]);
    let journal = recorded(&server);
    let all = lines(&journal, &[]);
    let keys: i64 = [5, 0]
        .into_iter()
        .map(|db| {
            conn.must(&args!["SELECT", db]);
            int(&conn.must(&args!["DBSIZE"]))
        })
        .sum();
    assert_eq!(all.len() as i64, keys);
    let (mut worst, mut by_encoding) = (0.0_f64, BTreeMap::<(String, String), Vec<f64>>::new());
    for line in &all {
        let [db, of, key, memory, encoding, count, largest, expiry, serialized] = &line[..] else { panic!("{line:?}") };
        conn.must(&args!["SELECT", db.as_str()]);
        assert_eq!(text(&conn.must(&args!["TYPE", key.as_str()])), *of, "{key}");
        assert_eq!(text(&conn.must(&args!["OBJECT", "ENCODING", key.as_str()])), *encoding, "{key}");
        assert_eq!(elements(&mut conn, of, key).to_string(), *count, "{key}");
        assert_eq!(largest.is_empty(), of == "stream", "{key}");
        assert_eq!(expiry.is_empty(), int(&conn.must(&args!["PTTL", key.as_str()])) < 0, "{key}");
        // Type, key and value; long names are compressed.
        assert!(serialized.parse::<u64>().expect("a number") > 3, "{line:?}");
        let used = int(&conn.must(&args!["MEMORY", "USAGE", key.as_str(), "SAMPLES", 0])) as f64;
        let estimate: f64 = memory.parse().expect("a number");
        // Valkey 8.1 does not count a key's name (tried on 8.1.1).
        let tested = Version::tested();
        let name = if tested.valkey && (tested.major, tested.minor) == (8, 1) { key.len() as f64 + 40.0 } else { 0.0 };
        assert!(
            estimate >= used * (1.0 - OFF_BY) - OFF_BY_BYTES && estimate <= used * (1.0 + OFF_BY) + OFF_BY_BYTES + name,
            "{key} ({encoding}): {estimate} estimated, the server says {used}"
        );
        let off = (estimate - used) / used;
        worst = worst.max(off.abs());
        by_encoding.entry((of.clone(), encoding.clone())).or_default().push(off);
    }
    for (what, off) in &by_encoding {
        let mean = 100.0 * off.iter().sum::<f64>() / off.len() as f64;
        println!("{what:?}: {} keys, off by {mean:+.1} % on average", off.len());
    }
    println!("off by {:.0} % at most", worst * 100.0);

    let found = object(&journal, &["--top", "3", "--depth", "2"]);
    assert_eq!((&found["all"]["keys"], &found["source"]), (&json!(keys), &json!("base")));
    let sum = |column: usize| all.iter().map(|line| line[column].parse::<u64>().expect("a number")).sum::<u64>();
    assert_eq!(found["all"]["memory_bytes"], sum(3));
    assert_eq!(found["all"]["serialized_bytes"], sum(8));
    assert!(found["used_memory_bytes"].as_u64() > found["all"]["serialized_bytes"].as_u64(), "{found}");
    let dbs: Vec<_> = found["databases"].as_array().unwrap().iter().map(|row| (&row["db"], &row["keys"])).collect();
    assert_eq!(dbs, [(&json!(0), &json!(keys - 1)), (&json!(5), &json!(1))]);
    for list in ["types", "encodings", "databases"] {
        let rows = found[list].as_array().unwrap();
        assert_eq!(rows.iter().map(|row| row["memory_bytes"].as_u64().unwrap()).sum::<u64>(), sum(3), "{list}");
    }
    let classes = found["ttl"]["classes"].as_array().unwrap();
    let living: Vec<_> = classes.iter().filter(|class| class["keys"] != 0).map(|class| &class["class"]).collect();
    assert_eq!((living, &found["ttl"]["never"]["keys"]), (vec![&json!("day")], &json!(keys - 1)));
    // The biggest ones.
    let mut sizes: Vec<u64> = all.iter().map(|line| line[3].parse().unwrap()).collect();
    sizes.sort_unstable_by(|a, b| b.cmp(a));
    let biggest: Vec<u64> =
        found["biggest"].as_array().unwrap().iter().map(|key| key["memory_bytes"].as_u64().unwrap()).collect();
    assert_eq!(biggest, sizes[..3]);
    let of_top: Vec<u64> = lines(&journal, &["--top", "3"]).iter().map(|line| line[3].parse().unwrap()).collect();
    assert_eq!(of_top, biggest);
    let rows = found["prefixes"]["rows"].as_array().unwrap();
    let two_deep = |row: &Json| row["prefix"].as_str().is_some_and(|prefix| prefix.matches(':').count() == 2);
    assert!(rows.len() == 3 && rows.iter().any(two_deep), "{rows:?}");
    assert_eq!((&found["prefixes"]["none"]["keys"], &found["prefixes"]["exact"]), (&json!(1), &json!(true)));
}

#[test]
fn a_moment_and_some_keys_of_it() {
    let (server, journal) = (Server::start(), Dir::new("journal"));
    server.conn().must(&args!["MSET", "user:1", "a", "user:2", "b", "other", "c"]);
    let mut redtape = Redtape::start(&server.url(), journal.path(), &[]);
    let by = |redtape: &mut Redtape, commands: &[Args]| {
        let mut conn = Conn::open(&redtape.url()).expect("a client");
        commands.iter().for_each(|command| drop(conn.must(command)));
        redtape.wait_caught_up();
    };
    by(&mut redtape, &[args!["SET", "user:3", "d", "PX", 3_000_000], args!["DEL", "other"]]);
    by(&mut redtape, &[args!["SADD", "tags:1", "x", "y"], args!["SET", &b"\xff:k"[..], "binary"]]);
    if Version::tested().at_least((7, 0), (0, 0)) {
        let code = "#!lua name=l\nredis.register_function('f', function() return 1 end)";
        by(&mut redtape, &[args!["FUNCTION", "LOAD", code]]);
    }
    assert_eq!(redtape.terminate(), Some(0));

    let keys = |more: &[&str]| {
        let mut keys: Vec<String> = lines(&journal, more).into_iter().map(|line| line[2].clone()).collect();
        keys.sort();
        keys
    };
    assert_eq!(keys(&[]), ["other", "user:1", "user:2"], "the base as it is");
    assert_eq!(keys(&["--at", "lsn:2"]), ["user:1", "user:2", "user:3"]);
    assert_eq!(keys(&["--before", "lsn:2"]), ["other", "user:1", "user:2", "user:3"]);
    assert_eq!(keys(&["--at", "latest", "--key", "user:*", "--exclude-key", "*:1"]), ["user:2", "user:3"]);
    assert_eq!(keys(&["--at", "latest", "--type", "set"]), ["tags:1"]);
    assert_eq!(keys(&["--type", "string", "--key", "user:*"]), ["user:1", "user:2"]);
    assert_eq!(keys(&["--at", "latest", "--db", "3"]), [""; 0]);

    let found = object(&journal, &["--at", "latest"]);
    assert_eq!((&found["source"], &found["all"]["keys"]), (&json!("rebuilt"), &json!(5)));
    assert_eq!((&found["used_memory_bytes"], &found["base"]["lsn"]), (&Json::Null, &json!(0)));
    assert!(found["point"]["lsn"].as_u64().unwrap() >= 4, "{found}");
    assert_eq!(found["libraries"]["count"], u64::from(Version::tested().at_least((7, 0), (0, 0))));
    let hour = found["ttl"]["classes"].as_array().unwrap().iter().find(|class| class["class"] == "hour").unwrap();
    assert_eq!((&hour["keys"], &found["ttl"]["never"]["keys"]), (&json!(1), &json!(4)));
    let binary = found["biggest"].as_array().unwrap().iter().find(|key| key["key_base64"] == "/zpr");
    assert!(binary.is_some_and(|key| key["type"] == "string" && key["elements"] == 6), "{found}");
    assert!(object(&journal, &["--key", "user:*"])["libraries"].is_null());

    let shown = report(&journal, &["--at", "latest", "--separator", "r", "--top", "1"]).expect_success("text").stdout;
    for part in
        ["dataset at ", "5 keys, 1 with a TTL: about ", "set     ", "use", "(keys without \"r\")", "biggest keys"]
    {
        assert!(shown.contains(part), "{part:?} is not in: {shown}");
    }
    assert!(shown.lines().skip(1).all(|line| line.chars().count() <= 100), "{shown}");
    assert!(report(&journal, &[]).stdout.starts_with("base of "), "{shown}");
}

/// Ended with this code, and a message with these words.
#[track_caller]
fn ended(outcome: &Outcome, code: i32, words: &str) {
    assert_eq!(outcome.code, Some(code), "{outcome:?}");
    assert!(outcome.stderr.contains(words), "{words:?} is not in: {}", outcome.stderr);
    assert_eq!(outcome.stdout, "");
}

#[test]
fn what_cannot_be_is_said() {
    let empty = Dir::new("journal");
    ended(&report(&empty, &[]), 65, "no journal");
    let keys = Dir::new("keys");
    let key_file = keys.join("keys");
    run(&["journal", "keygen", "--id", "one", plain(&key_file)]).expect_success("a key");
    let (server, journal) = (Server::start(), Dir::new("journal"));
    server.conn().must(&args!["SET", "k", "v"]);
    let with_key = ["--journal-key-file", plain(&key_file)];
    let mut redtape = Redtape::start(&server.url(), journal.path(), &with_key);
    redtape.wait_caught_up();
    assert_eq!(redtape.terminate(), Some(0));
    ended(&report(&journal, &[]), 77, "key");
    assert!(report(&journal, &with_key).expect_success("with its key").stdout.contains("1 key, 0 with a TTL"));
    for (more, code, words) in [
        (&["--at", "mark:none"][..], 66, "no mark"),
        (&["--at", "2020-01-01"], 66, "Restorable"),
        (&["--at", "latest", "--before", "latest"], 64, "cannot be used with"),
        (&["--json", "--csv"], 64, "cannot be used with"),
        (&["--separator", "::"], 64, "one character"),
        (&["--depth", "0"], 64, "from 1 on"),
        (&["--top", "10001"], 64, "up to 10000"),
        (&["--key-regex", "("], 64, "--key-regex cannot be used"),
    ] {
        ended(&report(&journal, &[&with_key, more].concat()), code, words);
    }

    // A base of which a byte is another one.
    let journal = recorded(&server);
    let is_base = |path: &std::path::PathBuf| path.extension().is_some_and(|extension| extension == "rdb");
    let mut bases = fs::read_dir(journal.join("snapshots")).expect("a folder").map(|file| file.expect("a file").path());
    let base = bases.find(is_base).expect("a base");
    let mut content = fs::read(&base).expect("its bytes");
    let middle = content.len() / 2;
    content[middle] ^= 1;
    fs::write(&base, content).expect("written");
    let damaged = report(&journal, &[]);
    assert_eq!(damaged.code, Some(65), "{damaged:?}");
    assert!(damaged.stderr.contains("is damaged"), "{damaged:?}");
}
