//! `redtape diff`: what is not the same at two points in time, of each type, and who made it so.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::harness::conn::{Conn, int, items};
use crate::harness::redtape::{BINARY, Outcome, run};
use crate::harness::{Args, Dir, Redtape, Server, env_number, rfc3339, wait_for};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use redtape_journal::{
    BlockBuilder, GroupRef, Journal, Keyring, KeysAt, Lsn, Micros, OpenOptions, Origin, OriginKind, RecordRef,
    ReplOffset, SnapshotKind, SnapshotManifest, SnapshotWriter, SyncPolicy, TimelineId, TimelineStart,
};
use serde_json::{Value as Json, json};

struct Recorded {
    server: Server,
    redtape: Redtape,
    dir: Dir,
}

impl Recorded {
    fn start() -> Self {
        let (server, dir) = (Server::start(), Dir::new("journal"));
        let redtape = Redtape::start(&server.url(), dir.path(), &[]);
        Self { server, redtape, dir }
    }

    /// Runs commands as a client of this name; gives the last LSN behind them.
    fn by(&mut self, name: &str, commands: &[Args]) -> String {
        let mut conn = Conn::open(&self.redtape.url()).expect("a client");
        conn.must(&args!["CLIENT", "SETNAME", name]);
        commands.iter().for_each(|command| drop(conn.must(command)));
        self.redtape.wait_caught_up();
        format!("lsn:{}", int(&items(&conn.must(&args!["REDTAPE.LSN"]))[1]))
    }

    fn diff(&self, args: &[&str]) -> Outcome {
        run(&[&["diff", "--dir", self.dir.path().to_str().expect("a plain name")], args].concat())
    }

    fn text(&self, args: &[&str]) -> String {
        self.diff(args).expect_success("a diff").stdout
    }

    /// Keys by their names, and the summary.
    fn json(&self, args: &[&str]) -> (Vec<Json>, Json) {
        let stdout = self.text(&[args, &["--json"]].concat());
        let mut lines: Vec<Json> = stdout.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        let summary = lines.pop().expect("a summary");
        lines.sort_by_key(|line| line["key"].as_str().map(str::to_owned));
        lines.iter().for_each(has_the_shape_of_a_key);
        assert_eq!(summary["what"], "summary");
        (lines, summary)
    }
}

/// The contract of `docs/json.md`: these fields, of these kinds.
fn has_the_shape_of_a_key(line: &Json) {
    let is = |value: &Json, kind: &str| match kind {
        "text" => value.is_string(),
        "number" => value.is_u64(),
        "flag" => value.is_boolean(),
        "list" => value.is_array(),
        "object or null" => value.is_object() || value.is_null(),
        kind => panic!("{kind}"),
    };
    for (name, kind) in [
        ("what", "text"),
        ("db", "number"),
        ("value_differs", "flag"),
        ("ttl_differs", "flag"),
        ("before", "object or null"),
        ("after", "object or null"),
        ("added", "number"),
        ("removed", "number"),
        ("changed", "number"),
        ("elements", "list"),
        ("more", "number"),
    ] {
        assert!(is(&line[name], kind), "{name} is a {kind}: {line}");
    }
    assert!(line["key"].is_string() || line["key_base64"].is_string(), "{line}");
    for held in [&line["before"], &line["after"]].into_iter().filter(|held| held.is_object()) {
        assert!(held["type"].is_string() && held["size"].is_u64(), "{line}");
        assert!(held["expires"].is_null() || held["expires"]["time_us"].is_i64(), "{line}");
    }
    let mut writes = vec![&line["last_write"], &line["ttl_write"]];
    for element in line["elements"].as_array().expect("a list") {
        assert!(element["what"].is_string(), "{line}");
        writes.push(&element["last_write"]);
    }
    for write in writes.into_iter().filter(|write| write.is_object()) {
        assert!(write["lsn"].is_u64() && write["certain"].is_boolean(), "{line}");
        assert!(
            write["certain"] == false || write["time"].is_string() && write["origin"]["kind"].is_string(),
            "{line}"
        );
    }
}

fn of<'a>(lines: &'a [Json], key: &str) -> &'a Json {
    lines.iter().find(|line| line["key"] == key).unwrap_or_else(|| panic!("{key}: {lines:?}"))
}

/// What became of each element, and the client who made it so.
fn elements(line: &Json) -> Vec<(String, String)> {
    let one = |element: &Json| {
        let name = ["field", "member", "id", "group"].iter().find_map(|name| element[*name].as_str());
        let name = name.map_or_else(|| element["index"].to_string(), str::to_owned);
        let who = element["last_write"]["origin"]["name"].as_str().unwrap_or("-");
        (format!("{} {name}", element["what"].as_str().expect("what")), who.to_owned())
    };
    line["elements"].as_array().expect("a list").iter().map(one).collect()
}

fn pairs(all: &[(&str, &str)]) -> Vec<(String, String)> {
    all.iter().map(|(one, other)| ((*one).to_owned(), (*other).to_owned())).collect()
}

/// Something happens to a key of each type; gives the LSNs of both points in time.
fn change_each_type(r: &mut Recorded) -> (String, String) {
    let first = r.by(
        "setup",
        &[
            args!["MSET", "same", 1, "string", "old", "gone", "x", "rewritten", "r", "becomes", "s"],
            args!["HSET", "hash", "name", "ann", "plan", "free", "age", 7],
            args!["SADD", "set", "a", "b"],
            args!["ZADD", "zset", 1, "m", 2, "n", 3, "o"],
            args!["RPUSH", "list", "a", "b", "c"],
            args!["XADD", "stream", "5-1", "f", "v"],
            args!["PEXPIREAT", "set", 4_000_000_000_000i64],
            args!["SET", "in:two", 1],
        ],
    );
    r.by(
        "billing",
        &[
            args!["SET", "string", "new"],
            args!["HSET", "hash", "plan", "paid"],
            args!["HDEL", "hash", "age"],
            args!["SADD", "set", "c"],
            args!["ZREMRANGEBYSCORE", "zset", 1, 1],
            args!["ZADD", "zset", 5, "n"],
            args!["SET", "rewritten", "else"],
            args!["SET", "rewritten", "r"],
        ],
    );
    let second = r.by(
        "cleanup",
        &[
            args!["DEL", "gone", "never"],
            args!["HSET", "hash", "city", "Ulm"],
            args!["LPUSH", "list", "x"],
            args!["XADD", "stream", "5-2", "f", "w"],
            args!["XGROUP", "CREATE", "stream", "readers", "5-1"],
            args!["PEXPIREAT", "same", 4_100_000_000_000i64],
            args!["PERSIST", "set"],
            args!["DEL", "becomes"],
            args!["RPUSH", "becomes", "l"],
            args!["SET", "born", "b"],
            args!["SELECT", 3],
            args!["SET", "in:three", 1],
        ],
    );
    (first, second)
}

#[test]
fn each_type_with_its_last_write() {
    let mut r = Recorded::start();
    let (first, second) = change_each_type(&mut r);
    let moments = ["--at", &first, "--and", &second];
    let (lines, summary) = r.json(&[&moments[..], &["--values"]].concat());
    let what = |line: &Json| (line["key"].as_str().unwrap().to_owned(), line["what"].as_str().unwrap().to_owned());
    let all: Vec<_> = lines.iter().map(what).collect();
    let expected = [
        ("becomes", "changed"),
        ("born", "created"),
        ("gone", "deleted"),
        ("hash", "changed"),
        ("in:three", "created"),
        ("list", "changed"),
        ("same", "changed"),
        ("set", "changed"),
        ("stream", "changed"),
        ("string", "changed"),
        ("zset", "changed"),
    ];
    assert_eq!(all, pairs(&expected));
    assert_eq!((&summary["created"], &summary["deleted"], &summary["changed"]), (&json!(2), &json!(1), &json!(8)));
    assert_eq!((&summary["ttl_only"], &summary["equal"], &summary["libraries"]), (&json!(1), &json!(1), &json!([])));
    assert_eq!((&summary["writes_known"], &summary["all_because"]), (&json!(true), &Json::Null));

    assert_eq!(
        elements(of(&lines, "hash")),
        pairs(&[("removed age", "billing"), ("added city", "cleanup"), ("changed plan", "billing")])
    );
    let plan = &of(&lines, "hash")["elements"][2];
    assert_eq!((&plan["before"]["value"], &plan["after"]["value"]), (&json!("free"), &json!("paid")));
    assert_eq!((&plan["last_write"]["command"], &plan["last_write"]["certain"]), (&json!("hset"), &json!(true)));
    assert_eq!(elements(of(&lines, "set")), pairs(&[("added c", "billing")]));
    assert_eq!(of(&lines, "set")["ttl_write"]["command"], "persist");
    assert_eq!(of(&lines, "set")["before"]["expires"]["time_us"], 4_000_000_000_000_000i64);
    assert_eq!(elements(of(&lines, "zset")), pairs(&[("removed m", "billing"), ("changed n", "billing")]));
    assert_eq!(of(&lines, "zset")["elements"][0]["last_write"]["command"], "zremrangebyscore");
    assert_eq!(elements(of(&lines, "list")), pairs(&[("added 0", "-")]));
    assert_eq!(of(&lines, "list")["last_write"]["origin"]["name"], "cleanup");
    assert_eq!(elements(of(&lines, "stream")), pairs(&[("added 5-2", "-"), ("added readers", "-")]));
    let string = of(&lines, "string");
    assert_eq!((&string["before"]["value"], &string["after"]["value"]), (&json!("old"), &json!("new")));
    assert_eq!(string["last_write"]["origin"]["name"], "billing");
    let becomes = of(&lines, "becomes");
    assert_eq!((&becomes["before"]["type"], &becomes["after"]["type"]), (&json!("string"), &json!("list")));
    assert_eq!(of(&lines, "in:three")["db"], 3);
    assert_eq!(of(&lines, "gone")["last_write"]["command"], "del");
    let same = of(&lines, "same");
    assert_eq!((&same["value_differs"], &same["ttl_differs"]), (&json!(false), &json!(true)));

    // Without them, no value is in it.
    let (lines, _) = r.json(&moments);
    assert!(of(&lines, "string")["before"]["value"].is_null() && of(&lines, "hash")["elements"][2]["before"].is_null());

    // A selection, and a type at either point in time.
    let names = |args: &[&str]| -> Vec<String> {
        let (lines, _) = r.json(&[&moments[..], args].concat());
        lines.iter().map(|line| line["key"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(&["--key", "s*", "--exclude-key", "st*"]), ["same", "set"]);
    assert_eq!(names(&["--exact-key", "hash"]), ["hash"]);
    assert_eq!(names(&["--type", "list"]), ["becomes", "list"]);
    assert_eq!(names(&["--db", "3"]), ["in:three"]);
    assert_eq!(names(&["--no-slice"]).len(), 11);
}

#[test]
fn each_type_as_text() {
    let mut r = Recorded::start();
    let (first, second) = change_each_type(&mut r);
    let moments = ["--at", &first, "--and", &second];
    let text = r.text(&moments);
    for part in [
        "~ hash  db 0  hash, 3 fields\n  - age  7    LSN ",
        "  + city  Ulm    LSN ",
        "  ~ plan  free -> paid    LSN ",
        "billing: fields set (HSET)\n",
        "+ born  db 0  string, 1 B\n  + b\n  by ",
        "- gone  db 0  string, 1 B\n  - x\n  by ",
        "~ list  db 0  list, 3 elements -> list, 4 elements\n  + [0]  x\n",
        "~ becomes  db 0  string, 1 B -> list, 1 element\n",
        "  ~ expires never -> 2099-12-03T",
        "11 keys differ: 2 created, 1 deleted, 8 changed (1 only in the time of expiry); 1 compared and equal\n",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let short = r.text(&[&moments[..], &["--exact-key", "hash", "--limit", "1"]].concat());
    assert!(short.contains("  … 2 more differ (--limit N shows them)\n"), "{short}");
}

#[test]
fn a_write_to_every_key_compares_every_key() {
    let mut r = Recorded::start();
    let first = r.by("setup", &[args!["MSET", "a", 1, "b", 2, "c", 3], args!["HSET", "h", "f", 1]]);
    r.by("intern", &[args!["FLUSHALL"]]);
    let second = r.by("app", &[args!["MSET", "b", 2, "c", 4]]);
    let (lines, summary) = r.json(&["--at", &first, "--and", &second]);
    let what: Vec<_> = lines.iter().map(|line| (&line["key"], &line["what"])).collect();
    let (a, c, h) = (json!("a"), json!("c"), json!("h"));
    assert_eq!(what, [(&a, &json!("deleted")), (&c, &json!("changed")), (&h, &json!("deleted"))]);
    assert_eq!(of(&lines, "a")["last_write"]["origin"]["name"], "intern");
    assert_eq!(of(&lines, "c")["last_write"]["origin"]["name"], "app");
    let why = summary["all_because"].as_str().expect("a reason");
    assert!(why.contains("FLUSHALL, touched all of them"), "{why}");
    // By itself up to the end of the journal.
    let (to_the_end, _) = r.json(&["--at", &first]);
    assert_eq!(to_the_end, lines);
    let before = format!("lsn:{}", first.trim_start_matches("lsn:").parse::<u64>().unwrap() + 1);
    assert_eq!(r.json(&["--before", &before]).0, lines);
}

#[test]
fn an_expired_key_is_absent() {
    let mut r = Recorded::start();
    // The server removes nothing by itself.
    r.server.conn().must(&args!["DEBUG", "SET-ACTIVE-EXPIRE", 0]);
    let first = r.by("setup", &[args!["SET", "soon", 1, "PX", 300], args!["SET", "late", 1, "PX", 600_000]]);
    std::thread::sleep(Duration::from_millis(400));
    r.by("app", &[args!["SET", "other", 1]]);
    std::thread::sleep(Duration::from_millis(50));
    let second = rfc3339(crate::harness::now_us());
    std::thread::sleep(Duration::from_millis(20));
    // The next client that meets it has it removed.
    r.by("reader", &[args!["GET", "soon"], args!["SET", "later", 1]]);
    let (lines, _) = r.json(&["--at", &first, "--and", &second]);
    let what: Vec<_> = lines.iter().map(|line| (line["key"].as_str(), line["what"].as_str())).collect();
    assert_eq!(what, [(Some("other"), Some("created")), (Some("soon"), Some("deleted"))]);
    assert_eq!(of(&lines, "soon")["last_write"], Json::Null);
    let text = r.text(&["--at", &first, "--and", &second, "--exact-key", "soon"]);
    assert!(
        text.starts_with("- soon  db 0  string, 1 B\n  - 1\n  by no write: its time had come\n1 key differs"),
        "{text}"
    );
}

#[test]
fn no_difference_and_invalid_input() {
    let mut r = Recorded::start();
    let first = r.by("setup", &[args!["SET", "a", 1]]);
    let second = r.by("app", &[args!["SET", "b", 1], args!["DEL", "b"]]);
    let text = r.text(&["--at", &first, "--and", &second]);
    assert_eq!(text, "0 keys differ: 0 created, 0 deleted, 0 changed; 0 compared and equal\n");
    assert_eq!(r.text(&["--at", &second]), text);
    let exchanged = r.diff(&["--at", &second, "--and", &first]);
    assert!(exchanged.code == Some(64) && exchanged.stderr.contains("exchange --at and --and"), "{exchanged:?}");
    let none = r.diff(&["--at", &first, "--and", "mark:none"]);
    assert!(none.code == Some(66) && none.stderr.contains("no mark"), "{none:?}");
    let no_moment = r.diff(&["--and", &first]);
    assert!(no_moment.code == Some(64) && no_moment.stderr.contains("--at"), "{no_moment:?}");
}

#[test]
fn over_a_gap_keys_are_compared_without_writers() {
    let mut r = Recorded::start();
    r.by("setup", &[args!["MSET", "a", 1, "b", 2]]);
    let first = rfc3339(crate::harness::now_us());
    std::thread::sleep(Duration::from_millis(100));
    r.by("setup", &[args!["SET", "c", 1]]);
    // It saves nothing, and begins anew.
    r.server.restart();
    r.redtape.wait_streaming();
    r.by("app", &[args!["MSET", "a", 1, "d", 2]]);
    let (lines, summary) = r.json(&["--at", &first]);
    let what: Vec<_> = lines.iter().map(|line| (line["key"].as_str(), line["what"].as_str())).collect();
    assert_eq!(what, [(Some("b"), Some("deleted")), (Some("d"), Some("created"))]);
    assert!(lines.iter().all(|line| line["last_write"].is_null()), "{lines:?}");
    assert_eq!(summary["writes_known"], false);
    let text = r.text(&["--at", &first]);
    assert!(text.contains("the writers are unknown"), "{text}");
}

#[test]
fn it_leaves_no_scratch_server_behind() {
    let mut r = Recorded::start();
    let first = r.by("setup", &[args!["SET", "a", 1]]);
    for part in 0..20 {
        let sets: Vec<Args> = (0..5000).map(|n| args!["SET", format!("key:{part}:{n}"), "v".repeat(100)]).collect();
        let mut conn = Conn::open(&r.redtape.url()).expect("a client");
        conn.pipeline(&sets).expect("replies");
    }
    r.redtape.wait_caught_up();
    let tmp = Dir::new("tmp");
    let servers = || {
        let listed = Command::new("ps").args(["-eo", "args"]).output().expect("ps").stdout;
        let listed = String::from_utf8_lossy(&listed).into_owned();
        let ours = tmp.path().to_str().expect("a plain name").to_owned();
        listed.lines().filter(|line| line.contains(&ours) && line.contains("redtape-scratch-")).count()
    };
    let start = || {
        let mut command = Command::new(BINARY);
        if let Some(server) = std::env::var_os("REDTAPE_TEST_SERVER") {
            command.env("REDTAPE_SERVER_BIN", server);
        }
        let dir = r.dir.path().to_str().expect("a plain name");
        let args = ["diff", "--dir", dir, "--at", &first, "--json"];
        command.env("TMPDIR", tmp.path()).args(args).stdout(Stdio::piped()).stderr(Stdio::null());
        command.spawn().expect("redtape diff")
    };
    // Killed while both servers are there.
    let mut child = start();
    wait_for("both scratch servers", Duration::from_secs(30), || (servers() == 2).then_some(()));
    child.kill().expect("a running process");
    child.wait().expect("its end");
    wait_for("the scratch servers' end", Duration::from_secs(10), || (servers() == 0).then_some(()));
    // Nobody reads on.
    let mut child = start();
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("a pipe")).read_line(&mut line).expect("a line");
    assert!(line.contains("\"created\""), "{line}");
    assert!(child.wait().expect("its end").success());
    assert_eq!(servers(), 0);
    // What the killed one left is removed by the next, and that leaves nothing.
    assert_eq!(std::fs::read_dir(tmp.path()).expect("a folder").count(), 0);
}

/// How long the program takes over so many writes, and how much memory of its own. Printed, not judged.
///
///     REDTAPE_WRITES=36000000 cargo nextest run --release -p redtape --test whole --run-ignored only diff::an_hour --no-capture
#[test]
#[ignore = "it measures, for minutes"]
fn an_hour_of_writes() {
    let writes = env_number("REDTAPE_WRITES", 10_000_000) as u64;
    for (what, keys) in [("few keys", 10_000), ("many keys", 500_000), ("more keys than are noted", 2_000_000)] {
        let dir = Dir::new("journal");
        let began = Instant::now();
        generated(dir.path(), writes, keys);
        println!("{what}: {writes} writes of {keys} keys, generated in {:.0} s", began.elapsed().as_secs_f64());
        for (how, more) in [("all", &[][..]), ("one prefix", &["--key", "key:77*"])] {
            let args = ["diff", "--dir", dir.path().to_str().expect("a plain name"), "--at", "lsn:1", "--json"];
            let began = Instant::now();
            let mut child = Command::new(BINARY)
                .args([&args, more].concat())
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .expect("redtape diff");
            let pid = child.id();
            let watch = std::thread::spawn(move || {
                let mut most = 0;
                while let Some(kib) = resident_kib(pid) {
                    most = most.max(kib);
                    std::thread::sleep(Duration::from_millis(50));
                }
                most
            });
            let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
            let (mut count, mut last) = (0u64, String::new());
            for line in lines {
                (count, last) = (count + 1, line.expect("a line"));
            }
            let seconds = began.elapsed().as_secs_f64();
            assert!(child.wait().expect("its end").success());
            let most = watch.join().expect("the most");
            println!(
                "  {how}: {count} lines in {seconds:.1} s, {:.2} million writes/s, {} MiB resident at most; {last}",
                writes as f64 / seconds / 1e6,
                most >> 10
            );
        }
    }
}

/// None once it has ended.
fn resident_kib(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

/// A journal of these writes, 10,000 a second, by the library's writer.
fn generated(dir: &Path, writes: u64, keys: u64) {
    const EMPTY_RDB: &[u8] = b"REDIS0009\xff\0\0\0\0\0\0\0\0";
    const BEGIN_US: u64 = 1_790_000_000_000_000;
    let at = |n: u64| Micros((BEGIN_US + n * 100) as i64);
    let options = OpenOptions { sync: SyncPolicy::No, ..OpenOptions::default() };
    let writer = Journal::create_or_open(dir, options).expect("a journal").0.start(|_| ());
    let (timeline, offset, source_id) = (TimelineId(1), ReplOffset(0), "a".repeat(40));
    let begin = TimelineStart { timeline, source_id: source_id.clone(), offset, reason: "first".to_owned(), ts: at(0) };
    writer.begin_timeline(begin).expect("a timeline");
    let mut snapshot = SnapshotWriter::create_with(dir, &Keyring::default()).expect("a snapshot");
    snapshot.write(EMPTY_RDB).expect("its bytes");
    let manifest = SnapshotManifest {
        journal_id: String::new(),
        lsn: Lsn(0),
        timeline,
        source_id,
        offset,
        db: None,
        ts: at(0),
        kind: SnapshotKind::Base,
        bytes: 0,
        blake3: String::new(),
        magic_version: "REDIS0009".to_owned(),
        server_version: "6.0.16".to_owned(),
        checksum_present: false,
        encryption: None,
        command_table: None,
    };
    snapshot.commit(manifest).expect("a base");
    let client = |n: u64| Arc::new(Origin { addr: format!("10.0.0.1:{}", 5000 + n), ..Origin::of(OriginKind::Client) });
    let clients: Vec<Arc<Origin>> = (0..50).map(client).collect();
    let mut builder = BlockBuilder::new(Lsn(1), at(0), offset, 0);
    let mut rng = StdRng::seed_from_u64(7);
    for n in 1..=writes {
        let number = rng.random_range(0..keys);
        let (key, value) = (format!("key:{number}"), format!("{:064}", rng.random_range(0..1_000_000_000u64)));
        let kind = number % 10;
        let args: [&[u8]; 4] = match kind {
            0 => [b"HSET", key.as_bytes(), &value.as_bytes()[60..], value.as_bytes()],
            1 => [b"SADD", key.as_bytes(), value.as_bytes(), b""],
            2 => [b"INCR", key.as_bytes(), b"", b""],
            _ => [b"SET", key.as_bytes(), value.as_bytes(), b""],
        };
        let args = &args[..if kind == 0 {
            4
        } else if kind == 2 {
            2
        } else {
            3
        }];
        let bytes: u64 = args.iter().map(|arg| arg.len() as u64 + 8).sum();
        let end_offset = ReplOffset(builder.end_offset().0 + bytes);
        let record = RecordRef { db: 0, args, keys: KeysAt::Arguments(&[1]) };
        let origin = &clients[(n % 50) as usize];
        let group = GroupRef { ts: at(n), slack: 0, origin, atomic: false, end_offset, records: &[record] };
        builder.push(&group).expect("a group");
        if builder.len_bytes() > 128 << 10 || n == writes {
            writer.submit(builder.finish(at(n))).expect("a running writer");
        }
    }
    writer.close().expect("the end");
}
