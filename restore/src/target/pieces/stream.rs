//! Streams in pieces: first everything but the entries, as a `RESTORE` of an empty stream; then the entries, by `XADD` with
//! their own ids; last the last id, where it is not that of the last entry.
//!
//! No command sets when a consumer was seen, brings back an entry that is pending and deleted, or takes the greatest deleted
//! id back: `XCLAIM` and `XSETID` are not enough for an exact stream. The empty stream holds all that.
//! Its size is that of its pending entries, which are restored at once: a million of them keep a server busy for as long as
//! `RESTORE` of a large value does.

use redtape_wire::rdb::{RdbVersion, Stream, StreamId, Value};

use super::error::BuildError;
use super::writer::PieceWriter;

/// What a stream has that no command can bring.
pub(super) fn check(stream: &Stream) -> Result<(), BuildError> {
    let Some((first, last)) = stream.entries.first().zip(stream.entries.last()) else { return Ok(()) };
    if stream.first_id != first.id || stream.last_id < last.id || stream.last_id < stream.max_deleted_id {
        return Err(BuildError::NotInPieces("a stream whose ids contradict each other"));
    }
    if stream.entries.iter().any(|entry| entry.fields.is_empty()) {
        return Err(BuildError::NotInPieces("a stream with an entry that has no fields"));
    }
    Ok(())
}

pub(super) fn write(
    stream: &Stream,
    writer: &mut PieceWriter<'_>,
    name: &[u8],
    version: RdbVersion,
) -> Result<(), BuildError> {
    writer.begin(&Value::Stream(Box::new(without_entries(stream))), version)?;
    for entry in &stream.entries {
        let id = entry.id.to_string();
        let mut args = vec![name, id.as_bytes()];
        args.extend(entry.fields.iter().flat_map(|(field, value)| [&field[..], value]));
        writer.command("XADD", &args);
        writer.flush_full()?;
    }
    if stream.entries.last().is_some_and(|last| last.id != stream.last_id) {
        let id = stream.last_id.to_string();
        writer.command("XSETID", &[name, id.as_bytes()]);
    }
    writer.finish()?;
    writer.check_length("XLEN", stream.entries.len() as u64)
}

/// `XADD` counts each entry, and takes ids above the last one.
fn without_entries(stream: &Stream) -> Stream {
    let last_id = if stream.entries.is_empty() { stream.last_id } else { StreamId::default() };
    Stream {
        entries: Vec::new(),
        last_id,
        first_id: StreamId::default(),
        max_deleted_id: stream.max_deleted_id,
        entries_added: stream.entries_added.wrapping_sub(stream.entries.len() as u64),
        groups: stream.groups.clone(),
        idempotence: stream.idempotence.clone(),
    }
}
