//! The packed forms in which small values are stored as one string. Each is checked as a whole: its own lengths, the way
//! back that each element stores, the end mark.

pub(super) mod intset;
pub(super) mod listpack;
pub(super) mod ziplist;

use std::borrow::Cow;

use super::string::decimal_len;

/// An element of a listpack or a ziplist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Item<'a> {
    Int(i64),
    Bytes(&'a [u8]),
}

impl<'a> Item<'a> {
    /// As a client reads it.
    pub(super) fn bytes(self) -> Cow<'a, [u8]> {
        match self {
            Self::Int(number) => Cow::Owned(number.to_string().into_bytes()),
            Self::Bytes(bytes) => Cow::Borrowed(bytes),
        }
    }

    /// How many bytes that are.
    pub(super) fn len(self) -> u64 {
        match self {
            Self::Int(number) => decimal_len(number),
            Self::Bytes(bytes) => bytes.len() as u64,
        }
    }
}

/// An element of which the number stands in `len` bytes behind its first one, and the length of both; `None` = they are not there.
fn int(rest: &[u8], len: usize) -> Option<(Item<'_>, usize)> {
    Some((Item::Int(signed(rest.get(1..=len)?)), 1 + len))
}

/// An element of `len` bytes behind a head, and the length of both; `None` = they are not there.
fn text(rest: &[u8], head: usize, len: usize) -> Option<(Item<'_>, usize)> {
    let end = head.checked_add(len)?;
    Some((Item::Bytes(rest.get(head..end)?), end))
}

/// `len` little-endian bytes as a signed number.
fn signed(bytes: &[u8]) -> i64 {
    let negative = bytes.last().is_some_and(|high| high & 0x80 != 0);
    let mut wide = [if negative { 0xff } else { 0 }; 8];
    for (to, from) in wide.iter_mut().zip(bytes) {
        *to = *from;
    }
    i64::from_le_bytes(wide)
}
