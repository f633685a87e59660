//! Listpacks (`listpack.c`): 4 bytes total length, 2 bytes count, elements, 0xff. An element is its encoding, its bytes,
//! and the length of both again, to be read backwards.

use super::super::fault::Fault;
use super::Item;

const HEADER_LEN: usize = 6;
const END: u8 = 0xff;
/// So many elements or more: the count says nothing.
const COUNT_UNKNOWN: u16 = u16::MAX;
const BAD: Fault = Fault::Invalid("a listpack is damaged");

/// Reads one from front to end.
pub(in crate::rdb) struct Listpack<'a> {
    rest: &'a [u8],
    count: u16,
    seen: usize,
}

impl<'a> Listpack<'a> {
    pub(in crate::rdb) fn new(bytes: &'a [u8]) -> Result<Self, Fault> {
        let (head, rest) = bytes.split_first_chunk::<HEADER_LEN>().ok_or(BAD)?;
        let total = u32::from_le_bytes([head[0], head[1], head[2], head[3]]);
        if u64::from(total) != bytes.len() as u64 || rest.last() != Some(&END) {
            return Err(BAD);
        }
        Ok(Self { rest, count: u16::from_le_bytes([head[4], head[5]]), seen: 0 })
    }

    /// The next element; `None` at the end mark, which must be the last byte.
    pub(in crate::rdb) fn next(&mut self) -> Result<Option<Item<'a>>, Fault> {
        let Some(&first) = self.rest.first() else { return Err(BAD) };
        if first == END {
            let counted = self.count == COUNT_UNKNOWN || usize::from(self.count) == self.seen;
            return if self.rest.len() == 1 && counted { Ok(None) } else { Err(BAD) };
        }
        let (item, len) = element(self.rest, first)?;
        let back = backward_len(len);
        let stored = self.rest.get(len..len + back).ok_or(BAD)?;
        if !is_backward_len(stored, len) {
            return Err(BAD);
        }
        self.rest = &self.rest[len + back..];
        self.seen += 1;
        Ok(Some(item))
    }

    /// The next element, which must be there.
    pub(in crate::rdb) fn must(&mut self) -> Result<Item<'a>, Fault> {
        self.next()?.ok_or(Fault::Invalid("a listpack ends too early"))
    }

    /// The next element, which must be a number.
    pub(in crate::rdb) fn number(&mut self) -> Result<i64, Fault> {
        match self.must()? {
            Item::Int(number) => Ok(number),
            Item::Bytes(_) => Err(Fault::Invalid("a listpack has a text where a number must stand")),
        }
    }
}

/// An element, and the length of its encoding and bytes.
fn element(rest: &[u8], first: u8) -> Result<(Item<'_>, usize), Fault> {
    let byte = |at: usize| rest.get(at).copied().map(usize::from).ok_or(BAD);
    let int = |len| super::int(rest, len).ok_or(BAD);
    let text = |head, len| super::text(rest, head, len).ok_or(BAD);
    match first {
        0..0x80 => Ok((Item::Int(first.into()), 1)),
        0x80..0xc0 => text(1, usize::from(first & 0x3f)),
        0xc0..0xe0 => {
            let bits = (i64::from(first & 0x1f) << 8) | byte(1)? as i64;
            Ok((Item::Int(if bits < 1 << 12 { bits } else { bits - (1 << 13) }), 2))
        }
        0xe0..0xf0 => text(2, (usize::from(first & 0x0f) << 8) | byte(1)?),
        0xf0 => {
            let len = rest.get(1..5).and_then(|b| b.try_into().ok()).map(u32::from_le_bytes).ok_or(BAD)?;
            text(5, usize::try_from(len).map_err(|_| BAD)?)
        }
        0xf1 => int(2),
        0xf2 => int(3),
        0xf3 => int(4),
        0xf4 => int(8),
        0xf5.. => Err(BAD),
    }
}

/// How many bytes the length of an element takes behind it (`lpEncodeBacklen`).
fn backward_len(len: usize) -> usize {
    match len {
        0..=127 => 1,
        128..16_383 => 2,
        16_383..2_097_151 => 3,
        2_097_151..268_435_455 => 4,
        _ => 5,
    }
}

/// Writes one from front to end.
pub(in crate::rdb) struct ListpackWriter {
    bytes: Vec<u8>,
    count: usize,
}

impl ListpackWriter {
    pub(in crate::rdb) fn new() -> Self {
        Self { bytes: vec![0; HEADER_LEN], count: 0 }
    }

    /// A number, in as few bytes as it takes.
    pub(in crate::rdb) fn int(&mut self, number: i64) {
        let start = self.bytes.len();
        let le = number.to_le_bytes();
        match number {
            0..=127 => self.bytes.push(le[0]),
            -4096..=4095 => self.bytes.extend_from_slice(&[0xc0 | (le[1] & 0x1f), le[0]]),
            -0x8000..=0x7fff => self.wide_int(0xf1, &le[..2]),
            -0x80_0000..=0x7f_ffff => self.wide_int(0xf2, &le[..3]),
            -0x8000_0000..=0x7fff_ffff => self.wide_int(0xf3, &le[..4]),
            _ => self.wide_int(0xf4, &le),
        }
        self.end_element(start);
    }

    fn wide_int(&mut self, encoding: u8, le: &[u8]) {
        self.bytes.push(encoding);
        self.bytes.extend_from_slice(le);
    }

    /// Bytes, as they are: a server reads a number that is stored as text as well.
    pub(in crate::rdb) fn text(&mut self, text: &[u8]) {
        let start = self.bytes.len();
        let le = (text.len() as u32).to_le_bytes();
        match text.len() {
            0..=63 => self.bytes.push(0x80 | le[0]),
            64..=4095 => self.bytes.extend_from_slice(&[0xe0 | le[1], le[0]]),
            _ => self.wide_int(0xf0, &le),
        }
        self.bytes.extend_from_slice(text);
        self.end_element(start);
    }

    fn end_element(&mut self, start: usize) {
        let len = self.bytes.len() - start;
        for place in (0..backward_len(len)).rev() {
            let bits = ((len >> (7 * place)) & 0x7f) as u8;
            self.bytes.push(if place + 1 == backward_len(len) { bits } else { bits | 0x80 });
        }
        self.count += 1;
    }

    /// One of 4 GiB or more has a wrong length, and every server refuses it: none can hold such an element.
    pub(in crate::rdb) fn finish(mut self) -> Vec<u8> {
        self.bytes.push(END);
        let total = u32::try_from(self.bytes.len()).unwrap_or(u32::MAX);
        let count = u16::try_from(self.count).unwrap_or(COUNT_UNKNOWN);
        self.bytes[..4].copy_from_slice(&total.to_le_bytes());
        self.bytes[4..HEADER_LEN].copy_from_slice(&count.to_le_bytes());
        self.bytes
    }
}

/// Seven bits a byte, the highest first; all but the first are marked.
fn is_backward_len(stored: &[u8], len: usize) -> bool {
    let mut left = len;
    stored.iter().rev().enumerate().all(|(place, &byte)| {
        let bits = (left & 0x7f) as u8;
        left >>= 7;
        byte == if place + 1 == stored.len() { bits } else { bits | 0x80 }
    }) && left == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(bytes: &[u8]) -> Option<Vec<String>> {
        let mut pack = Listpack::new(bytes).ok()?;
        let mut out = Vec::new();
        while let Some(item) = pack.next().ok()? {
            out.push(String::from_utf8_lossy(&item.bytes()).into_owned());
        }
        Some(out)
    }

    fn pack(elements: &[&[u8]]) -> Vec<u8> {
        let body = elements.concat();
        let mut out = (body.len() as u32 + 7).to_le_bytes().to_vec();
        out.extend_from_slice(&(elements.len() as u16).to_le_bytes());
        out.extend_from_slice(&body);
        out.push(END);
        out
    }

    #[test]
    fn every_encoding_of_an_element() {
        let long = [&b"\xe0\xc8"[..], &[b'y'; 200], b"\x01\xca"].concat();
        let longer = [&b"\xf0\x00\x10\x00\x00"[..], &[b'z'; 4096], b"\x20\x85"].concat();
        let bytes = pack(&[
            b"\x7f\x01",
            b"\x83abc\x04",
            b"\xdf\xff\x02",
            b"\xcf\xff\x02",
            b"\xf1\x00\x80\x03",
            b"\xf2\xff\xff\x7f\x04",
            b"\xf3\x00\x00\x00\x80\x05",
            b"\xf4\xff\xff\xff\xff\xff\xff\xff\x7f\x09",
            &long,
            &longer,
        ]);
        let got = all(&bytes).expect("sound");
        assert_eq!(got[..8], ["127", "abc", "-1", "4095", "-32768", "8388607", "-2147483648", "9223372036854775807"]);
        assert_eq!((got[8].len(), got[9].len(), got.len()), (200, 4096, 10));
        for len in 0..bytes.len() {
            assert_eq!(all(&bytes[..len]), None, "cut at {len}");
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let borders = [7, 12, 15, 23, 31, 62].map(|bits| 1i64 << bits);
        let near = |border: &i64| (-2..=2).flat_map(|by| [border + by, -border + by]).collect::<Vec<_>>();
        let numbers: Vec<i64> = borders.iter().flat_map(near).chain([0, i64::MIN, i64::MAX]).collect();
        let lengths = [0, 1, 63, 64, 125, 126, 127, 128, 4095, 4096, 16_377, 16_378, 16_379, 2_097_145, 2_097_146];
        let mut writer = ListpackWriter::new();
        for number in &numbers {
            writer.int(*number);
        }
        for len in lengths {
            writer.text(&vec![b'x'; len]);
        }
        let bytes = writer.finish();
        let mut pack = Listpack::new(&bytes).expect("sound");
        for number in numbers {
            assert_eq!(pack.next().expect("sound"), Some(Item::Int(number)));
        }
        for len in lengths {
            assert_eq!(pack.next().expect("sound"), Some(Item::Bytes(&vec![b'x'; len])));
        }
        assert_eq!(pack.next().expect("sound"), None);
    }

    #[test]
    fn damage_is_refused() {
        for bytes in [
            pack(&[b"\x01\x02"]),         // The way back is another.
            pack(&[b"\x83ab\x04"]),       // Longer than what is there.
            pack(&[b"\x01\x01\xff"]),     // An end mark before the end.
            pack(&[b"\xf5\x01"]),         // No such encoding.
            pack(&[b"\x01\x01\x02\x01"]), // Two elements, one counted.
        ] {
            assert_eq!(all(&bytes), None, "{bytes:?}");
        }
        assert_eq!(all(&pack(&[])), Some(vec![]));
    }
}
