//! The commands that bring back what a write took away, to be pasted into a shell: all but the target's URL.
//!
//! - `redtape undo lsn:N` takes the write out of the history and keeps what came later.
//! - `redtape restore --before lsn:N` brings back the keys as they were just before it, where there is no such key now.
//!
//! Both mean the keys that the log was asked for, and no others. Deletes of one client that are shown one behind the other are one
//! `lsn:A..B`. Where other writes lie between them, which the filters of the log hide, the command has these filters, too: what they
//! let through between A and B are these deletes alone.

use std::fmt::Write as _;
use std::sync::Arc;

use redtape_journal::{Group, Lsn, Origin, Record, TimelineId};
use redtape_wire::quoted::quote;

use super::arguments::Filters;
use super::destroys::{Taken, is_taken, taken};
use super::selection::{Selection, TouchedKey};
use crate::shell::shell_word;

/// Keys that a command names one by one.
const NAMED_KEYS_MAX: usize = 8;

/// What is the same for all commands.
#[derive(Debug)]
pub(crate) struct BringBack {
    /// Where the journal is, as it was given.
    journal_words: Vec<String>,
    key_words: Vec<String>,
    cause_words: Vec<String>,
    /// Whether the filters can be given to `redtape undo`.
    can_repeat_filters: bool,
    /// Keys are wanted under names that no filter asks for.
    has_other_names: bool,
}

/// Writes that took something away, shown one behind the other.
#[derive(Debug)]
pub(crate) struct Removal {
    taken: Taken,
    timeline: TimelineId,
    origin: Arc<Origin>,
    first: Lsn,
    last: Lsn,
    writes: u64,
    /// The wanted keys that they took; `None` = they cannot be listed, or are too many.
    keys: Option<Vec<(Option<u32>, Vec<u8>)>>,
}

/// What can be pasted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Commands {
    pub(crate) undo: String,
    pub(crate) restore: Option<String>,
}

impl BringBack {
    /// `filters`: what was asked for. `can_repeat_filters`: by nothing that only the log knows.
    pub(crate) fn new(
        journal_words: Vec<String>,
        filters: &Filters,
        can_repeat_filters: bool,
        has_other_names: bool,
    ) -> Self {
        Self {
            journal_words,
            key_words: filters.key_words(),
            cause_words: filters.cause_words(),
            can_repeat_filters,
            has_other_names,
        }
    }

    /// What a wanted write took away; `None` = nothing.
    pub(crate) fn removal(
        &self,
        selection: &Selection,
        timeline: TimelineId,
        group: &Group,
        record: &Record,
    ) -> Option<Removal> {
        let taken = taken(group, record)?;
        let is_taken = |(db, key): &TouchedKey<'_>| is_taken(record, &taken, db.unwrap_or(record.db), key);
        let keys = selection.touched(record).map(|keys| keys.into_iter().filter(is_taken).collect::<Vec<_>>());
        // The keys that are asked for lost nothing.
        if keys.as_ref().is_some_and(Vec::is_empty) {
            return None;
        }
        let limit = if self.has_other_names { usize::MAX } else { NAMED_KEYS_MAX };
        let keys = keys.filter(|keys| keys.len() <= limit);
        let keys = keys.map(|keys| keys.into_iter().map(|(db, key)| (db, key.to_vec())).collect());
        let origin = Arc::clone(&group.origin);
        Some(Removal { taken, timeline, origin, first: record.lsn, last: record.lsn, writes: 1, keys })
    }

    /// Makes one of both; if that cannot be, `next` is given back.
    pub(crate) fn join(&self, run: &mut Removal, next: Removal) -> Option<Removal> {
        let same = run.timeline == next.timeline
            && (run.taken == Taken::Keys && next.taken == Taken::Keys)
            && (Arc::ptr_eq(&run.origin, &next.origin) || is_same_client(&run.origin, &next.origin));
        let follows = next.first.0 == run.last.0 + 1 || next.last.0 + 1 == run.first.0;
        if !same || !(follows || self.can_repeat_filters && !self.has_other_names) {
            return Some(next);
        }
        let keys = match (run.keys.take(), next.keys.clone()) {
            (Some(mut keys), Some(more)) => {
                keys.extend(more);
                keys.sort_unstable();
                keys.dedup();
                Some(keys).filter(|keys| keys.len() <= NAMED_KEYS_MAX)
            }
            _ => None,
        };
        run.keys = keys;
        run.first = run.first.min(next.first);
        run.last = run.last.max(next.last);
        run.writes += next.writes;
        None
    }

    /// The line for a person.
    pub(crate) fn text(&self, text: &mut String, run: &Removal) -> std::fmt::Result {
        let Commands { undo, restore } = self.commands(run);
        let it = if run.writes == 1 { "it" } else { "them" };
        write!(text, "{:12}to bring {it} back: {undo}", "")?;
        if let Some(restore) = restore {
            write!(text, "  # or: {restore}")?;
        }
        writeln!(text)
    }

    /// The commands.
    pub(crate) fn commands(&self, run: &Removal) -> Commands {
        let named = run.keys.as_deref().and_then(named_keys);
        let keys = match &named {
            _ if self.key_words.is_empty() => Vec::new(),
            Some(named) => named.clone(),
            None => self.key_words.clone(),
        };
        let lsns = if run.first == run.last { run.first.to_string() } else { format!("{}..{}", run.first, run.last) };
        let mut undo = vec![format!("redtape undo lsn:{lsns}")];
        undo.extend(self.journal_words.iter().cloned());
        undo.extend(keys);
        if run.last.0 - run.first.0 + 1 != run.writes {
            undo.extend(self.cause_words.iter().cloned());
        }
        undo.push("--to URL".to_owned());
        Commands { undo: undo.join(" "), restore: self.restore(run, named) }
    }

    fn restore(&self, run: &Removal, named: Option<Vec<String>>) -> Option<String> {
        let (keys, conflict) = match run.taken {
            Taken::Keys => (named?, "skip"),
            Taken::Overwritten => (named?, "rename"),
            Taken::Everything => (named.unwrap_or_else(|| self.key_words.clone()), "merge"),
            Taken::Database(db) => {
                let all = || {
                    let names = self.key_words.iter().filter(|word| !word.starts_with("--db "));
                    names.cloned().chain([format!("--db {db}")]).collect()
                };
                (named.unwrap_or_else(all), "merge")
            }
            Taken::Swapped => return None,
        };
        let mut words = vec!["redtape restore".to_owned()];
        words.extend(self.journal_words.iter().cloned());
        words.push(format!("--before lsn:{}", run.first));
        words.extend(keys);
        words.push(format!("--on-conflict {conflict} --to URL"));
        Some(words.join(" "))
    }
}

/// Options that mean these keys alone; `None` = there are none, as each name is looked for in each database.
fn named_keys(keys: &[(Option<u32>, Vec<u8>)]) -> Option<Vec<String>> {
    let mut dbs: Vec<Option<u32>> = keys.iter().map(|(db, _)| *db).collect();
    let mut names: Vec<&[u8]> = keys.iter().map(|(_, key)| &key[..]).collect();
    dbs.sort_unstable();
    dbs.dedup();
    names.sort_unstable();
    names.dedup();
    let anywhere = dbs == [None];
    if keys.is_empty() || !anywhere && (dbs.contains(&None) || dbs.len() * names.len() != keys.len()) {
        return None;
    }
    let dbs = dbs.iter().flatten().map(|db| format!("--db {db}"));
    let names = names.iter().map(|name| format!("--exact-key {}", shell_word(quote(name).as_bytes())));
    Some(dbs.chain(names).collect())
}

/// One connection may send other commands between two deletes.
fn is_same_client(a: &Origin, b: &Origin) -> bool {
    a.kind == b.kind && a.addr == b.addr && a.user == b.user && a.name == b.name
}

#[cfg(test)]
#[path = "bring_back_tests.rs"]
mod tests;
