//! A child process: its log, its end. It never outlives this bench, whatever ends it.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

pub(crate) struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `program`; what it says goes to `DIR/NAME.log`.
    pub(crate) fn start(program: &Path, args: &[String], dir: &Path, name: &str) -> Result<Self> {
        let log = dir.join(format!("{name}.log"));
        let out = File::create(&log).with_context(|| format!("write {}", log.display()))?;
        // The kernel kills it when this thread ends in a way that runs no destructors.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(program).args(args).current_dir(dir);
        for (name, _) in std::env::vars_os().filter(|(n, _)| n.to_string_lossy().starts_with("REDTAPE_")) {
            command.env_remove(name);
        }
        command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out);
        let child = command.spawn().with_context(|| format!("start {} (by setpriv)", program.display()))?;
        Ok(Self { child, log })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Asks until `ask` says yes.
    pub(crate) fn wait_until(&mut self, what: &str, mut ask: impl FnMut() -> bool) -> Result<()> {
        let started = Instant::now();
        while !ask() {
            if let Some(status) = self.child.try_wait()? {
                bail!("{what}: the process ended ({status}):\n{}", self.last_words());
            }
            if started.elapsed() > Duration::from_secs(30) {
                bail!("{what}: waited 30 s in vain:\n{}", self.last_words());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    pub(crate) fn said(&self) -> String {
        std::fs::read(&self.log).map(|b| String::from_utf8_lossy(&b).into_owned()).unwrap_or_default()
    }

    pub(crate) fn last_words(&self) -> String {
        let said = self.said();
        let lines: Vec<&str> = said.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A port that nothing listens on now, below the range that the kernel gives to clients.
pub(crate) fn free_port() -> u16 {
    loop {
        let port = rand::random_range(12_000..32_000);
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}

pub(crate) fn local(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// Whether a GET of a key that is not there is answered as Redis does.
pub(crate) fn answers(addr: SocketAddr) -> bool {
    let ask = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect_timeout(&addr, Duration::from_secs(1))?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        stream.write_all(b"*2\r\n$3\r\nGET\r\n$7\r\nnothing\r\n")?;
        let mut reply = [0; 5];
        stream.read_exact(&mut reply)?;
        Ok(&reply == b"$-1\r\n")
    };
    ask().unwrap_or(false)
}

/// The folder of one run. Folders of runs that were killed are removed, too.
pub(crate) struct Scratch(pub(crate) PathBuf);

impl Scratch {
    pub(crate) fn new(below: &Path) -> Result<Self> {
        std::fs::create_dir_all(below).with_context(|| format!("make {}", below.display()))?;
        for entry in std::fs::read_dir(below)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.strip_prefix("run-").is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
                std::fs::remove_dir_all(entry.path())?;
            }
        }
        let dir = below.join(format!("run-{}", std::process::id()));
        std::fs::create_dir_all(&dir)?;
        Ok(Self(dir))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
