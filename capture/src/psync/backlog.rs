//! Estimates how long an outage of redtape the server's backlog covers at the present write rate.

use redtape_journal::ReplOffset;

use super::Capture;

/// An outage that the backlog covers for less than this many seconds is worth a warning.
const BACKLOG_SHORT_SECONDS: f64 = 60.0;
/// The write rate is reported after this many seconds.
const RATE_AFTER: u32 = 5;

/// Smoothed rate of the replication stream, in bytes per second.
#[derive(Debug, Default)]
pub(super) struct WriteRate {
    last: Option<ReplOffset>,
    per_second: f64,
    seconds: u32,
    /// The warning has been logged.
    warned: bool,
}

impl WriteRate {
    /// Called once a second with the server's offset; returns bytes per second from the second call on.
    fn second(&mut self, offset: ReplOffset) -> Option<f64> {
        let last = self.last.replace(offset)?;
        let now = offset.0.saturating_sub(last.0) as f64;
        self.per_second = if self.seconds == 0 { now } else { self.per_second * 0.8 + now * 0.2 };
        self.seconds = self.seconds.saturating_add(1);
        Some(self.per_second)
    }
}

impl Capture {
    /// Called once a second: updates the metric, logs the coverage once when it is known, and once when it is too
    /// short.
    pub(super) fn judge_backlog(&mut self, rate: &mut WriteRate) {
        let backlog = self.probes.facts().backlog_bytes;
        self.status.numbers.capture.backlog_bytes.set(backlog as i64);
        let Some(per_second) = rate.second(self.join.newest_probe().offset) else { return };
        let covers = if per_second > 0.0 { backlog as f64 / per_second } else { f64::INFINITY };
        self.status.numbers.capture.backlog_covers.set(covers);
        if rate.seconds < RATE_AFTER || backlog == 0 || rate.warned {
            return;
        }
        let (mib, kib) = (backlog as f64 / 1_048_576.0, per_second / 1024.0);
        if covers < BACKLOG_SHORT_SECONDS {
            rate.warned = true;
            let want = (per_second * BACKLOG_SHORT_SECONDS * 10.0).max(64.0 * 1_048_576.0) / 1_048_576.0;
            tracing::warn!(
                "the server's backlog of {mib:.0} MiB covers an outage of redtape of only {covers:.0} s at the present {kib:.0} KiB/s; \
                 a longer one costs a gap. Raise it: CONFIG SET repl-backlog-size {want:.0}mb"
            );
        } else if rate.seconds > RATE_AFTER {
            // The coverage was sufficient when logged, but may become too short when the write rate grows.
        } else if per_second >= 1024.0 {
            tracing::info!(
                "the server's backlog of {mib:.0} MiB covers an outage of redtape of {covers:.0} s at the present {kib:.0} KiB/s"
            );
        } else {
            tracing::info!("the server's backlog is {mib:.0} MiB; hardly anything is being written at present");
        }
    }
}
