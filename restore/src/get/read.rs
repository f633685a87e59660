//! Reads the value of one key in an idle scratch server.

use redtape_wire::rdb::{decode_value, parse_dump};

use super::Present;
use crate::client::{Reply, Server, Value};
use crate::error::RestoreError;
use crate::source::scratch::Scratch;
use crate::target::lookup::{expiry, show, ttl_command};
use crate::target::value_error::unreadable;

/// The result.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) value: Option<Present>,
    /// Databases that have a key of this name, if this one has not.
    pub(super) other_dbs: Vec<u32>,
}

/// Reads a key; `others`: the databases to search if it is absent. Further databases hold only what the replay needed.
/// The clock is stopped meanwhile, so nothing expires.
pub(super) fn key(
    scratch: &mut Scratch,
    (db, others): (u32, &[u32]),
    key: &[u8],
    limit: u64,
) -> Result<Read, RestoreError> {
    let at_ms = scratch.hold()?;
    let absolute = scratch.version.has_redis(7, 0);
    let server = &mut scratch.server;
    let dbs: Vec<u32> = server.info(Some("keyspace"))?.keyspace().into_keys().collect();
    // A database without keys may not exist in the server.
    if dbs.contains(&db) && has(server, db, key)? {
        let value = Some(value(server, key, absolute, at_ms, limit)?);
        return Ok(Read { value, other_dbs: Vec::new() });
    }
    let mut other_dbs = Vec::new();
    for other in dbs.into_iter().filter(|other| others.contains(other)) {
        if has(server, other, key)? {
            other_dbs.push(other);
        }
    }
    Ok(Read { value: None, other_dbs })
}

fn has(server: &mut Server, db: u32, key: &[u8]) -> Result<bool, RestoreError> {
    server.call(&["SELECT", &db.to_string()])?;
    Ok(server.call(&[b"EXISTS", key])? != Value::Int(0))
}

fn value(server: &mut Server, key: &[u8], absolute: bool, at_ms: i64, limit: u64) -> Result<Present, RestoreError> {
    // The size of a module's value may be unknown.
    if let Reply::Value(Value::Int(bytes)) = server.try_call(&[&b"MEMORY"[..], b"USAGE", key])?
        && u64::try_from(bytes).is_ok_and(|bytes| bytes > limit)
    {
        return Err(too_large(key, limit));
    }
    let Value::Bytes(dump) = server.call(&[b"DUMP", key])? else {
        return Err(RestoreError::Scratch(format!("did not give the value of {}", show(key))));
    };
    let Value::Int(ttl) = server.call(&[ttl_command(absolute), key])? else {
        return Err(RestoreError::Scratch(format!("did not give the TTL of {}", show(key))));
    };
    let decoded = parse_dump(&dump).and_then(|payload| decode_value(payload.value_type, payload.value, limit));
    let value = decoded.map_err(|e| unreadable(key, e))?;
    let expires = expiry(ttl, absolute, at_ms);
    Ok(Present { value, expired_fields: 0, expires_at_ms: (expires != 0).then_some(expires), dump_bytes: dump.len() })
}

fn too_large(key: &[u8], limit: u64) -> RestoreError {
    RestoreError::Unable(format!(
        "the value of {} takes more than {limit} bytes; restore that key alone to a server instead: redtape restore --exact-key",
        show(key)
    ))
}
