//! One JSON object for a key at a point in time: a stable contract, described in `docs/json.md`.

use redtape_journal::Micros;
use redtape_restore::get::{Got, KeyHistory, LastTouch, State};
pub(crate) use redtape_restore::json::{Object, pair, point, put, score, time};
use redtape_wire::rdb::{Consumer, Field, Group, Pending, Stream, StreamEntry, Value, module_type};
use serde_json::{Value as Json, json};

use super::element::Element;
use super::{done, size};

/// What of the value is in the object.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Part<'a> {
    /// All of it, but no more than so many elements.
    Whole(usize),
    /// One element, if it is there.
    Element(Option<&'a Element<'a>>),
}

/// The object.
pub(crate) fn object(got: &Got, part: Part<'_>) -> Json {
    let mut object = Object::new();
    put(&mut object, "key", &got.key);
    object.insert("db".to_owned(), json!(got.db));
    object.insert("exists".to_owned(), json!(matches!(got.state, State::Present(_))));
    object.insert("point".to_owned(), point(&got.point));
    match &got.state {
        State::Present(present) => {
            object.insert("type".to_owned(), json!(present.value.type_name()));
            object.insert("expires".to_owned(), json!(present.expires_at_ms.map(|at| expires(at, got))));
            object.insert("size".to_owned(), json!(size(&present.value)));
            match part {
                Part::Element(found) => {
                    object.insert("element".to_owned(), json!(found.map(|e| element_json(e, got))));
                }
                Part::Whole(limit) => contents(&mut object, &present.value, got, limit),
            }
            if present.expired_fields > 0 {
                object.insert("expired_fields".to_owned(), json!(present.expired_fields));
            }
        }
        State::Expired(at) => {
            object.insert("expired".to_owned(), expires(*at, got));
        }
        State::Absent => {}
    }
    history(&mut object, &got.history, got);
    if !got.other_dbs.is_empty() {
        object.insert("other_dbs".to_owned(), json!(got.other_dbs));
    }
    object.insert("warnings".to_owned(), json!(got.point.warnings));
    Json::Object(object)
}

/// When something expires, and how much of its life was left at the point.
fn expires(at_ms: i64, got: &Got) -> Json {
    let at = Micros(at_ms.saturating_mul(1000));
    let mut object = time(at);
    object.insert("left_us".to_owned(), json!(at.0.saturating_sub(got.point.clock.0)));
    Json::Object(object)
}

fn history(object: &mut Object, history: &KeyHistory, got: &Got) {
    let touch = |touch: &Option<LastTouch>| json!(touch.as_ref().map(|t| touch_json(t, (got.db, &got.key))));
    object.insert("last_write".to_owned(), touch(&history.last));
    object.insert("perhaps_written_since".to_owned(), touch(&history.uncertain));
    object.insert("perhaps_written_groups".to_owned(), json!(history.uncertain_groups));
    object.insert("history_cut_short".to_owned(), json!(history.cut_short));
    object.insert("written_since_base".to_owned(), json!(history.since_base));
    let base = &got.point.base.manifest;
    let mut at = time(base.ts);
    at.insert("lsn".to_owned(), json!(base.lsn.0));
    object.insert("base".to_owned(), Json::Object(at));
}

/// A write of a key.
pub(crate) fn touch_json(touch: &LastTouch, (db, key): (u32, &[u8])) -> Object {
    let mut object = time(touch.ts);
    object.insert("slack_us".to_owned(), json!(touch.slack));
    object.insert("lsn".to_owned(), json!(touch.record.lsn.0));
    object.insert("db".to_owned(), json!(touch.record.db));
    let name = touch.record.args.first().map(|name| name.to_ascii_lowercase()).unwrap_or_default();
    put(&mut object, "command", &name);
    object.insert("what".to_owned(), json!(done(touch, db, key).word()));
    object.insert("atomic".to_owned(), json!(touch.atomic));
    object.insert("origin".to_owned(), json!(&*touch.origin));
    object
}

/// What is in the value, up to `limit` elements.
fn contents(object: &mut Object, value: &Value, got: &Got, limit: usize) {
    let listed: Vec<Json> = match value {
        Value::String(bytes) => return put(object, "value", bytes),
        Value::Module { id, data } => {
            object.insert("module".to_owned(), json!({"type": module_type(*id).0, "bytes": data.len()}));
            return;
        }
        Value::List(items) => {
            items.iter().enumerate().take(limit).map(|(at, item)| element_json(&Element::Item(at, item), got)).collect()
        }
        Value::Set(members) => {
            members.iter().take(limit).map(|member| element_json(&Element::Member(member), got)).collect()
        }
        Value::Zset(members) => {
            members.iter().take(limit).map(|(member, s)| element_json(&Element::Scored(member, *s), got)).collect()
        }
        Value::Hash(fields) => fields.iter().take(limit).map(|f| element_json(&Element::Field(f), got)).collect(),
        Value::Stream(stream) => {
            object.insert("stream".to_owned(), stream_json(stream, limit));
            stream.entries.iter().take(limit).map(|entry| element_json(&Element::Entry(entry), got)).collect()
        }
    };
    object.insert("more".to_owned(), json!(size(value) - listed.len()));
    object.insert("elements".to_owned(), Json::Array(listed));
}

fn element_json(element: &Element<'_>, got: &Got) -> Json {
    let mut object = Object::new();
    match element {
        Element::Field(Field { name, value, expires_at_ms }) => {
            put(&mut object, "field", name);
            put(&mut object, "value", value);
            if let Some(at) = expires_at_ms {
                object.insert("expires".to_owned(), expires(*at, got));
            }
        }
        Element::Member(member) => put(&mut object, "member", member),
        Element::Scored(member, number) => {
            put(&mut object, "member", member);
            object.insert("score".to_owned(), score(*number));
        }
        Element::Item(at, item) => {
            object.insert("index".to_owned(), json!(at));
            put(&mut object, "value", item);
        }
        Element::Entry(StreamEntry { id, fields }) => {
            object.insert("id".to_owned(), json!(id.to_string()));
            object.insert("fields".to_owned(), fields.iter().map(|(name, value)| pair(name, value)).collect());
        }
    }
    Json::Object(object)
}

fn stream_json(stream: &Stream, limit: usize) -> Json {
    json!({
        "last_id": stream.last_id.to_string(),
        "max_deleted_id": stream.max_deleted_id.to_string(),
        "entries_added": stream.entries_added,
        "groups": stream.groups.iter().map(|group| group_json(group, limit)).collect::<Vec<_>>(),
    })
}

pub(crate) fn group_json(group: &Group, limit: usize) -> Json {
    let mut object = Object::new();
    put(&mut object, "name", &group.name);
    object.insert("last_id".to_owned(), json!(group.last_id.to_string()));
    object.insert("entries_read".to_owned(), json!(group.entries_read));
    object.insert("consumers".to_owned(), group.consumers.iter().take(limit).map(consumer_json).collect());
    object.insert("consumer_count".to_owned(), json!(group.consumers.len()));
    let pending = group.pending.iter().take(limit).map(|entry| pending_json(entry, group));
    object.insert("pending".to_owned(), pending.collect());
    object.insert("pending_count".to_owned(), json!(group.pending.len()));
    Json::Object(object)
}

fn consumer_json(consumer: &Consumer) -> Json {
    let mut object = Object::new();
    put(&mut object, "name", &consumer.name);
    object.insert("seen_us".to_owned(), json!(consumer.seen_ms.saturating_mul(1000)));
    Json::Object(object)
}

fn pending_json(entry: &Pending, group: &Group) -> Json {
    let mut object = Object::new();
    object.insert("id".to_owned(), json!(entry.id.to_string()));
    if let Some(consumer) = group.consumers.get(entry.consumer) {
        put(&mut object, "consumer", &consumer.name);
    }
    object.insert("delivered_us".to_owned(), json!(entry.delivered_ms.saturating_mul(1000)));
    object.insert("deliveries".to_owned(), json!(entry.deliveries));
    Json::Object(object)
}
