//! Pruning: removing what retention no longer promises, and snapshots that are no longer wanted.
//!
//! ```text
//! catalog ─► facts ─► plan (pure) ─► act: one file after the other
//! ```
//!
//! What stays and what goes ([`plan`] decides; `now` is never taken to be later than the newest point in time
//! in the journal, so that a journal at rest keeps
//! what it has, wherever and whenever it is pruned):
//!
//! | | it goes when |
//! | --- | --- |
//! | a segment | it lies before the segment that follows the *start*; only a prefix of the history ever goes, never an unsealed segment |
//! | a base or scheduled snapshot | it lies before the start |
//! | a manual snapshot | never by itself; without its segments its own point in time can still be restored |
//! | a snapshot of another history, or of a timeline that is only beginning | never |
//! | a mark | never; those that name nothing restorable any more are reported |
//! | an automatic mark | it names nothing restorable any more, and lies before all segments that stay |
//!
//! | the *start* | is |
//! | --- | --- |
//! | `keep` | in the oldest run of segments that reaches into `[now - keep, now]`: the newest snapshot at or before `now - keep`; without one, the first segment that reaches into it |
//! | `max_bytes` | then moved on from snapshot to snapshot until everything fits; this wins over `keep`, and the plan says so |
//! | always | not behind the newest snapshot from which segments lead on; without such a snapshot nothing goes |
//!
//! A damaged run or an unreadable stretch is treated like any other: it goes only as part of the
//! prefix, when everything that is kept is newer.
//!
//! Before the first file goes, the snapshot on which all that remains will rest is read through and its
//! digest compared. [`act`] says what a crash leaves at each step, [`crate::lease`] how readers are spared.

mod act;
mod facts;
mod plan;
#[cfg(test)]
mod plan_tests;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::time::Duration;

use self::act::{Disk, Files};
use self::facts::Facts;
pub use self::plan::{ItemKind, PruneItem, PrunePlan, Shortfall, Why};
use crate::catalog::Catalog;
use crate::directory::Directory;
use crate::error::OpenError;
use crate::lease::PruneLock;
use crate::types::Micros;

/// What is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Retention {
    /// Every moment of this length of time before now stays restorable; `None` = all.
    pub keep: Option<Duration>,
    /// Segments and snapshots together are not larger than this; `None` = no limit.
    pub max_bytes: Option<u64>,
}

impl Retention {
    /// It asks for anything at all.
    pub fn is_set(&self) -> bool {
        self.keep.is_some() || self.max_bytes.is_some()
    }
}

/// Why nothing, or nothing more, was removed. What was removed before was removed as a whole: the journal
/// is sound, and the next run goes on.
#[derive(Debug, thiserror::Error)]
pub enum PruneError {
    /// The journal cannot be read.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Another process prunes.
    #[error("another process is removing files from {}; try again when it has finished", dir.display())]
    Busy {
        /// The journal.
        dir: PathBuf,
    },
    /// A process reads.
    #[error(
        "{} is being read (a restore, a snapshot, or redtape journal cat or verify), so nothing more was removed; \
         try again when that has ended: `fuser -v {}` shows who it is", dir.display(), dir.join("meta").display()
    )]
    InUse {
        /// The journal.
        dir: PathBuf,
    },
    /// The snapshot on which the rest would stand is not what it was.
    #[error(
        "{} is damaged: {problem}. Everything that remains would rest on it, so nothing was removed; take another one \
         (`redtape snapshot create`) and remove this one (`redtape snapshot rm`)", path.display()
    )]
    Base {
        /// The snapshot's file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// There is no such snapshot.
    #[error("there is no snapshot {name} in {}; `redtape snapshot ls` lists them", dir.display())]
    NoSnapshot {
        /// As it was asked for.
        name: String,
        /// The journal.
        dir: PathBuf,
    },
    /// Without it nothing could be restored.
    #[error(
        "{} is the last snapshot from which the journal goes on: without it nothing behind it could be restored. \
         Take another one first (`redtape snapshot create`)", path.display()
    )]
    LastBase {
        /// The snapshot's file.
        path: PathBuf,
    },
    /// Asked to stop.
    #[error("stopped before everything was removed")]
    Stopped,
    /// The file system refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
}

impl PruneError {
    fn io(action: &'static str, path: impl AsRef<Path>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.as_ref().to_owned();
        move |source| Self::Io { action, path, source }
    }
}

/// What [`prune`] would do now; changes nothing.
pub fn plan_prune(dir: impl AsRef<Path>, retention: &Retention, now: Micros) -> Result<PrunePlan, PruneError> {
    let catalog = Catalog::open(dir)?;
    Ok(plan::retain(&Facts::of(&catalog), retention, now))
}

/// Removes what `retention` does not keep, and finishes removals that were interrupted. `on_removed` is
/// called after each item; `stop` is asked now and then. Works beside a writer; returns the plan, all of
/// which was done.
pub fn prune(
    dir: impl AsRef<Path>,
    retention: &Retention,
    now: Micros,
    on_removed: &mut dyn FnMut(&PruneItem),
    stop: &dyn Fn() -> bool,
) -> Result<PrunePlan, PruneError> {
    let decide = |catalog: &Catalog| Ok(plan::retain(&Facts::of(catalog), retention, now));
    carry_out(&mut Disk, dir.as_ref(), &decide, on_removed, stop)
}

/// What [`remove_snapshots`] would do; changes nothing. A name is that of the file, with or without its
/// ending, or its path.
pub fn plan_removal(dir: impl AsRef<Path>, names: &[String]) -> Result<PrunePlan, PruneError> {
    let dir = dir.as_ref();
    plan::without(&Facts::of(&Catalog::open(dir)?), names, dir)
}

/// Removes snapshots by name, of whatever kind; refuses the last one from which segments lead on.
pub fn remove_snapshots(dir: impl AsRef<Path>, names: &[String]) -> Result<PrunePlan, PruneError> {
    let dir = dir.as_ref();
    let decide = |catalog: &Catalog| plan::without(&Facts::of(catalog), names, dir);
    carry_out(&mut Disk, dir, &decide, &mut |_| {}, &|| false)
}

fn carry_out(
    files: &mut dyn Files,
    dir: &Path,
    decide: &dyn Fn(&Catalog) -> Result<PrunePlan, PruneError>,
    on_removed: &mut dyn FnMut(&PruneItem),
    stop: &dyn Fn() -> bool,
) -> Result<PrunePlan, PruneError> {
    let folders = Directory::new(dir);
    // What is no journal is not touched.
    drop(Catalog::open(dir)?);
    let path = folders.prune_lock();
    let lock = PruneLock::take(&folders).map_err(PruneError::io("lock", &path))?;
    let _lock = lock.ok_or_else(|| PruneError::Busy { dir: dir.to_owned() })?;
    act::finish_interrupted(files, &folders)?;
    // No other process removes files from here on, and what is added only makes more restorable.
    let plan = decide(&Catalog::open(dir)?)?;
    act::remove(files, &folders, &plan, on_removed, stop)?;
    Ok(plan)
}
