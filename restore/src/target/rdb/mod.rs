//! An RDB as the target: what a server saves, cut to the wanted keys, in a file that servers load.
//!
//! By default it is the scratch server's own version. A server of a version that does not load the base gets the values one by one
//! (`other_version`), and saves them.

mod cut;
mod other_version;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Seek as _, SeekFrom, Write as _};
use std::path::Path;

use redtape_journal::query::Filter;
use redtape_wire::rdb::{Entry, Walker};

use self::cut::{Contents, Head, cut};
use super::new_file::{NewFile, cannot_write};
use super::restored::Written;
use crate::error::RestoreError;
use crate::interrupt::Interrupt;
use crate::progress::Observer;
use crate::source::Source;
use crate::source::binary::Binary;
use crate::source::scratch::Scratch;
use crate::values::saved::Saved;

/// Bytes that are written at once.
const WRITE_BYTES: usize = 1 << 20;

/// What is written.
pub(crate) struct Job<'a> {
    pub(crate) source: &'a Source,
    /// The server that saves, if it is not the scratch server.
    pub(crate) saver: Option<&'a Binary>,
    pub(crate) filter: &'a Filter,
    pub(crate) interrupt: &'a Interrupt,
}

/// Writes a file.
pub(crate) fn write(job: &Job<'_>, mut file: NewFile, observer: &mut dyn Observer) -> Result<Written, RestoreError> {
    let written = write_to(job, file.parts(), observer)?;
    file.place()?;
    Ok(written)
}

/// Writes to an empty file, and reads it again. The path is for messages.
pub(crate) fn write_to(
    job: &Job<'_>,
    out: (&mut File, &Path),
    observer: &mut dyn Observer,
) -> Result<Written, RestoreError> {
    let (mut scratch, _) = job.source.rebuild(observer)?;
    let saved = Saved::of(&mut scratch)?;
    let mut warnings = Vec::new();
    let Some(saver) = job.saver else {
        return fill(job, &scratch, &saved, out, warnings, observer);
    };
    let mut other = other_version::carry(job, saver, (&mut scratch, &saved), &mut warnings, observer)?;
    // The other one has all of it now.
    drop(scratch);
    let saved = Saved::of(&mut other)?;
    fill(job, &other, &saved, out, warnings, observer)
}

fn fill(
    job: &Job<'_>,
    scratch: &Scratch,
    saved: &Saved,
    (file, path): (&mut File, &Path),
    warnings: Vec<String>,
    observer: &mut dyn Observer,
) -> Result<Written, RestoreError> {
    let (major, minor, patch) = scratch.version.number;
    let head = Head { server_version: format!("{major}.{minor}.{patch}"), at: job.source.point.asked };
    let mut out = BufWriter::with_capacity(WRITE_BYTES, &mut *file);
    let (contents, rdb) = cut(saved, job.filter, &head, (&mut out, path), job.interrupt, observer)?;
    out.flush().map_err(|e| cannot_write(path, e))?;
    drop(out);
    if contents.keys.is_empty() && !job.filter.is_everything() {
        return Err(RestoreError::NoKeys);
    }
    look_again(file, path, &contents, job.interrupt)?;
    let bytes = file.metadata().map_err(|e| cannot_write(path, e))?.len();
    let checks = vec!["the file was read again: its checksum is right, and all keys are in it".to_owned()];
    let Contents { keys, expired, functions } = contents;
    Ok(Written { keys, expired, functions, bytes, rdb: Some(rdb.to_string()), history: None, checks, warnings })
}

/// Reads what was written.
fn look_again(file: &mut File, path: &Path, expected: &Contents, interrupt: &Interrupt) -> Result<(), RestoreError> {
    const LOOK_EVERY: u64 = 4096;
    let wrong =
        |e: &dyn std::fmt::Display| RestoreError::Verify(format!("the RDB that was written cannot be read: {e}"));
    file.seek(SeekFrom::Start(0)).map_err(RestoreError::io("read", path))?;
    let mut walker = Walker::new(file).map_err(|e| wrong(&e))?;
    let (mut keys, mut functions, mut seen): (BTreeMap<u32, u64>, usize, u64) = (BTreeMap::new(), 0, 0);
    while let Some(entry) = walker.next_entry().map_err(|e| wrong(&e))? {
        match entry {
            Entry::Key(key) => *keys.entry(key.db).or_default() += 1,
            Entry::Function(_) => functions += 1,
            _ => {}
        }
        seen += 1;
        if seen.is_multiple_of(LOOK_EVERY) {
            interrupt.check()?;
        }
    }
    if (&keys, functions) == (&expected.keys, expected.functions) {
        return Ok(());
    }
    Err(RestoreError::Verify(format!(
        "{keys:?} keys and {functions} function libraries are in the RDB, {:?} and {} were written",
        expected.keys, expected.functions
    )))
}
