//! Entries that come back, runs that go on. `damage`: what is refused. `files`: names, rights, locks, a full disk.

mod damage;
mod files;
mod model;

use std::fs;
use std::path::{Path, PathBuf};

use super::*;
use crate::crypto::Keyring;
use crate::model::keyring;
use crate::types::Micros;

pub(crate) fn operation() -> Operation {
    let journal_id = "6a6f75726e616c20696e207465737473".to_owned();
    let described: [(&str, &[u8]); 2] = [("journal", journal_id.as_bytes()), ("lsn", b"17")];
    Operation {
        id: OperationId::derive(&described),
        journal_id,
        target: UndoTarget { address: "redis://10.0.0.1:6379".to_owned(), replication_id: "8f0c".to_owned() },
        created: Micros(1_795_000_000_123_456),
        what: "restore user:* as of 2026-11-18T09:46:40Z".to_owned(),
    }
}

fn bytes(text: &str) -> std::borrow::Cow<'_, [u8]> {
    text.as_bytes().into()
}

/// One entry of each kind; the value takes several parts.
pub(crate) fn entries() -> Vec<UndoEntry<'static>> {
    let value = "a value in several parts; ".repeat(9).into_bytes();
    vec![
        UndoEntry::Absent { db: 0, key: bytes("user:1"), written: [1; 16] },
        UndoEntry::Value { db: 3, key: bytes("user:2"), expires_ms: -1, dump: value.into(), written: [2; 16] },
        UndoEntry::ElementAbsent { db: 0, key: bytes("hash"), element: bytes("field"), written: [3; 16] },
        UndoEntry::Done { first: EntryNumber(0), last: EntryNumber(1) },
        UndoEntry::Element {
            db: 300,
            key: bytes("hash"),
            element: bytes(""),
            value: bytes("1.5"),
            expires_ms: 1_795_000_000_001,
            written: [4; 16],
        },
        UndoEntry::NotWritten { entry: EntryNumber(8) },
        UndoEntry::Ttl { db: 0, key: bytes("user:3"), expires_ms: 0, written_ms: 1_795_000_000_000 },
        UndoEntry::Moved { db: 0, key: bytes("user:4"), temporary: bytes("redtape:old:user:4"), written: [5; 16] },
        UndoEntry::Value { db: 0, key: bytes("user:4"), expires_ms: 0, dump: bytes("old"), written: [5; 16] },
        UndoEntry::Library { name: bytes("old"), code: bytes("#!lua name=old\n"), written: [0; 16] },
        UndoEntry::Library { name: bytes("new"), code: bytes(""), written: [6; 16] },
        UndoEntry::Finished,
    ]
}

/// No key is drawn at random.
#[expect(clippy::unnecessary_wraps, reason = "a `Random` may fail")]
pub(crate) fn fixed(bytes: &mut [u8]) -> std::io::Result<()> {
    bytes.fill(42);
    Ok(())
}

fn keyrings() -> [Keyring; 2] {
    [Keyring::default(), keyring(&["key-1"])]
}

/// A state directory for one test.
struct Place {
    root: tempfile::TempDir,
    keyring: Keyring,
}

impl Place {
    fn new(keyring: Keyring) -> Self {
        Self { root: tempfile::tempdir().unwrap(), keyring }
    }

    fn state_dir(&self) -> StateDir {
        StateDir::new(self.root.path().join("state"))
    }

    fn file(&self) -> PathBuf {
        self.state_dir().first_file(&operation().journal_id, operation().id)
    }

    fn try_begin(&self) -> Result<Begun, UndoFileError> {
        self.state_dir().begin_with(&operation(), &self.keyring, fixed)
    }

    fn begin(&self) -> Begun {
        self.try_begin().unwrap()
    }

    /// Writes entries, each synced, to a new file.
    fn write(&self, entries: &[UndoEntry<'_>]) -> PathBuf {
        let mut begun = self.begin();
        for entry in entries {
            begun.writer.append(entry).unwrap();
            begun.writer.sync().unwrap();
        }
        begun.writer.path().to_owned()
    }

    fn read(&self, path: &Path) -> Result<Read, UndoFileError> {
        read(path, &self.keyring)
    }
}

/// All that a reader gives.
#[derive(Debug)]
struct Read {
    entries: Vec<(EntryNumber, UndoEntry<'static>)>,
    positions: Vec<u64>,
    torn: Option<TornTail>,
    is_finished: bool,
}

impl Read {
    fn entries(&self) -> Vec<UndoEntry<'static>> {
        self.entries.iter().map(|(_, entry)| entry.clone()).collect()
    }
}

fn read(path: &Path, keyring: &Keyring) -> Result<Read, UndoFileError> {
    let mut reader = UndoReader::open(path, keyring)?;
    let (mut entries, mut positions) = (Vec::new(), Vec::new());
    while let Some(stored) = reader.next_entry()? {
        positions.push(stored.position);
        entries.push((stored.number, stored.entry.into_owned()));
    }
    Ok(Read { entries, positions, torn: reader.torn().cloned(), is_finished: reader.is_finished() })
}

#[test]
fn what_was_written_is_read() {
    for keyring in keyrings() {
        let place = Place::new(keyring);
        let path = place.write(&entries());
        assert_eq!(path, place.file());
        let read = place.read(&path).unwrap();
        assert_eq!(read.entries(), entries());
        assert!(read.is_finished && read.torn.is_none());
        let numbers: Vec<u64> = read.entries.iter().map(|(number, _)| number.0).collect();
        assert_eq!(numbers, [0, 1, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15], "the value takes five parts");

        let reader = UndoReader::open(&path, &place.keyring).unwrap();
        let key_id = place.keyring.current().map(str::to_owned);
        assert_eq!(*reader.head(), UndoHead { operation: operation(), number: 1, key_id });
        let stored = fs::read(&path).unwrap();
        let holds = |text: &str| stored.windows(text.len()).any(|window| window == text.as_bytes());
        for secret in ["user:1", "user:*", "field", "a value"] {
            assert_eq!(holds(secret), place.keyring.current().is_none(), "{secret}");
        }
        assert!(holds("redis://10.0.0.1:6379") && holds("2026-11-18T"));
    }
}

#[test]
fn an_interrupted_run_is_gone_on_with() {
    for keyring in keyrings() {
        let place = Place::new(keyring);
        let mut begun = place.begin();
        assert!(begun.progress.is_none());
        let writer = &mut begun.writer;
        let all = entries();
        let first = writer.append(&all[0]).unwrap();
        writer.append(&all[1]).unwrap();
        writer.append(&all[2]).unwrap();
        writer.append(&UndoEntry::Done { first, last: first }).unwrap();
        writer.append(&all[7]).unwrap();
        writer.sync().unwrap();
        drop(begun);

        let mut begun = place.begin();
        let progress = begun.progress.unwrap();
        assert!(progress.is_key_done(0, b"user:1"));
        assert!(!progress.is_key_done(1, b"user:1") && !progress.is_key_done(3, b"user:2"));
        assert!(!progress.is_element_done(0, b"hash", b"field") && !progress.is_element_done(0, b"user:1", b""));
        assert_eq!((progress.done(), progress.in_doubt(), progress.entries()), (1, 2, 5));
        let mut doubtful = Vec::new();
        let mut reader = begun.writer.read_back().unwrap();
        let each = progress.each_in_doubt(&mut reader, |_, entry| {
            doubtful.push(entry.into_owned());
            Ok::<_, UndoFileError>(())
        });
        each.unwrap();
        assert_eq!(doubtful, all[1..3]);
        let [moved] = &progress.moved()[..] else { panic!("{:?}", progress.moved()) };
        assert_eq!((&moved.key[..], &moved.temporary[..]), (&b"user:4"[..], &b"redtape:old:user:4"[..]));
        assert!(!moved.is_done && moved.stored.is_none());

        let stored = begun.writer.append(&all[8]).unwrap();
        begun.writer.sync().unwrap();
        drop((begun.writer, reader));
        let mut begun = place.begin();
        let [moved] = &begun.progress.unwrap().moved()[..] else { panic!() };
        assert_eq!((moved.stored, moved.is_done), (Some(stored), false));
        begun.writer.append(&UndoEntry::Done { first: EntryNumber(0), last: stored }).unwrap();
        begun.writer.sync().unwrap();
        drop(begun.writer);
        let mut begun = place.begin();
        let progress = begun.progress.unwrap();
        assert_eq!((progress.moved(), progress.in_doubt(), progress.done()), (vec![], 0, 4));
        assert!(progress.is_element_done(0, b"hash", b"field") && progress.is_key_done(0, b"user:4"));
        begun.writer.finish().unwrap();
        assert_eq!(begun.writer.path(), place.file());
    }
}

#[test]
fn a_key_of_which_one_write_is_in_doubt_is_not_done() {
    let place = Place::new(Keyring::default());
    let mut begun = place.begin();
    let first = begun.writer.append(&entries()[0]).unwrap();
    begun.writer.append(&UndoEntry::Ttl { db: 0, key: bytes("user:1"), expires_ms: 0, written_ms: 1 }).unwrap();
    begun.writer.append(&UndoEntry::Done { first, last: first }).unwrap();
    begun.writer.sync().unwrap();
    drop(begun);
    let progress = place.begin().progress.unwrap();
    assert!(!progress.is_key_done(0, b"user:1"));
    assert_eq!((progress.done(), progress.in_doubt()), (0, 1));
}

#[test]
fn what_one_run_has_left_in_doubt_is_not_done_by_the_next_one() {
    let place = Place::new(Keyring::default());
    let absent = |key: &'static str| UndoEntry::Absent { db: 0, key: bytes(key), written: [1; 16] };
    let mut writer = place.begin().writer;
    for key in ["a", "b", "c"] {
        writer.append(&absent(key)).unwrap();
    }
    writer.sync().unwrap();
    drop(writer);
    let mut writer = place.begin().writer;
    let first = writer.append(&absent("d")).unwrap();
    let refused = writer.append(&absent("e")).unwrap();
    let last = writer.append(&absent("b")).unwrap();
    writer.append(&UndoEntry::NotWritten { entry: refused }).unwrap();
    writer.append(&UndoEntry::Done { first, last }).unwrap();
    writer.sync().unwrap();
    drop(writer);
    let progress = place.begin().progress.unwrap();
    let done = ["a", "b", "c", "d", "e"].map(|key| progress.is_key_done(0, key.as_bytes()));
    assert_eq!(done, [false, false, false, true, false]);
    assert_eq!((progress.done(), progress.in_doubt()), (1, 3));
}

#[test]
fn a_finished_file_is_never_written_again() {
    for keyring in keyrings() {
        let place = Place::new(keyring);
        let mut names = Vec::new();
        for number in 1..=11 {
            let next = place.state_dir().next_file(&operation().journal_id, operation().id, &place.keyring);
            let mut begun = place.begin();
            assert!(begun.progress.is_none());
            assert_eq!(begun.writer.head().number, number);
            assert_eq!(begun.writer.path(), next);
            begun.writer.append(&entries()[0]).unwrap();
            begun.writer.finish().unwrap();
            begun.writer.sync().unwrap();
            for entry in &entries() {
                assert!(matches!(begun.writer.append(entry), Err(UndoFileError::Finished { .. })));
            }
            let name = begun.writer.path().file_name().unwrap().to_string_lossy().into_owned();
            names.push((name, fs::read(begun.writer.path()).unwrap()));
        }
        let id = operation().id;
        assert_eq!(names[0].0, format!("{id}.undo"));
        assert_eq!(names[10].0, format!("{id}-11.undo"));
        let folder = place.file().parent().unwrap().to_owned();
        for (name, stored) in &names {
            assert_eq!(fs::read(folder.join(name)).unwrap(), *stored, "{name}");
            assert_eq!(UndoWriter::reopen(&folder.join(name), &place.keyring).unwrap().map(|_| ()), None);
        }
        // Another operation begins with a file of its own.
        let other = Operation { id: OperationId::derive(&[]), ..operation() };
        let begun = place.state_dir().begin(&other, &place.keyring).unwrap();
        assert_eq!(begun.writer.head().number, 1);
    }
}

#[test]
fn a_file_named_by_its_path_is_finished_when_it_was_undone() {
    let place = Place::new(keyring(&["key-1"]));
    let path = place.write(&entries()[..3]);
    let mut reopened = UndoWriter::reopen(&path, &place.keyring).unwrap().unwrap();
    assert_eq!(reopened.progress.unwrap().in_doubt(), 3);
    reopened.writer.finish().unwrap();
    drop(reopened.writer);
    assert!(place.read(&path).unwrap().is_finished);
    assert_eq!(place.begin().writer.head().number, 2);
}

#[test]
fn a_file_goes_on_with_its_own_key() {
    let place = Place::new(keyring(&["old"]));
    let path = place.write(&entries()[..2]);
    let rotated = Place { keyring: keyring(&["old", "new"]), ..place };
    let mut begun = rotated.begin();
    assert_eq!(begun.writer.head().key_id.as_deref(), Some("old"));
    begun.writer.append(&entries()[2]).unwrap();
    begun.writer.finish().unwrap();
    drop(begun);
    assert_eq!(rotated.begin().writer.head().key_id.as_deref(), Some("new"));
    assert_eq!(rotated.read(&path).unwrap().entries().len(), 4);
}

#[test]
fn nothing_is_written_in_clear_when_the_journal_is_encrypted_by_now() {
    let place = Place::new(Keyring::default());
    let path = place.write(&entries()[..2]);
    let before = fs::read(&path).unwrap();
    let encrypted = Place { keyring: keyring(&["key-1"]), ..place };
    let refused = encrypted.try_begin().unwrap_err();
    assert!(matches!(refused, UndoFileError::InClear { .. }), "{refused}");
    assert_eq!(fs::read(&path).unwrap(), before);
    assert_eq!(encrypted.read(&path).unwrap().entries().len(), 2, "it can be read");
}

#[test]
fn limits_are_kept_by_the_writer() {
    let place = Place::new(Keyring::default());
    let mut writer = place.begin().writer;
    let dump = vec![b'x'; MAX_ENTRY_BYTES as usize];
    let value =
        |dump: Vec<u8>| UndoEntry::Value { db: 0, key: bytes("k"), expires_ms: 0, dump: dump.into(), written: [0; 16] };
    // Kind, database, key with its length, expiry, digest.
    let most = dump.len() - (1 + 1 + 2 + 8 + 16);
    let refused = writer.append(&value(dump[..=most].to_vec())).unwrap_err();
    assert!(matches!(refused, UndoFileError::TooLarge { bytes, .. } if bytes == MAX_ENTRY_BYTES + 1), "{refused}");
    writer.append(&value(dump[..most].to_vec())).unwrap();

    let moved = |n: usize| UndoEntry::Moved {
        db: 0,
        key: n.to_string().into_bytes().into(),
        temporary: bytes("t"),
        written: [0; 16],
    };
    for n in 0..MAX_MOVED {
        writer.append(&moved(n)).unwrap();
    }
    let refused = writer.append(&moved(MAX_MOVED)).unwrap_err();
    assert!(matches!(refused, UndoFileError::TooManyMoved { .. }), "{refused}");
    let last = writer.append(&UndoEntry::Absent { db: 0, key: bytes("7"), written: [0; 16] }).unwrap();
    writer.append(&UndoEntry::Done { first: EntryNumber(0), last }).unwrap();
    writer.append(&moved(MAX_MOVED)).unwrap();

    let refused = writer.append(&UndoEntry::Done { first: EntryNumber(0), last: EntryNumber(1 << 40) }).unwrap_err();
    assert!(refused.to_string().contains("are not there"), "{refused}");
    let mut entries = 1 + MAX_MOVED as u64 + 3;
    while entries < MAX_ENTRIES - 1 {
        writer.append(&UndoEntry::Done { first: EntryNumber(0), last: EntryNumber(0) }).unwrap();
        entries += 1;
    }
    let refused = writer.append(&UndoEntry::Done { first: EntryNumber(0), last: EntryNumber(0) }).unwrap_err();
    assert!(matches!(refused, UndoFileError::TooMany { .. }), "{refused}");
    writer.finish().unwrap();
    drop(writer);
    let read = place.read(&place.file()).unwrap();
    assert!(read.is_finished);
    assert_eq!(read.entries.len() as u64, MAX_ENTRIES);
    assert_eq!(read.entries()[0], value(dump[..most].to_vec()));
}

#[test]
fn any_bytes_are_read_without_harm() {
    let mut all = Vec::new();
    for (n, entry) in entries().into_iter().enumerate() {
        let entry = match entry {
            // Here each entry is one part.
            UndoEntry::NotWritten { .. } => UndoEntry::NotWritten { entry: EntryNumber(n as u64 - 1) },
            entry => entry,
        };
        let (begin, rest) = entry.encode();
        let mut whole = [&begin[..], rest].concat();
        whole.truncate(part::PART_BYTES);
        let header = [&(whole.len() as u32).to_le_bytes()[..], &[1, 0, 0, 0], &[0; 24]].concat();
        all.extend_from_slice(&header);
        all.extend_from_slice(&whole);
        assert_eq!(read_anything(&all), n as u64 + 1);
    }
}

#[test]
fn a_value_that_was_not_moved_after_all_is_not_looked_for_again() {
    let place = Place::new(Keyring::default());
    let moved = UndoEntry::Moved { db: 0, key: bytes("k"), temporary: bytes("t"), written: [1; 16] };
    let mut writer = place.begin().writer;
    let refused = writer.append(&moved).unwrap();
    let made = writer.append(&moved).unwrap();
    writer.append(&UndoEntry::NotWritten { entry: refused }).unwrap();
    writer.sync().unwrap();
    drop(writer);
    let left: Vec<EntryNumber> = place.begin().progress.unwrap().moved().iter().map(|moved| moved.number).collect();
    assert_eq!(left, [made]);
}
