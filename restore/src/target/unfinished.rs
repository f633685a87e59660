//! The marker on a target that a restore by copying is under way, or was cut short.
//!
//! A copy makes the target a server like any other with a part of the data in it. So a copy first writes a field into the hash
//! [`KEY`] of database 0 and removes it when all was checked; the hash goes with its last field. A restore that fails or is
//! killed leaves its field, and with it the marker. (Over the link no marker is needed: until the promotion the target is a
//! read-only replica of a master that is gone.)
//!
//! The field's name is `whole:ID` or `keys:ID`; its value says in words which restore it was.

use redtape_journal::undo_file::OperationId;

use crate::client::{Reply, Server, Value, text};
use crate::error::RestoreError;
use crate::random;
use crate::refusal::{Refusal, meaning};

/// The hash in database 0.
pub const KEY: &str = "redtape:unfinished-restore";
/// What stands before the id of a restore of everything.
const WHOLE: &str = "whole";
/// What stands before the id of a restore of some keys.
const SOME: &str = "keys";
/// Hexadecimal digits of the id.
const ID_DIGITS: usize = 32;
/// Fields that are read.
const SHOWN_MAX: usize = 8;

/// A restore that did not end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unfinished {
    /// Its field.
    pub field: String,
    /// It was to bring everything.
    pub whole: bool,
    /// Which restore it was, in words.
    pub what: String,
}

impl Unfinished {
    /// It is that of this operation on some keys.
    pub(crate) fn is_of(&self, id: &OperationId) -> bool {
        self.field.strip_prefix(SOME).and_then(|rest| rest.strip_prefix(':')) == Some(&id.to_string())
    }
}

/// The marker of one restore, while it stands.
#[derive(Debug)]
pub(crate) struct Marker {
    field: String,
}

/// What became of a marker that was to be written.
#[derive(Debug)]
pub(crate) enum PutMarker {
    /// It stands.
    Written(Marker),
    /// This user may not write the key, in the server's words.
    NotAllowed(String),
}

impl Marker {
    /// Writes that of a restore of everything.
    pub(crate) fn put_whole(server: &mut Server, what: &str) -> Result<PutMarker, RestoreError> {
        Self::put(server, format!("{WHOLE}:{}", random::hex(ID_DIGITS)), what)
    }

    /// Writes that of an operation on some keys, which may go on with what it has left.
    pub(crate) fn put_some(server: &mut Server, id: &OperationId, what: &str) -> Result<PutMarker, RestoreError> {
        Self::put(server, format!("{SOME}:{id}"), what)
    }

    fn put(server: &mut Server, field: String, what: &str) -> Result<PutMarker, RestoreError> {
        select_first(server)?;
        match server.try_call(&["HSET", KEY, &field, what])? {
            Reply::Value(_) => Ok(PutMarker::Written(Self { field })),
            Reply::Error(e) if matches!(meaning(&e.code), Refusal::Denied | Refusal::WrongType) => {
                Ok(PutMarker::NotAllowed(e.text))
            }
            Reply::Error(e) => Err(server.refused("HSET", &e)),
        }
    }

    /// Takes it away: the restore is complete.
    pub(crate) fn remove(&self, server: &mut Server) -> Result<(), RestoreError> {
        select_first(server)?;
        server.call(&["HDEL", KEY, &self.field]).map(drop)
    }
}

/// Takes away the marker of an operation on some keys that was undone; where that is not allowed, it was never put.
pub(crate) fn forget(server: &mut Server, id: &OperationId) -> Result<(), RestoreError> {
    select_first(server)?;
    match server.try_call(&["HDEL", KEY, &format!("{SOME}:{id}")])? {
        Reply::Error(e) if !matches!(meaning(&e.code), Refusal::Denied | Refusal::WrongType) => {
            Err(server.refused("HDEL", &e))
        }
        _ => Ok(()),
    }
}

fn select_first(server: &mut Server) -> Result<(), RestoreError> {
    server.call(&["SELECT", "0"]).map(drop)
}

/// The markers of restores that did not end, or that are still under way; none where it may not be asked.
pub fn find(server: &mut Server) -> Result<Vec<Unfinished>, RestoreError> {
    let Reply::Value(Value::Array(items)) = server.try_call(&["HGETALL", KEY])? else { return Ok(Vec::new()) };
    let of_pair = |pair: &[Value]| {
        let [field, what] = pair else { return None };
        let field = text(field);
        let whole = field.strip_prefix(WHOLE).is_some_and(|rest| rest.starts_with(':'));
        Some(Unfinished { field, whole, what: text(what) })
    };
    Ok(items.chunks(2).take(SHOWN_MAX).filter_map(of_pair).collect())
}
