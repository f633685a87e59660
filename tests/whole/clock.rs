//! The wall clock is stepped by hours, forward and back, while redtape runs: writes go on, the order holds, times never
//! go back, each step is told, counted and marked in the journal; and a restore to a time at which the clock was
//! as it should be, or to a mark of a step, is what a person expects.

use crate::harness::clock::SteppedClock;
use crate::harness::conn::text;
use crate::harness::redtape::run;
use crate::harness::{Conn, Dir, Redtape, Server, journal, now_us, rfc3339, wait_for};
use redtape_journal::Catalog;
use std::path::Path;
use std::time::{Duration, Instant};

/// Of the wall clock, in seconds; and what a step is called.
const STEPS: [(&str, i64); 5] = [("+2h", 7200), ("+0", -7200), ("-3h", -10_800), ("+1h", 14_400), ("+0", -3600)];

#[test]
fn a_clock_that_steps_by_hours_disorders_nothing() {
    let (server, journal, clock) = (Server::start(), Dir::new("journal"), SteppedClock::right());
    let mut redtape = Redtape::start_in(clock.environment(), &server.url(), journal.path(), &["--ack", "journal"]);
    let mut conn = Conn::open(&redtape.url()).expect("a client");
    let mut count = 0u64;
    // Each is acknowledged in a moment, whatever the clock says.
    let mut write_for = |time: Duration| {
        let started = Instant::now();
        while started.elapsed() < time {
            count += 1;
            let asked = Instant::now();
            conn.must(&args!["SET", "count", count]);
            assert!(asked.elapsed() < Duration::from_secs(3), "write {count} took {:?}", asked.elapsed());
            std::thread::sleep(Duration::from_millis(2));
        }
        count
    };
    write_for(Duration::from_millis(700));
    // A point in time before all this, by a clock that was right.
    std::thread::sleep(Duration::from_millis(20));
    let (before_at, before) = (now_us(), write_for(Duration::ZERO));
    std::thread::sleep(Duration::from_millis(20));
    write_for(Duration::from_millis(700));
    let mut at_steps = Vec::new();
    let mut wrong = None;
    for (n, (offset, _)) in STEPS.iter().enumerate() {
        at_steps.push(write_for(Duration::ZERO));
        // Everything before is synced; the mark lies behind it.
        clock.is_off_by(offset);
        wait_for("the step to be counted", Duration::from_secs(5), || {
            (redtape.metric("redtape_clock_steps_total") == Some(n as f64 + 1.0)).then_some(())
        });
        write_for(Duration::from_millis(500));
        if n == 0 {
            // By a clock that is two hours ahead, and is believed by all who look at it.
            std::thread::sleep(Duration::from_millis(20));
            wrong = Some((now_us() + 7_200_000_000, write_for(Duration::ZERO)));
            std::thread::sleep(Duration::from_millis(20));
            write_for(Duration::from_millis(300));
        }
    }
    let last = write_for(Duration::from_millis(300));
    assert_eq!(redtape.terminate(), Some(0), "{}", redtape.said());
    let said = redtape.said();
    assert_eq!(said.matches("the wall clock has stepped").count(), STEPS.len(), "{said}");
    journal::assert_verified(journal.path());
    assert_eq!(journal::timelines(journal.path()), 1);

    // Order and times (`cat` checks that none goes back).
    let groups = journal::cat(journal.path());
    let counted: Vec<u64> = groups
        .iter()
        .filter(|g| g.records[0].args.get(1).is_some_and(|key| key == b"count"))
        .map(|g| String::from_utf8_lossy(&g.records[0].args[2]).parse().expect("a number"))
        .collect();
    assert_eq!(counted, (1..=last).collect::<Vec<_>>());

    // The steps stand in the journal, behind what was written before them.
    let catalog = Catalog::open(journal.path()).expect("a journal");
    let marks = catalog.marks();
    assert_eq!(marks.len(), STEPS.len(), "{marks:?}");
    for (mark, (_, step)) in marks.iter().zip(STEPS) {
        let said: i64 = mark.name["clock".len()..mark.name.find("s@").expect("a time")].parse().expect("seconds");
        assert!((said - step).abs() <= 2, "{} for {step}", mark.name);
    }
    let ls = run(&["journal", "ls", "--from", plain(journal.path())]).expect_success("journal ls");
    assert!(marks.iter().all(|mark| ls.stdout.contains(&mark.name)), "{}", ls.stdout);
    let first = format!("mark:{}", marks[0].name);
    assert_eq!(restored(journal.path(), &first), at_steps[0], "before the first step");
    // It came again, when the clock was three hours slow and then set right.
    assert_eq!(told(journal.path(), &rfc3339(before_at)), (before, true), "when the clock was right");
    let (wrong_at, wrong) = wrong.expect("a moment");
    assert_eq!(told(journal.path(), &rfc3339(wrong_at)), (wrong, true), "by the clock that was ahead");
    assert_eq!(restored(journal.path(), "latest"), last);
}

fn plain(path: &Path) -> &str {
    path.to_str().expect("a plain path")
}

/// What `count` was.
fn restored(journal: &Path, at: &str) -> u64 {
    told(journal, at).0
}

/// The same, and whether the restore said that this time is ambiguous.
fn told(journal: &Path, at: &str) -> (u64, bool) {
    let target = Server::start();
    let done = run(&["restore", "--from", plain(journal), "--at", at, "--to", &target.url(), "--via", "link", "--yes"])
        .expect_success(at);
    let count = text(&target.conn().must(&args!["GET", "count"])).parse().expect("a number");
    (count, done.stderr.contains("is ambiguous") || done.stdout.contains("is ambiguous"))
}
