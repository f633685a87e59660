//! What differs and stays: others have built on it, or it cannot be told what would be there.

use super::history::History;
use crate::judge::Part;
use crate::mistake::Sample;
use crate::source::tail::{Failed, Replayed};
use crate::target::lookup::show;

/// Why a part of a key stays as it is, if it does.
pub(super) fn of(history: &History, replayed: &Replayed, (db, key): (u32, &[u8]), part: &Part) -> Option<String> {
    if let Some(Failed { lsn, who, why, .. }) = replayed.failed.get(&(db, bytes::Bytes::copy_from_slice(key))) {
        return Some(format!("LSN {lsn}, by {who}: {why}"));
    }
    if replayed.more_failed {
        return Some("more commands fail without the writes than are noted".to_owned());
    }
    if history.include_dependent {
        return None;
    }
    let affected = &history.mistake.affected;
    let dependent = match part {
        Part::Whole => affected.depends(db, key, None),
        Part::Element(name) => affected.depends(db, key, Some(name)),
        Part::Ttl => affected.depends_on_ttl(db, key),
    };
    let Sample { at, who, command, why, .. } = dependent?;
    let why = why.map(|why| format!(": {why}")).unwrap_or_default();
    Some(format!("LSN {}, {command} by {}{why}", at.lsn, who))
}

/// Why a key is in doubt that is the same in both datasets, if it is.
pub(super) fn of_equal(replayed: &Replayed, db: u32, key: &[u8]) -> Option<String> {
    let Failed { lsn, who, why, replayed } = replayed.failed.get(&(db, bytes::Bytes::copy_from_slice(key)))?;
    replayed.then(|| format!("LSN {lsn}, by {who}: {why}"))
}

/// A part that stays, and why.
pub(super) fn in_words(part: &Part, why: &str) -> String {
    match part {
        Part::Whole => why.to_owned(),
        Part::Element(name) => format!("element {}: {why}", show(name)),
        Part::Ttl => format!("time of expiry: {why}"),
    }
}
