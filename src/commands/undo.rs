//! `redtape undo`: writes are taken out of the history; with `--file`, what a restore has overwritten goes back.

// The comments on arguments are their help texts.
#![allow(clippy::doc_markdown, rustdoc::broken_intra_doc_links)]

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use redtape_journal::Micros;
use redtape_journal::query::{LsnRange, When, WriteFilterError, WriteQuery};
use redtape_restore::console::Console;
use redtape_restore::undo::writes::{UndoWritesRequest, prepare_undo_writes};
use redtape_restore::undo::{UndoRequest, prepare_undo};
use redtape_restore::{Interrupt, Limits, RestoreError};

use super::plan_flags::PlanFlags;
use super::restore::repaired;
use super::settings::{JournalOptions, JournalPlace};
use super::target::TargetOptions;
use super::zone::ZoneOption;
use crate::exit::{Failure, NOT_ALL, USAGE};
use crate::headings::{METHOD, TIME, UNDO_FILE, WRITES};
use crate::history::arguments::Filters;
use crate::input::agreed;
use crate::output::{count, out};
use crate::signals::Signals;

/// `redtape undo`.
#[derive(Debug, Args)]
#[command(
    mut_arg("plan", |arg| arg.help("Print what would be done, and change nothing")),
    mut_arg("yes", |arg| arg.help("Do not ask before changing the target")),
    mut_arg("to", |arg| arg.required(true)),
    after_help = EXAMPLES
)]
pub(crate) struct UndoArgs {
    /// Undo these writes, as `redtape log` prints their LSNs: lsn:18546, or lsn:18546..18600 with both ends included. Alone, or
    /// with filters, which must then hold as well.
    #[arg(value_name = "LSNS", value_parser = lsns)]
    lsns: Vec<LsnRange>,
    /// Undo a restore or an undo, by the undo file that its plan and its report name.
    #[arg(help_heading = UNDO_FILE, long, value_name = "FILE")]
    file: Option<PathBuf>,
    #[command(flatten)]
    journal: JournalOptions,
    #[command(flatten)]
    target: TargetOptions,
    /// Writes from this point in time on; forms as in `restore --at`, e.g. "2h ago".
    #[arg(help_heading = TIME, long, value_name = "WHEN", allow_hyphen_values = true)]
    since: Option<When>,
    /// Writes up to this point in time, included.
    #[arg(help_heading = TIME, long, value_name = "WHEN", allow_hyphen_values = true)]
    until: Option<When>,
    #[command(flatten)]
    zone: ZoneOption,
    /// Undo also the writes of unknown origin that the filters may mean. The plan counts them.
    #[arg(help_heading = WRITES, long)]
    include_unknown: bool,
    /// Change also keys and elements that later writes computed from what is undone (INCR, APPEND, pops, scripts), to what the
    /// server would have computed. Without this option they stay and are listed, as clients have seen their present values.
    #[arg(help_heading = WRITES, long)]
    include_dependent: bool,
    /// With --file: put back also what was changed since the restore.
    #[arg(help_heading = UNDO_FILE, long, requires = "file")]
    replace: bool,
    /// Directory of undo files, which are also the state of interrupted restores [default: $XDG_STATE_HOME/redtape, else
    /// ~/.local/state/redtape]
    #[arg(help_heading = UNDO_FILE, long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// The redis-server or valkey-server to use as scratch server [default: the best on PATH]
    #[arg(help_heading = METHOD, long, value_name = "FILE", env = "REDTAPE_SERVER_BIN")]
    server_bin: Option<PathBuf>,
    #[command(flatten)]
    flags: PlanFlags,
    #[command(flatten)]
    filters: Filters,
}

const EXAMPLES: &str = "Examples:
  # What would the undo of one write change?
  redtape undo lsn:18546 --to redis://127.0.0.1:6400 --plan
  # All that one client wrote since then.
  redtape undo --client intern --since 18:00 --to redis://127.0.0.1:6400
  # A FLUSHALL of any client.
  redtape undo --command 'FLUSH*' --since '1h ago' --to redis://127.0.0.1:6400
  # A restore, or an undo.
  redtape undo --file UNDOFILE --to redis://127.0.0.1:6400";

fn lsns(text: &str) -> Result<LsnRange, String> {
    let range = text
        .strip_prefix("lsn:")
        .ok_or_else(|| format!("{text:?} is no range of LSNs: write lsn:18546 or lsn:18546..18600"))?;
    range.parse().map_err(|error: WriteFilterError| error.to_string())
}

/// Runs the command.
pub(crate) fn run(args: UndoArgs) -> anyhow::Result<ExitCode> {
    match args.file.clone() {
        Some(file) => by_file(args, file),
        None => by_filter(args),
    }
}

/// From now on the first SIGINT or SIGTERM ends it in an orderly way; the second one ends the process.
fn listen(interrupt: Interrupt) -> anyhow::Result<()> {
    Ok(Signals::listen()?.watch(move |mut signals| {
        signals.wait();
        interrupt.set();
    })?)
}

fn by_filter(args: UndoArgs) -> anyhow::Result<ExitCode> {
    let PlanFlags { plan: plan_only, yes, json } = args.flags;
    let to = args.target.address()?;
    let JournalPlace { dir, keyring } = args.journal.place()?;
    let (mut writes, keys) = args.filters.write_query()?;
    (writes.since, writes.until, writes.lsns) = (args.since, args.until, args.lsns);
    if writes == WriteQuery::default() && keys.is_everything() {
        return Err(Failure::new(
            USAGE,
            "which writes? Give lsn:A..B, or filters such as --client, --command, --since, --key; redtape log with the same filters shows them. Or --file UNDOFILE",
        )
        .into());
    }
    let interrupt = Interrupt::default();
    let mut console = Console::new(std::io::stderr().is_terminal(), json);
    let prepared = prepare_undo_writes(
        UndoWritesRequest {
            from: dir,
            keyring,
            writes,
            keys,
            include_unknown: args.include_unknown,
            include_dependent: args.include_dependent,
            zone: args.zone.zone(json),
            to,
            server_bin: args.server_bin,
            state_dir: args.state_dir,
            now: Micros::now(),
            interrupt: interrupt.clone(),
            limits: Limits::default(),
        },
        &mut console,
    )?;
    let plan = prepared.plan();
    let shown = if json { serde_json::to_string_pretty(plan)? } else { plan.to_string() };
    if plan_only {
        out(&format!("{shown}\n"))?;
        return Ok(ExitCode::SUCCESS);
    }
    if !prepared.is_nothing() {
        confirm(&shown, "Undo it?", yes)?;
    }
    listen(interrupt)?;
    let report = prepared.run(&mut console)?;
    let text = if json {
        serde_json::to_string_pretty(&report)?
    } else {
        let undone = count(report.selected, "write", "writes");
        let mut lines = vec![match &report.undo_file {
            None => format!("nothing has to be changed to undo {undone}, up to LSN {}", report.upto_lsn),
            Some(file) => {
                format!("undid {undone} in {:.1} s, up to LSN {}; undo file {file}", report.seconds, report.upto_lsn)
            }
        }];
        lines.extend(repaired(&report.repair));
        if report.perhaps > 0 {
            let writes = count(report.perhaps, "write", "writes");
            lines.push(format!("left: {writes} of unknown origin that may be meant; --include-unknown takes them in"));
        }
        lines.extend(report.not_judged.iter().map(|why| format!("not judged: {why}")));
        lines.join("\n")
    };
    out(&format!("{text}\n"))?;
    Ok(if report.leaves_some() { ExitCode::from(NOT_ALL) } else { ExitCode::SUCCESS })
}

fn confirm(shown: &str, question: &str, yes: bool) -> anyhow::Result<()> {
    if yes || agreed(&format!("{shown}\n{question}"), "add --yes to do it without a question".to_owned())? {
        return Ok(());
    }
    Err(RestoreError::NotConfirmed.into())
}

fn by_file(args: UndoArgs, file: PathBuf) -> anyhow::Result<ExitCode> {
    let (writes, keys) = args.filters.write_query()?;
    if writes != WriteQuery::default()
        || !keys.is_everything()
        || !args.lsns.is_empty()
        || args.since.is_some()
        || args.until.is_some()
    {
        return Err(Failure::new(USAGE, "--file undoes all that the file holds: leave the filters out").into());
    }
    let to = args.target.address()?;
    let PlanFlags { plan: plan_only, yes, json } = args.flags;
    let interrupt = Interrupt::default();
    let prepared = prepare_undo(UndoRequest {
        file,
        keyring: args.journal.keyring()?,
        to,
        replace: args.replace,
        state_dir: args.state_dir,
        interrupt: interrupt.clone(),
        limits: Limits::default(),
    })?;
    let plan = prepared.plan();
    let shown = if json { serde_json::to_string_pretty(plan)? } else { plan.to_string() };
    if plan_only {
        out(&format!("{shown}\n"))?;
        return Ok(ExitCode::SUCCESS);
    }
    let own_file = plan.undo_file.clone();
    confirm(&shown, "Put it back?", yes)?;
    listen(interrupt)?;
    let mut console = Console::new(std::io::stderr().is_terminal(), json);
    let outcome = prepared.run(&mut console)?;
    let text = if json {
        serde_json::to_string_pretty(&outcome)?
    } else {
        let mut lines = repaired(&outcome);
        // Where nothing had to be put back there is none.
        if Path::new(&own_file).exists() {
            lines.push(format!("what was there before is in the undo file {own_file}"));
        }
        lines.join("\n")
    };
    out(&format!("{text}\n"))?;
    Ok(if outcome.leaves_some() { ExitCode::from(NOT_ALL) } else { ExitCode::SUCCESS })
}
