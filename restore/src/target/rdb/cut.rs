//! One RDB made of another: the wanted keys, byte for byte as the server saved them.
//!
//! Left out is what says something of the scratch server and not of the data: its own time, memory and replication.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use redtape_journal::Micros;
use redtape_journal::query::Filter;
use redtape_wire::rdb::{Entry, Extent, RdbVersion, RdbWriter, put_database_size, put_select_db};

use crate::error::RestoreError;
use crate::interrupt::Interrupt;
use crate::progress::{Event, Observer, Unit};
use crate::target::new_file::cannot_write;
use crate::values::saved::Saved;

/// Bytes that are copied at once.
const COPY_BYTES: u64 = 1 << 20;
/// Fields at the front that are not passed on; the version is written anew.
const NOT_PASSED_ON: [&[u8]; 9] = [
    b"redis-ver",
    b"valkey-ver",
    b"ctime",
    b"used-mem",
    b"repl-stream-db",
    b"repl-id",
    b"repl-offset",
    b"aof-base",
    b"aof-preamble",
];

/// What stands at the front.
pub(super) struct Head {
    /// Of the server that saved the values.
    pub(super) server_version: String,
    /// The restore point.
    pub(super) at: Micros,
}

/// What is in the RDB.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Contents {
    pub(super) keys: BTreeMap<u32, u64>,
    /// Keys whose time has come by now.
    pub(super) expired: u64,
    pub(super) functions: usize,
}

/// Writes the RDB to `to`, which has this path for messages. Where all is wanted, function libraries are in it.
pub(super) fn cut(
    saved: &Saved,
    filter: &Filter,
    head: &Head,
    (to, path): (&mut impl Write, &Path),
    interrupt: &Interrupt,
    observer: &mut dyn Observer,
) -> Result<(Contents, RdbVersion), RestoreError> {
    let written = |result: std::io::Result<()>| result.map_err(|e| cannot_write(path, e));
    let (version, file) = (saved.version()?, saved.open()?);
    observer.on(&Event::Step { name: "writing the file", total: saved.bytes()?, unit: Unit::Bytes });
    let writer = RdbWriter::new(to, version, Some(&head.server_version)).map_err(|e| cannot_write(path, e))?;
    let mut copy = Copy { writer, file, saved: saved.path(), path, pending: None, buffer: Vec::new() };
    written(copy.writer.aux(b"ctime", (head.at.0 / 1_000_000).to_string().as_bytes()))?;
    let (mut contents, everything) = (Contents::default(), filter.is_everything());
    let (now_ms, mut db) = (Micros::now().0 / 1000, 0);
    saved.walk(filter, &mut |entry| {
        interrupt.check()?;
        match entry {
            Entry::Key(key) => {
                *contents.keys.entry(key.db).or_default() += 1;
                contents.expired += u64::from(key.expires_at_ms.is_some_and(|at| at <= now_ms));
                copy.key(key.db, key.entry)?;
                observer.on(&Event::At(key.entry.end()));
            }
            Entry::Function(code) if everything => {
                contents.functions += 1;
                let code = copy.read(code)?;
                written(copy.writer.function(&code))?;
            }
            Entry::ModuleAux { extent, .. } => {
                copy.flush()?;
                let bytes = copy.read(extent)?;
                written(copy.writer.encoded(&bytes))?;
            }
            Entry::Aux { name, value: Some(value) } if !NOT_PASSED_ON.contains(&name) && contents.keys.is_empty() => {
                written(copy.writer.aux(name, value))?;
            }
            Entry::SelectDb(selected) => db = selected,
            Entry::ResizeDb { keys, .. } if everything => {
                copy.flush()?;
                let mut bytes = Vec::new();
                put_select_db(db, &mut bytes);
                put_database_size(keys, &mut bytes);
                written(copy.writer.encoded(&bytes))?;
            }
            _ => {}
        }
        Ok(())
    })?;
    copy.finish()?;
    observer.on(&Event::StepDone);
    Ok((contents, version))
}

/// Copies keys that follow each other in one piece.
struct Copy<'a, W> {
    writer: RdbWriter<W>,
    file: File,
    saved: &'a Path,
    path: &'a Path,
    /// Keys of one database that are not copied yet.
    pending: Option<(u32, Extent)>,
    buffer: Vec<u8>,
}

impl<W: Write> Copy<'_, W> {
    fn key(&mut self, db: u32, entry: Extent) -> Result<(), RestoreError> {
        match &mut self.pending {
            Some((last, extent)) if *last == db && extent.end() == entry.offset && extent.len < COPY_BYTES => {
                extent.len += entry.len;
                Ok(())
            }
            _ => {
                self.flush()?;
                self.pending = Some((db, entry));
                Ok(())
            }
        }
    }

    fn flush(&mut self) -> Result<(), RestoreError> {
        let Some((db, extent)) = self.pending.take() else { return Ok(()) };
        let mut at = extent.offset;
        while at < extent.end() {
            let len = (extent.end() - at).min(COPY_BYTES);
            self.buffer.resize(len as usize, 0);
            self.file.read_exact_at(&mut self.buffer, at).map_err(RestoreError::io("read", self.saved))?;
            self.writer.entry(db, &self.buffer).map_err(|e| cannot_write(self.path, e))?;
            at += len;
        }
        Ok(())
    }

    fn read(&self, extent: Extent) -> Result<Vec<u8>, RestoreError> {
        let mut bytes = vec![0; extent.len as usize];
        self.file.read_exact_at(&mut bytes, extent.offset).map_err(RestoreError::io("read", self.saved))?;
        Ok(bytes)
    }

    fn finish(mut self) -> Result<(), RestoreError> {
        self.flush()?;
        self.writer.finish().map(drop).map_err(|e| cannot_write(self.path, e))
    }
}
