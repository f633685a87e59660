//! Streams: what `XINFO STREAM … FULL` tells beside entries and pending entries, entries by `XRANGE`, pending entries by
//! `XPENDING` ([`super::pending`]).
//!
//! `FULL` is asked with `COUNT 1`: without a bound it brings the whole stream. Groups and consumers come all at once.

use redtape_wire::rdb::{Consumer, Group, Idempotence, Pending, Stream, StreamEntry, StreamId};

use super::pending::{self, Anchor};
use super::reply::{bytes, field, id, items, number};
use super::source::Source;
use crate::client::Value;
use crate::target::pieces::error::ReadPiecesError;
use crate::target::pieces::portion::Portion;

const INFO: ReadPiecesError = ReadPiecesError::Reply("XINFO STREAM");
const RANGE: ReadPiecesError = ReadPiecesError::Reply("XRANGE");

pub(super) fn read(source: &mut Source<'_>) -> Result<Stream, ReadPiecesError> {
    let head = Head::ask(source)?;
    let entries = read_entries(source)?;
    let mut groups = Vec::with_capacity(head.groups.len());
    for found in &head.groups {
        let pending = found.read_pending(source)?;
        groups.push(Group { pending, ..found.group.clone() });
    }
    if !Head::ask(source)?.same_but_for_times(&head) {
        return Err(ReadPiecesError::Changed);
    }
    let first = entries.first().map(|entry| entry.id).unwrap_or_default();
    Ok(Stream {
        last_id: head.last_id,
        first_id: head.first_id.unwrap_or(first),
        max_deleted_id: head.max_deleted_id,
        entries_added: head.entries_added.unwrap_or(entries.len() as u64),
        groups,
        idempotence: head.idempotence,
        entries,
    })
}

/// A stream without its entries and pending entries.
#[derive(PartialEq)]
struct Head {
    last_id: StreamId,
    /// Since Redis 7.0, as the two below.
    first_id: Option<StreamId>,
    max_deleted_id: StreamId,
    entries_added: Option<u64>,
    /// In the order of their names.
    groups: Vec<FoundGroup>,
    idempotence: Option<Idempotence>,
}

/// A group without its pending entries.
#[derive(PartialEq)]
struct FoundGroup {
    group: Group,
    pending: u64,
    /// The first pending entry.
    first: Option<Anchor>,
}

impl Head {
    fn ask(source: &mut Source<'_>) -> Result<Self, ReadPiecesError> {
        let reply = source.ask_words("XINFO STREAM", &[b"XINFO", b"STREAM"], &[b"FULL", b"COUNT", b"1"])?;
        let id_of = |name| field(&reply, name).map(id).transpose();
        let groups = field(&reply, "groups").ok_or(INFO)?;
        let mut groups = items(groups).ok_or(INFO)?.iter().map(group).collect::<Result<Vec<_>, _>>()?;
        groups.sort_unstable_by(|a, b| a.group.name.cmp(&b.group.name));
        Ok(Self {
            last_id: id_of("last-generated-id")?.ok_or(INFO)?,
            first_id: id_of("recorded-first-entry-id")?,
            max_deleted_id: id_of("max-deleted-entry-id")?.unwrap_or_default(),
            entries_added: number(&reply, "entries-added"),
            groups,
            idempotence: idempotence(&reply)?,
        })
    }

    /// Whether nothing but the times of consumers differs.
    fn same_but_for_times(mut self, other: &Self) -> bool {
        let times = other.groups.iter().flat_map(|found| &found.group.consumers);
        for (consumer, other) in self.groups.iter_mut().flat_map(|found| &mut found.group.consumers).zip(times) {
            (consumer.seen_ms, consumer.active_ms) = (other.seen_ms, other.active_ms);
        }
        self == *other
    }
}

impl FoundGroup {
    fn read_pending(&self, source: &mut Source<'_>) -> Result<Vec<Pending>, ReadPiecesError> {
        let Some(first) = &self.first else { return Ok(Vec::new()) };
        let pending = pending::read(source, &self.group, first.clone())?;
        if pending.len() as u64 == self.pending { Ok(pending) } else { Err(ReadPiecesError::Changed) }
    }
}

/// The ids of producers are not told by any command.
fn idempotence(reply: &Value) -> Result<Option<Idempotence>, ReadPiecesError> {
    let Some(duration_seconds) = number(reply, "idmp-duration") else { return Ok(None) };
    if number(reply, "pids-tracked").ok_or(INFO)? != 0 {
        return Err(ReadPiecesError::NotInPieces("a stream with idempotent producers"));
    }
    Ok(Some(Idempotence {
        duration_seconds,
        max_ids: number(reply, "idmp-maxsize").ok_or(INFO)?,
        producers: Vec::new(),
        added: number(reply, "iids-added").ok_or(INFO)?,
        duplicates: number(reply, "iids-duplicates").ok_or(INFO)?,
    }))
}

fn group(reply: &Value) -> Result<FoundGroup, ReadPiecesError> {
    let consumers = field(reply, "consumers").and_then(items).ok_or(INFO)?;
    let mut consumers = consumers.iter().map(consumer).collect::<Result<Vec<_>, _>>()?;
    consumers.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    // Called "pel" up to Redis 7.2 and in Valkey.
    let pending = field(reply, "pel").or_else(|| field(reply, "pending")).and_then(items).ok_or(INFO)?;
    let first = pending.first().and_then(items).map(|entry| match entry {
        [of, _, Value::Int(delivered_ms), _] => Ok(Anchor { id: id(of)?, delivered_ms: *delivered_ms }),
        _ => Err(INFO),
    });
    let group = Group {
        name: bytes(field(reply, "name")).ok_or(INFO)?,
        last_id: id(field(reply, "last-delivered-id").ok_or(INFO)?)?,
        entries_read: number(reply, "entries-read"),
        consumers,
        pending: Vec::new(),
    };
    Ok(FoundGroup { group, pending: number(reply, "pel-count").ok_or(INFO)?, first: first.transpose()? })
}

fn consumer(reply: &Value) -> Result<Consumer, ReadPiecesError> {
    let name = bytes(field(reply, "name")).ok_or(INFO)?;
    let Some(&Value::Int(seen_ms)) = field(reply, "seen-time") else { return Err(INFO) };
    let active_ms = if let Some(&Value::Int(active_ms)) = field(reply, "active-time") { active_ms } else { seen_ms };
    Ok(Consumer { name, seen_ms, active_ms })
}

fn read_entries(source: &mut Source<'_>) -> Result<Vec<StreamEntry>, ReadPiecesError> {
    let mut out: Vec<StreamEntry> = Vec::new();
    let mut portion = Portion::new(source.limits);
    loop {
        let from = match out.last() {
            None => "-".to_owned(),
            Some(last) => match next_id(last.id) {
                Some(id) => id.to_string(),
                None => return Ok(out),
            },
        };
        let count = portion.elements().to_string();
        let reply = source.ask("XRANGE", &[from.as_bytes(), b"+", b"COUNT", count.as_bytes()])?;
        let Value::Array(piece) = reply else { return Err(RANGE) };
        if piece.is_empty() {
            return Ok(out);
        }
        let before = out.len();
        for entry in piece {
            out.push(entry_of(entry)?);
        }
        let fields = out[before..].iter().flat_map(|entry| &entry.fields);
        portion.came(fields.map(|(name, value)| name.len() + value.len()).sum());
    }
}

fn entry_of(reply: Value) -> Result<StreamEntry, ReadPiecesError> {
    let Value::Array(parts) = reply else { return Err(RANGE) };
    let mut parts = parts.into_iter();
    let (Some(of), Some(Value::Array(items))) = (parts.next(), parts.next()) else { return Err(RANGE) };
    let mut items = items.into_iter();
    let mut fields = Vec::with_capacity(items.len() / 2);
    while let Some(name) = items.next() {
        let (Value::Bytes(name), Some(Value::Bytes(value))) = (name, items.next()) else { return Err(RANGE) };
        fields.push((name, value));
    }
    Ok(StreamEntry { id: id(&of)?, fields })
}

fn next_id(id: StreamId) -> Option<StreamId> {
    match id.seq.checked_add(1) {
        Some(seq) => Some(StreamId { seq, ..id }),
        None => Some(StreamId { ms: id.ms.checked_add(1)?, seq: 0 }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_in_a_row() {
        let id = |ms, seq| StreamId { ms, seq };
        assert_eq!(next_id(id(1, 2)), Some(id(1, 3)));
        assert_eq!(next_id(id(1, u64::MAX)), Some(id(2, 0)));
        assert_eq!(next_id(id(u64::MAX, u64::MAX)), None);
    }
}
