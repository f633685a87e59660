//! `redtape snapshot report`: what the newest base, or any moment, consists of.

// The comments on arguments are their help texts.
#![allow(clippy::doc_markdown, rustdoc::broken_intra_doc_links)]

use std::io::{ErrorKind, IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use redtape_journal::Micros;
use redtape_restore::console::Console;
use redtape_restore::report::{Asked, Report, ReportRequest, TOP_MAX, report};
use redtape_restore::{Interrupt, Limits, RestoreError};

use super::journal::DirArgs;
use super::restore::value_type;
use super::settings::JournalPlace;
use super::zone::MomentOptions;
use crate::headings::{KEYS, METHOD, OUTPUT};
use crate::key_selection::KeySelection;
use crate::output::out;
use crate::report::{csv, json, text};
use crate::signals::set_at_signal;

/// Biggest keys and prefixes that are listed.
const TOP: usize = 20;
/// Output is gathered up to this size.
const GATHER_BYTES: usize = 1 << 16;

const EXAMPLES: &str = "Examples:
  # The biggest keys and prefixes of the newest snapshot.
  redtape snapshot report --from journal
  # Of a point in time; of some keys; a line of CSV for each key.
  redtape snapshot report --from journal --at '1h ago' --depth 2
  redtape snapshot report --from journal --type hash --key 'session:*'
  redtape snapshot report --from journal --csv";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ReportArgs {
    #[command(flatten)]
    moment: MomentOptions,
    #[command(flatten)]
    journal: DirArgs,
    #[command(flatten)]
    keys: KeySelection,
    /// Keys whose value is of this type: string, list, set, zset, hash, stream, or the type of a module as TYPE gives it.
    #[arg(long = "type", value_name = "T", value_parser = value_type, help_heading = KEYS)]
    types: Vec<String>,
    /// List so many of the biggest keys, and of the prefixes with the most memory, at most 10000; with --csv, only these keys
    /// [default: 20, and with --csv all keys]
    #[arg(help_heading = OUTPUT, long, value_name = "N", value_parser = top)]
    top: Option<usize>,
    /// Prefixes go up to the Nth separator, as far as a key has so many.
    #[arg(help_heading = OUTPUT, long, value_name = "N", default_value_t = 1, value_parser = depth)]
    depth: usize,
    /// What separates the parts of a key's name: one character of one byte.
    #[arg(help_heading = OUTPUT, long, value_name = "C", default_value = ":", value_parser = separator)]
    separator: u8,
    /// Print a line of CSV for each key, in the form of redis-rdb-tools.
    #[arg(help_heading = OUTPUT, long, conflicts_with_all = ["json", "depth", "separator"])]
    csv: bool,
    /// The redis-server or valkey-server to use as scratch server, where a point in time is rebuilt [default: the best on PATH]
    #[arg(help_heading = METHOD, long, value_name = "FILE", env = "REDTAPE_SERVER_BIN")]
    server_bin: Option<PathBuf>,
}

fn top(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|top| *top <= TOP_MAX).ok_or_else(|| format!("a number up to {TOP_MAX}"))
}

fn depth(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|depth| *depth > 0).ok_or_else(|| "a number from 1 on".to_owned())
}

fn separator(text: &str) -> Result<u8, String> {
    match text.as_bytes() {
        [byte] => Ok(*byte),
        _ => Err("one character of one byte, such as : or /".to_owned()),
    }
}

/// Runs the command.
pub(crate) fn run(args: &ReportArgs) -> anyhow::Result<ExitCode> {
    let as_json = args.journal.json;
    let interrupt = Interrupt::default();
    let JournalPlace { dir, keyring } = args.journal.journal.place()?;
    let asked = Asked { top: args.top.unwrap_or(TOP), depth: args.depth, separator: args.separator };
    let request = ReportRequest {
        from: dir,
        keyring,
        as_of: args.moment.as_of(),
        zone: args.moment.zone.zone(as_json || args.csv),
        now: Micros::now(),
        filter: args.keys.filter()?.of_types(&args.types),
        asked,
        server_bin: args.server_bin.clone(),
        interrupt: interrupt.clone(),
        limits: Limits::default(),
    };
    set_at_signal(interrupt)?;
    let mut console = Console::new(std::io::stderr().is_terminal(), as_json).brief();
    let mut lines = Lines { gathered: String::new(), closed: false };
    let every_key = args.csv && args.top.is_none();
    if args.csv {
        lines.gathered += csv::HEADER;
    }
    let found = report(&request, &mut |key| if every_key { lines.add(&csv::line(key)) } else { Ok(()) }, &mut console);
    let found = match found {
        // The reader has enough (`| head`).
        Err(_) if lines.closed => return Ok(ExitCode::SUCCESS),
        other => other?,
    };
    if args.csv && !every_key {
        for key in &found.contents.biggest {
            lines.gathered += &csv::big_line(key);
        }
    } else if as_json {
        lines.gathered += &format!("{}\n", json::object(&found, asked));
    } else if !args.csv {
        lines.gathered += &text::text(&found, asked);
    }
    out(&lines.gathered)?;
    if !as_json {
        warn(&found);
    }
    Ok(ExitCode::SUCCESS)
}

fn warn(report: &Report) {
    for warning in &report.point.warnings {
        // Nobody may listen to stderr any more.
        let _ = writeln!(std::io::stderr(), "warning: {warning}");
    }
}

/// Lines of output, a batch at a time: a scratch server ends with an error, not with the process.
struct Lines {
    gathered: String,
    /// Nobody reads any more.
    closed: bool,
}

impl Lines {
    fn add(&mut self, line: &str) -> Result<(), RestoreError> {
        self.gathered += line;
        if self.gathered.len() < GATHER_BYTES {
            return Ok(());
        }
        let written = std::io::stdout().lock().write_all(self.gathered.as_bytes());
        self.gathered.clear();
        written.map_err(|source| {
            self.closed = source.kind() == ErrorKind::BrokenPipe;
            RestoreError::Io { action: "write to", path: "stdout".into(), source }
        })
    }
}
