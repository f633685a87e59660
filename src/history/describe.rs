//! The words for what an effect did to a key. They claim no more than the command itself tells.
//!
//! A command stands in the replication stream because it changed something, and relative arguments were mostly made absolute
//! (Redis 7.0 `replication.c`, `t_string.c`, `expire.c`, `db.c`). So `SET k v NX` has *created* the key, and a `DEL` of one key
//! has *deleted* it; but `SET k v` has *set* it, whether it was there before or not.

use std::fmt;

use redtape_wire::command::{NAME_MAX, lower_name};
use redtape_wire::effect::copied_to;
use redtape_wire::word;

/// Why the server removed a key of its own accord, if it did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// It was requested.
    Asked,
    /// Its time had come.
    Expiry,
    /// Memory was full.
    Eviction,
}

/// What an effect did to one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change<'a> {
    /// Plain words.
    Plain(&'static str),
    /// Words, and the other key.
    With(&'static str, &'a [u8]),
    /// Words, and the other key with its database.
    WithIn(&'static str, u32, &'a [u8]),
    /// Words, and another database.
    Database(&'static str, u32),
    /// Words, and when it expires, in microseconds since 1970.
    Until(&'static str, i64),
    /// Words, and for how many milliseconds it lives from then on.
    For(&'static str, i64),
}

impl Change<'_> {
    /// The words alone: one of a fixed set, for machines.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::Plain(word)
            | Self::With(word, _)
            | Self::WithIn(word, ..)
            | Self::Database(word, _)
            | Self::Until(word, _)
            | Self::For(word, _) => word,
        }
    }
}

/// `show` is how a key is written for a terminal, and `time` how a point in time is.
impl<'a> Change<'a> {
    /// For a person.
    pub(crate) fn display(
        &self,
        show: impl Fn(&[u8]) -> String + 'a,
        time: impl Fn(i64) -> String + 'a,
    ) -> impl fmt::Display {
        match self {
            Self::Plain(word) => (*word).to_owned(),
            Self::With(word, key) => format!("{word} {}", show(key)),
            Self::WithIn(word, db, key) => format!("{word} {} in db {db}", show(key)),
            Self::Database(word, db) => format!("{word} db {db}"),
            Self::Until(word, at) => format!("{word} until {}", time(*at)),
            Self::For(word, ms) => format!("{word} for {}.{:03} s", ms / 1000, ms % 1000),
        }
    }
}

/// What the command, in database `db`, did to `key` in `key_db`, which it touches.
pub(crate) fn change<'a>(cause: Cause, db: u32, args: &[&'a [u8]], key_db: u32, key: &[u8]) -> Change<'a> {
    use Change::{Database, Plain, With, WithIn};
    let mut room = [0; NAME_MAX];
    let Some(name) = args.first() else { return Plain("perhaps touched") };
    let name = lower_name(name, &mut room);
    let arg = |at: usize| args.get(at).copied().unwrap_or_default();
    let number = |at: usize| std::str::from_utf8(arg(at)).ok().and_then(|s| s.parse::<u32>().ok());
    // Of two keys, source and destination: which one is meant; both, if they are the same.
    let first = arg(1) == key;
    let between = |same, from, to, source: &'a [u8], target: &'a [u8]| match (source == key, target == key) {
        (true, true) => Plain(same),
        (true, false) => With(to, target),
        _ => With(from, source),
    };
    match name {
        b"del" | b"unlink" => match (cause, args.len()) {
            (Cause::Expiry, _) => Plain("expired"),
            (Cause::Eviction, _) => Plain("evicted"),
            (Cause::Asked, 2) => Plain("deleted"),
            (Cause::Asked, _) => Plain("deleted, if it was there"),
        },
        b"flushall" | b"flushdb" => Plain("flushed"),
        b"swapdb" => match number(if number(1) == Some(key_db) { 2 } else { 1 }) {
            Some(other) => Database("swapped with", other),
            None => Plain("perhaps touched"),
        },
        b"move" if key_db == db => number(2).map_or(Plain("moved away"), |to| Database("moved to", to)),
        b"move" => Database("moved from", db),
        b"copy" => match copied_to(db, args) {
            Some(to) if to == db => between("copied to itself", "copied from", "copied to", arg(1), arg(2)),
            Some(to) if key_db == db && first => WithIn("copied to", to, arg(2)),
            _ => WithIn("copied from", db, arg(1)),
        },
        b"rename" | b"renamenx" => between("renamed to itself", "renamed from", "renamed to", arg(1), arg(2)),
        b"set" => set(args),
        b"setnx" | b"msetnx" => Plain("created"),
        b"setex" => lives("set", arg(2), 1000),
        b"psetex" => lives("set", arg(2), 1),
        b"mset" | b"getset" => Plain("set"),
        b"restore" => Plain("restored"),
        b"incr" | b"incrby" | b"incrbyfloat" => Plain("incremented"),
        b"decr" | b"decrby" => Plain("decremented"),
        b"append" => Plain("appended to"),
        b"pexpireat" => until("TTL set", arg(2), 1000),
        b"expireat" => until("TTL set", arg(2), 1_000_000),
        b"pexpire" => lives("TTL set", arg(2), 1),
        b"expire" => lives("TTL set", arg(2), 1000),
        b"persist" => Plain("TTL removed"),
        b"hset" | b"hmset" | b"hsetnx" | b"hsetex" => Plain("fields set"),
        b"hincrby" | b"hincrbyfloat" => Plain("field incremented"),
        b"hdel" if cause == Cause::Expiry => Plain("fields expired"),
        b"hdel" | b"hgetdel" => Plain("fields removed"),
        b"hexpire" | b"hpexpire" | b"hexpireat" | b"hpexpireat" | b"hgetex" => Plain("TTL of fields set"),
        b"hpersist" => Plain("TTL of fields removed"),
        b"lpush" | b"rpush" | b"lpushx" | b"rpushx" => Plain("elements pushed"),
        b"lpop" | b"rpop" | b"lmpop" => Plain("elements popped"),
        b"lrem" | b"ltrim" => Plain("elements removed"),
        b"lset" | b"linsert" => Plain("element set"),
        b"lmove" | b"rpoplpush" => {
            between("element moved within", "element moved from", "element moved to", arg(1), arg(2))
        }
        b"sadd" => Plain("members added"),
        b"smove" => between("member moved within", "member moved from", "member moved to", arg(1), arg(2)),
        b"srem" | b"spop" | b"zrem" | b"zremrangebyrank" | b"zremrangebyscore" | b"zremrangebylex" => {
            Plain("members removed")
        }
        b"zadd" | b"geoadd" | b"zincrby" => Plain("members set"),
        b"zpopmin" | b"zpopmax" | b"zmpop" => Plain("members popped"),
        b"xadd" => Plain("entry added"),
        b"xdel" | b"xtrim" => Plain("entries removed"),
        b"xgroup" | b"xclaim" | b"xautoclaim" | b"xack" | b"xreadgroup" => Plain("consumer group changed"),
        // The destination first.
        b"sinterstore" | b"sunionstore" | b"sdiffstore" | b"zunionstore" | b"zinterstore" | b"zdiffstore"
        | b"zrangestore" | b"geosearchstore" | b"pfmerge" => result(first, arg(1)),
        b"bitop" => result(arg(2) == key, arg(2)),
        b"sort" | b"georadius" | b"georadiusbymember" => {
            let stored = |a: &&[u8]| word::is_one_of(a, &["store", "storedist"]);
            let target = args.iter().rposition(stored).map_or(&b""[..], |at| arg(at + 1));
            result(target == key, target)
        }
        b"eval" | b"evalsha" | b"fcall" => Plain("perhaps touched by a script"),
        _ if !key.is_empty() && args[1..].contains(&key) => Plain("written"),
        _ => Plain("perhaps touched"),
    }
}

/// The destination of a result, which may also be empty, or what it was made from.
fn result(is_target: bool, target: &[u8]) -> Change<'_> {
    if is_target { Change::Plain("replaced by a result") } else { Change::With("read for", target) }
}

fn set<'a>(args: &[&'a [u8]]) -> Change<'a> {
    let options = args.get(3..).unwrap_or_default();
    let has = |option: &str| options.iter().any(|arg| word::is(arg, option));
    let done = match (has("nx"), has("xx")) {
        (true, _) => "created",
        (_, true) => "replaced",
        _ => "set",
    };
    let behind = |option: &str| {
        let at = options.iter().position(|arg| word::is(arg, option))?;
        options.get(at + 1).copied()
    };
    if let Some(at) = behind("pxat") {
        return until(done, at, 1000);
    }
    if let Some(at) = behind("exat") {
        return until(done, at, 1_000_000);
    }
    if let Some(ms) = behind("px") {
        return lives(done, ms, 1);
    }
    behind("ex").map_or(Change::Plain(done), |seconds| lives(done, seconds, 1000))
}

fn until<'a>(word: &'static str, at: &[u8], micros: i64) -> Change<'a> {
    let at = std::str::from_utf8(at).ok().and_then(|s| s.parse::<i64>().ok()?.checked_mul(micros));
    at.map_or(Change::Plain(word), |at| Change::Until(word, at))
}

fn lives<'a>(word: &'static str, time: &[u8], millis: i64) -> Change<'a> {
    let time = std::str::from_utf8(time).ok().and_then(|s| s.parse::<i64>().ok()?.checked_mul(millis));
    time.map_or(Change::Plain(word), |ms| Change::For(word, ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(cause: Cause, line: &str, key_db: u32, key: &str) -> String {
        let args: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        let change = change(cause, 0, &args, key_db, key.as_bytes());
        change.display(|key| String::from_utf8_lossy(key).into_owned(), |us| format!("@{us}")).to_string()
    }

    #[test]
    fn no_more_is_claimed_than_the_effect_tells() {
        for (line, key, want) in [
            ("SET k v", "k", "set"),
            ("set k v PXAT 1500", "k", "set until @1500000"),
            ("SET k v EXAT 2", "k", "set until @2000000"),
            ("SET k v PX 1500", "k", "set for 1.500 s"),
            ("SET k v NX", "k", "created"),
            ("SET k nx", "k", "set"),
            ("SET k v xx KEEPTTL", "k", "replaced"),
            ("SETEX k 10 v", "k", "set for 10.000 s"),
            ("MSETNX a 1 k 2", "k", "created"),
            ("MSET a 1 k 2", "k", "set"),
            ("INCRBY k 3", "k", "incremented"),
            ("DEL k", "k", "deleted"),
            ("UNLINK k other", "k", "deleted, if it was there"),
            ("FLUSHALL", "k", "flushed"),
            ("FLUSHDB ASYNC", "k", "flushed"),
            ("SWAPDB 0 3", "k", "swapped with db 3"),
            ("SWAPDB 3 0", "k", "swapped with db 3"),
            ("RENAME k b", "k", "renamed to b"),
            ("RENAME a k", "k", "renamed from a"),
            ("RENAME k k", "k", "renamed to itself"),
            ("COPY k b", "k", "copied to b"),
            ("COPY a k REPLACE", "k", "copied from a"),
            ("COPY k b DB 3", "k", "copied to b in db 3"),
            ("MOVE k 3", "k", "moved to db 3"),
            ("PEXPIREAT k 5", "k", "TTL set until @5000"),
            ("EXPIRE k 5", "k", "TTL set for 5.000 s"),
            ("PEXPIREAT k x", "k", "TTL set"),
            ("PERSIST k", "k", "TTL removed"),
            ("HSET k f v", "k", "fields set"),
            ("HDEL k f", "k", "fields removed"),
            ("LMOVE k b LEFT LEFT", "k", "element moved to b"),
            ("RPOPLPUSH a k", "k", "element moved from a"),
            ("LMOVE k k LEFT RIGHT", "k", "element moved within"),
            ("ZUNIONSTORE k 1 a", "k", "replaced by a result"),
            ("ZUNIONSTORE d 1 k", "k", "read for d"),
            ("BITOP AND k a b", "k", "replaced by a result"),
            ("BITOP AND d k b", "k", "read for d"),
            ("SORT k BY x STORE d", "k", "read for d"),
            ("SORT l STORE k", "k", "replaced by a result"),
            ("EVAL x 1 k", "k", "perhaps touched by a script"),
            ("JSON.SET k . 1", "k", "written"),
            ("MODULE.DO", "k", "perhaps touched"),
        ] {
            assert_eq!(words(Cause::Asked, line, 0, key), want, "{line}");
        }
        assert_eq!(words(Cause::Expiry, "DEL k", 0, "k"), "expired");
        assert_eq!(words(Cause::Eviction, "UNLINK k", 0, "k"), "evicted");
        assert_eq!(words(Cause::Asked, "COPY a k DB 3", 3, "k"), "copied from a in db 0");
        assert_eq!(words(Cause::Asked, "COPY k k DB 3", 3, "k"), "copied from k in db 0");
        assert_eq!(words(Cause::Asked, "MOVE k 3", 3, "k"), "moved from db 0");
    }
}
