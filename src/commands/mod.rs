//! One file for each command.

pub(crate) mod config;
pub(crate) mod demo;
pub(crate) mod embedded;
pub(crate) mod journal;
pub(crate) mod keygen;
pub(crate) mod log;
pub(crate) mod proxy;
pub(crate) mod prune;
pub(crate) mod repair;
pub(crate) mod restore;
pub(crate) mod settings;
pub(crate) mod snapshot;

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;

use redtape_wire::url::{RedisUrl, Secret};

use crate::args::Command;
use crate::exit::{Failure, USAGE};

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

/// Asks who sits at the terminal; where nobody does, fails with what to do instead.
pub(crate) fn agreed(question: &str, without_terminal: impl std::fmt::Display) -> anyhow::Result<bool> {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::new(USAGE, without_terminal).into());
    }
    write!(std::io::stderr(), "{question} [y/N] ")?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// Reads a URL; its password may come from the environment variable `NAME` or the file named by `NAME_FILE`.
pub(crate) fn url(text: &str, what: &str, password_env: &str) -> anyhow::Result<RedisUrl> {
    let url: RedisUrl = text.parse().map_err(|e| Failure::new(USAGE, format!("{what}: {e}")))?;
    if url.password.is_some() {
        return Ok(url);
    }
    let file_env = format!("{password_env}_FILE");
    if let Ok(password) = std::env::var(password_env) {
        return Ok(url.with_password(Secret::new(password)));
    }
    if let Ok(path) = std::env::var(&file_env) {
        let text = std::fs::read_to_string(&path)
            .map_err(|e| Failure::new(crate::exit::IOERR, format!("can't read {path} ({file_env}): {e}")))?;
        return Ok(url.with_password(Secret::new(text.trim_end_matches(['\r', '\n']))));
    }
    Ok(url)
}
