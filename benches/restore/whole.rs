//! Whole restores into an empty server, beside a Redis that loads its own AOF of the same writes.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use rand::RngExt as _;

use crate::process::{Process, answers, free_port, local};
use crate::server::{children_cpu_seconds, cpu_seconds, end, keys_of, median, redis};

/// Requests that are sent in one write.
const BATCH: usize = 500;
/// Replies that may be missing while more is sent.
const AHEAD: usize = 30_000;
/// How long the journal and the AOF may take to have everything.
const SETTLE: Duration = Duration::from_secs(3);

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

/// Measures each history; prints a table.
pub(crate) fn run(writes: usize, rounds: usize, binary: &Path, scratch: &Path) -> Result<()> {
    println!("Whole restores of {writes} writes, medians of {rounds} rounds; AOF loading = 1.");
    println!();
    println!(
        "| history | AOF s | restore s | x AOF | goal | `--no-slice` s | x AOF | CPU AOF | CPU redtape + server |"
    );
    println!("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |");
    for history in &HISTORIES {
        let dir = scratch.join(history.name.replace(' ', "-"));
        let keys = record(history, writes / history.times, binary, &dir)?;
        println!("{}", measure(history, keys, rounds, binary, &dir)?);
        std::fs::remove_dir_all(&dir)?;
    }
    Ok(())
}

/// A Redis with an AOF and redtape in front of it take the writes. Returns the number of keys.
fn record(history: &History, keys: usize, binary: &Path, dir: &Path) -> Result<usize> {
    std::fs::create_dir_all(dir.join("aof"))?;
    let port = free_port();
    let redis = redis(port, &["--appendonly", "yes"], &dir.join("aof"))?;
    record_through(history, keys, port, binary, dir)?;
    end(&redis)?;
    Ok(keys)
}

/// A Redis with so many keys, written once each, and the journal of that in a folder.
pub(crate) fn record_keys(keys: usize, binary: &Path, dir: &Path) -> Result<(Process, u16)> {
    let port = free_port();
    let redis = redis(port, &[], dir)?;
    record_through(&HISTORIES[0], keys, port, binary, dir)?;
    Ok((redis, port))
}

/// A redtape in front of the Redis at a port takes the writes.
fn record_through(history: &History, keys: usize, port: u16, binary: &Path, dir: &Path) -> Result<()> {
    let proxy_port = free_port();
    let upstream = format!("redis://127.0.0.1:{port}");
    let journal = dir.join("journal").display().to_string();
    let proxy_args = ["proxy", "--listen", &local(proxy_port).to_string(), "--upstream", &upstream, "--dir", &journal];
    let mut proxy = Process::start(binary, &proxy_args.map(str::to_owned), dir, "proxy")?;
    proxy.wait_until("redtape", || answers(local(proxy_port)))?;
    std::thread::sleep(SETTLE);
    write(history, keys, proxy_port)?;
    std::thread::sleep(SETTLE);
    end(&proxy)
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
