//! Which writes take away what nothing else brings back.

use redtape_journal::{Group, OriginKind, Record};
use redtape_wire::command::{NAME_MAX, lower_name};
use redtape_wire::effect::{After, KeyWrite, Writes, writes};

/// What a write took away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Taken {
    /// Keys.
    Keys,
    /// The value that the destination of a `RENAME` had, if there was one.
    Overwritten,
    /// All keys of this database.
    Database(u32),
    /// All keys.
    Everything,
    /// Two databases changed places.
    Swapped,
}

/// `None` = nothing, or it had no request: a key expired or was evicted. What a plain `SET` replaced is not known, and its new
/// value is what was wanted.
pub(super) fn taken(group: &Group, record: &Record) -> Option<Taken> {
    if matches!(group.origin.kind, OriginKind::Expiry | OriginKind::Eviction) {
        return None;
    }
    let mut room = [0; NAME_MAX];
    match lower_name(record.args.first()?, &mut room) {
        b"del" | b"unlink" | b"getdel" | b"delex" | b"delifeq" => Some(Taken::Keys),
        b"rename" if record.args.get(1) != record.args.get(2) => Some(Taken::Overwritten),
        b"flushdb" => Some(Taken::Database(record.db)),
        b"flushall" => Some(Taken::Everything),
        b"swapdb" => Some(Taken::Swapped),
        _ => None,
    }
}

/// Whether it is this key of the record's that was taken.
pub(super) fn is_taken(record: &Record, taken: &Taken, db: u32, key: &[u8]) -> bool {
    if *taken != Taken::Overwritten {
        return true;
    }
    let Writes::Keys(keys) = writes(record.db, &record.args, record.keys.as_deref()) else { return false };
    let is_gone = |write: &KeyWrite<'_>| write.value.is_some_and(|value| value.after == After::Absent);
    keys.iter().any(|write| write.db == db && write.key == key && !is_gone(write))
}
