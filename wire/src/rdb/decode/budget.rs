//! What a decoded value may take in memory.

use std::borrow::Cow;

use super::super::fault::{Fault, ReadError};
use super::super::input::{Input, SliceInput};
use super::super::string::read_string;
use super::super::value::Bytes;

/// What an element costs beside its bytes: its place in a list, what the allocator keeps of it.
const ELEMENT_COST: u64 = 64;

/// Everything that is kept is charged before it is allocated.
pub(super) struct Budget {
    limit: u64,
    left: u64,
}

impl Budget {
    pub(super) fn new(limit: u64) -> Self {
        Self { limit, left: limit }
    }

    /// `at`: where the error is, if there is one.
    pub(super) fn charge(&mut self, bytes: usize, at: u64) -> Result<(), ReadError> {
        let cost = (bytes as u64).saturating_add(ELEMENT_COST);
        self.left = self.left.checked_sub(cost).ok_or_else(|| Fault::TooLarge { limit: self.limit }.at(at))?;
        Ok(())
    }

    /// Bytes that are kept.
    pub(super) fn own<'a>(&mut self, bytes: impl Into<Cow<'a, [u8]>>, at: u64) -> Result<Bytes, ReadError> {
        let bytes = bytes.into();
        self.charge(bytes.len(), at)?;
        Ok(bytes.into_owned())
    }

    /// A string that is kept.
    pub(super) fn string(&mut self, input: &mut SliceInput<'_>, what: &'static str) -> Result<Bytes, ReadError> {
        let at = input.at();
        let bytes = read_string(input, self.left, what)?;
        self.own(bytes, at)
    }

    /// A string that is only looked into, such as a listpack; where it lies if it is not compressed. It may not be longer
    /// than what may be kept.
    pub(super) fn pack<'a>(&self, input: &mut SliceInput<'a>, what: &'static str) -> Result<Cow<'a, [u8]>, ReadError> {
        read_string(input, self.limit, what)
    }
}
