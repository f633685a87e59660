//! A local redis-server or valkey-server child, used once: loaded over the link, read, thrown away.
//!
//! It listens on a unix socket in a folder that only this user can enter, follows only a master that
//! knows a password made up for it, persists nothing, evicts nothing, and has a wall clock that redtape
//! holds ([`crate::source::clock`]): at rest nothing in it ever expires.
//!
//! It dies with [`Scratch`]'s drop, and by the preloaded library when the thread that started it dies.
//! A killed restore leaves its folder behind (`redtape-scratch-*` in TMPDIR, closed to other users).

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use redtape_wire::rdb::RdbVersion;
use redtape_wire::url::Secret;

use crate::client::{Server, Value, text};
use crate::error::RestoreError;
use crate::interrupt::Interrupt;
use crate::limits::Limits;
use crate::progress::Observer;
use crate::replica_link::{Delivered, Expected, Load, Replica, deliver};
use crate::source::clock::{AT_REST, ClockFile, FILE_VARIABLE, LIBRARY, SETTLE};
use crate::version::{ServerVersion, parse_number};

/// Environment variable that names the server's binary.
pub const BINARY_VARIABLE: &str = "REDTAPE_SERVER_BIN";
/// How long a killed process may take to be gone.
const GONE_LIMIT: Duration = Duration::from_secs(5);
/// Between two looks at a child.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// Longest answer to `--version` that is read.
const BANNER_BYTES: usize = 4096;
/// Databases that it has at least: enough for whatever the base may hold.
const DATABASES_MIN: u32 = 1024;
/// Longest path of a unix socket.
const SOCKET_PATH_LIMIT: usize = 107;

/// A binary that can be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binary {
    /// Where it is.
    pub path: PathBuf,
    /// What it says it is.
    pub version: ServerVersion,
}

/// What is needed of a binary.
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    /// It loads this.
    pub base: RdbVersion,
    /// Made by this server; the nearest version is taken.
    pub made_by: Option<(u32, u32, u32)>,
    /// What it writes, this server loads.
    pub target: ServerVersion,
}

/// Finds a binary: the named one, else the best on PATH.
pub fn find(named: Option<&Path>, wanted: Wanted, limits: Limits) -> Result<Binary, RestoreError> {
    let from_variable = std::env::var_os(BINARY_VARIABLE).map(PathBuf::from);
    if let Some(path) = named.map(Path::to_owned).or(from_variable) {
        let binary = probe(&path, limits.start).map_err(RestoreError::NoScratch)?;
        return match unfit(&binary, wanted) {
            None => Ok(binary),
            Some(why) => Err(RestoreError::NoScratch(why)),
        };
    }
    let folders = std::env::var_os("PATH").unwrap_or_default();
    // Folders may be links to each other (/bin to /usr/bin), and the file itself a link to a program
    // that looks at the name by which it was called: only the folder is resolved.
    let mut seen = std::collections::HashSet::new();
    let found: Vec<Binary> = std::env::split_paths(&folders)
        .filter_map(|dir| dir.canonicalize().ok())
        .filter(|dir| seen.insert(dir.clone()))
        .flat_map(|dir| ["redis-server", "valkey-server"].map(|name| dir.join(name)))
        .filter(|path| path.is_file())
        .filter_map(|path| probe(&path, limits.start).ok())
        .collect();
    choose(&found, wanted).map_err(RestoreError::NoScratch)
}

/// The best of several binaries: the one nearest to what made the base. Pure.
fn choose(found: &[Binary], wanted: Wanted) -> Result<Binary, String> {
    let distance = |b: &Binary| {
        let (major, minor, patch) = b.version.number;
        let (m, n, p) = wanted.made_by.unwrap_or(b.version.number);
        (major.abs_diff(m), minor.abs_diff(n), patch.abs_diff(p))
    };
    let fit = found.iter().filter(|b| unfit(b, wanted).is_none()).min_by_key(|b| distance(b));
    fit.cloned().ok_or_else(|| {
        if found.is_empty() {
            return format!(
                "neither redis-server nor valkey-server is on PATH; one that loads {} is needed",
                wanted.base
            );
        }
        found.iter().filter_map(|b| unfit(b, wanted)).collect::<Vec<_>>().join("; ")
    })
}

/// Why a binary can't be used, if it can't.
fn unfit(binary: &Binary, wanted: Wanted) -> Option<String> {
    let Binary { path, version } = binary;
    if !version.loads(wanted.base, wanted.made_by) {
        return Some(format!("{} is {version}, which does not load {}", path.display(), wanted.base));
    }
    if !wanted.target.loads(version.writes(), Some(version.number)) {
        return Some(format!(
            "{} is {version}, whose values ({}) the target, {}, does not load: an older scratch server, or a newer target",
            path.display(),
            version.writes(),
            wanted.target
        ));
    }
    None
}

/// Asks a program what it is; says why where it does not tell within the limit.
pub fn probe(path: &Path, limit: Duration) -> Result<Binary, String> {
    let is_none = || format!("{} is not a redis-server or valkey-server that runs here", path.display());
    let child =
        Command::new(path).arg("--version").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
    let mut child = Guard(child.map_err(|_| is_none())?);
    let start = Instant::now();
    while matches!(child.0.try_wait(), Ok(None)) {
        if start.elapsed() >= limit {
            return Err(format!("{} did not tell its version within {} s", path.display(), limit.as_secs()));
        }
        std::thread::sleep(LOOK_EVERY);
    }
    // It has ended; what it wrote is in the pipe, unless somebody else holds that open: the pipe is not waited for.
    let mut banner = vec![0; BANNER_BYTES];
    let read = child.0.stdout.take().and_then(|out| read_now(out, &mut banner)).unwrap_or(0);
    let version = ServerVersion::from_banner(&String::from_utf8_lossy(&banner[..read])).ok_or_else(is_none)?;
    Ok(Binary { path: path.to_owned(), version })
}

/// What is in a pipe at this moment.
fn read_now(mut pipe: std::process::ChildStdout, into: &mut [u8]) -> Option<usize> {
    use std::io::Read as _;
    rustix::io::ioctl_fionbio(&pipe, true).ok()?;
    pipe.read(into).ok()
}

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
    child: Guard,
    /// Last, so that it goes when nobody uses it any more.
    dir: tempfile::TempDir,
}

/// Kills the child.
#[derive(Debug)]
struct Guard(Child);

impl Drop for Guard {
    fn drop(&mut self) {
        // It may be dead already. One that the kernel cannot end (a file system that hangs) is left to it.
        let _ = self.0.kill();
        let start = Instant::now();
        while matches!(self.0.try_wait(), Ok(None)) && start.elapsed() < GONE_LIMIT {
            std::thread::sleep(LOOK_EVERY);
        }
    }
}

impl Scratch {
    /// Starts one; `databases` is how many the tape needs.
    pub fn start(binary: &Binary, databases: u32, limits: Limits) -> Result<Self, RestoreError> {
        let dir = tempfile::Builder::new().prefix("redtape-scratch-").tempdir();
        let dir = dir.map_err(RestoreError::io("create a folder in", std::env::temp_dir()))?;
        let at = |name: &str| dir.path().join(name);
        fs::set_permissions(dir.path(), Permissions::from_mode(0o700))
            .map_err(RestoreError::io("protect", dir.path()))?;
        let socket = at("s");
        if socket.as_os_str().len() > SOCKET_PATH_LIMIT {
            return Err(RestoreError::Scratch(format!(
                "can't use {}: the path is too long for a socket; set TMPDIR to a shorter one",
                socket.display()
            )));
        }
        // Before 6.2 a server's own timers run on the wall clock.
        let clock = ClockFile::create(&at("clock"), !binary.version.has_redis(6, 2))?;
        fs::write(at("clock.so"), LIBRARY).map_err(RestoreError::io("write", at("clock.so")))?;
        let password = Secret::new(random_word());
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
        let mut child = Guard(child.map_err(RestoreError::io("start", &binary.path))?);
        let url = format!("unix://{}", socket.display()).parse().map_err(|e| RestoreError::Scratch(format!("{e}")))?;
        let start = Instant::now();
        let mut server = loop {
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
        let mut scratch = Self { server, version: binary.version, clock, password, limits, child, dir };
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

    /// Loads a base and replays a tape; afterwards the server is a master at rest.
    pub fn load(
        &mut self,
        load: &mut Load<'_>,
        observer: &mut dyn Observer,
        interrupt: &Interrupt,
    ) -> Result<Delivered, RestoreError> {
        let expected = Expected { port: None, password: Some(self.password.clone()) };
        let replica = Replica { server: &mut self.server, expected, clock: Some(&self.clock), interrupt };
        let result = deliver(replica, load, observer, &mut |_, _| Ok(()));
        result.map_err(|cause| {
            if let Ok(Some(status)) = self.child.0.try_wait() {
                let log = log_end(self.dir.path());
                return RestoreError::Scratch(format!("ended ({status}) while it was loaded; its log ends: {log}"));
            }
            match cause {
                RestoreError::Link(why) => RestoreError::Scratch(format!("failed: {why}")),
                // What happened to a throw-away server concerns nobody.
                RestoreError::Undone { cause, .. } => self.explain(*cause),
                other => self.explain(other),
            }
        })
    }

    /// Lets the clock stand still even in a server that needs it to run otherwise: what is read now is
    /// read at one moment. Returns that moment in milliseconds.
    pub fn hold(&mut self) -> Result<i64, RestoreError> {
        self.clock.stop(AT_REST)?;
        std::thread::sleep(SETTLE);
        Ok(AT_REST.0 / 1000)
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
        format!("unixsocket {}", dir.join("s").display()),
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
        // It sleeps until moments of the wall clock, which the kernel finds long past: it would spin.
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

pub(crate) fn random_word() -> String {
    use rand::RngExt as _;
    let mut rng = rand::rng();
    (0..32).map(|_| char::from_digit(rng.random_range(0..16), 16).unwrap_or('0')).collect()
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

/// The number in a snapshot's `server_version`.
pub fn made_by(server_version: &str) -> Option<(u32, u32, u32)> {
    let digits = server_version.trim_start_matches(|c: char| !c.is_ascii_digit());
    parse_number(digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_binary_that_fits() {
        let binary = |banner: &str| Binary {
            path: format!("/bin/{}", banner.replace(' ', "-")).into(),
            version: ServerVersion::from_banner(banner).expect(banner),
        };
        let all: Vec<Binary> =
            ["Redis v=6.0.16", "Redis v=7.0.15", "Redis v=8.0.2", "Valkey v=8.1.1", "Valkey v=9.1.2"]
                .map(binary)
                .into();
        let rdb = |t: &str| redtape_wire::rdb::parse_header(t.as_bytes()).expect(t);
        let target = |banner: &str| ServerVersion::from_banner(banner).expect(banner);
        for (base, by, to, want) in [
            ("REDIS0010", "7.0.15", "Redis v=7.0.15", "7.0.15"),
            ("REDIS0010", "7.0.11", "Redis v=8.0.2", "7.0.15"),
            ("REDIS0009", "6.2.1", "Redis v=6.2.1", "6.0.16"),
            ("REDIS0012", "8.0.6", "Redis v=8.0.6", "8.0.2"),
            ("VALKEY080", "9.0.0", "Valkey v=9.0.0", "9.1.2"),
            ("REDIS0011", "8.0.1", "Valkey v=8.0.1", "8.1.1"),
            ("REDIS0012", "7.4.0", "Redis v=7.0.15", ""),
            ("VALKEY080", "9.0.0", "Redis v=8.0.2", ""),
        ] {
            let wanted = Wanted { base: rdb(base), made_by: made_by(by), target: target(to) };
            let got = choose(&all, wanted).map(|b| b.version.to_string()).unwrap_or_default();
            assert!(got.ends_with(want) && got.is_empty() == want.is_empty(), "{base} by {by} to {to}: {got}");
        }
        let wanted = Wanted { base: rdb("REDIS0010"), made_by: None, target: target("Redis v=7.0.15") };
        assert!(choose(&[], wanted).expect_err("none").contains("PATH"));
        assert_eq!(made_by("valkey 8.0.1"), Some((8, 0, 1)));
    }
}
