//! Peaks of the memory of processes, read while they run.

use std::collections::HashMap;

/// `VmHWM` of a process in MiB; `None` = it is gone.
pub(super) fn peak_mib(pid: u32) -> Option<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: f64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib / 1024.0)
}

/// The largest peaks that were seen of a process and of its children.
#[derive(Default)]
pub(super) struct Peaks {
    pub(super) own: f64,
    children: HashMap<u32, f64>,
}

impl Peaks {
    pub(super) fn look(&mut self, pid: u32) {
        self.own = peak_mib(pid).unwrap_or(0.0).max(self.own);
        for child in children(pid) {
            if let Some(peak) = peak_mib(child) {
                self.children.insert(child, peak);
            }
        }
    }

    /// Of the largest child.
    pub(super) fn child(&self) -> f64 {
        self.children.values().copied().fold(0.0, f64::max)
    }
}

fn children(pid: u32) -> Vec<u32> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let of_task = |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
    tasks
        .map(of_task)
        .flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>())
        .collect()
}
