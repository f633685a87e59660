//! A snapshot on request, beside a capture that goes on.
//!
//! A second replication connection gives a consistent RDB with its exact offset. Its LSN is the
//! journal's at that offset, read once the journal has got there, so that base + log from it is
//! as exact as from the timeline's own base.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use redtape_journal::{Catalog, Keyring, Lsn, Micros, ReadError, ReplOffset, SnapshotKind, StoreError, TimelineId};
use redtape_net::Connector;
use redtape_wire::psync::PsyncReply;

use crate::options::Position;
use crate::psync::{CopyError, CopyInProgress, Link, Prober, manifest, receive};

/// The journal must reach the snapshot's offset within this time.
const REACH_TIMEOUT: Duration = Duration::from_secs(30);
const REACH_POLL: Duration = Duration::from_millis(100);
/// Then so long is waited for the write behind it, or for word that there is none yet: a capture says so once a second.
const NEXT_TIMEOUT: Duration = Duration::from_secs(5);

/// A snapshot was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotTaken {
    /// It holds everything up to this LSN.
    pub lsn: Lsn,
    /// The point in time that it shows.
    pub ts: Micros,
    /// The RDB.
    pub path: PathBuf,
    /// Its size.
    pub bytes: u64,
    /// Its timeline.
    pub timeline: TimelineId,
}

/// Why no snapshot was taken.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The journal cannot be read.
    #[error(transparent)]
    Journal(#[from] redtape_journal::OpenError),
    /// The server cannot be reached or refuses.
    #[error("{0}. Check --upstream and its password (REDTAPE_UPSTREAM_PASSWORD)")]
    Server(String),
    /// The copy failed on its way.
    #[error("the copy failed: {0}; nothing was changed")]
    Copy(String),
    /// A group of the journal cannot be read.
    #[error("the copy failed: {0}; nothing was changed")]
    Read(#[from] ReadError),
    /// The copy cannot be stored.
    #[error("the copy failed: {0}; nothing was changed")]
    Store(StoreError),
    /// The server is not the one that the journal follows.
    #[error(
        "{address} is not the server that this journal follows (its replication id is {found}, the journal's is {expected}); give the same --upstream as to redtape proxy"
    )]
    OtherServer {
        /// Which.
        address: String,
        /// Its history.
        found: String,
        /// The journal's.
        expected: String,
    },
    /// The journal has no writer.
    #[error(
        "the journal does not reach the snapshot's offset {offset}: is redtape proxy or follow running on this directory? Nothing was changed"
    )]
    NotFollowed {
        /// Where the snapshot stands.
        offset: ReplOffset,
    },
}

impl From<CopyError> for SnapshotError {
    fn from(error: CopyError) -> Self {
        match error {
            CopyError::Source(e) => Self::Copy(e),
            CopyError::Disk(e) => Self::Store(e),
        }
    }
}

/// How a snapshot is taken.
#[derive(Debug, Clone)]
pub struct Taking {
    /// Who asked for it.
    pub kind: SnapshotKind,
    /// Bytes a second; `None` = as fast as it comes.
    pub rate: Option<u64>,
    /// What the journal is encrypted with.
    pub keyring: Keyring,
}

/// The place of the one snapshot that may be taken at a time, scheduled or asked for.
#[derive(Debug, Clone, Default)]
pub struct SnapshotSlot(Arc<AtomicBool>);

impl SnapshotSlot {
    /// Takes the place, unless a snapshot is running.
    pub fn begin(&self) -> Option<SnapshotRunning> {
        (!self.0.swap(true, Ordering::AcqRel)).then(|| SnapshotRunning(self.clone()))
    }

    /// A snapshot is running.
    pub fn is_taken(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Holds the place of the one snapshot; gives it up when dropped.
#[derive(Debug)]
pub struct SnapshotRunning(SnapshotSlot);

impl Drop for SnapshotRunning {
    fn drop(&mut self) {
        self.0.0.store(false, Ordering::Release);
    }
}

/// How long to wait after `bytes` in `elapsed`, so that they came at `rate`.
fn pause(bytes: u64, rate: u64, elapsed: Duration) -> Duration {
    let due = Duration::from_secs_f64(bytes as f64 / rate.max(1) as f64);
    due.saturating_sub(elapsed)
}

/// The same within a runtime; `upstream` is the followed server or the one that it replicates.
pub async fn take(dir: &Path, upstream: &Connector, how: Taking) -> Result<SnapshotTaken, SnapshotError> {
    // Held to the end: it keeps the segment in which the copy's offset lies from being pruned.
    let catalog = Catalog::open_with(dir, &how.keyring)?;
    catalog.check_keys()?;
    let server = |e: String| SnapshotError::Server(e);
    let table = match Prober::connect(upstream).await {
        Ok(mut prober) => prober.commands().await.map(|t| t.to_text()).unwrap_or_default(),
        Err(e) => return Err(server(format!("cannot reach {}: {e}", upstream.address()))),
    };
    let link = Link::connect(upstream).await.map_err(|e| server(e.to_string()))?;
    let (mut link, reply) = link.open(upstream, None).await.map_err(|e| server(e.to_string()))?;
    let PsyncReply::FullResync { replid, offset } = reply else {
        return Err(server(format!("the server answered PSYNC with {reply:?}")));
    };
    let ts = Micros::now();
    let offset = ReplOffset(offset);
    let timeline = catalog.timelines().last().map(|t| (t.id, t.source_id.clone()));
    let Some((timeline, expected)) = timeline else { return Err(SnapshotError::NotFollowed { offset }) };
    if expected != replid {
        return Err(SnapshotError::OtherServer { address: upstream.address(), found: replid, expected });
    }
    let mut copy = CopyInProgress::begin(dir, &how.keyring)?;
    let (begun, mut received) = (Instant::now(), 0);
    while !copy.take(&mut link)? {
        received += receive(&mut link).await.map_err(SnapshotError::Copy)? as u64;
        if let Some(rate) = how.rate {
            tokio::time::sleep(pause(received, rate, begun.elapsed())).await;
        }
    }
    let (lsn, ts) = place_of(dir, &how.keyring, (timeline, offset), ts).await?;
    drop(catalog);
    let position = Position { timeline, replid, offset, db: 0 };
    let (summary, path) = copy.commit(|s| manifest(s, (lsn, ts), &position, how.kind, &table))?;
    Ok(SnapshotTaken { lsn, ts, path, bytes: summary.bytes, timeline })
}

/// The last LSN up to the offset, and the time that the copy shows. The server answered at `answered`.
async fn place_of(
    dir: &Path,
    keyring: &Keyring,
    (timeline, offset): (TimelineId, ReplOffset),
    answered: Micros,
) -> Result<(Lsn, Micros), SnapshotError> {
    let deadline = Instant::now() + REACH_TIMEOUT;
    let mut reached = None;
    loop {
        let catalog = Catalog::open_with(dir, keyring)?;
        let at = catalog.lsn_at_offset(timeline, offset)?;
        if at.reached {
            let waited = reached.get_or_insert_with(Instant::now).elapsed();
            let cut = catalog.find_cut_by_lsn(timeline, at.lsn)?;
            let to = catalog.timelines().iter().find(|t| t.id == timeline).map(|t| t.last_ts.max(t.complete_until));
            // A write that follows the copy may be on its way to the journal.
            if cut.next_ts.is_some() || to >= Some(answered) || waited >= NEXT_TIMEOUT {
                return Ok((at.lsn, shown_time(answered, cut.ts, cut.next_ts.or(to))));
            }
        } else if Instant::now() >= deadline {
            return Err(SnapshotError::NotFollowed { offset });
        }
        tokio::time::sleep(REACH_POLL).await;
    }
}

/// The time that a copy shows: as late as it was `answered` for, but behind the `last` write that it holds and before the
/// `next` one, which it does not hold. The server answers some time after it has forked.
fn shown_time(answered: Micros, last: Micros, next: Option<Micros>) -> Micros {
    let before_next = next.map_or(answered, |next| answered.min(Micros(next.0.saturating_sub(1))));
    before_next.max(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_shows_a_time_between_the_writes_around_it() {
        let at = Micros;
        for (answered, last, next, shown) in [
            (100, 50, None, 100),
            (100, 50, Some(200), 100),
            (100, 50, Some(101), 100),
            (100, 50, Some(100), 99),
            (100, 50, Some(80), 79),
            // Dated later than it was asked for.
            (100, 120, Some(130), 120),
            // In the same microsecond.
            (100, 80, Some(80), 80),
        ] {
            assert_eq!(shown_time(at(answered), at(last), next.map(at)), at(shown), "{answered} {last} {next:?}");
        }
    }

    #[test]
    fn a_rate_is_kept_over_all_that_came() {
        let ms = Duration::from_millis;
        for (bytes, rate, elapsed, expected) in [
            (0, 1000, ms(0), ms(0)),
            (1000, 1000, ms(0), ms(1000)),
            (1000, 1000, ms(400), ms(600)),
            (1000, 1000, ms(1400), ms(0)),
            (5000, 1000, ms(4000), ms(1000)),
        ] {
            assert_eq!(pause(bytes, rate, elapsed), expected, "{bytes} at {rate} after {elapsed:?}");
        }
    }
}
