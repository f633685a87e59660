//! `redtape journal mark`: a name for the present moment.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use redtape_journal::{Mark, Micros, add_mark};

use super::DirArgs;
use crate::exit::{Failure, UNAVAILABLE};
use crate::output::out;

/// A mark waits so long for the journal to be complete up to it.
const MARK_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug, Args)]
pub(crate) struct MarkArgs {
    /// Its name: 1 to 128 characters, none of them a control character.
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
    let mut ts = Micros::now();
    let deadline = Instant::now() + MARK_TIMEOUT;
    let lsn = loop {
        let catalog = place.open()?;
        let window = catalog.windows().pop();
        let has_base = window.is_some();
        if let Some(w) = window.filter(|w| w.to >= ts) {
            if ts < w.from {
                // The base came in between: what was before it cannot be restored.
                ts = Micros::now();
                continue;
            }
            break catalog.find_cut_by_ts(w.timeline, ts)?.lsn;
        }
        if Instant::now() > deadline {
            let what = if has_base {
                "nobody is writing this journal at present: start redtape proxy or follow, or mark an earlier moment by its time"
            } else {
                "the journal has no base yet, and nothing before it can be restored: try again when redtape proxy or follow has taken it"
            };
            return Err(Failure::new(UNAVAILABLE, what).into());
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    add_mark(&place.dir, &Mark { name: args.name.clone(), ts, lsn })?;
    out(&format!("mark:{} is {ts}, LSN {lsn}\n", args.name))?;
    Ok(ExitCode::SUCCESS)
}
