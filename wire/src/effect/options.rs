//! Commands of which the options decide what they need.

use smallvec::{SmallVec, smallvec};

use super::rules::{Special, number};
use super::touch::{Dependence, Touch, Touched, TouchedKeys};
use crate::word;

/// The first byte of a `RESTORE`'s payload where it holds a value of a module (`RDB_TYPE_MODULE`, `RDB_TYPE_MODULE_2`).
const MODULE_TYPES: [u8; 2] = [6, 7];

/// The dependence of such a command; `None` if it has a shape that is not known.
pub(super) fn special<A: AsRef<[u8]>>(db: u32, args: &[A], special: Special) -> Option<Dependence<'_>> {
    match special {
        Special::Set => set(db, args),
        Special::Move => moved(db, args),
        Special::Copy => copy(db, args),
        Special::Restore => restore(db, args),
        Special::Sort => sort(db, args),
        Special::GeoRadius(options) => geo_radius(db, args, options),
    }
}

fn one<A: AsRef<[u8]>>(db: u32, key: &A, touch: Touch) -> Touched<'_> {
    Touched { db, key: key.as_ref(), touch }
}

/// Only a plain one, or one with a TTL, asks nothing of the key: `NX`, `XX`, `IFEQ`, `GET` may refuse, `KEEPTTL` keeps
/// something, and what is not known may do both.
fn set<A: AsRef<[u8]>>(db: u32, args: &[A]) -> Option<Dependence<'_>> {
    let touch = match args {
        [_, _, _] => Touch::Overwritten,
        [_, _, _, option, _] if word::is_one_of(option.as_ref(), &["EX", "PX", "EXAT", "PXAT"]) => Touch::Overwritten,
        [_, _, _, ..] => Touch::Modified,
        _ => return None,
    };
    Some(Dependence::Keys(smallvec![one(db, &args[1], touch)]))
}

/// Fails if the key exists in the other database.
fn moved<A: AsRef<[u8]>>(db: u32, args: &[A]) -> Option<Dependence<'_>> {
    let [_, key, to] = args else { return None };
    let to = number(to.as_ref())?;
    Some(Dependence::Keys(smallvec![one(db, key, Touch::Modified), one(to, key, Touch::Modified)]))
}

/// Fails if the destination exists, but for `REPLACE`.
fn copy<A: AsRef<[u8]>>(db: u32, args: &[A]) -> Option<Dependence<'_>> {
    let [_, from, to, options @ ..] = args else { return None };
    let (mut into, mut touch) = (db, Touch::Modified);
    let mut options = options.iter().map(AsRef::as_ref);
    while let Some(option) = options.next() {
        if word::is(option, "REPLACE") {
            touch = Touch::Overwritten;
        } else if word::is(option, "DB") {
            into = number(options.next()?)?;
        } else {
            return None;
        }
    }
    Some(Dependence::Keys(smallvec![one(db, from, Touch::Read), one(into, to, touch)]))
}

/// Fails if the key exists, but for `REPLACE`.
fn restore<A: AsRef<[u8]>>(db: u32, args: &[A]) -> Option<Dependence<'_>> {
    let [_, key, _ttl, payload, options @ ..] = args else { return None };
    if payload.as_ref().first().is_none_or(|kind| MODULE_TYPES.contains(kind)) {
        return None;
    }
    let mut touch = Touch::Modified;
    let mut options = options.iter().map(AsRef::as_ref);
    while let Some(option) = options.next() {
        if word::is(option, "REPLACE") {
            touch = Touch::Overwritten;
        } else if word::is_one_of(option, &["IDLETIME", "FREQ"]) {
            options.next()?;
        } else if !word::is(option, "ABSTTL") {
            return None;
        }
    }
    Some(Dependence::Keys(smallvec![one(db, key, touch)]))
}

/// Reads whatever keys its patterns make of the elements. Without `STORE` it changes nothing, and does not stand in the stream.
fn sort<A: AsRef<[u8]>>(db: u32, args: &[A]) -> Option<Dependence<'_>> {
    let [_, from, options @ ..] = args else { return None };
    let (mut target, mut patterns) = (None, false);
    let mut options = options.iter();
    while let Some(option) = options.next() {
        let option = option.as_ref();
        if word::is(option, "LIMIT") {
            options.next()?;
            options.next()?;
        } else if word::is_one_of(option, &["BY", "GET"]) {
            options.next()?;
            patterns = true;
        } else if word::is(option, "STORE") {
            // Of several the last one counts: that is nothing to rely on.
            if target.replace(options.next()?).is_some() {
                return None;
            }
        } else if !word::is_one_of(option, &["ASC", "DESC", "ALPHA"]) {
            return None;
        }
    }
    let touched = stored(db, target?, from);
    Some(if patterns { Dependence::ReadsOthers(touched) } else { Dependence::Keys(touched) })
}

fn geo_radius<A: AsRef<[u8]>>(db: u32, args: &[A], options: usize) -> Option<Dependence<'_>> {
    let mut target = None;
    let mut rest = args.get(options..)?.iter();
    while let Some(option) = rest.next() {
        let option = option.as_ref();
        if word::is_one_of(option, &["STORE", "STOREDIST"]) {
            if target.replace(rest.next()?).is_some() {
                return None;
            }
        } else if word::is(option, "COUNT") {
            rest.next()?;
        } else if !word::is_one_of(option, &["WITHDIST", "WITHHASH", "WITHCOORD", "ASC", "DESC", "ANY"]) {
            return None;
        }
    }
    Some(Dependence::Keys(stored(db, target?, args.get(1)?)))
}

fn stored<'a, A: AsRef<[u8]>>(db: u32, target: &'a A, from: &'a A) -> TouchedKeys<'a> {
    SmallVec::from_slice(&[one(db, target, Touch::Overwritten), one(db, from, Touch::Read)])
}
