//! Strings in each of their encodings: plain, integers of 8, 16 and 32 bits, LZF (`rdbGenericLoadStringObject`).

use std::borrow::Cow;

use super::fault::{Fault, ReadError};
use super::input::{Input, SliceInput};
use super::length::{Length, read_count, read_length, write_length};
use super::lzf;

/// How a string is stored; what it announces is not yet taken.
enum Stored {
    Plain(u64),
    Integer(i64),
    Lzf { compressed: u64, plain: u64 },
}

fn read_head(input: &mut impl Input, what: &'static str) -> Result<Stored, ReadError> {
    let at = input.at();
    Ok(match read_length(input, what)? {
        Length::Plain(len) => Stored::Plain(len),
        Length::Encoded(0) => Stored::Integer(i8::from_le_bytes(input.fixed(what)?).into()),
        Length::Encoded(1) => Stored::Integer(i16::from_le_bytes(input.fixed(what)?).into()),
        Length::Encoded(2) => Stored::Integer(i32::from_le_bytes(input.fixed(what)?).into()),
        Length::Encoded(3) => {
            let (compressed, plain) = (read_count(input, what)?, read_count(input, what)?);
            if !lzf::is_plausible(compressed, plain) {
                return Err(Fault::Invalid("a compressed string (LZF) announces a length that it cannot have").at(at));
            }
            Stored::Lzf { compressed, plain }
        }
        Length::Encoded(_) => return Err(Fault::Invalid("a string has an encoding that does not exist").at(at)),
    })
}

/// Passes over a string.
pub(super) fn skip_string(input: &mut impl Input, what: &'static str) -> Result<(), ReadError> {
    let stored = read_head(input, what)?;
    pass(input, &stored, what)
}

/// Passes over a string; returns how many bytes clients see.
pub(super) fn pass_string(input: &mut impl Input, what: &'static str) -> Result<u64, ReadError> {
    let stored = read_head(input, what)?;
    pass(input, &stored, what)?;
    Ok(seen_len(&stored))
}

/// Passes over a string, and puts it into `out` if it has at most `keep` bytes, else leaves `out` empty; returns how many bytes
/// clients see.
pub(super) fn pass_and_keep_short(
    input: &mut impl Input,
    keep_max: u64,
    what: &'static str,
    out: &mut Vec<u8>,
) -> Result<u64, ReadError> {
    out.clear();
    let at = input.at();
    let stored = read_head(input, what)?;
    let len = seen_len(&stored);
    if len <= keep_max {
        keep(input, &stored, at, what, out)?;
    } else {
        pass(input, &stored, what)?;
    }
    Ok(len)
}

/// How many bytes clients see.
fn seen_len(stored: &Stored) -> u64 {
    match *stored {
        Stored::Integer(number) => decimal_len(number),
        Stored::Plain(len) | Stored::Lzf { plain: len, .. } => len,
    }
}

/// Bytes of a number as a client reads it.
pub(super) fn decimal_len(number: i64) -> u64 {
    let digits = number.unsigned_abs().checked_ilog10().unwrap_or(0) + 1;
    u64::from(digits) + u64::from(number < 0)
}

fn pass(input: &mut impl Input, stored: &Stored, what: &'static str) -> Result<(), ReadError> {
    match *stored {
        Stored::Plain(len) | Stored::Lzf { compressed: len, .. } => input.skip(len, what),
        Stored::Integer(_) => Ok(()),
    }
}

/// Puts a string into `out`, which is emptied first; refuses one of more than `limit` bytes.
pub(super) fn read_string_into(
    input: &mut impl Input,
    limit: u64,
    what: &'static str,
    out: &mut Vec<u8>,
) -> Result<(), ReadError> {
    let at = input.at();
    let stored = read_head(input, what)?;
    if let Stored::Plain(bytes) | Stored::Lzf { plain: bytes, .. } = stored
        && bytes > limit
    {
        return Err(Fault::TooLong { what, bytes, limit }.at(at));
    }
    keep(input, &stored, at, what, out)
}

fn keep(
    input: &mut impl Input,
    stored: &Stored,
    at: u64,
    what: &'static str,
    out: &mut Vec<u8>,
) -> Result<(), ReadError> {
    out.clear();
    match *stored {
        Stored::Integer(number) => out.extend_from_slice(number.to_string().as_bytes()),
        Stored::Plain(len) => input.take_into(len, what, out)?,
        Stored::Lzf { compressed, plain } => {
            let mut from = Vec::new();
            input.take_into(compressed, what, &mut from)?;
            lzf::decompress(&from, in_memory(plain, at)?, out).map_err(|fault| fault.at(at))?;
        }
    }
    Ok(())
}

/// Puts a string into `out`, or passes over it if it is longer than `limit`; whether it was kept.
pub(super) fn skip_or_keep(
    input: &mut impl Input,
    limit: u64,
    what: &'static str,
    out: &mut Vec<u8>,
) -> Result<bool, ReadError> {
    let at = input.at();
    let stored = read_head(input, what)?;
    if let Stored::Plain(bytes) | Stored::Lzf { plain: bytes, .. } = stored
        && bytes > limit
    {
        pass(input, &stored, what)?;
        return Ok(false);
    }
    keep(input, &stored, at, what, out)?;
    Ok(true)
}

/// A string of a value in memory, where it lies if it lies there as it is.
pub(super) fn read_string<'a>(
    input: &mut SliceInput<'a>,
    limit: u64,
    what: &'static str,
) -> Result<Cow<'a, [u8]>, ReadError> {
    let at = input.at();
    match read_head(input, what)? {
        Stored::Integer(number) => Ok(Cow::Owned(number.to_string().into_bytes())),
        Stored::Plain(bytes) | Stored::Lzf { plain: bytes, .. } if bytes > limit => {
            Err(Fault::TooLarge { limit }.at(at))
        }
        Stored::Plain(len) => input.take(len, what).map(Cow::Borrowed),
        Stored::Lzf { compressed, plain } => {
            let from = input.take(compressed, what)?;
            let mut out = Vec::new();
            lzf::decompress(from, in_memory(plain, at)?, &mut out).map_err(|fault| fault.at(at))?;
            Ok(Cow::Owned(out))
        }
    }
}

/// As it is: neither as a number nor compressed.
pub(super) fn write_string(bytes: &[u8], out: &mut Vec<u8>) {
    write_length(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

fn in_memory(len: u64, at: u64) -> Result<usize, ReadError> {
    usize::try_from(len).map_err(|_| Fault::Invalid("a string is longer than the memory of this machine").at(at))
}
