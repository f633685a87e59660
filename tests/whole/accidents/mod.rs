//! The six accidents of the README, each repaired on the live server through redtape, beside eight clients that go on writing: by
//! `redtape restore` (`restored`), and by one line of `redtape undo` (`undone`).
//!
//! Each client owns some fields and keys and knows what it has written: that is what must be there in the end. What the accident broke
//! must be back.

mod restored;
mod undone;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::harness::conn::{Value, int, items, text};
use crate::harness::redtape::{Outcome, run};
use crate::harness::{Conn, Dir, Redtape, Server};

const CLIENTS: usize = 8;
const USERS: usize = 800;
const SESSIONS: usize = 400;
const CATALOG: usize = 3000;

struct Scene {
    server: Server,
    redtape: Redtape,
    journal: Dir,
    state: Dir,
}

/// What a client has written since the accident, and what it has met.
#[derive(Default)]
struct Client {
    visits: Vec<(usize, i64)>,
    own: i64,
    errors: Vec<String>,
    longest: Duration,
    calls: u64,
}

impl Scene {
    fn new() -> Self {
        let server = Server::start();
        let (journal, state) = (Dir::new("journal"), Dir::new("state"));
        let mut redtape = Redtape::start(&server.url(), journal.path(), &[]);
        let mut conn = Conn::open(&redtape.url()).expect("redtape");
        for n in 0..USERS {
            conn.must(&args!["HSET", format!("user:{n}"), "name", format!("name{n}"), "plan", "pro", "visits", 7]);
        }
        for n in 0..SESSIONS {
            conn.must(&args!["SET", format!("session:{n}"), format!("token{n}")]);
        }
        for n in 0..CATALOG {
            conn.must(&args!["HSET", "catalog", format!("item:{n}"), n]);
        }
        for n in 0..4 {
            conn.must(&args!["SET", format!("hot:{n}"), 1000]);
        }
        redtape.wait_caught_up();
        Self { server, redtape, journal, state }
    }

    fn client(&self) -> Conn {
        Conn::open(&self.redtape.url()).expect("redtape")
    }

    /// What the intern does. Returns the LSN of the first write.
    fn accident(&mut self, commands: Vec<crate::harness::conn::Args>) -> u64 {
        let mut intern = self.client();
        intern.must(&args!["CLIENT", "SETNAME", "intern"]);
        for command in &commands {
            intern.must(command);
        }
        self.redtape.wait_caught_up();
        let found = run(&["log", "--from", &self.from(), "--client", "intern", "--limit", "100000", "--json"]);
        let first = found.expect_success("the culprit").stdout;
        let lsn = |line: &str| serde_json::from_str::<serde_json::Value>(line).expect("JSON")["lsn"].as_u64();
        first.lines().filter_map(lsn).min().expect("a write")
    }

    fn from(&self) -> String {
        self.journal.path().display().to_string()
    }

    fn restore(&self, before: u64, more: &[&str]) -> Outcome {
        let (from, before, url) = (self.from(), format!("lsn:{before}"), self.redtape.url());
        let state = self.state.path().display().to_string();
        let usual = ["restore", "--from", &from, "--before", &before, "--to", &url, "--yes", "--state-dir", &state];
        run(&[&usual, more].concat())
    }

    /// Does something while clients write; what they have written since they began.
    fn beside<T>(&self, work: impl FnOnce() -> T) -> (T, Vec<Client>) {
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let stop = &stop;
            let clients: Vec<_> = (0..CLIENTS)
                .map(|n| (n, self.client()))
                .map(|(n, conn)| scope.spawn(move || write(n, conn, stop)))
                .collect();
            std::thread::sleep(Duration::from_millis(300));
            let result = work();
            std::thread::sleep(Duration::from_millis(100));
            stop.store(true, Ordering::Relaxed);
            (result, clients.into_iter().map(|client| client.join().expect("a client")).collect())
        })
    }
}

/// Counts visits of its own users, and writes a key of its own.
fn write(n: usize, mut conn: Conn, stop: &AtomicBool) -> Client {
    let mut client = Client::default();
    let mut user = n;
    while !stop.load(Ordering::Relaxed) {
        let began = Instant::now();
        let visits = conn.call(&args!["HINCRBY", format!("user:{user}"), "visits", 1]);
        client.longest = client.longest.max(began.elapsed());
        let own = conn.call(&args!["INCR", format!("own:{n}")]);
        client.calls += 2;
        match (visits, own) {
            (Ok(Value::Int(visits)), Ok(Value::Int(own))) => {
                client.visits.push((user, visits));
                client.own = own;
            }
            other => client.errors.push(format!("{other:?}")),
        }
        user = (user + CLIENTS) % USERS;
        std::thread::sleep(Duration::from_micros(200));
    }
    client
}

/// No client saw an error, and what each wrote last is there.
fn assert_kept(scene: &Scene, clients: &[Client]) {
    let mut conn = scene.server.conn();
    for (n, client) in clients.iter().enumerate() {
        assert_eq!(client.errors, Vec::<String>::new(), "client {n}");
        assert_eq!(text(&conn.must(&args!["GET", format!("own:{n}")])), client.own.to_string(), "client {n}");
        let last: std::collections::HashMap<_, _> = client.visits.iter().copied().collect();
        for (user, visits) in last {
            let there = text(&conn.must(&args!["HGET", format!("user:{user}"), "visits"]));
            assert_eq!(there, visits.to_string(), "user:{user} of client {n}");
        }
    }
    let longest = clients.iter().map(|client| client.longest).max().expect("clients");
    println!("{} calls, the longest took {longest:?}", clients.iter().map(|client| client.calls).sum::<u64>());
}

fn assert_users(scene: &Scene) {
    let mut conn = scene.server.conn();
    for n in 0..USERS {
        let found = items(&conn.must(&args!["HMGET", format!("user:{n}"), "name", "plan"]));
        assert_eq!(found.iter().map(text).collect::<Vec<_>>(), [format!("name{n}"), "pro".to_owned()], "user:{n}");
        assert_eq!(int(&conn.must(&args!["HLEN", format!("user:{n}")])), 3, "user:{n}");
    }
}

fn assert_sessions(scene: &Scene) {
    let mut conn = scene.server.conn();
    for n in 0..SESSIONS {
        assert_eq!(text(&conn.must(&args!["GET", format!("session:{n}")])), format!("token{n}"));
        assert_eq!(int(&conn.must(&args!["TTL", format!("session:{n}")])), -1, "session:{n}");
    }
}

#[track_caller]
fn done(outcome: &Outcome, code: i32) {
    assert_eq!(outcome.code, Some(code), "{outcome:?}");
}
