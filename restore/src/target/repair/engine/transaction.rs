//! `MULTI`, and what may stand in it.

use redtape_wire::resp::encode_command;

use super::Wanted;
use crate::client::{ErrorReply, Server, Value};
use crate::error::RestoreError;
use crate::refusal::{Refusal, meaning};
use crate::target::lookup::show;
use crate::target::repair::image::Image;

/// Keys of one transaction.
pub(super) const WATCHED_KEYS: usize = 64;
/// Bytes of one transaction, about: the server does nothing else meanwhile.
const WATCHED_BYTES: usize = 256 << 10;

/// How many fit into one transaction: one at least.
pub(super) fn transaction_len(keys: &[Wanted]) -> usize {
    let mut bytes = 0;
    let fit = keys.iter().take(WATCHED_KEYS).take_while(|Wanted { key, image, .. }| {
        bytes += key.len() + image.dump.len();
        bytes <= WATCHED_BYTES
    });
    fit.count().max(1)
}

/// Runs a transaction; `None` = a watched key was changed, and nothing was done.
pub(super) fn exec(server: &mut Server, packed: &[u8], commands: usize) -> Result<Option<Vec<Value>>, RestoreError> {
    let mut replies = server.pipeline(packed, commands + 2)?;
    let last = replies.pop();
    // A command that is refused when it is queued says more than EXEC, which then refuses all.
    for reply in replies {
        server.must("MULTI", reply)?;
    }
    match last.map(|reply| server.must("EXEC", reply)).transpose()? {
        None | Some(Value::Nil) => Ok(None),
        Some(Value::Array(replies)) => Ok(Some(replies)),
        Some(other) => Err(RestoreError::Link(format!("{} answered EXEC with {other:?}", server.address))),
    }
}

/// The same where each command has to succeed; `false` = a watched key was changed.
pub(super) fn exec_all(server: &mut Server, packed: &[u8], commands: usize) -> Result<bool, RestoreError> {
    let Some(replies) = exec(server, packed, commands)? else { return Ok(false) };
    match replies.iter().find_map(|reply| if let Value::Error(e) = reply { Some(e) } else { None }) {
        None => Ok(true),
        Some(error) => Err(server.refused("EXEC", error)),
    }
}

pub(super) fn encode_restore(packed: &mut Vec<u8>, key: &[u8], image: &Image, replace: bool) {
    let expires = image.expires_ms.to_string();
    let mut args: Vec<&[u8]> = vec![b"RESTORE", key, expires.as_bytes(), &image.dump, b"ABSTTL"];
    if replace {
        args.push(b"REPLACE");
    }
    encode_command(packed, &args);
}

pub(super) fn encode_expiry(packed: &mut Vec<u8>, key: &[u8], expires_ms: i64) {
    if expires_ms == 0 {
        encode_command(packed, &[b"PERSIST", key]);
    } else {
        encode_command(packed, &[b"PEXPIREAT", key, expires_ms.to_string().as_bytes()]);
    }
}

/// What a server says to a value that it cannot read is a plain `ERR`.
pub(super) fn not_taken(target: &Server, key: &[u8], error: &ErrorReply) -> RestoreError {
    if meaning(&error.code) != Refusal::Plain {
        return target.refused("RESTORE", error);
    }
    RestoreError::Unable(format!(
        "{} does not take the value of {} ({}): it is older than what the journal holds, or lacks a module. Restore to a newer server",
        target.address,
        show(key),
        error.text
    ))
}

/// Runs commands of three words in one transaction; what each has answered.
pub(super) fn run(server: &mut Server, commands: &[[&[u8]; 3]]) -> Result<Vec<Value>, RestoreError> {
    let mut packed = Vec::new();
    encode_command(&mut packed, &[b"MULTI"]);
    commands.iter().for_each(|command| encode_command(&mut packed, command));
    encode_command(&mut packed, &[b"EXEC"]);
    let replies = exec(server, &packed, commands.len())?;
    replies.ok_or_else(|| RestoreError::Link(format!("{} ran no transaction", server.address)))
}
