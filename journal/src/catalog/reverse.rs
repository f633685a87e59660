//! The reverse reader: streams the groups of a timeline, the newest first.
//!
//! A segment is read in the intervals of its index, the last one first: each is decoded as a whole and given back to
//! front. So memory is bounded by the largest interval, and who has seen enough has read little more than that.

use std::ops::Range;
use std::sync::Arc;

use super::load::Entry;
use super::search::{Search, Searched};
use super::segment::{OpenSegment, corrupt};
use super::take::TakeRecords;
use crate::error::{ReadError, Span};
use crate::lease::ReadLease;
use crate::types::{Group, Lsn, TimelineId};

/// Streams groups, the newest first. A part that cannot be read gives an error in its place; older groups follow.
#[derive(Debug)]
pub struct ReverseReader {
    entries: Arc<[Arc<Entry>]>,
    /// Nothing is removed while it reads.
    _lease: Arc<ReadLease>,
    timeline: TimelineId,
    upto: Lsn,
    /// Segments that are still to be looked at.
    entries_left: usize,
    segment: Option<OpenSegment>,
    /// Of the segment, the last one next.
    intervals: Vec<Range<u64>>,
    /// Of the interval, the last one next.
    groups: Vec<Result<Group, ReadError>>,
    search: Option<Search>,
    searched: Searched,
}

impl ReverseReader {
    pub(super) fn new(entries: Arc<[Arc<Entry>]>, lease: Arc<ReadLease>, upto: Lsn, timeline: TimelineId) -> Self {
        Self {
            entries_left: entries.len(),
            entries,
            _lease: lease,
            timeline,
            upto,
            segment: None,
            intervals: Vec::new(),
            groups: Vec::new(),
            search: None,
            searched: Searched::default(),
        }
    }

    pub(super) fn only(mut self, search: Search) -> Self {
        self.search = Some(search);
        self
    }

    /// What reading has cost so far; of interest for a search by keys.
    pub fn searched(&self) -> Searched {
        self.searched
    }

    /// Opens the segment before; `false` at the beginning of the timeline.
    fn previous_segment(&mut self) -> Result<bool, ReadError> {
        while let Some(at) = self.entries_left.checked_sub(1) {
            self.entries_left = at;
            let entry = Arc::clone(&self.entries[at]);
            if entry.header.timeline.id != self.timeline || entry.header.first_lsn > self.upto {
                continue;
            }
            let mut segment = OpenSegment::open(&entry)?;
            if let Some(search) = &self.search {
                segment.look_for(search, &mut self.searched.read_bytes)?;
            }
            let (intervals, bytes) = segment.intervals(self.upto)?;
            let kept: u64 = intervals.iter().map(|range| range.end - range.start).sum();
            if self.search.is_some() {
                self.searched.skipped_bytes += bytes.saturating_sub(kept);
            }
            self.intervals = intervals;
            self.segment = Some(segment);
            if let Some(damage) = entry.damage.clone().filter(|_| entry.last_lsn() < self.upto) {
                let extent = entry.tally.extent;
                let span = Span { from_lsn: extent.next_lsn, from_ts: extent.last_ts, ..Span::default() };
                self.groups.push(Err(corrupt(&entry, entry.data_end, span, damage)));
            }
            return Ok(true);
        }
        Ok(false)
    }

    /// Decodes the groups of an interval that are wanted.
    fn read_interval(&mut self, range: &Range<u64>) -> Result<(), ReadError> {
        let Self { segment, search, searched, groups, upto, .. } = self;
        let Some(segment) = segment else { return Ok(()) };
        let mut wanted = Wanted { search: search.as_ref(), groups };
        segment.each_group(range, (Lsn(0), *upto), &mut searched.read_bytes, &mut wanted)
    }
}

/// Collects the groups that are looked for.
struct Wanted<'a> {
    search: Option<&'a Search>,
    groups: &'a mut Vec<Result<Group, ReadError>>,
}

impl TakeRecords for Wanted<'_> {
    fn group(&mut self, group: Group) {
        if self.search.is_none_or(|search| search.concerns(&group)) {
            self.groups.push(Ok(group));
        }
    }
}

impl Iterator for ReverseReader {
    type Item = Result<Group, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(group) = self.groups.pop() {
                return Some(group);
            }
            if let Some(range) = self.intervals.pop() {
                if let Err(error) = self.read_interval(&range) {
                    self.groups.push(Err(error));
                }
                continue;
            }
            match self.previous_segment() {
                Ok(true) => {}
                Ok(false) => return None,
                Err(error) => return Some(Err(error)),
            }
        }
    }
}
