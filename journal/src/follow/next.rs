//! Which segments there are: read again only when the directory has changed.

use std::time::{Duration, Instant, SystemTime};

use crate::error::OpenError;
use crate::segment::load::list_segments;
use crate::segment::name::SegmentName;
use crate::storage::{Folder, Storage};
use crate::types::Lsn;

/// The clock of a file system may be coarse: for so long after a change it is taken for changing.
const SETTLE: Duration = Duration::from_millis(200);
/// A file system that does not tell of changes is looked at this often nevertheless.
const DISTRUST: Duration = Duration::from_secs(2);

/// Names in the order of the history, as they were at a moment.
#[derive(Debug, Default)]
pub(super) struct Listing {
    names: Vec<SegmentName>,
    read: Option<Read>,
}

#[derive(Debug, Clone, Copy)]
struct Read {
    modified: Option<SystemTime>,
    changed: Instant,
    at: Instant,
}

impl Listing {
    /// The first segment behind this one.
    pub(super) fn after(&mut self, storage: &dyn Storage, name: SegmentName) -> Result<Option<SegmentName>, OpenError> {
        self.refresh(storage)?;
        let n = self.names.partition_point(|other| *other <= name);
        Ok(self.names.get(n).copied())
    }

    /// The segment that holds this record, or will; the first one if the record was removed.
    pub(super) fn holding(&mut self, storage: &dyn Storage, lsn: Lsn) -> Result<Option<SegmentName>, OpenError> {
        self.refresh(storage)?;
        let n = self.names.partition_point(|other| other.first_lsn <= lsn);
        Ok(self.names.get(n.saturating_sub(1)).copied())
    }

    /// The next question reads the directory.
    pub(super) fn forget(&mut self) {
        self.read = None;
    }

    fn refresh(&mut self, storage: &dyn Storage) -> Result<(), OpenError> {
        // Before the names: a change in between is seen the next time.
        let modified = std::fs::metadata(storage.folder(Folder::Segments)).and_then(|m| m.modified()).ok();
        let now = Instant::now();
        let same = self.read.filter(|read| read.modified == modified && modified.is_some());
        let fresh = |read: &Read| {
            let settled = read.at.duration_since(read.changed) > SETTLE;
            settled && now.duration_since(read.at) < DISTRUST
        };
        if same.as_ref().is_some_and(fresh) {
            return Ok(());
        }
        self.names = list_segments(storage)?.0.into_iter().map(|(name, _)| name).collect();
        self.read = Some(Read { modified, changed: same.map_or(now, |read| read.changed), at: now });
        Ok(())
    }
}
