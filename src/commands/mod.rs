//! One file for each command.

pub(crate) mod config;
pub(crate) mod demo;
pub(crate) mod embedded;
pub(crate) mod journal;
pub(crate) mod log;
pub(crate) mod proxy;
pub(crate) mod restore;
pub(crate) mod settings;
pub(crate) mod snapshot;

use std::process::ExitCode;

use crate::args::Command;

/// Runs one command.
pub(crate) fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Proxy(args) => proxy::run(*args),
        Command::Follow(args) => proxy::follow(*args),
        Command::Demo(args) => demo::run(&args),
        Command::Restore(args) => restore::run(*args),
        Command::Journal(command) => journal::run(command),
        Command::Log(args) => log::run(&args),
        Command::Snapshot(command) => snapshot::run(command),
        Command::Config(command) => config::run(command),
    }
}
