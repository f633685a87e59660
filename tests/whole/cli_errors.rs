//! Bad input and bad days: each ends with one message that says what to do and an exit code of
//! `sysexits.h`; nothing is changed, neither in the journal's directory nor in a target; and no
//! password is ever printed.

use crate::harness::redtape::{Outcome, run};
use crate::harness::{Conn, Dir, Redtape, Server, free_port, rfc3339, wait_for};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const USAGE: i32 = 64;
const DATAERR: i32 = 65;
const NOINPUT: i32 = 66;
const UNAVAILABLE: i32 = 69;
const OSERR: i32 = 71;
const CANTCREAT: i32 = 73;
const TEMPFAIL: i32 = 75;
const NOPERM: i32 = 77;

const PASSWORD: &str = "correct-horse";
const WRONG_PASSWORD: &str = "battery-staple";
/// With what must be encoded in a URL, and how it looks there.
const ODD_PASSWORD: [&str; 2] = ["p@ss/w:rd", "p%40ss%2Fw%3Ard"];

/// Runs `redtape` with these settings and none of the caller's.
fn redtape<S: AsRef<OsStr>>(args: &[S], settings: &[(&str, &str)]) -> Outcome {
    let mut command = Command::new(env!("CARGO_BIN_EXE_redtape"));
    for (name, _) in std::env::vars_os().filter(|(n, _)| n.to_string_lossy().starts_with("REDTAPE_")) {
        command.env_remove(name);
    }
    // Nothing that is expected to fail may go on: `proxy` and `follow` would run until they are told.
    let mut child = command
        .args(args)
        .envs(settings.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let started = std::time::Instant::now();
    while child.try_wait().unwrap().is_none() {
        if started.elapsed() > Duration::from_secs(60) {
            child.kill().unwrap();
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let out = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    let outcome = Outcome { code: out.status.code(), stdout: text(out.stdout), stderr: text(out.stderr) };
    for secret in [PASSWORD, WRONG_PASSWORD, ODD_PASSWORD[0], ODD_PASSWORD[1]] {
        assert!(!outcome.stderr.contains(secret) && !outcome.stdout.contains(secret), "a password shows: {outcome:?}");
    }
    outcome
}

/// It must be refused with this code, and one message that holds these words.
#[track_caller]
fn refused<S: AsRef<OsStr>>(args: &[S], settings: &[(&str, &str)], code: i32, words: &[&str]) -> String {
    let said: Vec<_> = args.iter().map(|a| a.as_ref().to_string_lossy().into_owned()).collect();
    let said = said.join(" ");
    let outcome = redtape(args, settings);
    let at = outcome.stderr.find("redtape: ").or_else(|| outcome.stderr.find("error: "));
    let at = at.unwrap_or_else(|| panic!("redtape {said}: no message: {outcome:?}"));
    let message = outcome.stderr[at..].trim_end().to_owned();
    println!("redtape {said}\n  {code}  {}", message.replace('\n', "\n      "));
    assert_eq!(outcome.code, Some(code), "redtape {said}\n{}", outcome.stderr);
    let more = message.lines().skip(1).filter(|l| l.starts_with("redtape: ")).count();
    assert_eq!(more, 0, "redtape {said}: one message: {message}");
    assert_eq!(outcome.stdout, "", "redtape {said}: nothing on stdout");
    for word in words {
        assert!(message.contains(word), "redtape {said}: {word:?} is not in: {message}");
    }
    assert!(!message.contains("panicked"), "{message}");
    message
}

/// Every file below a folder with its content.
fn tree(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                found.insert(path.clone(), b"a folder".to_vec());
                folders.push(path);
            } else {
                let content = std::fs::read(&path).unwrap();
                found.insert(path, content);
            }
        }
    }
    found
}

#[track_caller]
fn assert_same_tree(before: &BTreeMap<PathBuf, Vec<u8>>, root: &Path) {
    let after = tree(root);
    let names = |t: &BTreeMap<PathBuf, Vec<u8>>| t.iter().map(|(p, b)| (p.clone(), b.len())).collect::<Vec<_>>();
    assert!(*before == after, "{}: {:?} became {:?}", root.display(), names(before), names(&after));
}

/// All that a refused restore could have changed in a target.
fn state(url: &str) -> Vec<crate::harness::conn::Value> {
    let mut conn = Conn::open(url).unwrap();
    let mut ask = |args| conn.must(&args);
    vec![ask(args!["DBSIZE"]), ask(args!["DEBUG", "DIGEST"]), ask(args!["ROLE"])]
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a plain name")
}

/// A journal with two windows and a gap between them; nobody writes to it any more.
struct Past {
    dir: Dir,
    windows: Vec<(i64, i64)>,
    gap: (i64, i64),
    last_lsn: u64,
}

impl Past {
    fn record() -> Self {
        let dir = Dir::new("journal");
        let mut server = Server::start();
        let mut proxy = Redtape::start(&server.url(), dir.path(), &[]);
        let write = |url: &str| {
            let mut conn = Conn::open(url).unwrap();
            for n in 0..20 {
                conn.must(&args!["SET", format!("key:{n}"), n]);
            }
            conn.must(&args!["MULTI"]);
            conn.must(&args!["HSET", "hash", "field", "value"]);
            conn.must(&args!["RPUSH", "list", "a", "b"]);
            conn.must(&args!["EXEC"]);
        };
        write(&proxy.url());
        proxy.wait_caught_up();
        // Empty, and with another history: what it held cannot be continued.
        server.restart();
        wait_for("the second timeline", Duration::from_secs(30), || {
            (proxy.metric("redtape_timeline") == Some(2.0)).then_some(())
        });
        proxy.wait_streaming();
        wait_for("clients being served again", Duration::from_secs(10), || {
            let pong = Conn::open(&proxy.url()).and_then(|mut c| c.call(&args!["PING"])).ok()?;
            (pong == crate::harness::conn::Value::Text("PONG".to_owned())).then_some(())
        });
        write(&proxy.url());
        proxy.wait_caught_up();
        // A restore makes a key index that is missing.
        wait_for("a key index of each base", Duration::from_secs(30), || {
            let names = std::fs::read_dir(dir.path().join("snapshots")).ok()?.flatten().map(|entry| entry.path());
            (names.filter(|path| path.extension().is_some_and(|e| e == "keys")).count() == 2).then_some(())
        });
        assert_eq!(proxy.terminate(), Some(0));
        let listed = run(&["journal", "ls", "--from", text(dir.path()), "--json"]).expect_success("journal ls");
        let listed: Value = serde_json::from_str(&listed.stdout).unwrap();
        let span = |v: &Value| (v["from_us"].as_i64().unwrap(), v["to_us"].as_i64().unwrap());
        let windows: Vec<_> = listed["windows"].as_array().unwrap().iter().map(span).collect();
        let gap = span(&listed["gaps"][0]);
        assert_eq!((windows.len(), listed["gaps"].as_array().unwrap().len()), (2, 1), "{listed}");
        let last_lsn = listed["windows"][1]["to_lsn"].as_u64().unwrap();
        Self { dir, windows, gap, last_lsn }
    }

    fn path(&self) -> &str {
        text(self.dir.path())
    }
}

#[test]
fn proxy_and_follow_say_what_is_missing_or_wrong() {
    let dir = Dir::new("bad-input");
    let journal = dir.join("journal");
    let journal = text(&journal);
    let server = Server::start();
    let url = server.url();
    let config = |text: &str| {
        let path = dir.join("redtape.toml");
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let nothing = tree(dir.path());

    // No server named.
    refused(&["proxy", "--dir", journal], &[], USAGE, &["--upstream", "redis://"]);
    refused(&["follow", "--dir", journal], &[], USAGE, &["--upstream", "redis://"]);
    // Wrong URLs, wherever they come from.
    for bad in ["http://localhost:6379", "redis://", "redis://host:port", "redis://host:99999", "unix://relative"] {
        refused(&["proxy", "--dir", journal, "--upstream", bad], &[], USAGE, &["--upstream", "redis://"]);
        refused(&["follow", "--dir", journal], &[("REDTAPE_UPSTREAM", bad)], USAGE, &["--upstream", "redis://"]);
        refused(&["proxy", "--dir", journal, "--upstream", &url, "--follow", bad], &[], USAGE, &["--follow"]);
    }
    let wrong = format!("http://user:{PASSWORD}@localhost");
    refused(&["proxy", "--dir", journal, "--upstream", &wrong], &[], USAGE, &["--upstream"]);
    let args = ["proxy", "--dir", journal, "--upstream", "redis://localhost", "--upstream-tls-insecure"];
    refused(&args, &[], USAGE, &["upstream-tls", "rediss://"]);
    // Wrong arguments.
    refused(&["proxy", "--dir", journal, "--upstream", &url, "--sync", "often"], &[], USAGE, &["everysec"]);
    refused(&["proxy", "--dir", journal, "--upstream", &url, "--listen", "6400"], &[], USAGE, &["--listen"]);
    refused(&["proxy", "--no-such-flag"], &[], USAGE, &["--no-such-flag", "--help"]);
    refused(&["no-such-command"], &[], USAGE, &["no-such-command", "--help"]);
    assert_same_tree(&nothing, dir.path());

    // A configuration that is not there, or not understood.
    let missing = dir.join("missing.toml");
    refused(&["proxy", "--config", text(&missing)], &[], USAGE, &["missing.toml"]);
    let path = config("upstreem = \"redis://localhost\"\n");
    refused(&["proxy", "--config", &path, "--dir", journal], &[], USAGE, &["redtape.toml", "upstreem"]);
    let path = config("this is not TOML\n");
    refused(&["proxy", "--config", &path, "--dir", journal], &[], USAGE, &["redtape.toml"]);
    let path = config(&format!("upstream = \"redis://:{PASSWORD}@localhost:port\"\n"));
    refused(&["proxy", "--config", &path, "--dir", journal], &[], USAGE, &["port"]);
    std::fs::remove_file(path).unwrap();

    // The server is not there.
    let nobody = format!("redis://127.0.0.1:{}", free_port());
    for command in ["proxy", "follow"] {
        let words = &["cannot reach 127.0.0.1:", "--upstream"];
        refused(&[command, "--dir", journal, "--upstream", &nobody], &[], UNAVAILABLE, words);
    }
    let with_password = nobody.replace("//", &format!("//:{PASSWORD}@"));
    refused(&["proxy", "--dir", journal, "--upstream", &with_password], &[], UNAVAILABLE, &["cannot reach"]);
    let socket = format!("unix://{}", dir.join("none.sock").display());
    refused(&["proxy", "--dir", journal, "--upstream", &socket], &[], UNAVAILABLE, &["none.sock"]);
    refused(
        &["proxy", "--dir", journal, "--upstream", "redis://no-such-host.invalid"],
        &[],
        UNAVAILABLE,
        &["no-such-host"],
    );
    let args = ["proxy", "--dir", journal, "--upstream", &url, "--follow", &nobody];
    refused(&args, &[], UNAVAILABLE, &["cannot reach", "--follow"]);

    // Somebody else has the port.
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let args = ["proxy", "--dir", journal, "--upstream", &url, "--listen", &taken];
    refused(&args, &[], OSERR, &["cannot listen on", "another process"]);
    let free = format!("127.0.0.1:{}", free_port());
    let args = ["proxy", "--dir", journal, "--upstream", &url, "--listen", &free, "--metrics", &taken];
    refused(&args, &[], OSERR, &["cannot listen on", "another process"]);
    assert_same_tree(&nothing, dir.path());
}

#[test]
fn settings_are_checked_and_shown_without_a_server() {
    let dir = Dir::new("settings");
    let path = dir.join("redtape.toml");
    let path = text(&path);
    let config = |text: &str| std::fs::write(path, text).unwrap();
    let check = ["config", "check", "--config", path];
    let show = ["config", "show", "--config", path];

    config(&format!("upstream = \"redis://u:{PASSWORD}@localhost:1\"\nmaxclients = 7\ntimeout = 60\n"));
    let good = redtape(&check, &[]).expect_success("config check");
    assert_eq!(good.stdout, "the settings are good\n");
    let shown = redtape(
        &[&show[..], &["--timeout", "5"]].concat(),
        &[
            ("REDTAPE_HANDSHAKE_TIMEOUT", "3"),
            ("REDTAPE_MAXCLIENTS", "9"),
            ("REDTAPE_UPSTREAM_PASSWORD", WRONG_PASSWORD),
        ],
    )
    .expect_success("config show");
    let parsed: toml::Table = toml::from_str(&shown.stdout).expect("TOML");
    assert_eq!(parsed["upstream"].as_str(), Some("redis://u:***@localhost:1"));
    let line = |name: &str| shown.stdout.lines().find(|l| l.starts_with(&format!("{name} = "))).unwrap().to_owned();
    assert!(line("upstream").ends_with(&format!("# {path}:1")), "{}", line("upstream"));
    assert!(line("timeout").starts_with("timeout = 5  # --timeout"), "{}", line("timeout"));
    assert!(line("maxclients").starts_with("maxclients = 9  # environment, REDTAPE_MAXCLIENTS"), "{}", shown.stdout);
    assert!(line("handshake-timeout").starts_with("handshake-timeout = 3  # environment"), "{}", shown.stdout);
    assert!(line("sharing").starts_with("sharing = \"auto\"  # default"), "{}", line("sharing"));
    // What is shown is good again.
    config(&shown.stdout);
    redtape(&check, &[]).expect_success("config check of what config show printed");

    for (text, words) in [
        ("maxclients = 5", &["--upstream", "redis://"][..]),
        ("upstream = 'localhost'\n\nmaxclient = 5", &["redtape.toml:3: maxclient:", "did you mean maxclients?"]),
        ("upstream = 'localhost'\nmaxclients = 'many'", &["redtape.toml:2: maxclients:"]),
        ("upstream = 'localhost'\nmaxclients = 0", &["maxclients", "at least 1"]),
        ("upstream = 'ftp://localhost'", &["redtape.toml:1: upstream", "redis://"]),
        ("upstream = 'localhost'\ntls-listen = '127.0.0.1:1'", &["tls-cert-file", "tls-key-file"]),
        (
            "upstream = 'localhost'\ntls-listen = '127.0.0.1:1'\ntls-cert-file = '/no/such.crt'\ntls-key-file = '/no/such.key'",
            &["/no/such.crt", "tls-cert-file"],
        ),
        (
            "upstream = 'rediss://localhost'\nupstream-tls-ca-cert-file = '/no/ca'",
            &["/no/ca", "upstream-tls-ca-cert-file"],
        ),
        ("upstream = 'localhost'\nlisten = ['127.0.0.1:1', '127.0.0.1:1']", &["127.0.0.1:1", "twice"]),
        ("upstream = '127.0.0.1:1'\nlisten = '127.0.0.1:1'", &["upstream's own address"]),
        (
            "upstream = 'localhost'\nclient-output-buffer-limit = '1tb'",
            &["redtape.toml:2: client-output-buffer-limit", "1gb"],
        ),
    ] {
        config(text);
        refused(&check, &[], USAGE, words);
        let mut start = vec!["proxy", "--config", path, "--dir"];
        let journal = dir.join("journal");
        start.push(self::text(&journal));
        refused(&start, &[], USAGE, words);
        assert!(!journal.exists());
    }
}

#[test]
fn passwords_and_rights_are_checked_before_anything_is_done_and_never_shown() {
    let dir = Dir::new("bad-login");
    let journal = dir.join("journal");
    let journal = text(&journal);
    let server = Server::start();
    let mut admin = server.conn();
    admin.must(&args!["CONFIG", "SET", "requirepass", PASSWORD]);
    admin.must(&args![
        "ACL",
        "SETUSER",
        "odd",
        "on",
        format!(">{}", ODD_PASSWORD[0]),
        "+psync",
        "+replconf",
        "+role",
        "+info"
    ]);
    admin.must(&args!["ACL", "SETUSER", "reader", "on", format!(">{PASSWORD}"), "~*", "+@read", "+role", "+info"]);
    let at = |login: &str| format!("redis://{login}127.0.0.1:{}", server.port);
    let nothing = tree(dir.path());
    for (login, settings) in [
        (String::new(), vec![]),
        (format!(":{WRONG_PASSWORD}@"), vec![]),
        (format!("nobody:{PASSWORD}@"), vec![]),
        (String::new(), vec![("REDTAPE_UPSTREAM_PASSWORD", WRONG_PASSWORD)]),
        // The right password of a user who may not follow the server.
        (format!("reader:{PASSWORD}@"), vec![]),
    ] {
        for command in ["proxy", "follow"] {
            let words = &["127.0.0.1", "REDTAPE_UPSTREAM_PASSWORD", "+psync"];
            refused(&[command, "--dir", journal, "--upstream", &at(&login)], &settings, NOPERM, words);
        }
    }
    let args = ["follow", "--dir", journal, "--upstream", &at("")];
    let settings = [("REDTAPE_UPSTREAM_PASSWORD_FILE", "/no/such/file")];
    let outcome = redtape(&args, &settings);
    assert!(outcome.code == Some(74) && outcome.stderr.contains("/no/such/file"), "{outcome:?}");
    assert_same_tree(&nothing, dir.path());

    // The least rights that are documented are enough; what is recorded and logged holds no password.
    let upstream = at(&format!("odd:{}@", ODD_PASSWORD[1]));
    let mut proxy = Redtape::start(&upstream, Path::new(journal), &[]);
    let mut conn = Conn::open(&proxy.url()).unwrap();
    conn.must(&args!["AUTH", PASSWORD]);
    conn.must(&args!["SET", "k", "v"]);
    proxy.wait_caught_up();
    let said = format!("{}{}", proxy.said(), proxy.metrics().unwrap());
    assert_eq!(proxy.terminate(), Some(0));
    let files = tree(Path::new(journal));
    for secret in [PASSWORD, ODD_PASSWORD[0], ODD_PASSWORD[1]] {
        assert!(!said.contains(secret), "a password in the log or the metrics");
        for (path, content) in &files {
            let found = content.windows(secret.len()).any(|w| w == secret.as_bytes());
            assert!(!found, "a password in {}", path.display());
        }
    }
    let listed = redtape(&["journal", "ls", "--from", journal], &[]).expect_success("journal ls");
    assert!(listed.stdout.contains("LSN 0 .. 1"), "{}", listed.stdout);
}

#[test]
fn a_directory_that_is_no_journal_or_a_newer_one_is_left_alone() {
    let server = Server::start();
    let target = Server::start();
    let (url, to) = (server.url(), target.url());
    let dir = Dir::new("not-a-journal");
    let foreign = dir.join("foreign");
    std::fs::create_dir(&foreign).unwrap();
    std::fs::write(foreign.join("holiday.jpg"), "a picture").unwrap();
    let newer = dir.join("newer");
    std::fs::create_dir_all(newer.join("segments")).unwrap();
    std::fs::write(newer.join("lock"), "of that version\n").unwrap();
    let meta = r#"{"format":99,"journal_id":"00112233445566778899aabbccddeeff","shape":"round"}"#;
    std::fs::write(newer.join("meta"), meta).unwrap();
    let damaged = dir.join("damaged");
    std::fs::create_dir(&damaged).unwrap();
    std::fs::write(damaged.join("meta"), "{\"format\":").unwrap();
    let (before, untouched) = (tree(dir.path()), state(&to));
    for (path, words) in [
        (&foreign, &["foreign", "not a journal"][..]),
        (&newer, &["meta", "99", "newer redtape"]),
        (&damaged, &["meta", "corrupt"]),
    ] {
        let path = text(path);
        let listen = format!("127.0.0.1:{}", free_port());
        refused(&["proxy", "--dir", path, "--upstream", &url, "--listen", &listen], &[], DATAERR, words);
        refused(&["follow", "--dir", path, "--upstream", &url], &[], DATAERR, words);
        for command in [["journal", "ls"], ["journal", "verify"], ["journal", "cat"], ["snapshot", "ls"]] {
            refused(&[&command[..], &["--from", path]].concat(), &[], DATAERR, words);
        }
        refused(&["journal", "mark", "now", "--from", path], &[], DATAERR, words);
        refused(&["snapshot", "create", "--dir", path, "--upstream", &url], &[], DATAERR, words);
        refused(&["restore", "--from", path, "--at", "latest", "--to", &to, "--yes"], &[], DATAERR, words);
    }
    assert_same_tree(&before, dir.path());
    // A folder that is not there is not made by a command that only reads.
    let missing = dir.join("missing");
    let missing = text(&missing);
    let words = &["there is no journal at", "missing; give --from DIR"];
    for command in [
        &["journal", "ls"][..],
        &["journal", "verify"],
        &["journal", "cat"],
        &["journal", "mark", "now"],
        &["snapshot", "ls"],
        &["restore", "--at", "latest", "--to", &to, "--yes"],
    ] {
        refused(&[command, &["--from", missing]].concat(), &[], DATAERR, words);
    }
    refused(&["snapshot", "create", "--dir", missing, "--upstream", &url], &[], DATAERR, words);
    assert_same_tree(&before, dir.path());
    assert_eq!(state(&to), untouched);
}

/// Every command that opens a journal, on this one.
fn on_journal(dir: &str, upstream: &str, to: &str) -> Vec<Vec<String>> {
    let listen = format!("127.0.0.1:{}", free_port());
    let dir = ["--dir", dir];
    let commands: [&[&str]; 13] = [
        &["proxy", "--upstream", upstream, "--listen", &listen],
        &["follow", "--upstream", upstream],
        &["snapshot", "create", "--upstream", upstream],
        &["snapshot", "ls"],
        &["snapshot", "rm", "no-such-snapshot"],
        &["journal", "ls"],
        &["journal", "verify"],
        &["journal", "cat"],
        &["journal", "tail", "--lines", "1"],
        &["journal", "mark", "now"],
        &["journal", "repair", "--plan"],
        &["journal", "prune", "--max-size", "1", "--yes"],
        &["log"],
    ];
    let mut all: Vec<Vec<String>> =
        commands.iter().map(|words| [words, &dir[..]].concat().into_iter().map(str::to_owned).collect()).collect();
    let restore = ["restore", "--from", dir[1], "--at", "latest", "--to", to, "--yes"];
    all.push(restore.map(str::to_owned).into());
    all
}

#[test]
fn the_same_failure_ends_every_command_with_the_same_code() {
    let (server, target) = (Server::start(), Server::start());
    let (url, to) = (server.url(), target.url());
    let (journal, other) = (Dir::new("journal"), Dir::new("other"));
    let (dir, keys) = (text(journal.path()), other.join("keys"));
    run(&["journal", "keygen", text(&keys)]).expect_success("keygen");
    let mut recorder = Redtape::start(&url, journal.path(), &["--journal-key-file", text(&keys)]);
    Conn::open(&recorder.url()).unwrap().must(&args!["SET", "k", "v"]);
    recorder.wait_caught_up();
    let of = |words: &[&str], dir: &str| {
        let mut all = on_journal(dir, &url, &to);
        all.retain(|command| words.iter().any(|word| command[..2].join(" ").starts_with(word)));
        assert!(all.len() >= words.len(), "{words:?}");
        all
    };
    let end_with = |commands: Vec<Vec<String>>, settings: &[(&str, &str)], code: i32| {
        for command in commands {
            refused(&command, settings, code, &[]);
        }
    };
    let with_keys = [("REDTAPE_JOURNAL_KEY_FILE", text(&keys))];

    // Locked: by the one that writes it, and by one that prunes it.
    end_with(of(&["proxy", "follow"], dir), &with_keys, TEMPFAIL);
    assert_eq!(recorder.terminate(), Some(0));
    let pruning = std::fs::File::options().write(true).open(journal.join("prune.lock")).unwrap();
    rustix::fs::flock(&pruning, rustix::fs::FlockOperation::LockExclusive).unwrap();
    end_with(of(&["journal prune"], dir), &with_keys, TEMPFAIL);
    drop(pruning);

    // The key is missing: those that only look at what stands in clear do not need it.
    let read = ["proxy", "follow", "snapshot create", "journal cat", "journal tail", "log", "restore"];
    end_with(of(&read, dir), &[], NOPERM);

    // Not a journal, and none.
    std::fs::write(other.join("holiday.jpg"), "a picture").unwrap();
    end_with(on_journal(text(other.path()), &url, &to), &[], DATAERR);
    let missing = other.join("missing");
    let reading = ["snapshot", "journal", "log", "restore"];
    end_with(of(&reading, text(&missing)), &[], DATAERR);

    // Damaged.
    let meta = journal.join("meta");
    let sound = std::fs::read(&meta).unwrap();
    std::fs::write(&meta, "{\"format\":").unwrap();
    let mut opening = on_journal(dir, &url, &to);
    // That it plans to repair is no failure; the damage is in its code all the same, as below.
    opening.retain(|command| command[1] != "repair");
    end_with(opening, &with_keys, DATAERR);
    std::fs::write(&meta, &sound).unwrap();
    let segment = std::fs::read_dir(journal.join("segments")).unwrap().next().unwrap().unwrap().path();
    let mut bytes = std::fs::read(&segment).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    std::fs::write(&segment, &bytes).unwrap();
    for command in [&["journal", "verify"][..], &["journal", "cat"], &["journal", "repair", "--plan"]] {
        let outcome = redtape(&[command, &["--dir", dir]].concat(), &with_keys);
        assert_eq!(outcome.code, Some(DATAERR), "{command:?}: {outcome:?}");
    }
    let writing = std::fs::File::options().write(true).open(journal.join("lock")).unwrap();
    rustix::fs::flock(&writing, rustix::fs::FlockOperation::LockExclusive).unwrap();
    refused(&["journal", "repair", "--yes", "--dir", dir], &with_keys, TEMPFAIL, &["stop redtape before a repair"]);
    drop(writing);
    let pruning = std::fs::File::options().create(true).append(true).open(journal.join("prune.lock")).unwrap();
    rustix::fs::flock(&pruning, rustix::fs::FlockOperation::LockExclusive).unwrap();
    refused(
        &["journal", "repair", "--yes", "--dir", dir],
        &with_keys,
        TEMPFAIL,
        &["read or pruned by another process"],
    );
    drop(pruning);
    let writing = std::fs::File::options().write(true).open(journal.join("lock")).unwrap();
    rustix::fs::flock(&writing, rustix::fs::FlockOperation::LockExclusive).unwrap();
    end_with(of(&["proxy", "follow"], dir), &with_keys, TEMPFAIL);
    assert_eq!(target.conn().must(&args!["DBSIZE"]), crate::harness::conn::Value::Int(0));
}

#[test]
fn a_second_process_on_the_same_directory_is_refused() {
    let server = Server::start();
    let dir = Dir::new("journal");
    let mut first = Redtape::start(&server.url(), dir.path(), &[]);
    let pid = first.pid().to_string();
    let listen = format!("127.0.0.1:{}", free_port());
    let path = text(dir.path());
    let words = &["in use by process", &pid, "choose another directory"];
    refused(&["proxy", "--dir", path, "--upstream", &server.url(), "--listen", &listen], &[], TEMPFAIL, words);
    refused(&["follow", "--dir", path, "--upstream", &server.url()], &[], TEMPFAIL, words);
    // The first one has not noticed anything.
    Conn::open(&first.url()).unwrap().must(&args!["SET", "k", "v"]);
    first.wait_caught_up();
    assert_eq!(server.conn().info("replication", "connected_slaves"), "1");
    assert_eq!(first.metric("redtape_timeline"), Some(1.0));
    assert_eq!(first.terminate(), Some(0));
    crate::harness::journal::assert_verified(dir.path());
}

#[test]
fn an_unrestorable_point_in_time_is_refused() {
    let past = Past::record();
    let target = Server::start();
    let to = target.url();
    let (before, untouched) = (tree(past.dir.path()), state(&to));
    let restore = |at: &str, code: i32, words: &[&str]| {
        refused(&["restore", "--from", past.path(), "--at", at, "--to", &to, "--yes"], &[], code, words);
        refused(&["restore", "--from", past.path(), "--at", at, "--to", &to, "--plan"], &[], code, words);
    };
    // The journal's own form of a time: six digits.
    let shown = |us: i64| jiff::Timestamp::from_microsecond(us).map(|t| format!("{t:.6}")).unwrap();
    let [first, second] = past.windows[..] else { panic!("two windows") };
    let windows = [first.0, first.1, second.0, second.1].map(shown);
    let windows: Vec<&str> = windows.iter().map(String::as_str).collect();

    // Outside: it says which windows exist.
    restore(&rfc3339(first.0 - 1), NOINPUT, &windows);
    restore("1999-12-31T23:59:59Z", NOINPUT, &windows);
    restore("87600h ago", NOINPUT, &windows);
    restore("2999-01-01T00:00:00Z", NOINPUT, &windows);
    restore(&rfc3339(second.1 + 1), NOINPUT, &windows);
    restore(&format!("lsn:{}", past.last_lsn + 1), NOINPUT, &windows);
    // Inside the gap: it says from when to when, why, and what is next to it.
    let inside = (past.gap.0 + past.gap.1) / 2;
    let edges = [past.gap.0, past.gap.1].map(shown);
    restore(&rfc3339(inside), NOINPUT, &["gap", &edges[0], &edges[1], windows[1], windows[2]]);
    // Not a point in time.
    for bad in ["tomorrow", "2026-11-20T12", "lsn:many", "mark:", "5 parsecs ago", "@", ""] {
        restore(bad, USAGE, &["lsn:N", "mark:NAME", "latest"]);
    }
    restore("mark:before-deploy", NOINPUT, &["before-deploy", "journal mark"]);
    // Not the name of one.
    for bad in ["", "two\nlines", "\u{1b}[2J", " blank", &"long".repeat(33)] {
        refused(&["journal", "mark", bad, "--from", past.path()], &[], USAGE, &["a mark's name"]);
    }
    // What comes after the end: nothing.
    let cat = redtape(&["journal", "cat", "--from", past.path(), "--since", "latest"], &[]).expect_success("cat");
    assert_eq!(cat.stdout, "");

    assert_same_tree(&before, past.dir.path());
    assert_eq!(state(&to), untouched);
}

#[test]
fn a_target_that_cannot_take_the_data_is_left_as_it_is() {
    let past = Past::record();
    let before = tree(past.dir.path());
    let restore = |to: &str, more: &[&str], code: i32, words: &[&str]| {
        let args = [&["restore", "--from", past.path(), "--at", "latest", "--to", to, "--yes"], more].concat();
        refused(&args, &[], code, words)
    };

    // Not empty: a key, a key elsewhere, a function.
    for command in [
        args!["SET", "mine", 1],
        args!["FUNCTION", "LOAD", "#!lua name=mine\nredis.register_function('f', function() return 1 end)"],
    ] {
        let full = Server::start();
        full.conn().must(&command);
        let untouched = state(&full.url());
        for via in [&[][..], &["--via", "link"], &["--via", "scratch"]] {
            let words = &["is not empty", "nothing was changed", "--key"];
            restore(&full.url(), via, CANTCREAT, words);
        }
        assert_eq!(state(&full.url()), untouched);
    }
    // Wanted keys that exist.
    let full = Server::start();
    full.conn().must(&args!["SET", "key:3", "precious"]);
    let untouched = state(&full.url());
    restore(&full.url(), &["--key", "key:*"], CANTCREAT, &["key:3", "nothing was changed"]);
    // Wanted keys that there never were.
    restore(&full.url(), &["--key", "nope:*"], NOINPUT, &["no key matches; nothing was restored"]);
    assert_eq!(state(&full.url()), untouched);

    // Not there, not allowed, not understood.
    let nobody = format!("redis://:{PASSWORD}@127.0.0.1:{}", free_port());
    restore(&nobody, &[], UNAVAILABLE, &["cannot reach 127.0.0.1:"]);
    let target = Server::start();
    let url = target.url();
    for bad in ["http://localhost", "redis://host:port", &format!("gopher://:{PASSWORD}@host")] {
        restore(bad, &[], USAGE, &["--to", "redis://"]);
    }
    restore(&format!("{url}/3"), &[], USAGE, &["database", "--db"]);
    restore("rediss://localhost:1", &["--to-tls-insecure"], UNAVAILABLE, &["cannot reach localhost:1"]);
    restore(&url, &["--key-regex", "("], USAGE, &["("]);
    let mut admin = target.conn();
    admin.must(&args!["CONFIG", "SET", "requirepass", PASSWORD]);
    restore(&url, &[], NOPERM, &["password", "REDTAPE_TO_PASSWORD"]);
    restore(&url.replace("//", &format!("//:{WRONG_PASSWORD}@")), &[], NOPERM, &["password", "REDTAPE_TO_PASSWORD"]);
    admin.must(&args!["CONFIG", "SET", "requirepass", ""]);
    // A replica.
    let replica = Server::start();
    replica.conn().must(&args!["REPLICAOF", "127.0.0.1", target.port]);
    restore(&replica.url(), &[], UNAVAILABLE, &["is a replica of", "restore to its master"]);

    assert_eq!(admin.must(&args!["DBSIZE"]), crate::harness::conn::Value::Int(0));
    assert_same_tree(&before, past.dir.path());
}

#[test]
fn an_interrupted_restore_puts_the_target_back() {
    let dir = Dir::new("journal");
    let source = Server::start();
    for n in 0..30 {
        source.conn().must(&args!["SET", format!("key:{n}"), n]);
    }
    assert_eq!(Redtape::start(&source.url(), dir.path(), &[]).terminate(), Some(0));
    let before = tree(dir.path());
    for signal in [Signal::INT, Signal::TERM] {
        let target = Server::start();
        let to = target.url();
        // The base loads for three seconds: there is something to interrupt.
        target.conn().must(&args!["CONFIG", "SET", "key-load-delay", 100_000]);
        let mut child = Command::new(env!("CARGO_BIN_EXE_redtape"))
            .args(["restore", "--from", text(dir.path()), "--at", "latest", "--to", &to, "--yes"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
        let reached = lines.any(|line| line == "sending the base");
        assert!(reached, "a restore begins");
        kill_process(Pid::from_child(&child), signal).unwrap();
        let said: Vec<String> = lines.collect();
        assert_eq!(child.wait().unwrap().code(), Some(130), "{said:?}");
        let last = said.last().map_or("", String::as_str);
        assert!(last.starts_with("redtape: interrupted. ") && last.contains(" target"), "{said:?}");
        let mut conn = target.conn();
        assert_eq!(conn.info("replication", "role"), "master");
        assert_eq!(conn.must(&args!["DBSIZE"]), crate::harness::conn::Value::Int(0));
        conn.must(&args!["SET", "writable", 1]);
    }
    assert_same_tree(&before, dir.path());
}

#[test]
fn a_mark_is_restorable_even_before_the_base_is_taken() {
    let server = Server::start();
    let mut admin = server.conn();
    admin.must(&args!["CONFIG", "SET", "repl-diskless-sync", "yes"]);
    admin.must(&args!["CONFIG", "SET", "repl-diskless-sync-delay", 3]);
    let dir = Dir::new("early-mark");
    let mut proxy = Redtape::start_only(&server.url(), dir.path(), &[]);
    let path = text(dir.path());
    wait_for("the journal", Duration::from_secs(10), || dir.join("meta").exists().then_some(()));
    run(&["journal", "mark", "before", "--from", path]).expect_success("journal mark");
    assert_eq!(proxy.terminate(), Some(0));
    let target = Server::start();
    let args = ["restore", "--from", path, "--at", "mark:before", "--to", &target.url(), "--plan"];
    redtape(&args, &[]).expect_success("restore to the mark");
    let listed = run(&["journal", "ls", "--from", path, "--json"]).expect_success("journal ls");
    let listed: Value = serde_json::from_str(&listed.stdout).unwrap();
    let (mark, window) = (&listed["marks"][0], &listed["windows"][0]);
    assert!(mark["ts_us"].as_i64() >= window["from_us"].as_i64(), "{listed}");
}

/// A server of another version than the tested one.
struct Other {
    child: Child,
    port: u16,
    _dir: Dir,
}

impl Other {
    fn start(binary: &Path) -> Self {
        let (port, dir) = (free_port(), Dir::new("other"));
        let mut command = Command::new(binary);
        command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--dir"]).arg(dir.path());
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let other = Self { child, port, _dir: dir };
        wait_for("the other server", Duration::from_secs(10), || {
            Conn::open(&other.url()).and_then(|mut c| c.call(&args!["PING"])).ok()
        });
        other
    }

    fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_target_older_than_the_base_is_refused() {
    let old = Path::new(env!("CARGO_MANIFEST_DIR")).join(".servers/redis-6.0/redis-server");
    if !old.exists() {
        println!("skipped: {} is not there (scripts/install-servers.sh all)", old.display());
        return;
    }
    if !crate::harness::server::Version::tested().at_least((7, 0), (0, 0)) {
        println!("skipped: the tested server is no newer than the old one");
        return;
    }
    let past = Past::record();
    let target = Other::start(&old);
    let to = target.url();
    let (before, untouched) = (tree(past.dir.path()), state(&to));
    for via in [&[][..], &["--via", "link"], &["--via", "scratch"], &["--key", "key:*"]] {
        let args = [&["restore", "--from", past.path(), "--at", "latest", "--to", &to, "--yes"], via].concat();
        refused(&args, &[], UNAVAILABLE, &["6.0.", "does not load"]);
    }
    assert_same_tree(&before, past.dir.path());
    assert_eq!(state(&target.url()), untouched);
}

#[test]
fn a_missing_scratch_server_is_named() {
    let past = Past::record();
    let target = Server::start();
    // A restore of some keys makes the key index of its base, if that has none: it is derived.
    let recorded = || -> BTreeMap<PathBuf, Vec<u8>> {
        let is_derived = |path: &Path| path.extension().is_some_and(|end| end == "keys");
        tree(past.dir.path()).into_iter().filter(|(path, _)| !is_derived(path)).collect()
    };
    let (before, untouched) = (recorded(), state(&target.url()));
    let to = target.url();
    let args = ["restore", "--from", past.path(), "--at", "latest", "--to", &to, "--yes"];
    let nowhere = [("PATH", "/nonexistent")];
    for more in [&["--via", "scratch"][..], &["--key", "key:*"]] {
        let words = &["redis-server", "valkey-server", "PATH", "--server-bin", "install"];
        refused(&[&args[..], more].concat(), &nowhere, UNAVAILABLE, words);
    }
    let more = ["--via", "scratch", "--server-bin", "/no/such/server"];
    refused(&[&args[..], &more].concat(), &[], UNAVAILABLE, &["/no/such/server", "--server-bin"]);
    let more = ["--via", "scratch", "--server-bin", "/bin/false"];
    refused(&[&args[..], &more].concat(), &[], UNAVAILABLE, &["/bin/false", "--server-bin"]);
    refused(
        &["proxy", "--embedded", "--dir", "/nonexistent/journal"],
        &nowhere,
        UNAVAILABLE,
        &["redis-server", "install"],
    );
    assert!(before == recorded(), "{:?}", recorded().keys());
    assert_eq!(state(&target.url()), untouched);
    // The link needs none.
    redtape(&args, &nowhere).expect_success("restore by link");
}
