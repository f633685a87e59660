//! Compares the target's limits with what is needed, before the first byte is written, or marks them as unknown. Pure.

use std::fmt;

use serde::Serialize;

use super::{Facts, Method};
use crate::target::preflight::TargetFacts;
use crate::target::rights::By;

/// Result of a comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum LimitState {
    /// Sufficient.
    Fits,
    /// Decided after the replay: the restore stops before its first write if it is too much.
    Open,
    /// Insufficient; the text names the consequence.
    Lacks,
    /// The target does not report the limit.
    Unknown,
}

/// One limit of the target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Limit {
    /// Which.
    pub name: &'static str,
    /// How it compares.
    pub state: LimitState,
    /// The limit, if it is a number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<u64>,
    /// The requirement, if it is a number and known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub needed: Option<u64>,
    /// The same in words.
    pub text: String,
}

impl Limit {
    fn new(name: &'static str, state: LimitState, text: impl Into<String>) -> Self {
        Self { name, state, target: None, needed: None, text: text.into() }
    }
}

/// All limits that matter to a method.
pub(super) fn of(facts: &Facts<'_>, method: Method) -> Vec<Limit> {
    let target = facts.target;
    let by = facts.by(method);
    let mut limits = vec![databases(facts), memory(facts, method)];
    if method == Method::Scratch {
        limits.push(value(facts));
    }
    limits.extend(rights(target, by));
    limits.push(names(target));
    limits.push(encryption(target));
    limits.push(persistence(target));
    limits
}

fn databases(facts: &Facts<'_>) -> Limit {
    const NAME: &str = "databases";
    let needed = u64::from(facts.range.max_db.max(facts.base_highest_db.unwrap_or(0))) + 1;
    let Some(databases) = facts.target.limits.databases.map(u64::from) else {
        return Limit { needed: Some(needed), ..Limit::new(NAME, LimitState::Unknown, "SELECT is not allowed") };
    };
    let (state, text) = if databases < needed {
        (
            LimitState::Open,
            format!(
                "{databases} databases, and the journal has keys in database {}: if wanted ones are there at that time, nothing is written",
                needed - 1
            ),
        )
    } else {
        (LimitState::Fits, format!("{databases} databases"))
    };
    Limit { target: Some(databases), needed: Some(needed), ..Limit::new(NAME, state, text) }
}

fn memory(facts: &Facts<'_>, method: Method) -> Limit {
    const NAME: &str = "memory";
    let memory = &facts.target.memory;
    match memory.limit {
        None => Limit::new(NAME, LimitState::Unknown, "neither INFO nor CONFIG tells maxmemory"),
        Some(0) => Limit::new(NAME, LimitState::Fits, "no maxmemory"),
        Some(limit) => {
            let text = format!("maxmemory {limit} ({}), {} in use", memory.policy, memory.used);
            // A target that follows has room for the whole journal range, or a scratch server is used first.
            let state = if method == Method::Link { LimitState::Fits } else { LimitState::Open };
            Limit { target: Some(limit.saturating_sub(memory.used)), ..Limit::new(NAME, state, text) }
        }
    }
}

fn value(facts: &Facts<'_>) -> Limit {
    const NAME: &str = "value";
    const MARGIN: u64 = 4;
    match facts.target.limits.value_bytes() {
        None => Limit::new(NAME, LimitState::Unknown, "proto-max-bulk-len cannot be read (CONFIG GET is not allowed)"),
        Some(bytes) => {
            let text = format!("values up to {bytes} bytes (proto-max-bulk-len, client-query-buffer-limit)");
            // Values take more room than records, rarely by this much; it is checked before the first write.
            let read = facts.base_bytes.saturating_add(facts.range.bytes);
            let state = if read.saturating_mul(MARGIN) < bytes { LimitState::Fits } else { LimitState::Open };
            Limit { target: Some(bytes), ..Limit::new(NAME, state, text) }
        }
    }
}

fn rights(target: &TargetFacts, by: By) -> Vec<Limit> {
    const NAME: &str = "rights";
    let rights = &target.rights;
    let mut limits: Vec<Limit> = rights
        .losses(by)
        .into_iter()
        .map(|(loss, commands)| Limit::new(NAME, LimitState::Lacks, format!("{}: {loss}", commands.join(", "))))
        .collect();
    if !rights.asked {
        let text = "neither ACL DRYRUN nor MULTI is allowed: a missing right shows when it is needed";
        limits.push(Limit::new(NAME, LimitState::Unknown, text));
    } else if by != By::Link && rights.some_keys(by) {
        let text = "not for every key: whether for the wanted ones is seen before the first write";
        limits.push(Limit::new(NAME, LimitState::Open, text));
    } else if limits.is_empty() {
        limits.push(Limit::new(NAME, LimitState::Fits, "all rights"));
    }
    limits
}

fn names(target: &TargetFacts) -> Limit {
    const NAME: &str = "commands";
    let renamed: Vec<String> = target.renamed.iter().map(|name| String::from_utf8_lossy(name).into_owned()).collect();
    if renamed.is_empty() {
        return Limit::new(NAME, LimitState::Fits, "commands under their usual names");
    }
    Limit::new(NAME, LimitState::Fits, format!("other names for {}", renamed.join(", ")))
}

fn encryption(target: &TargetFacts) -> Limit {
    let text = match (target.tls, target.unix) {
        (true, _) => "TLS",
        (false, true) => "a socket of this machine",
        (false, false) => "no encryption",
    };
    Limit::new("encryption", LimitState::Fits, text)
}

fn persistence(target: &TargetFacts) -> Limit {
    const NAME: &str = "persistence";
    match target.limits.persists {
        Some(true) => Limit::new(NAME, LimitState::Fits, "saves to its disk"),
        Some(false) => Limit::new(
            NAME,
            LimitState::Lacks,
            "the target persists nothing (save \"\", appendonly no): a restart loses what is restored",
        ),
        None => Limit::new(NAME, LimitState::Unknown, "its save settings cannot be read (CONFIG GET is not allowed)"),
    }
}

/// What fits in one line, the rest in one each.
pub(super) fn show(limits: &[Limit], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let fit = limits.iter().filter(|limit| limit.state == LimitState::Fits);
    let fit: Vec<&str> = fit.map(|limit| limit.text.as_str()).collect();
    write!(f, "\ntarget has   {}", fit.join("; "))?;
    for limit in limits {
        match limit.state {
            LimitState::Fits => {}
            LimitState::Open => write!(f, "\nlimit        {}: {}", limit.name, limit.text)?,
            LimitState::Lacks => write!(f, "\nlacks        {}: {}", limit.name, limit.text)?,
            LimitState::Unknown => write!(f, "\nunknown      {}: {}", limit.name, limit.text)?,
        }
    }
    Ok(())
}
