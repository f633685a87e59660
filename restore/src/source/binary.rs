//! The programs that can be a scratch server: what each one is, and which fits best.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use redtape_wire::rdb::RdbVersion;

use super::child::ChildGuard;
use crate::error::RestoreError;
use crate::limits::Limits;
use crate::version::{ServerVersion, parse_number};

/// Environment variable that names the server's binary.
pub const BINARY_VARIABLE: &str = "REDTAPE_SERVER_BIN";
/// Between two looks at a child.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// Longest answer to `--version` that is read.
const BANNER_BYTES: usize = 4096;

/// A binary that can be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binary {
    /// Where it is.
    pub path: PathBuf,
    /// What it says it is.
    pub version: ServerVersion,
}

impl fmt::Display for Binary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.path.display(), self.version)
    }
}

/// What is needed of a binary.
#[derive(Debug, Clone, Copy)]
pub struct BinaryNeeds {
    /// It loads this.
    pub base: RdbVersion,
    /// Made by this server; the nearest version is taken.
    pub made_by: Option<(u32, u32, u32)>,
    /// What it writes, this server loads; `None` = redtape reads it.
    pub target: Option<ServerVersion>,
}

/// Finds a binary: the named one, else the best on PATH.
pub fn find(named: Option<&Path>, wanted: BinaryNeeds, limits: Limits) -> Result<Binary, RestoreError> {
    let Some(binary) = find_named(named, limits)? else { return find_on_path(wanted, limits) };
    match unfit(&binary, wanted) {
        None => Ok(binary),
        Some(why) => Err(RestoreError::NoScratch(why)),
    }
}

/// The binary that the person names, in the request or in the environment.
pub(crate) fn find_named(named: Option<&Path>, limits: Limits) -> Result<Option<Binary>, RestoreError> {
    let from_variable = std::env::var_os(BINARY_VARIABLE).map(PathBuf::from);
    let Some(path) = named.map(Path::to_owned).or(from_variable) else { return Ok(None) };
    probe(&path, limits.start).map(Some).map_err(RestoreError::NoScratch)
}

/// The best on PATH.
pub(crate) fn find_on_path(wanted: BinaryNeeds, limits: Limits) -> Result<Binary, RestoreError> {
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
fn choose(found: &[Binary], wanted: BinaryNeeds) -> Result<Binary, String> {
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

/// Why a binary cannot be used, if it cannot.
fn unfit(binary: &Binary, wanted: BinaryNeeds) -> Option<String> {
    let Binary { path, version } = binary;
    if !version.loads(wanted.base, wanted.made_by) {
        return Some(format!("{} is {version}, which does not load {}", path.display(), wanted.base));
    }
    if let Some(target) = wanted.target.filter(|target| !target.loads(version.writes(), Some(version.number))) {
        return Some(format!(
            "{} is {version}, whose values ({}) the target, {}, does not load: an older scratch server, or a newer target",
            path.display(),
            version.writes(),
            target
        ));
    }
    None
}

/// Asks a program what it is; says why where it does not tell within the limit.
pub fn probe(path: &Path, limit: Duration) -> Result<Binary, String> {
    let is_none = || format!("{} is not a redis-server or valkey-server that runs here", path.display());
    let child =
        Command::new(path).arg("--version").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
    let mut child = ChildGuard(child.map_err(|_| is_none())?);
    let start = Instant::now();
    while matches!(child.0.try_wait(), Ok(None)) {
        if start.elapsed() >= limit {
            return Err(format!("{} did not tell its version within {} s", path.display(), limit.as_secs()));
        }
        std::thread::sleep(LOOK_EVERY);
    }
    // It has ended; what it wrote is in the pipe, unless another process holds that open: the pipe is not waited for.
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
            let wanted = BinaryNeeds { base: rdb(base), made_by: made_by(by), target: Some(target(to)) };
            let got = choose(&all, wanted).map(|b| b.version.to_string()).unwrap_or_default();
            assert!(got.ends_with(want) && got.is_empty() == want.is_empty(), "{base} by {by} to {to}: {got}");
        }
        let wanted = BinaryNeeds { base: rdb("REDIS0010"), made_by: None, target: None };
        assert!(choose(&[], wanted).expect_err("none").contains("PATH"));
        assert_eq!(made_by("valkey 8.0.1"), Some((8, 0, 1)));
    }
}
