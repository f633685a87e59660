//! Marks in the journal of the server that is repaired: before the first write, and behind the last one.

use std::path::{Path, PathBuf};
use std::time::Duration;

use redtape_journal::{Keyring, mark_now};

use super::ServerTarget;
use crate::progress::{Event, Observer};

/// How long the journal is waited for with a mark.
const MARK_LIMIT: Duration = Duration::from_secs(2);
/// Digits of an operation's id in the names of its marks.
const MARK_ID_DIGITS: usize = 8;

/// See the module.
pub(crate) struct Marks {
    journal: Option<(PathBuf, Keyring)>,
    /// What their names end with.
    of: String,
}

impl Marks {
    /// For this journal, if the target is the server that it is of. `undo_file`: of the operation, which is called `what`.
    pub(crate) fn of(
        target: &ServerTarget,
        (dir, keyring): (&Path, &Keyring),
        (what, undo_file): (&str, &Path),
    ) -> Self {
        let stem = undo_file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let (id, number) = stem.split_once('-').map_or((&stem[..], None), |(id, number)| (id, Some(number)));
        let short = &id[..id.len().min(MARK_ID_DIGITS)];
        let of = number.map_or_else(|| format!("{what}-{short}"), |number| format!("{what}-{short}-{number}"));
        Self { journal: target.facts.is_source.then(|| (dir.to_owned(), keyring.clone())), of }
    }

    /// Sets one; `when`: `before` or `after`.
    pub(crate) fn set(&self, when: &str, observer: &mut dyn Observer) {
        let Some((dir, keyring)) = &self.journal else { return };
        let name = format!("{when}-{}", self.of);
        match mark_now(dir, keyring, &name, MARK_LIMIT) {
            Ok(mark) => observer.on(&Event::Note(&format!("mark:{name} is {} (LSN {})", mark.ts, mark.lsn))),
            Err(error) => observer.on(&Event::Note(&format!("no mark {name} was set: {error}"))),
        }
    }
}
