//! What an effect needs of the values before it, and what of them does not matter behind it.
//!
//! Who replays only a part of the history goes through it backwards: an effect is replayed if it changes a key that is needed
//! behind it; then every key of it that is read or modified ([`Touch`](super::Touch)) is needed before it, and one that is
//! overwritten is not.
//!
//! Invariant: an effect whose `Read` and `Modified` keys have their exact values does exactly what it did, whatever all other
//! keys hold. Where that is not certain, the answer is [`Dependence::Unknown`]. So each name in [`super::rules`] was looked up;
//! a name that is not there is unknown, as is every command of a module: what a module says of its keys may be wrong
//! (`TS.CREATERULE` ties keys together that later commands do not name).

use super::rules::{Rule, rule};
use super::touch::Dependence;
use super::{options, rules};
use crate::command::{NAME_MAX, lower_name};

/// The dependence of a command in database `db`. `keys`: which arguments are its keys, if the journal knows; where that is
/// something else than expected, nothing is taken for granted.
pub fn dependence<'a, A: AsRef<[u8]>>(db: u32, args: &'a [A], keys: Option<&[usize]>) -> Dependence<'a> {
    let mut room = [0; NAME_MAX];
    let Some(name) = args.first() else { return Dependence::Unknown };
    let Some(rule) = rule(lower_name(name.as_ref(), &mut room)) else { return Dependence::Unknown };
    let found = match rule {
        Rule::FlushDb => return Dependence::FlushDb,
        Rule::FlushAll => return Dependence::FlushAll,
        Rule::Libraries => return Dependence::Libraries,
        Rule::Nothing => return Dependence::Nothing,
        Rule::SwapDb => return swapped(args).unwrap_or(Dependence::Unknown),
        Rule::Keys(places) => rules::keys(db, args, places).map(Dependence::Keys),
        Rule::Special(special) => options::special(db, args, special),
    };
    match found {
        Some(found) if keys.is_none_or(|keys| agrees(&found, args, keys)) => found,
        _ => Dependence::Unknown,
    }
}

fn swapped<A: AsRef<[u8]>>(args: &[A]) -> Option<Dependence<'_>> {
    match args {
        [_, a, b] => Some(Dependence::SwapDb(rules::number(a.as_ref())?, rules::number(b.as_ref())?)),
        _ => None,
    }
}

/// The journal names the same keys.
fn agrees<A: AsRef<[u8]>>(found: &Dependence<'_>, args: &[A], keys: &[usize]) -> bool {
    let (Dependence::Keys(touched) | Dependence::ReadsOthers(touched)) = found else { return false };
    let named = |key: &[u8]| keys.iter().any(|at| args.get(*at).is_some_and(|arg| arg.as_ref() == key));
    touched.iter().all(|touched| named(touched.key))
        && keys.iter().all(|at| {
            let key = args.get(*at).map(AsRef::as_ref);
            touched.iter().any(|touched| Some(touched.key) == key)
        })
}

#[cfg(test)]
#[path = "dependence_tests.rs"]
mod tests;
