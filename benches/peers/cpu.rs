//! CPU time of processes and of the machine, from `/proc`.
//!
//! A process's ticks are 10 ms; the scheduler's own sums (`/proc/PID/task/*/schedstat`) are nanoseconds
//! of running, kernel time included. A thread that ends takes its sum with it: then the ticks, in
//! which it stays, must do.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// What a process had used at one moment.
pub(crate) struct Cpu {
    tasks: HashMap<u32, u64>,
    ticks_ns: u64,
}

impl Cpu {
    pub(crate) fn of(pid: u32) -> Result<Self> {
        let mut tasks = HashMap::new();
        for entry in std::fs::read_dir(format!("/proc/{pid}/task")).with_context(|| format!("process {pid} is gone"))? {
            let name = entry?.file_name();
            let Some(tid) = name.to_str().and_then(|n| n.parse().ok()) else { continue };
            // A thread may end between the two looks.
            if let Some(ns) = running_ns(&format!("/proc/{pid}/task/{tid}/schedstat")) {
                tasks.insert(tid, ns);
            }
        }
        Ok(Self { tasks, ticks_ns: ticks_ns(pid)? })
    }

    /// Nanoseconds used since `earlier`.
    pub(crate) fn since(&self, earlier: &Self) -> u64 {
        let before = |tid: &u32| earlier.tasks.get(tid).copied().unwrap_or(0);
        if earlier.tasks.keys().any(|tid| !self.tasks.contains_key(tid)) {
            return self.ticks_ns.saturating_sub(earlier.ticks_ns);
        }
        self.tasks.iter().map(|(tid, ns)| ns.saturating_sub(before(tid))).sum()
    }
}

/// What the calling thread has used, in nanoseconds.
pub(crate) fn own_thread_ns() -> u64 {
    running_ns("/proc/thread-self/schedstat").unwrap_or(0)
}

fn running_ns(path: &str) -> Option<u64> {
    std::fs::read_to_string(path).ok()?.split(' ').next()?.parse().ok()
}

/// utime + stime, which hold ended threads too.
fn ticks_ns(pid: u32) -> Result<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name, in parentheses, may hold spaces.
    let (_, rest) = stat.rsplit_once(')').context("/proc/PID/stat without a name")?;
    let mut fields = rest.split_whitespace().skip(11).map_while(|f| f.parse::<u64>().ok());
    let ticks = fields.next().unwrap_or(0) + fields.next().unwrap_or(0);
    Ok(ticks * 1_000_000_000 / rustix::param::clock_ticks_per_second())
}

/// What all processors together had done at one moment, in nanoseconds.
pub(crate) fn machine_busy_ns() -> Result<u64> {
    let stat = std::fs::read_to_string("/proc/stat")?;
    let line = stat.lines().next().context("/proc/stat is empty")?;
    let fields: Vec<u64> = line.split_whitespace().skip(1).map_while(|f| f.parse().ok()).collect();
    // user nice system idle iowait irq softirq steal
    let busy: u64 = [0, 1, 2, 5, 6, 7].iter().filter_map(|&i: &usize| fields.get(i)).sum();
    Ok(busy * 1_000_000_000 / rustix::param::clock_ticks_per_second())
}

/// Waits until these processes have next to nothing left to do, so that work put off is counted, too.
pub(crate) fn wait_quiet(pids: &[u32], limit: Duration) -> Result<()> {
    const LOOK: Duration = Duration::from_millis(25);
    const QUIET_NS: u64 = 1_500_000;
    let all = || pids.iter().map(|&pid| Cpu::of(pid)).collect::<Result<Vec<_>>>();
    let (started, mut quiet, mut last) = (Instant::now(), 0, all()?);
    while quiet < 2 && started.elapsed() < limit {
        std::thread::sleep(LOOK);
        let now = all()?;
        let used: u64 = now.iter().zip(&last).map(|(now, last)| now.since(last)).sum();
        quiet = if used < QUIET_NS { quiet + 1 } else { 0 };
        last = now;
    }
    Ok(())
}

/// Memory of a process in bytes: its proportional share (PSS).
pub(crate) fn memory_bytes(pid: u32) -> Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let kb = text.lines().find_map(|l| l.strip_prefix("Pss:")?.split_whitespace().next()?.parse::<u64>().ok());
    Ok(kb.context("no Pss in smaps_rollup")? * 1024)
}
