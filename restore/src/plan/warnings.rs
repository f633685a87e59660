//! Warnings about the target before a restore begins. Pure.

use super::Facts;
use crate::target::claim::OtherRestores;
use crate::target::preflight::TargetFacts;
use crate::target::unfinished::KEY;

/// Whether the data fits into the target, as far as known.
pub(super) fn memory(facts: &Facts<'_>) -> Option<String> {
    let memory = &facts.target.memory;
    let limit = match memory.limit {
        None => {
            return Some(
                "whether the target has a memory limit is unknown: neither INFO nor CONFIG tells its maxmemory"
                    .to_owned(),
            );
        }
        Some(0) => return None,
        Some(limit) => limit,
    };
    let then = "nothing is written: that is seen before the first write";
    let has = format!(
        "the target has a memory limit of {limit} bytes (maxmemory-policy {}), {} are in use",
        memory.policy, memory.used
    );
    Some(match facts.base_memory.filter(|_| facts.whole) {
        Some(need) if need > limit => {
            format!(
                "{has}: too small for the base alone, which took {need} bytes on the server that made it. Raise maxmemory first; if the data is no smaller at that time, {then}"
            )
        }
        Some(need) => {
            format!("{has}; the base took {need} bytes on the server that made it. If the data does not fit, {then}")
        }
        None => format!("{has}; the size of the data is unknown in advance. If it does not fit, {then}"),
    })
}

/// Other restores of the same target.
pub(super) fn other_restores(target: &TargetFacts) -> Vec<String> {
    let mut warnings = Vec::new();
    match &target.others {
        OtherRestores::Absent => {}
        OtherRestores::Seen(who) => {
            warnings.push(format!("another restore is at work on the target ({who}): this one cannot begin before its end"));
        }
        OtherRestores::Unknown(why) => warnings.push(format!(
            "whether another restore is at work on the target cannot be seen ({why}): make sure that there is none, or allow CLIENT ID, SETNAME and LIST"
        )),
    }
    if matches!(target.others, OtherRestores::Seen(_)) {
        return warnings;
    }
    warnings.extend(target.unfinished.iter().map(|unfinished| {
        format!(
            "a restore into this target did not end: {}. It may have left a part of its keys; when that is settled: HDEL {KEY} {}",
            unfinished.what, unfinished.field
        )
    }));
    warnings
}

/// Effects on the target's own replicas while it follows redtape.
pub(super) fn followers(target: &TargetFacts) -> Vec<String> {
    let mut warnings = Vec::new();
    if target.is_source {
        warnings.push(
            "this is the server that the journal follows: clients get READONLY while it loads, and the journal begins a new timeline; writes from now until its new base cannot be restored. Stop the writers first"
                .to_owned(),
        );
    }
    // One of them is redtape itself.
    let others = target.replicas.saturating_sub(u64::from(target.is_source));
    match others {
        0 => {}
        1 => warnings.push("1 replica follows the target; it gets everything too".to_owned()),
        n => warnings.push(format!("{n} replicas follow the target; they get everything too")),
    }
    warnings
}
