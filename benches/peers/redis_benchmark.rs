//! `redis-benchmark` as the generator: the field's own, without p99.9 and without a look at the replies.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::cells::{Cell, Work};

/// What a generator has to tell.
pub(crate) struct Outcome {
    pub(crate) requests: u64,
    pub(crate) per_second: f64,
    /// Microseconds.
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) p999: Option<f64>,
}

/// It takes a number of requests, not a time: how many are likely to take as long.
pub(crate) fn guess(cell: &Cell, addr: SocketAddr, time: Duration) -> Result<u64> {
    let requests = if cell.bytes > 1024 { 2_000 } else { 20_000 } * cell.pipeline.min(8) as u64;
    Ok((run(cell, addr, requests)?.per_second * time.as_secs_f64()) as u64 + 1)
}

pub(crate) fn run(cell: &Cell, addr: SocketAddr, requests: u64) -> Result<Outcome> {
    let test = match cell.work {
        Work::Mixed => bail!("redis-benchmark has no mixed work"),
        work => work.name(),
    };
    let mut command = Command::new("redis-benchmark");
    command.args(["-h", "127.0.0.1", "-p", &addr.port().to_string(), "-t", test, "--csv"]);
    for (flag, value) in [("-c", cell.clients), ("-P", cell.pipeline), ("-d", cell.bytes), ("-r", cell.keys())] {
        command.args([flag, &value.to_string()]);
    }
    command.args(["-n", &requests.to_string()]);
    if cell.tls {
        command.args(["--tls", "--insecure"]);
    }
    let out = command.output().context("run redis-benchmark")?;
    let said = String::from_utf8_lossy(&out.stdout);
    ensure!(out.status.success(), "redis-benchmark: {}: {said}{}", out.status, String::from_utf8_lossy(&out.stderr));
    // "test","rps","avg_latency_ms","min_latency_ms","p50_latency_ms","p95_latency_ms","p99_latency_ms","max"
    let line = said.lines().rfind(|l| l.starts_with('"') && !l.starts_with("\"test\""));
    let line = line.with_context(|| format!("redis-benchmark said: {said}"))?;
    let numbers: Vec<f64> = line.split(',').filter_map(|f| f.trim_matches('"').parse().ok()).collect();
    let [per_second, _, _, p50, _, p99, ..] = numbers[..] else { bail!("redis-benchmark said: {line}") };
    Ok(Outcome { requests, per_second, p50: p50 * 1e3, p99: p99 * 1e3, p999: None })
}
