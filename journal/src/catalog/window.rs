//! Timelines, windows and gaps: what can be restored, derived from segments and snapshots alone.

use std::sync::Arc;

use super::load::Entry;
use super::{Gap, SourceChange, TimelineInfo, Window};
use crate::segment::header::{SegmentHeader, SourceHistory, TimelineFacts};
use crate::snapshot::{SnapshotInfo, SnapshotManifest};
use crate::types::{Lsn, Micros};

/// Sums up the segments of each timeline.
pub(super) fn timelines(entries: &[Arc<Entry>]) -> Vec<TimelineInfo> {
    let mut timelines: Vec<TimelineInfo> = Vec::new();
    for run in entries.chunk_by(|a, b| a.header.timeline.id == b.header.timeline.id) {
        let (first, last) = (&run[0], &run[run.len() - 1]);
        let timeline = &first.header.timeline;
        timelines.push(TimelineInfo {
            id: timeline.id,
            source_id: last.header.timeline.source_id.clone(),
            source_changes: run.iter().filter_map(|entry| source_change(&entry.header)).collect(),
            reason: timeline.reason.clone(),
            start_offset: timeline.start_offset,
            start_ts: timeline.start_ts,
            first_lsn: first.header.first_lsn,
            last_lsn: last.last_lsn(),
            last_ts: if last.last_lsn() < first.header.first_lsn {
                timeline.start_ts
            } else {
                last.tally.extent.last_ts
            },
            complete_until: last.tally.complete_until,
            end_offset: last.tally.extent.end_offset,
            bytes: run.iter().map(|e| e.bytes).sum(),
        });
    }
    timelines
}

fn source_change(header: &SegmentHeader) -> Option<SourceChange> {
    let SourceHistory::ChangedHere { before } = &header.source else { return None };
    Some(SourceChange {
        first_lsn: header.first_lsn,
        offset: header.start_offset,
        ts: header.created,
        before: before.clone(),
        after: header.timeline.source_id.clone(),
    })
}

/// One segment, as far as it matters for what can be restored.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stretch<'a> {
    pub(crate) timeline: &'a TimelineFacts,
    pub(crate) source: &'a SourceHistory,
    pub(crate) first_lsn: Lsn,
    /// One less than `first_lsn` if it holds no record.
    pub(crate) last_lsn: Lsn,
    pub(crate) last_ts: Micros,
    pub(crate) complete_until: Micros,
    /// Records are missing behind it.
    pub(crate) damaged: bool,
}

impl Stretch<'_> {
    /// Up to where it says anything.
    pub(crate) fn end(&self) -> Micros {
        self.last_ts.max(self.complete_until)
    }

    /// The source had this id at its beginning, or just before.
    fn has_source(&self, id: &str) -> bool {
        let before = matches!(self.source, SourceHistory::ChangedHere { before } if before == id);
        self.timeline.source_id == id || before
    }

    /// `next` goes on where this one ends.
    pub(crate) fn leads_to(&self, next: &Self) -> bool {
        self.timeline.id == next.timeline.id && !self.damaged
    }
}

pub(crate) fn stretches(entries: &[Arc<Entry>]) -> Vec<Stretch<'_>> {
    let mut all = Vec::with_capacity(entries.len());
    all.extend(entries.iter().map(|e| Stretch {
        timeline: &e.header.timeline,
        source: &e.header.source,
        first_lsn: e.header.first_lsn,
        last_lsn: e.last_lsn(),
        last_ts: e.tally.extent.last_ts,
        complete_until: e.tally.complete_until,
        damaged: e.damage.is_some(),
    }));
    all
}

pub(super) fn manifests(snapshots: &[SnapshotInfo]) -> Vec<&SnapshotManifest> {
    snapshots.iter().map(|s| &s.manifest).collect()
}

/// The snapshot is of this timeline, as far as that can be said without the source's id.
fn is_of(manifest: &SnapshotManifest, timeline: &TimelineFacts) -> bool {
    manifest.timeline == timeline.id && manifest.offset >= timeline.start_offset
}

/// An unbroken run of segments, none of them missing, goes on from the snapshot.
pub(crate) fn leads_on(manifest: &SnapshotManifest, run: &[Stretch<'_>]) -> bool {
    let (Some(first), Some(last)) = (run.first(), run.last()) else { return false };
    // The number alone does not say that it shows this very history.
    is_of(manifest, first.timeline)
        && run.iter().any(|stretch| stretch.has_source(&manifest.source_id))
        && manifest.lsn.0 + 1 >= first.first_lsn.0
        && manifest.lsn <= last.last_lsn
}

/// The snapshot lies before the first segment: what came behind it was removed.
pub(crate) fn is_left_alone(manifest: &SnapshotManifest, first: &Stretch<'_>) -> bool {
    if manifest.timeline < first.timeline.id {
        manifest.lsn < first.first_lsn
    } else {
        // The segment in which the id changed may be gone, too.
        let known = first.has_source(&manifest.source_id) || *first.source == SourceHistory::ChangedBefore;
        is_of(manifest, first.timeline) && known && manifest.lsn.0 + 1 < first.first_lsn.0
    }
}

/// One window for each unbroken run of segments that has a snapshot to start from, and before them
/// one of a single moment for each snapshot that outlived its segments, or whose first segment is still to be written.
pub(crate) fn windows(stretches: &[Stretch<'_>], snapshots: &[&SnapshotManifest]) -> Vec<Window> {
    // Without any segment, only a base at the very beginning is known to lack nothing that was recorded.
    let is_alone = |m: &&&SnapshotManifest| stretches.first().map_or(m.lsn == Lsn(0), |first| is_left_alone(m, first));
    let mut alone: Vec<_> = snapshots.iter().filter(is_alone).collect();
    alone.sort_by_key(|m| (m.timeline, m.lsn, m.ts));
    let moment = |m: &&&SnapshotManifest| Window {
        timeline: m.timeline,
        from: m.ts,
        from_lsn: m.lsn,
        to: m.ts,
        to_lsn: m.lsn,
        damaged_behind: false,
    };
    let mut windows: Vec<Window> = alone.iter().map(moment).collect();
    for run in stretches.chunk_by(Stretch::leads_to) {
        let last = &run[run.len() - 1];
        // While nothing is written, snapshots share an LSN: the window begins with the earliest.
        let from = snapshots.iter().filter(|m| leads_on(m, run)).min_by_key(|m| (m.lsn, m.ts));
        let Some(from) = from else { continue };
        let last_ts = if last.last_lsn > from.lsn { last.last_ts } else { Micros(i64::MIN) };
        windows.push(Window {
            timeline: from.timeline,
            from: from.ts,
            from_lsn: from.lsn,
            to: last_ts.max(last.complete_until).max(from.ts),
            to_lsn: last.last_lsn,
            damaged_behind: last.damaged,
        });
    }
    windows
}

/// What lies between the windows.
pub(super) fn gaps(entries: &[Arc<Entry>], windows: &[Window]) -> Vec<Gap> {
    let is_alone = |w: &Window| {
        let first = entries.first().map(|e| (e.header.timeline.id, e.header.first_lsn.0));
        first.is_some_and(|(timeline, lsn)| w.timeline < timeline || w.to_lsn.0 + 1 < lsn)
    };
    let reason = |before: &Window, after: &Window| {
        if is_alone(before) {
            return "older segments were removed; only the snapshot before them was kept".to_owned();
        }
        if before.timeline == after.timeline {
            let damaged = entries.iter().find(|e| {
                e.damage.is_some() && e.header.timeline.id == before.timeline && e.last_lsn() >= before.to_lsn
            });
            return damaged.map_or_else(String::new, |e| e.break_in_words());
        }
        let begun = entries.iter().find(|e| e.header.timeline.id == after.timeline);
        begun.map_or_else(|| "recording had only just begun".to_owned(), |e| e.header.timeline.reason.clone())
    };
    windows
        .windows(2)
        .map(|pair| Gap {
            from: pair[0].to,
            to: pair[1].from,
            after_lsn: pair[0].to_lsn,
            reason: reason(&pair[0], &pair[1]),
        })
        .collect()
}
