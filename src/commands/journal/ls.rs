//! `redtape journal ls`: which moments can be restored, which gaps there are and why.

use std::fmt::Write as _;
use std::process::ExitCode;

use redtape_journal::Window;
use serde_json::json;

use super::{DirArgs, bytes, count, out};

pub(super) fn run(args: &DirArgs) -> anyhow::Result<ExitCode> {
    let catalog = args.open()?;
    let (windows, gaps, timelines) = (catalog.windows(), catalog.gaps(), catalog.timelines());
    if args.json {
        let value = json!({
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
                "timeline": t.id.0, "source_id": t.source_id, "reason": t.reason, "start": t.start_ts.to_string(), "start_us": t.start_ts.0,
                "first_lsn": t.first_lsn.0, "last_lsn": t.last_lsn.0, "start_offset": t.start_offset.0, "end_offset": t.end_offset.0, "bytes": t.bytes,
            })).collect::<Vec<_>>(),
            "marks": catalog.marks().iter().map(|m| json!({
                "name": m.name, "ts": m.ts.to_string(), "ts_us": m.ts.0, "lsn": m.lsn.0,
            })).collect::<Vec<_>>(),
            "segments": catalog.segments().len(),
            "bytes": catalog.segments().iter().map(|s| s.bytes).sum::<u64>(),
            "notes": catalog.notes(),
        });
        out(&format!("{value}\n"))?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut text = String::new();
    let size = catalog.segments().iter().map(|s| s.bytes).sum();
    let segments = count(catalog.segments().len() as u64, "segment", "segments");
    writeln!(text, "journal of {} ({} in {segments})", catalog.meta().source, bytes(size))?;
    if windows.is_empty() && !catalog.snapshots().is_empty() {
        writeln!(text, "\nNothing can be restored: no segment goes on from a snapshot (`redtape journal verify`).")?;
    } else if windows.is_empty() {
        writeln!(text, "\nNothing can be restored yet: no base has been taken.")?;
    } else {
        writeln!(text, "\nEvery moment in these windows can be restored:")?;
    }
    for (n, w) in windows.iter().enumerate() {
        let damaged = if w.damaged_behind { "   damaged behind it" } else { "" };
        let Window { from, to, from_lsn, to_lsn, timeline, .. } = w;
        if from == to {
            writeln!(text, "  {from}   LSN {from_lsn}   timeline {timeline}   this moment only{damaged}")?;
        } else {
            writeln!(text, "  {from} .. {to}   LSN {from_lsn} .. {to_lsn}   timeline {timeline}{damaged}")?;
        }
        if let Some(g) = gaps.get(n) {
            writeln!(text, "  gap: {} .. {}   {}", g.from, g.to, g.reason)?;
        }
    }
    if !catalog.marks().is_empty() {
        writeln!(text, "\nNamed moments:")?;
        for m in catalog.marks() {
            writeln!(text, "  {}   LSN {}   mark:{}", m.ts, m.lsn, m.shown_name())?;
        }
    }
    for note in catalog.notes() {
        writeln!(text, "\nnote: {note}")?;
    }
    out(&text)?;
    Ok(ExitCode::SUCCESS)
}
