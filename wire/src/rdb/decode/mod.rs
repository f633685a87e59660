//! One value's bytes into its canonical form.

mod budget;
mod hash;
mod list;
mod set;
mod stream;
mod zset;

use std::borrow::Cow;

use super::fault::{Fault, ReadError};
use super::input::{Input, SliceInput};
use super::length::read_count;
use super::module;
use super::string::read_string;
use super::table::ValueType;
use super::value::Value;
use budget::Budget;

/// What a decoded value may take where the caller has no limit of its own: twice the longest string of a server.
pub const DECODED_MAX: u64 = 1 << 30;

/// Decodes the bytes of one value (`KeyEntry::value`), all of them.
///
/// `limit`: bytes that the decoded value may take in memory. Compressed strings can grow to 88 times their length, and a
/// short element costs more than its bytes. Offsets in errors count from the first byte.
pub fn decode_value(of: ValueType, bytes: &[u8], limit: u64) -> Result<Value, ReadError> {
    use ValueType as T;
    let mut input = SliceInput::new(bytes, 0);
    let mut budget = Budget::new(limit);
    let (from, with) = (&mut input, &mut budget);
    let value = match of {
        T::String => Value::String(with.string(from, "a string")?),
        T::List | T::ListZiplist | T::ListQuicklist | T::ListQuicklist2 => Value::List(list::decode(of, from, with)?),
        T::Set | T::SetIntset | T::SetListpack => Value::Set(set::decode(of, from, with)?),
        T::Zset | T::Zset2 | T::ZsetZiplist | T::ZsetListpack => Value::Zset(zset::decode(of, from, with)?),
        T::Hash
        | T::HashZiplist
        | T::HashListpack
        | T::HashMetadataPreGa
        | T::HashListpackExPreGa
        | T::HashMetadata
        | T::HashListpackEx
        | T::ValkeyHash2 => Value::Hash(hash::decode(of, from, with)?),
        T::Stream1 => Value::Stream(Box::new(stream::decode(1, from, with)?)),
        T::Stream2 => Value::Stream(Box::new(stream::decode(2, from, with)?)),
        T::Stream3 => Value::Stream(Box::new(stream::decode(3, from, with)?)),
        T::Stream4 => Value::Stream(Box::new(stream::decode(4, from, with)?)),
        T::Module2 => decode_module(from, with)?,
    };
    if !input.rest().is_empty() {
        return Err(input.fault(Fault::Invalid("more bytes follow a value")));
    }
    Ok(value)
}

/// A value of type [`ValueType::String`], where it lies if it lies there as clients see it.
pub fn decode_string(bytes: &[u8], limit: u64) -> Result<Cow<'_, [u8]>, ReadError> {
    let mut input = SliceInput::new(bytes, 0);
    let string = read_string(&mut input, limit, "a string")?;
    if !input.rest().is_empty() {
        return Err(input.fault(Fault::Invalid("more bytes follow a value")));
    }
    Ok(string)
}

fn decode_module(input: &mut SliceInput<'_>, budget: &mut Budget) -> Result<Value, ReadError> {
    let id = read_count(input, "a module's value")?;
    let data = input.rest();
    module::skip_items(input)?;
    let data = budget.own(&data[..data.len() - input.rest().len()], input.at())?;
    Ok(Value::Module { id, data })
}

#[cfg(test)]
mod tests;
