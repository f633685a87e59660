//! A scratch server replays; all of its keys are copied to the target, which holds nothing.

use super::digest::compare_digests;
use super::room::{self, Carrier};
use super::{ServerTarget, evicted_warning, full_warning, marker_or_note};
use crate::error::RestoreError;
use crate::plan::Plan;
use crate::progress::Observer;
use crate::source::Source;
use crate::source::scratch::Scratch;
use crate::target::copy::{Copied, CopyJob, copy, gone};
use crate::target::lookup::{KeyCounts, Missing, recount};
use crate::target::memory::MemoryState;
use crate::target::restored::Restored;
use crate::target::unfinished::{KEY, Marker};

/// Rebuilds the dataset and copies all of it.
pub(super) fn restore(
    target: &mut ServerTarget,
    plan: &Plan,
    source: &Source,
    observer: &mut dyn Observer,
) -> Result<Restored, RestoreError> {
    let (mut scratch, _) = source.rebuild(observer)?;
    let about = format!("of {} as of {}, LSN {}", source.from.display(), plan.at, plan.lsn);
    copy_all(target, &about, &mut scratch, observer).map_err(|e| scratch.explain(e))
}

/// Copies, looks for everything in the target again, and takes the marker away. `about`: which restore it is, in words.
fn copy_all(
    target: &mut ServerTarget,
    about: &str,
    scratch: &mut Scratch,
    observer: &mut dyn Observer,
) -> Result<Restored, RestoreError> {
    let wanted = wanted(target, scratch).map_err(RestoreError::before_the_target)?;
    room::check(target, scratch, &wanted, Carrier::Copy, observer).map_err(RestoreError::before_the_target)?;
    let marker = put_marker(target, about, &wanted, observer).map_err(RestoreError::before_the_target)?;
    let evicted_before = MemoryState::ask(&mut target.server)?.evicted;
    let job = CopyJob {
        scratch: &mut *scratch,
        target: &mut target.server,
        accept_eviction: target.accept_eviction,
        wanted: &wanted,
        observer: &mut *observer,
        interrupt: &target.interrupt,
    };
    let copied = match copy(job) {
        Ok(copied) => copied,
        Err(failed) => {
            if !failed.wrote {
                // Where it cannot be taken away, the marker says more than is true, never less.
                let _ = marker.map(|marker| marker.remove(&mut target.server));
            }
            return Err(failed.cause);
        }
    };
    let at_ms = scratch.hold()?;
    let missing = recount(scratch, &mut target.server, &target.filter, observer, &target.interrupt, at_ms)?;
    let warnings = check_copied(target, &copied, &missing, evicted_before, marker.is_some())?;
    if let Some(marker) = marker {
        marker.remove(&mut target.server).map_err(|cause| RestoreError::Undone {
            cause: Box::new(cause),
            aftermath: format!(
                "Everything was restored; only the key {KEY} in db 0, which says that it was not, is left"
            ),
        })?;
    }
    let mut checks = vec!["all of them were looked for in the target at the end".to_owned()];
    let (restored, planned) = (copied.keys.values().sum::<u64>(), wanted.values().sum::<u64>());
    if copied.keys != wanted {
        // SCAN may count a key twice, never leave one out.
        checks.push(format!("{restored} keys restored of {planned} counted"));
    }
    if missing.expired == 0 && missing.gone == 0 {
        let still = copied.volatile == 0;
        match compare_digests(&mut scratch.server, &mut target.server, &copied.keys, still) {
            Ok(check) => checks.push(check),
            Err(e) => {
                put_marker(target, about, &wanted, observer)?;
                return Err(e);
            }
        }
    }
    let Copied { keys, functions, .. } = copied;
    Ok(Restored { keys, expired: Some(missing.expired), functions, checks, warnings, outcome: None, file: None })
}

/// The keys of the scratch server.
fn wanted(target: &mut ServerTarget, scratch: &mut Scratch) -> Result<KeyCounts, RestoreError> {
    // A marker that the recorded server itself had is not what was restored there.
    scratch.server.call(&["SELECT", "0"])?;
    scratch.server.call(&["DEL", KEY])?;
    target.claim()?;
    // Nothing can be in the way in an empty target; RESTORE itself refuses what comes in between.
    Ok(scratch.server.info(Some("keyspace"))?.keyspace())
}

/// Writes the marker that a copy is under way; where that is not allowed, says so.
fn put_marker(
    target: &mut ServerTarget,
    about: &str,
    wanted: &KeyCounts,
    observer: &mut dyn Observer,
) -> Result<Option<Marker>, RestoreError> {
    let what = format!(
        "everything ({} keys) {about}, begun at {}",
        wanted.values().sum::<u64>(),
        redtape_journal::Micros::now()
    );
    Ok(marker_or_note(Marker::put_whole(&mut target.server, &what)?, observer))
}

/// Whether what is in the target after a copy is what was meant; otherwise the marker stays.
fn check_copied(
    target: &mut ServerTarget,
    copied: &Copied,
    missing: &Missing,
    evicted_before: u64,
    marker: bool,
) -> Result<Vec<String>, RestoreError> {
    let restored: u64 = copied.keys.values().sum();
    let memory = MemoryState::settled(&mut target.server)?;
    let evicted = memory.evicted.saturating_sub(evicted_before);
    let accepted = target.accept_eviction && evicted > 0;
    if missing.gone > 0 && !accepted {
        let named = missing.named.join(", ");
        return Err(gone(&mut target.server, evicted_before, missing.gone, restored, &named));
    }
    let mut warnings = Vec::from_iter(full_warning(&memory));
    if evicted > 0 {
        warnings.push(evicted_warning(&memory, evicted, missing.gone));
    }
    let now: u64 = target.server.info(Some("keyspace"))?.keyspace().values().sum();
    let ours = restored.saturating_sub(missing.expired + missing.gone) + u64::from(marker);
    if now > ours {
        return Err(RestoreError::Joined { address: target.server.address.clone(), count: now - ours });
    }
    Ok(warnings)
}
