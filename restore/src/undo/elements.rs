//! Elements and times of expiry that go back, each if it is still what was written.

use redtape_wire::rdb::{Field, Score};

use crate::client::{Server, Value};
use crate::error::RestoreError;
use crate::target::lookup::{select, show};
use crate::target::repair::engine::Engine;
use crate::target::repair::{Difference, Digest, Element, NOTHING};

impl Engine<'_> {
    /// Sets a time of expiry back, if it is still the one that was written.
    pub(super) fn put_ttl_back(
        &mut self,
        db: u32,
        key: &[u8],
        written_ms: i64,
        was_ms: i64,
    ) -> Result<(), RestoreError> {
        select(self.target, db)?;
        if self.set_ttl(db, key, written_ms, was_ms)? {
            self.outcome.ttl_set += 1;
        } else {
            self.outcome.leave(db, key, "its time of expiry was changed since");
        }
        self.log.done()
    }

    /// Puts an element back, if the target has what was written in its place. `was`: `None` = there was none.
    pub(super) fn put_element_back(
        &mut self,
        db: u32,
        key: &[u8],
        name: &[u8],
        was: Option<&[u8]>,
        written: Digest,
        replace: bool,
    ) -> Result<(), RestoreError> {
        select(self.target, db)?;
        let Some(kind) = Kind::of(self.target, key)? else {
            self.outcome.leave(db, key, "was deleted, or has another type since");
            return Ok(());
        };
        let live = kind.live(self.target, key, name)?;
        let was = was.map(|was| kind.element(name, was)).transpose()?;
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
        if (replace || found == written) && self.set_elements(db, key, &[difference])? == [true] {
            self.outcome.elements += 1;
        } else {
            self.outcome.leave(db, key, format!("element {} was changed since", show(name)));
        }
        self.log.done()
    }
}

/// Of which container.
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

    fn live(self, server: &mut Server, key: &[u8], name: &[u8]) -> Result<Option<Element>, RestoreError> {
        let command: &[u8] = match self {
            Self::Hash => b"HGET",
            Self::Set => b"SISMEMBER",
            Self::Zset => b"ZSCORE",
        };
        match server.call(&[command, key, name])? {
            Value::Bytes(held) => self.element(name, &held).map(Some),
            Value::Int(1) => self.element(name, b"").map(Some),
            _ => Ok(None),
        }
    }

    fn element(self, name: &[u8], held: &[u8]) -> Result<Element, RestoreError> {
        let name = name.to_vec();
        Ok(match self {
            Self::Hash => Element::Field(Field { name, value: held.to_vec(), expires_at_ms: None }),
            Self::Set => Element::Member(name),
            Self::Zset => {
                let score = std::str::from_utf8(held).ok().and_then(|text| text.parse().ok()).and_then(Score::new);
                let no_score = || RestoreError::Unable(format!("{} is no score", show(held)));
                Element::Scored(name, score.ok_or_else(no_score)?)
            }
        })
    }
}
