//! `redtape journal cat`: the groups of a range, whole and in Redis's order.

use std::process::ExitCode;

use clap::Args;
use redtape_journal::query::When;

use super::DirArgs;
use crate::commands::zone::ZoneOption;
use crate::headings::{OUTPUT, TIME};
use crate::history::arguments::Filters;
use crate::history::range::Range;
use crate::history::read::forward;
use crate::history::show::{group_json, group_text};
use crate::output::out;

/// Output is gathered up to this size.
const GATHER_BYTES: usize = 1 << 16;

const EXAMPLES: &str = "Examples:
  redtape journal cat --from journal --since '10m ago' --limit 100
  redtape journal cat --from journal --key 'user:*' --command DEL --json";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct CatArgs {
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
    /// Print at most N commands or transactions.
    #[arg(help_heading = OUTPUT, long, value_name = "N")]
    limit: Option<u64>,
    #[command(flatten)]
    filters: Filters,
}

pub(super) fn run(args: &CatArgs) -> anyhow::Result<ExitCode> {
    let selection = args.filters.selection()?;
    let catalog = args.journal.open_for(&selection)?;
    let zone = args.zone.zone(args.journal.json);
    let Some(range) = Range::of(args.since.as_ref(), args.until.as_ref(), &zone, &catalog)? else {
        return Ok(ExitCode::SUCCESS);
    };
    let mut left = args.limit.unwrap_or(u64::MAX);
    let mut text = String::new();
    if left > 0 {
        let read = forward(&catalog, &range, &selection, &mut |timeline, group| {
            left -= 1;
            if args.journal.json {
                text += &format!("{}\n", group_json(group, timeline, &selection));
            } else {
                group_text(&mut text, group)?;
            }
            if text.len() > GATHER_BYTES {
                out(&text)?;
                text.clear();
            }
            Ok(left > 0)
        });
        // What was read before the damage is worth having.
        out(&text)?;
        read?;
    }
    Ok(ExitCode::SUCCESS)
}
