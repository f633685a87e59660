//! One key as lines. Pure.

use redtape_journal::Micros;
use redtape_wire::rdb::{Field, Group, Idempotence, Pending, Score, Stream, StreamEntry, Value, module_type};
use serde_json::{Value as Json, json};

use crate::error::RestoreError;
use crate::json::{Object, base64, pair, put, put_all, score};
use crate::target::pieces::PieceLimits;
use crate::target::pieces::cut::cut;

/// How much of a value is in one line; an element that is longer has a line of its own.
const PART: PieceLimits = PieceLimits { bytes: 1 << 20, elements: 4096, unanswered: 0, pending: 0 };
/// The last ms that RFC 3339 can write.
const YEAR_9999_MS: i64 = 253_402_300_799_999;

/// Which key.
pub(super) struct KeyHead<'a> {
    pub(super) db: u32,
    pub(super) key: &'a [u8],
    /// 0 = never.
    pub(super) expires_ms: i64,
}

/// Takes a line.
type Put<'a> = dyn FnMut(Object) -> Result<(), RestoreError> + 'a;

/// Calls `put` with each line.
pub(super) fn key_lines(head: &KeyHead<'_>, value: &Value, put: &mut Put<'_>) -> Result<(), RestoreError> {
    let mut lines = Lines { head, type_name: value.type_name(), size: size(value), put };
    match value {
        Value::String(bytes) => lines.write(chunks(bytes).into_iter(), |line, piece| self::put(line, "value", piece)),
        Value::List(all) => lines.write(cut(all, PART, Vec::len), |line, piece| put_all(line, "values", piece)),
        Value::Set(all) => lines.write(cut(all, PART, Vec::len), |line, piece| put_all(line, "members", piece)),
        Value::Zset(all) => lines.write(cut(all, PART, |(member, _)| member.len()), |line, piece| {
            line.insert("entries".to_owned(), piece.iter().map(scored).collect());
        }),
        Value::Hash(all) => lines.write(cut(all, PART, |field| field.name.len() + field.value.len()), put_fields),
        Value::Stream(stream) => {
            let mut first = Some(stream_head(stream));
            lines.write(stream_pieces(stream).into_iter(), |line, piece| {
                line.extend(first.take().map(|head| ("stream".to_owned(), head)));
                put_stream_piece(line, stream, &piece);
            })
        }
        Value::Module { id, data } => {
            lines.write(data.chunks(PART.bytes).chain(data.is_empty().then_some(&[][..])), |line, piece| {
                let (name, version) = module_type(*id);
                // All bits of the number: a reader needs them, and JSON numbers may not hold them.
                line.insert("module".to_owned(), json!({"type": name, "version": version, "id": id.to_string()}));
                line.insert("data_base64".to_owned(), json!(base64(piece)));
            })
        }
    }
}

/// Elements of a value; of a string or a module's value, bytes.
pub(super) fn size(value: &Value) -> u64 {
    let size = match value {
        Value::String(bytes) => bytes.len(),
        Value::List(all) | Value::Set(all) => all.len(),
        Value::Zset(all) => all.len(),
        Value::Hash(all) => all.len(),
        Value::Stream(stream) => stream.entries.len(),
        Value::Module { data, .. } => data.len(),
    };
    size as u64
}

struct Lines<'a, 'p> {
    head: &'a KeyHead<'a>,
    type_name: &'static str,
    size: u64,
    put: &'a mut Put<'p>,
}

impl Lines<'_, '_> {
    fn write<T>(
        &mut self,
        pieces: impl Iterator<Item = T>,
        mut content: impl FnMut(&mut Object, T),
    ) -> Result<(), RestoreError> {
        let (mut pieces, mut number) = (pieces.peekable(), 0u64);
        while let Some(piece) = pieces.next() {
            let more = pieces.peek().is_some();
            let mut line = self.begin(number, more);
            content(&mut line, piece);
            (self.put)(line)?;
            number += 1;
        }
        Ok(())
    }

    fn begin(&self, number: u64, more: bool) -> Object {
        let KeyHead { db, key, expires_ms } = *self.head;
        let mut line = Object::from_iter([("db".to_owned(), json!(db)), ("type".to_owned(), json!(self.type_name))]);
        put(&mut line, "key", key);
        if number == 0 {
            line.insert("size".to_owned(), json!(self.size));
            if expires_ms != 0 {
                put_expiration(&mut line, expires_ms);
            }
        }
        if number > 0 || more {
            line.insert("part".to_owned(), json!(number));
        }
        if more {
            line.insert("more".to_owned(), json!(true));
        }
        line
    }
}

/// For people, and exactly.
fn put_expiration(line: &mut Object, at_ms: i64) {
    if (0..=YEAR_9999_MS).contains(&at_ms) {
        line.insert("expiration".to_owned(), json!(Micros(at_ms * 1000).to_string()));
    }
    line.insert("expiration_ms".to_owned(), json!(at_ms));
}

/// A string cut into pieces; text stays text.
fn chunks(bytes: &[u8]) -> Vec<&[u8]> {
    let Ok(mut text) = std::str::from_utf8(bytes) else { return bytes.chunks(PART.bytes).collect() };
    let mut pieces = Vec::new();
    while text.len() > PART.bytes {
        let (piece, rest) = text.split_at(text.floor_char_boundary(PART.bytes));
        pieces.push(piece.as_bytes());
        text = rest;
    }
    pieces.push(text.as_bytes());
    pieces
}

fn scored((member, number): &(Vec<u8>, Score)) -> Json {
    let mut object = Object::new();
    put(&mut object, "member", member);
    object.insert("score".to_owned(), score(*number));
    Json::Object(object)
}

/// Plain text as one object; else a list, which has a place for Base64 and for TTLs.
fn put_fields(line: &mut Object, fields: &[Field]) {
    let plain: Option<Object> = fields
        .iter()
        .map(|Field { name, value, expires_at_ms }| {
            let (name, value) = (std::str::from_utf8(name).ok()?, std::str::from_utf8(value).ok()?);
            expires_at_ms.is_none().then(|| (name.to_owned(), json!(value)))
        })
        .collect();
    if let Some(plain) = plain {
        line.insert("hash".to_owned(), Json::Object(plain));
        return;
    }
    let one = |field: &Field| {
        let mut object = Object::new();
        put(&mut object, "field", &field.name);
        put(&mut object, "value", &field.value);
        if let Some(at_ms) = field.expires_at_ms {
            put_expiration(&mut object, at_ms);
        }
        Json::Object(object)
    };
    line.insert("fields".to_owned(), fields.iter().map(one).collect());
}

/// A part of a stream.
enum StreamPiece<'a> {
    Entries(&'a [StreamEntry]),
    Pending(&'a Group, &'a [Pending]),
}

fn stream_pieces(stream: &Stream) -> Vec<StreamPiece<'_>> {
    let weight = |entry: &StreamEntry| entry.fields.iter().map(|(name, value)| name.len() + value.len()).sum();
    let mut pieces: Vec<StreamPiece<'_>> = cut(&stream.entries, PART, weight).map(StreamPiece::Entries).collect();
    if pieces.is_empty() {
        pieces.push(StreamPiece::Entries(&[]));
    }
    for group in &stream.groups {
        pieces.extend(cut(&group.pending, PART, |_| 0).map(|pending| StreamPiece::Pending(group, pending)));
    }
    pieces
}

fn put_stream_piece(line: &mut Object, _: &Stream, piece: &StreamPiece<'_>) {
    match piece {
        StreamPiece::Entries(entries) => {
            line.insert("entries".to_owned(), entries.iter().map(entry_json).collect());
        }
        StreamPiece::Pending(group, pending) => {
            put(line, "group", &group.name);
            line.insert("pending".to_owned(), pending.iter().map(|one| pending_json(group, one)).collect());
        }
    }
}

fn entry_json(entry: &StreamEntry) -> Json {
    let fields: Json = entry.fields.iter().map(|(name, value)| pair(name, value)).collect();
    json!({"id": entry.id.to_string(), "fields": fields})
}

fn pending_json(group: &Group, pending: &Pending) -> Json {
    let mut object = Object::from_iter([
        ("id".to_owned(), json!(pending.id.to_string())),
        ("delivered_ms".to_owned(), json!(pending.delivered_ms)),
        ("deliveries".to_owned(), json!(pending.deliveries)),
    ]);
    if let Some(consumer) = group.consumers.get(pending.consumer) {
        put(&mut object, "consumer", &consumer.name);
    }
    Json::Object(object)
}

/// All of a stream but its entries and pending entries.
fn stream_head(stream: &Stream) -> Json {
    json!({
        "last_id": stream.last_id.to_string(),
        "first_id": stream.first_id.to_string(),
        "max_deleted_id": stream.max_deleted_id.to_string(),
        "entries_added": stream.entries_added,
        "groups": stream.groups.iter().map(group_json).collect::<Vec<_>>(),
        "idempotence": stream.idempotence.as_ref().map(idempotence_json),
    })
}

fn group_json(group: &Group) -> Json {
    let mut object = Object::from_iter([
        ("last_id".to_owned(), json!(group.last_id.to_string())),
        ("entries_read".to_owned(), json!(group.entries_read)),
        ("pending_count".to_owned(), json!(group.pending.len())),
    ]);
    put(&mut object, "name", &group.name);
    let consumer = |consumer: &redtape_wire::rdb::Consumer| {
        let mut object = Object::from_iter([
            ("seen_ms".to_owned(), json!(consumer.seen_ms)),
            ("active_ms".to_owned(), json!(consumer.active_ms)),
        ]);
        put(&mut object, "name", &consumer.name);
        Json::Object(object)
    };
    object.insert("consumers".to_owned(), group.consumers.iter().map(consumer).collect());
    Json::Object(object)
}

fn idempotence_json(kept: &Idempotence) -> Json {
    let ids = |(name, ids): &(Vec<u8>, Vec<(Vec<u8>, redtape_wire::rdb::StreamId)>)| {
        let mut object = Object::new();
        put(&mut object, "name", name);
        let one = |(id, entry): &(Vec<u8>, redtape_wire::rdb::StreamId)| {
            let mut object = Object::from_iter([("entry".to_owned(), json!(entry.to_string()))]);
            put(&mut object, "id", id);
            Json::Object(object)
        };
        object.insert("ids".to_owned(), ids.iter().map(one).collect());
        Json::Object(object)
    };
    json!({
        "duration_seconds": kept.duration_seconds,
        "max_ids": kept.max_ids,
        "producers": kept.producers.iter().map(ids).collect::<Vec<_>>(),
        "added": kept.added,
        "duplicates": kept.duplicates,
    })
}
