//! A local redis-server or valkey-server child, used once: loaded over the link, read, thrown away.
//!
//! It listens on a unix socket in a folder that only this user can enter, follows only a master that
//! knows a password made up for it, persists nothing, evicts nothing, and has a wall clock that redtape
//! holds ([`crate::source::clock`]): at rest nothing in it ever expires.
//!
//! It dies with [`Scratch`]'s drop, and by the preloaded library when the thread that started it dies.
//! A killed restore leaves its folder behind (`redtape-scratch-*` in TMPDIR, closed to other users); the next one removes it. One that
//! lasts has it removed at once (`Scratch::remove_when_killed`).

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use redtape_journal::Micros;
use redtape_wire::url::Secret;

use super::binary::Binary;
use super::child::ChildGuard;
use super::clock::{AT_REST, ClockFile, FILE_VARIABLE, LIBRARY, SETTLE};
use super::leftovers;
use super::reaper::Reaper;
use crate::client::{Server, Value, text};
use crate::error::RestoreError;
use crate::interrupt::Interrupt;
use crate::limits::Limits;
use crate::progress::Observer;
use crate::random;
use crate::replica_link::{Delivered, Expected, Payload, Replica, deliver};
use crate::version::ServerVersion;

/// Between two looks at a child.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// Databases that it has at least: enough for whatever the base may hold.
const DATABASES_MIN: u32 = 1024;
/// Hexadecimal digits of its password.
const PASSWORD_DIGITS: usize = 32;
/// Name of its socket.
const SOCKET: &str = "s";
/// Longest path of a unix socket.
const SOCKET_PATH_LIMIT: usize = 107;

/// A running scratch server.
#[derive(Debug)]
pub struct Scratch {
    /// Its connection.
    pub server: Server,
    /// What it is.
    pub version: ServerVersion,
    clock: ClockFile,
    password: Secret,
    limits: Limits,
    child: ChildGuard,
    /// Says to other restores that the folder is in use.
    _held: std::fs::File,
    /// Behind what uses it, so that it is dropped last.
    dir: leftovers::Folder,
    /// Last: it has nothing to do where the folder is gone.
    reaper: Option<Reaper>,
}

impl Scratch {
    /// Starts one; `databases` is how many the journal needs.
    pub fn start(binary: &Binary, databases: u32, limits: Limits, interrupt: &Interrupt) -> Result<Self, RestoreError> {
        leftovers::remove_in(&std::env::temp_dir());
        let dir = leftovers::Folder::create();
        let dir = dir.map_err(RestoreError::io("create a folder in", std::env::temp_dir()))?;
        let at = |name: &str| dir.path().join(name);
        fs::set_permissions(dir.path(), Permissions::from_mode(0o700))
            .map_err(RestoreError::io("protect", dir.path()))?;
        let held = leftovers::hold(dir.path()).map_err(RestoreError::io("lock", dir.path()))?;
        let socket = at(SOCKET);
        if socket.as_os_str().len() > SOCKET_PATH_LIMIT {
            return Err(RestoreError::Scratch(format!(
                "cannot use {}: the path is too long for a socket; set TMPDIR to a shorter one",
                socket.display()
            )));
        }
        // Before 6.2 a server's own timers run on the wall clock.
        let clock = ClockFile::create(&at("clock"), !binary.version.has_redis(6, 2))?;
        fs::write(at("clock.so"), LIBRARY).map_err(RestoreError::io("write", at("clock.so")))?;
        let password = Secret::new(random::hex(PASSWORD_DIGITS));
        let config = config(binary.version, dir.path(), databases.max(DATABASES_MIN), &password);
        fs::write(at("conf"), config).map_err(RestoreError::io("write", at("conf")))?;
        let child = Command::new(&binary.path)
            .env_remove(redtape_journal::KEYS_VARIABLE)
            .arg(at("conf"))
            .current_dir(dir.path())
            .env("LD_PRELOAD", at("clock.so"))
            .env(FILE_VARIABLE, at("clock"))
            // Ctrl-C is for redtape, which then ends it.
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let mut child = ChildGuard(child.map_err(RestoreError::io("start", &binary.path))?);
        let url = format!("unix://{}", socket.display()).parse().map_err(|e| RestoreError::Scratch(format!("{e}")))?;
        let start = Instant::now();
        let mut server = loop {
            interrupt.check()?;
            match Server::connect(&url) {
                Ok(server) => break server,
                Err(_) if start.elapsed() < limits.start && matches!(child.0.try_wait(), Ok(None)) => {
                    std::thread::sleep(LOOK_EVERY);
                }
                Err(_) => {
                    return Err(RestoreError::Scratch(format!("did not start; its log ends: {}", log_end(dir.path()))));
                }
            }
        };
        server.address = format!("the scratch server ({})", binary.path.display());
        server.set_reply_limit(limits.start)?;
        let version = binary.version;
        let mut scratch = Self { server, version, clock, password, limits, child, _held: held, dir, reaper: None };
        scratch.check_clock().map_err(|e| scratch.explain(e))?;
        scratch.server.set_reply_limit(limits.reply)?;
        Ok(scratch)
    }

    /// Says what to do about a scratch server that does not answer any more, or is gone.
    pub(crate) fn explain(&mut self, error: RestoreError) -> RestoreError {
        let log = || log_end(self.dir.path());
        match error {
            RestoreError::Silent { address, seconds } if address == self.server.address => {
                RestoreError::Scratch(format!(
                    "has not answered for {seconds} s: it hangs, or something stopped it. Restore again, or name another with --server-bin; its log ends: {}",
                    log()
                ))
            }
            RestoreError::Unreachable { address, .. } if address == self.server.address => {
                // The end of the process is seen a moment after that of its connection.
                std::thread::sleep(LOOK_EVERY);
                let how = match self.child.0.try_wait() {
                    Ok(Some(status)) => format!("ended ({status})"),
                    _ => "closed the connection".to_owned(),
                };
                RestoreError::Scratch(format!(
                    "{how}: this machine may be out of memory. Restore again where there is more; its log ends: {}",
                    log()
                ))
            }
            RestoreError::Undone { cause, aftermath } => {
                RestoreError::Undone { cause: Box::new(self.explain(*cause)), aftermath }
            }
            other => other,
        }
    }

    /// The preloaded library works in this server.
    fn check_clock(&mut self) -> Result<(), RestoreError> {
        const DRIFT_LIMIT_S: i64 = 3600;
        let Value::Array(time) = self.server.call(&["TIME"])? else {
            return Err(RestoreError::Scratch("has no TIME".into()));
        };
        let seconds: i64 = time.first().and_then(|s| text(s).parse().ok()).unwrap_or(0);
        if (seconds - AT_REST.0 / 1_000_000).abs() > DRIFT_LIMIT_S {
            return Err(RestoreError::Scratch(
                "does not take its clock from redtape (LD_PRELOAD does not work with it, is it linked statically?); name another with --server-bin"
                    .to_owned(),
            ));
        }
        Ok(())
    }

    /// Loads a base and replays what follows it; afterwards the server is a master at rest.
    pub fn load(
        &mut self,
        payload: Payload<'_>,
        observer: &mut dyn Observer,
        interrupt: &Interrupt,
    ) -> Result<Delivered, RestoreError> {
        let expected = Expected { port: None, password: Some(self.password.clone()) };
        let replica =
            Replica { server: &mut self.server, expected, clock: Some(&self.clock), accept_eviction: false, interrupt };
        let result = deliver(replica, payload, observer, &mut |_, _| Ok(()));
        result.map_err(|cause| {
            if let Ok(Some(status)) = self.child.0.try_wait() {
                let log = log_end(self.dir.path());
                return RestoreError::Scratch(format!("ended ({status}) while it was loaded; its log ends: {log}"));
            }
            match cause {
                RestoreError::Link(why) => RestoreError::Scratch(format!("failed: {why}")),
                // A failure of a throw-away server does not matter.
                RestoreError::Undone { cause, .. } => self.explain(*cause),
                other => self.explain(other),
            }
        })
    }

    /// Lets the clock show this, and lets the server look at it.
    pub(crate) fn show(&self, to: Micros) -> Result<(), RestoreError> {
        self.clock.set(to)?;
        std::thread::sleep(SETTLE);
        Ok(())
    }

    /// Lets the clock stand still even in a server that needs it to run otherwise: what is read now is
    /// read at one point in time. Returns it in milliseconds.
    pub fn hold(&mut self) -> Result<i64, RestoreError> {
        self.hold_at(AT_REST)?;
        Ok(AT_REST.0 / 1000)
    }

    /// Lets the clock show this and stand still: what expires before that is gone, and nothing else expires.
    pub(crate) fn hold_at(&mut self, at: Micros) -> Result<(), RestoreError> {
        self.clock.stop(at)?;
        std::thread::sleep(SETTLE);
        Ok(())
    }

    /// Where it listens.
    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join(SOCKET)
    }

    /// Has its folder removed also when this process is killed.
    pub(crate) fn remove_when_killed(&mut self) {
        self.reaper = Reaper::of(self.dir.path());
    }

    /// Fails when it has ended by itself.
    pub(crate) fn check_alive(&mut self) -> Result<(), RestoreError> {
        let Ok(Some(status)) = self.child.0.try_wait() else { return Ok(()) };
        Err(RestoreError::Scratch(format!(
            "ended ({status}): this machine may be out of memory. Begin again where there is more; its log ends: {}",
            log_end(self.dir.path())
        )))
    }

    /// Writes its data as an RDB; the file lives as long as the scratch server.
    pub fn save(&mut self) -> Result<PathBuf, RestoreError> {
        let (pid, dir) = (self.child.0.id(), self.dir.path().to_owned());
        let mut progress = move || cpu_ticks(pid) + bytes_in(&dir);
        let saved = self.server.call_watched("SAVE", self.limits.stall, &mut progress);
        saved.map_err(|e| self.explain(e))?;
        Ok(self.dir.path().join("scratch.rdb"))
    }
}

/// Processor time of a process, in ticks of the kernel's; 0 where it is not told.
fn cpu_ticks(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name may hold blanks and brackets; behind it, user and system time are the 12th and 13th field.
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    fields.split_ascii_whitespace().skip(11).take(2).filter_map(|n| n.parse::<u64>().ok()).sum()
}

/// Bytes of the files in a folder.
fn bytes_in(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.metadata().ok()).map(|m| m.len()).sum()
}

/// Everything that would make the server do something by itself is off.
fn config(version: ServerVersion, dir: &Path, databases: u32, password: &Secret) -> String {
    let mut lines = vec![
        "port 0".to_owned(),
        format!("unixsocket {}", dir.join(SOCKET).display()),
        "unixsocketperm 700".to_owned(),
        format!("dir {}", dir.display()),
        format!("logfile {}", dir.join("log").display()),
        "dbfilename scratch.rdb".to_owned(),
        "save \"\"".to_owned(),
        "appendonly no".to_owned(),
        "daemonize no".to_owned(),
        format!("databases {databases}"),
        "maxmemory 0".to_owned(),
        // The largest whose milliseconds fit into an int: loading without a disk waits so long for bytes.
        "repl-timeout 2147483".to_owned(),
        "timeout 0".to_owned(),
        // It sleeps until wall-clock times, which the kernel finds long past: it would spin.
        "jemalloc-bg-thread no".to_owned(),
        // The base goes from the link into memory, not over the disk.
        "repl-diskless-load on-empty-db".to_owned(),
        "proto-max-bulk-len 4gb".to_owned(),
        "client-query-buffer-limit 8gb".to_owned(),
        format!("masterauth {}", password.expose()),
    ];
    if version.has_redis(7, 0) {
        lines.push("enable-debug-command local".to_owned());
    }
    lines.push(String::new());
    lines.join("\n")
}

/// The last lines of the log, in one.
fn log_end(dir: &Path) -> String {
    const LINES: usize = 4;
    let log = fs::read(dir.join("log")).unwrap_or_default();
    let log = String::from_utf8_lossy(&log);
    let lines: Vec<&str> = log.lines().filter(|l| !l.trim().is_empty()).collect();
    let end = &lines[lines.len().saturating_sub(LINES)..];
    if end.is_empty() { "(empty)".to_owned() } else { end.join(" / ") }
}
