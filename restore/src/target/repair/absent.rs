//! Finds the keys of the target to delete: selected keys that did not exist at the restore point, or all unwanted keys.

use std::collections::HashSet;

use crate::client::Server;
use crate::error::RestoreError;
use crate::interrupt::Interrupt;
use crate::target::lookup::{Scan, of_wanted_types, select};
use crate::target::pieces::name::is_temporary;
use crate::target::unfinished;
use redtape_journal::query::Filter;

use super::datasets::Datasets;
use super::engine::Unwanted;
use super::live;
use super::policy::{NameTemplate, Policy};

/// Called with a database of the target and some of its keys.
type Take<'a> = dyn FnMut(u32, Vec<Unwanted>) -> Result<(), RestoreError> + 'a;

/// Selects the keys to delete.
pub(super) struct Which<'a> {
    filter: &'a Filter,
    /// The template and id of names that this restore gives to wanted keys. Such keys did not exist either, and stay.
    own_names: Option<(&'a NameTemplate, &'a str)>,
    /// Also delete keys outside the selection.
    all: bool,
}

impl<'a> Which<'a> {
    /// The selection of a policy. `id`: of the restore.
    pub(super) fn of(policy: &'a Policy, filter: &'a Filter, id: &'a str) -> Self {
        Self { filter, own_names: policy.own_names(id), all: policy.replace_all }
    }

    fn may_be(&self, db: u32, key: &[u8]) -> bool {
        (self.all || self.filter.wants(db, key)) && key != unfinished::KEY.as_bytes() && !is_temporary(key)
    }
}

/// Calls `take` for each batch of these keys.
pub(super) fn each_absent(
    datasets: &mut Datasets,
    target: &mut Server,
    which: &Which<'_>,
    interrupt: &Interrupt,
    take: &mut Take<'_>,
) -> Result<(), RestoreError> {
    let Which { filter, all, .. } = which;
    let had: Vec<u32> = datasets.wanted.server.info(Some("keyspace"))?.keyspace().into_keys().collect();
    let dbs: Vec<u32> = target.info(Some("keyspace"))?.keyspace().into_keys().collect();
    for db in dbs.into_iter().filter(|db| *all || filter.wants_db(*db)) {
        if had.contains(&db) {
            select(&mut datasets.wanted.server, db)?;
        }
        let mut scan = Scan::new(db);
        while let Some(mut keys) = scan.next(target)? {
            interrupt.check()?;
            keys.retain(|key| which.may_be(db, key) && datasets.sees(key));
            if had.contains(&db) {
                leave_wanted(&mut datasets.wanted.server, db, which, &mut keys)?;
            }
            // A wanted key with another type in the target is replaced later.
            let keys: Vec<(Vec<u8>, Option<String>)> = if filter.looks_at_types() && !all {
                let keys = of_wanted_types(filter, keys, target)?;
                keys.into_iter().map(|(key, of_type)| (key, Some(of_type))).collect()
            } else {
                keys.into_iter().map(|key| (key, None)).collect()
            };
            if !keys.is_empty() {
                let names: Vec<&[u8]> = keys.iter().map(|(key, _)| &key[..]).collect();
                let expected = datasets.expected_of(db, &names)?;
                let unwanted = keys.into_iter().zip(expected);
                let unwanted = unwanted.map(|((key, of_type), expected)| Unwanted { key, expected, of_type });
                take(db, unwanted.collect())?;
            }
        }
    }
    Ok(())
}

/// Removes the keys that existed and are wanted, and this restore's own names for them.
fn leave_wanted(
    scratch: &mut Server,
    db: u32,
    Which { filter, own_names, all }: &Which<'_>,
    keys: &mut Vec<Vec<u8>>,
) -> Result<(), RestoreError> {
    let mut wanted = existing(scratch, keys.iter().filter(|key| filter.wants(db, key)).cloned().collect())?;
    if *all && filter.looks_at_types() {
        wanted = of_wanted_types(filter, wanted, scratch)?.into_iter().map(|(key, _)| key).collect();
    }
    let wanted: HashSet<Vec<u8>> = wanted.into_iter().collect();
    keys.retain(|key| !wanted.contains(key));
    let Some((names, id)) = own_names else { return Ok(()) };
    let key_of = |name: &[u8]| names.key_of(name, id).map(<[u8]>::to_vec);
    let renamed = existing(scratch, keys.iter().filter_map(|name| key_of(name)).collect())?;
    keys.retain(|name| key_of(name).is_none_or(|key| !renamed.contains(&key)));
    Ok(())
}

/// The keys of this list that exist.
fn existing(scratch: &mut Server, keys: Vec<Vec<u8>>) -> Result<Vec<Vec<u8>>, RestoreError> {
    if keys.is_empty() {
        return Ok(keys);
    }
    let names: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
    let there = live::exist(scratch, &names)?;
    Ok(keys.into_iter().zip(there).filter(|(_, there)| *there).map(|(key, _)| key).collect())
}
