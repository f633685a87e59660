//! What a live value lacks of the wanted one, and in which elements they differ. Pure.
//!
//! Sets, hashes and sorted sets are merged element by element. A list has no elements that could be told apart, a string none
//! at all: those are not merged. Streams are merged as a whole (`stream_merge`).

use std::cmp::Ordering;

use redtape_wire::rdb::{Bytes, Field, Score, Value};

use super::digest::{Digest, NOTHING, digest};

/// A part of a container that has a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Element {
    /// Of a hash.
    Field(Field),
    /// Of a set.
    Member(Bytes),
    /// Of a sorted set.
    Scored(Bytes, Score),
}

impl Element {
    /// Its name.
    pub(crate) fn name(&self) -> &[u8] {
        match self {
            Self::Field(field) => &field.name,
            Self::Member(name) | Self::Scored(name, _) => name,
        }
    }

    /// What it holds, as commands take it; a score so that the same number is read back.
    pub(crate) fn content(&self) -> Vec<u8> {
        match self {
            Self::Field(field) => field.value.clone(),
            Self::Member(_) => Vec::new(),
            Self::Scored(_, score) => score.get().to_string().into_bytes(),
        }
    }

    /// When it expires by itself, in ms since 1970; 0 = never.
    pub(crate) fn expires_ms(&self) -> i64 {
        if let Self::Field(Field { expires_at_ms: Some(at), .. }) = self { *at } else { 0 }
    }

    /// A digest of what it holds; all of a set's members hold the same.
    pub(crate) fn digest(&self) -> Digest {
        digest(&Value::String(self.content()))
    }
}

/// An element that is not the same in both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Difference {
    /// The live value does not have it.
    Lacking(Element),
    /// It has another one of that name.
    Other {
        /// At the restore point.
        wanted: Element,
        /// Now.
        live: Element,
    },
    /// Only the live value has it.
    Extra(Element),
}

impl Difference {
    /// The element's name.
    pub(crate) fn name(&self) -> &[u8] {
        match self {
            Self::Lacking(element) | Self::Extra(element) => element.name(),
            Self::Other { wanted, .. } => wanted.name(),
        }
    }
}

impl Difference {
    /// The digest of what the live value has.
    pub(crate) fn seen(&self) -> Digest {
        match self {
            Self::Lacking(_) => NOTHING,
            Self::Other { live, .. } | Self::Extra(live) => live.digest(),
        }
    }
}

/// What is removed comes last: a container that has no element for a moment would lose its time of expiry.
pub(crate) fn removals_last(differences: &mut [Difference]) {
    differences.sort_by_key(|difference| matches!(difference, Difference::Extra(_)));
}

/// The differing elements of two values, in the order of their names; `None` if these are not merged.
pub(crate) fn differences(wanted: Value, live: Value) -> Option<Vec<Difference>> {
    let elements = |value| -> Option<Vec<Element>> {
        let mut elements: Vec<Element> = match value {
            Value::Hash(fields) => fields.into_iter().map(Element::Field).collect(),
            Value::Set(members) => members.into_iter().map(Element::Member).collect(),
            Value::Zset(members) => members.into_iter().map(|(name, score)| Element::Scored(name, score)).collect(),
            Value::String(_) | Value::List(_) | Value::Stream(_) | Value::Module { .. } => return None,
        };
        elements.sort_unstable_by(|a, b| a.name().cmp(b.name()));
        Some(elements)
    };
    if std::mem::discriminant(&wanted) != std::mem::discriminant(&live) {
        return None;
    }
    Some(pair_up(elements(wanted)?, elements(live)?))
}

fn pair_up(wanted: Vec<Element>, live: Vec<Element>) -> Vec<Difference> {
    let (mut wanted, mut live) = (wanted.into_iter().peekable(), live.into_iter().peekable());
    let mut found = Vec::new();
    loop {
        let order = match (wanted.peek(), live.peek()) {
            (None, None) => return found,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(wanted), Some(live)) => wanted.name().cmp(live.name()),
        };
        let of_wanted = if order.is_le() { wanted.next() } else { None };
        let of_live = if order.is_ge() { live.next() } else { None };
        match (of_wanted, of_live) {
            (Some(wanted), None) => found.push(Difference::Lacking(wanted)),
            (None, Some(live)) => found.push(Difference::Extra(live)),
            (Some(wanted), Some(live)) if wanted != live => found.push(Difference::Other { wanted, live }),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(fields: &[(&str, &str)]) -> Value {
        let field = |(name, value): &(&str, &str)| Field {
            name: name.as_bytes().to_vec(),
            value: value.as_bytes().to_vec(),
            expires_at_ms: None,
        };
        Value::Hash(fields.iter().map(field).collect())
    }

    fn told(differences: &[Difference]) -> Vec<String> {
        let kind = |d: &Difference| match d {
            Difference::Lacking(_) => "lacking",
            Difference::Other { .. } => "other",
            Difference::Extra(_) => "extra",
        };
        differences.iter().map(|d| format!("{} {}", kind(d), String::from_utf8_lossy(d.name()))).collect()
    }

    #[test]
    fn elements_are_paired_by_their_names() {
        let found =
            differences(hash(&[("a", "1"), ("b", "1"), ("d", "1")]), hash(&[("b", "2"), ("c", "1"), ("d", "1")]));
        assert_eq!(told(&found.expect("merged")), ["lacking a", "other b", "extra c"]);
        let score = |n| Score::new(n).expect("a number");
        // Sorted sets come in the order of their scores.
        let found = differences(
            Value::Zset(vec![(b"z".to_vec(), score(1.0)), (b"a".to_vec(), score(2.0))]),
            Value::Zset(vec![(b"a".to_vec(), score(1.0)), (b"z".to_vec(), score(1.0))]),
        );
        assert_eq!(told(&found.expect("merged")), ["other a"]);
        let found = differences(Value::Set(vec![b"a".to_vec()]), Value::Set(vec![b"a".to_vec()]));
        assert_eq!(found, Some(Vec::new()));
    }

    #[test]
    fn what_has_no_named_elements_is_not_merged() {
        assert_eq!(differences(Value::String(b"a".to_vec()), Value::String(b"b".to_vec())), None);
        assert_eq!(differences(Value::List(Vec::new()), Value::List(vec![b"b".to_vec()])), None);
        assert_eq!(differences(hash(&[]), Value::Set(Vec::new())), None);
    }
}
