//! Ziplists (`ziplist.c`, up to Redis 6.2): 4 bytes total length, 4 bytes offset of the last element, 2 bytes count,
//! elements, 0xff. An element is the length of the one before it, its encoding, its bytes.

use super::super::fault::Fault;
use super::Item;

const HEADER_LEN: usize = 10;
const END: u8 = 0xff;
const COUNT_UNKNOWN: u16 = u16::MAX;
/// The length of the element before stands in the next four bytes.
const LONG: u8 = 254;
const BAD: Fault = Fault::Invalid("a ziplist is damaged");

/// Reads one from front to end.
pub(in crate::rdb) struct Ziplist<'a> {
    rest: &'a [u8],
    total: usize,
    /// Offset that the header gives to the last element.
    tail: u32,
    count: u16,
    seen: usize,
    /// Length of the element before.
    before: usize,
}

impl<'a> Ziplist<'a> {
    pub(in crate::rdb) fn new(bytes: &'a [u8]) -> Result<Self, Fault> {
        let (head, rest) = bytes.split_first_chunk::<HEADER_LEN>().ok_or(BAD)?;
        let total = u32::from_le_bytes([head[0], head[1], head[2], head[3]]);
        if u64::from(total) != bytes.len() as u64 || rest.last() != Some(&END) {
            return Err(BAD);
        }
        let tail = u32::from_le_bytes([head[4], head[5], head[6], head[7]]);
        let count = u16::from_le_bytes([head[8], head[9]]);
        Ok(Self { rest, total: bytes.len(), tail, count, seen: 0, before: 0 })
    }

    /// The next element; `None` at the end mark, which must be the last byte.
    pub(in crate::rdb) fn next(&mut self) -> Result<Option<Item<'a>>, Fault> {
        let Some(&first) = self.rest.first() else { return Err(BAD) };
        if first == END {
            let counted = self.count == COUNT_UNKNOWN || usize::from(self.count) == self.seen;
            let tail = self.total - 1 - self.before;
            let sound = self.rest.len() == 1 && counted && self.tail as usize == tail;
            return if sound { Ok(None) } else { Err(BAD) };
        }
        let (before, head) = if first == LONG {
            let stored = self.rest.get(1..5).and_then(|b| b.try_into().ok()).map(u32::from_le_bytes);
            (stored.ok_or(BAD)? as usize, 5)
        } else {
            (usize::from(first), 1)
        };
        if before != self.before {
            return Err(BAD);
        }
        let (item, len) = element(&self.rest[head..])?;
        self.before = head + len;
        self.rest = &self.rest[head + len..];
        self.seen += 1;
        Ok(Some(item))
    }
}

/// An element, and the length of its encoding and bytes.
fn element(rest: &[u8]) -> Result<(Item<'_>, usize), Fault> {
    let first = *rest.first().ok_or(BAD)?;
    let int = |len| super::int(rest, len).ok_or(BAD);
    let text = |head, len| super::text(rest, head, len).ok_or(BAD);
    match first {
        0..0x40 => text(1, first.into()),
        0x40..0x80 => {
            let low = rest.get(1).copied().ok_or(BAD)?;
            text(2, (usize::from(first & 0x3f) << 8) | usize::from(low))
        }
        0x80 => {
            let len = rest.get(1..5).and_then(|b| b.try_into().ok()).map(u32::from_be_bytes).ok_or(BAD)?;
            text(5, usize::try_from(len).map_err(|_| BAD)?)
        }
        0xc0 => int(2),
        0xd0 => int(4),
        0xe0 => int(8),
        0xf0 => int(3),
        0xfe => int(1),
        0xf1..=0xfd => Ok((Item::Int(i64::from(first & 0x0f) - 1), 1)),
        _ => Err(BAD),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(bytes: &[u8]) -> Option<Vec<String>> {
        let mut list = Ziplist::new(bytes).ok()?;
        let mut out = Vec::new();
        while let Some(item) = list.next().ok()? {
            out.push(String::from_utf8_lossy(&item.bytes()).into_owned());
        }
        Some(out)
    }

    /// Elements without the length of the one before.
    fn list(elements: &[&[u8]]) -> Vec<u8> {
        let (mut body, mut before, mut tail) = (Vec::new(), 0, HEADER_LEN);
        for element in elements {
            tail = HEADER_LEN + body.len();
            let from = body.len();
            if before < usize::from(LONG) {
                body.push(before as u8);
            } else {
                body.push(LONG);
                body.extend_from_slice(&(before as u32).to_le_bytes());
            }
            body.extend_from_slice(element);
            before = body.len() - from;
        }
        let mut out = (body.len() as u32 + 11).to_le_bytes().to_vec();
        out.extend_from_slice(&(tail as u32).to_le_bytes());
        out.extend_from_slice(&(elements.len() as u16).to_le_bytes());
        out.extend_from_slice(&body);
        out.push(END);
        out
    }

    #[test]
    fn every_encoding_of_an_element() {
        let long = [&b"\x41\x2c"[..], &[b'y'; 300]].concat();
        let longer = [&b"\x80\x00\x00\x40\x00"[..], &[b'z'; 16_384]].concat();
        let bytes = list(&[
            b"\x03abc",
            &long,
            b"\xfd",
            b"\xf1",
            b"\xfe\x80",
            b"\xc0\x00\x80",
            b"\xf0\xff\xff\x7f",
            b"\xd0\x00\x00\x00\x80",
            b"\xe0\xff\xff\xff\xff\xff\xff\xff\x7f",
            &longer,
        ]);
        let got = all(&bytes).expect("sound");
        assert_eq!(got[2..9], ["12", "0", "-128", "-32768", "8388607", "-2147483648", "9223372036854775807"]);
        assert_eq!((got[0].as_str(), got[1].len(), got[9].len()), ("abc", 300, 16_384));
        for len in 0..200 {
            assert_eq!(all(&bytes[..len]), None, "cut at {len}");
        }
        assert_eq!(all(&list(&[])), Some(vec![]));
    }

    #[test]
    fn damage_is_refused() {
        let good = list(&[b"\x01a", b"\x01b"]);
        for (at, value) in [(0, 99), (4, 99), (8, 3), (13, 9), (14, 0x05), (14, 0xff), (11, 0x90)] {
            let mut bad = good.clone();
            bad[at] = value;
            assert_eq!(all(&bad), None, "byte {at} = {value}");
        }
    }
}
