//! The redtape command: arguments, dispatch, exit codes. What it does is in the crates.

mod args;
mod commands;
mod daemon;
mod defect;
mod diff;
#[cfg(test)]
mod docs_tests;
mod exit;
mod get;
mod headings;
mod history;
mod input;
mod key_argument;
mod key_selection;
mod keys_file;
mod keys_json;
mod logging;
mod output;
mod report;
mod shell;
mod signals;

use std::process::ExitCode;

use clap::{CommandFactory as _, FromArgMatches as _};

fn main() -> ExitCode {
    let parsed = args::Args::command().try_get_matches().and_then(|matches| {
        let args = args::Args::from_arg_matches(&matches).map_err(|e| e.format(&mut args::Args::command()))?;
        Ok((args, matches))
    });
    let (args, matches) = match parsed {
        Ok(parsed) => parsed,
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
    let code = defect::caught(|| commands::run(args.command, &matches).unwrap_or_else(|error| exit::report(&error)));
    logging::flush();
    code
}
