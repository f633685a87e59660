//! How a key gets from what it is to what it would be without the writes that are undone: only what differs is touched, and nothing
//! of that which others have built on. Pure.
//!
//! | as it was | without | repair |
//! | --- | --- | --- |
//! | absent | a value | created |
//! | a value | absent | deleted |
//! | hash, set, sorted set | the same type | element by element |
//! | any other value, another type | | replaced as a whole |
//! | | another time of expiry | that is set |

use redtape_wire::rdb::{ReadError, Value};

use crate::judge::Part;
use crate::target::repair::TtlPolicy;
use crate::values::image::Image;
use crate::values::merge::{Difference, differences, removals_last};

/// What happens to a key as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Whole {
    Create,
    Replace,
    Delete,
}

/// What happens to a key.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct KeyRepair {
    pub(super) whole: Option<Whole>,
    /// `live` is what is there as it was, `wanted` what would be there.
    pub(super) elements: Vec<Difference>,
    /// The time of expiry as it was, and as it would be; 0 = never.
    pub(super) ttl: Option<(i64, i64)>,
    /// What differs and stays, and why.
    pub(super) stays: Vec<(Part, String)>,
}

impl KeyRepair {
    /// Something is written.
    pub(super) fn writes(&self) -> bool {
        self.whole.is_some() || !self.elements.is_empty() || self.ttl.is_some()
    }
}

/// The repair of a key. `doubt`: why a part stays, if it does. `now_ms`: what expires then or earlier is gone; `slack_ms`: by how much
/// times of expiry may be off.
pub(super) fn repair(
    was: Option<&Image>,
    without: Option<&Image>,
    (now_ms, slack_ms): (i64, i64),
    doubt: &dyn Fn(&Part) -> Option<String>,
) -> Result<KeyRepair, ReadError> {
    let lives = |image: &&Image| image.expires_ms == 0 || image.expires_ms > now_ms;
    let mut repair = KeyRepair::default();
    let (was, without) = match (was.filter(lives), without.filter(lives)) {
        (None, None) => return Ok(repair),
        (None, Some(_)) => return Ok(repair.whole(Whole::Create, doubt)),
        (Some(_), None) => return Ok(repair.whole(Whole::Delete, doubt)),
        (Some(was), Some(without)) => (was, without),
    };
    if was.dump != without.dump {
        let (old, new) = (was.value_at(now_ms)?, without.value_at(now_ms)?);
        if is_empty_hash(&new) {
            return Ok(repair.whole(Whole::Delete, doubt));
        }
        if old != new {
            match differences(new, old) {
                None => return Ok(repair.whole(Whole::Replace, doubt)),
                Some(all) => repair.elements(all, doubt),
            }
        }
    }
    if !TtlPolicy::Absolute.same(without.expires_ms, was.expires_ms, slack_ms) {
        match doubt(&Part::Ttl) {
            None => repair.ttl = Some((was.expires_ms, without.expires_ms)),
            Some(why) => repair.stays.push((Part::Ttl, why)),
        }
    }
    Ok(repair)
}

/// All its fields have expired.
fn is_empty_hash(value: &Value) -> bool {
    matches!(value, Value::Hash(fields) if fields.is_empty())
}

impl KeyRepair {
    fn whole(mut self, whole: Whole, doubt: &dyn Fn(&Part) -> Option<String>) -> Self {
        match doubt(&Part::Whole) {
            None => self.whole = Some(whole),
            Some(why) => self.stays.push((Part::Whole, why)),
        }
        self
    }

    fn elements(&mut self, all: Vec<Difference>, doubt: &dyn Fn(&Part) -> Option<String>) {
        for difference in all {
            let part = Part::Element(difference.name().to_vec());
            match doubt(&part) {
                None => self.elements.push(difference),
                Some(why) => self.stays.push((part, why)),
            }
        }
        removals_last(&mut self.elements);
    }
}
