//! Keys by the front of their names, in a table with a bound.
//!
//! When the table is full, its smaller half (by memory) is folded into the others. A prefix that was folded and is met again begins a
//! row anew, which then lacks what was folded: at most the sum, over the foldings before, of the largest row that each folded (lossy
//! counting). Each row says that sum, so that it is known how far off it can be. Big prefixes, which appear early and often, are exact
//! or nearly so; a table that was never full is exact.

use std::collections::HashMap;

use super::tally::{KeyFacts, Tally};

/// Prefixes that have a row. About 150 bytes each, and their names.
pub const PREFIXES_MAX: usize = if cfg!(test) { 8 } else { 1 << 18 };
/// Bytes of a prefix. A longer one has no row.
pub const PREFIX_BYTES_MAX: usize = 256;

/// A prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrefixRow {
    /// With its last separator.
    pub prefix: Vec<u8>,
    /// Its keys.
    pub tally: Tally,
    /// Bytes of memory that may be lacking, at most, as the table was full; so many may be among the others.
    pub lacks_at_most: u64,
}

/// Keys by prefix.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Prefixes {
    /// Those with the most memory first.
    pub rows: Vec<PrefixRow>,
    /// Keys without a separator.
    pub none: Tally,
    /// Keys of prefixes that have no row: the table was full, or the prefix is longer than [`PREFIX_BYTES_MAX`].
    pub others: Tally,
    /// The table was full.
    pub folded: bool,
}

#[derive(Debug, Default)]
struct Row {
    tally: Tally,
    lacks_at_most: u64,
}

/// The table while it is filled.
#[derive(Debug)]
pub(super) struct Table {
    depth: usize,
    separator: u8,
    rows: HashMap<Box<[u8]>, Row>,
    none: Tally,
    others: Tally,
    /// What a row that begins now may lack.
    folded_at_most: u64,
    folded: bool,
}

impl Table {
    pub(super) fn new(depth: usize, separator: u8) -> Self {
        let (none, others) = (Tally::default(), Tally::default());
        Self { depth, separator, rows: HashMap::new(), none, others, folded_at_most: 0, folded: false }
    }

    pub(super) fn add(&mut self, key: &KeyFacts<'_>) {
        let Some(prefix) = prefix(key.key, self.depth, self.separator) else { return self.none.add(key) };
        if let Some(row) = self.rows.get_mut(prefix) {
            return row.tally.add(key);
        }
        if prefix.len() > PREFIX_BYTES_MAX {
            return self.others.add(key);
        }
        if self.rows.len() >= PREFIXES_MAX {
            self.fold();
        }
        let row = self.rows.entry(prefix.into()).or_default();
        row.lacks_at_most = self.folded_at_most;
        row.tally.add(key);
    }

    /// Makes room for half of the table.
    fn fold(&mut self) {
        let mut sizes: Vec<u64> = self.rows.values().map(|row| row.tally.memory_bytes).collect();
        let middle = sizes.len() / 2;
        let (_, median, _) = sizes.select_nth_unstable(middle);
        let limit = *median;
        // Where many rows are of one size, all of that size go: there must be room afterwards.
        let others = &mut self.others;
        self.rows.retain(|_, row| {
            let stays = row.tally.memory_bytes > limit;
            if !stays {
                others.add_all(&row.tally);
            }
            stays
        });
        self.folded_at_most = self.folded_at_most.saturating_add(limit);
        self.folded = true;
    }

    pub(super) fn finish(self) -> Prefixes {
        let row = |(prefix, row): (Box<[u8]>, Row)| PrefixRow {
            prefix: prefix.into_vec(),
            tally: row.tally,
            lacks_at_most: row.lacks_at_most,
        };
        let mut rows: Vec<PrefixRow> = self.rows.into_iter().map(row).collect();
        let order = |row: &PrefixRow| std::cmp::Reverse((row.tally.memory_bytes, row.tally.keys));
        rows.sort_unstable_by(|a, b| order(a).cmp(&order(b)).then_with(|| a.prefix.cmp(&b.prefix)));
        Prefixes { rows, none: self.none, others: self.others, folded: self.folded }
    }
}

/// Up to the separator of this number, and with it; of fewer separators, up to the last one.
fn prefix(key: &[u8], depth: usize, separator: u8) -> Option<&[u8]> {
    let places = key.iter().enumerate().filter(|(_, byte)| **byte == separator).map(|(at, _)| at);
    places.take(depth).last().map(|at| &key[..=at])
}

#[cfg(test)]
mod tests {
    use super::super::tally::string;
    use super::*;

    fn table(depth: usize, keys: &[(&str, u64)]) -> Prefixes {
        let mut table = Table::new(depth, b':');
        for (name, size) in keys {
            table.add(&string(name.as_bytes(), *size));
        }
        table.finish()
    }

    fn rows(found: &Prefixes) -> Vec<(String, u64, u64)> {
        let row = |row: &PrefixRow| {
            (String::from_utf8_lossy(&row.prefix).into_owned(), row.tally.keys, row.tally.memory_bytes)
        };
        found.rows.iter().map(row).collect()
    }

    #[test]
    fn a_prefix_ends_with_its_separator() {
        let keys = [("user:1:name", 10), ("user:1:age", 20), ("user:2:name", 40), ("plain", 5), ("a:b", 1)];
        let one = table(1, &keys);
        assert_eq!(rows(&one), [("user:".into(), 3, 70), ("a:".into(), 1, 1)]);
        assert_eq!((one.none.keys, one.others.keys, one.folded), (1, 0, false));
        let two = table(2, &keys);
        assert_eq!(rows(&two), [("user:2:".into(), 1, 40), ("user:1:".into(), 2, 30), ("a:".into(), 1, 1)]);
        let long = format!("{}:1", "x".repeat(PREFIX_BYTES_MAX));
        assert_eq!(table(1, &[(&long, 3)]).others.memory_bytes, 3);
    }

    #[test]
    fn a_full_table_loses_nothing_and_says_how_far_off_it_is() {
        let mut names: Vec<(String, u64)> = (0..50).map(|n| (format!("small{n}:k"), 1 + n % 3)).collect();
        for n in 0..50 {
            names.insert(n * 2, (format!("big:{n}"), 100));
        }
        let keys: Vec<(&str, u64)> = names.iter().map(|(name, size)| (name.as_str(), *size)).collect();
        let found = table(1, &keys);
        assert!(found.folded && found.rows.len() <= PREFIXES_MAX);
        let big = &found.rows[0];
        assert_eq!((&big.prefix[..], big.tally.memory_bytes, big.lacks_at_most), (&b"big:"[..], 5000, 0));
        let all: u64 = keys.iter().map(|(_, size)| size).sum();
        let sum: u64 = found.rows.iter().map(|row| row.tally.memory_bytes).sum::<u64>() + found.others.memory_bytes;
        assert_eq!(sum, all);
        for row in &found.rows[1..] {
            let truth: u64 = keys.iter().filter(|(k, _)| k.as_bytes().starts_with(&row.prefix)).map(|(_, s)| s).sum();
            assert!(row.tally.memory_bytes + row.lacks_at_most >= truth, "{row:?}");
        }
    }
}
