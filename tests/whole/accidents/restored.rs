//! By `redtape restore`.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::{CATALOG, SESSIONS, Scene, USERS, assert_kept, assert_sessions, assert_users, done};
use crate::harness::Conn;
use crate::harness::conn::{int, text};

#[test]
fn flushall() {
    let mut scene = Scene::new();
    let lsn = scene.accident(vec![args!["FLUSHALL"]]);
    let (outcome, clients) = scene.beside(|| scene.restore(lsn, &["--on-conflict", "merge"]));
    // Visits were counted anew meanwhile: they stay, and are listed.
    done(&outcome, 1);
    assert!(outcome.stdout.contains("element \"visits\""), "{}", outcome.stdout);
    assert_kept(&scene, &clients);
    assert_users(&scene);
    assert_sessions(&scene);
    assert_eq!(int(&scene.server.conn().must(&args!["HLEN", "catalog"])), CATALOG as i64);
}

#[test]
fn keys_deleted_by_a_pattern() {
    let mut scene = Scene::new();
    let lsn = scene.accident((0..SESSIONS).map(|n| args!["DEL", format!("session:{n}")]).collect());
    let (outcome, clients) = scene.beside(|| scene.restore(lsn, &["--key", "session:*", "--on-conflict", "skip"]));
    done(&outcome, 0);
    assert!(outcome.stdout.contains(&format!("keys: {SESSIONS} created")), "{}", outcome.stdout);
    assert_kept(&scene, &clients);
    assert_sessions(&scene);
}

#[test]
fn wrong_fields_in_many_hashes() {
    let mut scene = Scene::new();
    let wrong = |n| args!["HSET", format!("user:{n}"), "plan", "free", "oops", 1];
    let lsn = scene.accident((0..USERS).map(wrong).collect());
    let repair = ["--key", "user:*", "--broken-by", "client=intern"];
    let (outcome, clients) = scene.beside(|| scene.restore(lsn, &repair));
    // The visits that were counted since are not the intern's.
    assert!(matches!(outcome.code, Some(0 | 1)), "{outcome:?}");
    assert!(outcome.stdout.contains(&format!("{} elements set", USERS * 2)), "{}", outcome.stdout);
    assert_kept(&scene, &clients);
    assert_users(&scene);
}

#[test]
fn a_time_of_expiry_by_mistake() {
    let mut scene = Scene::new();
    let short = |n| args!["PEXPIRE", format!("session:{n}"), if n % 2 == 0 { 1 } else { 1_000_000 }];
    let lsn = scene.accident((0..SESSIONS).map(short).collect());
    let mut conn = scene.server.conn();
    let began = Instant::now();
    while int(&conn.must(&args!["DBSIZE"])) > (USERS + SESSIONS / 2 + 1 + 4) as i64 {
        assert!(began.elapsed() < Duration::from_secs(30), "half of them expire");
    }
    scene.redtape.wait_caught_up();
    let repair = ["--key", "session:*", "--broken-by", "client=intern"];
    let (outcome, clients) = scene.beside(|| scene.restore(lsn, &repair));
    done(&outcome, 0);
    assert_kept(&scene, &clients);
    assert_sessions(&scene);
}

#[test]
fn a_time_of_expiry_on_values_written_since() {
    let mut scene = Scene::new();
    let mut app = scene.client();
    for begun in [args!["SET", "late:s", "v"], args!["RPUSH", "late:l", "a"], args!["XADD", "late:x", "1-1", "f", "v"]]
    {
        app.must(&begun);
    }
    let keys = ["late:s", "late:l", "late:x"];
    let lsn = scene.accident(keys.iter().map(|key| args!["EXPIRE", key, 1000]).collect());
    for since in
        [args!["APPEND", "late:s", "w"], args!["RPUSH", "late:l", "b"], args!["XADD", "late:x", "2-1", "f", "v"]]
    {
        app.must(&since);
    }
    scene.redtape.wait_caught_up();
    let outcome = scene.restore(lsn, &["--key", "late:*", "--broken-by", "client=intern"]);
    // The values are not the intern's, and stay; the times of expiry are.
    done(&outcome, 1);
    let mut conn = scene.server.conn();
    assert_eq!(keys.map(|key| int(&conn.must(&args!["PTTL", key]))), [-1; 3], "{}", outcome.stdout);
    assert_eq!(text(&conn.must(&args!["GET", "late:s"])), "vw");
    assert_eq!(
        ["LLEN", "XLEN"].map(|len| int(&conn.must(&args![len, if len == "LLEN" { "late:l" } else { "late:x" }]))),
        [2; 2]
    );
}

#[test]
fn hot_keys_renamed() {
    let mut scene = Scene::new();
    let rename = |n| args!["RENAME", format!("hot:{n}"), format!("oops:{n}")];
    let lsn = scene.accident((0..4).map(rename).collect());
    let hot = |n| {
        move |stop: &AtomicBool, mut conn: Conn| {
            while !stop.load(Ordering::Relaxed) {
                conn.must(&args!["INCR", format!("hot:{n}")]);
            }
        }
    };
    let (stop, conns) = (AtomicBool::new(false), [scene.client(), scene.client()]);
    let (outcomes, clients) = std::thread::scope(|scope| {
        let stop = &stop;
        for (n, conn) in conns.into_iter().enumerate() {
            scope.spawn(move || hot(n)(stop, conn));
        }
        let repaired = scene.beside(|| {
            let back = scene.restore(lsn, &["--key", "hot:*", "--on-conflict", "rename", "--as", "{key}:before"]);
            let gone = scene.restore(lsn, &["--key", "oops:*", "--delete-absent"]);
            (back, gone)
        });
        stop.store(true, Ordering::Relaxed);
        repaired
    });
    let (back, gone) = outcomes;
    done(&back, 0);
    assert!(back.stdout.contains("keys: 2 created, 2 stored under another name"), "{}", back.stdout);
    done(&gone, 0);
    assert!(gone.stdout.contains("keys: 4 deleted"), "{}", gone.stdout);
    assert_kept(&scene, &clients);
    let mut conn = scene.server.conn();
    for (key, value) in [("hot:0:before", "1000"), ("hot:1:before", "1000"), ("hot:2", "1000"), ("hot:3", "1000")] {
        assert_eq!(text(&conn.must(&args!["GET", key])), value, "{key}");
    }
    assert_eq!(int(&conn.must(&args!["EXISTS", "oops:0", "oops:3"])), 0);
}

#[test]
fn one_wrong_field_in_a_large_hash() {
    let mut scene = Scene::new();
    let lsn = scene.accident(vec![args!["HSET", "catalog", "item:777", "WRONG"]]);
    let stop = AtomicBool::new(false);
    let mut busy = scene.client();
    let (outcome, clients, written) = std::thread::scope(|scope| {
        let stop = &stop;
        let written = scope.spawn(move || {
            let mut written = 0;
            while !stop.load(Ordering::Relaxed) {
                written = int(&busy.must(&args!["HINCRBY", "catalog", "item:5", 1]));
            }
            written
        });
        let repair = ["--exact-key", "catalog", "--broken-by", "client=intern"];
        let (outcome, clients) = scene.beside(|| scene.restore(lsn, &repair));
        stop.store(true, Ordering::Relaxed);
        (outcome, clients, written.join().expect("a client"))
    });
    // The other field that differs is not the intern's, and is listed.
    done(&outcome, 1);
    assert!(outcome.stdout.contains("1 element set"), "{}", outcome.stdout);
    assert_kept(&scene, &clients);
    let mut conn = scene.server.conn();
    assert_eq!(text(&conn.must(&args!["HGET", "catalog", "item:777"])), "777");
    assert_eq!(text(&conn.must(&args!["HGET", "catalog", "item:5"])), written.to_string());
    assert_eq!(int(&conn.must(&args!["HLEN", "catalog"])), CATALOG as i64);
}
