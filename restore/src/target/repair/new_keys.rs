//! Keys with small values that the target did not have, in one buffer, to avoid an allocation for each.

use std::ops::Range;

use redtape_wire::rdb::{ValueType, decode_string};

use super::wanted::Wanted;
use crate::error::RestoreError;
use crate::target::pieces::size::{LARGE_BYTES, is_large};
use crate::target::value_error::unreadable;
use crate::values::digest::{Digest, digest, digest_of_string};
use crate::values::image::{DECODED_MAX, Image, replicated_value};
use crate::values::saved::{SavedKey, Values};

/// The keys and their values.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct NewKeys {
    /// For each key: its name, then its value as `DUMP` returns it.
    bytes: Vec<u8>,
    keys: Vec<NewKey>,
}

/// Position of a key in the buffer, and its properties.
#[derive(Debug, Clone, PartialEq, Eq)]
struct NewKey {
    name: Range<usize>,
    /// End of the value.
    dump_end: usize,
    about: About,
}

/// Properties of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct About {
    /// Milliseconds since 1970; 0 = never.
    pub(crate) expires_ms: i64,
    /// Digest of the value.
    pub(crate) digest: Digest,
    /// As [`Wanted::expected`].
    pub(crate) expected: Option<Digest>,
}

impl NewKeys {
    /// Adds a key of the saved dataset; `false` = its value is large, and it was not added.
    pub(crate) fn push(
        &mut self,
        saved: &SavedKey,
        values: &mut Values<'_>,
        expected: Option<Digest>,
    ) -> Result<bool, RestoreError> {
        let (value_type, len) = saved.stored();
        if len > LARGE_BYTES {
            return Ok(false);
        }
        let begin = self.bytes.len();
        self.bytes.extend_from_slice(&saved.key);
        let name = begin..self.bytes.len();
        let value = values.append(saved, &mut self.bytes)?;
        let Some(digest) = digest_of_small(&saved.key, value_type, &self.bytes[value])? else {
            self.bytes.truncate(begin);
            return Ok(false);
        };
        let about = About { expires_ms: saved.expires_ms, digest, expected };
        self.keys.push(NewKey { name, dump_end: self.bytes.len(), about });
        Ok(true)
    }

    /// Adds a wanted key.
    pub(crate) fn push_wanted(&mut self, Wanted { key, image, digest, expected, .. }: &Wanted) {
        let begin = self.bytes.len();
        self.bytes.extend_from_slice(key);
        let name = begin..self.bytes.len();
        self.bytes.extend_from_slice(&image.dump);
        let about = About { expires_ms: image.expires_ms, digest: *digest, expected: *expected };
        self.keys.push(NewKey { name, dump_end: self.bytes.len(), about });
    }

    pub(crate) fn len(&self) -> usize {
        self.keys.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Name, value as `DUMP` returns it, and properties.
    pub(crate) fn get(&self, at: usize) -> (&[u8], &[u8], About) {
        let NewKey { name, dump_end, about } = &self.keys[at];
        (&self.bytes[name.clone()], &self.bytes[name.end..*dump_end], *about)
    }

    /// The key in the form for keys that may exist. `expires_ms`: its expiry time.
    pub(crate) fn wanted(&self, at: usize, expires_ms: i64) -> Wanted {
        let (key, dump, About { digest, expected, .. }) = self.get(at);
        let image = Image { dump: dump.to_vec(), expires_ms };
        Wanted { key: key.to_vec(), image, digest, large: false, expected, new: true }
    }
}

/// Digest of a value; `None` = the value is large.
fn digest_of_small(key: &[u8], value_type: ValueType, bytes: &[u8]) -> Result<Option<Digest>, RestoreError> {
    if value_type == ValueType::String {
        let string = decode_string(bytes, DECODED_MAX).map_err(|e| unreadable(key, e))?;
        return Ok((string.len() as u64 <= LARGE_BYTES).then(|| digest_of_string(&string)));
    }
    let value = replicated_value(value_type, bytes).map_err(|e| unreadable(key, e))?;
    Ok((!is_large(&value)).then(|| digest(&value)))
}
