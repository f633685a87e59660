//! `redtape journal mark`: a name for the present point in time.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use redtape_journal::{Mark, MarkError, mark_now};

use super::DirArgs;
use crate::exit::{Failure, UNAVAILABLE};
use crate::output::out;

/// A mark waits so long for the journal to be complete up to it.
const MARK_TIMEOUT: Duration = Duration::from_secs(10);

const EXAMPLES: &str = "Examples:
  redtape journal mark before-4.2 --from journal
  redtape restore --from journal --at mark:before-4.2 --to redis://127.0.0.1:6380";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct MarkArgs {
    /// Name of the mark: 1 to 128 characters, none of them a control character.
    #[arg(value_parser = mark_name)]
    name: String,
    #[command(flatten)]
    journal: DirArgs,
}

fn mark_name(name: &str) -> Result<String, &'static str> {
    Mark::check_name(name).map(|()| name.to_owned())
}

pub(super) fn run(args: &MarkArgs) -> anyhow::Result<ExitCode> {
    let place = args.journal.journal.place()?;
    let marked = mark_now(&place.dir, &place.keyring, &args.name, MARK_TIMEOUT);
    let Mark { ts, lsn, .. } = marked.map_err(|error| match error {
        error @ (MarkError::NotWritten | MarkError::NoBase) => anyhow::Error::from(Failure::new(UNAVAILABLE, error)),
        MarkError::Open(error) => error.into(),
        MarkError::Read(error) => error.into(),
        MarkError::Store(error) => error.into(),
    })?;
    out(&format!("mark:{} is {ts}, LSN {lsn}\n", args.name))?;
    Ok(ExitCode::SUCCESS)
}
