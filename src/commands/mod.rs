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
    /// Record every write, as a proxy that applications connect to instead of the server.
    Proxy(Box<proxy::ProxyArgs>),
    /// Record every write, as a replica of the server: applications connect to the server as before.
    Follow(Box<proxy::FollowArgs>),
    /// Show a loss and its repair on servers of its own: write, FLUSHALL, find it, restore, compare.
    Demo(demo::DemoArgs),
    /// Restore a point in time: into a server, into a file, or as a read-only server.
    Restore(Box<restore::RestoreArgs>),
    /// Undo writes on the recorded server, or undo a restore.
    Undo(Box<undo::UndoArgs>),
    /// Print what a key held at a point in time, and who wrote it last.
    Get(Box<get::GetArgs>),
    /// List the keys that differ between two points in time, and who wrote them last.
    Diff(Box<diff::DiffArgs>),
    /// List, read, check, repair and prune a journal.
    #[command(subcommand)]
    Journal(journal::JournalCommand),
    /// List or count writes: who wrote what, when, and what it did to a key.
    Log(Box<log::LogArgs>),
    /// Take, list, report on or remove snapshots: full copies from which restores start.
    #[command(subcommand)]
    Snapshot(snapshot::SnapshotCommand),
    /// Check or print the settings of redtape proxy.
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
