//! What clients of a read-only server may do.
//!
//! The only user of the server may read, and nothing else; no other user is left that could give it more. Access control lists are in
//! every server from Redis 6.0 on, and hold inside scripts and transactions as well.
//!
//! Nothing is allowed that is not named here or in a category named here: a command of a later version that is not marked as reading is
//! refused. What a server does not know of [`IF_KNOWN`] stays refused.

use redtape_wire::url::Secret;

use crate::client::{Reply, Server};
use crate::error::RestoreError;

/// What every server understands. `CLIENT` is taken out of `@connection`: it can stop or close other clients. `WAIT` would wait for
/// ever.
const RULES: &[&str] = &[
    "reset",
    "on",
    "~*",
    "-@all",
    "+@read",
    "+@connection",
    "+@transaction",
    "-client",
    "-wait",
    "+auth",
    "+hello",
    "+ping",
    "+echo",
    "+select",
    "+command",
    "+info",
    "+time",
    "+eval",
    "+evalsha",
    "+script|load",
    "+script|exists",
    "-@dangerous",
    "+keys",
    "+info",
    // Before Redis 7.0 all of CLIENT counts as dangerous.
    "+client|id",
    "+client|getname",
    "+client|setname",
    "+client|reply",
    "+client|tracking",
    "+client|caching",
    "+client|getredir",
];

/// What some servers do not know, one by one.
const IF_KNOWN: &[&str] = &[
    "&*",
    "+eval_ro",
    "+evalsha_ro",
    "+fcall",
    "+fcall_ro",
    "+function|list",
    "+function|dump",
    "+function|stats",
    "+script|kill",
    "+function|kill",
    "+sort_ro",
    "+quit",
    "+reset",
    "+readonly",
    "-waitaof",
    "+client|info",
    "+client|setinfo",
    "+client|trackinginfo",
    "+client|no-touch",
    "+client|capa",
    "+client|help",
];

/// The user whose rights show what a server knows.
const PROBE: &str = "redtape-probe";

/// From now on clients may read and nothing else; so may `server`.
pub(super) fn restrict(server: &mut Server, password: Option<&Secret>) -> Result<(), RestoreError> {
    let known = known(server)?;
    let password = password.map_or_else(|| "nopass".to_owned(), |password| format!(">{}", password.expose()));
    let mut command = vec!["ACL", "SETUSER", "default"];
    command.extend(RULES);
    command.extend(known);
    command.push(&password);
    server.call(&command)?;
    check(server)
}

/// Those of [`IF_KNOWN`] that this server knows.
fn known(server: &mut Server) -> Result<Vec<&'static str>, RestoreError> {
    let mut known = Vec::new();
    for rule in IF_KNOWN {
        if matches!(server.try_call(&["ACL", "SETUSER", PROBE, rule])?, Reply::Value(_)) {
            known.push(*rule);
        }
    }
    server.call(&["ACL", "DELUSER", PROBE])?;
    Ok(known)
}

/// Nothing is served that does not refuse a write.
fn check(server: &mut Server) -> Result<(), RestoreError> {
    match server.try_call(&["DEL", "redtape:is-read-only"])? {
        Reply::Error(error) if error.code == "NOPERM" => Ok(()),
        _ => Err(RestoreError::Scratch("does not refuse writes; name another with --server-bin".to_owned())),
    }
}
