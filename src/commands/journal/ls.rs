//! `redtape journal ls`: which points in time can be restored, which gaps there are and why.

use std::fmt::Write as _;
use std::process::ExitCode;

use redtape_journal::{Catalog, Lsn, SnapshotInfo, SourceChange, TimelineInfo, Window};
use serde_json::{Value, json};

use super::DirArgs;
use crate::output::{bytes, count, out};

/// What the journal takes on the disk.
struct Size {
    segments: u64,
    /// With their key indexes.
    snapshots: u64,
}

impl Size {
    fn of(catalog: &Catalog) -> Self {
        Self {
            segments: catalog.segments().iter().map(|s| s.bytes).sum(),
            snapshots: catalog.snapshots().iter().map(SnapshotInfo::stored_bytes).sum(),
        }
    }
}

pub(super) fn run(args: &DirArgs) -> anyhow::Result<ExitCode> {
    let catalog = args.open()?;
    let text = if args.json { format!("{}\n", as_json(&catalog)) } else { as_text(&catalog)? };
    out(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn as_json(catalog: &Catalog) -> Value {
    let (windows, gaps, timelines) = (catalog.windows(), catalog.gaps(), catalog.timelines());
    let size = Size::of(catalog);
    json!({
        "journal_id": catalog.meta().journal_id,
        "source": catalog.meta().source,
        "windows": windows.iter().map(|w| json!({
            "timeline": w.timeline.0, "from": w.from.to_string(), "from_us": w.from.0, "from_lsn": w.from_lsn.0,
            "to": w.to.to_string(), "to_us": w.to.0, "to_lsn": w.to_lsn.0, "damaged_behind": w.damaged_behind,
        })).collect::<Vec<_>>(),
        "gaps": gaps.iter().map(|g| json!({
            "from": g.from.to_string(), "from_us": g.from.0, "to": g.to.to_string(), "to_us": g.to.0,
            "after_lsn": g.after_lsn.0, "reason": g.reason,
        })).collect::<Vec<_>>(),
        "timelines": timelines.iter().map(|t| json!({
            "timeline": t.id.0, "source_id": t.source_id,
            "source_changes": t.source_changes.iter().map(|c| json!({
                "first_lsn": c.first_lsn.0, "offset": c.offset.0, "ts": c.ts.to_string(), "ts_us": c.ts.0,
                "before": c.before, "after": c.after,
                "certain_from_lsn": certain_from(t, c, catalog.snapshots()).map(|lsn| lsn.0),
            })).collect::<Vec<_>>(),
            "reason": t.reason, "start": t.start_ts.to_string(), "start_us": t.start_ts.0,
            "first_lsn": t.first_lsn.0, "last_lsn": t.last_lsn.0, "start_offset": t.start_offset.0, "end_offset": t.end_offset.0, "bytes": t.bytes,
        })).collect::<Vec<_>>(),
        "marks": catalog.marks().iter().map(|m| json!({
            "name": m.name, "ts": m.ts.to_string(), "ts_us": m.ts.0, "lsn": m.lsn.0, "automatic": m.is_automatic(),
        })).collect::<Vec<_>>(),
        "segments": catalog.segments().len(),
        "snapshots": catalog.snapshots().len(),
        "segment_bytes": size.segments,
        "snapshot_bytes": size.snapshots,
        "bytes": size.segments + size.snapshots,
        "contents_checked": false,
        "notes": catalog.notes(),
    })
}

fn as_text(catalog: &Catalog) -> Result<String, std::fmt::Error> {
    let (windows, gaps, timelines) = (catalog.windows(), catalog.gaps(), catalog.timelines());
    let size = Size::of(catalog);
    let mut text = String::new();
    let segments = count(catalog.segments().len() as u64, "segment", "segments");
    let snapshots = count(catalog.snapshots().len() as u64, "snapshot", "snapshots");
    writeln!(
        text,
        "journal of {}: {} ({} in {segments}, {} in {snapshots})",
        catalog.meta().source,
        bytes(size.segments + size.snapshots),
        bytes(size.segments),
        bytes(size.snapshots)
    )?;
    if windows.is_empty() && !catalog.snapshots().is_empty() {
        writeln!(text, "\nNothing can be restored: no segment continues from a snapshot (`redtape journal verify`).")?;
    } else if windows.is_empty() {
        writeln!(text, "\nNothing can be restored yet: no base has been taken.")?;
    } else {
        writeln!(
            text,
            "\nAs headers, footers and manifests say, every point in time in these windows can be restored:"
        )?;
    }
    for (n, w) in windows.iter().enumerate() {
        let damaged = if w.damaged_behind { "   damaged after it" } else { "" };
        let Window { from, to, from_lsn, to_lsn, timeline, .. } = w;
        if from == to {
            writeln!(text, "  {from}   LSN {from_lsn}   timeline {timeline}   this point in time only{damaged}")?;
        } else {
            writeln!(text, "  {from} .. {to}   LSN {from_lsn} .. {to_lsn}   timeline {timeline}{damaged}")?;
        }
        if let Some(g) = gaps.get(n) {
            writeln!(text, "  gap: {} .. {}   {}", g.from, g.to, g.reason)?;
        }
    }
    if !catalog.marks().is_empty() {
        writeln!(text, "\nNamed points in time:")?;
        for m in catalog.marks() {
            writeln!(text, "  {}   LSN {}   mark:{}", m.ts, m.lsn, m.shown_name())?;
        }
    }
    label_changes(&mut text, &timelines, catalog.snapshots())?;
    for note in catalog.notes() {
        writeln!(text, "\nnote: {note}")?;
    }
    if !windows.is_empty() {
        writeln!(
            text,
            "\nThe contents of segments and snapshots were not read: `redtape journal verify` checks them."
        )?;
    }
    Ok(text)
}

/// The LSN of the first base behind a change of the source's id: from there on points in time are certain again.
fn certain_from(timeline: &TimelineInfo, change: &SourceChange, snapshots: &[SnapshotInfo]) -> Option<Lsn> {
    let at = timeline.source_changes.iter().position(|c| c == change)?;
    let since: Vec<&str> = timeline.source_changes[at..].iter().map(|c| c.after.as_str()).collect();
    let manifests = snapshots.iter().map(|s| &s.manifest);
    let behind = manifests.filter(|m| m.timeline == timeline.id && since.contains(&m.source_id.as_str()));
    behind.map(|m| m.lsn).min()
}

/// Which points in time a restore reaches by a replay over a change of the source's id.
fn label_changes(text: &mut String, timelines: &[TimelineInfo], snapshots: &[SnapshotInfo]) -> std::fmt::Result {
    for timeline in timelines {
        for change in &timeline.source_changes {
            let certain = certain_from(timeline, change, snapshots);
            let SourceChange { ts, first_lsn, .. } = change;
            // Nothing was written before the base, or only what is in it.
            if certain.is_some_and(|lsn| lsn <= *first_lsn) {
                continue;
            }
            let until = match certain {
                Some(lsn) => format!("LSN {}", lsn.0 - 1),
                None => "the end (the base after it is still to be taken)".to_owned(),
            };
            writeln!(
                text,
                "\nnote: at {ts} the server continued its history under another replication id. A restore of a point in time from LSN {first_lsn} to {until} replays over that, where a transaction with a REPLICAOF in it may have lost writes"
            )?;
        }
    }
    Ok(())
}
