//! Many clients on the same few hundred keys, with every kind of write there is.
//!
//! What each client sends is decided by its seed; how the clients interleave is not. Errors (wrong type,
//! missing group, full memory) are expected and counted. `hold` stops the world between commands.

mod generate;

use super::conn::{Conn, Value, text};
use super::server::{Version, commands};
use super::{Args, Server, State};
use generate::Generator;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, RwLock, RwLockWriteGuard};
use std::thread::JoinHandle;
use std::time::Duration;

/// How many of the clients write directly to the server, past the proxy.
const BYPASSING: usize = 1;

#[derive(Clone, Debug)]
pub struct Options {
    pub seed: u64,
    /// Clients that go through `url`.
    pub clients: usize,
    /// Rest between two batches of a client: sets the load.
    pub rest: Duration,
    /// One more client goes directly to the server.
    pub bypass: bool,
}

impl Options {
    pub fn seeded(seed: u64) -> Self {
        Self { seed, clients: 8, rest: Duration::from_millis(3), bypass: true }
    }
}

/// Running clients.
pub struct Workload {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<Stats>>,
    /// Straight to the server, for CONFIG.
    direct: Conn,
}

struct Shared {
    /// Clients hold it for reading while a batch is on its way; `hold` takes it for writing.
    gate: RwLock<()>,
    over: AtomicBool,
    known: BTreeSet<String>,
}

/// What became of the commands sent.
#[derive(Clone, Debug, Default)]
pub struct Stats {
    /// By name: worked, failed.
    pub commands: BTreeMap<String, (u64, u64)>,
    pub reconnects: u64,
    /// Some error replies, by command, to see why one never works.
    pub errors: BTreeMap<String, String>,
}

impl Stats {
    pub fn total(&self) -> u64 {
        self.commands.values().map(|(ok, failed)| ok + failed).sum()
    }

    pub fn failed(&self) -> u64 {
        self.commands.values().map(|(_, failed)| failed).sum()
    }

    /// Commands that were sent often enough and never worked: holes in what the workload covers.
    pub fn never_worked(&self) -> Vec<String> {
        let never = self.commands.iter().filter(|(_, (ok, failed))| *ok == 0 && *failed >= 30);
        never.map(|(name, _)| format!("{name} ({})", self.errors.get(name).map_or("", String::as_str))).collect()
    }

    fn count(&mut self, command: &Args, reply: &Value) {
        let entry = self.commands.entry(command.name()).or_default();
        if let Value::Error(e) = reply {
            entry.1 += 1;
            if entry.1 < 5 || e.starts_with("ERR") {
                self.errors.insert(command.name(), e.chars().take(120).collect());
            }
        } else {
            entry.0 += 1;
        }
    }

    fn add(&mut self, other: Self) {
        for (name, (ok, failed)) in other.commands {
            let entry = self.commands.entry(name).or_default();
            entry.0 += ok;
            entry.1 += failed;
        }
        self.reconnects += other.reconnects;
        self.errors.extend(other.errors);
    }
}

impl Workload {
    /// Starts the clients: through `url`, and one directly to `server`.
    pub fn start(server: &Server, url: &str, options: &Options) -> Self {
        let mut direct = server.conn();
        let shared =
            Arc::new(Shared { gate: RwLock::new(()), over: AtomicBool::new(false), known: commands(&mut direct) });
        let bypassing = if options.bypass { BYPASSING } else { 0 };
        let threads = (0..options.clients + bypassing)
            .map(|number| {
                let outside = number >= options.clients;
                let name = if outside { format!("outside-{number}") } else { format!("client-{number}") };
                let url = if outside { server.url() } else { url.to_owned() };
                let generator = Generator::new(options.seed.wrapping_add(number as u64), &shared.known);
                let mut client = Client {
                    name: name.clone(),
                    // Every other client speaks RESP3.
                    url: if number % 2 == 1 { format!("{url}/?protocol=resp3") } else { url },
                    conn: None,
                    generator,
                    shared: Arc::clone(&shared),
                    stats: Stats::default(),
                    rest: options.rest,
                };
                std::thread::Builder::new().name(name).spawn(move || client.run()).expect("a thread")
            })
            .collect();
        Self { shared, threads, direct }
    }

    /// Stops all writers between two batches; they go on when the guard is dropped. No eviction
    /// happens meanwhile: reading must not change anything.
    pub fn hold(&mut self) -> Held<'_> {
        let guard = self.shared.gate.write().expect("no panic with the gate");
        let memory = text(&items_of_config(&mut self.direct, "maxmemory"));
        self.direct.must(&args!["CONFIG", "SET", "maxmemory", 0]);
        Held { _guard: guard, direct: &mut self.direct, memory }
    }

    /// Lets the workload run.
    pub fn run_for(&self, time: Duration) {
        std::thread::sleep(time);
    }

    /// Makes the server evict: sets `maxmemory` below what it uses until keys have gone.
    pub fn start_evicting(&mut self) {
        let conn = &mut self.direct;
        let number =
            |c: &mut Conn, section: &str, field: &str| c.info(section, field).trim().parse::<i64>().expect("a number");
        let before = number(conn, "stats", "evicted_keys");
        conn.must(&args!["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]);
        for _ in 0..20 {
            let (used, data) = (number(conn, "memory", "used_memory"), number(conn, "memory", "used_memory_dataset"));
            conn.must(&args!["CONFIG", "SET", "maxmemory", used - data / 10]);
            std::thread::sleep(Duration::from_millis(100));
            if number(conn, "stats", "evicted_keys") > before {
                return;
            }
        }
        panic!("the server evicts nothing");
    }

    pub fn stop_evicting(&mut self) {
        self.direct.must(&args!["CONFIG", "SET", "maxmemory", 0]);
    }

    pub fn stop(self) -> Stats {
        self.shared.over.store(true, Ordering::SeqCst);
        let mut all = Stats::default();
        for thread in self.threads {
            all.add(thread.join().expect("no panic in a client"));
        }
        all
    }
}

/// The world stands still while this lives.
pub struct Held<'a> {
    _guard: RwLockWriteGuard<'a, ()>,
    direct: &'a mut Conn,
    memory: String,
}

impl Held<'_> {
    /// A connection straight to the server.
    pub fn conn(&mut self) -> &mut Conn {
        self.direct
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let _ = self.direct.call(&args!["CONFIG", "SET", "maxmemory", self.memory]);
    }
}

fn items_of_config(conn: &mut Conn, name: &str) -> Value {
    super::conn::items(&conn.must(&args!["CONFIG", "GET", name])).into_iter().nth(1).expect("a known option")
}

struct Client {
    name: String,
    url: String,
    conn: Option<Conn>,
    generator: Generator,
    shared: Arc<Shared>,
    stats: Stats,
    rest: Duration,
}

impl Client {
    fn run(&mut self) -> Stats {
        let shared = Arc::clone(&self.shared);
        while !shared.over.load(Ordering::SeqCst) {
            {
                // Poisoned: the test has failed while it held the world.
                let Ok(_running) = shared.gate.read() else { break };
                if self.step().is_err() {
                    self.conn = None;
                    self.stats.reconnects += 1;
                }
            }
            std::thread::sleep(if self.conn.is_none() { Duration::from_millis(20) } else { self.rest });
        }
        std::mem::take(&mut self.stats)
    }

    fn step(&mut self) -> std::io::Result<()> {
        let mut conn = match self.conn.take() {
            Some(conn) => conn,
            None => {
                let mut conn = Conn::open(&self.url)?;
                conn.call(&args!["CLIENT", "SETNAME", self.name])?;
                for command in self.generator.on_connect() {
                    conn.call(&command)?;
                }
                conn
            }
        };
        match self.generator.chance(0.03) {
            true if self.generator.chance(0.5) => self.watched_transaction(&mut conn)?,
            true => self.dump_and_restore(&mut conn)?,
            false => {
                let batch = self.generator.batch();
                let replies = conn.pipeline(&batch)?;
                for (command, reply) in batch.iter().zip(&replies) {
                    self.stats.count(command, reply);
                    // A queued command's own outcome is in EXEC's reply.
                }
            }
        }
        self.conn = Some(conn);
        Ok(())
    }

    /// Read, decide, write: with WATCH, so that it may fail.
    fn watched_transaction(&mut self, conn: &mut Conn) -> std::io::Result<()> {
        let (key, other) = (self.generator.key("s"), self.generator.key("s"));
        let watch = args!["WATCH", key, other];
        let reply = conn.call(&watch)?;
        self.stats.count(&watch, &reply);
        let value = match conn.call(&args!["GET", key])? {
            Value::Bytes(mut value) => {
                value.truncate(100);
                value.push(b'+');
                value
            }
            _ => b"first".to_vec(),
        };
        let mut batch = vec![args!["MULTI"], args!["SET", key, value], args!["INCR", other]];
        batch.push(if self.generator.chance(0.9) { args!["EXEC"] } else { args!["DISCARD"] });
        for (command, reply) in batch.iter().zip(conn.pipeline(&batch)?) {
            self.stats.count(command, &reply);
        }
        Ok(())
    }

    /// A value by DUMP to another key, with the TTL given in any of RESTORE's ways.
    fn dump_and_restore(&mut self, conn: &mut Conn) -> std::io::Result<()> {
        let from = self.generator.any_key();
        let dump = args!["DUMP", from];
        let reply = conn.call(&dump)?;
        self.stats.count(&dump, &reply);
        if let Value::Bytes(payload) = reply {
            let restore = self.generator.restore(&payload);
            let reply = conn.call(&restore)?;
            self.stats.count(&restore, &reply);
        }
        Ok(())
    }
}

/// Fills an empty server a little, so that a base is not empty: some thousand commands of the workload,
/// by one client, straight to the server.
pub fn preload(server: &Server, seed: u64, batches: usize) {
    let mut conn = server.conn();
    let known = commands(&mut conn);
    let mut generator = Generator::new(seed, &known);
    for command in generator.on_connect() {
        conn.must(&command);
    }
    for _ in 0..batches {
        conn.pipeline(&generator.batch()).expect("a server that stays");
    }
}

/// Deletes what expires within ten minutes, for a test in which servers' clocks go on.
pub fn take_away_what_ends_soon(server: &Server) {
    let mut conn = server.conn();
    let State { dbs, at_us, .. } = State::record(&mut conn);
    let soon = at_us / 1000 + 600_000;
    for (db, keys) in dbs {
        conn.must(&args!["SELECT", db]);
        for (name, key) in keys {
            if key.expires_ms.into_iter().chain(key.fields.into_values()).any(|at| at < soon) {
                conn.must(&args!["DEL", name]);
            }
        }
    }
}
