//! A redis-server (or valkey-server) child on a free loopback port, for the demo and for trying out.

use std::net::TcpListener;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use redtape_restore::version::ServerVersion;

use crate::exit::{Failure, UNAVAILABLE};

/// The server must answer within this time.
const START_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest wait for one answer meanwhile.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// Longest wait for one answer of a server or proxy of our own; it may be behind a full sync.
pub(crate) const WORK_TIMEOUT: Duration = Duration::from_secs(30);
/// Ports that are tried.
const START_ATTEMPTS: usize = 5;

/// Ended when dropped, its directory removed.
pub(crate) struct EmbeddedServer {
    child: Child,
    port: u16,
    _dir: tempfile::TempDir,
}

impl EmbeddedServer {
    /// Starts one and waits until it answers.
    pub(crate) fn start() -> anyhow::Result<Self> {
        Self::start_with(&[])
    }

    /// The same, and `DEBUG DIGEST` may be asked for.
    pub(crate) fn start_with_debug() -> anyhow::Result<Self> {
        // Before 7.0 DEBUG is always allowed, and the setting is not known.
        let restricts = find_server().is_some_and(|binary| version(&binary).is_some_and(|v| v.has_redis(7, 0)));
        Self::start_with(if restricts { &["--enable-debug-command", "yes"] } else { &[] })
    }

    fn start_with(extra: &[&str]) -> anyhow::Result<Self> {
        let binary = find_server().ok_or_else(|| {
            let advice = "neither redis-server nor valkey-server is on the PATH; install one (Debian: apt-get install redis-server) or name it in REDTAPE_SERVER_BIN";
            Failure::new(UNAVAILABLE, advice)
        })?;
        // Another process may take the port between the look and the start: then the next one is tried.
        for _ in 0..START_ATTEMPTS {
            if let Some(server) = Self::start_once(&binary, extra)? {
                return Ok(server);
            }
        }
        Err(Failure::new(UNAVAILABLE, format!("{binary} ends as soon as it is started; does it run by itself?")).into())
    }

    /// `None` = it ended by itself.
    fn start_once(binary: &str, extra: &[&str]) -> anyhow::Result<Option<Self>> {
        let dir = tempfile::Builder::new().prefix("redtape-server-").tempdir()?;
        let port = free_port()?;
        let child = Command::new(binary)
            .env_remove(redtape_journal::KEYS_VARIABLE)
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .args(["--repl-diskless-sync-delay", "0", "--repl-backlog-size", "16mb"])
            .args(extra)
            .arg("--dir")
            .arg(dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Ctrl-C is for us: the server goes when we are done with it.
            .process_group(0)
            .spawn()
            .map_err(|e| Failure::new(UNAVAILABLE, format!("cannot start {binary}: {e}")))?;
        let mut server = Self { child, port, _dir: dir };
        let deadline = Instant::now() + START_TIMEOUT;
        while !answers(&server.url()) {
            if server.child.try_wait()?.is_some() {
                return Ok(None);
            }
            if Instant::now() > deadline {
                return Err(Failure::new(UNAVAILABLE, format!("{binary} does not answer on port {port}")).into());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(Some(server))
    }

    /// Ends it as well when nothing is dropped any more.
    pub(crate) fn killer(&self) -> impl Fn() + Send + 'static {
        let pid = rustix::process::Pid::from_child(&self.child);
        move || {
            // It may have gone by itself.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }

    /// Its URL.
    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }
}

impl Drop for EmbeddedServer {
    fn drop(&mut self) {
        // It may have gone by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A port that is free at present.
pub(crate) fn free_port() -> std::io::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// `REDTAPE_SERVER_BIN`, or the first of the two on the PATH.
fn find_server() -> Option<String> {
    if let Some(named) = std::env::var("REDTAPE_SERVER_BIN").ok().filter(|name| !name.is_empty()) {
        return Some(named);
    }
    let path = std::env::var_os("PATH")?;
    ["redis-server", "valkey-server"].into_iter().find_map(|name| {
        std::env::split_paths(&path)
            .map(|dir| dir.join(name))
            .find(|file| file.is_file())
            .map(|f| f.display().to_string())
    })
}

/// What the binary says it is.
fn version(binary: &str) -> Option<ServerVersion> {
    redtape_restore::source::binary::probe(Path::new(binary), START_TIMEOUT).ok().map(|found| found.version)
}

/// It answers `PING`.
fn answers(url: &str) -> bool {
    let pong = open(url, ANSWER_TIMEOUT).and_then(|mut conn| redis::cmd("PING").query::<String>(&mut conn));
    pong.is_ok()
}

/// A connection on which nothing is waited for longer than this.
pub(crate) fn open(url: &str, limit: Duration) -> redis::RedisResult<redis::Connection> {
    let conn = redis::Client::open(url)?.get_connection_with_timeout(limit)?;
    conn.set_read_timeout(Some(limit))?;
    conn.set_write_timeout(Some(limit))?;
    Ok(conn)
}
