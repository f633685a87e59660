//! Differences that stay: later writes depend on them, or the correct value cannot be determined.

use super::history::History;
use crate::judge::Part;
use crate::mistake::Sample;
use crate::source::tail::{Failed, Replayed};
use crate::target::lookup::show;

/// Why a part of a key stays, if it does.
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

/// Why a key that is equal in both datasets is in doubt, if it is.
pub(super) fn of_equal(replayed: &Replayed, db: u32, key: &[u8]) -> Option<String> {
    let Failed { lsn, who, why, replayed } = replayed.failed.get(&(db, bytes::Bytes::copy_from_slice(key)))?;
    replayed.then(|| format!("LSN {lsn}, by {who}: {why}"))
}

/// Describes a part that stays, with the reason.
pub(super) fn in_words(part: &Part, why: &str) -> String {
    match part {
        Part::Whole => why.to_owned(),
        Part::Element(name) => format!("element {}: {why}", show(name)),
        Part::Ttl => format!("time of expiry: {why}"),
    }
}
