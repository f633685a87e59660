//! `redtape journal prune` and `redtape snapshot rm`: what goes is shown, confirmed, and removed.

// The comments on arguments are their help texts.
#![allow(clippy::doc_markdown, rustdoc::broken_intra_doc_links)]

use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;

use clap::Args;
use redtape_journal::{
    ItemKind, Micros, PruneError, PruneItem, PrunePlan, Retention, SnapshotKind, Why, Window, plan_prune, plan_removal,
    prune, remove_snapshots,
};
use redtape_wire::units::{ByteSize, Period};
use serde_json::{Value, json};

use crate::commands::plan_flags::PlanFlags;
use crate::commands::settings::JournalOptions;
use crate::exit::{Failure, USAGE};
use crate::headings::RETENTION;
use crate::input::agreed;
use crate::output::{bytes, count, out};

const PRUNE_EXAMPLES: &str = "Examples:
  redtape journal prune --from journal --retention 7d --plan
  redtape journal prune --from journal --retention 7d --max-size 100gb --yes";

const REMOVE_EXAMPLES: &str = "Examples:
  redtape snapshot rm 00000001-0000000000000042-00000000.rdb --from journal --plan";

/// `redtape journal prune`.
#[derive(Debug, Args)]
#[command(
    mut_arg("plan", |arg| arg.help("Print what would be removed and why, and change nothing")),
    mut_arg("yes", |arg| arg.help("Do not ask before the removal")),
    after_help = PRUNE_EXAMPLES
)]
pub(crate) struct PruneArgs {
    #[command(flatten)]
    journal: JournalOptions,
    /// Keep every point in time of this period, up to the newest one of the journal, restorable: 90s, 30m, 6h, 7d, 2w
    #[arg(help_heading = RETENTION, long, env = "REDTAPE_RETENTION", value_name = "TIME")]
    retention: Option<Period>,
    /// Remove the oldest segments and snapshots until all of them are not larger than this, e.g. 10gb; wins over --retention. The
    /// last base and what was written since always stay.
    #[arg(help_heading = RETENTION, long, env = "REDTAPE_JOURNAL_MAX_SIZE", value_name = "SIZE")]
    max_size: Option<ByteSize>,
    #[command(flatten)]
    flags: PlanFlags,
}

/// `redtape snapshot rm`.
#[derive(Debug, Args)]
#[command(
    mut_arg("plan", |arg| arg.help("Print what would be removed and why, and change nothing")),
    mut_arg("yes", |arg| arg.help("Do not ask before the removal")),
    after_help = REMOVE_EXAMPLES
)]
pub(crate) struct RemoveArgs {
    /// Names of snapshots, as `redtape snapshot ls` prints them.
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    #[command(flatten)]
    journal: JournalOptions,
    #[command(flatten)]
    flags: PlanFlags,
}

/// Prunes, or says what pruning would do.
pub(crate) fn run(args: &PruneArgs) -> anyhow::Result<ExitCode> {
    let retention = Retention { keep: args.retention.map(|p| p.0), max_bytes: args.max_size.map(|s| s.0) };
    if !retention.is_set() {
        let message = "say what to keep: --retention 7d, --max-size 10gb, or both (--plan shows what would go)";
        return Err(Failure::new(USAGE, message).into());
    }
    // What goes is decided by what stands in clear; keys that cannot be used are worth a word all the same.
    let dir = args.journal.place()?.dir;
    let now = Micros::now();
    let plan = plan_prune(&dir, &retention, now)?;
    carry_out(&dir, args.flags, &plan, || {
        // Planned anew, as another process may have pruned meanwhile.
        prune(&dir, &retention, now, &mut |_| {}, &|| false)
    })
}

/// Removes snapshots by name.
pub(crate) fn remove(args: &RemoveArgs) -> anyhow::Result<ExitCode> {
    let dir = args.journal.place()?.dir;
    let plan = plan_removal(&dir, &args.names)?;
    carry_out(&dir, args.flags, &plan, || remove_snapshots(&dir, &args.names))
}

fn carry_out(
    dir: &Path,
    flags: PlanFlags,
    plan: &PrunePlan,
    act: impl FnOnce() -> Result<PrunePlan, PruneError>,
) -> anyhow::Result<ExitCode> {
    if flags.plan {
        return show(dir, flags, plan, false);
    }
    if !plan.is_empty() && !flags.yes {
        confirm(dir, plan)?;
    }
    let done = act()?;
    show(dir, flags, &done, true)
}

fn confirm(dir: &Path, plan: &PrunePlan) -> anyhow::Result<()> {
    let elsewhere = format!("{} would go; add --yes to remove them, or --plan to see them", what_goes(plan));
    if agreed(&format!("{}Remove {} for good?", text(dir, plan, false)?, what_goes(plan)), elsewhere)? {
        return Ok(());
    }
    Err(Failure::new(USAGE, "nothing was removed").into())
}

fn show(dir: &Path, flags: PlanFlags, plan: &PrunePlan, done: bool) -> anyhow::Result<ExitCode> {
    let text = if flags.json { format!("{}\n", as_json(dir, plan, done)) } else { text(dir, plan, done)? };
    out(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// `2 segments and 1 snapshot (1.2 GiB)`.
fn what_goes(plan: &PrunePlan) -> String {
    let of = |segments: bool| plan.removed().filter(|i| (i.kind == ItemKind::Segment) == segments).count() as u64;
    let all = [(of(true), "segment", "segments"), (of(false), "snapshot", "snapshots")];
    let parts: Vec<String> =
        all.into_iter().filter(|(n, ..)| *n > 0).map(|(n, one, many)| count(n, one, many)).collect();
    format!("{} ({})", parts.join(" and "), bytes(plan.bytes_before - plan.bytes_after))
}

fn text(dir: &Path, plan: &PrunePlan, done: bool) -> Result<String, std::fmt::Error> {
    let mut text = String::new();
    for item in &plan.items {
        // What stays for a reason of its own is worth a line, the rest is in the windows.
        let verdict = if item.goes {
            if done { "removed" } else { "goes" }
        } else if matches!(item.why, Why::Manual | Why::Foreign) {
            "stays"
        } else {
            continue;
        };
        let (file, size) = (name(dir, &item.path), bytes(item.bytes));
        writeln!(text, "{verdict:<8} {file}  {size:>9}  {}  {}", item.to, item.why)?;
    }
    let remain = bytes(plan.bytes_after);
    match (plan.is_empty(), done) {
        (true, _) => writeln!(text, "nothing to remove: {remain}")?,
        (false, true) => writeln!(text, "removed {}; {remain} remain", what_goes(plan))?,
        (false, false) => writeln!(text, "{} would go; {remain} would remain", what_goes(plan))?,
    }
    if !plan.windows_after.is_empty() {
        writeln!(text, "\nWhat can be restored{}:", if plan.is_empty() || done { "" } else { " afterwards" })?;
    }
    for Window { from, to, from_lsn, to_lsn, timeline, .. } in &plan.windows_after {
        if from == to {
            writeln!(text, "  {from}   LSN {from_lsn}   timeline {timeline}   this point in time only")?;
        } else {
            writeln!(text, "  {from} .. {to}   LSN {from_lsn} .. {to_lsn}   timeline {timeline}")?;
        }
    }
    for note in notes(plan) {
        writeln!(text, "\nnote: {note}")?;
    }
    Ok(text)
}

fn notes(plan: &PrunePlan) -> Vec<String> {
    let mut notes = Vec::new();
    if let (true, Some(from)) = (plan.cut_short, plan.promised_from) {
        notes.push(format!("the size limit removes points in time that --retention would keep (from {from} on)"));
    }
    if let Some(short) = &plan.shortfall {
        let manual = match short.manual_bytes {
            0 => String::new(),
            n => format!("; {} are snapshots taken by hand (`redtape snapshot rm`)", bytes(n)),
        };
        notes.push(format!(
            "the limit of {} cannot be met: {} remain, as the last base and everything after it stay{manual}. A newer snapshot makes older ones dispensable (`redtape snapshot create`, --snapshot-every)",
            bytes(short.limit),
            bytes(short.bytes),
        ));
    }
    for mark in plan.lost_marks.iter().filter(|mark| !plan.removed_marks.contains(mark)) {
        notes.push(format!("mark:{} ({}) can no longer be restored", mark.shown_name(), mark.ts));
    }
    let marks = plan.removed_marks.len() as u64;
    if marks > 0 && !plan.is_empty() {
        let marks = count(marks, "automatic mark names", "automatic marks name");
        notes.push(format!("{marks} history that is no longer kept, and goes with it"));
    }
    notes
}

fn name(dir: &Path, file: &Path) -> String {
    file.strip_prefix(dir).unwrap_or(file).display().to_string()
}

fn as_json(dir: &Path, plan: &PrunePlan, done: bool) -> Value {
    let kind = |item: &PruneItem| match item.kind {
        ItemKind::Segment => "segment",
        ItemKind::Snapshot(SnapshotKind::Base) => "base",
        ItemKind::Snapshot(SnapshotKind::Scheduled) => "scheduled",
        ItemKind::Snapshot(SnapshotKind::Manual) => "manual",
    };
    let windows = |all: &[Window]| -> Vec<Value> {
        let window = |w: &Window| json!({"timeline": w.timeline.0, "from": w.from.to_string(), "from_us": w.from.0, "from_lsn": w.from_lsn.0, "to": w.to.to_string(), "to_us": w.to.0, "to_lsn": w.to_lsn.0});
        all.iter().map(window).collect()
    };
    json!({
        "done": done,
        "items": plan.items.iter().map(|i| json!({
            "file": name(dir, &i.path), "kind": kind(i), "timeline": i.timeline.0, "first_lsn": i.first_lsn.0, "last_lsn": i.last_lsn.0,
            "from_us": i.from.0, "to_us": i.to.0, "bytes": i.bytes, "goes": i.goes, "why": i.why.to_string(),
        })).collect::<Vec<_>>(),
        "bytes_before": plan.bytes_before,
        "bytes_after": plan.bytes_after,
        "promised_from_us": plan.promised_from.map(|p| p.0),
        "cut_short": plan.cut_short,
        "limit_met": plan.shortfall.is_none(),
        "windows_before": windows(&plan.windows_before),
        "windows_after": windows(&plan.windows_after),
        "lost_marks": plan.lost_marks.iter().map(|m| json!({"name": m.name, "ts": m.ts.to_string(), "ts_us": m.ts.0, "lsn": m.lsn.0})).collect::<Vec<_>>(),
        "notes": notes(plan),
    })
}
