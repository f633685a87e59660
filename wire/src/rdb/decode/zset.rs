//! Sorted sets: scores as text, as doubles, or between the members of a packed list.

use std::collections::HashSet;

use super::super::fault::{Fault, ReadError};
use super::super::input::{Input, SliceInput};
use super::super::length::read_count;
use super::super::pack::Item;
use super::super::pack::listpack::Listpack;
use super::super::pack::ziplist::Ziplist;
use super::super::table::ValueType;
use super::super::value::{Bytes, Score};
use super::budget::Budget;

const WHAT: &str = "a sorted set";
const BAD_SCORE: Fault = Fault::Invalid("a sorted set has a score that is no number");
const NO_SCORE: Fault = Fault::Invalid("a sorted set has a member without a score");

type Members = Vec<(Bytes, Score)>;

pub(super) fn decode(of: ValueType, input: &mut SliceInput<'_>, budget: &mut Budget) -> Result<Members, ReadError> {
    let at = input.at();
    let mut out = match of {
        ValueType::ZsetZiplist => {
            let bytes = budget.pack(input, WHAT)?;
            let mut list = Ziplist::new(&bytes).map_err(|fault| fault.at(at))?;
            packed(|| list.next(), at, budget)?
        }
        ValueType::ZsetListpack => {
            let bytes = budget.pack(input, WHAT)?;
            let mut pack = Listpack::new(&bytes).map_err(|fault| fault.at(at))?;
            packed(|| pack.next(), at, budget)?
        }
        _ => plain(of, input, budget)?,
    };
    let mut seen = HashSet::with_capacity(out.len());
    if !out.iter().all(|(member, _)| seen.insert(&member[..])) {
        return Err(Fault::Invalid("a sorted set has a member twice").at(at));
    }
    drop(seen);
    out.sort_unstable_by(|(a, x), (b, y)| {
        x.get().partial_cmp(&y.get()).unwrap_or(std::cmp::Ordering::Equal).then_with(|| a.cmp(b))
    });
    Ok(out)
}

fn packed<'a>(
    mut next: impl FnMut() -> Result<Option<Item<'a>>, Fault>,
    at: u64,
    budget: &mut Budget,
) -> Result<Members, ReadError> {
    let mut out = Vec::new();
    while let Some(member) = next().map_err(|fault| fault.at(at))? {
        let score = match next().map_err(|fault| fault.at(at))? {
            Some(Item::Int(number)) => Score::new(number as f64),
            Some(Item::Bytes(text)) => parse(text),
            None => return Err(NO_SCORE.at(at)),
        };
        out.push((budget.own(member.bytes(), at)?, score.ok_or_else(|| BAD_SCORE.at(at))?));
    }
    Ok(out)
}

fn plain(of: ValueType, input: &mut SliceInput<'_>, budget: &mut Budget) -> Result<Members, ReadError> {
    let mut out = Vec::new();
    for _ in 0..read_count(input, WHAT)? {
        let member = budget.string(input, WHAT)?;
        let at = input.at();
        let score = if of == ValueType::Zset2 {
            Score::new(f64::from_le_bytes(input.fixed(WHAT)?))
        } else {
            match input.byte(WHAT)? {
                253 => None,
                254 => Score::new(f64::INFINITY),
                255 => Score::new(f64::NEG_INFINITY),
                len => parse(input.take(len.into(), WHAT)?),
            }
        };
        out.push((member, score.ok_or_else(|| BAD_SCORE.at(at))?));
    }
    Ok(out)
}

/// As servers print scores: `%.17g`, `inf`, `-inf`.
fn parse(text: &[u8]) -> Option<Score> {
    Score::new(std::str::from_utf8(text).ok()?.parse().ok()?)
}
