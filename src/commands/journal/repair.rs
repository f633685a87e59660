//! `redtape journal repair`: what is wrong, what is lost, and what was done about it.

use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;

use clap::Args;
use redtape_journal::query::list_windows;
use redtape_journal::{Catalog, OpenError, RepairPlan, Span, plan_repair, repair};
use serde_json::{Value, json};

use crate::commands::plan_flags::PlanFlags;
use crate::commands::settings::{JournalOptions, JournalPlace};
use crate::exit::{DATAERR, Failure, TEMPFAIL, USAGE};
use crate::input::agreed;
use crate::output::{count, out};

const EXAMPLES: &str = "Examples:
  redtape journal repair --from journal --plan
  redtape journal repair --from journal --yes
Stop redtape proxy or follow first.";

/// `redtape journal repair`.
#[derive(Debug, Args)]
#[command(
    mut_arg("plan", |arg| arg.help("Print what is wrong and what would be done, and change nothing")),
    mut_arg("yes", |arg| arg.help("Do not ask before the repair")),
    after_help = EXAMPLES
)]
pub(crate) struct RepairArgs {
    #[command(flatten)]
    journal: JournalOptions,
    #[command(flatten)]
    flags: PlanFlags,
}

pub(crate) fn run(args: &RepairArgs) -> anyhow::Result<ExitCode> {
    let JournalPlace { dir, keyring } = args.journal.place()?;
    let plan = plan_repair(&dir, &keyring).map_err(failure)?;
    let sound = plan.is_sound();
    if args.flags.plan || sound {
        show(args.flags.json, &dir, &plan, None)?;
        return Ok(if sound { ExitCode::SUCCESS } else { ExitCode::from(DATAERR) });
    }
    if !args.flags.yes {
        confirm(&dir, &plan)?;
    }
    let done = repair(&dir, &keyring).map_err(failure)?;
    show(args.flags.json, &dir, &done.plan, done.copies.as_deref())?;
    Ok(ExitCode::SUCCESS)
}

fn failure(error: OpenError) -> anyhow::Error {
    match error {
        OpenError::Locked { .. } => Failure::new(TEMPFAIL, format!("{error}; stop redtape before a repair")).into(),
        _ => error.into(),
    }
}

fn confirm(dir: &Path, plan: &RepairPlan) -> anyhow::Result<()> {
    let elsewhere = "the journal is damaged; add --yes to repair it, or --plan to see what would be done";
    if agreed(&format!("{}Repair it?", text(dir, plan, None)?), elsewhere)? {
        return Ok(());
    }
    Err(Failure::new(USAGE, "nothing was changed").into())
}

/// `copies`: the folder that keeps the files as they were, if the repair was made.
fn show(json: bool, dir: &Path, plan: &RepairPlan, copies: Option<&Path>) -> anyhow::Result<()> {
    let text = if json { format!("{}\n", as_json(dir, plan, copies)) } else { text(dir, plan, copies)? };
    out(&text)
}

fn text(dir: &Path, plan: &RepairPlan, copies: Option<&Path>) -> Result<String, std::fmt::Error> {
    let mut text = String::new();
    if plan.is_sound() {
        writeln!(text, "sound: there is nothing to repair")?;
        for span in &plan.lost {
            writeln!(text, "lost earlier: {span}")?;
        }
        return Ok(text);
    }
    for fault in &plan.faults {
        let file = fault.file.strip_prefix(dir).unwrap_or(&fault.file);
        writeln!(text, "{} at byte {}: {}", file.display(), fault.offset, fault.what)?;
    }
    let (does, is) = if copies.is_some() { ("done", "lost") } else { ("to be done", "would be lost") };
    writeln!(text, "\n{does}:")?;
    for step in &plan.steps {
        writeln!(text, "  {step}")?;
    }
    writeln!(text, "\n{is}:")?;
    if plan.lost.is_empty() {
        writeln!(text, "  nothing")?;
    }
    for span in &plan.lost {
        writeln!(text, "  {span}")?;
    }
    if let Some(copies) = copies {
        writeln!(text, "\nEvery file that was changed is kept as it was in {}.", copies.display())?;
        if let Ok(catalog) = Catalog::open(dir) {
            let windows = catalog.windows();
            let n = count(windows.len() as u64, "window", "windows");
            writeln!(text, "What can be restored now ({n}):\n{}", list_windows(&windows))?;
        }
    }
    Ok(text)
}

fn as_json(dir: &Path, plan: &RepairPlan, copies: Option<&Path>) -> Value {
    let span = |s: &Span| {
        json!({
            "from_lsn": s.from_lsn.0, "to_lsn": s.to_lsn.map(|l| l.0),
            "from_ts_us": s.from_ts.0, "to_ts_us": s.to_ts.map(|t| t.0),
        })
    };
    let faults: Vec<Value> = plan
        .faults
        .iter()
        .map(|f| {
            let file = f.file.strip_prefix(dir).unwrap_or(&f.file);
            json!({"file": file, "offset": f.offset, "what": f.what})
        })
        .collect();
    json!({
        "sound": plan.is_sound(), "repaired": copies.is_some(), "faults": faults,
        "lost": plan.lost.iter().map(span).collect::<Vec<_>>(), "steps": plan.steps, "copies": copies,
    })
}
