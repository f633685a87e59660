//! Times of expiry that the mistake has set, for what the server removes in the midst of somebody else's commands.
//!
//! A key whose time has come goes when it is met: inside a transaction or a script the removal stands in the stream among its effects,
//! as if its client had sent it. But a client cannot remove what has expired: where the mistake had set the time, and it had come, it
//! was the server.

use std::collections::HashMap;

use bytes::Bytes;
use redtape_journal::{Group, Record};
use redtape_wire::effect::{After, KeyWrite, Writes, writes};
use redtape_wire::word;

use crate::replica_link::absolute::absolute;

/// See the module.
#[derive(Debug)]
pub(super) struct Expires {
    /// By database and key, in milliseconds since 1970.
    at: HashMap<(u32, Box<[u8]>), i64>,
    max: usize,
}

impl Expires {
    pub(super) fn new(max: usize) -> Self {
        Self { at: HashMap::new(), max }
    }

    /// A selected record.
    pub(super) fn selected(&mut self, group: &Group, record: &Record, written: &Writes<'_>) {
        // Redis before 7.0 passes relative times on.
        match absolute(&record.args, group.ts.0.div_euclid(1000)) {
            None => self.note(written),
            Some(commands) => commands.iter().for_each(|args: &Vec<Bytes>| self.note(&writes(record.db, args, None))),
        }
    }

    /// One that is not.
    pub(super) fn other(&mut self, written: &Writes<'_>) {
        if self.at.is_empty() {
            return;
        }
        match written {
            Writes::Nothing => {}
            Writes::Keys(keys) => {
                for write in keys.iter().filter(|write| write.ttl.is_some()) {
                    self.at.remove(&place(write));
                }
            }
            _ => self.at.clear(),
        }
    }

    /// By this record the server has removed a key, though it stands among the effects of a client.
    pub(super) fn removes(&self, group: &Group, record: &Record, written: &Writes<'_>) -> bool {
        let Some(name) = record.args.first() else { return false };
        let by_itself = !group.atomic && group.origin.via.is_empty();
        if self.at.is_empty() || by_itself || !word::is_one_of(name, &["DEL", "UNLINK"]) {
            return false;
        }
        let Writes::Keys(keys) = written else { return false };
        let now_ms = group.ts.0.div_euclid(1000);
        let [write] = &keys[..] else { return false };
        self.at.get(&place(write)).is_some_and(|at| *at <= now_ms)
    }

    fn note(&mut self, written: &Writes<'_>) {
        let Writes::Keys(keys) = written else { return self.other(written) };
        for write in keys {
            let Some(ttl) = &write.ttl else { continue };
            match ttl.after {
                After::Until(at) if self.at.len() < self.max => drop(self.at.insert(place(write), at)),
                _ => drop(self.at.remove(&place(write))),
            }
        }
    }
}

fn place(write: &KeyWrite<'_>) -> (u32, Box<[u8]>) {
    (write.db, write.key.into())
}
