//! JSON lines as the target: everything that a dataset holds, typed, one object a line (`docs/json.md` is the contract).
//!
//! ```text
//! header │ function library … │ key … │ end, which counts them
//! ```
//!
//! A large value takes several lines, so that no line is longer than its longest element, and neither side holds more than one value. A
//! file without its last line was cut off.
//!
//! - `lines`: a value as lines. Pure.
//! - `raw`, `parts`, `stream_parts`: lines as values, with what is wrong with them. Pure.
//! - `reading`: a file from front to end.

mod lines;
mod parts;
mod raw;
pub(crate) mod reading;
mod stream_parts;

use std::collections::BTreeMap;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use redtape_journal::Micros;
use redtape_journal::query::Filter;
use serde_json::{Value as Json, json};

use self::lines::{KeyHead, key_lines};
use super::lookup::show;
use super::new_file::{NewFile, cannot_write};
use super::restored::Written;
use super::value_error::unreadable;
use crate::error::RestoreError;
use crate::interrupt::Interrupt;
use crate::json::{Object, point, put};
use crate::libraries;
use crate::progress::{Event, Observer, Unit};
use crate::source::Source;
use crate::source::scratch::Scratch;
use crate::values::saved::{Saved, SavedKey, Values};

/// The name of the format, in its first line.
const FORMAT: &str = "redtape-jsonl";
/// Its version. A reader refuses a later one, and fields that it does not know.
const VERSION: u64 = 1;
/// `type` of a line with a function library.
const FUNCTION: &str = "function";
/// Bytes that are written at once.
const WRITE_BYTES: usize = 1 << 20;

/// What is written.
pub(crate) struct Job<'a> {
    pub(crate) source: &'a Source,
    pub(crate) filter: &'a Filter,
    pub(crate) interrupt: &'a Interrupt,
}

/// Writes a file.
pub(crate) fn write(job: &Job<'_>, mut file: NewFile, observer: &mut dyn Observer) -> Result<Written, RestoreError> {
    let (to, path) = file.parts();
    let written = write_to(job, to, (path, cannot_write), observer)?;
    file.place()?;
    Ok(written)
}

/// Writes to standard output.
pub(crate) fn write_to_stdout(job: &Job<'_>, observer: &mut dyn Observer) -> Result<Written, RestoreError> {
    // A part may have been read already.
    let failed = |path: &Path, source| RestoreError::Io { action: "write", path: path.to_owned(), source };
    write_to(job, io::stdout().lock(), (Path::new("standard output"), failed), observer)
}

/// The path is for messages.
fn write_to(
    job: &Job<'_>,
    to: impl Write,
    (path, failed): (&Path, Failed),
    observer: &mut dyn Observer,
) -> Result<Written, RestoreError> {
    let (mut scratch, _) = job.source.rebuild(observer)?;
    let saved = Saved::of(&mut scratch)?;
    let to = BufWriter::with_capacity(WRITE_BYTES, to);
    let mut out = Out { to, path, failed, keys: BTreeMap::new(), expired: 0, functions: 0, lines: 0, bytes: 0 };
    out.line(&header(job))?;
    out.functions(job, &mut scratch)?;
    let total = scratch.server.info(Some("keyspace"))?.keyspace().values().sum();
    observer.on(&Event::Step { name: "writing the file", total, unit: Unit::Keys });
    let (mut values, now_ms, mut seen) = (saved.values()?, Micros::now().0 / 1000, 0);
    saved.each(job.filter, &mut |db, keys| {
        for saved in keys {
            job.interrupt.check()?;
            out.key(db, &saved, &mut values, now_ms)?;
            seen += 1;
        }
        observer.on(&Event::At(seen));
        Ok(())
    })?;
    observer.on(&Event::StepDone);
    if out.keys.is_empty() && !job.filter.is_everything() {
        return Err(RestoreError::NoKeys);
    }
    out.end()
}

/// The first line: what the file holds.
fn header(job: &Job<'_>) -> Json {
    let (source, selection) = (job.source, (!job.filter.is_everything()).then(|| job.filter.to_string()));
    json!({
        "format": FORMAT,
        "version": VERSION,
        "point": point(&source.point),
        "journal": source.journal_id(),
        "server": source.point.base.manifest.server_version,
        "selection": selection,
    })
}

/// What is said where a line cannot be written.
type Failed = fn(&Path, io::Error) -> RestoreError;

/// The lines on their way.
struct Out<'a, W: Write> {
    to: BufWriter<W>,
    path: &'a Path,
    failed: Failed,
    keys: BTreeMap<u32, u64>,
    expired: u64,
    functions: usize,
    /// The first one included.
    lines: u64,
    bytes: u64,
}

impl<W: Write> Out<'_, W> {
    fn line(&mut self, line: &Json) -> Result<(), RestoreError> {
        let mut text = line.to_string();
        text.push('\n');
        self.to.write_all(text.as_bytes()).map_err(|e| (self.failed)(self.path, e))?;
        self.lines += 1;
        self.bytes += text.len() as u64;
        Ok(())
    }

    fn functions(&mut self, job: &Job<'_>, scratch: &mut Scratch) -> Result<(), RestoreError> {
        if !job.filter.is_everything() {
            return Ok(());
        }
        for (name, code) in libraries::read(&mut scratch.server)?.unwrap_or_default() {
            let mut line = Object::from_iter([
                ("type".to_owned(), json!(FUNCTION)),
                ("name".to_owned(), json!(String::from_utf8_lossy(&name))),
            ]);
            put(&mut line, "code", &code);
            self.line(&Json::Object(line))?;
            self.functions += 1;
        }
        Ok(())
    }

    fn key(&mut self, db: u32, saved: &SavedKey, values: &mut Values<'_>, now_ms: i64) -> Result<(), RestoreError> {
        if saved.has_metadata() {
            return Err(RestoreError::Unable(format!(
                "a module has put something on {} in db {db} that JSON lines have no place for; write an RDB (--to-rdb), or leave it out (--exclude-key)",
                show(&saved.key)
            )));
        }
        let value = values.image(saved)?.full_value().map_err(|e| unreadable(&saved.key, e))?;
        let head = KeyHead { db, key: &saved.key, expires_ms: saved.expires_ms };
        key_lines(&head, &value, &mut |line| self.line(&Json::Object(line)))?;
        *self.keys.entry(db).or_default() += 1;
        self.expired += u64::from(saved.expires_ms != 0 && saved.expires_ms <= now_ms);
        Ok(())
    }

    /// The last line.
    fn end(mut self) -> Result<Written, RestoreError> {
        let keys: Object = self.keys.iter().map(|(db, keys)| (db.to_string(), json!(keys))).collect();
        self.line(&json!({"end": true, "keys": keys, "functions": self.functions, "lines": self.lines + 1}))?;
        self.to.flush().map_err(|e| (self.failed)(self.path, e))?;
        let Self { keys, expired, functions, bytes, .. } = self;
        let (checks, warnings) = (Vec::new(), Vec::new());
        Ok(Written { keys, expired, functions, bytes, rdb: None, history: None, checks, warnings })
    }
}

#[cfg(test)]
mod tests;
