//! Copying keys from a scratch server at rest into a target: `DUMP`, `PEXPIRETIME`, `RESTORE … ABSTTL`.
//!
//! Order: every wanted key is looked for in the target before the first is written (`--on-conflict fail`
//! means that nothing changes). `RESTORE` never has `REPLACE`, so a key that appears in between is not
//! overwritten either. Each batch is followed by `EXISTS` of its keys: what is reported as restored was
//! seen in the target.
//!
//! After a crash the target holds some of the wanted keys, each of them whole.

use std::collections::{BTreeMap, HashSet};

use redtape_wire::resp::encode_command;

use crate::error::RestoreError;
use crate::filter::Filter;
use crate::interrupt::Interrupt;
use crate::progress::{Event, Observer, Unit};
use crate::scratch::Scratch;
use crate::server::{Server, Value, text};

/// Keys asked for in one step of `SCAN`.
const SCAN_COUNT: &str = "1000";
/// Bytes of one pipeline to the target, about.
const BATCH_BYTES: usize = 8 << 20;
/// Keys whose values are fetched at once: fewer when they are big.
const FETCH_MAX: usize = 512;
/// A fetch that brought more than this makes the next one smaller.
const FETCH_BYTES: usize = 4 << 20;
/// Conflicting keys that are named in a message.
const NAMED_KEYS: usize = 5;

/// What was copied.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Copied {
    /// Keys restored in each database, those included that expired on arrival.
    pub keys: BTreeMap<u32, u64>,
    /// Keys whose TTL had passed when they arrived.
    pub expired: u64,
    /// Keys with a TTL that arrived alive.
    pub volatile: u64,
    /// Function libraries.
    pub functions: usize,
    /// Bytes of all values, as dumped.
    pub bytes: u64,
}

/// Wanted keys in each database of the scratch server.
type Wanted = BTreeMap<u32, u64>;

/// Looks for the wanted keys in the target; writes nothing. Returns how many are wanted.
pub fn check_conflicts(
    scratch: &mut Scratch,
    target: &mut Server,
    filter: &Filter,
    observer: &mut dyn Observer,
    interrupt: &Interrupt,
) -> Result<Wanted, RestoreError> {
    let keyspace = scratch.server.info(Some("keyspace"))?.keyspace();
    let dbs: Vec<(u32, u64)> = keyspace.into_iter().filter(|(db, _)| filter.wants_db(*db)).collect();
    observer.on(&Event::Step { name: "looking for conflicts", total: dbs.iter().map(|d| d.1).sum(), unit: Unit::Keys });
    let (mut wanted, mut conflicts, mut named, mut seen) = (Wanted::new(), 0u64, Vec::new(), 0u64);
    for (db, _) in dbs {
        let mut selected = false;
        let mut scan = Scan::new(db);
        while let Some(keys) = scan.next(&mut scratch.server)? {
            interrupt.check()?;
            seen += keys.len() as u64;
            let keys: Vec<Vec<u8>> = keys.into_iter().filter(|k| filter.wants_key(k)).collect();
            if keys.is_empty() {
                continue;
            }
            if !selected {
                select(target, db)?;
                selected = true;
            }
            *wanted.entry(db).or_default() += keys.len() as u64;
            let mut packed = Vec::new();
            for key in &keys {
                encode_command(&mut packed, &[b"EXISTS", key.as_slice()]);
            }
            for (key, exists) in keys.iter().zip(target.pipeline(&packed, keys.len())?) {
                if exists.map_err(|e| target.refused("EXISTS", e))? != Value::Int(0) {
                    conflicts += 1;
                    if named.len() < NAMED_KEYS {
                        named.push(format!("{} in db {db}", show(key)));
                    }
                }
            }
            observer.on(&Event::At(seen));
        }
    }
    observer.on(&Event::StepDone);
    if conflicts > 0 {
        if conflicts > named.len() as u64 {
            named.push("…".to_owned());
        }
        return Err(RestoreError::Conflict {
            address: target.address.clone(),
            count: conflicts,
            list: named.join(", "),
        });
    }
    Ok(wanted)
}

/// Copies the wanted keys, and the functions too if everything is wanted.
pub fn copy(
    scratch: &mut Scratch,
    target: &mut Server,
    filter: &Filter,
    wanted: &Wanted,
    observer: &mut dyn Observer,
    interrupt: &Interrupt,
) -> Result<Copied, RestoreError> {
    let total = wanted.values().sum();
    observer.on(&Event::Step { name: "copying keys", total, unit: Unit::Keys });
    let mut copier = Copier {
        at_ms: scratch.hold()?,
        absolute: scratch.version.has_redis(7, 0),
        fetch: 16,
        copied: Copied::default(),
        batch: Batch::default(),
    };
    let result = copier.run(scratch, target, filter, wanted, observer, interrupt);
    observer.on(&Event::StepDone);
    let done: u64 = copier.copied.keys.values().sum();
    result.map_err(|cause| {
        if done == 0 {
            return cause.before_the_target();
        }
        let aftermath = format!("{done} of {total} keys had been written by then and are still in the target");
        RestoreError::Undone { cause: Box::new(cause), aftermath }
    })?;
    Ok(copier.copied)
}

struct Copier {
    /// What the scratch server's clock shows.
    at_ms: i64,
    /// The scratch server knows `PEXPIRETIME`.
    absolute: bool,
    fetch: usize,
    copied: Copied,
    batch: Batch,
}

/// Keys to be written in one pipeline.
#[derive(Default)]
struct Batch {
    keys: Vec<(Vec<u8>, i64, Vec<u8>)>,
    bytes: usize,
}

impl Copier {
    fn run(
        &mut self,
        scratch: &mut Scratch,
        target: &mut Server,
        filter: &Filter,
        wanted: &Wanted,
        observer: &mut dyn Observer,
        interrupt: &Interrupt,
    ) -> Result<(), RestoreError> {
        for db in wanted.keys().copied() {
            select(target, db)?;
            let mut scan = Scan::new(db);
            while let Some(keys) = scan.next(&mut scratch.server)? {
                let mut left: Vec<Vec<u8>> = keys.into_iter().filter(|k| filter.wants_key(k)).collect();
                while !left.is_empty() {
                    interrupt.check()?;
                    let rest = left.split_off(self.fetch.min(left.len()));
                    self.take(&mut scratch.server, left)?;
                    left = rest;
                    if self.batch.bytes >= BATCH_BYTES {
                        self.write(target, db)?;
                        observer.on(&Event::At(self.copied.keys.values().sum()));
                    }
                }
            }
            self.write(target, db)?;
            observer.on(&Event::At(self.copied.keys.values().sum()));
        }
        if filter.is_everything() {
            self.copied.functions = copy_functions(&mut scratch.server, target)?;
        }
        Ok(())
    }

    /// Fetches values and times of some keys into the batch.
    fn take(&mut self, scratch: &mut Server, keys: Vec<Vec<u8>>) -> Result<(), RestoreError> {
        let mut packed = Vec::new();
        let ask_ttl: &[u8] = if self.absolute { b"PEXPIRETIME" } else { b"PTTL" };
        for key in &keys {
            encode_command(&mut packed, &[b"DUMP", key.as_slice()]);
            encode_command(&mut packed, &[ask_ttl, key.as_slice()]);
        }
        let before = self.batch.bytes;
        let mut replies = scratch.pipeline(&packed, keys.len() * 2)?.into_iter();
        for key in keys {
            let (Some(Ok(Value::Bytes(value))), Some(Ok(Value::Int(ttl)))) = (replies.next(), replies.next()) else {
                return Err(RestoreError::Scratch(format!("did not give the value of {}", show(&key))));
            };
            let expires = match ttl {
                ..0 => 0,
                _ if self.absolute => ttl,
                _ => self.at_ms + ttl,
            };
            self.batch.bytes += key.len() + value.len();
            self.batch.keys.push((key, expires, value));
        }
        let fetched = self.batch.bytes - before;
        self.fetch = if fetched > FETCH_BYTES { (self.fetch / 2).max(1) } else { (self.fetch * 2).min(FETCH_MAX) };
        Ok(())
    }

    /// Writes the batch and sees it in the target.
    fn write(&mut self, target: &mut Server, db: u32) -> Result<(), RestoreError> {
        let Batch { keys, bytes } = std::mem::take(&mut self.batch);
        if keys.is_empty() {
            return Ok(());
        }
        let mut packed = Vec::with_capacity(bytes + keys.len() * 96);
        for (key, expires, value) in &keys {
            let expires = expires.to_string();
            let args: [&[u8]; 5] = [b"RESTORE", key, expires.as_bytes(), value, b"ABSTTL"];
            encode_command(&mut packed, &args);
        }
        for (key, ..) in &keys {
            encode_command(&mut packed, &[b"EXISTS", key.as_slice()]);
        }
        encode_command(&mut packed, &[b"TIME"]);
        let mut replies = target.pipeline(&packed, keys.len() * 2 + 1)?;
        let now_ms = match replies.pop() {
            Some(Ok(Value::Array(time))) => milliseconds(&time),
            _ => i64::MAX,
        };
        let exists = replies.split_off(keys.len());
        let mut twice = HashSet::new();
        for (n, reply) in replies.into_iter().enumerate() {
            let Err(error) = reply else { continue };
            let (key, _, value) = &keys[n];
            if error.code != "BUSYKEY" {
                let bad_payload = error.text.contains("payload version or checksum");
                return Err(if bad_payload {
                    RestoreError::Unable(format!(
                        "{} does not take values in the scratch server's format: it is older than what the journal holds. Restore to a newer server",
                        target.address
                    ))
                } else {
                    target.refused("RESTORE", error)
                });
            }
            // SCAN may give a key twice; anything else with that name is somebody else's.
            if target.call(&[b"DUMP", key.as_slice()])? != Value::Bytes(value.clone()) {
                let (address, list) = (target.address.clone(), format!("{} in db {db}, written since", show(key)));
                return Err(RestoreError::Conflict { address, count: 1, list });
            }
            twice.insert(n);
        }
        for (n, reply) in exists.into_iter().enumerate() {
            let (key, expires, _) = &keys[n];
            let there = reply.map_err(|e| target.refused("EXISTS", e))? != Value::Int(0);
            if twice.contains(&n) {
                continue;
            }
            let passed = *expires != 0 && *expires <= now_ms;
            if !there && !passed {
                return Err(RestoreError::Verify(format!("{} in db {db} is not there after RESTORE", show(key))));
            }
            *self.copied.keys.entry(db).or_default() += 1;
            self.copied.expired += u64::from(!there);
            self.copied.volatile += u64::from(there && *expires != 0);
        }
        self.copied.bytes += bytes as u64;
        Ok(())
    }
}

fn copy_functions(scratch: &mut Server, target: &mut Server) -> Result<usize, RestoreError> {
    let count = scratch.functions()?.unwrap_or(0);
    if count == 0 {
        return Ok(0);
    }
    let dump = scratch.call(&["FUNCTION", "DUMP"])?;
    let Value::Bytes(dump) = dump else { return Err(RestoreError::Scratch("did not dump its functions".into())) };
    let args: [&[u8]; 3] = [b"FUNCTION", b"RESTORE", &dump];
    target.call(&args)?;
    match target.functions()? {
        Some(there) if there == count => Ok(count),
        there => Err(RestoreError::Verify(format!("{} of {count} function libraries are there", there.unwrap_or(0)))),
    }
}

fn select(server: &mut Server, db: u32) -> Result<(), RestoreError> {
    match server.try_call(&["SELECT", &db.to_string()])? {
        Ok(_) => Ok(()),
        Err(e) if e.text.contains("out of range") => Err(RestoreError::Unable(format!(
            "{} has no database {db}; raise its `databases` setting, or leave that database out with --db",
            server.address
        ))),
        Err(e) => Err(server.refused("SELECT", e)),
    }
}

/// All keys of a database, some at a time.
struct Scan {
    db: u32,
    cursor: Option<Vec<u8>>,
    begun: bool,
}

impl Scan {
    fn new(db: u32) -> Self {
        Self { db, cursor: Some(b"0".to_vec()), begun: false }
    }

    fn next(&mut self, server: &mut Server) -> Result<Option<Vec<Vec<u8>>>, RestoreError> {
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

fn milliseconds(time: &[Value]) -> i64 {
    let number = |n: usize| time.get(n).and_then(|v| text(v).parse::<i64>().ok()).unwrap_or(0);
    number(0) * 1000 + number(1) / 1000
}

/// A key in a message to the person who asked for it.
fn show(key: &[u8]) -> String {
    const SHOWN: usize = 60;
    let end = if key.len() > SHOWN { "…" } else { "" };
    format!("\"{}{end}\"", key[..key.len().min(SHOWN)].escape_ascii())
}
