//! The table of commands by what they write of a key, and how that is read from their arguments.

use std::collections::HashMap;
use std::sync::LazyLock;

use smallvec::SmallVec;

use super::rules::number;
use super::written::{After, Elements, KeyWrite, Write};
use crate::word;

/// How the elements that a command writes are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// Something of the value that cannot be listed.
    Change,
    /// The same, of one of several keys, or unknown.
    PerhapsChange,
    /// Something of the value is taken away.
    Take,
    /// The same of one of several keys, where there are several.
    TakeOfOne,
    /// From the first key to the second one.
    TakeAndChange,
    /// Fields and values in turn, from argument 2 on.
    FieldsAndValues,
    /// A field, and its value.
    FieldAndValue,
    /// The element at this argument becomes another one.
    Element(usize),
    /// Elements from argument 2 on are removed.
    Remove,
    /// Members from argument 2 on are added.
    Add,
    /// Options, then scores and members in turn.
    ScoresAndMembers,
    /// Options, then longitudes, latitudes and members in turn.
    PlacesAndMembers,
    /// `FIELDS`, a count, and fields that become others.
    ChangeFields,
    /// The same, and they are removed.
    RemoveFields,
    /// The same, and each has its value behind it.
    SetFields,
    /// A member goes from the first key to the second one.
    MoveMember,
    /// Seconds or milliseconds, from now or since 1970.
    Expire { unit_ms: i64, absolute: bool },
    /// `PERSIST`.
    Persist,
    /// `GETEX`: it sets the TTL or removes it.
    ChangeTtl,
    /// Keys are removed.
    Delete,
    /// One key is removed, and it was there.
    DeleteOne,
    /// A value at argument 2, and options.
    Set,
    /// A TTL at argument 2, a value behind it.
    SetWithTtl,
    /// A value at argument 2; there is no TTL then.
    SetWithoutTtl,
    /// Keys and values in turn.
    SetPairs,
    /// A count, keys and values in turn, options.
    SetPairsWithOptions,
    /// The result of a command, which may be empty.
    Store,
    /// The first key becomes the second one.
    Rename,
    /// The second key becomes what the first one is.
    Copy,
    /// `RESTORE`.
    Restore,
}

/// Shapes, and the commands of each.
const FAMILIES: [(Shape, &str); 37] = [
    (Shape::Change, "append bitfield decr decrby incr incrby incrbyfloat pfadd pfmerge setbit setrange"),
    (Shape::Change, "linsert lpush lpushx lset rpush rpushx"),
    (Shape::Change, "xack xackdel xadd xautoclaim xclaim xdel xdelex xgroup xsetid xtrim"),
    // The count that it stores in the value.
    (Shape::PerhapsChange, "pfcount"),
    (Shape::Take, "lpop lrem ltrim rpop spop zpopmax zpopmin zremrangebylex zremrangebyrank zremrangebyscore"),
    (Shape::TakeOfOne, "blmpop blpop brpop bzmpop bzpopmax bzpopmin lmpop zmpop"),
    (Shape::TakeAndChange, "blmove brpoplpush lmove rpoplpush"),
    (Shape::FieldsAndValues, "hmset hset"),
    (Shape::FieldAndValue, "hsetnx"),
    (Shape::Element(2), "hincrby hincrbyfloat"),
    (Shape::Element(3), "zincrby"),
    (Shape::Remove, "hdel srem zrem"),
    (Shape::Add, "sadd"),
    (Shape::ScoresAndMembers, "zadd"),
    (Shape::PlacesAndMembers, "geoadd"),
    (Shape::ChangeFields, "hexpire hexpireat hgetex hpersist hpexpire hpexpireat"),
    (Shape::RemoveFields, "hgetdel"),
    (Shape::SetFields, "hsetex"),
    (Shape::MoveMember, "smove"),
    (Shape::Expire { unit_ms: 1000, absolute: false }, "expire"),
    (Shape::Expire { unit_ms: 1, absolute: false }, "pexpire"),
    (Shape::Expire { unit_ms: 1000, absolute: true }, "expireat"),
    (Shape::Expire { unit_ms: 1, absolute: true }, "pexpireat"),
    (Shape::Persist, "persist"),
    (Shape::ChangeTtl, "getex"),
    (Shape::Delete, "del unlink"),
    (Shape::DeleteOne, "delex delifeq getdel"),
    (Shape::Set, "set"),
    (Shape::SetWithTtl, "psetex setex"),
    (Shape::SetWithoutTtl, "getset setnx"),
    (Shape::SetPairs, "mset msetnx"),
    (Shape::SetPairsWithOptions, "msetex"),
    (Shape::Store, "bitop georadius georadiusbymember geosearchstore sort zrangestore"),
    (Shape::Store, "sdiffstore sinterstore sunionstore zdiffstore zinterstore zunionstore"),
    (Shape::Rename, "move rename renamenx"),
    (Shape::Copy, "copy"),
    (Shape::Restore, "restore"),
];

static SHAPES: LazyLock<HashMap<&'static [u8], Shape, foldhash::fast::FixedState>> = LazyLock::new(|| {
    let names = |(shape, names): &(Shape, &'static str)| {
        let shape = *shape;
        names.split(' ').map(move |name| (name.as_bytes(), shape))
    };
    FAMILIES.iter().flat_map(names).collect()
});

/// The shape of a command, by its name in lower case.
pub(super) fn shape(lower: &[u8]) -> Option<Shape> {
    SHAPES.get(lower).copied()
}

/// What a command of this shape writes of the key that is the `nth` of those that it touches; `None` if its arguments are
/// others than expected.
pub(super) fn write<'a, A: AsRef<[u8]>>(
    shape: Shape,
    args: &'a [A],
    db: u32,
    key: &'a [u8],
    nth: usize,
) -> Option<KeyWrite<'a>> {
    let (elements, value, ttl) = parts(shape, args, nth)?;
    Some(KeyWrite { db, key, elements, value, ttl })
}

type Parts<'a> = (Elements<'a>, Option<Write<'a>>, Option<Write<'a>>);

/// From another key, or from a payload.
const ANY: Option<Write<'static>> = Some(Write::certain(After::Any));
const CHANGED: Option<Write<'static>> = Some(Write::certain(After::Changed));
/// With the last element that is taken, the key goes, and its TTL with it.
const TAKEN: Option<Write<'static>> = Some(Write::certain(After::ChangedOrAbsent));
const TTL_MAY_GO: Option<Write<'static>> = Some(Write::stated(After::ChangedOrAbsent));
const NO_TTL: Option<Write<'static>> = Some(Write::stated(After::Absent));

fn parts<A: AsRef<[u8]>>(shape: Shape, args: &[A], nth: usize) -> Option<Parts<'_>> {
    let arg = |at: usize| args.get(at).map(AsRef::as_ref);
    Some(match shape {
        Shape::PerhapsChange => (Elements::Unlisted, Some(Write::stated(After::Changed)), None),
        Shape::Take => (Elements::Unlisted, TAKEN, TTL_MAY_GO),
        Shape::TakeOfOne => (Elements::Unlisted, Some(Write::stated(After::ChangedOrAbsent)), TTL_MAY_GO),
        // Within one key, it stays.
        Shape::TakeAndChange if nth == 0 && arg(1) != arg(2) => (Elements::Unlisted, TAKEN, TTL_MAY_GO),
        Shape::Change | Shape::TakeAndChange => (Elements::Unlisted, CHANGED, None),
        Shape::MoveMember => moved_member(arg(3)?, nth, arg(1) == arg(2)),
        Shape::FieldsAndValues
        | Shape::FieldAndValue
        | Shape::Element(_)
        | Shape::Add
        | Shape::ScoresAndMembers
        | Shape::PlacesAndMembers
        | Shape::ChangeFields
        | Shape::SetFields => (Elements::Listed(listed(shape, args)?), CHANGED, None),
        Shape::Remove | Shape::RemoveFields => (Elements::Listed(listed(shape, args)?), TAKEN, TTL_MAY_GO),
        Shape::Expire { unit_ms, absolute } => (Elements::None, None, Some(expires(arg(2)?, unit_ms, absolute))),
        Shape::Persist => (Elements::None, None, Some(Write::certain(After::Absent))),
        Shape::ChangeTtl => (Elements::None, None, ANY),
        Shape::Delete if args.len() == 2 => gone(Write::certain(After::Absent)),
        Shape::Delete => gone(Write::stated(After::Absent)),
        Shape::DeleteOne => gone(Write::certain(After::Absent)),
        Shape::Set => (Elements::Whole, Some(is(arg(2)?)), ttl_of_options(args.get(3..)?)),
        Shape::SetWithTtl => (Elements::Whole, Some(is(arg(3)?)), CHANGED),
        Shape::SetWithoutTtl => (Elements::Whole, Some(is(arg(2)?)), NO_TTL),
        Shape::SetPairs => (Elements::Whole, Some(is(arg(2 + 2 * nth)?)), NO_TTL),
        Shape::SetPairsWithOptions => {
            let pairs: usize = number(arg(1)?)?;
            let options = args.get(pairs.checked_mul(2)?.checked_add(2)?..)?;
            (Elements::Whole, Some(is(arg(3 + 2 * nth)?)), ttl_of_options(options))
        }
        Shape::Store => (Elements::Whole, ANY, NO_TTL),
        Shape::Rename if nth == 0 => gone(Write::certain(After::Absent)),
        Shape::Rename | Shape::Copy => (Elements::Whole, ANY, ANY),
        Shape::Restore => (Elements::Whole, ANY, ttl_of_restore(arg(2)?, args.get(4..)?)),
    })
}

fn is(value: &[u8]) -> Write<'_> {
    Write::stated(After::Is(value))
}

fn gone(write: Write<'_>) -> Parts<'_> {
    (Elements::Whole, Some(write), Some(Write::stated(After::Absent)))
}

/// Into a set that has the member already, it is moved as well.
fn moved_member(member: &[u8], nth: usize, within_one: bool) -> Parts<'_> {
    let one = |write| Elements::Listed(SmallVec::from_iter([(member, write)]));
    if within_one {
        (one(Write::stated(After::Present)), Some(Write::stated(After::Changed)), None)
    } else if nth == 0 {
        (one(Write::certain(After::Absent)), TAKEN, TTL_MAY_GO)
    } else {
        (one(Write::stated(After::Present)), Some(Write::stated(After::Changed)), None)
    }
}

fn expires(time: &[u8], unit_ms: i64, absolute: bool) -> Write<'static> {
    let time = std::str::from_utf8(time).ok().and_then(|time| time.parse::<i64>().ok());
    match time.and_then(|time| time.checked_mul(unit_ms)).filter(|_| absolute) {
        Some(until) => Write::stated(After::Until(until)),
        None => Write::certain(After::Changed),
    }
}

/// Of `SET` and `MSETEX`: without an option that says otherwise, the TTL is removed.
fn ttl_of_options<A: AsRef<[u8]>>(options: &[A]) -> Option<Write<'static>> {
    let mut options = options.iter().map(AsRef::as_ref);
    while let Some(option) = options.next() {
        if word::is(option, "KEEPTTL") {
            return None;
        }
        for (name, unit_ms, absolute) in
            [("EX", 1000, false), ("PX", 1, false), ("EXAT", 1000, true), ("PXAT", 1, true)]
        {
            if word::is(option, name) {
                return Some(
                    options.next().map_or(Write::stated(After::Changed), |time| expires(time, unit_ms, absolute)),
                );
            }
        }
        if word::is_one_of(option, &["IFEQ", "IFNE", "IFDEQ", "IFDNE"]) {
            options.next();
        } else if !word::is_one_of(option, &["NX", "XX", "GET"]) {
            return Some(Write::stated(After::Changed));
        }
    }
    NO_TTL
}

fn ttl_of_restore<A: AsRef<[u8]>>(ttl: &[u8], options: &[A]) -> Option<Write<'static>> {
    if ttl == b"0" {
        return NO_TTL;
    }
    Some(expires(ttl, 1, options.iter().any(|option| word::is(option.as_ref(), "ABSTTL"))))
}

type Listed<'a> = SmallVec<[(&'a [u8], Write<'a>); 1]>;

/// The elements of a shape that lists them.
fn listed<A: AsRef<[u8]>>(shape: Shape, args: &[A]) -> Option<Listed<'_>> {
    let rest = args.get(2..)?;
    let found = match shape {
        Shape::FieldsAndValues => pairs(rest)?,
        Shape::FieldAndValue => pairs(args.get(2..4)?)?,
        Shape::Element(at) => all(args.get(at..at + 1)?, After::Changed),
        Shape::Remove => all(rest, After::Absent),
        Shape::Add => all(rest, After::Present),
        Shape::ScoresAndMembers => scores(rest)?,
        Shape::PlacesAndMembers => places(rest)?,
        Shape::ChangeFields => all(fields(rest, 1)?, After::Changed),
        Shape::RemoveFields => all(fields(rest, 1)?, After::Absent),
        // Their ends change, too.
        Shape::SetFields => {
            fields(rest, 2)?.chunks_exact(2).map(|pair| (pair[0].as_ref(), Write::certain(After::Changed))).collect()
        }
        _ => return None,
    };
    (!found.is_empty()).then_some(found)
}

/// Of several, only one may have been written.
fn all<'a, A: AsRef<[u8]>>(elements: &'a [A], after: After<'static>) -> Listed<'a> {
    let write = Write { after, certain: elements.len() == 1 };
    elements.iter().map(|element| (element.as_ref(), write)).collect()
}

/// Fields and values in turn.
fn pairs<A: AsRef<[u8]>>(rest: &[A]) -> Option<Listed<'_>> {
    if rest.len() % 2 == 1 {
        return None;
    }
    Some(rest.chunks_exact(2).map(|pair| (pair[0].as_ref(), Write::stated(After::Is(pair[1].as_ref())))).collect())
}

/// Behind options of `ZADD`: with one that may refuse an element, it is not said which are written.
fn scores<A: AsRef<[u8]>>(rest: &[A]) -> Option<Listed<'_>> {
    let is_option = |arg: &A| word::is_one_of(arg.as_ref(), &["NX", "XX", "GT", "LT", "CH", "INCR"]);
    let options = rest.iter().take_while(|arg| is_option(arg)).count();
    let plain = rest[..options].iter().all(|arg| word::is(arg.as_ref(), "CH"));
    let rest = &rest[options..];
    if rest.len() % 2 == 1 {
        return None;
    }
    let certain = rest.len() == 2;
    let element = |pair: &[A]| match std::str::from_utf8(pair[0].as_ref()).ok()?.parse::<f64>() {
        Ok(score) if plain => Some(Write { after: After::Score(score), certain }),
        _ => Some(Write { after: After::Changed, certain }),
    };
    rest.chunks_exact(2).map(|pair| Some((pair[1].as_ref(), element(pair)?))).collect()
}

fn places<A: AsRef<[u8]>>(rest: &[A]) -> Option<Listed<'_>> {
    let options = rest.iter().take_while(|arg| word::is_one_of(arg.as_ref(), &["NX", "XX", "CH"])).count();
    let rest = &rest[options..];
    if !rest.len().is_multiple_of(3) {
        return None;
    }
    let write = Write { after: After::Changed, certain: rest.len() == 3 };
    Some(rest.chunks_exact(3).map(|place| (place[2].as_ref(), write)).collect())
}

/// Behind `FIELDS` and their number: so many arguments for each.
fn fields<A: AsRef<[u8]>>(rest: &[A], each: usize) -> Option<&[A]> {
    let at = rest.iter().position(|arg| word::is(arg.as_ref(), "FIELDS"))?;
    let count: usize = number(rest.get(at + 1)?.as_ref())?;
    let fields = rest.get(at + 2..)?;
    // What stands behind them is not known.
    (count > 0 && fields.len() == count.checked_mul(each)?).then_some(fields)
}
