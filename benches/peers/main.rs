//! Question: what does redtape cost, beside Redis alone, Redis with its own AOF, and the proxies that people
//! know, none of which keeps a journal? Speed, waiting, CPU on either side of the proxy, memory of idle clients.
//!
//! `make bench` runs it and `benches/README.md` says how to read it. In short: every peer has a Redis of its
//! own; they are measured in turn, round by round; quote the ratios, and only from a quiet machine.
//!
//!     main ─► cells: what          ─► peers, process: who, started and ended
//!          ─► rounds: one cell     ─► load ─► requests, tls; or redis_benchmark
//!          ─► latency, idle            └──► cpu: what it cost
//!          ─► report ─► goals

#![allow(clippy::print_stdout, clippy::print_stderr)] // For the person at the terminal.

mod cells;
mod cpu;
mod figures;
mod goal;
mod goals;
mod idle;
mod latency;
mod load;
mod peers;
mod process;
mod redis_benchmark;
mod report;
mod requests;
mod rounds;
mod tls;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::{Parser, ValueEnum};

use cells::{Cell, picked};
use peers::{Binary, Name};
use process::Scratch;
use report::{Measured, Report};
use rounds::Plan;

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Generator {
    /// Ours: p99.9, every reply checked, its own CPU known.
    Own,
    RedisBenchmark,
}

/// Redis, its AOF, other proxies and redtape side by side.
#[derive(Parser)]
#[command(name = "peers")]
struct Args {
    /// The whole matrix: hours.
    #[arg(long)]
    full: bool,
    /// Only cells whose names have all parts of one of these: `p1-set,tls,latency,idle`.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Only these peers: `redis,redtape` (Redis alone is what all are compared with).
    #[arg(long, value_delimiter = ',')]
    peer: Vec<String>,
    /// How often each peer is measured in each cell.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// How long each time.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    #[arg(long, value_enum, default_value = "own")]
    generator: Generator,
    /// Size of the crowd that does nothing.
    #[arg(long, default_value_t = 10_000)]
    idle_clients: usize,
    /// Names the cells and ends.
    #[arg(long)]
    list: bool,
    /// cargo says so.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> Result<ExitCode> {
    let args = Args::parse();
    let (all, mut left_out) = if args.full { cells::full() } else { (cells::CORE.to_vec(), Vec::new()) };
    left_out.retain(|line| picked(line.split(':').next().unwrap_or_default(), &args.only));
    let cells: Vec<Cell> = all.into_iter().filter(|c| picked(&c.to_string(), &args.only)).collect();
    let (latency, idle) = (picked("latency", &args.only), picked("idle", &args.only));
    if args.list {
        let others = [("latency", latency), ("idle", idle)].into_iter().filter(|(_, on)| *on);
        for name in cells.iter().map(Cell::to_string).chain(others.map(|(name, _)| name.to_owned())) {
            println!("{name}");
        }
        return Ok(ExitCode::SUCCESS);
    }
    ensure!(args.rounds > 0 && args.seconds > 0.0, "--rounds and --seconds must be more than 0");
    for peer in &args.peer {
        let known = Name::ALL.map(Name::id);
        ensure!(known.contains(&peer.as_str()), "no peer {peer}; there are {}", known.join(", "));
    }

    let files = idle::raise_file_limit();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let out = root.join("target/bench");
    let binary = Binary::find(root)?;
    let scratch = Scratch::new(&out)?;
    let plan = Plan {
        rounds: args.rounds,
        time: Duration::from_secs_f64(args.seconds),
        redis_benchmark: args.generator == Generator::RedisBenchmark,
        client_tls: tls::certificates(&scratch.0)?,
    };
    let mut names: BTreeSet<Name> =
        Name::ALL.into_iter().filter(|n| args.peer.is_empty() || args.peer.iter().any(|p| p == n.id())).collect();
    for (name, why) in peers::missing(&binary) {
        if names.remove(&name) {
            left_out.push(format!("{}: {why}", name.id()));
        }
    }

    let mut report =
        Report { versions: peers::versions(&names, &binary), run: describe(&args), left_out, ..Report::default() };
    let started = Instant::now();
    let mut no_tls = false;
    for (n, cell) in cells.iter().enumerate() {
        eprintln!("[{:4.0} s] {}/{} {cell}", started.elapsed().as_secs_f64(), n + 1, cells.len());
        if plan.redis_benchmark && cell.work == cells::Work::Mixed {
            report.left_out.push(format!("{cell}: redis-benchmark has no mixed work"));
            continue;
        }
        let without_tls = cell.tls && !binary.knows("--tls-listen");
        no_tls |= without_tls;
        let here: Vec<Name> =
            names.iter().copied().filter(|n| n.takes_part(cell.tls) && !(without_tls && n.is_redtape())).collect();
        let series = rounds::measure(cell, &here, &plan, &binary, &scratch.0);
        let measured = Measured { cell: *cell, name: cell.to_string(), series };
        // At once: a long run may be watched, or stopped.
        println!("{}", measured.markdown());
        report.cells.push(measured);
    }
    if no_tls {
        report.left_out.push("redtape in TLS cells: this redtape has no --tls-listen".to_owned());
    }
    if latency {
        eprintln!("[{:4.0} s] latency", started.elapsed().as_secs_f64());
        let all: Vec<Name> = names.iter().copied().collect();
        report.trips = latency::measure(&all, &plan, &binary, &scratch.0);
    }
    if idle {
        eprintln!("[{:4.0} s] idle", started.elapsed().as_secs_f64());
        let clients = idle::clients_within(args.idle_clients, files);
        if clients < args.idle_clients {
            report.left_out.push(format!("{} idle clients: {files} files at most, so {clients}", args.idle_clients));
        }
        let crowd = |n: &Name| *n == Name::Redis || n.is_redtape();
        let some: Vec<Name> = names.iter().copied().filter(crowd).collect();
        report.crowds = idle::measure(&some, clients, &plan, &binary, &scratch.0);
    }
    eprintln!("[{:4.0} s] done", started.elapsed().as_secs_f64());

    report.goals = goals::judge(&report);
    let markdown = report.markdown();
    println!("{markdown}");
    let write = |name: &str, text: &str| {
        let file = out.join(name);
        std::fs::write(&file, text).with_context(|| format!("write {}", file.display()))
    };
    write("peers.md", &markdown)?;
    write("peers.json", &serde_json::to_string_pretty(&report)?)?;
    for series in report.cells.iter().flat_map(|c| &c.series) {
        if let Some(why) = &series.failed {
            eprintln!("{}: {why}", series.peer.id());
        }
    }
    let failed = report.failures();
    ensure!(failed == 0, "{failed} measurements failed");
    Ok(ExitCode::SUCCESS)
}

fn describe(args: &Args) -> String {
    let generator = match args.generator {
        Generator::Own => "own generator",
        Generator::RedisBenchmark => "redis-benchmark",
    };
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!(
        "Medians of {} rounds of {} s, {generator}; {} processors, Linux {}.",
        args.rounds,
        args.seconds,
        rounds::processors(),
        kernel.trim()
    )
}
