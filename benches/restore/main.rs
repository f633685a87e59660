//! Question: how long does a restore take?
//!
//! `cargo bench --bench restore` (part of `make bench`; `-- --only live` for one part) measures in turn, round by round. Quote the
//! ratios, and only from a quiet machine; CPU is what stays on a busy one.
//!
//! - `whole`: into an empty server, beside a Redis that loads its own AOF of the same writes. Each history is recorded once, through
//!   redtape and into an AOF.
//!   - once: every key is written once; nothing of the journal can be left out.
//!   - ten times: every key is written ten times; nine of ten writes are dead.
//!   - counters: every key is written once and incremented behind it; nothing can be folded.
//! - `live`: keys that it lacks into a server that holds others, beside its clients, and beside `redis-cli --pipe` with the same
//!   `RESTORE`s.

#![allow(clippy::print_stdout, clippy::print_stderr)] // For the person at the terminal.

#[allow(dead_code, reason = "the peers bench needs more of it")]
#[path = "../peers/process.rs"]
mod process;

mod live;
mod server;
mod whole;

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use clap::{Parser, ValueEnum};
use process::Scratch;

/// Restores beside what else does the same.
#[derive(Parser)]
#[command(name = "restore")]
struct Args {
    /// Only this part.
    #[arg(long)]
    only: Option<Part>,
    /// How many writes each history of whole restores has.
    #[arg(long, default_value_t = 3_000_000)]
    writes: usize,
    /// How many keys go into a live target.
    #[arg(long, default_value_t = 1_000_000)]
    keys: usize,
    /// How often each is measured.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Requests a second of all other clients of a live target together.
    #[arg(long, default_value_t = 2000)]
    client_rate: u32,
    /// cargo says so.
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    Whole,
    Live,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let counts = [args.rounds, args.writes, args.keys, args.client_rate as usize];
    ensure!(counts.iter().all(|count| *count > 0), "--rounds, --writes, --keys and --client-rate must be more than 0");
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let binary = std::env::var_os("REDTAPE_BIN").map_or_else(|| root.join("target/release/redtape"), PathBuf::from);
    let scratch = Scratch::new(&root.join("target/bench"))?;
    if args.only != Some(Part::Live) {
        whole::run(args.writes, args.rounds, &binary, &scratch.0)?;
        println!();
    }
    if args.only != Some(Part::Whole) {
        live::run(
            &live::Setup { keys: args.keys, rounds: args.rounds, client_rate: args.client_rate, binary },
            &scratch.0,
        )?;
    }
    Ok(())
}
