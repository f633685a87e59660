//! One value in its canonical form into bytes that a server loads, in the plainest encoding of its type: the server packs
//! small values itself when it loads them.
//!
//! | value | type | version |
//! | --- | --- | --- |
//! | string, list, set, sorted set, hash, module's | 0, 1, 2, 5, 4, 7 | 9: what all servers load |
//! | hash with field TTLs | 24, Valkey 22 | 12, Valkey 80 |
//! | stream | 15, 19, 21, 26 | the newest that the server loads: 9, 10, 11, 13 |

mod stream;

use crc_fast::{CrcAlgorithm, checksum};

use super::header::{Family, RdbVersion};
use super::length::write_length;
use super::loss::{Inexpressible, losses};
use super::string::write_string;
use super::table::ValueType;
use super::value::{Field, Value};

/// What every server that is known here loads (`REDIS0009`).
const OLDEST: RdbVersion = redis(9);

const fn redis(version: u32) -> RdbVersion {
    RdbVersion { family: Family::Redis, version }
}

/// A payload for `RESTORE`, to a server that loads RDBs up to the version `loads`. Refused if that version cannot hold all
/// of the value.
pub fn encode_dump(value: &Value, loads: RdbVersion) -> Result<Vec<u8>, Inexpressible> {
    let losses = losses(value, loads);
    if !losses.is_empty() {
        return Err(Inexpressible { version: loads, type_name: value.type_name(), losses });
    }
    let (of, version) = encoding(value, loads);
    let mut out = vec![of.number()];
    encode_value(value, of, &mut out);
    out.extend_from_slice(&(version.version as u16).to_le_bytes());
    let crc = checksum(CrcAlgorithm::Crc64Redis, &out);
    out.extend_from_slice(&crc.to_le_bytes());
    Ok(out)
}

fn encoding(value: &Value, loads: RdbVersion) -> (ValueType, RdbVersion) {
    match value {
        Value::String(_) => (ValueType::String, OLDEST),
        Value::List(_) => (ValueType::List, OLDEST),
        Value::Set(_) => (ValueType::Set, OLDEST),
        Value::Zset(_) => (ValueType::Zset2, OLDEST),
        Value::Hash(fields) if fields.iter().all(|field| field.expires_at_ms.is_none()) => (ValueType::Hash, OLDEST),
        Value::Hash(_) if loads.family == Family::Valkey => (ValueType::ValkeyHash2, loads),
        Value::Hash(_) => (ValueType::HashMetadata, redis(12)),
        Value::Stream(stream) => match (loads.family, loads.version) {
            (Family::Redis, ..=9) => (ValueType::Stream1, OLDEST),
            (Family::Redis, 10) => (ValueType::Stream2, redis(10)),
            (Family::Redis, 13..) if stream.idempotence.is_some() => (ValueType::Stream4, redis(13)),
            // Valkey loads what Redis 7.2 wrote.
            _ => (ValueType::Stream3, redis(11)),
        },
        Value::Module { .. } => (ValueType::Module2, OLDEST),
    }
}

fn encode_value(value: &Value, of: ValueType, out: &mut Vec<u8>) {
    match value {
        Value::String(bytes) => write_string(bytes, out),
        Value::List(elements) | Value::Set(elements) => {
            write_length(elements.len() as u64, out);
            for element in elements {
                write_string(element, out);
            }
        }
        Value::Zset(members) => {
            write_length(members.len() as u64, out);
            for (member, score) in members {
                write_string(member, out);
                out.extend_from_slice(&score.get().to_le_bytes());
            }
        }
        Value::Hash(fields) => encode_hash(fields, of, out),
        Value::Stream(stream) => stream::encode(stream, of, out),
        Value::Module { id, data } => {
            write_length(*id, out);
            out.extend_from_slice(data);
        }
    }
}

/// The forms are those that `decode/hash.rs` reads.
fn encode_hash(fields: &[Field], of: ValueType, out: &mut Vec<u8>) {
    let smallest = fields.iter().filter_map(|field| field.expires_at_ms).min().unwrap_or(0);
    if of == ValueType::HashMetadata {
        out.extend_from_slice(&smallest.to_le_bytes());
    }
    write_length(fields.len() as u64, out);
    for Field { name, value, expires_at_ms } in fields {
        if of == ValueType::HashMetadata {
            // One more than the distance to the smallest; 0 for none.
            write_length(expires_at_ms.map_or(0, |at| at.abs_diff(smallest).saturating_add(1)), out);
        }
        write_string(name, out);
        write_string(value, out);
        if of == ValueType::ValkeyHash2 {
            out.extend_from_slice(&expires_at_ms.unwrap_or(-1).to_le_bytes());
        }
    }
}

#[cfg(test)]
mod tests;
