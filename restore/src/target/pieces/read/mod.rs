//! A value of a living server, some elements at a time.
//!
//! **Not atomic.** The result is exact without concurrent writes to the key; a caller that needs this guarantee watches the key.
//! Another type, another length or another last id behind the last piece than before the first are found
//! ([`ReadPiecesError::Changed`]); a write that leaves these as they were is not. Fields that expire meanwhile are no change:
//! they may be in the value, with their time, or not.
//!
//! No single command takes long: see [`PieceLimits`]. Small packed values come whole, as the server keeps them.

mod elements;
mod pending;
mod reply;
mod source;
mod stream;

use redtape_wire::rdb::Value;

use self::source::{Source, State};
use super::cut::PieceLimits;
use super::error::ReadPiecesError;
use crate::client::Server;
use crate::error::RestoreError;
use crate::version::ServerVersion;

/// Reads values from a server of this version.
#[derive(Debug, Clone, Copy)]
pub struct Reader {
    /// Of the server.
    pub version: ServerVersion,
    /// How large a reply may be, about.
    pub limits: PieceLimits,
}

impl Reader {
    /// With pieces of the usual size.
    pub fn new(version: ServerVersion) -> Self {
        Self { version, limits: PieceLimits::default() }
    }

    /// Reads the value of a key of the selected database.
    pub fn read(&self, server: &mut Server, key: &[u8]) -> Result<Value, ReadPiecesError> {
        let mut source = Source { server, key, limits: self.limits };
        let before = source.state()?;
        let result = self.read_as(&mut source, &before.kind);
        if let Err(ReadPiecesError::Server(RestoreError::Unreachable { .. } | RestoreError::Silent { .. })) = result {
            return result;
        }
        // A command that was refused may have been so because the key is another by now.
        let after = source.state()?;
        if after.kind != before.kind {
            return Err(ReadPiecesError::Changed);
        }
        let value = result?;
        self.check_length(&value, &before, &after)?;
        Ok(value)
    }

    fn read_as(&self, source: &mut Source<'_>, kind: &str) -> Result<Value, ReadPiecesError> {
        match kind {
            "string" => elements::string(source).map(Value::String),
            "list" => elements::list(source).map(Value::List),
            "set" => elements::set(source).map(Value::Set),
            "zset" => elements::zset(source).map(Value::Zset),
            "hash" => elements::hash(source, self.version.has_field_ttl()).map(Value::Hash),
            "stream" => stream::read(source).map(|stream| Value::Stream(Box::new(stream))),
            "none" => Err(ReadPiecesError::Gone),
            _ => Err(ReadPiecesError::NotInPieces("a value of a module")),
        }
    }

    fn check_length(&self, value: &Value, before: &State, after: &State) -> Result<(), ReadPiecesError> {
        let read = match value {
            Value::String(bytes) => bytes.len(),
            Value::List(elements) | Value::Set(elements) => elements.len(),
            Value::Zset(members) => members.len(),
            // The server counts fields that have expired until it removes them.
            Value::Hash(_) if self.version.has_field_ttl() => return Ok(()),
            Value::Hash(fields) => fields.len(),
            Value::Stream(stream) => stream.entries.len(),
            Value::Module { .. } => return Ok(()),
        };
        let read = Some(read as u64);
        if before.length == read && after.length == read { Ok(()) } else { Err(ReadPiecesError::Changed) }
    }
}
