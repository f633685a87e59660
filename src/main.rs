//! The redtape command: arguments, dispatch, exit codes. What it does is in the crates.

mod args;
mod commands;
mod exit;
mod history;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    let args = match args::Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            // --help and --version come here, too.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(exit::USAGE) } else { ExitCode::SUCCESS };
        }
    };
    args::init_log(&args);
    match commands::run(args.command) {
        Ok(code) => code,
        Err(error) => exit::report(&error),
    }
}
