//! `redtape journal ls | verify | cat | mark`; `prune` is in [`super::prune`].

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as BASE64;
use clap::{Args, Subcommand};
use redtape_journal::{
    Catalog, Group, Lsn, Mark, Micros, OpenError, Origin, OriginKind, Record, TimelineId, Window, add_mark, verify,
};
use redtape_restore::When;
use redtape_restore::when::Moment;
use serde_json::{Value, json};

use crate::exit::{DATAERR, Failure, IOERR, UNAVAILABLE, USAGE};

/// Bytes of one argument that `cat` shows to a person.
const SHOWN_BYTES: usize = 60;
/// Arguments of one record that `cat` shows to a person.
const SHOWN_ARGS: usize = 12;
/// A mark waits so long for the journal to be complete up to it.
const MARK_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug, Subcommand)]
pub(crate) enum JournalCommand {
    /// Which moments can be restored, which gaps there are and why.
    Ls(DirArgs),
    /// Check every checksum of segments and snapshots.
    Verify(VerifyArgs),
    /// Print what was written, in Redis's order: when, by whom, what.
    Cat(CatArgs),
    /// Name the present moment, for `restore --at mark:NAME`.
    Mark(MarkArgs),
    /// Remove what is older than you want to keep; what remains stays restorable.
    Prune(super::prune::PruneArgs),
}

/// Which journal.
#[derive(Debug, Args)]
pub(crate) struct DirArgs {
    /// Directory of the journal.
    #[arg(long, alias = "dir", env = "REDTAPE_DIR", value_name = "DIR", default_value = "redtape-journal")]
    from: PathBuf,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    #[command(flatten)]
    journal: DirArgs,
    /// Look at headers, footers and the chain only; do not read every byte.
    #[arg(long)]
    quick: bool,
}

#[derive(Debug, Args)]
pub(crate) struct CatArgs {
    #[command(flatten)]
    journal: DirArgs,
    /// Begin here: the same forms as `restore --at`.
    #[arg(long, value_name = "WHEN")]
    since: Option<When>,
    /// End here, inclusive.
    #[arg(long, value_name = "WHEN")]
    until: Option<When>,
    /// Only these commands, in any case; may be given several times.
    #[arg(long, value_name = "NAME")]
    command: Vec<String>,
    /// Stop after so many groups.
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
}

#[derive(Debug, Args)]
pub(crate) struct MarkArgs {
    /// Its name: 1 to 128 characters, none of them a control character.
    #[arg(value_parser = mark_name)]
    name: String,
    #[command(flatten)]
    journal: DirArgs,
}

pub(crate) fn run(command: JournalCommand) -> anyhow::Result<ExitCode> {
    match command {
        JournalCommand::Ls(args) => ls(&args),
        JournalCommand::Verify(args) => check(&args),
        JournalCommand::Cat(args) => cat(&args),
        JournalCommand::Mark(args) => mark(&args),
        JournalCommand::Prune(args) => super::prune::run(&args),
    }
}

/// A journal that can't be opened, with its exit code.
pub(crate) fn catalog_failure(error: OpenError) -> Failure {
    Failure::new(if matches!(error, OpenError::Io { .. }) { IOERR } else { DATAERR }, error)
}

/// Writes to stdout; a reader that has enough (`| head`) is no error.
pub(crate) fn out(text: &str) -> anyhow::Result<()> {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
        other => Ok(other?),
    }
}

/// A size for people.
pub(crate) fn bytes(n: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut value, mut unit) = (n as f64, 0);
    while value >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{n} B") } else { format!("{value:.1} {}", units[unit]) }
}

/// `1 key`, `2 keys`.
pub(crate) fn count(n: u64, one: &str, many: &str) -> String {
    format!("{n} {}", if n == 1 { one } else { many })
}

fn mark_name(name: &str) -> Result<String, &'static str> {
    Mark::check_name(name).map(|()| name.to_owned())
}

fn ls(args: &DirArgs) -> anyhow::Result<ExitCode> {
    let catalog = Catalog::open(&args.from).map_err(catalog_failure)?;
    let (windows, gaps, timelines) = (catalog.windows(), catalog.gaps(), catalog.timelines());
    if args.json {
        let value = json!({
            "journal_id": catalog.meta().journal_id,
            "source": catalog.meta().source,
            "windows": windows.iter().map(|w| json!({
                "timeline": w.timeline.0, "from": w.from.to_string(), "from_us": w.from.0, "from_lsn": w.from_lsn.0,
                "to": w.to.to_string(), "to_us": w.to.0, "to_lsn": w.to_lsn.0, "damaged_behind": w.damaged_behind,
            })).collect::<Vec<_>>(),
            "gaps": gaps.iter().map(|g| json!({
                "from": g.from.to_string(), "from_us": g.from.0, "to": g.to.to_string(), "to_us": g.to.0,
                "after_lsn": g.after_lsn.0, "reason": g.reason,
            })).collect::<Vec<_>>(),
            "timelines": timelines.iter().map(|t| json!({
                "timeline": t.id.0, "source_id": t.source_id, "reason": t.reason, "start": t.start_ts.to_string(), "start_us": t.start_ts.0,
                "first_lsn": t.first_lsn.0, "last_lsn": t.last_lsn.0, "start_offset": t.start_offset.0, "end_offset": t.end_offset.0, "bytes": t.bytes,
            })).collect::<Vec<_>>(),
            "marks": catalog.marks().iter().map(|m| json!({
                "name": m.name, "ts": m.ts.to_string(), "ts_us": m.ts.0, "lsn": m.lsn.0,
            })).collect::<Vec<_>>(),
            "segments": catalog.segments().len(),
            "bytes": catalog.segments().iter().map(|s| s.bytes).sum::<u64>(),
            "notes": catalog.notes(),
        });
        out(&format!("{value}\n"))?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut text = String::new();
    let size = catalog.segments().iter().map(|s| s.bytes).sum();
    let segments = count(catalog.segments().len() as u64, "segment", "segments");
    writeln!(text, "journal of {} ({} in {segments})", catalog.meta().source, bytes(size))?;
    if windows.is_empty() && !catalog.snapshots().is_empty() {
        writeln!(text, "\nNothing can be restored: no segment goes on from a snapshot (`redtape journal verify`).")?;
    } else if windows.is_empty() {
        writeln!(text, "\nNothing can be restored yet: no base has been taken.")?;
    } else {
        writeln!(text, "\nEvery moment in these windows can be restored:")?;
    }
    for (n, w) in windows.iter().enumerate() {
        let damaged = if w.damaged_behind { "   damaged behind it" } else { "" };
        let Window { from, to, from_lsn, to_lsn, timeline, .. } = w;
        if from == to {
            writeln!(text, "  {from}   LSN {from_lsn}   timeline {timeline}   this moment only{damaged}")?;
        } else {
            writeln!(text, "  {from} .. {to}   LSN {from_lsn} .. {to_lsn}   timeline {timeline}{damaged}")?;
        }
        if let Some(g) = gaps.get(n) {
            writeln!(text, "  gap: {} .. {}   {}", g.from, g.to, g.reason)?;
        }
    }
    if !catalog.marks().is_empty() {
        writeln!(text, "\nNamed moments:")?;
        for m in catalog.marks() {
            writeln!(text, "  {}   LSN {}   mark:{}", m.ts, m.lsn, m.shown_name())?;
        }
    }
    for note in catalog.notes() {
        writeln!(text, "\nnote: {note}")?;
    }
    out(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn check(args: &VerifyArgs) -> anyhow::Result<ExitCode> {
    let report = verify(&args.journal.from, !args.quick, |_| {}).map_err(catalog_failure)?;
    let mut text = String::new();
    if args.journal.json {
        let problems: Vec<Value> = report
            .problems
            .iter()
            .map(|p| {
                json!({
                    "file": p.file, "offset": p.offset, "what": p.what, "consequence": p.consequence,
                    "lsn": p.span.map(|s| json!([s.from_lsn.0, s.to_lsn.map(|l| l.0)])),
                    "ts_us": p.span.map(|s| json!([s.from_ts.0, s.to_ts.map(|t| t.0)])),
                })
            })
            .collect();
        let value = json!({
            "sound": problems.is_empty(), "segments": report.segments, "blocks": report.blocks, "groups": report.groups,
            "records": report.records, "snapshots": report.snapshots, "bytes": report.bytes, "problems": problems,
            "notes": report.notes,
        });
        writeln!(text, "{value}")?;
    } else {
        for p in &report.problems {
            write!(text, "{} at byte {}: {}", p.file.display(), p.offset, p.what)?;
            if let Some(span) = &p.span {
                write!(text, " ({span})")?;
            }
            writeln!(text, "\n  {}", p.consequence)?;
        }
        let verdict = if report.problems.is_empty() { "sound" } else { "DAMAGED" };
        for note in &report.notes {
            writeln!(text, "note: {note}")?;
        }
        writeln!(
            text,
            "{verdict}: {}, {}, {}, {}, {}, {} checked, {}",
            count(report.segments, "segment", "segments"),
            count(report.blocks, "block", "blocks"),
            count(report.groups, "group", "groups"),
            count(report.records, "record", "records"),
            count(report.snapshots, "snapshot", "snapshots"),
            bytes(report.bytes),
            count(report.problems.len() as u64, "problem", "problems")
        )?;
    }
    out(&text)?;
    Ok(if report.problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(DATAERR) })
}

/// A moment as (time, LSN) bounds for `cat`; either may be open.
fn bound(when: &When, catalog: &Catalog) -> anyhow::Result<(Option<Micros>, Option<Lsn>)> {
    Ok(match when.clone().resolve(Micros::now()) {
        Moment::At(ts) => (Some(ts), None),
        Moment::Lsn(lsn) => (None, Some(lsn)),
        Moment::Mark(name) => {
            let mark = catalog.marks().iter().rev().find(|m| m.name == name);
            let mark = mark.ok_or_else(|| {
                Failure::new(USAGE, format!("there is no mark {name:?}; `redtape journal ls` lists them"))
            })?;
            (None, Some(mark.lsn))
        }
        Moment::Latest => (None, None),
    })
}

fn cat(args: &CatArgs) -> anyhow::Result<ExitCode> {
    let catalog = Catalog::open(&args.journal.from).map_err(catalog_failure)?;
    if matches!(args.since, Some(When::Latest)) {
        // Nothing comes after the end.
        return Ok(ExitCode::SUCCESS);
    }
    let none = (None, None);
    let (since_ts, since_lsn) = args.since.as_ref().map_or(Ok(none), |w| bound(w, &catalog))?;
    let (until_ts, until_lsn) = args.until.as_ref().map_or(Ok(none), |w| bound(w, &catalog))?;
    let mut left = args.limit.unwrap_or(u64::MAX);
    let mut text = String::new();
    for timeline in catalog.timelines() {
        let mut after = since_lsn.map_or(Lsn(0), |l| Lsn(l.0.saturating_sub(1)));
        if let Some(ts) = since_ts {
            after = after.max(catalog.find_cut_by_ts(timeline.id, Micros(ts.0 - 1))?.lsn);
        }
        for group in catalog.groups(after, timeline.id) {
            let group = group.map_err(|e| Failure::new(DATAERR, e))?;
            let last = group.records.last().map_or(Lsn(0), |r| r.lsn);
            if until_ts.is_some_and(|t| group.ts > t) || until_lsn.is_some_and(|l| last > l) || left == 0 {
                break;
            }
            if !wanted(&group, &args.command) {
                continue;
            }
            left -= 1;
            if args.journal.json {
                writeln!(text, "{}", group_json(&group, timeline.id))?;
            } else {
                group_text(&mut text, &group)?;
            }
            if text.len() > 1 << 16 {
                out(&text)?;
                text.clear();
            }
        }
    }
    out(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn wanted(group: &Group, commands: &[String]) -> bool {
    let is = |r: &Record| {
        r.args.first().is_some_and(|name| commands.iter().any(|c| name.eq_ignore_ascii_case(c.as_bytes())))
    };
    commands.is_empty() || group.records.iter().any(is)
}

fn group_json(group: &Group, timeline: TimelineId) -> Value {
    let arg = |bytes: &[u8]| match std::str::from_utf8(bytes) {
        Ok(text) => Value::from(text),
        Err(_) => json!({"b64": BASE64.encode(bytes)}),
    };
    let records: Vec<Value> = group
        .records
        .iter()
        .map(|r| json!({"lsn": r.lsn.0, "db": r.db, "args": r.args.iter().map(|a| arg(a)).collect::<Vec<_>>()}))
        .collect();
    json!({
        "lsn": group.records.first().map_or(0, |r| r.lsn.0),
        "ts": group.ts.to_string(),
        "ts_us": group.ts.0,
        "slack_us": group.slack,
        "timeline": timeline.0,
        "db": group.records.first().map_or(0, |r| r.db),
        "offset": group.end_offset.0,
        "origin": &*group.origin,
        "atomic": group.atomic,
        "records": records,
    })
}

fn group_text(text: &mut String, group: &Group) -> std::fmt::Result {
    for (n, record) in group.records.iter().enumerate() {
        let (time, who) =
            if n == 0 { (group.ts.to_string(), origin(&group.origin)) } else { (" ".repeat(27), String::new()) };
        let bar = if group.atomic { "|" } else { " " };
        write!(text, "{:>10}  {time}  {who:<32} db{:<3}{bar}", record.lsn.0, record.db)?;
        for arg in record.args.iter().take(SHOWN_ARGS) {
            write!(text, " {}", shown(arg))?;
        }
        if record.args.len() > SHOWN_ARGS {
            write!(text, " … {} more", record.args.len() - SHOWN_ARGS)?;
        }
        writeln!(text)?;
    }
    Ok(())
}

fn origin(origin: &Origin) -> String {
    let mut text = match origin.kind {
        OriginKind::Client => origin.addr.clone(),
        OriginKind::Expiry => return "expiry".to_owned(),
        OriginKind::Eviction => return "eviction".to_owned(),
        OriginKind::Outside => return "outside the proxy".to_owned(),
        OriginKind::Unknown => return "unknown".to_owned(),
    };
    if !origin.name.is_empty() {
        text += &format!(" {}", origin.name);
    }
    if !origin.user.is_empty() && origin.user != "default" {
        text += &format!(" as {}", origin.user);
    }
    if !origin.via.is_empty() {
        text += &format!(" by {}", origin.via.to_ascii_uppercase());
    }
    text
}

/// As redis-cli shows bytes: quoted where needed, cut when long.
fn shown(arg: &[u8]) -> String {
    let cut = &arg[..arg.len().min(SHOWN_BYTES)];
    let plain = !arg.is_empty() && cut.iter().all(|b| b.is_ascii_graphic() && *b != b'"' && *b != b'\\');
    let mut text =
        if plain { String::from_utf8_lossy(cut).into_owned() } else { format!("\"{}\"", cut.escape_ascii()) };
    if arg.len() > SHOWN_BYTES {
        text += &format!("…({})", bytes(arg.len() as u64));
    }
    text
}

fn mark(args: &MarkArgs) -> anyhow::Result<ExitCode> {
    let dir = &args.journal.from;
    let mut ts = Micros::now();
    let deadline = Instant::now() + MARK_TIMEOUT;
    let lsn = loop {
        let catalog = Catalog::open(dir).map_err(catalog_failure)?;
        let window = catalog.windows().pop();
        let has_base = window.is_some();
        if let Some(w) = window.filter(|w| w.to >= ts) {
            if ts < w.from {
                // The base came in between: what was before it can't be restored.
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
    add_mark(dir, &Mark { name: args.name.clone(), ts, lsn }).map_err(|e| Failure::new(IOERR, e))?;
    out(&format!("mark:{} is {ts}, LSN {lsn}\n", args.name))?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_for_people() {
        assert_eq!(shown(b"key:1"), "key:1");
        assert_eq!(shown(b""), "\"\"");
        assert_eq!(shown(b"a b\0\n"), "\"a b\\x00\\n\"");
        assert!(shown(&[b'x'; 3000]).ends_with("…(2.9 KiB)"));
    }
}
