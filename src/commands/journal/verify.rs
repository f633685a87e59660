//! `redtape journal verify`: every checksum of segments and snapshots.

use std::fmt::Write as _;
use std::process::ExitCode;

use clap::Args;
use redtape_journal::verify_with;
use serde_json::{Value, json};

use super::DirArgs;
use crate::exit::DATAERR;
use crate::output::{bytes, count, out};

const EXAMPLES: &str = "Examples:
  redtape journal verify --from journal
  redtape journal verify --from journal --quick --json";

/// What is checked.
const CHECK: &str = "Check";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct VerifyArgs {
    #[command(flatten)]
    journal: DirArgs,
    /// Check headers, footers and the chain of segments only; do not read every byte.
    #[arg(help_heading = CHECK, long)]
    quick: bool,
    /// Read every byte of segments and snapshots. This is the default.
    #[arg(help_heading = CHECK, long, conflicts_with = "quick")]
    deep: bool,
}

pub(super) fn run(args: &VerifyArgs) -> anyhow::Result<ExitCode> {
    let deep = args.deep || !args.quick;
    let place = args.journal.journal.place()?;
    let report = verify_with(&place.dir, deep, &place.keyring, |_| {})?;
    let mut text = String::new();
    if args.journal.json {
        let problems: Vec<Value> = report
            .problems
            .iter()
            .map(|p| {
                json!({
                    "file": p.file, "offset": p.offset, "what": p.what, "consequence": p.consequence,
                    "lsn": p.span.map(|s| json!([s.from_lsn.0, s.to_lsn.map(|l| l.0)])),
                    "ts_us": p.span.map(|s| json!([s.from_ts.0, s.to_ts.map(|t| t.0)])),
                })
            })
            .collect();
        let value = json!({
            "sound": problems.is_empty(), "contents_checked": deep, "segments": report.segments, "blocks": report.blocks, "groups": report.groups,
            "records": report.records, "snapshots": report.snapshots, "bytes": report.bytes, "problems": problems,
            "notes": report.notes,
        });
        writeln!(text, "{value}")?;
    } else {
        for p in &report.problems {
            write!(text, "{} at byte {}: {}", p.file.display(), p.offset, p.what)?;
            if let Some(span) = &p.span {
                write!(text, " ({span})")?;
            }
            writeln!(text, "\n  {}", p.consequence)?;
        }
        let checked =
            if deep { "checked" } else { "looked at, but for their contents (without --quick these are checked)" };
        let verdict = if report.problems.is_empty() { "sound" } else { "DAMAGED" };
        for note in &report.notes {
            writeln!(text, "note: {note}")?;
        }
        writeln!(
            text,
            "{verdict}: {}, {}, {}, {}, {}, {} {checked}, {}",
            count(report.segments, "segment", "segments"),
            count(report.blocks, "block", "blocks"),
            count(report.groups, "group", "groups"),
            count(report.records, "record", "records"),
            count(report.snapshots, "snapshot", "snapshots"),
            bytes(report.bytes),
            count(report.problems.len() as u64, "problem", "problems")
        )?;
    }
    out(&text)?;
    Ok(if report.problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(DATAERR) })
}
