//! Computes how a key gets from its present state to the state without the undone writes. Only differences are changed,
//! and none on which later writes depend. Pure.
//!
//! | as it was | without | repair |
//! | --- | --- | --- |
//! | absent | a value | created |
//! | a value | absent | deleted |
//! | hash, set, sorted set | the same type | element by element |
//! | any other value, another type | | replaced as a whole |
//! | | another expiry time | set |

use redtape_wire::rdb::{ReadError, Value};

use crate::judge::Part;
use crate::target::repair::TtlPolicy;
use crate::values::image::Image;
use crate::values::merge::{Difference, differences, removals_last};

/// What happens to the whole key.
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
    /// `live` is the present element, `wanted` the one without the writes.
    pub(super) elements: Vec<Difference>,
    /// Present and wanted expiry time; 0 = never.
    pub(super) ttl: Option<(i64, i64)>,
    /// What differs and stays, and why.
    pub(super) stays: Vec<(Part, String)>,
}

impl KeyRepair {
    /// True if something is written.
    pub(super) fn writes(&self) -> bool {
        self.whole.is_some() || !self.elements.is_empty() || self.ttl.is_some()
    }
}

/// The repair of a key. `doubt`: why a part stays, if it does. `now_ms`: what expires at or before this time is absent;
/// `slack_ms`: inaccuracy of expiry times.
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
            let held = elements_of(&old);
            match differences(new, old) {
                None => return Ok(repair.whole(Whole::Replace, doubt)),
                Some(all) => repair.elements(all, doubt),
            }
            let removed = |difference: &Difference| matches!(difference, Difference::Extra(_));
            if held > 0 && repair.elements.len() == held && repair.elements.iter().all(removed) {
                // The replacement is in doubt. Deleting the last element deletes the key; the undo of that restores all
                // of it.
                repair.elements.clear();
                repair.whole = Some(Whole::Delete);
                return Ok(repair);
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

/// Number of elements of a container.
fn elements_of(value: &Value) -> usize {
    match value {
        Value::Hash(fields) => fields.len(),
        Value::Set(members) => members.len(),
        Value::Zset(members) => members.len(),
        _ => 0,
    }
}

/// True if all its fields have expired.
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

#[cfg(test)]
mod tests {
    use redtape_wire::rdb::{Family, Field, RdbVersion, encode_dump};

    use super::*;

    const NOW_MS: i64 = 1000;

    fn image(value: &Value, expires_ms: i64) -> Image {
        let version = RdbVersion { family: Family::Redis, version: 11 };
        Image { dump: encode_dump(value, version).expect("a dump"), expires_ms }
    }

    fn string(text: &str) -> Image {
        image(&Value::String(text.as_bytes().to_vec()), 0)
    }

    fn hash(fields: &[(&str, &str)], expires_ms: i64) -> Image {
        let field = |(name, value): &(&str, &str)| Field {
            name: name.as_bytes().to_vec(),
            value: value.as_bytes().to_vec(),
            expires_at_ms: None,
        };
        image(&Value::Hash(fields.iter().map(field).collect()), expires_ms)
    }

    /// Describes a repair briefly; parts in `doubt` stay: `whole`, `ttl`, or an element's name.
    fn told(was: Option<&Image>, without: Option<&Image>, doubt: &[&str]) -> String {
        let in_doubt = |part: &Part| {
            let name = match part {
                Part::Whole => "whole".to_owned(),
                Part::Ttl => "ttl".to_owned(),
                Part::Element(name) => String::from_utf8_lossy(name).into_owned(),
            };
            doubt.contains(&name.as_str()).then_some(name)
        };
        let repair = repair(was, without, (NOW_MS, 0), &in_doubt).expect("values");
        let mut words: Vec<String> = repair.whole.iter().map(|whole| format!("{whole:?}")).collect();
        words.extend(repair.elements.iter().map(|difference| {
            let kind = match difference {
                Difference::Lacking(_) => "+",
                Difference::Other { .. } => "~",
                Difference::Extra(_) => "-",
            };
            format!("{kind}{}", String::from_utf8_lossy(difference.name()))
        }));
        words.extend(repair.ttl.map(|(was, without)| format!("ttl {was} {without}")));
        words.extend(repair.stays.iter().map(|(_, why)| format!("stays {why}")));
        words.join(" ")
    }

    #[test]
    fn only_what_differs_is_touched_and_nothing_in_doubt() {
        let (a, b) = (string("a"), string("b"));
        let (a, b) = (|| Some(&a), || Some(&b));
        assert_eq!(told(None, None, &[]), "");
        assert_eq!(told(a(), a(), &["whole", "ttl"]), "");
        assert_eq!(told(None, a(), &[]), "Create");
        assert_eq!(told(None, a(), &["whole"]), "stays whole");
        assert_eq!(told(a(), None, &[]), "Delete");
        assert_eq!(told(a(), b(), &[]), "Replace");
        assert_eq!(told(a(), b(), &["whole"]), "stays whole");
        assert_eq!(told(a(), Some(&hash(&[("f", "1")], 0)), &[]), "Replace");
        let old = hash(&[("bad", "1"), ("kept", "1"), ("n", "2")], 0);
        let new = hash(&[("kept", "1"), ("lost", "1"), ("n", "1")], 0);
        // Removals come last.
        assert_eq!(told(Some(&old), Some(&new), &[]), "+lost ~n -bad");
        assert_eq!(told(Some(&old), Some(&new), &["n"]), "+lost -bad stays n");
    }

    #[test]
    fn what_has_expired_is_absent() {
        let told = |was: i64, without: i64, doubt: &[&str]| {
            let at = |expires_ms| image(&Value::String(b"a".to_vec()), expires_ms);
            told(Some(&at(was)), Some(&at(without)), doubt)
        };
        assert_eq!(told(2000, 2000, &[]), "");
        assert_eq!(told(2000, 3000, &[]), "ttl 2000 3000");
        assert_eq!(told(2000, 0, &["ttl"]), "stays ttl");
        assert_eq!(told(2000, 1000, &[]), "Delete");
        assert_eq!(told(500, 2000, &[]), "Create");
        assert_eq!(told(500, 1000, &[]), "");
    }

    #[test]
    fn a_key_that_loses_its_last_element_goes_as_a_whole() {
        let (old, new) = (hash(&[("bad", "1")], 2000), hash(&[("lost", "1")], 2000));
        assert_eq!(told(Some(&old), Some(&new), &["lost"]), "Delete stays lost");
        assert_eq!(told(Some(&old), Some(&new), &[]), "+lost -bad");
    }
}
