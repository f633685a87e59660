//! The source of a timeline goes on under another id: the timeline goes on, too.

use std::os::unix::fs::FileExt;

use crate::catalog::Catalog;
use crate::crypto::Keyring;
use crate::error::AppendError;
use crate::model::{Fixture, OwnedGroup, keyring, options};
use crate::open::OpenOptions;
use crate::prune::{Retention, prune};
use crate::repair::repair;
use crate::snapshot::tests::{manifest, store};
use crate::types::{Lsn, Micros, TimelineId};
use crate::verify::verify;

fn group(n: u8) -> Vec<OwnedGroup> {
    vec![OwnedGroup::simple(&[n; 20])]
}

/// A base, then each id in turn with one record, then closed. An id that begins with `-` gets no record.
fn journal(ids: &[&str]) -> Fixture {
    let mut journal = Fixture::new(1 << 20);
    journal.timeline();
    store(&journal, manifest(0, 1, 1));
    journal.block(&group(0));
    for (n, id) in ids.iter().enumerate() {
        journal.writer().change_source((*id).to_owned()).unwrap();
        if !id.starts_with('-') {
            journal.block(&group(n as u8 + 1));
        }
    }
    journal.close();
    journal
}

fn ids(journal: &Fixture) -> Vec<String> {
    let catalog = Catalog::open_with(journal.dir(), &journal.options.keyring).unwrap();
    assert_eq!(catalog.notes(), [""; 0]);
    assert_eq!(catalog.timelines().len(), 1, "one history");
    catalog.timelines()[0].source_ids().map(str::to_owned).collect()
}

#[test]
fn the_timeline_goes_on_and_says_where_the_id_changed() {
    let mut journal = journal(&["second", "second", "third"]);
    journal.check();
    assert_eq!(ids(&journal), ["source 1", "second", "third"]);
    assert_eq!(journal.segments().len(), 3, "the same id again begins no segment");
    let catalog = Catalog::open(journal.dir()).unwrap();
    let timeline = &catalog.timelines()[0];
    let changes: Vec<(u64, &str, &str)> =
        timeline.source_changes.iter().map(|c| (c.first_lsn.0, &*c.before, &*c.after)).collect();
    assert_eq!(changes, [(2, "source 1", "second"), (4, "second", "third")]);
    assert_eq!(timeline.source_changes[0].offset, journal.expected[0].1[0].end_offset);
    assert!(timeline.had_source("second") && !timeline.had_source("fourth"));
    let between = |base, lsn| timeline.change_between(Lsn(base), Lsn(lsn)).map(|c| c.first_lsn.0);
    assert_eq!(
        [between(0, 1), between(0, 2), between(1, 2), between(2, 3), between(2, 4)],
        [None, Some(2), Some(2), None, Some(4)]
    );
    let windows = catalog.windows();
    assert_eq!((windows.len(), windows[0].to_lsn), (1, Lsn(4)), "one window over all of it");
    assert_eq!(verify(journal.dir(), true, |_| ()).unwrap().problems, []);
    drop(catalog);
    journal.reopen();
    assert_eq!(journal.recovered.last.as_ref().unwrap().source_id, "third");
    journal.block(&group(9));
    journal.close();
    journal.check();
    assert_eq!(ids(&journal), ["source 1", "second", "third"]);
    assert_eq!(verify(journal.dir(), true, |_| ()).unwrap().problems, []);
}

#[test]
fn ids_that_change_before_a_record_comes_share_a_segment() {
    for changes in [&["-a", "-b", "c"][..], &["-a", "source 1"], &["-a"]] {
        let mut journal = journal(changes);
        journal.check();
        assert_eq!(ids(&journal), ["source 1", changes.last().unwrap()], "{changes:?}");
        assert_eq!(verify(journal.dir(), true, |_| ()).unwrap().problems, []);
        journal.reopen();
        assert_eq!(journal.recovered.last.as_ref().unwrap().source_id, *changes.last().unwrap());
        journal.kill();
    }
}

#[test]
fn a_timeline_without_a_record_changes_its_id_too_and_keeps_it_when_the_keys_change() {
    let mut journal = Fixture::new(1 << 20);
    journal.timeline();
    journal.writer().change_source("second".to_owned()).unwrap();
    journal.kill();
    journal.options.keyring = keyring(&["key-1"]);
    journal.reopen();
    assert_eq!(journal.recovered.last.as_ref().unwrap().source_id, "second");
    journal.block(&group(1));
    journal.close();
    journal.check();
    assert_eq!(ids(&journal), ["source 1", "second"]);
}

#[test]
fn without_a_timeline_no_id_can_change() {
    let journal = Fixture::new(1 << 20);
    journal.writer().change_source("second".to_owned()).unwrap();
    crate::model::wait_until("failed", || journal.writer().failed().is_some());
    let failure = journal.writer().failed().unwrap();
    assert!(matches!(failure.cause(), AppendError::NoTimeline), "{failure}");
}

#[test]
fn snapshots_count_for_the_timeline_whichever_id_they_name() {
    let mut journal = journal(&["second"]);
    let mut later = manifest(2, 1, 25);
    later.source_id = "second".to_owned();
    store(&journal, later);
    let windows = |journal: &Fixture| {
        let catalog = Catalog::open(journal.dir()).unwrap();
        catalog.windows().iter().map(|w| (w.from_lsn.0, w.to_lsn.0)).collect::<Vec<_>>()
    };
    // It is that of the end, from which nothing goes on yet.
    assert_eq!(windows(&journal), [(0, 2)]);
    journal.reopen();
    journal.writer().change_source("third".to_owned()).unwrap();
    journal.block(&group(3));
    journal.close();
    assert_eq!(windows(&journal), [(0, 3)]);
    // What was before the newer base goes: the first id is in no segment any more, and the rest still counts.
    let keep = Retention { keep: None, max_bytes: Some(1) };
    prune(journal.dir(), &keep, Micros(i64::MAX), &mut |_| {}, &|| false).unwrap();
    assert_eq!(windows(&journal), [(2, 3)]);
    assert_eq!(verify(journal.dir(), true, |_| ()).unwrap().problems, []);
    let catalog = Catalog::open(journal.dir()).unwrap();
    assert_eq!(catalog.timelines()[0].source_ids().collect::<Vec<_>>(), ["second", "third"]);
}

#[test]
fn a_kept_snapshot_of_an_earlier_id_stays_a_restore_point_when_the_change_is_gone() {
    let mut journal = journal(&["second"]);
    let mut by_hand = manifest(1, 1, 12);
    by_hand.kind = crate::snapshot::SnapshotKind::Manual;
    let mut base = manifest(2, 1, 25);
    base.source_id = "second".to_owned();
    for manifest in [by_hand, base] {
        store(&journal, manifest);
    }
    journal.reopen();
    journal.block(&group(3));
    journal.close();
    let keep = Retention { keep: None, max_bytes: Some(1) };
    prune(journal.dir(), &keep, Micros(i64::MAX), &mut |_| {}, &|| false).unwrap();
    assert_eq!(ids(&journal), ["second"]);
    let catalog = Catalog::open(journal.dir()).unwrap();
    let windows: Vec<(u64, u64)> = catalog.windows().iter().map(|w| (w.from_lsn.0, w.to_lsn.0)).collect();
    assert_eq!(windows, [(1, 1), (2, 3)], "its own moment, and the rest");
}

#[test]
fn the_headers_around_the_change_are_made_again_from_their_neighbours() {
    for damaged in 0..4 {
        let mut journal = journal(&["second", "third", "fourth"]);
        let path = journal.segments()[damaged].clone();
        let file = std::fs::File::options().write(true).open(&path).unwrap();
        // Two bytes: no single bit explains them.
        file.write_all_at(&[0xff, 0xff], 100).unwrap();
        let report = repair(journal.dir(), &Keyring::default()).unwrap();
        assert!(!report.plan.is_sound() && report.plan.lost.is_empty(), "{damaged}: {report:?}");
        let report = verify(journal.dir(), true, |_| ()).unwrap();
        assert_eq!(report.problems, [], "{damaged}");
        journal.check();
        let expected: &[&str] = match damaged {
            // Nobody says that it changed at last: the server says it again.
            3 => &["source 1", "second", "third"],
            _ => &["source 1", "second", "third", "fourth"],
        };
        assert_eq!(ids(&journal), expected, "{damaged}");
        journal.reopen();
        journal.kill();
    }
}

#[test]
fn a_lost_segment_with_the_change_does_not_keep_the_rest_from_being_used() {
    let mut journal = journal(&["second", "third"]);
    std::fs::remove_file(&journal.segments()[1]).unwrap();
    let report = repair(journal.dir(), &Keyring::default()).unwrap();
    assert_eq!(report.plan.lost.len(), 1, "{report:?}");
    assert_eq!(verify(journal.dir(), true, |_| ()).unwrap().problems, []);
    journal.reopen();
    assert!(journal.recovered.last.is_some());
    journal.kill();
}

#[test]
fn a_crash_before_the_change_is_durable_leaves_the_id_before() {
    let mut journal = journal(&["second"]);
    // The header of the new segment did not reach the disk.
    std::fs::write(journal.last_segment(), [0; 64]).unwrap();
    journal.reopen();
    assert_eq!(journal.recovered.last.as_ref().unwrap().source_id, "source 1");
    journal.writer().change_source("second".to_owned()).unwrap();
    journal.kill();
    assert_eq!(ids(&journal), ["source 1", "second"]);
}

#[test]
fn encrypted_and_as_written_it_is_the_same() {
    for options in [
        OpenOptions { keyring: keyring(&["key-1"]), ..options(1 << 20) },
        OpenOptions { compact: false, ..options(1 << 20) },
    ] {
        let mut journal = Fixture::with(options);
        journal.timeline();
        journal.block(&group(1));
        journal.writer().change_source("second".to_owned()).unwrap();
        journal.block(&group(2));
        journal.close();
        journal.check();
        assert_eq!(ids(&journal), ["source 1", "second"]);
        let report = crate::verify::verify_with(journal.dir(), true, &journal.options.keyring, |_| ()).unwrap();
        assert_eq!(report.problems, []);
        assert_eq!(journal.expected[0].0, TimelineId(1));
    }
}
