//! Second pass over the file: writes its keys to the target in batches. Nothing is overwritten.

use std::collections::BTreeMap;

use redtape_journal::Micros;
use redtape_journal::undo_file::OperationId;
use redtape_wire::rdb::{Value, encode_dump};

use super::{Existing, ImportPlan, ImportRequest, takes_modules};
use crate::client::{Reply, Server, Value as Answer};
use crate::error::RestoreError;
use crate::libraries;
use crate::progress::{Event, Observer, Unit};
use crate::random;
use crate::refusal::{Refusal, meaning};
use crate::target::claim;
use crate::target::copy::gone;
use crate::target::fit::Fitting;
use crate::target::jsonl::reading::{Item, ReadKey, Reading};
use crate::target::lookup::{has_passed, milliseconds, select, show};
use crate::target::memory::MemoryState;
use crate::target::pieces::name::temporary_name;
use crate::target::pieces::size::is_large;
use crate::target::pieces::{BuildError, Builder, leftovers};
use crate::target::preflight::{TargetFacts, contents};
use crate::target::repair::engine::rename_new;
use crate::target::server::marker_or_note;
use crate::target::unfinished::{KEY, Marker};
use crate::target::value_error::not_taken;

/// Size of a batch in bytes and keys.
const SEND_BYTES: usize = 4 << 20;
const SEND_KEYS: usize = 512;

/// Inputs of the pass.
pub(super) struct Job<'a> {
    pub(super) request: &'a ImportRequest,
    pub(super) plan: &'a ImportPlan,
    pub(super) facts: &'a TargetFacts,
    pub(super) id: &'a OperationId,
}

/// Result of the pass.
#[derive(Debug, Default)]
pub(super) struct Imported {
    pub(super) keys: BTreeMap<u32, u64>,
    pub(super) existing: u64,
    pub(super) expired: u64,
    pub(super) functions: usize,
}

pub(super) fn write(job: &Job<'_>, target: &mut Server, observer: &mut dyn Observer) -> Result<Imported, RestoreError> {
    let marker = begin(job, target, observer).map_err(RestoreError::before_the_target)?;
    let evicted_before = MemoryState::ask(target)?.evicted;
    let mut writer = Writer {
        job,
        target,
        fitting: Fitting::new(job.facts.version, takes_modules(job.facts)),
        evicted_before,
        db: None,
        packed: Vec::new(),
        sent: Vec::new(),
        wrote: false,
        done: Imported::default(),
    };
    let written = writer.all(observer);
    let Writer { wrote, done, .. } = writer;
    if let (Err(cause), false) = (&written, wrote)
        && !matches!(cause, RestoreError::Unreachable { .. } | RestoreError::Silent { .. })
        && let Some(marker) = marker
    {
        // If the marker cannot be removed, it still errs on the safe side.
        let _ = marker.remove(target);
        return written.map(|()| done).map_err(|cause| RestoreError::Undone {
            cause: Box::new(cause),
            aftermath: "Nothing was written".to_owned(),
        });
    }
    written.map_err(|cause| {
        let aftermath = format!(
            "Some of the keys may have been written, each of them completely; the key {KEY} in db 0 says so. Empty the target (FLUSHALL; FUNCTION FLUSH), or go on with the same command and --on-conflict skip"
        );
        RestoreError::Undone { cause: Box::new(cause), aftermath }
    })?;
    if let Some(marker) = marker {
        marker.remove(target)?;
    }
    Ok(done)
}

/// Claims the target, checks it again, and sets the marker.
fn begin(job: &Job<'_>, target: &mut Server, observer: &mut dyn Observer) -> Result<Option<Marker>, RestoreError> {
    let ImportPlan { file, at, lsn, keys, .. } = job.plan;
    target.ensure_connected()?;
    claim::take(target, &job.request.interrupt)?;
    let info = target.info(None)?;
    if info.get("role") != Some("master") {
        return Err(RestoreError::Unable(format!("{} has become a replica; nothing was changed", target.address)));
    }
    if job.request.is_whole()
        && let Some(found) = contents(&info.keyspace(), target.functions()?.unwrap_or(0))
    {
        return Err(RestoreError::NotEmpty { address: target.address.clone(), found });
    }
    if job.facts.unfinished.iter().any(|unfinished| unfinished.field.ends_with(&job.id.to_string())) {
        leftovers::remove_everywhere(target, job.id)?;
    }
    let what =
        format!("{} keys of {file} as of {at}, LSN {lsn}, begun at {}", keys.values().sum::<u64>(), Micros::now());
    Ok(marker_or_note(Marker::put_some(target, job.id, &what)?, observer))
}

struct Writer<'a> {
    job: &'a Job<'a>,
    target: &'a mut Server,
    fitting: Fitting,
    evicted_before: u64,
    /// The selected database.
    db: Option<u32>,
    packed: Vec<u8>,
    sent: Vec<Sent>,
    /// The target has accepted something.
    wrote: bool,
    done: Imported,
}

/// A key in flight.
struct Sent {
    line: u64,
    key: Vec<u8>,
    expires_ms: i64,
    /// For a hash whose fields all have a TTL: the last of them.
    fields_expire_ms: Option<i64>,
}

impl Sent {
    fn of(key: &ReadKey) -> Self {
        let fields_expire_ms = match &key.value {
            Value::Hash(fields) => fields
                .iter()
                .map(|field| field.expires_at_ms)
                .max()
                .flatten()
                .filter(|_| fields.iter().all(|field| field.expires_at_ms.is_some())),
            _ => None,
        };
        Self { line: key.line, key: key.key.clone(), expires_ms: key.expires_ms, fields_expire_ms }
    }

    /// True if it has expired, or each of its fields has.
    fn has_expired(&self, now_ms: i64) -> bool {
        has_passed(self.expires_ms, now_ms) || self.fields_expire_ms.is_some_and(|at| at <= now_ms)
    }
}

impl Writer<'_> {
    fn all(&mut self, observer: &mut dyn Observer) -> Result<(), RestoreError> {
        let request = self.job.request;
        let mut reading = Reading::open(&request.file)?;
        observer.on(&Event::Step { name: "writing keys", total: self.job.plan.bytes, unit: Unit::Bytes });
        while let Some(item) = reading.next()? {
            request.interrupt.check()?;
            match item {
                Item::Function { name, code } if request.is_whole() => {
                    libraries::load(self.target, &name, &code)?;
                    self.wrote = true;
                    self.done.functions += 1;
                }
                Item::Key(key) if request.wants(&key) => self.key(key)?,
                _ => {}
            }
            observer.on(&Event::At(reading.bytes));
        }
        self.send()?;
        observer.on(&Event::StepDone);
        // Equal totals show that the file was the same both times.
        let written: u64 = self.done.keys.values().sum();
        let planned: u64 = self.job.plan.keys.values().sum();
        if written + self.done.existing != planned {
            return Err(RestoreError::Unable(format!(
                "{} was changed while it was read: it held {planned} keys before, and holds others now",
                request.file.display()
            )));
        }
        let memory = MemoryState::settled(self.target)?;
        match memory.evicted.saturating_sub(self.evicted_before) {
            0 => Ok(()),
            evicted => Err(RestoreError::Unable(format!(
                "{} may not hold all of the keys any more: {}",
                self.target.address,
                memory.advice(evicted)
            ))),
        }
    }

    fn key(&mut self, mut key: ReadKey) -> Result<(), RestoreError> {
        if self.db != Some(key.db) {
            self.send()?;
            select(self.target, key.db)?;
            self.db = Some(key.db);
        }
        // The first pass has checked that it fits.
        self.fitting.fit(&mut key.value, || show(&key.key));
        if self.goes_in_pieces(&key.value) {
            self.send()?;
            return self.large(&key);
        }
        let dump = self.dump(&key)?;
        let expires = key.expires_ms.to_string();
        self.target.encode(&mut self.packed, &[b"RESTORE", &key.key[..], expires.as_bytes(), &dump, b"ABSTTL"]);
        self.sent.push(Sent::of(&key));
        if self.packed.len() >= SEND_BYTES || self.sent.len() >= SEND_KEYS { self.send() } else { Ok(()) }
    }

    /// Clients of a target with other keys must not wait for a large value; an empty target gets values up to the size
    /// of one argument.
    fn goes_in_pieces(&self, value: &Value) -> bool {
        /// A server's default limit, minus some room around a value.
        const USUAL_BYTES: u64 = (512 << 20) - (1 << 20);
        let limit = self.job.facts.limits.value_bytes().unwrap_or(USUAL_BYTES).min(USUAL_BYTES);
        is_large(value) && (!self.job.request.is_whole() || crate::target::pieces::size::weight(value) > limit)
    }

    fn dump(&self, key: &ReadKey) -> Result<Vec<u8>, RestoreError> {
        encode_dump(&key.value, self.fitting.version())
            .map_err(|e| RestoreError::Unable(format!("{} (line {}): {e}", show(&key.key), key.line)))
    }

    /// Sends the batch and checks the replies.
    fn send(&mut self) -> Result<(), RestoreError> {
        if self.sent.is_empty() {
            return Ok(());
        }
        let (mut packed, sent) = (std::mem::take(&mut self.packed), std::mem::take(&mut self.sent));
        for one in &sent {
            self.target.encode(&mut packed, &[b"EXISTS", &one.key[..]]);
        }
        self.target.encode(&mut packed, &[b"TIME"]);
        let mut replies = self.target.pipeline(&packed, sent.len() * 2 + 1)?;
        let told = match replies.pop() {
            Some(Reply::Value(Answer::Array(time))) => milliseconds(&time),
            _ => None,
        };
        let now_ms = told.unwrap_or_else(|| Micros::now().0 / 1000);
        let exist = replies.split_off(sent.len());
        self.wrote |= replies.iter().any(|reply| matches!(reply, Reply::Value(_)));
        for ((one, reply), exists) in sent.iter().zip(replies).zip(exist) {
            let there = self.target.must("EXISTS", exists)? != Answer::Int(0);
            match reply {
                Reply::Error(e) if meaning(&e.code) == Refusal::KeyExists => self.exists(one)?,
                Reply::Error(e) => return Err(not_taken(self.target, &one.key, &e)),
                Reply::Value(_) => self.written(one, there, now_ms)?,
            }
        }
        Ok(())
    }

    /// The target already has a key of this name.
    fn exists(&mut self, one: &Sent) -> Result<(), RestoreError> {
        if self.job.request.existing == Existing::Kept {
            self.done.existing += 1;
            return Ok(());
        }
        let list = format!("{}, of line {}: written since, or twice in the file", show(&one.key), one.line);
        Err(RestoreError::Conflict { address: self.target.address.clone(), count: 1, list })
    }

    fn written(&mut self, one: &Sent, there: bool, now_ms: i64) -> Result<(), RestoreError> {
        let expired = !there && one.has_expired(now_ms);
        if !there && !expired {
            let total = self.job.plan.keys.values().sum();
            return Err(gone(self.target, self.evicted_before, 1, total, &show(&one.key)));
        }
        *self.done.keys.entry(self.db.unwrap_or(0)).or_default() += 1;
        self.done.expired += u64::from(expired);
        Ok(())
    }

    /// Built under a temporary name, then renamed.
    fn large(&mut self, key: &ReadKey) -> Result<(), RestoreError> {
        let one = Sent::of(key);
        let name = temporary_name(&key.key, self.job.id, random::number());
        let exists = match Builder::new(self.job.facts.version).build(self.target, &name, &key.value) {
            Ok(built) => built.exists,
            Err(BuildError::NotInPieces(_)) => return self.whole(key, &one),
            Err(BuildError::Server(error)) => return Err(error),
            Err(error) => return Err(RestoreError::Unable(error.to_string())),
        };
        if !exists {
            // All of its fields have expired.
            return self.written(&one, false, i64::MAX);
        }
        if !rename_new(self.target, &name, &key.key, key.expires_ms)? {
            return self.exists(&one);
        }
        self.look_for(&one)
    }

    /// A value that can only be restored whole.
    fn whole(&mut self, key: &ReadKey, one: &Sent) -> Result<(), RestoreError> {
        let (dump, expires) = (self.dump(key)?, key.expires_ms.to_string());
        let args = [b"RESTORE", &key.key[..], expires.as_bytes(), &dump, b"ABSTTL"];
        match self.target.try_call(&args)? {
            Reply::Error(e) if meaning(&e.code) == Refusal::KeyExists => self.exists(one),
            Reply::Error(e) => Err(not_taken(self.target, &key.key, &e)),
            Reply::Value(_) => self.look_for(one),
        }
    }

    fn look_for(&mut self, one: &Sent) -> Result<(), RestoreError> {
        self.wrote = true;
        let there = self.target.call(&[b"EXISTS", &one.key[..]])? != Answer::Int(0);
        self.written(one, there, Micros::now().0 / 1000)
    }
}
