//! One cell on all peers: started afresh, measured in turn, round by round, so that what disturbs the machine
//! disturbs all.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::Serialize;

use crate::cells::Cell;
use crate::cpu::{self, Cpu};
use crate::load::Load;
use crate::peers::{Binary, Name, Peer};
use crate::process::local;
use crate::redis_benchmark;

/// How it is measured.
pub(crate) struct Plan {
    pub(crate) rounds: usize,
    pub(crate) time: Duration,
    /// Load by `redis-benchmark` instead of ours.
    pub(crate) redis_benchmark: bool,
    pub(crate) client_tls: Arc<rustls::ClientConfig>,
}

/// What one peer did in one round.
#[derive(Clone, Serialize)]
pub(crate) struct Slice {
    pub(crate) per_second: f64,
    /// Microseconds.
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) p999: Option<f64>,
    /// CPU microseconds for each operation, what was put off until after the last reply included.
    pub(crate) server_cpu: f64,
    pub(crate) proxy_cpu: f64,
    pub(crate) generator_cpu: Option<f64>,
    /// Share of the machine that was neither idle nor ours.
    pub(crate) others: f64,
    /// Bytes that AOF or journal grew by for each operation.
    pub(crate) kept_bytes: f64,
}

/// All rounds of one peer, or why it has none.
#[derive(Serialize)]
pub(crate) struct Series {
    pub(crate) peer: Name,
    pub(crate) slices: Vec<Slice>,
    pub(crate) failed: Option<String>,
}

/// Started peers of a cell; a peer that fails is out, and the others go on.
pub(crate) struct Field {
    pub(crate) peers: Vec<(Name, Result<Peer, String>)>,
}

impl Field {
    pub(crate) fn start(names: &[Name], binary: &Binary, tls: bool, dir: &Path) -> Self {
        let start = |&name: &Name| (name, Peer::start(name, binary, tls, dir).map_err(|e| format!("{e:#}")));
        Self { peers: names.iter().map(start).collect() }
    }

    /// Does this to each that still runs, beginning with another one in each round.
    pub(crate) fn each(&mut self, round: usize, mut work: impl FnMut(&mut Peer) -> Result<()>) {
        let n = self.peers.len();
        for i in 0..n {
            let (_, state) = &mut self.peers[(i + round) % n];
            if let Ok(peer) = state
                && let Err(e) = work(peer)
            {
                *state = Err(format!("{e:#}\n{}", peer.last_words()));
            }
        }
    }

    pub(crate) fn failure(&self, name: Name) -> Option<String> {
        self.peers.iter().find(|(n, _)| *n == name)?.1.as_ref().err().cloned()
    }
}

pub(crate) fn measure(cell: &Cell, names: &[Name], plan: &Plan, binary: &Binary, dir: &Path) -> Vec<Series> {
    let mut field = Field::start(names, binary, cell.tls, dir);
    field.each(0, |peer| {
        if cell.work.reads() {
            peer.fill(cell)?;
        }
        cpu::wait_quiet(&peer.pids(), Duration::from_secs(10))
    });
    let mut series: Vec<Series> = names.iter().map(|&peer| Series { peer, slices: Vec::new(), failed: None }).collect();
    for round in 0..plan.rounds {
        field.each(round, |peer| {
            let slice = slice(cell, peer, plan)?;
            if cell.work.grows() {
                peer.empty()?;
                cpu::wait_quiet(&peer.pids(), Duration::from_secs(5))?;
            }
            series.iter_mut().filter(|s| s.peer == peer.name).for_each(|s| s.slices.push(slice.clone()));
            Ok(())
        });
    }
    for series in &mut series {
        series.failed = field.failure(series.peer);
    }
    series
}

/// Totals at one moment.
struct Totals {
    server: Cpu,
    proxy: Option<Cpu>,
    machine_ns: u64,
    own_ns: u64,
    kept: u64,
    at: Instant,
}

impl Totals {
    fn of(peer: &Peer) -> Result<Self> {
        Ok(Self {
            kept: peer.kept_bytes(),
            server: Cpu::of(peer.server.pid())?,
            proxy: peer.proxy.as_ref().map(|p| Cpu::of(p.pid())).transpose()?,
            machine_ns: cpu::machine_busy_ns()?,
            own_ns: cpu::own_thread_ns(),
            at: Instant::now(),
        })
    }
}

fn slice(cell: &Cell, peer: &Peer, plan: &Plan) -> Result<Slice> {
    let addr = local(if cell.tls { peer.tls_port } else { peer.port });
    let outcome;
    let (before, at_end);
    if plan.redis_benchmark {
        let requests = redis_benchmark::guess(cell, addr, plan.time)?;
        before = Totals::of(peer)?;
        outcome = redis_benchmark::run(cell, addr, requests)?;
        at_end = Totals::of(peer)?;
    } else {
        let tls = cell.tls.then_some(&plan.client_tls);
        let mut load = Load::connect(cell, addr, tls)?;
        load.run_for(Duration::from_millis(250)).context("warming up")?;
        before = Totals::of(peer)?;
        let measured = load.run_for(plan.time)?;
        at_end = Totals::of(peer)?;
        let tail = load.drain()?;
        let us = |quantile| measured.latency.value_at_quantile(quantile) as f64 / 1e3;
        outcome = redis_benchmark::Outcome {
            requests: measured.replies + tail.replies,
            per_second: measured.replies as f64 / measured.seconds,
            p50: us(0.5),
            p99: us(0.99),
            p999: Some(us(0.999)),
        };
    }
    cpu::wait_quiet(&peer.pids(), Duration::from_secs(5))?;
    let after = Totals::of(peer)?;

    let each = |ns: u64| ns as f64 / 1e3 / outcome.requests.max(1) as f64;
    let used = |from: &Totals, to: &Totals| {
        let proxy = to.proxy.as_ref().zip(from.proxy.as_ref()).map_or(0, |(to, from)| to.since(from));
        (to.server.since(&from.server), proxy)
    };
    let (server, proxy) = used(&before, &after);
    let own_ns = at_end.own_ns - before.own_ns;
    let (server_then, proxy_then) = used(&before, &at_end);
    let ours = server_then + proxy_then + own_ns;
    let machine = at_end.at.duration_since(before.at).as_nanos() as f64 * processors();
    let others = (at_end.machine_ns - before.machine_ns) as f64 - ours as f64;
    Ok(Slice {
        per_second: outcome.per_second,
        p50: outcome.p50,
        p99: outcome.p99,
        p999: outcome.p999,
        server_cpu: each(server),
        proxy_cpu: each(proxy),
        generator_cpu: (!plan.redis_benchmark).then(|| each(own_ns)),
        others: if plan.redis_benchmark { f64::NAN } else { (others / machine).max(0.0) },
        kept_bytes: after.kept.saturating_sub(before.kept) as f64 / outcome.requests.max(1) as f64,
    })
}

pub(crate) fn processors() -> f64 {
    std::thread::available_parallelism().map_or(1.0, |n| n.get() as f64)
}
