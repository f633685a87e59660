//! A disk that is full, fails or stalls: nothing is silent, memory is bounded, the server does not suffer, and all is
//! well again when the disk is.

use crate::harness::conn::{Value, text};
use crate::harness::redtape::run;
use crate::harness::told::{Told, assert_all_there, restore_latest, write_and_remember};
use crate::harness::{Conn, Dir, Disk, Redtape, Server, State, env_number, journal, seed, wait_for};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
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

/// A number that the server says in `INFO`.
fn info(conn: &mut Conn, section: &str, field: &str) -> u64 {
    let info = text(&conn.must(&args!["INFO", section]));
    let value = info.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    value.unwrap_or_else(|| panic!("no {field} in {info}")).trim().parse().expect("a number")
}

/// Bytes that the server keeps for its replicas, besides the backlog that it has anyhow.
fn waiting_for_replicas(conn: &mut Conn) -> u64 {
    info(conn, "memory", "mem_clients_slaves")
}

/// Behind each MiB that is written: a client is not faster than redtape reads the link on a busy machine. What redtape has not had
/// time to read, which makes the server close the link, is not meant in these tests.
const READING_TIME: Duration = Duration::from_millis(4);

#[test]
fn no_full_copy_is_asked_for_while_the_disk_stalls() {
    const VALUE: usize = 1 << 20;
    let mut s = scene(Server::with(&["--repl-backlog-size", "1mb"]), &["--sync", "always"]);
    let (mut direct, mut client) = (s.server.conn(), s.client());
    client.must(&args!["SET", "before", 1]);
    s.redtape.wait_caught_up();
    assert_eq!(info(&mut direct, "stats", "sync_full"), 1);
    // A batch of 16 MiB is synced in so long: the disk falls behind, and catches up a little in some seconds.
    s.disk.is("stall 600");
    let value = "v".repeat(VALUE);
    wait_for("the journal to fall too far behind", Duration::from_secs(60), || {
        for n in 0..8 {
            client.must(&args!["SET", format!("k{n}"), &value]);
            std::thread::sleep(READING_TIME);
        }
        s.redtape.said().contains("the server is not followed until it has caught up").then_some(())
    });
    let caught_up = || s.redtape.metric(r#"redtape_errors_total{kind="journal_slow"}"#) == Some(1.0);
    wait_for("the disk to catch up", Duration::from_secs(60), || caught_up().then_some(()));
    for _ in 0..30 {
        std::thread::sleep(Duration::from_millis(100));
        assert_eq!(info(&mut direct, "stats", "sync_full"), 1, "a fork for a disk that stalls");
    }
    s.disk.is("fine");
    s.redtape.wait_streaming();
    assert_eq!(info(&mut direct, "stats", "sync_full"), 2);
}

/// What is shown as the end of what can be restored was written: a restore finds it at once.
#[test]
fn the_end_of_the_window_is_never_ahead_of_the_files() {
    let mut s = scene(Server::start(), &["--sync", "always"]);
    let mut client = s.client();
    client.must(&args!["SET", "before", 1]);
    s.redtape.wait_caught_up();
    s.disk.is("stall 3000");
    for n in 0..40 {
        client.must(&args!["SET", "k", n]);
        std::thread::sleep(Duration::from_millis(100));
        let shown = s.redtape.metric("redtape_journal_complete_until_seconds").expect("the metric");
        let written = journal::complete_until(s.journal.path());
        assert!(shown <= written + 1e-5, "after {n} writes: {shown} is shown, the files end with {written}");
    }
    s.disk.is("fine");
    s.redtape.wait_caught_up();
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
            std::thread::sleep(READING_TIME);
            if n % 20 == 0 {
                kept = kept.max(waiting_for_replicas(&mut direct));
                resident = resident.max(s.redtape.resident_bytes() as u64);
            }
        }
        println!("backlog {backlog}: the server kept {} MiB, redtape had {} MiB", kept / MIB, resident / MIB);
        assert!(kept < 200 * MIB, "the server kept {kept} bytes for a link that is not read");
        assert!(resident < 700 * MIB, "redtape had {resident} bytes");
        assert!(s.redtape.metric(r#"redtape_errors_total{kind="journal_slow"}"#) <= Some(1.0));
        s.disk.is("fine");
        wait_for("the disk's trouble to be told", Duration::from_secs(30), || {
            (s.redtape.metric(r#"redtape_errors_total{kind="journal_slow"}"#) == Some(1.0)).then_some(())
        });
        s.redtape.wait_streaming();
        client.must(&args!["SET", "after", 1]);
        s.redtape.wait_caught_up();
        s.redtape.wait_said("the disk is too slow: 256 MiB wait for it");
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

// --- one call that fails --------------------------------------------------------------------------

const SWEPT: &[&str] = &["--ack", "journal", "--segment-mib", "1"];

#[test]
fn a_sync_that_fails_acknowledges_nothing_that_is_lost() {
    let server = preloaded(seed());
    for n in [1, 3, 9, 17, 40] {
        sync_fails_at(&server, n);
    }
}

#[test]
fn a_disk_full_at_any_write_is_reported_and_survived() {
    let server = preloaded(seed());
    for n in [1, 5, 12, 40] {
        full_from(&server, n);
    }
}

#[test]
#[ignore = "minutes: make disk"]
fn every_sync_fails_in_turn() {
    let server = preloaded(seed());
    for n in env_number("REDTAPE_DISK_FIRST", 1)..=env_number("REDTAPE_DISK_CALLS", 100) {
        sync_fails_at(&server, n);
    }
}

#[test]
#[ignore = "minutes: make disk"]
fn every_write_fills_the_disk_in_turn() {
    let server = preloaded(seed());
    for n in env_number("REDTAPE_DISK_FIRST", 1)..=env_number("REDTAPE_DISK_CALLS", 100) {
        full_from(&server, n);
    }
}

/// A server with some data, so that a base is more than nothing.
fn preloaded(seed: u64) -> Server {
    let server = Server::with(&["--repl-backlog-size", "256mb"]);
    let (mut conn, mut rng) = (server.conn(), StdRng::seed_from_u64(seed));
    for n in 0..200 {
        let value: Vec<u8> = (0..rng.random_range(1..2000)).map(|_| rng.random()).collect();
        conn.must(&args!["SET", format!("base:{n}"), value]);
    }
    server
}

/// Runs clients through redtape while `meanwhile` runs.
fn with_clients<T>(redtape: &Redtape, marks: &str, meanwhile: impl FnOnce() -> T) -> (Told, T) {
    let (url, stop) = (redtape.url(), AtomicBool::new(false));
    struct StopAtEnd<'a>(&'a AtomicBool);
    impl Drop for StopAtEnd<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    std::thread::scope(|scope| {
        let clients = scope.spawn(|| write_and_remember(&url, &stop, marks));
        let done = {
            let _stop = StopAtEnd(&stop);
            meanwhile()
        };
        (clients.join().expect("the clients"), done)
    })
}

/// Starts on this disk; where it cannot, it must say why and end, and then start when the disk is fine.
fn start_in_spite(disk: &Disk, server: &Server, journal: &Path, why: &str) -> (Redtape, bool) {
    match Redtape::start_or_end(disk.environment_under(journal), &server.url(), journal, SWEPT) {
        Ok(redtape) => (redtape, false),
        Err((code, said)) => {
            assert_eq!(code, Some(74), "an error of the disk is EX_IOERR: {said}");
            assert!(said.contains(why), "{said}");
            disk.is("fine");
            let again = Redtape::start_or_end(disk.environment_under(journal), &server.url(), journal, SWEPT);
            let refused = |(code, said)| panic!("it does not start on a good disk: {code:?}, {said}");
            (again.unwrap_or_else(refused), true)
        }
    }
}

fn wait_written(redtape: &Redtape, what: &str) {
    wait_for(what, Duration::from_secs(30), || {
        let mut conn = Conn::open(&redtape.url()).ok()?;
        matches!(conn.call(&args!["SET", "again", 1]), Ok(Value::Text(_))).then_some(())
    });
}

/// Whatever is there then is what the journal says; the state at its end is the server's.
fn assert_restores(server: &Server, mut redtape: Redtape, journal: &Path, told: &Told, case: &str) {
    redtape.wait_caught_up();
    let state = State::record_calm(&mut server.conn());
    assert_eq!(redtape.terminate(), Some(0), "{case}: {}", redtape.said());
    journal::assert_verified(journal);
    let target = Server::at_clock(state.at_us);
    let from = journal.to_str().expect("a plain path");
    run(&["restore", "--from", from, "--at", "latest", "--to", &target.url(), "--via", "link", "--yes"])
        .expect_success(case);
    let mut restored = target.conn();
    assert_all_there(&mut restored, told);
    state.assert_same(&State::record_restored(&mut restored, state.at_us), case);
}

/// The nth sync fails, and what it should have brought to the disk is lost.
fn sync_fails_at(server: &Server, n: usize) {
    let (journal, disk) = (Dir::new("journal"), Disk::fine());
    let case = format!("sync {n}");
    disk.is(&format!("sync-error-nth {n}"));
    let (mut redtape, ended) = start_in_spite(&disk, server, journal.path(), "Input/output error");
    let (told, ()) = with_clients(&redtape, &format!("sync{n}"), || {
        let started = std::time::Instant::now();
        while disk.failures().is_empty() && started.elapsed() < Duration::from_secs(30) {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(!disk.failures().is_empty(), "{case}: there were not so many");
        wait_written(&redtape, &format!("{case}: writes to be taken again"));
        // What is told now stands on what was lost, or on a new base.
        std::thread::sleep(Duration::from_millis(200));
    });
    redtape.kill9();
    let said = redtape.said();
    assert!(ended || said.contains("Input/output error"), "{case}: not a word about it: {said}");
    assert_all_there(&mut restore_latest(journal.path()).conn(), &told);
    // Its next life counts anew.
    disk.is("fine");
    redtape.start_again();
    redtape.wait_streaming();
    println!(
        "{case} ({}): {} keys told, {} timelines",
        disk.failures(),
        told.len(),
        journal::timelines(journal.path())
    );
    assert_restores(server, redtape, journal.path(), &told, &case);
}

/// From the nth write on there is no room, and half of that one is written; until there is room again.
fn full_from(server: &Server, n: usize) {
    let (journal, disk) = (Dir::new("journal"), Disk::fine());
    let case = format!("write {n}");
    disk.is(&format!("write-full-nth {n}"));
    let (mut redtape, ended) = start_in_spite(&disk, server, journal.path(), "No space left on device");
    let (told, refused) = with_clients(&redtape, &format!("write{n}"), || {
        let started = std::time::Instant::now();
        while disk.failures().is_empty() && started.elapsed() < Duration::from_secs(30) {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(!disk.failures().is_empty(), "{case}: there were not so many");
        let refused = (!ended).then(|| {
            wait_for(&format!("{case}: the alarm"), Duration::from_secs(15), || {
                (redtape.metric(r#"redtape_errors_total{kind="journal"}"#) > Some(0.0)).then_some(())
            });
            redtape.wait_said("No space left on device");
            let reply = Conn::open(&redtape.url()).and_then(|mut conn| conn.call(&args!["SET", "full", 1]));
            assert!(!matches!(reply, Ok(Value::Text(_))), "{case}: acknowledged, and on no disk: {reply:?}");
            reply.map_or_else(|e| e.to_string(), |reply| format!("{reply:?}"))
        });
        disk.is("fine");
        wait_written(&redtape, &format!("{case}: writes to be taken again"));
        refused
    });
    redtape.wait_streaming();
    println!("{case} ({}): {} keys told, then {refused:?}", disk.failures(), told.len());
    assert_restores(server, redtape, journal.path(), &told, &case);
}

// --- what may be trusted behind a failure ------------------------------------------------------------------

/// Waits until the disk has done so much, as letters of [`Disk::failures`].
fn wait_for_failures(disk: &Disk, wanted: &str) {
    wait_for(&format!("the disk's failures {wanted}"), Duration::from_secs(20), || {
        (disk.failures() == wanted).then_some(())
    });
}

/// Lets the disk fail like this while clients write; gives how many timelines there are when all is well again.
fn timelines_after(journal: &Path, how: &str, failed: impl FnOnce(&Redtape, &Disk)) -> usize {
    let (server, disk) = (Server::with(&["--repl-backlog-size", "256mb"]), Disk::fine());
    let mut redtape = Redtape::start_in(disk.environment_under(journal), &server.url(), journal, &["--sync", "always"]);
    let mut client = Conn::open(&redtape.url()).expect("a client");
    for n in 0..20 {
        client.must(&args!["SET", format!("before:{n}"), n]);
    }
    redtape.wait_caught_up();
    disk.is(how);
    client.must(&args!["SET", "torn", "x".repeat(5000)]);
    failed(&redtape, &disk);
    disk.is("fine");
    redtape.wait_streaming();
    client.must(&args!["SET", "after", 1]);
    redtape.wait_caught_up();
    let timelines = journal::timelines(journal);
    assert_restores(&server, redtape, journal, &Told::new(), how);
    timelines
}

#[test]
fn a_failed_sync_during_recovery_forces_a_new_base() {
    for (how, failures) in [("torn-copy-error", "wo"), ("torn-cut-error", "ws")] {
        let journal = Dir::new("journal");
        let timelines = timelines_after(journal.path(), how, |_, disk| wait_for_failures(disk, failures));
        assert_eq!(timelines, 2, "{how}: what is there may be on no disk, so a base is taken");
    }
}

#[test]
fn a_full_disk_forces_no_new_base() {
    let outside = Dir::new("sync");
    let journal = outside.join("fsync-failed/journal");
    let timelines = timelines_after(&journal, "write-full-nth 1", |redtape, _| {
        // The reopening fails, too: it sets the torn tail aside.
        wait_for("the journal to be opened in vain", Duration::from_secs(20), || {
            (redtape.metric(r#"redtape_errors_total{kind="journal"}"#) > Some(2.0)).then_some(())
        });
    });
    assert_eq!(timelines, 1, "the server's backlog had all that was not written");
}

// --- a disk that is really full ----------------------------------------------------------------------

/// A file system of its own, of a few MiB.
struct SmallDisk {
    dir: Dir,
}

impl SmallDisk {
    /// `None` where nothing may be mounted.
    fn mount(size: &str) -> Option<Self> {
        let dir = Dir::new("small-disk");
        let mounted = Self::run(&["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"], &dir);
        mounted.then_some(Self { dir })
    }

    fn grow(&self, size: &str) {
        assert!(Self::run(&["-o", &format!("remount,size={size}")], &self.dir), "more room");
    }

    fn run(options: &[&str], dir: &Dir) -> bool {
        let mount = Command::new("mount").args(options).arg(dir.path()).output();
        mount.is_ok_and(|out| out.status.success())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.dir.path()).status();
    }
}

#[test]
fn a_small_disk_fills_up_and_all_is_well_when_there_is_room() {
    let Some(disk) = SmallDisk::mount("4m") else {
        println!("NOT TESTED: a tmpfs cannot be mounted here (that needs root)");
        return;
    };
    let server = Server::with(&["--repl-backlog-size", "256mb"]);
    let journal = disk.dir.join("journal");
    let mut redtape = Redtape::start(&server.url(), &journal, SWEPT);
    let mut client = Conn::open(&redtape.url()).expect("a client");
    let mut told = Told::new();
    let mut rng = StdRng::seed_from_u64(seed());
    for round in ["8m", "64m"] {
        let refused = (0..2000u64).find_map(|n| {
            let value: Vec<u8> = (0..8000).map(|_| rng.random()).collect();
            let number = told.len() as u64 + n;
            let transaction = [
                args!["MULTI"],
                args!["SET", format!("n:{number}"), number],
                args!["SET", "value", value],
                args!["EXEC"],
            ];
            match client.pipeline(&transaction) {
                Ok(replies) if matches!(replies[3], Value::Array(_)) => {
                    told.insert(format!("n:{number}"), number.to_string());
                    None
                }
                other => Some(other.map_or_else(|e| e.to_string(), |replies| format!("{:?}", replies[3]))),
            }
        });
        println!("full after {} writes: {}", told.len(), refused.expect("the disk is full at last"));
        wait_for("the alarm", Duration::from_secs(10), || {
            (redtape.metric(r#"redtape_errors_total{kind="journal"}"#) > Some(0.0)).then_some(())
        });
        wait_for("a plain word", Duration::from_secs(10), || {
            let mut conn = Conn::open(&redtape.url()).ok()?;
            match conn.call(&args!["SET", "full", 1]) {
                Ok(Value::Error(e)) => e.contains("No space left on device").then_some(()),
                Ok(Value::Text(_)) => panic!("acknowledged, and on no disk"),
                _ => None,
            }
        });
        let mut reader = Conn::open(&redtape.url()).expect("a client");
        assert_eq!(text(&reader.must(&args!["ECHO", "here"])), "here");
        disk.grow(round);
        wait_written(&redtape, "writes to be taken again");
        client = Conn::open(&redtape.url()).expect("a client");
    }
    assert_eq!(journal::timelines(&journal), 1, "the backlog had all that was not written");
    redtape.wait_streaming();
    assert_restores(&server, redtape, &journal, &told, "after two full disks");
}

#[test]
#[ignore = "a minute: make disk"]
fn a_disk_that_stalls_for_half_a_minute() {
    let Scene { redtape, server, disk, journal } = scene(preloaded(seed()), &["--ack", "journal"]);
    Conn::open(&redtape.url()).expect("a client").must(&args!["SET", "k", 1]);
    disk.is("stall 30000");
    let (mut resident, started) = (0, std::time::Instant::now());
    let (told, ()) = with_clients(&redtape, "stall", || {
        // The first sync is begun, and ends when the disk is no longer asked to stall.
        std::thread::sleep(Duration::from_millis(500));
        disk.is("fine");
        while started.elapsed() < Duration::from_secs(29) {
            resident = resident.max(redtape.resident_bytes() as u64);
            std::thread::sleep(Duration::from_millis(100));
        }
        assert!(redtape.metric(r#"redtape_errors_total{kind="ack_timeout"}"#) > Some(0.0), "who waits is told");
        let lag = redtape.metric("redtape_journal_captured_lsn").zip(redtape.metric("redtape_journal_durable_lsn"));
        println!("captured and durable: {lag:?}; redtape had {} MiB", resident >> 20);
        wait_written(&redtape, "writes to be acknowledged again");
    });
    assert!(resident < 700 << 20, "redtape had {resident} bytes");
    assert_restores(&server, redtape, journal.path(), &told, "after the stall");
}
