//! The table of values, with a bound.

use std::borrow::Cow;
use std::collections::HashMap;

use redtape_journal::Micros;

use super::values::{Nameless, Value};

/// Values that have a row. Behind them a write is counted with the others. About 150 bytes each, and their names.
pub(super) const VALUES_MAX: usize = if cfg!(test) { 100 } else { 1 << 18 };
/// Bytes of a name. A longer one has no row.
pub(super) const NAME_BYTES_MAX: usize = 256;

/// Writes, and when the first and the last one ran.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) writes: u64,
    /// Both are 0 where there is no write.
    pub(super) first: Micros,
    pub(super) last: Micros,
}

impl Tally {
    fn add(&mut self, more: Self) {
        if self.writes == 0 {
            *self = more;
        } else if more.writes > 0 {
            self.writes += more.writes;
            self.first = self.first.min(more.first);
            self.last = self.last.max(more.last);
        }
    }
}

/// A row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) value: Value<'static>,
    pub(super) tally: Tally,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Table {
    /// Names that have a row.
    names_max: usize,
    rows: Vec<Row>,
    names: HashMap<Box<[u8]>, usize>,
    nameless: HashMap<Nameless, usize>,
    /// Of values that have no row.
    pub(super) others: Tally,
    /// Each write once, also if it has several values.
    pub(super) all: Tally,
}

impl Table {
    /// Of everything.
    pub(crate) fn new() -> Self {
        Self::with_names(VALUES_MAX)
    }

    /// Of a part of the journal, which bounds it: what has a row in the table of everything must not be without one here.
    pub(super) fn of_part() -> Self {
        Self::with_names(usize::MAX)
    }

    fn with_names(names_max: usize) -> Self {
        let (names, nameless) = (HashMap::new(), HashMap::new());
        Self { names_max, rows: Vec::new(), names, nameless, others: Tally::default(), all: Tally::default() }
    }

    /// The row of a value; `None` = it has none.
    pub(super) fn row(&mut self, value: Value<'_>) -> Option<usize> {
        let found = match &value {
            Value::Named(name) if name.len() > NAME_BYTES_MAX => return None,
            Value::Named(name) => self.names.get(&name[..]),
            Value::Without(why) => self.nameless.get(why),
        };
        if let Some(row) = found {
            return Some(*row);
        }
        let row = self.rows.len();
        let value = match value {
            // The others are few, and always have one.
            Value::Without(why) => {
                self.nameless.insert(why, row);
                Value::Without(why)
            }
            Value::Named(_) if self.names.len() >= self.names_max => return None,
            Value::Named(name) => {
                self.names.insert(name.as_ref().into(), row);
                Value::Named(Cow::Owned(name.into_owned()))
            }
        };
        self.rows.push(Row { value, tally: Tally::default() });
        Some(row)
    }

    /// Counts writes in a row.
    pub(super) fn add(&mut self, row: Option<usize>, writes: u64, at: Micros) {
        self.add_tally(row, Tally { writes, first: at, last: at });
    }

    /// Counts writes, whatever their values are.
    pub(super) fn add_all(&mut self, writes: u64, at: Micros) {
        self.all.add(Tally { writes, first: at, last: at });
    }

    fn add_tally(&mut self, row: Option<usize>, tally: Tally) {
        match row.and_then(|row| self.rows.get_mut(row)) {
            Some(row) => row.tally.add(tally),
            None => self.others.add(tally),
        }
    }

    /// Adds another table.
    pub(super) fn merge(&mut self, other: Self) {
        for Row { value, tally } in other.rows {
            let row = self.row(value);
            self.add_tally(row, tally);
        }
        self.others.add(other.others);
        self.all.add(other.all);
    }

    /// Writes that are counted.
    pub(crate) fn writes(&self) -> u64 {
        self.all.writes
    }

    /// The rows, those with the most writes first.
    pub(super) fn sorted(&self) -> Vec<&Row> {
        let mut rows: Vec<&Row> = self.rows.iter().collect();
        rows.sort_unstable_by(|a, b| b.tally.writes.cmp(&a.tally.writes).then_with(|| a.value.cmp(&b.value)));
        rows
    }
}
