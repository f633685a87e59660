//! Indexes of made-up contents, in which an entry is: length of the key (2), the key, the value.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::pages::PageWriter;
use super::root::Identity;
use super::*;
use crate::catalog::Catalog;
use crate::crypto::Keyring;
use crate::directory::{Directory, TEMPORARY};
use crate::lease::PruneLock;
use crate::model::{Fixture, keyring, options};
use crate::open::OpenOptions;
use crate::prune::{plan_removal, remove_snapshots};
use crate::snapshot::SnapshotWriter;
use crate::snapshot::tests::manifest;
use crate::verify::verify_with;

/// Everything small, so that there are many pages, runs and merges.
const SMALL: Limits = Limits { page_bytes: 32, run_bytes: 400, merge_runs: 3, ..LIMITS };

/// Keys with their values, and what stands before them.
type Model = BTreeMap<(u32, Vec<u8>), Vec<u8>>;

/// A journal with one snapshot.
struct World {
    journal: Fixture,
    keyring: Keyring,
    content: Vec<u8>,
    places: BTreeMap<(u32, Vec<u8>), (u64, u64)>,
}

fn entry(key: &[u8], value: &[u8]) -> Vec<u8> {
    [&(key.len() as u16).to_le_bytes()[..], key, value].concat()
}

fn read_key() -> ReadKey {
    Box::new(|entry| {
        let mut len = [0; 2];
        entry.read_exact(&mut len)?;
        let mut key = vec![0; usize::from(u16::from_le_bytes(len))];
        entry.read_exact(&mut key)?;
        Ok(key)
    })
}

impl World {
    fn new(model: &Model, padding: usize, is_encrypted: bool) -> Self {
        let keyring = if is_encrypted { keyring(&["key-1"]) } else { Keyring::default() };
        let journal = Fixture::with(OpenOptions { keyring: keyring.clone(), ..options(1 << 20) });
        let mut content: Vec<u8> = (0..padding).map(|n| (n * 7) as u8).collect();
        let mut places = BTreeMap::new();
        for ((db, key), value) in model {
            let bytes = entry(key, value);
            places.insert((*db, key.clone()), (content.len() as u64, bytes.len() as u64));
            content.extend_from_slice(&bytes);
        }
        let world = Self { journal, keyring, content, places };
        world.store(7);
        world
    }

    /// A few keys in two databases.
    fn small(is_encrypted: bool) -> Self {
        let keys = ["", "a", "apple", "apples", "b", "banana"];
        let model = keys.iter().flat_map(|key| [0, 5].map(|db| ((db, key.as_bytes().to_vec()), b"value".to_vec())));
        Self::new(&model.collect(), 9, is_encrypted)
    }

    fn store(&self, lsn: u64) -> PathBuf {
        let mut writer = SnapshotWriter::create_with(self.journal.dir(), &self.keyring).unwrap();
        writer.write(&self.content).unwrap();
        writer.commit(manifest(lsn, 1, 70)).unwrap()
    }

    fn catalog(&self) -> Catalog {
        Catalog::open_with(self.journal.dir(), &self.keyring).unwrap()
    }

    fn snapshot(&self) -> SnapshotInfo {
        self.catalog().snapshots()[0].clone()
    }

    /// Writes the index of the first snapshot, its keys in an order that is none.
    fn write(&self, limits: Limits, go_on: &GoOn<'_>) -> Result<KeyIndexFile, KeyIndexError> {
        let (mut writer, content) =
            KeyIndexWriter::begin_with(&self.snapshot(), &self.keyring, Workspace::Journal, go_on, limits)?;
        let mut places: Vec<_> = self.places.iter().collect();
        places.sort_by_key(|(_, (offset, _))| offset.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        for ((db, key), (offset, len)) in places {
            writer.add(*db, key, *offset, *len)?;
        }
        writer.finish(content)
    }

    fn build(&self, limits: Limits) -> PathBuf {
        self.write(limits, &|_| true).unwrap().put_in_place(&|| false).unwrap();
        self.snapshot().key_index_path()
    }

    fn open(&self) -> Result<KeyIndex, KeyIndexError> {
        let catalog = self.catalog();
        KeyIndex::open(&catalog, &catalog.snapshots()[0], &self.keyring, read_key())
    }

    /// What an index says is right or an error; whether it said all of it.
    fn ask(&self, index: &mut KeyIndex) -> bool {
        let mut all = true;
        for ((db, key), place) in &self.places {
            match index.find(*db, key) {
                Ok(found) => assert_eq!(found, Some(*place)),
                Err(error) => all = Self::is_refused(&error),
            }
        }
        for (db, key) in [(0, &b"appl"[..]), (1, b"a"), (6, b""), (5, b"zz")] {
            match index.find(db, key) {
                Ok(found) => assert_eq!(found, None),
                Err(error) => all = Self::is_refused(&error),
            }
        }
        match index.read(0, self.content.len() as u64) {
            Ok(bytes) => assert!(bytes == self.content),
            Err(error) => all = Self::is_refused(&error),
        }
        all
    }

    fn is_refused(error: &KeyIndexError) -> bool {
        assert!(matches!(error, KeyIndexError::Damaged { .. }), "{error}");
        false
    }

    fn files(&self) -> BTreeSet<String> {
        let files = fs::read_dir(self.journal.dir().join("snapshots")).unwrap();
        files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect()
    }

    fn temporary_files(&self) -> usize {
        self.files().iter().filter(|name| name.starts_with(TEMPORARY)).count()
    }
}

fn keys() -> impl Strategy<Value = Vec<u8>> {
    let short = prop::collection::vec(prop::sample::select(b"abk:\xff\0".to_vec()), 0..7);
    // Around the length up to which a key is stored, with few different beginnings.
    let long = (2046usize..2051, 0u8..2, 0u8..3).prop_map(|(len, from, last)| {
        let mut key = vec![b'k'; len];
        (key[1000], key[len - 1]) = (from, last);
        key
    });
    prop_oneof![8 => short, 1 => long]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn every_key_is_found_where_it_is_and_no_other(
        model in prop::collection::btree_map((0u32..3, keys()), prop::collection::vec(any::<u8>(), 0..40), 0..120),
        padding in prop_oneof![Just(0usize), 1usize..200_000],
        page_bytes in 30usize..300,
        run_bytes in 200usize..4000,
        merge_runs in 2usize..5,
        is_encrypted: bool,
        absent in prop::collection::vec((0u32..4, keys()), 20),
        prefixes in prop::collection::vec((prop::option::of(0u32..4), keys()), 8),
    ) {
        let padding = if is_encrypted { padding / 100 } else { padding };
        let world = World::new(&model, padding, is_encrypted);
        world.build(Limits { page_bytes, run_bytes, merge_runs, ..LIMITS });
        let mut index = world.open().unwrap();
        index.check(&|_| true).unwrap();
        prop_assert_eq!(index.keys(), model.len() as u64);
        for ((db, key), place) in &world.places {
            prop_assert_eq!(index.find(*db, key).unwrap(), Some(*place));
            let bytes = index.read(place.0, place.1).unwrap();
            prop_assert_eq!(&bytes, &entry(key, &model[&(*db, key.clone())]));
        }
        for (db, key) in &absent {
            prop_assert_eq!(index.find(*db, key).unwrap(), world.places.get(&(*db, key.clone())).copied());
        }
        for (db, prefix) in prefixes.iter().chain([&(None, Vec::new())]) {
            let expected: Vec<KeyPlace> = (world.places.iter())
                .filter(|((in_db, key), _)| db.is_none_or(|db| db == *in_db) && key.starts_with(prefix))
                .map(|((db, key), (offset, len))| KeyPlace { db: *db, key: key.clone(), offset: *offset, len: *len })
                .collect();
            let mut found: Vec<KeyPlace> = index.scan(*db, prefix).collect::<Result<_, _>>().unwrap();
            let stored = |place: &KeyPlace| (place.db, place.key[..place.key.len().min(KEY_STORED_MAX)].to_vec());
            prop_assert!(found.is_sorted_by_key(stored));
            found.sort_by(|a, b| (a.db, &a.key).cmp(&(b.db, &b.key)));
            prop_assert_eq!(found, expected);
        }
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(
        bytes in prop::collection::vec(prop_oneof![3 => 0u8..4, 1 => any::<u8>()], 0..200),
        identity in prop::collection::vec(any::<u8>(), 40),
    ) {
        read_anything(&bytes);
        read_anything(&[&identity[..], &bytes].concat());
    }
}

#[test]
fn every_flipped_bit_every_cut_and_every_added_byte_is_refused() {
    for is_encrypted in [false, true] {
        let world = World::small(is_encrypted);
        let path = world.build(SMALL);
        let whole = fs::read(&path).unwrap();
        let mut index = world.open().unwrap();
        assert!(index.pages().len() > 2 && world.ask(&mut index));
        let refuses = |bytes: &[u8], what: &str| {
            fs::write(&path, bytes).unwrap();
            let refused = match world.open() {
                Ok(mut index) => {
                    world.ask(&mut index);
                    index.check(&|_| true).err()
                }
                Err(error) => Some(error),
            };
            assert!(refused.is_some_and(|error| error.is_made_again()), "{what}, encrypted: {is_encrypted}");
        };
        for bit in 0..whole.len() * 8 {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            refuses(&bytes, &format!("bit {bit}"));
        }
        (0..whole.len()).for_each(|len| refuses(&whole[..len], &format!("{len} bytes")));
        refuses(&[&whole[..], b"\0"].concat(), "one byte more");
        refuses(&[&whole[..], &whole[..]].concat(), "twice");
        fs::remove_file(&path).unwrap();
        assert!(matches!(world.open(), Err(KeyIndexError::Missing { .. })));
    }
}

#[test]
fn every_flipped_bit_of_the_content_is_found_where_it_is_read() {
    for is_encrypted in [false, true] {
        let world = World::small(is_encrypted);
        world.build(SMALL);
        let path = world.snapshot().path;
        let whole = fs::read(&path).unwrap();
        let mut index = world.open().unwrap();
        for bit in 0..whole.len() * 8 {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            fs::write(&path, &bytes).unwrap();
            let catalog = world.catalog();
            index = KeyIndex::open(&catalog, &catalog.snapshots()[0], &world.keyring, read_key()).unwrap();
            let refused = index.read(0, world.content.len() as u64);
            assert!(matches!(refused, Err(KeyIndexError::Base { .. })), "bit {bit}, encrypted: {is_encrypted}");
        }
        fs::write(&path, &whole).unwrap();
        assert!(index.read(world.content.len() as u64 - 1, 1).is_ok(), "what was wrong is not kept");
        let beyond = index.read(world.content.len() as u64, 1);
        assert!(matches!(beyond, Err(KeyIndexError::Beyond { .. })));
        assert!(matches!(index.read(u64::MAX, 2), Err(KeyIndexError::Beyond { .. })));
    }
}

#[test]
fn the_index_of_another_snapshot_is_refused_and_a_key_is_needed() {
    for is_encrypted in [false, true] {
        let world = World::small(is_encrypted);
        let other = World::new(&Model::from([((0, b"a".to_vec()), b"b".to_vec())]), 5, is_encrypted);
        let path = world.build(SMALL);
        fs::copy(other.build(SMALL), &path).unwrap();
        match world.open() {
            Err(KeyIndexError::Damaged { .. }) if is_encrypted => {}
            Err(KeyIndexError::Foreign { .. }) if !is_encrypted => {}
            other => panic!("{other:?}"),
        }
        world.build(SMALL);
        assert!(world.ask(&mut world.open().unwrap()));
        if is_encrypted {
            let catalog = world.catalog();
            let refused = KeyIndex::open(&catalog, &catalog.snapshots()[0], &Keyring::default(), read_key());
            assert!(matches!(refused, Err(KeyIndexError::Key { .. })));
        }
    }
}

#[test]
fn a_key_costs_the_root_and_a_page_and_its_value_costs_its_part() {
    let model: Model = (0..20_000u32).map(|n| ((0, format!("user:{n:06}:name").into_bytes()), vec![7; 30])).collect();
    let world = World::new(&model, 100, false);
    let path = world.build(LIMITS);
    let mut index = world.open().unwrap();
    let opened = index.bytes_read();
    let size = fs::metadata(&path).unwrap().len();
    assert!(opened < size / 20, "{opened} of {size} bytes");
    let (offset, len) = index.find(0, b"user:012345:name").unwrap().unwrap();
    let found = index.bytes_read();
    assert!(found - opened <= LIMITS.page_bytes as u64);
    index.find(0, b"user:012346:name").unwrap().unwrap();
    assert_eq!(index.bytes_read(), found, "the same page");
    assert_eq!(index.read(offset, len).unwrap(), entry(b"user:012345:name", &[7; 30]));
    let read = index.bytes_read();
    assert!(read - found < 3 * DIGEST_BYTES, "{}", read - found);
    index.read(offset, len).unwrap();
    assert_eq!(index.bytes_read(), read, "the same part");
    let tens = index.scan(Some(0), b"user:01234").count();
    assert_eq!(tens, 10);
    assert!(index.bytes_read() - read <= 3 * LIMITS.page_bytes as u64);
    let mut range = Vec::new();
    index.content(offset - 70_000, 140_000).read_to_end(&mut range).unwrap();
    assert!(range == world.content[offset as usize - 70_000..][..140_000]);
}

#[test]
fn a_damaged_base_gets_no_index() {
    for is_encrypted in [false, true] {
        let world = World::small(is_encrypted);
        let path = world.snapshot().path;
        let mut bytes = fs::read(&path).unwrap();
        bytes[60] ^= 1;
        fs::write(&path, bytes).unwrap();
        let refused = world.write(SMALL, &|_| true).unwrap_err();
        assert!(matches!(refused, KeyIndexError::Base { .. }) && !refused.is_made_again(), "{refused}");
        assert_eq!(world.files().len(), 2);
    }
}

#[test]
fn whatever_would_be_too_large_is_not_written() {
    let world = World::small(false);
    for limits in [
        Limits { index_bytes: 200, ..SMALL },
        Limits { root_bytes: 60, ..SMALL },
        Limits { temporary_bytes: 100, run_bytes: 100, ..SMALL },
    ] {
        let refused = world.write(limits, &|_| true).unwrap_err();
        assert!(matches!(refused, KeyIndexError::TooLarge { .. }), "{refused}");
        assert_eq!(world.files().len(), 2, "{limits:?}");
    }
}

#[test]
fn stopped_anywhere_it_leaves_nothing() {
    let world = World::small(true);
    for n in 0.. {
        let left = std::cell::Cell::<u64>::new(n);
        let go_on = |_| left.replace(left.get().saturating_sub(1)) > 0;
        match world.write(Limits { run_bytes: 100, ..SMALL }, &go_on) {
            Err(KeyIndexError::Stopped) => assert_eq!(world.files().len(), 2, "after {n}"),
            Err(error) => panic!("{error}"),
            Ok(_) => return assert!(n > 3, "it was asked {n} times"),
        }
    }
}

#[test]
fn runs_hold_nothing_in_clear_and_what_is_wrong_in_them_is_found() {
    use super::run::{RunReader, RunWriter};
    use crate::crypto::Sealer;
    use std::os::unix::fs::FileExt;
    for sealer in [None, Some(Sealer::new(&[3; 32]))] {
        let write = |file: &fs::File| {
            let mut writer = RunWriter::new(file.try_clone().unwrap(), sealer.as_ref());
            (0..9).for_each(|n| writer.add(1, b"secret", n, 1).unwrap());
            writer.finish().unwrap()
        };
        let file = tempfile::tempfile().unwrap();
        let run = write(&file);
        let mut bytes = vec![0; run.bytes as usize];
        file.read_exact_at(&mut bytes, 0).unwrap();
        assert_eq!(bytes.windows(6).any(|six| six == b"secret"), sealer.is_none());
        // The length in front of a block: as wrong it may be taken for one that is longer than the file.
        for (at, byte) in bytes.iter().enumerate().skip(4) {
            let file = tempfile::tempfile().unwrap();
            let run = write(&file);
            file.write_all_at(&[byte ^ 16], at as u64).unwrap();
            let mut reader = RunReader::new(run, sealer.as_ref());
            assert!(reader.next_into(&mut page::IndexEntry::default()).is_err(), "byte {at}");
        }
    }
}

#[test]
fn an_index_never_outlives_its_snapshot() {
    let world = World::small(false);
    world.store(9);
    let written = world.write(SMALL, &|_| true).unwrap();
    let directory = Directory::new(world.journal.dir());
    let pruning = PruneLock::take(&directory).unwrap().unwrap();
    assert!(matches!(written.put_in_place(&|| false), Err(KeyIndexError::Busy { .. })));
    drop(pruning);
    assert_eq!(world.temporary_files(), 0);

    let written = world.write(SMALL, &|_| true).unwrap();
    let snapshot = world.snapshot();
    let retired = snapshot.path.with_extension("removed");
    fs::rename(snapshot.path.with_extension("json"), &retired).unwrap();
    assert!(matches!(written.put_in_place(&|| false), Err(KeyIndexError::Gone { .. })));
    assert!(!snapshot.key_index_path().exists());
    // One of the same name, that shows another point in time.
    let mut other = snapshot.manifest.clone();
    other.ts.0 += 1;
    let json = snapshot.path.with_extension("json");
    fs::rename(&retired, &json).unwrap();
    let written = world.write(SMALL, &|_| true).unwrap();
    fs::write(&json, other.to_json().unwrap()).unwrap();
    assert!(matches!(written.put_in_place(&|| false), Err(KeyIndexError::Gone { .. })));
    assert_eq!(world.temporary_files(), 0);
}

#[test]
fn what_a_crash_left_is_removed_and_what_is_being_written_is_not() {
    let mut world = World::small(false);
    world.journal.timeline();
    let living = world.write(SMALL, &|_| true).unwrap();
    let folder = world.journal.dir().join("snapshots");
    fs::write(folder.join(".tmp-1-dead.keys"), "x").unwrap();
    fs::write(folder.join("00000000000000000099-000001.keys"), "x").unwrap();
    assert_eq!(notes(&world).len(), 2, "{:?}", notes(&world));
    world.journal.close();
    world.journal.reopen();
    let notes = world.journal.recovered.notes.join("\n");
    assert!(notes.contains(".tmp-1-dead.keys") && notes.contains("99-000001.keys"), "{notes}");
    assert_eq!(world.temporary_files(), 1);
    living.put_in_place(&|| false).unwrap();
    assert!(world.ask(&mut world.open().unwrap()));
    assert_eq!(world.files().len(), 3);
}

#[test]
fn an_index_counts_with_its_snapshot_and_goes_with_it() {
    let mut world = World::small(false);
    world.journal.timeline();
    world.journal.close();
    // Nothing leads on from those of another history: both may go but one.
    let mut writer = SnapshotWriter::create(world.journal.dir()).unwrap();
    writer.write(b"REDIS0010").unwrap();
    writer.commit(manifest(0, 1, 5)).unwrap();
    let before = plan_removal(world.journal.dir(), &[]).unwrap().bytes_before;
    let index = KeyIndexWriter::begin(&world.catalog().snapshots()[1], &world.keyring, Workspace::Journal, &|_| true);
    let (mut writer, content) = index.unwrap();
    for ((db, key), (offset, len)) in &world.places {
        writer.add(*db, key, *offset, *len).unwrap();
    }
    let written = writer.finish(content).unwrap();
    let bytes = written.bytes();
    written.put_in_place(&|| false).unwrap();
    let snapshot = world.catalog().snapshots()[1].clone();
    assert_eq!(snapshot.key_index_bytes, bytes);
    let name = snapshot.path.file_stem().unwrap().to_string_lossy().into_owned();
    let plan = plan_removal(world.journal.dir(), std::slice::from_ref(&name)).unwrap();
    assert_eq!(plan.bytes_before, before + bytes);
    assert_eq!(plan.bytes_before - plan.bytes_after, snapshot.stored_bytes());
    remove_snapshots(world.journal.dir(), &[name]).unwrap();
    assert!(!snapshot.key_index_path().exists() && !snapshot.path.exists());
    assert_eq!(world.files().len(), 2);
}

fn notes(world: &World) -> Vec<String> {
    let report = verify_with(world.journal.dir(), true, &world.keyring, |_| ()).unwrap();
    assert_eq!(report.problems, []);
    report.notes.into_iter().filter(|note| note.contains(".keys")).collect()
}

#[test]
fn verification_checks_it_and_calls_no_journal_damaged_for_it() {
    for is_encrypted in [false, true] {
        let mut world = World::small(is_encrypted);
        world.journal.timeline();
        let path = world.build(SMALL);
        assert_eq!(notes(&world), [""; 0]);
        let whole = fs::read(&path).unwrap();
        let mut bytes = whole.clone();
        bytes[20] ^= 1;
        fs::write(&path, bytes).unwrap();
        let [note] = &notes(&world)[..] else { panic!("{:?}", notes(&world)) };
        assert!(note.contains("damaged at byte 8") && note.contains("made again"), "{note}");

        // Sound in itself, with the digests of another content.
        wrong_digests(&world, &path);
        let [note] = &notes(&world)[..] else { panic!("{:?}", notes(&world)) };
        assert!(note.contains("digests of the content"), "{note}");
    }
}

fn wrong_digests(world: &World, path: &Path) {
    let snapshot = world.snapshot();
    let sealer = snapshot.sealer(&world.keyring).unwrap();
    let file = fs::File::create(path).unwrap();
    let mut pages = PageWriter::begin(file, sealer.as_ref(), SMALL, path).unwrap();
    let (offset, len) = (0, 1);
    pages.add(&page::IndexEntry { db: 0, key: b"k".to_vec(), offset, len }).unwrap();
    let mut digests = ContentDigests::default();
    digests.update(&vec![0; world.content.len()]);
    pages.finish(1, Identity::of(&snapshot.manifest).unwrap(), digests).unwrap();
}

#[test]
fn an_index_elsewhere_is_used_without_a_name() {
    let world = World::small(true);
    let elsewhere = tempfile::tempdir().unwrap();
    let workspace = Workspace::Elsewhere(elsewhere.path().to_owned());
    let catalog = world.catalog();
    let (mut writer, content) =
        KeyIndexWriter::begin_with(&catalog.snapshots()[0], &world.keyring, workspace, &|_| true, SMALL).unwrap();
    for ((db, key), (offset, len)) in &world.places {
        writer.add(*db, key, *offset, *len).unwrap();
    }
    let written = writer.finish(content).unwrap();
    let mut index = KeyIndex::open_unplaced(&catalog, &written, &world.keyring, read_key()).unwrap();
    written.put_in_place(&|| false).unwrap();
    assert!(world.ask(&mut index));
    assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 0);
    assert_eq!(world.files().len(), 2);
}

#[test]
fn where_no_file_can_be_created_the_snapshot_is_not_read() {
    let world = World::small(false);
    let workspace = Workspace::Elsewhere("/there/is/no/such/folder".into());
    let begun = KeyIndexWriter::begin(&world.snapshot(), &world.keyring, workspace, &|_| true);
    let refused = begun.map(drop).unwrap_err();
    assert!(matches!(refused, KeyIndexError::Io { .. }), "{refused}");
}

#[test]
fn an_index_belongs_to_whom_its_snapshot_belongs() {
    use std::os::unix::fs::MetadataExt;
    let world = World::small(false);
    let path = world.snapshot().path;
    // Only root can give it away.
    let _ = std::os::unix::fs::chown(&path, Some(65534), Some(65534));
    let owner = |path: &Path| fs::metadata(path).map(|found| (found.uid(), found.gid())).unwrap();
    let index = world.build(SMALL);
    assert_eq!(owner(&index), owner(&path));
}

#[test]
fn a_content_with_a_key_twice_gets_no_index() {
    let (world, half) = (World::small(false), World::small(false).content.len() as u64);
    let mut writer = SnapshotWriter::create(world.journal.dir()).unwrap();
    writer.write(&world.content.repeat(2)).unwrap();
    writer.commit(manifest(9, 1, 90)).unwrap();
    let twice = world.catalog().snapshots()[1].clone();
    for limits in [LIMITS, SMALL] {
        let (mut writer, content) =
            KeyIndexWriter::begin_with(&twice, &world.keyring, Workspace::Journal, &|_| true, limits).unwrap();
        for ((db, key), (offset, len)) in &world.places {
            writer.add(*db, key, *offset, *len).unwrap();
        }
        writer.add(5, b"apple", half + 9, 12).unwrap();
        let refused = writer.finish(content).unwrap_err();
        assert!(refused.to_string().contains("a second time") && !refused.is_made_again(), "{refused}");
    }
}

#[test]
fn a_run_is_named_only_while_it_is_created() {
    let mut world = World::small(false);
    world.journal.timeline();
    let folder = world.journal.dir().join("snapshots");
    let named = run::temporarily_named(&folder).unwrap();
    assert_eq!(world.temporary_files(), 1);
    let (_, named) = named.keep().unwrap();
    // Not locked, as after a crash.
    let report = verify_with(world.journal.dir(), true, &world.keyring, |_| ()).unwrap();
    assert!(report.problems.is_empty(), "{:?}", report.problems);
    world.journal.close();
    world.journal.reopen();
    assert!(!named.exists());
    let _file = run::unnamed_file(&folder).unwrap();
    assert_eq!(world.temporary_files(), 0);
}

#[test]
fn an_index_waits_for_a_removal_that_takes_long() {
    let world = World::small(false);
    let dir = Directory::new(world.journal.dir());
    let written = world.write(SMALL, &|_| true).unwrap();
    let removal = std::cell::RefCell::new(PruneLock::take(&dir).unwrap());
    let wait = || removal.take().is_some();
    written.put_in_place(&wait).unwrap();
    assert!(removal.borrow().is_none(), "it was asked");
    assert!(world.ask(&mut world.open().unwrap()));
}
