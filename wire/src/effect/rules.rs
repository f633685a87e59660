//! The table of commands whose dependence is known, and where their keys stand.
//!
//! What is not here is unknown: commands of modules, scripts that an old server sends as they are, commands that never stand in
//! a replication stream, and those newer than the servers that this was checked against.

use std::collections::HashMap;
use std::sync::LazyLock;

use super::touch::{Touch, Touched, TouchedKeys};

/// How the dependence of a command is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rule {
    Keys(Places),
    Special(Special),
    FlushDb,
    FlushAll,
    SwapDb,
    Libraries,
    Nothing,
}

/// Where the keys stand, and what happens to them; independent of options.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Places {
    /// The first argument is modified.
    First,
    /// The second argument is modified: the first is a subcommand.
    Second,
    /// The first two arguments are modified.
    Two,
    /// All arguments are modified.
    All,
    /// All but the last, which is a timeout, are modified.
    AllButLast,
    /// A count at this place, and so many keys behind it, are modified.
    Counted(usize),
    /// All arguments are overwritten.
    AllOverwritten,
    /// The first argument is overwritten, of so many in all.
    FirstOfOverwritten(usize),
    /// Keys and values in turn, keys overwritten (`MSET`) or modified (`MSETNX`).
    Pairs(Touch),
    /// A count, then pairs, then options: keys modified (`MSETEX`).
    CountedPairs,
    /// The destination is the first argument; the second one is read.
    StoreOne,
    /// The destination is the first argument; all others are read.
    StoreAll,
    /// The destination is the first argument; a count and so many sources are read.
    StoreCounted,
    /// An operation, the destination, and sources that are read.
    StoreBehindOperation,
    /// The first argument is modified, all others are read.
    Merge,
    /// The first argument is moved to the second one, which is overwritten.
    Rename,
}

/// Commands whose options decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Special {
    Set,
    Move,
    Copy,
    Restore,
    Sort,
    /// `GEORADIUS` and `GEORADIUSBYMEMBER`: their options begin at this argument.
    GeoRadius(usize),
}

/// The first argument is modified, and nothing else is touched.
const FIRST: [&str; 61] = [
    "append",
    "bitfield",
    "decr",
    "decrby",
    "expire",
    "expireat",
    "geoadd",
    "getdel",
    "getex",
    "getset",
    "hdel",
    "hincrby",
    "hincrbyfloat",
    "hmset",
    "hset",
    "hsetnx",
    "incr",
    "incrby",
    "incrbyfloat",
    "linsert",
    "lpop",
    "lpush",
    "lpushx",
    "lrem",
    "lset",
    "ltrim",
    "persist",
    "pexpire",
    "pexpireat",
    "pfadd",
    "rpop",
    "rpush",
    "rpushx",
    "sadd",
    "setbit",
    "setnx",
    "setrange",
    "spop",
    "srem",
    "xack",
    "xadd",
    "xautoclaim",
    "xclaim",
    "xdel",
    "xsetid",
    "xtrim",
    "zadd",
    "zincrby",
    "zpopmax",
    "zpopmin",
    "zrem",
    "zremrangebylex",
    "zremrangebyrank",
    "zremrangebyscore",
    // Redis 7.4 and 8.0; Valkey 9.0.
    "hexpire",
    "hexpireat",
    "hpersist",
    "hpexpire",
    "hpexpireat",
    "hsetex",
    "hgetex",
];

/// The same, of Redis 8.0 to 8.4 and Valkey 9.0 and 9.1.
const FIRST_OF_LATER_SERVERS: [&str; 5] = ["hgetdel", "xdelex", "xackdel", "delex", "delifeq"];

static RULES: LazyLock<HashMap<&'static [u8], Rule, foldhash::fast::FixedState>> = LazyLock::new(|| {
    let keys = Rule::Keys;
    let first = FIRST.iter().chain(&FIRST_OF_LATER_SERVERS).map(|name| (name.as_bytes(), keys(Places::First)));
    let others: [(&str, Rule); 44] = [
        ("xgroup", keys(Places::Second)),
        ("lmove", keys(Places::Two)),
        ("blmove", keys(Places::Two)),
        ("rpoplpush", keys(Places::Two)),
        ("brpoplpush", keys(Places::Two)),
        ("smove", keys(Places::Two)),
        // Into a name that must not exist.
        ("renamenx", keys(Places::Two)),
        // It stores the count that it found.
        ("pfcount", keys(Places::All)),
        ("blpop", keys(Places::AllButLast)),
        ("brpop", keys(Places::AllButLast)),
        ("bzpopmin", keys(Places::AllButLast)),
        ("bzpopmax", keys(Places::AllButLast)),
        ("lmpop", keys(Places::Counted(1))),
        ("zmpop", keys(Places::Counted(1))),
        ("blmpop", keys(Places::Counted(2))),
        ("bzmpop", keys(Places::Counted(2))),
        ("del", keys(Places::AllOverwritten)),
        ("unlink", keys(Places::AllOverwritten)),
        ("setex", keys(Places::FirstOfOverwritten(4))),
        ("psetex", keys(Places::FirstOfOverwritten(4))),
        ("mset", keys(Places::Pairs(Touch::Overwritten))),
        ("msetnx", keys(Places::Pairs(Touch::Modified))),
        ("msetex", keys(Places::CountedPairs)),
        ("zrangestore", keys(Places::StoreOne)),
        ("geosearchstore", keys(Places::StoreOne)),
        ("sinterstore", keys(Places::StoreAll)),
        ("sunionstore", keys(Places::StoreAll)),
        ("sdiffstore", keys(Places::StoreAll)),
        ("zunionstore", keys(Places::StoreCounted)),
        ("zinterstore", keys(Places::StoreCounted)),
        ("zdiffstore", keys(Places::StoreCounted)),
        ("bitop", keys(Places::StoreBehindOperation)),
        ("pfmerge", keys(Places::Merge)),
        ("rename", keys(Places::Rename)),
        ("set", Rule::Special(Special::Set)),
        ("move", Rule::Special(Special::Move)),
        ("copy", Rule::Special(Special::Copy)),
        ("restore", Rule::Special(Special::Restore)),
        ("sort", Rule::Special(Special::Sort)),
        ("georadius", Rule::Special(Special::GeoRadius(6))),
        ("georadiusbymember", Rule::Special(Special::GeoRadius(5))),
        ("flushdb", Rule::FlushDb),
        ("flushall", Rule::FlushAll),
        ("swapdb", Rule::SwapDb),
    ];
    let without_keys = [
        ("script", Rule::Libraries),
        ("function", Rule::Libraries),
        ("publish", Rule::Nothing),
        ("spublish", Rule::Nothing),
    ];
    let others = others.into_iter().chain(without_keys).map(|(name, rule)| (name.as_bytes(), rule));
    first.chain(others).collect()
});

/// The rule of a command, by its name in lower case.
pub(super) fn rule(lower: &[u8]) -> Option<Rule> {
    RULES.get(lower).copied()
}

/// A number as a server reads it, no sign.
pub(super) fn number<T: std::str::FromStr>(arg: &[u8]) -> Option<T> {
    std::str::from_utf8(arg).ok().filter(|text| !text.starts_with('+'))?.parse().ok()
}

/// The keys of a command of this shape; `None` if it has another one.
pub(super) fn keys<A: AsRef<[u8]>>(db: u32, args: &[A], places: Places) -> Option<TouchedKeys<'_>> {
    use Touch::{Modified, Overwritten, Read};
    let key = |at: usize, touch: Touch| Some(Touched { db, key: args.get(at)?.as_ref(), touch });
    let all = |range: std::ops::Range<usize>, touch: Touch| -> Option<TouchedKeys<'_>> {
        if range.is_empty() || range.end > args.len() { None } else { range.map(|at| key(at, touch)).collect() }
    };
    let count = |at: usize| number::<usize>(args.get(at)?.as_ref()).filter(|n| *n > 0 && *n <= args.len());
    let counted = |at: usize, touch: Touch| all(at + 1..at + 1 + count(at)?, touch);
    match places {
        Places::First => all(1..2, Modified),
        Places::Second => all(2..3, Modified),
        Places::Two => all(1..3, Modified),
        Places::All => all(1..args.len(), Modified),
        Places::AllButLast => all(1..args.len().saturating_sub(1), Modified),
        Places::Counted(at) => counted(at, Modified),
        Places::AllOverwritten => all(1..args.len(), Overwritten),
        Places::FirstOfOverwritten(len) if args.len() == len => all(1..2, Overwritten),
        Places::Pairs(touch) if args.len() >= 3 && args.len() % 2 == 1 => {
            (1..args.len()).step_by(2).map(|at| key(at, touch)).collect()
        }
        Places::CountedPairs => {
            let end = 2 + 2 * count(1)?;
            if end > args.len() { None } else { (2..end).step_by(2).map(|at| key(at, Modified)).collect() }
        }
        Places::StoreOne => with(key(1, Overwritten), all(2..3, Read)),
        Places::StoreAll => with(key(1, Overwritten), all(2..args.len(), Read)),
        Places::StoreCounted => with(key(1, Overwritten), counted(2, Read)),
        Places::StoreBehindOperation => with(key(2, Overwritten), all(3..args.len(), Read)),
        // It may have no source at all.
        Places::Merge => {
            with(key(1, Modified), if args.len() > 2 { all(2..args.len(), Read) } else { Some(TouchedKeys::new()) })
        }
        Places::Rename if args.len() == 3 => with(key(1, Modified), all(2..3, Overwritten)),
        Places::FirstOfOverwritten(_) | Places::Pairs(_) | Places::Rename => None,
    }
}

fn with<'a>(first: Option<Touched<'a>>, others: Option<TouchedKeys<'a>>) -> Option<TouchedKeys<'a>> {
    let mut touched = others?;
    touched.insert(0, first?);
    Some(touched)
}

/// Every name in the table, and whether it has keys.
#[cfg(test)]
pub(super) fn every_name() -> impl Iterator<Item = (&'static [u8], bool)> {
    RULES.iter().map(|(name, rule)| (*name, matches!(rule, Rule::Keys(_) | Rule::Special(_))))
}
