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
/// The kind of a list's node that is one element (`quicklist.h`).
const PLAIN_NODE: u64 = 1;

/// A string in which elements are packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pack {
    pub(super) form: PackForm,
    /// How many items make an element.
    pub(super) items: usize,
    /// How many of these, from the first, are of the application: no scores and no TTLs.
    pub(super) own: usize,
}

/// How it is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PackForm {
    Ziplist,
    Listpack,
    Intset,
}

impl Pack {
    const fn of(form: PackForm, items: usize, own: usize) -> Self {
        Self { form, items, own }
    }
}

/// Looks at the parts of a value while they are passed over.
pub(super) trait Look {
    /// Passes over a string of the application: an element, a field, or the value of one.
    fn string(&mut self, input: &mut impl Input, what: &'static str) -> Result<(), ReadError>;
    /// Passes over a string that is all of a value.
    fn whole(&mut self, input: &mut impl Input, what: &'static str) -> Result<(), ReadError> {
        self.string(input, what)
    }
    /// Passes over packed elements.
    fn pack(&mut self, input: &mut impl Input, pack: Pack, what: &'static str) -> Result<(), ReadError>;
    /// So many elements follow one by one.
    fn elements(&mut self, count: u64);
    /// Passes over a node of a stream: entries, packed together.
    fn stream_node(&mut self, input: &mut impl Input, what: &'static str) -> Result<(), ReadError> {
        skip_string(input, what)
    }
    /// A stream has this group.
    fn group(&mut self, _: GroupSize) {}
    /// The value is of this type of a module.
    fn module(&mut self, id: u64);
}

/// How many there are in a consumer group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct GroupSize {
    pub(super) consumers: u64,
    pub(super) pending: u64,
}

/// Looks at nothing.
struct Unseen;

impl Look for Unseen {
    fn string(&mut self, input: &mut impl Input, what: &'static str) -> Result<(), ReadError> {
        skip_string(input, what)
    }

    fn pack(&mut self, input: &mut impl Input, _: Pack, what: &'static str) -> Result<(), ReadError> {
        skip_string(input, what)
    }

    fn elements(&mut self, _: u64) {}

    fn module(&mut self, _: u64) {}
}

pub(super) fn skip_value(input: &mut impl Input, of: ValueType) -> Result<(), ReadError> {
    pass_value(input, of, &mut Unseen)
}

/// Passes over a value, and has it looked at.
pub(super) fn pass_value(input: &mut impl Input, of: ValueType, look: &mut impl Look) -> Result<(), ReadError> {
    use PackForm::{Intset, Listpack, Ziplist};
    use ValueType as T;
    match of {
        T::String => look.whole(input, "a string"),
        T::ListZiplist => look.pack(input, Pack::of(Ziplist, 1, 1), "a list"),
        T::SetIntset => look.pack(input, Pack::of(Intset, 1, 1), "a set"),
        T::SetListpack => look.pack(input, Pack::of(Listpack, 1, 1), "a set"),
        T::ZsetZiplist => look.pack(input, Pack::of(Ziplist, 2, 1), "a sorted set"),
        T::ZsetListpack => look.pack(input, Pack::of(Listpack, 2, 1), "a sorted set"),
        T::HashZiplist => look.pack(input, Pack::of(Ziplist, 2, 2), "a hash"),
        T::HashListpack => look.pack(input, Pack::of(Listpack, 2, 2), "a hash"),
        T::HashListpackExPreGa => look.pack(input, Pack::of(Listpack, 3, 2), "a hash"),
        T::HashListpackEx => {
            input.skip(8, "a hash")?;
            look.pack(input, Pack::of(Listpack, 3, 2), "a hash")
        }
        T::List => elements(input, look, "a list", |input, look| look.string(input, "a list")),
        T::ListQuicklist => {
            each(input, "a list", |input| look.pack(input, Pack::of(Ziplist, 1, 1), "a list")).map(drop)
        }
        T::ListQuicklist2 => each(input, "a list", |input| {
            if read_count(input, "a list")? == PLAIN_NODE {
                look.elements(1);
                return look.string(input, "a list");
            }
            look.pack(input, Pack::of(Listpack, 1, 1), "a list")
        })
        .map(drop),
        T::Set => elements(input, look, "a set", |input, look| look.string(input, "a set")),
        T::Zset => elements(input, look, "a sorted set", |input, look| {
            look.string(input, "a sorted set")?;
            let len = input.byte("a sorted set")?;
            if len <= SCORE_TEXT_MAX { input.skip(len.into(), "a sorted set") } else { Ok(()) }
        }),
        T::Zset2 => elements(input, look, "a sorted set", |input, look| {
            look.string(input, "a sorted set")?;
            input.skip(8, "a sorted set")
        }),
        T::Hash => elements(input, look, "a hash", pass_field),
        T::HashMetadata => {
            input.skip(8, "a hash")?;
            elements(input, look, "a hash", pass_field_with_ttl)
        }
        T::HashMetadataPreGa => elements(input, look, "a hash", pass_field_with_ttl),
        T::ValkeyHash2 => elements(input, look, "a hash", |input, look| {
            pass_field(input, look)?;
            input.skip(8, "a hash")
        }),
        T::Stream1 => pass_stream(input, 1, look),
        T::Stream2 => pass_stream(input, 2, look),
        T::Stream3 => pass_stream(input, 3, look),
        T::Stream4 => pass_stream(input, 4, look),
        T::Module2 => {
            look.module(read_count(input, "a module's value")?);
            module::skip_items(input)
        }
    }
}

/// The same of each element.
fn elements<I: Input, L: Look>(
    input: &mut I,
    look: &mut L,
    what: &'static str,
    mut one: impl FnMut(&mut I, &mut L) -> Result<(), ReadError>,
) -> Result<(), ReadError> {
    let count = read_count(input, what)?;
    look.elements(count);
    for _ in 0..count {
        one(input, look)?;
    }
    Ok(())
}

/// The same of each; returns how many there are.
fn each<I: Input>(
    input: &mut I,
    what: &'static str,
    mut one: impl FnMut(&mut I) -> Result<(), ReadError>,
) -> Result<u64, ReadError> {
    let count = read_count(input, what)?;
    for _ in 0..count {
        one(input)?;
    }
    Ok(count)
}

fn pass_field<I: Input, L: Look>(input: &mut I, look: &mut L) -> Result<(), ReadError> {
    look.string(input, "a hash")?;
    look.string(input, "a hash")
}

fn pass_field_with_ttl<I: Input, L: Look>(input: &mut I, look: &mut L) -> Result<(), ReadError> {
    read_count(input, "a hash")?;
    pass_field(input, look)
}

/// Numbers of one stream, group or producer.
fn counts(input: &mut impl Input, how_many: usize) -> Result<(), ReadError> {
    for _ in 0..how_many {
        read_count(input, "a stream")?;
    }
    Ok(())
}

fn pass_stream(input: &mut impl Input, version: u8, look: &mut impl Look) -> Result<(), ReadError> {
    const WHAT: &str = "a stream";
    each(input, WHAT, |input| {
        skip_string(input, WHAT)?;
        look.stream_node(input, WHAT)
    })?;
    look.elements(read_count(input, WHAT)?);
    // Last id; first id, greatest deleted id and entries added.
    counts(input, if version >= 2 { 2 + 5 } else { 2 })?;
    each(input, WHAT, |input| skip_group(input, version).map(|size| look.group(size)))?;
    if version >= 4 {
        // Duration and size of what is kept for idempotence; then how many ids were added, and met again.
        counts(input, 2)?;
        each(input, WHAT, |input| {
            skip_string(input, WHAT)?;
            each(input, WHAT, |input| {
                skip_string(input, WHAT)?;
                counts(input, 2)
            })
            .map(drop)
        })?;
        counts(input, 2)?;
    }
    Ok(())
}

fn skip_group<I: Input>(input: &mut I, version: u8) -> Result<GroupSize, ReadError> {
    const WHAT: &str = "a consumer group";
    skip_string(input, WHAT)?;
    counts(input, if version >= 2 { 3 } else { 2 })?;
    let pending = each(input, WHAT, |input| {
        input.skip(16 + 8, WHAT)?;
        counts(input, 1)
    })?;
    let consumers = each(input, WHAT, |input| {
        skip_string(input, WHAT)?;
        input.skip(if version >= 3 { 16 } else { 8 }, WHAT)?;
        let at = input.at();
        let ids = read_count(input, WHAT)?;
        let bytes = ids.checked_mul(16).ok_or_else(|| Fault::Invalid("a consumer has too many entries").at(at))?;
        input.skip(bytes, WHAT)
    })?;
    Ok(GroupSize { consumers, pending })
}
