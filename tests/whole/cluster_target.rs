//! Restores into a cluster: six nodes on this machine, all types, live clients, slots that move meanwhile.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value as Json;

use crate::harness::cluster::{Cluster, ClusterClient};
use crate::harness::conn::{bytes, int, text};
use crate::harness::killed::{kill, spawn, undo_files};
use crate::harness::redtape::{Outcome, run};
use crate::harness::server::Version;
use crate::harness::workload::{preload, take_away_what_ends_soon};
use crate::harness::{Dir, Redtape, Server, State};

const KEYS: usize = 1500;

/// What a server held, in a journal.
struct Recorded {
    journal: Dir,
    state: State,
}

impl Recorded {
    fn of(server: &Server) -> Self {
        let journal = Dir::new("journal");
        let mut redtape = Redtape::start(&server.url(), journal.path(), &[]);
        redtape.wait_caught_up();
        let mut state = State::record(&mut server.conn());
        assert_eq!(redtape.terminate(), Some(0));
        state.digest.clear();
        Self { journal, state }
    }

    /// Strings, hashes and large values.
    fn plain() -> Self {
        let server = Server::start();
        let mut conn = server.conn();
        for n in 0..KEYS {
            let commands = [
                args!["SET", format!("s:{n}"), format!("value{n}")],
                args!["HSET", format!("h:{n}"), "a", n, "b", n * 2],
                args!["RPUSH", format!("{{tag{}}}:l:{n}", n % 7), "a", "b"],
            ];
            conn.pipeline(&commands).expect("replies");
        }
        conn.must(&args!["SET", "large", "x".repeat(3 << 20)]);
        Self::of(&server)
    }

    fn arguments(&self, to: &str, more: &[&str]) -> Vec<String> {
        let from = self.journal.path().to_str().expect("a plain name");
        let args = [&["restore", "--from", from, "--at", "latest", "--to", to, "--yes", "--json"][..], more].concat();
        args.into_iter().map(str::to_owned).collect()
    }

    fn restore(&self, cluster: &Cluster, state: &Dir, more: &[&str]) -> Outcome {
        let state = state.path().to_str().expect("a plain name");
        run(&self.arguments(&cluster.url(), &[more, &["--state-dir", state]].concat()))
    }
}

fn report(outcome: &Outcome) -> Json {
    serde_json::from_str(&outcome.stdout).unwrap_or_else(|e| panic!("{e}: {outcome:?}"))
}

fn undo(cluster: &Cluster, state: &Dir) -> Outcome {
    let files = undo_files(state.path());
    let newest = files.iter().max_by_key(|file| file.metadata().and_then(|m| m.modified()).expect("a file"));
    let file = newest.expect("an undo file").to_str().expect("a plain name");
    let state = state.path().to_str().expect("a plain name");
    run(&["undo", "--file", file, "--to", &cluster.url(), "--yes", "--json", "--state-dir", state])
}

fn has_clusters() -> bool {
    Version::tested().at_least((7, 0), (0, 0))
}

#[test]
fn every_type_goes_to_the_node_of_its_slot_and_its_replica() {
    if !has_clusters() {
        return;
    }
    let server = Server::start();
    preload(&server, 7, 400);
    take_away_what_ends_soon(&server);
    let recorded = Recorded::of(&server);
    let (cluster, state) = (Cluster::start(3, true), Dir::new("state"));
    if recorded.state.dbs.len() > 1 {
        let refused = recorded.restore(&cluster, &state, &[]);
        assert_eq!(refused.code, Some(69), "{refused:?}");
        assert!(refused.stderr.contains("--db 0"), "{refused:?}");
    }
    let plan = recorded.restore(&cluster, &state, &["--db", "0", "--plan"]);
    assert!(report(&plan.expect_success("the plan"))["target"].as_str().is_some_and(|to| to.contains("cluster")));
    assert_eq!(cluster.state().keys(), 0);
    let done = recorded.restore(&cluster, &state, &["--db", "0"]).expect_success("a restore");
    let mut want = recorded.state.clone();
    want.dbs.retain(|db, _| *db == 0);
    want.sizes.retain(|db, _| *db == 0);
    want.functions.clear();
    let keys = want.keys();
    want.assert_same(&cluster.state(), "the cluster");
    assert_eq!(report(&done)["keys"]["0"], keys, "{done:?}");
    for n in 0..3 {
        let size = |node: usize| int(&cluster.nodes[node].conn().must(&args!["DBSIZE"]));
        crate::harness::wait_for("the replica", Duration::from_secs(10), || (size(n) == size(n + 3)).then_some(()));
        assert!(size(n) > 0);
    }
    // Once more: nothing is different, and nobody is asked to empty the cluster.
    let again = recorded.restore(&cluster, &state, &["--db", "0"]).expect_success("once more");
    let repair = &report(&again)["repair"];
    let alike = ["equal", "expired"].map(|what| repair[what].as_u64().expect("a number")).iter().sum::<u64>();
    assert_eq!(alike, keys as u64, "{repair}");
    assert_eq!(undo(&cluster, &state).code, Some(0));
}

#[test]
fn functions_go_to_each_node_and_other_keys_are_in_the_way_of_everything() {
    if !has_clusters() {
        return;
    }
    let server = Server::start();
    server.conn().must(&args!["SET", "a", 1]);
    let code = "#!lua name=lib\nredis.register_function('f', function() return 7 end)";
    server.conn().must(&args!["FUNCTION", "LOAD", code]);
    let recorded = Recorded::of(&server);
    let (cluster, state) = (Cluster::start(3, false), Dir::new("state"));
    cluster.client().must(&args!["SET", "other", 1]);
    let refused = recorded.restore(&cluster, &state, &[]);
    assert!(refused.code == Some(73) && refused.stderr.contains("is not empty"), "{refused:?}");
    let refused = recorded.restore(&cluster, &state, &["--on-conflict", "rename"]);
    assert!(refused.code == Some(69) && refused.stderr.contains("in another slot"), "{refused:?}");
    cluster.client().must(&args!["DEL", "other"]);
    recorded.restore(&cluster, &state, &[]).expect_success("a restore");
    recorded.state.assert_same(&cluster.state(), "the cluster");
}

/// Clients that count on keys of their own, until `over`.
fn count_until(over: &AtomicBool, client: &mut ClusterClient, name: usize) -> i64 {
    let mut sent = 0;
    while !over.load(Ordering::Relaxed) {
        client.must(&args!["INCR", format!("live:{name}:{}", sent % 50)]);
        sent += 1;
    }
    sent
}

#[test]
fn beside_clients_and_while_slots_move() {
    if !has_clusters() {
        return;
    }
    let recorded = Recorded::plain();
    let (cluster, state, selected) = (Cluster::start(3, true), Dir::new("state"), Dir::new("selected"));
    let mut client = cluster.client();
    // Some exist with other values.
    for n in (0..KEYS).step_by(3) {
        client.must(&args!["SET", format!("s:{n}"), "BROKEN"]);
        client.must(&args!["SADD", format!("h:{n}"), "BROKEN"]);
    }
    client.must(&args!["SET", "large", "BROKEN"]);
    let before = cluster.state();
    let over = AtomicBool::new(false);
    // Slots with many keys, there and back.
    let slots: Vec<u16> = (0..7).map(|n| cluster.slot(&format!("tag{n}"))).collect();
    let (mut moves, mut counted) = (0, Vec::new());
    let (done, undone) = std::thread::scope(|scope| {
        let over = &over;
        let clients: Vec<_> = (0..3)
            .map(|name| {
                let mut client = cluster.client();
                scope.spawn(move || count_until(over, &mut client, name))
            })
            .collect();
        let (cluster, slots) = (&cluster, &slots);
        let mover = scope.spawn(move || {
            let (mut moves, mut away) = (0, vec![false; slots.len()]);
            while !over.load(Ordering::Relaxed) {
                for (n, slot) in slots.iter().enumerate() {
                    let home = usize::from(*slot) * 3 / 16_384;
                    let (from, to) = if away[n] { ((home + 1) % 3, home) } else { (home, (home + 1) % 3) };
                    cluster.move_slot(*slot, from, to);
                    away[n] = !away[n];
                    moves += 1;
                    std::thread::sleep(Duration::from_millis(120));
                }
            }
            moves
        });
        let _end = End(over);
        let done = recorded.restore(cluster, &state, &["--on-conflict", "replace"]).expect_success("a restore");
        assert_eq!(wrong(cluster, &recorded.state), 0, "{done:?}");
        let undone = undo(cluster, &state);
        // Some keys, and back.
        let some = recorded.restore(cluster, &selected, &["--key", "s:*", "--on-conflict", "replace"]);
        let some = some.expect_success("a restore of some keys");
        assert_eq!(wrong(cluster, &only(&recorded.state, b"s:")), 0, "{some:?}");
        assert_ne!(wrong(cluster, &recorded.state), 0, "{some:?}");
        assert_eq!(undo(cluster, &selected).code, Some(0));
        over.store(true, Ordering::Relaxed);
        moves = mover.join().expect("the mover");
        counted = clients.into_iter().map(|client| client.join().expect("a client")).collect();
        (done, undone)
    });
    assert!(moves > 10, "{moves}");
    let outcome = &report(&done)["repair"];
    assert_eq!(outcome["left"], 0, "{outcome}");
    // What clients counted is all there.
    for (name, sent) in counted.into_iter().enumerate() {
        let value = |n| text(&client.must(&args!["GET", format!("live:{name}:{n}")])).parse::<i64>().expect("a number");
        assert_eq!((0..50.min(sent)).map(value).sum::<i64>(), sent);
    }
    assert_eq!(undone.code, Some(0), "{undone:?}");
    let mut after = cluster.state();
    after.dbs.values_mut().for_each(|keys| keys.retain(|key, _| !key.starts_with(b"live:")));
    after.sizes.clone_from(&before.sizes);
    before.assert_same(&after, "the cluster after the undo");
}

/// Ends the clients also where a check fails.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The keys that begin so.
fn only(state: &State, prefix: &[u8]) -> State {
    let mut some = state.clone();
    some.dbs.values_mut().for_each(|keys| keys.retain(|key, _| key.starts_with(prefix)));
    some
}

/// How many recorded keys are not in the cluster as they were.
fn wrong(cluster: &Cluster, want: &State) -> usize {
    let mut client = cluster.client();
    let mut wrong = 0;
    for (key, recorded) in &want.dbs[&0] {
        if recorded.kind == "string" {
            let value = client.must(&args!["GET", key]);
            wrong += usize::from(Some(&bytes(&value)) != recorded.elements.values().next());
        } else {
            let kind = text(&client.must(&args!["TYPE", key]));
            wrong += usize::from(kind != recorded.kind);
        }
    }
    wrong
}

#[test]
fn killed_and_run_again_it_is_the_same() {
    if !has_clusters() {
        return;
    }
    let recorded = Recorded::plain();
    let (cluster, state, tmp) = (Cluster::start(3, false), Dir::new("state"), Dir::new("tmp"));
    let arguments = |state: &Path| {
        let state = state.to_str().expect("a plain name");
        recorded.arguments(&cluster.url(), &["--state-dir", state])
    };
    let mut at_work = 0;
    for after in [0, 30, 80] {
        at_work +=
            usize::from(kill(spawn(&arguments(state.path()), tmp.path()), state.path(), Duration::from_millis(after)));
    }
    assert!(at_work > 0, "none was at work");
    recorded.restore(&cluster, &state, &[]).expect_success("the rest");
    recorded.state.assert_same(&cluster.state(), "the cluster");
    assert_eq!(undo(&cluster, &state).code, Some(0));
    assert_eq!(cluster.state().keys(), 0);
}
