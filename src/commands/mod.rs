//! One file for each command.

pub(crate) mod config;
mod conflict_options;
pub(crate) mod demo;
pub(crate) mod diff;
pub(crate) mod embedded;
pub(crate) mod get;
mod import;
mod interruption;
pub(crate) mod journal;
pub(crate) mod log;
mod plan_flags;
pub(crate) mod proxy;
pub(crate) mod restore;
pub(crate) mod serve;
pub(crate) mod settings;
pub(crate) mod snapshot;
mod snapshot_report;
mod target;
pub(crate) mod undo;
pub(crate) mod zone;

use std::process::ExitCode;

use clap::{ArgMatches, Subcommand};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Stand between applications and Redis, and journal every write.
    Proxy(Box<proxy::ProxyArgs>),
    /// Journal every write of a server without standing in its way.
    Follow(Box<proxy::FollowArgs>),
    /// The whole story on an embedded server: write, lose everything, get it back.
    Demo(demo::DemoArgs),
    /// Bring the data of any moment back.
    Restore(Box<restore::RestoreArgs>),
    /// Put back what a restore has overwritten or deleted.
    Undo(Box<undo::UndoArgs>),
    /// What a key held at any moment, and who wrote it last.
    Get(Box<get::GetArgs>),
    /// What is not the same at two moments, and who wrote it.
    Diff(Box<diff::DiffArgs>),
    /// Look into a journal: what can be restored, is it sound, what was written.
    #[command(subcommand)]
    Journal(journal::JournalCommand),
    /// Who wrote what, when, and what it did to a key.
    Log(Box<log::LogArgs>),
    /// Take, list or remove snapshots, full copies from which a restore starts; report what is in them.
    #[command(subcommand)]
    Snapshot(snapshot::SnapshotCommand),
    /// Check or show the settings of redtape proxy.
    #[command(subcommand)]
    Config(config::ConfigCommand),
}

/// Runs one command; `matches` is that from which it was made.
pub(crate) fn run(command: Command, matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    match command {
        Command::Proxy(args) => proxy::run(*args),
        Command::Follow(args) => proxy::follow(*args),
        Command::Demo(args) => demo::run(&args),
        Command::Restore(args) => restore::run(*args),
        Command::Undo(args) => undo::run(*args),
        Command::Get(args) => get::run(&args),
        Command::Diff(args) => diff::run(&args),
        Command::Journal(command) => journal::run(command),
        Command::Log(args) => log::run(&args),
        Command::Snapshot(command) => snapshot::run(command),
        Command::Config(command) => config::run(command, matches),
    }
}
