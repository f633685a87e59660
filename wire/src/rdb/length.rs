//! Lengths and counts: 6, 14, 32 or 64 bits, or the mark of a specially encoded string (`rdbLoadLenByRef` in `rdb.c`).

use super::fault::{Fault, ReadError};
use super::input::Input;

/// What stands where a length may stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Length {
    Plain(u64),
    /// The number of a string's encoding.
    Encoded(u8),
}

pub(super) fn read_length(input: &mut impl Input, what: &'static str) -> Result<Length, ReadError> {
    let at = input.at();
    let first = input.byte(what)?;
    Ok(match (first >> 6, first) {
        (0, _) => Length::Plain(u64::from(first)),
        (1, _) => Length::Plain(u64::from(first & 0x3f) << 8 | u64::from(input.byte(what)?)),
        (2, 0x80) => Length::Plain(u32::from_be_bytes(input.fixed(what)?).into()),
        (2, 0x81) => Length::Plain(u64::from_be_bytes(input.fixed(what)?)),
        (3, _) => Length::Encoded(first & 0x3f),
        _ => return Err(Fault::Invalid("a length begins with a byte that no length begins with").at(at)),
    })
}

/// A count, an id or the like: no string's encoding can stand here.
pub(super) fn read_count(input: &mut impl Input, what: &'static str) -> Result<u64, ReadError> {
    let at = input.at();
    match read_length(input, what)? {
        Length::Plain(count) => Ok(count),
        Length::Encoded(_) => Err(Fault::Invalid("an encoded string where a count is required").at(at)),
    }
}

/// As a server writes it: in as few bytes as it takes.
pub(super) fn write_length(len: u64, out: &mut Vec<u8>) {
    match len {
        0..0x40 => out.push(len as u8),
        0x40..0x4000 => out.extend_from_slice(&(0x4000 | len as u16).to_be_bytes()),
        0x4000..=0xffff_ffff => {
            out.push(0x80);
            out.extend_from_slice(&(len as u32).to_be_bytes());
        }
        _ => {
            out.push(0x81);
            out.extend_from_slice(&len.to_be_bytes());
        }
    }
}

/// How many bytes [`write_length`] takes.
pub(super) fn length_size(len: u64) -> u64 {
    match len {
        0..0x40 => 1,
        0x40..0x4000 => 2,
        0x4000..=0xffff_ffff => 5,
        _ => 9,
    }
}
