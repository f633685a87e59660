//! Builds large values in pieces under a temporary name, then puts them in place with `RENAME`.

use super::Engine;
use super::transaction::{encode_expiry, encode_restore, exec};
use crate::client::{Reply, Server, Value};
use crate::error::RestoreError;
use crate::refusal::{Refusal, meaning};
use crate::target::pieces::swap::encode_swap;
use crate::target::pieces::{BuildError, Builder};
use crate::target::repair::wanted::Wanted;
use crate::target::value_error::not_taken;
use crate::target::value_error::unreadable;

impl Engine<'_> {
    /// Stores a value under a temporary name for `key` and returns that name. A value that only the server can split is
    /// restored whole.
    pub(super) fn build(&mut self, key: &[u8], wanted: &Wanted) -> Result<Vec<u8>, RestoreError> {
        let name = self.names(key).1;
        self.build_as(&name, wanted)?;
        Ok(name)
    }

    /// As [`Self::build`], under this name.
    pub(super) fn build_as(&mut self, name: &[u8], wanted: &Wanted) -> Result<(), RestoreError> {
        if wanted.large {
            let value = wanted.image.full_value().map_err(|e| unreadable(&wanted.key, e))?;
            match Builder::new(self.version).build(self.target, name, &value) {
                Ok(_) => return Ok(()),
                Err(BuildError::NotInPieces(_) | BuildError::Inexpressible(_)) => {}
                Err(BuildError::Server(error)) => return Err(error),
                Err(error @ BuildError::Lost(_)) => return Err(RestoreError::Unable(error.to_string())),
            }
        }
        let mut packed = Vec::new();
        encode_restore(self.target, &mut packed, name, &wanted.image, true);
        match self.target.pipeline(&packed, 1)?.pop() {
            Some(Reply::Error(error)) => Err(not_taken(self.target, &wanted.key, &error)),
            _ => Ok(()),
        }
    }

    /// Creates a key, possibly under another name; returns false if the target already had it.
    pub(super) fn create_one(&mut self, key: &[u8], wanted: &Wanted) -> Result<bool, RestoreError> {
        if wanted.large {
            return self.create_large(key, wanted);
        }
        let mut packed = Vec::new();
        encode_restore(self.target, &mut packed, key, &wanted.image, false);
        match self.target.pipeline(&packed, 1)?.pop() {
            Some(Reply::Error(e)) if meaning(&e.code) == Refusal::KeyExists => Ok(false),
            Some(Reply::Error(e)) => Err(not_taken(self.target, key, &e)),
            _ => Ok(true),
        }
    }

    /// Creates a key with a large value; returns false if the target already had it.
    fn create_large(&mut self, key: &[u8], wanted: &Wanted) -> Result<bool, RestoreError> {
        let name = self.build(key, wanted)?;
        rename_new(self.target, &name, key, wanted.image.expires_ms)
    }

    /// Appends the commands that replace a watched key by the wanted value. Returns their number, and the temporary
    /// name of a large value.
    pub(super) fn encode_put(
        &mut self,
        packed: &mut Vec<u8>,
        wanted: &Wanted,
        there: bool,
    ) -> Result<(usize, Option<Vec<u8>>), RestoreError> {
        let Wanted { key, image, .. } = wanted;
        if !wanted.large {
            encode_restore(self.target, packed, key, image, there);
            return Ok((1, None));
        }
        let name = self.build(key, wanted)?;
        let expires = (image.expires_ms != 0).then_some(image.expires_ms);
        Ok((encode_swap(self.target, packed, &name, key, expires), Some(name)))
    }
}

/// Gives a temporary key its expiry time and its name. If the name exists, the temporary key is deleted and the result
/// is false.
pub(crate) fn rename_new(target: &mut Server, name: &[u8], key: &[u8], expires_ms: i64) -> Result<bool, RestoreError> {
    let mut packed = Vec::new();
    target.encode(&mut packed, &[b"MULTI"]);
    encode_expiry(target, &mut packed, name, expires_ms);
    target.encode(&mut packed, &[b"RENAMENX", name, key]);
    target.encode(&mut packed, &[b"EXEC"]);
    let replies = exec(target, &packed, 2)?.unwrap_or_default();
    match replies.get(1) {
        Some(Value::Int(1)) => Ok(true),
        Some(Value::Error(error)) => Err(target.refused("RENAMENX", error)),
        _ => {
            target.call(&[&b"UNLINK"[..], name])?;
            Ok(false)
        }
    }
}
