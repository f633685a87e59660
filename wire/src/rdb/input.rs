//! Where bytes are taken from: the same parser reads a file of any size and a value in memory.

use super::fault::{Fault, ReadError};

/// Bytes in order, each taken once. Taking more than there is gives an error; nothing is allocated for what is
/// only announced.
pub(super) trait Input {
    /// Offset of the next byte.
    fn at(&self) -> u64;
    /// The next byte.
    fn byte(&mut self, what: &'static str) -> Result<u8, ReadError>;
    /// Passes over `len` bytes.
    fn skip(&mut self, len: u64, what: &'static str) -> Result<(), ReadError>;
    /// Appends `len` bytes to `out`, which grows with what is there.
    fn take_into(&mut self, len: u64, what: &'static str, out: &mut Vec<u8>) -> Result<(), ReadError>;

    /// The next `N` bytes.
    fn fixed<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], ReadError> {
        let mut bytes = [0; N];
        for byte in &mut bytes {
            *byte = self.byte(what)?;
        }
        Ok(bytes)
    }

    /// A fault at the next byte.
    fn fault(&self, fault: Fault) -> ReadError {
        fault.at(self.at())
    }
}

/// Bytes in memory.
#[derive(Debug, Clone)]
pub(super) struct SliceInput<'a> {
    rest: &'a [u8],
    at: u64,
}

impl<'a> SliceInput<'a> {
    /// `first`: the offset that the first byte has in messages.
    pub(super) fn new(bytes: &'a [u8], first: u64) -> Self {
        Self { rest: bytes, at: first }
    }

    /// What has not been taken.
    pub(super) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// The next `len` bytes, where they lie.
    pub(super) fn take(&mut self, len: u64, what: &'static str) -> Result<&'a [u8], ReadError> {
        let taken = usize::try_from(len).ok().and_then(|len| self.rest.split_at_checked(len));
        let Some((taken, rest)) = taken else { return Err(self.fault(Fault::Truncated { what })) };
        self.rest = rest;
        self.at += len;
        Ok(taken)
    }
}

impl Input for SliceInput<'_> {
    fn at(&self) -> u64 {
        self.at
    }

    fn byte(&mut self, what: &'static str) -> Result<u8, ReadError> {
        let Some((&byte, rest)) = self.rest.split_first() else { return Err(self.fault(Fault::Truncated { what })) };
        self.rest = rest;
        self.at += 1;
        Ok(byte)
    }

    fn skip(&mut self, len: u64, what: &'static str) -> Result<(), ReadError> {
        self.take(len, what).map(drop)
    }

    fn take_into(&mut self, len: u64, what: &'static str, out: &mut Vec<u8>) -> Result<(), ReadError> {
        out.extend_from_slice(self.take(len, what)?);
        Ok(())
    }
}
