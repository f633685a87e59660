use super::*;
use crate::catalog::Catalog;
use crate::model::{Fixture, OwnedGroup, counted, keyring, name_of, options, wait_until};
use crate::open::OpenOptions;
use crate::types::{Group, Lsn, TimelineId};

fn segments(journal: &mut Fixture, n: u8) {
    journal.timeline();
    for n in 0..n {
        journal.block(&[OwnedGroup::simple(&[n; 400])]);
    }
    journal.sync();
}

/// A journal without a writer, with `n` sealed segments that are not compacted.
fn left_uncompacted(n: u8, options: OpenOptions) -> Fixture {
    let mut journal = Fixture::with(OpenOptions { compact: false, ..options });
    segments(&mut journal, n);
    journal.kill();
    journal
}

/// The background compaction of this journal.
fn start(journal: &Fixture, random: Random) -> Background {
    let dir = Directory::new(journal.dir());
    let keys = Arc::new(Mutex::new(journal.options.keyring.clone()));
    Background::new(&dir, Arc::new(Lock::take(&dir).unwrap()), keys, random)
}

/// The nth segment, as the writer hands it over.
fn uncompacted(journal: &Fixture, n: usize) -> Uncompacted {
    let path = journal.segments().swap_remove(n);
    Uncompacted { name: name_of(&path), path, bytes: 400 }
}

fn verified(journal: &Fixture) {
    let report = crate::verify::verify_with(journal.dir(), true, &journal.options.keyring, |_| ()).unwrap();
    assert_eq!(report.problems, []);
    journal.check();
}

#[test]
fn sealed_segments_become_smaller_while_the_writer_goes_on_and_readers_read_on() {
    let mut journal = left_uncompacted(5, options(300));
    assert_eq!(journal.packed(), [false; 5]);
    let before = Catalog::open(journal.dir()).unwrap();
    let expected = journal.expected[0].1.clone();
    let sizes = |journal: &Fixture| -> u64 {
        journal.segments().iter().map(|path| std::fs::metadata(path).unwrap().len()).sum()
    };
    let uncompacted = sizes(&journal);

    journal.options.compact = true;
    journal.reopen();
    journal.wait_until_packed();
    assert_eq!(journal.packed(), [true, true, true, true, false]);
    journal.block(&[OwnedGroup::simple(&[9; 400])]);
    journal.sync();
    journal.wait_until_packed();
    let read: Vec<Group> = before.groups(Lsn(0), TimelineId(1)).collect::<Result<_, _>>().unwrap();
    assert_eq!(read, expected, "by who had opened it before");
    verified(&journal);
    assert!(sizes(&journal) < uncompacted, "{} bytes, {uncompacted} before", sizes(&journal));
    wait_until("told with the next heartbeat", || {
        journal.block(&[]);
        journal.writer().watermarks().journal_bytes == sizes(&journal)
    });
    journal.close();
    assert_eq!(journal.packed()[..6], [true; 6]);
    verified(&journal);
}

#[test]
fn who_has_opened_the_journal_before_is_still_told_of_a_loss() {
    let mut journal = Fixture::with(OpenOptions { compact: false, ..options(300) });
    segments(&mut journal, 4);
    segments(&mut journal, 3);
    journal.kill();
    std::fs::remove_file(&journal.segments()[3]).unwrap();
    crate::repair::repair(journal.dir(), &Keyring::default()).unwrap();
    let catalog = Catalog::open(journal.dir()).unwrap();
    let read = || -> Vec<Result<Lsn, String>> {
        let groups = catalog.groups(Lsn(0), TimelineId(1));
        let told = |e: crate::error::ReadError| e.to_string().split_once("(LSN").unwrap().1.to_owned();
        groups.map(|group| group.map(|g| g.records[0].lsn).map_err(told)).collect()
    };
    let before = read();
    assert!(before.len() == 4 && before[3].is_err(), "{before:?}");
    journal.options.compact = true;
    journal.reopen();
    journal.wait_until_packed();
    assert_eq!(read(), before);
}

#[test]
fn a_segment_that_is_not_what_was_sealed_stays_as_it_is() {
    let journal = left_uncompacted(3, options(300));
    let first = journal.segments().swap_remove(0);
    let mut bytes = std::fs::read(&first).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&first, &bytes).unwrap();
    let background = start(&journal, |_| Ok(()));
    (0..3).for_each(|n| background.add(uncompacted(&journal, n)));
    background.close();
    assert_eq!(journal.packed(), [false, true, false], "the last one is not sealed");
    assert_eq!(std::fs::read(&first).unwrap(), bytes);
}

#[test]
fn what_failed_is_tried_again_with_the_next_one() {
    static BROKEN: AtomicBool = AtomicBool::new(true);
    let random: Random = |bytes| {
        if BROKEN.load(Ordering::Relaxed) { Err(io::ErrorKind::StorageFull.into()) } else { counted(bytes) }
    };
    let journal = left_uncompacted(3, OpenOptions { keyring: keyring(&["one"]), ..options(300) });
    let background = start(&journal, random);
    background.add(uncompacted(&journal, 0));
    wait_until("tried", || background.0.lock().postponed.len() == 1);
    BROKEN.store(false, Ordering::Relaxed);
    assert_eq!(journal.packed(), [false; 3]);
    background.add(uncompacted(&journal, 1));
    wait_until("packed", || journal.packed() == [true, true, false]);
    background.close();
    assert!(background.saved() != 0);
}

#[test]
fn what_is_removed_while_it_is_packed_does_not_come_back() {
    let journal = left_uncompacted(2, options(300));
    let path = journal.segments().swap_remove(0);
    let lock = PruneLock::take(&Directory::new(journal.dir())).unwrap().unwrap();
    let background = start(&journal, |_| Ok(()));
    background.add(uncompacted(&journal, 0));
    wait_until("copied", || journal.temporary() == 1);
    std::fs::remove_file(&path).unwrap();
    drop(lock);
    wait_until("given up", || journal.temporary() == 0);
    background.close();
    assert!(!path.exists());
    assert_eq!(background.saved(), 0);
}

#[test]
fn a_copy_is_encrypted_with_the_key_of_its_segment_and_not_if_that_was_not() {
    let locked = OpenOptions { keyring: keyring(&["one"]), ..options(300) };
    for (before, after) in
        [(options(300), locked.clone()), (locked, OpenOptions { keyring: keyring(&["one", "two"]), ..options(300) })]
    {
        let was = before.keyring.current().is_some();
        let mut journal = left_uncompacted(3, before);
        journal.options = after;
        journal.reopen();
        journal.wait_until_packed();
        let first = std::fs::read(&journal.segments()[0]).unwrap();
        assert_eq!(first[129] == 1, was);
        assert_eq!(first.windows(3).any(|w| w == b"one"), was, "the id of its key");
        verified(&journal);
        journal.close();
        verified(&journal);
    }
}
