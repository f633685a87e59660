//! Puts back what an undo file holds: on a server, or on some slots of a cluster.

use redtape_journal::undo_file::{Progress, UndoEntry, UndoFileError, UndoReader, WrittenPlace};
use redtape_wire::slot::SlotSet;

use super::collect::Collector;
use super::elements::ElementBefore;
use super::entries::LastEntries;
use super::libraries::{self, LibrariesBefore, LibraryBefore};
use super::{UndoPlan, UndoRequest};
use crate::client::Server;
use crate::error::RestoreError;
use crate::progress::{Event, Observer, Unit};
use crate::target::cluster::SlotWork;
use crate::target::repair::engine::{Engine, InFlight, Unwanted};
use crate::target::repair::{FileLog, How, Judged, OnConflict, Operation, Outcome, Policy, Wanted};
use crate::target::server::ServerTarget;
use crate::values::image::Image;
use crate::version::ServerVersion;
/// Opens the undo file at its first entry.
pub(super) fn open_file(request: &UndoRequest) -> Result<UndoReader, UndoFileError> {
    UndoReader::open(&request.file, &request.keyring)
}

/// A running undo and its results.
pub(super) struct UndoWork<'a> {
    pub(super) plan: &'a UndoPlan,
    pub(super) request: &'a UndoRequest,
    pub(super) last: &'a LastEntries,
    pub(super) progress: &'a Progress,
    pub(super) operation: &'a Operation,
    /// `None` only while it is reopened.
    pub(super) log: Option<FileLog>,
    pub(super) outcome: Outcome,
}

impl UndoWork<'_> {
    /// `slots`: only keys in these; `None` = all.
    pub(super) fn put_back(
        &mut self,
        (target, version): (&mut Server, ServerVersion),
        slots: Option<&SlotSet>,
        observer: &mut dyn Observer,
    ) -> Result<(), RestoreError> {
        let is_meant = |key: &[u8]| slots.is_none_or(|slots| slots.has_key(key));
        // Undo files of a cluster hold no libraries.
        let is_meant_place = |place: WrittenPlace<'_>| is_meant(place.key) && !(place.is_library && slots.is_some());
        let Self { request, last, operation, .. } = *self;
        let log = match &mut self.log {
            Some(log) => log,
            none => none.insert(operation.begin()?),
        };
        let how = How::find(target)?;
        let policy = Policy { on_conflict: OnConflict::Replace, ..Policy::default() };
        let judged = Judged::default();
        let mut moved = log.take_moved();
        moved.retain(|(_, key), _| is_meant(key));
        let engine = Engine {
            policy: &policy,
            judged: &judged,
            interrupt: &request.interrupt,
            at_ms: 0,
            id: operation.id(),
            version,
            how,
            outcome: Outcome::default(),
            moved,
            in_flight: InFlight::default(),
            target,
            log,
        };
        observer.on(&Event::Step { name: "putting back", total: self.plan.places, unit: Unit::Keys });
        let mut back = PutBack {
            collector: Collector::new(engine),
            replace: request.replace,
            field_ttl: version.has_field_ttl(),
            libraries: LibrariesBefore::new(),
        };
        // Newest first: that is the last value of the key.
        let moved = self.progress.moved();
        moved
            .iter()
            .rev()
            .filter(|moved| is_meant(&moved.key))
            .try_for_each(|moved| back.collector.engine.put_moved_back(moved, request.replace))?;
        let mut seen = 0;
        // Removals come last: a container that becomes empty is deleted and loses its expiry time.
        for removed in [false, true] {
            last.each(&mut open_file(request)?, |entry| {
                let is_removal = matches!(entry, UndoEntry::ElementAbsent { .. });
                if is_removal != removed || !entry.place().is_some_and(is_meant_place) {
                    return Ok(());
                }
                seen += 1;
                observer.on(&Event::At(seen));
                back.entry(entry)
            })?;
            back.collector.flush()?;
        }
        back.collector.engine.take_up_rest()?;
        let PutBack { collector: Collector { engine, .. }, libraries, .. } = back;
        let mut outcome = engine.outcome;
        outcome.libraries = libraries::put_back(target, log, libraries, request.replace)?;
        observer.on(&Event::StepDone);
        self.outcome.add(outcome);
        Ok(())
    }
}

impl SlotWork for UndoWork<'_> {
    fn run(
        &mut self,
        target: &mut ServerTarget,
        slots: &SlotSet,
        observer: &mut dyn Observer,
    ) -> Result<(), RestoreError> {
        let version = target.facts.version;
        self.put_back((&mut target.server, version), Some(slots), observer)
    }

    fn interrupted(&mut self) -> Result<(), RestoreError> {
        drop(self.log.take());
        self.log = Some(self.operation.begin()?);
        Ok(())
    }
}

/// Puts entries back, grouped by kind.
struct PutBack<'a> {
    collector: Collector<'a>,
    replace: bool,
    /// The target supports expiry times of hash fields.
    field_ttl: bool,
    /// Put back all at once.
    libraries: LibrariesBefore,
}

impl PutBack<'_> {
    fn entry(&mut self, entry: UndoEntry<'_>) -> Result<(), RestoreError> {
        let Some(db) = entry.place().map(|place| place.db) else { return Ok(()) };
        let Self { collector, replace, field_ttl, libraries } = self;
        collector.go_to(db)?;
        let expected = |written| if *replace { None } else { Some(written) };
        match entry {
            UndoEntry::Value { key, expires_ms, dump, written, .. } => {
                let image = Image { dump: dump.into_owned(), expires_ms };
                collector.put(Wanted::new(key.into_owned(), image, expected(written))?);
            }
            UndoEntry::Absent { key, written, .. } => {
                collector.remove(Unwanted { key: key.into_owned(), expected: expected(written), of_type: None });
            }
            UndoEntry::Ttl { key, expires_ms, written_ms, .. } => {
                collector.engine.put_ttl_back(db, &key, written_ms, expires_ms, *replace)?;
            }
            UndoEntry::Element { key, element, value, expires_ms, written, .. } => {
                let was = ElementBefore { name: &element, held: Some((&value, expires_ms)), written };
                collector.engine.put_element_back(db, &key, &was, *field_ttl, *replace)?;
            }
            UndoEntry::ElementAbsent { key, element, written, .. } => {
                let was = ElementBefore { name: &element, held: None, written };
                collector.engine.put_element_back(db, &key, &was, *field_ttl, *replace)?;
            }
            UndoEntry::Library { name, code, written } => {
                let was = LibraryBefore { code: (!code.is_empty()).then(|| code.into_owned()), written };
                libraries.insert(name.into_owned(), was);
            }
            UndoEntry::Moved { .. } | UndoEntry::Done { .. } | UndoEntry::NotWritten { .. } | UndoEntry::Finished => {}
        }
        Ok(())
    }
}
