//! What the demo starts: our own binary as a proxy and as single commands, and how all of it ends.
//!
//! Children have process groups of their own, so that Ctrl-C reaches the demo alone; it then ends
//! them in order, by dropping their owners. The same happens when a step fails.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio::signal::unix::SignalKind;

use crate::commands::embedded::free_port;
use crate::exit::{Failure, INTERRUPTED, SOFTWARE, UNAVAILABLE};
use crate::signals::Signals;

/// The proxy must have taken its base within this time.
const STREAMING_TIMEOUT: Duration = Duration::from_secs(20);
/// The proxy must be gone within this time after SIGTERM.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);
/// A single command must be done within this time.
const COMMAND_TIMEOUT: Duration = Duration::from_mins(1);
/// Between two looks.
const POLL: Duration = Duration::from_millis(10);

/// Whether the demo should end.
#[derive(Clone)]
pub(super) struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// From now on SIGINT, SIGTERM and SIGHUP only set a flag.
    pub(super) fn listen() -> anyhow::Result<Self> {
        let flag = Arc::new(AtomicBool::new(false));
        let set = flag.clone();
        let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
        Signals::listen_to(&kinds)?.watch(move |mut signals| {
            signals.wait();
            set.store(true, Ordering::Relaxed);
        })?;
        Ok(Self(flag))
    }

    /// Fails when the demo is to end.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        if self.0.load(Ordering::Relaxed) {
            return Err(Failure::new(INTERRUPTED, "interrupted; everything that the demo had started is gone").into());
        }
        Ok(())
    }

    /// Sleeps, unless the demo is to end.
    pub(super) fn sleep(&self, time: Duration) -> anyhow::Result<()> {
        let until = Instant::now() + time;
        while Instant::now() < until {
            self.check()?;
            std::thread::sleep(POLL.min(until.saturating_duration_since(Instant::now())));
        }
        self.check()
    }
}

/// Our own binary.
pub(super) struct Redtape {
    binary: PathBuf,
    /// For the output of children.
    dir: PathBuf,
    interrupt: Interrupt,
}

impl Redtape {
    /// Output of children goes to files in `dir`.
    pub(super) fn new(dir: &Path, interrupt: &Interrupt) -> anyhow::Result<Self> {
        let binary = std::env::current_exe().context("find our own binary")?;
        Ok(Self { binary, dir: dir.to_owned(), interrupt: interrupt.clone() })
    }

    fn child(&self, args: &[&str], out: Stdio, err: File) -> anyhow::Result<Child> {
        let mut command = Command::new(&self.binary);
        command.args(args).stdin(Stdio::null()).stdout(out).stderr(err).process_group(0);
        // What is set for the journals of this machine is not meant for the demo.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("REDTAPE_") && name != "REDTAPE_SERVER_BIN" {
                command.env_remove(name);
            }
        }
        // Nor is a file of settings that lies here.
        command.env("REDTAPE_CONFIG", "/dev/null");
        command.spawn().with_context(|| format!("start {}", self.binary.display()))
    }

    /// Runs one command to its end and gives what it printed.
    pub(super) fn run(&self, args: &[&str]) -> anyhow::Result<String> {
        let (out, err) = (self.dir.join("stdout"), self.dir.join("stderr"));
        let mut running = Running(self.child(args, File::create(&out)?.into(), File::create(&err)?)?);
        let deadline = Instant::now() + COMMAND_TIMEOUT;
        let status = loop {
            if let Some(status) = running.0.try_wait()? {
                break status;
            }
            self.interrupt.check()?;
            if Instant::now() > deadline {
                let what = format!("redtape {} is not done after {COMMAND_TIMEOUT:?}", args.join(" "));
                return Err(Failure::new(SOFTWARE, what).into());
            }
            std::thread::sleep(POLL);
        };
        if !status.success() {
            let said = std::fs::read_to_string(&err)?;
            let what = format!("redtape {} failed ({status}):\n{}", args.join(" "), said.trim_end());
            return Err(Failure::new(SOFTWARE, what).into());
        }
        Ok(std::fs::read_to_string(&out)?)
    }

    /// Starts `redtape proxy` on this port and waits until it journals.
    pub(super) fn proxy(&self, upstream: &str, port: u16, journal: &str) -> anyhow::Result<Proxy> {
        let metrics = free_port()?;
        let log = self.dir.join("proxy.log");
        let (listen, metrics_at) = (format!("127.0.0.1:{port}"), format!("127.0.0.1:{metrics}"));
        let args = ["proxy", "--upstream", upstream, "--listen", &listen, "--dir", journal, "--metrics", &metrics_at];
        let child = self.child(&args, Stdio::null(), File::create(&log)?)?;
        let mut proxy = Proxy { child: Running(child), port, metrics, log };
        let deadline = Instant::now() + STREAMING_TIMEOUT;
        while proxy.metric(r#"redtape_capture_state{state="streaming"}"#) != Some(1.0) {
            self.interrupt.check()?;
            proxy.assert_alive()?;
            if Instant::now() > deadline {
                return Err(proxy.failure("does not journal"));
            }
            std::thread::sleep(POLL);
        }
        Ok(proxy)
    }
}

/// A child that is killed when dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have gone by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A running `redtape proxy`.
pub(super) struct Proxy {
    child: Running,
    port: u16,
    metrics: u16,
    log: PathBuf,
}

impl Proxy {
    /// Where clients connect.
    pub(super) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Where clients connect.
    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// One number of its `/metrics`.
    pub(super) fn metric(&self, series: &str) -> Option<f64> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.metrics)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
        stream.write_all(b"GET /metrics HTTP/1.0\r\nHost: localhost\r\n\r\n").ok()?;
        let mut page = String::new();
        stream.read_to_string(&mut page).ok()?;
        page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.trim().parse().ok())
    }

    /// Waits until everything that ran before this Unix time is in the journal.
    pub(super) fn wait_complete(&mut self, until: f64, interrupt: &Interrupt) -> anyhow::Result<()> {
        let deadline = Instant::now() + STREAMING_TIMEOUT;
        while self.metric("redtape_journal_complete_until_seconds").is_none_or(|at| at <= until) {
            interrupt.check()?;
            self.assert_alive()?;
            if Instant::now() > deadline {
                return Err(self.failure("does not get the journal complete"));
            }
            std::thread::sleep(POLL);
        }
        Ok(())
    }

    /// SIGTERM: it seals the journal and ends.
    pub(super) fn stop(mut self) -> anyhow::Result<()> {
        let pid = i32::try_from(self.child.0.id()).ok().and_then(rustix::process::Pid::from_raw);
        if let Some(pid) = pid {
            rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        }
        let deadline = Instant::now() + STOP_TIMEOUT;
        while Instant::now() < deadline {
            match self.child.0.try_wait()? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => return Err(self.failure(&format!("ended with {status}"))),
                None => std::thread::sleep(POLL),
            }
        }
        Err(self.failure("does not end"))
    }

    fn assert_alive(&mut self) -> anyhow::Result<()> {
        match self.child.0.try_wait()? {
            Some(status) => Err(self.failure(&format!("ended by itself ({status})"))),
            None => Ok(()),
        }
    }

    fn failure(&self, what: &str) -> anyhow::Error {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        Failure::new(UNAVAILABLE, format!("the demo's redtape proxy {what}; it said:\n{}", log.trim_end())).into()
    }
}
