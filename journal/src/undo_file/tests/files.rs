//! Names, rights, locks, and disks that do not take what is written.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

use super::{Place, StateDir, UndoEntry, UndoFileError, bytes, entries, keyrings, operation};
use crate::crypto::Keyring;
use crate::error_kind::ErrorKind;
use crate::files::FileKind;
use crate::undo_file::head;
use crate::undo_file::lock::OperationLock;
use crate::undo_file::reader::UndoReader;
use crate::undo_file::writer::UndoWriter;
use crate::undo_file::{EntryNumber, Operation, UndoTarget};

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn nobody_else_can_read_it() {
    let place = Place::new(Keyring::default());
    let path = place.write(&entries());
    let folder = path.parent().unwrap();
    assert_eq!(mode(&path), 0o600);
    assert_eq!(mode(folder), 0o700);
    assert_eq!(mode(place.state_dir().path()), 0o700);
    let names: Vec<String> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    let id = operation().id;
    assert_eq!(names.len(), 2, "{names:?}");
    assert!(names.contains(&format!("{id}.undo")) && names.contains(&format!("{id}.lock")), "{names:?}");
    assert_eq!(mode(&folder.join(format!("{id}.lock"))), 0o600);
}

#[test]
fn a_directory_that_others_can_write_to_is_refused() {
    let place = Place::new(Keyring::default());
    let path = place.write(&entries()[..1]);
    let (state, folder) = (place.state_dir().path().to_owned(), path.parent().unwrap().to_owned());
    for (changed, refused_as, taken_as) in [(&folder, 0o770, 0o750), (&state, 0o707, 0o770), (&state, 0o777, 0o1777)] {
        fs::set_permissions(changed, fs::Permissions::from_mode(refused_as)).unwrap();
        let refused = place.try_begin().unwrap_err();
        assert!(matches!(&refused, UndoFileError::Unsafe { path, .. } if path == changed), "{refused}");
        assert!(refused.to_string().contains("chmod go-w"), "{refused}");
        assert_eq!(refused.kind(), ErrorKind::Denied);
        fs::set_permissions(changed, fs::Permissions::from_mode(taken_as)).unwrap();
        drop(place.begin());
        assert_eq!(mode(changed), taken_as & 0o777, "it is left as it is");
    }
    // Only root can give it away.
    if std::os::unix::fs::chown(&folder, Some(65534), Some(65534)).is_ok() {
        let refused = place.try_begin().unwrap_err();
        assert!(refused.to_string().contains("belongs to the user with the id 65534"), "{refused}");
    }
}

#[test]
fn no_symbolic_link_is_followed_below_the_state_directory() {
    let elsewhere = tempfile::tempdir().unwrap();
    let precious = elsewhere.path().join("precious");
    fs::write(&precious, "precious").unwrap();
    let journal_id = operation().journal_id;

    let place = Place::new(Keyring::default());
    let state = place.state_dir().path().to_owned();
    fs::create_dir_all(&state).unwrap();
    symlink(elsewhere.path(), state.join(&journal_id)).unwrap();
    let refused = place.try_begin().unwrap_err();
    assert!(matches!(refused, UndoFileError::WrongKind { found: FileKind::SymbolicLink, .. }), "{refused}");
    fs::remove_file(state.join(&journal_id)).unwrap();

    let path = place.write(&entries()[..1]);
    for name in [path.clone(), path.with_extension("lock")] {
        let kept = name.with_extension("kept");
        fs::rename(&name, &kept).unwrap();
        symlink(&precious, &name).unwrap();
        let refused = place.try_begin().unwrap_err();
        assert!(matches!(refused, UndoFileError::WrongKind { found: FileKind::SymbolicLink, .. }), "{refused}");
        assert!(refused.to_string().contains("--state-dir"), "{refused}");
        fs::remove_file(&name).unwrap();
        fs::rename(&kept, &name).unwrap();
    }
    let link = elsewhere.path().join("link");
    symlink(&path, &link).unwrap();
    assert!(matches!(place.read(&link), Err(UndoFileError::WrongKind { found: FileKind::SymbolicLink, .. })));
    assert_eq!(fs::read(&precious).unwrap(), b"precious");
    drop(place.begin());

    // The state directory itself may be one.
    let linked = elsewhere.path().join("state");
    symlink(&state, &linked).unwrap();
    assert!(StateDir::new(&linked).begin(&operation(), &Keyring::default()).unwrap().progress.is_some());
}

#[test]
fn a_journal_id_names_a_folder_and_nothing_else() {
    let place = Place::new(Keyring::default());
    for journal_id in ["", "../../etc", "/etc", &"A".repeat(32), &"0".repeat(31)] {
        let operation = Operation { journal_id: journal_id.to_owned(), ..operation() };
        let refused = place.state_dir().begin(&operation, &Keyring::default()).unwrap_err();
        assert!(matches!(refused, UndoFileError::NotAJournalId(_)), "{refused}");
    }
    assert!(!place.state_dir().path().exists());
}

#[test]
fn only_one_process_writes_and_none_reads_meanwhile() {
    for keyring in keyrings() {
        let place = Place::new(keyring);
        let begun = place.begin();
        let us = std::process::id().to_string();
        for refused in [place.try_begin().unwrap_err(), place.read(&place.file()).unwrap_err()] {
            assert_eq!(refused.kind(), ErrorKind::InUse);
            let said = refused.to_string();
            assert!(said.contains(&format!("process {us}")) && said.contains("wait until it ends"), "{said}");
        }
        drop(begun);
        let reading = UndoReader::open(&place.file(), &place.keyring).unwrap();
        let second = UndoReader::open(&place.file(), &place.keyring).unwrap();
        assert_eq!(place.try_begin().unwrap_err().kind(), ErrorKind::InUse);
        drop((reading, second));
        place.begin();
    }
}

#[test]
fn a_lock_file_that_was_removed_meanwhile_lets_nobody_in() {
    let place = Place::new(Keyring::default());
    let begun = place.begin();
    fs::remove_file(place.file().with_extension("lock")).unwrap();
    // The lock of the undo file itself holds.
    assert_eq!(place.try_begin().unwrap_err().kind(), ErrorKind::InUse);
    drop(begun);
    place.begin();
}

/// Of many that begin at once, one does; and none is given the file of another.
#[test]
fn of_many_who_begin_at_once_one_does() {
    let place = Place::new(Keyring::default());
    let begun: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| place.try_begin())).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(begun.iter().filter(|begun| begun.is_ok()).count(), 1);
    for refused in begun.iter().filter_map(|begun| begun.as_ref().err()) {
        assert_eq!(refused.kind(), ErrorKind::InUse, "{refused}");
    }
}

#[test]
fn what_an_interrupted_creation_has_left_is_cleared_away_and_nothing_else() {
    let place = Place::new(Keyring::default());
    let path = place.write(&entries()[..1]);
    let folder = path.parent().unwrap();
    let id = operation().id;
    let left = folder.join(format!(".tmp-{id}-a1b2c3"));
    let others = [folder.join(".tmp-other"), folder.join(format!("{id}-x.undo")), folder.join(format!("{id}-02.undo"))];
    fs::write(&left, "half a head").unwrap();
    for other in &others {
        fs::write(other, "what nobody knows").unwrap();
    }
    assert!(place.begin().progress.is_some());
    assert!(!left.exists());
    assert!(others.iter().all(|other| other.exists()));
}

/// The writer of a file that is a device: what the kernel answers is real.
fn writer_on(device: &str, place: &Place) -> UndoWriter {
    let folder = place.root.path();
    let lock = OperationLock::take(folder, operation().id).unwrap();
    let file = fs::OpenOptions::new().read(true).write(true).open(device).unwrap();
    let (_, whole) = head::encode(&operation(), 1, &place.keyring, super::fixed).unwrap();
    UndoWriter::new(device.as_ref(), file, whole, 0, lock)
}

#[test]
fn a_full_disk_is_told_and_ends_the_writer() {
    for keyring in keyrings() {
        let place = Place::new(keyring);
        let mut writer = writer_on("/dev/full", &place);
        writer.append(&entries()[0]).unwrap();
        let refused = writer.sync().unwrap_err();
        assert!(matches!(refused, UndoFileError::Full { .. }), "{refused}");
        assert_eq!(refused.kind(), ErrorKind::Io);
        let said = refused.to_string();
        assert!(said.contains("No space left on device") && said.contains("run the same command again"), "{said}");
        assert!(matches!(writer.append(&entries()[0]), Err(UndoFileError::Broken { .. })));
        assert!(matches!(writer.sync(), Err(UndoFileError::Broken { .. })));
        assert!(matches!(writer.finish(), Err(UndoFileError::Broken { .. })));
    }
}

#[test]
fn a_failed_sync_ends_the_writer() {
    let place = Place::new(Keyring::default());
    // It takes every byte, and cannot be synced.
    let mut writer = writer_on("/dev/null", &place);
    writer.append(&entries()[0]).unwrap();
    let refused = writer.sync().unwrap_err();
    assert!(matches!(refused, UndoFileError::Sync { .. }), "{refused}");
    assert!(matches!(writer.sync(), Err(UndoFileError::Broken { .. })));
    assert!(matches!(writer.append(&entries()[0]), Err(UndoFileError::Broken { .. })));
}

/// Set for the process that writes against a limit: the directory.
const LIMITED: &str = "REDTAPE_TEST_UNDO_FILE_LIMITED";

/// What the other process has to say.
fn say(root: &OsStr, what: &str) {
    fs::write(Path::new(root).join("said"), what).unwrap();
}

/// Runs this test alone in another process, through a shell; returns what that says.
fn in_another_process(test: &str, shell: &str, place: &Place) -> String {
    let output = Command::new("sh")
        .args(["-c", &format!("{shell} exec \"$0\" \"$@\"")])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", &format!("undo_file::tests::files::{test}"), "--nocapture"])
        .env(LIMITED, place.root.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    fs::read_to_string(place.root.path().join("said")).unwrap()
}

/// A file that may not grow: the last write is cut short in the middle of an entry, as on a disk that is full. The next run goes on
/// behind what was synced.
#[test]
fn behind_a_write_that_was_cut_short_the_next_run_goes_on() {
    let entry = |n: u64| UndoEntry::Value {
        db: 0,
        key: n.to_string().into_bytes().into(),
        expires_ms: 0,
        dump: vec![b'x'; 1000].into(),
        written: [0; 16],
    };
    if let Some(root) = std::env::var_os(LIMITED) {
        let dir = StateDir::new(Path::new(&root).join("state"));
        let mut writer = dir.begin(&operation(), &Keyring::default()).unwrap().writer;
        for n in 0..1000 {
            writer.append(&entry(n)).unwrap();
            match writer.sync() {
                Ok(()) => {}
                Err(UndoFileError::Full { .. }) => {
                    say(&root, &n.to_string());
                    return;
                }
                Err(other) => panic!("{other}"),
            }
        }
        panic!("there was no limit");
    }
    let place = Place::new(Keyring::default());
    // 16 blocks of 512 bytes; the signal that comes with the limit is ignored.
    let test = "behind_a_write_that_was_cut_short_the_next_run_goes_on";
    let synced: u64 = in_another_process(test, "trap '' XFSZ; ulimit -f 16;", &place).parse().unwrap();
    assert!((1..9).contains(&synced), "{synced}");
    let left = place.read(&place.file()).unwrap();
    assert_eq!(left.entries(), (0..synced).map(entry).collect::<Vec<_>>());
    assert_eq!(left.torn, None, "what was written of the last entry was taken back");
    let mut begun = place.begin();
    begun.writer.append(&entry(synced)).unwrap();
    begun.writer.finish().unwrap();
    drop(begun);
    assert_eq!(place.read(&place.file()).unwrap().entries().len() as u64, synced + 2);
}

#[test]
fn another_process_is_named() {
    if let Some(root) = std::env::var_os(LIMITED) {
        let dir = StateDir::new(Path::new(&root).join("state"));
        say(&root, &dir.begin(&operation(), &Keyring::default()).unwrap_err().to_string());
        return;
    }
    let place = Place::new(Keyring::default());
    let begun = place.begin();
    let said = in_another_process("another_process_is_named", "", &place);
    let wanted = format!("{}.lock is in use by process {}; wait", operation().id, std::process::id());
    assert!(said.contains(&wanted), "{said}");
    drop(begun);
}

#[test]
fn one_operation_for_another_target_is_refused_by_its_file() {
    let place = Place::new(Keyring::default());
    place.write(&entries()[..1]);
    let target = UndoTarget { address: "redis://10.0.0.2:6379".to_owned(), ..operation().target };
    let refused = place.state_dir().begin(&Operation { target, ..operation() }, &Keyring::default()).unwrap_err();
    assert!(matches!(refused, UndoFileError::Foreign { what: "the address of the target", .. }), "{refused}");
    // The replication id may have changed: the caller looks at it.
    let target = UndoTarget { replication_id: "other".to_owned(), ..operation().target };
    let begun = place.state_dir().begin(&Operation { target, ..operation() }, &Keyring::default()).unwrap();
    assert_eq!(begun.writer.head().operation.target.replication_id, "8f0c");
}

#[test]
fn many_appends_cost_one_write_and_reach_the_file_with_the_sync() {
    let place = Place::new(Keyring::default());
    let mut writer = place.begin().writer;
    let before = fs::metadata(place.file()).unwrap().size();
    for n in 0..100u32 {
        writer.append(&UndoEntry::Absent { db: n, key: bytes("k"), written: [0; 16] }).unwrap();
    }
    assert_eq!(fs::metadata(place.file()).unwrap().size(), before);
    writer.sync().unwrap();
    let synced = fs::metadata(place.file()).unwrap().size();
    assert!(synced > before);
    writer.append(&UndoEntry::Done { first: EntryNumber(0), last: EntryNumber(99) }).unwrap();
    assert_eq!(fs::metadata(place.file()).unwrap().size(), synced);
    // A run that ends in an orderly way keeps what waited.
    drop(writer);
    assert_eq!(place.begin().progress.unwrap().done(), 100);
}
