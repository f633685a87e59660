//! A journal records one server: which, it remembers, and another one is not taken for it.

use crate::harness::conn::{Conn, Value, text};
use crate::harness::redtape::run;
use crate::harness::server::Version;
use crate::harness::{Dir, Redtape, Relay, Server, free_port, journal, wait_for};
use std::process::{Command, Stdio};
use std::time::Duration;

fn path(dir: &Dir) -> &str {
    dir.path().to_str().expect("a plain path")
}

/// A journal that has recorded this server, with a write in it.
fn recorded(server: &Server) -> Dir {
    let journal = Dir::new("journal");
    let mut redtape = Redtape::start(&server.url(), journal.path(), &[]);
    Conn::open(&redtape.url()).expect("a client").must(&args!["SET", "k", "precious"]);
    redtape.wait_caught_up();
    assert_eq!(redtape.terminate(), Some(0));
    journal
}

fn replid(server: &Server) -> String {
    server.conn().info("replication", "master_replid")
}

fn restored(journal: &Dir, at: &str) -> Value {
    let target = Server::start();
    run(&["restore", "--from", path(journal), "--at", at, "--to", &target.url(), "--yes"]).expect_success("restore");
    target.conn().must(&args!["GET", "k"])
}

#[test]
fn a_wrong_upstream_is_refused_with_both_identities_and_accepted_when_told() {
    let (server, other) = (Server::start(), Server::start());
    let journal = recorded(&server);
    let files = || {
        let mut found: Vec<_> = walk(journal.path());
        found.sort();
        found
    };
    let before = files();
    for command in ["proxy", "follow"] {
        let mut args = vec![command, "--upstream", "", "--dir", path(&journal)];
        let url = other.url();
        args[2] = &url;
        if command == "proxy" {
            args.extend(["--listen", "127.0.0.1:0"]);
        }
        let out = run(&args);
        assert_eq!(out.code, Some(65), "{command}: {}", out.stderr);
        for word in [
            format!("127.0.0.1:{}", server.port),
            replid(&server),
            format!("127.0.0.1:{}", other.port),
            replid(&other),
            "--accept-new-history".to_owned(),
        ] {
            assert!(out.stderr.contains(&word), "{command}: {word} in {}", out.stderr);
        }
        assert_eq!(out.stderr.matches("redtape: ").count(), 1, "one message: {}", out.stderr);
    }
    assert_eq!(files(), before, "nothing was changed");
    assert_eq!(int_info(&other, "sync_full"), 0, "and nothing asked of the other server");

    let mut redtape = Redtape::start(&other.url(), journal.path(), &["--accept-new-history"]);
    Conn::open(&redtape.url()).expect("a client").must(&args!["SET", "k", "of the other"]);
    redtape.wait_caught_up();
    assert_eq!(redtape.terminate(), Some(0));
    redtape.wait_said("accept-new-history is set");
    assert_eq!(journal::timelines(journal.path()), 2);
    assert_eq!(text(&restored(&journal, "latest")), "of the other");
    assert_eq!(text(&restored(&journal, "lsn:1")), "precious");

    // From now on it is known, and so is the first one.
    for (known, timelines) in [(&other, 2), (&server, 3)] {
        let mut redtape = Redtape::start(&known.url(), journal.path(), &[]);
        redtape.wait_caught_up();
        assert_eq!(redtape.terminate(), Some(0));
        assert_eq!(journal::timelines(journal.path()), timelines);
    }
    journal::assert_verified(journal.path());
}

/// The files below a directory, with their contents.
fn walk(dir: &std::path::Path) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(walk(&path));
        } else if path.file_name().is_some_and(|n| n != "lock") {
            found.push((path.clone(), std::fs::read(&path).expect("a file")));
        }
    }
    found
}

fn int_info(server: &Server, name: &str) -> i64 {
    server.conn().info("stats", name).parse().expect("a number")
}

#[test]
fn a_server_is_known_at_another_address_by_its_history() {
    let (server, replica) = (Server::start(), Server::start());
    replica.conn().must(&args!["REPLICAOF", "127.0.0.1", server.port]);
    wait_for("the replica", Duration::from_secs(20), || {
        (replica.conn().info("replication", "master_link_status") == "up").then_some(())
    });
    let journal = recorded(&server);
    wait_for("the replica to have it all", Duration::from_secs(20), || {
        let [a, b] = [&server, &replica].map(|s| s.conn().info("replication", "master_repl_offset"));
        (a == b).then_some(())
    });
    replica.conn().must(&args!["REPLICAOF", "NO", "ONE"]);
    let mut redtape = Redtape::start(&replica.url(), journal.path(), &[]);
    Conn::open(&redtape.url()).expect("a client").must(&args!["SET", "k", "after the failover"]);
    redtape.wait_caught_up();
    assert_eq!(redtape.terminate(), Some(0));
    assert_eq!(journal::timelines(journal.path()), 1, "{}", redtape.said());
    assert_eq!(text(&restored(&journal, "latest")), "after the failover");
    assert_eq!(text(&restored(&journal, "lsn:1")), "precious");
}

#[test]
fn another_history_at_the_same_address_is_recorded_with_an_alarm() {
    let (mut first, second) = (Server::start(), Server::start());
    let relay = Relay::to(first.port);
    let journal = Dir::new("journal");
    let mut redtape = Redtape::start(&relay.url(), journal.path(), &[]);
    Conn::open(&redtape.url()).expect("a client").must(&args!["SET", "k", "precious"]);
    redtape.wait_caught_up();
    assert_eq!(redtape.metric("redtape_server_replaced_seconds"), Some(0.0));
    let alarm = |redtape: &Redtape, timelines: f64, was: &str, is: &str| {
        wait_for("the new timeline", Duration::from_secs(20), || {
            (redtape.metric("redtape_timeline") == Some(timelines)).then_some(())
        });
        assert!(redtape.metric("redtape_server_replaced_seconds") > Some(1e9));
        // The log has a thread of its own, and an earlier alarm may stand there.
        let line = wait_for("the alarm in the log", Duration::from_secs(10), || {
            let is_alarm = |l: &&str| l.contains("leads to a server with another history") && l.contains(is);
            redtape.said().lines().rev().find(is_alarm).map(str::to_owned)
        });
        let (status, body) = redtape.endpoint("/journalz").expect("an answer");
        assert_eq!(status, 200, "{body}");
        for text in [&line, &body] {
            assert!(text.contains(was) && text.contains(is), "{was} and {is} in {text}");
        }
        assert!(line.contains("WARN"), "{line}");
    };

    // The address moves to another server.
    let was = replid(&first);
    relay.redirect(second.port);
    relay.cut_all();
    wait_for("the other server to be followed", Duration::from_secs(20), || {
        (int_info(&second, "sync_full") > 0).then_some(())
    });
    redtape.wait_streaming();
    alarm(&redtape, 2.0, &was, &replid(&second));
    assert_eq!(text(&restored(&journal, "lsn:1")), "precious");
    assert_eq!(redtape.terminate(), Some(0));

    // It comes back with nothing, while redtape is away: the first one is known, and what it has become is not.
    relay.redirect(first.port);
    redtape.start_again();
    redtape.wait_streaming();
    assert_eq!(redtape.metric("redtape_server_replaced_seconds"), Some(0.0), "{}", redtape.said());
    assert_eq!(redtape.terminate(), Some(0));
    let was = replid(&first);
    first.restart();
    redtape.start_again();
    redtape.wait_streaming();
    alarm(&redtape, 4.0, &was, &replid(&first));
    assert_eq!(redtape.terminate(), Some(0));
}

#[test]
fn a_wrong_server_that_shows_only_later_is_not_recorded_and_the_policy_decides() {
    if !Version::tested().at_least((7, 0), (0, 0)) {
        return println!("this server cannot be made to answer while it loads so little");
    }
    for policy in ["pass", "reject"] {
        let server = Server::start();
        let journal = recorded(&server);
        // While a server loads it does not know its history.
        let mut other = Server::start();
        let load: Vec<_> = (0..1500).map(|n| args!["SET", format!("key:{n}"), "x".repeat(100)]).collect();
        other.conn().pipeline(&load).expect("loaded");
        other.shut_down_saving();
        other.start_loading(&["--key-load-delay", "1000", "--loading-process-events-interval-bytes", "1024"]);
        let mut redtape = Redtape::start_only(&other.url(), journal.path(), &["--on-journal-failure", policy]);
        wait_for("the wrong server to be seen", Duration::from_secs(30), || {
            (redtape.metric(r#"redtape_capture_state{state="refused"}"#) == Some(1.0)).then_some(())
        });
        let (status, body) = redtape.endpoint("/journalz").expect("an answer");
        assert!(status == 503 && body.starts_with("refused: ") && body.contains(&replid(&other)), "{status} {body}");
        let reply = Conn::open(&redtape.url()).expect("a client").call(&args!["SET", "k", "lost"]).expect("a reply");
        if policy == "pass" {
            assert_eq!(text(&reply), "OK");
        } else {
            assert!(matches!(&reply, Value::Error(e) if e.starts_with("JOURNAL ")), "{reply:?}");
        }
        assert_eq!(redtape.endpoint("/readyz").map(|(status, _)| status == 200), Some(policy == "pass"));
        std::thread::sleep(Duration::from_secs(1));
        let said = redtape.said();
        assert_eq!(said.matches("writes are NOT being recorded").count(), 1, "{said}");
        assert_eq!(int_info(&other, "sync_full"), 0, "no copy is asked of it");
        assert_eq!(redtape.terminate(), Some(0));
        assert_eq!(journal::timelines(journal.path()), 1);
        assert_eq!(text(&restored(&journal, "latest")), "precious");
    }
}

/// Each start has an empty server of its own, on another port.
#[test]
fn an_embedded_server_is_known_as_such_and_never_recorded_in_the_journal_of_another() {
    let journal = Dir::new("journal");
    for timelines in [1, 2] {
        let port = free_port();
        let mut child = Command::new(env!("CARGO_BIN_EXE_redtape"))
            .args(["proxy", "--embedded", "--listen", &format!("127.0.0.1:{port}"), "--dir", path(&journal)])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("redtape proxy --embedded");
        wait_for("the base", Duration::from_secs(20), || {
            assert!(child.try_wait().expect("its state").is_none(), "it has ended");
            let listed = run(&["journal", "ls", "--json", "--from", path(&journal)]);
            let listed: serde_json::Value = serde_json::from_str(&listed.stdout).ok()?;
            (listed["windows"].as_array()?.len() == timelines).then_some(())
        });
        let pid = rustix::process::Pid::from_raw(child.id() as i32).expect("a pid");
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("SIGTERM");
        assert_eq!(child.wait().expect("its end").code(), Some(0));
    }
    let other = recorded(&Server::start());
    let out = run(&["proxy", "--embedded", "--listen", "127.0.0.1:0", "--dir", path(&other)]);
    assert_eq!(out.code, Some(65), "{}", out.stderr);
}
