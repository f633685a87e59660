//! Reading a history part by part: backwards, for a caller that learns during the pass which keys matter, or forwards, for certain LSNs.
//!
//! A part are the blocks from one entry of a segment's index up to the next. Before each one the reader is told which keys are
//! wanted now; a part of which the key filter rules them all out is not read. So memory is bounded by the largest part. A part
//! may be read by another thread than the one that looks for it ([`PartJob`]).

use std::ops::Range;
use std::sync::Arc;

use super::load::Entry;
use super::read::Within;
use super::search::Searched;
use super::segment::{OpenSegment, Part, corrupt};
use super::take::TakeRecords;
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

/// A part that is to be read.
#[derive(Debug)]
pub struct PartJob {
    segment: Arc<OpenSegment>,
    range: Range<u64>,
    within: (Lsn, Lsn),
}

impl PartJob {
    /// Reads the part; gives how many bytes that took. Behind an error nothing more can be relied on.
    pub fn read(&self, to: &mut impl TakeRecords) -> Result<u64, ReadError> {
        let mut read_bytes = 0;
        self.segment.each_group(&self.range, self.within, &mut read_bytes, to)?;
        Ok(read_bytes)
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
    /// Segments that were looked at.
    entries_seen: usize,
    /// Forwards: the LSNs that are wanted.
    forwards: Option<Within>,
    segment: Option<Arc<OpenSegment>>,
    /// Of the segment, the one to be read next at the end.
    parts: Vec<Part>,
    /// What the segment's filter said: the keys that were asked for, and those of them that may be in it.
    anywhere: Option<(WantedKeys, Vec<u64>)>,
    searched: Searched,
}

impl PartReader {
    pub(super) fn back(
        entries: Arc<[Arc<Entry>]>,
        lease: Arc<ReadLease>,
        (after, upto): (Lsn, Lsn),
        timeline: TimelineId,
    ) -> Self {
        Self {
            entries_seen: 0,
            forwards: None,
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

    pub(super) fn forwards(mut self, wanted: Within) -> Self {
        self.forwards = Some(wanted);
        self
    }

    /// What reading has cost so far, without what jobs have read.
    pub fn searched(&self) -> Searched {
        self.searched
    }

    /// The groups of the next part that may concern the wanted keys, all of that part's, oldest first; `None` behind the last part.
    /// `wanted`: `None` = all keys. Behind an error nothing more can be relied on.
    pub fn next_part(&mut self, wanted: Option<&WantedKeys>) -> Result<Option<Vec<Group>>, ReadError> {
        let Some(job) = self.next_job(wanted)? else { return Ok(None) };
        let mut groups = Vec::new();
        self.searched.read_bytes += job.read(&mut groups)?;
        Ok(Some(groups))
    }

    /// The same part, to be read.
    pub fn next_job(&mut self, wanted: Option<&WantedKeys>) -> Result<Option<PartJob>, ReadError> {
        loop {
            let Some(part) = self.parts.pop() else {
                if !self.next_segment()? {
                    return Ok(None);
                }
                continue;
            };
            if part.last <= self.after || part.first > self.upto {
                continue;
            }
            let named = self.forwards.as_ref().is_none_or(|within| (within.0)(part.first, part.last));
            if !named || wanted.map_or(Ok(false), |wanted| self.may_concern(&part, wanted).map(|may| !may))? {
                self.searched.skipped_bytes += part.range.end - part.range.start;
                continue;
            }
            let Some(segment) = &self.segment else { continue };
            let (segment, range) = (Arc::clone(segment), part.range);
            return Ok(Some(PartJob { segment, range, within: (self.after, self.upto) }));
        }
    }

    /// Opens the next segment; `false` behind the last one of the range.
    fn next_segment(&mut self) -> Result<bool, ReadError> {
        self.segment = None;
        self.anywhere = None;
        while self.entries_seen < self.entries.len() {
            let seen = self.entries_seen;
            let at = if self.forwards.is_some() { seen } else { self.entries.len() - 1 - seen };
            self.entries_seen += 1;
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
                if self.forwards.is_some() {
                    continue;
                }
                return Ok(false);
            }
            if self.forwards.as_ref().is_some_and(|wanted| !(wanted.0)(entry.header.first_lsn, entry.last_lsn())) {
                continue;
            }
            let mut segment = OpenSegment::open(&entry)?;
            self.parts = segment.parts()?;
            if self.forwards.is_some() {
                self.parts.reverse();
            }
            self.searched.read_bytes += segment.footer_bytes();
            self.segment = Some(Arc::new(segment));
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
}
