//! Little-endian integers, LEB128 varints and length-prefixed bytes: writing into a `Vec`, reading
//! with bounds checks.
//!
//! Invariant: [`Cursor`] never reads past its end and never allocates; every length it returns has
//! been checked against the bytes that are left.

use crate::error::Damage;

/// Longest varint of a `u64`.
pub(crate) const MAX_VARINT: usize = 10;

/// Appends `value` as an LEB128 varint.
#[inline]
pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a varint length and the bytes.
#[inline]
pub(crate) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Reads fields one after the other.
#[derive(Debug, Clone)]
pub(crate) struct Cursor<'a> {
    bytes: &'a [u8],
    pos: usize,
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, pos: 0 }
    }

    /// Starts at `pos`; behind the end, nothing is left.
    pub(crate) fn at(bytes: &'a [u8], pos: usize) -> Self {
        Self { bytes, pos: pos.min(bytes.len()) }
    }

    pub(crate) fn pos(&self) -> usize {
        self.pos
    }

    pub(crate) fn remaining(&self) -> usize {
        self.bytes.len() - self.pos
    }

    pub(crate) fn take(&mut self, len: usize) -> Result<&'a [u8], Damage> {
        if len > self.remaining() {
            return Err(Damage::new(format!("{len} more bytes"), format!("{} at byte {}", self.remaining(), self.pos)));
        }
        let taken = &self.bytes[self.pos..self.pos + len];
        self.pos += len;
        Ok(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Damage> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N)?);
        Ok(out)
    }

    #[inline]
    pub(crate) fn u8(&mut self) -> Result<u8, Damage> {
        if let Some(&byte) = self.bytes.get(self.pos) {
            self.pos += 1;
            return Ok(byte);
        }
        Ok(self.array::<1>()?[0])
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Damage> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Damage> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    pub(crate) fn i64(&mut self) -> Result<i64, Damage> {
        Ok(i64::from_le_bytes(self.array()?))
    }

    #[inline]
    pub(crate) fn varint(&mut self) -> Result<u64, Damage> {
        // Nearly all of them are small.
        if let Some(&byte) = self.bytes.get(self.pos).filter(|byte| **byte < 0x80) {
            self.pos += 1;
            return Ok(u64::from(byte));
        }
        self.long_varint()
    }

    #[inline(never)]
    fn long_varint(&mut self) -> Result<u64, Damage> {
        let mut value = 0u64;
        for (n, &byte) in self.bytes[self.pos..].iter().take(MAX_VARINT).enumerate() {
            if n == MAX_VARINT - 1 && byte > 1 {
                break;
            }
            value |= u64::from(byte & 0x7f) << (7 * n);
            if byte < 0x80 {
                self.pos += n + 1;
                return Ok(value);
            }
        }
        Err(Damage::new("a varint of at most 64 bits", format!("none at byte {}", self.pos)))
    }

    /// A varint that counts things of at least `min_len` bytes each, all of them still to come.
    #[inline]
    pub(crate) fn count(&mut self, min_len: usize) -> Result<usize, Damage> {
        let count = self.varint()?;
        let most = (self.remaining() / min_len.max(1)) as u64;
        if count > most { Err(self.too_many(count, most)) } else { Ok(count as usize) }
    }

    #[cold]
    fn too_many(&self, count: u64, most: u64) -> Damage {
        Damage::new(format!("a count of at most {most}"), format!("{count} before byte {}", self.pos))
    }

    /// A varint length and as many bytes; returns where they are.
    #[inline]
    pub(crate) fn range(&mut self) -> Result<std::ops::Range<usize>, Damage> {
        let len = self.count(1)?;
        let start = self.pos;
        self.pos += len;
        Ok(start..self.pos)
    }

    /// What a range holds that was read before.
    pub(crate) fn bytes(&self, range: std::ops::Range<usize>) -> &'a [u8] {
        &self.bytes[range]
    }

    /// A varint length and as many bytes of UTF-8.
    pub(crate) fn string(&mut self) -> Result<String, Damage> {
        let range = self.range()?;
        let start = range.start;
        utf8(&self.bytes[range], start)
    }

    /// A `u32` length and as many bytes of UTF-8.
    pub(crate) fn string32(&mut self) -> Result<String, Damage> {
        let len = self.u32()? as usize;
        let start = self.pos;
        utf8(self.take(len)?, start)
    }
}

fn utf8(bytes: &[u8], start: usize) -> Result<String, Damage> {
    std::str::from_utf8(bytes).map(str::to_owned).map_err(|e| Damage::new("UTF-8", format!("{e} after byte {start}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_varint_comes_back(value: u64, shift in 0u32..64) {
            let value = value >> shift;
            let mut out = Vec::new();
            put_varint(&mut out, value);
            let mut cursor = Cursor::new(&out);
            prop_assert_eq!(cursor.varint(), Ok(value));
            prop_assert_eq!(cursor.remaining(), 0);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let mut cursor = Cursor::new(&bytes);
            while cursor.string().is_ok() && cursor.remaining() > 0 {}
            let mut cursor = Cursor::new(&bytes);
            while cursor.varint().is_ok() {}
        }
    }

    #[test]
    fn a_varint_over_64_bits_is_refused() {
        let mut bytes = [0xff; 10];
        bytes[9] = 2;
        assert!(Cursor::new(&bytes).varint().is_err());
        assert!(Cursor::new(&[0xff; 10]).varint().is_err());
    }
}
