//! Everybody who reads, in a loop beside everybody who writes: work in progress is never taken for damage.
//!
//! `REDTAPE_BESIDE_SECONDS` says for how long; the loops find what a look at the right moment would.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::catalog::Catalog;
use crate::crypto::Keyring;
use crate::follow::{Followed, Follower};
use crate::marks::add_mark;
use crate::model::{Fixture, OwnedGroup, options};
use crate::open::OpenOptions;
use crate::prune::{PruneError, Retention, plan_prune, prune};
use crate::repair::plan_repair;
use crate::snapshot::tests::manifest;
use crate::snapshot::{SnapshotKind, SnapshotWriter};
use crate::types::{Lsn, Mark, Micros, TimelineId};
use crate::verify::verify;

fn seconds() -> Duration {
    let set = std::env::var("REDTAPE_BESIDE_SECONDS").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(set.unwrap_or(2))
}

/// Ends everybody also when an assertion fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn snapshot(dir: &Path, lsn: u64, timeline: u32, kind: SnapshotKind) {
    let mut writer = SnapshotWriter::create(dir).unwrap();
    writer.write(&[7; 2000]).unwrap();
    writer.commit(crate::snapshot::SnapshotManifest { kind, ..manifest(lsn, timeline, lsn as i64) }).unwrap();
}

/// Blocks, full segments that are packed, timelines with their bases, a change of the source's id, marks.
fn write(journal: &mut Fixture, durable: &AtomicU64, stop: &AtomicBool) {
    let mut timeline = 1;
    for n in 0u64.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        journal.block(&[OwnedGroup::set(0, &n.to_le_bytes(), &[n as u8; 300])]);
        if n % 10 == 9 {
            journal.sync();
            let lsn = journal.builder.next_lsn().0 - 1;
            durable.store(u64::from(timeline) << 32 | lsn, Ordering::Release);
            add_mark(journal.dir(), &Mark { name: format!("m{n}"), ts: Micros(n as i64), lsn: Lsn(lsn) }).unwrap();
        }
        if n % 50 == 49 {
            let lsn = journal.builder.next_lsn().0 - 1;
            timeline += 1;
            snapshot(journal.dir(), lsn, timeline, SnapshotKind::Base);
            journal.timeline();
        }
        if n % 170 == 169 {
            journal.writer().change_source(format!("source {n}")).unwrap();
            journal.writer().change_source(format!("source {timeline}")).unwrap();
        }
        // What is not removed must be small enough to be read often.
        std::thread::sleep(Duration::from_micros(500));
        journal.expected.iter_mut().for_each(|(_, groups)| groups.clear());
    }
}

fn take_snapshots(dir: &Path, durable: &AtomicU64, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        let at = durable.load(Ordering::Acquire);
        if at > 0 {
            snapshot(dir, at & 0xffff_ffff, (at >> 32) as u32, SnapshotKind::Scheduled);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Removes nearly everything, as soon as nobody reads: `pause` asks the readers for that.
fn remove(dir: &Path, pause: &AtomicBool, stop: &AtomicBool) -> u64 {
    let (mut removed, keep) = (0, Retention { keep: None, max_bytes: Some(1) });
    while !stop.load(Ordering::Relaxed) {
        match prune(dir, &keep, Micros(i64::MAX), &mut |_| removed += 1, &|| stop.load(Ordering::Relaxed)) {
            Ok(_) | Err(PruneError::Stopped) => pause.store(false, Ordering::Relaxed),
            Err(PruneError::InUse { .. }) => pause.store(true, Ordering::Relaxed),
            Err(error) => panic!("{error}"),
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    removed
}

/// Runs `read` again and again; gives how often.
fn again((pause, stop): (&AtomicBool, &AtomicBool), mut read: impl FnMut()) -> u64 {
    let mut times = 0;
    while !stop.load(Ordering::Relaxed) {
        if !pause.load(Ordering::Relaxed) {
            read();
            times += 1;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    times
}

fn read_all(dir: &Path) {
    let catalog = Catalog::open(dir).unwrap();
    assert_eq!(catalog.notes(), [""; 0]);
    assert!(!catalog.windows().is_empty());
    for window in catalog.windows() {
        let groups = catalog.groups(window.from_lsn, window.timeline);
        let last = groups.map(|group| group.unwrap().records.last().unwrap().lsn).last();
        assert_eq!(last.unwrap_or(window.from_lsn).max(window.to_lsn), window.to_lsn);
    }
}

fn follow(dir: &Path, stop: &AtomicBool) {
    let mut follower = Follower::open(dir, &Keyring::default(), Lsn(0), None).unwrap();
    let mut given = 0;
    while !stop.load(Ordering::Relaxed) {
        match follower.next().unwrap() {
            Some(Followed::Group { .. }) => given += 1,
            Some(Followed::Note(_)) => {}
            None => std::thread::sleep(Duration::from_millis(1)),
        }
    }
    assert!(given > 0);
}

fn verified(dir: &Path, deep: bool) {
    let report = verify(dir, deep, |_| ()).unwrap();
    assert_eq!(report.problems, [], "{:?}", report.notes);
}

fn nothing_to_repair(dir: &Path) {
    let report = plan_repair(dir, &Keyring::default()).unwrap();
    assert_eq!((report.faults, report.lost, report.steps), (vec![], vec![], vec![]));
}

#[test]
fn no_reader_takes_work_in_progress_for_damage() {
    let mut journal = Fixture::with(OpenOptions { compact: true, ..options(4 << 10) });
    snapshot(journal.dir(), 0, 1, SnapshotKind::Base);
    journal.timeline();
    journal.block(&[OwnedGroup::simple(b"the first")]);
    journal.sync();
    let (stop, pause) = (AtomicBool::new(false), AtomicBool::new(false));
    let durable = Arc::new(AtomicU64::new(0));
    let dir = journal.dir().to_owned();
    let counts = std::thread::scope(|scope| {
        let _stop = Stop(&stop);
        let (stop, pause, dir, durable) = (&stop, &pause, &dir, &durable);
        let journal = &mut journal;
        let guarded = move |what: &dyn Fn() -> u64| {
            let _stop = Stop(stop);
            what()
        };
        scope.spawn(move || {
            let _stop = Stop(stop);
            write(journal, durable, stop);
        });
        scope.spawn(move || {
            guarded(&|| {
                take_snapshots(dir, durable, stop);
                0
            })
        });
        let readers: Vec<std::thread::ScopedJoinHandle<'_, u64>> = vec![
            scope.spawn(move || guarded(&|| remove(dir, pause, stop))),
            scope.spawn(move || guarded(&|| again((pause, stop), || verified(dir, true)))),
            scope.spawn(move || guarded(&|| again((pause, stop), || verified(dir, false)))),
            scope.spawn(move || guarded(&|| again((pause, stop), || nothing_to_repair(dir)))),
            scope.spawn(move || guarded(&|| again((pause, stop), || read_all(dir)))),
            scope.spawn(move || {
                guarded(&|| {
                    again((pause, stop), || {
                        drop(plan_prune(dir, &Retention { keep: None, max_bytes: Some(1) }, Micros(9)).unwrap());
                    })
                })
            }),
            scope.spawn(move || {
                guarded(&|| {
                    follow(dir, stop);
                    1
                })
            }),
        ];
        let since = Instant::now();
        while since.elapsed() < seconds() && !stop.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(20));
        }
        stop.store(true, Ordering::Relaxed);
        readers.into_iter().map(|reader| reader.join().unwrap()).collect::<Vec<u64>>()
    });
    tracing::info!("removed, then how often each has read: {counts:?}");
    assert!(counts.iter().all(|n| *n > 0), "{counts:?}");
    journal.close();
    assert_eq!(verify(&dir, true, |_| ()).unwrap().problems, []);
    assert!(Catalog::open(&dir).unwrap().timelines().last().unwrap().id > TimelineId(1));
}
