//! The executor on real directories: a crash at every step, readers, other prunings, damage.

use std::fs;

use super::plan_tests::names_of;
use super::*;
use crate::catalog::Window;
use crate::error::ReadError;
use crate::marks::add_mark;
use crate::model::{Fixture, OwnedGroup, open};
use crate::snapshot::{SnapshotKind, SnapshotWriter, tests::manifest};
use crate::types::{Group, Lsn, Mark, TimelineId};
use crate::verify::verify;

/// So small that each block has a segment of its own.
const SEGMENT_BYTES: u64 = 400;

fn snapshot_at(journal: &Fixture, timeline: u32, lsn: u64, kind: SnapshotKind) -> PathBuf {
    let mut writer = SnapshotWriter::create(journal.dir()).unwrap();
    writer.write(b"REDIS0010").unwrap();
    let ts = if lsn == 0 { 5 } else { lsn as i64 * 10 + 5 };
    writer.commit(crate::snapshot::SnapshotManifest { kind, ..manifest(lsn, timeline, ts) }).unwrap()
}

/// Two timelines of five segments each, one record and ten microseconds a segment, with a base, a manual
/// and a scheduled snapshot in the first and two bases in the second.
fn history() -> Fixture {
    let mut journal = Fixture::new(SEGMENT_BYTES);
    for _timeline in 1..=2 {
        journal.timeline();
        for _ in 0..5 {
            journal.block(&[OwnedGroup::simple(&[7; 200])]);
        }
    }
    while journal.writer().watermarks().written_lsn < Lsn(10) {
        std::thread::sleep(Duration::from_millis(1));
    }
    for (timeline, lsn, kind) in [
        (1, 0, SnapshotKind::Base),
        (1, 2, SnapshotKind::Manual),
        (1, 3, SnapshotKind::Scheduled),
        (2, 5, SnapshotKind::Base),
        (2, 8, SnapshotKind::Scheduled),
    ] {
        snapshot_at(&journal, timeline, lsn, kind);
    }
    add_mark(journal.dir(), &Mark { name: "m".to_owned(), ts: Micros(30), lsn: Lsn(3) }).unwrap();
    for lsn in [2, 3, 9] {
        add_mark(journal.dir(), &Mark::automatic("FLUSHALL", Micros(lsn * 10 + 5), Lsn(lsn as u64))).unwrap();
    }
    journal
}

/// Leaves the last snapshot, the manual one, and two segments.
const SHORT: Retention = Retention { keep: Some(Duration::from_micros(14)), max_bytes: None };
const NOW: Micros = Micros(100);

fn pruned(dir: &Path) -> Result<PrunePlan, PruneError> {
    prune(dir, &SHORT, NOW, &mut |_| {}, &|| false)
}

fn windows(dir: &Path) -> Vec<Window> {
    Catalog::open(dir).unwrap().windows()
}

/// Every window that is offered can be read through, from each snapshot in it.
fn assert_sound(dir: &Path, at: &str) {
    let report = verify(dir, true, |_| ()).unwrap();
    assert_eq!(report.problems, [], "{at}");
    let catalog = Catalog::open(dir).unwrap();
    assert_eq!(catalog.notes(), [""; 0], "{at}");
    assert!(!catalog.windows().is_empty(), "{at}");
    for w in catalog.windows() {
        let bases = catalog.snapshots().iter().map(|s| &s.manifest);
        let bases: Vec<_> =
            bases.filter(|m| m.timeline == w.timeline && w.from_lsn <= m.lsn && m.lsn <= w.to_lsn).collect();
        assert!(bases.iter().any(|m| m.lsn == w.from_lsn && m.ts == w.from), "{at}: {w:?}");
        for base in bases.into_iter().filter(|_| w.from_lsn < w.to_lsn) {
            let read: Result<Vec<Group>, ReadError> = catalog.groups(base.lsn, w.timeline).collect();
            let lsns: Vec<u64> = read.unwrap().iter().map(|g| g.records[0].lsn.0).collect();
            assert_eq!(lsns, (base.lsn.0 + 1..=w.to_lsn.0).collect::<Vec<_>>(), "{at}: {w:?}");
        }
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() { copy(&from, &to) } else { assert!(fs::copy(from, to).is_ok()) }
    }
}

/// Carries out so many operations and then none; writes all of them down.
struct Crash {
    left: usize,
    done: Vec<(&'static str, PathBuf)>,
}

impl Crash {
    fn after(left: usize) -> Self {
        Self { left, done: Vec::new() }
    }

    fn step(&mut self, what: &'static str, path: &Path) -> std::io::Result<()> {
        self.left = self.left.checked_sub(1).ok_or_else(|| std::io::Error::other("crash"))?;
        self.done.push((what, path.to_owned()));
        Ok(())
    }
}

impl Files for Crash {
    fn rename(&mut self, from: &Path, to: &Path) -> std::io::Result<()> {
        self.step("change", from)?;
        Disk.rename(from, to)
    }
    fn remove(&mut self, path: &Path) -> std::io::Result<()> {
        self.step("change", path)?;
        Disk.remove(path)
    }
    fn sync(&mut self, dir: &Path) -> std::io::Result<()> {
        self.step("sync", dir)?;
        Disk.sync(dir)
    }
}

fn pruned_by(files: &mut Crash, dir: &Path) -> Result<PrunePlan, PruneError> {
    let decide = |catalog: &Catalog| Ok(plan::retain(&Facts::of(catalog), &SHORT, NOW));
    carry_out(files, dir, &decide, &mut |_| {}, &|| false)
}

#[test]
fn a_crash_at_any_step_leaves_a_journal_that_verifies_and_the_next_run_finishes() {
    let mut journal = history();
    journal.kill();
    let before = plan_prune(journal.dir(), &SHORT, NOW).unwrap();
    let scratch = tempfile::tempdir_in(journal.dir().parent().unwrap()).unwrap();
    let mut steps = 0;
    for crash_after in 0.. {
        let dir = scratch.path().join(format!("after-{crash_after}"));
        copy(journal.dir(), &dir);
        let mut files = Crash::after(crash_after);
        let first = pruned_by(&mut files, &dir);
        let at = format!("crash after {crash_after} operations: {:?}", files.done.last());
        assert_sound(&dir, &at);
        // What was promised is there all the time.
        for ts in 86..=100 {
            assert!(windows(&dir).iter().any(|w| w.from.0 <= ts && ts <= w.to.0), "{at}: {ts}");
        }
        // A writer goes on, with or without the rest of the pruning.
        drop(open(&dir, SEGMENT_BYTES).unwrap_or_else(|e| panic!("{at}: {e}")));
        assert_sound(&dir, &at);
        pruned(&dir).unwrap_or_else(|e| panic!("{at}: {e}"));
        assert_sound(&dir, &at);
        assert_eq!(windows(&dir), before.windows_after, "{at}");
        let files_left = |folder| fs::read_dir(dir.join(folder)).unwrap().count();
        assert_eq!((files_left("segments"), files_left("snapshots")), (2, 4), "{at}");
        // Of the automatic marks those stay that name what is left, the moment of the manual snapshot too.
        let marks: Vec<u64> = Catalog::open(&dir).unwrap().marks().iter().map(|m| m.lsn.0).collect();
        assert_eq!(marks, [3, 2, 9], "{at}");
        if first.is_ok() {
            steps = files.done.len();
            break;
        }
    }
    // Three snapshots in three steps, eight segments, and a sync behind each.
    assert_eq!(steps, (3 * 3 + 8) * 2);
}

#[test]
fn each_change_is_synced_before_the_next() {
    let mut journal = history();
    journal.kill();
    let mut files = Crash::after(usize::MAX);
    pruned_by(&mut files, journal.dir()).unwrap();
    for pair in files.done.chunks(2) {
        let [("change", path), ("sync", folder)] = pair else { panic!("{pair:?}") };
        assert_eq!(path.parent(), Some(folder.as_path()));
    }
}

#[test]
fn pruning_works_beside_a_writer() {
    let mut journal = history();
    pruned(journal.dir()).unwrap();
    for _ in 0..3 {
        journal.block(&[OwnedGroup::simple(&[8; 200])]);
    }
    journal.kill();
    assert_sound(journal.dir(), "beside a writer");
    journal.reopen();
    assert_eq!(journal.recovered.last.as_ref().map(|l| l.last_lsn), Some(Lsn(13)));
    assert_eq!(journal.recovered.notes, [""; 0]);
    let alone = windows(journal.dir());
    assert_eq!(alone.len(), 2);
    assert_eq!(
        (alone[0].from_lsn, alone[0].to_lsn, alone[0].from, alone[0].to),
        (Lsn(2), Lsn(2), Micros(25), Micros(25))
    );
    let gap = &Catalog::open(journal.dir()).unwrap().gaps()[0];
    assert!(gap.reason.contains("removed"), "{gap:?}");
}

#[test]
fn readers_hold_pruning_off() {
    let journal = history();
    let catalog = Catalog::open(journal.dir()).unwrap();
    let mut reader = catalog.groups(Lsn(0), TimelineId(1));
    drop(catalog);
    assert!(reader.next().unwrap().is_ok());
    let error = pruned(journal.dir()).unwrap_err();
    assert!(matches!(error, PruneError::InUse { .. }) && error.to_string().contains("fuser"), "{error}");
    assert_eq!(reader.count(), 4, "nothing was pulled away");
    pruned(journal.dir()).unwrap();
}

#[test]
fn one_process_prunes_at_a_time_and_can_be_stopped() {
    let journal = history();
    let lock = PruneLock::take(&Directory::new(journal.dir())).unwrap();
    assert!(matches!(pruned(journal.dir()), Err(PruneError::Busy { .. })));
    drop(lock);
    let mut removed = 0;
    let asked = std::cell::Cell::new(0);
    let stop = || asked.replace(asked.get() + 1) >= 4;
    let result = prune(journal.dir(), &SHORT, NOW, &mut |_| removed += 1, &stop);
    assert!(matches!(result, Err(PruneError::Stopped)));
    assert!((1..10).contains(&removed), "{removed}");
    assert_sound(journal.dir(), "stopped");
}

#[test]
fn nothing_goes_while_the_base_that_would_remain_is_damaged() {
    let journal = history();
    let base = plan_prune(journal.dir(), &SHORT, NOW).unwrap().base.unwrap().0;
    fs::write(&base, b"REDIS0011").unwrap();
    let before = windows(journal.dir());
    let error = pruned(journal.dir()).unwrap_err();
    assert!(matches!(&error, PruneError::Base { path, .. } if *path == base), "{error}");
    assert_eq!(windows(journal.dir()), before);
}

#[test]
fn snapshots_are_removed_by_name() {
    let journal = history();
    let dir = journal.dir();
    let name = |lsn: u64, timeline: u32| format!("{lsn:020}-{timeline:06}");
    let plan = plan_removal(dir, &[name(2, 1), name(5, 2)]).unwrap();
    assert_eq!(names_of(&plan), format!("{}.rdb {}.rdb", name(2, 1), name(5, 2)));
    assert_eq!(Catalog::open(dir).unwrap().snapshots().len(), 5, "a plan changes nothing");
    let done = remove_snapshots(dir, &[name(2, 1), name(5, 2)]).unwrap();
    assert_eq!(done.windows_after, windows(dir));
    assert_sound(dir, "by name");
    let all: Vec<String> =
        Catalog::open(dir).unwrap().snapshots().iter().map(|s| s.path.display().to_string()).collect();
    assert!(matches!(remove_snapshots(dir, &all), Err(PruneError::LastBase { .. })));
    assert!(matches!(remove_snapshots(dir, &[name(77, 1)]), Err(PruneError::NoSnapshot { .. })));
    assert_eq!(Catalog::open(dir).unwrap().snapshots().len(), 3);
}

#[test]
fn a_new_snapshot_survives_the_interrupted_removal_of_one_of_its_name() {
    let journal = history();
    for crash_after in 1..6 {
        let old = snapshot_at(&journal, 2, 9, SnapshotKind::Manual);
        let mut files = Crash::after(crash_after);
        let names = [old.display().to_string()];
        let decide = |catalog: &Catalog| plan::without(&Facts::of(catalog), &names, journal.dir());
        assert!(carry_out(&mut files, journal.dir(), &decide, &mut |_| {}, &|| false).is_err());
        let new = snapshot_at(&journal, 2, 9, SnapshotKind::Manual);
        // Finishes what was begun.
        prune(journal.dir(), &Retention::default(), NOW, &mut |_| {}, &|| false).unwrap();
        assert_sound(journal.dir(), &format!("crash after {crash_after}"));
        let left = |path: &Path| Catalog::open(journal.dir()).unwrap().snapshots().iter().any(|s| s.path == path);
        assert!(left(&new), "crash after {crash_after}");
        remove_snapshots(journal.dir(), &[new.display().to_string()]).unwrap();
        assert_eq!(fs::read_dir(journal.dir().join("snapshots")).unwrap().count(), 10);
    }
}
