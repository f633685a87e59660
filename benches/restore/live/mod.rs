//! Keys that it lacks into a server that holds others and has eight other clients: by `redtape restore`, and by `redis-cli --pipe`
//! with the same `RESTORE`s, through one connection and through two.
//!
//! Each run has a target of its own. `writing` is the step in which keys are written; the rest of a restore replays the journal,
//! compares with the target, and checks.

mod clients;
mod memory;
mod scene;

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use self::clients::Clients;
use self::memory::{Peaks, peak_mib};
use self::scene::{OTHERS, Scene, target};
use crate::server::{children_cpu_seconds, cpu_seconds, keys_of, median};

/// How long clients are watched while nothing else is done.
const CALM: Duration = Duration::from_secs(3);
/// The step of a restore in which keys are written.
const WRITING: &str = "writing keys";
/// Between two looks at the memory.
const LOOK_EVERY: Duration = Duration::from_millis(20);

pub(crate) struct Setup {
    pub(crate) keys: usize,
    pub(crate) rounds: usize,
    /// Requests a second of all clients together.
    pub(crate) client_rate: u32,
    pub(crate) binary: PathBuf,
}

/// What fills the target.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Filler {
    Nobody,
    Pipes(usize),
    Restore,
    /// The others, too, are removed: the target holds what was recorded and nothing else.
    ReplaceAll,
}

const FILLERS: [(&str, Filler); 5] = [
    ("nobody", Filler::Nobody),
    ("redis-cli --pipe", Filler::Pipes(1)),
    ("two of them", Filler::Pipes(2)),
    ("redtape restore", Filler::Restore),
    ("redtape restore --replace-all", Filler::ReplaceAll),
];

/// Of one run.
#[derive(Default, Clone, Copy)]
struct Measured {
    writing_s: f64,
    all_s: f64,
    p99_ms: f64,
    worst_ms: f64,
    /// While keys were written.
    filler_cpu_s: f64,
    target_cpu_s: f64,
    /// From begin to end, that of scratch servers included.
    all_cpu_s: f64,
    filler_mib: f64,
    scratch_mib: f64,
    target_mib: f64,
}

/// Prints a table.
pub(crate) fn run(setup: &Setup, dir: &Path) -> Result<()> {
    println!(
        "{} keys of 64 bytes into a target with {OTHERS} others, beside {} clients with {} requests a second; medians of {} rounds.",
        setup.keys,
        clients::CLIENTS,
        setup.client_rate,
        setup.rounds
    );
    println!();
    let scene = Scene::record(setup, &dir.join("live"))?;
    let mut measured: Vec<Vec<Measured>> = vec![Vec::new(); FILLERS.len()];
    for round in 0..setup.rounds {
        for ((name, filler), all) in FILLERS.iter().zip(&mut measured) {
            let one = measure(*filler, setup, &scene).with_context(|| (*name).to_owned())?;
            eprintln!(
                "live: round {} of {}, {name}: writing {:.2} s, all {:.2} s, p99 {:.2} ms, worst {:.2} ms",
                round + 1,
                setup.rounds,
                one.writing_s,
                one.all_s,
                one.p99_ms,
                one.worst_ms
            );
            all.push(one);
        }
    }
    print(setup, &measured);
    std::fs::remove_dir_all(dir.join("live"))?;
    Ok(())
}

fn print(setup: &Setup, measured: &[Vec<Measured>]) {
    println!(
        "| | keys/s writing | x pipe | keys/s over all | x pipe | CPU us/key writing | over all | target CPU us/key | p99 ms | worst ms | MiB | scratch MiB | target MiB |"
    );
    println!("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |");
    let of = |runs: &[Measured], field: fn(&Measured) -> f64| median(&runs.iter().map(field).collect::<Vec<_>>());
    let pipe = &measured[1];
    for ((name, filler), runs) in FILLERS.iter().zip(measured) {
        let of = |field: fn(&Measured) -> f64| of(runs, field);
        let (p99, worst, target) = (of(|m| m.p99_ms), of(|m| m.worst_ms), of(|m| m.target_mib));
        if *filler == Filler::Nobody {
            println!("| {name} | | | | | | | | {p99:.2} | {worst:.1} | | | {target:.0} |");
            continue;
        }
        let keys = setup.keys as f64;
        let ratio = |field: fn(&Measured) -> f64| median(&pipe.iter().map(field).collect::<Vec<_>>()) / of(field);
        println!(
            "| {name} | {:.0} | **{:.2}** | {:.0} | {:.2} | {:.2} | {:.2} | {:.2} | {p99:.2} | {worst:.1} | {:.0} | {:.0} | {target:.0} |",
            keys / of(|m| m.writing_s),
            ratio(|m| m.writing_s),
            keys / of(|m| m.all_s),
            ratio(|m| m.all_s),
            of(|m| m.filler_cpu_s) * 1e6 / keys,
            of(|m| m.all_cpu_s) * 1e6 / keys,
            of(|m| m.target_cpu_s) * 1e6 / keys,
            of(|m| m.filler_mib),
            of(|m| m.scratch_mib),
        );
    }
}

fn measure(filler: Filler, setup: &Setup, scene: &Scene) -> Result<Measured> {
    let (server, port) = target(&scene.dir)?;
    let clients = Clients::start(port, setup.client_rate)?;
    std::thread::sleep(Duration::from_millis(500));
    let cpu = children_cpu_seconds()?;
    let begun = Instant::now();
    let mut ran = match filler {
        Filler::Nobody => {
            std::thread::sleep(CALM);
            Ran { span: (begun, Instant::now()), ..Ran::default() }
        }
        Filler::Pipes(count) => pipes(count, scene, port, server.pid())?,
        Filler::Restore => {
            let added = ["--key", "key:*", "--on-conflict", "skip"];
            restore(setup, scene, port, server.pid(), &added)?
        }
        Filler::ReplaceAll => {
            let address = format!("127.0.0.1:{port}");
            restore(setup, scene, port, server.pid(), &["--replace-all", "--confirm", &address])?
        }
    };
    let ended = Instant::now();
    let trips = clients.end()?;
    ran.measured.all_cpu_s = children_cpu_seconds()? - cpu;
    if let Filler::Pipes(_) = filler {
        ran.measured.filler_cpu_s = ran.measured.all_cpu_s;
    }
    if filler != Filler::Nobody {
        let held = keys_of(port)?;
        let others = if filler == Filler::ReplaceAll { 0 } else { OTHERS };
        ensure!(held >= setup.keys + others, "the target holds {held} keys");
    }
    Ok(Measured {
        writing_s: (ran.span.1 - ran.span.0).as_secs_f64(),
        all_s: (ended - begun).as_secs_f64(),
        p99_ms: trips.quantile(0.99, ran.span),
        worst_ms: trips.quantile(1.0, ran.span),
        target_mib: peak_mib(server.pid()).unwrap_or(0.0),
        ..ran.measured
    })
}

/// When keys were written, and what is known since.
struct Ran {
    span: (Instant, Instant),
    measured: Measured,
}

impl Default for Ran {
    fn default() -> Self {
        let now = Instant::now();
        Self { span: (now, now), measured: Measured::default() }
    }
}

/// When a restore said something, and the processor's time until then, in seconds.
struct Moment {
    at: Instant,
    own_cpu: f64,
    target_cpu: f64,
}

/// So many of them side by side.
fn pipes(count: usize, scene: &Scene, port: u16, target: u32) -> Result<Ran> {
    let mut ran = Ran::default();
    let cpu = cpu_seconds(target)?;
    ran.span.0 = Instant::now();
    let mut children = Vec::new();
    for part in scene.parts(count) {
        let file = std::fs::File::open(part)?;
        let mut command = Command::new("redis-cli");
        command.args(["-p", &port.to_string(), "--pipe"]).stdin(file).stdout(Stdio::piped());
        children.push(command.spawn()?);
    }
    let mut peaks = Peaks::default();
    for child in &mut children {
        watch(child, &mut peaks)?;
        let mut said = String::new();
        child.stdout.take().context("its output")?.read_to_string(&mut said)?;
        ensure!(said.contains("errors: 0"), "{said}");
    }
    ran.span.1 = Instant::now();
    ran.measured.target_cpu_s = cpu_seconds(target)? - cpu;
    ran.measured.filler_mib = peaks.own;
    Ok(ran)
}

/// Waits for its end.
fn watch(child: &mut Child, peaks: &mut Peaks) -> Result<()> {
    loop {
        peaks.look(child.id());
        if let Some(status) = child.try_wait()? {
            ensure!(status.success(), "it ended with {status}");
            return Ok(());
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

fn restore(setup: &Setup, scene: &Scene, port: u16, target: u32, options: &[&str]) -> Result<Ran> {
    let mut ran = Ran::default();
    let (from, state) = (scene.journal(), tempfile::tempdir_in(&scene.dir)?);
    let mut command = Command::new(&setup.binary);
    command.args(["restore", "--at", "latest", "--yes", "--json"]).args(options);
    command
        .arg("--from")
        .arg(from)
        .arg("--to")
        .arg(format!("redis://127.0.0.1:{port}"))
        .arg("--state-dir")
        .arg(state.path());
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    let said = BufReader::new(child.stderr.take().context("its messages")?);
    let (send, events) = channel();
    let own = child.id();
    let reading = std::thread::spawn(move || {
        for line in said.lines().map_while(Result::ok) {
            let cpu = |pid| cpu_seconds(pid).unwrap_or(0.0);
            let event = (Moment { at: Instant::now(), own_cpu: cpu(own), target_cpu: cpu(target) }, line);
            if send.send(event).is_err() {
                return;
            }
        }
    });
    let mut peaks = Peaks::default();
    let watched = watch(&mut child, &mut peaks);
    let _ = reading.join();
    let (mut begun, mut ended, mut all) = (None, None, String::new());
    for (moment, line) in events {
        let event: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
        match (event["event"].as_str(), event["name"].as_str()) {
            (Some("step"), Some(WRITING)) => begun = Some(moment),
            (Some("step-done"), Some(WRITING)) => ended = Some(moment),
            _ => {}
        }
        all.push_str(&line);
        all.push('\n');
    }
    watched.with_context(|| all.clone())?;
    let (Some(begun), Some(ended)) = (begun, ended) else { bail!("no step {WRITING:?}:\n{all}") };
    ran.span = (begun.at, ended.at);
    ran.measured.target_cpu_s = ended.target_cpu - begun.target_cpu;
    ran.measured.filler_cpu_s = ended.own_cpu - begun.own_cpu;
    (ran.measured.filler_mib, ran.measured.scratch_mib) = (peaks.own, peaks.child());
    Ok(ran)
}
