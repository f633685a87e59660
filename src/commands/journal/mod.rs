//! `redtape journal`: one file for each subcommand.

mod cat;
mod keygen;
mod ls;
mod mark;
pub(crate) mod prune;
mod repair;
mod tail;
mod verify;

use std::process::ExitCode;

use clap::{Args, Subcommand};
use redtape_journal::Catalog;

use crate::commands::settings::JournalOptions;
use crate::headings::OUTPUT;
use crate::history::selection::Selection;

const LS_EXAMPLES: &str = "Examples:
  redtape journal ls --from journal
  redtape journal ls --from journal --json";

#[derive(Debug, Subcommand)]
pub(crate) enum JournalCommand {
    /// List what can be restored: windows, gaps with their reasons, snapshots and marks.
    #[command(after_help = LS_EXAMPLES)]
    Ls(DirArgs),
    /// Check every checksum of segments and snapshots.
    Verify(verify::VerifyArgs),
    /// Print commands and whole transactions in the server's order: when, by whom, what.
    Cat(Box<cat::CatArgs>),
    /// Print writes as they are recorded, until Ctrl-C.
    Tail(Box<tail::TailArgs>),
    /// Name the present point in time, for `restore --at mark:NAME`.
    Mark(mark::MarkArgs),
    /// Save what is left of a damaged journal; every file that is changed is kept as a copy.
    Repair(repair::RepairArgs),
    /// Remove the oldest segments and snapshots; what remains can still be restored.
    Prune(prune::PruneArgs),
    /// Make a key to encrypt a journal with.
    Keygen(keygen::KeygenArgs),
}

/// Which journal, and how it is shown.
#[derive(Debug, Args)]
pub(crate) struct DirArgs {
    #[command(flatten)]
    pub(crate) journal: JournalOptions,
    /// Print JSON (docs/json.md).
    #[arg(help_heading = OUTPUT, long)]
    pub(crate) json: bool,
}

impl DirArgs {
    /// Opens it for reading.
    pub(crate) fn open(&self) -> anyhow::Result<Catalog> {
        self.journal.place()?.open()
    }

    /// The same, to read what is selected.
    pub(crate) fn open_for(&self, selection: &Selection) -> anyhow::Result<Catalog> {
        let place = self.journal.place()?;
        if selection.search().is_none() {
            return place.open();
        }
        Ok(Catalog::open_for_search(&place.dir, &place.keyring)?)
    }
}

pub(crate) fn run(command: JournalCommand) -> anyhow::Result<ExitCode> {
    match command {
        JournalCommand::Ls(args) => ls::run(&args),
        JournalCommand::Verify(args) => verify::run(&args),
        JournalCommand::Cat(args) => cat::run(&args),
        JournalCommand::Tail(args) => tail::run(&args),
        JournalCommand::Mark(args) => mark::run(&args),
        JournalCommand::Repair(args) => repair::run(&args),
        JournalCommand::Keygen(args) => keygen::run(&args),
        JournalCommand::Prune(args) => prune::run(&args),
    }
}
