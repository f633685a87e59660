//! Random names.

use rand::RngExt as _;

/// A random number.
pub(crate) fn number() -> u64 {
    rand::rng().random()
}

/// So many random hexadecimal digits.
pub(crate) fn hex(digits: usize) -> String {
    let mut rng = rand::rng();
    (0..digits).map(|_| char::from_digit(rng.random_range(0..16), 16).unwrap_or('0')).collect()
}
