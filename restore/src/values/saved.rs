//! The dataset of a scratch server as the RDB that it has saved: each value can be read without asking for it, and its keys stand in
//! the same order each time.

use std::fs::File;
use std::io::{BufReader, Read as _};
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use redtape_journal::query::Filter;
use redtape_wire::rdb::{
    DUMP_FOOTER_LEN, Entry, Extent, KeyEntry, RdbVersion, ValueType, Walker, end_dump, module_type_of,
};
use redtape_wire::slot::SlotSet;

use super::image::Image;
use crate::error::RestoreError;
use crate::source::scratch::Scratch;
use crate::target::lookup::select;
use crate::target::pieces::name::is_temporary;
use crate::target::unfinished;

/// Bytes that are read at once.
const READ_BYTES: usize = 1 << 20;
/// Keys of a batch: of the first one, and twice as many of each that follows, up to the other limit. So it is soon known whether the
/// target takes them, and a sync of the undo log serves many.
const FIRST_BATCH_KEYS: usize = 256;
const BATCH_KEYS: usize = 4096;
/// Bytes of a batch's keys and values, about.
const BATCH_BYTES: u64 = 4 << 20;
/// Bytes at the front of a module's value in which the id of its type is.
const MODULE_ID_BYTES: usize = 9;

/// See the module.
#[derive(Debug)]
pub(crate) struct Saved {
    path: PathBuf,
    /// Only keys of these slots of a cluster are seen; `None` = all.
    slots: Option<SlotSet>,
}

/// A key, and where its value is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SavedKey {
    pub(crate) key: Vec<u8>,
    /// Milliseconds since 1970; 0 = never.
    pub(crate) expires_ms: i64,
    value_type: ValueType,
    metadata: Option<Extent>,
    value: Extent,
}

impl SavedKey {
    /// Modules have put something on the key that is not in its value.
    pub(crate) fn has_metadata(&self) -> bool {
        self.metadata.is_some()
    }

    /// How its value is stored, and in how many bytes.
    pub(crate) fn stored(&self) -> (ValueType, u64) {
        (self.value_type, self.value.len)
    }

    fn of(entry: &KeyEntry<'_>) -> Self {
        Self {
            key: entry.key.to_vec(),
            expires_ms: entry.expires_at_ms.unwrap_or(0),
            value_type: entry.value_type,
            metadata: entry.metadata,
            value: entry.value,
        }
    }
}

impl Saved {
    /// Of this file.
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, slots: None }
    }

    /// Of a scratch server at rest, which saves it, without the marker that the recorded server may have held. The file lives as long
    /// as that server.
    pub(crate) fn of(scratch: &mut Scratch) -> Result<Self, RestoreError> {
        // What a restore of the recorded server left there to be found is no data.
        select(&mut scratch.server, 0)?;
        scratch.server.call(&["DEL", unfinished::KEY])?;
        scratch.hold()?;
        Ok(Self::new(scratch.save()?))
    }

    /// From now on only keys of these slots are seen; `None` = all.
    pub(crate) fn see_only(&mut self, slots: Option<SlotSet>) {
        self.slots = slots;
    }

    /// Whether a key of this name is seen.
    pub(crate) fn sees(&self, key: &[u8]) -> bool {
        self.slots.as_ref().is_none_or(|slots| slots.has_key(key))
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// To be read at any place.
    pub(crate) fn open(&self) -> Result<File, RestoreError> {
        File::open(&self.path).map_err(RestoreError::io("open", &self.path))
    }

    /// Its length.
    pub(crate) fn bytes(&self) -> Result<u64, RestoreError> {
        std::fs::metadata(&self.path).map(|found| found.len()).map_err(RestoreError::io("look at", &self.path))
    }

    /// Its version.
    pub(crate) fn version(&self) -> Result<RdbVersion, RestoreError> {
        Ok(Walker::new(self.open()?).map_err(|e| self.unreadable(&e))?.version())
    }

    /// Calls `take` with the wanted keys and with all that stands between keys, in the order of the file, until it fails. At the end the
    /// checksum has been compared.
    pub(crate) fn walk(
        &self,
        filter: &Filter,
        take: &mut dyn FnMut(Entry<'_>) -> Result<(), RestoreError>,
    ) -> Result<(), RestoreError> {
        let file = self.open()?;
        let ids = file.try_clone().map_err(RestoreError::io("open", &self.path))?;
        let mut walker = Walker::new(file).map_err(|e| self.unreadable(&e))?;
        while let Some(entry) = walker.next_entry().map_err(|e| self.unreadable(&e))? {
            // What a repair of the recorded server was building then is no key of anybody's.
            if let Entry::Key(key) = &entry
                && (!filter.wants(key.db, key.key)
                    || !self.sees(key.key)
                    || is_temporary(key.key)
                    || !self.is_of_type(filter, key, &ids)?)
            {
                continue;
            }
            take(entry)?;
        }
        Ok(())
    }

    /// Calls `take` with some keys of one database after the other, until it fails.
    pub(crate) fn each(
        &self,
        filter: &Filter,
        take: &mut dyn FnMut(u32, Vec<SavedKey>) -> Result<(), RestoreError>,
    ) -> Result<(), RestoreError> {
        let (mut db, mut keys, mut bytes) = (0, Vec::new(), 0);
        let mut most = FIRST_BATCH_KEYS;
        self.walk(filter, &mut |entry| {
            let Entry::Key(entry) = entry else { return Ok(()) };
            if !keys.is_empty() && (entry.db != db || keys.len() >= most || bytes >= BATCH_BYTES) {
                take(db, std::mem::take(&mut keys))?;
                bytes = 0;
                most = BATCH_KEYS.min(most * 2);
            }
            db = entry.db;
            bytes += entry.key.len() as u64 + entry.value.len;
            keys.push(SavedKey::of(&entry));
            Ok(())
        })?;
        if keys.is_empty() { Ok(()) } else { take(db, keys) }
    }

    /// Whether the value's type is wanted; that of a module's is in the value. `file`: this one, beside the walk.
    fn is_of_type(&self, filter: &Filter, entry: &KeyEntry<'_>, file: &File) -> Result<bool, RestoreError> {
        if !filter.looks_at_types() {
            return Ok(true);
        }
        if let Some(name) = entry.value_type.type_name() {
            return Ok(filter.wants_type(name));
        }
        let mut front = [0; MODULE_ID_BYTES];
        let len = entry.value.len.min(MODULE_ID_BYTES as u64) as usize;
        file.read_exact_at(&mut front[..len], entry.value.offset).map_err(RestoreError::io("read", &self.path))?;
        Ok(filter.wants_type(&module_type_of(&front[..len]).map_err(|e| self.unreadable(&e))?))
    }

    /// A reader of values.
    pub(crate) fn values(&self) -> Result<Values<'_>, RestoreError> {
        let version = self.version()?;
        let file = BufReader::with_capacity(READ_BYTES, self.open()?);
        Ok(Values { path: &self.path, file, at: 0, version })
    }

    fn unreadable(&self, error: &redtape_wire::rdb::ReadError) -> RestoreError {
        RestoreError::Scratch(format!("saved an RDB that cannot be read ({}): {error}", self.path.display()))
    }
}

/// Reads values, best in the order in which they stand.
#[derive(Debug)]
pub(crate) struct Values<'a> {
    path: &'a Path,
    file: BufReader<File>,
    at: u64,
    version: RdbVersion,
}

impl Values<'_> {
    /// A key's value, as `DUMP` would give it.
    pub(crate) fn image(&mut self, key: &SavedKey) -> Result<Image, RestoreError> {
        let mut dump = Vec::new();
        self.append(key, &mut dump)?;
        Ok(Image { dump, expires_ms: key.expires_ms })
    }

    /// Appends the same to `out`; returns where the value alone stands there.
    pub(crate) fn append(&mut self, key: &SavedKey, out: &mut Vec<u8>) -> Result<Range<usize>, RestoreError> {
        let begin = out.len();
        let metadata = key.metadata.map_or(0, |extent| extent.len);
        out.reserve((metadata + key.value.len) as usize + 1 + DUMP_FOOTER_LEN);
        if let Some(extent) = key.metadata {
            self.read(extent, out).map_err(RestoreError::io("read", self.path))?;
        }
        out.push(key.value_type.number());
        let value = out.len();
        self.read(key.value, out).map_err(RestoreError::io("read", self.path))?;
        let end = out.len();
        end_dump(out, begin, self.version);
        Ok(value..end)
    }

    /// The walk has been there: what is announced is in the file.
    fn read(&mut self, extent: Extent, out: &mut Vec<u8>) -> std::io::Result<()> {
        self.file.seek_relative(extent.offset.cast_signed() - self.at.cast_signed())?;
        self.at = extent.end();
        let begin = out.len();
        out.resize(begin + extent.len as usize, 0);
        self.file.read_exact(&mut out[begin..])
    }
}
