//! What of a key an effect writes: which fields of a hash, which members of a set, the TTL, or all of it.
//!
//! For whoever asks of one element which write was its last. An effect stands in the stream because it changed *something*; of
//! several elements that it names it may have changed but one. So each write says what is there behind it ([`After`]), and
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
use crate::command::{NAME_MAX, lower_name};

/// What is there behind a write.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum After<'a> {
    /// Nothing.
    Absent,
    /// A member of a set.
    Present,
    /// This value: of a field or a string.
    Is(&'a [u8]),
    /// This score.
    Score(f64),
    /// This time, in milliseconds since 1970: of a TTL.
    Until(i64),
    /// Something else than before.
    Changed,
    /// Something else than before, or nothing: an element that was taken may have been the last.
    ChangedOrAbsent,
    /// Anything, also the same as before or nothing: it comes from elsewhere.
    Any,
}

/// One write of a key's value, of one of its elements, or of its TTL.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Write<'a> {
    /// What is there then.
    pub after: After<'a>,
    /// Something else was there before, or it was replaced as a whole. If not, all that is certain is what is there then; and where that is not said
    /// ([`After::Changed`], [`After::ChangedOrAbsent`], [`After::Any`]), it may not be written at all.
    pub certain: bool,
}

impl<'a> Write<'a> {
    pub(super) const fn certain(after: After<'a>) -> Self {
        Self { after, certain: true }
    }

    pub(super) const fn stated(after: After<'a>) -> Self {
        Self { after, certain: false }
    }

    /// It may have left everything as it was, and what is there then is not said.
    pub fn is_perhaps(&self) -> bool {
        !self.certain && matches!(self.after, After::Changed | After::ChangedOrAbsent | After::Any)
    }
}

/// What an effect writes of a key's elements.
#[derive(Debug, Clone, PartialEq)]
pub enum Elements<'a> {
    /// None.
    None,
    /// These and no others. One that is named twice stands there twice: the last one counts.
    Listed(SmallVec<[(&'a [u8], Write<'a>); 1]>),
    /// Some that it does not name.
    Unlisted,
    /// All that there were and are: the key is replaced or removed.
    Whole,
}

/// What an effect writes of one key.
#[derive(Debug, Clone, PartialEq)]
pub struct KeyWrite<'a> {
    /// Its database.
    pub db: u32,
    /// Its name.
    pub key: &'a [u8],
    /// Its elements.
    pub elements: Elements<'a>,
    /// The value as a whole; `None` = it stays.
    pub value: Option<Write<'a>>,
    /// Its TTL; `None` = it stays.
    pub ttl: Option<Write<'a>>,
}

/// The keys that one effect writes. One that it names twice stands there twice.
pub type KeyWrites<'a> = SmallVec<[KeyWrite<'a>; 1]>;

/// What an effect writes.
#[derive(Debug, Clone, PartialEq)]
pub enum Writes<'a> {
    /// Of these keys, and of no others.
    Keys(KeyWrites<'a>),
    /// It empties its database.
    FlushDb,
    /// It empties every database.
    FlushAll,
    /// The contents of two databases change places.
    SwapDb(u32, u32),
    /// No key.
    Nothing,
    /// Anything of these keys.
    UnknownOf {
        /// Databases and keys.
        keys: SmallVec<[(u32, &'a [u8]); 2]>,
        /// It may write others beside them (commands of modules).
        others: bool,
    },
    /// Anything of any key.
    Unknown,
}

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
