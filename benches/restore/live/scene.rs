//! A journal of keys, the same keys as `RESTORE`s in files, and targets with other keys.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Result, bail, ensure};
use redtape_net::reply::{self, Value};
use redtape_wire::resp::encode_command;

use super::Setup;
use crate::process::{Process, free_port, local};
use crate::server::{keys_of, redis};
use crate::whole::record_keys;

/// Keys that a target holds before.
pub(super) const OTHERS: usize = 200_000;
/// Keys that are asked for at once.
const BATCH: usize = 1000;

pub(super) struct Scene {
    pub(super) dir: PathBuf,
}

impl Scene {
    pub(super) fn record(setup: &Setup, dir: &Path) -> Result<Self> {
        std::fs::create_dir_all(dir)?;
        let scene = Self { dir: dir.to_owned() };
        let (server, port) = record_keys(setup.keys, &setup.binary, dir)?;
        scene.dump(setup.keys, port)?;
        drop(server);
        Ok(scene)
    }

    pub(super) fn journal(&self) -> PathBuf {
        self.dir.join("journal")
    }

    /// Files with all `RESTORE`s in so many parts: one or two.
    pub(super) fn parts(&self, count: usize) -> Vec<PathBuf> {
        let names: &[&str] = if count == 1 { &["all"] } else { &["even", "odd"] };
        names.iter().map(|name| self.dir.join(format!("{name}.resp"))).collect()
    }

    fn dump(&self, keys: usize, port: u16) -> Result<()> {
        let mut stream = std::net::TcpStream::connect(local(port))?;
        let mut replies = std::io::BufReader::new(stream.try_clone()?);
        let create = |path: PathBuf| File::create(path).map(BufWriter::new);
        let mut all = create(self.parts(1).remove(0))?;
        let mut halves = self.parts(2).into_iter().map(create).collect::<std::io::Result<Vec<_>>>()?;
        for first in (0..keys).step_by(BATCH) {
            let names: Vec<String> = (first..keys.min(first + BATCH)).map(|n| format!("key:{n:010}")).collect();
            let mut packed = Vec::new();
            for name in &names {
                encode_command(&mut packed, &["DUMP", name.as_str()]);
            }
            stream.write_all(&packed)?;
            for (n, name) in names.iter().enumerate() {
                let Ok(Value::Bytes(dump)) = reply::read(&mut replies)? else { bail!("no value of {name}") };
                let mut command = Vec::new();
                encode_command(&mut command, &[b"RESTORE", name.as_bytes(), b"0", &dump, b"ABSTTL"]);
                all.write_all(&command)?;
                halves[n % 2].write_all(&command)?;
            }
        }
        all.flush()?;
        halves.iter_mut().try_for_each(std::io::Write::flush)?;
        Ok(())
    }
}

/// A server that holds other keys.
pub(super) fn target(dir: &Path) -> Result<(Process, u16)> {
    let port = free_port();
    let dir = dir.join("target");
    std::fs::create_dir_all(&dir)?;
    let server = redis(port, &["--enable-debug-command", "yes"], &dir)?;
    let mut stream = std::net::TcpStream::connect(local(port))?;
    let mut packed = Vec::new();
    encode_command(&mut packed, &["DEBUG", "POPULATE", &OTHERS.to_string(), "other", "64"]);
    stream.write_all(&packed)?;
    let answer = reply::read(&mut std::io::BufReader::new(stream))?;
    ensure!(answer == Ok(Value::Status("OK".to_owned())), "DEBUG POPULATE: {answer:?}");
    ensure!(keys_of(port)? == OTHERS, "the target holds {} keys", keys_of(port)?);
    Ok((server, port))
}
