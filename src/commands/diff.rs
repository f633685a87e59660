//! `redtape diff`: what is not the same at two points in time, and who wrote it.

// The comments on arguments are their help texts.
#![allow(clippy::doc_markdown, rustdoc::broken_intra_doc_links)]

use std::io::{ErrorKind, IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use redtape_journal::Micros;
use redtape_journal::query::When;
use redtape_restore::console::Console;
use redtape_restore::diff::{DiffRequest, KeyDifference, diff};
use redtape_restore::{Interrupt, Limits, RestoreError};

use super::journal::DirArgs;
use super::restore::value_type;
use super::settings::JournalPlace;
use super::zone::AsOfOptions;
use crate::diff::text::Style;
use crate::diff::{json, text};
use crate::get::text::Shown;
use crate::headings::{KEYS, METHOD, OUTPUT, TIME};
use crate::key_selection::KeySelection;
use crate::output::out;
use crate::signals::set_at_signal;

/// Elements of a key that a person is shown.
const ELEMENTS_SHOWN: usize = 20;
/// Elements of a key in JSON.
const ELEMENTS_IN_JSON: usize = 1000;
/// Output is gathered up to this size.
const GATHER_BYTES: usize = 1 << 16;

const EXAMPLES: &str = "Examples:
  redtape diff --from journal --at '10m ago' --key 'user:*'
  redtape diff --from journal --before lsn:46090 --and lsn:46100 --values --json";

/// `redtape diff`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct DiffArgs {
    #[command(flatten)]
    first: AsOfOptions,
    /// The second point in time, what ran then included.
    #[arg(help_heading = TIME, long = "and", value_name = "WHEN", allow_hyphen_values = true, default_value = "latest")]
    second: When,
    #[command(flatten)]
    journal: DirArgs,
    #[command(flatten)]
    keys: KeySelection,
    /// Keys that have this type at one of the two points in time: string, list, set, zset, hash, stream, or a module's type as
    /// TYPE prints it.
    #[arg(long = "type", value_name = "T", value_parser = value_type, help_heading = KEYS)]
    types: Vec<String>,
    /// Print values whole; with --json, print values at all.
    #[arg(help_heading = OUTPUT, long)]
    values: bool,
    /// Print at most N elements of a key [default: 20; with --json 1000]
    #[arg(help_heading = OUTPUT, long, value_name = "N")]
    limit: Option<usize>,
    /// Rebuild and compare all selected keys, not only those written in between. Slower, with the same result.
    #[arg(help_heading = METHOD, long)]
    no_slice: bool,
    /// The redis-server or valkey-server to use as scratch server [default: the best on PATH]
    #[arg(help_heading = METHOD, long, value_name = "FILE", env = "REDTAPE_SERVER_BIN")]
    server_bin: Option<PathBuf>,
}

/// Runs the command.
pub(crate) fn run(args: &DiffArgs) -> anyhow::Result<ExitCode> {
    let as_json = args.journal.json;
    let interrupt = Interrupt::default();
    let JournalPlace { dir, keyring } = args.journal.journal.place()?;
    let zone = args.first.zone.zone(as_json);
    let request = DiffRequest {
        from: dir,
        keyring,
        first: args.first.as_of()?,
        second: args.second.clone(),
        zone: zone.clone(),
        now: Micros::now(),
        filter: args.keys.filter()?.of_types(&args.types),
        slice: !args.no_slice,
        elements: args.limit.unwrap_or(if as_json { ELEMENTS_IN_JSON } else { ELEMENTS_SHOWN }),
        server_bin: args.server_bin.clone(),
        interrupt: interrupt.clone(),
        limits: Limits::default(),
    };
    set_at_signal(interrupt)?;
    let shown = if args.values { Shown::ALL } else { Shown::SOME };
    let mut lines = Lines {
        as_json,
        values: args.values,
        style: Style { shown, zone: &zone },
        gathered: String::new(),
        closed: false,
    };
    let mut console = Console::new(std::io::stderr().is_terminal(), as_json);
    let compared = diff(&request, &mut |difference| lines.add(&difference), &mut console);
    let summary = match compared {
        // The reader has enough (`| head`).
        Err(_) if lines.closed => return Ok(ExitCode::SUCCESS),
        other => other?,
    };
    if as_json {
        lines.gathered += &format!("{}\n", json::summary(&summary));
    } else {
        lines.gathered += &text::summary(&summary);
        for warning in summary.first.warnings.iter().chain(&summary.second.warnings) {
            // stderr may be closed.
            let _ = writeln!(std::io::stderr(), "warning: {warning}");
        }
    }
    out(&lines.gathered)?;
    Ok(ExitCode::SUCCESS)
}

struct Lines<'a> {
    as_json: bool,
    values: bool,
    style: Style<'a>,
    gathered: String,
    /// The reader is gone.
    closed: bool,
}

impl Lines<'_> {
    fn add(&mut self, difference: &KeyDifference) -> Result<(), RestoreError> {
        if self.as_json {
            self.gathered += &format!("{}\n", json::key(difference, self.values));
        } else {
            self.gathered += &text::key(difference, self.style);
        }
        if self.gathered.len() < GATHER_BYTES { Ok(()) } else { self.print() }
    }

    /// The scratch servers end with an error, not with the process.
    fn print(&mut self) -> Result<(), RestoreError> {
        let written = std::io::stdout().lock().write_all(self.gathered.as_bytes());
        self.gathered.clear();
        written.map_err(|source| {
            self.closed = source.kind() == ErrorKind::BrokenPipe;
            RestoreError::Io { action: "write to", path: "stdout".into(), source }
        })
    }
}
