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

    fn read(&mut self, extent: Extent) -> Result<Vec<u8>, KeyIndexError> {
        let end = (extent.end() as usize).min(self.rdb.len());
        self.read += extent.len;
        Ok(self.rdb[extent.offset as usize..end].to_vec())
    }

    fn read_bytes(&self) -> u64 {
        self.read
    }
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
    let found = find_by_index(&mut index, &base(), &wanted).expect("sound").expect("small");
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
    let error = find_by_index(&mut index, &base(), &[(0, b"b")]).expect_err("another key");
    assert!(matches!(error, Failed::Base(_)), "{error:?}");

    // Type 7, a module's id of one byte, the end of its value.
    let module = vec![7, 1, b'm', 1, 0];
    let mut index = in_memory(&[(0, "m", module)]);
    let found = find_by_index(&mut index, &base(), &[(0, b"m")]).expect("sound");
    assert!(found.is_none(), "the whole base is used, of which nobody has compared the digest: {found:?}");
}
