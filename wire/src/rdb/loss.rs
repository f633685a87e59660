//! What a version of the RDB cannot hold of a value. It is found before anything is written, and taken away only by a
//! caller that accepts it.

use super::header::{Family, RdbVersion};
use super::value::{Idempotence, Stream, StreamId, Value};

/// What a stream of Redis 8.6 has without being told otherwise (`stream-idmp-duration`, `stream-idmp-maxsize`).
const IDEMPOTENCE_SECONDS: u64 = 100;
const IDEMPOTENCE_IDS: u64 = 100;

/// One thing that a version cannot hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Loss {
    /// When fields of a hash expire: before Redis 7.4 and Valkey 9.
    FieldTtls,
    /// The greatest deleted id of a stream: before Redis 7.0.
    MaxDeletedId,
    /// How many entries were ever added to a stream: before Redis 7.0.
    EntriesAdded,
    /// How many entries a group has read: before Redis 7.0.
    EntriesRead,
    /// When a consumer was given something last: before Redis 7.2.
    ActiveTimes,
    /// The idempotent producers of a stream: before Redis 8.6, and in Valkey.
    Idempotence,
}

impl std::fmt::Display for Loss {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::FieldTtls => "when its fields expire",
            Self::MaxDeletedId => "the greatest deleted id",
            Self::EntriesAdded => "how many entries were ever added",
            Self::EntriesRead => "how many entries its groups have read",
            Self::ActiveTimes => "when its consumers were given something last",
            Self::Idempotence => "its idempotent producers",
        })
    }
}

/// A value that a version cannot hold in full.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{version} cannot hold all of this {type_name}: {}", list(losses))]
pub struct Inexpressible {
    /// The version.
    pub version: RdbVersion,
    /// The type of the value.
    pub type_name: &'static str,
    /// What it cannot hold.
    pub losses: Vec<Loss>,
}

fn list(losses: &[Loss]) -> String {
    losses.iter().map(Loss::to_string).collect::<Vec<_>>().join(", ")
}

/// What a server that loads RDBs up to this version cannot hold of a value; nothing if it holds all.
///
/// A server without idempotence that never was used loses nothing.
pub fn losses(value: &Value, version: RdbVersion) -> Vec<Loss> {
    let all = [
        Loss::FieldTtls,
        Loss::MaxDeletedId,
        Loss::EntriesAdded,
        Loss::EntriesRead,
        Loss::ActiveTimes,
        Loss::Idempotence,
    ];
    all.into_iter().filter(|loss| !loss.is_held_by(version) && loss.is_in(value)).collect()
}

impl Loss {
    fn is_held_by(self, version: RdbVersion) -> bool {
        let redis = |first| version.family == Family::Redis && version.version >= first;
        let valkey = version.family == Family::Valkey;
        match self {
            Self::FieldTtls => redis(12) || valkey,
            Self::MaxDeletedId | Self::EntriesAdded | Self::EntriesRead => redis(10) || valkey,
            Self::ActiveTimes => redis(11) || valkey,
            Self::Idempotence => redis(13),
        }
    }

    fn is_in(self, value: &Value) -> bool {
        match (self, value) {
            (Self::FieldTtls, Value::Hash(fields)) => fields.iter().any(|field| field.expires_at_ms.is_some()),
            (Self::MaxDeletedId, Value::Stream(stream)) => stream.max_deleted_id != StreamId::default(),
            (Self::EntriesAdded, Value::Stream(stream)) => stream.entries_added != stream.entries.len() as u64,
            (Self::EntriesRead, Value::Stream(stream)) => {
                stream.groups.iter().any(|group| group.entries_read.is_some())
            }
            (Self::ActiveTimes, Value::Stream(stream)) => {
                stream.groups.iter().flat_map(|group| &group.consumers).any(|one| one.active_ms != one.seen_ms)
            }
            (Self::Idempotence, Value::Stream(stream)) => stream.idempotence.as_ref().is_some_and(was_used),
            _ => false,
        }
    }

    /// Takes it out of a value, which then is what the server will hold.
    pub fn take_from(self, value: &mut Value) {
        match (self, value) {
            (Self::FieldTtls, Value::Hash(fields)) => fields.iter_mut().for_each(|field| field.expires_at_ms = None),
            (loss, Value::Stream(stream)) => loss.take_from_stream(stream),
            _ => {}
        }
    }

    fn take_from_stream(self, stream: &mut Stream) {
        match self {
            Self::FieldTtls => {}
            Self::MaxDeletedId => stream.max_deleted_id = StreamId::default(),
            Self::EntriesAdded => stream.entries_added = stream.entries.len() as u64,
            Self::EntriesRead => stream.groups.iter_mut().for_each(|group| group.entries_read = None),
            Self::ActiveTimes => {
                for consumer in stream.groups.iter_mut().flat_map(|group| &mut group.consumers) {
                    consumer.active_ms = consumer.seen_ms;
                }
            }
            Self::Idempotence => stream.idempotence = None,
        }
    }
}

fn was_used(idempotence: &Idempotence) -> bool {
    let Idempotence { duration_seconds, max_ids, producers, added, duplicates } = idempotence;
    (*duration_seconds, *max_ids) != (IDEMPOTENCE_SECONDS, IDEMPOTENCE_IDS)
        || !producers.is_empty()
        || (*added, *duplicates) != (0, 0)
}
