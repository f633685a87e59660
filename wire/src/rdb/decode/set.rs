//! Sets: member by member, as an intset, as a listpack.

use super::super::fault::{Fault, ReadError};
use super::super::input::{Input, SliceInput};
use super::super::length::read_count;
use super::super::pack::intset;
use super::super::pack::listpack::Listpack;
use super::super::table::ValueType;
use super::super::value::Bytes;
use super::budget::Budget;

const WHAT: &str = "a set";

pub(super) fn decode(of: ValueType, input: &mut SliceInput<'_>, budget: &mut Budget) -> Result<Vec<Bytes>, ReadError> {
    let at = input.at();
    let mut out = Vec::new();
    match of {
        ValueType::SetIntset => {
            let bytes = budget.pack(input, WHAT)?;
            for number in intset::numbers(&bytes).map_err(|fault| fault.at(at))? {
                out.push(budget.own(number.to_string().into_bytes(), at)?);
            }
        }
        ValueType::SetListpack => {
            let bytes = budget.pack(input, WHAT)?;
            let mut pack = Listpack::new(&bytes).map_err(|fault| fault.at(at))?;
            while let Some(item) = pack.next().map_err(|fault| fault.at(at))? {
                out.push(budget.own(item.bytes(), at)?);
            }
        }
        _ => {
            for _ in 0..read_count(input, WHAT)? {
                out.push(budget.string(input, WHAT)?);
            }
        }
    }
    out.sort_unstable();
    if out.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(Fault::Invalid("a set has a member twice").at(at));
    }
    Ok(out)
}
