//! `redtape undo --file`: what a restore has overwritten goes back.

// The comments on arguments are their help texts.
#![allow(clippy::doc_markdown, rustdoc::broken_intra_doc_links)]

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use redtape_restore::console::Console;
use redtape_restore::undo::{UndoRequest, prepare_undo};
use redtape_restore::{Interrupt, Limits, RestoreError};

use super::plan_flags::PlanFlags;
use super::restore::repaired;
use super::settings::KeyOptions;
use crate::exit::NOT_ALL;
use crate::input::{PASSWORD_LIMIT, agreed, password_file, url};
use crate::output::out;
use crate::signals::Signals;

/// `redtape undo`.
#[derive(Debug, Args)]
#[command(
    mut_arg("plan", |arg| arg.help("Print what would go back, and change nothing")),
    mut_arg("yes", |arg| arg.help("Do it without asking"))
)]
pub(crate) struct UndoArgs {
    /// The undo file that a restore has named in its plan.
    #[arg(long, value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    journal_keys: KeyOptions,
    /// The server that the restore wrote to. Its password may also come from REDTAPE_TO_PASSWORD or --to-password-file.
    #[arg(long, value_name = "URL")]
    to: String,
    /// File that holds the target's password.
    #[arg(long, value_name = "FILE")]
    to_password_file: Option<PathBuf>,
    /// Put back also what was changed since the restore.
    #[arg(long)]
    replace: bool,
    /// Where the undo file of this undo is kept [default: $XDG_STATE_HOME/redtape, else ~/.local/state/redtape]
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    #[command(flatten)]
    flags: PlanFlags,
}

/// Runs the command.
pub(crate) fn run(args: UndoArgs) -> anyhow::Result<ExitCode> {
    let mut to = url(&args.to, "--to", "REDTAPE_TO_PASSWORD")?;
    if let Some(path) = &args.to_password_file {
        to = to.with_password(password_file(path, "--to-password-file", PASSWORD_LIMIT)?);
    }
    let PlanFlags { plan: plan_only, yes, json } = args.flags;
    let interrupt = Interrupt::default();
    let prepared = prepare_undo(UndoRequest {
        file: args.file,
        keyring: args.journal_keys.keyring()?,
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
    if !yes {
        let elsewhere = "add --yes to put it back without being asked".to_owned();
        if !agreed(&format!("{shown}\nPut it back?"), elsewhere)? {
            return Err(RestoreError::NotConfirmed.into());
        }
    }
    Signals::listen()?.watch(move |mut signals| {
        signals.wait();
        interrupt.set();
    })?;
    let mut console = Console::new(std::io::stderr().is_terminal(), json);
    let outcome = prepared.run(&mut console)?;
    let text = if json { serde_json::to_string_pretty(&outcome)? } else { repaired(&outcome).join("\n") };
    out(&format!("{text}\n"))?;
    Ok(if outcome.left > 0 { ExitCode::from(NOT_ALL) } else { ExitCode::SUCCESS })
}
