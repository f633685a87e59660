//! Carrying a plan out.
//!
//! Order, and what a crash in between leaves: (1) copies in the quarantine, synced: nothing else was changed; (2) new
//! segments in temporary files: the next start removes them; (3) the splices, bound to links that do not meet yet;
//! (4) the new segments under their names; (5) files go whose records are elsewhere now. A crash within (4) or (5)
//! leaves some records twice, which the next repair sees: it may be run again at any time.

use std::io;
use std::path::{Path, PathBuf};

use super::plan::{How, Piece, Plan};
use crate::block::decrypt;
use crate::compact::{CompactError, CompactedCopy, Compactor};
use crate::crypto::{KeyFault, Keyring, random};
use crate::directory::{Directory, TEMPORARY, write_atomically};
use crate::error::OpenError;
use crate::files;
use crate::files::{FILE_MODE, sync_dir};
use crate::segment::header::{SegmentHeader, SourceHistory, TimelineFacts};
use crate::segment::link::Link;
use crate::segment::scan::Blocks;
use crate::splices::{LostRecords, Splice, Splices};
use crate::types::{Lsn, Micros, ReplOffset, TimelineId};

/// Where the copies go: `repair-1`, `repair-2`, … in the quarantine.
pub(super) fn new_folder(dir: &Directory) -> Result<PathBuf, OpenError> {
    let mut n = 1;
    loop {
        let folder = dir.quarantine().join(format!("repair-{n}"));
        match files::ensure_folder(&dir.quarantine()).and_then(|()| files::create_folder(&folder)) {
            Ok(()) => return Ok(folder),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => n += 1,
            Err(e) => return Err(OpenError::io("create", &folder)(e)),
        }
    }
}

/// Copies a file. Not a link: what stays in the journal may be written to.
pub(super) fn keep(folder: &Path, file: &Path) -> Result<(), OpenError> {
    let to = folder.join(file.file_name().unwrap_or_default());
    let copy = || {
        let (mut from, mut to) = (files::open_read(file)?, files::create_new(&to)?);
        io::copy(&mut from, &mut to)?;
        files::sync(&to)
    };
    copy().map_err(OpenError::io("copy to quarantine", file))
}

/// Makes what was copied durable.
pub(super) fn kept(dir: &Directory, folder: &Path) -> Result<(), OpenError> {
    for path in [folder, &dir.quarantine(), dir.root()] {
        sync_dir(path).map_err(OpenError::io("sync", path))?;
    }
    Ok(())
}

/// Writes the blocks of a piece as a segment that follows the one with this link. It has no name yet.
fn recreate(
    dir: &Directory,
    piece: &Piece<'_>,
    header: &SegmentHeader,
    keyring: &Keyring,
) -> Result<CompactedCopy, OpenError> {
    let path = &piece.of.path;
    let key = |fault: &KeyFault| OpenError::Key { file: path.clone(), fault: fault.clone() };
    let sealer = piece.of.sealer.as_ref().map_err(key)?;
    if sealer.is_some() && keyring.current().is_none() {
        let error = io::Error::other("there is no key to encrypt it again");
        return Err(OpenError::io("write anew", path)(error));
    }
    let write = || -> Result<CompactedCopy, CompactError> {
        let file = files::open_read(path)?;
        let tag = piece.of.whole.as_ref().map(|whole| whole.tag);
        let mut compactor = Compactor::create(dir, header, file.metadata()?.len(), keyring, random)?;
        for range in &piece.run.ranges {
            for block in Blocks::between(&file, tag, range.clone()) {
                let (block, stored) = block?;
                compactor.push(&block, &decrypt(&block, stored, sealer.as_deref())?)?;
            }
        }
        let copy = compactor.finish(&piece.run.tally, None)?;
        copy.check(keyring, || Ok(()))?;
        Ok(copy)
    };
    write().map_err(|e| OpenError::io("write anew", path)(io::Error::other(e)))
}

/// The new segments under temporary names, and the splices for the places between the segments.
pub(super) struct Prepared {
    wholes: Vec<Option<CompactedCopy>>,
    splices: Vec<Splice>,
    /// Digest of the last segment, if it is sealed.
    last: Option<Link>,
}

/// Step 2.
pub(super) fn prepare(
    dir: &Directory,
    plan: &Plan<'_>,
    splices: &Splices,
    keyring: &Keyring,
) -> Result<Prepared, OpenError> {
    let mut prepared = Prepared { wholes: Vec::new(), splices: Vec::new(), last: None };
    for (n, piece) in plan.pieces.iter().enumerate() {
        let before = n.checked_sub(1).map(|n| &plan.pieces[n]);
        let mut header = piece.run.header.clone();
        let (whole, link) = match piece.how {
            How::Stands(link) | How::Renamed(link) => (None, Some(link)),
            How::Open => (None, None),
            How::Recreated => {
                let named = if header.first_lsn == Lsn(1) { [0; 32] } else { header.prev_link };
                header.prev_link = prepared.last.unwrap_or(named);
                let whole = recreate(dir, piece, &header, keyring)?;
                let link = whole.link();
                (Some(whole), Some(link))
            }
        };
        if let (Some(before), Some(last)) = (before, prepared.last) {
            let lost = lost_between(before, piece.run.header.first_lsn, piece.first_ts());
            prepared.splices.extend(splice_between(&header, last, lost, splices));
        }
        prepared.wholes.push(whole);
        prepared.last = link;
    }
    Ok(prepared)
}

/// What is missing behind a piece, if the next one begins with this LSN.
pub(super) fn lost_between(before: &Piece<'_>, next: Lsn, to_ts: Option<Micros>) -> Option<LostRecords> {
    let extent = &before.run.tally.extent;
    (next > extent.next_lsn).then(|| LostRecords {
        from_lsn: extent.next_lsn,
        to_lsn: Lsn(next.0 - 1),
        from_ts: extent.last_ts,
        to_ts,
    })
}

/// The splice between a segment with this header and the one before; `None` if the header or an earlier splice explains the
/// place.
fn splice_between(
    header: &SegmentHeader,
    before: Link,
    lost: Option<LostRecords>,
    splices: &Splices,
) -> Option<Splice> {
    let chained = header.prev_link == before && lost.is_none();
    if chained || splices.explains(header, &before, lost.is_some()) {
        return None;
    }
    let why =
        if lost.is_some() { "they could not be read, or were not there" } else { "the segment before was rewritten" };
    Some(Splice {
        first_lsn: header.first_lsn,
        timeline: header.timeline.id,
        before: crate::hex::hex(&before),
        named: crate::hex::hex(&header.prev_link),
        lost,
        why: why.to_owned(),
        repaired: Micros::now(),
    })
}

/// Steps 3 to 5.
pub(super) fn place(
    dir: &Directory,
    plan: &Plan<'_>,
    mut prepared: Prepared,
    fresh: Option<SegmentHeader>,
    mut splices: Splices,
    keyring: &Keyring,
) -> Result<(), OpenError> {
    let folder = dir.segments();
    if let (Some(header), Some(last)) = (&fresh, plan.pieces.last()) {
        let lost = lost_between(last, header.first_lsn, None);
        prepared.splices.extend(splice_between(header, header.prev_link, lost, &splices));
    }
    if !prepared.splices.is_empty() || !splices.wrong.is_empty() {
        splices.all.extend(prepared.splices);
        splices.store(dir).map_err(OpenError::io("write", dir.splices()))?;
    }
    let mut there: Vec<PathBuf> = Vec::new();
    let mut moved = Vec::new();
    for (piece, whole) in plan.pieces.iter().zip(prepared.wholes) {
        let header = &piece.run.header;
        let to = folder.join(header.name().to_string());
        if let Some(whole) = whole {
            // A file of that name whose own records go elsewhere is among the copies.
            moved.push((Source::Compacted(whole), to.clone()));
        } else if matches!(piece.how, How::Renamed(_)) {
            let temporary = copy_beside(&piece.of.path).map_err(OpenError::io("copy", &piece.of.path))?;
            moved.push((Source::Copy(temporary), to.clone()));
        }
        there.push(to);
    }
    for (source, to) in moved {
        source.replace(&to).map_err(OpenError::io("put in place", &to))?;
    }
    for file in plan.changed.iter().filter(|file| !there.contains(&file.path)) {
        std::fs::remove_file(&file.path).map_err(OpenError::io("remove", &file.path))?;
    }
    sync_dir(&folder).map_err(OpenError::io("sync", &folder))?;
    if let Some(mut header) = fresh {
        let path = folder.join(header.name().to_string());
        header.lock(keyring, random).map_err(OpenError::io("draw a key for", &path))?;
        write_atomically(&path, &header.encode()).map_err(OpenError::io("write", &path))?;
    }
    Ok(())
}

enum Source {
    Compacted(CompactedCopy),
    Copy(tempfile::NamedTempFile),
}

impl Source {
    fn replace(self, to: &Path) -> io::Result<()> {
        match self {
            Self::Compacted(whole) => whole.replace(to).map(drop),
            Self::Copy(file) => file.persist(to).map(drop).map_err(|e| e.error),
        }
    }
}

fn copy_beside(path: &Path) -> io::Result<tempfile::NamedTempFile> {
    let mut to = tempfile::Builder::new()
        .prefix(TEMPORARY)
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(FILE_MODE))
        .tempfile_in(path.parent().unwrap_or(Path::new(".")))?;
    io::copy(&mut files::open_read(path)?, &mut to)?;
    files::sync(to.as_file())?;
    Ok(to)
}

/// A timeline that is to begin behind the last piece. It names no source, so the next start takes a base.
pub(super) fn fresh_header(
    plan: &Plan<'_>,
    prepared: &Prepared,
    journal_id: [u8; 16],
    timeline: TimelineId,
) -> Option<SegmentHeader> {
    let first_lsn = plan.fresh?;
    let last = plan.pieces.last().map(|p| &p.run.tally);
    let last_ts = last.map_or(Micros(0), |t| t.extent.last_ts);
    let now = Micros::now().max(last_ts);
    Some(SegmentHeader {
        journal_id,
        first_lsn,
        timeline: TimelineFacts {
            id: timeline,
            source_id: String::new(),
            reason: "the journal was repaired, and from what is left the present cannot be restored".to_owned(),
            start_offset: ReplOffset(0),
            start_ts: now,
        },
        source: SourceHistory::Unchanged,
        prev_link: prepared.last.unwrap_or_default(),
        created: now,
        last_ts,
        complete_until: last.map_or(Micros(0), |t| t.complete_until),
        start_offset: ReplOffset(0),
        start_db: 0,
        packed: false,
        cipher: None,
    })
}
