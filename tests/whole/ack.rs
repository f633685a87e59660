//! `--ack journal`: what a client was told is on the disk, whatever happens then; and what cannot be made durable is
//! not acknowledged.

use crate::harness::conn::{Value, text};
use crate::harness::redtape::run;
use crate::harness::told::{Told, assert_all_there, restore_latest, wait_until_told, write_and_remember};
use crate::harness::{Conn, Dir, Disk, Redtape, Server, journal, seed, wait_for};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

struct Scene {
    server: Server,
    redtape: Redtape,
    disk: Disk,
    journal: Dir,
}

fn scene(options: &[&str]) -> Scene {
    let (server, journal, disk) = (Server::start(), Dir::new("journal"), Disk::fine());
    let redtape = Redtape::start_on(&disk, &server.url(), journal.path(), options);
    Scene { server, redtape, disk, journal }
}

impl Scene {
    fn client(&self) -> Conn {
        Conn::open(&self.redtape.url()).expect("a client")
    }
}

/// What clients were told of their writes until, so many milliseconds after they were well under way, all was over.
fn told_until(url: &str, marks: &str, millis: u64, end: impl FnOnce()) -> Told {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let clients = scope.spawn(|| write_and_remember(url, &stop, marks));
        wait_until_told(1000);
        std::thread::sleep(Duration::from_millis(millis));
        end();
        stop.store(true, Ordering::Relaxed);
        clients.join().expect("the clients")
    })
}

fn assert_restored(journal: &Path, told: &Told) {
    let target = restore_latest(journal);
    assert!(told.len() > 100, "only {} keys were written", told.len());
    assert_all_there(&mut target.conn(), told);
}

/// Runs a command; gives its reply and how long it took.
fn timed(conn: &mut Conn, command: &crate::harness::Args) -> (Value, Duration) {
    let started = Instant::now();
    let reply = conn.call(command).expect("a reply");
    (reply, started.elapsed())
}

#[test]
fn a_reply_waits_until_its_write_is_synced_and_reads_do_not() {
    const STALL: Duration = Duration::from_millis(400);
    for sharing in ["auto", "off"] {
        let s = scene(&["--ack", "journal", "--sharing", sharing]);
        let (mut a, mut b) = (s.client(), s.client());
        a.must(&args!["SET", "k", 0]);
        b.must(&args!["GET", "k"]);
        s.disk.is("stall 400");
        let held = |reply: (Value, Duration), what: &str| {
            assert!(!matches!(reply.0, Value::Error(_)), "{what}: {:?}", reply.0);
            assert!(reply.1 >= STALL, "{sharing}: {what} was acknowledged after {:?}", reply.1);
        };
        let at_once = |reply: (Value, Duration), what: &str| {
            assert!(reply.1 < STALL / 2, "{sharing}: {what} took {:?}", reply.1);
        };
        held(timed(&mut a, &args!["SET", "k", 1]), "SET");
        at_once(timed(&mut b, &args!["GET", "k"]), "GET");
        held(timed(&mut a, &args!["EVAL", "return redis.call('incr', KEYS[1])", 1, "n"]), "EVAL");
        held(timed(&mut a, &args!["LPUSH", "l", "x"]), "LPUSH");
        held(timed(&mut a, &args!["BLPOP", "l", 0]), "BLPOP");
        a.must(&args!["MULTI"]);
        at_once(timed(&mut a, &args!["SET", "m", 1]), "QUEUED");
        held(timed(&mut a, &args!["EXEC"]), "EXEC");
        // A write that is never answered is told of by the next reply.
        for (quiet, loud) in
            [("SKIP", args!["ECHO", "x"]), ("SKIP", args!["INFO", "server"]), ("OFF", args!["CLIENT", "REPLY", "ON"])]
        {
            let mut lines = Vec::new();
            for command in [args!["CLIENT", "REPLY", quiet], args!["SET", "k", 1], loud] {
                command.pack(&mut lines);
            }
            let started = Instant::now();
            a.send(&lines).expect("sent");
            a.reply().expect("a reply");
            assert!(started.elapsed() >= STALL, "{sharing}: CLIENT REPLY {quiet} after {:?}", started.elapsed());
        }
        // What did nothing has nothing to wait for.
        at_once(timed(&mut a, &args!["DEL", "nothing"]), "DEL of nothing");
        at_once(timed(&mut a, &args!["LPUSH", "k", "x"]), "an error");
        // Replies stay in order: what comes behind a write waits with it, others do not.
        let started = Instant::now();
        let replies = a
            .pipeline(&[args!["ECHO", "1"], args!["SET", "k", 2], args!["ECHO", "2"], args!["GET", "k"]])
            .expect("replies");
        assert!(started.elapsed() >= STALL);
        assert_eq!(replies.iter().map(text).collect::<Vec<_>>(), ["1", "OK", "2", "2"]);
        // WAIT counts the journal as a replica, by what is synced.
        let (replicas, _) = timed(&mut a, &args!["WAIT", 1, 0]);
        assert_eq!(replicas, Value::Int(1));
        s.disk.is("fine");
        a.must(&args!["SET", "k", 3]);
        assert_eq!(journal::timelines(s.journal.path()), 1);
    }
}

#[test]
fn nothing_acknowledged_is_lost_when_server_and_proxy_die_together() {
    let mut rng = StdRng::seed_from_u64(seed());
    for round in 0..4 {
        let mut s = scene(&["--ack", "journal"]);
        let url = s.redtape.url();
        let told = told_until(&url, "k", rng.random_range(300..900), || {
            // The server keeps nothing on its disk: what is not in the journal is gone.
            if round % 2 == 0 {
                s.server.kill9();
                s.redtape.kill9();
            } else {
                s.redtape.kill9();
                s.server.kill9();
            }
        });
        assert_restored(s.journal.path(), &told);
    }
}

#[test]
fn a_server_that_dies_takes_no_acknowledged_write_with_it() {
    let mut rng = StdRng::seed_from_u64(seed());
    let mut s = scene(&["--ack", "journal"]);
    for round in 0..4 {
        let (url, marks) = (s.redtape.url(), format!("r{round}"));
        let told = told_until(&url, &marks, rng.random_range(300..700), || s.server.kill9());
        // Before it is there again with another history.
        assert_restored(s.journal.path(), &told);
        s.server.restart();
        s.redtape.wait_streaming();
        wait_for("writes to be taken again", Duration::from_secs(20), || {
            let mut conn = s.client();
            matches!(conn.call(&args!["SET", "again", 1]), Ok(Value::Text(_))).then_some(())
        });
    }
    assert_eq!(journal::timelines(s.journal.path()), 5);
}

#[test]
fn a_disk_that_fails_acknowledges_nothing_and_recovers() {
    for trouble in ["sync-error", "write-full"] {
        let mut s = scene(&["--ack", "journal"]);
        let (mut writer, mut reader) = (s.client(), s.client());
        writer.must(&args!["SET", "k", 1]);
        s.disk.is(trouble);
        writer.send(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1\r\n2\r\n").expect("sent");
        wait_for("the journal to fail", Duration::from_secs(10), || {
            (s.redtape.metric(r#"redtape_errors_total{kind="journal"}"#) > Some(0.0)).then_some(())
        });
        let refused = wait_for("writes to be refused", Duration::from_secs(10), || {
            let mut other = s.client();
            match other.call(&args!["SET", "other", 1]) {
                Ok(Value::Error(e)) => Some(e),
                Ok(Value::Text(_)) => panic!("{trouble}: a write was acknowledged that no disk holds"),
                _ => None,
            }
        });
        let why = if trouble == "sync-error" { "Input/output error" } else { "No space left on device" };
        assert!(
            refused.starts_with("JOURNAL redtape: the journal cannot be written") && refused.contains(why),
            "{refused}"
        );
        // Reads go on; a transaction is refused as a whole and leaves nothing behind.
        assert_eq!(text(&reader.must(&args!["ECHO", "here"])), "here");
        reader.must(&args!["MULTI"]);
        reader.must(&args!["SET", "in", "multi"]);
        match reader.call(&args!["EXEC"]).expect("an answer") {
            Value::Error(e) => {
                assert!(e.starts_with("JOURNAL ") && e.ends_with("the transaction was discarded"), "{e}")
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(reader.must(&args!["EXISTS", "in"]), Value::Int(0));
        match reader.call(&args!["EVAL", "return redis.call('set', 'a', 'b')", 0]).expect("an answer") {
            Value::Error(e) => assert!(e.starts_with("JOURNAL "), "{e}"),
            other => panic!("{other:?}"),
        }
        assert!(s.redtape.metric(r#"redtape_errors_total{kind="journal_reject"}"#) > Some(0.0));
        s.disk.is("fine");
        wait_for("writes to be taken again", Duration::from_secs(30), || {
            matches!(reader.call(&args!["SET", "k", 3]), Ok(Value::Text(_))).then_some(())
        });
        // The first one is answered by now, or its connection has ended; what stands in the journal decides.
        let first = writer.reply();
        assert!(matches!(&first, Err(_) | Ok(Value::Text(_))), "{first:?}");
        s.redtape.wait_caught_up();
        assert_eq!(s.redtape.terminate(), Some(0));
        journal::assert_verified(s.journal.path());
        let target = restore_latest(s.journal.path());
        assert_eq!(text(&target.conn().must(&args!["GET", "k"])), "3");
    }
}

/// Found by the power losses: a transaction that was begun while the base was taken waited for a look at the clock, up to a
/// second, when nobody else wrote.
#[test]
fn blocked_clients_resume_when_the_journal_follows() {
    const ROUNDS: u32 = 5;
    let (server, journal) = (Server::with(&["--repl-diskless-sync-delay", "1"]), Dir::new("journal"));
    let mut redtape = Redtape::start(&server.url(), journal.path(), &["--ack", "journal"]);
    // The others: a write while it follows, what a busy machine and its disk take anyhow.
    let (mut waited, mut others) = (Duration::ZERO, Duration::ZERO);
    for n in 1..=ROUNDS {
        redtape.kill9();
        // Another history: a new base.
        server.conn().must(&args!["DEBUG", "CHANGE-REPL-ID"]);
        // The server begins at a full second of its own: not always at the same moment of redtape's.
        std::thread::sleep(Duration::from_millis(190) * n);
        redtape.start_again();
        let mut conn = Conn::open(&redtape.url()).expect("a client");
        conn.must(&args!["MULTI"]);
        let client = std::thread::spawn(move || {
            let replies = conn.pipeline(&[args!["INCR", "n"], args!["EXEC"]]).expect("replies");
            let served = Instant::now();
            conn.must(&args!["SET", "other", 1]);
            (replies, served, served.elapsed())
        });
        redtape.wait_streaming();
        let follows = Instant::now();
        let (replies, served, other) = client.join().expect("the client");
        assert_eq!(replies[1], Value::Array(vec![Value::Int(n.into())]));
        waited += served.saturating_duration_since(follows);
        others += other;
    }
    // It connects, asks, writes, asks and syncs, where the others write, ask and sync. By the clock it were half a second more
    // each time.
    assert!(waited < Duration::from_secs(1) + 3 * others, "{ROUNDS} times, {waited:?} in all; others {others:?}");
}

#[test]
fn what_does_not_reach_the_disk_in_time_is_not_acknowledged() {
    let s = scene(&["--ack", "journal"]);
    let mut writer = s.client();
    writer.must(&args!["SET", "k", 1]);
    s.disk.is("stall 25000");
    let started = Instant::now();
    let reply = writer.call(&args!["SET", "k", 2]);
    assert!(reply.is_err(), "an answer to a write that is on no disk: {reply:?}");
    assert!(started.elapsed() >= Duration::from_secs(9), "ended after {:?}", started.elapsed());
    assert_eq!(s.redtape.metric(r#"redtape_errors_total{kind="ack_timeout"}"#), Some(1.0));
    s.disk.is("fine");
}

#[test]
fn options_that_contradict_it_are_refused() {
    let with = |options: &[&str]| {
        let base = ["config", "check", "--upstream", "redis://127.0.0.1:1", "--ack", "journal"];
        run(&[&base[..], options].concat())
    };
    with(&[]).expect_success("--ack journal alone");
    with(&["--sync", "always"]).expect_success("--sync always");
    for (options, says) in [
        (["--sync", "everysec"], "ack journal needs sync always"),
        (["--on-journal-failure", "pass"], "ack journal rejects writes that cannot be journaled"),
    ] {
        let outcome = with(&options);
        assert_ne!(outcome.code, Some(0), "{options:?}");
        assert!(outcome.stderr.contains(says), "{options:?}: {}", outcome.stderr);
    }
}
