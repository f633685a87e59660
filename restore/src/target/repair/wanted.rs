//! A key in its wanted state.

use crate::error::RestoreError;
use crate::target::pieces::size::is_large;
use crate::target::value_error::unreadable;
use crate::values::digest::{Digest, digest};
use crate::values::image::{Image, replicated_value};
use crate::values::saved::{SavedKey, Values};

/// A wanted key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) key: Vec<u8>,
    pub(crate) image: Image,
    /// Digest of its value.
    pub(crate) digest: Digest,
    /// The value is built in pieces.
    pub(crate) large: bool,
    /// Written only if the live value has this digest ([`crate::values::digest::NOTHING`]: if the key does not exist);
    /// `None` = always.
    pub(crate) expected: Option<Digest>,
    /// The target did not have the key when it was examined.
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
