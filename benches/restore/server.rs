//! Servers of the bench, and what is known of processes.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use crate::process::{Process, answers, local};

pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(0.0)
}

/// A Redis that answers: it has loaded what it had to.
pub(crate) fn redis(port: u16, args: &[&str], dir: &Path) -> Result<Process> {
    let port_text = port.to_string();
    // What the AOF holds must stay commands.
    let never = ["--save", "", "--auto-aof-rewrite-percentage", "0", "--repl-diskless-sync-delay", "0"];
    let common = ["--port", &port_text].into_iter().chain(never);
    let all: Vec<String> = common.chain(args.iter().copied()).map(str::to_owned).collect();
    let mut server = Process::start(Path::new("redis-server"), &all, dir, "redis")?;
    server.wait_until("redis-server", || answers(local(port)))?;
    Ok(server)
}

/// Ends a process in order.
pub(crate) fn end(process: &Process) -> Result<()> {
    let pid = process.pid();
    let asked = std::process::Command::new("kill").args(["-TERM", &pid.to_string()]).status()?;
    ensure!(asked.success(), "process {pid} is gone:\n{}", process.last_words());
    let (begun, limit) = (Instant::now(), Duration::from_secs(30));
    while stat(&pid.to_string())?.first().is_none_or(|state| state != "Z") {
        ensure!(begun.elapsed() < limit, "process {pid} did not end:\n{}", process.last_words());
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

pub(crate) fn keys_of(port: u16) -> Result<usize> {
    let mut stream = TcpStream::connect(local(port))?;
    stream.write_all(b"DBSIZE\r\n")?;
    let mut room = [0; 64];
    let n = stream.read(&mut room)?;
    let text = std::str::from_utf8(&room[..n])?.trim();
    text.strip_prefix(':').and_then(|keys| keys.parse().ok()).with_context(|| format!("DBSIZE: {text}"))
}

/// `/proc/PID/stat` from the state on.
pub(crate) fn stat(pid: &str) -> Result<Vec<String>> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name, in parentheses, may hold spaces.
    let (_, rest) = stat.rsplit_once(')').context("/proc/PID/stat without a name")?;
    Ok(rest.split_whitespace().map(str::to_owned).collect())
}

/// User and system time of these fields of `/proc/PID/stat`, counted from the state.
pub(crate) fn seconds_of(pid: &str, fields: [usize; 2]) -> Result<f64> {
    let stat = stat(pid)?;
    let ticks: u64 = fields.iter().filter_map(|at| stat.get(*at)?.parse::<u64>().ok()).sum();
    Ok(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}

pub(crate) fn cpu_seconds(pid: u32) -> Result<f64> {
    seconds_of(&pid.to_string(), [11, 12])
}

/// Of children that have ended and were waited for: of restores, and of servers.
pub(crate) fn children_cpu_seconds() -> Result<f64> {
    seconds_of("self", [13, 14])
}
