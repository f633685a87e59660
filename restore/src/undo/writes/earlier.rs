//! Records of earlier undos: a later undo also leaves out their writes, and redtape's own writes for them.
//!
//! Otherwise, undoing one mistake would bring back the value of an earlier one. Beside its undo file (`ID.undo`), each
//! undo of writes has a file `ID.undone` with the undone records and the times of redtape's writes. An undo of the undo
//! adds the times of its own writes: the records then count again, and redtape's writes of both times do not.
//!
//! A file is replaced as a whole. If it is missing (another state directory), an undo treats redtape's own writes like
//! any others.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use redtape_journal::{Lsn, Micros, TimelineId};
use serde::{Deserialize, Serialize};

use crate::error::RestoreError;
use crate::mistake::Earlier;
use crate::slice::Lsns;

/// Extension of the files.
const ENDING: &str = "undone";
/// Limit of stored ranges; an undo with more stores none.
const RANGES_MAX: usize = 1 << 20;
/// Limit of files that are read.
const FILES_MAX: usize = 4096;
/// Tolerated difference between the clocks of the journal and of the undo.
const SKEW_US: i64 = 1_000_000;

/// The stored record of one undo.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Undone {
    timeline: u32,
    /// The records, the first and the last of each range.
    lsns: Vec<(u64, u64)>,
    /// Times of redtape's writes, in microseconds since 1970.
    written: Vec<(i64, i64)>,
    /// Times at which redtape put it back.
    put_back: Vec<(i64, i64)>,
}

/// Path of the record for this undo file.
fn path_of(undo_file: &Path) -> PathBuf {
    undo_file.with_extension(ENDING)
}

impl Undone {
    /// A record of these LSNs.
    pub(super) fn of(timeline: TimelineId, records: &Lsns) -> Self {
        Self { timeline: timeline.0, lsns: records.ranges(), ..Self::default() }
    }

    /// Reads a stored record; `None` = missing or unreadable.
    fn read(path: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(path).ok()?).ok()
    }

    /// Stores it. `written`: time range of redtape's writes; for an interrupted run the end is an upper limit.
    pub(super) fn store(mut self, undo_file: &Path, written: (Micros, Micros)) -> Result<(), RestoreError> {
        if self.lsns.len() > RANGES_MAX {
            return Ok(());
        }
        let path = path_of(undo_file);
        let before = Self::read(&path).filter(|before| before.put_back.is_empty()).unwrap_or_default();
        let others = before.written.into_iter().filter(|(from, _)| *from != written.0.0);
        // An interrupted run has not written after its last entry.
        let last_entry = modified_us(undo_file).unwrap_or(i64::MAX);
        self.written = others.map(|(from, until)| (from, until.min(last_entry))).collect();
        self.written.push((written.0.0, written.1.0));
        replace(&path, &self)
    }

    fn records(&self) -> Lsns {
        let mut records = Lsns::default();
        for (first, last) in &self.lsns {
            records.add_range(Lsn(*first), Lsn(*last));
        }
        records.finish()
    }
}

fn modified_us(path: &Path) -> Option<i64> {
    let since_1970 = fs::metadata(path).ok()?.modified().ok()?.duration_since(std::time::UNIX_EPOCH).ok()?;
    i64::try_from(since_1970.as_micros()).ok()
}

/// Records that the operation of this undo file was put back.
pub(crate) fn put_back(undo_file: &Path, from: Micros) -> Result<(), RestoreError> {
    let path = path_of(undo_file);
    let Some(mut undone) = Undone::read(&path) else { return Ok(()) };
    undone.put_back.push((from.0, Micros::now().0));
    replace(&path, &undone)
}

fn replace(path: &Path, undone: &Undone) -> Result<(), RestoreError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder).map_err(RestoreError::io("create", folder))?;
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(RestoreError::io("create a file in", folder))?;
    let text = serde_json::to_vec(undone).map_err(|e| RestoreError::io("write", path)(e.into()))?;
    file.write_all(&text).and_then(|()| file.as_file().sync_all()).map_err(RestoreError::io("write", path))?;
    file.persist(path).map_err(|e| RestoreError::io("write", path)(e.error))?;
    Ok(())
}

/// All records of a timeline, except that of the operation with this undo file.
pub(super) fn read_all(folder: &Path, timeline: TimelineId, own: Option<&Path>) -> Vec<Undone> {
    let own = own.map(path_of);
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let stored = entries.filter(|path| path.extension().is_some_and(|e| e == ENDING) && Some(path) != own.as_ref());
    stored
        .take(FILES_MAX)
        .filter_map(|path| Undone::read(&path))
        .filter(|undone| undone.timeline == timeline.0)
        .collect()
}

/// Of these, the ones that affect an undo of records from `first` on; `begins`: the first record that can be replayed.
pub(super) fn concerning(all: &[Undone], first: (Lsn, Micros), begins: Lsn) -> Earlier {
    let mut earlier = Earlier::default();
    for undone in all {
        let last_written = undone.written.iter().chain(&undone.put_back).map(|(_, until)| *until).max();
        let reaches = undone.lsns.iter().any(|(_, last)| *last >= first.0.0) || last_written >= Some(first.1.0);
        if !reaches {
            continue;
        }
        if undone.lsns.first().is_some_and(|(first, _)| Lsn(*first) < begins) {
            earlier.too_old = true;
            continue;
        }
        if undone.put_back.is_empty() {
            earlier.records = earlier.records.and(&undone.records());
            earlier.first = earlier.first.into_iter().chain(undone.lsns.first().map(|(first, _)| Lsn(*first))).min();
        }
        let with_skew = |(from, until): &(i64, i64)| (Micros(from - SKEW_US), Micros(until + SKEW_US));
        earlier.written.extend(undone.written.iter().chain(&undone.put_back).map(with_skew));
    }
    earlier
}
