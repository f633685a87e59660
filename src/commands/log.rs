//! `redtape log`: who wrote what, when, and what it did to a key. For people; `--json` for scripts.

// The comments on arguments are their help texts.
#![allow(clippy::doc_markdown, rustdoc::broken_intra_doc_links)]

use std::io::Write as _;
use std::process::ExitCode;

use clap::Args;
use redtape_journal::query::When;
use redtape_journal::{Catalog, Gap, Group, ReadError, Record, Searched, TimelineId};

use super::journal::DirArgs;
use super::zone::ZoneOption;
use crate::exit::{Failure, USAGE, storage_code};
use crate::headings::{KEYS, OUTPUT, TIME};
use crate::history::arguments::{Filters, LogFilters};
use crate::history::bring_back::{BringBack, Removal};
use crate::history::former_search::find_former_names;
use crate::history::range::Range;
use crate::history::read::{add, backward, forward};
use crate::history::selection::Selection;
use crate::history::show::{record_json, record_text};
use crate::history::stats::{Asked, By, Table, count as count_writes, stats_json, stats_text};
use crate::output::{bytes, count, out};

/// Output is gathered up to this size.
const GATHER_BYTES: usize = 1 << 16;

const EXAMPLES: &str = "Examples:
  # Who deleted what, and how to bring it back.
  redtape log --from journal --command 'FLUSH*' --command DEL
  # The last writes to one key.
  redtape log --from journal --key user:1 --db 0 --limit 20
  # How much each client wrote.
  redtape log --from journal --stats client --since '1h ago'";

/// `redtape log`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct LogArgs {
    #[command(flatten)]
    journal: DirArgs,
    /// Writes from this point in time on; forms as in `restore --at`, e.g. "2h ago".
    #[arg(help_heading = TIME, long, value_name = "WHEN", allow_hyphen_values = true)]
    since: Option<When>,
    /// Writes up to this point in time, included.
    #[arg(help_heading = TIME, long, value_name = "WHEN", allow_hyphen_values = true)]
    until: Option<When>,
    #[command(flatten)]
    zone: ZoneOption,
    /// Print at most N writes; with --stats, N rows.
    #[arg(help_heading = OUTPUT, short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// Print the oldest first [default: the newest first]
    #[arg(help_heading = OUTPUT, long)]
    reverse: bool,
    /// Count the writes instead: by client (its name, else its address without the port), user, command, or prefix of the keys. Rows
    /// with the most writes come first. A write to several prefixes counts for each.
    #[arg(help_heading = OUTPUT, long, value_name = "BY", value_enum, conflicts_with = "reverse", hide_possible_values = true)]
    stats: Option<By>,
    /// For --stats prefix: prefixes up to the Nth colon, or to the last one of a key with fewer.
    #[arg(help_heading = OUTPUT, long, value_name = "N", default_value_t = 1, requires = "stats", value_parser = depth)]
    depth: usize,
    #[command(flatten)]
    filters: Filters,
    /// Print also what was written to the selected keys under former names, before RENAME, COPY, MOVE and SWAPDB.
    #[arg(help_heading = KEYS, long)]
    through_renames: bool,
    #[command(flatten)]
    log_filters: LogFilters,
}

/// Colons of a prefix.
fn depth(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|depth| *depth > 0).ok_or_else(|| "a number from 1 on".to_owned())
}

/// Runs the command.
pub(crate) fn run(args: &LogArgs) -> anyhow::Result<ExitCode> {
    let selection = args.filters.selection_with(&args.log_filters)?;
    let catalog = args.journal.open_for(&selection)?;
    let zone = args.zone.zone(args.journal.json);
    let Some(range) = Range::of(args.since.as_ref(), args.until.as_ref(), &zone, &catalog)? else {
        args.stats.map_or(Ok(()), |by| show_stats(args, &Table::new(), by))?;
        return Ok(ExitCode::SUCCESS);
    };
    let mut damage = Damage::default();
    let (selection, looked) = if args.through_renames {
        through_renames(&catalog, &range, selection, &mut damage)?
    } else {
        (selection, Searched::default())
    };
    let found = match args.stats {
        Some(by) => stats(args, &catalog, &range, &selection, by, &mut damage),
        None => lines(args, &catalog, &range, &selection, &mut damage),
    };
    let (shown, mut searched) = found?;
    add(&mut searched, looked);
    let mut stderr = std::io::stderr();
    for gap in catalog.gaps().iter().filter(|gap| concerns(&range, gap)) {
        let _ = writeln!(stderr, "gap: what was written from {} to {} is not known: {}", gap.from, gap.to, gap.reason);
    }
    let _ = writeln!(stderr, "{}", summary(shown, &selection, &catalog, searched));
    Ok(damage.code.map_or(ExitCode::SUCCESS, ExitCode::from))
}

/// What could not be read, which does not keep the rest from being shown.
#[derive(Debug, Default)]
struct Damage {
    /// The exit code of the first.
    code: Option<u8>,
}

impl Damage {
    fn tell(&mut self, error: &ReadError, what_follows: &str) {
        self.code.get_or_insert(storage_code(error.kind()));
        // stderr may be closed.
        let _ = writeln!(std::io::stderr(), "redtape: {error}; {what_follows}");
    }
}

/// Adds the names that the wanted keys had before.
fn through_renames(
    catalog: &Catalog,
    range: &Range,
    selection: Selection,
    damage: &mut Damage,
) -> anyhow::Result<(Selection, Searched)> {
    let Some(keys) = selection.asked_keys() else {
        let why = "--through-renames follows keys by their names: add --exact-key, --keys-from, or --key without * ? [";
        return Err(Failure::new(USAGE, why).into());
    };
    let found = find_former_names(catalog, range, keys)?;
    if let Some(error) = &found.unread {
        damage.tell(error, "former names of keys are unknown");
    }
    if found.names.is_cut() {
        let _ = writeln!(
            std::io::stderr(),
            "the keys had more names than are followed; writes under the oldest are missing"
        );
    }
    Ok((selection.with_former_names(found.names), found.searched))
}

/// Shows each write. How many, and what reading has cost.
fn lines(
    args: &LogArgs,
    catalog: &Catalog,
    range: &Range,
    selection: &Selection,
    damage: &mut Damage,
) -> anyhow::Result<(u64, Searched)> {
    let only_log_knows = !args.log_filters.lines.is_empty() || !args.log_filters.fields.is_empty();
    let bring_back = BringBack::new(args.journal.journal.words(), &args.filters, !only_log_knows, args.through_renames);
    let mut lines = Lines { args, selection, bring_back, removal: None, text: String::new(), shown: 0 };
    let read = if args.reverse {
        forward(catalog, range, selection, &mut |timeline, group| lines.add(timeline, group))
    } else {
        backward(catalog, range, selection, &mut |timeline, group| lines.add(timeline, group), &mut |error| {
            damage.tell(&error, "what is older follows");
        })
    };
    lines.end_removal()?;
    out(&lines.text)?;
    Ok((lines.shown, read?))
}

/// Counts the writes instead.
fn stats(
    args: &LogArgs,
    catalog: &Catalog,
    range: &Range,
    selection: &Selection,
    by: By,
    damage: &mut Damage,
) -> anyhow::Result<(u64, Searched)> {
    let asked = Asked { by, depth: args.depth };
    let stats =
        count_writes(catalog, range, selection, asked, &mut |error| damage.tell(&error, "the rest is counted"))?;
    show_stats(args, &stats.table, by)?;
    Ok((stats.table.writes(), stats.searched))
}

fn show_stats(args: &LogArgs, table: &Table, by: By) -> anyhow::Result<()> {
    let asked = Asked { by, depth: args.depth };
    let limit = args.limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX);
    if args.journal.json {
        out(&format!("{:#}\n", stats_json(table, asked, limit)))
    } else {
        out(&stats_text(table, asked, limit)?)
    }
}

struct Lines<'a> {
    args: &'a LogArgs,
    selection: &'a Selection,
    bring_back: BringBack,
    /// What the writes that were shown last took away.
    removal: Option<Removal>,
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
            self.show(timeline, group, record)?;
        }
        if self.text.len() > GATHER_BYTES {
            out(&self.text)?;
            self.text.clear();
        }
        Ok(self.shown < limit)
    }

    fn show(&mut self, timeline: TimelineId, group: &Group, record: &Record) -> anyhow::Result<()> {
        let removal = self.bring_back.removal(self.selection, timeline, group, record);
        if self.args.journal.json {
            let mut line = record_json(group, record, timeline, self.selection);
            if let Some(removal) = removal {
                let commands = self.bring_back.commands(&removal);
                line["undo"] = commands.undo.into();
                line["restore"] = commands.restore.into();
            }
            self.text += &format!("{line}\n");
            return Ok(());
        }
        let next = match (&mut self.removal, removal) {
            (Some(run), Some(next)) => self.bring_back.join(run, next),
            (_, next) => {
                self.end_removal()?;
                next
            }
        };
        if next.is_some() {
            self.end_removal()?;
            self.removal = next;
        }
        let done = self.selection.done(group, record);
        let done = self.selection.has_keys().then_some(&done[..]);
        record_text(&mut self.text, group, record, done, self.selection.only_key())?;
        Ok(())
    }

    /// Under the writes that took something away: how it comes back.
    fn end_removal(&mut self) -> std::fmt::Result {
        self.removal.take().map_or(Ok(()), |run| self.bring_back.text(&mut self.text, &run))
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
