//! A disk that is full, fails or stalls: nothing is silent, memory is bounded, the server does not suffer, and all is
//! well again when the disk is.

#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr, clippy::pedantic)]

mod harness;

use harness::conn::{Value, text};
use harness::redtape::run;
use harness::{Conn, Dir, Disk, Redtape, Server, State, journal, wait_for};
use std::time::Duration;

struct Scene {
    redtape: Redtape,
    server: Server,
    disk: Disk,
    journal: Dir,
}

fn scene(server: Server, options: &[&str]) -> Scene {
    let (journal, disk) = (Dir::new("journal"), Disk::fine());
    let redtape = Redtape::start_on(&disk, &server.url(), journal.path(), options);
    Scene { redtape, server, disk, journal }
}

impl Scene {
    fn client(&self) -> Conn {
        Conn::open(&self.redtape.url()).expect("a client")
    }
}

#[test]
fn while_the_journal_cannot_be_written_writes_pass_or_are_refused_as_configured() {
    for policy in ["pass", "reject"] {
        let s = scene(Server::start(), &["--on-journal-failure", policy, "--sync", "always"]);
        let mut client = s.client();
        client.must(&args!["SET", "k", 0]);
        s.disk.is("write-full");
        let mut n = 0u64;
        wait_for("the journal's trouble to show", Duration::from_secs(10), || {
            n += 1;
            let reply = client.call(&args!["SET", "k", n]).expect("an answer");
            let seen = s.redtape.metric(r#"redtape_errors_total{kind="journal"}"#) > Some(0.0);
            std::thread::sleep(Duration::from_millis(20));
            (seen || matches!(reply, Value::Error(_))).then_some(())
        });
        let reply = client.call(&args!["SET", "k", "last"]).expect("an answer");
        match policy {
            "pass" => assert_eq!(text(&reply), "OK"),
            _ => assert!(matches!(&reply, Value::Error(e) if e.starts_with("JOURNAL ")), "{reply:?}"),
        }
        assert_eq!(text(&client.must(&args!["ECHO", "x"])), "x");
        s.disk.is("fine");
        wait_for("writes to be taken again", Duration::from_secs(30), || {
            matches!(client.call(&args!["SET", "k", "after"]), Ok(Value::Text(_))).then_some(())
        });
    }
}

/// Bytes that the server keeps for its replicas.
fn waiting_for_replicas(conn: &mut Conn) -> u64 {
    let list = text(&conn.must(&args!["CLIENT", "LIST", "TYPE", "replica"]));
    let field = |word: &str| word.strip_prefix("omem=").map(|n| n.parse::<u64>().expect("bytes"));
    list.split_whitespace().filter_map(field).sum()
}

fn resident_bytes(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).expect("its size");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("KiB") * 1024
}

#[test]
fn a_stalled_disk_costs_bounded_memory_and_not_the_server() {
    const MIB: u64 = 1 << 20;
    // What the server has kept when the disk is back decides whether there is a gap.
    for (backlog, timelines) in [("1gb", 1), ("1mb", 2)] {
        let server = Server::with(&["--repl-backlog-size", backlog]);
        let mut s = scene(server, &["--sync", "always"]);
        let (mut direct, mut client) = (s.server.conn(), s.client());
        client.must(&args!["SET", "before", 1]);
        s.disk.is("stall 6000");
        client.must(&args!["SET", "stalls", 1]);
        let value = "v".repeat(MIB as usize);
        let (mut kept, mut resident) = (0, 0);
        for n in 0..600u32 {
            client.must(&args!["SET", format!("k{}", n % 40), format!("{n}{value}")]);
            if n % 20 == 0 {
                kept = kept.max(waiting_for_replicas(&mut direct));
                resident = resident.max(resident_bytes(s.redtape.pid()));
            }
        }
        println!("backlog {backlog}: the server kept {} MiB, redtape had {} MiB", kept / MIB, resident / MIB);
        assert!(kept < 200 * MIB, "the server kept {kept} bytes for a tap that does not read");
        assert!(resident < 700 * MIB, "redtape had {resident} bytes");
        assert!(s.redtape.metric(r#"redtape_errors_total{kind="journal_slow"}"#) <= Some(1.0));
        s.disk.is("fine");
        wait_for("the disk's trouble to be told", Duration::from_secs(30), || {
            (s.redtape.metric(r#"redtape_errors_total{kind="journal_slow"}"#) == Some(1.0)).then_some(())
        });
        s.redtape.wait_streaming();
        client.must(&args!["SET", "after", 1]);
        s.redtape.wait_caught_up();
        assert!(s.redtape.said().contains("the disk is too slow: 256 MiB wait for it"), "{}", s.redtape.said());
        assert_eq!(journal::timelines(s.journal.path()), timelines, "backlog {backlog}");
        let state = State::record_calm(&mut direct);
        assert_eq!(s.redtape.terminate(), Some(0));
        journal::assert_verified(s.journal.path());
        let target = Server::at_clock(state.at_us);
        let from = s.journal.path().to_str().expect("a plain path");
        run(&["restore", "--from", from, "--at", "latest", "--to", &target.url(), "--via", "link", "--yes"])
            .expect_success("restore");
        state.assert_same(&State::record_restored(&mut target.conn(), state.at_us), "after the stall");
    }
}
