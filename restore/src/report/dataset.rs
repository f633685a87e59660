//! One pass over the RDB of a dataset: each wanted key is measured, counted and passed on.

use std::borrow::Cow;
use std::fs::File;
use std::io::{ErrorKind, Read as Input};
use std::path::Path;

use redtape_journal::query::Filter;
use redtape_journal::{Catalog, Keyring, SnapshotInfo};
use redtape_wire::rdb::{Entry, Fault, KeyEntry, Measure, MemoryModel, ReadError, Walker, module_type};

use super::contents::{Contents, Counter};
use super::tally::KeyFacts;
use super::{Asked, ReportRequest};
use crate::error::RestoreError;
use crate::interrupt::Interrupt;
use crate::point::RestorePoint;
use crate::progress::{Event, Observer, Unit};
use crate::source::base::{open_base, wrong_digest};
use crate::values::saved::Saved;
use crate::version::{ServerVersion, parse_number};

/// Keys between two looks at the interrupt.
const LOOK_EVERY: u64 = 4096;

/// What was read.
pub(super) struct Read {
    pub(super) server: String,
    pub(super) used_memory: Option<u64>,
    pub(super) rdb_bytes: u64,
    pub(super) contents: Contents,
}

/// Gets each key.
type Take<'a> = &'a mut dyn FnMut(&KeyFacts<'_>) -> Result<(), RestoreError>;

/// What is looked for.
pub(super) struct Pass<'a> {
    filter: &'a Filter,
    asked: Asked,
    keyring: &'a Keyring,
    interrupt: &'a Interrupt,
    now_ms: i64,
    /// The recorded server, as far as the base's manifest says it.
    recorded: Server,
}

/// A server as an RDB names it.
#[derive(Debug, Clone, Copy)]
struct Server(Option<ServerVersion>);

impl Server {
    /// Notes what an auxiliary field says of it.
    fn look_at(&mut self, name: &[u8], value: &[u8]) {
        let valkey = name == b"valkey-ver";
        if (valkey || name == b"redis-ver")
            && let Some(number) = parse_number(&String::from_utf8_lossy(value))
        {
            self.0 = Some(ServerVersion { valkey, number });
        }
    }

    fn model(self) -> MemoryModel {
        // Where nothing is known, the generation that has lasted longest.
        let ServerVersion { valkey, number } = self.0.unwrap_or(ServerVersion { valkey: false, number: (7, 0, 0) });
        MemoryModel::of(valkey, (number.0, number.1))
    }

    fn name(self) -> String {
        self.0.map_or_else(|| "an unknown server, taken for Redis 7.0".to_owned(), |version| version.to_string())
    }
}

/// Failures of an RDB as errors of its file.
type Blame<'a> = &'a dyn Fn(ReadError) -> RestoreError;

impl<'a> Pass<'a> {
    pub(super) fn new(request: &'a ReportRequest, point: &RestorePoint) -> Self {
        let number = parse_number(&point.base.manifest.server_version);
        Self {
            filter: &request.filter,
            asked: request.asked,
            keyring: &request.keyring,
            interrupt: &request.interrupt,
            now_ms: point.clock.0.div_euclid(1000),
            recorded: Server(number.map(|number| ServerVersion { valkey: false, number })),
        }
    }

    /// Of a base. At its end its digest has been compared.
    pub(super) fn base(
        &self,
        catalog: &Catalog,
        base: &SnapshotInfo,
        take: Take<'_>,
        observer: &mut dyn Observer,
    ) -> Result<Read, RestoreError> {
        let mut file = open_base(catalog, base, self.keyring)?;
        let total = base.manifest.bytes;
        let read = self.walk(&mut file, self.recorded, true, total, &|e| of_base(base, e), take, observer)?;
        match wrong_digest(&file, &base.manifest.blake3) {
            Some(problem) => Err(RestoreError::Base { path: base.path.clone(), problem }),
            None => Ok(read),
        }
    }

    /// Of what a scratch server has saved; the server is that of the base, of which these are the auxiliary fields.
    pub(super) fn saved(
        &self,
        saved: &Saved,
        aux: &[(String, String)],
        take: Take<'_>,
        observer: &mut dyn Observer,
    ) -> Result<Read, RestoreError> {
        let mut server = self.recorded;
        for (name, value) in aux {
            server.look_at(name.as_bytes(), value.as_bytes());
        }
        let (mut file, path): (File, &Path) = (saved.open()?, saved.path());
        let blame = |e| RestoreError::Scratch(format!("saved an RDB that cannot be read ({}): {e}", path.display()));
        self.walk(&mut file, server, false, saved.bytes()?, &blame, take, observer)
    }

    /// `own`: the RDB says of itself which server has made it.
    #[allow(clippy::too_many_arguments)]
    fn walk(
        &self,
        input: &mut dyn Input,
        mut server: Server,
        own: bool,
        total: u64,
        blame: Blame<'_>,
        take: Take<'_>,
        observer: &mut dyn Observer,
    ) -> Result<Read, RestoreError> {
        observer.on(&Event::Step { name: "reading the keys", total, unit: Unit::Bytes });
        let mut counter = Counter::new(self.asked, self.now_ms, self.filter.is_everything());
        let mut walker = Walker::new(input).map_err(blame)?.measuring();
        let (mut used_memory, mut seen) = (None, 0u64);
        while let Some(entry) = walker.next_entry().map_err(blame)? {
            match entry {
                Entry::Aux { name, value: Some(value) } if own => {
                    server.look_at(name, value);
                    if name == b"used-mem" {
                        used_memory = String::from_utf8_lossy(value).parse().ok();
                    }
                }
                Entry::Function(extent) => counter.add_library(extent.len),
                Entry::Key(key) => self.key(&key, server.model(), &mut counter, take)?,
                _ => {}
            }
            seen += 1;
            if seen.is_multiple_of(LOOK_EVERY) {
                self.interrupt.check()?;
                observer.on(&Event::At(walker.offset()));
            }
        }
        observer.on(&Event::StepDone);
        let contents = counter.finish();
        Ok(Read { server: server.name(), used_memory, rdb_bytes: total, contents })
    }

    fn key(
        &self,
        entry: &KeyEntry<'_>,
        model: MemoryModel,
        counter: &mut Counter,
        take: Take<'_>,
    ) -> Result<(), RestoreError> {
        if !self.filter.wants(entry.db, entry.key) {
            return Ok(());
        }
        let measure = entry.measure.unwrap_or_default();
        let type_name = type_name(entry, &measure);
        if self.filter.looks_at_types() && !self.filter.wants_type(&type_name) {
            return Ok(());
        }
        let expires = entry.expires_at_ms.is_some();
        let stored = model.stored(entry.key.len() as u64, expires, entry.value_type, &measure, entry.value.len);
        let facts = KeyFacts {
            db: entry.db,
            key: entry.key,
            type_name: &type_name,
            is_module: measure.module.is_some(),
            encoding: stored.encoding,
            memory_bytes: stored.memory_bytes,
            serialized_bytes: entry.entry.len,
            elements: measure.elements,
            largest: measure.largest,
            expires_at_ms: entry.expires_at_ms,
        };
        counter.add(&facts);
        take(&facts)
    }
}

fn type_name(entry: &KeyEntry<'_>, measure: &Measure) -> Cow<'static, str> {
    match (entry.value_type.type_name(), measure.module) {
        (Some(name), _) => Cow::Borrowed(name),
        (None, Some(id)) => Cow::Owned(module_type(id).0),
        (None, None) => Cow::Borrowed("module"),
    }
}

fn of_base(base: &SnapshotInfo, error: ReadError) -> RestoreError {
    let path = base.path.clone();
    match error.fault {
        Fault::Io(source) if source.kind() != ErrorKind::InvalidData => {
            RestoreError::Io { action: "read", path, source }
        }
        // What it was stored with does not fit: damaged, too.
        Fault::Io(source) => RestoreError::Base { path, problem: source.to_string() },
        _ => RestoreError::Base { path, problem: error.to_string() },
    }
}
