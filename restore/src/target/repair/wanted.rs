//! A key as it is to be.

use crate::error::RestoreError;
use crate::target::pieces::size::is_large;
use crate::target::value_error::unreadable;
use crate::values::digest::{Digest, digest};
use crate::values::image::{Image, replicated_value};
use crate::values::saved::{SavedKey, Values};

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) key: Vec<u8>,
    pub(crate) image: Image,
    /// Of its value.
    pub(crate) digest: Digest,
    /// Its value is built in pieces.
    pub(crate) large: bool,
    /// It is written only where the live value has this digest ([`crate::values::digest::NOTHING`]: where there is none); `None` = whatever is there.
    pub(crate) expected: Option<Digest>,
    /// The target had no such key when it was looked at.
    pub(crate) new: bool,
}

impl Wanted {
    /// A key that the target may have.
    pub(crate) fn new(key: Vec<u8>, image: Image, expected: Option<Digest>) -> Result<Self, RestoreError> {
        let value = image.value().map_err(|e| unreadable(&key, e))?;
        let (digest, large) = (digest(&value), is_large(&value));
        Ok(Self { key, image, digest, large, expected, new: false })
    }

    /// A key of the saved dataset.
    pub(super) fn read(
        saved: SavedKey,
        values: &mut Values<'_>,
        expected: Option<Digest>,
    ) -> Result<Self, RestoreError> {
        let (mut dump, expires_ms) = (Vec::new(), saved.expires_ms);
        let place = values.append(&saved, &mut dump)?;
        let value = replicated_value(saved.stored().0, &dump[place]).map_err(|e| unreadable(&saved.key, e))?;
        let (digest, large) = (digest(&value), is_large(&value));
        Ok(Self { key: saved.key, image: Image { dump, expires_ms }, digest, large, expected, new: false })
    }
}
