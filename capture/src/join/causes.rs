//! Which request can cause which effect, and which replies say that there was none.
//!
//! Source: docs/redis-facts.md 2 (what a server puts in the stream), tested there on Redis 7.0 and, through the
//! exactness workload, on every server that redtape supports.

use redtape_wire::outcome::{always_writes, is_script, may_write_silently, says_no_effect, says_nothing};

use crate::tee::{Outcome, Part};

/// How well a request explains an effect; larger is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fit {
    /// A script that did not declare this key.
    Guess,
    /// The request can cause the effect: a script, a rewritten command, or a module's command.
    Possible,
    /// As `Possible`, and the value that survives rewriting is equal.
    Value,
    /// The same command with the same arguments.
    Exact,
}

/// Commands other than itself that a request may appear as after rewriting.
fn rewritten_as(request: &[u8]) -> &'static [&'static [u8]] {
    match request {
        b"set" => &[b"set", b"del", b"unlink"],
        b"setex" | b"psetex" | b"getset" | b"setnx" | b"incrbyfloat" => &[b"set"],
        b"getex" => &[b"pexpireat", b"persist", b"del", b"unlink"],
        b"expire" | b"pexpire" | b"expireat" | b"pexpireat" => &[b"pexpireat", b"del", b"unlink"],
        b"hincrbyfloat" => &[b"hset", b"hsetex", b"hpexpireat"],
        b"spop" => &[b"srem", b"del", b"unlink"],
        b"blpop" | b"brpop" | b"blmpop" | b"lmpop" => &[b"lpop", b"rpop", b"del", b"unlink"],
        b"blmove" | b"brpoplpush" => &[b"lmove", b"rpoplpush"],
        b"bzpopmin" | b"bzpopmax" | b"bzmpop" | b"zmpop" => &[b"zpopmin", b"zpopmax", b"del", b"unlink"],
        b"xadd" => &[b"xadd", b"xtrim"],
        b"geoadd" => &[b"zadd"],
        b"pfdebug" | b"pfcount" => &[b"pfcount"],
        b"xreadgroup" => &[b"xclaim", b"xgroup"],
        b"xclaim" | b"xautoclaim" => &[b"xclaim", b"xdel", b"xgroup"],
        b"hexpire" | b"hpexpire" | b"hexpireat" | b"hpexpireat" | b"hgetex" | b"hgetdel" | b"hsetex" => {
            &[b"hpexpireat", b"hpersist", b"hdel", b"hset", b"hsetex", b"del", b"unlink"]
        }
        b"georadius" | b"georadiusbymember" | b"georadius_ro" => &[b"zadd", b"del"],
        b"restore" | b"migrate" => &[b"restore", b"del", b"unlink"],
        b"getdel" | b"delifeq" | b"delex" => &[b"del", b"unlink"],
        b"flushall" | b"flushdb" => &[b"flushall", b"flushdb"],
        _ => &[],
    }
}

/// The server serves clients blocked on a key in the order of arrival.
pub(super) fn is_blocking(request: &[u8]) -> bool {
    request.starts_with(b"b")
        && matches!(
            request,
            b"blpop" | b"brpop" | b"blmove" | b"brpoplpush" | b"blmpop" | b"bzmpop" | b"bzpopmin" | b"bzpopmax"
        )
}

/// One request may cause several groups.
pub(super) fn many_groups(request: &[u8]) -> bool {
    matches!(request, b"xreadgroup" | b"xclaim" | b"xautoclaim" | b"migrate")
}

/// The same command with the same arguments.
#[inline]
pub(super) fn is_exact(request: &Part, effect: &Part) -> bool {
    request.name == effect.name && request.args_hash != 0 && request.args_hash == effect.args_hash
}

/// How well the plain command `request` explains `effect`; `None` = it cannot cause it. `known` tells whether the
/// command's form in the stream is documented; it is false for commands of modules and of newer servers.
pub(super) fn fit(request: &Part, effect: &Part, known: impl FnOnce() -> bool) -> Option<Fit> {
    if is_exact(request, effect) {
        return Some(Fit::Exact);
    }
    let by_value = || (request.values() == effect.values()).then_some(Fit::Value);
    let values = !request.values().is_empty() && !effect.values().is_empty();
    let (name, rewritten) = (request.name.name(), rewritten_as(request.name.name()));
    if request.name == effect.name {
        if values {
            return by_value();
        }
        // Commands that the server does not rewrite fit exactly or not at all.
        let rewritten = !rewritten.is_empty() || name.starts_with(b"x");
        return (request.args_hash == 0 || rewritten || !known()).then_some(Fit::Possible);
    }
    if !known() {
        return Some(Fit::Possible);
    }
    if !rewritten.contains(&effect.name.name()) || !may_take_away(request, effect) {
        return None;
    }
    if values { by_value() } else { Some(Fit::Possible) }
}

/// How well a script explains `effect`. A script may write keys that it did not declare, usually ones from its
/// arguments.
pub(super) fn fit_script(script: &Part, effect: &Part) -> Fit {
    if is_exact(script, effect) {
        // Redis 6 replicates scripts verbatim.
        return Fit::Exact;
    }
    let names = |key: &u64| (script.db == effect.db && script.keys().contains(key)) || script.values().contains(key);
    if script.name == effect.name || effect.keys().iter().any(names) { Fit::Possible } else { Fit::Guess }
}

/// Whether a request can appear in the stream as this single-key deletion. A SET can only if it names an expiry time in
/// the past. Other requests find the key already gone.
fn may_take_away(request: &Part, effect: &Part) -> bool {
    if !matches!(effect.name.name(), b"del" | b"unlink") {
        return true;
    }
    match request.name.name() {
        b"migrate" => true,
        b"set" => request.is_until() && effect.keys().len() == 1,
        _ => effect.keys().len() == 1,
    }
}

/// True if the effect only removes a single key or field, as expiry and eviction do.
pub(super) fn is_removal(effect: &Part) -> bool {
    matches!(effect.name.name(), b"del" | b"unlink" | b"hdel") && effect.keys().len() == 1
}

/// Duplicates of this command reply with numbers that grow (1) or shrink (-1) in execution order, so replies tell them
/// apart; 0 = they do not.
pub(super) fn replies_in_order(request: &Part) -> i64 {
    direction(request.name.name())
}

fn direction(request: &[u8]) -> i64 {
    match request {
        b"incr" | b"lpush" | b"rpush" | b"append" => 1,
        b"decr" => -1,
        _ => 0,
    }
}

/// What a reply says about its request's effect. Takes the first line of the reply (type byte and rest).
#[inline]
pub fn outcome_of(request: &[u8], kind: u8, line: &[u8]) -> Outcome {
    if says_no_effect(request, kind, line) {
        return if may_write_silently(request, kind) { Outcome::Ran } else { Outcome::NoEffect };
    }
    if is_script(request) || request == b"set" {
        if says_nothing(kind, line) {
            return Outcome::Empty;
        }
        return if request == b"set" && kind == b'+' { Outcome::Wrote } else { Outcome::Ran };
    }
    if direction(request) != 0
        && let Some(number) = std::str::from_utf8(line).ok().and_then(|l| l.parse().ok())
    {
        return Outcome::Number(number);
    }
    if always_writes(request, kind, line) { Outcome::Wrote } else { Outcome::Ran }
}
