//! One segment's file, opened, and a place in it.

use std::ops::Range;
use std::sync::Arc;

use super::load::Entry;
use super::search::{Ranges, Search};
use super::take::TakeRecords;
use crate::block::{BLOCK_HEADER_LEN, BlockHeader, Groups, decode_payload};
use crate::bloom::Place;
use crate::crypto::{KeyFault, Sealer};
use crate::error::{Damage, ReadError, Span};
use crate::segment::footer::Footer;
use crate::segment::load::read_footer;
use crate::segment::scan::{BlockFault, read_block_header, read_payload};
use crate::segment::tally::Extent;
use crate::storage::StoredFile;
use crate::types::{Lsn, Micros};

/// A segment's file and a place in it.
#[derive(Debug)]
pub(super) struct OpenSegment {
    file: Box<dyn StoredFile>,
    pub(super) entry: Arc<Entry>,
    position: u64,
    pub(super) block_position: u64,
    /// Of a sealed segment, once it was wanted.
    footer: Option<Footer>,
    /// The parts that are wanted, in order; `None` = all.
    ranges: Option<Vec<Range<u64>>>,
}

impl OpenSegment {
    pub(super) fn open(entry: &Arc<Entry>) -> Result<Self, ReadError> {
        let file = entry.storage.open(&entry.path).map_err(|e| io_error(entry, 0, e))?;
        let mut entry = Arc::clone(entry);
        // The catalog knows the segment as it was; since then its packed copy may have taken its place.
        if !has_tag(&*file, &entry).map_err(|e| io_error(&entry, 0, e))? {
            entry = Arc::new(entry.look_again(&*file)?);
        }
        Ok(Self { file, position: entry.header_len, entry, block_position: 0, footer: None, ranges: None })
    }

    fn read_footer(&mut self) -> Result<(), ReadError> {
        let entry = &self.entry;
        if !entry.sealed || self.footer.is_some() {
            return Ok(());
        }
        let footer = read_footer(&*self.file, entry.footer_at, entry.bytes, entry.tag)
            .map_err(|e| io_error(entry, entry.footer_at, e))?
            .map_err(|d| corrupt(entry, entry.footer_at, Span::default(), d))?;
        self.footer = Some(footer);
        Ok(())
    }

    /// Asks the filters, if there are any: from now on, only what may concern the keys is given.
    pub(super) fn look_for(&mut self, search: &Search, read_bytes: &mut u64) -> Result<(), ReadError> {
        self.read_footer()?;
        let entry = &self.entry;
        if let Some(filters) = entry.filters.as_ref().filter(|_| !entry.sealed) {
            self.ranges = Some(search.ranges_by(&entry.tally.index, filters, entry.data_end));
            return Ok(());
        }
        let Some(Footer { filters: Some(places), tally, blocks_end, position, .. }) = &self.footer else {
            return Ok(());
        };
        *read_bytes += entry.bytes - position;
        let read = |at: u64, out: &mut [u8]| self.file.read_exact_at(out, at);
        let ranges = search
            .ranges(&tally.index, places, *blocks_end, self.sealer()?, read, read_bytes)
            .map_err(|e| io_error(entry, *blocks_end, e))?;
        // A filter that cannot be trusted spares nothing, and hides nothing.
        self.ranges = ranges.inspect_err(|damage| tracing::warn!("{}: {damage}", entry.path.display())).ok();
        Ok(())
    }

    /// Moves on to what is wanted; returns how many bytes that has spared.
    pub(super) fn skip(&mut self) -> u64 {
        let Some(ranges) = &self.ranges else { return 0 };
        let next = ranges.iter().find(|range| range.end > self.position);
        let to = next.map_or(self.entry.data_end, |range| range.start).max(self.position);
        let skipped = to - self.position;
        self.position = to;
        skipped
    }

    /// The intervals of the index that are wanted and begin at or before `upto`, in order, and the size of all. Of a segment
    /// that was sealed since, the index is that of the file that is there now.
    pub(super) fn intervals(&mut self, upto: Lsn) -> Result<(Vec<Range<u64>>, u64), ReadError> {
        self.read_footer()?;
        let entry = &self.entry;
        let index = self.footer.as_ref().map_or(&entry.tally.index, |footer| &footer.tally.index);
        // Where each interval begins, and an LSN that is not greater than its first one: the index says what lies behind
        // its blocks.
        let mut begins = vec![(entry.header_len, entry.header.first_lsn)];
        let mut before = entry.header.first_lsn;
        for at in index {
            if at.position > entry.header_len {
                begins.push((at.position, before));
            }
            before = at.extent.next_lsn;
        }
        let ends = begins[1..].iter().map(|(start, _)| *start).chain([entry.data_end]);
        let wanted = |range: &Range<u64>| {
            let inside = |part: &Range<u64>| part.start < range.end && range.start < part.end;
            range.start < range.end && self.ranges.as_ref().is_none_or(|ranges| ranges.iter().any(inside))
        };
        let ranges = begins.iter().zip(ends).filter(|((_, lsn), _)| *lsn <= upto).map(|((start, _), end)| *start..end);
        let intervals = ranges.filter(wanted).collect();
        Ok((intervals, entry.data_end - entry.header_len))
    }

    /// The parts into which the index divides the blocks, in order.
    pub(super) fn parts(&mut self) -> Result<Vec<Part>, ReadError> {
        self.read_footer()?;
        let entry = &self.entry;
        let index = self.footer.as_ref().map_or(&entry.tally.index, |footer| &footer.tally.index);
        let places = self.footer.as_ref().and_then(|footer| footer.filters.as_ref());
        let filter = |n: usize| match (places, &entry.filters) {
            (Some(places), _) => places.intervals.get(n).map_or(PartFilter::None, |place| PartFilter::File(*place)),
            (None, Some(_)) if !entry.sealed => PartFilter::Memory(n),
            _ => PartFilter::None,
        };
        let mut parts: Vec<Part> = Vec::with_capacity(index.len() + 1);
        let mut begin = |position: u64, first: Lsn, extent: Option<&Extent>, filter: PartFilter| {
            if let Some(before) = parts.last_mut() {
                before.range.end = position;
                // What the index says of a part holds behind its first block.
                before.last = extent.map_or(before.last, |extent| Lsn(extent.next_lsn.0.saturating_sub(1)));
            }
            parts.push(Part { range: position..entry.data_end, first, last: entry.last_lsn(), filter });
        };
        let mut before = entry.header.first_lsn;
        if index.first().is_none_or(|first| first.position > entry.header_len) {
            begin(entry.header_len, before, None, PartFilter::None);
        }
        for (n, at) in index.iter().enumerate() {
            begin(at.position, before, Some(&at.extent), filter(n));
            before = at.extent.next_lsn;
        }
        parts.retain(|part| part.range.start < part.range.end);
        Ok(parts)
    }

    /// Those of the hashes that may be anywhere in the segment; without filters, all.
    pub(super) fn may_hold_anywhere(&self, hashes: &[u64], read_bytes: &mut u64) -> Result<Vec<u64>, ReadError> {
        let places = self.footer.as_ref().and_then(|footer| footer.filters.as_ref());
        match places {
            Some(places) => Ok(self.ask(hashes, places.all, read_bytes)?.unwrap_or_else(|| hashes.to_vec())),
            None => Ok(hashes.to_vec()),
        }
    }

    /// Whether one of the hashes may be in the part.
    pub(super) fn may_hold(&self, part: &Part, hashes: &[u64], read_bytes: &mut u64) -> Result<bool, ReadError> {
        match part.filter {
            PartFilter::None => Ok(true),
            PartFilter::Memory(n) => Ok(self
                .entry
                .filters
                .as_ref()
                .and_then(|filters| filters.get(n))
                .is_none_or(|filter| filter.has_unknown() || hashes.iter().any(|hash| filter.may_hold(*hash)))),
            PartFilter::File(place) if place.unknown => Ok(true),
            PartFilter::File(_) if hashes.is_empty() => Ok(false),
            PartFilter::File(place) => Ok(self.ask(hashes, place, read_bytes)?.is_none_or(|found| !found.is_empty())),
        }
    }

    /// `None`: the filter cannot be trusted, it spares nothing and hides nothing.
    fn ask(&self, hashes: &[u64], place: Place, read_bytes: &mut u64) -> Result<Option<Vec<u64>>, ReadError> {
        let mut read = |at: u64, out: &mut [u8]| self.file.read_exact_at(out, at);
        let found = Search::may_be_in(hashes, place, self.sealer()?, &mut read, read_bytes)
            .map_err(|e| io_error(&self.entry, place.position, e))?;
        Ok(found.inspect_err(|damage| tracing::warn!("{}: {damage}", self.entry.path.display())).ok())
    }

    /// Size of the footer, which is read to know the parts.
    pub(super) fn footer_bytes(&self) -> u64 {
        self.footer.as_ref().map_or(0, |footer| self.entry.bytes.saturating_sub(footer.position))
    }

    /// From now on, only those parts are given of which the LSNs, from the first to the last, may be wanted.
    pub(super) fn look_within(&mut self, wanted: &dyn Fn(Lsn, Lsn) -> bool) -> Result<(), ReadError> {
        let mut ranges = Ranges::default();
        for part in self.parts()? {
            if wanted(part.first, part.last) {
                ranges.add(part.range);
            }
        }
        self.ranges = Some(ranges.0);
        Ok(())
    }

    /// Moves to the last indexed block up to which nothing is `beyond`, if there is one; returns how
    /// far the history reaches with it.
    pub(super) fn seek(&mut self, beyond: impl Fn(&Extent) -> bool) -> Result<Option<Extent>, ReadError> {
        self.read_footer()?;
        let index = self.footer.as_ref().map_or(&self.entry.tally.index, |footer| &footer.tally.index);
        let n = index.partition_point(|e| !beyond(&e.extent));
        let Some(found) = n.checked_sub(1).map(|n| index[n]) else { return Ok(None) };
        self.position = found.position;
        Ok(Some(found.extent))
    }

    /// The header of the next block, `None` at the end. Its payload is not touched.
    pub(super) fn next_header(&mut self) -> Result<Option<BlockHeader>, ReadError> {
        let at = self.position;
        let block = self.block_at(at)?;
        if let Some(block) = &block {
            self.block_position = at;
            self.position += block.len();
        }
        Ok(block)
    }

    /// The header of the block that begins there, `None` at the end.
    fn block_at(&self, at: u64) -> Result<Option<BlockHeader>, ReadError> {
        let entry = &self.entry;
        if at >= entry.data_end {
            return Ok(None);
        }
        let block = read_block_header(&*self.file, at, entry.data_end, Some(entry.tag));
        let block = block.map_err(|fault| {
            let span = Span { from_lsn: entry.header.first_lsn, ..span_of_entry(entry) };
            fault_at(entry, at, span, fault)
        })?;
        Ok(Some(block).filter(|block| !self.is_later(block.first_lsn)))
    }

    fn sealer(&self) -> Result<Option<&Sealer>, ReadError> {
        let sealer = self.entry.sealer.as_ref();
        let key = |fault: &KeyFault| ReadError::Key { file: self.entry.path.clone(), fault: fault.clone() };
        sealer.map(Option::as_deref).map_err(key)
    }

    /// What begins with this LSN was written after the catalog was opened.
    pub(super) fn is_later(&self, lsn: Lsn) -> bool {
        self.entry.until.is_some_and(|until| lsn >= until)
    }

    /// Decodes the groups of a part of the blocks that lie behind `after` and end by `upto`, the oldest first. What is before an
    /// error is given, too. Counts the bytes that it reads.
    pub(super) fn each_group(
        &self,
        part: &Range<u64>,
        (after, upto): (Lsn, Lsn),
        read_bytes: &mut u64,
        to: &mut impl TakeRecords,
    ) -> Result<(), ReadError> {
        let wanted = |last: Lsn| last > after && last <= upto && !self.is_later(last);
        let mut at = part.start;
        while at < part.end {
            let Some(block) = self.block_at(at)? else { break };
            at += block.len();
            *read_bytes += BLOCK_HEADER_LEN as u64;
            let within = block.first_lsn <= upto && block.next_lsn().0.saturating_sub(1) > after.0;
            if block.groups == 0 || !within {
                continue;
            }
            *read_bytes += u64::from(block.stored_len);
            let mut groups = self.groups(&block)?;
            loop {
                let next = groups.next_unless(&mut |record| wanted(record.lsn) && to.single(record));
                let Some(group) = next else { break };
                let group = group.map_err(|damage| {
                    let span = Span { from_lsn: groups.next_lsn(), from_ts: groups.last_ts(), ..Span::default() };
                    corrupt(&self.entry, block.position, span, damage)
                })?;
                let Some(group) = group else { continue };
                if wanted(group.records.last().map_or(block.first_lsn, |record| record.lsn)) {
                    to.group(group);
                }
            }
        }
        Ok(())
    }

    /// Reads the payload of a block and decodes it group by group.
    pub(super) fn groups(&self, block: &BlockHeader) -> Result<Groups, ReadError> {
        let sealer = self.sealer()?;
        let payload = read_payload(&*self.file, block)
            .and_then(|stored| Ok(decode_payload(block, stored, sealer)?))
            .map_err(|fault| fault_at(&self.entry, block.position, span_of(block), fault))?;
        Ok(Groups::new(*block, payload))
    }
}

/// Blocks from one entry of the index up to the next.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) range: Range<u64>,
    /// No greater than its first LSN.
    pub(super) first: Lsn,
    /// No smaller than its last LSN.
    pub(super) last: Lsn,
    filter: PartFilter,
}

/// Where the key filter of a part is.
#[derive(Debug, Clone, Copy)]
enum PartFilter {
    None,
    File(Place),
    /// Of the segment in use, by its number.
    Memory(usize),
}

/// Whether the file has the header that the catalog has seen.
fn has_tag(file: &dyn StoredFile, entry: &Entry) -> std::io::Result<bool> {
    const LEN: usize = 4;
    let mut tag = [0; LEN];
    match file.read_exact_at(&mut tag, entry.header_len - LEN as u64) {
        Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => Ok(false),
        other => other.map(|()| u32::from_le_bytes(tag) == entry.tag),
    }
}

pub(super) fn span_of(block: &BlockHeader) -> Span {
    Span {
        from_lsn: block.first_lsn,
        to_lsn: Some(Lsn(block.next_lsn().0.saturating_sub(1))),
        from_ts: block.first_ts,
        to_ts: Some(block.last_ts),
    }
}

fn span_of_entry(entry: &Entry) -> Span {
    Span {
        from_lsn: entry.header.first_lsn,
        to_lsn: Some(entry.last_lsn()),
        from_ts: entry.header.last_ts,
        to_ts: Some(entry.tally.extent.last_ts.max(Micros(i64::MIN))),
    }
}

fn fault_at(entry: &Entry, offset: u64, span: Span, fault: BlockFault) -> ReadError {
    match fault {
        BlockFault::Damage(damage) => corrupt(entry, offset, span, damage),
        BlockFault::Io(source) => ReadError::Io { file: entry.path.clone(), offset, lsn: span.from_lsn, source },
        BlockFault::UnknownCodec(codec) => {
            ReadError::UnknownCodec { file: entry.path.clone(), offset, lsn: span.from_lsn, codec }
        }
    }
}

pub(super) fn corrupt(entry: &Entry, offset: u64, span: Span, damage: Damage) -> ReadError {
    ReadError::Corrupt { file: entry.path.clone(), offset, span, damage: Box::new(damage) }
}

fn io_error(entry: &Entry, offset: u64, source: std::io::Error) -> ReadError {
    ReadError::Io { file: entry.path.clone(), offset, lsn: entry.header.first_lsn, source }
}
