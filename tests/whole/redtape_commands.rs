//! `REDTAPE.*` through a real proxy: a mark lies behind every write that was acknowledged before it, only
//! those may set it who may, and clients find the commands where they look for a module's.

use std::collections::HashMap;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant};

use crate::harness::conn::{Conn, Value, bytes, int, items, text};
use crate::harness::redtape::run;
use crate::harness::{Dir, Redtape, Relay, Server};

fn path(dir: &Dir) -> &str {
    dir.path().to_str().expect("a path")
}

fn open(redtape: &Redtape) -> Conn {
    Conn::open(&redtape.url()).expect("a client")
}

fn error(conn: &mut Conn, command: crate::harness::Args) -> String {
    match conn.call(&command).expect("a reply") {
        Value::Error(e) => e,
        other => panic!("{}: {other:?}", crate::harness::conn::show(&command)),
    }
}

/// Names and values of a reply that is a map, or in RESP2 a flat array.
fn fields(value: &Value) -> HashMap<String, String> {
    items(value).chunks(2).map(|pair| (text(&pair[0]), text(&pair[1]))).collect()
}

fn marks(dir: &Dir) -> Vec<serde_json::Value> {
    let out = run(&["journal", "ls", "--json", "--from", path(dir)]).expect_success("journal ls");
    let all: serde_json::Value = serde_json::from_str(&out.stdout).expect("JSON");
    all["marks"].as_array().expect("marks").clone()
}

fn restore(dir: &Dir, at: &str) -> Server {
    let target = Server::start();
    run(&["restore", "--from", path(dir), "--at", at, "--to", &target.url(), "--yes"]).expect_success("restore");
    target
}

fn get(server: &Server, key: &str) -> i64 {
    match server.conn().must(&args!["GET", key]) {
        Value::Nil => 0,
        value => int(&value),
    }
}

/// The text of `INFO …`, whatever it is asked with.
fn info(conn: &mut Conn, command: crate::harness::Args) -> String {
    String::from_utf8(bytes(&conn.must(&command))).expect("text")
}

fn field(section: &str, name: &str) -> String {
    let line = section.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no {name} in {section}")).to_owned()
}

/// Two writers, one of whom goes past the proxy: whatever was acknowledged to either of them before a mark
/// was asked for is in it, and nothing that was asked for after it had been set.
#[test]
fn a_mark_lies_behind_every_acknowledged_write() {
    let dir = Dir::new("journal");
    let server = Server::start();
    let redtape = Redtape::start(&server.url(), dir.path(), &[]);
    let (stop, acknowledged, asked) =
        (AtomicBool::new(false), [const { AtomicI64::new(0) }; 2], [const { AtomicI64::new(0) }; 2]);
    let mut windows = Vec::new();
    std::thread::scope(|scope| {
        for (n, url) in [redtape.url(), server.url()].into_iter().enumerate() {
            let (stop, acknowledged, asked) = (&stop, &acknowledged[n], &asked[n]);
            scope.spawn(move || {
                let mut conn = Conn::open(&url).expect("a writer");
                while !stop.load(Ordering::SeqCst) {
                    asked.fetch_add(1, Ordering::SeqCst);
                    let now = int(&conn.must(&args!["INCR", format!("counter:{n}")]));
                    acknowledged.store(now, Ordering::SeqCst);
                }
            });
        }
        let mut conn = open(&redtape);
        for n in 0..3 {
            std::thread::sleep(Duration::from_millis(300));
            let before = [0, 1].map(|i| acknowledged[i].load(Ordering::SeqCst));
            let set = fields(&conn.must(&args!["REDTAPE.MARK", format!("mark {n}")]));
            let after = [0, 1].map(|i| asked[i].load(Ordering::SeqCst));
            assert_eq!(set["name"], format!("mark {n}"));
            windows.push((before, after, set));
        }
        stop.store(true, Ordering::SeqCst);
    });
    open(&redtape).must(&args!["FLUSHALL"]);
    let listed = marks(&dir);
    for (n, (before, after, set)) in windows.iter().enumerate() {
        assert_eq!(listed[n]["name"], set["name"].as_str());
        assert_eq!(listed[n]["lsn"].to_string(), set["lsn"]);
        assert_eq!(listed[n]["ts_us"].to_string(), set["time_us"]);
        assert_eq!(listed[n]["ts"], set["time"].as_str());
        let target = restore(&dir, &format!("mark:{}", set["name"]));
        for i in [0, 1] {
            let found = get(&target, &format!("counter:{i}"));
            assert!((before[i]..=after[i]).contains(&found), "mark {n}, writer {i}: {found}, {before:?}, {after:?}");
        }
    }
}

/// The link is slow, then gone: a mark waits for what is under way, and rather fails than leaves it out.
#[test]
fn a_mark_waits_for_a_late_tap_and_fails_without_one() {
    let dir = Dir::new("journal");
    let server = Server::start();
    let relay = Relay::to(server.port);
    let mut redtape = Redtape::start(&server.url(), dir.path(), &["--follow", &relay.url()]);
    let mut conn = open(&redtape);
    relay.delay(Duration::from_millis(500));
    conn.must(&args!["SET", "k", 1]);
    conn.must(&args!["REDTAPE.MARK", "late"]);
    relay.delay(Duration::ZERO);

    relay.refuse(true);
    relay.cut_replication_when_there();
    conn.must(&args!["SET", "k", 2]);
    let started = Instant::now();
    let refused = error(&mut conn, args!["REDTAPE.MARK", "without"]);
    assert!(refused.starts_with("JOURNAL the journal did not reach the server's offset"), "{refused}");
    assert!(refused.contains("nothing was marked"), "{refused}");
    assert!((5..30).contains(&started.elapsed().as_secs()), "{:?}", started.elapsed());
    assert_eq!(marks(&dir).len(), 1);

    relay.refuse(false);
    redtape.wait_streaming();
    conn.must(&args!["REDTAPE.MARK", "without"]);
    conn.must(&args!["SET", "k", 3]);
    redtape.wait_caught_up();
    assert_eq!(get(&restore(&dir, "mark:late"), "k"), 1);
    assert_eq!(get(&restore(&dir, "mark:without"), "k"), 2);
}

#[test]
fn mark_names_are_unique_and_valid() {
    let dir = Dir::new("journal");
    let server = Server::start();
    let redtape = Redtape::start(&server.url(), dir.path(), &[]);
    let mut conn = open(&redtape);
    conn.must(&args!["REDTAPE.MARK", "vör \"2\""]);
    let taken = error(&mut conn, args!["redtape.mark", "vör \"2\""]);
    assert!(taken.starts_with("ERR there is a mark \"vör"), "{taken}");
    for (name, why) in [(&b""[..], "128"), (b"a\nb", "control"), (b" a", "blank"), (b"\xff", "UTF-8")] {
        let refused = error(&mut conn, args!["REDTAPE.MARK", name]);
        assert!(refused.starts_with("ERR ") && refused.contains(why), "{refused}");
    }
    assert_eq!(marks(&dir).len(), 1);
    // At once, by many: one gets it.
    let set = std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..4).map(|_| scope.spawn(|| open(&redtape).call(&args!["REDTAPE.MARK", "race"]).unwrap())).collect();
        threads.into_iter().map(|t| t.join().unwrap()).filter(|v| !matches!(v, Value::Error(_))).count()
    });
    assert_eq!((set, marks(&dir).len()), (1, 2));
}

#[test]
fn a_snapshot_is_listed_and_restored_from() {
    let dir = Dir::new("journal");
    let server = Server::start();
    let mut redtape = Redtape::start(&server.url(), dir.path(), &[]);
    let mut conn = open(&redtape);
    for n in 1..=100 {
        conn.must(&args!["SET", "k", n]);
    }
    let taken = fields(&conn.must(&args!["REDTAPE.SNAPSHOT"]));
    assert_eq!((taken["lsn"].as_str(), taken["timeline"].as_str()), ("100", "1"));
    assert_eq!(std::fs::metadata(&taken["file"]).expect("the file").len().to_string(), taken["bytes"]);
    let listed = run(&["snapshot", "ls", "--json", "--from", path(&dir)]).expect_success("snapshot ls");
    assert_eq!(listed.stdout.lines().count(), 2, "{}", listed.stdout);
    assert!(listed.stdout.contains("\"manual\""), "{}", listed.stdout);
    conn.must(&args!["SET", "k", 101]);
    redtape.wait_caught_up();
    assert_eq!(get(&restore(&dir, "latest"), "k"), 101);
    // Its place is free again.
    conn.must(&args!["REDTAPE.SNAPSHOT"]);
}

#[test]
fn admin_users_limit_commands() {
    let dir = Dir::new("journal");
    let server = Server::start();
    server.conn().must(&args!["CONFIG", "SET", "requirepass", "secret"]);
    let auth = |user: &str, password: &str, conn: &mut Conn| {
        assert_eq!(conn.must(&args!["AUTH", user, password]), Value::Text("OK".to_owned()));
    };
    let mut direct = server.conn();
    auth("default", "secret", &mut direct);
    for user in ["ops", "bob"] {
        direct.must(&args!["ACL", "SETUSER", user, "on", ">pw", "+@all", "~*"]);
    }
    direct.must(&args!["ACL", "SETUSER", "none", "on", ">pw", "+get", "~*"]);
    let upstream = format!("redis://:secret@127.0.0.1:{}", server.port);
    let redtape = Redtape::start(&upstream, dir.path(), &["--admin-users", "ops"]);
    let mut conn = open(&redtape);
    let get = args!["REDTAPE.GET", "k", "latest"];
    for command in [args!["REDTAPE.INFO"], args!["REDTAPE.MARK", "a"], args!["REDTAPE.SNAPSHOT"], get.clone()] {
        assert_eq!(error(&mut conn, command), "NOAUTH Authentication required.");
    }
    for (user, password) in [("bob", "pw"), ("default", "secret")] {
        auth(user, password, &mut conn);
        assert!(info(&mut conn, args!["REDTAPE.INFO"]).starts_with("# Redtape\r\n"));
        conn.must(&args!["REDTAPE.LSN"]);
        for command in [args!["REDTAPE.MARK", "a"], args!["REDTAPE.SNAPSHOT"], get.clone()] {
            let denied = error(&mut conn, command);
            assert!(
                denied.starts_with("NOPERM ") && denied.contains("has no permissions to run the 'redtape."),
                "{denied}"
            );
        }
    }
    // The very words of the server, but for names.
    auth("none", "pw", &mut conn);
    let (theirs, ours) = (error(&mut conn, args!["PING"]), error(&mut conn, args!["REDTAPE.MARK", "a"]));
    assert_eq!(theirs.replace("'ping'", "'redtape.mark'"), ours);
    auth("ops", "pw", &mut conn);
    conn.must(&args!["REDTAPE.MARK", "a"]);
    assert_eq!(marks(&dir).len(), 1);
    auth("ops", "pw", &mut direct);
    for command in [args!["REDTAPE.FOO", "a", "bb"], args!["redtape.foo"]] {
        assert_eq!(error(&mut conn, command.clone()), error(&mut direct, command));
    }
    let theirs = error(&mut direct, args!["GET"]);
    for (command, name) in [(args!["REDTAPE.MARK"], "redtape.mark"), (args!["REDTAPE.LSN", 1], "redtape.lsn")] {
        assert_eq!(error(&mut conn, command), theirs.replace("'get'", &format!("'{name}'")));
    }
}

#[test]
fn info_has_a_section_like_a_modules() {
    let dir = Dir::new("journal");
    let server = Server::start();
    let mut redtape = Redtape::start(&server.url(), dir.path(), &[]);
    for query in ["", "/?protocol=resp3"] {
        let mut conn = Conn::open(&format!("{}{query}", redtape.url())).expect("a client");
        for n in 0..10 {
            conn.must(&args!["SET", format!("k:{n}"), n]);
        }
        redtape.wait_caught_up();
        for command in [args!["INFO"], args!["INFO", "all"], args!["info", "Everything"], args!["INFO", "default"]] {
            let all = info(&mut conn, command);
            assert!(all.starts_with("# Server\r\n") && all.contains("\r\n\r\n# Redtape\r\nproxy_version:"), "{all}");
        }
        let section = info(&mut conn, args!["INFO", "redtape"]);
        assert!(section.starts_with("# Redtape\r\n"), "{section}");
        assert!(!info(&mut conn, args!["INFO", "server"]).contains("Redtape"));
        assert_eq!(field(&section, "tap_state"), "streaming");
        assert_eq!(field(&section, "journal_timeline"), "1");
        assert_eq!(field(&section, "journal_gaps"), "0");
        assert_eq!(field(&section, "journal_sync"), "everysec");
        assert_eq!(field(&section, "proxy_upstream"), server.url());
        assert_eq!(field(&section, "tap_lag_bytes"), "0");
        assert_eq!(field(&section, "journal_dir"), path(&dir));
        let last: i64 = field(&section, "journal_last_restorable_us").parse().unwrap();
        let time: jiff::Timestamp = field(&section, "journal_last_restorable").parse().unwrap();
        assert_eq!(time.as_microsecond(), last);
        let names = |text: &str| -> Vec<String> {
            text.lines().filter_map(|l| l.split_once(':')).map(|(name, _)| name.to_owned()).collect()
        };
        assert_eq!(names(&section), names(&info(&mut conn, args!["REDTAPE.INFO"])));
        let lsn = fields(&conn.must(&args!["REDTAPE.LSN"]));
        let number = |name: &str| lsn[name].parse::<u64>().unwrap();
        assert!(number("captured") >= 10 && number("captured") >= number("written"), "{lsn:?}");
        assert!(number("written") >= number("durable"), "{lsn:?}");
    }
    // As a client library reads it: one map of all fields, in which the server's own are as they were.
    let mut client = redis::Client::open(redtape.url()).unwrap().get_connection().unwrap();
    let all: redis::InfoDict = redis::cmd("INFO").query(&mut client).unwrap();
    assert_eq!(all.get::<u16>("tcp_port"), Some(server.port));
    assert_eq!(all.get::<String>("tap_state").as_deref(), Some("streaming"));
}

#[test]
fn command_lists_them_and_redis_cli_uses_them() {
    let dir = Dir::new("journal");
    let server = Server::start();
    let redtape = Redtape::start(&server.url(), dir.path(), &[]);
    let cli = |port: u16, args: &[&str]| {
        let out = Command::new("redis-cli").args(["-p", &port.to_string()]).args(args).output().expect("redis-cli");
        String::from_utf8(out.stdout).expect("text").trim().to_owned()
    };
    let count = |port| cli(port, &["COMMAND", "COUNT"]).parse::<u32>().unwrap();
    assert_eq!(count(redtape.port), count(server.port) + 6);
    assert!(cli(redtape.port, &["COMMAND", "INFO", "redtape.mark"]).starts_with("redtape.mark\n2\nadmin\n"));
    assert!(cli(redtape.port, &["REDTAPE.HELP"]).starts_with("REDTAPE.<command>"));
    assert!(cli(redtape.port, &["redtape.mark", "by cli"]).starts_with("name\nby cli\nlsn\n"));
    assert!(cli(redtape.port, &["-3", "redtape.mark", "by cli 3"]).contains("by cli 3"));
    assert!(cli(redtape.port, &["INFO", "redtape"]).starts_with("# Redtape"));
    for query in ["", "/?protocol=resp3"] {
        let mut ours = Conn::open(&format!("{}{query}", redtape.url())).expect("a client");
        let mut theirs = Conn::open(&format!("{}{query}", server.url())).expect("a client");
        let (all, server_rows) = (items(&ours.must(&args!["COMMAND"])), items(&theirs.must(&args!["COMMAND"])));
        assert_eq!(all[..server_rows.len()], server_rows);
        let kind = |value: &Value| std::mem::discriminant(value);
        let model: Vec<_> = items(&server_rows[0]).iter().map(kind).collect();
        for row in &all[server_rows.len()..] {
            assert_eq!(items(row).len(), model.len());
            assert_eq!(
                items(row).iter().map(kind).collect::<Vec<_>>()[..9.min(model.len())],
                model[..9.min(model.len())]
            );
        }
        assert_eq!(all.len(), server_rows.len() + 6);
        let rows = items(&ours.must(&args!["COMMAND", "INFO", "get", "redtape.lsn", "nosuch"]));
        assert_eq!((text(&items(&rows[1])[0]).as_str(), &rows[2]), ("redtape.lsn", &Value::Nil));
        // Where there are such subcommands.
        if let Ok(Value::Array(names)) = ours.call(&args!["COMMAND", "LIST", "FILTERBY", "MODULE", "redtape"]) {
            assert_eq!(names.len(), 6);
            let docs = fields_of_docs(&ours.must(&args!["COMMAND", "DOCS", "get", "redtape.mark"]));
            assert_eq!(docs, ["get", "redtape.mark"]);
            assert_eq!(items(&ours.must(&args!["COMMAND", "DOCS"])).len() as u32 / 2, count(redtape.port));
        }
        // Answers keep their place among the server's.
        let replies = ours
            .pipeline(&[
                args!["SET", "k", "v"],
                args!["REDTAPE.LSN"],
                args!["GET", "k"],
                args!["COMMAND", "COUNT"],
                args!["PING"],
            ])
            .expect("replies");
        assert_eq!(replies[0], Value::Text("OK".to_owned()));
        assert_eq!(items(&replies[1]).len(), 6);
        assert_eq!((text(&replies[2]).as_str(), int(&replies[3]) as u32), ("v", count(redtape.port)));
        assert_eq!(text(&replies[4]), "PONG");
    }
}

fn fields_of_docs(value: &Value) -> Vec<String> {
    items(value).chunks(2).map(|pair| text(&pair[0])).collect()
}

#[test]
fn get_reads_a_past_key_with_redis_cli() {
    let dir = Dir::new("journal");
    let server = Server::start();
    let mut redtape = Redtape::start(&server.url(), dir.path(), &[]);
    let mut conn = open(&redtape);
    conn.must(&args!["SELECT", 2]);
    conn.must(&args!["HSET", "k", "f", &b"\xff"[..]]);
    conn.must(&args!["DEL", "k"]);
    redtape.wait_caught_up();
    let asked = args!["REDTAPE.GET", "k", "lsn:1"];
    let mut resp3 = Conn::open(&format!("{}/?protocol=resp3", redtape.url())).expect("a client");
    resp3.must(&args!["SELECT", 2]);
    // The very object of the command; in the database that the session works in.
    let args = ["get", "k", "--db", "2", "--at", "lsn:1", "--json", "--dir", path(&dir)];
    let printed = run(&args).expect_success("get").stdout;
    for conn in [&mut conn, &mut resp3] {
        assert_eq!(text(&conn.must(&asked)), printed.trim_end());
    }
    let object: serde_json::Value = serde_json::from_str(&printed).expect("JSON");
    assert_eq!(object["elements"][0]["value_base64"], "/w==");
    let gone: serde_json::Value =
        serde_json::from_str(&text(&conn.must(&args!["redtape.get", "k", "latest"]))).expect("JSON");
    assert_eq!((&gone["exists"], &gone["last_write"]["what"]), (&false.into(), &"deleted".into()));
    for (when, words) in [
        ("tomorrow", "ERR \"tomorrow\" is not a point in time"),
        ("lsn:99", "ERR LSN 99 cannot be restored"),
        ("1h ago", "ERR "),
    ] {
        let refused = error(&mut conn, args!["REDTAPE.GET", "k", when]);
        assert!(refused.starts_with(words), "{when}: {refused}");
    }
    // In a transaction it is a command that the server does not know.
    conn.must(&args!["MULTI"]);
    assert!(error(&mut conn, asked.clone()).starts_with("ERR unknown command"));
    assert!(error(&mut conn, args!["EXEC"]).starts_with("EXECABORT"));
    assert_eq!(text(&conn.must(&asked)), printed.trim_end());
}

/// A server's program that takes its time to start.
fn slow_program(dir: &Dir, seconds: u32) -> String {
    use std::os::unix::fs::PermissionsExt as _;
    let (file, program) = (dir.join("slow-server"), crate::harness::server::binary());
    let script = format!("#!/bin/sh\n[ \"$1\" = --version ] || sleep {seconds}\nexec {program} \"$@\"\n");
    std::fs::write(&file, script).expect("a script");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).expect("its mode");
    file.display().to_string()
}

#[test]
fn one_past_key_at_a_time_and_none_for_a_client_that_has_gone() {
    let (dir, tools) = (Dir::new("journal"), Dir::new("tools"));
    let server = Server::start();
    let slow = vec![
        ("REDTAPE_SERVER_BIN".to_owned(), slow_program(&tools, 12)),
        ("TMPDIR".to_owned(), path(&tools).to_owned()),
    ];
    let mut redtape = Redtape::start_in(slow, &server.url(), dir.path(), &["--workers", "1"]);
    let (mut first, mut second) = (open(&redtape), open(&redtape));
    first.must(&args!["SET", "k", 1]);
    redtape.wait_caught_up();
    let mut bytes = Vec::new();
    args!["REDTAPE.GET", "k", "latest"].pack(&mut bytes);
    first.send(&bytes).expect("it is sent");
    let busy = crate::harness::wait_for("BUSY", Duration::from_secs(10), || {
        match second.call(&args!["REDTAPE.GET", "k", "latest"]).expect("a reply") {
            Value::Error(e) if e.starts_with("BUSY ") => Some(e),
            _ => None,
        }
    });
    assert!(busy.contains("another REDTAPE.GET is running"), "{busy}");
    // Nobody else waits for it.
    for n in 0..50 {
        let started = Instant::now();
        second.must(&args!["SET", "other", n]);
        assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    }
    let started = Instant::now();
    drop(first);
    // Its place is free long before its server would have started; then the next one begins.
    let mut third = open(&redtape);
    crate::harness::wait_for("the place", Duration::from_secs(8), || {
        third.send(&bytes).expect("it is sent");
        let mut again = open(&redtape);
        again.must(&args!["PING"]);
        // A refusal comes at once; who is at work does not answer yet.
        match third.reply_within(Duration::from_millis(300)) {
            Some(Value::Error(e)) if e.starts_with("BUSY ") => None,
            Some(other) => panic!("{other:?}"),
            None => Some(()),
        }
    });
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    drop(third);
    crate::harness::wait_for("its scratch server's folder to go", Duration::from_secs(8), || {
        let mut left = std::fs::read_dir(tools.path()).expect("a folder").flatten();
        let is_one = |e: std::fs::DirEntry| e.file_name().to_string_lossy().starts_with("redtape-scratch-");
        (!left.any(is_one)).then_some(())
    });
}

/// Of the program that is built with this test: others have no smaller limits than those of production.
#[cfg(debug_assertions)]
fn with_get_limits(seconds: u64, bytes: u64, more: &[(&str, &str)]) -> Vec<(String, String)> {
    let limits = format!("{seconds} {bytes}");
    let all = [("REDTAPE_TEST_GET_LIMITS", &limits[..])].into_iter().chain(more.iter().copied());
    all.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

#[cfg(debug_assertions)]
#[test]
fn a_past_key_that_needs_too_large_a_dataset_is_refused() {
    const LIMIT: u64 = 64 << 10;
    let (dir, server) = (Dir::new("journal"), Server::start());
    let mut direct = server.conn();
    direct.must(&args!["SET", "in-the-base", "x".repeat(1 << 20)]);
    direct.must(&args!["CONFIG", "SET", "rdbcompression", "no"]);
    let environment = with_get_limits(60, LIMIT, &[]);
    let mut redtape = Redtape::start_in(environment, &server.url(), dir.path(), &[]);
    let mut conn = open(&redtape);
    conn.must(&args!["SET", "behind-it", "y".repeat(100 << 10)]);
    conn.must(&args!["SET", "small", "value"]);
    redtape.wait_caught_up();
    for key in ["in-the-base", "behind-it"] {
        let refused = error(&mut conn, args!["REDTAPE.GET", key, "latest"]);
        let words = ["ERR the dataset is too large to be rebuilt here: ", "the limit is 65536; use `redtape get`"];
        assert!(words.iter().all(|word| refused.contains(word)), "{key}: {refused}");
        // It says the truth: there is no such limit.
        run(&["get", key, "--db", "0", "--at", "latest", "--dir", path(&dir)]).expect_success("redtape get");
    }
    let small: serde_json::Value =
        serde_json::from_str(&text(&conn.must(&args!["REDTAPE.GET", "small", "latest"]))).expect("JSON");
    assert_eq!(small["exists"], true, "{small}");
}

#[test]
fn a_past_value_that_is_too_large_for_a_reply_is_refused() {
    let (dir, server) = (Dir::new("journal"), Server::start());
    let mut redtape = Redtape::start(&server.url(), dir.path(), &[]);
    let mut conn = open(&redtape);
    conn.must(&args!["SET", "large", "x".repeat(5 << 20)]);
    redtape.wait_caught_up();
    let refused = error(&mut conn, args!["REDTAPE.GET", "large", "latest"]);
    assert!(refused.starts_with("ERR the value of") && refused.contains("takes more than 4194304 bytes"), "{refused}");
    run(&["get", "large", "--db", "0", "--at", "latest", "--dir", path(&dir)]).expect_success("redtape get");
}

#[cfg(debug_assertions)]
#[test]
fn a_past_key_that_takes_too_long_is_given_up() {
    let (dir, tools, server) = (Dir::new("journal"), Dir::new("tools"), Server::start());
    let (program, folder) = (slow_program(&tools, 15), path(&tools).to_owned());
    let environment = with_get_limits(2, 1 << 30, &[("REDTAPE_SERVER_BIN", &program), ("TMPDIR", &folder)]);
    let mut redtape = Redtape::start_in(environment, &server.url(), dir.path(), &[]);
    let mut conn = open(&redtape);
    conn.must(&args!["SET", "k", 1]);
    redtape.wait_caught_up();
    // Twice: the first one gives its place back.
    for _ in 0..2 {
        let started = Instant::now();
        let refused = error(&mut conn, args!["REDTAPE.GET", "k", "latest"]);
        assert!(refused.starts_with("ERR not done within 2 s; `redtape get`"), "{refused}");
        let took = started.elapsed();
        assert!(took >= Duration::from_secs(2) && took < Duration::from_secs(10), "{took:?}");
    }
    // Nothing of it is left, and clients are served.
    let left: Vec<_> = std::fs::read_dir(tools.path()).expect("a folder").flatten().collect();
    let scratch = left.iter().filter(|e| e.file_name().to_string_lossy().starts_with("redtape-scratch-"));
    assert_eq!(scratch.count(), 0, "{left:?}");
    conn.must(&args!["SET", "k", 2]);
}
