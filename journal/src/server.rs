//! The file `server`: which servers this journal has recorded, so that another one is not taken for them.
//!
//! A line for each identity, in the form of [`crate::marks`]: appended and synced, each with its checksum, oldest first. The
//! journal only keeps and compares the texts; whether a server may be recorded is decided by its caller.
//!
//! Only the process that holds the writer's lock writes here, or a repair, which holds it too. A crash leaves at most a torn last
//! line: it is left out, and the next line begins on a new one. A line that is damaged costs that identity: it is noted,
//! verification tells it, repair leaves it out.

use std::io::{self, Read};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::directory::{Directory, write_atomically};
use crate::error::StoreError;
use crate::files;
use crate::jsonl::{append, encode, parse};
use crate::types::{Micros, ReplOffset};

/// Longest text in a line, in bytes.
const MAX_TEXT: usize = 4 << 10;
/// A line that would make the file larger replaces its older half. A line has about 300 bytes.
const MAX_KEPT: u64 = if cfg!(test) { 2 << 10 } else { 4 << 20 };
/// A larger file was not written by redtape; it is not read.
const MAX_READ: u64 = 16 << 20;

/// The history that a server continues as its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreviousHistory {
    /// Its id (Redis: `master_replid2`).
    pub replid: String,
    /// Up to where it is that of the server, too (Redis: `second_repl_offset`).
    pub until: ReplOffset,
}

/// A server as it was when it was followed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerIdentity {
    /// Id of the running process (Redis: `run_id`); empty where the server does not say it.
    pub run_id: String,
    /// Id of its history (Redis: `master_replid`).
    pub replid: String,
    /// Where it was in that history (Redis: `master_repl_offset`).
    pub offset: ReplOffset,
    /// The history that it continues, if any.
    pub previous: Option<PreviousHistory>,
    /// Its address as configured, without secrets.
    pub address: String,
    /// When it was first seen like this.
    pub seen: Micros,
    /// The operator has allowed recording its history in this journal.
    pub accepted: bool,
}

impl ServerIdentity {
    fn histories(&self) -> impl Iterator<Item = &str> {
        let previous = self.previous.as_ref().map(|previous| previous.replid.as_str());
        [Some(self.replid.as_str()), previous].into_iter().flatten().filter(|id| !id.is_empty())
    }

    /// Whether a history of one is a history of the other: an empty id is none.
    pub fn shares_history(&self, other: &Self) -> bool {
        self.histories().any(|id| other.histories().any(|theirs| theirs == id))
    }

    /// The same identity, whenever it was seen.
    fn is_same(&self, other: &Self) -> bool {
        let timeless = |it: &Self| Self { offset: ReplOffset(0), seen: Micros(0), ..it.clone() };
        timeless(self) == timeless(other)
    }

    fn check(&self) -> io::Result<()> {
        let previous = self.previous.as_ref().map_or("", |previous| &previous.replid);
        let texts = [("run id", &*self.run_id), ("replication id", &self.replid), ("address", &self.address)];
        match texts.into_iter().chain([("previous replication id", previous)]).find(|(_, text)| text.len() > MAX_TEXT) {
            None => Ok(()),
            Some((what, text)) => {
                let what = format!("the {what} has {} bytes, more than {MAX_TEXT}", text.len());
                Err(io::Error::new(io::ErrorKind::InvalidInput, what))
            }
        }
    }
}

/// All that the file says, oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KnownServers {
    all: Vec<ServerIdentity>,
    damaged: Vec<u64>,
    bytes: u64,
}

impl KnownServers {
    /// Reads it; without the file, nothing is known. `dir` is the journal's directory.
    pub fn load(dir: impl AsRef<Path>) -> Result<Self, StoreError> {
        Self::load_in(&Directory::new(dir))
    }

    pub(crate) fn load_in(dir: &Directory) -> Result<Self, StoreError> {
        let path = dir.server();
        let read = || -> io::Result<Vec<u8>> {
            let mut bytes = Vec::new();
            let file = match files::open_read(&path) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(bytes),
                other => other?,
            };
            if file.take(MAX_READ + 1).read_to_end(&mut bytes)? as u64 > MAX_READ {
                let what = format!("it has more than {} MiB: redtape has not written it", MAX_READ >> 20);
                return Err(io::Error::new(io::ErrorKind::InvalidData, what));
            }
            Ok(bytes)
        };
        read().map(|bytes| Self::parse(&bytes)).map_err(StoreError::io("read", &path))
    }

    /// What the bytes of such a file say.
    pub(crate) fn parse(bytes: &[u8]) -> Self {
        let (all, damaged) = parse(bytes);
        Self { all, damaged, bytes: bytes.len() as u64 }
    }

    /// Every identity, oldest first.
    pub fn all(&self) -> &[ServerIdentity] {
        &self.all
    }

    /// The one that was recorded last.
    pub fn latest(&self) -> Option<&ServerIdentity> {
        self.all.last()
    }

    /// The newest one that shares a history with this one.
    pub fn known(&self, server: &ServerIdentity) -> Option<&ServerIdentity> {
        self.all.iter().rev().find(|known| known.shares_history(server))
    }

    /// Where lines are damaged: what they said is lost.
    pub fn damaged(&self) -> &[u64] {
        &self.damaged
    }

    /// Puts the file in place without its damaged lines.
    pub(crate) fn store(&self, dir: &Directory) -> io::Result<()> {
        crate::jsonl::store(&dir.server(), &self.all)
    }
}

/// Appends an identity and syncs it. `false` = the last line says the same, but for offset and time, and nothing was written. Called only
/// by the process that holds the journal open for writing. `dir` is the journal's directory.
pub fn add_server(dir: impl AsRef<Path>, server: &ServerIdentity) -> Result<bool, StoreError> {
    let dir = Directory::new(dir);
    let path = dir.server();
    let known = KnownServers::load_in(&dir)?;
    if known.latest().is_some_and(|latest| latest.is_same(server)) {
        return Ok(false);
    }
    let add = || {
        server.check()?;
        let line = encode(server)?;
        if known.bytes + line.len() as u64 > MAX_KEPT {
            return replace_older_half(&dir, &known, &line);
        }
        append(files::open_append(&path)?, &line, dir.root())
    };
    add().map(|()| true).map_err(StoreError::io("append to", &path))
}

/// A server that restarts for years must not make the file grow for ever.
fn replace_older_half(dir: &Directory, known: &KnownServers, line: &str) -> io::Result<()> {
    let newer = &known.all[known.all.len().div_ceil(2)..];
    let mut text = newer.iter().map(encode).collect::<io::Result<String>>()?;
    text.push_str(line);
    write_atomically(&dir.server(), text.as_bytes())
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(crate) fn server(replid: &str, previous: Option<&str>) -> ServerIdentity {
        ServerIdentity {
            run_id: "b0a1".to_owned(),
            replid: replid.to_owned(),
            offset: ReplOffset(1453),
            previous: previous.map(|id| PreviousHistory { replid: id.to_owned(), until: ReplOffset(1000) }),
            address: "redis://10.0.0.1:6379".to_owned(),
            seen: Micros(1_000_000),
            accepted: false,
        }
    }

    #[test]
    fn identities_come_back_and_the_same_one_is_written_once() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(KnownServers::load(root.path()).unwrap(), KnownServers::default());
        let (one, two) = (server("aa", None), server("bb", Some("aa")));
        assert!(add_server(root.path(), &one).unwrap());
        assert!(
            !add_server(root.path(), &ServerIdentity { seen: Micros(2), offset: ReplOffset(9), ..one.clone() })
                .unwrap()
        );
        assert!(add_server(root.path(), &two).unwrap());
        assert!(add_server(root.path(), &one).unwrap(), "it is not the last one");
        let known = KnownServers::load(root.path()).unwrap();
        assert_eq!(known.all(), [one.clone(), two, one.clone()]);
        assert_eq!((known.latest(), known.damaged()), (Some(&one), &[][..]));
    }

    #[test]
    fn a_server_is_known_by_either_history_and_never_by_none() {
        let root = tempfile::tempdir().unwrap();
        add_server(root.path(), &server("bb", Some("aa"))).unwrap();
        add_server(root.path(), &server("", None)).unwrap();
        let known = KnownServers::load(root.path()).unwrap();
        for (replid, previous, expected) in [
            ("bb", None, true),
            ("aa", None, true),
            ("cc", Some("bb"), true),
            ("cc", Some("aa"), true),
            ("cc", None, false),
            ("cc", Some("dd"), false),
            ("", None, false),
            ("", Some(""), false),
        ] {
            assert_eq!(known.known(&server(replid, previous)).is_some(), expected, "{replid} {previous:?}");
        }
    }

    #[test]
    fn a_torn_or_damaged_line_costs_only_itself() {
        let root = tempfile::tempdir().unwrap();
        let dir = Directory::new(root.path());
        add_server(root.path(), &server("aa", None)).unwrap();
        let whole = std::fs::read(dir.server()).unwrap();
        for cut in 1..whole.len() {
            std::fs::write(dir.server(), &whole[..cut]).unwrap();
            let known = KnownServers::load(root.path()).unwrap();
            assert_eq!((known.all().len(), known.damaged().len()), (0, 0), "cut at {cut}");
            add_server(root.path(), &server("bb", None)).unwrap();
            let known = KnownServers::load(root.path()).unwrap();
            assert_eq!(known.latest().unwrap().replid, "bb", "cut at {cut}");
            assert_eq!(
                (known.all().len(), known.damaged().len()),
                (1, 0),
                "nothing of the torn line stays, cut at {cut}"
            );
        }
        for bit in 0..(whole.len() - 1) * 8 {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let known = KnownServers::parse(&bytes);
            assert!(known.all().is_empty() && !known.damaged().is_empty(), "bit {bit}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_parsed_and_what_is_damaged_lies_within(bytes: Vec<u8>, at: prop::sample::Index, cut: prop::sample::Index) {
            let known = KnownServers::parse(&bytes);
            prop_assert!(known.damaged().iter().all(|at| *at < bytes.len() as u64));
            let line = encode(&server("aa", Some("bb"))).unwrap();
            let mut whole = [line.as_bytes(), line.as_bytes()].concat();
            let at = at.index(whole.len());
            whole.splice(at..at, bytes);
            whole.truncate(cut.index(whole.len() + 1));
            let known = KnownServers::parse(&whole);
            prop_assert!(known.all().iter().all(|known| *known == server("aa", Some("bb"))));
        }
    }

    #[test]
    fn the_file_does_not_grow_for_ever_and_long_texts_are_refused() {
        let root = tempfile::tempdir().unwrap();
        let dir = Directory::new(root.path());
        for n in 0..200 {
            assert!(add_server(root.path(), &server(&format!("{n:040}"), None)).unwrap());
            assert!(std::fs::metadata(dir.server()).unwrap().len() <= MAX_KEPT);
            assert_eq!(KnownServers::load(root.path()).unwrap().latest().unwrap().replid, format!("{n:040}"));
        }
        assert!(KnownServers::load(root.path()).unwrap().all().len() > 3);
        let long = server(&"x".repeat(MAX_TEXT + 1), None);
        assert!(add_server(root.path(), &long).unwrap_err().to_string().contains("replication id has 4097 bytes"));
        std::fs::File::create(dir.server()).unwrap().set_len(MAX_READ + 1).unwrap();
        assert!(KnownServers::load(root.path()).unwrap_err().to_string().contains("16 MiB"));
    }
}
