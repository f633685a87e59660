//! A damaged journal on real servers: what is damaged is refused with the nearest good points in time, `journal repair` says
//! what is lost and keeps the rest, and redtape goes on behind it.

use std::fs;
use std::path::{Path, PathBuf};

use crate::harness::conn::{Value as Reply, bytes};
use crate::harness::redtape::{Outcome, run};
use crate::harness::{Conn, Dir, Redtape, Server, State, seed};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;

/// Writes of which about fifty fill a segment.
const WRITES: u64 = 400;
const VALUE_BYTES: usize = 20_000;

fn text(path: &Path) -> &str {
    path.to_str().expect("a plain path")
}

fn restore(dir: &Path, at: &str) -> (Outcome, Server) {
    let target = Server::start();
    (run(&["restore", "--from", text(dir), "--at", at, "--to", &target.url(), "--yes", "--json"]), target)
}

/// The nth write has LSN n and is `SET k "<n>:…"`.
fn assert_holds(target: &Server, lsn: u64) {
    let value = bytes(&target.conn().must(&args!["GET", "k"]));
    let number = value.split(|b| *b == b':').next().expect("a number");
    assert_eq!(String::from_utf8_lossy(number), lsn.to_string());
}

fn segments(dir: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<_> = fs::read_dir(dir.join("segments")).unwrap().map(|e| e.unwrap().path()).collect();
    paths.sort();
    paths
}

fn flip(path: &Path, at: u64, mask: u8) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at as usize] ^= mask;
    fs::write(path, bytes).unwrap();
}

fn repair(dir: &Path, how: &[&str]) -> Outcome {
    run(&[&["journal", "repair", "--dir", text(dir)], how].concat())
}

fn lost(report: &str) -> Vec<(u64, u64)> {
    let report: Value = serde_json::from_str(report).unwrap();
    let number = |v: &Value, field: &str| v[field].as_u64().unwrap();
    report["lost"].as_array().unwrap().iter().map(|l| (number(l, "from_lsn"), number(l, "to_lsn"))).collect()
}

#[test]
fn a_repaired_journal_restores_and_is_continued() {
    let mut random = StdRng::seed_from_u64(seed());
    let (journal, server) = (Dir::new("journal"), Server::with(&["--repl-diskless-sync-delay", "0"]));
    let dir = journal.path();
    let mut redtape = Redtape::start(&server.url(), dir, &["--segment-mib", "1"]);
    let mut conn = Conn::open(&redtape.url()).unwrap();
    let mut noise = vec![0; VALUE_BYTES];
    for n in 1..=WRITES {
        random.fill_bytes(&mut noise);
        conn.must(&args!["SET", "k", [format!("{n}:").as_bytes(), &noise].concat()]);
    }
    redtape.wait_caught_up();
    assert_eq!(redtape.terminate(), Some(0));
    let files = segments(dir);
    assert!(files.len() >= 7, "{files:?}");

    // In the midst of one segment: found when a restore reads it, before the target is touched.
    let middle = |path: &PathBuf| fs::metadata(path).unwrap().len() / 2;
    flip(&files[2], middle(&files[2]), 0x10);
    let (refused, target) = restore(dir, "latest");
    assert_eq!(refused.code, Some(65), "{}", refused.stderr);
    assert_eq!(target.conn().must(&args!["DBSIZE"]), Reply::Int(0));
    let nearest = refused.stderr.split("--at ").nth(1).expect("the nearest moment").split_whitespace().next().unwrap();
    let (outcome, target) = restore(dir, nearest.trim_end_matches('.'));
    let report: Value = serde_json::from_str(&outcome.expect_success(nearest).stdout).unwrap();
    let reached = report["lsn"].as_u64().unwrap();
    assert_holds(&target, reached);

    // And a footer and a header: a writer refuses it.
    let len = fs::metadata(&files[4]).unwrap().len();
    flip(&files[4], len - 100, 1);
    flip(&files[5], 40, 4);
    let proxy = run(&["proxy", "--upstream", &server.url(), "--listen", "127.0.0.1:0", "--dir", text(dir)]);
    assert_eq!(proxy.code, Some(65), "{}", proxy.stderr);
    assert!(proxy.stderr.contains("journal repair"), "{}", proxy.stderr);

    let before: Vec<_> = files.iter().map(|path| fs::read(path).unwrap()).collect();
    let asked = repair(dir, &[]);
    assert_eq!(asked.code, Some(64), "{}", asked.stderr);
    let plan = repair(dir, &["--plan", "--json"]);
    assert_eq!(plan.code, Some(65), "{}", plan.stderr);
    assert!(files.iter().zip(&before).all(|(path, was)| fs::read(path).unwrap() == *was));
    let done = repair(dir, &["--yes", "--json"]).expect_success("repair").stdout;
    let lost = lost(&done);
    assert_eq!(lost, self::lost(&plan.stdout));
    println!("lost {lost:?} of {WRITES}; nearest was LSN {reached}");
    // A packed block holds a dozen of such values; the footer and the header cost nothing.
    assert!(lost.len() == 1 && lost[0].1 - lost[0].0 < 20 && lost[0].0 == reached + 1, "{lost:?}");
    run(&["journal", "verify", "--deep", "--from", text(dir)]).expect_success("verify");
    let (outcome, target) = restore(dir, &format!("lsn:{reached}"));
    outcome.expect_success("up to the loss");
    assert_holds(&target, reached);
    let (refused, _) = restore(dir, &format!("lsn:{}", lost[0].1 + 1));
    assert_eq!(refused.code, Some(66), "{}", refused.stderr);

    // From what is left, the present cannot be restored: the next start takes a base.
    redtape.start_again();
    redtape.wait_streaming();
    let mut conn = Conn::open(&redtape.url()).unwrap();
    conn.must(&args!["SET", "later", "1"]);
    redtape.wait_caught_up();
    assert_eq!(redtape.terminate(), Some(0));
    run(&["journal", "verify", "--from", text(dir)]).expect_success("verify");
    let (outcome, target) = restore(dir, "latest");
    outcome.expect_success("latest");
    State::record(&mut server.conn()).assert_same(&State::record(&mut target.conn()), "the newest state");
    let (outcome, target) = restore(dir, &format!("lsn:{reached}"));
    outcome.expect_success("an old moment");
    assert_holds(&target, reached);
}
