//! What a server holds, written down so that two servers can be compared.
//!
//! Keys are compared by type, value in full, and the millisecond at which they expire; streams with
//! their groups, consumers and pending entries; functions by their dump. Not compared is what Redis
//! does not tell its own replicas either: when a consumer was last seen, how many entries a group has
//! read in all; and how a stream is laid out in memory.

use std::collections::{BTreeMap, BTreeSet};

use crate::commands::embedded::{WORK_TIMEOUT, open};
use redis::{Connection, RedisResult, Value, cmd, pipe};

/// Keys read in one go.
const BATCH: usize = 256;
/// Fields of `XINFO STREAM … FULL` that differ between equal streams.
const VOLATILE: [&[u8]; 6] =
    [b"seen-time", b"active-time", b"entries-read", b"lag", b"radix-tree-keys", b"radix-tree-nodes"];

/// A server's content.
#[derive(PartialEq, Eq)]
pub(super) struct World {
    keys: BTreeMap<(u32, Vec<u8>), Entry>,
    functions: Vec<u8>,
    /// `DEBUG DIGEST`, where it may be asked for.
    digest: Option<String>,
}

/// A key's content.
#[derive(PartialEq, Eq)]
struct Entry {
    kind: String,
    /// Unix time in ms; before Redis 7.0, which does not tell, 0. `None` = no TTL.
    expires: Option<i64>,
    value: Vec<u8>,
}

impl World {
    /// Reads everything; the caller makes sure that there are no writes.
    pub(super) fn read(url: &str) -> anyhow::Result<Self> {
        let mut conn = open(url, WORK_TIMEOUT)?;
        let info: String = cmd("INFO").arg("keyspace").query(&mut conn)?;
        let dbs = info.lines().filter_map(|l| l.strip_prefix("db")?.split_once(':')?.0.parse::<u32>().ok());
        let mut keys = BTreeMap::new();
        for db in dbs {
            cmd("SELECT").arg(db).query::<()>(&mut conn)?;
            let names: BTreeSet<Vec<u8>> = cmd("SCAN")
                .cursor_arg(0)
                .arg("COUNT")
                .arg(BATCH)
                .clone()
                .iter(&mut conn)?
                .collect::<RedisResult<_>>()?;
            let names: Vec<Vec<u8>> = names.into_iter().collect();
            for batch in names.chunks(BATCH) {
                for (name, entry) in batch.iter().zip(read_batch(&mut conn, batch)?) {
                    // One that expired between SCAN and here is gone.
                    if entry.kind != "none" {
                        keys.insert((db, name.clone()), entry);
                    }
                }
            }
        }
        // Redis before 7.0 has no functions.
        let functions = cmd("FUNCTION").arg("DUMP").query::<Vec<u8>>(&mut conn).unwrap_or_default();
        let digest = cmd("DEBUG").arg("DIGEST").query::<String>(&mut conn).ok();
        Ok(Self { keys, functions, digest })
    }

    /// Number of keys.
    pub(super) fn len(&self) -> u64 {
        self.keys.len() as u64
    }

    /// Number of keys that will expire.
    pub(super) fn expiring(&self) -> u64 {
        self.keys.values().filter(|e| e.expires.is_some()).count() as u64
    }

    /// Number of databases with keys.
    pub(super) fn databases(&self) -> u64 {
        self.keys.keys().map(|(db, _)| db).collect::<BTreeSet<_>>().len() as u64
    }

    /// The types that there are.
    pub(super) fn kinds(&self) -> BTreeSet<&str> {
        self.keys.values().map(|e| e.kind.as_str()).collect()
    }

    /// The times at which keys expire were compared to the millisecond; Redis before 7.0 does not tell.
    pub(super) fn tells_times(&self) -> bool {
        self.keys.values().any(|e| e.expires.is_some_and(|at| at > 0))
    }

    /// The server has functions.
    pub(super) fn has_functions(&self) -> bool {
        !self.functions.is_empty()
    }

    /// Redis's own digest over all keys and values, if it tells.
    pub(super) fn digest(&self) -> Option<&str> {
        self.digest.as_deref()
    }

    /// In which ways `other` is different; empty = equal.
    pub(super) fn differences(&self, other: &Self) -> Vec<String> {
        let mut found = Vec::new();
        let names: BTreeSet<_> = self.keys.keys().chain(other.keys.keys()).collect();
        for name in names {
            let what = match (self.keys.get(name), other.keys.get(name)) {
                (Some(a), Some(b)) if a == b => continue,
                (Some(_), None) => "is missing",
                (None, Some(_)) => "should not be there",
                (Some(a), Some(b)) if a.kind != b.kind => "has another type",
                (Some(a), Some(b)) if a.value != b.value => "has another value",
                _ => "has another TTL",
            };
            found.push(format!("db {} {} {what}", name.0, name.1.escape_ascii()));
        }
        if self.functions != other.functions {
            found.push("the functions are different".to_owned());
        }
        if found.is_empty() && self.digest != other.digest {
            found.push("DEBUG DIGEST is different".to_owned());
        }
        found
    }
}

fn read_batch(conn: &mut Connection, names: &[Vec<u8>]) -> anyhow::Result<Vec<Entry>> {
    let mut about = pipe();
    for name in names {
        about.cmd("TYPE").arg(name).cmd("PTTL").arg(name);
    }
    let about: Vec<(String, i64)> = about.query(conn)?;
    let mut values = pipe();
    for (name, (kind, _)) in names.iter().zip(&about) {
        match kind.as_str() {
            "list" => values.cmd("LRANGE").arg(name).arg(0).arg(-1),
            "hash" => values.cmd("HGETALL").arg(name),
            "set" => values.cmd("SMEMBERS").arg(name),
            "zset" => values.cmd("ZRANGE").arg(name).arg(0).arg(-1).arg("WITHSCORES"),
            "stream" => values.cmd("XINFO").arg("STREAM").arg(name).arg("FULL").arg("COUNT").arg(0),
            _ => values.cmd("GET").arg(name),
        };
    }
    let values: Vec<Value> = values.query(conn)?;
    let mut times = pipe();
    for name in names {
        times.cmd("PEXPIRETIME").arg(name);
    }
    let times: Vec<i64> = times.query(conn).unwrap_or_else(|_| vec![0; names.len()]);
    let entry = |(((kind, ttl), value), at): (((String, i64), Value), i64)| {
        let value = canonical(&kind, value);
        Entry { kind, expires: (ttl >= 0).then_some(at), value }
    };
    Ok(about.into_iter().zip(values).zip(times).map(entry).collect())
}

/// The same bytes for the same value, in whatever order a server lists it.
fn canonical(kind: &str, value: Value) -> Vec<u8> {
    let mut items = match value {
        Value::Array(items) | Value::Set(items) => items.iter().map(bytes).collect::<Vec<_>>(),
        Value::Map(pairs) => pairs.iter().flat_map(|(k, v)| [bytes(k), bytes(v)]).collect(),
        other => return bytes(&other),
    };
    match kind {
        "set" => items.sort(),
        "hash" => {
            let mut pairs: Vec<Vec<u8>> = items.chunks(2).map(<[_]>::concat).collect();
            pairs.sort();
            items = pairs;
        }
        "stream" => items = without_volatile(items.chunks(2)),
        _ => {}
    }
    items.concat()
}

/// A value with its length, so that neighbours cannot run into each other.
fn bytes(value: &Value) -> Vec<u8> {
    let raw = match value {
        Value::BulkString(b) => b.clone(),
        Value::SimpleString(s) => s.clone().into_bytes(),
        Value::Int(n) => n.to_string().into_bytes(),
        Value::Array(items) if items.iter().step_by(2).any(is_volatile) => {
            let items: Vec<Vec<u8>> = items.iter().map(bytes).collect();
            without_volatile(items.chunks(2)).concat()
        }
        Value::Array(items) => items.iter().flat_map(bytes).collect(),
        other => format!("{other:?}").into_bytes(),
    };
    let mut out = raw.len().to_le_bytes().to_vec();
    out.extend(raw);
    out
}

fn is_volatile(name: &Value) -> bool {
    matches!(name, Value::BulkString(b) if VOLATILE.contains(&b.as_slice()))
}

fn without_volatile<'a>(pairs: impl Iterator<Item = &'a [Vec<u8>]>) -> Vec<Vec<u8>> {
    let kept =
        pairs.filter(|pair| pair.first().is_none_or(|name| !VOLATILE.contains(&name.get(8..).unwrap_or_default())));
    kept.map(<[_]>::concat).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(s: &str) -> Value {
        Value::BulkString(s.as_bytes().to_vec())
    }

    #[test]
    fn order_matters_only_where_it_is_part_of_the_value() {
        let (ab, ba) = (|| Value::Array(vec![text("a"), text("b")]), || Value::Array(vec![text("b"), text("a")]));
        assert_eq!(canonical("set", ab()), canonical("set", ba()));
        assert_ne!(canonical("list", ab()), canonical("list", ba()));
        assert_ne!(canonical("hash", ab()), canonical("hash", ba()));
        let cut = |a: &str, b: &str| canonical("list", Value::Array(vec![text(a), text(b)]));
        assert_ne!(cut("ab", "c"), cut("a", "bc"));
    }

    #[test]
    fn when_a_consumer_was_seen_is_not_compared() {
        let stream = |seen, name| {
            let consumer = Value::Array(vec![text("name"), text(name), text("seen-time"), Value::Int(seen)]);
            let fields =
                vec![text("radix-tree-keys"), Value::Int(seen), text("consumers"), Value::Array(vec![consumer])];
            canonical("stream", Value::Array(fields))
        };
        assert_eq!(stream(1, "w"), stream(2, "w"));
        assert_ne!(stream(1, "w"), stream(1, "x"));
    }
}
