//! Selected keys of the target that did not exist at the restore point.

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
use super::policy::NameTemplate;

/// Called with a database of the target and some of its keys.
type Take<'a> = dyn FnMut(u32, Vec<Unwanted>) -> Result<(), RestoreError> + 'a;

/// Which keys are meant.
pub(super) struct Which<'a> {
    pub(super) filter: &'a Filter,
    /// Names that this restore gives to wanted keys, and its id: they did not exist either, and stay.
    pub(super) own_names: Option<(&'a NameTemplate, &'a str)>,
}

/// Calls `take` for all of them, some at a time.
pub(super) fn each_absent(
    datasets: &mut Datasets,
    target: &mut Server,
    Which { filter, own_names }: &Which<'_>,
    interrupt: &Interrupt,
    take: &mut Take<'_>,
) -> Result<(), RestoreError> {
    let had: Vec<u32> = datasets.wanted.server.info(Some("keyspace"))?.keyspace().into_keys().collect();
    let dbs: Vec<u32> = target.info(Some("keyspace"))?.keyspace().into_keys().collect();
    for db in dbs.into_iter().filter(|db| filter.wants_db(*db)) {
        if had.contains(&db) {
            select(&mut datasets.wanted.server, db)?;
        }
        let mut scan = Scan::new(db);
        while let Some(mut keys) = scan.next(target)? {
            interrupt.check()?;
            keys.retain(|key| {
                let own = key == unfinished::KEY.as_bytes() || is_temporary(key);
                filter.wants(db, key) && datasets.sees(key) && !own
            });
            if had.contains(&db) && !keys.is_empty() {
                let names: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
                let mut existed = live::exist(&mut datasets.wanted.server, &names)?.into_iter();
                keys.retain(|_| existed.next() == Some(false));
                let named: Vec<Option<&[u8]>> =
                    keys.iter().map(|key| own_names.and_then(|(names, id)| names.key_of(key, id))).collect();
                if named.iter().any(Option::is_some) {
                    let names: Vec<&[u8]> = named.iter().map(|key| key.unwrap_or_default()).collect();
                    let existed = live::exist(&mut datasets.wanted.server, &names)?;
                    let own: Vec<bool> = named.iter().zip(existed).map(|(key, there)| key.is_some() && there).collect();
                    let mut own = own.into_iter();
                    keys.retain(|_| own.next() == Some(false));
                }
            }
            let keys: Vec<(Vec<u8>, Option<String>)> = if filter.looks_at_types() {
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
