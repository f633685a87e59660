//! The file `meta`: which journal this is. Written once, as a whole, before anything else; a
//! directory without it is no journal.

use std::io;

use serde::{Deserialize, Serialize};

use crate::FORMAT_VERSION;
use crate::directory::{Directory, write_atomically};
use crate::error::{Damage, OpenError, Span};
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

/// Bytes from as many pairs of hex digits.
pub(crate) fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    if text.len() != 2 * N {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
        let digit = |b: u8| char::from(b).to_digit(16);
        *byte = (digit(pair[0])? * 16 + digit(pair[1])?) as u8;
    }
    Some(bytes)
}

/// Lower-case hex digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    let digit = |n: u8| char::from(b"0123456789abcdef"[usize::from(n & 15)]);
    bytes.iter().flat_map(|&b| [digit(b >> 4), digit(b)]).collect()
}
