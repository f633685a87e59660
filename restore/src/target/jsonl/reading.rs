//! A file of JSON lines from front to end: first the header, last the line that counts all others.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read as _};
use std::path::{Path, PathBuf};

use redtape_wire::rdb::{Bytes, Value};

use super::parts::Parts;
use super::raw::{RawLine, bytes};
use super::{FORMAT, FUNCTION, VERSION};
use crate::error::RestoreError;

/// Longest line: that of the longest element that a server takes, each byte of it escaped.
const LINE_MAX: u64 = 4 << 30;
const READ_BYTES: usize = 1 << 20;

/// What the first line says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Header {
    /// The restore point.
    pub(crate) at: String,
    pub(crate) before: bool,
    pub(crate) lsn: u64,
    /// Of which journal.
    pub(crate) journal: String,
    /// Who made the base.
    pub(crate) server: String,
    /// Which keys, in words; `None` = everything.
    pub(crate) selection: Option<String>,
}

/// One thing of the dataset.
#[derive(Debug)]
pub(crate) enum Item {
    /// A function library.
    Function { name: String, code: Bytes },
    /// A key.
    Key(ReadKey),
}

/// A key with its value.
#[derive(Debug)]
pub(crate) struct ReadKey {
    /// Of its first line.
    pub(crate) line: u64,
    pub(crate) db: u32,
    pub(crate) key: Bytes,
    /// Milliseconds since 1970; 0 = never.
    pub(crate) expires_ms: i64,
    pub(crate) value: Value,
}

/// See the module.
pub(crate) struct Reading {
    path: PathBuf,
    from: BufReader<File>,
    pub(crate) header: Header,
    text: Vec<u8>,
    line: u64,
    /// Of the file, read so far.
    pub(crate) bytes: u64,
    keys: BTreeMap<u32, u64>,
    functions: u64,
    over: bool,
}

impl Reading {
    /// Opens it and reads the first line.
    pub(crate) fn open(path: &Path) -> Result<Self, RestoreError> {
        let file = File::open(path).map_err(RestoreError::io("open", path))?;
        let header = Header {
            at: String::new(),
            before: false,
            lsn: 0,
            journal: String::new(),
            server: String::new(),
            selection: None,
        };
        let mut reading = Self {
            path: path.to_owned(),
            from: BufReader::with_capacity(READ_BYTES, file),
            header,
            text: Vec::new(),
            line: 0,
            bytes: 0,
            keys: BTreeMap::new(),
            functions: 0,
            over: false,
        };
        let no_header = "it is no file of redtape restore --to-jsonl, whose first line names the format";
        let first = reading.next_line()?.ok_or_else(|| reading.bad("the file is empty"))?;
        if first.format.as_deref() != Some(FORMAT) {
            return Err(reading.bad(no_header));
        }
        match first.version {
            Some(VERSION) => {}
            Some(version @ VERSION..) => {
                return Err(
                    reading.bad(&format!("the file is of version {version}, that of a newer redtape: use that one"))
                );
            }
            _ => return Err(reading.bad("version is missing")),
        }
        let point = first.point.ok_or_else(|| reading.bad("point is missing"))?;
        reading.header = Header {
            at: point.time,
            before: point.before,
            lsn: point.lsn,
            journal: first.journal.unwrap_or_default(),
            server: first.server.unwrap_or_default(),
            selection: first.selection,
        };
        Ok(reading)
    }

    /// What is wrong with the line that was read last.
    fn bad(&self, what: &str) -> RestoreError {
        RestoreError::BadLine { path: self.path.clone(), line: self.line, what: what.to_owned() }
    }

    /// The next thing; `None` = the end, at which all was counted.
    pub(crate) fn next(&mut self) -> Result<Option<Item>, RestoreError> {
        if self.over {
            return Ok(None);
        }
        let line = self.next_line()?.ok_or_else(|| self.cut_off())?;
        if line.end.is_some() {
            self.check_end(&line)?;
            self.over = true;
            return Ok(None);
        }
        if line.kind.as_deref() == Some(FUNCTION) {
            let code = bytes("code", line.code, line.code_base64).map_err(|what| self.bad(&what))?;
            let name = line.name.ok_or_else(|| self.bad("name is missing"))?;
            self.functions += 1;
            return Ok(Some(Item::Function { name, code }));
        }
        self.key(line).map(|key| Some(Item::Key(key)))
    }

    fn key(&mut self, line: RawLine) -> Result<ReadKey, RestoreError> {
        let first = self.line;
        let mut more = line.more == Some(true);
        let mut parts = Parts::begin(line).map_err(|what| self.bad(&what))?;
        while more {
            let line = self.next_line()?.ok_or_else(|| self.cut_off())?;
            more = line.more == Some(true);
            parts.go_on(line).map_err(|what| self.bad(&what))?;
        }
        let (db, key, expires_ms) = (parts.db, parts.key.clone(), parts.expires_ms);
        let value = parts.finish().map_err(|what| self.bad(&what))?;
        *self.keys.entry(db).or_default() += 1;
        Ok(ReadKey { line: first, db, key, expires_ms, value })
    }

    fn cut_off(&self) -> RestoreError {
        self.bad("the file ends here, without its last line: it was cut off. Write it again, or copy it again")
    }

    fn check_end(&mut self, end: &RawLine) -> Result<(), RestoreError> {
        let keys: BTreeMap<String, u64> = self.keys.iter().map(|(db, keys)| (db.to_string(), *keys)).collect();
        let counted = (Some(&keys), Some(self.functions), Some(self.line));
        if (end.keys.as_ref(), end.functions, end.lines) != counted {
            return Err(self.bad(&format!(
                "this line counts other keys or lines than there are ({keys:?} keys by database, {} function libraries, {} lines): the file was changed or damaged. Write it again; keys are chosen with --key and the like, not by taking lines out",
                self.functions, self.line
            )));
        }
        if self.next_line()?.is_some() {
            return Err(self.bad("something follows behind the last line"));
        }
        Ok(())
    }

    /// `None` = there is none any more. The last one must end with a line feed, too.
    fn next_line(&mut self) -> Result<Option<RawLine>, RestoreError> {
        self.text.clear();
        let read = self.from.by_ref().take(LINE_MAX).read_until(b'\n', &mut self.text);
        let read = read.map_err(RestoreError::io("read", &self.path))?;
        if read == 0 {
            return Ok(None);
        }
        self.line += 1;
        self.bytes += read as u64;
        if self.text.last() != Some(&b'\n') {
            let what = if read as u64 == LINE_MAX {
                "the line is longer than 4 GiB"
            } else {
                "the file ends inside this line: it was cut off"
            };
            return Err(self.bad(what));
        }
        serde_json::from_slice(&self.text).map(Some).map_err(|e| {
            // The position is one within the line.
            let text = e.to_string();
            let text = text.rsplit_once(" at line ").map_or(text.as_str(), |(text, _)| text);
            self.bad(&format!("column {}: {text}", e.column()))
        })
    }
}
