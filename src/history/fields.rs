//! Which writes touch a field of a hash, a member of a set or of a sorted set, for `--field`.

use redtape_journal::Record;
use redtape_wire::effect::{Elements, Writes, writes};

/// Whether a record touches one of these fields of a wanted key, or may do so. Fields that a command names are compared. What
/// replaces or removes the key as a whole counts, and so does what changes elements that it does not name (`SPOP`, scripts); what
/// sets the key's TTL does not.
pub(super) fn may_touch_fields(record: &Record, fields: &[Vec<u8>], wanted: impl Fn(u32, &[u8]) -> bool) -> bool {
    match writes(record.db, &record.args, record.keys.as_deref()) {
        Writes::Keys(keys) => keys.iter().any(|write| {
            wanted(write.db, write.key)
                && match &write.elements {
                    Elements::None => false,
                    Elements::Listed(listed) => listed.iter().any(|(element, _)| fields.iter().any(|f| f == element)),
                    Elements::Unlisted | Elements::Whole => true,
                }
        }),
        Writes::Nothing => false,
        // That they touch a wanted key, or may do so, was looked at before.
        Writes::FlushDb | Writes::FlushAll | Writes::SwapDb(..) | Writes::UnknownOf { .. } | Writes::Unknown => true,
    }
}
