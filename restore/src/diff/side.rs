//! The dataset of one of the points in time, in an idle scratch server.

use std::collections::BTreeSet;

use redtape_journal::query::Filter;
use redtape_wire::rdb::{ReadError, Value};

use super::compare::Seen;
use crate::error::RestoreError;
use crate::point::RestorePoint;
use crate::progress::Observer;
use crate::request::Request;
use crate::source::Located;
use crate::source::scratch::Scratch;
use crate::target::lookup::select;
use crate::target::pieces::size::{Size, sizes};
use crate::target::repair::live;
use crate::values::held::read_with_ends;
use crate::values::image::{Image, type_name};
use crate::values::saved::{Saved, SavedKey};

/// Keys read at once.
const READ_KEYS: usize = 256;

/// One side of the comparison.
pub(super) struct Side {
    pub(super) scratch: Scratch,
    pub(super) saved: Saved,
    pub(super) point: RestorePoint,
    /// Databases that have keys.
    dbs: BTreeSet<u32>,
    /// The server supports `PEXPIRETIME`.
    pub(super) absolute: bool,
    /// The time of its clock.
    at_ms: i64,
}

impl Side {
    /// Rebuilds the dataset and saves it.
    pub(super) fn rebuild(
        located: Located,
        request: &Request,
        observer: &mut dyn Observer,
    ) -> Result<Self, RestoreError> {
        let point = located.point.clone();
        let mut source = located.check(request, observer)?;
        source.binary = Some(source.find_any_binary(request.server_bin.as_deref())?);
        let (mut scratch, _) = source.rebuild(observer)?;
        let saved = Saved::of(&mut scratch)?;
        let at_ms = scratch.hold()?;
        let dbs = scratch.server.info(Some("keyspace"))?.keyspace().into_keys().collect();
        let absolute = scratch.version.has_redis(7, 0);
        Ok(Self { scratch, saved, point, dbs, absolute, at_ms })
    }

    /// Number of keys in the wanted databases.
    pub(super) fn count(&mut self, filter: &Filter) -> Result<u64, RestoreError> {
        let keyspace = self.scratch.server.info(Some("keyspace"))?.keyspace();
        Ok(keyspace.iter().filter(|(db, _)| filter.wants_db(**db)).map(|(_, keys)| keys).sum())
    }

    /// Calls `take` with batches of a database's keys and their state on this side. Large values come one at a time.
    pub(super) fn read(
        &mut self,
        db: u32,
        keys: Vec<SavedKey>,
        take: &mut dyn FnMut(SavedKey, Option<Image>) -> Result<(), RestoreError>,
    ) -> Result<(), RestoreError> {
        if !self.dbs.contains(&db) {
            return keys.into_iter().try_for_each(|key| take(key, None));
        }
        select(&mut self.scratch.server, db)?;
        let mut keys = keys.into_iter();
        loop {
            let some: Vec<SavedKey> = keys.by_ref().take(READ_KEYS).collect();
            if some.is_empty() {
                return Ok(());
            }
            let names: Vec<&[u8]> = some.iter().map(|saved| &saved.key[..]).collect();
            let large: Vec<bool> = sizes(&mut self.scratch.server, &names)?.into_iter().map(Size::is_large).collect();
            let small: Vec<&[u8]> =
                names.iter().zip(&large).filter(|(_, large)| !**large).map(|(name, _)| *name).collect();
            let mut held = self.images(&small)?.into_iter();
            for (saved, large) in some.into_iter().zip(large) {
                let image = if large { self.images(&[&saved.key])?.pop().flatten() } else { held.next().flatten() };
                take(saved, image)?;
            }
        }
    }

    fn images(&mut self, keys: &[&[u8]]) -> Result<Vec<Option<Image>>, RestoreError> {
        read_with_ends(&mut self.scratch.server, keys, self.absolute, self.at_ms)
    }

    /// Which keys exist, expired or not.
    pub(super) fn exist(&mut self, db: u32, keys: &[&[u8]]) -> Result<Vec<bool>, RestoreError> {
        if !self.dbs.contains(&db) {
            return Ok(vec![false; keys.len()]);
        }
        select(&mut self.scratch.server, db)?;
        live::exist(&mut self.scratch.server, keys)
    }
}

/// What a client would have seen at a point in time; `None` = nothing.
pub(super) fn seen(point: &RestorePoint, image: &Image) -> Result<Option<Seen>, ReadError> {
    let expires_at_ms = (image.expires_ms != 0).then_some(image.expires_ms);
    if expires_at_ms.is_some_and(|at| point.has_passed(at)) {
        return Ok(None);
    }
    let mut value = image.value()?;
    if let Value::Hash(fields) = &mut value {
        fields.retain(|field| !field.expires_at_ms.is_some_and(|at| point.has_passed(at)));
        if fields.is_empty() {
            return Ok(None);
        }
    }
    let type_name = type_name(&image.dump)?.into_owned();
    Ok(Some(Seen { value, type_name, expires_at_ms }))
}
