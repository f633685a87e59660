//! Timelines, windows and gaps: what can be restored, derived from segments and snapshots alone.

use std::sync::Arc;

use super::load::Entry;
use super::{Gap, TimelineInfo, Window};
use crate::segment::header::TimelineFacts;
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
            source_id: timeline.source_id.clone(),
            reason: timeline.reason.clone(),
            start_offset: timeline.start_offset,
            start_ts: timeline.start_ts,
            first_lsn: first.header.first_lsn,
            last_lsn: last.last_lsn(),
            last_ts: if last.last_lsn() < first.header.first_lsn {
                timeline.start_ts
            } else {
                last.tally.reach.last_ts
            },
            complete_until: last.tally.complete_until,
            end_offset: last.tally.reach.end_offset,
            bytes: run.iter().map(|e| e.bytes).sum(),
        });
    }
    timelines
}

/// The snapshot shows this very history: the number alone does not say so.
fn belongs(manifest: &SnapshotManifest, timeline: &TimelineFacts) -> bool {
    manifest.timeline == timeline.id
        && manifest.source_id == timeline.source_id
        && manifest.offset >= timeline.start_offset
}

/// One window for each unbroken run of segments that has a snapshot to start from.
pub(super) fn windows(entries: &[Arc<Entry>], snapshots: &[SnapshotInfo]) -> Vec<Window> {
    let mut windows = Vec::new();
    let unbroken = |a: &Arc<Entry>, b: &Arc<Entry>| a.header.timeline.id == b.header.timeline.id && a.damage.is_none();
    for run in entries.chunk_by(unbroken) {
        let (first, last) = (&run[0], &run[run.len() - 1]);
        let before = Lsn(first.header.first_lsn.0 - 1);
        let to_lsn = last.last_lsn();
        let from = snapshots
            .iter()
            .map(|s| &s.manifest)
            .find(|m| belongs(m, &first.header.timeline) && m.lsn >= before && m.lsn <= to_lsn);
        let Some(from) = from else { continue };
        let last_ts = if to_lsn > from.lsn { last.tally.reach.last_ts } else { Micros(i64::MIN) };
        windows.push(Window {
            timeline: from.timeline,
            from: from.ts,
            from_lsn: from.lsn,
            to: last_ts.max(last.tally.complete_until).max(from.ts),
            to_lsn,
            damaged_behind: last.damage.is_some(),
        });
    }
    windows
}

/// What lies between the windows.
pub(super) fn gaps(entries: &[Arc<Entry>], windows: &[Window]) -> Vec<Gap> {
    let reason = |before: &Window, after: &Window| {
        if before.timeline == after.timeline {
            let damaged = entries.iter().find(|e| {
                e.damage.is_some() && e.header.timeline.id == before.timeline && e.last_lsn() >= before.to_lsn
            });
            return damaged.map_or_else(String::new, |e| e.break_in_words());
        }
        let begun = entries.iter().find(|e| e.header.timeline.id == after.timeline);
        begun.map_or_else(String::new, |e| e.header.timeline.reason.clone())
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
