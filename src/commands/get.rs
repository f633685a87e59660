//! `redtape get`: what a key held at a point in time, and who wrote it last.

// The comments on arguments are their help texts.
#![allow(clippy::doc_markdown, rustdoc::broken_intra_doc_links)]

use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use redtape_journal::Micros;
use redtape_restore::console::Console;
use redtape_restore::get::{Bounds, GetRequest, Got, get};
use redtape_restore::{Interrupt, Limits};

use super::journal::DirArgs;
use super::settings::JournalPlace;
use super::zone::AsOfOptions;
use crate::exit::{Failure, NOT_ALL, USAGE};
use crate::get::element::{Element, find, raw};
use crate::get::json::{Part, object};
use crate::get::text::{Shown, one, whole};
use crate::get::value;
use crate::headings::{KEYS, METHOD, OUTPUT};
use crate::key_argument::KeyArgument;
use crate::output::{out, out_bytes};
use crate::signals::set_at_signal;

const EXAMPLES: &str = "Examples:
  redtape get user:1 --from journal --before lsn:46090
  redtape get user:1 name --from journal --at '10m ago'
  redtape get config --from journal --at yesterday --raw";

/// `redtape get`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct GetArgs {
    /// The key, as any command of redtape prints it: plain, or in double quotes with escapes.
    #[arg(value_name = "KEY", value_parser = KeyArgument::parser())]
    key: KeyArgument,
    /// One element of it: a field of a hash, a member of a set or sorted set, an index of a list (-1 is the last), the id of an
    /// entry of a stream.
    #[arg(value_name = "ELEMENT", value_parser = KeyArgument::parser(), allow_hyphen_values = true)]
    element: Option<KeyArgument>,
    #[command(flatten)]
    as_of: AsOfOptions,
    #[command(flatten)]
    journal: DirArgs,
    /// The key's database [default: 0; if it has no such key, databases 1 to 15 are searched]
    #[arg(help_heading = KEYS, long, value_name = "N")]
    db: Option<u32>,
    /// Print the bytes of a string or of the element, and nothing else.
    #[arg(help_heading = OUTPUT, long, conflicts_with = "json")]
    raw: bool,
    /// Print at most N elements [default: 20; with --json all]
    #[arg(help_heading = OUTPUT, long, value_name = "N", conflicts_with_all = ["all", "raw"])]
    limit: Option<usize>,
    /// Print all elements, whole.
    #[arg(help_heading = OUTPUT, long, conflicts_with = "raw")]
    all: bool,
    /// The redis-server or valkey-server to use as scratch server [default: the best on PATH]
    #[arg(help_heading = METHOD, long, value_name = "FILE", env = "REDTAPE_SERVER_BIN")]
    server_bin: Option<PathBuf>,
}

/// Runs the command.
pub(crate) fn run(args: &GetArgs) -> anyhow::Result<ExitCode> {
    let as_json = args.journal.json;
    let interrupt = Interrupt::default();
    let JournalPlace { dir, keyring } = args.journal.journal.place()?;
    let request = GetRequest {
        from: dir,
        keyring,
        as_of: args.as_of.as_of()?,
        zone: args.as_of.zone.zone(as_json),
        now: Micros::now(),
        db: args.db.unwrap_or(0),
        elsewhere: args.db.is_none(),
        key: args.key.0.clone(),
        server_bin: args.server_bin.clone(),
        interrupt: interrupt.clone(),
        limits: Limits::default(),
        bounds: Bounds::default(),
    };
    set_at_signal(interrupt)?;
    let mut console = Console::new(std::io::stderr().is_terminal(), as_json).brief();
    let got = get(&request, &mut console)?;
    if !as_json {
        for warning in &got.point.warnings {
            // stderr may be closed.
            let _ = writeln!(std::io::stderr(), "warning: {warning}");
        }
    }
    print(args, &got)
}

fn print(args: &GetArgs, got: &Got) -> anyhow::Result<ExitCode> {
    let name = args.element.as_ref().map(|element| &element.0[..]);
    let found = match (value(got), name) {
        (Some(value), Some(name)) => find(value, name).map_err(|e| Failure::new(USAGE, e))?,
        _ => None,
    };
    let there = value(got).is_some() && (name.is_none() || found.is_some());
    if args.journal.json {
        let part = match name {
            Some(_) => Part::Element(found.as_ref()),
            None => Part::Whole(args.limit.unwrap_or(usize::MAX)),
        };
        out(&format!("{}\n", object(got, part)))?;
    } else if args.raw {
        print_raw(got, name, found.as_ref())?;
    } else {
        out(&match name {
            Some(name) => one(got, name, found.as_ref()),
            None => whole(got, shown(args)),
        })?;
    }
    Ok(if there { ExitCode::SUCCESS } else { ExitCode::from(NOT_ALL) })
}

/// What is not there has no bytes: it is told on stderr.
fn print_raw(got: &Got, name: Option<&[u8]>, found: Option<&Element<'_>>) -> anyhow::Result<()> {
    match (value(got), name, found) {
        (Some(value), None, _) | (Some(value), Some(_), Some(_)) => {
            out_bytes(&raw(value, found).map_err(|e| Failure::new(USAGE, e))?)
        }
        (_, name, _) => {
            let text = name.map_or_else(|| whole(got, Shown::SOME), |name| one(got, name, None));
            // stderr may be closed.
            let _ = write!(std::io::stderr(), "{text}");
            Ok(())
        }
    }
}

fn shown(args: &GetArgs) -> Shown {
    match (args.all, args.limit) {
        (true, _) => Shown::ALL,
        (_, Some(elements)) => Shown { elements, ..Shown::SOME },
        _ => Shown::SOME,
    }
}
