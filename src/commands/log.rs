//! `redtape log`: who wrote what, when, and what it did to a key. For people; `--json` for scripts.

// The comments on arguments are their help texts.
#![allow(clippy::doc_markdown, rustdoc::broken_intra_doc_links)]

use std::io::Write as _;
use std::process::ExitCode;

use clap::Args;
use redtape_journal::query::When;
use redtape_journal::{Catalog, Gap, Group, Searched, TimelineId};

use super::journal::DirArgs;
use super::zone::ZoneOption;
use crate::exit::storage_code;
use crate::history::arguments::Filters;
use crate::history::range::Range;
use crate::history::read::{backward, forward};
use crate::history::selection::Selection;
use crate::history::show::{record_json, record_text};
use crate::output::{bytes, count, out};

/// Output is gathered up to this size.
const GATHER_BYTES: usize = 1 << 16;

/// `redtape log`.
#[derive(Debug, Args)]
pub(crate) struct LogArgs {
    #[command(flatten)]
    journal: DirArgs,
    /// Nothing before this moment: the same forms as `restore --at`, e.g. "2h ago".
    #[arg(long, value_name = "W", allow_hyphen_values = true)]
    since: Option<When>,
    /// Nothing after this moment.
    #[arg(long, value_name = "W", allow_hyphen_values = true)]
    until: Option<When>,
    #[command(flatten)]
    zone: ZoneOption,
    /// Stop after so many writes.
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// The oldest first; by itself the newest come first.
    #[arg(long)]
    reverse: bool,
    #[command(flatten)]
    filters: Filters,
}

/// Runs the command.
pub(crate) fn run(args: &LogArgs) -> anyhow::Result<ExitCode> {
    let selection = args.filters.selection()?;
    let catalog = args.journal.open_for(&selection)?;
    let zone = args.zone.zone(args.journal.json);
    let Some(range) = Range::of(args.since.as_ref(), args.until.as_ref(), &zone, &catalog)? else {
        return Ok(ExitCode::SUCCESS);
    };
    let mut lines = Lines { args, selection: &selection, text: String::new(), shown: 0 };
    let mut unread = None;
    let read = if args.reverse {
        forward(&catalog, &range, &selection, &mut |timeline, group| lines.add(timeline, group))
    } else {
        backward(&catalog, &range, &selection, &mut |timeline, group| lines.add(timeline, group), &mut |error| {
            unread.get_or_insert(storage_code(error.kind()));
            // Nobody may listen to stderr any more.
            let _ = writeln!(std::io::stderr(), "redtape: {error}; what is older follows");
        })
    };
    let (shown, text) = (lines.shown, lines.text);
    out(&text)?;
    let searched = read?;
    let mut stderr = std::io::stderr();
    for gap in catalog.gaps().iter().filter(|gap| concerns(&range, gap)) {
        let _ = writeln!(stderr, "gap: what was written from {} to {} is not known: {}", gap.from, gap.to, gap.reason);
    }
    let _ = writeln!(stderr, "{}", summary(shown, &selection, &catalog, searched));
    Ok(unread.map_or(ExitCode::SUCCESS, ExitCode::from))
}

struct Lines<'a> {
    args: &'a LogArgs,
    selection: &'a Selection,
    text: String,
    shown: u64,
}

impl Lines<'_> {
    /// Adds the wanted records of a group; `false` when there are enough.
    fn add(&mut self, timeline: TimelineId, group: &Group) -> anyhow::Result<bool> {
        let wanted = group.records.iter().filter(|record| self.selection.wants_record(group, record));
        let mut records: Vec<_> = wanted.collect();
        if !self.args.reverse {
            records.reverse();
        }
        let limit = self.args.limit.unwrap_or(u64::MAX);
        for record in records {
            if self.shown == limit {
                break;
            }
            self.shown += 1;
            if self.args.journal.json {
                self.text += &format!("{}\n", record_json(group, record, timeline, self.selection));
            } else {
                let done = self.selection.done(group, record);
                let done = self.selection.has_keys().then_some(&done[..]);
                record_text(&mut self.text, group, record, done, self.selection.only_key())?;
            }
        }
        if self.text.len() > GATHER_BYTES {
            out(&self.text)?;
            self.text.clear();
        }
        Ok(self.shown < limit)
    }
}

fn concerns(range: &Range, gap: &Gap) -> bool {
    range.since.is_none_or(|since| gap.to >= since)
        && range.until.is_none_or(|until| gap.from <= until)
        && range.after <= gap.after_lsn
        && gap.after_lsn <= range.upto
}

fn summary(shown: u64, selection: &Selection, catalog: &Catalog, searched: Searched) -> String {
    let all: u64 = catalog.segments().iter().map(|s| s.bytes).sum();
    // Of the segment in use, what is read at the opening and again counts once at most.
    let walked: u64 = catalog.segments().iter().map(|s| s.walked_bytes).sum();
    let read = (searched.read_bytes + walked).min(all);
    let percent = 100.0 * read as f64 / all.max(1) as f64;
    let percent = if percent < 1.0 { format!("{percent:.2}") } else { format!("{percent:.0}") };
    let mut text = count(shown, "write", "writes");
    if selection.search_is_limited() {
        text += " to databases 0 to 15 (--db N for others)";
    }
    format!("{text}; read {} of {} ({percent} %)", bytes(read), bytes(all))
}
