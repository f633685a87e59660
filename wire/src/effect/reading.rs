//! Whether a request writes without reading.
//!
//! For an undo, which takes a write out of the history: a later request that read what it left may have ended in another way without
//! it, or its client was told something that would not have been. A request that only writes ends in the same way.
//!
//! | reading | requests |
//! | --- | --- |
//! | blind | `SET`, `HSET`, `DEL`, `SADD`, `LPUSH`, `SETRANGE`, `LTRIM`, `EXPIRE`, `FLUSHALL`, … |
//! | reads | `INCR`, `APPEND`, `GETSET`, pops, `SETNX`, `SET … NX`, `LSET`, scripts, functions, and all that are not known |
//! | derives | `RENAME`, `COPY … REPLACE`, `SUNIONSTORE`, `BITOP`, `SMOVE`, …: the server copies, no client sees a value |
//! | perhaps | the server has left the condition out of the effect |
//!
//! An answer of the kind "so many were added" does not count, nor does the old bit of a `SETBIT`: nearly every write has one.
//! What an application reads by itself before it writes cannot be seen here.
//!
//! Left out of the effect (each was looked at in Redis 7.0 and 8.6): `SET k v NX EX 9` stands as `SET k v PXAT …`, and
//! `SET k v GET` as `SET k v`; the latter counts as a `GET` and a `SET`, which is what an application could have sent as well.
//! `EXPIRE`, `HEXPIRE`, `HSETEX` and `MSETEX` keep their conditions, unless the effect is a removal.

use std::collections::HashMap;
use std::sync::LazyLock;

use crate::command::{NAME_MAX, lower_name};
use crate::word;

/// What a request needs of the values before it, to do what it did and to answer what it answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reading {
    /// Nothing.
    Blind,
    /// The value that it writes comes from other keys; its client has not seen it.
    Derives,
    /// It may have had a condition which does not stand in the effect.
    Perhaps,
    /// It reads, or this is unknown.
    Reads,
}

/// How a command reads, or where that is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    Is(Reading),
    /// One of these words among its arguments from this one on makes it read.
    Unless(usize, &'static [&'static str]),
    /// The word at this argument does.
    UnlessAt(usize, &'static [&'static str]),
    /// These words can only stand from argument 2 on, before others.
    UnlessFront(&'static [&'static str]),
    /// It reads unless it has the word `REPLACE` from this argument on.
    Replaces(usize, Reading),
    Set,
}

const BLIND: Class = Class::Is(Reading::Blind);
const READS: Class = Class::Is(Reading::Reads);
const DERIVES: Class = Class::Is(Reading::Derives);
const EXPIRES: Class = Class::Unless(3, &["NX", "XX", "GT", "LT"]);
const FIELDS_EXPIRE: Class = Class::UnlessAt(3, &["NX", "XX", "GT", "LT"]);
const ADDS: Class = Class::UnlessFront(&["NX", "XX", "GT", "LT", "CH", "INCR"]);

/// Classes, and the commands of each.
const FAMILIES: [(Class, &str); 26] = [
    (BLIND, "del unlink flushall flushdb persist mset setex psetex setbit setrange pfadd"),
    (BLIND, "hdel hmset hset hpersist lpush rpush lrem ltrim sadd srem"),
    (BLIND, "zrem zremrangebylex zremrangebyrank zremrangebyscore xack xdel xgroup xsetid xtrim"),
    // They change no key.
    (BLIND, "function publish script spublish"),
    (READS, "append decr decrby incr incrby incrbyfloat increx getdel getex getset setnx msetnx delex delifeq"),
    (READS, "hgetdel hgetex hincrby hincrbyfloat hsetnx"),
    (READS, "blmove blmpop blpop brpop brpoplpush linsert lmove lmpop lpop lpushx lset rpop rpoplpush rpushx spop"),
    (READS, "bzmpop bzpopmax bzpopmin zincrby zmpop zpopmax zpopmin"),
    (READS, "xautoclaim xclaim xreadgroup"),
    // The value has gone elsewhere, or the name must not exist.
    (READS, "migrate move renamenx"),
    (READS, "eval evalsha exec fcall pfdebug"),
    (DERIVES, "rename smove swapdb bitop pfmerge sort georadius georadiusbymember geosearchstore zrangestore"),
    (DERIVES, "sdiffstore sinterstore sunionstore zdiffstore zinterstore zunionstore"),
    // It stores the count that it found; to have read it is no more than any other read.
    (DERIVES, "pfcount"),
    (EXPIRES, "expire expireat pexpire pexpireat"),
    (FIELDS_EXPIRE, "hexpire hexpireat hpexpire hpexpireat"),
    (ADDS, "zadd geoadd"),
    (Class::Unless(2, &["GET", "INCRBY", "OVERFLOW"]), "bitfield"),
    (Class::Unless(2, &["NX", "XX"]), "msetex"),
    (Class::UnlessAt(2, &["FNX", "FXX"]), "hsetex"),
    (Class::UnlessAt(2, &["NOMKSTREAM"]), "xadd"),
    (Class::UnlessAt(2, &["ACKED"]), "xdelex"),
    (Class::UnlessAt(3, &["ACKED"]), "xackdel"),
    (Class::Replaces(3, Reading::Derives), "copy"),
    (Class::Replaces(4, Reading::Blind), "restore restore-asking"),
    (Class::Set, "set"),
];

static CLASSES: LazyLock<HashMap<&'static [u8], Class, foldhash::fast::FixedState>> = LazyLock::new(|| {
    let names = |(class, names): &(Class, &'static str)| {
        let class = *class;
        names.split(' ').map(move |name| (name.as_bytes(), class))
    };
    FAMILIES.iter().flat_map(names).collect()
});

fn class(name: &[u8]) -> Option<Class> {
    CLASSES.get(lower_name(name, &mut [0; NAME_MAX])).copied()
}

/// How the request read that has the effect `args`. `via`: the command that the client sent, where it differs from the effect, else
/// empty.
pub fn reading<A: AsRef<[u8]>>(via: &str, args: &[A]) -> Reading {
    let Some(effect) = args.first().and_then(|name| class(name.as_ref())) else { return Reading::Reads };
    if via.is_empty() {
        return effect.of(args);
    }
    match class(via.as_bytes()) {
        None => Reading::Reads,
        Some(Class::Is(reading)) => reading,
        // It stands there with its conditions.
        Some(sent) if sent == effect => effect.of(args),
        Some(_) => Reading::Perhaps,
    }
}

/// Whether it certainly wrote without reading.
pub fn is_blind<A: AsRef<[u8]>>(via: &str, args: &[A]) -> bool {
    reading(via, args) == Reading::Blind
}

impl Class {
    fn of<A: AsRef<[u8]>>(self, args: &[A]) -> Reading {
        let from = |at: usize| args.get(at..).unwrap_or(&[]).iter().map(AsRef::as_ref);
        let reads_if = |reads: bool| if reads { Reading::Reads } else { Reading::Blind };
        match self {
            Self::Is(reading) => reading,
            Self::Unless(at, words) => reads_if(from(at).any(|arg| word::is_one_of(arg, words))),
            Self::UnlessAt(at, words) => reads_if(from(at).take(1).any(|arg| word::is_one_of(arg, words))),
            Self::UnlessFront(words) => {
                let mut front = from(2).take_while(|arg| word::is_one_of(arg, words));
                reads_if(front.any(|arg| !word::is(arg, "CH")))
            }
            Self::Replaces(at, reading) => {
                if from(at).any(|arg| word::is(arg, "REPLACE")) {
                    reading
                } else {
                    Reading::Reads
                }
            }
            Self::Set => set(from(3)),
        }
    }
}

/// With a TTL the server drops the conditions; an option that is not known may be one.
fn set<'a>(mut options: impl Iterator<Item = &'a [u8]>) -> Reading {
    let mut found = Reading::Blind;
    while let Some(option) = options.next() {
        if word::is_one_of(option, &["EX", "PX", "EXAT", "PXAT"]) {
            options.next();
            found = Reading::Perhaps;
        } else if !word::is(option, "KEEPTTL") {
            return Reading::Reads;
        }
    }
    found
}

#[cfg(test)]
#[path = "reading_tests.rs"]
mod tests;
