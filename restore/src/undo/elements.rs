//! Puts back elements and expiry times, each if it is still what the repair wrote.

use redtape_wire::rdb::{Field, Score};

use crate::client::{Server, Value};
use crate::error::RestoreError;
use crate::target::lookup::{has_passed, select, show};
use crate::target::repair::engine::{Engine, Unwanted, digest_of};
use crate::target::repair::live;
use crate::values::digest::{Digest, NOTHING};
use crate::values::merge::{Difference, Element};

impl Engine<'_> {
    /// Restores an expiry time, if it is still the written one.
    pub(super) fn put_ttl_back(
        &mut self,
        db: u32,
        key: &[u8],
        written_ms: i64,
        was_ms: i64,
        replace: bool,
    ) -> Result<(), RestoreError> {
        select(self.target, db)?;
        let found = live::read(self.target, &[key], self.version, false)?;
        let now_ms = found.now_ms;
        let Some(there) = found.keys.into_iter().next().flatten() else {
            self.outcome.leave(db, key, "was deleted since");
            return Ok(());
        };
        if self.same_ttl(there.expires_ms, was_ms) {
            self.outcome.equal += 1;
            return Ok(());
        }
        let may = replace || self.same_ttl(there.expires_ms, written_ms);
        if may && has_passed(was_ms, now_ms) {
            // It would have expired by now; its value goes into the undo file.
            let expected = Some(digest_of(key, &there)?);
            return self.delete(db, vec![Unwanted { key: key.to_vec(), expected, of_type: None }]);
        }
        if may && self.set_ttl(db, key, there.expires_ms, was_ms)? {
            self.outcome.ttl_set += 1;
        } else {
            self.outcome.leave(db, key, "its time of expiry was changed since");
        }
        self.log.done()
    }

    /// Restores an element, if the target still has what was written. `was`: `None` = it did not exist.
    pub(super) fn put_element_back(
        &mut self,
        db: u32,
        key: &[u8],
        ElementBefore { name, held, written }: &ElementBefore<'_>,
        field_ttl: bool,
        replace: bool,
    ) -> Result<(), RestoreError> {
        select(self.target, db)?;
        let Some(kind) = Kind::of(self.target, key)? else {
            if held.is_none() {
                // It did not exist, and still does not.
                self.outcome.equal += 1;
                return Ok(());
            }
            self.outcome.leave(db, key, "was deleted, or has another type since");
            return Ok(());
        };
        let live = kind.live(self.target, key, name, field_ttl)?;
        let was = held.map(|(held, expires_ms)| kind.element(name, held, expires_ms)).transpose()?;
        if live == was {
            self.outcome.equal += 1;
            return Ok(());
        }
        let found = live.as_ref().map_or(NOTHING, Element::digest);
        let difference = match (was, live) {
            (Some(wanted), Some(live)) => Difference::Other { wanted, live },
            (Some(wanted), None) => Difference::Lacking(wanted),
            (None, Some(live)) => Difference::Extra(live),
            (None, None) => return Ok(()),
        };
        if (replace || found == *written) && self.set_elements(db, key, &[difference])? == [true] {
            self.outcome.elements += 1;
        } else {
            self.outcome.leave(db, key, format!("element {} was changed since", show(name)));
        }
        self.log.done()
    }
}

/// An undo file's entry for an element.
#[derive(Debug)]
pub(super) struct ElementBefore<'a> {
    pub(super) name: &'a [u8],
    /// Its value, and for a hash field its expiry time; `None` = it did not exist.
    pub(super) held: Option<(&'a [u8], i64)>,
    pub(super) written: Digest,
}

/// The kind of container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Hash,
    Set,
    Zset,
}

impl Kind {
    fn of(server: &mut Server, key: &[u8]) -> Result<Option<Self>, RestoreError> {
        let Value::Status(name) = server.call(&[b"TYPE", key])? else { return Ok(None) };
        Ok(match name.as_str() {
            "hash" => Some(Self::Hash),
            "set" => Some(Self::Set),
            "zset" => Some(Self::Zset),
            _ => None,
        })
    }

    fn live(
        self,
        server: &mut Server,
        key: &[u8],
        name: &[u8],
        field_ttl: bool,
    ) -> Result<Option<Element>, RestoreError> {
        let command: &[u8] = match self {
            Self::Hash => b"HGET",
            Self::Set => b"SISMEMBER",
            Self::Zset => b"ZSCORE",
        };
        match server.call(&[command, key, name])? {
            Value::Bytes(held) => {
                let expires_ms = if self == Self::Hash && field_ttl { field_expiry(server, key, name)? } else { 0 };
                self.element(name, &held, expires_ms).map(Some)
            }
            Value::Int(1) => self.element(name, b"", 0).map(Some),
            _ => Ok(None),
        }
    }

    fn element(self, name: &[u8], held: &[u8], expires_ms: i64) -> Result<Element, RestoreError> {
        let name = name.to_vec();
        Ok(match self {
            Self::Hash => {
                let expires_at_ms = (expires_ms != 0).then_some(expires_ms);
                Element::Field(Field { name, value: held.to_vec(), expires_at_ms })
            }
            Self::Set => Element::Member(name),
            Self::Zset => {
                let score = std::str::from_utf8(held).ok().and_then(|text| text.parse().ok()).and_then(Score::new);
                let no_score = || RestoreError::Unable(format!("{} is no score", show(held)));
                Element::Scored(name, score.ok_or_else(no_score)?)
            }
        })
    }
}

/// Expiry time of a field; 0 = never.
fn field_expiry(server: &mut Server, key: &[u8], name: &[u8]) -> Result<i64, RestoreError> {
    let reply = server.call(&[b"HPEXPIRETIME", key, b"FIELDS", b"1", name])?;
    Ok(match reply {
        Value::Array(times) => match times.first() {
            Some(Value::Int(at @ 1..)) => *at,
            _ => 0,
        },
        _ => 0,
    })
}
