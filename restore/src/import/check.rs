//! First pass over the file, before anything is written: whether it is complete, whether the target can hold it, and
//! which keys the target has.

use std::collections::BTreeMap;

use super::{Existing, ImportRequest};
use crate::client::Server;
use crate::error::RestoreError;
use crate::progress::{Event, Observer, Unit};
use crate::target::fit::Fitting;
use crate::target::jsonl::reading::{Item, Reading};
use crate::target::lookup::{select, show};
use crate::target::preflight::TargetFacts;
use crate::target::repair::live;

/// Keys looked up in the target at once.
const LOOK_KEYS: usize = 512;
/// Limit of keys named in a message.
const NAMED_KEYS: usize = 5;
const WAY_OUT: &str = "Restore to a newer server, or leave these out (--exclude-key; functions are left out where only some keys are wanted)";

/// The result.
pub(super) struct Checked {
    pub(super) keys: BTreeMap<u32, u64>,
    /// Keys that the target has.
    pub(super) existing: u64,
    pub(super) functions: usize,
    pub(super) bytes: u64,
    pub(super) warnings: Vec<String>,
}

pub(super) fn check(
    request: &ImportRequest,
    facts: &TargetFacts,
    target: &mut Server,
    observer: &mut dyn Observer,
) -> Result<Checked, RestoreError> {
    let mut reading = Reading::open(&request.file)?;
    let total = std::fs::metadata(&request.file).map_or(0, |found| found.len());
    observer.on(&Event::Step { name: "reading the file", total, unit: Unit::Bytes });
    let mut fitting = Fitting::new(facts.version, super::takes_modules(facts));
    let mut look = Look { target, db: 0, keys: Vec::new(), existing: 0, named: Vec::new() };
    let (mut keys, mut functions, mut left_out): (BTreeMap<u32, u64>, usize, usize) = (BTreeMap::new(), 0, 0);
    while let Some(item) = reading.next()? {
        request.interrupt.check().map_err(RestoreError::before_the_target)?;
        match item {
            Item::Function { .. } if !request.is_whole() => left_out += 1,
            Item::Function { name, .. } => {
                functions += 1;
                if !facts.version.has_redis(7, 0) {
                    fitting.refuse(format!("the function library {name}"));
                }
            }
            Item::Key(mut key) if request.wants(&key) => {
                has_database(facts, key.db, key.line)?;
                let name = || format!("{} in db {} (line {})", show(&key.key), key.db, key.line);
                fitting.fit(&mut key.value, name);
                *keys.entry(key.db).or_default() += 1;
                if !request.is_whole() {
                    look.add(key.db, key.key)?;
                }
            }
            Item::Key(_) => {}
        }
        observer.on(&Event::At(reading.bytes));
    }
    observer.on(&Event::StepDone);
    look.flush()?;
    fitting.check(WAY_OUT)?;
    if keys.is_empty() && !request.filter.is_everything() {
        return Err(RestoreError::NoKeys);
    }
    let Look { existing, named, .. } = look;
    if existing > 0 && request.existing != Existing::Kept {
        let mut list = named.join(", ");
        if existing > named.len() as u64 {
            list.push_str(", …");
        }
        return Err(RestoreError::Conflict { address: facts.address.clone(), count: existing, list });
    }
    let mut warnings = fitting.warnings();
    if left_out > 0 {
        warnings.push(format!(
            "functions are left out ({left_out} in the file): they go into an empty target, with everything"
        ));
    }
    Ok(Checked { keys, existing, functions, bytes: reading.bytes, warnings })
}

fn has_database(facts: &TargetFacts, db: u32, line: u64) -> Result<(), RestoreError> {
    match facts.limits.databases {
        Some(databases) if db >= databases => Err(RestoreError::Unable(format!(
            "{} has {databases} databases, and line {line} holds a key of database {db}; raise its `databases` setting, or choose others with --db. Nothing was written",
            facts.address
        ))),
        _ => Ok(()),
    }
}

/// Which keys the target has.
struct Look<'a> {
    target: &'a mut Server,
    db: u32,
    keys: Vec<Vec<u8>>,
    existing: u64,
    named: Vec<String>,
}

impl Look<'_> {
    fn add(&mut self, db: u32, key: Vec<u8>) -> Result<(), RestoreError> {
        if db != self.db || self.keys.len() >= LOOK_KEYS {
            self.flush()?;
            self.db = db;
        }
        self.keys.push(key);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), RestoreError> {
        if self.keys.is_empty() {
            return Ok(());
        }
        select(self.target, self.db)?;
        let names: Vec<&[u8]> = self.keys.iter().map(Vec::as_slice).collect();
        let there = live::exist(self.target, &names)?;
        for (key, _) in self.keys.iter().zip(there).filter(|(_, there)| *there) {
            self.existing += 1;
            if self.named.len() < NAMED_KEYS {
                self.named.push(format!("{} in db {}", show(key), self.db));
            }
        }
        self.keys.clear();
        Ok(())
    }
}
