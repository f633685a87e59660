//! Delays a full copy while the journal's disk is too slow.
//!
//! Following ends when too much data waits for the disk. If the server's backlog still reaches back to the journal's
//! end, following resumes as soon as the disk has caught up a little, since the backlog exists anyway. Otherwise a full
//! copy is needed, for which the server forks and buffers all writes: that waits until the disk is fast again.

use std::time::{Duration, Instant};

use super::{Capture, Ended};

/// A healthy disk syncs a minimal write within this time.
const SYNC_OF_A_WELL_DISK: Duration = Duration::from_millis(500);
/// Pause between two checks of the disk.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// A disk that stays slow is accepted after this time: a late record is better than none.
const WAIT_MAX: Duration = Duration::from_secs(90);

impl Capture {
    /// After [`Ended::Slow`]: returns when the server may be followed again.
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

    /// True if, by the last probe, the server's backlog still holds everything behind the journal's end.
    fn backlog_reaches_back(&self) -> bool {
        let Some(position) = self.position.as_ref().filter(|_| self.break_reason.is_none()) else { return false };
        let oldest = self.join.newest_probe().offset.0.saturating_sub(self.probes.facts().backlog_bytes);
        position.offset.0 >= oldest
    }
}
