//! `redtape log --stats`: how many of the wanted writes each client, user, command or prefix of keys has made.
//!
//! ```text
//! parts of the journal ─► threads: decode, select, count (values, table) ─► one table, newest part first ─► show
//! ```
//!
//! Memory is bounded: a table of at most [`table::VALUES_MAX`] names, and the parts that are being read. Counts are exact: the names that are
//! met first, from the end backwards, have a row, and all writes of the others are counted together. No name is counted in part.

mod show;
mod table;
mod values;

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use clap::ValueEnum;
use redtape_journal::{
    Catalog, Group, Origin, PartJob, PartReader, ReadError, Searched, TakeRecords, WantedKeys, in_order,
};

pub(crate) use self::show::{stats_json, stats_text};
pub(crate) use self::table::Table;
use self::values::{of_origin, of_record};
use super::range::Range;
use super::read::{add, backward};
use super::selection::Selection;

/// Origins of which the rows are remembered.
const ORIGINS_MAX: usize = 1 << 12;

/// What writes are counted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum By {
    /// The name that a client has given itself, else its address without the port.
    Client,
    /// The ACL user.
    User,
    /// The command as it took effect.
    Command,
    /// The keys' names, up to their first colon (--depth N: up to the Nth, as far as they have so many).
    Prefix,
}

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked {
    pub(crate) by: By,
    /// Colons of a prefix.
    pub(crate) depth: usize,
}

/// What was found.
#[derive(Debug)]
pub(crate) struct Stats {
    pub(crate) table: Table,
    pub(crate) searched: Searched,
}

/// Counts the wanted writes of a range. What cannot be read is given to `on_damage`, and the rest is counted.
pub(crate) fn count(
    catalog: &Catalog,
    range: &Range,
    selection: &Selection,
    asked: Asked,
    on_damage: &mut dyn FnMut(ReadError),
) -> anyhow::Result<Stats> {
    let mut stats = Stats { table: Table::new(), searched: Searched::default() };
    let keys: Option<WantedKeys> = selection.search().map(|keys| keys.into_iter().collect());
    for timeline in catalog.timelines().iter().rev() {
        if let Some(within) = range.within(catalog, timeline)? {
            let reader = catalog.parts_back(within.0, within.1, timeline.id);
            if count_parts(reader, keys.as_ref(), selection, asked, &mut stats).is_err() {
                // A part reader ends there; who reads one group after the other goes on behind it, and tells.
                return count_slowly(catalog, range, selection, asked, on_damage);
            }
        }
    }
    Ok(stats)
}

fn count_parts(
    mut reader: PartReader,
    keys: Option<&WantedKeys>,
    selection: &Selection,
    asked: Asked,
    stats: &mut Stats,
) -> Result<(), ReadError> {
    let read = |job: Result<PartJob, ReadError>| {
        let mut counter = Counter::new(selection, asked, Table::of_part());
        let bytes = job?.read(&mut counter)?;
        Ok::<_, ReadError>((counter.table, bytes))
    };
    let mut result = Ok(());
    in_order(
        || reader.next_job(keys).transpose(),
        read,
        |part| match part {
            Ok((table, bytes)) => {
                stats.table.merge(table);
                stats.searched.read_bytes += bytes;
                ControlFlow::Continue(())
            }
            Err(error) => {
                result = Err(error);
                ControlFlow::Break(())
            }
        },
    );
    add(&mut stats.searched, reader.searched());
    result
}

fn count_slowly(
    catalog: &Catalog,
    range: &Range,
    selection: &Selection,
    asked: Asked,
    on_damage: &mut dyn FnMut(ReadError),
) -> anyhow::Result<Stats> {
    let mut counter = Counter::new(selection, asked, Table::new());
    let mut take = |_, group: &Group| {
        counter.count(group);
        Ok(true)
    };
    let searched = backward(catalog, range, selection, &mut take, on_damage)?;
    Ok(Stats { table: counter.table, searched })
}

/// Counts group by group.
struct Counter<'a> {
    selection: &'a Selection,
    asked: Asked,
    table: Table,
    /// The rows of the origins that were met, by their address in memory: they are held, so that it is not given again.
    origins: HashMap<*const Origin, (Arc<Origin>, Option<usize>)>,
}

impl<'a> Counter<'a> {
    fn new(selection: &'a Selection, asked: Asked, table: Table) -> Self {
        Self { selection, asked, table, origins: HashMap::new() }
    }

    fn count(&mut self, group: &Group) {
        if !self.selection.wants_origin(&group.origin) {
            return;
        }
        let wanted = group.records.iter().filter(|record| self.selection.wants_record(group, record));
        match self.asked.by {
            By::Client | By::User => {
                let writes = wanted.count() as u64;
                if writes > 0 {
                    let row = self.row_of(&group.origin);
                    self.table.add(row, writes, group.ts);
                    self.table.add_all(writes, group.ts);
                }
            }
            By::Command | By::Prefix => {
                for record in wanted {
                    for value in of_record(self.selection, self.asked, record) {
                        let row = self.table.row(value);
                        self.table.add(row, 1, group.ts);
                    }
                    self.table.add_all(1, group.ts);
                }
            }
        }
    }

    fn row_of(&mut self, origin: &Arc<Origin>) -> Option<usize> {
        if let Some((_, row)) = self.origins.get(&Arc::as_ptr(origin)) {
            return *row;
        }
        // Each origin costs more than its row.
        if self.origins.len() >= ORIGINS_MAX {
            self.origins.clear();
        }
        let row = self.table.row(of_origin(self.asked.by, origin));
        self.origins.insert(Arc::as_ptr(origin), (Arc::clone(origin), row));
        row
    }
}

impl TakeRecords for Counter<'_> {
    fn group(&mut self, group: Group) {
        self.count(&group);
    }
}

#[cfg(test)]
mod tests;
