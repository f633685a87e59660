//! A repair as an operation that can be interrupted and undone: its id, and its undo file.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

use redtape_journal::undo_file::{
    EntryNumber, MovedAside, Operation as Described, OperationId, Progress, StateDir, UndoEntry, UndoTarget, UndoWriter,
};
use redtape_journal::{Keyring, Micros};

use super::before::{Added, Before, Doubt, UndoLog};
use super::policy::Policy;
use crate::error::RestoreError;
use crate::request::Request;
use crate::source::Source;
use crate::target::preflight::TargetFacts;
use crate::values::digest::NOTHING;
use crate::values::merge::Element;

/// An operation and the place of its undo file.
#[derive(Debug, Clone)]
pub(crate) struct Operation {
    described: Described,
    state_dir: StateDir,
    keyring: Keyring,
}

impl Operation {
    /// Derived from a request, its restore point and its target: the same command for the same target is the same
    /// operation.
    pub(crate) fn of_restore(
        request: &Request,
        source: &Source,
        target: &TargetFacts,
        policy: &Policy,
    ) -> Result<Self, RestoreError> {
        let (journal_id, point) = (source.journal_id(), &source.point);
        let broken_by = format!("{:?}", request.broken_by);
        let unchanged = format!("{:?}", request.unchanged_since);
        let (policies, selection) = (format!("{policy:?}"), request.filter.canonical());
        let described: [(&str, &[u8]); 8] = [
            ("journal", journal_id.as_bytes()),
            ("timeline", &point.timeline.0.to_le_bytes()),
            ("lsn", &point.lsn.0.to_le_bytes()),
            ("selection", selection.as_bytes()),
            ("policies", policies.as_bytes()),
            ("unchanged since", unchanged.as_bytes()),
            ("broken by", broken_by.as_bytes()),
            ("target", target.address.as_bytes()),
        ];
        let which = if policy.replace_all { "everything, in the place of what it held," } else { "some keys" };
        let what = format!("restore of {which} as of {} (LSN {}) into {}", point.asked, point.lsn, target.address);
        Self::new(&journal_id, &described, target, what, request.state_dir.as_deref(), &request.keyring)
    }

    /// Derived from a description. `what`: a phrase for messages.
    pub(crate) fn new(
        journal_id: &str,
        described_by: &[(&str, &[u8])],
        target: &TargetFacts,
        what: String,
        state_dir: Option<&Path>,
        keyring: &Keyring,
    ) -> Result<Self, RestoreError> {
        let state_dir = match state_dir {
            Some(path) => StateDir::new(path),
            None => StateDir::by_default()?,
        };
        let id = OperationId::derive(described_by);
        let described = Described {
            journal_id: journal_id.to_owned(),
            id,
            target: UndoTarget { address: target.address.clone(), replication_id: target.replid.clone() },
            created: Micros::now(),
            what,
        };
        Ok(Self { described, state_dir, keyring: keyring.clone() })
    }

    /// The folder of a journal's undo files.
    pub(crate) fn folder(state_dir: Option<&Path>, journal_id: &str) -> Result<PathBuf, RestoreError> {
        let state_dir = match state_dir {
            Some(path) => StateDir::new(path),
            None => StateDir::by_default()?,
        };
        Ok(state_dir.path().join(journal_id))
    }

    /// The operation's id.
    pub(crate) fn id(&self) -> &OperationId {
        &self.described.id
    }

    /// Path of the undo file, of an interrupted run or a new one.
    pub(crate) fn undo_path(&self) -> PathBuf {
        self.state_dir.next_file(&self.described.journal_id, self.described.id, &self.keyring)
    }

    /// Creates the undo file, or continues that of an interrupted run.
    pub(crate) fn begin(&self) -> Result<FileLog, RestoreError> {
        let begun = self.state_dir.begin(&self.described, &self.keyring)?;
        let was = &begun.writer.head().operation.target.replication_id;
        let now = &self.described.target.replication_id;
        let same_history = was == now || was.is_empty() || now.is_empty();
        let (writer, before) = (begun.writer, begun.progress);
        let mut log = FileLog {
            writer,
            added: None,
            before,
            same_history,
            in_doubt: HashMap::new(),
            libraries_in_doubt: HashMap::new(),
        };
        log.read_doubts()?;
        Ok(log)
    }
}

/// The undo file of a repair.
#[derive(Debug)]
pub(crate) struct FileLog {
    writer: UndoWriter,
    /// Entries of this run that were not taken yet.
    added: Option<Added>,
    before: Option<Progress>,
    /// The target has not been restarted or replaced since the interrupted run.
    same_history: bool,
    in_doubt: HashMap<(u32, Vec<u8>), Doubt>,
    /// Function libraries whose write by the interrupted run is in doubt, with their earlier code; empty = the library
    /// did not exist.
    libraries_in_doubt: HashMap<Vec<u8>, Vec<u8>>,
}

impl FileLog {
    /// Path of the file.
    pub(crate) fn path(&self) -> &Path {
        self.writer.path()
    }

    /// True if an interrupted run has used the file.
    pub(crate) fn goes_on(&self) -> bool {
        self.before.is_some()
    }

    /// Keys that the interrupted run moved aside and did not copy to the file.
    pub(crate) fn take_moved(&self) -> HashMap<(u32, Vec<u8>), MovedAside> {
        let moved = self.before.as_ref().map(Progress::moved).unwrap_or_default();
        moved.into_iter().map(|moved| ((moved.db, moved.key.clone()), moved)).collect()
    }

    fn read_doubts(&mut self) -> Result<(), RestoreError> {
        let Some(progress) = &self.before else { return Ok(()) };
        let mut reader = self.writer.read_back()?;
        let (doubts, libraries) = (&mut self.in_doubt, &mut self.libraries_in_doubt);
        progress.each_in_doubt(&mut reader, |_, entry| {
            match entry {
                UndoEntry::Absent { db, key, .. } => {
                    doubts.insert((db, key.into_owned()), Doubt::Absent);
                }
                UndoEntry::Value { db, key, dump, .. } => {
                    doubts.insert((db, key.into_owned()), Doubt::Value(dump.into_owned()));
                }
                UndoEntry::Ttl { db, key, .. }
                | UndoEntry::ElementAbsent { db, key, .. }
                | UndoEntry::Element { db, key, .. } => {
                    doubts.entry((db, key.into_owned())).or_insert(Doubt::Part);
                }
                UndoEntry::Library { name, code, .. } => {
                    libraries.insert(name.into_owned(), code.into_owned());
                }
                UndoEntry::Moved { .. }
                | UndoEntry::Done { .. }
                | UndoEntry::NotWritten { .. }
                | UndoEntry::Finished => {}
            }
            Ok::<(), RestoreError>(())
        })
    }

    /// Marks the operation as complete.
    pub(crate) fn finish(mut self) -> Result<(), RestoreError> {
        Ok(self.writer.finish()?)
    }

    /// Why a function library with this code stays: it was changed after the interrupted run.
    pub(crate) fn library_stays(&self, name: &[u8], live: Option<&[u8]>) -> Option<String> {
        let is_done = self.same_history && self.before.as_ref().is_some_and(|before| before.is_library_done(name));
        if is_done {
            return Some("was changed after an interrupted run had written it".to_owned());
        }
        let found = self.libraries_in_doubt.get(name)?;
        (live.unwrap_or_default() != &found[..])
            .then(|| "was changed after an interrupted run may have written it".to_owned())
    }

    fn append(&mut self, entry: &UndoEntry<'_>) -> Result<EntryNumber, RestoreError> {
        let number = self.writer.append(entry)?;
        self.added = Some(Added { first: self.added.map_or(number, |added| added.first), last: number });
        Ok(number)
    }
}

impl UndoLog for FileLog {
    fn add(&mut self, db: u32, before: &Before<'_>) -> Result<EntryNumber, RestoreError> {
        let own = Cow::Borrowed;
        let entry = match *before {
            Before::Absent { key, written } => UndoEntry::Absent { db, key: own(key), written },
            Before::Value { key, expires_ms, dump, written } => {
                UndoEntry::Value { db, key: own(key), expires_ms, dump: own(dump), written: written.unwrap_or(NOTHING) }
            }
            Before::ElementAbsent { key, written } => {
                UndoEntry::ElementAbsent { db, key: own(key), element: own(written.name()), written: written.digest() }
            }
            Before::Element { key, was, written } => UndoEntry::Element {
                db,
                key: own(key),
                element: own(was.name()),
                value: Cow::Owned(was.content()),
                expires_ms: was.expires_ms(),
                written: written.map_or(NOTHING, Element::digest),
            },
            Before::Ttl { key, expires_ms, written_ms } => UndoEntry::Ttl { db, key: own(key), expires_ms, written_ms },
            Before::Library { name, code, written } => {
                UndoEntry::Library { name: own(name), code: own(code.unwrap_or_default()), written }
            }
            Before::Moved { key, temporary, written } => {
                let written = written.unwrap_or(NOTHING);
                UndoEntry::Moved { db, key: own(key), temporary: own(temporary), written }
            }
        };
        self.append(&entry)
    }

    fn sync(&mut self) -> Result<(), RestoreError> {
        Ok(self.writer.sync()?)
    }

    fn not_written(&mut self, entry: EntryNumber) -> Result<(), RestoreError> {
        self.writer.append(&UndoEntry::NotWritten { entry })?;
        Ok(())
    }

    fn take_added(&mut self) -> Option<Added> {
        self.added.take()
    }

    fn are_done(&mut self, Added { first, last }: Added) -> Result<(), RestoreError> {
        self.writer.append(&UndoEntry::Done { first, last })?;
        Ok(())
    }

    fn is_done(&self, db: u32, key: &[u8]) -> bool {
        self.same_history && self.before.as_ref().is_some_and(|before| before.is_key_done(db, key))
    }

    fn doubt(&self, db: u32, key: &[u8]) -> Option<&Doubt> {
        if self.in_doubt.is_empty() { None } else { self.in_doubt.get(&(db, key.to_vec())) }
    }
}
