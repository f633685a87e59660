use redtape_journal::query::Filter;
use redtape_wire::effect::{Touch, Touched};
use redtape_wire::rdb::{Entry, RdbWriter, Walker};

use super::*;

/// A base in memory.
struct InMemory {
    rdb: Vec<u8>,
    places: Vec<(u32, Vec<u8>, Extent)>,
    read: u64,
}

impl KeyPlaces for InMemory {
    fn find(&mut self, db: u32, key: &[u8]) -> Result<Option<Extent>, KeyIndexError> {
        Ok(self.places.iter().find(|(d, k, _)| *d == db && k == key).map(|(.., extent)| *extent))
    }

    fn scan(&mut self, range: &KeyRange, each: &mut dyn FnMut(Place) -> bool) -> Result<(), KeyIndexError> {
        let KeyRange { db, prefix } = range;
        let wanted = |place: &&(u32, Vec<u8>, Extent)| db.is_none_or(|db| db == place.0) && place.1.starts_with(prefix);
        let mut found = self.places.iter().filter(wanted);
        found.all(|(db, key, extent)| each(Place { db: *db, key: key.clone(), extent: *extent }));
        Ok(())
    }

    fn read(&mut self, extent: Extent) -> Result<Vec<u8>, KeyIndexError> {
        let end = (extent.end() as usize).min(self.rdb.len());
        self.read += extent.len;
        Ok(self.rdb[extent.offset as usize..end].to_vec())
    }

    fn read_bytes(&self) -> u64 {
        self.read
    }
}

fn find_exact(index: &mut InMemory, exact: &[(u32, &[u8])]) -> Result<Option<FoundInBase>, Failed> {
    let needed = Needed::at_the_point(&Filter::default());
    let wanted = Wanted { ranges: Vec::new(), exact: exact.to_vec(), needed: &needed };
    find_by_index(index, &base(), &wanted, &Interrupt::default())
}

/// The entry of a string.
fn entry(key: &str, value: &str) -> Vec<u8> {
    let mut bytes = vec![0];
    for text in [key, value] {
        bytes.push(text.len() as u8);
        bytes.extend_from_slice(text.as_bytes());
    }
    bytes
}

fn in_memory(keys: &[(u32, &str, Vec<u8>)]) -> InMemory {
    let version = parse_header(b"REDIS0010").expect("version");
    let mut writer = RdbWriter::new(Vec::new(), version, Some("7.0.15")).expect("writer");
    for (db, _, entry) in keys {
        writer.entry(*db, entry).expect("entry");
    }
    let rdb = writer.finish().expect("RDB");
    let place = |(db, key, entry): &(u32, &str, Vec<u8>)| {
        let at = rdb.windows(entry.len()).position(|w| w == entry).expect("an entry");
        (*db, key.as_bytes().to_vec(), Extent { offset: at as u64, len: entry.len() as u64 })
    };
    let places = keys.iter().map(place).collect();
    InMemory { rdb, places, read: 0 }
}

fn base() -> SnapshotInfo {
    let json = r#"{"lsn":0,"timeline":1,"source_id":"","offset":0,"ts":0,"kind":"base","bytes":77}"#;
    SnapshotInfo {
        path: "base.rdb".into(),
        manifest: serde_json::from_str(json).expect("manifest"),
        key_index_bytes: 0,
    }
}

/// The keys of an RDB, and its auxiliary fields.
fn contents(rdb: &[u8]) -> (Vec<(u32, Vec<u8>)>, usize) {
    let mut walker = Walker::new(rdb).expect("an RDB");
    let (mut keys, mut aux) = (Vec::new(), 0);
    while let Some(entry) = walker.next_entry().expect("an entry") {
        match entry {
            Entry::Key(key) => keys.push((key.db, key.key.to_vec())),
            Entry::Aux { .. } => aux += 1,
            _ => {}
        }
    }
    (keys, aux)
}

#[test]
fn keys_found_by_the_index_make_an_rdb_of_their_own() {
    let mut index = in_memory(&[
        (0, "a", entry("a", "1")),
        (0, "b", entry("b", "2")),
        (3, "a", entry("a", "3")),
        (3, "c", entry("c", "4")),
    ]);
    let wanted: [(u32, &[u8]); 4] = [(3, b"a"), (0, b"b"), (9, b"a"), (0, b"missing")];
    let found = find_exact(&mut index, &wanted).expect("sound").expect("small");
    assert_eq!((found.summary.version.version, found.summary.bytes), (10, 77));
    assert_eq!(found.summary.aux, [("redis-ver".to_owned(), "7.0.15".to_owned())]);
    let keys = found.keys.expect("no module");
    let held = keys.held.as_ref().expect("held");
    assert_eq!((keys.keys, keys.bytes), (2, held.len() as u64));
    assert_eq!(contents(held), (vec![(0, b"b".to_vec()), (3, b"a".to_vec())], 1));
    assert!(found.read_bytes > 0);
}

#[test]
fn an_index_that_names_another_key_is_refused_and_with_a_module_the_base_is_walked() {
    let mut index = in_memory(&[(0, "a", entry("a", "1"))]);
    index.places[0].1 = b"b".to_vec();
    let error = find_exact(&mut index, &[(0, b"b")]).expect_err("another key");
    assert!(matches!(error, Failed::Base(_)), "{error:?}");

    // Type 7, a module's id of one byte, the end of its value.
    let module = vec![7, 1, b'm', 1, 0];
    let mut index = in_memory(&[(0, "m", module)]);
    let found = find_exact(&mut index, &[(0, b"m")]).expect("sound");
    assert!(found.is_none(), "the whole base is used, of which nobody has compared the digest: {found:?}");
}

#[test]
fn keys_that_begin_alike_are_found_by_ranges() {
    let keys = |dbs: &[u32]| {
        let of_db = |db: u32| ["ab1", "ab2", "b1", "c"].map(|key| (db, key, entry(key, &format!("{key}{db}"))));
        dbs.iter().flat_map(|db| of_db(*db)).collect::<Vec<_>>()
    };
    let mut index = in_memory(&keys(&[0, 3]));
    let mut found = |needed: &Needed| {
        let wanted = Wanted::of(needed).expect("some");
        let found = find_by_index(&mut index, &base(), &wanted, &Interrupt::default()).expect("sound").expect("small");
        let held = found.keys.expect("no module").held.expect("held");
        let names = contents(&held).0.into_iter().map(|(db, key)| format!("{db}{}", key.escape_ascii()));
        (found.search, names.collect::<Vec<_>>().join(" "))
    };
    let filter = |globs: &[&str], dbs: &[u32]| Filter::new(globs, &[], dbs).expect("globs");
    let ranges = Some(BaseSearch::KeyRanges);
    assert_eq!(found(&Needed::at_the_point(&filter(&["a*"], &[0]))), (ranges, "0ab1 0ab2".to_owned()));
    assert_eq!(found(&Needed::at_the_point(&filter(&["a*1", "c"], &[]))), (ranges, "0ab1 0c 3ab1 3c".to_owned()));
    assert_eq!(
        found(&Needed::at_the_point(&filter(&["ab*", "a*2", "b1"], &[3]))),
        (ranges, "3ab1 3ab2 3b1".to_owned())
    );
    assert_eq!(found(&Needed::at_the_point(&filter(&["c"], &[3]))), (Some(BaseSearch::KeyIndex), "3c".to_owned()));

    // Some do not matter any more, others are needed beside the selected ones.
    let mut needed = Needed::at_the_point(&filter(&["a*"], &[]));
    let touched = |key: &'static str, touch| Touched { db: 3, key: key.as_bytes(), touch };
    assert!(needed.pass(&[touched("ab1", Touch::Overwritten), touched("c", Touch::Read)]));
    assert_eq!(found(&needed), (ranges, "0ab1 0ab2 3ab2 3c".to_owned()));
    needed.swap(0, 7);
    assert!(needed.flush(3));
    assert_eq!(found(&needed), (ranges, "0ab1 0ab2".to_owned()));

    for globs in [&["*a"][..], &["a*", "?"], &[]] {
        assert!(Wanted::of(&Needed::at_the_point(&filter(globs, &[0]))).is_none(), "{globs:?}");
    }
}

#[test]
fn an_interrupt_ends_the_search() {
    let mut index = in_memory(&[(0, "a", entry("a", "1"))]);
    let (needed, interrupt) =
        (Needed::at_the_point(&Filter::new(&["a*"], &[], &[]).expect("a glob")), Interrupt::default());
    interrupt.set();
    let wanted = Wanted::of(&needed).expect("a range");
    let error = find_by_index(&mut index, &base(), &wanted, &interrupt).expect_err("interrupted");
    assert!(matches!(error, Failed::Stopped(_)), "{error:?}");
}
