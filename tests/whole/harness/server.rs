//! A real server on a free port, killed on drop.
//!
//! Which one: `REDTAPE_TEST_SERVER` (a path), else `redis-server`. `make compat` sets it to each server
//! of `scripts/install-servers.sh all` in turn.

use super::clock::Clock;
use super::conn::{Conn, Value, int, items, text};
use super::{Dir, free_port, tail, wait_for};
use rustix::process::{Pid, Signal, kill_process};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::OpenOptions;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

/// Redis or Valkey, and how new.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    pub valkey: bool,
    pub major: u32,
    pub minor: u32,
    pub patch: u32,
}

impl Version {
    /// That of the server that this run tests.
    pub fn tested() -> Self {
        Self::of(&binary())
    }

    /// That of a program.
    pub fn of(binary: &str) -> Self {
        static VERSIONS: Mutex<BTreeMap<String, Version>> = Mutex::new(BTreeMap::new());
        let mut known = VERSIONS.lock().expect("no panic holds it");
        *known.entry(binary.to_owned()).or_insert_with(|| {
            let out = Command::new(binary).arg("--version").output().unwrap_or_else(|e| {
                panic!("{binary}: {e} (scripts/install-servers.sh brings it, or set REDTAPE_TEST_SERVER)")
            });
            let text = String::from_utf8_lossy(&out.stdout).into_owned();
            let digits = text.split("v=").nth(1).and_then(|t| t.split(' ').next());
            let mut parts =
                digits.unwrap_or_else(|| panic!("no version in: {text}")).split('.').map(|p| p.parse().unwrap_or(0));
            let mut next = || parts.next().unwrap_or(0);
            Version { valkey: text.starts_with("Valkey"), major: next(), minor: next(), patch: next() }
        })
    }

    /// At least this Redis; or, as Valkey went its own way after 7.2, at least this Valkey.
    pub fn at_least(self, redis: (u32, u32), valkey: (u32, u32)) -> bool {
        (self.major, self.minor) >= if self.valkey { valkey } else { redis }
    }

    /// A server works while its wall clock stands still.
    pub fn timers_by_monotonic_clock(self) -> bool {
        self.at_least((6, 2), (0, 0))
    }
}

/// The server's program.
pub fn binary() -> String {
    let other = OTHER.with_borrow(Option::clone);
    other.or_else(|| std::env::var("REDTAPE_TEST_SERVER").ok()).unwrap_or_else(|| "redis-server".to_owned())
}

thread_local! {
    /// See [`as_tested`].
    static OTHER: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Does this as if that program were the server under test, in this thread.
pub fn as_tested<T>(binary: &str, act: impl FnOnce() -> T) -> T {
    let before = OTHER.replace(Some(binary.to_owned()));
    let done = act();
    OTHER.set(before);
    done
}

/// A running server. Holds nothing on disk that it would load at a restart.
pub struct Server {
    child: Option<Child>,
    pub port: u16,
    pub dir: Dir,
    extra: Vec<String>,
    clock: Clock,
    binary: String,
}

impl Server {
    pub fn start() -> Self {
        Self::with(&[])
    }

    /// With more arguments, such as `["--repl-backlog-size", "64mb"]`.
    pub fn with(extra: &[&str]) -> Self {
        Self::new(extra, Clock::Real)
    }

    /// A server whose wall clock stands still at `us`: what had a TTL then has it for good.
    ///
    /// Before 6.2 a server's timers run by the wall clock too: one that stands still would never connect
    /// to its primary. There the clock starts at `us` and goes on; points in time are chosen so that nothing
    /// expires in the next minute, and the workload leaves such lives out.
    pub fn at_clock(us: i64) -> Self {
        let stands = Version::tested().timers_by_monotonic_clock();
        Self::new(&[], if stands { Clock::At(us) } else { Clock::From(us) })
    }

    pub fn new(extra: &[&str], clock: Clock) -> Self {
        let extra = extra.iter().map(|&s| s.to_owned()).collect();
        let mut server = Self { child: None, port: 0, dir: Dir::new("server"), extra, clock, binary: binary() };
        // Another test may take the port between the look and the start: then try with the next.
        for _ in 0..5 {
            server.port = free_port();
            if server.spawn() {
                return server;
            }
        }
        panic!("the server does not start:\n{}", tail(&server.log(), 20));
    }

    fn log(&self) -> std::path::PathBuf {
        self.dir.join("server.log")
    }

    /// Starts the process and waits for its first answer; false when it ended instead.
    fn spawn(&mut self) -> bool {
        self.spawn_until_it_answers(false)
    }

    /// `loading`: that it loads is an answer.
    fn spawn_until_it_answers(&mut self, loading: bool) -> bool {
        let log = OpenOptions::new().create(true).append(true).open(self.log()).expect("the server's log");
        let mut command = Command::new(&self.binary);
        command
            .args(["--port", &self.port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .args(["--repl-diskless-sync-delay", "0"])
            .arg("--dir")
            .arg(self.dir.path());
        // DEBUG must be allowed by name since Redis 7.0; before, the option is not known.
        if Version::tested().at_least((7, 0), (0, 0)) {
            command.args(["--enable-debug-command", "yes"]);
        }
        command.args(&self.extra).stdin(Stdio::null()).stdout(log.try_clone().expect("the log twice")).stderr(log);
        self.clock.apply(&mut command);
        let mut child = command.spawn().unwrap_or_else(|e| panic!("{}: {e}", self.binary));
        let url = self.url();
        let answered = wait_for("the server's first answer", Duration::from_secs(20), || {
            if child.try_wait().expect("the server's state").is_some() {
                return Some(false);
            }
            let answer = Conn::open(&url).and_then(|mut c| c.call(&args!["PING"]));
            let ready = match answer {
                Ok(Value::Error(e)) => loading && e.starts_with("LOADING"),
                answer => answer.is_ok_and(|v| v == Value::Text("PONG".to_owned())),
            };
            ready.then_some(true)
        });
        self.child = Some(child);
        answered
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("a running server").id()
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub fn conn(&self) -> Conn {
        Conn::open(&self.url()).unwrap_or_else(|e| panic!("{}: {e}\n{}", self.url(), tail(&self.log(), 20)))
    }

    /// The same as a client library sees it.
    pub fn client(&self) -> redis::Connection {
        redis::Client::open(self.url()).and_then(|c| c.get_connection()).expect("a connection")
    }

    /// SIGKILL: nothing is saved.
    pub fn kill9(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// SIGKILL and start on the same port, empty.
    pub fn restart(&mut self) {
        self.kill9();
        self.start_again();
    }

    /// `SHUTDOWN SAVE`, as a planned restart begins; waits for the process to end.
    pub fn shut_down_saving(&mut self) {
        // The connection ends without an answer.
        let _ = self.conn().call(&args!["SHUTDOWN", "SAVE"]);
        let mut child = self.child.take().expect("a running server");
        wait_for("the server's end after SHUTDOWN", Duration::from_secs(20), || child.try_wait().expect("its state"));
    }

    /// Starts a server that has ended on the same port, with what it finds in its folder.
    pub fn start_again(&mut self) {
        assert!(self.spawn(), "the server does not start again:\n{}", tail(&self.log(), 20));
    }

    /// The same with more arguments, and while it loads what it finds.
    pub fn start_loading(&mut self, extra: &[&str]) {
        self.extra.extend(extra.iter().map(|&s| s.to_owned()));
        assert!(self.spawn_until_it_answers(true), "the server does not start again:\n{}", tail(&self.log(), 20));
    }

    /// SIGSTOP until the guard is dropped.
    pub fn freeze(&self) -> Frozen {
        let pid = Pid::from_raw(self.pid() as i32).expect("a pid");
        kill_process(pid, Signal::STOP).expect("SIGSTOP");
        Frozen(pid)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill9();
        if std::thread::panicking() {
            eprintln!("server {}: log\n{}", self.port, tail(&self.log(), 10));
        }
    }
}

/// A server that was stopped goes on when this is dropped.
pub struct Frozen(Pid);

impl Drop for Frozen {
    fn drop(&mut self) {
        let _ = kill_process(self.0, Signal::CONT);
    }
}

/// The names of all commands of the server, in upper case.
pub fn commands(conn: &mut Conn) -> BTreeSet<String> {
    let all = conn.must(&args!["COMMAND"]);
    items(&all).iter().map(|c| text(&items(c)[0]).to_ascii_uppercase()).collect()
}

/// What `TIME` says, in microseconds.
pub fn time_us(conn: &mut Conn) -> i64 {
    let parts = items(&conn.must(&args!["TIME"]));
    int(&parts[0]) * 1_000_000 + int(&parts[1])
}
