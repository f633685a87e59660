//! Hashes, with the TTLs of their fields in each of the forms that servers have given them.

use super::super::fault::{Fault, ReadError};
use super::super::input::{Input, SliceInput};
use super::super::length::read_count;
use super::super::pack::Item;
use super::super::pack::listpack::Listpack;
use super::super::pack::ziplist::Ziplist;
use super::super::table::ValueType;
use super::super::value::Field;
use super::budget::Budget;

const WHAT: &str = "a hash";
const BAD_TTL: Fault = Fault::Invalid("a field of a hash expires at a time that cannot be");
const HALF: Fault = Fault::Invalid("a hash has a field without a value");

pub(super) fn decode(of: ValueType, input: &mut SliceInput<'_>, budget: &mut Budget) -> Result<Vec<Field>, ReadError> {
    let at = input.at();
    let mut out = match of {
        ValueType::HashZiplist => {
            let bytes = budget.pack(input, WHAT)?;
            let mut list = Ziplist::new(&bytes).map_err(|fault| fault.at(at))?;
            packed(|| list.next(), false, at, budget)?
        }
        ValueType::HashListpack => listpack(input, false, budget)?,
        ValueType::HashListpackExPreGa => listpack(input, true, budget)?,
        ValueType::HashListpackEx => {
            // The smallest TTL, which each field has again.
            input.skip(8, WHAT)?;
            listpack(input, true, budget)?
        }
        ValueType::HashMetadata => {
            let smallest = i64::from_le_bytes(input.fixed(WHAT)?);
            with_ttl_before(input, budget, |ttl| {
                // One more than the distance to the smallest.
                let distance = i64::try_from(ttl).ok()?.checked_sub(1)?;
                smallest.checked_add(distance).filter(|&at| at >= 0)
            })?
        }
        ValueType::HashMetadataPreGa => with_ttl_before(input, budget, |ttl| i64::try_from(ttl).ok())?,
        ValueType::ValkeyHash2 => with_ttl_behind(input, budget)?,
        _ => plain(input, budget)?,
    };
    out.sort_unstable();
    if out.windows(2).any(|pair| pair[0].name == pair[1].name) {
        return Err(Fault::Invalid("a hash has a field twice").at(at));
    }
    Ok(out)
}

fn listpack(input: &mut SliceInput<'_>, ttls: bool, budget: &mut Budget) -> Result<Vec<Field>, ReadError> {
    let at = input.at();
    let bytes = budget.pack(input, WHAT)?;
    let mut pack = Listpack::new(&bytes).map_err(|fault| fault.at(at))?;
    packed(|| pack.next(), ttls, at, budget)
}

/// Field, value, and with `ttls` the time at which it expires; 0: never.
fn packed<'a>(
    mut next: impl FnMut() -> Result<Option<Item<'a>>, Fault>,
    ttls: bool,
    at: u64,
    budget: &mut Budget,
) -> Result<Vec<Field>, ReadError> {
    let mut out = Vec::new();
    while let Some(name) = next().map_err(|fault| fault.at(at))? {
        let value = next().and_then(|value| value.ok_or(HALF)).map_err(|fault| fault.at(at))?;
        let mut expires_at_ms = None;
        if ttls {
            expires_at_ms = match next().map_err(|fault| fault.at(at))? {
                Some(Item::Int(0)) => None,
                Some(Item::Int(ms @ 1..)) => Some(ms),
                _ => return Err(BAD_TTL.at(at)),
            };
        }
        let (name, value) = (budget.own(name.bytes(), at)?, budget.own(value.bytes(), at)?);
        out.push(Field { name, value, expires_at_ms });
    }
    Ok(out)
}

fn plain(input: &mut SliceInput<'_>, budget: &mut Budget) -> Result<Vec<Field>, ReadError> {
    let mut out = Vec::new();
    for _ in 0..read_count(input, WHAT)? {
        let (name, value) = (budget.string(input, WHAT)?, budget.string(input, WHAT)?);
        out.push(Field { name, value, expires_at_ms: None });
    }
    Ok(out)
}

/// Redis 7.4: a count in front of each field, 0 for none; `time` makes a time of it.
fn with_ttl_before(
    input: &mut SliceInput<'_>,
    budget: &mut Budget,
    time: impl Fn(u64) -> Option<i64>,
) -> Result<Vec<Field>, ReadError> {
    let mut out = Vec::new();
    for _ in 0..read_count(input, WHAT)? {
        let at = input.at();
        let expires_at_ms = match read_count(input, WHAT)? {
            0 => None,
            ttl => Some(time(ttl).ok_or_else(|| BAD_TTL.at(at))?),
        };
        let (name, value) = (budget.string(input, WHAT)?, budget.string(input, WHAT)?);
        out.push(Field { name, value, expires_at_ms });
    }
    Ok(out)
}

/// Valkey 9: a time behind each field, -1 for none.
fn with_ttl_behind(input: &mut SliceInput<'_>, budget: &mut Budget) -> Result<Vec<Field>, ReadError> {
    let mut out = Vec::new();
    for _ in 0..read_count(input, WHAT)? {
        let (name, value) = (budget.string(input, WHAT)?, budget.string(input, WHAT)?);
        let at = input.at();
        let expires_at_ms = match i64::from_le_bytes(input.fixed(WHAT)?) {
            -1 => None,
            ms @ 0.. => Some(ms),
            _ => return Err(BAD_TTL.at(at)),
        };
        out.push(Field { name, value, expires_at_ms });
    }
    Ok(out)
}
