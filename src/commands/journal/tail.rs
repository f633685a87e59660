//! `redtape journal tail`: what is written, as it is written, by whichever process.
//!
//! Holds no lock while it follows: neither the writer nor pruning ever waits for it. It looks for more every
//! [`LOOK_EVERY`]: one look at the open file and at the directory. That costs next to nothing, and needs nothing of the
//! file system.

// The comments on arguments are their help texts.
#![allow(clippy::doc_markdown, rustdoc::broken_intra_doc_links)]

use std::collections::VecDeque;
use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::Args;
use redtape_journal::query::{PointInTime, When, Zone};
use redtape_journal::{Catalog, Followed, Follower, Group, Lsn, Micros, Note, TimelineId};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::json;

use super::DirArgs;
use crate::commands::zone::ZoneOption;
use crate::exit::{Failure, IOERR, USAGE};
use crate::headings::{OUTPUT, TIME};
use crate::history::arguments::Filters;
use crate::history::range::{Range, last_by};
use crate::history::read::backward;
use crate::history::selection::Selection;
use crate::history::show::{group_json, group_text};
use crate::output::out;
use crate::signals::Signals;

/// How often it looks for more.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Output is gathered up to this size while more is there.
const GATHER_BYTES: usize = 1 << 16;
/// At the end, a reader that does not take the output is waited for so long.
const END_WITHIN: Duration = Duration::from_secs(2);

const EXAMPLES: &str = "Examples:
  redtape journal tail --from journal --lines 10
  redtape journal tail --from journal --key 'user:*' --since '10m ago' --json";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct TailArgs {
    #[command(flatten)]
    journal: DirArgs,
    /// Writes from this point in time on; forms as in `restore --at`, e.g. "2h ago" [default: from now on]
    #[arg(help_heading = TIME, long, value_name = "WHEN", conflicts_with = "lines", allow_hyphen_values = true)]
    since: Option<When>,
    #[command(flatten)]
    zone: ZoneOption,
    /// Begin with the last N selected commands or transactions.
    #[arg(help_heading = OUTPUT, short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u32).range(..=100_000))]
    lines: Option<u32>,
    #[command(flatten)]
    filters: Filters,
}

pub(super) fn run(args: &TailArgs) -> anyhow::Result<ExitCode> {
    let selection = args.filters.selection()?;
    let ended = listen()?;
    let mut follower = begin(args, &selection)?;
    let mut text = String::new();
    while !ended.load(Ordering::Relaxed) {
        let followed = follower.next();
        match &followed {
            Ok(Some(Followed::Group { timeline, group })) => {
                if selection.wants(group) {
                    show(&mut text, args, &selection, *timeline, group)?;
                }
            }
            Ok(Some(Followed::Note(note))) => {
                out(&text)?;
                text.clear();
                tell(note, args.journal.json)?;
            }
            Ok(None) | Err(_) => {}
        }
        let idle = !matches!(followed, Ok(Some(_)));
        if !text.is_empty() && (idle || text.len() > GATHER_BYTES) {
            out(&text)?;
            text.clear();
        }
        if let Err(error) = followed {
            return Err(error.into());
        }
        if idle && !wait()? {
            break;
        }
    }
    out(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// A follower at the place where it is to begin. What comes before that is printed; from then on the journal is not held.
fn begin(args: &TailArgs, selection: &Selection) -> anyhow::Result<Follower> {
    let place = args.journal.journal.place()?;
    let catalog = place.open()?;
    let last = catalog.timelines().pop();
    let (end, timeline) = last.map_or((Lsn(0), None), |t| (t.last_lsn, Some(t.id)));
    let mut printed = VecDeque::new();
    let (after, timeline) = match (&args.since, args.lines) {
        (Some(when), _) => (since(when, &args.zone.zone(args.journal.json), &catalog, end)?, None),
        (None, Some(lines)) if lines > 0 => {
            let everything = Range::of(None, None, &Zone::utc(), &catalog)?;
            if let Some(range) = everything {
                let mut take = |timeline, group: &Group| {
                    let mut text = String::new();
                    show(&mut text, args, selection, timeline, group)?;
                    printed.push_front(text);
                    Ok(printed.len() < lines as usize)
                };
                let mut damage = None;
                backward(&catalog, &range, selection, &mut take, &mut |error| damage = Some(error))?;
                if let Some(error) = damage {
                    return Err(error.into());
                }
            }
            (end, timeline)
        }
        _ => (end, timeline),
    };
    // From here on pruning need not wait.
    drop(catalog);
    let follower = Follower::open(&place.dir, &place.keyring, after, timeline)?;
    for text in printed {
        out(&text)?;
    }
    Ok(follower)
}

/// The record behind which it begins.
fn since(when: &When, zone: &Zone, catalog: &Catalog, end: Lsn) -> anyhow::Result<Lsn> {
    match when.resolve(Micros::now(), zone).map_err(|e| Failure::new(USAGE, e))? {
        PointInTime::Latest => Ok(end),
        PointInTime::Lsn(Lsn(0)) => Err(Failure::new(USAGE, "the first record is lsn:1").into()),
        PointInTime::At(ts) => {
            for timeline in catalog.timelines() {
                let cut = last_by(catalog, timeline.id, Micros(ts.0.saturating_sub(1)))?;
                if cut < timeline.last_lsn {
                    return Ok(cut);
                }
            }
            Ok(end)
        }
        PointInTime::Lsn(_) | PointInTime::Mark(_) => {
            Ok(Range::of(Some(when), None, zone, catalog)?.map_or(end, |range| range.after))
        }
    }
}

fn show(
    text: &mut String,
    args: &TailArgs,
    selection: &Selection,
    timeline: TimelineId,
    group: &Group,
) -> std::fmt::Result {
    if args.journal.json {
        *text += &format!("{}\n", group_json(group, timeline, selection));
        return Ok(());
    }
    group_text(text, group)
}

/// What is no group: for machines in its place, for people on stderr.
fn tell(note: &Note, as_json: bool) -> anyhow::Result<()> {
    if as_json {
        let value = match note {
            Note::Timeline { id, reason, complete_until, start_ts } => json!({
                "note": "timeline", "timeline": id.0, "reason": reason,
                "gap": {"from_us": complete_until.0, "to_us": start_ts.0},
            }),
            Note::Removed { from, to } => json!({"note": "removed", "from_lsn": from.0, "to_lsn": to.0}),
        };
        return out(&format!("{value}\n"));
    }
    let text = match note {
        Note::Timeline { id, reason, complete_until, start_ts }
            if complete_until < start_ts && complete_until.0 > 0 =>
        {
            format!(
                "timeline {id} begins: {reason}; gap: what was written from {complete_until} to {start_ts} is not known"
            )
        }
        Note::Timeline { id, reason, start_ts, .. } => {
            format!("timeline {id} begins at {start_ts}: {reason}; what was written just before may not be known")
        }
        Note::Removed { from, to } => {
            format!("LSN {from} to {to} are not in the journal any more: their segments were removed (retention)")
        }
    };
    // stderr may be closed.
    let _ = writeln!(std::io::stderr(), "redtape: {text}");
    Ok(())
}

/// Waits for a short time; `false` = the reader of our output is gone.
fn wait() -> anyhow::Result<bool> {
    let stdout = std::io::stdout();
    let pause = Timespec { tv_sec: 0, tv_nsec: i64::from(LOOK_EVERY.subsec_nanos()) };
    // Asked for nothing, it tells only of the end.
    let mut watched = [PollFd::new(&stdout, PollFlags::empty())];
    match poll(&mut watched, Some(&pause)) {
        Ok(0) | Err(rustix::io::Errno::INTR) => Ok(true),
        Ok(_) if stdout.is_terminal() => Ok(false),
        Ok(_) => Ok(!watched[0].revents().intersects(PollFlags::ERR | PollFlags::HUP)),
        Err(e) => Err(Failure::new(IOERR, format!("cannot wait: {e}")).into()),
    }
}

/// The first SIGINT or SIGTERM has it end behind a whole line; the second one at once.
fn listen() -> anyhow::Result<Arc<AtomicBool>> {
    let ended = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&ended);
    Signals::listen()?.watch(move |mut signals| {
        signals.wait();
        flag.store(true, Ordering::Relaxed);
        signals.wait_within(END_WITHIN);
        std::process::exit(0);
    })?;
    Ok(ended)
}
