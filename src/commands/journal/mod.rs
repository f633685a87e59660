//! `redtape journal ls | verify | cat | tail | mark`; `prune`, `repair` and `keygen` are in modules of their own.

mod cat;
mod ls;
mod mark;
mod tail;
mod verify;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use redtape_journal::{Catalog, OpenError, ReadError};

use super::settings::KeyOptions;
use crate::exit::{Failure, open_code, read_code};

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
    Repair(super::repair::RepairArgs),
    /// Remove what is older than you want to keep; what remains stays restorable.
    Prune(super::prune::PruneArgs),
    /// Make a key to encrypt the journal with.
    Keygen(super::keygen::KeygenArgs),
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
        Ok(Catalog::open_with(&self.from, &self.keys.keyring()?).map_err(catalog_failure)?)
    }
}

pub(crate) fn run(command: JournalCommand) -> anyhow::Result<ExitCode> {
    match command {
        JournalCommand::Ls(args) => ls::run(&args),
        JournalCommand::Verify(args) => verify::run(&args),
        JournalCommand::Cat(args) => cat::run(&args),
        JournalCommand::Tail(args) => tail::run(&args),
        JournalCommand::Mark(args) => mark::run(&args),
        JournalCommand::Repair(args) => super::repair::run(&args),
        JournalCommand::Keygen(args) => super::keygen::run(&args),
        JournalCommand::Prune(args) => super::prune::run(&args),
    }
}

/// A journal that can't be opened, with its exit code.
pub(crate) fn catalog_failure(error: OpenError) -> Failure {
    Failure::new(open_code(&error), error)
}

/// A journal that can't be read, with its exit code.
pub(crate) fn read_failure(error: ReadError) -> Failure {
    Failure::new(read_code(&error), error)
}

/// Writes to stdout; a reader that has enough (`| head`) is no error.
pub(crate) fn out(text: &str) -> anyhow::Result<()> {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
        other => Ok(other?),
    }
}

/// A size for people.
pub(crate) fn bytes(n: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut value, mut unit) = (n as f64, 0);
    while value >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{n} B") } else { format!("{value:.1} {}", units[unit]) }
}

/// `1 key`, `2 keys`.
pub(crate) fn count(n: u64, one: &str, many: &str) -> String {
    format!("{n} {}", if n == 1 { one } else { many })
}
