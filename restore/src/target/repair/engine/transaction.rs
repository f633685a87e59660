//! `MULTI` transactions, and their size limits.

use std::borrow::Cow;

use super::Wanted;
use crate::client::{Server, Value};
use crate::error::RestoreError;
use crate::values::image::Image;

/// Keys of one transaction.
const WATCHED_KEYS: usize = 64;
/// Approximate size of one transaction in bytes: it blocks the server.
const WATCHED_BYTES: usize = 256 << 10;

/// How many keys fit into one transaction with this server: at least one.
pub(super) fn transaction_len(server: &Server, keys: &[Wanted]) -> usize {
    let mut bytes = 0;
    let fit = keys.iter().take(keys_at_once(server)).take_while(|Wanted { key, image, .. }| {
        bytes += key.len() + image.dump.len();
        bytes <= WATCHED_BYTES
    });
    fit.count().max(1)
}

/// Largest number of keys in a transaction: in a cluster, different keys rarely share a slot.
pub(super) fn keys_at_once(server: &Server) -> usize {
    if server.is_in_cluster() { 1 } else { WATCHED_KEYS }
}

/// Runs a transaction; `None` = a watched key was changed, and nothing was done.
pub(super) fn exec(server: &mut Server, packed: &[u8], commands: usize) -> Result<Option<Vec<Value>>, RestoreError> {
    let mut replies = server.pipeline(packed, commands + 2)?;
    let last = replies.pop();
    // The error of a queued command explains more than EXEC's, which then refuses all.
    for reply in replies {
        server.must("MULTI", reply)?;
    }
    match last.map(|reply| server.must("EXEC", reply)).transpose()? {
        None | Some(Value::Nil) => Ok(None),
        Some(Value::Array(replies)) => Ok(Some(replies)),
        Some(other) => Err(RestoreError::Link(format!("{} answered EXEC with {other:?}", server.address))),
    }
}

/// As [`exec`], where each command must succeed; `false` = a watched key was changed.
pub(super) fn exec_all(server: &mut Server, packed: &[u8], commands: usize) -> Result<bool, RestoreError> {
    let Some(replies) = exec(server, packed, commands)? else { return Ok(false) };
    match replies.iter().find_map(|reply| if let Value::Error(e) = reply { Some(e) } else { None }) {
        None => Ok(true),
        Some(error) => Err(server.refused("EXEC", error)),
    }
}

pub(super) fn encode_restore(target: &Server, packed: &mut Vec<u8>, key: &[u8], image: &Image, replace: bool) {
    if !replace {
        return encode_create(target, packed, key, &image.dump, image.expires_ms);
    }
    let expires = image.expires_ms.to_string();
    target.encode(packed, &[b"RESTORE", key, expires.as_bytes(), &image.dump, b"ABSTTL", b"REPLACE"]);
}

/// Appends a `RESTORE` that overwrites nothing.
pub(super) fn encode_create(target: &Server, packed: &mut Vec<u8>, key: &[u8], dump: &[u8], expires_ms: i64) {
    let expires = if expires_ms == 0 { Cow::Borrowed("0") } else { Cow::Owned(expires_ms.to_string()) };
    target.encode(packed, &[b"RESTORE", key, expires.as_bytes(), dump, b"ABSTTL"]);
}

pub(super) fn encode_expiry(target: &Server, packed: &mut Vec<u8>, key: &[u8], expires_ms: i64) {
    if expires_ms == 0 {
        target.encode(packed, &[b"PERSIST", key]);
    } else {
        target.encode(packed, &[b"PEXPIREAT", key, expires_ms.to_string().as_bytes()]);
    }
}
