//! Values of two datasets beside each other: as they are written, decoded, and compared.
//!
//! - `saved`: the dataset of a scratch server as the RDB that it has saved; `held`: keys of it, asked for by name.
//! - `image`: one key's value and time of expiry.
//! - `digest`, `merge`: whether two values are equal, and in which elements they differ.
//!
//! Used to write one dataset into another ([`crate::target::repair`]), and to compare two ([`mod@crate::diff`]).

pub(crate) mod digest;
pub(crate) mod held;
pub(crate) mod image;
pub(crate) mod merge;
pub(crate) mod saved;
pub(crate) mod stream_merge;
