//! `redtape restore`: arguments, confirmation, report. What it does is in `redtape-restore`.

// The comments on arguments are their help texts.
#![allow(clippy::doc_markdown, rustdoc::broken_intra_doc_links)]

use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{ArgGroup, Args, ValueEnum};
use redtape_journal::Micros;
use redtape_restore::console::Console;
use redtape_restore::target::repair::Outcome;
use redtape_restore::{
    FileFormat, ForcedMethod, History, Interrupt, Limits, Output, Prepared, Report, Request, RestoreError, Target,
    WrittenFile, prepare,
};

use super::conflict_options::ConflictOptions;
use super::import::{self, Import};
use super::interruption::{left_behind, listen};
use super::plan_flags::PlanFlags;
use super::serve::{self, ServeOptions};
use super::settings::{JournalOptions, JournalPlace};
use super::target::{FileOptions, TargetOptions};
use super::zone::AsOfOptions;
use crate::exit::{Failure, NOT_ALL, USAGE};
use crate::headings::{KEYS, METHOD, TARGET};
use crate::input::agreed;
use crate::key_selection::KeySelection;
use crate::output::{bytes, count, out};

/// How the data is delivered to the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Method {
    /// redtape is the target's master for a while, then promotes it.
    Link,
    /// A local redis-server or valkey-server holds the data; keys are copied from it.
    Scratch,
}

/// `redtape restore`.
#[derive(Debug, Args)]
#[command(
    group(ArgGroup::new("destination").args(["to", "to_rdb", "to_aof", "to_jsonl", "serve"]).required(true)),
    mut_arg("at", |arg| arg.required_unless_present_any(["before", "from"])),
    mut_arg("from", |arg| arg.value_name("DIR|FILE").help(FROM)),
    mut_arg("plan", |arg| arg.help("Print what would be done, and change nothing")),
    mut_arg("yes", |arg| arg.help("Do not ask before writing into a server that holds other keys")),
    mut_arg("json", |arg| arg.help("Print JSON (docs/json.md): the plan or the report on stdout, progress as lines on stderr")),
    after_help = EXAMPLES
)]
pub(crate) struct RestoreArgs {
    #[command(flatten)]
    journal: JournalOptions,
    #[command(flatten)]
    as_of: AsOfOptions,
    #[command(flatten)]
    target: TargetOptions,
    #[command(flatten)]
    file: FileOptions,
    #[command(flatten)]
    serve: ServeOptions,
    /// Go on though the target's maxmemory is too small for the data: the target evicts keys by its maxmemory-policy
    #[arg(help_heading = TARGET, long)]
    accept_eviction: bool,
    #[command(flatten)]
    keys: KeySelection,
    /// Keys that have this type at that point in time: string, list, set, zset, hash, stream, or a module's type as TYPE prints
    /// it.
    #[arg(long = "type", value_name = "T", value_parser = value_type, help_heading = KEYS)]
    types: Vec<String>,
    #[command(flatten)]
    conflict: ConflictOptions,
    /// Read and replay the whole history, not only what the selected keys depend on. Slower, with the same result.
    #[arg(help_heading = METHOD, long)]
    no_slice: bool,
    /// Use this method [default: the fastest that is exact; the plan names it]
    #[arg(help_heading = METHOD, long = "via", value_enum)]
    method: Option<Method>,
    /// The redis-server or valkey-server to use as scratch server [default: the best on PATH]
    #[arg(help_heading = METHOD, long, value_name = "FILE", env = "REDTAPE_SERVER_BIN")]
    server_bin: Option<PathBuf>,
    #[command(flatten)]
    flags: PlanFlags,
}

const FROM: &str = "Directory of the journal [default: dir of the settings, else redtape-journal]; or FILE.jsonl, as --to-jsonl writes it";

const EXAMPLES: &str = "Examples:
  # Everything, into an empty server.
  redtape restore --from journal --at latest --to redis://127.0.0.1:6380
  # Keys that were deleted, into the live server; keys that exist again stay.
  redtape restore --from journal --before lsn:46090 --key 'user:*' --on-conflict skip \\
      --to redis://127.0.0.1:6400
  # What one client has overwritten; --plan only shows it.
  redtape restore --from journal --before lsn:46090 --key 'user:*' --broken-by client=intern \\
      --to redis://127.0.0.1:6400 --plan
  # Into a file, and as a read-only server.
  redtape restore --from journal --at yesterday --to-rdb dump.rdb
  redtape restore --from journal --at '10m ago' --serve 127.0.0.1:7000";

/// Runs the command.
pub(crate) fn run(args: RestoreArgs) -> anyhow::Result<ExitCode> {
    if let Some(file) = args.journal.written_file() {
        return from_file(args, file);
    }
    let served = args.serve.address()?;
    let to = match (&served, args.file.address()) {
        (Some(address), _) => Target::Serve(address.clone()),
        (None, Some(file)) => Target::File(file),
        (None, None) => Target::Server(args.target.address()?),
    };
    let PlanFlags { plan: plan_only, yes, json } = args.flags;
    if let Target::Server(to) = &to {
        args.conflict.check_confirmed(&to.url.address(), plan_only)?;
    }
    let JournalPlace { dir, keyring } = args.journal.place()?;
    let filter = args.keys.filter()?.of_types(args.types);
    let method = args.method.map(|method| match method {
        Method::Link => ForcedMethod::Link,
        Method::Scratch => ForcedMethod::Scratch,
    });
    let interrupt = Interrupt::default();
    let request = Request {
        from: dir,
        keyring,
        as_of: args.as_of.as_of()?,
        zone: args.as_of.zone.zone(json),
        to,
        accept_eviction: args.accept_eviction,
        filter,
        slice: !args.no_slice,
        repair: args.conflict.policy()?,
        broken_by: args.conflict.broken_by,
        rate: args.conflict.rate,
        unchanged_since: args.conflict.if_unchanged,
        state_dir: args.conflict.state_dir,
        method,
        server_bin: args.server_bin,
        now: Micros::now(),
        interrupt: interrupt.clone(),
        limits: Limits::default(),
    };
    let to_file = matches!(request.to, Target::File(_));
    let to_stdout = matches!(&request.to, Target::File(file) if file.to == Output::Stdout);
    let mut console = Console::new(std::io::stderr().is_terminal(), json);
    if plan_only {
        console = console.without_plan();
    }
    if served.is_some() {
        return serve::run(&request, plan_only, json, &mut console);
    }
    let prepared = prepare(&request, &mut console)?;
    if plan_only {
        let plan = prepared.plan();
        out(&format!("{}\n", if json { serde_json::to_string_pretty(plan)? } else { plan.to_string() }))?;
        return Ok(ExitCode::SUCCESS);
    }
    // What --replace-all needs was there.
    confirm(&prepared, yes || request.replaces_all())?;
    // Up to here nothing was changed, and a signal ends the process as always.
    listen(interrupt, left_behind(prepared.plan().method, to_file))?;
    let report = prepared.run(&mut console)?;
    let text = format!("{}\n", if json { serde_json::to_string_pretty(&report)? } else { human(&report) });
    if to_stdout {
        // What was asked for stands there. stderr may be closed.
        let _ = std::io::stderr().write_all(text.as_bytes());
    } else {
        out(&text)?;
    }
    let left = report.repair.as_ref().is_some_and(Outcome::leaves_some);
    Ok(if left { ExitCode::from(NOT_ALL) } else { ExitCode::SUCCESS })
}

/// JSON lines go into a server.
fn from_file(args: RestoreArgs, file: PathBuf) -> anyhow::Result<ExitCode> {
    let given = [
        (args.as_of.is_given(), "--at and --before: the file shows one point in time"),
        (
            args.file.address().is_some(),
            "--to-rdb, --to-aof and --to-jsonl: a file goes into a server (--to URL), which can be recorded and restored from",
        ),
        (args.serve.is_given(), "--serve: restore it into a server"),
        (args.method.is_some(), "--via"),
        (args.no_slice, "--no-slice"),
        (args.accept_eviction, "--accept-eviction"),
    ];
    if let Some((_, option)) = given.into_iter().find(|(given, _)| *given) {
        let message =
            format!("{} is a file, not the folder of a journal, and does not go with {option}", file.display());
        return Err(Failure::new(USAGE, message).into());
    }
    import::run(Import {
        file,
        to: args.target.address()?,
        filter: args.keys.filter()?.of_types(args.types),
        existing: args.conflict.existing()?,
        flags: args.flags,
    })
}

/// A type as `TYPE` names it: one of Redis, or a module's, which has nine characters.
pub(super) fn value_type(name: &str) -> Result<String, String> {
    const TYPES: [&str; 6] = ["string", "list", "set", "zset", "hash", "stream"];
    const MODULE_TYPE_LEN: usize = 9;
    let of_module = name.len() == MODULE_TYPE_LEN
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    if of_module || TYPES.iter().any(|known| name.eq_ignore_ascii_case(known)) {
        return Ok(name.to_owned());
    }
    Err(format!("a type is one of {}, or that of a module as TYPE gives it (nine characters)", TYPES.join(", ")))
}

/// An empty target needs no confirmation; one with other keys does.
fn confirm(prepared: &Prepared, yes: bool) -> anyhow::Result<()> {
    if yes || !prepared.target_holds_data() {
        return Ok(());
    }
    let target = &prepared.plan().target;
    let elsewhere = format!("{target} holds other keys; add --yes to restore the wanted ones into it");
    if agreed(&format!("{target} holds other keys. Restore the wanted ones into it?"), elsewhere)? {
        return Ok(());
    }
    Err(RestoreError::NotConfirmed.into())
}

/// What was done with keys of a target that holds others.
pub(super) fn repaired(outcome: &Outcome) -> Vec<String> {
    let numbers = [
        (outcome.created, "created"),
        (outcome.replaced, "replaced"),
        (outcome.merged, "merged"),
        (outcome.ttl_set, "given their time of expiry"),
        (outcome.renamed, "stored under another name"),
        (outcome.deleted, "deleted"),
        (outcome.equal, "equal"),
        (outcome.done_before, "done before the interruption"),
        (outcome.skipped, "skipped"),
        (outcome.expired, "expired since"),
        (outcome.left, "left as they are"),
    ];
    let told: Vec<String> = numbers.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")).collect();
    let none = if outcome.elements > 0 { "none as a whole" } else { "none changed" };
    let mut lines = vec![format!("keys: {}", if told.is_empty() { none.to_owned() } else { told.join(", ") })];
    if outcome.elements > 0 {
        lines.push(format!("{} set", count(outcome.elements, "element", "elements")));
    }
    let libraries = &outcome.libraries;
    let numbers = [(libraries.loaded, "loaded"), (libraries.replaced, "replaced"), (libraries.removed, "removed")];
    let told: Vec<String> = numbers.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")).collect();
    if !told.is_empty() {
        lines.push(format!("function libraries: {}", told.join(", ")));
    }
    lines.extend(libraries.left.iter().map(|left| format!("left: function library {left}")));
    lines.extend(outcome.listed.iter().map(|left| format!("left: {} in db {}: {}", left.key, left.db, left.why)));
    let more = outcome.left - outcome.listed.len() as u64;
    if more > 0 {
        lines.push(format!("left: {more} more"));
    }
    lines
}

fn human(report: &Report) -> String {
    let total: u64 = report.keys.values().sum();
    let done = if report.file.is_some() { "wrote" } else { "restored" };
    let mut first = format!("{done} {}", count(total, "key", "keys"));
    if report.keys.keys().any(|db| *db != 0) {
        let parts: Vec<String> = report.keys.iter().map(|(db, n)| format!("db {db}: {n}")).collect();
        first = format!("{first} ({})", parts.join(", "));
    }
    if report.functions > 0 {
        first = format!("{first} and {}", count(report.functions as u64, "function library", "function libraries"));
    }
    let side = if report.before { "as they were before" } else { "as of" };
    let mut lines = vec![format!("{first} {side} {} (LSN {}) in {:.1} s", report.at, report.lsn, report.seconds)];
    if let Some(WrittenFile { format, path, bytes: length, rdb, history }) = &report.file {
        let form = match (format, rdb) {
            (FileFormat::Rdb, Some(version)) => format!("an RDB of version {version}"),
            (FileFormat::Rdb, None) => "an RDB".to_owned(),
            (FileFormat::Aof, _) => "an append-only file, for a server with this dir and appendonly yes".to_owned(),
            (FileFormat::JsonLines, _) => "JSON lines".to_owned(),
        };
        lines.push(format!("to {path}: {form}, {}", bytes(*length)));
        if let Some(History { since, records, bytes: length }) = history {
            let records = count(*records, "record", "records");
            lines.push(format!("behind its base of {since}: {records}, {}; redis-check-aof --truncate-to-timestamp cuts them back to any second", bytes(*length)));
        }
    }
    match report.expired {
        Some(n @ 1..) if report.file.is_some() => {
            lines.push(format!("{n} of them had a TTL that has passed since: a server that gets them removes them"));
        }
        None => {
            lines.push(
                "the number of keys that have expired since is unknown: the target does not allow SCAN".to_owned(),
            );
        }
        Some(0) => {}
        Some(1) => lines.push("1 of them had a TTL that has passed since: it is gone again".to_owned()),
        Some(n) => lines.push(format!("{n} of them had a TTL that has passed since: they are gone again")),
    }
    lines.extend(report.repair.iter().flat_map(repaired));
    lines.extend(report.warnings.iter().map(|warning| format!("warning: {warning}")));
    lines.extend(report.checks.iter().map(|check| format!("checked: {check}")));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use redtape_restore::Method;

    use super::*;

    #[test]
    fn types_are_those_of_redis_and_of_modules() {
        for known in ["string", "ZSET", "stream", "ReJSON-RL", "TSDB-TYPE", "MBbloom--", "vectorset"] {
            assert_eq!(value_type(known).as_deref(), Ok(known));
        }
        for unknown in ["", "sorted set", "zsets", "none", "json", "ten-char-s", "nine char"] {
            assert!(value_type(unknown).is_err(), "{unknown:?}");
        }
    }

    #[test]
    fn one_is_not_many() {
        let mut report = Report {
            at: "T".to_owned(),
            before: false,
            lsn: 7,
            method: Method::Link,
            keys: [(0, 1)].into(),
            expired: Some(1),
            functions: 1,
            records: 1,
            seconds: 0.4,
            checks: Vec::new(),
            warnings: Vec::new(),
            repair: None,
            file: None,
        };
        let expected = "restored 1 key and 1 function library as of T (LSN 7) in 0.4 s\n1 of them had a TTL that has passed since: it is gone again";
        assert_eq!(human(&report), expected);
        report.keys = [(0, 1), (3, 2)].into();
        (report.expired, report.functions) = (Some(0), 2);
        let expected = "restored 3 keys (db 0: 1, db 3: 2) and 2 function libraries as of T (LSN 7) in 0.4 s";
        assert_eq!(human(&report), expected);
        (report.expired, report.warnings) = (Some(40), vec!["full".to_owned()]);
        let more = "\n40 of them had a TTL that has passed since: they are gone again\nwarning: full";
        assert_eq!(human(&report), format!("{expected}{more}"));
        (report.expired, report.warnings, report.before) = (None, Vec::new(), true);
        assert!(human(&report).contains(" as they were before T (LSN 7)"));
        assert!(human(&report).contains("is unknown"));
    }
}
