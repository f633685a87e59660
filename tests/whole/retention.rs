//! Retention on real servers: what is old goes while applications write, every point in time that is still
//! offered restores exactly, the journal verifies all the time, and what was taken by hand stays.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::harness::conn::{Conn, Value as Reply, items};
use crate::harness::redtape::{Outcome, run};
use crate::harness::{Dir, Redtape, Server, rfc3339, seed, wait_for};
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};
use serde_json::Value;

/// Keys that are written in turn, one record for each write.
const KEYS: u64 = 20;
/// So large, and so random, that a segment of 1 MiB is full after some fifty.
const VALUE_BYTES: usize = 20_000;

fn text(path: &Path) -> &str {
    path.to_str().expect("a plain path")
}

fn json(args: &[&str]) -> Value {
    let out = run(args).expect_success(&args.join(" "));
    serde_json::from_str(&out.stdout).unwrap_or_else(|e| panic!("{e}: {}", out.stdout))
}

fn windows(dir: &Path) -> Vec<Value> {
    json(&["journal", "ls", "--json", "--from", text(dir)])["windows"].as_array().expect("windows").clone()
}

fn number(value: &Value, field: &str) -> u64 {
    value[field].as_u64().unwrap_or_else(|| panic!("no number {field} in {value}"))
}

fn restore(dir: &Path, at: &str, target: &Server) -> Outcome {
    run(&["restore", "--from", text(dir), "--at", at, "--to", &target.url(), "--yes"])
}

/// The nth write is `SET k:<n mod KEYS> "<n>:…"`, so the LSN says which value each key must have.
fn assert_restores(dir: &Path, at: &str, lsn: u64) {
    let target = Server::start();
    restore(dir, at, &target).expect_success(at);
    assert_holds(&target, at, lsn);
}

fn assert_holds(target: &Server, at: &str, lsn: u64) {
    let mut conn = target.conn();
    let keys: Vec<u64> = (0..KEYS).collect();
    let command = keys.iter().fold(args!["MGET"], |command, key| command.and(format!("k:{key}")));
    for (key, value) in keys.iter().zip(items(&conn.must(&command))) {
        let newest = (lsn + KEYS - key) / KEYS * KEYS + key;
        let newest = newest.checked_sub(KEYS).filter(|n| *n > 0);
        let found = match value {
            Reply::Nil => None,
            Reply::Bytes(bytes) => {
                let number = bytes.split(|b| *b == b':').next().expect("a number");
                Some(String::from_utf8_lossy(number).parse::<u64>().expect("a number"))
            }
            other => panic!("{other:?}"),
        };
        assert_eq!(found, newest, "k:{key} at {at} (LSN {lsn})");
    }
}

/// Writes until told to stop; gives how many writes that were.
fn write(url: &str, seed: u64, stop: &AtomicBool) -> u64 {
    let mut random = StdRng::seed_from_u64(seed);
    let mut conn = Conn::open(url).expect("the proxy");
    let mut value = vec![0; VALUE_BYTES];
    for n in 1.. {
        if stop.load(Ordering::Relaxed) {
            return n - 1;
        }
        random.fill_bytes(&mut value);
        let value = [format!("{n}:").as_bytes(), &value].concat();
        conn.must(&args!["SET", format!("k:{}", n % KEYS), value]);
        std::thread::sleep(Duration::from_millis(8));
    }
    unreachable!("numbers do not end")
}

/// Ends the writing also when an assertion fails.
struct Stopper<'a>(&'a AtomicBool);

impl Drop for Stopper<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn retention_prunes_and_every_offered_point_restores() {
    let seed = seed();
    let mut random = StdRng::seed_from_u64(seed);
    let journal = Dir::new("journal");
    let dir = journal.path();
    let server = Server::with(&["--repl-backlog-size", "64mb", "--repl-diskless-sync-delay", "0"]);
    let options = ["--retention", "4s", "--snapshot-every", "2s", "--snapshot-rate", "40mb", "--segment-mib", "1"];
    let mut redtape = Redtape::start(&server.url(), dir, &options);
    let stop = AtomicBool::new(false);
    let (written, manual) = std::thread::scope(|scope| {
        let _stopper = Stopper(&stop);
        let (url, stop) = (redtape.url(), &stop);
        let writer = scope.spawn(move || write(&url, seed, stop));
        std::thread::sleep(Duration::from_secs(1));
        let manual = json(&["snapshot", "create", "--dir", text(dir), "--upstream", &server.url(), "--json"]);
        let pruned =
            |kind: &str| redtape.metric(&format!("redtape_pruned_files_total{{kind=\"{kind}\"}}")).expect("the metric");
        let (mut exact, mut too_late) = (0, 0);
        wait_for("old segments and snapshots to go", Duration::from_secs(90), || {
            // Beside the writer and the pruning.
            let report = json(&["journal", "verify", "--json", "--from", text(dir)]);
            assert_eq!(report["problems"], Value::Array(vec![]), "{report}");
            let newest = windows(dir).pop().expect("a window");
            let (from, to) = (number(&newest, "from_lsn"), number(&newest, "to_lsn"));
            let lsn = random.random_range(from..=to);
            // The window may have moved on since it was asked for; what is restored is exact.
            let target = Server::start();
            let at = format!("lsn:{lsn}");
            let outcome = restore(dir, &at, &target);
            match outcome.code {
                Some(0) => assert_holds(&target, &at, lsn),
                Some(66) => too_late += 1,
                _ => panic!("{}", outcome.stderr),
            }
            exact += u32::from(outcome.code == Some(0));
            (exact >= 5 && pruned("segment") >= 5.0 && pruned("snapshot") >= 2.0).then_some(())
        });
        println!("restored {exact} times beside it, {too_late} times too late");
        assert!(exact > 5 * too_late, "what is listed can be restored");
        stop.store(true, Ordering::Relaxed);
        (writer.join().expect("the writer"), manual)
    });
    redtape.wait_caught_up();
    assert!(redtape.metric(r#"redtape_snapshots_total{result="taken"}"#) >= Some(3.0));
    for error in ["snapshot", "prune"] {
        assert_eq!(
            redtape.metric(&format!("redtape_errors_total{{kind=\"{error}\"}}")),
            Some(0.0),
            "{}",
            redtape.said()
        );
    }
    // Beside them is the packed copy of the one in use, while it grows.
    let count = || {
        let all = std::fs::read_dir(dir.join("segments")).expect("the segments");
        all.filter(|e| e.as_ref().is_ok_and(|e| e.path().extension().is_some_and(|e| e == "seg"))).count()
    };
    let segments = count();
    wait_for("the gauge of segments", Duration::from_secs(5), || {
        let now = count();
        (redtape.metric("redtape_journal_segments") == Some(now as f64)).then_some(())
    });
    assert_eq!(redtape.terminate(), Some(0));
    crate::harness::journal::assert_verified(dir);

    // Old ones are gone, and what retention promises is there.
    let windows = windows(dir);
    let [alone, newest] = &windows[..] else { panic!("the manual snapshot's moment and a window: {windows:?}") };
    let (from, to) = (number(newest, "from_lsn"), number(newest, "to_lsn"));
    println!("{written} writes; {segments} segments; LSN {from} to {to} can be restored, and {}", alone["from_lsn"]);
    assert_eq!(to, written);
    assert!(from > number(&manual, "lsn"), "{windows:?}");
    let kept = number(newest, "to_us") - number(newest, "from_us");
    assert!(kept >= 4_000_000, "{kept} us");
    for lsn in [from, to, random.random_range(from..=to), random.random_range(from..=to)] {
        assert_restores(dir, &format!("lsn:{lsn}"), lsn);
    }
    assert_restores(dir, newest["from"].as_str().expect("a time"), from);

    // The manual snapshot restores exactly its own point in time, by LSN and by time.
    assert_eq!(number(alone, "from_lsn"), number(&manual, "lsn"));
    assert_restores(dir, &format!("lsn:{}", manual["lsn"]), number(&manual, "lsn"));
    assert_restores(dir, manual["ts"].as_str().expect("a time"), number(&manual, "lsn"));
    let later = rfc3339(manual["ts_us"].as_i64().expect("a time") + 1);
    let outcome = restore(dir, &later, &Server::start());
    assert_eq!(outcome.code, Some(66), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("removed"), "{}", outcome.stderr);

    by_hand(dir, &manual, &windows);
}

/// `journal prune` and `snapshot rm` on the journal at rest.
fn by_hand(dir: &Path, manual: &Value, before: &[Value]) {
    let prune = |more: &[&str]| {
        let mut args = vec!["journal", "prune", "--dir", text(dir)];
        args.extend(more);
        run(&args)
    };
    let nothing = prune(&[]);
    assert_eq!(nothing.code, Some(64));
    assert!(nothing.stderr.contains("--retention 7d"), "{}", nothing.stderr);
    let unconfirmed = prune(&["--max-size", "1"]);
    assert_eq!(unconfirmed.code, Some(64), "{}", unconfirmed.stderr);
    assert!(unconfirmed.stderr.contains("--yes"), "{}", unconfirmed.stderr);
    let plan = prune(&["--max-size", "1", "--plan"]).expect_success("a plan").stdout;
    assert!(plan.contains("would go") && plan.contains("taken by hand") && plan.contains("cannot be met"), "{plan}");
    assert_eq!(windows(dir), before, "nothing was changed so far");

    let done = prune(&["--max-size", "1", "--yes", "--json"]).expect_success("prune");
    let done: Value = serde_json::from_str(&done.stdout).expect("JSON");
    assert_eq!((&done["done"], &done["limit_met"]), (&Value::Bool(true), &Value::Bool(false)), "{done}");
    crate::harness::journal::assert_verified(dir);
    let after = windows(dir);
    assert_eq!(after.len(), 2, "the manual one and the last base: {after:?}");
    assert_restores(dir, "latest", number(&after[1], "to_lsn"));

    let rm = |name: &str| run(&["snapshot", "rm", name, "--dir", text(dir), "--yes"]);
    let listed = run(&["snapshot", "ls", "--dir", text(dir)]).expect_success("snapshot ls").stdout;
    let name_of = |kind: &str| {
        let line = listed.lines().find(|l| l.contains(kind)).unwrap_or_else(|| panic!("no {kind} in {listed}"));
        line.split_whitespace().next().expect("a name").to_owned()
    };
    assert_eq!(listed.lines().count(), 2, "{listed}");
    let last = rm(&name_of("scheduled"));
    assert_eq!(last.code, Some(64), "{}", last.stderr);
    assert!(last.stderr.contains("the last snapshot"), "{}", last.stderr);
    let removed = rm(&name_of("manual")).expect_success("snapshot rm").stdout;
    assert!(removed.contains("removed 1 snapshot"), "{removed}");
    assert_eq!(rm("no-such-snapshot").code, Some(64));
    let outcome = restore(dir, &format!("lsn:{}", manual["lsn"]), &Server::start());
    assert_eq!(outcome.code, Some(66), "{}", outcome.stderr);
    crate::harness::journal::assert_verified(dir);
}
