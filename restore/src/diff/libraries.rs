//! Compares function libraries of both datasets.

use super::side::Side;
use crate::error::RestoreError;
use crate::libraries::{Libraries, read};

/// The kind of change of a library.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LibraryChange {
    /// Added.
    Created,
    /// Removed.
    Deleted,
    /// Changed code.
    Changed,
}

/// Differing libraries, in the order of their names.
pub(super) fn libraries(before: &mut Side, after: &mut Side) -> Result<Vec<(String, LibraryChange)>, RestoreError> {
    let of = |side: &mut Side| Ok::<_, RestoreError>(read(&mut side.scratch.server)?.unwrap_or_default());
    Ok(compare(&of(before)?, &of(after)?))
}

fn compare(before: &Libraries, after: &Libraries) -> Vec<(String, LibraryChange)> {
    let text = |name: &[u8]| String::from_utf8_lossy(name).into_owned();
    let gone = before.keys().filter(|name| !after.contains_key(*name));
    let gone = gone.map(|name| (text(name), LibraryChange::Deleted));
    let there = after.iter().filter_map(|(name, code)| match before.get(name) {
        None => Some((text(name), LibraryChange::Created)),
        Some(was) if was != code => Some((text(name), LibraryChange::Changed)),
        Some(_) => None,
    });
    let mut all: Vec<_> = gone.chain(there).collect();
    all.sort_by(|(one, _), (other, _)| one.cmp(other));
    all
}

#[cfg(test)]
mod tests {
    use super::LibraryChange::{Changed, Created, Deleted};
    use super::*;

    #[test]
    fn by_name_and_code() {
        let code =
            |all: &[(&str, &str)]| all.iter().map(|(name, code)| (name.as_bytes().to_vec(), (*code).into())).collect();
        let found = compare(&code(&[("a", "1"), ("b", "1"), ("d", "1")]), &code(&[("b", "2"), ("c", "1"), ("d", "1")]));
        assert_eq!(found, [("a".to_owned(), Deleted), ("b".to_owned(), Changed), ("c".to_owned(), Created)]);
    }
}
