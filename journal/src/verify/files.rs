//! Verifying everything that is not a segment.

use std::path::PathBuf;

use super::{Begins, Verifier, VerifyProgress};
use crate::directory::TEMPORARY;
use crate::error::{OpenError, Span};
use crate::files::{FileKind, is_there, kind_at};
use crate::lease::SnapshotsAtRest;
use crate::lock::is_held;
use crate::marks::read_marks;
use crate::server::KnownServers;
use crate::snapshot::key_index::{KeyIndexError, check_beside};
use crate::snapshot::{ContentDigests, KEY_INDEX, SnapshotInfo, SnapshotKind, list_snapshots};
use crate::storage::{Folder, Storage};
use crate::types::Mark;

/// The files of a journal's directory.
const FILES: [&str; 8] = ["meta", "lock", "prune.lock", "snapshot.lock", "server", "marks", "splices", "filters"];
/// Its folders.
const FOLDERS: [&str; 3] = ["segments", "snapshots", "quarantine"];
/// What may be there besides.
const FOREIGN: &str = "lost+found";

/// Size of segments, snapshots and key indexes; what cannot be read counts nothing.
pub(super) fn total_bytes(storage: &dyn Storage) -> u64 {
    let size = |folder: Folder, extension: &str| -> u64 {
        let paths = storage.list(folder).ok().flatten().unwrap_or_default();
        let ours = paths.iter().filter(|path| path.extension().is_some_and(|found| found == extension));
        ours.filter_map(|path| storage.look_at(path).ok().flatten()).map(|found| found.version.bytes).sum()
    };
    size(Folder::Segments, "seg") + size(Folder::Snapshots, "rdb") + size(Folder::Snapshots, KEY_INDEX)
}

/// What is of the wrong kind is told once, by its name, and counts as empty.
pub(super) fn unless_wrong_kind<T: Default>(result: Result<T, OpenError>) -> Result<T, OpenError> {
    match result {
        Err(OpenError::WrongKind { .. }) => Ok(T::default()),
        other => other,
    }
}

/// What reading a snapshot has shown.
enum SnapshotDamage {
    /// With the digests of its content, if it was read and has a key index.
    None(Option<ContentDigests>),
    At(u64, String),
    /// It was removed since it was listed.
    Gone,
}

impl<P: FnMut(&VerifyProgress)> Verifier<'_, P> {
    pub(super) fn snapshots(&mut self) -> Result<(), OpenError> {
        const LOST: &str = "no restore can start from it: an earlier snapshot is used";
        let files = unless_wrong_kind(list_snapshots(&self.dir))?;
        for (path, what) in &files.broken {
            self.problem(path, 0, what, None, LOST);
        }
        self.unfinished_snapshots(&files.unfinished)?;
        for path in &files.retired {
            let file = self.relative(path);
            self.report.notes.push(format!(
                "{}: the removal of this snapshot was interrupted; the next `redtape journal prune` completes it",
                file.display()
            ));
        }
        for (path, what) in &files.others {
            self.problem(path, 0, what, None, "none: it is ignored");
        }
        for snapshot in &files.whole {
            let (path, manifest) = (&snapshot.path, &snapshot.manifest);
            let damage = if self.deep { self.snapshot_damage(snapshot)? } else { SnapshotDamage::None(None) };
            if matches!(damage, SnapshotDamage::Gone) {
                continue;
            }
            self.report.snapshots += 1;
            if let SnapshotDamage::None(Some(content)) = damage {
                self.key_index(snapshot, content);
            } else if let SnapshotDamage::At(offset, what) = damage {
                let span = Span {
                    from_lsn: manifest.lsn,
                    to_lsn: Some(manifest.lsn),
                    from_ts: manifest.ts,
                    to_ts: Some(manifest.ts),
                };
                self.problem(path, offset, what, Some(span), LOST);
            }
            self.done(path, snapshot.stored_bytes());
        }
        Ok(())
    }

    /// A process that writes a snapshot holds a lock at any moment, that of the file or [`SnapshotsAtRest`]'s.
    fn unfinished_snapshots(&mut self, paths: &[PathBuf]) -> Result<(), OpenError> {
        if paths.is_empty() {
            return Ok(());
        }
        let path = self.dir.snapshot_lock();
        let at_rest = SnapshotsAtRest::take(&self.dir).map_err(OpenError::io("lock", &path))?;
        for path in paths {
            // In this order: a file loses its lock when it has its manifest, or when it is gone.
            if is_held(path) || is_there(&path.with_extension("json")) || !is_there(path) {
                continue;
            }
            if path.extension().is_some_and(|extension| extension == KEY_INDEX) {
                let file = self.relative(path);
                self.report.notes.push(format!(
                    "{}: a key index that was not finished, or whose snapshot is gone: the next start of redtape removes it",
                    file.display()
                ));
            } else if at_rest.is_some() {
                self.problem(path, 0, "unfinished: it has no manifest", None, "none: it is ignored");
            } else {
                let file = self.relative(path);
                self.report.notes.push(format!(
                    "{}: it has no manifest; a snapshot is being put in place right now, perhaps this one",
                    file.display()
                ));
            }
        }
        Ok(())
    }

    /// Reads a snapshot: where it is damaged, and how. Its contents can be looked at with its key only.
    fn snapshot_damage(&mut self, snapshot: &SnapshotInfo) -> Result<SnapshotDamage, OpenError> {
        let health = snapshot.health(&self.storage, self.keyring)?;
        if health.gone {
            return Ok(SnapshotDamage::Gone);
        }
        if let Some(fault) = health.unseen {
            let file = self.relative(&snapshot.path);
            self.report.notes.push(format!("{}: its contents were not looked at: {fault}", file.display()));
        }
        Ok(match health.damage {
            Some((offset, what)) => SnapshotDamage::At(offset, what),
            None => SnapshotDamage::None(health.content),
        })
    }

    /// A key index is derived: whatever is wrong with it is no damage of the journal.
    fn key_index(&mut self, snapshot: &SnapshotInfo, content: ContentDigests) {
        let error = match check_beside(&self.storage, snapshot, self.keyring, Some(content)) {
            // Removed since it was listed, perhaps with its snapshot.
            Ok(()) | Err(KeyIndexError::Missing { .. } | KeyIndexError::Gone { .. }) => return,
            Err(error) => error,
        };
        let file = self.relative(&snapshot.key_index_path());
        let what = if error.is_made_again() {
            "nothing is lost, as it will be made again from its snapshot"
        } else {
            "it could not be checked"
        };
        self.report.notes.push(format!("{}: {error}; {what}", file.display()));
    }

    /// Marks are set when what they mean is on the disk: where the journal ends before one, its end is gone. `marks` were
    /// read before the segments, which may have grown since.
    pub(super) fn beyond_the_end(&mut self, marks: &[Mark]) {
        let end = self.end;
        for mark in marks.iter().filter(|mark| mark.lsn >= end) {
            let what = format!(
                "mark:{} stands for LSN {}, and the journal ends before LSN {end}",
                mark.shown_name(),
                mark.lsn
            );
            let span = Span { from_lsn: end, to_lsn: Some(mark.lsn), to_ts: Some(mark.ts), ..Span::default() };
            let path = self.dir.marks();
            self.problem(&path, 0, what, Some(span), "the end of the journal is gone");
        }
    }

    pub(super) fn marks(&mut self) -> Result<(), OpenError> {
        let path = self.dir.marks();
        let (_, wrong) = unless_wrong_kind(read_marks(&self.dir).map_err(OpenError::io("read", &path)))?;
        for offset in wrong {
            let what = "a line with a wrong checksum";
            self.problem(&path, offset, what, None, "this mark is lost; use its time or LSN");
        }
        Ok(())
    }

    pub(super) fn servers(&mut self) -> Result<(), OpenError> {
        const LOST: &str =
            "restores are not affected; a server that was recorded here may be refused until it is accepted again";
        let path = self.dir.server();
        let known = KnownServers::load_in(&self.dir).map_err(|e| OpenError::io(e.action, &path)(e.source));
        let known = unless_wrong_kind(known)?;
        for offset in known.damaged() {
            self.problem(&path, *offset, "a line with a wrong checksum", None, LOST);
        }
        Ok(())
    }

    pub(super) fn damaged_splices(&mut self) {
        let path = self.dir.splices();
        for offset in std::mem::take(&mut self.splices.wrong) {
            let what = "a line with a wrong checksum";
            self.problem(&path, offset, what, None, "the place of an earlier repair is damage again: repair it again");
        }
    }

    /// Snapshots and marks from which no segment leads on: somebody removed old segments, or lost them.
    pub(super) fn before_the_segments(&mut self, begins: &Begins) -> Result<(), OpenError> {
        for snapshot in unless_wrong_kind(list_snapshots(&self.dir))?.whole {
            let manifest = &snapshot.manifest;
            let lost = match begins.get(&manifest.timeline) {
                Some(begin) => manifest.lsn.0 + 1 < begin.0,
                // A base is there a moment before its timeline.
                None => begins.last_key_value().is_none_or(|(newest, _)| manifest.timeline < *newest),
            };
            // One that was taken by hand outlives its segments as it was meant to.
            if lost && manifest.kind != SnapshotKind::Manual {
                let (file, lsn) = (self.relative(&snapshot.path), manifest.lsn.0 + 1);
                self.report.notes.push(format!(
                    "{}: only its own point in time can be restored, as no segment continues from there (LSN {lsn}, timeline {}); unless it was removed (`redtape journal prune` does that), it is lost",
                    file.display(),
                    manifest.timeline
                ));
            }
        }
        let Some((_, first)) = begins.first_key_value() else { return Ok(()) };
        let (marks, _) = unless_wrong_kind(read_marks(&self.dir).map_err(OpenError::io("read", self.dir.marks())))?;
        let early = marks.iter().filter(|m| m.lsn.0 + 1 < first.0).count();
        if early > 0 {
            let marks = if early == 1 {
                "1 mark names a point in time".to_owned()
            } else {
                format!("{early} marks name points in time")
            };
            self.report.notes.push(format!(
                "{marks} before the first segment, which begins with LSN {first}; if nobody removed older ones (`redtape journal prune` does), they are lost"
            ));
        }
        Ok(())
    }

    pub(super) fn other_files(&mut self) -> Result<(), OpenError> {
        let root = self.dir.root().to_owned();
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&root).map_err(OpenError::io("list", &root))? {
            let name = entry.map_err(OpenError::io("list", &root))?.file_name();
            names.push(name.to_string_lossy().into_owned());
        }
        names.sort_unstable();
        for (kind, known) in [(FileKind::Regular, &FILES[..]), (FileKind::Directory, &FOLDERS)] {
            for path in known.iter().map(|name| root.join(name)) {
                let found = kind_at(&path).map_err(OpenError::io("look at", &path))?;
                if let Some(found) = found.filter(|found| *found != kind) {
                    let error = OpenError::WrongKind { file: path, found, wanted: kind };
                    self.refusal(error, "redtape refuses to use it, or to begin")?;
                }
            }
        }
        for name in names {
            let known = FILES.iter().chain(&FOLDERS).chain([&FOREIGN]).any(|known| **known == name);
            if !known && !name.starts_with(TEMPORARY) {
                let what = "not part of a journal";
                self.problem(&root.join(name), 0, what, None, "none: it is ignored");
            }
        }
        for folder in [self.dir.segments(), self.dir.snapshots()] {
            if !is_there(&folder) {
                let consequence = "nothing can be restored from it";
                self.problem(&folder, 0, "the folder is missing", None, consequence);
            }
        }
        Ok(())
    }
}
