//! Keys that clients write to all the time.

use super::transaction::{encode_expiry, exec};
use super::{CHANGED, Engine, Wanted, digest_of};
use crate::client::Value;
use crate::error::RestoreError;
use crate::target::lookup::select;
use crate::target::pieces::name::{parse, temporary_name};
use crate::target::repair::before::Before;
use crate::target::repair::digest::Digest;
use crate::target::repair::image::Image;
use crate::target::repair::live;

impl Engine<'_> {
    /// Puts the wanted key in its place while clients write to it: the live one is renamed in the same transaction, so that what it
    /// held at that moment is kept, and goes into the undo log from there.
    pub(super) fn move_aside(&mut self, db: u32, wanted: &Wanted) -> Result<(), RestoreError> {
        let Wanted { key, expected, digest, .. } = wanted;
        if expected.is_some() {
            self.outcome.leave(db, key, CHANGED);
            return Ok(());
        }
        let (old, new) = self.names(key);
        self.log.add(db, &Before::Moved { key, temporary: &old })?;
        self.log.sync()?;
        self.build_as(&new, wanted)?;
        let mut packed = Vec::new();
        self.target.encode(&mut packed, &[b"MULTI"]);
        // What is built in pieces has a time of expiry of its own until now.
        encode_expiry(self.target, &mut packed, &new, wanted.image.expires_ms);
        self.target.encode(&mut packed, &[b"RENAME", &key[..], &old]);
        self.target.encode(&mut packed, &[b"RENAME", &new[..], key]);
        self.target.encode(&mut packed, &[b"EXEC"]);
        if let Some([_, _, Value::Error(e)]) = exec(self.target, &packed, 3)?.as_deref() {
            // Nobody may be left without the key that was moved aside.
            self.target.call(&[b"RENAMENX", &old[..], key])?;
            return Err(self.target.refused("RENAME", e));
        }
        self.keep_moved(db, key, &old, Some(*digest))?;
        self.outcome.replaced += 1;
        Ok(())
    }

    /// Takes what was moved aside into the undo log, and removes it.
    pub(crate) fn keep_moved(
        &mut self,
        db: u32,
        key: &[u8],
        old: &[u8],
        written: Option<Digest>,
    ) -> Result<(), RestoreError> {
        let live = live::read(self.target, &[old], self.version, false)?;
        match live.keys.into_iter().next().flatten() {
            None => self.log.add(db, &Before::Absent { key, written: written.unwrap_or_default() })?,
            Some(Image { dump, expires_ms }) => {
                self.log.add(db, &Before::Value { key, expires_ms, dump: &dump, written })?;
            }
        }
        self.log.sync()?;
        self.target.call(&[b"UNLINK", old]).map(drop)
    }

    /// Ends what an interrupted run has begun with this key; whether the wanted one had been put in its place. `wanted`: `None` = it is
    /// to be deleted.
    pub(super) fn take_up(&mut self, db: u32, key: &[u8], wanted: Option<&Image>) -> Result<bool, RestoreError> {
        if self.moved.is_empty() {
            return Ok(false);
        }
        let Some(moved) = self.moved.remove(&(db, key.to_vec())) else { return Ok(false) };
        if let Some(new) = new_of(key, &moved.temporary) {
            self.target.call(&[&b"UNLINK"[..], &new])?;
        }
        if moved.stored.is_some() {
            self.target.call(&[&b"UNLINK"[..], &moved.temporary])?;
            return Ok(true);
        }
        if !live::exist(self.target, &[&moved.temporary])?.contains(&true) {
            return Ok(false);
        }
        let written = wanted.map(|wanted| digest_of(key, wanted)).transpose()?;
        self.keep_moved(db, key, &moved.temporary, written)?;
        Ok(true)
    }

    /// Ends what an interrupted run has begun with keys that were not met again: their old values are kept.
    pub(crate) fn take_up_rest(&mut self) -> Result<(), RestoreError> {
        let rest: Vec<(u32, Vec<u8>)> = self.moved.keys().cloned().collect();
        for (db, key) in rest {
            select(self.target, db)?;
            self.take_up(db, &key, None)?;
        }
        self.log.done()
    }

    /// Names for what is moved aside, and for what takes its place.
    pub(super) fn names(&mut self, key: &[u8]) -> (Vec<u8>, Vec<u8>) {
        self.temporary += 2;
        (temporary_name(key, self.id, self.temporary), temporary_name(key, self.id, self.temporary + 1))
    }
}

/// What takes the place of what was moved aside under this name.
fn new_of(key: &[u8], old: &[u8]) -> Option<Vec<u8>> {
    let name = parse(old)?;
    Some(temporary_name(key, &name.operation, name.number + 1))
}
