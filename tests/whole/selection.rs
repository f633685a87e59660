//! Which keys are chosen: each option of the selection, alone and with others, against the rules applied to all keys there were; and
//! keys pasted from what redtape prints.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::harness::conn::{Conn, bytes, int, items, text};
use crate::harness::redtape::{BINARY, Outcome, run};
use crate::harness::{Dir, Redtape, Server};
use redtape_wire::quoted::unquote;
use serde_json::Value as Json;

const BINARY_KEY: &[u8] = b"\xff\x00k";
const LINES_KEY: &[u8] = b"two\nlines";

/// Database, key, type.
type Key = (i64, Vec<u8>, &'static str);
type Chosen = BTreeSet<(i64, Vec<u8>)>;

/// A journal in which there were these keys, and then none.
struct Past {
    dir: Dir,
    files: Dir,
    keys: Vec<Key>,
    /// The record that removed them.
    flushed: i64,
    target: Server,
}

fn path(path: &Path) -> &str {
    path.to_str().expect("a plain name")
}

fn named(url: &str, name: &str) -> Conn {
    let mut conn = Conn::open(url).expect("a client");
    conn.must(&args!["CLIENT", "SETNAME", name]);
    conn
}

fn last_lsn(redtape: &mut Redtape) -> i64 {
    redtape.wait_caught_up();
    int(&items(&redtape_conn(redtape).must(&args!["REDTAPE.LSN"]))[1])
}

fn redtape_conn(redtape: &Redtape) -> Conn {
    Conn::open(&redtape.url()).expect("a client")
}

fn write(conn: &mut Conn, (db, key, of_type): &Key) {
    conn.must(&args!["SELECT", *db]);
    let key = &key[..];
    conn.must(&match *of_type {
        "string" => args!["SET", key, "value"],
        "list" => args!["RPUSH", key, "a", "b"],
        "set" => args!["SADD", key, "a", "b"],
        "zset" => args!["ZADD", key, 1, "a"],
        "hash" => args!["HSET", key, "f", "v"],
        _ => args!["XADD", key, "5-1", "f", "v"],
    });
}

impl Past {
    fn record() -> Self {
        let (source, dir) = (Server::start(), Dir::new("journal"));
        let mut redtape = Redtape::start(&source.url(), dir.path(), &[]);
        let mut keys: Vec<Key> = Vec::new();
        for db in [0, 1, 3] {
            for n in 0..3 {
                keys.push((db, format!("user:{n}").into_bytes(), "hash"));
                keys.push((db, format!("{{tag{n}}}:cart").into_bytes(), "list"));
            }
            keys.push((db, b"tmp:1".to_vec(), "string"));
            keys.push((db, BINARY_KEY.to_vec(), "string"));
            keys.push((db, LINES_KEY.to_vec(), "set"));
            keys.push((db, b"it's".to_vec(), "zset"));
            keys.push((db, b"".to_vec(), "string"));
            keys.push((db, "caf\u{e9}".as_bytes().to_vec(), "stream"));
        }
        let mut conn = named(&redtape.url(), "app");
        keys.iter().for_each(|key| write(&mut conn, key));
        named(&redtape.url(), "intern").must(&args!["FLUSHALL"]);
        let flushed = last_lsn(&mut redtape);
        assert_eq!(redtape.terminate(), Some(0));
        Self { dir, files: Dir::new("files"), keys, flushed, target: Server::start() }
    }

    fn file(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        let file = self.files.join(name);
        std::fs::write(&file, content).expect("a file");
        path(&file).to_owned()
    }

    fn args<'a>(&'a self, to: &'a str, before: &'a str, more: &[&'a str]) -> Vec<&'a str> {
        let common = ["restore", "--from", path(self.dir.path()), "--before", before, "--to", to, "--yes", "--json"];
        [&common[..], more].concat()
    }

    /// Restores what there was before all was flushed.
    fn restore(&self, more: &[&str]) -> Outcome {
        run(&self.args(&self.target.url(), &format!("lsn:{}", self.flushed), more))
    }

    /// The keys in the target, each with its type; the target is emptied.
    fn restored(&self) -> Vec<Key> {
        let mut conn = self.target.conn();
        let mut found = Vec::new();
        for db in 0..16 {
            conn.must(&args!["SELECT", db]);
            for key in items(&conn.must(&args!["KEYS", "*"])) {
                let key = bytes(&key);
                let of_type = text(&conn.must(&args!["TYPE", key.as_slice()])).to_owned();
                let known = self.keys.iter().find(|(of, known, _)| (*of, known) == (db, &key)).expect("a known key");
                assert_eq!(known.2, of_type, "{}", key.escape_ascii());
                found.push(known.clone());
            }
        }
        conn.must(&args!["FLUSHALL"]);
        found
    }

    /// `more` brings exactly the keys for which this holds, with and without slicing.
    #[track_caller]
    fn chooses(&self, more: &[&str], holds: impl Fn(&Key) -> bool) {
        let want: Chosen = self.keys.iter().filter(|key| holds(key)).map(|(db, key, _)| (*db, key.clone())).collect();
        assert!(!want.is_empty() && want.len() < self.keys.len(), "{more:?} tells keys apart");
        for whole in [&[][..], &["--no-slice"]] {
            let args = [more, whole].concat();
            let told = self.restore(&args).expect_success(&format!("{args:?}")).stdout;
            let told: Json = serde_json::from_str(&told).expect("a report");
            let found: Chosen = self.restored().into_iter().map(|(db, key, _)| (db, key)).collect();
            assert_eq!(found, want, "{args:?}");
            let counted: i64 = told["keys"].as_object().expect("counts").values().map(|n| n.as_i64().unwrap()).sum();
            assert_eq!(counted, want.len() as i64, "{args:?}: {told}");
        }
    }

    #[track_caller]
    fn refused(&self, more: &[&str], code: i32, words: &[&str]) {
        let outcome = self.restore(more);
        assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(code), ""), "{more:?}: {outcome:?}");
        for word in words {
            assert!(outcome.stderr.contains(word), "{more:?}: {word:?} is not in {}", outcome.stderr);
        }
        assert_eq!(int(&self.target.conn().must(&args!["DBSIZE"])), 0, "{more:?}");
    }
}

fn begins(key: &Key, with: &str) -> bool {
    key.1.starts_with(with.as_bytes())
}

#[test]
fn names_databases_types_and_exclusions_combine() {
    let past = Past::record();
    past.chooses(&["--key", "user:*"], |key| begins(key, "user:"));
    past.chooses(&["--key", "user:*", "--key-regex", "^it.s$", "--exact-key", "tmp:1"], |key| {
        begins(key, "user:") || key.1 == b"it's" || key.1 == b"tmp:1"
    });
    past.chooses(&["--exact-key", r#""\xff\x00k""#, "--exact-key", r#""two\nlines""#, "--exact-key", ""], |key| {
        [BINARY_KEY, LINES_KEY, b""].contains(&&key.1[..])
    });
    past.chooses(&["--db", "1"], |key| key.0 == 1);
    past.chooses(&["--db", "1", "--db", "3", "--key", "user:1"], |key| key.0 > 0 && key.1 == b"user:1");
    past.chooses(&["--type", "hash", "--type", "LIST"], |key| ["hash", "list"].contains(&key.2));
    past.chooses(&["--type", "zset", "--db", "0"], |key| key.0 == 0 && key.2 == "zset");
    past.chooses(&["--type", "string", "--key", "*1*", "--key", "c*"], |key| begins(key, "tmp:"));
    past.chooses(&["--exclude-key", "user:*", "--exclude-key", "{*"], |key| !begins(key, "user:") && !begins(key, "{"));
    past.chooses(&["--key", "user:*", "--exclude-key", "*:1", "--db", "0"], |key| {
        key.0 == 0 && begins(key, "user:") && key.1 != b"user:1"
    });
    past.chooses(&["--type", "stream", "--exclude-key", "user:*"], |key| key.2 == "stream");
    past.refused(&["--type", "stream", "--key", "user:*"], 66, &["no key matches; nothing was restored"]);
    past.refused(&["--type", "zsets"], 64, &["--type", "string, list, set, zset, hash, stream"]);
    past.refused(&["--db", "1", "--via", "link"], 69, &["only some keys are wanted"]);
    past.refused(&["--type", "list", "--via", "link"], 69, &["only some keys are wanted"]);
    past.refused(&["--exclude-key", "tmp:*", "--via", "link"], 69, &["only some keys are wanted"]);

    // The plan says what is selected, in text and JSON.
    let more = ["--plan", "--key", "user:*", "--exact-key", "a", "--type", "hash", "--db", "3", "--exclude-key", "x"];
    let told = past.restore(&more).expect_success("a plan").stdout;
    let told: Json = serde_json::from_str(&told).expect("a plan");
    let words = "1 key, 1 pattern; database 3; type hash (looked at after the replay); without 1 key";
    assert_eq!((&told["selection"], &told["via"]), (&words.into(), &"scratch".into()));
    let (url, from) = (past.target.url(), path(past.dir.path()));
    let before = format!("lsn:{}", past.flushed);
    let plan = ["restore", "--plan", "--from", from, "--before", &before, "--to", &url];
    let told = run(&[&plan[..], &more[1..]].concat()).expect_success("a plan").stdout;
    assert!(told.contains(&format!("\nselection    {words}\n")), "{told}");
    let whole = run(&plan).expect_success("a plan").stdout;
    assert!(!whole.contains("\nselection "), "{whole}");
    // The types decide before conflicts are looked for.
    past.target.conn().must(&args!["SET", "user:1", "in the way"]);
    past.restore(&["--key", "user:1", "--key", "it*", "--type", "zset", "--db", "0"]).expect_success("no conflict");
    assert_eq!(int(&past.target.conn().must(&args!["DBSIZE"])), 2);
    past.target.conn().must(&args!["FLUSHALL"]);
}

#[test]
fn only_what_is_selected_is_deleted_as_absent() {
    let past = Past::record();
    let mut conn = past.target.conn();
    for (db, key) in [(0, "user:9"), (0, "tmp:9"), (0, "other"), (1, "user:9"), (3, "user:9")] {
        conn.must(&args!["SELECT", db]);
        conn.must(&args!["SET", key, "since"]);
    }
    let state = path(past.files.path()).to_owned() + "/state";
    let pairs = past.file("pairs", "{\"db\":3,\"key\":\"user:9\"}\n{\"db\":1,\"key\":\"user:8\"}\n");
    let more = ["--keys-from", &pairs, "--delete-absent", "--state-dir", &state];
    past.restore(&more).expect_success("of one database");
    let more = ["--key", "*:*", "--exclude-key", "tmp:*", "--db", "0", "--delete-absent", "--state-dir", &state];
    past.restore(&more).expect_success("without the excluded ones");
    for (db, key, there) in
        [(0, "user:9", 0), (0, "tmp:9", 1), (0, "other", 1), (1, "user:9", 1), (3, "user:9", 0), (0, "user:1", 1)]
    {
        conn.must(&args!["SELECT", db]);
        assert_eq!(int(&conn.must(&args!["EXISTS", key])), there, "{key} in db {db}");
    }
    // What did not exist has the type of its value in the target.
    conn.must(&args!["SELECT", 0]);
    conn.must(&args!["SADD", "set", "since"]);
    let typed = ["--type", "string", "--key", "other", "--key", "set", "--key", "user:1"];
    past.restore(&[&typed[..], &["--on-conflict", "skip", "--delete-absent", "--state-dir", &state]].concat())
        .expect_success("of one type");
    for (key, there) in [("other", 0), ("set", 1), ("user:1", 1)] {
        assert_eq!(int(&conn.must(&args!["EXISTS", key])), there, "{key}");
    }
}

#[test]
fn keys_come_from_files() {
    let past = Past::record();
    let plain =
        past.file("plain", "user:1\r\n\n{tag1}:cart\n\"\\xff\\x00k\"\n\"two\\nlines\"\nuser:1\n\"\"\nno such key\n");
    let of_plain = [&b"user:1"[..], b"{tag1}:cart", BINARY_KEY, LINES_KEY, b""];
    past.chooses(&["--keys-from", &plain], |key| of_plain.contains(&&key.1[..]));
    past.chooses(&["--keys-from", &plain, "--db", "3", "--key", "tmp:*", "--exclude-key", "*cart"], |key| {
        key.0 == 3 && (of_plain.contains(&&key.1[..]) && !key.1.ends_with(b"cart") || begins(key, "tmp:"))
    });
    past.chooses(&["--keys-from", &plain, "--type", "set", "--type", "list"], |key| {
        key.1 == LINES_KEY || key.1 == b"{tag1}:cart"
    });
    // Pairs of database and key, as lines and as a list; others in whichever database.
    let entries = r#"{"db":1,"key":"user:1"}
{"db":3,"key_base64":"/wBr"}
{"key":"two\nlines","db":null}
"#;
    let of_entries =
        |key: &Key| (key.0 == 1 && key.1 == b"user:1") || (key.0 == 3 && key.1 == BINARY_KEY) || key.1 == LINES_KEY;
    let list = format!("[{}]", entries.trim_end().replace("\n{", ",\n {"));
    for content in [entries, &list] {
        past.chooses(&["--keys-from", &past.file("pairs", content)], of_entries);
    }
    let pairs = past.file("pairs", entries.lines().take(2).collect::<Vec<_>>().join("\n"));
    past.chooses(&["--keys-from", &pairs], |key| of_entries(key) && key.1 != LINES_KEY);
    past.chooses(&["--keys-from", &pairs, "--db", "3"], |key| key.0 == 3 && key.1 == BINARY_KEY);
    past.refused(&["--keys-from", &pairs, "--db", "0"], 66, &["no key matches"]);
    past.chooses(&["--keys-from", &pairs, "--keys-from", &past.file("more", "[\"it's\", \"caf\\u00e9\"]")], |key| {
        of_entries(key) && key.1 != LINES_KEY || key.1 == b"it's" || key.1 == "caf\u{e9}".as_bytes()
    });
    // Many, of which few were there: more than are looked up one by one.
    let many: String = (0..300_000).map(|n| format!("user:{n}\n")).collect();
    let many = past.file("many", many);
    past.chooses(&["--keys-from", &many], |key| begins(key, "user:"));
    past.chooses(&["--keys-from", &many, "--db", "1"], |key| key.0 == 1 && begins(key, "user:"));

    let file = |content: &str| past.file("bad", content);
    for (content, words) in [
        ("", "it holds no key"),
        ("\n\r\n", "it holds no key"),
        ("[]", "it holds no key"),
        ("user:1\n\"s3cret", "line 2: the quote at its end is missing"),
        ("user:1\n\n{\"key\": \"s3cret\"", "line 3: not valid JSON"),
        ("{\"key\":\"user:1\"}\n{\"key\": 17, \"value\": \"s3cret\"}", "line 2: a key is a string, or an object"),
        ("[\"user:1\",\n\"s3cret\",]", "line 2: not valid JSON"),
        ("{\"args\":[\"FLUSHALL\",\"s3cret\"],\"keys\":null}", "line 1: it names no key"),
    ] {
        let bad = file(content);
        past.refused(&["--keys-from", &bad], 64, &[&format!("--keys-from {bad}: {words}")]);
        assert!(!past.restore(&["--keys-from", &bad]).stderr.contains("s3cret"), "{content}");
    }
    let missing = path(past.files.path()).to_owned() + "/missing";
    past.refused(&["--keys-from", &missing], 74, &["cannot read the keys of --keys-from", "No such file"]);
    past.refused(&["--keys-from", path(past.files.path())], 74, &["cannot read the keys of --keys-from", "directory"]);
    past.refused(&["--keys-from", "-", "--keys-from", "-"], 64, &["stdin can be read only once"]);
    past.refused(&["--keys-from", "-"], 64, &["it holds no key"]);

    let mut command = Command::new(BINARY);
    command.env("XDG_STATE_HOME", past.files.path());
    if let Some(server) = std::env::var_os("REDTAPE_TEST_SERVER") {
        command.env("REDTAPE_SERVER_BIN", server);
    }
    let (url, before) = (past.target.url(), format!("lsn:{}", past.flushed));
    let stdin = Stdio::from(File::open(&plain).expect("a file"));
    let out = command.args(past.args(&url, &before, &["--keys-from", "-"])).stdin(stdin).output().expect("redtape");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let found: BTreeSet<Vec<u8>> = past.restored().into_iter().map(|(_, key, _)| key).collect();
    assert_eq!(found, of_plain.iter().map(|key| key.to_vec()).collect());
}

#[test]
fn printed_keys_can_be_used_as_a_selection() {
    let (server, dir, files) = (Server::start(), Dir::new("journal"), Dir::new("files"));
    let mut redtape = Redtape::start(&server.url(), dir.path(), &[]);
    let mut app = named(&redtape.url(), "app");
    let keys = [b"user:1", b"user:2", b"other1", BINARY_KEY, LINES_KEY].map(|key: &[u8]| key.to_vec());
    for db in [0, 4] {
        app.must(&args!["SELECT", db]);
        keys.iter().for_each(|key| drop(app.must(&args!["SET", key.as_slice(), "v"])));
    }
    let good = last_lsn(&mut redtape);
    let mut cleanup = named(&redtape.url(), "cleanup");
    cleanup.must(&args!["DEL", "user:1", BINARY_KEY, LINES_KEY]);
    cleanup.must(&args!["SELECT", 4]);
    cleanup.must(&args!["MULTI"]);
    cleanup.must(&args!["UNLINK", "user:2"]);
    cleanup.must(&args!["SET", "new", 1]);
    cleanup.must(&args!["PUBLISH", "channel", "message"]);
    cleanup.must(&args!["EXEC"]);
    redtape.wait_caught_up();
    assert_eq!(redtape.terminate(), Some(0));
    let (from, at) = (path(dir.path()), format!("lsn:{good}"));
    let target = Server::start();
    let pasted = |content: &str, more: &[&str]| -> Chosen {
        let file = files.join("keys");
        std::fs::write(&file, content).expect("a file");
        let url = target.url();
        let args = ["restore", "--from", from, "--at", &at, "--to", &url, "--yes", "--keys-from", path(&file)];
        run(&[&args[..], more].concat()).expect_success(content);
        let mut conn = target.conn();
        let mut found = Chosen::new();
        for db in 0..16 {
            conn.must(&args!["SELECT", db]);
            found.extend(items(&conn.must(&args!["KEYS", "*"])).iter().map(|key| (db, bytes(key))));
        }
        conn.must(&args!["FLUSHALL"]);
        found
    };
    let of = |keys: &[(i64, &[u8])]| -> Chosen { keys.iter().map(|(db, key)| (*db, key.to_vec())).collect() };
    let lost = of(&[(0, b"user:1"), (0, BINARY_KEY), (0, LINES_KEY), (4, b"user:2")]);
    let json = |args: &[&str]| run(&[args, &["--from", from, "--json"]].concat()).expect_success("JSON").stdout;
    // Who removed what: a line of the log for each write, or the transactions as a whole.
    assert_eq!(pasted(&json(&["log", "--client", "cleanup"]), &[]), lost);
    assert_eq!(pasted(&json(&["journal", "cat", "--client", "cleanup"]), &[]), lost);
    let unlink = json(&["log", "--client", "cleanup", "--command", "UNLINK"]);
    assert_eq!(pasted(&unlink, &[]), of(&[(4, b"user:2")]));
    assert_eq!(pasted(&json(&["journal", "cat", "--command", "UNLINK"]), &[]), of(&[(4, b"user:2")]));
    // Only those that were asked for.
    let asked = json(&["log", "--client", "cleanup", "--key", "user:*"]);
    assert_eq!(pasted(&asked, &[]), of(&[(0, b"user:1"), (4, b"user:2")]));
    let list = format!("[{}]", asked.trim_end().replace('\n', ","));
    assert_eq!(pasted(&list, &["--exclude-key", "*:2"]), of(&[(0, b"user:1")]));
    // One key at a time.
    for (key, db) in [("user:1", "0"), (r#""\xff\x00k""#, "4"), (r#""two\nlines""#, "0")] {
        let got = json(&["get", key, "--db", db, "--at", &at]);
        let want = unquote(key.as_bytes()).expect("a key");
        assert_eq!(pasted(&got, &[]), of(&[(db.parse().unwrap(), &want)]), "{key}");
        // The same with the filters of the log.
        std::fs::write(files.join("one"), &got).expect("a file");
        let log = json(&["log", "--keys-from", path(&files.join("one")), "--reverse"]);
        let lines: Vec<Json> = log.lines().map(|line| serde_json::from_str(line).expect("a line")).collect();
        assert!(!lines.is_empty() && lines.iter().all(|line| line["db"] == db.parse::<i64>().unwrap()), "{log}");
    }
}

#[test]
fn the_log_takes_the_same_selection() {
    let past = Past::record();
    let from = path(past.dir.path());
    let plain = past.file("keys", "user:1\n\"\\xff\\x00k\"\n{\"db\":3,\"key\":\"tmp:1\"}\n");
    let shown = |args: &[&str]| -> Vec<(i64, i64)> {
        let out = run(&[args, &["--from", from, "--json"]].concat()).expect_success("JSON").stdout;
        let line = |line: &str| -> (i64, i64) {
            let line: Json = serde_json::from_str(line).expect("a line");
            (line["lsn"].as_i64().unwrap(), line["db"].as_i64().unwrap())
        };
        let mut all: Vec<_> = out.lines().map(line).filter(|(lsn, _)| *lsn < past.flushed).collect();
        all.sort_unstable();
        all
    };
    // Each key was written once, in their order.
    let of = |holds: &dyn Fn(&Key) -> bool| -> Vec<(i64, i64)> {
        (1..).zip(&past.keys).filter(|(_, key)| holds(key)).map(|(lsn, key)| (lsn, key.0)).collect()
    };
    let from_file = |key: &Key| key.1 == b"user:1" || key.1 == BINARY_KEY || (key.0 == 3 && key.1 == b"tmp:1");
    for command in [&["log"][..], &["journal", "cat"]] {
        let with = |more: &[&str]| shown(&[command, more].concat());
        assert_eq!(with(&["--keys-from", &plain]), of(&from_file), "{command:?}");
        assert_eq!(with(&["--keys-from", &plain, "--db", "3"]), of(&|key| key.0 == 3 && from_file(key)));
        let regex = with(&["--key-regex", "^user:[12]$", "--exclude-key", "*:2"]);
        assert_eq!(regex, of(&|key| key.1 == b"user:1"), "{command:?}");
        assert_eq!(with(&["--exclude-key", "user:*", "--db", "1"]), of(&|key| key.0 == 1 && !begins(key, "user:")));
        let outcome = run(&[command, &["--from", from, "--keys-from", "/nonexistent/keys"]].concat());
        assert!(outcome.code == Some(74) && outcome.stderr.contains("--keys-from /nonexistent/keys"), "{outcome:?}");
    }
    let tail = run(&["journal", "tail", "--from", from, "--keys-from", &past.file("empty", "")]);
    assert!(tail.code == Some(64) && tail.stderr.contains("it holds no key"), "{tail:?}");
    // Types of values are known after a replay, so no log has them.
    let log = run(&["log", "--from", from, "--type", "hash"]);
    assert!(log.code == Some(64) && log.stderr.contains("--type"), "{log:?}");
}

#[test]
fn a_destructive_last_write_is_shown_with_the_point_before_it() {
    let (server, dir) = (Server::start(), Dir::new("journal"));
    let mut redtape = Redtape::start(&server.url(), dir.path(), &[]);
    let mut conn = named(&redtape.url(), "app");
    let keys: Vec<String> = (0..120).map(|n| format!("key:{n}")).collect();
    let mut removed = vec![];
    let mut unlink = args!["UNLINK"];
    keys.iter().for_each(|key| unlink.0.extend(args![key.as_str()].0));
    for (what, command) in [
        ("UNLINK of 120 keys", unlink),
        ("SWAPDB 0 7", args!["SWAPDB", 0, 7]),
        ("FLUSHDB of db 0", args!["FLUSHDB"]),
        ("FLUSHALL", args!["FLUSHALL"]),
    ] {
        conn.must(&args!["FLUSHALL"]);
        keys.iter().for_each(|key| drop(conn.must(&args!["SET", key.as_str(), 1])));
        let before = last_lsn(&mut redtape);
        named(&redtape.url(), "intern").must(&command);
        removed.push((what, before, last_lsn(&mut redtape)));
    }
    assert_eq!(redtape.terminate(), Some(0));
    let (from, target) = (path(dir.path()), Server::start());
    let url = target.url();
    let plan = |at: i64, more: &[&str]| {
        let at = format!("lsn:{at}");
        let args = ["restore", "--from", from, "--plan", "--at", &at, "--to", &url];
        run(&[&args[..], more].concat()).expect_success("a plan").stdout
    };
    for (what, before, lsn) in removed {
        assert_eq!(before + 1, lsn, "{what} is one record");
        let words = format!("the last write included is {what} by intern; just before it: --at lsn:{before}");
        let told = plan(lsn, &[]);
        assert!(told.lines().any(|line| line == format!("warning      {words}")), "{told}");
        let json: Json = serde_json::from_str(&plan(lsn, &["--json"])).expect("a plan");
        assert!(json["warnings"].as_array().unwrap().contains(&words.as_str().into()), "{json}");
        assert!(!plan(before, &[]).contains("the last write included"), "{what}");
        // What is pointed out is what was there.
        let at = format!("lsn:{before}");
        run(&["restore", "--from", from, "--at", &at, "--to", &url]).expect_success("restore");
        assert_eq!(int(&target.conn().must(&args!["DBSIZE"])), 120, "{what}");
        target.conn().must(&args!["FLUSHALL"]);
    }
}
