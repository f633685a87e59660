//! Compares two points in time: keys, their elements, and the writes that changed them. Writes nothing.
//!
//! ```text
//! both points ─► touched (which keys can differ) ─► two datasets of these keys ─► walk ─► compare ─► pending ─► the caller
//!                                                    (side: a scratch server each)   (pure)      (last_write, of the journal)
//! ```
//!
//! - `touched`: the keys written between both points.
//! - `side`: one dataset, as a client would have seen it.
//! - `walk`: every key of both.
//! - `compare`, `element`: the differences of two values.
//! - `pending`, `last_write`: the writes that made the differences.
//! - `libraries`: the comparison of function libraries.
//!
//! Memory: the names of the written keys (limited), two values of one key (some more, if small), and the differences
//! that wait for the journal's answers (limited). The scratch servers hold the written keys and what these depend on,
//! or all selected keys if the written ones cannot be determined.

mod compare;
mod element;
mod last_write;
mod libraries;
mod pending;
mod side;
mod touched;
mod walk;

use std::path::PathBuf;

pub use compare::{Held, KeyDifference, ListedElement, StreamNotes};
pub use element::{Element, ElementChange};
pub use last_write::LastWrite;
pub use libraries::LibraryChange;
use redtape_journal::query::{AsOf, Filter, When, Zone};
use redtape_journal::{Catalog, Keyring, Micros};

use self::compare::Listing;
use self::pending::Pending;
use self::side::Side;
use self::touched::{Touched, touched};
use self::walk::{Which, walk};
use crate::error::RestoreError;
use crate::interrupt::Interrupt;
use crate::limits::Limits;
use crate::point::RestorePoint;
use crate::progress::{Event, Observer, Unit};
use crate::request::{Reading, Request};
use crate::source::Located;
use crate::source::journal_range::JournalRange;

/// Keys named individually: they are compared even if they were not written.
const NAMED_MAX: usize = 4096;
/// Before Redis 7.0 the expiry times in a stream are relative to each server's clock.
const RELATIVE_TTL_SLACK_MS: i64 = 250;

/// Input of a comparison.
#[derive(Debug, Clone)]
pub struct DiffRequest {
    /// The journal's directory.
    pub from: PathBuf,
    /// The keys of an encrypted journal.
    pub keyring: Keyring,
    /// The first point in time.
    pub first: AsOf,
    /// The second one, inclusive.
    pub second: When,
    /// The time zone of times without one.
    pub zone: Zone,
    /// The present, for "ago".
    pub now: Micros,
    /// The selection. Types are those at either point in time.
    pub filter: Filter,
    /// Reduce both datasets to what the written keys depend on.
    pub slice: bool,
    /// Limit of listed elements of a key.
    pub elements: usize,
    /// The scratch server's program, if the user chose one.
    pub server_bin: Option<PathBuf>,
    /// Ends the comparison when it is set.
    pub interrupt: Interrupt,
    /// Time limits of scratch servers.
    pub limits: Limits,
}

/// Number of differences, and how they were determined.
#[derive(Debug, Clone)]
pub struct Summary {
    /// The first point in time.
    pub first: RestorePoint,
    /// The second one.
    pub second: RestorePoint,
    /// Keys that only the second point has.
    pub created: u64,
    /// Keys that only the first point has.
    pub deleted: u64,
    /// Differing keys that both points have.
    pub changed: u64,
    /// Of these, keys with only another expiry time.
    pub ttl_only: u64,
    /// Compared keys that are equal.
    pub equal: u64,
    /// Keys that were written between the points in time; `None` = all keys of the selection were compared.
    pub touched: Option<u64>,
    /// Why all keys were compared.
    pub all_because: Option<String>,
    /// Differing function libraries by name; `None` = not compared.
    pub libraries: Option<Vec<(String, LibraryChange)>>,
    /// The journal holds all writes between both points in time.
    pub writes_known: bool,
}

/// Which keys are compared.
struct Scope {
    filter: Filter,
    touched: Option<u64>,
    all_because: Option<String>,
}

/// Compares two points in time; `take` receives each differing key, in no particular order.
pub fn diff(
    request: &DiffRequest,
    take: &mut dyn FnMut(KeyDifference) -> Result<(), RestoreError>,
    observer: &mut dyn Observer,
) -> Result<Summary, RestoreError> {
    let before = Located::find(&request.as_restore(&request.first))?;
    observer.on(&Event::Resolved(&before.point));
    let after = Located::find(&request.as_restore(&AsOf::At(request.second.clone())))?;
    observer.on(&Event::Resolved(&after.point));
    let (first, second) = (before.point.clone(), after.point.clone());
    check_order(&first, &second)?;
    let journal = request.journal(&first, &second)?;
    let Scope { filter, touched, all_because } = request.scope(journal.as_ref(), &second, observer)?;
    if let Some(why) = &all_because {
        observer.on(&Event::Note(&format!("all keys of the selection are compared: {why}")));
    }
    let mut pending = Pending::new(journal.as_ref(), &request.interrupt, take);
    let everything = request.filter.is_everything();
    let (mut equal, mut libraries) = (0, everything.then(Vec::new));
    if touched != Some(0) {
        let narrowed = Request { filter: filter.clone(), ..request.as_restore(&request.first) };
        let mut before = Side::rebuild(before, &narrowed, observer)?;
        let mut after = Side::rebuild(after, &narrowed, observer)?;
        let slack = if before.absolute && after.absolute { 0 } else { RELATIVE_TTL_SLACK_MS };
        let which = Which {
            filter: &filter,
            types: &request.filter,
            listing: Listing { elements: request.elements, ttl_slack_ms: slack },
            interrupt: &request.interrupt,
        };
        let mut found = |difference, observer: &mut dyn Observer| pending.add(difference, observer);
        let walked = walk(&mut before, &mut after, &which, &mut found, observer);
        equal = walked.map_err(|error| after.scratch.explain(before.scratch.explain(error)))?;
        if everything && filter.is_everything() {
            libraries = Some(libraries::libraries(&mut before, &mut after)?);
        }
    }
    pending.flush(observer)?;
    let counts = pending.counts;
    Ok(Summary {
        first,
        second,
        created: counts.created,
        deleted: counts.deleted,
        changed: counts.changed,
        ttl_only: counts.ttl_only,
        equal: equal + counts.equal,
        touched,
        all_because,
        libraries,
        writes_known: journal.is_some(),
    })
}

/// Checks that the first point in time is not after the second one.
fn check_order(first: &RestorePoint, second: &RestorePoint) -> Result<(), RestoreError> {
    if (first.timeline, first.lsn) <= (second.timeline, second.lsn) && first.clock <= second.clock {
        return Ok(());
    }
    Err(RestoreError::Usage(format!(
        "the first point in time ({}) is later than the second one ({}): exchange --at and --and",
        first.echo(),
        second.echo()
    )))
}

impl DiffRequest {
    /// The request for one of the points in time, without a target.
    fn as_restore(&self, as_of: &AsOf) -> Request {
        // With both datasets, a value's type is checked at both points in time.
        let filter = self.filter.clone().of_types::<&str>([]);
        Request::from(Reading {
            from: self.from.clone(),
            keyring: self.keyring.clone(),
            as_of: as_of.clone(),
            zone: self.zone.clone(),
            filter,
            slice: self.slice,
            server_bin: self.server_bin.clone(),
            now: self.now,
            interrupt: self.interrupt.clone(),
            limits: self.limits,
        })
    }

    /// The writes between both points in time; `None` = the journal has a gap there.
    fn journal(&self, first: &RestorePoint, second: &RestorePoint) -> Result<Option<JournalRange>, RestoreError> {
        if first.timeline != second.timeline {
            return Ok(None);
        }
        let catalog = Catalog::open_for_search(&self.from, &self.keyring)?;
        Ok(Some(JournalRange { catalog, timeline: first.timeline, after: first.lsn, upto: second.lsn, without: None }))
    }

    fn scope(
        &self,
        journal: Option<&JournalRange>,
        second: &RestorePoint,
        observer: &mut dyn Observer,
    ) -> Result<Scope, RestoreError> {
        let selected = self.as_restore(&self.first).filter;
        let all = |why: &str| Scope { filter: selected.clone(), touched: None, all_because: Some(why.to_owned()) };
        let Some(journal) = journal else {
            return Ok(all("between the two points in time the journal has a gap, so the writes there are unknown"));
        };
        if !self.slice {
            return Ok(all("--no-slice"));
        }
        if selected.exact_keys(NAMED_MAX).is_some() {
            return Ok(Scope { filter: selected, touched: None, all_because: None });
        }
        let total = journal.upto.0.saturating_sub(journal.after.0);
        observer.on(&Event::Step { name: "looking for keys that were written", total, unit: Unit::Records });
        let mut on_progress = |passed| observer.on(&Event::At(passed));
        let libraries = selected.is_everything();
        let found = touched(journal, &selected, (second.clock, libraries), &self.interrupt, &mut on_progress)?;
        observer.on(&Event::StepDone);
        Ok(match found {
            Touched::Any(why) => all(&why),
            Touched::Keys(keys) => {
                let touched = Some(keys.len() as u64);
                let mut filter = Filter::default();
                for (db, key) in keys {
                    filter.add_key(Some(db), key);
                }
                Scope { filter, touched, all_because: None }
            }
        })
    }
}
