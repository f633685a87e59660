//! The file `meta`: which journal this is. Written once, as a whole, before anything else; a
//! directory without it is no journal.

use std::io;

use serde::{Deserialize, Serialize};

use crate::FORMAT_VERSION;
use crate::directory::{Directory, TEMPORARY, write_atomically};
use crate::error::{Damage, OpenError, Span};
use crate::hex::{hex, unhex};
use crate::types::Micros;

/// What a journal says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    /// Version of the directory's format.
    pub format: u32,
    /// 32 hex digits, random.
    pub journal_id: String,
    /// When it was created.
    pub created: Micros,
    /// Where the data comes from, without secrets.
    #[serde(default)]
    pub source: String,
}

/// The only field that every version has.
#[derive(Deserialize)]
struct AnyVersion {
    format: u32,
}

impl Meta {
    /// A new journal.
    pub(crate) fn new(journal_id: [u8; 16], created: Micros, source: String) -> Self {
        Self { format: FORMAT_VERSION, journal_id: hex(&journal_id), created, source }
    }

    /// The id as bytes.
    pub(crate) fn id(&self) -> Option<[u8; 16]> {
        unhex(&self.journal_id)
    }

    /// Reads it; `None` if there is none.
    pub(crate) fn load(dir: &Directory) -> Result<Option<Self>, OpenError> {
        let path = dir.meta();
        let bytes = match crate::files::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(OpenError::io("read", &path)(e)),
        };
        let corrupt = |found: String| OpenError::Corrupt {
            file: path.clone(),
            offset: 0,
            span: Span::default(),
            damage: Box::new(Damage::new("the JSON of a journal's meta", found)),
        };
        let AnyVersion { format } = serde_json::from_slice(&bytes).map_err(|e| corrupt(e.to_string()))?;
        if format > FORMAT_VERSION {
            return Err(OpenError::NewerFormat { file: path, found: format, supported: FORMAT_VERSION });
        }
        let meta: Self = serde_json::from_slice(&bytes).map_err(|e| corrupt(e.to_string()))?;
        if meta.id().is_none() {
            return Err(corrupt(format!("the journal id `{}`", meta.journal_id)));
        }
        Ok(Some(meta))
    }

    /// Puts it in place.
    pub(crate) fn store(&self, dir: &Directory) -> Result<(), OpenError> {
        let path = dir.meta();
        let mut json = serde_json::to_vec(self).map_err(|e| OpenError::io("encode", &path)(io::Error::other(e)))?;
        json.push(b'\n');
        write_atomically(&path, &json).map_err(OpenError::io("write", &path))
    }
}

/// The error for reading from a directory without `meta`.
pub(crate) fn not_a_journal(dir: &Directory) -> OpenError {
    let root = dir.root().to_owned();
    match foreign_files(dir) {
        Ok(Some(found)) => OpenError::NotAJournal { dir: root, found },
        Ok(None) => OpenError::NoJournal { dir: root },
        Err(OpenError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            OpenError::NoJournal { dir: root }
        }
        Err(other) => other,
    }
}

/// Names the files that no journal leaves beside a missing `meta`.
pub(crate) fn foreign_files(dir: &Directory) -> Result<Option<String>, OpenError> {
    let root = dir.root();
    let mut foreign = Vec::new();
    for entry in std::fs::read_dir(root).map_err(OpenError::io("list", root))? {
        let entry = entry.map_err(OpenError::io("list", root))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let ours = name == "lock" || name == "lost+found" || name.starts_with(TEMPORARY);
        if !ours {
            foreign.push(name);
        }
    }
    if foreign.is_empty() {
        return Ok(None);
    }
    foreign.sort_unstable();
    let more = foreign.len().saturating_sub(3);
    foreign.truncate(3);
    let mut found = foreign.join(", ");
    if more > 0 {
        found = format!("{found} and {more} more");
    }
    Ok(Some(found))
}
