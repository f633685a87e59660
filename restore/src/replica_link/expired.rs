//! How many keys have expired since the restore point: counted in the replica, just before its promotion.
//!
//! A replica keeps keys whose TTL has passed and leaves them out of `SCAN`. Nothing changes in it while it is counted: it is
//! read-only, and no more commands come over its link.

use std::collections::BTreeMap;

use super::sender::Sender;
use crate::client::{Reply, Server, Value};
use crate::error::RestoreError;
use crate::progress::{Event, Observer, Unit};

/// Keys asked for in one step.
const SCAN_COUNT: &str = "1000";

/// The number of keys whose TTL has passed; `None` where the server does not allow to count them.
pub(super) fn count(sender: &mut Sender<'_>, observer: &mut dyn Observer) -> Result<Option<u64>, RestoreError> {
    let info = sender.server.info(Some("keyspace"))?;
    let volatile = info.volatile();
    let keys: BTreeMap<u32, u64> = info.keyspace().into_iter().filter(|(db, _)| volatile.contains_key(db)).collect();
    if keys.is_empty() {
        return Ok(Some(0));
    }
    observer.on(&Event::Step { name: "counting what has expired", total: keys.values().sum(), unit: Unit::Keys });
    let mut expired = Some(0);
    for (db, total) in keys {
        let Some(alive) = alive(sender, db, observer)? else {
            expired = None;
            break;
        };
        // SCAN may give a key twice where a table shrinks meanwhile, never leave one out.
        expired = expired.map(|n| n + total.saturating_sub(alive));
    }
    sender.server.call(&["SELECT", "0"])?;
    observer.on(&Event::StepDone);
    // The keep-alives are part of the stream.
    sender.barrier()?;
    Ok(expired)
}

/// Keys of a database that clients would see.
fn alive(sender: &mut Sender<'_>, db: u32, observer: &mut dyn Observer) -> Result<Option<u64>, RestoreError> {
    if sender.server.try_call(&["SELECT", &db.to_string()])?.error().is_some() {
        return Ok(None);
    }
    let (mut cursor, mut seen) = (b"0".to_vec(), 0);
    loop {
        sender.keep_alive()?;
        let Some((next, found)) = step(sender.server, &cursor)? else { return Ok(None) };
        seen += found;
        observer.on(&Event::At(seen));
        if next == b"0" {
            return Ok(Some(seen));
        }
        cursor = next;
    }
}

/// One step of `SCAN`: the next cursor, and how many keys it gave; `None` where it is not allowed.
fn step(server: &mut Server, cursor: &[u8]) -> Result<Option<(Vec<u8>, u64)>, RestoreError> {
    let reply = server.try_call(&[b"SCAN", cursor, b"COUNT", SCAN_COUNT.as_bytes()])?;
    let Reply::Value(Value::Array(parts)) = reply else { return Ok(None) };
    match &parts[..] {
        [Value::Bytes(next), Value::Array(keys)] => Ok(Some((next.clone(), keys.len() as u64))),
        _ => Ok(None),
    }
}
