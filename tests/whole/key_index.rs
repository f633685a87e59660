//! The key index of a snapshot, as the daemon makes it: each key is found, and what stands there is what the server says. One
//! that is gone or damaged is made again, and none outlives its snapshot.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::harness::conn::{bytes, int};
use crate::harness::redtape::{Outcome, run};
use crate::harness::server::Version;
use crate::harness::{Conn, Dir, Redtape, Server, seed, wait_for};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use redtape_journal::{Catalog, KeyIndex, Keyring, SnapshotInfo, verify_with};
use redtape_restore::Interrupt;
use redtape_restore::source::key_index::open_or_build;
use redtape_wire::rdb::{DECODED_MAX, decode_value, parse_dump, parse_header, read_key_entry};

const LIMIT: Duration = Duration::from_secs(60);
/// Of each type.
const KEYS: usize = 60;

fn text(path: &Path) -> &str {
    path.to_str().expect("a plain path")
}

/// Keys of every type, in two databases; some expire, some are longer than an index stores.
fn fill(conn: &mut Conn, rng: &mut StdRng) {
    for db in [0, 3] {
        conn.must(&args!["SELECT", db]);
        for n in 0..KEYS {
            let elements = if rng.random_bool(0.2) { 300 } else { rng.random_range(1..20) };
            let word = |n: usize| format!("{n}-{}", "w".repeat(n % 90));
            conn.must(&args!["SET", format!("string:{n}"), word(n * 37 % 91).repeat(elements)]);
            conn.must(&args!["SET", format!("number:{n}"), n * 1000]);
            for e in 0..elements {
                conn.must(&args!["RPUSH", format!("list:{n}"), word(e)]);
                conn.must(&args!["SADD", format!("set:{n}"), e * n]);
                conn.must(&args!["SADD", format!("words:{n}"), word(e)]);
                conn.must(&args!["ZADD", format!("zset:{n}"), e as f64 / 7.0, word(e)]);
                conn.must(&args!["HSET", format!("hash:{n}"), word(e), e]);
                conn.must(&args!["XADD", format!("stream:{n}"), format!("{}-0", e + 1), "field", word(e)]);
            }
            conn.must(&args!["XGROUP", "CREATE", format!("stream:{n}"), "group", "0"]);
            if n % 3 == 0 {
                conn.must(&args!["PEXPIRE", format!("hash:{n}"), 100_000_000 + n]);
            }
        }
        // The same beginning, longer than what is stored of it.
        for n in 0..5 {
            conn.must(&args!["SET", format!("{}{n}", "long".repeat(512)), n]);
        }
        conn.must(&args!["SET", "long".repeat(512), "as long as is stored"]);
    }
}

fn keyring(file: Option<&Path>) -> Keyring {
    file.map_or_else(Keyring::default, |file| Keyring::from_file(file).expect("keys"))
}

fn newest(dir: &Path) -> SnapshotInfo {
    Catalog::open(dir).expect("the journal").snapshots().last().expect("a snapshot").clone()
}

fn index_of(snapshot: &SnapshotInfo) -> PathBuf {
    snapshot.path.with_extension("keys")
}

fn wait_index(dir: &Path) -> PathBuf {
    let index = index_of(&newest(dir));
    wait_for("the key index", LIMIT, || index.exists().then_some(()));
    index
}

fn open(dir: &Path, keyring: &Keyring) -> KeyIndex {
    let catalog = Catalog::open_with(dir, keyring).expect("the journal");
    let base = catalog.snapshots().last().expect("a snapshot").clone();
    open_or_build(&catalog, &base, keyring, &Interrupt::default()).expect("the index")
}

/// Every key that the server has is found, and is the same there; no other is found.
fn assert_same(index: &mut KeyIndex, base: &SnapshotInfo, server: &Server) {
    let header = base.manifest.magic_version.as_bytes().first_chunk::<9>().expect("a header");
    let version = parse_header(header).expect("a version");
    let mut conn = server.conn();
    let mut places = 0;
    for db in [0, 3] {
        conn.must(&args!["SELECT", db]);
        let found: Vec<_> = index.scan(Some(db), b"").collect::<Result<_, _>>().expect("a scan");
        assert_eq!(found.len() as i64, int(&conn.must(&args!["DBSIZE"])));
        let zsets = index.scan(Some(db), b"zset:1").count();
        assert_eq!(zsets, (0..KEYS).filter(|n| n.to_string().starts_with('1')).count());
        for place in found {
            places += 1;
            let at = index.find(db, &place.key).expect("an answer");
            assert_eq!(at, Some((place.offset, place.len)));
            let entry = index.read(place.offset, place.len).expect("the entry");
            let mut key = Vec::new();
            let found = read_key_entry(version, db, &entry, &mut key).expect("a key");
            assert_eq!(found.key, place.key);
            let value = &entry[found.value.offset as usize..found.value.end() as usize];
            let value = decode_value(found.value_type, value, DECODED_MAX).expect("a value");
            let dump = bytes(&conn.must(&args!["DUMP", &place.key[..]]));
            let dump = parse_dump(&dump).expect("a dump");
            assert_eq!(value, decode_value(dump.value_type, dump.value, DECODED_MAX).expect("the server's"));
            if Version::tested().at_least((7, 0), (7, 2)) {
                let expires = int(&conn.must(&args!["PEXPIRETIME", &place.key[..]]));
                assert_eq!(found.expires_at_ms.unwrap_or(-1), expires);
            }
            assert_eq!(index.find(1, &place.key).expect("an answer"), None);
            assert_eq!(index.find(db, &[&place.key[..], b"!"].concat()).expect("an answer"), None);
        }
    }
    assert_eq!(index.keys(), places);
}

fn verified(dir: &Path, keys: Option<&Path>) -> Outcome {
    let mut args = vec!["journal", "verify", "--from", text(dir)];
    args.extend(keys.iter().flat_map(|keys| ["--journal-key-file", text(keys)]));
    run(&args).expect_success("verify")
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).expect("the file");
    bytes[at] ^= 1;
    fs::write(path, bytes).expect("the file");
}

fn the_daemon_makes_it(is_encrypted: bool) {
    let mut rng = StdRng::seed_from_u64(seed());
    let (server, journal, keys) = (Server::start(), Dir::new("journal"), Dir::new("keys"));
    fill(&mut server.conn(), &mut rng);
    let (dir, key_file) = (journal.path(), keys.join("keys"));
    let mut options = vec!["--segment-mib", "1"];
    if is_encrypted {
        run(&["journal", "keygen", text(&key_file)]).expect_success("keygen");
        options.extend(["--journal-key-file", text(&key_file)]);
    }
    let key_file = is_encrypted.then_some(key_file.as_path());
    let keyring = keyring(key_file);
    let mut redtape = Redtape::start(&server.url(), dir, &options);
    let index = wait_index(dir);
    redtape.wait_said("key index made");
    let whole = fs::read(&index).expect("the index");
    assert_same(&mut open(dir, &keyring), &newest(dir), &server);
    assert_eq!(fs::read(&index).expect("the index"), whole, "it was there");

    // Removed: made again, by the daemon and by who wants it.
    fs::remove_file(&index).expect("removed");
    wait_index(dir);
    assert_eq!(fs::read(&index).expect("the index"), whole, "the same again");
    assert_eq!(redtape.terminate(), Some(0), "{}", redtape.said());
    fs::remove_file(&index).expect("removed");
    assert_same(&mut open(dir, &keyring), &newest(dir), &server);
    assert_eq!(fs::read(&index).expect("the index"), whole);

    // Damaged: no damage of the journal, and made again by the next start.
    flip(&index, 100);
    let report = verified(dir, key_file);
    assert!(report.stdout.contains(".keys is damaged") && report.stdout.contains("made again"), "{report:?}");
    redtape.start_again();
    redtape.wait_said("it is made again");
    wait_for("the index to be sound", LIMIT, || (fs::read(&index).ok()? == whole).then_some(()));

    // Another snapshot, by another process; it counts with its index, and goes with it.
    let upstream = server.url();
    let mut create = vec!["snapshot", "create", "--upstream", &upstream, "--dir", text(dir)];
    create.extend(key_file.iter().flat_map(|keys| ["--journal-key-file", text(keys)]));
    redtape.wait_caught_up();
    run(&create).expect_success("a snapshot");
    let second = newest(dir);
    assert_ne!(index_of(&second), index);
    let second_index = wait_index(dir);
    assert_same(&mut open(dir, &keyring), &second, &server);
    let listed = run(&["journal", "ls", "--json", "--from", text(dir)]).expect_success("ls");
    let listed: serde_json::Value = serde_json::from_str(&listed.stdout).expect("JSON");
    let snapshots = Catalog::open(dir).expect("the journal").snapshots().to_vec();
    let on_disk = |path: PathBuf| fs::metadata(path).expect("a file").len();
    let bytes: u64 = snapshots.iter().map(|s| on_disk(s.path.clone()) + on_disk(index_of(s))).sum();
    assert_eq!(listed["snapshot_bytes"], bytes);
    let notes = verify_with(dir, true, &keyring, |_| ()).expect("verified").notes;
    assert!(notes.iter().all(|note| !note.contains(".keys")), "{notes:?}");
    let name = second.path.file_stem().expect("a name").to_str().expect("plain").to_owned();
    run(&["snapshot", "rm", "--dir", text(dir), &name, "--yes"]).expect_success("rm");
    assert!(!second_index.exists() && !second.path.exists());
    assert!(!redtape.said().contains("no key index was made"), "{}", redtape.said());
    assert_eq!(redtape.terminate(), Some(0), "{}", redtape.said());
    let left: Vec<_> =
        fs::read_dir(dir.join("snapshots")).expect("the folder").map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left.len(), 3, "{left:?}");
}

#[test]
fn the_daemon_builds_a_correct_key_index() {
    the_daemon_makes_it(false);
}

#[test]
fn the_daemon_builds_a_key_index_of_an_encrypted_journal() {
    the_daemon_makes_it(true);
}

/// Who may only read gets an index all the same.
#[test]
fn a_journal_that_cannot_be_written_is_read_by_an_index_elsewhere() {
    let (server, journal) = (Server::start(), Dir::new("journal"));
    fill(&mut server.conn(), &mut StdRng::seed_from_u64(seed()));
    let dir = journal.path();
    let mut redtape = Redtape::start(&server.url(), dir, &[]);
    let index = wait_index(dir);
    assert_eq!(redtape.terminate(), Some(0), "{}", redtape.said());
    fs::remove_file(&index).expect("removed");
    let read_only = |on: bool| {
        use std::os::unix::fs::PermissionsExt;
        for folder in [dir.to_owned(), dir.join("snapshots")] {
            fs::set_permissions(folder, fs::Permissions::from_mode(if on { 0o555 } else { 0o755 })).expect("rights");
        }
    };
    read_only(true);
    let is_root = fs::write(dir.join("probe"), "").is_ok();
    assert_same(&mut open(dir, &Keyring::default()), &newest(dir), &server);
    // Root writes anywhere.
    assert_eq!(index.exists(), is_root);
    read_only(false);
}

/// Where no index can be used, nor made, all of the base is read.
#[test]
fn a_key_comes_back_where_no_index_can_be_had() {
    let (server, target, journal) = (Server::start(), Server::start(), Dir::new("journal"));
    fill(&mut server.conn(), &mut StdRng::seed_from_u64(seed()));
    let dir = journal.path();
    let mut redtape = Redtape::start(&server.url(), dir, &[]);
    let index = wait_index(dir);
    assert_eq!(redtape.terminate(), Some(0), "{}", redtape.said());
    fs::remove_file(&index).expect("removed");
    fs::create_dir(&index).expect("a folder in its place");
    let url = target.url();
    let restore = ["restore", "--from", text(dir), "--at", "latest", "--to", &url, "--db", "3", "--key", "number:7"];
    let outcome = run(&[&restore[..], &["--yes"]].concat()).expect_success("a restore");
    assert!(outcome.stderr.contains("all of the base is read"), "{outcome:?}");
    let mut conn = target.conn();
    conn.must(&args!["SELECT", 3]);
    assert_eq!(bytes(&conn.must(&args!["GET", "number:7"])), b"7000");
    assert_eq!(int(&conn.must(&args!["DBSIZE"])), 1);
}
