//! Compares two values of one key. Pure.
//!
//! Hashes, sets and sorted sets are compared by element name. For a list, the common beginning and end are left out,
//! and the rest counts as removed and added. A stream is compared by entries, groups, and stored ids.

use std::cmp::Ordering;

use redtape_wire::rdb::{Bytes, StreamId, Value};

use super::element::{Element, ElementChange, elements};
use super::last_write::LastWrite;
use crate::judge::{Part, Question};
use crate::values::merge::{Difference, differences};

/// Estimated size of a difference beside its bytes.
const OVERHEAD: usize = 256;

/// A key that differs between both points in time.
#[derive(Debug, Clone, PartialEq)]
pub struct KeyDifference {
    /// Its database.
    pub db: u32,
    /// Its name.
    pub key: Vec<u8>,
    /// State for a client at the first point in time; `None` = absent.
    pub before: Option<Held>,
    /// State at the second one.
    pub after: Option<Held>,
    /// The values differ.
    pub value_differs: bool,
    /// The expiry times of a key present at both points differ.
    pub ttl_differs: bool,
    /// Differing elements, up to the requested number.
    pub elements: Vec<ListedElement>,
    /// Number of added ones, listed or not.
    pub added: u64,
    /// Number of removed ones.
    pub removed: u64,
    /// Number of changed ones.
    pub changed: u64,
    /// The last write of the whole value, if its elements cannot be examined one by one.
    pub last_write: LastWrite,
    /// The last write of the expiry time, if that differs.
    pub ttl_write: LastWrite,
}

/// A differing element.
#[derive(Debug, Clone, PartialEq)]
pub struct ListedElement {
    /// The kind of difference.
    pub change: ElementChange,
    /// The write that made it.
    pub last_write: LastWrite,
}

/// A key at one of the points in time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// As `TYPE` names it.
    pub type_name: String,
    /// Number of elements; for a string or a module's value, bytes.
    pub size: u64,
    /// When it expires, in ms since 1970.
    pub expires_at_ms: Option<i64>,
    /// A string.
    pub string: Option<Bytes>,
    /// A stream's metadata beside entries and groups.
    pub stream: Option<StreamNotes>,
}

/// Ids stored in a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamNotes {
    /// The greatest id ever added.
    pub last_id: StreamId,
    /// The greatest deleted id.
    pub max_deleted_id: StreamId,
    /// Number of entries ever added.
    pub entries_added: u64,
}

/// A value as seen by a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) value: Value,
    pub(super) type_name: String,
    pub(super) expires_at_ms: Option<i64>,
}

/// Options of a comparison.
#[derive(Debug, Clone, Copy)]
pub(super) struct Listing {
    /// Limit of listed elements of a key.
    pub(super) elements: usize,
    /// Inaccuracy of expiry times.
    pub(super) ttl_slack_ms: i64,
}

/// `None` = they are equal.
pub(super) fn compare(
    (db, key): (u32, &[u8]),
    before: Option<Seen>,
    after: Option<Seen>,
    listing: Listing,
) -> Option<KeyDifference> {
    let ends = [&before, &after].map(|seen| seen.as_ref().and_then(|seen| seen.expires_at_ms));
    let both = before.is_some() && after.is_some();
    let value_differs = match (&before, &after) {
        (Some(before), Some(after)) => before.value != after.value,
        (None, None) => return None,
        _ => true,
    };
    let ttl_differs = both && differ(ends, listing.ttl_slack_ms);
    if !value_differs && !ttl_differs {
        return None;
    }
    let mut found = KeyDifference {
        db,
        key: key.to_vec(),
        before: before.as_ref().map(|seen| held(seen, value_differs)),
        after: after.as_ref().map(|seen| held(seen, value_differs)),
        value_differs,
        ttl_differs,
        elements: Vec::new(),
        added: 0,
        removed: 0,
        changed: 0,
        last_write: LastWrite::NotAsked,
        ttl_write: LastWrite::NotAsked,
    };
    if value_differs {
        let changes = changes(before.map(|seen| seen.value), after.map(|seen| seen.value));
        found.list(changes, listing.elements);
    }
    Some(found)
}

fn differ([before, after]: [Option<i64>; 2], slack_ms: i64) -> bool {
    match (before, after) {
        (Some(before), Some(after)) => (before - after).abs() > slack_ms,
        (before, after) => before != after,
    }
}

fn held(seen: &Seen, with_value: bool) -> Held {
    let size = match &seen.value {
        Value::String(bytes) => bytes.len(),
        Value::List(items) | Value::Set(items) => items.len(),
        Value::Zset(members) => members.len(),
        Value::Hash(fields) => fields.len(),
        Value::Stream(stream) => stream.entries.len(),
        Value::Module { data, .. } => data.len(),
    };
    let string = match &seen.value {
        Value::String(bytes) if with_value => Some(bytes.clone()),
        _ => None,
    };
    let stream = match &seen.value {
        Value::Stream(stream) => Some(StreamNotes {
            last_id: stream.last_id,
            max_deleted_id: stream.max_deleted_id,
            entries_added: stream.entries_added,
        }),
        _ => None,
    };
    Held { type_name: seen.type_name.clone(), size: size as u64, expires_at_ms: seen.expires_at_ms, string, stream }
}

/// The differing elements; for values of different types, all of both.
fn changes(before: Option<Value>, after: Option<Value>) -> Vec<ElementChange> {
    match (before, after) {
        (Some(Value::List(before)), Some(Value::List(after))) => of_lists(before, after),
        (Some(before @ Value::Stream(_)), Some(after @ Value::Stream(_))) => {
            of_streams(elements(before), elements(after))
        }
        (Some(before), Some(after)) if has_names(&before) && same_type(&before, &after) => {
            let all = differences(before, after).unwrap_or_default();
            all.into_iter().map(of_named).collect()
        }
        (before, after) => {
            let removed = before.map(elements).unwrap_or_default().into_iter().map(ElementChange::Removed);
            let added = after.map(elements).unwrap_or_default().into_iter().map(ElementChange::Added);
            removed.chain(added).collect()
        }
    }
}

fn has_names(value: &Value) -> bool {
    matches!(value, Value::Hash(_) | Value::Set(_) | Value::Zset(_))
}

fn same_type(one: &Value, other: &Value) -> bool {
    std::mem::discriminant(one) == std::mem::discriminant(other)
}

fn of_named(difference: Difference) -> ElementChange {
    match difference {
        Difference::Lacking(element) => ElementChange::Removed(element.into()),
        Difference::Extra(element) => ElementChange::Added(element.into()),
        Difference::Other { wanted, live } => ElementChange::Changed { before: wanted.into(), after: live.into() },
    }
}

fn of_lists(before: Vec<Bytes>, after: Vec<Bytes>) -> Vec<ElementChange> {
    let front = before.iter().zip(&after).take_while(|(one, other)| one == other).count();
    let back = before[front..].iter().rev().zip(after[front..].iter().rev());
    let back = back.take_while(|(one, other)| one == other).count();
    let between = |items: Vec<Bytes>| {
        let len = items.len() - front - back;
        items.into_iter().enumerate().skip(front).take(len).map(|(at, item)| Element::Item(at, item))
    };
    let removed = between(before).map(ElementChange::Removed);
    removed.chain(between(after).map(ElementChange::Added)).collect()
}

/// Entries in the order of their ids, then groups in that of their names.
fn of_streams(before: Vec<Element>, after: Vec<Element>) -> Vec<ElementChange> {
    let (mut before, mut after) = (before.into_iter().peekable(), after.into_iter().peekable());
    let mut found = Vec::new();
    loop {
        let order = match (before.peek(), after.peek()) {
            (None, None) => return found,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(before), Some(after)) => in_stream(before, after),
        };
        let was = if order.is_le() { before.next() } else { None };
        let is = if order.is_ge() { after.next() } else { None };
        match (was, is) {
            (Some(was), None) => found.push(ElementChange::Removed(was)),
            (None, Some(is)) => found.push(ElementChange::Added(is)),
            (Some(before), Some(after)) if before != after => found.push(ElementChange::Changed { before, after }),
            _ => {}
        }
    }
}

fn in_stream(one: &Element, other: &Element) -> Ordering {
    match (one, other) {
        (Element::Entry(one), Element::Entry(other)) => one.id.cmp(&other.id),
        (Element::Entry(_), _) => Ordering::Less,
        (_, Element::Entry(_)) => Ordering::Greater,
        (Element::Group(one), Element::Group(other)) => one.name.cmp(&other.name),
        _ => Ordering::Equal,
    }
}

impl KeyDifference {
    fn list(&mut self, changes: Vec<ElementChange>, limit: usize) {
        for change in &changes {
            let count = match change {
                ElementChange::Added(_) => &mut self.added,
                ElementChange::Removed(_) => &mut self.removed,
                ElementChange::Changed { .. } => &mut self.changed,
            };
            *count += 1;
        }
        let listed = |change| ListedElement { change, last_write: LastWrite::NotAsked };
        self.elements = changes.into_iter().take(limit).map(listed).collect();
    }

    /// Number of differing elements that are not listed.
    pub fn more(&self) -> u64 {
        (self.added + self.removed + self.changed).saturating_sub(self.elements.len() as u64)
    }

    /// Values of modules: different bytes may mean the same.
    pub fn is_opaque(&self) -> bool {
        let opaque = |held: &Option<Held>| {
            const KNOWN: [&str; 6] = ["string", "list", "set", "zset", "hash", "stream"];
            held.as_ref().is_some_and(|held| !KNOWN.contains(&&held.type_name[..]))
        };
        opaque(&self.before) && opaque(&self.after)
    }

    /// True if each element has a last write of its own.
    fn asks_elements(&self) -> bool {
        let (Some(before), Some(after)) = (&self.before, &self.after) else { return false };
        before.type_name == after.type_name && ["hash", "set", "zset"].contains(&&before.type_name[..])
    }

    /// The questions for the journal, in the order in which [`Self::answer`] takes the answers.
    pub(super) fn questions(&self) -> Vec<Question> {
        let ends = |held: &Option<Held>| held.as_ref().and_then(|held| held.expires_at_ms);
        let question = |part| Question {
            db: self.db,
            key: self.key.clone(),
            part,
            expires_before: ends(&self.before),
            expires_after: ends(&self.after),
        };
        let mut parts = Vec::new();
        if self.value_differs && self.asks_elements() {
            let names = self.elements.iter().filter_map(|element| element.change.name());
            parts.extend(names.map(|name| Part::Element(name.to_vec())));
        } else if self.value_differs {
            parts.push(Part::Whole);
        }
        if self.ttl_differs {
            parts.push(Part::Ttl);
        }
        parts.into_iter().map(question).collect()
    }

    /// Takes the answers to its questions.
    pub(super) fn answer(&mut self, answers: &mut dyn Iterator<Item = LastWrite>) {
        let mut next = || answers.next().unwrap_or(LastWrite::NotAsked);
        if self.value_differs && self.asks_elements() {
            self.elements.iter_mut().for_each(|element| element.last_write = next());
        } else if self.value_differs {
            self.last_write = next();
        }
        if self.ttl_differs {
            self.ttl_write = next();
        }
    }

    /// Approximate size in memory, in bytes.
    pub(super) fn bytes(&self) -> usize {
        let string = |held: &Option<Held>| held.as_ref().and_then(|held| held.string.as_ref()).map_or(0, Vec::len);
        let elements = self.elements.iter().map(|element| element.change.bytes() + OVERHEAD).sum::<usize>();
        OVERHEAD + 2 * self.key.len() + string(&self.before) + string(&self.after) + elements
    }
}

#[cfg(test)]
#[path = "compare_tests.rs"]
mod tests;
