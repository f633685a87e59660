//! One JSON object for a key that differs, and one at the end: a stable contract, described in `docs/json.md`.

use redtape_journal::Micros;
use redtape_restore::diff::{
    Element, ElementChange, Held, KeyDifference, LastWrite, LibraryChange, ListedElement, Summary,
};
use redtape_wire::rdb::{Field, StreamEntry};
use serde_json::{Value as Json, json};

use super::what;
use crate::get::json::{Object, group_json, pair, point, put, score, time, touch_json};

/// A key that differs. `values`: with what was there and what is there then.
pub(crate) fn key(difference: &KeyDifference, values: bool) -> Json {
    let mut object = Object::new();
    object.insert("what".to_owned(), json!(what(difference)));
    object.insert("db".to_owned(), json!(difference.db));
    put(&mut object, "key", &difference.key);
    object.insert("value_differs".to_owned(), json!(difference.value_differs));
    object.insert("ttl_differs".to_owned(), json!(difference.ttl_differs));
    object.insert("before".to_owned(), json!(difference.before.as_ref().map(|held| held_json(held, values))));
    object.insert("after".to_owned(), json!(difference.after.as_ref().map(|held| held_json(held, values))));
    object.insert("added".to_owned(), json!(difference.added));
    object.insert("removed".to_owned(), json!(difference.removed));
    object.insert("changed".to_owned(), json!(difference.changed));
    let elements = difference.elements.iter().map(|element| element_json(element, difference, values));
    object.insert("elements".to_owned(), elements.collect());
    object.insert("more".to_owned(), json!(difference.more()));
    if difference.last_write != LastWrite::NotAsked {
        object.insert("last_write".to_owned(), write_json(&difference.last_write, difference));
    }
    if difference.ttl_write != LastWrite::NotAsked {
        object.insert("ttl_write".to_owned(), write_json(&difference.ttl_write, difference));
    }
    Json::Object(object)
}

fn held_json(held: &Held, values: bool) -> Json {
    let mut object = Object::new();
    object.insert("type".to_owned(), json!(held.type_name));
    object.insert("size".to_owned(), json!(held.size));
    object.insert("expires".to_owned(), ends(held.expires_at_ms));
    if let Some(string) = held.string.as_ref().filter(|_| values) {
        put(&mut object, "value", string);
    }
    if let Some(notes) = &held.stream {
        let notes = json!({
            "last_id": notes.last_id.to_string(),
            "max_deleted_id": notes.max_deleted_id.to_string(),
            "entries_added": notes.entries_added,
        });
        object.insert("stream".to_owned(), notes);
    }
    Json::Object(object)
}

/// When something expires; null = never.
fn ends(at_ms: Option<i64>) -> Json {
    json!(at_ms.map(|at| time(Micros(at.saturating_mul(1000)))))
}

fn element_json(listed: &ListedElement, difference: &KeyDifference, values: bool) -> Json {
    let (what, element, before, after) = match &listed.change {
        ElementChange::Added(element) => ("added", element, None, Some(element)),
        ElementChange::Removed(element) => ("removed", element, Some(element), None),
        ElementChange::Changed { before, after } => ("changed", after, Some(before), Some(after)),
    };
    let mut object = Object::new();
    object.insert("what".to_owned(), json!(what));
    name(&mut object, element);
    if values {
        object.insert("before".to_owned(), json!(before.map(contents)));
        object.insert("after".to_owned(), json!(after.map(contents)));
    }
    if listed.last_write != LastWrite::NotAsked {
        object.insert("last_write".to_owned(), write_json(&listed.last_write, difference));
    }
    Json::Object(object)
}

fn name(object: &mut Object, element: &Element) {
    match element {
        Element::Field(Field { name, .. }) => put(object, "field", name),
        Element::Member(member) | Element::Scored(member, _) => put(object, "member", member),
        Element::Item(at, _) => drop(object.insert("index".to_owned(), json!(at))),
        Element::Entry(entry) => drop(object.insert("id".to_owned(), json!(entry.id.to_string()))),
        Element::Group(group) => put(object, "group", &group.name),
    }
}

/// What is in an element, beside its name.
fn contents(element: &Element) -> Json {
    let mut object = Object::new();
    match element {
        Element::Field(Field { value, expires_at_ms, .. }) => {
            put(&mut object, "value", value);
            object.insert("expires".to_owned(), ends(*expires_at_ms));
        }
        Element::Member(_) => {}
        Element::Scored(_, number) => drop(object.insert("score".to_owned(), score(*number))),
        Element::Item(_, item) => put(&mut object, "value", item),
        Element::Entry(StreamEntry { fields, .. }) => {
            object.insert("fields".to_owned(), fields.iter().map(|(name, value)| pair(name, value)).collect());
        }
        Element::Group(group) => return group_json(group, usize::MAX),
    }
    Json::Object(object)
}

/// Null = nothing has written it.
fn write_json(last: &LastWrite, difference: &KeyDifference) -> Json {
    let (certain, lsn, why) = match last {
        LastWrite::NotAsked | LastWrite::Nothing => return Json::Null,
        LastWrite::Certain(write) => (true, write.record.lsn, None),
        LastWrite::Uncertain { lsn, why, .. } => (false, *lsn, Some(why.to_string())),
    };
    let touch = |write| touch_json(write, (difference.db, &difference.key));
    let mut object = last.write().map(touch).unwrap_or_default();
    object.insert("lsn".to_owned(), json!(lsn.0));
    object.insert("certain".to_owned(), json!(certain));
    if let Some(why) = why {
        object.insert("why".to_owned(), json!(why));
    }
    Json::Object(object)
}

/// The last line.
pub(crate) fn summary(summary: &Summary) -> Json {
    let library = |(name, change): &(String, LibraryChange)| {
        let what = match change {
            LibraryChange::Created => "created",
            LibraryChange::Deleted => "deleted",
            LibraryChange::Changed => "changed",
        };
        json!({"name": name, "what": what})
    };
    let libraries = summary.libraries.as_ref().map(|all| all.iter().map(library).collect::<Vec<_>>());
    let warnings: Vec<&String> = summary.first.warnings.iter().chain(&summary.second.warnings).collect();
    json!({
        "what": "summary",
        "first": point(&summary.first),
        "second": point(&summary.second),
        "created": summary.created,
        "deleted": summary.deleted,
        "changed": summary.changed,
        "ttl_only": summary.ttl_only,
        "equal": summary.equal,
        "written": summary.touched,
        "all_because": summary.all_because,
        "libraries": libraries,
        "writes_known": summary.writes_known,
        "warnings": warnings,
    })
}
