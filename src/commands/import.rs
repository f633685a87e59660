//! `redtape restore --from FILE.jsonl`: JSON lines that a restore has written go into a server. The options are those of `restore`; what has
//! no meaning here is refused.

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::process::ExitCode;

use redtape_journal::query::Filter;
use redtape_restore::console::Console;
use redtape_restore::import::{Existing, ImportReport, ImportRequest, prepare_import};
use redtape_restore::{Interrupt, Limits, RestoreError, ServerAddress};

use super::interruption::{left_behind, listen};
use super::plan_flags::PlanFlags;

use crate::input::agreed;
use crate::output::{bytes, count, out};

/// What is asked for.
pub(super) struct Import {
    pub(super) file: PathBuf,
    pub(super) to: ServerAddress,
    pub(super) filter: Filter,
    pub(super) existing: Existing,
    pub(super) flags: PlanFlags,
}

/// Does it.
pub(super) fn run(import: Import) -> anyhow::Result<ExitCode> {
    let Import { file, to, filter, existing, flags: PlanFlags { plan: plan_only, yes, json } } = import;
    let interrupt = Interrupt::default();
    let request = ImportRequest { file, to, filter, existing, interrupt: interrupt.clone(), limits: Limits::default() };
    let mut console = Console::new(std::io::stderr().is_terminal(), json);
    let prepared = prepare_import(request, &mut console)?;
    if plan_only {
        let plan = prepared.plan();
        out(&format!("{}\n", if json { serde_json::to_string_pretty(plan)? } else { plan.to_string() }))?;
        return Ok(ExitCode::SUCCESS);
    }
    if !yes && prepared.target_holds_data() {
        let target = &prepared.plan().target;
        let elsewhere = format!("{target} holds other keys; add --yes to restore the wanted ones into it");
        if !agreed(&format!("{target} holds other keys. Restore the wanted ones into it?"), elsewhere)? {
            return Err(RestoreError::NotConfirmed.into());
        }
    }
    // Up to here nothing was changed, and a signal ends the process as always.
    listen(interrupt, left_behind(redtape_restore::Method::Scratch, false))?;
    let report = prepared.run(&mut console)?;
    out(&format!("{}\n", if json { serde_json::to_string_pretty(&report)? } else { human(&report) }))?;
    Ok(ExitCode::SUCCESS)
}

fn human(report: &ImportReport) -> String {
    let mut first = format!("restored {}", count(report.keys.values().sum(), "key", "keys"));
    if report.keys.keys().any(|db| *db != 0) {
        let parts: Vec<String> = report.keys.iter().map(|(db, n)| format!("db {db}: {n}")).collect();
        first = format!("{first} ({})", parts.join(", "));
    }
    if report.functions > 0 {
        first = format!("{first} and {}", count(report.functions as u64, "function library", "function libraries"));
    }
    let side = if report.before { "as they were before" } else { "as of" };
    let mut lines = vec![
        format!("{first} {side} {} (LSN {}) in {:.1} s", report.at, report.lsn, report.seconds),
        format!("from {}, {}", report.file, bytes(report.bytes)),
    ];
    if report.existing > 0 {
        lines.push(format!("{} that the target had: left as they are", count(report.existing, "key", "keys")));
    }
    if report.expired > 0 {
        lines.push(format!("{} of them had a TTL that has passed since: gone again", report.expired));
    }
    lines.extend(report.warnings.iter().map(|warning| format!("warning: {warning}")));
    lines.extend(report.checks.iter().map(|check| format!("checked: {check}")));
    lines.join("\n")
}
