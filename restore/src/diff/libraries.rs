//! Function libraries of both datasets.

use super::side::Side;
use crate::error::RestoreError;
use crate::target::functions::{Libraries, libraries as code};

/// What became of a library.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LibraryChange {
    /// It was not there before.
    Created,
    /// It is not there any more.
    Deleted,
    /// Its code is another one.
    Changed,
}

/// Those that differ, in the order of their names.
pub(super) fn libraries(before: &mut Side, after: &mut Side) -> Result<Vec<(String, LibraryChange)>, RestoreError> {
    Ok(compare(&code(&mut before.scratch.server)?, &code(&mut after.scratch.server)?))
}

fn compare(before: &Libraries, after: &Libraries) -> Vec<(String, LibraryChange)> {
    let gone = before.keys().filter(|name| !after.contains_key(*name));
    let gone = gone.map(|name| (name.clone(), LibraryChange::Deleted));
    let there = after.iter().filter_map(|(name, code)| match before.get(name) {
        None => Some((name.clone(), LibraryChange::Created)),
        Some(was) if was != code => Some((name.clone(), LibraryChange::Changed)),
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
        let code = |all: &[(&str, &str)]| all.iter().map(|(name, code)| ((*name).to_owned(), (*code).into())).collect();
        let found = compare(&code(&[("a", "1"), ("b", "1"), ("d", "1")]), &code(&[("b", "2"), ("c", "1"), ("d", "1")]));
        assert_eq!(found, [("a".to_owned(), Deleted), ("b".to_owned(), Changed), ("c".to_owned(), Created)]);
    }
}
