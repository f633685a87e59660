//! The wanted keys of a scratch server, looked for in the target: after a copy, all must be there.

use std::collections::{BTreeMap, HashSet};

use redtape_wire::quoted::{in_quotes, quote_cut};

use crate::client::{Reply, Server, Value, text};
use crate::error::RestoreError;
use crate::interrupt::Interrupt;
use crate::progress::{Event, Observer, Unit};
use crate::refusal::{Refusal, meaning};
use crate::source::scratch::Scratch;
use redtape_journal::query::Filter;

/// Keys asked for in one step of `SCAN`.
const SCAN_COUNT: &str = "1000";
/// Keys that are named in a message.
const NAMED_KEYS: usize = 5;

/// Keys in each database.
pub(crate) type KeyCounts = BTreeMap<u32, u64>;

/// What of the wanted keys is not in the target after a copy.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Missing {
    /// Their TTL has passed.
    pub(crate) expired: u64,
    /// They should be there.
    pub(crate) gone: u64,
    /// Some of the latter.
    pub(crate) named: Vec<String>,
}

/// Looks for all that was copied. `at_ms`: what the scratch server's clock shows.
pub(crate) fn recount(
    scratch: &mut Scratch,
    target: &mut Server,
    filter: &Filter,
    observer: &mut dyn Observer,
    interrupt: &Interrupt,
    at_ms: i64,
) -> Result<Missing, RestoreError> {
    let absolute = scratch.version.has_redis(7, 0);
    let mut absent: Vec<(u32, Vec<u8>, i64)> = Vec::new();
    let name = "looking at the target again";
    let mut missing = Missing::default();
    look_up(scratch, target, filter, (observer, name), interrupt, &mut |scratch, db, keys, there| {
        absent.clear();
        for (key, _) in keys.iter().zip(there).filter(|(_, there)| !**there) {
            let reply = scratch.call(&[ttl_command(absolute), key.as_slice()])?;
            let ttl = if let Value::Int(ttl) = reply { ttl } else { -1 };
            absent.push((db, key.clone(), expiry(ttl, absolute, at_ms)));
        }
        let now_ms = redtape_journal::Micros::now().0 / 1000;
        for (db, key, expires) in &absent {
            if has_passed(*expires, now_ms) {
                missing.expired += 1;
            } else {
                missing.gone += 1;
                name_some(&mut missing.named, key, *db);
            }
        }
        Ok(())
    })?;
    Ok(missing)
}

/// Called with the scratch server, a database, some wanted keys, and whether the target has them.
type Found<'a> = dyn FnMut(&mut Server, u32, &[Vec<u8>], &[bool]) -> Result<(), RestoreError> + 'a;

/// Asks the target for each wanted key of the scratch server.
fn look_up(
    scratch: &mut Scratch,
    target: &mut Server,
    filter: &Filter,
    (observer, step): (&mut dyn Observer, &'static str),
    interrupt: &Interrupt,
    found: &mut Found<'_>,
) -> Result<(), RestoreError> {
    let keyspace = scratch.server.info(Some("keyspace"))?.keyspace();
    let dbs: Vec<(u32, u64)> = keyspace.into_iter().filter(|(db, _)| filter.wants_db(*db)).collect();
    observer.on(&Event::Step { name: step, total: dbs.iter().map(|d| d.1).sum(), unit: Unit::Keys });
    let mut seen = 0u64;
    for (db, _) in dbs {
        let mut selected = false;
        let mut scan = WantedScan::new(filter, db);
        while let Some(keys) = scan.next(&mut scratch.server)? {
            interrupt.check()?;
            let seen = seen + scan.seen;
            if keys.is_empty() {
                continue;
            }
            if !selected {
                select(target, db)?;
                selected = true;
            }
            let mut packed = Vec::new();
            for key in &keys {
                target.encode(&mut packed, &[b"EXISTS", key.as_slice()]);
            }
            let replies = target.pipeline(&packed, keys.len())?;
            let exists = |reply| Ok::<_, RestoreError>(target.must("EXISTS", reply)? != Value::Int(0));
            let there: Vec<bool> = replies.into_iter().map(exists).collect::<Result<_, _>>()?;
            found(&mut scratch.server, db, &keys, &there)?;
            observer.on(&Event::At(seen));
        }
        seen += scan.seen;
    }
    observer.on(&Event::StepDone);
    Ok(())
}

/// The command that asks a scratch server for the end of a key's life.
pub(crate) fn ttl_command(absolute: bool) -> &'static [u8] {
    if absolute { b"PEXPIRETIME" } else { b"PTTL" }
}

/// The end of a key's life in milliseconds, 0 = none, from the reply to [`ttl_command`].
pub(crate) fn expiry(ttl: i64, absolute: bool, at_ms: i64) -> i64 {
    match ttl {
        ..0 => 0,
        _ if absolute => ttl,
        _ => at_ms + ttl,
    }
}

/// Whether a key with this end is gone by now.
pub(crate) fn has_passed(expires: i64, now_ms: i64) -> bool {
    expires != 0 && expires <= now_ms
}

fn name_some(named: &mut Vec<String>, key: &[u8], db: u32) {
    if named.len() < NAMED_KEYS {
        named.push(format!("{} in db {db}", show(key)));
    }
}

/// A key in a message to the person who asked for it: it can be pasted back.
pub(crate) fn show(key: &[u8]) -> String {
    const SHOWN: usize = 1024;
    quote_cut(key, SHOWN).map_or_else(|| in_quotes(key), |cut| format!("{cut}…"))
}

/// What the server says to a database that it does not have is a plain `ERR`, as other errors are.
pub(crate) fn select(server: &mut Server, db: u32) -> Result<(), RestoreError> {
    match server.try_call(&["SELECT", &db.to_string()])? {
        Reply::Value(_) => Ok(()),
        Reply::Error(e) if meaning(&e.code) == Refusal::Plain && db != 0 => Err(RestoreError::Unable(format!(
            "{} has no database {db} ({}); raise its `databases` setting, or leave that database out with --db",
            server.address, e.text
        ))),
        Reply::Error(e) => Err(server.refused("SELECT", &e)),
    }
}

/// All keys of a database, some at a time.
pub(crate) struct Scan {
    db: u32,
    cursor: Option<Vec<u8>>,
    begun: bool,
}

impl Scan {
    pub(crate) fn new(db: u32) -> Self {
        Self { db, cursor: Some(b"0".to_vec()), begun: false }
    }

    pub(crate) fn next(&mut self, server: &mut Server) -> Result<Option<Vec<Vec<u8>>>, RestoreError> {
        let Some(cursor) = self.cursor.take() else { return Ok(None) };
        if !self.begun {
            select(server, self.db)?;
            self.begun = true;
        }
        let reply = server.call(&[b"SCAN", cursor.as_slice(), b"COUNT", SCAN_COUNT.as_bytes()])?;
        let Value::Array(parts) = reply else { return Err(RestoreError::Scratch("gave no keys to SCAN".into())) };
        let mut parts = parts.into_iter();
        let (Some(Value::Bytes(next)), Some(Value::Array(keys))) = (parts.next(), parts.next()) else {
            return Err(RestoreError::Scratch("gave no keys to SCAN".into()));
        };
        self.cursor = (next != b"0").then_some(next);
        let bytes = |k| if let Value::Bytes(b) = k { Some(b) } else { None };
        let mut seen = HashSet::new();
        Ok(Some(keys.into_iter().filter_map(bytes).filter(|k| seen.insert(k.clone())).collect()))
    }
}

/// The wanted keys of a database of a scratch server, some at a time: by database and name, then by the type of the value.
struct WantedScan<'a> {
    filter: &'a Filter,
    scan: Scan,
    /// Keys that were looked at.
    seen: u64,
}

impl<'a> WantedScan<'a> {
    fn new(filter: &'a Filter, db: u32) -> Self {
        Self { filter, scan: Scan::new(db), seen: 0 }
    }

    /// The next ones, perhaps none; `None` = that was all.
    fn next(&mut self, scratch: &mut Server) -> Result<Option<Vec<Vec<u8>>>, RestoreError> {
        let Some(mut keys) = self.scan.next(scratch)? else { return Ok(None) };
        self.seen += keys.len() as u64;
        keys.retain(|key| self.filter.wants(self.scan.db, key));
        if self.filter.looks_at_types() {
            let wanted = of_wanted_types(self.filter, keys, scratch)?;
            keys = wanted.into_iter().map(|(key, _)| key).collect();
        }
        Ok(Some(keys))
    }
}

/// Those of some keys of the selected database whose values have a wanted type, each with it.
pub(crate) fn of_wanted_types(
    filter: &Filter,
    keys: Vec<Vec<u8>>,
    server: &mut Server,
) -> Result<Vec<(Vec<u8>, String)>, RestoreError> {
    if keys.is_empty() {
        return Ok(Vec::new());
    }
    let mut packed = Vec::new();
    for key in &keys {
        server.encode(&mut packed, &[b"TYPE", key.as_slice()]);
    }
    let replies = server.pipeline(&packed, keys.len())?;
    let mut wanted = Vec::with_capacity(keys.len());
    for (key, reply) in keys.into_iter().zip(replies) {
        let of_type = text(&server.must("TYPE", reply)?);
        if filter.wants_type(&of_type) {
            wanted.push((key, of_type));
        }
    }
    Ok(wanted)
}

/// A reply to `TIME` in milliseconds.
pub(crate) fn milliseconds(time: &[Value]) -> Option<i64> {
    let number = |n: usize| text(time.get(n)?).parse::<i64>().ok();
    Some(number(0)? * 1000 + number(1)? / 1000)
}
