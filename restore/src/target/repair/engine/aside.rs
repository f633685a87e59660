//! Replaces keys that clients write to constantly.

use redtape_journal::undo_file::MovedAside;

use super::transaction::{encode_expiry, exec};
use super::{Batch, CHANGED, Engine, Wanted};
use crate::client::Value;
use crate::error::RestoreError;
use crate::random;
use crate::target::lookup::{select, show};
use crate::target::pieces::name::{parse, temporary_name};
use crate::target::repair::before::Before;
use crate::target::repair::live;
use crate::values::digest::{Digest, NOTHING};
use crate::values::image::Image;

impl Engine<'_> {
    /// Puts the wanted key in place while clients write to it. The live key is renamed in the same transaction, so its
    /// value at that time is kept, and is copied to the undo log afterwards.
    pub(super) fn move_aside(&mut self, db: u32, wanted: &Wanted) -> Result<(), RestoreError> {
        let Wanted { key, expected, digest, .. } = wanted;
        if expected.is_some() {
            self.outcome.leave(db, key, CHANGED);
            return Ok(());
        }
        let (old, new) = self.names(key);
        let written = Some(*digest);
        self.log.add(db, &Before::Moved { key, temporary: &old, written })?;
        self.log.sync()?;
        self.build_as(&new, wanted)?;
        let mut packed = Vec::new();
        self.target.encode(&mut packed, &[b"MULTI"]);
        // A value built in pieces has a temporary expiry time until now.
        encode_expiry(self.target, &mut packed, &new, wanted.image.expires_ms);
        self.target.encode(&mut packed, &[b"RENAME", &key[..], &old]);
        self.target.encode(&mut packed, &[b"RENAME", &new[..], key]);
        self.target.encode(&mut packed, &[b"EXEC"]);
        if let Some([_, _, Value::Error(e)]) = exec(self.target, &packed, 3)?.as_deref() {
            // A failure must not leave the key missing: the live one is renamed back.
            self.target.call(&[b"RENAMENX", &old[..], key])?;
            return Err(self.target.refused("RENAME", e));
        }
        self.keep_moved(db, key, &old, written)?;
        self.outcome.replaced += 1;
        Ok(())
    }

    /// Copies the renamed key to the undo log and deletes it.
    pub(crate) fn keep_moved(
        &mut self,
        db: u32,
        key: &[u8],
        old: &[u8],
        written: Option<Digest>,
    ) -> Result<(), RestoreError> {
        let live = live::read(self.target, &[old], self.version, false)?;
        match live.keys.into_iter().next().flatten() {
            None => self.log.add(db, &Before::Absent { key, written: written.unwrap_or(NOTHING) })?,
            Some(Image { dump, expires_ms }) => {
                self.log.add(db, &Before::Value { key, expires_ms, dump: &dump, written })?
            }
        };
        self.log.sync()?;
        self.target.call(&[b"UNLINK", old]).map(drop)
    }

    /// Completes the moves that an interrupted run began for keys that this run does not meet again, such as deleted
    /// ones.
    pub(crate) fn take_up_rest(&mut self) -> Result<(), RestoreError> {
        let left: Vec<(u32, Vec<u8>)> = self.moved.keys().cloned().collect();
        for (db, key) in left {
            self.interrupt.check()?;
            select(self.target, db)?;
            self.outcome.done_before += u64::from(self.take_up(db, &key)?);
        }
        self.log.done()
    }

    /// Completes a move that an interrupted run began for this key; returns whether there was one.
    pub(super) fn take_up(&mut self, db: u32, key: &[u8]) -> Result<bool, RestoreError> {
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
            self.log.not_written(moved.number)?;
            return Ok(false);
        }
        self.keep_moved(db, key, &moved.temporary, Some(moved.written))?;
        Ok(true)
    }

    /// Renames a key back that an interrupted run moved aside without copying it to the undo file, if the target still
    /// holds the replacement. `replace`: in any case.
    pub(crate) fn put_moved_back(&mut self, moved: &MovedAside, replace: bool) -> Result<(), RestoreError> {
        let MovedAside { db, key, temporary, written, stored, .. } = moved;
        select(self.target, *db)?;
        if let Some(new) = new_of(key, temporary) {
            self.target.call(&[&b"UNLINK"[..], &new])?;
        }
        let old = live::read(self.target, &[temporary], self.version, false)?.keys.into_iter().next().flatten();
        let left = self.outcome.left;
        if let (None, Some(image)) = (stored, old) {
            let expected = (!replace).then_some(*written);
            let keys = vec![Wanted::new(key.clone(), image, expected)?];
            self.batch(Batch { db: *db, keys, ..Batch::default() })?;
        }
        if self.outcome.left == left {
            self.target.call(&[&b"UNLINK"[..], temporary]).map(drop)
        } else {
            // There is no other copy.
            self.outcome.leave(*db, temporary, format!("holds what {} was before the repair", show(key)));
            Ok(())
        }
    }

    /// Names for the key moved aside and for its replacement. They are random: a run without knowledge of an earlier
    /// one must not reuse its names.
    pub(super) fn names(&self, key: &[u8]) -> (Vec<u8>, Vec<u8>) {
        let number = random::number() & !1;
        (temporary_name(key, self.id, number), temporary_name(key, self.id, number + 1))
    }
}

/// Name of the replacement for a key moved aside under this name.
fn new_of(key: &[u8], old: &[u8]) -> Option<Vec<u8>> {
    let name = parse(old)?;
    Some(temporary_name(key, &name.operation, name.number + 1))
}
