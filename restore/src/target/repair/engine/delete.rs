//! Deletes selected keys that did not exist at the restore point.

use super::transaction::{exec_all, keys_at_once};
use super::{ALONE_TRIES, CHANGED, Engine, digest_of};
use crate::error::RestoreError;
use crate::judge::Part;
use crate::target::lookup::select;
use crate::target::repair::before::Before;
use crate::target::repair::judged::Judged;
use crate::target::repair::live;
use crate::target::value_error::unreadable;
use crate::values::digest::Digest;
use crate::values::image::{Image, type_name};

/// A key to delete if its live value has this digest; `None` = any value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unwanted {
    pub(crate) key: Vec<u8>,
    pub(crate) expected: Option<Digest>,
    /// Delete only a value of this type; `None` = any type.
    pub(crate) of_type: Option<String>,
}

impl Engine<'_> {
    /// Deletes keys that did not exist at the restore point.
    pub(crate) fn delete(&mut self, db: u32, keys: Vec<Unwanted>) -> Result<(), RestoreError> {
        self.interrupt.check()?;
        select(self.target, db)?;
        let mut left = Vec::with_capacity(keys.len());
        for key in keys {
            if self.log.is_done(db, &key.key) || self.take_up(db, &key.key)? {
                self.outcome.done_before += 1;
            } else {
                left.push(key);
            }
        }
        for some in left.chunks(keys_at_once(self.target)) {
            if !self.delete_watched(db, some)? {
                some.iter().try_for_each(|key| self.delete_alone(db, key))?;
            }
        }
        self.log.done()
    }

    /// `false` = a client's write came first, and nothing was done.
    fn delete_watched(&mut self, db: u32, keys: &[Unwanted]) -> Result<bool, RestoreError> {
        let names: Vec<&[u8]> = keys.iter().map(|unwanted| &unwanted.key[..]).collect();
        let live = live::read(self.target, &names, self.version, true)?;
        let mut packed = Vec::new();
        self.target.encode(&mut packed, &[b"MULTI"]);
        let (mut entries, mut stay) = (Vec::new(), Vec::new());
        for (Unwanted { key, expected, of_type }, there) in keys.iter().zip(&live.keys) {
            let Some(image @ Image { dump, expires_ms }) = there else { continue };
            let seen = digest_of(key, image)?;
            let other_type = match of_type {
                Some(name) => *type_name(dump).map_err(|e| unreadable(key, e))? != **name,
                None => false,
            };
            let changed = expected.is_some_and(|expected| seen != expected) || other_type;
            let in_doubt = !self.is_as_found(db, key, Some(image))?;
            let in_doubt = in_doubt.then(|| "was changed after an interrupted run may have deleted it".to_owned());
            let changed = changed.then(|| CHANGED.to_owned()).or(in_doubt);
            let why = changed.or_else(|| self.judged.stays(db, key, Part::Whole, true, seen));
            if let Some(why) = why {
                stay.push((key, why));
                continue;
            }
            entries.push(self.log.add(db, &Before::Value { key, expires_ms: *expires_ms, dump, written: None })?);
            self.target.encode(&mut packed, &[b"UNLINK", &key[..]]);
        }
        self.target.encode(&mut packed, &[b"EXEC"]);
        if entries.is_empty() {
            self.target.call(&["UNWATCH"])?;
        } else {
            self.log.sync()?;
            let deleted = entries.len();
            let done = exec_all(self.target, &packed, deleted);
            if let Ok(false) | Err(RestoreError::OtherNode { .. }) = done {
                entries.into_iter().try_for_each(|entry| self.log.not_written(entry))?;
            }
            if !done? {
                return Ok(false);
            }
            self.outcome.deleted += deleted as u64;
        }
        for (key, why) in stay {
            self.outcome.leave(db, key, format!("did not exist: {why}"));
        }
        Ok(true)
    }

    fn delete_alone(&mut self, db: u32, unwanted: &Unwanted) -> Result<(), RestoreError> {
        for _ in 0..ALONE_TRIES {
            if self.delete_watched(db, std::slice::from_ref(unwanted))? {
                return Ok(());
            }
        }
        let Unwanted { key, expected, of_type } = unwanted;
        if expected.is_some() || of_type.is_some() || !matches!(self.judged, Judged::NotAsked) {
            self.outcome.leave(db, key, CHANGED);
            return Ok(());
        }
        let old = self.names(key).0;
        let entry = self.log.add(db, &Before::Moved { key, temporary: &old, written: None })?;
        self.log.sync()?;
        // A key that is already gone needs no deletion.
        let moved = self.target.try_call(&[&b"RENAME"[..], key, &old])?.value().is_some();
        self.outcome.deleted += u64::from(moved);
        if moved { self.keep_moved(db, key, &old, None) } else { self.log.not_written(entry) }
    }
}
