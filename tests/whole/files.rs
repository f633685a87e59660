//! Restores into files, and of JSON lines back into servers: everything comes back as it was, what cannot be is said before anything is
//! written, and a file that has its name is whole.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value as Json, json};

use crate::harness::clock::Clock;
use crate::harness::conn::int;
use crate::harness::killed::spawn;
use crate::harness::redtape::{BINARY, Outcome, run};
use crate::harness::server::{Version, binary};
use crate::harness::workload::preload;
use crate::harness::{Dir, Redtape, Server, State, rfc3339, seed, wait_for};

/// A journal, what its server held at a moment, and a folder for files.
pub(super) struct Recorded {
    pub(super) journal: Dir,
    files: Dir,
    pub(super) state: State,
}

pub(super) fn text(path: &Path) -> &str {
    path.to_str().expect("a plain name")
}

/// What `fill` writes stands partly in the base, partly behind it.
pub(super) fn recorded(fill: impl Fn(&Server)) -> Recorded {
    let (server, journal) = (Server::with(&["--repl-backlog-size", "64mb"]), Dir::new("journal"));
    server.conn().must(&args!["SET", "in the base", 1]);
    let mut redtape = Redtape::start(&server.url(), journal.path(), &[]);
    fill(&server);
    redtape.wait_caught_up();
    let state = State::record_calm(&mut server.conn());
    assert_eq!(redtape.terminate(), Some(0));
    Recorded { journal, files: Dir::new("files"), state }
}

/// Values of every type beside those of the workload: what is large, not text, or no usual number.
pub(super) fn special(server: &Server) {
    let mut conn = server.conn();
    let commands = [
        args!["SET", "bytes\u{0}", &b"\xff\x00\r\n"[..]],
        args!["SET", "lives", "v", "PX", 100_000_000],
        args![
            "ZADD",
            "numbers",
            "inf",
            "a",
            "-inf",
            "b",
            "0.1",
            "c",
            "3.0000000000000004",
            "d",
            "-0",
            "e",
            "1e300",
            "f"
        ],
        args!["HSET", "hash", "f", &b"\xfe"[..], "", "empty", "plain", "text"],
        args!["XADD", "stream", "1-1", "a", "b", "a", "c"],
        args!["XADD", "stream", "2-0", "a", &b"\xff"[..]],
        args!["XADD", "stream", "3-0", "a", "b"],
        args!["XGROUP", "CREATE", "stream", "readers", "0"],
        args!["XREADGROUP", "GROUP", "readers", "alice", "COUNT", 2, "STREAMS", "stream", ">"],
        args!["XGROUP", "CREATE", "stream", "idle", "$"],
        args!["XDEL", "stream", "1-1"],
        args!["SELECT", 9],
        args!["SET", "far away", 1],
        args!["SELECT", 0],
    ];
    commands.iter().for_each(|command| drop(conn.must(command)));
    for n in 0..10 {
        let (mut list, mut set) = (args!["RPUSH", "large list"], args!["SADD", "large set"]);
        for m in 0..1000 {
            list.push(format!("{}", m % 7));
            set.push(format!("{n}-{m}"));
        }
        conn.must(&list);
        conn.must(&set);
    }
    conn.must(&args!["SET", "large string", "ä".repeat(1_200_000)]);
    if Version::tested().at_least((7, 4), (9, 0)) {
        conn.must(&args!["HPEXPIRE", "hash", 100_000_000, "FIELDS", 1, "f"]);
    }
    if Version::tested().at_least((7, 0), (0, 0)) {
        let code = "#!lua name=special\nredis.register_function('special', function() return '\\255' end)";
        conn.must(&args!["FUNCTION", "LOAD", code]);
    }
}

impl Recorded {
    /// With the arguments that say what is restored.
    pub(super) fn restore(&self, more: &[&str]) -> Outcome {
        run(&[&["restore", "--from", text(self.journal.path()), "--at", &rfc3339(self.state.at_us)], more].concat())
    }

    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.files.join(name)
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.files.path()).expect("the folder").flatten();
        let mut names: Vec<String> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }
}

/// A server that has loaded this RDB, with its clock at this time.
pub(super) fn loaded(file: &Path, at_us: i64) -> Server {
    let (folder, name) = (text(file.parent().expect("a folder")), file.file_name().expect("a name").to_string_lossy());
    Server::new(&["--dir", folder, "--dbfilename", &name], clock(at_us))
}

/// One that stands still, where the server works with that.
fn clock(at_us: i64) -> Clock {
    if Version::tested().timers_by_monotonic_clock() { Clock::At(at_us) } else { Clock::From(at_us) }
}

pub(super) fn import(file: &Path, to: &Server, more: &[&str]) -> Outcome {
    run(&[&["restore", "--from", text(file), "--to", &to.url(), "--yes"], more].concat())
}

/// Ended with this code, and a message with these words.
#[track_caller]
pub(super) fn ended(outcome: &Outcome, code: i32, words: &[&str]) {
    assert_eq!(outcome.code, Some(code), "{outcome:?}");
    for word in words {
        assert!(outcome.stderr.contains(word), "{word:?} is not in: {}", outcome.stderr);
    }
}

/// The lines of keys and functions, in some order: without the first, which says when it was.
fn contents(file: &Path) -> Vec<String> {
    let all = fs::read_to_string(file).expect("JSON lines");
    let mut lines: Vec<String> = all.lines().skip(1).map(str::to_owned).collect();
    let first: Json = serde_json::from_str(all.lines().next().expect("a line")).expect("JSON");
    assert_eq!((&first["format"], &first["version"]), (&json!("redtape-jsonl"), &json!(1)));
    lines.sort();
    lines
}

#[test]
fn everything_goes_into_files_and_back() {
    let seed = seed();
    let past = recorded(|server| {
        preload(server, seed, 120);
        special(server);
    });
    let state = &past.state;
    println!("{}", state.summary());
    assert!(state.keys() > 50);

    let rdb = past.file("out.rdb");
    let report = past.restore(&["--to-rdb", text(&rdb), "--json"]).expect_success("an RDB");
    let report: Json = serde_json::from_str(&report.stdout).expect("a report");
    assert_eq!(report["file"]["bytes"], fs::metadata(&rdb).expect("the RDB").len());
    assert!(
        fs::read(&rdb).expect("the RDB").starts_with(report["file"]["rdb"].as_str().expect("a version").as_bytes())
    );
    let found = State::record_restored(&mut loaded(&rdb, state.at_us).conn(), state.at_us);
    state.assert_same(&found, "an RDB that a server has loaded");

    let aof = past.file("out.aof");
    past.restore(&["--to-aof", text(&aof)]).expect_success("an append-only file");
    let started = Server::new(&["--dir", text(&aof), "--appendonly", "yes"], clock(state.at_us));
    let found = State::record_restored(&mut started.conn(), state.at_us);
    state.assert_same(&found, "a server with that append-only file");

    let lines = past.file("out.jsonl");
    past.restore(&["--to-jsonl", text(&lines)]).expect_success("JSON lines");
    // Not at that very moment: servers add the time that a command took, such as a fork, and a key may end right behind it.
    let target = Server::at_clock(state.at_us - 10_000_000);
    let said = import(&lines, &target, &[]).expect_success("JSON lines into a server");
    assert!(said.stdout.starts_with("restored "), "{said:?}");
    let found = State::record_restored(&mut target.conn(), state.at_us);
    state.assert_same(&found, "JSON lines in a server");

    // Of that server, the same lines.
    let again = Dir::new("journal");
    let mut redtape = Redtape::start(&target.url(), again.path(), &[]);
    redtape.wait_caught_up();
    assert_eq!(redtape.terminate(), Some(0));
    let second = past.file("again.jsonl");
    run(&["restore", "--from", text(again.path()), "--at", "latest", "--to-jsonl", text(&second)])
        .expect_success("again");
    let (first, second) = (contents(&lines), contents(&second));
    let only = |a: &[String], b: &[String]| a.iter().filter(|line| !b.contains(line)).cloned().collect::<Vec<_>>();
    assert_eq!((only(&first, &second), only(&second, &first)), (vec![], vec![]));

    assert_eq!(past.names(), ["again.jsonl", "out.aof", "out.jsonl", "out.rdb"], "nothing else is left");
}

#[test]
fn some_keys_go_into_files_and_back() {
    let past = recorded(|server| {
        let mut conn = server.conn();
        for n in 0..50 {
            conn.must(&args!["SET", format!("user:{n}"), n]);
            conn.must(&args!["RENAME", format!("user:{n}"), format!("member:{n}")]);
            conn.must(&args!["SADD", format!("tags:{n}"), n]);
        }
        // Beyond a megabyte: built in pieces beside other keys.
        let many: Vec<String> = (0..30_000).map(|n| format!("tag number {n}")).collect();
        many.chunks(5000).for_each(|some| {
            let mut add = args!["SADD", "tags:many"];
            some.iter().for_each(|tag| add.push(tag));
            conn.must(&add);
        });
    });
    let (rdb, lines) = (past.file("members.rdb"), past.file("some.jsonl"));
    let plan =
        past.restore(&["--to-rdb", text(&rdb), "--key", "member:*", "--plan", "--json"]).expect_success("a plan");
    let plan: Json = serde_json::from_str(&plan.stdout).expect("a plan");
    assert_eq!((&plan["file"]["format"], &plan["file"]["path"]), (&json!("rdb"), &json!(text(&rdb))));
    assert!(past.names().is_empty(), "a plan changes nothing");
    past.restore(&["--to-rdb", text(&rdb), "--key", "member:*", "--exclude-key", "*:7"]).expect_success("an RDB");
    let server = loaded(&rdb, past.state.at_us);
    assert_eq!(int(&server.conn().must(&args!["DBSIZE"])), 49, "without those they were renamed from");

    let said = past.restore(&["--to-jsonl", "-", "--type", "set", "--key", "tags:*"]).expect_success("stdout");
    assert!(said.stderr.contains("wrote 51 keys"), "the report is not among the lines: {said:?}");
    fs::write(&lines, &said.stdout).expect("a file");
    let sets = contents(&lines);
    assert!(sets.iter().all(|line| line.contains("\"type\":\"set\"") || line.contains("\"end\":true")), "{sets:?}");

    // Beside keys of others.
    let mut conn = server.conn();
    conn.must(&args!["SADD", "tags:3", "another's"]);
    let before = conn.must(&args!["SMEMBERS", "tags:3"]);
    ended(&import(&lines, &server, &[]), 73, &["is not empty"]);
    ended(&import(&lines, &server, &["--key", "tags:?"]), 73, &["1 of the wanted keys exist", "\"tags:3\""]);
    assert_eq!(int(&conn.must(&args!["DBSIZE"])), 50, "nothing was changed");
    let said = import(&lines, &server, &["--key", "tags:1*"]).expect_success("keys that it does not have");
    assert!(said.stdout.starts_with("restored 11 keys"), "{said:?}");
    let said = import(&lines, &server, &["--on-conflict", "skip"]).expect_success("those that it lacks");
    assert!(
        said.stdout.starts_with("restored 39 keys") && said.stdout.contains("12 keys that the target had"),
        "{said:?}"
    );
    assert_eq!(conn.must(&args!["SMEMBERS", "tags:3"]), before);
    assert_eq!(int(&conn.must(&args!["SCARD", "tags:many"])), 30_000);
    assert_eq!(int(&conn.must(&args!["EXISTS", "redtape:unfinished-restore"])), 0);
}

#[test]
fn what_cannot_be_is_said_and_leaves_nothing() {
    let past = recorded(|server| {
        let mut conn = server.conn();
        // Little in the RDB, where it is compressed, and much in JSON.
        conn.must(&args!["SET", "k", "v".repeat(2_000_000)]);
    });
    let (taken, missing) = (past.file("taken"), past.file("missing/out"));
    fs::write(&taken, "precious").expect("a file");
    let new = past.file("new");
    let (taken, missing, new) = (text(&taken), text(&missing), text(&new));
    for form in ["--to-rdb", "--to-aof", "--to-jsonl"] {
        ended(&past.restore(&[form, taken]), 73, &["exists, and is not overwritten"]);
        ended(&past.restore(&[form, taken, "--plan"]), 73, &["exists, and is not overwritten"]);
        ended(&past.restore(&[form, missing]), 74, &["the folder is missing"]);
        ended(&past.restore(&[form, "/"]), 64, &["no name for a file"]);
        ended(&past.restore(&[form, new, "--key", "nobody's"]), 66, &["no key matches"]);
        for option in [&["--on-conflict", "skip"][..], &["--rate", "5"], &["--via", "link"], &["--accept-eviction"]] {
            ended(&past.restore(&[&[form, new], option].concat()), 64, &["--to URL only"]);
        }
    }
    ended(&past.restore(&["--to-rdb", "-"]), 64, &["only JSON lines go to standard output"]);
    ended(&past.restore(&["--to-rdb", new, "--to-jsonl", new]), 64, &["cannot be used with"]);
    ended(&past.restore(&[]), 64, &["--to-rdb", "--to-jsonl"]);
    assert_eq!((past.names(), fs::read(taken).expect("a file")), (vec!["taken".to_owned()], b"precious".to_vec()));

    // A disk that is full: no file may be larger than 400 KiB.
    let args = format!("exec '{BINARY}' restore --from '{}' --at latest --to-jsonl '{new}'", text(past.journal.path()));
    let mut bash = Command::new("bash");
    bash.args(["-c", &format!("trap '' XFSZ; ulimit -f 400; {args}")]).env("REDTAPE_SERVER_BIN", binary());
    let full = bash.output().expect("bash");
    let said = String::from_utf8_lossy(&full.stderr);
    assert_eq!(full.status.code(), Some(74), "{said}");
    assert!(
        said.contains("cannot write") && said.contains("make room") && said.contains("Nothing of it is left"),
        "{said}"
    );
    assert_eq!(past.names(), ["taken"]);
}

#[test]
fn a_file_that_is_not_whole_changes_nothing() {
    let past = recorded(|server| {
        server.conn().must(&args!["RPUSH", "l", "a", "b"]);
    });
    let whole = past.file("whole.jsonl");
    past.restore(&["--to-jsonl", text(&whole)]).expect_success("JSON lines");
    let lines: Vec<String> = fs::read_to_string(&whole).expect("lines").lines().map(str::to_owned).collect();
    let (target, bad) = (Server::start(), past.file("bad.jsonl"));
    let with = |lines: &[String], end: &str, code, words: &[&str]| {
        fs::write(&bad, lines.join("\n") + end).expect("a file");
        ended(&import(&bad, &target, &[]), code, &[words, &["bad.jsonl, line"]].concat());
        assert_eq!(int(&target.conn().must(&args!["DBSIZE"])), 0);
    };
    with(&lines[..2], "\n", 65, &["line 2", "cut off"]);
    with(&lines, "", 65, &["cut off"]);
    with(&[&lines[..1], &lines[2..]].concat(), "\n", 65, &["counts other keys"]);
    let mut broken = lines.clone();
    broken[1] = broken[1].replace("\"size\":", "\"sise\":");
    with(&broken, "\n", 65, &["line 2", "sise"]);
    with(&["{}".to_owned()], "\n", 65, &["line 1", "no file of redtape restore --to-jsonl"]);
    let of = |more: &[&str]| import(&whole, &target, more);
    ended(&of(&["--at", "latest"]), 64, &["the file shows one point in time"]);
    ended(&of(&["--on-conflict", "merge"]), 64, &["needs a journal"]);
    ended(&of(&["--ttl", "none"]), 64, &["--ttl needs a journal"]);
    ended(&of(&["--replace-all", "--confirm", "elsewhere:1", "--key", "l"]), 64, &["--replace-all needs a journal"]);
    ended(&of(&["--via", "link"]), 64, &["--via"]);
    ended(&of(&["--key", "nobody's"]), 66, &["no key matches"]);
    ended(&import(&past.file("none.jsonl"), &target, &[]), 74, &["none.jsonl"]);
    assert_eq!(int(&target.conn().must(&args!["DBSIZE"])), 0);
    // A value that the server does not take: nothing of the restore is left there, the marker neither.
    let module = json!({"db": 0, "key": "m", "type": "module", "size": 1, "data_base64": "AA==",
        "module": {"type": "AAAAAAAAA", "version": 0, "id": "1024"}});
    let end = json!({"end": true, "keys": {"0": 1}, "functions": 0, "lines": 3});
    fs::write(&bad, format!("{}\n{module}\n{end}\n", lines[0])).expect("a file");
    // One before 7.0 would end itself.
    let refused = Version::tested().at_least((7, 0), (0, 0));
    let words =
        if refused { "does not take the value of \"m\"" } else { "\"m\" in db 0 (line 2): a value of a module" };
    ended(&import(&bad, &target, &[]), 69, &[words, "Nothing was written"]);
    assert_eq!(int(&target.conn().must(&args!["DBSIZE"])), 0);
    let few = Server::with(&["--databases", "1"]);
    fs::write(
        &bad,
        fs::read_to_string(&whole).expect("lines").replace("\"db\":0", "\"db\":1").replace("{\"0\"", "{\"1\""),
    )
    .expect("a file");
    ended(&import(&bad, &few, &[]), 69, &["has 1 databases", "Nothing was written"]);
}

#[test]
fn a_file_that_is_cut_short_has_no_name() {
    let past = recorded(|server| {
        let mut conn = server.conn();
        for n in 0..200 {
            conn.must(&args!["SET", format!("k:{n}"), "v".repeat(50_000)]);
        }
    });
    for (form, name) in [("--to-rdb", "out.rdb"), ("--to-aof", "out.aof"), ("--to-jsonl", "out.jsonl")] {
        let (file, unfinished) = (past.file(name), format!(".{name}.redtape-unfinished"));
        let tmp = Dir::new("tmp");
        let arguments = ["restore", "--from", text(past.journal.path()), "--at", "latest", form, text(&file)];
        let begin = || -> Child {
            let child = spawn(&arguments.map(str::to_owned), tmp.path());
            // The scratch server comes behind the temporary file and its lock.
            let begun = || fs::read_dir(tmp.path()).expect("the folder").next().is_some();
            let under_way = || (begun() && past.names().contains(&unfinished)).then_some(());
            wait_for("a file under way", Duration::from_secs(20), under_way);
            child
        };
        let mut child = begin();
        kill_process(Pid::from_child(&child), Signal::INT).expect("SIGINT");
        assert_eq!(child.wait().expect("its end").code(), Some(130));
        assert!(past.names().is_empty(), "{:?}", past.names());
        let mut child = begin();
        // Held still, it is at work for as long as another one tries.
        kill_process(Pid::from_child(&child), Signal::STOP).expect("SIGSTOP");
        ended(&run(&arguments), 75, &["another redtape is writing"]);
        child.kill().expect("SIGKILL");
        child.wait().expect("its end");
        assert_eq!(past.names(), [unfinished.as_str()]);
        run(&arguments).expect_success("again");
        assert_eq!(past.names(), [name]);
        let removed = if file.is_dir() { fs::remove_dir_all(&file) } else { fs::remove_file(&file) };
        removed.expect("the file");
    }
}

#[test]
fn json_lines_that_are_killed_on_their_way_can_be_gone_on_with() {
    const KEYS: i64 = 600;
    let past = recorded(|server| {
        let mut conn = server.conn();
        for n in 1..KEYS {
            conn.must(&args!["SET", format!("k:{n}"), "v".repeat(100_000)]);
        }
    });
    let lines = past.file("lines.jsonl");
    past.restore(&["--to-jsonl", text(&lines)]).expect_success("JSON lines");
    let target = Server::start();
    let (mut conn, tmp) = (target.conn(), Dir::new("tmp"));
    let mut child = spawn(&["restore", "--from", text(&lines), "--to", &target.url()].map(str::to_owned), tmp.path());
    let written = |conn: &mut crate::harness::Conn| int(&conn.must(&args!["DBSIZE"]));
    while written(&mut conn) < 2 {
        assert!(child.try_wait().expect("its state").is_none(), "it has ended without a key");
    }
    child.kill().expect("SIGKILL");
    child.wait().expect("its end");
    assert!(written(&mut conn) <= KEYS, "it was through before it was killed: more data is needed");
    assert_eq!(int(&conn.must(&args!["HLEN", "redtape:unfinished-restore"])), 1);
    ended(&import(&lines, &target, &[]), 73, &["is not empty"]);
    let said = import(&lines, &target, &["--on-conflict", "skip"]).expect_success("the rest");
    assert!(said.stdout.contains("that the target had: left as they are"), "{said:?}");
    assert_eq!((written(&mut conn), int(&conn.must(&args!["EXISTS", "redtape:unfinished-restore"]))), (KEYS, 0));
}

/// A server of `make compat`, if it is there.
fn other_server(name: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(".servers").join(name);
    if !path.exists() {
        println!("needs {} (make compat)", path.display());
    }
    path.exists().then_some(path)
}

#[test]
fn an_older_server_gets_what_it_can_hold() {
    let Some(old) = other_server("redis-6.0/redis-server") else { return };
    if !Version::tested().at_least((7, 0), (0, 0)) {
        return;
    }
    let past = recorded(special);
    let old = text(&old);
    let (rdb, lines) = (past.file("old.rdb"), past.file("lines.jsonl"));
    let to_rdb = ["--to-rdb", text(&rdb), "--server-bin", old];
    past.restore(&["--to-jsonl", text(&lines)]).expect_success("JSON lines");
    // The one that loads the base is found on PATH.
    let folder = Path::new(&binary()).parent().map(Path::to_owned).unwrap_or_default();
    let path = format!("{}:{}", folder.display(), std::env::var("PATH").unwrap_or_default());
    let restore = |more: &[&str]| {
        let at = rfc3339(past.state.at_us);
        let args = [&["restore", "--from", text(past.journal.path()), "--at", &at], more].concat();
        crate::harness::redtape::run_in(&[("PATH".to_owned(), path.clone())], &args)
    };
    let words = [
        "Redis 6.0.16 (REDIS0009) cannot hold",
        "the function library \"special\"",
        "Nothing was written",
        "--to-jsonl",
    ];
    ended(&restore(&to_rdb), 69, &words);
    assert_eq!(past.names(), ["lines.jsonl"]);
    let some = [&to_rdb[..], &["--key", "*", "--exclude-key", "hash"]].concat();
    let said = restore(&some).expect_success("an RDB of an older version");
    assert!(said.stdout.contains("REDIS0009"), "{said:?}");
    assert!(fs::read(&rdb).expect("the RDB").starts_with(b"REDIS0009"));

    let folder = Dir::new("old");
    let port = crate::harness::free_port();
    let mut server = Command::new(old)
        .args(["--port", &port.to_string(), "--save", "", "--dir", text(past.files.path()), "--dbfilename", "old.rdb"])
        .current_dir(folder.path())
        .stdout(Stdio::null())
        .spawn()
        .expect("the older server");
    let url = format!("redis://127.0.0.1:{port}");
    let mut conn = wait_for("the older server", Duration::from_secs(20), || {
        let mut conn = crate::harness::Conn::open(&url).ok()?;
        (conn.call(&args!["PING"]).ok()? == crate::harness::conn::Value::Text("PONG".to_owned())).then_some(conn)
    });
    let loaded = int(&conn.must(&args!["DBSIZE"]));
    conn.must(&args!["FLUSHALL"]);
    let back = run(&["restore", "--from", text(&lines), "--to", &url, "--key", "*", "--exclude-key", "hash", "--yes"]);
    let back = back.expect_success("JSON lines into an older server");
    let imported = int(&conn.must(&args!["DBSIZE"]));
    let score = conn.must(&args!["ZSCORE", "numbers", "d"]);
    let pending = conn.must(&args!["XPENDING", "stream", "readers"]);
    let _ = server.kill();
    let _ = server.wait();
    let expected = past.state.dbs[&0].len() as i64 - 1;
    assert_eq!((loaded, imported), (expected, expected), "{back:?}");
    assert_eq!(crate::harness::conn::text(&score).parse::<f64>().ok(), Some(3.000_000_000_000_000_4));
    assert!(crate::harness::conn::items(&pending)[0] == crate::harness::conn::Value::Int(2), "{pending:?}");
}
