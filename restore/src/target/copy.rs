//! Copying all keys of a scratch server at rest into an empty target: `DUMP`, `PEXPIRETIME`, `RESTORE … ABSTTL`.
//!
//! `RESTORE` never has `REPLACE`, so a key that another client writes meanwhile is not overwritten. Each batch is followed by
//! `EXISTS` of its keys, and the whole copy by [`recount`]: what is reported as restored was seen in the target at the end.
//!
//! After a crash the target holds some of the keys, each of them whole, and the marker of [`crate::target::unfinished`].
//!
//! [`recount`]: crate::target::lookup::recount

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashSet};

use redtape_wire::resp::encode_command;

use crate::client::{Reply, Server, Value};
use crate::error::RestoreError;
use crate::interrupt::Interrupt;
use crate::progress::{Event, Observer, Unit};
use crate::refusal::{Refusal, meaning};
use crate::source::scratch::Scratch;
use crate::target::lookup::{KeyCounts, Scan, expiry, has_passed, milliseconds, select, show, ttl_command};
use crate::target::memory::MemoryState;
use crate::target::value_error::not_taken;

/// Bytes of one pipeline to the target, about.
const BATCH_BYTES: usize = 8 << 20;
/// Keys whose values are fetched at once: fewer when they are big.
const FETCH_MAX: usize = 512;
/// A fetch that brought more than this makes the next one smaller.
const FETCH_BYTES: usize = 4 << 20;

/// What was copied.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Copied {
    /// Keys restored in each database, those included that expired on arrival.
    pub(crate) keys: BTreeMap<u32, u64>,
    /// Keys whose TTL had passed when they arrived.
    pub(crate) expired: u64,
    /// Keys with a TTL that arrived alive.
    pub(crate) volatile: u64,
    /// Function libraries.
    pub(crate) functions: usize,
    /// Bytes of all values, as dumped.
    pub(crate) bytes: u64,
}

/// A copy that broke off.
#[derive(Debug)]
pub(crate) struct CopyError {
    /// Why, and what that means for the target.
    pub(crate) cause: RestoreError,
    /// Something may have been written to the target.
    pub(crate) wrote: bool,
}

/// What is to be copied, from where to where.
pub(crate) struct CopyJob<'a> {
    /// It is at rest.
    pub(crate) scratch: &'a mut Scratch,
    /// Where keys are written.
    pub(crate) target: &'a mut Server,
    /// Keys that the target has evicted are no failure.
    pub(crate) accept_eviction: bool,
    /// How many they are.
    pub(crate) wanted: &'a KeyCounts,
    /// Told how far it is.
    pub(crate) observer: &'a mut dyn Observer,
    /// Looked at before each fetch.
    pub(crate) interrupt: &'a Interrupt,
}

/// Copies all keys and functions.
pub(crate) fn copy(mut job: CopyJob<'_>) -> Result<Copied, CopyError> {
    let total = job.wanted.values().sum();
    job.observer.on(&Event::Step { name: "copying keys", total, unit: Unit::Keys });
    let unbegun = |e: RestoreError| CopyError { cause: e.before_the_target(), wrote: false };
    let mut copier = Copier {
        at_ms: job.scratch.hold().map_err(unbegun)?,
        evicted_before: MemoryState::ask(job.target).map_err(unbegun)?.evicted,
        total,
        began: false,
        accept_eviction: job.accept_eviction,
        absolute: job.scratch.version.has_redis(7, 0),
        fetch: 16,
        copied: Copied::default(),
        batch: Batch::default(),
    };
    let result = copier.run(&mut job);
    job.observer.on(&Event::StepDone);
    let done: u64 = copier.copied.keys.values().sum();
    result.map_err(|cause| {
        if !copier.began {
            return unbegun(cause);
        }
        let aftermath = format!(
            "{done} of {total} keys had been written and seen there by then: the target may hold a part of the data"
        );
        CopyError { cause: RestoreError::Undone { cause: Box::new(cause), aftermath }, wrote: true }
    })?;
    Ok(copier.copied)
}

struct Copier {
    /// What the scratch server's clock shows.
    at_ms: i64,
    /// Keys that the target had evicted before the first was written.
    evicted_before: u64,
    /// Keys that are wanted.
    total: u64,
    /// The first write was sent.
    began: bool,
    accept_eviction: bool,
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
    fn run(&mut self, job: &mut CopyJob<'_>) -> Result<(), RestoreError> {
        let CopyJob { scratch, target, wanted, observer, interrupt, .. } = job;
        for db in wanted.keys().copied() {
            select(target, db)?;
            let mut scan = Scan::new(db);
            while let Some(mut left) = scan.next(&mut scratch.server)? {
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
        self.copied.functions = copy_functions(&mut scratch.server, target)?;
        Ok(())
    }

    /// Fetches values and times of some keys into the batch.
    fn take(&mut self, scratch: &mut Server, keys: Vec<Vec<u8>>) -> Result<(), RestoreError> {
        let mut packed = Vec::new();
        let ask_ttl = ttl_command(self.absolute);
        for key in &keys {
            encode_command(&mut packed, &[b"DUMP", key.as_slice()]);
            encode_command(&mut packed, &[ask_ttl, key.as_slice()]);
        }
        let before = self.batch.bytes;
        let mut replies = scratch.pipeline(&packed, keys.len() * 2)?.into_iter();
        for key in keys {
            let (Some(Reply::Value(Value::Bytes(value))), Some(Reply::Value(Value::Int(ttl)))) =
                (replies.next(), replies.next())
            else {
                return Err(RestoreError::Scratch(format!("did not give the value of {}", show(&key))));
            };
            let expires = expiry(ttl, self.absolute, self.at_ms);
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
            target.encode(&mut packed, &args);
        }
        for (key, ..) in &keys {
            target.encode(&mut packed, &[b"EXISTS", key.as_slice()]);
        }
        target.encode(&mut packed, &[b"TIME"]);
        self.began = true;
        let mut replies = target.pipeline(&packed, keys.len() * 2 + 1)?;
        let target_ms = match replies.pop() {
            Some(Reply::Value(Value::Array(time))) => milliseconds(&time),
            _ => None,
        };
        // Where TIME is not allowed, clocks are taken to agree.
        let now_ms = target_ms.unwrap_or_else(|| redtape_journal::Micros::now().0 / 1000);
        let exists = replies.split_off(keys.len());
        let mut twice = HashSet::new();
        for (n, reply) in replies.into_iter().enumerate() {
            let Reply::Error(error) = reply else { continue };
            let (key, _, value) = &keys[n];
            if meaning(&error.code) != Refusal::KeyExists {
                return Err(not_taken(target, key, &error));
            }
            // SCAN may give a key twice; any other key with that name belongs to another client.
            if target.call(&[b"DUMP", key.as_slice()])? != Value::Bytes(value.clone()) {
                let (address, list) = (target.address.clone(), format!("{} in db {db}, written since", show(key)));
                return Err(RestoreError::Conflict { address, count: 1, list });
            }
            twice.insert(n);
        }
        for (n, reply) in exists.into_iter().enumerate() {
            let (key, expires, _) = &keys[n];
            let there = target.must("EXISTS", reply)? != Value::Int(0);
            if twice.contains(&n) {
                continue;
            }
            let passed = has_passed(*expires, now_ms);
            let excused = there || passed || (self.accept_eviction && self.has_evicted(target)?);
            if !excused {
                let example = format!("{} in db {db}", show(key));
                return Err(gone(target, self.evicted_before, 1, self.total, &example));
            }
            *self.copied.keys.entry(db).or_default() += 1;
            self.copied.expired += u64::from(!there && passed);
            self.copied.volatile += u64::from(there && *expires != 0);
        }
        self.copied.bytes += bytes as u64;
        Ok(())
    }
}

impl Copier {
    /// The target has evicted keys since the first write.
    fn has_evicted(&self, target: &mut Server) -> Result<bool, RestoreError> {
        Ok(MemoryState::ask(target)?.evicted > self.evicted_before)
    }
}

/// Why keys that were written are not there any more.
pub(crate) fn gone(target: &mut Server, evicted_before: u64, lost: u64, meant: u64, examples: &str) -> RestoreError {
    let memory = match MemoryState::settled(target) {
        Ok(memory) => memory,
        Err(e) => return e,
    };
    let why = match memory.evicted.saturating_sub(evicted_before) {
        0 => format!(
            "{examples}: other clients removed them. Stop those clients, empty the target (FLUSHALL; FUNCTION FLUSH) and restore again"
        ),
        evicted => memory.advice(evicted),
    };
    RestoreError::Lost { address: target.address.clone(), lost, meant, why }
}

/// Copies function libraries into a target that has none.
pub(crate) fn copy_functions(scratch: &mut Server, target: &mut Server) -> Result<usize, RestoreError> {
    let count = scratch.functions()?.unwrap_or(0);
    if count == 0 {
        return Ok(0);
    }
    let dump = scratch.call(&["FUNCTION", "DUMP"])?;
    let Value::Bytes(dump) = dump else { return Err(RestoreError::Scratch("did not dump its functions".into())) };
    let args: [&[u8]; 3] = [b"FUNCTION", b"RESTORE", &dump];
    target.call(&args)?;
    let there = match target.try_call(&["FUNCTION", "LIST"])? {
        Reply::Value(Value::Array(libraries)) => libraries.len(),
        Reply::Value(_) => 0,
        Reply::Error(e) => return Err(target.refused("FUNCTION LIST", &e)),
    };
    match there.cmp(&count) {
        Ordering::Equal => Ok(count),
        Ordering::Less => Err(RestoreError::Verify(format!("{there} of {count} function libraries are there"))),
        Ordering::Greater => Err(RestoreError::Unable(format!(
            "{} holds {there} function libraries, {count} of them restored: another client loaded the others meanwhile; remove them (FUNCTION DELETE)",
            target.address
        ))),
    }
}
