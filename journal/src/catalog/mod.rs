//! Reading a journal: what is in it, where a point in time lies, and its groups one after the other.
//!
//! A catalog shows the journal as it was when it was opened. It works while a writer is live, and holds
//! pruning off for as long as it, or a reader of it, is there ([`crate::lease`]): the last segment is read up to the
//! last whole block, and a tail that is being written is no error. A segment that was sealed since, and may have been replaced by its
//! packed copy, is looked at anew when it is opened, and read as far as it went at first. To see more, open a new one.
//!
//! Damage: a segment whose header is wrong, or that is not what its name says, counts as missing, and is noted. A
//! wrong footer is worked around by walking the blocks, and noted. A bad block or a missing segment ends the window before it ([`Window::damaged_behind`]);
//! reading across it is an error with file, offset and LSN. A writer is stricter: it refuses them all.

mod find;
mod load;
mod open_filters;
mod parts;
mod read;
mod reverse;
mod search;
mod segment;
mod take;
#[cfg(test)]
mod tests;
pub(crate) mod window;

use std::path::{Path, PathBuf};
use std::sync::Arc;

pub(crate) use load::Entry;
pub use parts::{PartJob, PartReader, WantedKeys};
pub use read::GroupReader;
use read::Within;
pub use reverse::ReverseReader;
use search::Search;
pub use search::Searched;
pub use take::TakeRecords;

use crate::crypto::Keyring;
use crate::error::{OpenError, ReadError};
use crate::lease::ReadLease;
use crate::meta::Meta;
use crate::snapshot::{SnapshotInfo, SnapshotReader};
use crate::storage::Storage;
use crate::types::{Lsn, Mark, Micros, ReplOffset, TimelineId};

/// One segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentInfo {
    /// The file.
    pub path: PathBuf,
    /// Timeline to which it belongs.
    pub timeline: TimelineId,
    /// LSN of its first record, or of the next one if it holds none.
    pub first_lsn: Lsn,
    /// Last LSN in it; smaller than `first_lsn` if it holds none.
    pub last_lsn: Lsn,
    /// Time of its first group, `None` if it holds none.
    pub first_ts: Option<Micros>,
    /// Time of the last group up to its end, whichever segment that is in; 0 before the first.
    pub last_ts: Micros,
    /// The journal is known to be complete up to this time.
    pub complete_until: Micros,
    /// Position in the source at its end.
    pub end_offset: ReplOffset,
    /// Size of the file.
    pub bytes: u64,
    /// It has a footer.
    pub sealed: bool,
    /// So much of it was read when the journal was opened: of the segment in use, to find its last whole block.
    pub walked_bytes: u64,
}

/// One unbroken history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimelineInfo {
    /// Its number.
    pub id: TimelineId,
    /// Id of its source: the newest, if it has changed.
    pub source_id: String,
    /// Where that id changed within the timeline, oldest first; of segments that are still there.
    pub source_changes: Vec<SourceChange>,
    /// Why it was begun.
    pub reason: String,
    /// Position in the source at which it begins.
    pub start_offset: ReplOffset,
    /// When it was begun.
    pub start_ts: Micros,
    /// LSN of its first record that is present, or of the next one if it has none.
    pub first_lsn: Lsn,
    /// Its last LSN; `first_lsn - 1` if it has none.
    pub last_lsn: Lsn,
    /// Time of its last group; its `start_ts` if it has none.
    pub last_ts: Micros,
    /// The journal is known to be complete up to this time.
    pub complete_until: Micros,
    /// Position in the source at its end.
    pub end_offset: ReplOffset,
    /// Size of its segments.
    pub bytes: u64,
}

/// The source of a timeline went on under another id (Redis: a promotion, or a restart that kept its history).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceChange {
    /// LSN of the first record behind it.
    pub first_lsn: Lsn,
    /// Position in the source at which it was seen.
    pub offset: ReplOffset,
    /// When it was recorded.
    pub ts: Micros,
    /// The id before.
    pub before: String,
    /// The id from here on.
    pub after: String,
}

impl TimelineInfo {
    /// All ids that its source has had, oldest first, as far as its segments say.
    pub fn source_ids(&self) -> impl Iterator<Item = &str> {
        let before = self.source_changes.iter().map(|change| change.before.as_str());
        before.chain([self.source_id.as_str()])
    }

    /// Whether its source had this id.
    pub fn had_source(&self, id: &str) -> bool {
        self.source_ids().any(|known| known == id)
    }

    /// The first change of the source's id that lies between a snapshot at `base` and `lsn`.
    pub fn change_between(&self, base: Lsn, lsn: Lsn) -> Option<&SourceChange> {
        self.source_changes.iter().find(|change| base < change.first_lsn && change.first_lsn <= lsn)
    }
}

/// A range of which every point in time can be restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// The timeline.
    pub timeline: TimelineId,
    /// Time of its earliest usable snapshot.
    pub from: Micros,
    /// LSN of that snapshot.
    pub from_lsn: Lsn,
    /// Up to here the journal is complete.
    pub to: Micros,
    /// Its last LSN.
    pub to_lsn: Lsn,
    /// It ends because of damage: what was recorded next cannot be read or is missing.
    pub damaged_behind: bool,
}

/// A range between two windows, of which no point in time can be restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    /// End of the window before.
    pub from: Micros,
    /// Beginning of the window after.
    pub to: Micros,
    /// Last LSN of the window before.
    pub after_lsn: Lsn,
    /// Why, for a person to read.
    pub reason: String,
}

/// A place between two groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// Everything up to this LSN is before it; the timeline's `first_lsn - 1` if nothing is.
    pub lsn: Lsn,
    /// Time of the last group before it; the timeline's `start_ts` if there is none.
    pub ts: Micros,
    /// Time of the first group after it, `None` if the journal ends here.
    pub next_ts: Option<Micros>,
    /// How many µs earlier than `next_ts` that group may have run.
    pub next_slack: u64,
}

/// Answer of [`Catalog::lsn_at_offset`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AtOffset {
    /// Last LSN of the last group that ends at or before the offset.
    pub lsn: Lsn,
    /// The journal reaches the offset: nothing before it is still to come.
    pub reached: bool,
}

/// A journal opened for reading.
#[derive(Debug)]
pub struct Catalog {
    meta: Meta,
    entries: Arc<[Arc<Entry>]>,
    segments: Vec<SegmentInfo>,
    snapshots: Vec<SnapshotInfo>,
    marks: Vec<Mark>,
    notes: Vec<String>,
    lease: Arc<ReadLease>,
    storage: Arc<dyn Storage>,
}

impl Catalog {
    /// What the planner of pruning looks at.
    pub(crate) fn entries(&self) -> &[Arc<Entry>] {
        &self.entries
    }

    /// Opens the journal in `dir`; changes nothing.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self, OpenError> {
        load::load(dir.as_ref(), &Keyring::default(), false)
    }

    /// The same for a journal that is encrypted, at least in part. What has another key can be listed, not read.
    pub fn open_with(dir: impl AsRef<Path>, keyring: &Keyring) -> Result<Self, OpenError> {
        load::load(dir.as_ref(), keyring, false)
    }

    /// The same, to search for keys ([`Catalog::groups_for_keys`]): of the segment in use, which has no filters in its file, they are
    /// taken from the file that the writer keeps; the rest of the segment is read here, and its keys are collected. So a search
    /// reads of it only what may hold them.
    pub fn open_for_search(dir: impl AsRef<Path>, keyring: &Keyring) -> Result<Self, OpenError> {
        load::load(dir.as_ref(), keyring, true)
    }

    /// Whether the end of the journal can be read with the keys given: who cannot must not add to it.
    pub fn check_keys(&self) -> Result<(), OpenError> {
        match self.entries.last().map(|last| (&last.path, &last.sealer)) {
            Some((file, Err(fault))) => Err(OpenError::Key { file: file.clone(), fault: fault.clone() }),
            _ => Ok(()),
        }
    }

    /// Which journal this is.
    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    /// The segments, in the order of the history.
    pub fn segments(&self) -> &[SegmentInfo] {
        &self.segments
    }

    /// The timelines, in the order of the history.
    pub fn timelines(&self) -> Vec<TimelineInfo> {
        window::timelines(&self.entries)
    }

    /// The finished snapshots, in the order of LSN and timeline.
    pub fn snapshots(&self) -> &[SnapshotInfo] {
        &self.snapshots
    }

    /// Where its sealed files are.
    pub(crate) fn storage(&self) -> &dyn Storage {
        &*self.storage
    }

    /// Holds pruning off for as long as it is held.
    pub(crate) fn lease(&self) -> Arc<ReadLease> {
        Arc::clone(&self.lease)
    }

    /// Opens a snapshot of this journal to read what was written into it.
    pub fn open_snapshot(&self, snapshot: &SnapshotInfo, keyring: &Keyring) -> Result<SnapshotReader, OpenError> {
        snapshot.open_in(&*self.storage, keyring)
    }

    /// The marks, in the order in which they were set.
    pub fn marks(&self) -> &[Mark] {
        &self.marks
    }

    /// The ranges that can be restored, in the order of the history; at most one for each timeline
    /// unless a segment is damaged. Before them those of a single point in time: each snapshot behind which the
    /// segments were removed.
    pub fn windows(&self) -> Vec<Window> {
        window::windows(&window::stretches(&self.entries), &window::manifests(&self.snapshots))
    }

    /// The ranges between the windows.
    pub fn gaps(&self) -> Vec<Gap> {
        window::gaps(&self.entries, &self.windows())
    }

    /// Damage that opening found and worked around, for a person to read.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The groups of a timeline of which the last LSN is greater than `after`, in order. One that
    /// `after` lies within is given as a whole. Memory is bounded by the largest block.
    pub fn groups(&self, after: Lsn, timeline: TimelineId) -> GroupReader {
        GroupReader::new(Arc::clone(&self.entries), Arc::clone(&self.lease), after, timeline)
    }

    /// Like [`Catalog::groups`], but only those that touch one of these keys (database, key) or may do so: a
    /// record of which the keys are not known counts as touching all. Reads little more than the blocks that hold such groups: of
    /// a sealed segment that has filters, and of the segment in use after [`Catalog::open_for_search`]; see
    /// [`GroupReader::searched`].
    pub fn groups_for_keys(&self, after: Lsn, timeline: TimelineId, keys: &[(u32, &[u8])]) -> GroupReader {
        GroupReader::new(Arc::clone(&self.entries), Arc::clone(&self.lease), after, timeline).only(Search::new(keys))
    }

    /// The groups of a timeline that end at or before `upto`, the newest first.
    pub fn groups_back(&self, upto: Lsn, timeline: TimelineId) -> ReverseReader {
        ReverseReader::new(Arc::clone(&self.entries), Arc::clone(&self.lease), upto, timeline)
    }

    /// Like [`Catalog::groups_back`], but only those that touch one of these keys or may do so, as in
    /// [`Catalog::groups_for_keys`].
    pub fn groups_back_for_keys(&self, upto: Lsn, timeline: TimelineId, keys: &[(u32, &[u8])]) -> ReverseReader {
        self.groups_back(upto, timeline).only(Search::new(keys))
    }

    /// The groups of a timeline behind `after` that end at or before `upto`, backwards and part by part: only parts that may
    /// concern the keys that are wanted at that time.
    pub fn parts_back(&self, after: Lsn, upto: Lsn, timeline: TimelineId) -> PartReader {
        PartReader::back(Arc::clone(&self.entries), Arc::clone(&self.lease), (after, upto), timeline)
    }

    /// The same forwards, and only the parts that hold wanted LSNs (as in [`Catalog::groups_within`]).
    pub fn parts_within(
        &self,
        after: Lsn,
        upto: Lsn,
        timeline: TimelineId,
        wanted: impl Fn(Lsn, Lsn) -> bool + Send + 'static,
    ) -> PartReader {
        self.parts_back(after, upto, timeline).forwards(Within(Box::new(wanted)))
    }

    /// Like [`Catalog::groups`], but only those of blocks that hold wanted LSNs; others are not read. `wanted`: whether from the
    /// first of these LSNs to the last there is one.
    pub fn groups_within(
        &self,
        after: Lsn,
        timeline: TimelineId,
        wanted: impl Fn(Lsn, Lsn) -> bool + Send + 'static,
    ) -> GroupReader {
        self.groups(after, timeline).within(Within(Box::new(wanted)))
    }

    /// The last whole group with `ts <= at`.
    pub fn find_cut_by_ts(&self, timeline: TimelineId, at: Micros) -> Result<Cut, ReadError> {
        find::find(&self.entries, timeline, |extent| extent.last_ts > at).map(|found| found.cut)
    }

    /// The last whole group that ends at or before `lsn`.
    pub fn find_cut_by_lsn(&self, timeline: TimelineId, lsn: Lsn) -> Result<Cut, ReadError> {
        find::find(&self.entries, timeline, |extent| extent.next_lsn.0 - 1 > lsn.0).map(|found| found.cut)
    }

    /// The last whole group that ends at or before `offset`, and whether the journal reaches that
    /// far.
    pub fn lsn_at_offset(&self, timeline: TimelineId, offset: ReplOffset) -> Result<AtOffset, ReadError> {
        let found = find::find(&self.entries, timeline, |extent| extent.end_offset > offset)?;
        Ok(AtOffset { lsn: found.cut.lsn, reached: found.end_offset >= offset })
    }
}
