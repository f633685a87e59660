//! The real binary: as a running proxy, and as single commands.

use super::{Conn, Dir, Disk, free_port, now_us, tail, wait_for};
use rustix::process::{Pid, Signal, kill_process};
use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

pub const BINARY: &str = env!("CARGO_BIN_EXE_redtape");

/// `redtape proxy` in front of an upstream.
pub struct Redtape {
    child: Option<Child>,
    pub port: u16,
    pub metrics_port: u16,
    upstream: String,
    journal: PathBuf,
    extra: Vec<String>,
    environment: Vec<(String, String)>,
    /// Where it logs instead of into a file.
    stderr: Option<Stdio>,
    logs: Dir,
}

impl Redtape {
    /// Starts it and waits until the base is taken and the stream is followed.
    pub fn start(upstream: &str, journal: &Path, extra: &[&str]) -> Self {
        let mut redtape = Self::start_only(upstream, journal, extra);
        redtape.wait_streaming();
        redtape
    }

    /// Starts it and waits only until clients are accepted: the first full sync may still run.
    pub fn start_only(upstream: &str, journal: &Path, extra: &[&str]) -> Self {
        Self::spawned(upstream, journal, extra, Vec::new())
    }

    /// Like `start`, with the journal on this disk.
    pub fn start_on(disk: &Disk, upstream: &str, journal: &Path, extra: &[&str]) -> Self {
        let mut redtape = Self::spawned(upstream, journal, extra, disk.environment());
        redtape.wait_streaming();
        redtape
    }

    /// Like `start`, in this environment: of a recorder, a disk, a clock.
    pub fn start_in(environment: Vec<(String, String)>, upstream: &str, journal: &Path, extra: &[&str]) -> Self {
        let mut redtape = Self::spawned(upstream, journal, extra, environment);
        redtape.wait_streaming();
        redtape
    }

    /// Like `start_only`, in this environment.
    pub fn start_only_in(environment: Vec<(String, String)>, upstream: &str, journal: &Path, extra: &[&str]) -> Self {
        Self::spawned(upstream, journal, extra, environment)
    }

    /// Like `start`, logging to this stderr.
    pub fn start_logging_to(stderr: impl Into<Stdio>, upstream: &str, journal: &Path, extra: &[&str]) -> Self {
        let mut redtape = Self::prepared(upstream, journal, extra, Vec::new());
        redtape.stderr = Some(stderr.into());
        redtape.spawn();
        redtape.wait_streaming();
        redtape
    }

    /// Starts it; gives its exit code and what it said if it ends before it answers.
    pub fn start_or_end(
        environment: Vec<(String, String)>,
        upstream: &str,
        journal: &Path,
        extra: &[&str],
    ) -> Result<Self, (Option<i32>, String)> {
        let mut redtape = Self::prepared(upstream, journal, extra, environment);
        // It listens before the journal is open, and answers behind that.
        let ended = redtape.try_spawn().or_else(|| {
            let url = redtape.url();
            wait_for("redtape's first answer", Duration::from_secs(20), || {
                if let Some(status) = redtape.child.as_mut().and_then(|c| c.try_wait().expect("redtape's state")) {
                    return Some(Some(status.code()));
                }
                Conn::open(&url).and_then(|mut conn| conn.call(&args!["ECHO", 1])).ok().map(|_| None)
            })
        });
        match ended {
            None => Ok(redtape),
            Some(code) => {
                redtape.child = None;
                Err((code, redtape.said()))
            }
        }
    }

    fn spawned(upstream: &str, journal: &Path, extra: &[&str], environment: Vec<(String, String)>) -> Self {
        let mut redtape = Self::prepared(upstream, journal, extra, environment);
        redtape.spawn();
        redtape
    }

    fn prepared(upstream: &str, journal: &Path, extra: &[&str], environment: Vec<(String, String)>) -> Self {
        Self {
            child: None,
            port: free_port(),
            metrics_port: free_port(),
            upstream: upstream.to_owned(),
            journal: journal.to_owned(),
            extra: extra.iter().map(|&s| s.to_owned()).collect(),
            environment,
            stderr: None,
            logs: Dir::new("redtape"),
        }
    }

    fn spawn(&mut self) {
        if let Some(code) = self.try_spawn() {
            panic!("redtape ended by itself ({code:?}):\n{}", tail(&self.log(), 30));
        }
    }

    /// Gives the exit code if it ends before it accepts clients.
    fn try_spawn(&mut self) -> Option<Option<i32>> {
        assert!(self.child.is_none(), "redtape runs already");
        let log = OpenOptions::new().create(true).append(true).open(self.log()).expect("redtape's log");
        let mut command = Command::new(BINARY);
        command
            .args(["proxy", "--listen", &format!("127.0.0.1:{}", self.port), "--upstream", &self.upstream])
            .args(["--metrics", &format!("127.0.0.1:{}", self.metrics_port)])
            .arg("--dir")
            .arg(&self.journal);
        if !self.extra.iter().any(|a| a == "--sync" || a == "--ack") {
            command.args(["--sync", "everysec"]);
        }
        command
            .envs(self.environment.iter().cloned())
            .args(&self.extra)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("the log twice"))
            .stderr(self.stderr.take().unwrap_or(log.into()));
        self.child = Some(command.spawn().unwrap_or_else(|e| panic!("{BINARY}: {e}")));
        // Clients' address is bound before that of the metrics.
        let ports = [self.port, self.metrics_port];
        wait_for("redtape's listeners", Duration::from_secs(20), || {
            if let Some(status) = self.child.as_mut().and_then(|c| c.try_wait().expect("redtape's state")) {
                return Some(Some(status.code()));
            }
            ports.iter().all(|port| TcpStream::connect((Ipv4Addr::LOCALHOST, *port)).is_ok()).then_some(None)
        })
    }

    fn log(&self) -> PathBuf {
        self.logs.join("redtape.log")
    }

    /// What it has said on stderr and stdout so far.
    pub fn said(&self) -> String {
        tail(&self.log(), usize::MAX)
    }

    /// Waits until it has said this: its log has a thread of its own, behind the metrics.
    pub fn wait_said(&self, what: &str) {
        wait_for(what, Duration::from_secs(10), || self.said().contains(what).then_some(()));
    }

    fn assert_alive(&mut self) {
        if let Some(status) = self.child.as_mut().and_then(|c| c.try_wait().expect("redtape's state")) {
            panic!("redtape ended by itself ({status}):\n{}", tail(&self.log(), 30));
        }
    }

    /// Waits until the base is taken and effects are journaled as they happen.
    pub fn wait_streaming(&mut self) {
        wait_for("redtape_capture_state{state=\"streaming\"} 1", Duration::from_mins(1), || {
            self.assert_alive();
            (self.metric(r#"redtape_capture_state{state="streaming"}"#) == Some(1.0)).then_some(())
        });
    }

    /// For the `redis` crate. `Redtape` holds the world's only listener on this port.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("a running redtape").id()
    }

    /// Its memory in use.
    pub fn resident_bytes(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("its status");
        let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).expect("its size");
        line.trim().strip_suffix(" kB").and_then(|kb| kb.trim().parse::<usize>().ok()).expect("a size in kB") * 1024
    }

    /// Waits until it ends by itself; gives the exit code (`None`: killed by a signal).
    pub fn wait_end(&mut self, limit: Duration) -> Option<i32> {
        let child = self.child.as_mut().expect("a running redtape");
        let code = wait_for("redtape's end", limit, || child.try_wait().expect("redtape's state")).code();
        self.child = None;
        code
    }

    /// The status line of an answer of the HTTP server; `None` while nobody answers.
    pub fn http_status(&self, path: &str) -> Option<String> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.metrics_port)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        text.lines().next().map(str::to_owned)
    }

    /// Status and body of an endpoint beside `/metrics`; `None` while nobody answers.
    pub fn endpoint(&self, path: &str) -> Option<(u16, String)> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.metrics_port)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
        write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        let (head, body) = text.split_once("\r\n\r\n")?;
        Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
    }

    /// The text of `/metrics`; `None` while nobody answers.
    pub fn metrics(&self) -> Option<String> {
        let (status, body) = self.endpoint("/metrics")?;
        assert_eq!(status, 200, "/metrics answered: {body}");
        Some(body)
    }

    /// The value of one series, written as in the text: `name` or `name{label="x"}`.
    pub fn metric(&self, series: &str) -> Option<f64> {
        let text = self.metrics()?;
        text.lines().find_map(|l| l.strip_prefix(series)?.strip_prefix(' ')?.trim().parse().ok())
    }

    /// Waits until everything that the server executed before this call is journaled.
    pub fn wait_caught_up(&mut self) {
        let called = now_us() as f64 / 1e6;
        let limit = Duration::from_secs(30);
        let done = || {
            let lag = self.metric("redtape_tap_lag_bytes")?;
            let until = self.metric("redtape_journal_complete_until_seconds")?;
            (lag == 0.0 && until > called).then_some(())
        };
        wait_for("redtape_tap_lag_bytes 0 and redtape_journal_complete_until_seconds past now", limit, done);
        self.assert_alive();
    }

    /// SIGKILL.
    pub fn kill9(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Starts again on the same ports and folder, until clients are accepted.
    pub fn start_again(&mut self) {
        self.spawn();
    }

    /// SIGTERM; the exit code (`None`: killed by a signal).
    pub fn terminate(&mut self) -> Option<i32> {
        self.assert_alive();
        let mut child = self.child.take().expect("a running redtape");
        kill_process(Pid::from_raw(child.id() as i32).expect("a pid"), Signal::TERM).expect("SIGTERM");
        let limit = Duration::from_secs(30);
        let started = std::time::Instant::now();
        loop {
            if let Some(status) = child.try_wait().expect("redtape's state") {
                return status.code();
            }
            if started.elapsed() > limit {
                let _ = child.kill();
                let _ = child.wait();
                panic!("redtape does not end {limit:?} after SIGTERM:\n{}", tail(&self.log(), 30));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Redtape {
    fn drop(&mut self) {
        self.kill9();
        if std::thread::panicking() {
            eprintln!("redtape {}: log\n{}", self.port, tail(&self.log(), 60));
        }
    }
}

/// What a command left behind.
#[derive(Debug)]
pub struct Outcome {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Outcome {
    #[track_caller]
    pub fn expect_success(self, what: &str) -> Self {
        assert!(self.code == Some(0), "{what}: exit code {:?}\n{}\n{}", self.code, self.stdout, self.stderr);
        self
    }
}

/// Runs `redtape ARGS…` to its end (two minutes at most).
pub fn run<S: AsRef<std::ffi::OsStr>>(args: &[S]) -> Outcome {
    run_in(&[], args)
}

/// The same in this environment.
pub fn run_in<S: AsRef<std::ffi::OsStr>>(environment: &[(String, String)], args: &[S]) -> Outcome {
    let logs = Dir::new("command");
    let (out, err) = (logs.join("stdout"), logs.join("stderr"));
    let create = |path: &Path| std::fs::File::create(path).expect("a file for output");
    let mut command = Command::new(BINARY);
    // No test leaves its undo files with the user's.
    command.env("XDG_STATE_HOME", logs.path());
    command.envs(environment.iter().cloned());
    if let Some(server) = std::env::var_os("REDTAPE_TEST_SERVER") {
        // A scratch server is of the same kind as the one under test.
        command.env("REDTAPE_SERVER_BIN", server);
    }
    let mut child = command
        .args(args)
        .stdin(Stdio::null())
        .stdout(create(&out))
        .stderr(create(&err))
        .spawn()
        .unwrap_or_else(|e| panic!("{BINARY}: {e}"));
    let started = std::time::Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().expect("the command's state") {
            break status;
        }
        if started.elapsed() > Duration::from_mins(2) {
            let _ = child.kill();
            let _ = child.wait();
            let said: Vec<_> = args.iter().map(|a| a.as_ref().to_string_lossy()).collect();
            panic!("redtape {} does not end:\n{}", said.join(" "), tail(&err, 30));
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let read = |path: &Path| String::from_utf8_lossy(&std::fs::read(path).expect("the output")).into_owned();
    Outcome { code: status.code(), stdout: read(&out), stderr: read(&err) }
}
