//! `--at`, `--before` and `--tz`: a point in time, and the zone of times that do not say theirs.

// The comments on arguments are their help texts.
#![allow(clippy::doc_markdown, rustdoc::broken_intra_doc_links)]

use std::io::IsTerminal as _;

use clap::Args;
use redtape_journal::query::{AsOf, When, Zone};

use crate::exit::{Failure, USAGE};
use crate::headings::TIME;

/// Flattened into the arguments of commands that go back to a point in time.
#[derive(Debug, Args)]
pub(crate) struct AsOfOptions {
    /// The point in time, what ran then included: "2026-11-20 12:00:00.123456" (with Z or +01:00, else in --tz), a date, 20:16
    /// (the last one), "10m ago", yesterday, @1795176000.5, lsn:N, mark:NAME, latest.
    #[arg(
        help_heading = TIME,
        long,
        value_name = "WHEN",
        allow_hyphen_values = true,
        required_unless_present = "before",
        conflicts_with = "before"
    )]
    at: Option<When>,
    /// The same, what ran then left out; before lsn:N leaves out the whole transaction or script that holds LSN N.
    #[arg(help_heading = TIME, long, value_name = "WHEN", allow_hyphen_values = true)]
    before: Option<When>,
    #[command(flatten)]
    pub(crate) zone: ZoneOption,
}

impl AsOfOptions {
    /// A point in time was given.
    pub(crate) fn is_given(&self) -> bool {
        self.at.is_some() || self.before.is_some()
    }

    /// What was asked for.
    pub(crate) fn as_of(&self) -> Result<AsOf, Failure> {
        match (&self.at, &self.before) {
            (Some(at), None) => Ok(AsOf::At(at.clone())),
            (None, Some(before)) => Ok(AsOf::Before(before.clone())),
            _ => Err(Failure::new(USAGE, "which point in time? Give either --at WHEN or --before WHEN")),
        }
    }
}

/// The same for commands that need no point in time.
#[derive(Debug, Args)]
pub(crate) struct MomentOptions {
    /// Report the data of this point in time, inclusive, rebuilt in a scratch server; forms as for redtape restore [default: the
    /// newest base as it is]
    #[arg(help_heading = TIME, long, value_name = "WHEN", allow_hyphen_values = true, conflicts_with = "before")]
    at: Option<When>,
    /// Report the data just before this point in time.
    #[arg(help_heading = TIME, long, value_name = "WHEN", allow_hyphen_values = true)]
    before: Option<When>,
    #[command(flatten)]
    pub(crate) zone: ZoneOption,
}

impl MomentOptions {
    /// What was asked for, if anything was.
    pub(crate) fn as_of(&self) -> Option<AsOf> {
        let before = || self.before.clone().map(AsOf::Before);
        self.at.clone().map(AsOf::At).or_else(before)
    }
}

/// Flattened into the arguments of commands that read times.
#[derive(Debug, Args)]
pub(crate) struct ZoneOption {
    /// The zone of times without one: UTC, local, an offset (+01:00) or a name (Europe/Berlin) [default: on a terminal that of
    /// this machine; UTC with --json and in scripts]
    #[arg(help_heading = TIME, long, value_name = "ZONE", env = "REDTAPE_TZ", allow_hyphen_values = true)]
    tz: Option<Zone>,
}

impl ZoneOption {
    /// The zone; `json`: a program reads what is printed. What was asked for is told on stderr, for a person to read.
    pub(crate) fn zone(&self, json: bool) -> Zone {
        match &self.tz {
            Some(zone) => zone.clone(),
            None if !json && std::io::stderr().is_terminal() => Zone::local(),
            None => Zone::utc(),
        }
    }
}
