//! Question: how long does a whole restore take, beside a Redis that loads its own AOF of the same writes?
//!
//! `cargo bench --bench restore` (part of `make bench`) records each history once, through redtape and into an AOF, then measures
//! in turn, round by round. Quote the ratios, and only from a quiet machine; CPU is what stays on a busy one.
//!
//! - once: every key is written once; nothing of the journal can be left out.
//! - ten times: every key is written ten times; nine of ten writes are dead.
//! - counters: every key is written once and incremented behind it; nothing can be folded.

#![allow(clippy::print_stdout, clippy::print_stderr)] // For the person at the terminal.

#[allow(dead_code, reason = "the peers bench needs more of it")]
#[path = "peers/process.rs"]
mod process;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use process::{Process, Scratch, answers, free_port, local};
use rand::RngExt as _;

/// Requests that are sent in one write.
const BATCH: usize = 500;
/// Replies that may be missing while more is sent.
const AHEAD: usize = 30_000;
/// How long the journal and the AOF may take to have everything.
const SETTLE: Duration = Duration::from_secs(3);

/// Whole restores beside the loading of an AOF.
#[derive(Parser)]
#[command(name = "restore")]
struct Args {
    /// How many writes each history has.
    #[arg(long, default_value_t = 3_000_000)]
    writes: usize,
    /// How often each is measured.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// cargo says so.
    #[arg(long, hide = true)]
    bench: bool,
}

/// A history of writes, and the goal: how many times as fast as the AOF a restore is to be.
struct History {
    name: &'static str,
    /// How often each key is written.
    times: usize,
    /// From the second time on, it is incremented.
    increments: bool,
    goal: Option<f64>,
}

const HISTORIES: [History; 3] = [
    History { name: "once", times: 1, increments: false, goal: Some(1.0) },
    History { name: "ten times", times: 10, increments: false, goal: Some(3.0) },
    History { name: "counters", times: 2, increments: true, goal: None },
];

fn main() -> Result<()> {
    let args = Args::parse();
    ensure!(args.rounds > 0 && args.writes > 0, "--rounds and --writes must be more than 0");
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let binary = std::env::var_os("REDTAPE_BIN").map_or_else(|| root.join("target/release/redtape"), PathBuf::from);
    let scratch = Scratch::new(&root.join("target/bench"))?;
    println!("Whole restores of {} writes, medians of {} rounds; AOF loading = 1.", args.writes, args.rounds);
    println!();
    println!(
        "| history | AOF s | restore s | x AOF | goal | `--no-slice` s | x AOF | CPU AOF | CPU redtape + server |"
    );
    println!("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |");
    for history in &HISTORIES {
        let dir = scratch.0.join(history.name.replace(' ', "-"));
        let keys = record(history, args.writes / history.times, &binary, &dir)?;
        println!("{}", measure(history, keys, args.rounds, &binary, &dir)?);
        std::fs::remove_dir_all(&dir)?;
    }
    Ok(())
}

/// A Redis with an AOF and redtape in front of it take the writes. Returns the number of keys.
fn record(history: &History, keys: usize, binary: &Path, dir: &Path) -> Result<usize> {
    std::fs::create_dir_all(dir.join("aof"))?;
    let (port, proxy_port) = (free_port(), free_port());
    let redis = redis(port, &["--appendonly", "yes"], &dir.join("aof"))?;
    let upstream = format!("redis://127.0.0.1:{port}");
    let journal = dir.join("journal").display().to_string();
    let proxy_args = ["proxy", "--listen", &local(proxy_port).to_string(), "--upstream", &upstream, "--dir", &journal];
    let mut proxy = Process::start(binary, &proxy_args.map(str::to_owned), dir, "proxy")?;
    proxy.wait_until("redtape", || answers(local(proxy_port)))?;
    std::thread::sleep(SETTLE);
    write(history, keys, proxy_port)?;
    std::thread::sleep(SETTLE);
    end(&proxy)?;
    end(&redis)?;
    Ok(keys)
}

fn write(history: &History, keys: usize, port: u16) -> Result<()> {
    let mut stream = TcpStream::connect(local(port))?;
    let mut replies = stream.try_clone()?;
    let (mut missing, mut batch, mut room) = (0, Vec::new(), vec![0; 1 << 20]);
    let mut rng = rand::rng();
    let mut take = |missing: &mut usize, most: usize| -> Result<()> {
        while *missing > most {
            let n = replies.read(&mut room)?;
            ensure!(n > 0, "redtape closed the connection");
            *missing -= memchr::memchr_iter(b'\n', &room[..n]).count();
        }
        Ok(())
    };
    for time in 0..history.times {
        for key in 0..keys {
            let value = match (history.increments, time) {
                (true, 0) => "1".to_owned(),
                (true, _) => String::new(),
                _ => format!("{:032x}{:032x}", rng.random::<u128>(), rng.random::<u128>()),
            };
            let words: &[&str] = if value.is_empty() { &["INCR"] } else { &["SET", &value] };
            let key = format!("key:{key:010}");
            redtape_wire::resp::encode_command(&mut batch, &[&[words[0], key.as_str()], &words[1..]].concat());
            missing += 1;
            if missing % BATCH == 0 {
                stream.write_all(&batch)?;
                batch.clear();
                take(&mut missing, AHEAD)?;
            }
        }
    }
    stream.write_all(&batch)?;
    take(&mut missing, 0)
}

/// Measures in turn; a row of the table.
fn measure(history: &History, keys: usize, rounds: usize, binary: &Path, dir: &Path) -> Result<String> {
    let (mut aof, mut sliced, mut whole) = (Series::default(), Series::default(), Series::default());
    for round in 0..rounds {
        eprintln!("{}: round {} of {rounds}", history.name, round + 1);
        let (port, begun) = (free_port(), Instant::now());
        let server = redis(port, &["--appendonly", "yes"], &dir.join("aof"))?;
        aof.add(begun.elapsed(), 0.0, cpu_seconds(server.pid())?);
        ensure!(keys_of(port)? == keys, "the AOF holds {} keys instead of {keys}", keys_of(port)?);
        drop(server);
        for (series, more) in [(&mut sliced, None), (&mut whole, Some("--no-slice"))] {
            restore(series, more, keys, binary, dir)?;
        }
    }
    let (of_aof, of_sliced, of_whole) = (aof.seconds(), sliced.seconds(), whole.seconds());
    let goal = history.goal.map_or_else(|| "-".to_owned(), |goal| format!("{goal:.1}"));
    Ok(format!(
        "| {} | {of_aof:.2} | {of_sliced:.2} | **{:.2}** | {goal} | {of_whole:.2} | {:.2} | {:.2} | {:.2} + {:.2} |",
        history.name,
        of_aof / of_sliced,
        of_aof / of_whole,
        median(&aof.server_cpu),
        median(&sliced.redtape_cpu),
        median(&sliced.server_cpu),
    ))
}

/// Restores into an empty server.
fn restore(series: &mut Series, more: Option<&str>, keys: usize, binary: &Path, dir: &Path) -> Result<()> {
    let port = free_port();
    let target = dir.join("target");
    std::fs::create_dir_all(&target)?;
    // A replica leaves the RDB that it got.
    let _ = std::fs::remove_file(target.join("dump.rdb"));
    let server = redis(port, &[], &target)?;
    let (journal, to) = (dir.join("journal").display().to_string(), format!("redis://127.0.0.1:{port}"));
    let args = ["restore", "--from", &journal, "--at", "latest", "--to", &to].into_iter().chain(more);
    let (cpu, begun) = (children_cpu_seconds()?, Instant::now());
    let output = std::process::Command::new(binary).args(args).output()?;
    let (elapsed, cpu) = (begun.elapsed(), children_cpu_seconds()? - cpu);
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    series.add(elapsed, cpu, cpu_seconds(server.pid())?);
    ensure!(keys_of(port)? == keys, "the target holds {} keys instead of {keys}", keys_of(port)?);
    Ok(())
}

/// Seconds of each round.
#[derive(Default)]
struct Series {
    elapsed: Vec<f64>,
    redtape_cpu: Vec<f64>,
    server_cpu: Vec<f64>,
}

impl Series {
    fn add(&mut self, elapsed: Duration, redtape_cpu: f64, server_cpu: f64) {
        self.elapsed.push(elapsed.as_secs_f64());
        self.redtape_cpu.push(redtape_cpu);
        self.server_cpu.push(server_cpu);
    }

    fn seconds(&self) -> f64 {
        median(&self.elapsed)
    }
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(0.0)
}

/// A Redis that answers: it has loaded what it had to.
fn redis(port: u16, args: &[&str], dir: &Path) -> Result<Process> {
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
fn end(process: &Process) -> Result<()> {
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

fn keys_of(port: u16) -> Result<usize> {
    let mut stream = TcpStream::connect(local(port))?;
    stream.write_all(b"DBSIZE\r\n")?;
    let mut room = [0; 64];
    let n = stream.read(&mut room)?;
    let text = std::str::from_utf8(&room[..n])?.trim();
    text.strip_prefix(':').and_then(|keys| keys.parse().ok()).with_context(|| format!("DBSIZE: {text}"))
}

/// `/proc/PID/stat` from the state on.
fn stat(pid: &str) -> Result<Vec<String>> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name, in parentheses, may hold spaces.
    let (_, rest) = stat.rsplit_once(')').context("/proc/PID/stat without a name")?;
    Ok(rest.split_whitespace().map(str::to_owned).collect())
}

/// User and system time of these fields of `/proc/PID/stat`, counted from the state.
fn seconds_of(pid: &str, fields: [usize; 2]) -> Result<f64> {
    let stat = stat(pid)?;
    let ticks: u64 = fields.iter().filter_map(|at| stat.get(*at)?.parse::<u64>().ok()).sum();
    Ok(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}

fn cpu_seconds(pid: u32) -> Result<f64> {
    seconds_of(&pid.to_string(), [11, 12])
}

/// Of children that have ended and were waited for: of restores, and of servers.
fn children_cpu_seconds() -> Result<f64> {
    seconds_of("self", [13, 14])
}
