//! The lines of a stream: its head, then entries, then the pending entries of each group. Pure.

use std::collections::HashMap;

use redtape_wire::rdb::{Bytes, Consumer, Group, Idempotence, Pending, Stream, StreamEntry, StreamId};

use super::raw::{
    RawEntry, RawField, RawGroup, RawIdempotence, RawLine, RawPending, RawProducerId, RawStream, bytes, weigh,
};

/// Of a stream: its groups, and where each pending entry's consumer is.
#[derive(Debug, Default)]
pub(super) struct StreamParts {
    groups: HashMap<Bytes, GroupParts>,
}

#[derive(Debug)]
struct GroupParts {
    at: usize,
    pending: u64,
    consumers: HashMap<Bytes, usize>,
}

impl StreamParts {
    /// Fails unless each group has as many pending entries as its head says.
    pub(super) fn check(&self, stream: &Stream) -> Result<(), String> {
        for (name, parts) in &self.groups {
            let found = stream.groups[parts.at].pending.len() as u64;
            if found != parts.pending {
                return Err(format!(
                    "the group {:?} has {found} pending entries, and its pending_count says {}",
                    String::from_utf8_lossy(name),
                    parts.pending
                ));
            }
        }
        Ok(())
    }
}

/// All of it but entries and pending entries.
pub(super) fn stream(raw: RawStream) -> Result<(Stream, StreamParts), String> {
    let mut parts = StreamParts::default();
    let mut groups = Vec::with_capacity(raw.groups.len());
    for raw in raw.groups {
        let (group, of) = group(raw, groups.len())?;
        if parts.groups.insert(group.name.clone(), of).is_some() {
            return Err("a group stands twice".to_owned());
        }
        groups.push(group);
    }
    let stream = Stream {
        entries: Vec::new(),
        last_id: raw.last_id.0,
        first_id: raw.first_id.0,
        max_deleted_id: raw.max_deleted_id.0,
        entries_added: raw.entries_added,
        groups,
        idempotence: raw.idempotence.map(idempotence).transpose()?,
    };
    Ok((stream, parts))
}

fn group(raw: RawGroup, at: usize) -> Result<(Group, GroupParts), String> {
    let name = bytes("name", raw.name, raw.name_base64)?;
    let mut consumers = Vec::with_capacity(raw.consumers.len());
    let mut places = HashMap::with_capacity(raw.consumers.len());
    for raw in raw.consumers {
        let name = bytes("name", raw.name, raw.name_base64)?;
        if places.insert(name.clone(), consumers.len()).is_some() {
            return Err("a consumer stands twice in its group".to_owned());
        }
        consumers.push(Consumer { name, seen_ms: raw.seen_ms, active_ms: raw.active_ms });
    }
    let group = Group { name, last_id: raw.last_id.0, entries_read: raw.entries_read, consumers, pending: Vec::new() };
    Ok((group, GroupParts { at, pending: raw.pending_count, consumers: places }))
}

fn idempotence(raw: RawIdempotence) -> Result<Idempotence, String> {
    let mut producers = Vec::with_capacity(raw.producers.len());
    for producer in raw.producers {
        let id = |id: RawProducerId| -> Result<(Bytes, StreamId), String> {
            Ok((bytes("id", id.id, id.id_base64)?, id.entry.0))
        };
        let ids = producer.ids.into_iter().map(id).collect::<Result<_, _>>()?;
        producers.push((bytes("name", producer.name, producer.name_base64)?, ids));
    }
    Ok(Idempotence {
        duration_seconds: raw.duration_seconds,
        max_ids: raw.max_ids,
        producers,
        added: raw.added,
        duplicates: raw.duplicates,
    })
}

/// Entries, or pending entries of one group; returns what they weigh.
pub(super) fn content(stream: &mut Stream, parts: &StreamParts, line: &mut RawLine) -> Result<u64, String> {
    if let Some(entries) = line.entries.take() {
        let mut weight = 0;
        for entry in entries {
            let entry = stream_entry(entry)?;
            weight += weigh(entry.fields.iter().map(|(name, value)| name.len() + value.len()));
            stream.entries.push(entry);
        }
        return Ok(weight);
    }
    let pending = line.pending.take().ok_or("entries is missing, and pending as well")?;
    let name = bytes("group", line.group.take(), line.group_base64.take())?;
    let group = parts.groups.get(&name).ok_or("the stream has no such group")?;
    let weight = weigh(pending.iter().map(|_| 0));
    for raw in pending {
        let pending = pending_entry(raw, group)?;
        stream.groups[group.at].pending.push(pending);
    }
    Ok(weight)
}

fn stream_entry(raw: RawEntry) -> Result<StreamEntry, String> {
    if raw.member.is_some() || raw.member_base64.is_some() || raw.score.is_some() {
        return Err("an entry of a sorted set stands in a stream".to_owned());
    }
    let pair = |raw: RawField| -> Result<(Bytes, Bytes), String> {
        if raw.expiration_ms.is_some() {
            return Err("a field of a stream has no time of expiry".to_owned());
        }
        Ok((bytes("field", raw.field, raw.field_base64)?, bytes("value", raw.value, raw.value_base64)?))
    };
    let fields = raw.fields.ok_or("fields is missing")?.into_iter().map(pair).collect::<Result<_, _>>()?;
    Ok(StreamEntry { id: raw.id.ok_or("id is missing")?.0, fields })
}

fn pending_entry(raw: RawPending, group: &GroupParts) -> Result<Pending, String> {
    let consumer = bytes("consumer", raw.consumer, raw.consumer_base64)?;
    let consumer = *group.consumers.get(&consumer).ok_or("the group has no such consumer")?;
    Ok(Pending { id: raw.id.0, delivered_ms: raw.delivered_ms, deliveries: raw.deliveries, consumer })
}
