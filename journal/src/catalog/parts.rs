//! Reading a history backwards, part by part, for somebody who learns on the way which keys matter.
//!
//! A part are the blocks from one entry of a segment's index up to the next. Before each one the reader is told which keys are
//! wanted now; a part of which the key filter rules them all out is not read. So memory is bounded by the largest part.

use std::sync::Arc;

use super::load::Entry;
use super::search::Searched;
use super::segment::{OpenSegment, Part, corrupt};
use crate::bloom::hash_key;
use crate::error::{ReadError, Span};
use crate::lease::ReadLease;
use crate::types::{Group, Lsn, TimelineId};

/// Keys, as key filters know them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WantedKeys {
    /// In order, so that each page of a filter is read once.
    hashes: Vec<u64>,
}

impl<'a> FromIterator<(u32, &'a [u8])> for WantedKeys {
    /// Of databases and keys.
    fn from_iter<I: IntoIterator<Item = (u32, &'a [u8])>>(keys: I) -> Self {
        let mut hashes: Vec<u64> = keys.into_iter().map(|(db, key)| hash_key(db, key)).collect();
        hashes.sort_unstable();
        hashes.dedup();
        Self { hashes }
    }
}

/// See the module.
#[derive(Debug)]
pub struct PartReader {
    entries: Arc<[Arc<Entry>]>,
    /// Nothing is removed while it reads.
    _lease: Arc<ReadLease>,
    timeline: TimelineId,
    after: Lsn,
    upto: Lsn,
    /// Segments that are still to be looked at.
    entries_left: usize,
    segment: Option<OpenSegment>,
    /// Of the segment, the last one next.
    parts: Vec<Part>,
    /// What the segment's filter said: the keys that were asked for, and those of them that may be in it.
    anywhere: Option<(WantedKeys, Vec<u64>)>,
    searched: Searched,
}

impl PartReader {
    pub(super) fn new(
        entries: Arc<[Arc<Entry>]>,
        lease: Arc<ReadLease>,
        (after, upto): (Lsn, Lsn),
        timeline: TimelineId,
    ) -> Self {
        Self {
            entries_left: entries.len(),
            entries,
            _lease: lease,
            timeline,
            after,
            upto,
            segment: None,
            parts: Vec::new(),
            anywhere: None,
            searched: Searched::default(),
        }
    }

    /// What reading has cost so far.
    pub fn searched(&self) -> Searched {
        self.searched
    }

    /// The groups of the next part back that may concern the wanted keys, all of that part's, oldest first; `None` at the beginning.
    /// `wanted`: `None` = all keys. Behind an error nothing more can be relied on.
    pub fn next_part(&mut self, wanted: Option<&WantedKeys>) -> Result<Option<Vec<Group>>, ReadError> {
        loop {
            let Some(part) = self.parts.pop() else {
                if !self.previous_segment()? {
                    return Ok(None);
                }
                continue;
            };
            if part.last <= self.after || part.first > self.upto {
                continue;
            }
            if let Some(wanted) = wanted
                && !self.may_concern(&part, wanted)?
            {
                self.searched.skipped_bytes += part.range.end - part.range.start;
                continue;
            }
            return self.read(&part).map(Some);
        }
    }

    /// Opens the segment before; `false` at the beginning of the range.
    fn previous_segment(&mut self) -> Result<bool, ReadError> {
        self.segment = None;
        self.anywhere = None;
        while let Some(at) = self.entries_left.checked_sub(1) {
            self.entries_left = at;
            let entry = Arc::clone(&self.entries[at]);
            if entry.header.timeline.id != self.timeline || entry.header.first_lsn > self.upto {
                continue;
            }
            // What is missing behind a segment's blocks ends where the next one begins.
            let next = self.entries.get(at + 1).filter(|next| next.header.timeline.id == self.timeline);
            let behind = next.map_or(self.upto.0.saturating_add(1), |next| next.header.first_lsn.0).saturating_sub(1);
            if let Some(damage) = entry.damage.clone().filter(|_| entry.last_lsn() < self.upto && behind > self.after.0)
            {
                let extent = entry.tally.extent;
                let span = Span { from_lsn: extent.next_lsn, from_ts: extent.last_ts, ..Span::default() };
                return Err(corrupt(&entry, entry.data_end, span, damage));
            }
            if entry.last_lsn() <= self.after {
                return Ok(false);
            }
            let mut segment = OpenSegment::open(&entry)?;
            self.parts = segment.parts()?;
            self.searched.read_bytes += segment.footer_bytes();
            self.segment = Some(segment);
            return Ok(true);
        }
        Ok(false)
    }

    fn may_concern(&mut self, part: &Part, wanted: &WantedKeys) -> Result<bool, ReadError> {
        let Some(segment) = &self.segment else { return Ok(true) };
        if self.anywhere.as_ref().is_none_or(|(asked, _)| asked != wanted) {
            let found = segment.may_hold_anywhere(&wanted.hashes, &mut self.searched.read_bytes)?;
            self.anywhere = Some((wanted.clone(), found));
        }
        let hashes = self.anywhere.as_ref().map_or(&wanted.hashes[..], |(_, found)| found);
        segment.may_hold(part, hashes, &mut self.searched.read_bytes)
    }

    fn read(&mut self, part: &Part) -> Result<Vec<Group>, ReadError> {
        let mut found = Vec::new();
        let Some(segment) = &mut self.segment else { return Ok(found) };
        let read_bytes = &mut self.searched.read_bytes;
        segment.each_group(&part.range, (self.after, self.upto), read_bytes, |group| found.push(group))?;
        Ok(found)
    }
}
