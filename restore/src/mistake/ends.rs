//! Expiry times that the mistake has changed, and whether a `DEL` of such a key is the server's.
//!
//! A server that meets an expired key deletes it first: then a `DEL` is recorded beside the command, often in one
//! transaction with it, and looks like the client's. Before the expiry time the server does not delete a key, and after
//! it a client finds none to delete. Only expiry times changed by the mistake matter: any other is the same without it.

use std::collections::{BTreeSet, HashMap};

use redtape_journal::{Group, OriginKind, Record};
use redtape_wire::effect::{After, KeyWrite, Touch, Writes, dependence, swapped, writes};
use redtape_wire::word;

use crate::replica_link::absolute::absolute;

/// Keys with recorded expiry times. Beyond the limit, all expiry times in their databases are unknown.
const ENDS_MAX: usize = if cfg!(test) { 8 } else { 1 << 20 };
/// How far the clocks of the server and of redtape may differ.
const SKEW_MS: i64 = 1000;

/// The origin of a deletion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Remover {
    Client,
    Server,
    /// It cannot be told.
    Either,
}

/// The expiry time of a key that differs without the mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// Milliseconds since 1970.
    At(i64),
    Never,
    Unknown,
    /// It is the same without the mistake.
    Same,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Ends {
    of: HashMap<(u32, Box<[u8]>), End>,
    /// Databases in which unlisted expiry times are unknown; in others they are unchanged.
    unknown: BTreeSet<u32>,
}

impl Ends {
    /// The origin of the deletion of these keys by a record outside the selection.
    pub(super) fn remover(&self, group: &Group, record: &Record) -> Remover {
        let Some((name, [key])) = record.args.split_first() else { return Remover::Client };
        let deletes = word::is(name, "DEL") || word::is(name, "UNLINK");
        let origin = &group.origin;
        // A client's own plain DEL would have deleted the key as well.
        let perhaps = group.atomic || !origin.via.is_empty() || origin.kind != OriginKind::Client;
        if !deletes || !perhaps {
            return Remover::Client;
        }
        let latest_ms = group.ts.0 / 1000 + SKEW_MS;
        let earliest_ms = group.ts.0.saturating_sub_unsigned(group.slack) / 1000 - SKEW_MS;
        match self.of(record.db, key) {
            End::Same | End::Never => Remover::Client,
            End::At(until) if until <= earliest_ms => Remover::Server,
            End::At(until) if until > latest_ms => Remover::Client,
            End::At(_) | End::Unknown => Remover::Either,
        }
    }

    fn of(&self, db: u32, key: &[u8]) -> End {
        let default = if self.unknown.contains(&db) { End::Unknown } else { End::Same };
        if self.of.is_empty() { default } else { self.of.get(&(db, key.into())).copied().unwrap_or(default) }
    }

    /// Applies a selected record.
    pub(super) fn selected(&mut self, group: &Group, record: &Record, written: &Writes<'_>) {
        // Redis before 7.0 replicates relative times.
        match absolute(&record.args, group.ts.0.div_euclid(1000)) {
            None => self.note(record, written, true),
            Some(commands) => {
                for args in &commands {
                    self.note(record, &writes(record.db, args, None), true);
                }
            }
        }
    }

    /// Applies another record.
    pub(super) fn other(&mut self, record: &Record, written: &Writes<'_>) {
        self.note(record, written, false);
    }

    fn note(&mut self, record: &Record, writes: &Writes<'_>, selected: bool) {
        if self.of.is_empty() && self.unknown.is_empty() && !selected {
            return;
        }
        match writes {
            Writes::Keys(keys) => {
                // The expiry time goes with the value.
                let carried = self.carried(record);
                keys.iter().for_each(|write| self.key(write, carried, selected));
            }
            Writes::FlushAll => *self = Self::default(),
            Writes::FlushDb => {
                self.of.retain(|(db, _), _| *db != record.db);
                self.unknown.remove(&record.db);
            }
            Writes::SwapDb(a, b) if selected => {
                self.of.retain(|(db, _), _| db != a && db != b);
                self.unknown.extend([*a, *b]);
            }
            Writes::SwapDb(a, b) => {
                let of = std::mem::take(&mut self.of).into_iter();
                self.of = of.map(|((db, key), end)| ((swapped(db, *a, *b), key), end)).collect();
                self.unknown = self.unknown.iter().map(|db| swapped(*db, *a, *b)).collect();
            }
            Writes::Nothing | Writes::UnknownOf { .. } | Writes::Unknown => {}
        }
    }

    /// The expiry time of the key whose value a command copies or moves.
    fn carried(&self, record: &Record) -> End {
        let dependence = dependence(record.db, &record.args, record.keys.as_deref());
        let sources = dependence.touched().iter().filter(|touched| touched.touch != Touch::Overwritten);
        let ends = sources.map(|touched| self.of(touched.db, touched.key));
        ends.reduce(|one, other| if one == End::Same { other } else { one }).unwrap_or(End::Same)
    }

    fn key(&mut self, write: &KeyWrite<'_>, carried: End, selected: bool) {
        let Some(ttl) = &write.ttl else { return };
        let end = match ttl.after {
            After::Any if carried != End::Same => carried,
            _ if !selected => End::Same,
            After::Until(until) => End::At(until),
            After::Absent => End::Never,
            _ => End::Unknown,
        };
        let place = (write.db, write.key.into());
        if end == End::Same && !self.unknown.contains(&write.db) {
            self.of.remove(&place);
        } else if self.of.len() < ENDS_MAX || self.of.contains_key(&place) {
            self.of.insert(place, end);
        } else {
            self.of.retain(|(db, _), _| *db != write.db);
            self.unknown.insert(write.db);
        }
    }
}
