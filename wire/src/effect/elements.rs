//! What of a key an effect writes: which fields of a hash, which members of a set, the TTL, or all of it.
//!
//! It tells which write of one element was its last. An effect stands in the stream because it changed *something*; of
//! several elements that it names it may have changed but one. So each write says what is there behind it ([`After`](super::After)), and
//! whether the effect has certainly changed it: `SADD s a b` leaves `a` in the set, whether it was there before or not.
//!
//! | effects | value | TTL |
//! | --- | --- | --- |
//! | `HSET`, `SADD`, `ZADD`, … | the elements that they name | stays |
//! | `HDEL`, `SREM`, `ZREM`, … | the same; with the last element the key goes | stays, or goes with the key |
//! | `LPUSH`, `INCR`, `XADD`, … | something that cannot be listed | stays |
//! | `LPOP`, `ZREMRANGEBYSCORE`, … | the same; with the last element the key goes | stays, or goes with the key |
//! | `PEXPIREAT`, `PERSIST` | nothing | it is set, or removed |
//! | `SET`, `GETSET`, `MSET` | all | it is set, removed, or stays (`KEEPTTL`) |
//! | `DEL`, `FLUSHALL` | all | goes with the key |
//! | `RENAME`, `COPY`, `MOVE`, `RESTORE` | all | comes with the value |
//! | `SUNIONSTORE`, `SORT … STORE`, `BITOP`, … | all; of an empty result there is no key | it is removed |
//!
//! Table driven: names, shapes and keys are those of [`super::rules`]; what is not there, or has another shape, is unknown.

use smallvec::SmallVec;

use super::dependence::dependence;
use super::element_shapes::{self, Shape};
use super::named_keys::OTHERS_TOO;
use super::rules::rule;
use super::touch::{Dependence, Touch};
use super::written::{KeyWrites, Writes};
use crate::command::{NAME_MAX, lower_name};

/// What a command in database `db` writes. `keys`: which arguments are its keys, if the journal knows.
pub fn writes<'a, A: AsRef<[u8]>>(db: u32, args: &'a [A], keys: Option<&[usize]>) -> Writes<'a> {
    let mut room = [0; NAME_MAX];
    let Some(name) = args.first() else { return Writes::Unknown };
    let name = lower_name(name.as_ref(), &mut room);
    if rule(name).is_none() {
        return unknown_of(db, args, keys);
    }
    match (element_shapes::shape(name), dependence(db, args, keys)) {
        (Some(shape), Dependence::Keys(touched) | Dependence::ReadsOthers(touched)) => {
            let written = touched.iter().enumerate().filter(|(_, touched)| touched.touch != Touch::Read);
            let writes = written.map(|(nth, touched)| element_shapes::write(shape, args, touched.db, touched.key, nth));
            writes.collect::<Option<KeyWrites<'_>>>().map_or(Writes::Unknown, Writes::Keys)
        }
        // Of a module's value it is not known what it depends on, but it is one key.
        (Some(shape @ Shape::Restore), Dependence::Unknown) => {
            let key = args.get(1).map(AsRef::as_ref);
            let write = key.and_then(|key| element_shapes::write(shape, args, db, key, 0));
            write.map_or(Writes::Unknown, |write| Writes::Keys(SmallVec::from_iter([write])))
        }
        (_, Dependence::FlushDb) => Writes::FlushDb,
        (_, Dependence::FlushAll) => Writes::FlushAll,
        (_, Dependence::SwapDb(a, b)) => Writes::SwapDb(a, b),
        (_, Dependence::Nothing | Dependence::Libraries) => Writes::Nothing,
        _ => Writes::Unknown,
    }
}

/// A command that is not in the table: all that is known are its keys, if the journal has them.
fn unknown_of<'a, A: AsRef<[u8]>>(db: u32, args: &'a [A], keys: Option<&[usize]>) -> Writes<'a> {
    let Some(keys) = keys else { return Writes::Unknown };
    let others = keys.contains(&OTHERS_TOO);
    let named = keys.iter().filter(|at| **at != OTHERS_TOO).map(|at| args.get(*at).map(|key| (db, key.as_ref())));
    match named.collect::<Option<SmallVec<_>>>() {
        Some(keys) => Writes::UnknownOf { keys, others },
        None => Writes::Unknown,
    }
}

#[cfg(test)]
#[path = "elements_tests.rs"]
mod tests;
