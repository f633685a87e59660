//! The redtape command: arguments, dispatch, exit codes. What it does is in the crates.

mod args;
mod commands;
mod daemon;
mod defect;
mod exit;
mod history;
mod logging;

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
    if args.runs_on() {
        defect::end_process_at_panic();
    }
    let code = defect::caught(|| commands::run(args.command).unwrap_or_else(|error| exit::report(&error)));
    logging::flush();
    code
}
