//! What a restore sends to a target, and whether it may: one table for the plan, the documentation and the tests.
//!
//! Asked before anything is written: `COMMAND INFO` tells which commands the server does not know, `ACL DRYRUN` (Redis 7.0) which
//! ones the user may not run. Where that is not to be had, the commands are queued in a transaction, which is then discarded: the
//! server refuses there what it would refuse, and runs nothing.

use std::collections::{BTreeMap, BTreeSet};

use crate::client::{Reply, Server, Value, text};
use crate::error::RestoreError;
use crate::random;
use crate::refusal::{Refusal, meaning};
use crate::target::repair::{OnConflict, Policy};
use crate::target::unfinished::KEY;
use crate::version::ServerVersion;

/// What a method does with a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    /// It cannot do without.
    Required,
    /// A repair that does one of these cannot do without; of others, without it this is lost.
    RequiredFor(Repairs, Option<&'static str>),
    /// Without it, this is lost.
    Useful(&'static str),
    Unused,
}
use Use::{Required, RequiredFor, Unused, Useful};

/// A command, and what it is for.
#[derive(Debug, Clone, Copy)]
struct Need {
    /// As access lists name it.
    rule: &'static str,
    /// An example that could be run: [`ANY_KEY`] stands for a key that is to be restored.
    example: &'static [&'static str],
    copy: Use,
    link: Use,
    /// For keys of a target that holds others.
    repair: Use,
}

const ANY_KEY: &str = "<key>";
const ONE_AT_A_TIME: &str = "other restores of the same target are not seen";
const MARKER: &str = "a restore that is killed leaves no sign of it in the target";
const LIMITS: &str = "its limits are unknown";
const LARGE_VALUES: &str = "values of more than 1 MiB cannot be read or written";
const LARGE: Option<&str> = Some(LARGE_VALUES);

const NEEDS: [Need; 67] = {
    const fn need(rule: &'static str, example: &'static [&'static str], copy: Use, link: Use, repair: Use) -> Need {
        Need { rule, example, copy, link, repair }
    }
    const fn all(rule: &'static str, example: &'static [&'static str], used: Use) -> Need {
        Need { rule, example, copy: used, link: used, repair: used }
    }
    const fn large(rule: &'static str, example: &'static [&'static str]) -> Need {
        Need { rule, example, copy: Unused, link: Unused, repair: Useful(LARGE_VALUES) }
    }
    const fn repair(rule: &'static str, example: &'static [&'static str], used: Use) -> Need {
        Need { rule, example, copy: Unused, link: Unused, repair: used }
    }
    [
        all("info", &["INFO"], Required),
        all("select", &["SELECT", "0"], Required),
        need("restore", &["RESTORE", ANY_KEY, "0", "", "ABSTTL"], Required, Unused, Required),
        need("exists", &["EXISTS", ANY_KEY], Required, Unused, Required),
        need("dump", &["DUMP", ANY_KEY], Required, Unused, Required),
        repair("pexpiretime", &["PEXPIRETIME", ANY_KEY], Required),
        repair("pttl", &["PTTL", ANY_KEY], Required),
        repair("watch", &["WATCH", ANY_KEY], Required),
        repair("unwatch", &["UNWATCH"], Required),
        repair("multi", &["MULTI"], Required),
        repair("exec", &["EXEC"], Required),
        repair("type", &["TYPE", ANY_KEY], Required),
        // Large values are read and built in pieces, and take their place by being renamed; so does what clients write to all the time.
        repair("persist", &["PERSIST", ANY_KEY], RequiredFor(Repairs::OVERWRITE, LARGE)),
        repair("pexpireat", &["PEXPIREAT", ANY_KEY, "1"], RequiredFor(Repairs::OVERWRITE, LARGE)),
        repair("rename", &["RENAME", ANY_KEY, ANY_KEY], RequiredFor(Repairs::OVERWRITE_OR_DELETE, None)),
        repair("renamenx", &["RENAMENX", ANY_KEY, ANY_KEY], RequiredFor(Repairs::OVERWRITE, LARGE)),
        repair("unlink", &["UNLINK", ANY_KEY], RequiredFor(Repairs::OVERWRITE_OR_DELETE, LARGE)),
        repair("hget", &["HGET", ANY_KEY, "f"], RequiredFor(Repairs::MERGE, None)),
        repair("hset", &["HSET", ANY_KEY, "f", "v"], RequiredFor(Repairs::MERGE, LARGE)),
        repair("hdel", &["HDEL", ANY_KEY, "f"], RequiredFor(Repairs::MERGE, None)),
        repair("hpexpireat", &["HPEXPIREAT", ANY_KEY, "1", "FIELDS", "1", "f"], RequiredFor(Repairs::MERGE, LARGE)),
        repair("sismember", &["SISMEMBER", ANY_KEY, "m"], RequiredFor(Repairs::MERGE, None)),
        repair("sadd", &["SADD", ANY_KEY, "m"], RequiredFor(Repairs::MERGE, LARGE)),
        repair("srem", &["SREM", ANY_KEY, "m"], RequiredFor(Repairs::MERGE, None)),
        repair("zscore", &["ZSCORE", ANY_KEY, "m"], RequiredFor(Repairs::MERGE, None)),
        repair("zadd", &["ZADD", ANY_KEY, "1", "m"], RequiredFor(Repairs::MERGE, LARGE)),
        repair("zrem", &["ZREM", ANY_KEY, "m"], RequiredFor(Repairs::MERGE, None)),
        large("memory|usage", &["MEMORY", "USAGE", ANY_KEY]),
        large("strlen", &["STRLEN", ANY_KEY]),
        large("getrange", &["GETRANGE", ANY_KEY, "0", "0"]),
        large("append", &["APPEND", ANY_KEY, ""]),
        large("llen", &["LLEN", ANY_KEY]),
        large("lrange", &["LRANGE", ANY_KEY, "0", "0"]),
        large("rpush", &["RPUSH", ANY_KEY, ""]),
        large("scard", &["SCARD", ANY_KEY]),
        large("sscan", &["SSCAN", ANY_KEY, "0"]),
        large("zcard", &["ZCARD", ANY_KEY]),
        large("zscan", &["ZSCAN", ANY_KEY, "0"]),
        large("hlen", &["HLEN", ANY_KEY]),
        large("hscan", &["HSCAN", ANY_KEY, "0"]),
        large("hpexpiretime", &["HPEXPIRETIME", ANY_KEY, "FIELDS", "1", "f"]),
        large("xlen", &["XLEN", ANY_KEY]),
        large("xrange", &["XRANGE", ANY_KEY, "-", "+"]),
        large("xinfo|stream", &["XINFO", "STREAM", ANY_KEY]),
        large("xpending", &["XPENDING", ANY_KEY, "g"]),
        large("xadd", &["XADD", ANY_KEY, "*", "f", "v"]),
        large("xclaim", &["XCLAIM", ANY_KEY, "g", "c", "0", "1-1"]),
        large("xsetid", &["XSETID", ANY_KEY, "1-1"]),
        large("pexpire", &["PEXPIRE", ANY_KEY, "1"]),
        repair("eval", &["EVAL", "return 1", "0"], Useful("elements that clients write to all the time stay")),
        need("replicaof", &["REPLICAOF", "NO", "ONE"], Unused, Required, Unused),
        // With these two, what was begun and failed is undone.
        need("flushall", &["FLUSHALL", "ASYNC"], Unused, Required, Unused),
        need(
            "function|flush",
            &["FUNCTION", "FLUSH", "ASYNC"],
            Unused,
            Useful("functions stay when a restore is undone"),
            Unused,
        ),
        need(
            "function|list",
            &["FUNCTION", "LIST"],
            Useful("functions are not counted"),
            Useful("functions are not counted"),
            RequiredFor(Repairs::LIBRARIES, Some("functions are not counted")),
        ),
        need(
            "function|restore",
            &["FUNCTION", "RESTORE", ""],
            Useful("functions cannot be restored"),
            Unused,
            RequiredFor(Repairs::LIBRARIES, Some("functions cannot be restored")),
        ),
        need(
            "scan",
            &["SCAN", "0"],
            Unused,
            Useful("what has expired is not counted"),
            RequiredFor(Repairs::DELETE, None),
        ),
        need(
            "time",
            &["TIME"],
            Useful("its clock is taken to be that of this machine"),
            Unused,
            Useful("its clock is taken to be that of this machine"),
        ),
        need("hset", &["HSET", KEY, "f", "v"], Useful(MARKER), Unused, Useful(MARKER)),
        need("hdel", &["HDEL", KEY, "f"], Useful(MARKER), Unused, Useful(MARKER)),
        all("hgetall", &["HGETALL", KEY], Useful("restores that did not end are not seen")),
        all("client|id", &["CLIENT", "ID"], Useful(ONE_AT_A_TIME)),
        all("client|setname", &["CLIENT", "SETNAME", ""], Useful(ONE_AT_A_TIME)),
        all("client|list", &["CLIENT", "LIST"], Useful(ONE_AT_A_TIME)),
        all("config|get", &["CONFIG", "GET", "databases"], Useful(LIMITS)),
        all("command|info", &["COMMAND", "INFO", "restore"], Useful("missing commands are not seen")),
        all("acl|whoami", &["ACL", "WHOAMI"], Useful("missing rights are not seen")),
        all("acl|dryrun", &["ACL", "DRYRUN", "default", "PING"], Useful("missing rights are not seen")),
    ]
};

/// How data gets to a target, as far as rights are concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum By {
    Copy,
    Link,
    /// Into a target that holds others.
    Repair(Repairs),
}

/// What a repair does beside creating keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Repairs(u8);

impl Repairs {
    /// Keys get other values, or other times of expiry.
    pub const OVERWRITE: Self = Self(1);
    /// Elements are set.
    pub const MERGE: Self = Self(2);
    /// Keys are deleted.
    pub const DELETE: Self = Self(4);
    const OVERWRITE_OR_DELETE: Self = Self(1 | 4);
    /// Function libraries are replaced and deleted.
    const LIBRARIES: Self = Self(8);
    /// Keys and elements are set and deleted, each by its name.
    pub(crate) const UNDO: Self = Self(1 | 2);

    /// What a policy may do.
    pub(crate) fn of(policy: &Policy) -> Self {
        let written = match policy.on_conflict {
            OnConflict::Fail | OnConflict::Skip | OnConflict::Rename => 0,
            OnConflict::Replace => Self::OVERWRITE.0,
            OnConflict::Merge => Self::OVERWRITE.0 | Self::MERGE.0,
        };
        let libraries = if policy.replace_all { Self::LIBRARIES.0 } else { 0 };
        Self(written | libraries | if policy.deletes() { Self::DELETE.0 } else { 0 })
    }

    fn has_one_of(self, others: Self) -> bool {
        self.0 & others.0 != 0
    }
}

impl Need {
    fn by(&self, by: By) -> Use {
        match by {
            By::Copy => self.copy,
            By::Link => self.link,
            By::Repair(repairs) => match self.repair {
                RequiredFor(what, _) if repairs.has_one_of(what) => Required,
                RequiredFor(_, loss) => loss.map_or(Unused, Useful),
                used => used,
            },
        }
    }

    /// The command with its container, as messages name it.
    fn command(&self) -> String {
        self.rule.to_ascii_uppercase().replace('|', " ")
    }

    fn args(&self, key: &[u8]) -> Vec<Vec<u8>> {
        let arg = |word: &&str| if *word == ANY_KEY { key.to_vec() } else { word.as_bytes().to_vec() };
        self.example.iter().map(arg).collect()
    }

    fn id(&self) -> Id {
        (self.rule, self.takes_a_key())
    }

    fn takes_a_key(&self) -> bool {
        self.example.contains(&ANY_KEY)
    }
}

/// The least rights for a method, as rules of an access list: what is required, and what is useful.
#[cfg(test)]
pub(crate) fn least(by: By) -> (String, String) {
    let rules = |wanted: &dyn Fn(Use) -> bool| {
        let mut rules: Vec<String> = Vec::new();
        for need in NEEDS.iter().filter(|need| wanted(need.by(by))) {
            let rule = format!("+{}", need.rule);
            if !rules.contains(&rule) {
                rules.push(rule);
            }
        }
        rules.join(" ")
    };
    (rules(&|used| used == Required), rules(&|used| matches!(used, Useful(_))))
}

/// Why a command cannot be run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refused {
    /// The server does not have it, at least not under this name.
    Unknown,
    /// The user may not, in the server's words.
    Denied(String),
}

impl Refused {
    /// As the second half of a sentence about the server.
    pub(crate) fn words(&self, command: &str) -> String {
        match self {
            Self::Unknown => format!("it does not know {command} (renamed, or a managed service)"),
            Self::Denied(why) => why.clone(),
        }
    }

    /// As the end of a restore that needs the command.
    pub(crate) fn error(&self, address: &str, command: &str) -> RestoreError {
        let (address, command) = (address.to_owned(), command.to_owned());
        match self {
            Self::Denied(cause) => RestoreError::Denied { address, command, cause: cause.clone() },
            Self::Unknown => RestoreError::Unable(format!(
                "{address} does not know {command}, which a restore needs. If it has another name there (rename-command), give --target-command {}=ITS-NAME; some managed services do without it, and nothing can be restored to them",
                command.split(' ').next().unwrap_or_default()
            )),
        }
    }
}

/// A need: its rule, and whether it is about the wanted keys.
type Id = (&'static str, bool);

/// What a target does not let us do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rights {
    /// Commands that cannot be run, by their rules.
    refused: BTreeMap<Id, Refused>,
    /// Refused for a key that nobody has: whether for the wanted ones, too, is not known yet.
    some_keys: BTreeSet<&'static str>,
    /// The server could be asked.
    pub(crate) asked: bool,
}

impl Rights {
    /// Asks about all commands of the table, with a key that nobody has in the place of the wanted ones.
    pub(crate) fn read(server: &mut Server, version: ServerVersion) -> Result<Self, RestoreError> {
        let mut rights = Self { refused: unknown(server)?, ..Self::default() };
        rights.refused.retain(|(rule, _), _| is_in(rule, version));
        let any = format!("redtape:{}", random::hex(16)).into_bytes();
        let asked: Vec<&Need> =
            NEEDS.iter().filter(|need| is_in(need.rule, version) && !rights.refused.contains_key(&need.id())).collect();
        let examples: Vec<Vec<Vec<u8>>> = asked.iter().map(|need| need.args(&any)).collect();
        let Some(answers) = ask(server, &examples)? else { return Ok(rights) };
        rights.asked = true;
        for (need, why) in asked.into_iter().zip(answers) {
            let Some(why) = why else { continue };
            if need.takes_a_key() && !is_about_the_command(&why) {
                // Perhaps only this key.
                rights.some_keys.insert(need.rule);
            } else {
                rights.refused.insert(need.id(), Refused::Denied(why));
            }
        }
        Ok(rights)
    }

    /// Keys are allowed one by one: whether the wanted ones are, is not known yet.
    pub(crate) fn some_keys(&self, by: By) -> bool {
        NEEDS.iter().any(|need| need.by(by) == Required && self.some_keys.contains(need.rule))
    }

    /// The first command that a method cannot do without and that cannot be run: its name, and why.
    pub(crate) fn missing(&self, by: By) -> Option<(String, &Refused)> {
        let need = NEEDS.iter().find(|need| need.by(by) == Required && self.refused.contains_key(&need.id()))?;
        Some((need.command(), self.refused.get(&need.id())?))
    }

    /// What is lost because commands cannot be run that a method can do without; each loss with its commands.
    pub(crate) fn losses(&self, by: By) -> Vec<(&'static str, Vec<String>)> {
        let mut losses: Vec<(&'static str, Vec<String>)> = Vec::new();
        for need in NEEDS.iter().filter(|need| self.refused.contains_key(&need.id())) {
            let Useful(loss) = need.by(by) else { continue };
            match losses.iter_mut().find(|(other, _)| *other == loss) {
                Some((_, commands)) => commands.push(need.command()),
                None => losses.push((loss, vec![need.command()])),
            }
        }
        losses
    }
}

#[cfg(test)]
impl Rights {
    /// Of a server that does not know these commands.
    pub(crate) fn without(rules: &[&'static str]) -> Self {
        Self {
            refused: rules
                .iter()
                .flat_map(|rule| [(*rule, false), (*rule, true)])
                .map(|id| (id, Refused::Unknown))
                .collect(),
            some_keys: BTreeSet::new(),
            asked: true,
        }
    }
}

/// Whether the user may restore each of these keys: why not, for the first that is refused. `None` = each, or it cannot be asked.
pub(crate) fn refused_key(
    server: &mut Server,
    version: ServerVersion,
    by: By,
    keys: &[Vec<u8>],
) -> Result<Option<(usize, String)>, RestoreError> {
    let asked = |need: &&Need| need.takes_a_key() && need.by(by) == Required && is_in(need.rule, version);
    let needs: Vec<&Need> = NEEDS.iter().filter(asked).collect();
    let examples: Vec<Vec<Vec<u8>>> = keys.iter().flat_map(|key| needs.iter().map(|need| need.args(key))).collect();
    let Some(answers) = ask(server, &examples)? else { return Ok(None) };
    let for_each_key = examples.len() / keys.len().max(1);
    let mut answers = answers.into_iter().enumerate();
    Ok(answers.find_map(|(n, why)| Some((n / for_each_key, why?))))
}

/// A server refuses a command whatever its keys, as opposed to these keys; the words are those of `acl.c`.
fn is_about_the_command(why: &str) -> bool {
    why.contains("no permissions to run ")
}

/// The version has the command, and it is sent to it. Without functions, none is missed.
fn is_in(rule: &str, version: ServerVersion) -> bool {
    let since_7 = rule.starts_with("function|") || matches!(rule, "acl|dryrun" | "pexpiretime");
    let has_7 = version.has_redis(7, 0);
    match rule {
        "pttl" => !has_7,
        "hpexpireat" | "hpexpiretime" => version.has_field_ttl(),
        _ => !since_7 || has_7,
    }
}

/// Commands that the server does not know, whatever the reason.
fn unknown(server: &mut Server) -> Result<BTreeMap<Id, Refused>, RestoreError> {
    let mut args: Vec<Vec<u8>> = vec![b"COMMAND".to_vec(), b"INFO".to_vec()];
    args.extend(NEEDS.iter().map(|need| server.names().get(need.example[0].as_bytes()).to_vec()));
    let Reply::Value(Value::Array(rows)) = server.try_call(&args)? else { return Ok(BTreeMap::new()) };
    let missing = |row: &Value| match row {
        Value::Nil => true,
        Value::Array(fields) => fields.is_empty(),
        _ => false,
    };
    let missing = NEEDS.iter().zip(&rows).filter(|(_, row)| missing(row));
    Ok(missing.map(|(need, _)| (need.id(), Refused::Unknown)).collect())
}

/// For each command why it would be refused; `None` for all = the server does not let us ask.
fn ask(server: &mut Server, commands: &[Vec<Vec<u8>>]) -> Result<Option<Vec<Option<String>>>, RestoreError> {
    if commands.is_empty() {
        return Ok(Some(Vec::new()));
    }
    match dry_run(server, commands)? {
        Some(answers) => Ok(Some(answers)),
        None => queue_and_discard(server, commands),
    }
}

/// `ACL DRYRUN`, which Redis has since 7.0.
fn dry_run(server: &mut Server, commands: &[Vec<Vec<u8>>]) -> Result<Option<Vec<Option<String>>>, RestoreError> {
    let Reply::Value(user) = server.try_call(&["ACL", "WHOAMI"])? else { return Ok(None) };
    let user = text(&user);
    let mut packed = Vec::new();
    for command in commands {
        let mut args: Vec<&[u8]> = vec![b"ACL", b"DRYRUN", user.as_bytes()];
        args.extend(command.iter().map(Vec::as_slice));
        args[3] = server.names().get(args[3]);
        server.encode(&mut packed, &args);
    }
    let (mut answers, mut known) = (Vec::with_capacity(commands.len()), false);
    for reply in server.pipeline(&packed, commands.len())? {
        known |= matches!(reply, Reply::Value(_));
        answers.push(match reply {
            // A server without DRYRUN answers each of them with an error; one that has it, commands that it does not know.
            Reply::Value(Value::Status(_)) | Reply::Error(_) => None,
            Reply::Value(reason) => Some(format!("its user {user:?} may not: {}", text(&reason))),
        });
    }
    Ok(known.then_some(answers))
}

/// It would run a transaction that is never to run.
fn ends_a_transaction(command: &[Vec<u8>]) -> bool {
    let ends = ["EXEC", "DISCARD", "RESET", "QUIT"];
    command.first().is_some_and(|name| ends.iter().any(|end| name.eq_ignore_ascii_case(end.as_bytes())))
}

/// In a transaction that never runs. Of the commands that would end it nothing is known.
fn queue_and_discard(
    server: &mut Server,
    commands: &[Vec<Vec<u8>>],
) -> Result<Option<Vec<Option<String>>>, RestoreError> {
    if server.try_call(&["MULTI"])?.error().is_some() {
        return Ok(None);
    }
    let mut packed = Vec::new();
    let is_asked = |command: &&Vec<Vec<u8>>| !ends_a_transaction(command);
    for command in commands.iter().filter(is_asked) {
        server.encode(&mut packed, command);
    }
    let asked = commands.iter().filter(is_asked).count();
    let mut replies = server.pipeline(&packed, asked)?.into_iter();
    if server.try_call(&["DISCARD"])?.error().is_some() {
        // Whatever stands in the queue goes with the connection.
        server.reconnect()?;
    }
    let refused = |reply: Reply| reply.error().filter(|e| meaning(&e.code) == Refusal::Denied).map(|e| e.text);
    let answer = |command| if is_asked(&command) { replies.next().and_then(refused) } else { None };
    Ok(Some(commands.iter().map(answer).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::repair::TtlPolicy;

    #[test]
    fn the_documentation_names_the_least_rights() {
        let docs = include_str!("../../../docs/restore.md");
        for by in [By::Copy, By::Link] {
            let (required, useful) = least(by);
            let line = format!("`{required}`, and if it may `{useful}`");
            assert!(docs.contains(&line), "{by:?}: {line}");
        }
        let (each, useful) = least(By::Repair(Repairs::default()));
        let line = format!("- repair: `{each}`, and if it may `{useful}`");
        assert!(docs.contains(&line), "{line}");
        let policies = [
            ("replace", Policy { on_conflict: OnConflict::Replace, ..Policy::default() }),
            ("merge", Policy { on_conflict: OnConflict::Merge, ..Policy::default() }),
            ("--delete-absent", Policy { delete_absent: true, ..Policy::default() }),
            ("--replace-all", Policy::replace_all(TtlPolicy::Absolute)),
        ];
        for (name, policy) in policies {
            let required = least(By::Repair(Repairs::of(&policy))).0;
            let more = required.split(' ').filter(|rule| !each.split(' ').any(|other| other == *rule));
            let line = format!("- repair with `{name}`: also `{}`", more.collect::<Vec<_>>().join(" "));
            assert!(docs.contains(&line), "{line}");
        }
    }

    #[test]
    fn no_command_that_is_queued_ends_a_transaction() {
        let queued = || NEEDS.iter().filter(|need| !ends_a_transaction(&need.args(b"k")));
        for ends in ["EXEC", "DISCARD", "RESET", "QUIT"] {
            assert!(queued().all(|need| need.example[0] != ends), "{ends}");
        }
        assert_eq!(queued().count(), NEEDS.len() - 1, "all but EXEC are asked about");
    }

    #[test]
    fn what_is_missing_is_named_with_what_is_lost() {
        let mut rights = Rights::default();
        assert_eq!(rights.missing(By::Copy), None);
        for rule in ["restore", "client|list", "client|id", "flushall"] {
            let need = NEEDS.iter().find(|need| need.rule == rule).expect("a rule");
            rights.refused.insert(need.id(), Refused::Unknown);
        }
        assert_eq!(rights.missing(By::Copy), Some(("RESTORE".to_owned(), &Refused::Unknown)));
        assert_eq!(rights.missing(By::Link), Some(("FLUSHALL".to_owned(), &Refused::Unknown)));
        let losses = rights.losses(By::Copy);
        assert_eq!(losses, [(ONE_AT_A_TIME, vec!["CLIENT ID".to_owned(), "CLIENT LIST".to_owned()])]);
    }
}
