//! Verifying segments and how they continue each other.

use std::path::Path;
use std::time::Duration;

use super::files::unless_wrong_kind;
use super::{Begins, Verifier, VerifyProgress};
use crate::block::{BlockHeader, Groups, PayloadFault, decode_payload};
use crate::bloom::{BloomFilter, Places};
use crate::crypto::{KeyFault, Sealer};
use crate::error::{OpenError, Span};
use crate::lock::is_held;
use crate::recover::{check_footer, check_header, span_of, span_of_rest};
use crate::segment::footer::Footer;
use crate::segment::header::{HeaderFault, SegmentHeader, WholeHeader};
use crate::segment::link::hash_file;
use crate::segment::load::{SegmentFacts, TailFact, list_segments, load_open_segment};
use crate::segment::scan::{BlockFault, Blocks, Rest, Scan, scan};
use crate::segment::tally::Tally;
use crate::storage::{Storage, StoredFile, Version};
use crate::types::{Lsn, Micros};

/// How often a tail that a living writer may be writing is looked at.
const LIVE_LOOKS: u32 = 50;
/// The time in between.
const LIVE_PAUSE: Duration = Duration::from_millis(20);

const LOST: &str = "its records cannot be read: restore to a point in time before them, or after a later snapshot";
const UNPROVEN: &str = "the records are there and right, but the segment no longer proves it";
const CHAIN: &str = "records between the two segments may be missing: no restore across this place";
const FORGED: &str = "this end of the segment was written without the key: more records may have followed it";
const FILTERS: &str = "restores are not affected; a search for a key may miss records";
const TORN: &str = "nothing that was durable; the next start of the writer cuts it off";

/// The sealed segment before, as far as it is right.
type Previous = Option<(SegmentHeader, Footer)>;

impl<P: FnMut(&VerifyProgress)> Verifier<'_, P> {
    pub(super) fn segments(&mut self, journal_id: [u8; 16]) -> Result<Begins, OpenError> {
        let (names, others) = unless_wrong_kind(list_segments(&self.storage))?;
        for name in others {
            let path = self.dir.segments().join(name);
            self.problem(&path, 0, "not a segment's name", None, "none: it is ignored");
        }
        let mut previous: Previous = None;
        let mut begins = Begins::new();
        for (n, (name, path)) in names.iter().enumerate() {
            let is_last = n + 1 == names.len();
            // One file from beginning to end: by its path there may soon be its packed copy.
            let file = match self.storage.open(path).map_err(OpenError::io("open", path)) {
                Err(error @ OpenError::WrongKind { .. }) => {
                    self.refusal(error, LOST)?;
                    previous = None;
                    continue;
                }
                other => other?,
            };
            let facts = load_open_segment(&*file, *name, path, is_last)?;
            self.report.segments += 1;
            previous = self.segment(&*file, &facts, is_last, journal_id, &previous)?;
            if let Ok(whole) = &facts.header {
                let header = &whole.header;
                begins.entry(header.timeline.id).or_insert(header.first_lsn);
            }
            self.done(path, facts.bytes);
        }
        Ok(begins)
    }

    fn segment(
        &mut self,
        file: &dyn StoredFile,
        facts: &SegmentFacts,
        is_last: bool,
        journal_id: [u8; 16],
        previous: &Previous,
    ) -> Result<Previous, OpenError> {
        if is_last && facts.header == Err(HeaderFault::Unfinished) {
            let what = "its creation was interrupted";
            match self.tail_is(file, facts) {
                Tail::Growing => {}
                Tail::Waiting => self.waiting(&facts.path, 0, what),
                Tail::Left => self.problem(&facts.path, 0, what, None, TORN),
            }
            return Ok(None);
        }
        let chained = previous.as_ref().map(|(header, footer)| (header, footer));
        if let Err(error) = check_header(facts, journal_id, chained, &self.splices) {
            let consequence = if facts.header.is_ok() { CHAIN } else { LOST };
            self.refusal(error, consequence)?;
        }
        let Ok(whole) = &facts.header else { return Ok(None) };
        let header = whole.header.clone();
        if let Some((_, footer)) = chained
            && let Some(splice) = self.splices.find(&header, &footer.link())
            && let Some(lost) = splice.lost
        {
            let file = self.relative(&facts.path);
            self.report.notes.push(format!(
                "{}: {} is lost before it, as a repair recorded at {}: {}",
                file.display(),
                lost.span(),
                splice.repaired,
                splice.why
            ));
        }
        match &facts.tail {
            TailFact::Sealed(footer) => {
                self.end = self.end.max(footer.tally.extent.next_lsn);
                if let Err(error) = check_footer(facts, &header, footer) {
                    self.refusal(error, UNPROVEN)?;
                } else if let Ok(sealer) = header.unlock(self.keyring)
                    && let Err(damage) = footer.check_proof(sealer.as_deref())
                {
                    let span = Some(span_of(facts));
                    self.problem(&facts.path, footer.position, damage.to_string(), span, FORGED);
                }
                if self.deep {
                    self.sealed_blocks(file, facts, whole, footer)?;
                } else {
                    self.report.blocks += u64::from(footer.tally.blocks);
                    self.report.groups += footer.tally.groups;
                    self.report.records += footer.tally.records;
                }
                Ok(Some((header, footer.clone())))
            }
            TailFact::BadFooter { position, damage } => {
                let scan = self.blocks(file, facts, whole, facts.bytes)?;
                if let Rest::Corrupt { .. } = &scan.rest {
                    self.unsealed(file, facts, is_last, &scan);
                }
                // Its length may be what is wrong: then it seems to begin among the blocks.
                let at = (*position).max(scan.end);
                self.problem(&facts.path, at, damage.to_string(), Some(span_of(facts)), UNPROVEN);
                Ok(None)
            }
            TailFact::Open(_) | TailFact::Unknown => {
                let scan = self.blocks(file, facts, whole, facts.bytes)?;
                self.unsealed(file, facts, is_last, &scan);
                Ok(None)
            }
        }
    }

    /// What is behind the blocks of a segment without a footer.
    fn unsealed(&mut self, file: &dyn StoredFile, facts: &SegmentFacts, is_last: bool, scan: &Scan) {
        let path = &facts.path;
        match &scan.rest {
            Rest::Nothing if is_last => {}
            Rest::Nothing => {
                let span = Some(span_of(facts));
                self.problem(path, scan.end, "it has no footer", span, UNPROVEN);
            }
            Rest::Torn { bytes, damage } => {
                let what = format!("{bytes} bytes after the last whole block: {damage}");
                match if is_last { self.tail_is(file, facts) } else { Tail::Left } {
                    Tail::Growing => return,
                    Tail::Waiting => return self.waiting(path, scan.end, &what),
                    Tail::Left => {}
                }
                let from_lsn = scan.tally.extent.next_lsn;
                let from_ts = scan.tally.extent.last_ts;
                let span = Some(Span { from_lsn, from_ts, ..Span::default() });
                let consequence = if is_last { TORN } else { LOST };
                self.problem(path, scan.end, what, span, consequence);
            }
            Rest::Corrupt { damage, block, .. } => {
                let span = span_of_rest(&scan.tally, block.first_lsn, block.first_ts);
                self.problem(path, scan.end, damage.to_string(), Some(span), LOST);
            }
        }
    }

    fn tail_is(&self, file: &dyn StoredFile, facts: &SegmentFacts) -> Tail {
        let read = file.version().map(|version| Version { bytes: facts.bytes, ..version }).ok();
        let changed = || {
            let now = self.storage.look_at(&facts.path).ok().flatten();
            now.is_none_or(|now| Some(now.version) != read)
        };
        for _ in 0..LIVE_LOOKS {
            // In this order: a writer that has released the lock has finished writing.
            let left = !is_held(&self.dir.lock());
            if changed() {
                return Tail::Growing;
            }
            if left {
                return Tail::Left;
            }
            std::thread::sleep(LIVE_PAUSE);
        }
        Tail::Waiting
    }

    fn waiting(&mut self, path: &Path, offset: u64, what: &str) {
        let file = self.relative(path);
        self.report.notes.push(format!(
            "{} at offset {offset}: {what}; its writer is running and makes no progress: the disk is slow, or this is damage. Verify again later, or after stopping the writer",
            file.display()
        ));
    }

    /// Every block up to the footer, their sum, and the digest.
    fn sealed_blocks(
        &mut self,
        file: &dyn StoredFile,
        facts: &SegmentFacts,
        whole: &WholeHeader,
        footer: &Footer,
    ) -> Result<(), OpenError> {
        let path = &facts.path;
        let scan = self.blocks(file, facts, whole, footer.blocks_end)?;
        match &scan.rest {
            Rest::Nothing if scan.tally != footer.tally => {
                let what = "the footer's sums or index do not fit the blocks";
                self.problem(path, footer.position, what, Some(span_of(facts)), UNPROVEN);
            }
            Rest::Nothing => {}
            Rest::Torn { damage, .. } => {
                let end = footer.tally.extent;
                let span = span_of_rest(&scan.tally, end.next_lsn, end.last_ts);
                self.problem(path, scan.end, damage.to_string(), Some(span), LOST);
            }
            Rest::Corrupt { damage, block, .. } => {
                let span = span_of_rest(&scan.tally, block.first_lsn, block.first_ts);
                self.problem(path, scan.end, damage.to_string(), Some(span), LOST);
            }
        }
        if let (Some(places), Rest::Nothing) = (&footer.filters, &scan.rest)
            && let Ok(sealer) = whole.header.unlock(self.keyring)
            && let Err(what) = check_filters(file, whole, footer, places, sealer.as_deref())
        {
            self.problem(path, footer.blocks_end, what, Some(span_of(facts)), FILTERS);
        }
        let digest = hash_file(file, footer.position).map_err(OpenError::io("read", path))?;
        if digest.as_bytes() != &footer.digest {
            let what = format!(
                "expected BLAKE3 {} of the bytes before the footer, found {digest}",
                blake3::Hash::from(footer.digest)
            );
            let span = Span { from_ts: whole.header.last_ts, ..span_of(facts) };
            self.problem(path, 0, what, Some(span), "the segment is not as it was written");
        }
        Ok(())
    }

    /// Walks the blocks up to `end`, decoding every group if this is a deep verification.
    fn blocks(
        &mut self,
        file: &dyn StoredFile,
        facts: &SegmentFacts,
        whole: &WholeHeader,
        end: u64,
    ) -> Result<Scan, OpenError> {
        let unlocked = whole.header.unlock(self.keyring);
        let deep = self.deep && unlocked.is_ok();
        match &unlocked {
            Err(fault @ KeyFault::Wrong(_)) => {
                self.problem(&facts.path, 0, fault.to_string(), Some(span_of(facts)), LOST);
            }
            Err(fault @ KeyFault::Missing(_)) if self.deep => {
                let file = self.relative(&facts.path);
                self.report.notes.push(format!("{}: its groups were not looked at: {fault}", file.display()));
            }
            _ => {}
        }
        let sealer = unlocked.ok().flatten();
        let mut damaged: Vec<(BlockHeader, Lsn, Micros, String)> = Vec::new();
        let check = |_: &Tally, block: &BlockHeader, payload: &bytes::Bytes| {
            if !deep {
                return;
            }
            let payload = match decode_payload(block, payload.clone(), sealer.as_deref()) {
                Ok(payload) => payload,
                Err(fault) => {
                    damaged.push((*block, block.first_lsn, block.first_ts, in_words(fault)));
                    return;
                }
            };
            let mut groups = Groups::new(*block, payload);
            while let Some(group) = groups.next() {
                if let Err(damage) = group {
                    let what = format!("a group: {damage}");
                    damaged.push((*block, groups.next_lsn(), groups.last_ts(), what));
                }
            }
        };
        let scan = scan(file, end, whole, check).map_err(OpenError::io("read", &facts.path))?;
        for (block, from_lsn, from_ts, what) in damaged {
            let span = Span {
                from_lsn,
                to_lsn: Some(Lsn(block.next_lsn().0.saturating_sub(1))),
                from_ts,
                to_ts: Some(block.last_ts),
            };
            self.problem(&facts.path, block.position, what, Some(span), LOST);
        }
        self.end = self.end.max(scan.tally.extent.next_lsn);
        self.report.blocks += u64::from(scan.tally.blocks);
        self.report.groups += scan.tally.groups;
        self.report.records += scan.tally.records;
        Ok(scan)
    }
}

/// Every key of every record must be in both its filters. Damage elsewhere was found before.
fn check_filters(
    file: &dyn StoredFile,
    whole: &WholeHeader,
    footer: &Footer,
    places: &Places,
    sealer: Option<&Sealer>,
) -> Result<(), String> {
    let load =
        |place| BloomFilter::read(place, sealer, |at, out| file.read_exact_at(out, at)).map_err(|e| e.to_string());
    let all = load(places.all)?;
    let mut part: Option<(usize, BloomFilter)> = None;
    for block in Blocks::of(file, whole, footer.blocks_end) {
        let (block, stored) = block.map_err(|e| e.to_string())?;
        let n = footer.tally.index.partition_point(|e| e.position <= block.position).saturating_sub(1);
        let filter = match &mut part {
            Some((of, filter)) if *of == n => filter,
            _ => {
                let place = places.intervals.get(n).ok_or("a block without a filter")?;
                &mut part.insert((n, load(*place)?)).1
            }
        };
        let payload = decode_payload(&block, stored, sealer).map_err(|e| BlockFault::from(e).to_string())?;
        for group in Groups::new(block, payload).map_while(Result::ok) {
            if !filter.has(&group) || !all.has(&group) {
                return Err(format!("a key filter that leaves out LSN {}", group.records[0].lsn));
            }
        }
    }
    Ok(())
}

/// What becomes of an incomplete end of the last segment.
enum Tail {
    /// A writer goes on with it.
    Growing,
    /// A writer lives, but does not go on.
    Waiting,
    /// There is no writer: it stays so.
    Left,
}

/// Why a whole block's payload cannot be decoded.
fn in_words(fault: PayloadFault) -> String {
    BlockFault::from(fault).to_string()
}
