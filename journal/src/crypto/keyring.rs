//! The operator's keys.

use std::fmt;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::files::{FileKind, read_named};
use crate::hex::unhex;
use base64::Engine as _;

use super::{KEY_LEN, Random, Sealer, WRAPPED_LEN, Wrapped, new_data_key, random};

/// The environment variable that may hold keys; it must not be handed on to other processes.
pub const KEYS_VARIABLE: &str = "REDTAPE_JOURNAL_KEYS";
/// Longest id of a key.
const MAX_ID: usize = 64;
/// No key file is larger.
pub(super) const MAX_FILE: u64 = 1 << 20;
/// Rights that only owner and group may have.
const OTHERS: u32 = 0o007;

/// Why keys cannot be used. Never says anything of the keys themselves.
#[derive(Debug, thiserror::Error)]
pub enum KeyringError {
    /// The file cannot be read.
    #[error("cannot read the key file {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// Everybody on the machine has access to the file.
    #[error("the key file {} is open to all users (mode {mode:03o}); run `chmod 600 {}`", path.display(), path.display())]
    OpenToAll {
        /// The file.
        path: PathBuf,
        /// Its rights.
        mode: u32,
    },
    /// A line is not what it must be.
    #[error("key {number}: {what}; each is `id:key`, the key being 32 bytes as 64 hex digits or in base64")]
    Line {
        /// Which one, counted from 1.
        number: usize,
        /// What is wrong.
        what: &'static str,
    },
    /// In one of several files.
    #[error("the key file {}: {fault}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        fault: Box<KeyringError>,
    },
    /// The file cannot be replaced.
    #[error("cannot write the key file {}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// It is no file that can be replaced.
    #[error("{} is {found}: name the key file itself", path.display())]
    NotAFile {
        /// What was named.
        path: PathBuf,
        /// What it is.
        found: FileKind,
    },
    /// Others add keys all the time.
    #[error("other processes are adding keys to {}; try again", path.display())]
    Busy {
        /// The file.
        path: PathBuf,
    },
    /// Another key of the file is marked with `*`, so that the new one would not be used.
    #[error("{}: the key `{id}` is marked with `*`; take the mark out first", path.display())]
    Marked {
        /// The file.
        path: PathBuf,
        /// The key that is marked.
        id: String,
    },
    /// Two keys have the same id.
    #[error("there are two different keys with the id `{0}`; an id must name one key for good")]
    Twice(String),
    /// More than one is to be the current one.
    #[error("both `{0}` and `{1}` are marked with `*`; only one key can encrypt what is written")]
    TwoMarked(String, String),
    /// There is no key at all.
    #[error("no key is given; each is `id:key`, the key being 32 bytes as 64 hex digits or in base64")]
    Empty,
}

/// Why a file cannot be decrypted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyFault {
    /// Its key is not there.
    #[error(
        "it is encrypted with key `{0}`, which is not among the keys given; give its file with --journal-key-file FILE, or the key itself in REDTAPE_JOURNAL_KEYS"
    )]
    Missing(String),
    /// There is a key with that id, and it is another one.
    #[error("it is encrypted with another key than the `{0}` that was given, or it is damaged")]
    Wrong(String),
}

/// Keys by their ids; one of them encrypts what is written, all decrypt. Without keys, what is written is not
/// encrypted.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Keyring {
    keys: Arc<[(String, [u8; KEY_LEN])]>,
    current: usize,
    /// The current one is marked as such, and not only the last one.
    marked: bool,
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.keys.iter().map(|(id, _)| (id, "***"))).finish()
    }
}

impl Keyring {
    /// Reads keys, `id:key` each, separated by line ends or commas. The one with `*` before its id encrypts what
    /// is written; without such a mark, the last one does. Lines that begin with `#` are comments.
    pub fn parse(text: &str) -> Result<Self, KeyringError> {
        let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
        let entries = lines.flat_map(|line| line.split(',')).map(str::trim).filter(|entry| !entry.is_empty());
        let mut keys: Vec<(String, [u8; KEY_LEN])> = Vec::new();
        let mut marked = None;
        for (n, entry) in entries.enumerate() {
            let wrong = |what| KeyringError::Line { number: n + 1, what };
            let (id, key) = entry.split_once(':').ok_or_else(|| wrong("it has no colon"))?;
            let (id, is_marked) = id.strip_prefix('*').map_or((id, false), |id| (id, true));
            let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
            if !(1..=MAX_ID).contains(&id.len()) || !id.chars().all(plain) {
                return Err(wrong("its id is not 1 to 64 letters, digits, `.`, `_` and `-`"));
            }
            if keys.iter().any(|(other, _)| other == id) {
                return Err(wrong("its id was there before"));
            }
            if is_marked && marked.replace(n).is_some() {
                return Err(wrong("a second one is marked with `*`"));
            }
            keys.push((id.to_owned(), decode(key.trim()).ok_or_else(|| wrong("it is not a key"))?));
        }
        let last = keys.len().checked_sub(1).ok_or(KeyringError::Empty)?;
        Ok(Self { keys: keys.into(), current: marked.unwrap_or(last), marked: marked.is_some() })
    }

    /// Reads a key file, which must not be open to all users.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, KeyringError> {
        let path = path.as_ref();
        let io_error = |source| KeyringError::Io { path: path.to_owned(), source };
        let (file, bytes) = read_named(path, MAX_FILE).map_err(io_error)?;
        let mode = file.metadata().map_err(io_error)?.permissions().mode() & 0o777;
        if mode & OTHERS != 0 {
            return Err(KeyringError::OpenToAll { path: path.to_owned(), mode });
        }
        let wrong = |fault| KeyringError::File { path: path.to_owned(), fault: Box::new(fault) };
        let text = String::from_utf8(bytes).map_err(|_| io_error(io::ErrorKind::InvalidData.into()))?;
        Self::parse(&text).map_err(wrong)
    }

    /// Adds the keys of another ring. Its current key becomes that of both, unless only this one's is marked with `*`.
    pub fn and(self, other: &Self) -> Result<Self, KeyringError> {
        let (Some(mine), Some(theirs)) = (self.current(), other.current()) else {
            return Ok(if self.keys.is_empty() { other.clone() } else { self });
        };
        if self.marked && other.marked && mine != theirs {
            return Err(KeyringError::TwoMarked(mine.to_owned(), theirs.to_owned()));
        }
        let current = if self.marked { mine } else { theirs };
        let mut keys = self.keys.to_vec();
        for (id, key) in other.keys.iter() {
            match keys.iter().find(|(known, _)| known == id) {
                None => keys.push((id.clone(), *key)),
                Some((_, known)) if known == key => {}
                Some(_) => return Err(KeyringError::Twice(id.clone())),
            }
        }
        let current = keys.iter().position(|(id, _)| id == current).unwrap_or_default();
        Ok(Self { current, marked: self.marked || other.marked, keys: keys.into() })
    }

    /// A new key, drawn by the kernel, as a line of a key file.
    pub fn new_line(id: &str) -> io::Result<String> {
        let key = new_data_key(random)?;
        Ok(format!("{id}:{}\n", base64::engine::general_purpose::STANDARD.encode(key)))
    }

    /// The ids of all keys.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.keys.iter().map(|(id, _)| id.as_str())
    }

    /// Whether it still has the key with which the other one encrypts; else the id of that.
    pub fn keeps_current_of(&self, other: &Self) -> Result<(), String> {
        match other.keys.get(other.current) {
            Some(current) if !self.keys.contains(current) => Err(current.0.clone()),
            _ => Ok(()),
        }
    }

    /// The id of the key that encrypts what is written.
    pub fn current(&self) -> Option<&str> {
        self.keys.get(self.current).map(|(id, _)| id.as_str())
    }

    /// The same keys; new data keys are wrapped with this one.
    pub(crate) fn with_current(&self, id: &str) -> Option<Self> {
        let current = self.keys.iter().position(|(known, _)| known == id)?;
        Some(Self { current, ..self.clone() })
    }

    /// A new data key for a file that begins with `place`, wrapped with the current key.
    pub(crate) fn new_sealer(&self, random: Random, place: &[u8]) -> io::Result<Option<(Sealer, Wrapped)>> {
        let data_key = new_data_key(random)?;
        Ok(self.wrap(&data_key, place).map(|wrapped| (Sealer::new(&data_key), wrapped)))
    }

    /// Wraps a data key with the current key, if there is one.
    pub(crate) fn wrap(&self, data_key: &[u8; KEY_LEN], place: &[u8]) -> Option<Wrapped> {
        let (id, key) = self.keys.get(self.current)?;
        let mut bytes = [0; WRAPPED_LEN];
        bytes.copy_from_slice(&Sealer::of_data_keys(key).seal(place, data_key));
        Some(Wrapped { key_id: id.clone(), bytes })
    }

    /// The data key of a file that begins with `place`.
    pub(crate) fn unwrap(&self, wrapped: &Wrapped, place: &[u8]) -> Result<Sealer, KeyFault> {
        let id = &wrapped.key_id;
        let found = self.keys.iter().find(|(known, _)| known == id);
        let (_, key) = found.ok_or_else(|| KeyFault::Missing(id.clone()))?;
        let data_key = Sealer::of_data_keys(key).open(place, &wrapped.bytes);
        let data_key = data_key.as_deref().and_then(<[u8]>::first_chunk::<KEY_LEN>);
        data_key.map(Sealer::new).ok_or_else(|| KeyFault::Wrong(id.clone()))
    }
}

/// 32 bytes, as hex digits or in base64.
fn decode(text: &str) -> Option<[u8; KEY_LEN]> {
    if let Some(key) = unhex(text) {
        return Some(key);
    }
    base64::engine::general_purpose::STANDARD.decode(text).ok()?.try_into().ok()
}
