//! The lines of one key as its value. Pure.

use std::collections::HashMap;

use redtape_wire::rdb::{
    Bytes, Consumer, Field, Group, Idempotence, Pending, Score, Stream, StreamEntry, StreamId, Value,
};

use super::lines::size;
use super::raw::{
    RawEntry, RawField, RawGroup, RawIdempotence, RawLine, RawModule, RawPending, RawStream, all_bytes, bytes,
};
use crate::values::image::DECODED_MAX;

/// A key under way.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) db: u32,
    pub(super) key: Bytes,
    pub(super) expires_ms: i64,
    kind: String,
    size: u64,
    /// Of the line that comes next.
    next: u64,
    value: Value,
    streams: Option<StreamParts>,
    module: Option<RawModule>,
    /// Bytes that the value takes so far.
    weight: u64,
}

/// Of a stream: its groups, and where each pending entry's consumer is.
#[derive(Debug, Default)]
struct StreamParts {
    groups: HashMap<Bytes, GroupParts>,
}

#[derive(Debug)]
struct GroupParts {
    at: usize,
    pending: u64,
    consumers: HashMap<Bytes, usize>,
}

impl Parts {
    /// With the first line of a key.
    pub(super) fn begin(mut line: RawLine) -> Result<Self, String> {
        let db = line.db.ok_or("db is missing")?;
        let key = bytes("key", line.key.take(), line.key_base64.take())?;
        let kind = line.kind.take().ok_or("type is missing")?;
        let size = line.size.take().ok_or("size is missing: it stands in the first line of a key")?;
        let expires_ms = line.expiration_ms.take().unwrap_or(0);
        let (mut streams, mut module) = (None, None);
        let value = match &kind[..] {
            "string" => Value::String(Vec::new()),
            "list" => Value::List(Vec::new()),
            "set" => Value::Set(Vec::new()),
            "zset" => Value::Zset(Vec::new()),
            "hash" => Value::Hash(Vec::new()),
            "stream" => {
                let (stream, parts) = stream(line.stream.take().ok_or("stream is missing")?)?;
                streams = Some(parts);
                Value::Stream(Box::new(stream))
            }
            "module" => {
                let of = line.module.take().ok_or("module is missing")?;
                let id = of.id.parse().map_err(|_| "the id of module is no number")?;
                module = Some(of);
                Value::Module { id, data: Vec::new() }
            }
            kind => return Err(format!("{kind:?} is no type that this redtape knows")),
        };
        let mut parts = Self { db, key, expires_ms, kind, size, next: 0, value, streams, module, weight: 0 };
        parts.take_content(line)?;
        Ok(parts)
    }

    /// With a line that goes on.
    pub(super) fn go_on(&mut self, mut line: RawLine) -> Result<(), String> {
        let key = bytes("key", line.key.take(), line.key_base64.take())?;
        if line.db != Some(self.db) || key != self.key || line.kind.as_ref() != Some(&self.kind) {
            return Err("another key begins, while the lines of the one before it say that more follow".to_owned());
        }
        line.kind = None;
        if self.module.is_some() && line.module.take() != self.module {
            return Err("module is another one than in the line before".to_owned());
        }
        self.take_content(line)
    }

    /// Everything of a line but what says which key it is.
    fn take_content(&mut self, mut line: RawLine) -> Result<(), String> {
        let part = line.part.take();
        if part.unwrap_or(0) != self.next || (part.is_none() && line.more == Some(true)) {
            return Err(format!(
                "part {} of the key should be here: lines are missing, or in another order",
                self.next
            ));
        }
        self.next += 1;
        match &mut self.value {
            Value::String(all) => {
                let piece = bytes("value", line.value.take(), line.value_base64.take())?;
                self.weight += piece.len() as u64;
                all.extend(piece);
            }
            Value::List(all) => {
                let piece = all_bytes("values", line.values.take(), line.values_base64.take())?;
                self.weight += weigh(piece.iter().map(Vec::len));
                all.extend(piece);
            }
            Value::Set(all) => {
                let piece = all_bytes("members", line.members.take(), line.members_base64.take())?;
                self.weight += weigh(piece.iter().map(Vec::len));
                all.extend(piece);
            }
            Value::Zset(all) => {
                let piece = line.entries.take().ok_or("entries is missing")?;
                let piece = piece.into_iter().map(scored).collect::<Result<Vec<_>, _>>()?;
                self.weight += weigh(piece.iter().map(|(member, _)| member.len()));
                all.extend(piece);
            }
            Value::Hash(all) => {
                let piece = fields(&mut line)?;
                self.weight += weigh(piece.iter().map(|field| field.name.len() + field.value.len()));
                all.extend(piece);
            }
            Value::Stream(stream) => {
                let groups = self.streams.get_or_insert_default();
                self.weight += stream_content(stream, groups, &mut line)?;
            }
            Value::Module { data, .. } => {
                let piece = bytes("data", None, line.data_base64.take())?;
                self.weight += piece.len() as u64;
                data.extend(piece);
            }
        }
        if self.weight > DECODED_MAX {
            return Err(format!("the value is larger than {DECODED_MAX} bytes, the most that is read"));
        }
        only_read(&line)
    }

    /// The value, when the last line was read.
    pub(super) fn finish(self) -> Result<Value, String> {
        let found = size(&self.value);
        if found != self.size {
            return Err(format!("the key has {found} elements or bytes, and its size says {}", self.size));
        }
        let mut value = self.value;
        let twice = match &mut value {
            Value::Set(all) => {
                all.sort_unstable();
                all.windows(2).any(|two| two[0] == two[1])
            }
            Value::Zset(all) => {
                all.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
                let twice = all.windows(2).any(|two| two[0].0 == two[1].0);
                all.sort_by(|(_, a), (_, b)| a.get().partial_cmp(&b.get()).unwrap_or(std::cmp::Ordering::Equal));
                twice
            }
            Value::Hash(all) => {
                all.sort_unstable();
                all.windows(2).any(|two| two[0].name == two[1].name)
            }
            Value::Stream(stream) => {
                let groups = self.streams.unwrap_or_default().groups;
                for (name, parts) in groups {
                    let found = stream.groups[parts.at].pending.len() as u64;
                    if found != parts.pending {
                        let name = String::from_utf8_lossy(&name).into_owned();
                        return Err(format!(
                            "the group {name:?} has {found} pending entries, and its pending_count says {}",
                            parts.pending
                        ));
                    }
                }
                !stream.entries.is_sorted_by(|a, b| a.id < b.id)
            }
            _ => false,
        };
        if twice {
            return Err("an element stands twice, or entries are not in the order of their ids".to_owned());
        }
        if self.size == 0 && !matches!(value, Value::String(_) | Value::Stream(_) | Value::Module { .. }) {
            return Err("a value without elements is that of no key".to_owned());
        }
        Ok(value)
    }
}

fn weigh(lengths: impl Iterator<Item = usize>) -> u64 {
    const ELEMENT_COST: u64 = 64;
    lengths.map(|len| len as u64 + ELEMENT_COST).sum()
}

/// Fails if the line holds something of another type.
fn only_read(line: &RawLine) -> Result<(), String> {
    let left = [
        ("size", line.size.is_some()),
        ("expiration_ms", line.expiration_ms.is_some()),
        ("value", line.value.is_some() || line.value_base64.is_some()),
        ("values", line.values.is_some() || line.values_base64.is_some()),
        ("members", line.members.is_some() || line.members_base64.is_some()),
        ("entries", line.entries.is_some()),
        ("hash", line.hash.is_some()),
        ("fields", line.fields.is_some()),
        ("stream", line.stream.is_some()),
        ("group", line.group.is_some() || line.group_base64.is_some()),
        ("pending", line.pending.is_some()),
        ("module", line.module.is_some()),
        ("data_base64", line.data_base64.is_some()),
        ("name", line.name.is_some()),
        ("code", line.code.is_some() || line.code_base64.is_some()),
        ("format", line.format.is_some() || line.version.is_some() || line.point.is_some()),
        ("end", line.end.is_some() || line.keys.is_some() || line.functions.is_some() || line.lines.is_some()),
    ];
    match left.into_iter().find(|(_, there)| *there) {
        Some((name, _)) => Err(format!("{name} does not belong here")),
        None => Ok(()),
    }
}

fn scored(entry: RawEntry) -> Result<(Bytes, Score), String> {
    if entry.id.is_some() || entry.fields.is_some() {
        return Err("an entry of a stream stands in a sorted set".to_owned());
    }
    let score = entry.score.ok_or("score is missing")?;
    Ok((bytes("member", entry.member, entry.member_base64)?, score.0))
}

fn fields(line: &mut RawLine) -> Result<Vec<Field>, String> {
    match (line.hash.take(), line.fields.take()) {
        (Some(plain), None) => {
            let field = |(name, value): (String, String)| Field {
                name: name.into_bytes(),
                value: value.into_bytes(),
                expires_at_ms: None,
            };
            Ok(plain.0.into_iter().map(field).collect())
        }
        (None, Some(fields)) => fields.into_iter().map(field).collect(),
        _ => Err("a hash has either hash or fields".to_owned()),
    }
}

fn field(raw: RawField) -> Result<Field, String> {
    Ok(Field {
        name: bytes("field", raw.field, raw.field_base64)?,
        value: bytes("value", raw.value, raw.value_base64)?,
        expires_at_ms: raw.expiration_ms,
    })
}

fn stream(raw: RawStream) -> Result<(Stream, StreamParts), String> {
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
        let id = |id: super::raw::RawProducerId| -> Result<(Bytes, StreamId), String> {
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
fn stream_content(stream: &mut Stream, parts: &StreamParts, line: &mut RawLine) -> Result<u64, String> {
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
