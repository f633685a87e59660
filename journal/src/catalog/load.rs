//! Building a catalog from a directory.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::{Catalog, SegmentInfo};
use crate::block::{BlockHeader, decode_payload};
use crate::bloom::{EXPECTED_BYTES, FilterBuilder, SegmentFilters};
use crate::crypto::{KeyFault, Keyring, Sealer};
use crate::directory::Directory;
use crate::error::{Damage, OpenError, ReadError, Span};
use crate::lease::ReadLease;
use crate::marks::read_marks;
use crate::meta::{Meta, not_a_journal};
use crate::recover::{check_footer, check_header, corrupt};
use crate::segment::footer::Footer;
use crate::segment::header::{HeaderFault, SegmentHeader, WholeHeader};
use crate::segment::load::{SegmentFacts, TailFact, list_segments, load_open_segment, load_segment_and};
use crate::segment::scan::{Rest, Scan, scan};
use crate::segment::tally::Tally;
use crate::snapshot::list_snapshots_of;
use crate::splices::{Splice, Splices};
use crate::storage::{LocalDirectory, Storage, StoredFile};
use crate::types::Lsn;

/// One segment, as far as its blocks can be read.
#[derive(Debug)]
pub(crate) struct Entry {
    /// Where its file is read from.
    pub(super) storage: Arc<dyn Storage>,
    pub(crate) path: PathBuf,
    pub(crate) header: SegmentHeader,
    pub(crate) header_len: u64,
    pub(crate) tag: u32,
    /// Decrypts its blocks, if they are encrypted.
    pub(super) sealer: Result<Option<Arc<Sealer>>, KeyFault>,
    /// The keys with which the catalog was opened.
    keyring: Keyring,
    /// Nothing from this LSN on is shown, if any: it was written after the catalog was opened.
    pub(super) until: Option<Lsn>,
    /// Where the last readable block ends.
    pub(crate) data_end: u64,
    /// Where the footer of a sealed segment begins.
    pub(super) footer_at: u64,
    /// Of the segment in use, if the journal was opened for a search.
    pub(super) filters: Option<Arc<SegmentFilters>>,
    /// For a sealed segment without index: that stays in the file until it is wanted.
    pub(crate) tally: Tally,
    pub(crate) bytes: u64,
    pub(crate) sealed: bool,
    /// What is wrong at `data_end`, if records are missing there.
    pub(crate) damage: Option<Damage>,
    /// The damage is that the next segment does not continue this one.
    pub(crate) unchained: bool,
    /// It is known, and was told when the journal was repaired.
    pub(crate) lost: Option<Splice>,
}

impl Entry {
    /// Its last LSN, or the one before it if it holds none.
    pub(crate) fn last_lsn(&self) -> Lsn {
        Lsn(self.tally.extent.next_lsn.0 - 1)
    }

    /// Where and why the history breaks off behind this segment's blocks, in words.
    pub(super) fn break_in_words(&self) -> String {
        if let Some(Splice { lost: Some(lost), why, .. }) = &self.lost {
            format!("{} is lost: {why}", lost.span())
        } else if self.unchained {
            format!("a segment is missing, or is not the right one, behind {}", self.path.display())
        } else {
            format!("{} is corrupt at offset {}", self.path.display(), self.data_end)
        }
    }

    fn info(&self) -> SegmentInfo {
        SegmentInfo {
            path: self.path.clone(),
            timeline: self.header.timeline.id,
            first_lsn: self.header.first_lsn,
            last_lsn: self.last_lsn(),
            first_ts: (self.tally.groups > 0).then_some(self.tally.first_ts),
            last_ts: self.tally.extent.last_ts,
            complete_until: self.tally.complete_until,
            end_offset: self.tally.extent.end_offset,
            bytes: self.bytes,
            sealed: self.sealed,
        }
    }
}

/// `filters`: the keys of the segment in use are collected.
pub(super) fn load(root: &Path, keyring: &Keyring, filters: bool) -> Result<Catalog, OpenError> {
    let dir = Directory::new(root);
    let Some(meta) = Meta::load(&dir)? else {
        return Err(not_a_journal(&dir));
    };
    // Before the first name is read: what is listed must still be there when it is opened.
    let lease = Arc::new(ReadLease::take(&dir));
    let storage: Arc<dyn Storage> = Arc::new(LocalDirectory::new(&dir));
    let mut notes = Vec::new();
    let splices = Splices::load(&dir).map_err(OpenError::io("read", dir.splices()))?;
    let entries = load_entries(&storage, meta.id().unwrap_or_default(), &splices, (keyring, filters), &mut notes)?;
    let (marks, wrong) = read_marks(&dir).map_err(OpenError::io("read", dir.marks()))?;
    notes.extend(wrong.iter().map(|at| format!("marks has a damaged line at offset {at}")));
    let snapshots = list_snapshots_of(&*storage, &meta.journal_id)?;
    notes.extend(snapshots.broken.iter().map(|(path, what)| format!("{}: {what}", path.display())));
    Ok(Catalog {
        meta,
        segments: entries.iter().map(Entry::info).collect(),
        entries: entries.into_iter().map(Arc::new).collect(),
        snapshots: snapshots.whole,
        marks,
        notes,
        lease,
        storage,
    })
}

fn load_entries(
    storage: &Arc<dyn Storage>,
    journal_id: [u8; 16],
    splices: &Splices,
    (keyring, filters): (&Keyring, bool),
    notes: &mut Vec<String>,
) -> Result<Vec<Entry>, OpenError> {
    let (names, _) = list_segments(&**storage)?;
    let mut entries: Vec<Entry> = Vec::with_capacity(names.len());
    let mut previous: Option<(SegmentHeader, Footer)> = None;
    for (n, (name, path)) in names.iter().enumerate() {
        let is_last = n + 1 == names.len();
        let mut collected = filters.then(|| OpenFilters::new(keyring));
        let facts = load_segment_and(&**storage, *name, path, is_last, &mut |whole, before, block, stored| {
            if let Some(filters) = &mut collected {
                filters.add(whole, before, block, stored);
            }
        });
        let facts = match facts {
            // Pruned since it was listed.
            Err(OpenError::Io { source, .. })
                if source.kind() == std::io::ErrorKind::NotFound && entries.is_empty() =>
            {
                continue;
            }
            // As one that is damaged: the history breaks off before it.
            Err(error @ OpenError::WrongKind { .. }) => {
                notes.push(error.to_string());
                break_off(entries.last_mut());
                continue;
            }
            other => other?,
        };
        if is_last && facts.header == Err(HeaderFault::Unfinished) {
            break;
        }
        let chained = previous.as_ref().map(|(header, footer)| (header, footer));
        let checked = check_header(&facts, journal_id, chained, splices);
        let (whole, unchained) = match (checked, chained) {
            (Ok(whole), _) => (whole.clone(), None),
            (Err(OpenError::Corrupt { damage, .. }), Some((header, footer)))
                if later(&facts, header, &footer.tally) && check_header(&facts, journal_id, None, splices).is_ok() =>
            {
                (check_header(&facts, journal_id, None, splices)?.clone(), Some(*damage))
            }
            // It is as if it were not there, and the history breaks off before it.
            (Err(error @ OpenError::Corrupt { .. }), _) => {
                notes.push(error.to_string());
                break_off(entries.last_mut());
                continue;
            }
            (Err(error), _) => return Err(error),
        };
        if let (Some(before), Some((_, footer))) = (entries.last_mut(), chained)
            && let Some(splice) = splices.find(&whole.header, &footer.link())
            && let Some(lost) = splice.lost
        {
            before.damage =
                Some(Damage::new("the records behind it", format!("{} is lost: {}", lost.span(), splice.why)));
            before.lost = Some(splice.clone());
        } else if let Some(before) = entries.last_mut()
            && before.tally.extent.next_lsn == whole.header.first_lsn
        {
            // Nothing is missing between the two, whatever is wrong with the footer.
            before.damage = None;
        }
        if let (Some(damage), Some(before)) = (unchained, entries.last_mut()) {
            notes.push(format!("{} does not continue {}: {damage}", path.display(), before.path.display()));
            before.damage = Some(damage);
            before.unchained = true;
        }
        let mut entry = Entry::begin(storage, &facts, &whole, keyring);
        match &facts.tail {
            TailFact::Sealed(footer) => {
                check_footer(&facts, &entry.header, footer)?;
                entry.check_proof(footer).map_err(|damage| corrupt(&facts, footer.position, damage))?;
                previous = Some((entry.header.clone(), footer.clone()));
                entry.seal(footer);
            }
            TailFact::Open(scan) => {
                entry.fill(scan, is_last, notes);
                entry.filters = collected.map(|filters| Arc::new(filters.builder.finish()));
            }
            TailFact::BadFooter { .. } | TailFact::Unknown => {
                let scan = rescan(&**storage, &facts, &whole)?;
                entry.fill(&scan, false, notes);
            }
        }
        if !entry.sealed {
            previous = None;
        }
        entries.push(entry);
    }
    Ok(entries)
}

/// Filters over the keys of the segment in use, block by block.
struct OpenFilters {
    builder: FilterBuilder,
    keyring: Keyring,
    /// Of the segment, once it is known.
    sealer: Option<Result<Option<Arc<Sealer>>, KeyFault>>,
}

impl OpenFilters {
    fn new(keyring: &Keyring) -> Self {
        Self { builder: FilterBuilder::new(EXPECTED_BYTES), keyring: keyring.clone(), sealer: None }
    }

    fn add(&mut self, whole: &WholeHeader, before: &Tally, block: &BlockHeader, stored: &Bytes) {
        let sealer = self.sealer.get_or_insert_with(|| whole.header.unlock(&self.keyring));
        self.builder.begin_block(block.position, before.opens_interval(block, block.position));
        let payload = sealer.as_ref().ok().map(|sealer| decode_payload(block, stored.clone(), sealer.as_deref()));
        match payload {
            Some(Ok(payload)) => self.builder.add_payload(block, &payload),
            // What cannot be read is never ruled out: reading it says why.
            Some(Err(_)) | None => self.builder.add(None),
        }
    }
}

/// What follows cannot be used.
fn break_off(before: Option<&mut Entry>) {
    if let Some(before) = before.filter(|before| before.damage.is_none()) {
        before.damage = Some(Damage::new("a segment that goes on", "one that cannot be used"));
        before.unchained = true;
    }
}

/// A segment that is right by itself and lies behind the end of another one: what is between them may
/// be missing, but neither is in the other's way.
fn later(facts: &SegmentFacts, header: &SegmentHeader, before: &Tally) -> bool {
    let Ok(whole) = &facts.header else { return false };
    let next = &whole.header;
    let same = next.timeline.id == header.timeline.id;
    next.first_lsn >= before.extent.next_lsn
        && next.last_ts >= before.extent.last_ts
        && next.timeline.id >= header.timeline.id
        && (!same || next.timeline.is_same(&header.timeline) && next.start_offset >= before.extent.end_offset)
}

fn rescan(storage: &dyn Storage, facts: &SegmentFacts, whole: &WholeHeader) -> Result<Scan, OpenError> {
    let read = || {
        let file = storage.open(&facts.path)?;
        scan(&*file, facts.bytes, whole, |_, _, _| ())
    };
    read().map_err(OpenError::io("read", &facts.path))
}

impl Entry {
    fn begin(storage: &Arc<dyn Storage>, facts: &SegmentFacts, whole: &WholeHeader, keyring: &Keyring) -> Self {
        Self {
            storage: Arc::clone(storage),
            path: facts.path.clone(),
            header_len: whole.len,
            tag: whole.tag,
            sealer: whole.header.unlock(keyring),
            keyring: keyring.clone(),
            until: None,
            data_end: whole.len,
            footer_at: facts.bytes,
            filters: None,
            tally: Tally::begin(&whole.header),
            bytes: facts.bytes,
            sealed: false,
            damage: None,
            unchained: false,
            lost: None,
            header: whole.header.clone(),
        }
    }

    /// Without its key, nothing can be said of a footer.
    fn check_proof(&self, footer: &Footer) -> Result<(), Damage> {
        self.sealer.as_ref().map_or(Ok(()), |sealer| footer.check_proof(sealer.as_deref()))
    }

    fn seal(&mut self, footer: &Footer) {
        self.sealed = true;
        self.data_end = footer.blocks_end;
        self.footer_at = footer.position;
        self.tally = Tally { index: Vec::new(), ..footer.tally.clone() };
    }

    /// The same segment as it is now: `file`, just opened, is not the one that the catalog has seen.
    pub(super) fn look_again(&self, file: &dyn StoredFile) -> Result<Self, ReadError> {
        let changed = |found: String| ReadError::Corrupt {
            file: self.path.clone(),
            offset: 0,
            span: Span { from_lsn: self.header.first_lsn, ..Span::default() },
            damage: Box::new(Damage::new("the segment that was here, or its packed copy", found)),
        };
        let facts =
            load_open_segment(file, self.header.name(), &self.path, true).map_err(|e| changed(e.to_string()))?;
        let whole = facts.header.as_ref().map_err(|fault| changed(format!("{fault:?}")))?;
        let original = |header: &SegmentHeader| SegmentHeader { packed: false, cipher: None, ..header.clone() };
        // Begun anew when the keys or the source's id changed, a segment without a record says later where it begins.
        let timeline = &whole.header.timeline;
        let began = whole.header.first_lsn == self.header.first_lsn && timeline.is_same(&self.header.timeline);
        let same = began && whole.header.prev_link == self.header.prev_link;
        if !same && original(&whole.header) != original(&self.header) {
            return Err(changed("a segment of another history".to_owned()));
        }
        let mut entry = Self::begin(&self.storage, &facts, whole, &self.keyring);
        match &facts.tail {
            TailFact::Sealed(footer) => {
                entry.check_proof(footer).map_err(|damage| changed(damage.found))?;
                entry.seal(footer);
            }
            TailFact::Open(scan) => entry.fill(scan, true, &mut Vec::new()),
            TailFact::BadFooter { damage, .. } => return Err(changed(damage.found.clone())),
            TailFact::Unknown => return Err(changed("nothing".to_owned())),
        }
        entry.until = Some(self.tally.extent.next_lsn);
        if self.sealed {
            // What is behind it is what it was.
            (entry.damage, entry.unchained, entry.lost) = (self.damage.clone(), self.unchained, self.lost.clone());
        }
        Ok(entry)
    }

    /// Takes over what a walk over the blocks found. `may_be_live`: a torn tail is no damage.
    fn fill(&mut self, scan: &Scan, may_be_live: bool, notes: &mut Vec<String>) {
        self.data_end = scan.end;
        self.tally = scan.tally.clone();
        let damage = match &scan.rest {
            Rest::Torn { .. } | Rest::Nothing if may_be_live => return,
            Rest::Nothing => Damage::new("a footer", "the end of the file"),
            Rest::Torn { damage, .. } | Rest::Corrupt { damage, .. } => damage.clone(),
        };
        notes.push(format!("{} at offset {}: {damage}", self.path.display(), self.data_end));
        self.damage = Some(damage);
    }
}
