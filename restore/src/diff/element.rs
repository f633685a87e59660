//! Parts of a value, with a name or an index, for display of a difference.

use redtape_wire::rdb::{Bytes, Field, Group, Score, Stream, StreamEntry, Value};

use crate::values::merge;

/// A part of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Element {
    /// Of a hash.
    Field(Field),
    /// Of a set.
    Member(Bytes),
    /// Of a sorted set.
    Scored(Bytes, Score),
    /// Of a list: its index from the left.
    Item(usize, Bytes),
    /// Of a stream.
    Entry(StreamEntry),
    /// A consumer group of a stream.
    Group(Group),
}

/// The kind of change of an element.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ElementChange {
    /// Added.
    Added(Element),
    /// Removed.
    Removed(Element),
    /// Changed.
    Changed {
        /// Before.
        before: Element,
        /// After.
        after: Element,
    },
}

impl Element {
    /// Approximate size in memory, in bytes.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Field(field) => field.name.len() + field.value.len(),
            Self::Member(bytes) | Self::Scored(bytes, _) | Self::Item(_, bytes) => bytes.len(),
            Self::Entry(entry) => entry.fields.iter().map(|(name, value)| name.len() + value.len()).sum(),
            Self::Group(group) => {
                group.name.len() + size_of_val(&group.pending[..]) + size_of_val(&group.consumers[..])
            }
        }
    }
}

impl ElementChange {
    /// The name for a question about its last write.
    pub(super) fn name(&self) -> Option<&[u8]> {
        let (Self::Added(element) | Self::Removed(element) | Self::Changed { after: element, .. }) = self;
        match element {
            Element::Field(field) => Some(&field.name),
            Element::Member(name) | Element::Scored(name, _) => Some(name),
            Element::Item(..) | Element::Entry(_) | Element::Group(_) => None,
        }
    }

    /// Approximate size in memory, in bytes.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Added(element) | Self::Removed(element) => element.bytes(),
            Self::Changed { before, after } => before.bytes() + after.bytes(),
        }
    }
}

impl From<merge::Element> for Element {
    fn from(element: merge::Element) -> Self {
        match element {
            merge::Element::Field(field) => Self::Field(field),
            merge::Element::Member(name) => Self::Member(name),
            merge::Element::Scored(name, score) => Self::Scored(name, score),
        }
    }
}

/// The elements of a value; a string and a module's value have none.
pub(super) fn elements(value: Value) -> Vec<Element> {
    match value {
        Value::String(_) | Value::Module { .. } => Vec::new(),
        Value::List(items) => items.into_iter().enumerate().map(|(at, item)| Element::Item(at, item)).collect(),
        Value::Set(members) => members.into_iter().map(Element::Member).collect(),
        Value::Zset(members) => members.into_iter().map(|(name, score)| Element::Scored(name, score)).collect(),
        Value::Hash(fields) => fields.into_iter().map(Element::Field).collect(),
        Value::Stream(stream) => {
            let Stream { entries, groups, .. } = *stream;
            entries.into_iter().map(Element::Entry).chain(groups.into_iter().map(Element::Group)).collect()
        }
    }
}
