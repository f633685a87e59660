//! `redtape get`: what a key held at a point in time, compared with what the live server said then, and who wrote it last.

use std::process::{Command, Stdio};

use crate::harness::conn::{Conn, Value, bytes, int, items, text};
use crate::harness::redtape::{BINARY, Outcome, run};
use crate::harness::server::Version;
use crate::harness::{Dir, Redtape, Server, rfc3339, wait_for};
use serde_json::Value as Json;

fn path(dir: &Dir) -> &str {
    dir.path().to_str().expect("a plain name")
}

fn get(dir: &Dir, args: &[&str]) -> Outcome {
    run(&[&["get", "--dir", path(dir)], args].concat())
}

fn json(dir: &Dir, args: &[&str]) -> Json {
    let outcome = get(dir, &[args, &["--json"]].concat());
    serde_json::from_str(&outcome.stdout).unwrap_or_else(|e| panic!("{e}: {outcome:?}"))
}

/// What stands on stdout, byte for byte.
fn raw(dir: &Dir, args: &[&str]) -> Vec<u8> {
    let mut command = Command::new(BINARY);
    if let Some(server) = std::env::var_os("REDTAPE_TEST_SERVER") {
        command.env("REDTAPE_SERVER_BIN", server);
    }
    let out = command.args(["get", "--raw", "--dir", path(dir)]).args(args).stdin(Stdio::null()).output();
    let out = out.expect("redtape get");
    assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
    out.stdout
}

/// The last record that is captured.
fn last_lsn(redtape: &mut Redtape) -> i64 {
    redtape.wait_caught_up();
    let mut conn = Conn::open(&redtape.url()).expect("a client");
    int(&items(&conn.must(&args!["REDTAPE.LSN"]))[1])
}

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

    fn conn(&self) -> Conn {
        Conn::open(&self.redtape.url()).expect("a client")
    }

    /// Runs commands; gives the last LSN behind them as `lsn:N`.
    fn after(&mut self, commands: &[crate::harness::Args]) -> String {
        let mut conn = self.conn();
        commands.iter().for_each(|command| drop(conn.must(command)));
        format!("lsn:{}", last_lsn(&mut self.redtape))
    }
}

#[test]
fn each_type_is_what_the_live_server_said() {
    let mut r = Recorded::start();
    let big = "0123456789".repeat(900);
    let at = r.after(&[
        args!["SET", "string", "caf\u{e9} \"x\""],
        args!["SET", "bytes", &b"\xff\x00\r\n"[..]],
        args!["SET", "long", &big],
        args!["RPUSH", "list", "a", "b", "c"],
        args!["SADD", "set", "x", "y", &b"\xfe"[..]],
        args!["ZADD", "zset", 1.5, "m", 2, "n", "inf", "o"],
        args!["HSET", "hash", "name", "ann", "age", 7],
        args!["XADD", "stream", "5-1", "f", "v", "g", "w"],
        args!["XADD", "stream", "5-2", "f", "v2"],
        args!["XGROUP", "CREATE", "stream", "readers", "5-1"],
        args!["XREADGROUP", "GROUP", "readers", "bob", "STREAMS", "stream", ">"],
        args!["PEXPIREAT", "hash", 4_000_000_000_000i64],
        args!["RPUSH", "many", "0"],
    ]);
    let mut conn = r.server.conn();
    let lists = |conn: &mut Conn, command: crate::harness::Args| -> Vec<Vec<u8>> {
        items(&conn.must(&command)).iter().map(bytes).collect()
    };
    let list = lists(&mut conn, args!["LRANGE", "list", 0, -1]);
    let zset = lists(&mut conn, args!["ZRANGE", "zset", 0, -1, "WITHSCORES"]);
    let at_many = {
        let pushes: Vec<_> = (1..50).map(|n| args!["RPUSH", "many", n]).collect();
        r.after(&pushes)
    };
    // From now on the server says something else.
    r.after(&[args!["FLUSHALL"], args!["SET", "string", "later"], args!["LPUSH", "set", "now a list"]]);
    let at = &["--at", at.as_str()][..];
    let json_of = |key: &[&str]| json(&r.dir, &[key, at].concat());
    let raw_of = |key: &[&str]| raw(&r.dir, &[key, at].concat());

    assert_eq!(raw_of(&["string"]), "caf\u{e9} \"x\"".as_bytes());
    assert_eq!(raw_of(&["bytes"]), b"\xff\x00\r\n");
    assert_eq!(raw_of(&["long"]), big.as_bytes());
    let found = json_of(&["string"]);
    assert_eq!((&found["type"], &found["value"], &found["size"]), (&"string".into(), &"café \"x\"".into(), &9.into()));
    assert_eq!((&found["exists"], &found["expires"], &found["db"]), (&true.into(), &Json::Null, &0.into()));
    assert_eq!(json_of(&["bytes"])["value_base64"], "/wANCg==");

    for (index, want) in [("0", 0), ("2", 2), ("-1", 2), ("-3", 0)] {
        assert_eq!(raw_of(&["list", index]), list[want], "{index}");
        assert_eq!(json_of(&["list", index])["element"]["index"], want);
    }
    let found = json_of(&["list"]);
    let values: Vec<&str> =
        found["elements"].as_array().unwrap().iter().map(|e| e["value"].as_str().unwrap()).collect();
    assert_eq!(values, list.iter().map(|v| std::str::from_utf8(v).unwrap()).collect::<Vec<_>>());

    let found = json_of(&["set"]);
    assert_eq!((&found["type"], &found["size"]), (&"set".into(), &3.into()));
    assert!(found["elements"].as_array().unwrap().contains(&serde_json::json!({"member_base64": "/g=="})), "{found}");
    let yes = get(&r.dir, &[&["set", "x"], at].concat()).expect_success("a member");
    assert!(yes.stdout.contains("yes: x is a member"), "{yes:?}");
    let no = get(&r.dir, &[&["set", "z"], at].concat());
    assert!(no.code == Some(1) && no.stdout.contains("no: z is not a member"), "{no:?}");

    for pair in zset.chunks(2) {
        assert_eq!(raw_of(&["zset", std::str::from_utf8(&pair[0]).unwrap()]), pair[1]);
    }
    assert_eq!(json_of(&["zset"])["elements"][2], serde_json::json!({"member": "o", "score": "inf"}));
    assert_eq!(raw_of(&["hash", "name"]), b"ann");
    let found = json_of(&["hash"]);
    assert_eq!(found["expires"]["time_us"], 4_000_000_000_000_000i64);
    assert_eq!(
        found["elements"],
        serde_json::json!([{"field": "age", "value": "7"}, {"field": "name", "value": "ann"}])
    );
    assert_eq!(found["last_write"]["command"], "pexpireat");

    let found = json_of(&["stream"]);
    let first =
        serde_json::json!({"id": "5-1", "fields": [{"field": "f", "value": "v"}, {"field": "g", "value": "w"}]});
    assert_eq!((&found["elements"][0], &found["stream"]["last_id"]), (&first, &"5-2".into()));
    let group = &found["stream"]["groups"][0];
    assert_eq!(
        (&group["name"], &group["last_id"], &group["pending_count"]),
        (&"readers".into(), &"5-2".into(), &1.into())
    );
    assert_eq!((&group["pending"][0]["id"], &group["pending"][0]["consumer"]), (&"5-2".into(), &"bob".into()));
    let entry = get(&r.dir, &[&["stream", "5-2"], at].concat()).expect_success("an entry");
    assert!(entry.stdout.contains("5-2  f v2"), "{entry:?}");

    // For people: bounded, and it says how many more there are.
    let text = get(&r.dir, &["many", "--at", &at_many]).expect_success("many").stdout;
    assert!(text.starts_with("many  db 0  list, 50 elements\n"), "{text}");
    assert!(text.contains("… 30 more (--limit N or --all shows them)"), "{text}");
    assert!(!text.contains("\n    49  49\n"), "{text}");
    let text = get(&r.dir, &["many", "--all", "--at", &at_many]).expect_success("many").stdout;
    assert!(text.contains("\n    49  49\n") && !text.contains("more"), "{text}");
    let few = json(&r.dir, &["many", "--limit", "2", "--at", &at_many]);
    assert_eq!((few["elements"].as_array().unwrap().len(), &few["more"]), (2, &48.into()));
    let stream = get(&r.dir, &[&["stream"], at].concat()).expect_success("a stream").stdout;
    for part in
        ["stream, 2 entries", "last id     5-2, 2 ever added", "group       readers: last 5-2, 1 consumer, 1 pending"]
    {
        assert!(stream.contains(part), "{part}: {stream}");
    }
    for (args, code, words) in [
        (&["list", "--raw"][..], 64, "this is a list"),
        (&["stream", "5-1", "--raw"], 64, "use --json"),
        (&["list", "x"], 64, "index"),
        (&["string", "f"], 64, "no elements"),
        (&["list", "7", "--raw"], 1, "it has no 7"),
        (&["hash", "none", "--json"], 1, ""),
    ] {
        let refused = get(&r.dir, &[args, at].concat());
        assert!(refused.code == Some(code) && refused.stderr.contains(words), "{args:?}: {refused:?}");
        assert!(code == 1 || refused.stdout.is_empty(), "{refused:?}");
    }
}

#[test]
fn who_wrote_it_last_and_what_removed_it() {
    let (server, dir) = (Server::start(), Dir::new("journal"));
    server.conn().must(&args!["SET", "old", "from before"]);
    server.conn().must(&args!["SET", "old:touched", 1]);
    let redtape = Redtape::start(&server.url(), dir.path(), &[]);
    let mut r = Recorded { server, redtape, dir };
    r.conn().must(&args!["CLIENT", "SETNAME", "other"]);
    let mut named = r.conn();
    named.must(&args!["CLIENT", "SETNAME", "billing"]);
    named.must(&args!["SET", "user:1", "ann"]);
    named.must(&args!["EVAL", "return redis.call('INCR', KEYS[1])", 1, "old:touched"]);
    named.must(&args!["SELECT", 3]);
    named.must(&args!["SET", "user:2", "in db 3"]);
    r.redtape.wait_caught_up();
    r.server.conn().must(&args!["SET", "outside", 1]);
    let written = format!("lsn:{}", last_lsn(&mut r.redtape));
    named.must(&args!["SELECT", 0]);
    named.must(&args!["RENAME", "user:1", "user:9"]);
    let renamed = format!("lsn:{}", last_lsn(&mut r.redtape));
    named.must(&args!["DEL", "user:9", "outside"]);
    let deleted = format!("lsn:{}", last_lsn(&mut r.redtape));
    named.must(&args!["SET", "short", "life", "PX", 80]);
    let mut direct = r.server.conn();
    wait_for("its expiry", std::time::Duration::from_secs(10), || {
        (direct.must(&args!["EXISTS", "short"]) == Value::Int(0)).then_some(())
    });
    let expired = format!("lsn:{}", last_lsn(&mut r.redtape));

    let at = |key: &str, when: &str| json(&r.dir, &[key, "--at", when]);
    let last = at("user:1", &written)["last_write"].clone();
    assert_eq!((&last["origin"]["name"], &last["origin"]["kind"]), (&"billing".into(), &"client".into()));
    assert_eq!((&last["command"], &last["what"], &last["atomic"]), (&"set".into(), &"set".into(), &false.into()));
    let time: jiff::Timestamp = last["time"].as_str().unwrap().parse().unwrap();
    assert_eq!(last["time_us"], time.as_microsecond());
    let script = at("old:touched", &written)["last_write"].clone();
    assert_eq!((&script["origin"]["via"], &script["command"]), (&"eval".into(), &"incr".into()));
    assert_eq!(at("outside", &written)["last_write"]["origin"]["kind"], "outside");

    // From before the base: nobody knows.
    let base = at("old", &written);
    assert_eq!(
        (&base["value"], &base["last_write"], &base["written_since_base"]),
        (&"from before".into(), &Json::Null, &false.into())
    );
    let text = get(&r.dir, &["old", "--at", &written]).expect_success("old").stdout;
    assert!(text.contains("last write  not known: the journal has no write of it"), "{text}");

    // What removed it.
    for (key, when, what, commands) in [
        ("user:1", &renamed, "renamed to", &["rename"][..]),
        ("user:9", &deleted, "deleted, if it was there", &["del"]),
        // Valkey 9 has a server's own deletions as UNLINK.
        ("short", &expired, "expired", &["del", "unlink"]),
    ] {
        let gone = at(key, when);
        assert_eq!((&gone["exists"], &gone["type"]), (&false.into(), &Json::Null), "{gone}");
        let last = &gone["last_write"];
        assert_eq!(last["what"].as_str(), Some(what), "{gone}");
        assert!(commands.contains(&last["command"].as_str().unwrap()), "{gone}");
        let told = get(&r.dir, &[key, "--at", when]);
        assert_eq!(told.code, Some(1), "{told:?}");
        assert!(told.stdout.starts_with(&format!("{key} did not exist in db 0\n")), "{told:?}");
        assert!(told.stdout.contains(what), "{told:?}");
        let raw = get(&r.dir, &[key, "--raw", "--at", when]);
        assert!(raw.code == Some(1) && raw.stdout.is_empty() && raw.stderr.contains("did not exist"), "{raw:?}");
    }
    let text = get(&r.dir, &["user:9", "--at", &renamed]).expect_success("renamed").stdout;
    assert!(text.contains("billing: renamed from user:1 (RENAME)") && text.ends_with("\nann\n"), "{text}");
    // In another database.
    let elsewhere = get(&r.dir, &["user:2", "--at", &written]);
    assert!(elsewhere.code == Some(1) && elsewhere.stdout.contains("in db 3 (--db 3)"), "{elsewhere:?}");
    assert_eq!(at("user:2", &written)["other_dbs"], serde_json::json!([3]));
    assert_eq!(raw(&r.dir, &["user:2", "--db", "3", "--at", &written]), b"in db 3");
    let never = get(&r.dir, &["never", "--db", "5000", "--at", &written]);
    assert!(never.code == Some(1) && never.stdout.contains("never did not exist in db 5000"), "{never:?}");
}

#[test]
fn a_write_that_lies_behind_the_base_is_found() {
    let mut r = Recorded::start();
    r.after(&[args!["SET", "early", "x"], args!["SET", "touched", "x"]]);
    run(&["snapshot", "create", "--dir", path(&r.dir), "--upstream", &r.server.url()])
        .expect_success("snapshot create");
    let at = r.after(&[args!["APPEND", "touched", "y"], args!["SET", "noise", 1]]);
    for (key, value, command, since_base) in [("early", "x", "set", false), ("touched", "xy", "append", true)] {
        for db in [&["--db", "0"][..], &[]] {
            let got = json(&r.dir, &[&[key, "--at", &at], db].concat());
            let found = (&got["value"], &got["last_write"]["command"], &got["written_since_base"]);
            assert_eq!(found, (&value.into(), &command.into(), &since_base.into()), "{got}");
        }
    }
}

#[test]
fn before_is_the_state_without_the_group() {
    let mut r = Recorded::start();
    let mut conn = r.conn();
    conn.must(&args!["SET", "k", 1]);
    conn.must(&args!["MULTI"]);
    conn.must(&args!["SET", "k", 2]);
    conn.must(&args!["SET", "k", 3]);
    conn.must(&args!["EXEC"]);
    conn.must(&args!["SET", "k", 4]);
    let mark = items(&conn.must(&args!["REDTAPE.MARK", "four"]));
    assert_eq!(text(&mark[1]), "four");
    conn.must(&args!["FLUSHALL"]);
    assert_eq!(last_lsn(&mut r.redtape), 5);
    for (option, when, want) in [
        ("--at", "lsn:1", Some("1")),
        ("--at", "lsn:2", Some("1")),
        ("--at", "lsn:3", Some("3")),
        ("--before", "lsn:2", Some("1")),
        ("--before", "lsn:3", Some("1")),
        ("--before", "lsn:4", Some("3")),
        ("--before", "lsn:5", Some("4")),
        ("--before", "lsn:1", None),
        ("--at", "mark:four", Some("4")),
        ("--before", "mark:four", Some("3")),
        ("--before", "latest", Some("4")),
        ("--at", "latest", None),
    ] {
        let found = json(&r.dir, &["k", option, when]);
        assert_eq!(found["value"].as_str(), want, "{option} {when}: {found}");
        assert_eq!(found["point"]["before"], option == "--before");
    }
    // By the very microsecond of a write, in whatever form it is written.
    let log = run(&["log", "--dir", path(&r.dir), "--key", "k", "--command", "SET", "--json"]).expect_success("log");
    let us = |lsn: u64| -> i64 {
        let lines = log.stdout.lines().map(|l| serde_json::from_str::<Json>(l).unwrap());
        lines.into_iter().find(|l| l["lsn"] == lsn).unwrap()["ts_us"].as_i64().unwrap()
    };
    let (fourth, local) = (us(4), |us: i64| {
        let time =
            jiff::Timestamp::from_microsecond(us).unwrap().to_zoned(jiff::tz::TimeZone::fixed(jiff::tz::offset(5)));
        time.strftime("%Y-%m-%d %H:%M:%S.%6f").to_string()
    });
    if us(3) < fourth {
        for (args, want) in [
            (vec!["--at".to_owned(), rfc3339(fourth)], "4"),
            (vec!["--before".to_owned(), rfc3339(fourth)], "3"),
            (vec!["--before".to_owned(), format!("@{}.{:06}", fourth / 1_000_000, fourth % 1_000_000)], "3"),
            (vec!["--at".to_owned(), local(fourth), "--tz".to_owned(), "+05:00".to_owned()], "4"),
            (vec!["--before".to_owned(), local(fourth), "--tz".to_owned(), "+05:00".to_owned()], "3"),
        ] {
            let args: Vec<&str> = args.iter().map(String::as_str).collect();
            assert_eq!(json(&r.dir, &[&["k"], &args[..]].concat())["value"], want, "{args:?}");
        }
    }
    // What was asked for is echoed on stderr, in both zones, before anything is done.
    let echoed = get(&r.dir, &["k", "--at", &local(fourth), "--tz", "+05:00"]).expect_success("echo");
    let utc = jiff::Timestamp::from_microsecond(fourth).unwrap();
    let both = format!("restore point: {}+05:00 (+05; {utc:.6}), LSN 4, timeline 1\n", local(fourth).replace(' ', "T"));
    assert!(echoed.stderr.starts_with(&both), "{both}: {echoed:?}");
    // A last write that removed everything is pointed out, with what to ask for instead.
    let warned = get(&r.dir, &["k", "--at", "latest"]);
    let words = "the last write included is FLUSHALL by 127.0.0.1:";
    assert!(warned.stderr.contains(words) && warned.stderr.contains("; just before it: --at lsn:4\n"), "{warned:?}");
    assert!(!get(&r.dir, &["k", "--before", "lsn:5"]).stderr.contains("FLUSHALL"));
    let target = Server::start();
    let plan = |more: &[&str]| {
        let url = target.url();
        let args = [&["restore", "--plan", "--from", path(&r.dir), "--to", &url], more].concat();
        run(&args)
    };
    let told = plan(&["--at", "latest"]).expect_success("a plan").stdout;
    assert!(told.contains(words) && told.contains("--at lsn:4"), "{told}");
    let told = plan(&["--before", "lsn:5", "--json"]).expect_success("a plan").stdout;
    let told: Json = serde_json::from_str(&told).unwrap();
    assert_eq!((&told["before"], &told["lsn"], &told["zone"]), (&true.into(), &4.into(), &"UTC".into()));
    for (more, words) in [
        (&[][..], "--at"),
        (&["--at", "latest", "--before", "latest"], "cannot be used with"),
        (&["--at", "24:00"], "no such time"),
        (&["--at", "2026-03-29 02:30", "--tz", "CET-1CEST,M3.5.0,M10.5.0/3"], "never came"),
        (&["--at", "latest", "--tz", "Nowhere/Land"], "no time zone"),
    ] {
        let refused = plan(more);
        assert!(refused.code == Some(64) && refused.stderr.contains(words), "{more:?}: {refused:?}");
    }
    // An hour ago there was no journal; a relative time may begin with a hyphen.
    for when in ["-1h", "1h ago"] {
        let refused = plan(&["--at", when]);
        assert!(refused.code == Some(66) && refused.stderr.contains("is outside"), "{refused:?}");
    }
}

#[test]
fn a_printed_key_can_be_pasted_back() {
    let mut r = Recorded::start();
    let keys: [&[u8]; 8] = [b"\xff\x00k", b"user:1", b"it's", b"a \"b\" \\n", b"", b"*", b"-dash", &[b'x'; 300]];
    let commands: Vec<_> = keys.iter().map(|key| args!["SET", *key, *key]).collect();
    r.after(&commands);
    let from = path(&r.dir);
    let log = run(&["log", "--dir", from, "--reverse"]).expect_success("log").stdout;
    let printed: Vec<&str> = log.lines().map(|line| line.split(" SET ").nth(1).expect("a SET")).collect();
    for (key, printed) in keys.iter().zip(printed) {
        // The key, and behind it the same bytes as a value, which are cut when they are many.
        let shown = &printed[..printed.len() / 2];
        let shown = if key.len() > 60 { printed.split(' ').next().unwrap() } else { shown };
        assert_eq!(raw(&r.dir, &["--at", "latest", "--", shown]), *key, "{shown}");
        let one = run(&["log", "--dir", from, "--exact-key", shown]).expect_success("log").stdout;
        assert_eq!(one.lines().count(), 1, "{shown}: {one}");
        let cat = run(&["journal", "cat", "--from", from, "--exact-key", shown]).expect_success("cat").stdout;
        assert_eq!(cat.lines().count(), 1, "{shown}: {cat}");
        let target = Server::start();
        let args = ["restore", "--from", from, "--at", "latest", "--exact-key", shown, "--to", &target.url()];
        run(&args).expect_success(shown);
        assert_eq!(int(&target.conn().must(&args!["DBSIZE"])), 1, "{shown}");
        assert_eq!(bytes(&target.conn().must(&args!["GET", *key])), *key, "{shown}");
    }
    for wrong in ["\"open", "\"a\"b", "\"\\q\""] {
        let refused = get(&r.dir, &[wrong, "--at", "latest"]);
        assert_eq!(refused.code, Some(64), "{wrong}: {refused:?}");
    }
}

#[test]
fn fields_that_had_expired_are_not_shown() {
    if !Version::tested().at_least((7, 4), (9, 0)) {
        return;
    }
    let mut r = Recorded::start();
    let at = r
        .after(&[args!["HSET", "h", "a", 1, "b", 2], args!["HPEXPIREAT", "h", 4_000_000_000_000i64, "FIELDS", 1, "a"]]);
    let found = json(&r.dir, &["h", "--at", &at]);
    assert_eq!(found["elements"][0]["expires"]["time_us"], 4_000_000_000_000_000i64);
    assert_eq!(found["elements"][1], serde_json::json!({"field": "b", "value": "2"}));
    let one = get(&r.dir, &["h", "a", "--at", &at]).expect_success("a field").stdout;
    assert!(one.contains("a  1  (expires 2096-10-02T07:06:40.000000Z, "), "{one}");
}
