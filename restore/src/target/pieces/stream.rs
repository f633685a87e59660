//! Streams in pieces: first everything but the entries, as a `RESTORE` of an empty stream; then the entries, by `XADD` with
//! their own ids; last the last id, where it is not that of the last entry.
//!
//! No command sets when a consumer was seen, brings back an entry that is pending and deleted, or takes the greatest deleted
//! id back: `XCLAIM` and `XSETID` are not enough for an exact stream. The empty stream holds all that.
//! Its size is that of its pending entries: a million of them keep a server busy for a second. Those beyond
//! [`PieceLimits::pending`] are claimed, for callers to whom that is worse than another time at which consumers were seen.

use redtape_wire::rdb::{Group, Pending, RdbVersion, Stream, StreamId, Value};

use super::cut::PieceLimits;
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
    limits: PieceLimits,
) -> Result<(), BuildError> {
    let (empty, claims) = without_entries(stream, limits.pending);
    writer.begin(&Value::Stream(Box::new(empty)), version)?;
    for entry in &stream.entries {
        let id = entry.id.to_string();
        let mut args = vec![name, id.as_bytes()];
        args.extend(entry.fields.iter().flat_map(|(field, value)| [&field[..], value]));
        writer.command("XADD", &args);
        writer.flush_full()?;
    }
    for (group, entry) in claims {
        claim(writer, name, group, entry);
        writer.flush_full()?;
    }
    if stream.entries.last().is_some_and(|last| last.id != stream.last_id) {
        let id = stream.last_id.to_string();
        writer.command("XSETID", &[name, id.as_bytes()]);
    }
    writer.finish()?;
    writer.check_length("XLEN", stream.entries.len() as u64)
}

fn claim(writer: &mut PieceWriter<'_>, name: &[u8], group: &Group, entry: &Pending) {
    let Some(consumer) = group.consumers.get(entry.consumer) else { return };
    let (id, time) = (entry.id.to_string(), entry.delivered_ms.to_string());
    let count = entry.deliveries.to_string();
    let whose: [&[u8]; 5] = [name, &group.name, &consumer.name, b"0", id.as_bytes()];
    let how = [b"TIME", time.as_bytes(), b"RETRYCOUNT", count.as_bytes(), b"FORCE", b"JUSTID"];
    writer.command("XCLAIM", &[&whose[..], &how].concat());
}

/// The stream without its entries, and which pending entries are claimed when those are there. `XADD` counts each entry,
/// and takes ids above the last one.
fn without_entries(stream: &Stream, mut at_once: usize) -> (Stream, Vec<(&Group, &Pending)>) {
    let last_id = if stream.entries.is_empty() { stream.last_id } else { StreamId::default() };
    let (mut groups, mut claims) = (Vec::with_capacity(stream.groups.len()), Vec::new());
    for group in &stream.groups {
        let mut restored = Vec::new();
        for entry in &group.pending {
            // An entry that is deleted cannot be claimed.
            let is_there = stream.entries.binary_search_by_key(&entry.id, |entry| entry.id).is_ok();
            if is_there && at_once == 0 {
                claims.push((group, entry));
            } else {
                restored.push(entry.clone());
                at_once = at_once.saturating_sub(1);
            }
        }
        let (name, consumers) = (group.name.clone(), group.consumers.clone());
        groups.push(Group { name, consumers, pending: restored, ..*group });
    }
    let empty = Stream {
        entries: Vec::new(),
        last_id,
        first_id: StreamId::default(),
        max_deleted_id: stream.max_deleted_id,
        entries_added: stream.entries_added.wrapping_sub(stream.entries.len() as u64),
        groups,
        idempotence: stream.idempotence.clone(),
    };
    (empty, claims)
}
