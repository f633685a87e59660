//! Lists: element by element, as one ziplist, or as a row of packed and plain nodes.

use super::super::fault::{Fault, ReadError};
use super::super::input::{Input, SliceInput};
use super::super::length::read_count;
use super::super::pack::listpack::Listpack;
use super::super::pack::ziplist::Ziplist;
use super::super::table::ValueType;
use super::super::value::Bytes;
use super::budget::Budget;

const WHAT: &str = "a list";
/// Kinds of nodes (`quicklist.h`).
const PLAIN: u64 = 1;
const PACKED: u64 = 2;

pub(super) fn decode(of: ValueType, input: &mut SliceInput<'_>, budget: &mut Budget) -> Result<Vec<Bytes>, ReadError> {
    let mut out = Vec::new();
    if of == ValueType::ListZiplist {
        ziplist(input, budget, &mut out)?;
        return Ok(out);
    }
    for _ in 0..read_count(input, WHAT)? {
        match of {
            ValueType::ListQuicklist => ziplist(input, budget, &mut out)?,
            ValueType::ListQuicklist2 => node(input, budget, &mut out)?,
            _ => out.push(budget.string(input, WHAT)?),
        }
    }
    Ok(out)
}

fn ziplist(input: &mut SliceInput<'_>, budget: &mut Budget, out: &mut Vec<Bytes>) -> Result<(), ReadError> {
    let at = input.at();
    let bytes = budget.pack(input, WHAT)?;
    let mut list = Ziplist::new(&bytes).map_err(|fault| fault.at(at))?;
    while let Some(item) = list.next().map_err(|fault| fault.at(at))? {
        out.push(budget.own(item.bytes(), at)?);
    }
    Ok(())
}

fn node(input: &mut SliceInput<'_>, budget: &mut Budget, out: &mut Vec<Bytes>) -> Result<(), ReadError> {
    let at = input.at();
    match read_count(input, WHAT)? {
        PLAIN => out.push(budget.string(input, WHAT)?),
        PACKED => {
            let bytes = budget.pack(input, WHAT)?;
            let mut pack = Listpack::new(&bytes).map_err(|fault| fault.at(at))?;
            while let Some(item) = pack.next().map_err(|fault| fault.at(at))? {
                out.push(budget.own(item.bytes(), at)?);
            }
        }
        _ => return Err(Fault::Invalid("a list has a node of a kind that does not exist").at(at)),
    }
    Ok(())
}
