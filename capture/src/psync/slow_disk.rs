//! No full copy is asked of a server while the journal's disk is in trouble.
//!
//! Following ends when more waits for the disk than may. Where the server's backlog still reaches back to where the journal ends, it is
//! followed again as soon as the disk has caught up a little: the backlog is there anyhow. Where it does not, the way on is a full copy,
//! for which the server forks and keeps what is written meanwhile: that waits until the disk is well again.

use std::time::{Duration, Instant};

use super::{Capture, Ended};

/// A disk is well when a sync of next to nothing takes no longer than this.
const SYNC_OF_A_WELL_DISK: Duration = Duration::from_millis(500);
/// Pause between two looks at the disk.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// A disk that is always so slow is put up with after this time: recording badly is better than not at all.
const WAIT_MAX: Duration = Duration::from_secs(90);

impl Capture {
    /// Behind [`Ended::Slow`]: returns when the server may be followed again.
    pub(super) async fn wait_for_slow_disk(&mut self) -> Result<(), Ended> {
        let began = Instant::now();
        while !self.backlog_reaches_back() && began.elapsed() < WAIT_MAX {
            let syncing = self.recorder.timed_sync();
            let took = self.or_stopped(async { Ok(syncing.await) }).await??;
            if took <= SYNC_OF_A_WELL_DISK {
                return Ok(());
            }
            self.or_stopped(async {
                tokio::time::sleep(LOOK_EVERY).await;
                Ok(())
            })
            .await?;
        }
        if began.elapsed() >= WAIT_MAX {
            tracing::warn!(
                "the disk is still slow after {} s: the server is followed again all the same, by a full copy",
                WAIT_MAX.as_secs()
            );
        }
        Ok(())
    }

    /// As far as the last probe tells, the server still has all that is behind the journal's end.
    fn backlog_reaches_back(&self) -> bool {
        let Some(position) = self.position.as_ref().filter(|_| self.break_reason.is_none()) else { return false };
        let oldest = self.join.newest_probe().offset.0.saturating_sub(self.probes.facts().backlog_bytes);
        position.offset.0 >= oldest
    }
}
