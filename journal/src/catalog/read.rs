//! Streaming the groups of a timeline.

use std::sync::Arc;

use super::load::Entry;
use super::search::{Search, Searched};
use super::segment::{OpenSegment, corrupt, span_of};
use crate::block::{BLOCK_HEADER_LEN, Groups};
use crate::error::{Damage, ReadError, Span};
use crate::lease::ReadLease;
use crate::types::{Group, Lsn, TimelineId};

/// Whether LSNs, from the first to the last, may be wanted.
pub(super) struct Within(pub(super) Box<dyn Fn(Lsn, Lsn) -> bool + Send>);

impl std::fmt::Debug for Within {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Within")
    }
}

/// Streams groups; ends after the first error.
#[derive(Debug)]
pub struct GroupReader {
    entries: Arc<[Arc<Entry>]>,
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
    /// Only what concerns certain keys is wanted.
    search: Option<Search>,
    /// Only blocks that hold such LSNs are wanted.
    within: Option<Within>,
    searched: Searched,
    ended: bool,
}

impl GroupReader {
    pub(super) fn new(entries: Arc<[Arc<Entry>]>, lease: Arc<ReadLease>, after: Lsn, timeline: TimelineId) -> Self {
        Self {
            entries,
            _lease: lease,
            timeline,
            after,
            next_entry: 0,
            segment: None,
            block: None,
            expected: None,
            search: None,
            within: None,
            searched: Searched::default(),
            ended: false,
        }
    }

    pub(super) fn only(mut self, search: Search) -> Self {
        self.search = Some(search);
        self
    }

    pub(super) fn within(mut self, within: Within) -> Self {
        self.within = Some(within);
        self
    }

    fn is_within(&self, first: Lsn, last: Lsn) -> bool {
        self.within.as_ref().is_none_or(|within| (within.0)(first, last))
    }

    /// What reading has cost so far; of interest where not all is read.
    pub fn searched(&self) -> Searched {
        self.searched
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
            let entry = Arc::clone(&segment.entry);
            let entry = &entry;
            let skipped = segment.skip();
            if skipped > 0 {
                self.searched.skipped_bytes += skipped;
                self.expected = None;
            }
            let Some(block) = segment.next_header()? else {
                if let Some(damage) = &entry.damage {
                    let span = Span {
                        from_lsn: entry.tally.extent.next_lsn,
                        from_ts: entry.tally.extent.last_ts,
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
            self.searched.read_bytes += BLOCK_HEADER_LEN as u64;
            let last = Lsn(block.next_lsn().0.saturating_sub(1));
            if block.groups > 0
                && last > self.after
                && self.within.as_ref().is_none_or(|within| (within.0)(block.first_lsn, last))
            {
                self.searched.read_bytes += u64::from(block.stored_len);
                self.block = Some(segment.groups(&block)?);
                return Ok(true);
            }
        }
    }

    /// Opens the next segment that holds something wanted.
    fn next_segment(&mut self) -> Result<bool, ReadError> {
        while let Some(entry) = self.entries.get(self.next_entry) {
            self.next_entry += 1;
            let ours = |e: &Entry| e.header.timeline.id == self.timeline;
            // What cannot be read behind a damaged segment's blocks ends where the next segment begins.
            let next = self.entries.get(self.next_entry).filter(|e| ours(e));
            let wanted_is_behind = next.is_some_and(|e| e.header.first_lsn.0 <= self.after.0.saturating_add(1));
            let unneeded = entry.last_lsn() <= self.after && (entry.damage.is_none() || wanted_is_behind);
            if !ours(entry) || unneeded {
                continue;
            }
            if !self.is_within(entry.header.first_lsn, entry.last_lsn()) {
                // What is read next does not follow what was read last.
                self.expected = None;
                continue;
            }
            let mut segment = OpenSegment::open(entry)?;
            let wanted = Lsn(self.after.0.saturating_add(1));
            if segment.seek(|extent| extent.next_lsn > wanted)?.is_some() {
                self.expected = None;
            }
            if let Some(search) = &self.search {
                segment.look_for(search, &mut self.searched.read_bytes)?;
            }
            if let Some(within) = &self.within {
                segment.look_within(&*within.0)?;
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
                        if group.records.first().is_some_and(|r| segment.is_later(r.lsn)) {
                            return Ok(None);
                        }
                        let wanted = self.search.as_ref().is_none_or(|search| search.concerns(&group));
                        if wanted && group.records.last().is_some_and(|r| r.lsn > self.after) {
                            return Ok(Some(group));
                        }
                        continue;
                    }
                    Some(Err(damage)) => {
                        let entry = &segment.entry;
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
