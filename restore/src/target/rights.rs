//! What a restore sends to a target, and whether it may: one table for the plan, the documentation and the tests.
//!
//! Asked before anything is written: `COMMAND INFO` tells which commands the server does not know, `ACL DRYRUN` (Redis 7.0) which
//! ones the user may not run. Where that is not to be had, the commands are queued in a transaction, which is then discarded: the
//! server refuses there what it would refuse, and runs nothing.

use std::collections::BTreeMap;

use crate::client::{Reply, Server, Value, text};
use crate::error::RestoreError;
use crate::random;
use crate::refusal::{Refusal, meaning};
use crate::target::unfinished::KEY;
use crate::version::ServerVersion;

/// What a method does with a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    /// It cannot do without.
    Required,
    /// Without it, this is lost.
    Useful(&'static str),
    Unused,
}
use Use::{Required, Unused, Useful};

/// A command, and what it is for.
#[derive(Debug, Clone, Copy)]
struct Need {
    /// As access lists name it.
    rule: &'static str,
    /// An example that could be run: [`ANY_KEY`] stands for a key that is to be restored.
    example: &'static [&'static str],
    copy: Use,
    link: Use,
}

const ANY_KEY: &str = "<key>";
const ONE_AT_A_TIME: &str = "other restores of the same target are not seen";
const MARKER: &str = "a restore that is killed leaves no sign of it in the target";
const LIMITS: &str = "its limits are unknown";

const NEEDS: [Need; 22] = {
    const fn need(rule: &'static str, example: &'static [&'static str], copy: Use, link: Use) -> Need {
        Need { rule, example, copy, link }
    }
    [
        need("info", &["INFO"], Required, Required),
        need("select", &["SELECT", "0"], Required, Required),
        need("restore", &["RESTORE", ANY_KEY, "0", "", "ABSTTL"], Required, Unused),
        need("exists", &["EXISTS", ANY_KEY], Required, Unused),
        need("dump", &["DUMP", ANY_KEY], Required, Unused),
        need("replicaof", &["REPLICAOF", "NO", "ONE"], Unused, Required),
        // With these two, what was begun and failed is undone.
        need("flushall", &["FLUSHALL", "ASYNC"], Unused, Required),
        need(
            "function|flush",
            &["FUNCTION", "FLUSH", "ASYNC"],
            Unused,
            Useful("functions stay when a restore is undone"),
        ),
        need(
            "function|list",
            &["FUNCTION", "LIST"],
            Useful("functions are not counted"),
            Useful("functions are not counted"),
        ),
        need("function|restore", &["FUNCTION", "RESTORE", ""], Useful("functions cannot be restored"), Unused),
        need("scan", &["SCAN", "0"], Unused, Useful("what has expired is not counted")),
        need("time", &["TIME"], Useful("its clock is taken to be that of this machine"), Unused),
        need("hset", &["HSET", KEY, "f", "v"], Useful(MARKER), Unused),
        need("hdel", &["HDEL", KEY, "f"], Useful(MARKER), Unused),
        need(
            "hgetall",
            &["HGETALL", KEY],
            Useful("restores that did not end are not seen"),
            Useful("restores that did not end are not seen"),
        ),
        need("client|id", &["CLIENT", "ID"], Useful(ONE_AT_A_TIME), Useful(ONE_AT_A_TIME)),
        need("client|setname", &["CLIENT", "SETNAME", ""], Useful(ONE_AT_A_TIME), Useful(ONE_AT_A_TIME)),
        need("client|list", &["CLIENT", "LIST"], Useful(ONE_AT_A_TIME), Useful(ONE_AT_A_TIME)),
        need("config|get", &["CONFIG", "GET", "databases"], Useful(LIMITS), Useful(LIMITS)),
        need(
            "command|info",
            &["COMMAND", "INFO", "restore"],
            Useful("missing commands are not seen"),
            Useful("missing commands are not seen"),
        ),
        need(
            "acl|whoami",
            &["ACL", "WHOAMI"],
            Useful("missing rights are not seen"),
            Useful("missing rights are not seen"),
        ),
        need(
            "acl|dryrun",
            &["ACL", "DRYRUN", "default", "PING"],
            Useful("missing rights are not seen"),
            Useful("missing rights are not seen"),
        ),
    ]
};

/// How data gets to a target, as far as rights are concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum By {
    Copy,
    Link,
}

impl Need {
    fn by(&self, by: By) -> Use {
        match by {
            By::Copy => self.copy,
            By::Link => self.link,
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

    fn takes_a_key(&self) -> bool {
        self.example.contains(&ANY_KEY)
    }
}

/// The least rights for a method, as rules of an access list: what is required, and what is useful.
#[cfg(test)]
pub(crate) fn least(by: By) -> (String, String) {
    let rules = |wanted: &dyn Fn(Use) -> bool| {
        let rules = NEEDS.iter().filter(|need| wanted(need.by(by))).map(|need| format!("+{}", need.rule));
        rules.collect::<Vec<_>>().join(" ")
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

/// What a target does not let us do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rights {
    /// Commands that cannot be run, by their rules.
    refused: BTreeMap<&'static str, Refused>,
    /// Keys are allowed one by one: whether the wanted ones are, is not known yet.
    pub(crate) some_keys: bool,
    /// The server could be asked.
    pub(crate) asked: bool,
}

impl Rights {
    /// Asks about all commands of the table, with a key that nobody has in the place of the wanted ones.
    pub(crate) fn read(server: &mut Server, version: ServerVersion) -> Result<Self, RestoreError> {
        let mut rights = Self { refused: unknown(server)?, ..Self::default() };
        rights.refused.retain(|rule, _| is_in(rule, version));
        let any = format!("redtape:{}", random::hex(16)).into_bytes();
        let asked: Vec<&Need> =
            NEEDS.iter().filter(|need| is_in(need.rule, version) && !rights.refused.contains_key(need.rule)).collect();
        let examples: Vec<Vec<Vec<u8>>> = asked.iter().map(|need| need.args(&any)).collect();
        let Some(answers) = ask(server, &examples)? else { return Ok(rights) };
        rights.asked = true;
        for (need, why) in asked.into_iter().zip(answers) {
            let Some(why) = why else { continue };
            if need.takes_a_key() {
                // The command, or only this key.
                rights.some_keys = true;
            } else {
                rights.refused.insert(need.rule, Refused::Denied(why));
            }
        }
        Ok(rights)
    }

    /// The first command that a method cannot do without and that cannot be run: its name, and why.
    pub(crate) fn missing(&self, by: By) -> Option<(String, &Refused)> {
        let need = NEEDS.iter().find(|need| need.by(by) == Required && self.refused.contains_key(need.rule))?;
        Some((need.command(), self.refused.get(need.rule)?))
    }

    /// What is lost because commands cannot be run that a method can do without; each loss with its commands.
    pub(crate) fn losses(&self, by: By) -> Vec<(&'static str, Vec<String>)> {
        let mut losses: Vec<(&'static str, Vec<String>)> = Vec::new();
        for need in NEEDS.iter().filter(|need| self.refused.contains_key(need.rule)) {
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
        Self { refused: rules.iter().map(|rule| (*rule, Refused::Unknown)).collect(), some_keys: false, asked: true }
    }
}

/// Whether the user may restore each of these keys: why not, for the first that is refused. `None` = each, or it cannot be asked.
pub(crate) fn refused_key(server: &mut Server, keys: &[Vec<u8>]) -> Result<Option<(usize, String)>, RestoreError> {
    let examples: Vec<Vec<Vec<u8>>> =
        keys.iter().flat_map(|key| NEEDS.iter().filter(|need| need.takes_a_key()).map(|need| need.args(key))).collect();
    let Some(answers) = ask(server, &examples)? else { return Ok(None) };
    let for_each_key = examples.len() / keys.len().max(1);
    let mut answers = answers.into_iter().enumerate();
    Ok(answers.find_map(|(n, why)| Some((n / for_each_key, why?))))
}

/// The version has the command. Without functions, none is missed.
fn is_in(rule: &str, version: ServerVersion) -> bool {
    let since_7 = rule.starts_with("function|") || rule == "acl|dryrun";
    !since_7 || version.has_redis(7, 0)
}

/// Commands that the server does not know, whatever the reason.
fn unknown(server: &mut Server) -> Result<BTreeMap<&'static str, Refused>, RestoreError> {
    let mut args: Vec<Vec<u8>> = vec![b"COMMAND".to_vec(), b"INFO".to_vec()];
    args.extend(NEEDS.iter().map(|need| server.names().get(need.example[0].as_bytes()).to_vec()));
    let Reply::Value(Value::Array(rows)) = server.try_call(&args)? else { return Ok(BTreeMap::new()) };
    let missing = |row: &Value| match row {
        Value::Nil => true,
        Value::Array(fields) => fields.is_empty(),
        _ => false,
    };
    let missing = NEEDS.iter().zip(&rows).filter(|(_, row)| missing(row));
    Ok(missing.map(|(need, _)| (need.rule, Refused::Unknown)).collect())
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

/// In a transaction that never runs. None of the commands may end it.
fn queue_and_discard(
    server: &mut Server,
    commands: &[Vec<Vec<u8>>],
) -> Result<Option<Vec<Option<String>>>, RestoreError> {
    if server.try_call(&["MULTI"])?.error().is_some() {
        return Ok(None);
    }
    let mut packed = Vec::new();
    for command in commands {
        server.encode(&mut packed, command);
    }
    let replies = server.pipeline(&packed, commands.len())?;
    if server.try_call(&["DISCARD"])?.error().is_some() {
        // Whatever stands in the queue goes with the connection.
        server.reconnect()?;
    }
    let refused = |reply: Reply| reply.error().filter(|e| meaning(&e.code) == Refusal::Denied).map(|e| e.text);
    Ok(Some(replies.into_iter().map(refused).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documentation_names_the_least_rights() {
        let docs = include_str!("../../../docs/restore.md");
        for by in [By::Copy, By::Link] {
            let (required, useful) = least(by);
            let line = format!("`{required}`, and if it may `{useful}`");
            assert!(docs.contains(&line), "{by:?}: {line}");
        }
    }

    #[test]
    fn no_command_of_the_table_ends_a_transaction() {
        for ends in ["EXEC", "DISCARD", "RESET", "QUIT"] {
            assert!(NEEDS.iter().all(|need| need.example[0] != ends), "{ends}");
        }
    }

    #[test]
    fn what_is_missing_is_named_with_what_is_lost() {
        let mut rights = Rights::default();
        assert_eq!(rights.missing(By::Copy), None);
        for rule in ["restore", "client|list", "client|id", "flushall"] {
            rights.refused.insert(rule, Refused::Unknown);
        }
        assert_eq!(rights.missing(By::Copy), Some(("RESTORE".to_owned(), &Refused::Unknown)));
        assert_eq!(rights.missing(By::Link), Some(("FLUSHALL".to_owned(), &Refused::Unknown)));
        let losses = rights.losses(By::Copy);
        assert_eq!(losses, [(ONE_AT_A_TIME, vec!["CLIENT ID".to_owned(), "CLIENT LIST".to_owned()])]);
    }
}
