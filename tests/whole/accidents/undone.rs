//! By one line of `redtape undo`.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::{CATALOG, Client, SESSIONS, Scene, USERS, assert_kept, assert_sessions, assert_users, done};
use crate::harness::conn::{int, text};
use crate::harness::redtape::{Outcome, run};

impl Scene {
    fn undo(&self, more: &[&str]) -> Outcome {
        let (from, url) = (self.from(), self.redtape.url());
        let state = self.state.path().display().to_string();
        let usual = ["undo", "--from", &from, "--to", &url, "--yes", "--json", "--state-dir", &state];
        run(&[&usual, more].concat())
    }
}

fn report(outcome: &Outcome) -> serde_json::Value {
    serde_json::from_str(&outcome.stdout).unwrap_or_else(|error| panic!("{error}: {outcome:?}"))
}

/// The keys that the report lists.
fn listed(report: &serde_json::Value) -> BTreeSet<String> {
    let listed = report["repair"]["listed"].as_array().expect("a list");
    listed.iter().map(|one| one["key"].as_str().expect("a key").trim_matches('"').to_owned()).collect()
}

/// Users whose visits were counted since.
fn visited(clients: &[Client]) -> BTreeSet<String> {
    clients.iter().flat_map(|client| &client.visits).map(|(user, _)| format!("user:{user}")).collect()
}

#[test]
fn flushall() {
    let mut scene = Scene::new();
    scene.accident(vec![args!["FLUSHALL"]]);
    let (outcome, clients) = scene.beside(|| scene.undo(&["--client", "intern"]));
    // Counters began anew: what they would be is not decided for their clients, which were told other numbers.
    done(&outcome, 1);
    assert_kept(&scene, &clients);
    assert_users(&scene);
    assert_sessions(&scene);
    let mut conn = scene.server.conn();
    assert_eq!(int(&conn.must(&args!["HLEN", "catalog"])), CATALOG as i64);
    for n in 0..4 {
        assert_eq!(text(&conn.must(&args!["GET", format!("hot:{n}")])), "1000");
    }
    let listed = listed(&report(&outcome));
    assert!(!listed.is_empty() && listed.is_subset(&visited(&clients)), "{listed:?}");
}

#[test]
fn keys_deleted_by_a_pattern() {
    let mut scene = Scene::new();
    scene.accident((0..SESSIONS).map(|n| args!["DEL", format!("session:{n}")]).collect());
    let (outcome, clients) = scene.beside(|| scene.undo(&["--client", "intern", "--command", "DEL"]));
    done(&outcome, 0);
    assert_eq!(report(&outcome)["repair"]["created"], SESSIONS);
    assert_kept(&scene, &clients);
    assert_sessions(&scene);
}

#[test]
fn wrong_fields_in_many_hashes() {
    let mut scene = Scene::new();
    let wrong = |n| args!["HSET", format!("user:{n}"), "plan", "free", "oops", 1];
    scene.accident((0..USERS).map(wrong).collect());
    let (outcome, clients) = scene.beside(|| scene.undo(&["--client", "intern"]));
    // The visits that were counted since are not the intern's, and are the same without.
    done(&outcome, 0);
    assert_eq!(report(&outcome)["repair"]["elements"], USERS * 2);
    assert_kept(&scene, &clients);
    assert_users(&scene);
}

#[test]
fn a_time_of_expiry_by_mistake() {
    let mut scene = Scene::new();
    let short = |n| args!["PEXPIRE", format!("session:{n}"), if n % 2 == 0 { 1 } else { 1_000_000 }];
    scene.accident((0..SESSIONS).map(short).collect());
    let mut conn = scene.server.conn();
    let began = Instant::now();
    while int(&conn.must(&args!["DBSIZE"])) > (USERS + SESSIONS / 2 + 1 + 4) as i64 {
        assert!(began.elapsed() < Duration::from_secs(30), "half of them expire");
    }
    scene.redtape.wait_caught_up();
    let (outcome, clients) = scene.beside(|| scene.undo(&["--client", "intern"]));
    done(&outcome, 0);
    let report = report(&outcome);
    assert_eq!((&report["repair"]["created"], &report["repair"]["ttl_set"]), (&200.into(), &200.into()), "{report}");
    assert_kept(&scene, &clients);
    assert_sessions(&scene);
}

#[test]
fn hot_keys_renamed() {
    let mut scene = Scene::new();
    scene.accident((0..4).map(|n| args!["RENAME", format!("hot:{n}"), format!("oops:{n}")]).collect());
    let mut busy = scene.client();
    for _ in 0..5 {
        busy.must(&args!["INCR", "hot:0"]);
    }
    busy.must(&args!["SET", "hot:1", "new"]);
    scene.redtape.wait_caught_up();
    let (outcome, clients) = scene.beside(|| scene.undo(&["--client", "intern"]));
    // The counter began anew.
    done(&outcome, 1);
    assert_eq!(listed(&report(&outcome)), BTreeSet::from(["hot:0".to_owned()]));
    assert_kept(&scene, &clients);
    let mut conn = scene.server.conn();
    for (key, value) in [("hot:0", "5"), ("hot:1", "new"), ("hot:2", "1000"), ("hot:3", "1000")] {
        assert_eq!(text(&conn.must(&args!["GET", key])), value, "{key}");
    }
    assert_eq!(int(&conn.must(&args!["EXISTS", "oops:0", "oops:1", "oops:2", "oops:3"])), 0);
    // On demand, it is computed as the server would have.
    let outcome = scene.undo(&["--client", "intern", "--include-dependent"]);
    done(&outcome, 0);
    assert_eq!(text(&conn.must(&args!["GET", "hot:0"])), "1005");
}

#[test]
fn one_wrong_field_in_a_large_hash() {
    let mut scene = Scene::new();
    scene.accident(vec![args!["HSET", "catalog", "item:777", "WRONG"]]);
    let mut busy = scene.client();
    busy.must(&args!["HINCRBY", "catalog", "item:5", 1]);
    scene.redtape.wait_caught_up();
    let (outcome, clients) = scene.beside(|| scene.undo(&["--client", "intern"]));
    done(&outcome, 0);
    assert_eq!(report(&outcome)["repair"]["elements"], 1);
    assert_kept(&scene, &clients);
    let mut conn = scene.server.conn();
    assert_eq!(text(&conn.must(&args!["HGET", "catalog", "item:777"])), "777");
    assert_eq!(text(&conn.must(&args!["HGET", "catalog", "item:5"])), "6");
    assert_eq!(int(&conn.must(&args!["HLEN", "catalog"])), CATALOG as i64);
}
