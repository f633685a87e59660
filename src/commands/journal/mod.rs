//! `redtape journal`: one file for each subcommand.

mod cat;
mod keygen;
mod ls;
mod mark;
pub(crate) mod prune;
mod repair;
mod tail;
mod verify;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use redtape_journal::Catalog;

use crate::commands::settings::KeyOptions;
use crate::history::selection::Selection;

#[derive(Debug, Subcommand)]
pub(crate) enum JournalCommand {
    /// Which moments can be restored, which gaps there are and why.
    Ls(DirArgs),
    /// Check every checksum of segments and snapshots.
    Verify(verify::VerifyArgs),
    /// Print what was written, in Redis's order: when, by whom, what.
    Cat(Box<cat::CatArgs>),
    /// Print what is written, as it is written, until you stop it.
    Tail(Box<tail::TailArgs>),
    /// Name the present moment, for `restore --at mark:NAME`.
    Mark(mark::MarkArgs),
    /// Save what is left of a damaged journal, keeping a copy of every file that is changed.
    Repair(repair::RepairArgs),
    /// Remove what is older than you want to keep; what remains stays restorable.
    Prune(prune::PruneArgs),
    /// Make a key to encrypt the journal with.
    Keygen(keygen::KeygenArgs),
}

/// Which journal.
#[derive(Debug, Args)]
pub(crate) struct DirArgs {
    /// Directory of the journal.
    #[arg(long, alias = "dir", env = "REDTAPE_DIR", value_name = "DIR", default_value = "redtape-journal")]
    pub(crate) from: PathBuf,
    #[command(flatten)]
    pub(crate) keys: KeyOptions,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

impl DirArgs {
    /// Opens it for reading.
    pub(crate) fn open(&self) -> anyhow::Result<Catalog> {
        Ok(Catalog::open_with(&self.from, &self.keys.keyring()?)?)
    }

    /// The same, to read what is selected.
    pub(crate) fn open_for(&self, selection: &Selection) -> anyhow::Result<Catalog> {
        if selection.search().is_none() {
            return self.open();
        }
        Ok(Catalog::open_for_search(&self.from, &self.keys.keyring()?)?)
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
