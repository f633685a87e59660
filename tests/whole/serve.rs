//! `redtape restore --serve`: clients read a point in time as it was, and can change nothing; nothing is left behind.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::harness::conn::Value as Reply;
use crate::harness::conn::{bytes, int, items};
use crate::harness::redtape::run;
use crate::harness::server::Version;
use crate::harness::{Conn, Dir, Redtape, Server, free_port, wait_for};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// A journal of a server with keys of each type; the last record but one is all of them, the last one removes them.
fn journal() -> Dir {
    let dir = Dir::new("journal");
    let source = Server::start();
    let mut proxy = Redtape::start(&source.url(), dir.path(), &[]);
    let mut conn = source.conn();
    for command in [
        args!["SET", "string", "value"],
        args!["SET", "lasting", "value", "PX", 3_600_000],
        args!["SET", "short", "value", "PX", 1],
        args!["RPUSH", "list", "a", "b"],
        args!["SADD", "set", "a"],
        args!["ZADD", "zset", 1, "a"],
        args!["HSET", "hash", "field", "value"],
        args!["XADD", "stream", "1-1", "field", "value"],
        args!["SELECT", 3],
        args!["SET", "other", "value"],
        args!["SELECT", 0],
    ] {
        conn.must(&command);
    }
    std::thread::sleep(Duration::from_millis(20));
    conn.must(&args!["SET", "last", "value"]);
    conn.must(&args!["FLUSHALL"]);
    proxy.wait_caught_up();
    assert_eq!(proxy.terminate(), Some(0));
    dir
}

/// A server that serves, with a TMPDIR of its own.
struct Serving {
    child: Child,
    tmp: Dir,
    ready: Value,
}

impl Serving {
    fn start(journal: &Dir, at: &str, more: &[&str]) -> Self {
        // The path of a socket is short.
        let tmp = Dir::new("t");
        let from = journal.path().to_str().expect("a plain name");
        let mut command = Command::new(env!("CARGO_BIN_EXE_redtape"));
        if let Some(server) = std::env::var_os("REDTAPE_TEST_SERVER") {
            command.env("REDTAPE_SERVER_BIN", server);
        }
        let mut child = command
            .args(["restore", "--from", from, "--json", "--serve", at])
            .args(more)
            .env("TMPDIR", tmp.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("redtape restore");
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().expect("its stdout")).read_line(&mut line).expect("a line");
        let ready = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line:?}"));
        Self { child, tmp, ready }
    }

    fn conn(&self) -> Conn {
        self.open("")
    }

    fn open(&self, query: &str) -> Conn {
        let address = self.ready["address"].as_str().expect("an address");
        Conn::open(&format!("redis://{address}{query}")).expect("a connection")
    }

    fn folders(&self) -> Vec<PathBuf> {
        std::fs::read_dir(self.tmp.path()).expect("its folder").map(|entry| entry.expect("one").path()).collect()
    }

    fn is_gone(&self, address: &str) {
        wait_for("an empty TMPDIR", Duration::from_secs(20), || self.folders().is_empty().then_some(()));
        assert!(Conn::open(&format!("redis://{address}")).is_err(), "nobody listens any more");
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const READ_ONLY: &[&str] = &["--before", "latest"];

fn refused(conn: &mut Conn, command: &crate::harness::Args) {
    match conn.call(command).expect("a reply") {
        // An old server may not know it at all.
        Reply::Error(error) => {
            assert!(error.contains("NOPERM") || error.contains("unknown command"), "{command:?}: {error}");
        }
        other => panic!("{command:?}: {other:?}"),
    }
}

#[test]
fn clients_read_the_point_in_time_and_change_nothing() {
    let journal = journal();
    let serving = Serving::start(&journal, "127.0.0.1:0", READ_ONLY);
    assert_eq!((&serving.ready["keys"]["3"], serving.ready["before"].as_bool()), (&Value::from(1), Some(true)));
    let mut conn = serving.conn();
    assert_eq!(bytes(&conn.must(&args!["GET", "string"])), b"value");
    assert_eq!(conn.must(&args!["GET", "short"]), Reply::Nil, "its TTL had passed then");
    let left = int(&conn.must(&args!["PTTL", "lasting"]));
    assert!((1..3_600_000).contains(&left), "{left}");
    std::thread::sleep(Duration::from_millis(30));
    assert_eq!(int(&conn.must(&args!["PTTL", "lasting"])), left, "its clock stands");
    assert_eq!(items(&conn.must(&args!["LRANGE", "list", 0, -1])).len(), 2);
    assert_eq!(int(&conn.must(&args!["ZSCORE", "zset", "a"])), 1);
    assert_eq!(items(&conn.must(&args!["XRANGE", "stream", "-", "+"])).len(), 1);
    assert!(int(&conn.must(&args!["MEMORY", "USAGE", "hash"])) > 0);
    for command in [
        args!["DUMP", "hash"],
        args!["OBJECT", "ENCODING", "set"],
        args!["SCAN", 0],
        args!["KEYS", "*"],
        args!["INFO"],
        args!["COMMAND"],
        args!["CLIENT", "SETNAME", "reader"],
        args!["XREAD", "STREAMS", "stream", 0],
    ] {
        conn.must(&command);
    }
    let script = "return redis.call('GET', KEYS[1])";
    // Before 7.0 there is nothing that only reads.
    let evals = if Version::tested().at_least((7, 0), (0, 0)) {
        conn.must(&args!["SORT_RO", "list", "ALPHA"]);
        &["EVAL", "EVAL_RO"][..]
    } else {
        &["EVAL"]
    };
    for eval in evals {
        assert_eq!(bytes(&conn.must(&args![eval, script, 1, "string"])), b"value");
    }
    for command in [
        args!["SET", "string", "other"],
        args!["DEL", "string"],
        args!["GETEX", "string", "PERSIST"],
        args!["EXPIRE", "string", 1],
        args!["XREADGROUP", "GROUP", "g", "c", "STREAMS", "stream", ">"],
        args!["FLUSHALL"],
        args!["SWAPDB", 0, 3],
        args!["CONFIG", "SET", "maxmemory", 1],
        args!["DEBUG", "SLEEP", 0],
        args!["SHUTDOWN", "NOSAVE"],
        args!["REPLICAOF", "NO", "ONE"],
        args!["MODULE", "LIST"],
        args!["SAVE"],
        args!["BGSAVE"],
        args!["ACL", "SETUSER", "default", "+@all"],
        args!["CLIENT", "PAUSE", 1],
        args!["CLIENT", "KILL", "TYPE", "normal"],
        args!["PSYNC", "?", -1],
        args!["MONITOR"],
    ] {
        refused(&mut conn, &command);
    }
    for eval in evals {
        let reply = conn.call(&args![eval, "return redis.call('SET', KEYS[1], 1)", 1, "string"]).expect("a reply");
        assert!(matches!(reply, Reply::Error(_)), "{reply:?}");
    }
    conn.must(&args!["MULTI"]);
    refused(&mut conn, &args!["SET", "string", "other"]);
    assert!(matches!(conn.call(&args!["EXEC"]).expect("a reply"), Reply::Error(_)));
    assert_eq!(bytes(&conn.must(&args!["GET", "string"])), b"value");
    let mut third = serving.open("/?protocol=resp3");
    assert!(matches!(third.must(&args!["HGETALL", "hash"]), Reply::Map(_)));
    third.must(&args!["SELECT", 3]);
    assert_eq!(bytes(&third.must(&args!["GET", "other"])), b"value");
}

#[test]
fn serve_cleans_up_however_it_ends() {
    let journal = journal();
    for (signal, code) in [(Signal::INT, Some(0)), (Signal::TERM, Some(0)), (Signal::KILL, None)] {
        let mut serving = Serving::start(&journal, "127.0.0.1:0", READ_ONLY);
        let mut conn = serving.conn();
        conn.must(&args!["PING"]);
        assert_eq!(serving.folders().len(), 1);
        let address = serving.ready["address"].as_str().expect("an address").to_owned();
        kill_process(Pid::from_child(&serving.child), signal).expect("a signal");
        assert_eq!(serving.child.wait().expect("its end").code(), code);
        serving.is_gone(&address);
        assert!(conn.call(&args!["PING"]).is_err());
    }
}

#[test]
fn only_the_selection_is_served_behind_a_password() {
    let (journal, secrets) = (journal(), Dir::new("secrets"));
    let file = secrets.path().join("password");
    std::fs::write(&file, "open sesame\n").expect("a file");
    let file = file.to_str().expect("a plain name");
    let more =
        [READ_ONLY, &["--serve-password-file", file, "--key", "*s*", "--type", "set", "--type", "list"]].concat();
    let serving = Serving::start(&journal, "0.0.0.0:0", &more);
    let port = serving.ready["address"].as_str().and_then(|at| at.rsplit_once(':')).expect("a port").1.to_owned();
    let mut conn = Conn::open(&format!("redis://127.0.0.1:{port}")).expect("a connection");
    let reply = conn.call(&args!["GET", "string"]).expect("a reply");
    assert!(matches!(&reply, Reply::Error(error) if error.contains("NOAUTH")), "{reply:?}");
    let reply = conn.call(&args!["AUTH", "wrong"]).expect("a reply");
    assert!(matches!(reply, Reply::Error(_)), "{reply:?}");
    conn.must(&args!["AUTH", "open sesame"]);
    let mut keys: Vec<_> = items(&conn.must(&args!["KEYS", "*"])).iter().map(bytes).collect();
    keys.sort();
    assert_eq!(keys, [b"list".to_vec(), b"set".to_vec()]);
    refused(&mut conn, &args!["DEL", "set"]);
}

fn serve(from: &Path, more: &[&str]) -> crate::harness::redtape::Outcome {
    run(&[&["restore", "--from", from.to_str().expect("a plain name"), "--before", "latest"], more].concat())
}

#[test]
fn unservable_requests_are_refused() {
    let journal = journal();
    let busy = std::net::TcpListener::bind(("127.0.0.1", free_port())).expect("a listener");
    let busy = busy.local_addr().expect("its address").to_string();
    for (more, code, words) in [
        (&["--serve", &busy][..], 71, "cannot listen on"),
        (&["--serve", "0.0.0.0:0"], 64, "--serve-password-file"),
        (&["--serve", "7000"], 64, "127.0.0.1:7000"),
        (&["--serve", "127.0.0.1:0", "--key", "nothing"], 69, "nothing to serve"),
        (&["--serve", "127.0.0.1:0", "--via", "link"], 64, "--via link can be used with --to URL only"),
        (&["--serve", "127.0.0.1:0", "--rate", "10"], 64, "--rate can be used with --to URL only"),
        (&["--serve", "127.0.0.1:0", "--replace-all", "--confirm", "x"], 64, "--replace-all"),
        (&["--serve", "127.0.0.1:0", "--to", "redis://127.0.0.1:1"], 64, "cannot be used with"),
    ] {
        let outcome = serve(journal.path(), more);
        assert!(outcome.code == Some(code) && outcome.stderr.contains(words), "{more:?}: {outcome:?}");
        assert_eq!(outcome.stdout, "");
    }
    let plan = serve(journal.path(), &["--serve", "127.0.0.1:0", "--plan", "--json"]).expect_success("a plan");
    let plan: Value = serde_json::from_str(&plan.stdout).expect("JSON");
    assert_eq!((plan["via"].as_str(), &plan["limits"]), (Some("serve"), &Value::Array(Vec::new())));
    let plan = serve(journal.path(), &["--serve", "127.0.0.1:0", "--plan"]).expect_success("a plan");
    assert!(plan.stdout.starts_with("serve at     127.0.0.1:"), "{plan:?}");
}
