//! Streaming the groups of a timeline.

use std::fs::File;
use std::sync::Arc;

use super::load::Entry;
use crate::block::{BlockHeader, CODEC_NONE, Groups};
use crate::error::{Damage, ReadError, Span};
use crate::lease::ReadLease;
use crate::segment::load::read_footer;
use crate::segment::scan::{BlockFault, read_block_header, read_payload};
use crate::segment::tally::{IndexEntry, Reach};
use crate::types::{Group, Lsn, Micros, TimelineId};

/// Streams groups; ends after the first error.
#[derive(Debug)]
pub struct GroupReader {
    entries: Arc<[Entry]>,
    /// Nothing is removed while it reads.
    _lease: Arc<ReadLease>,
    timeline: TimelineId,
    after: Lsn,
    /// The segment to open next.
    next_entry: usize,
    segment: Option<OpenSegment>,
    block: Option<Groups>,
    /// LSN with which the next block must begin, if known.
    expected: Option<Lsn>,
    ended: bool,
}

impl GroupReader {
    pub(super) fn new(entries: Arc<[Entry]>, lease: Arc<ReadLease>, after: Lsn, timeline: TimelineId) -> Self {
        Self {
            entries,
            _lease: lease,
            timeline,
            after,
            next_entry: 0,
            segment: None,
            block: None,
            expected: None,
            ended: false,
        }
    }

    /// Moves to the next block that holds something wanted; `false` at the end of the timeline.
    fn next_block(&mut self) -> Result<bool, ReadError> {
        loop {
            let Some(segment) = &mut self.segment else {
                if !self.next_segment()? {
                    return Ok(false);
                }
                continue;
            };
            let entry = &self.entries[segment.entry];
            let Some(block) = segment.next_header(entry)? else {
                if let Some(damage) = &entry.damage {
                    let span = Span {
                        from_lsn: entry.tally.reach.next_lsn,
                        from_ts: entry.tally.reach.last_ts,
                        ..Span::default()
                    };
                    return Err(corrupt(entry, entry.data_end, span, damage.clone()));
                }
                self.segment = None;
                continue;
            };
            if self.expected.is_some_and(|lsn| lsn != block.first_lsn) {
                let expected = format!("LSN {}", self.expected.unwrap_or_default());
                let damage = Damage::new(expected, format!("LSN {}", block.first_lsn));
                return Err(corrupt(entry, block.position, span_of(&block), damage));
            }
            self.expected = Some(block.next_lsn());
            if block.groups > 0 && block.next_lsn().0 - 1 > self.after.0 {
                self.block = Some(segment.groups(entry, &block)?);
                return Ok(true);
            }
        }
    }

    /// Opens the next segment that holds something wanted.
    fn next_segment(&mut self) -> Result<bool, ReadError> {
        while let Some(entry) = self.entries.get(self.next_entry) {
            let n = self.next_entry;
            self.next_entry += 1;
            let ours = |e: &Entry| e.header.timeline.id == self.timeline;
            // What can't be read behind a damaged segment's blocks ends where the next segment begins.
            let next = self.entries.get(self.next_entry).filter(|e| ours(e));
            let wanted_is_behind = next.is_some_and(|e| e.header.first_lsn.0 <= self.after.0.saturating_add(1));
            let unneeded = entry.last_lsn() <= self.after && (entry.damage.is_none() || wanted_is_behind);
            if !ours(entry) || unneeded {
                continue;
            }
            let mut segment = OpenSegment::open(n, entry)?;
            let wanted = Lsn(self.after.0.saturating_add(1));
            if segment.seek(entry, |reach| reach.next_lsn > wanted)?.is_some() {
                self.expected = None;
            }
            self.segment = Some(segment);
            return Ok(true);
        }
        Ok(false)
    }

    fn advance(&mut self) -> Result<Option<Group>, ReadError> {
        loop {
            if let (Some(groups), Some(segment)) = (&mut self.block, &self.segment) {
                match groups.next() {
                    Some(Ok(group)) => {
                        if group.records.last().is_some_and(|r| r.lsn > self.after) {
                            return Ok(Some(group));
                        }
                        continue;
                    }
                    Some(Err(damage)) => {
                        let entry = &self.entries[segment.entry];
                        let span = Span { from_lsn: groups.next_lsn(), from_ts: groups.last_ts(), ..Span::default() };
                        return Err(corrupt(entry, segment.block_position, span, damage));
                    }
                    None => self.block = None,
                }
            }
            if !self.next_block()? {
                return Ok(None);
            }
        }
    }
}

impl Iterator for GroupReader {
    type Item = Result<Group, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let group = self.advance().transpose();
        self.ended = !matches!(group, Some(Ok(_)));
        group
    }
}

/// A segment's file and a place in it.
#[derive(Debug)]
pub(super) struct OpenSegment {
    file: File,
    entry: usize,
    position: u64,
    block_position: u64,
}

impl OpenSegment {
    pub(super) fn open(n: usize, entry: &Entry) -> Result<Self, ReadError> {
        let file = File::open(&entry.path).map_err(|e| io_error(entry, 0, e))?;
        Ok(Self { file, entry: n, position: entry.header_len, block_position: 0 })
    }

    /// Moves to the last indexed block up to which nothing is `beyond`, if there is one; returns how
    /// far the history reaches with it.
    pub(super) fn seek(&mut self, entry: &Entry, beyond: impl Fn(&Reach) -> bool) -> Result<Option<Reach>, ReadError> {
        let read;
        let index: &[IndexEntry] = if entry.sealed {
            let footer = read_footer(&self.file, entry.data_end, entry.bytes, entry.tag)
                .map_err(|e| io_error(entry, entry.data_end, e))?
                .map_err(|d| corrupt(entry, entry.data_end, Span::default(), d))?;
            read = footer.tally.index;
            &read
        } else {
            &entry.tally.index
        };
        let n = index.partition_point(|e| !beyond(&e.reach));
        let Some(found) = n.checked_sub(1).map(|n| index[n]) else { return Ok(None) };
        self.position = found.position;
        Ok(Some(found.reach))
    }

    /// The header of the next block, `None` at the end. Its payload is not touched.
    pub(super) fn next_header(&mut self, entry: &Entry) -> Result<Option<BlockHeader>, ReadError> {
        if self.position >= entry.data_end {
            return Ok(None);
        }
        let at = self.position;
        let block = read_block_header(&self.file, at, entry.data_end, Some(entry.tag));
        let block = block.map_err(|fault| {
            let span = Span { from_lsn: entry.header.first_lsn, ..span_of_entry(entry) };
            fault_at(entry, at, span, fault)
        })?;
        self.block_position = at;
        self.position += block.len();
        Ok(Some(block))
    }

    /// Reads the payload of a block and decodes it group by group.
    pub(super) fn groups(&self, entry: &Entry, block: &BlockHeader) -> Result<Groups, ReadError> {
        let payload =
            read_payload(&self.file, block).map_err(|fault| fault_at(entry, block.position, span_of(block), fault))?;
        if block.codec != CODEC_NONE {
            return Err(ReadError::UnknownCodec {
                file: entry.path.clone(),
                offset: block.position,
                lsn: block.first_lsn,
                codec: block.codec,
            });
        }
        Ok(Groups::new(*block, payload))
    }
}

fn span_of(block: &BlockHeader) -> Span {
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
        to_ts: Some(entry.tally.reach.last_ts.max(Micros(i64::MIN))),
    }
}

fn fault_at(entry: &Entry, offset: u64, span: Span, fault: BlockFault) -> ReadError {
    match fault {
        BlockFault::Damage(damage) => corrupt(entry, offset, span, damage),
        BlockFault::Io(source) => ReadError::Io { file: entry.path.clone(), offset, lsn: span.from_lsn, source },
    }
}

pub(super) fn corrupt(entry: &Entry, offset: u64, span: Span, damage: Damage) -> ReadError {
    ReadError::Corrupt { file: entry.path.clone(), offset, span, damage: Box::new(damage) }
}

fn io_error(entry: &Entry, offset: u64, source: std::io::Error) -> ReadError {
    ReadError::Io { file: entry.path.clone(), offset, lsn: entry.header.first_lsn, source }
}
