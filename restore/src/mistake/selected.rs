//! Summary of the selected writes: samples, times, clients.

use std::collections::HashMap;
use std::sync::Arc;

use redtape_journal::{Group, Origin, Record};
use redtape_wire::quoted;

use super::bounds::Bounds;
use super::{At, Sample, Samples, Selected, Why, Writer};

/// Arguments of a command that are shown.
const ARGUMENTS_SHOWN: usize = 8;
/// Bytes of each.
const ARGUMENT_BYTES: usize = 40;

/// A record, for a person.
pub(super) fn sample(group: &Group, record: &Record, why: Option<Why>, bounds: &Bounds) -> Sample {
    Sample {
        at: At { lsn: record.lsn, ts: group.ts },
        who: Arc::clone(&group.origin),
        db: record.db,
        command: command(record, bounds.command_bytes),
        why,
    }
}

fn command(record: &Record, limit: usize) -> String {
    let mut text = String::new();
    for (n, arg) in record.args.iter().enumerate() {
        if n > 0 {
            text.push(' ');
        }
        if n >= ARGUMENTS_SHOWN || text.len() >= limit {
            text.push('…');
            break;
        }
        match quoted::quote_cut(arg, ARGUMENT_BYTES) {
            Some(cut) => {
                text.push_str(&cut);
                text.push('…');
            }
            None => text.push_str(&quoted::quote(arg)),
        }
    }
    text
}

impl Samples {
    pub(super) fn add(&mut self, group: &Group, record: &Record, why: Option<Why>, bounds: &Bounds) {
        self.count += 1;
        if self.first.len() < bounds.samples {
            self.first.push(sample(group, record, why, bounds));
        }
    }
}

/// Collects the selected writes.
#[derive(Debug, Default)]
pub(super) struct Collector {
    found: Selected,
    clients: HashMap<Writer, u64>,
    /// The last client, so that one that writes much is looked up once.
    last: Option<(Arc<Origin>, u64)>,
}

impl Collector {
    pub(super) fn add(&mut self, group: &Group, record: &Record, facts: Facts, bounds: &Bounds) {
        let at = At { lsn: record.lsn, ts: group.ts };
        let found = &mut self.found;
        found.lsns.add(record.lsn);
        if facts.also_others {
            found.also_others.add(record.lsn);
        }
        found.in_doubt += u64::from(facts.in_doubt);
        found.samples.add(group, record, None, bounds);
        found.span = Some((found.span.map_or(at, |(first, _)| first), at));
        match &mut self.last {
            Some((who, count)) if Arc::ptr_eq(who, &group.origin) => *count += 1,
            _ => {
                self.count(bounds);
                self.last = Some((Arc::clone(&group.origin), 1));
            }
        }
    }

    fn count(&mut self, bounds: &Bounds) {
        let Some((who, count)) = self.last.take() else { return };
        let writer = Writer { addr: who.addr.clone(), name: who.name.clone(), user: who.user.clone() };
        if self.clients.len() < bounds.clients || self.clients.contains_key(&writer) {
            *self.clients.entry(writer).or_default() += count;
        } else {
            self.found.by_other_clients += count;
        }
    }

    pub(super) fn finish(mut self, bounds: &Bounds) -> Selected {
        self.count(bounds);
        let mut clients: Vec<(Writer, u64)> = self.clients.into_iter().collect();
        clients.sort_by(|(a, a_count), (b, b_count)| b_count.cmp(a_count).then_with(|| a.cmp(b)));
        let found = self.found;
        Selected { lsns: found.lsns.finish(), also_others: found.also_others.finish(), clients, ..found }
    }
}

/// What is known of a selected write.
#[derive(Debug, Clone, Copy)]
pub(super) struct Facts {
    /// It writes keys that are not meant as well.
    pub(super) also_others: bool,
    /// It is selected though it may not be meant.
    pub(super) in_doubt: bool,
}
