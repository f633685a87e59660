//! `redtape journal repair`: what is wrong, what is lost, and what was done about it.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use redtape_journal::{Catalog, ErrorKind, OpenError, RepairReport, Span, repair};
use redtape_restore::point::list_windows;
use serde_json::{Value, json};

use crate::commands::settings::KeyOptions;
use crate::exit::{DATAERR, Failure, TEMPFAIL, USAGE};
use crate::input::agreed;
use crate::output::{count, out};

/// `redtape journal repair`.
#[derive(Debug, Args)]
pub(crate) struct RepairArgs {
    /// Directory of the journal. Nobody may be writing to it.
    #[arg(long, alias = "from", env = "REDTAPE_DIR", value_name = "DIR", default_value = "redtape-journal")]
    dir: PathBuf,
    #[command(flatten)]
    keys: KeyOptions,
    /// Show what is wrong and what would be done, and change nothing.
    #[arg(long)]
    plan: bool,
    /// Repair without asking.
    #[arg(long)]
    yes: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &RepairArgs) -> anyhow::Result<ExitCode> {
    let keyring = args.keys.keyring()?;
    let planned = repair(&args.dir, &keyring, false).map_err(failure)?;
    let sound = planned.faults.is_empty();
    if args.plan || sound {
        show(args, &planned)?;
        return Ok(if sound { ExitCode::SUCCESS } else { ExitCode::from(DATAERR) });
    }
    if !args.yes {
        confirm(args, &planned)?;
    }
    let done = repair(&args.dir, &keyring, true).map_err(failure)?;
    show(args, &done)?;
    Ok(ExitCode::SUCCESS)
}

fn failure(error: OpenError) -> anyhow::Error {
    match error.kind() {
        ErrorKind::InUse => Failure::new(TEMPFAIL, format!("{error}; stop redtape before a repair")).into(),
        _ => error.into(),
    }
}

fn confirm(args: &RepairArgs, planned: &RepairReport) -> anyhow::Result<()> {
    let elsewhere = "the journal is damaged; add --yes to repair it, or --plan to see what would be done";
    if agreed(&format!("{}Repair it?", text(args, planned)?), elsewhere)? {
        return Ok(());
    }
    Err(Failure::new(USAGE, "nothing was changed").into())
}

fn show(args: &RepairArgs, report: &RepairReport) -> anyhow::Result<()> {
    let text = if args.json { format!("{}\n", as_json(args, report)) } else { text(args, report)? };
    out(&text)
}

fn text(args: &RepairArgs, report: &RepairReport) -> Result<String, std::fmt::Error> {
    let mut text = String::new();
    if report.faults.is_empty() {
        writeln!(text, "sound: there is nothing to repair")?;
        for span in &report.lost {
            writeln!(text, "lost earlier: {span}")?;
        }
        return Ok(text);
    }
    for fault in &report.faults {
        let file = fault.file.strip_prefix(&args.dir).unwrap_or(&fault.file);
        writeln!(text, "{} at byte {}: {}", file.display(), fault.offset, fault.what)?;
    }
    let (does, is) = if report.copies.is_some() { ("done", "lost") } else { ("to be done", "would be lost") };
    writeln!(text, "\n{does}:")?;
    for step in &report.steps {
        writeln!(text, "  {step}")?;
    }
    writeln!(text, "\n{is}:")?;
    if report.lost.is_empty() {
        writeln!(text, "  nothing")?;
    }
    for span in &report.lost {
        writeln!(text, "  {span}")?;
    }
    if let Some(copies) = &report.copies {
        writeln!(text, "\nEvery file that was changed is kept as it was in {}.", copies.display())?;
        if let Ok(catalog) = Catalog::open(&args.dir) {
            let windows = catalog.windows();
            let n = count(windows.len() as u64, "window", "windows");
            writeln!(text, "What can be restored now ({n}):\n{}", list_windows(&windows))?;
        }
    }
    Ok(text)
}

fn as_json(args: &RepairArgs, report: &RepairReport) -> Value {
    let span = |s: &Span| {
        json!({
            "from_lsn": s.from_lsn.0, "to_lsn": s.to_lsn.map(|l| l.0),
            "from_ts_us": s.from_ts.0, "to_ts_us": s.to_ts.map(|t| t.0),
        })
    };
    let faults: Vec<Value> = report
        .faults
        .iter()
        .map(|f| {
            let file = f.file.strip_prefix(&args.dir).unwrap_or(&f.file);
            json!({"file": file, "offset": f.offset, "what": f.what})
        })
        .collect();
    json!({
        "sound": report.faults.is_empty(), "repaired": report.copies.is_some(), "faults": faults,
        "lost": report.lost.iter().map(span).collect::<Vec<_>>(), "steps": report.steps, "copies": report.copies,
    })
}
