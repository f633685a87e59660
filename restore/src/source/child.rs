//! A child process that does not outlive its owner.

use std::process::Child;
use std::time::{Duration, Instant};

/// How long a killed process may take to be gone.
const GONE_LIMIT: Duration = Duration::from_secs(5);
/// Between two looks at a child.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Kills the child when it is dropped.
#[derive(Debug)]
pub(super) struct ChildGuard(pub(super) Child);

impl Drop for ChildGuard {
    fn drop(&mut self) {
        // It may be dead already. One that the kernel cannot end (a file system that hangs) is left to it.
        let _ = self.0.kill();
        let start = Instant::now();
        while matches!(self.0.try_wait(), Ok(None)) && start.elapsed() < GONE_LIMIT {
            std::thread::sleep(LOOK_EVERY);
        }
    }
}
