//! Passes over a value of any type without keeping it. A count that is too high ends at the end of the bytes: each
//! element takes at least one.

use super::fault::{Fault, ReadError};
use super::input::Input;
use super::length::read_count;
use super::module;
use super::string::skip_string;
use super::table::ValueType;

/// A text of a score: 253 to 255 stand for what has no digits.
const SCORE_TEXT_MAX: u8 = 252;

pub(super) fn skip_value(input: &mut impl Input, of: ValueType) -> Result<(), ReadError> {
    use ValueType as T;
    match of {
        T::String => skip_string(input, "a string"),
        T::ListZiplist => skip_string(input, "a list"),
        T::SetIntset | T::SetListpack => skip_string(input, "a set"),
        T::ZsetZiplist | T::ZsetListpack => skip_string(input, "a sorted set"),
        T::HashZiplist | T::HashListpack | T::HashListpackExPreGa => skip_string(input, "a hash"),
        T::HashListpackEx => {
            input.skip(8, "a hash")?;
            skip_string(input, "a hash")
        }
        T::List | T::ListQuicklist => each(input, "a list", |input| skip_string(input, "a list")),
        T::ListQuicklist2 => each(input, "a list", |input| {
            read_count(input, "a list")?;
            skip_string(input, "a list")
        }),
        T::Set => each(input, "a set", |input| skip_string(input, "a set")),
        T::Zset => each(input, "a sorted set", |input| {
            skip_string(input, "a sorted set")?;
            let len = input.byte("a sorted set")?;
            if len <= SCORE_TEXT_MAX { input.skip(len.into(), "a sorted set") } else { Ok(()) }
        }),
        T::Zset2 => each(input, "a sorted set", |input| {
            skip_string(input, "a sorted set")?;
            input.skip(8, "a sorted set")
        }),
        T::Hash => each(input, "a hash", skip_field),
        T::HashMetadata => {
            input.skip(8, "a hash")?;
            each(input, "a hash", skip_field_with_ttl)
        }
        T::HashMetadataPreGa => each(input, "a hash", skip_field_with_ttl),
        T::ValkeyHash2 => each(input, "a hash", |input| {
            skip_field(input)?;
            input.skip(8, "a hash")
        }),
        T::Stream1 => skip_stream(input, 1),
        T::Stream2 => skip_stream(input, 2),
        T::Stream3 => skip_stream(input, 3),
        T::Stream4 => skip_stream(input, 4),
        T::Module2 => {
            read_count(input, "a module's value")?;
            module::skip_items(input)
        }
    }
}

fn each<I: Input>(
    input: &mut I,
    what: &'static str,
    mut one: impl FnMut(&mut I) -> Result<(), ReadError>,
) -> Result<(), ReadError> {
    for _ in 0..read_count(input, what)? {
        one(input)?;
    }
    Ok(())
}

fn skip_field<I: Input>(input: &mut I) -> Result<(), ReadError> {
    skip_string(input, "a hash")?;
    skip_string(input, "a hash")
}

fn skip_field_with_ttl<I: Input>(input: &mut I) -> Result<(), ReadError> {
    read_count(input, "a hash")?;
    skip_field(input)
}

/// Numbers of one stream, group or producer.
fn counts(input: &mut impl Input, how_many: usize) -> Result<(), ReadError> {
    for _ in 0..how_many {
        read_count(input, "a stream")?;
    }
    Ok(())
}

fn skip_stream(input: &mut impl Input, version: u8) -> Result<(), ReadError> {
    const WHAT: &str = "a stream";
    each(input, WHAT, |input| {
        skip_string(input, WHAT)?;
        skip_string(input, WHAT)
    })?;
    // Length and last id; first id, greatest deleted id and entries added.
    counts(input, if version >= 2 { 3 + 5 } else { 3 })?;
    each(input, WHAT, |input| skip_group(input, version))?;
    if version >= 4 {
        // Duration and size of what is kept for idempotence; then how many ids were added, and met again.
        counts(input, 2)?;
        each(input, WHAT, |input| {
            skip_string(input, WHAT)?;
            each(input, WHAT, |input| {
                skip_string(input, WHAT)?;
                counts(input, 2)
            })
        })?;
        counts(input, 2)?;
    }
    Ok(())
}

fn skip_group<I: Input>(input: &mut I, version: u8) -> Result<(), ReadError> {
    const WHAT: &str = "a consumer group";
    skip_string(input, WHAT)?;
    counts(input, if version >= 2 { 3 } else { 2 })?;
    each(input, WHAT, |input| {
        input.skip(16 + 8, WHAT)?;
        counts(input, 1)
    })?;
    each(input, WHAT, |input| {
        skip_string(input, WHAT)?;
        input.skip(if version >= 3 { 16 } else { 8 }, WHAT)?;
        let at = input.at();
        let ids = read_count(input, WHAT)?;
        let bytes = ids.checked_mul(16).ok_or_else(|| Fault::Invalid("a consumer has too many entries").at(at))?;
        input.skip(bytes, WHAT)
    })
}
