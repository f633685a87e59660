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
use redtape_restore::{ForcedMethod, Interrupt, Limits, Prepared, Report, Request, RestoreError, Target, prepare};

use super::conflict_options::ConflictOptions;
use super::plan_flags::PlanFlags;
use super::serve::{self, ServeOptions};
use super::settings::{JournalOptions, JournalPlace};
use super::target::TargetOptions;
use super::zone::AsOfOptions;
use crate::exit::{INTERRUPTED, NOT_ALL};
use crate::input::agreed;
use crate::key_selection::{HEADING, KeySelection};
use crate::output::{count, out};
use crate::signals::Signals;

/// How the data is delivered to the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Method {
    /// redtape acts as the target's master for a while, then promotes it.
    Link,
    /// A local redis-server or valkey-server holds the past; keys are copied from it.
    Scratch,
}

/// `redtape restore`.
#[derive(Debug, Args)]
#[command(
    group(ArgGroup::new("destination").args(["to", "serve"]).required(true)),
    mut_arg("plan", |arg| arg.help("Print the plan and change nothing")),
    mut_arg("yes", |arg| arg.help("Write into a server that holds other keys without asking")),
    mut_arg("json", |arg| arg.help("Print JSON: the plan or the report on stdout, progress as lines on stderr"))
)]
pub(crate) struct RestoreArgs {
    #[command(flatten)]
    journal: JournalOptions,
    #[command(flatten)]
    as_of: AsOfOptions,
    #[command(flatten)]
    target: TargetOptions,
    #[command(flatten)]
    serve: ServeOptions,
    /// Fill a target whose maxmemory is too small for the data all the same: it evicts keys of its choice, by its
    /// maxmemory-policy
    #[arg(long)]
    accept_eviction: bool,
    #[command(flatten)]
    keys: KeySelection,
    /// Keys whose value is of this type at that moment: string, list, set, zset, hash, stream, or the type of a module as TYPE
    /// gives it.
    #[arg(long = "type", value_name = "T", value_parser = value_type, help_heading = HEADING)]
    types: Vec<String>,
    #[command(flatten)]
    conflict: ConflictOptions,
    /// Read and replay everything, also what the wanted keys do not depend on: slower, for comparison.
    #[arg(long)]
    no_slice: bool,
    /// Insist on a method; by itself the plan takes the best that is exact.
    #[arg(long = "via", value_enum)]
    method: Option<Method>,
    /// The redis-server or valkey-server to use as scratch server [default: the best on PATH]
    #[arg(long, value_name = "FILE", env = "REDTAPE_SERVER_BIN")]
    server_bin: Option<PathBuf>,
    #[command(flatten)]
    flags: PlanFlags,
}

/// Runs the command.
pub(crate) fn run(args: RestoreArgs) -> anyhow::Result<ExitCode> {
    let served = args.serve.address()?;
    let only_for_servers = args.method.is_some() || args.accept_eviction;
    let to = match &served {
        Some(address) => Target::Serve(address.clone()),
        None => Target::Server(args.target.address()?),
    };
    let PlanFlags { plan: plan_only, yes, json } = args.flags;
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
    let mut console = Console::new(std::io::stderr().is_terminal(), json);
    if plan_only {
        console = console.without_plan();
    }
    if served.is_some() {
        return serve::run(&request, only_for_servers, plan_only, json, &mut console);
    }
    let prepared = prepare(&request, &mut console)?;
    if plan_only {
        let plan = prepared.plan();
        out(&format!("{}\n", if json { serde_json::to_string_pretty(plan)? } else { plan.to_string() }))?;
        return Ok(ExitCode::SUCCESS);
    }
    confirm(&prepared, yes)?;
    // Up to here nothing was changed, and a signal ends the process as always.
    listen(interrupt, prepared.plan().method)?;
    let report = prepared.run(&mut console)?;
    out(&format!("{}\n", if json { serde_json::to_string_pretty(&report)? } else { human(&report) }))?;
    let left = report.repair.as_ref().is_some_and(|outcome| outcome.left > 0);
    Ok(if left { ExitCode::from(NOT_ALL) } else { ExitCode::SUCCESS })
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

/// From now on the first SIGINT or SIGTERM has what was begun undone; the second one ends the process.
fn listen(interrupt: Interrupt, method: redtape_restore::Method) -> anyhow::Result<()> {
    Signals::listen()?.watch(move |mut signals| {
        signals.wait();
        interrupt.set();
        signals.wait();
        // Nobody may listen to stderr any more.
        let _ = writeln!(std::io::stderr(), "redtape: {}", left_behind(method));
        std::process::exit(i32::from(INTERRUPTED));
    })?;
    Ok(())
}

/// What a restore may leave that was ended while it put the target back.
fn left_behind(method: redtape_restore::Method) -> String {
    match method {
        redtape_restore::Method::Scratch => format!(
            "ended while keys were copied: some of those that are wanted may be in the target, whose key {} says so then",
            redtape_restore::target::unfinished::KEY
        ),
        redtape_restore::Method::Serve => "ended while it served: nothing is left".to_owned(),
        redtape_restore::Method::Link | redtape_restore::Method::LinkFromScratch => {
            "ended while it put the target back: the target may be a read-only replica with a part of the data. Run REPLICAOF NO ONE and FLUSHALL on it before anything else".to_owned()
        }
    }
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
    let mut lines = vec![format!("keys: {}", told.join(", "))];
    if outcome.elements > 0 {
        lines.push(format!("{} set", count(outcome.elements, "element", "elements")));
    }
    lines.extend(outcome.listed.iter().map(|left| format!("left: {} in db {}: {}", left.key, left.db, left.why)));
    let more = outcome.left - outcome.listed.len() as u64;
    if more > 0 {
        lines.push(format!("left: {more} more"));
    }
    lines
}

fn human(report: &Report) -> String {
    let total: u64 = report.keys.values().sum();
    let mut first = format!("restored {}", count(total, "key", "keys"));
    if report.keys.keys().any(|db| *db != 0) {
        let parts: Vec<String> = report.keys.iter().map(|(db, n)| format!("db {db}: {n}")).collect();
        first = format!("{first} ({})", parts.join(", "));
    }
    if report.functions > 0 {
        first = format!("{first} and {}", count(report.functions as u64, "function library", "function libraries"));
    }
    let side = if report.before { "as they were before" } else { "as of" };
    let mut lines = vec![format!("{first} {side} {} (LSN {}) in {:.1} s", report.at, report.lsn, report.seconds)];
    match report.expired {
        None => {
            lines.push("how many of them have expired since is not known: the target does not allow SCAN".to_owned());
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
    fn nobody_is_told_to_empty_a_server_that_keys_were_copied_to() {
        assert!(!left_behind(Method::Scratch).contains("FLUSHALL"));
        assert!(left_behind(Method::Link).contains("FLUSHALL"));
    }

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
        assert!(human(&report).contains("is not known"));
    }
}
