//! Names of keys that a repair uses for a moment.

use crate::random;

/// What all of them begin with.
const PREFIX: &str = "redtape:tmp:";
/// The end of a name for what takes the place of a key that is moved aside.
const NEW: &[u8] = b":new";

/// Random hexadecimal digits of a name: a run that knows nothing of an earlier one must not take a name that this one has given.
const RANDOM_DIGITS: usize = 16;

/// A new name of a repair for what is moved aside.
pub(super) fn old(id: &str) -> Vec<u8> {
    format!("{PREFIX}{id}:{}", random::hex(RANDOM_DIGITS)).into_bytes()
}

/// The name for what takes its place.
pub(super) fn new_of(old: &[u8]) -> Vec<u8> {
    [old, NEW].concat()
}

/// Whether it is such a name: no selection means it.
pub(super) fn is_temporary(key: &[u8]) -> bool {
    key.starts_with(PREFIX.as_bytes())
}
