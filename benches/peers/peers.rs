//! What is compared: how each is started beside a Redis of its own, and stopped.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use crate::cells::Cell;
use crate::process::{Process, answers, free_port, local};
use crate::requests::Requests;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Name {
    /// The measure of all: nothing persisted, nothing between.
    Redis,
    RedisAof,
    RedisAofAlways,
    Nutcracker,
    Haproxy,
    /// Upstream connections shared (or whatever a binary without the choice does).
    Redtape,
    /// An upstream connection for each client.
    RedtapeUnshared,
    /// A write is acknowledged when it is synced: what `appendfsync always` promises.
    RedtapeAck,
}

impl Name {
    pub(crate) const ALL: [Self; 8] = [
        Self::Redis,
        Self::RedisAof,
        Self::RedisAofAlways,
        Self::Nutcracker,
        Self::Haproxy,
        Self::Redtape,
        Self::RedtapeUnshared,
        Self::RedtapeAck,
    ];

    pub(crate) fn id(self) -> &'static str {
        match self {
            Self::Redis => "redis",
            Self::RedisAof => "redis-aof",
            Self::RedisAofAlways => "redis-aof-always",
            Self::Nutcracker => "nutcracker",
            Self::Haproxy => "haproxy",
            Self::Redtape => "redtape",
            Self::RedtapeUnshared => "redtape-unshared",
            Self::RedtapeAck => "redtape-ack",
        }
    }

    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Redis => "Redis alone",
            Self::RedisAof => "Redis, AOF everysec",
            Self::RedisAofAlways => "Redis, AOF always",
            Self::Nutcracker => "nutcracker",
            Self::Haproxy => "HAProxy TCP",
            Self::Redtape => "**redtape**",
            Self::RedtapeUnshared => "redtape, sharing off",
            Self::RedtapeAck => "redtape, ack journal",
        }
    }

    pub(crate) fn is_redtape(self) -> bool {
        matches!(self, Self::Redtape | Self::RedtapeUnshared | Self::RedtapeAck)
    }

    /// Has something to say in this cell.
    pub(crate) fn takes_part(self, tls: bool) -> bool {
        !tls || matches!(self, Self::Redis | Self::Haproxy | Self::Redtape | Self::RedtapeUnshared)
    }
}

/// The redtape that is measured, and what it can do.
pub(crate) struct Binary {
    pub(crate) path: PathBuf,
    help: String,
}

impl Binary {
    /// `REDTAPE_BIN`, or what `cargo build --release` leaves.
    pub(crate) fn find(root: &Path) -> Result<Self> {
        let path = std::env::var_os("REDTAPE_BIN")
            .map_or_else(|| Ok(root.join("target/release/redtape")), |p| std::path::absolute(PathBuf::from(p)))?;
        let out = Command::new(&path).args(["proxy", "--help"]).output();
        let out = out.with_context(|| format!("run {} (cargo build --release, or REDTAPE_BIN)", path.display()))?;
        ensure!(out.status.success(), "{} proxy --help: {}", path.display(), out.status);
        Ok(Self { path, help: String::from_utf8_lossy(&out.stdout).into_owned() })
    }

    pub(crate) fn knows(&self, flag: &str) -> bool {
        self.help.split(|c: char| !c.is_alphanumeric() && c != '-').any(|word| word == flag)
    }
}

/// A running peer. The proxy ends before its server.
pub(crate) struct Peer {
    pub(crate) name: Name,
    pub(crate) proxy: Option<Process>,
    pub(crate) server: Process,
    /// Where its clients connect.
    pub(crate) port: u16,
    pub(crate) tls_port: u16,
    server_port: u16,
    /// What it keeps on disk.
    kept: Option<PathBuf>,
}

impl Peer {
    /// Starts it in a folder below `below`, which holds the certificates. All paths are relative to that folder.
    pub(crate) fn start(name: Name, binary: &Binary, tls: bool, below: &Path) -> Result<Self> {
        let dir = below.join(name.id());
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir)?;
        let mut peer = Self::server(name, tls, &dir)?;
        match name {
            Name::Redis | Name::RedisAof | Name::RedisAofAlways => {}
            Name::Nutcracker => peer.nutcracker(&dir)?,
            Name::Haproxy => peer.haproxy(tls, &dir)?,
            Name::Redtape | Name::RedtapeUnshared | Name::RedtapeAck => peer.redtape(binary, tls, &dir)?,
        }
        Ok(peer)
    }

    /// A Redis without snapshots. Replicas get their copy at once: only redtape asks for one.
    fn server(name: Name, tls: bool, dir: &Path) -> Result<Self> {
        let (port, tls_port) = (free_port(), free_port());
        let mut args =
            words(&format!("--port {port} --bind 127.0.0.1 --maxclients 50000 --repl-diskless-sync-delay 0"));
        // The crowd comes from many addresses of this machine, which Redis takes for strangers.
        args.extend(words("--protected-mode no"));
        args.extend(["--save".to_owned(), String::new()]);
        let fsync = match name {
            Name::RedisAof => Some("everysec"),
            Name::RedisAofAlways => Some("always"),
            _ => None,
        };
        if let Some(fsync) = fsync {
            // Rewriting would fall into some rounds and not into others.
            args.extend(words(&format!("--appendonly yes --appendfsync {fsync} --auto-aof-rewrite-percentage 0")));
        }
        if name == Name::Redis && tls {
            args.extend(words(&format!("--tls-port {tls_port} --tls-auth-clients no")));
            args.extend(words(
                "--tls-cert-file ../server.crt --tls-key-file ../server.key --tls-ca-cert-file ../ca.crt",
            ));
        }
        let mut server = Process::start(Path::new("redis-server"), &args, dir, "server")?;
        server.wait_until("Redis's first answer", || answers(local(port)))?;
        let kept = fsync.map(|_| dir.join("appendonlydir"));
        Ok(Self { name, proxy: None, server, port, tls_port, server_port: port, kept })
    }

    fn nutcracker(&mut self, dir: &Path) -> Result<()> {
        self.port = free_port();
        let (port, server) = (self.port, self.server_port);
        std::fs::write(
            dir.join("nutcracker.yml"),
            format!(
                "pool:\n  listen: 127.0.0.1:{port}\n  hash: fnv1a_64\n  distribution: ketama\n  redis: true\n  \
                 preconnect: true\n  auto_eject_hosts: false\n  servers:\n   - 127.0.0.1:{server}:1 redis\n"
            ),
        )?;
        let args = words(&format!("-c nutcracker.yml -a 127.0.0.1 -s {}", free_port()));
        self.stand_between(&installed("nutcracker"), &args, dir)
    }

    fn haproxy(&mut self, tls: bool, dir: &Path) -> Result<()> {
        (self.port, self.tls_port) = (free_port(), free_port());
        let (port, tls_port, server) = (self.port, self.tls_port, self.server_port);
        let tls = if tls { format!("  bind 127.0.0.1:{tls_port} ssl crt ../server.pem\n") } else { String::new() };
        std::fs::write(
            dir.join("haproxy.cfg"),
            format!(
                "defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 1h\n  timeout server 1h\n\
                 frontend clients\n  bind 127.0.0.1:{port}\n{tls}  default_backend redis\n\
                 backend redis\n  server redis 127.0.0.1:{server}\n"
            ),
        )?;
        self.stand_between(&installed("haproxy"), &words("-db -f haproxy.cfg"), dir)
    }

    fn redtape(&mut self, binary: &Binary, tls: bool, dir: &Path) -> Result<()> {
        (self.port, self.tls_port) = (free_port(), free_port());
        let (port, tls_port, server) = (self.port, self.tls_port, self.server_port);
        let synced = if self.name == Name::RedtapeAck { "--ack journal" } else { "--sync everysec" };
        let mut args = words(&format!(
            "proxy --upstream redis://127.0.0.1:{server} --listen 127.0.0.1:{port} {synced} --dir journal"
        ));
        if binary.knows("--sharing") {
            let sharing = if self.name == Name::RedtapeUnshared { "off" } else { "auto" };
            args.extend(words(&format!("--sharing {sharing}")));
        }
        if tls && binary.knows("--tls-listen") {
            args.extend(words(&format!("--tls-listen 127.0.0.1:{tls_port}")));
            args.extend(words("--tls-cert-file ../server.crt --tls-key-file ../server.key"));
            if binary.knows("--tls-auth-clients") {
                args.extend(words("--tls-auth-clients no"));
            }
        }
        self.kept = Some(dir.join("journal"));
        self.stand_between(&binary.path, &args, dir)?;
        // Recording begins with a full copy; before, there is nothing to compare.
        let proxy = self.proxy.as_mut().context("no proxy")?;
        let log = dir.join("proxy.log");
        let begun = || std::fs::read_to_string(&log).is_ok_and(|said| said.contains("the base is taken"));
        proxy.wait_until("redtape's base", begun)
    }

    fn stand_between(&mut self, program: &Path, args: &[String], dir: &Path) -> Result<()> {
        let port = self.port;
        let proxy = self.proxy.insert(Process::start(program, args, dir, "proxy")?);
        proxy.wait_until(&format!("{}'s first answer", self.name.id()), || answers(local(port)))
    }

    pub(crate) fn pids(&self) -> Vec<u32> {
        std::iter::once(&self.server).chain(&self.proxy).map(Process::pid).collect()
    }

    /// What its processes said last, for a failure's message.
    pub(crate) fn last_words(&self) -> String {
        self.proxy.iter().chain([&self.server]).map(Process::last_words).collect::<Vec<_>>().join("\n---\n")
    }

    /// Writes each key that the cell reads, past the proxy.
    pub(crate) fn fill(&self, cell: &Cell) -> Result<()> {
        let mut requests = Requests::all_keys(cell);
        loop {
            let some: Vec<Vec<u8>> = requests.by_ref().take(500).collect();
            if some.is_empty() {
                return Ok(());
            }
            self.tell_server(&some)?;
        }
    }

    /// Forgets all data, past the proxy.
    pub(crate) fn empty(&self) -> Result<()> {
        self.tell_server(&[b"*1\r\n$8\r\nFLUSHALL\r\n".to_vec()])
    }

    fn tell_server(&self, requests: &[Vec<u8>]) -> Result<()> {
        let mut stream = TcpStream::connect(local(self.server_port))?;
        stream.write_all(&requests.concat())?;
        let mut replies = BufReader::new(stream).lines();
        for _ in requests {
            let reply = replies.next().context("the server closed the connection")??;
            ensure!(reply == "+OK", "the server said {reply}");
        }
        Ok(())
    }

    /// Bytes on disk: the AOF's or the journal's.
    pub(crate) fn kept_bytes(&self) -> u64 {
        fn below(dir: &Path) -> u64 {
            let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
            entries.map(|e| e.metadata().map_or(0, |m| if m.is_dir() { below(&e.path()) } else { m.len() })).sum()
        }
        self.kept.as_deref().map_or(0, below)
    }
}

fn words(line: &str) -> Vec<String> {
    line.split(' ').map(str::to_owned).collect()
}

/// Debian puts daemons where an ordinary user's `PATH` does not look.
fn installed(program: &str) -> PathBuf {
    let sbin = Path::new("/usr/sbin").join(program);
    if sbin.exists() { sbin } else { program.into() }
}

/// What cannot be measured here, and why.
pub(crate) fn missing(binary: &Binary) -> Vec<(Name, String)> {
    let mut missing = Vec::new();
    for name in [Name::Nutcracker, Name::Haproxy] {
        if Command::new(installed(name.id())).arg("--help").output().is_err() {
            missing.push((name, "not installed (scripts/install-servers.sh bench)".to_owned()));
        }
    }
    if !binary.knows("--sharing") {
        missing.push((Name::RedtapeUnshared, "this redtape has no --sharing".to_owned()));
    }
    missing
}

/// Versions, for the report's head.
pub(crate) fn versions(names: &BTreeSet<Name>, binary: &Binary) -> Vec<String> {
    let ask = |program: &Path, arg: &str| -> Option<String> {
        let out = Command::new(program).arg(arg).output().ok()?;
        let said = if out.stdout.is_empty() { out.stderr } else { out.stdout };
        Some(String::from_utf8_lossy(&said).lines().next()?.chars().take(60).collect())
    };
    let mut all = vec![ask(Path::new("redis-server"), "--version")];
    if names.contains(&Name::Nutcracker) {
        all.push(ask(&installed("nutcracker"), "--version"));
    }
    if names.contains(&Name::Haproxy) {
        all.push(ask(&installed("haproxy"), "-v"));
    }
    all.push(ask(&binary.path, "--version"));
    all.into_iter().flatten().collect()
}
