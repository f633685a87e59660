//! The redtape command: arguments, dispatch, exit codes. What it does is in the crates.

mod args;
mod commands;
mod exit;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    let args = args::Args::parse();
    args::init_log(&args);
    match commands::run(args.command) {
        Ok(code) => code,
        Err(error) => exit::report(&error),
    }
}
