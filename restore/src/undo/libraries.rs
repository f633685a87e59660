//! Puts back function libraries, each if it is still as the repair wrote it.

use std::collections::BTreeMap;

use crate::client::Server;
use crate::error::RestoreError;
use crate::libraries::{Change, Changes, Libraries, LibrariesDone, code_digest, put, read};
use crate::target::lookup::show;
use crate::target::repair::FileLog;
use crate::values::digest::{Digest, NOTHING};

/// An undo file's entry for a library.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LibraryBefore {
    /// `None` = it did not exist.
    pub(super) code: Option<Vec<u8>>,
    pub(super) written: Digest,
}

/// Entries of several libraries, by name.
pub(super) type LibrariesBefore = BTreeMap<Vec<u8>, LibraryBefore>;

/// Puts them back. `replace`: also if the target's library was changed since.
pub(super) fn put_back(
    target: &mut Server,
    log: &mut FileLog,
    before: LibrariesBefore,
    replace: bool,
) -> Result<LibrariesDone, RestoreError> {
    if before.is_empty() {
        return Ok(LibrariesDone::default());
    }
    let Some(live) = read(target)? else {
        let why = |name: &Vec<u8>| format!("{}: the target does not show its function libraries", show(name));
        return Ok(LibrariesDone { left: before.keys().map(why).collect(), ..LibrariesDone::default() });
    };
    let changes = changes_back(before, &live, replace);
    put(target, log, &live, &changes.changes)?;
    Ok(changes.done())
}

/// Decides which libraries change. Pure.
fn changes_back(before: LibrariesBefore, live: &Libraries, replace: bool) -> Changes {
    let mut all = Changes::default();
    for (name, LibraryBefore { code, written }) in before {
        let there = live.get(&name);
        if there == code.as_ref() {
            continue;
        }
        if replace || there.map_or(NOTHING, |code| code_digest(code)) == written {
            all.changes.push(Change { name, was: there.cloned(), wanted: code });
        } else {
            all.left.push((name, "was changed since".to_owned()));
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_changed_since_stays() {
        let before = |code: Option<&str>, written: Option<&str>| LibraryBefore {
            code: code.map(Into::into),
            written: written.map_or(NOTHING, |code| code_digest(code.as_bytes())),
        };
        let all: LibrariesBefore = [
            (b"back".to_vec(), before(Some("1"), Some("2"))),
            (b"gone".to_vec(), before(Some("1"), None)),
            (b"new".to_vec(), before(None, Some("2"))),
            (b"changed".to_vec(), before(Some("1"), Some("2"))),
            (b"same".to_vec(), before(Some("1"), Some("2"))),
        ]
        .into();
        let live: Libraries = [("back", "2"), ("new", "2"), ("changed", "3"), ("same", "1")]
            .map(|(name, code)| (name.as_bytes().to_vec(), code.as_bytes().to_vec()))
            .into();
        let Changes { changes, left } = changes_back(all.clone(), &live, false);
        let names: Vec<&[u8]> = changes.iter().map(|change| &change.name[..]).collect();
        assert_eq!(names, [&b"back"[..], b"gone", b"new"]);
        assert_eq!(left.len(), 1);
        assert_eq!(changes_back(all, &live, true).changes.len(), 4);
    }
}
