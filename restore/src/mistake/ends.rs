//! When keys end whose end the mistake has changed; and whether a `DEL` of one of them is the server's.
//!
//! A server that meets a key whose time has come removes it first: then a `DEL` stands in the journal beside the command that met
//! it, often in one transaction with it, and looks like its client's. Before that time the server does not remove a key, and behind
//! it a client finds none to remove. Only ends that the mistake has changed matter: any other is the same without it.

use std::collections::{BTreeSet, HashMap};

use redtape_journal::{Group, OriginKind, Record};
use redtape_wire::effect::{After, KeyWrite, Touch, Writes, dependence, swapped, writes};
use redtape_wire::word;

use crate::replica_link::absolute::absolute;

/// Keys of which the end is noted. With more, that of every key of their databases is unknown.
const ENDS_MAX: usize = if cfg!(test) { 8 } else { 1 << 20 };
/// How far the clocks of the server and of redtape may differ.
const SKEW_MS: i64 = 1000;

/// Whose a removal is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Remover {
    Client,
    Server,
    /// It cannot be told.
    Either,
}

/// When a key ends that has another end without the mistake.
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
    /// Databases in which that of a key is unknown if nothing else is said of it; in others it is the same.
    unknown: BTreeSet<u32>,
}

impl Ends {
    /// Whose the removal of these keys is, by a record that is not selected.
    pub(super) fn remover(&self, group: &Group, record: &Record) -> Remover {
        let Some((name, [key])) = record.args.split_first() else { return Remover::Client };
        let deletes = word::is(name, "DEL") || word::is(name, "UNLINK");
        let origin = &group.origin;
        // A client's own plain DEL would have removed the key as well.
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

    /// Notes what a selected record does to ends.
    pub(super) fn selected(&mut self, group: &Group, record: &Record, written: &Writes<'_>) {
        // Redis before 7.0 passes relative times on.
        match absolute(&record.args, group.ts.0.div_euclid(1000)) {
            None => self.note(record, written, true),
            Some(commands) => {
                for args in &commands {
                    self.note(record, &writes(record.db, args, None), true);
                }
            }
        }
    }

    /// Notes what another record does to ends.
    pub(super) fn other(&mut self, record: &Record, written: &Writes<'_>) {
        self.note(record, written, false);
    }

    fn note(&mut self, record: &Record, writes: &Writes<'_>, selected: bool) {
        if self.of.is_empty() && self.unknown.is_empty() && !selected {
            return;
        }
        match writes {
            Writes::Keys(keys) => {
                // The end goes with the value.
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

    /// The end of the key whose value a command copies or moves.
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
