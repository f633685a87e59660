//! The lines of one key as its value. Pure.

use redtape_wire::rdb::{Bytes, Field, Score, Value};

use super::lines::size;
use super::raw::{RawEntry, RawField, RawLine, RawModule, all_bytes, bytes, weigh};
use super::stream_parts::{self, StreamParts};
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
                let (stream, parts) = stream_parts::stream(line.stream.take().ok_or("stream is missing")?)?;
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
                self.weight += stream_parts::content(stream, groups, &mut line)?;
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
                self.streams.unwrap_or_default().check(stream)?;
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
