//! Differences of two points in time as people and programs see them.
//!
//! ```text
//! redtape_restore::diff ─► KeyDifference, Summary ─► text, JSON lines
//! ```

pub(crate) mod json;
pub(crate) mod text;

use redtape_restore::diff::KeyDifference;

/// What became of a key.
fn what(difference: &KeyDifference) -> &'static str {
    match (&difference.before, &difference.after) {
        (None, _) => "created",
        (_, None) => "deleted",
        _ => "changed",
    }
}
