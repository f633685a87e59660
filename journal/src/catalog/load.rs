//! Building a catalog from a directory.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::open_filters::OpenFilters;
use super::{Catalog, SegmentInfo};
use crate::bloom::BloomFilter;
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
use crate::segment::name::SegmentName;
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
    /// Of the segment in use, if the journal was opened for a search: one for each entry of the index.
    pub(super) filters: Option<Vec<BloomFilter>>,
    /// For a sealed segment without index: that stays in the file until it is wanted.
    pub(crate) tally: Tally,
    pub(crate) bytes: u64,
    /// So much of it was read when the journal was opened.
    walked_bytes: u64,
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
            format!("a segment is missing, or is not the right one, after {}", self.path.display())
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
            walked_bytes: self.walked_bytes,
        }
    }
}

/// `for_search`: filters are made of the segment in use.
pub(super) fn load(root: &Path, keyring: &Keyring, for_search: bool) -> Result<Catalog, OpenError> {
    let dir = Directory::new(root);
    let Some(meta) = Meta::load(&dir)? else {
        return Err(not_a_journal(&dir));
    };
    // Before the first name is read: what is listed must still be there when it is opened.
    let lease = Arc::new(ReadLease::take(&dir));
    let storage: Arc<dyn Storage> = Arc::new(LocalDirectory::new(&dir));
    let splices = Splices::load(&dir).map_err(OpenError::io("read", dir.splices()))?;
    let mut loader = Loader {
        storage: &storage,
        journal_id: meta.id().unwrap_or_default(),
        splices: &splices,
        keyring,
        filters: for_search.then(|| dir.filters()),
        entries: Vec::new(),
        previous: None,
        notes: Vec::new(),
    };
    let (names, _) = list_segments(&*storage)?;
    for (n, (name, path)) in names.iter().enumerate() {
        loader.add(*name, path, n + 1 == names.len())?;
    }
    let Loader { entries, mut notes, .. } = loader;
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

/// Puts the entries of a catalog together, segment by segment, in the order of the history.
struct Loader<'a> {
    storage: &'a Arc<dyn Storage>,
    journal_id: [u8; 16],
    splices: &'a Splices,
    keyring: &'a Keyring,
    /// Where a writer keeps those of the segment in use, for a search.
    filters: Option<PathBuf>,
    entries: Vec<Entry>,
    /// Of the segment before, if it is sealed.
    previous: Option<(SegmentHeader, Footer)>,
    /// What is damaged, for the reader.
    notes: Vec<String>,
}

/// A header that was checked against the segment before.
struct CheckedHeader {
    whole: WholeHeader,
    /// It is right by itself, but does not continue the segment before.
    unchained: Option<Damage>,
}

impl Loader<'_> {
    /// Adds the next segment. One that cannot be used is left out, and the history breaks off before it.
    fn add(&mut self, name: SegmentName, path: &Path, is_last: bool) -> Result<(), OpenError> {
        // Only the last one can be in use.
        let mut filters = OpenFilters::new(self.filters.clone().filter(|_| is_last), self.keyring);
        let Some(facts) = self.read(name, path, is_last, &mut filters)? else { return Ok(()) };
        if is_last && facts.header == Err(HeaderFault::Unfinished) {
            return Ok(());
        }
        let Some(checked) = self.check(&facts)? else { return Ok(()) };
        self.explain_what_is_before(&checked.whole.header);
        if let (Some(damage), Some(before)) = (checked.unchained, self.entries.last_mut()) {
            self.notes.push(format!("{} does not continue {}: {damage}", path.display(), before.path.display()));
            before.damage = Some(damage);
            before.unchained = true;
        }
        let mut entry = self.entry(&facts, &checked.whole, is_last)?;
        if matches!(facts.tail, TailFact::Open(_)) {
            entry.walked_bytes = entry.bytes - filters.walked_from();
            entry.filters = filters.finish(entry.tally.index.len());
        }
        self.entries.push(entry);
        Ok(())
    }

    /// `None` = there is nothing to use.
    fn read(
        &mut self,
        name: SegmentName,
        path: &Path,
        is_last: bool,
        filters: &mut OpenFilters,
    ) -> Result<Option<SegmentFacts>, OpenError> {
        match load_segment_and(&**self.storage, name, path, is_last, filters) {
            // Pruned since it was listed.
            Err(OpenError::Io { source, .. })
                if source.kind() == std::io::ErrorKind::NotFound && self.entries.is_empty() =>
            {
                Ok(None)
            }
            // As one that is damaged.
            Err(error @ OpenError::WrongKind { .. }) => {
                self.leave_out(&error);
                Ok(None)
            }
            other => other.map(Some),
        }
    }

    /// `None` = the segment cannot be used.
    fn check(&mut self, facts: &SegmentFacts) -> Result<Option<CheckedHeader>, OpenError> {
        let previous = self.previous.as_ref().map(|(header, footer)| (header, footer));
        let error = match (check_header(facts, self.journal_id, previous, self.splices), previous) {
            (Ok(whole), _) => return Ok(Some(CheckedHeader { whole: whole.clone(), unchained: None })),
            (Err(OpenError::Corrupt { damage, .. }), Some((header, footer)))
                if later(facts, header, &footer.tally)
                    && let Ok(whole) = check_header(facts, self.journal_id, None, self.splices) =>
            {
                return Ok(Some(CheckedHeader { whole: whole.clone(), unchained: Some(*damage) }));
            }
            (Err(error @ OpenError::Corrupt { .. }), _) => error,
            (Err(error), _) => return Err(error),
        };
        self.leave_out(&error);
        Ok(None)
    }

    fn leave_out(&mut self, error: &OpenError) {
        self.notes.push(error.to_string());
        break_off(self.entries.last_mut());
    }

    /// The segment before may be damaged at its end: `header`, of the one behind it, tells what that means.
    fn explain_what_is_before(&mut self, header: &SegmentHeader) {
        let Some(before) = self.entries.last_mut() else { return };
        let footer = self.previous.as_ref().map(|(_, footer)| footer);
        if let Some(splice) = footer.and_then(|footer| self.splices.find(header, &footer.link()))
            && let Some(lost) = splice.lost
        {
            before.damage =
                Some(Damage::new("the records behind it", format!("{} is lost: {}", lost.span(), splice.why)));
            before.lost = Some(splice.clone());
        } else if before.tally.extent.next_lsn == header.first_lsn {
            // Nothing is missing between the two, whatever is wrong with the footer.
            before.damage = None;
        }
    }

    fn entry(&mut self, facts: &SegmentFacts, whole: &WholeHeader, is_last: bool) -> Result<Entry, OpenError> {
        let mut entry = Entry::begin(self.storage, facts, whole, self.keyring);
        self.previous = None;
        match &facts.tail {
            TailFact::Sealed(footer) => {
                check_footer(facts, &entry.header, footer)?;
                entry.check_proof(footer).map_err(|damage| corrupt(facts, footer.position, damage))?;
                self.previous = Some((entry.header.clone(), footer.clone()));
                entry.seal(footer);
            }
            TailFact::Open(scan) => entry.fill(scan, is_last, &mut self.notes),
            TailFact::BadFooter { .. } | TailFact::Unknown => {
                let scan = rescan(&**self.storage, facts, whole)?;
                entry.fill(&scan, false, &mut self.notes);
            }
        }
        Ok(entry)
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
            walked_bytes: 0,
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
