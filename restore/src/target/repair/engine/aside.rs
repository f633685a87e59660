//! Keys that clients write to all the time.

use super::transaction::{self, encode_restore, not_taken};
use super::{CHANGED, Engine, Wanted, digest_of, temporary};
use crate::client::{Reply, Value};
use crate::error::RestoreError;
use crate::target::repair::before::Before;
use crate::target::repair::digest::Digest;
use crate::target::repair::image::Image;
use crate::target::repair::live;

impl Engine<'_> {
    /// Puts the wanted key in its place while clients write to it: the live one is renamed in the same transaction, so that what it
    /// held at that moment is kept, and goes into the undo log from there.
    pub(super) fn move_aside(
        &mut self,
        db: u32,
        Wanted { key, image: wanted, expected }: &Wanted,
    ) -> Result<(), RestoreError> {
        if expected.is_some() {
            self.outcome.leave(db, key, CHANGED);
            return Ok(());
        }
        let (old, new) = self.names();
        self.log.add(db, &Before::Moved { key, temporary: &old })?;
        self.log.sync()?;
        let mut packed = Vec::new();
        encode_restore(&mut packed, &new, wanted, true);
        if let Some(Reply::Error(e)) = self.target.pipeline(&packed, 1)?.pop() {
            return Err(not_taken(self.target, key, &e));
        }
        let swap: [[&[u8]; 3]; 2] = [[b"RENAME", key, &old], [b"RENAME", &new, key]];
        if let [_, Value::Error(e)] = &transaction::run(self.target, &swap)?[..] {
            // Nobody may be left without the key that was moved aside.
            self.target.call(&[b"RENAMENX", &old[..], key])?;
            return Err(self.target.refused("RENAME", e));
        }
        self.keep_moved(db, key, &old, Some(digest_of(key, wanted)?))?;
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
        let live = live::read(self.target, &[old], self.absolute, false)?;
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
        self.target.call(&[&b"UNLINK"[..], &temporary::new_of(&moved.temporary)])?;
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

    /// Names for what is moved aside, and for what takes its place.
    pub(super) fn names(&mut self) -> (Vec<u8>, Vec<u8>) {
        self.temporary += 1;
        let old = temporary::old(self.id, self.temporary);
        let new = temporary::new_of(&old);
        (old, new)
    }
}
