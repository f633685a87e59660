//! Reads one key at a point in time: its value and its last write. Writes nothing.
//!
//! ```text
//! point ─► journal, backwards ─► what the key depends on ─► dataset at the cut ─► DUMP of the key ─► decoded value
//!                            └─► history of the key
//! ```
//!
//! The dataset is rebuilt in a scratch server; [`crate::source`] decides what is read and replayed.

mod history;
mod read;

use std::path::PathBuf;

pub use history::{KeyHistory, LastTouch};
use redtape_journal::query::{AsOf, Filter, Zone};
use redtape_journal::{Keyring, Micros};
use redtape_wire::rdb::{DECODED_MAX, Value};

use self::history::HistorySearch;
use self::read::Read;
use crate::error::RestoreError;
use crate::interrupt::Interrupt;
use crate::limits::Limits;
use crate::point::RestorePoint;
use crate::progress::{Event, Observer};
use crate::request::{Reading, Request};
use crate::source::{Located, Source};

/// Databases that nearly every server has.
const USUAL_DATABASES: u32 = 16;

/// Input of a lookup.
#[derive(Debug, Clone)]
pub struct GetRequest {
    /// The journal's directory.
    pub from: PathBuf,
    /// The keys of an encrypted journal.
    pub keyring: Keyring,
    /// The point in time.
    pub as_of: AsOf,
    /// The time zone of times without one.
    pub zone: Zone,
    /// The present, for "ago".
    pub now: Micros,
    /// The key's database.
    pub db: u32,
    /// If the key is absent, databases 0 to 15 are searched as well.
    pub elsewhere: bool,
    /// The key.
    pub key: Vec<u8>,
    /// The scratch server's program, if the user chose one.
    pub server_bin: Option<PathBuf>,
    /// Ends the lookup when it is set.
    pub interrupt: Interrupt,
    /// Time limits of a scratch server.
    pub limits: Limits,
    /// Size limits.
    pub bounds: Bounds,
}

/// Size limits of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Limit of a value in memory, in bytes.
    pub value_bytes: u64,
    /// Limit of the dataset for a scratch server, in bytes; `None` = unlimited.
    pub dataset_bytes: Option<u64>,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { value_bytes: DECODED_MAX, dataset_bytes: None }
    }
}

/// A key at a point in time.
#[derive(Debug, Clone)]
pub struct Got {
    /// The point.
    pub point: RestorePoint,
    /// Its database.
    pub db: u32,
    /// Its name.
    pub key: Vec<u8>,
    /// State for a client.
    pub state: State,
    /// Its last write.
    pub history: KeyHistory,
    /// Databases that have a key of this name, if this one has not.
    pub other_dbs: Vec<u32>,
}

/// Whether the key existed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// It existed.
    Present(Present),
    /// Its TTL had passed, in ms since 1970; the server had not deleted it yet.
    Expired(i64),
    /// It did not exist.
    Absent,
}

/// A value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Present {
    /// As clients saw it: without expired hash fields.
    pub value: Value,
    /// Number of expired fields.
    pub expired_fields: usize,
    /// When the key expires, in ms since 1970.
    pub expires_at_ms: Option<i64>,
    /// Size of the server's encoding in bytes.
    pub dump_bytes: usize,
}

/// Returns a key at a point in time. `observer` is notified of the point before it is read.
pub fn get(request: &GetRequest, observer: &mut dyn Observer) -> Result<Got, RestoreError> {
    let wanted = request.as_restore()?;
    let located = Located::find(&wanted)?;
    observer.on(&Event::Resolved(&located.point));
    let point = located.point.clone();
    let mut search = HistorySearch::new(&point, request.db, &request.key);
    let source = located.slice(&wanted, &mut |group, needed| search.watch(group, needed), observer)?;
    let history = search.finish(source.catalog(), &request.interrupt)?;
    let read = read_from(source, request, observer)?;
    Ok(Got {
        state: State::at(&point, read.value),
        point,
        db: request.db,
        key: request.key.clone(),
        history,
        other_dbs: read.other_dbs,
    })
}

fn read_from(mut source: Source, request: &GetRequest, observer: &mut dyn Observer) -> Result<Read, RestoreError> {
    request.interrupt.check()?;
    if let Some(limit) = request.bounds.dataset_bytes {
        let bytes = source.dataset_bytes();
        if bytes > limit {
            return Err(RestoreError::Unable(format!(
                "the dataset is too large to be rebuilt here: {bytes} bytes, and the limit is {limit}; use `redtape get` on a machine with room for it"
            )));
        }
    }
    source.binary = Some(source.find_any_binary(request.server_bin.as_deref())?);
    let (mut scratch, _) = source.rebuild(observer)?;
    let mut others = request.dbs();
    others.retain(|db| *db != request.db);
    read::key(&mut scratch, (request.db, &others), &request.key, request.bounds.value_bytes)
}

impl GetRequest {
    /// The databases in which the key is rebuilt.
    fn dbs(&self) -> Vec<u32> {
        let others = if self.elsewhere { 0..USUAL_DATABASES } else { 0..0 };
        others.filter(|db| *db != self.db).chain([self.db]).collect()
    }

    /// The request for this key, without a target.
    fn as_restore(&self) -> Result<Request, RestoreError> {
        let in_dbs = Filter::new::<&[u8]>(&[], &[], &self.dbs()).map_err(|e| RestoreError::Usage(e.to_string()))?;
        Ok(Request::from(Reading {
            from: self.from.clone(),
            keyring: self.keyring.clone(),
            as_of: self.as_of.clone(),
            zone: self.zone.clone(),
            filter: in_dbs.and_exact_keys([self.key.clone()]),
            slice: true,
            server_bin: self.server_bin.clone(),
            now: self.now,
            interrupt: self.interrupt.clone(),
            limits: self.limits,
        }))
    }
}

impl State {
    /// What a client would have seen at this point.
    fn at(point: &RestorePoint, held: Option<Present>) -> Self {
        let Some(mut present) = held else { return Self::Absent };
        let passed = |expires: Option<i64>| expires.is_some_and(|at| point.has_passed(at));
        if let (true, Some(at)) = (passed(present.expires_at_ms), present.expires_at_ms) {
            return Self::Expired(at);
        }
        if let Value::Hash(fields) = &mut present.value {
            let before = fields.len();
            fields.retain(|field| !passed(field.expires_at_ms));
            present.expired_fields = before - fields.len();
        }
        Self::Present(present)
    }
}

#[cfg(test)]
mod tests;
