use redtape_journal::{ReplOffset, SnapshotKind, SnapshotManifest};

use redtape_journal::query::When;

use super::*;
use crate::error::{ErrorKind, RestoreError};

/// The point, or why there is none; the journal can be read.
#[track_caller]
fn found(when: &When, now: i64, facts: &dyn Facts) -> Result<RestorePoint, PointError> {
    asked(&AsOf::At(when.clone()), now, facts)
}

#[track_caller]
fn asked(as_of: &AsOf, now: i64, facts: &dyn Facts) -> Result<RestorePoint, PointError> {
    locate(as_of, Micros(now), &Zone::utc(), facts).map_err(|error| match error {
        LocateError::Point(error) => error,
        LocateError::Read(error) => panic!("readable: {error}"),
    })
}

/// A journal of two timelines. Timeline 1: base at 100 (LSN 0), groups (end LSN, ts): (1, 110), (3, 120),
/// (4, 120), (5, 150); a manual snapshot at LSN 4, 130; complete until 160. Timeline 2: base at 300
/// (LSN 5), group (6, 310) with slack 4; complete until 400.
struct Fake;

const GROUPS: [(u32, u64, i64, u64); 5] =
    [(1, 1, 110, 0), (1, 3, 120, 0), (1, 4, 120, 0), (1, 5, 150, 0), (2, 6, 310, 4)];

fn snapshot(timeline: u32, lsn: u64, ts: i64) -> SnapshotInfo {
    SnapshotInfo {
        path: format!("/j/snapshots/{lsn}-{ts}.rdb").into(),
        manifest: SnapshotManifest {
            journal_id: String::new(),
            lsn: Lsn(lsn),
            timeline: TimelineId(timeline),
            source_id: String::new(),
            offset: ReplOffset(0),
            db: None,
            ts: Micros(ts),
            kind: SnapshotKind::Base,
            bytes: 1,
            blake3: String::new(),
            magic_version: String::new(),
            server_version: String::new(),
            checksum_present: true,
            encryption: None,
            command_table: None,
        },
        key_index_bytes: 0,
    }
}

fn cut(timeline: TimelineId, keep: impl Fn(u64, i64) -> bool) -> Cut {
    let start = if timeline.0 == 1 { (Lsn(0), Micros(100)) } else { (Lsn(5), Micros(300)) };
    let mut cut = Cut { lsn: start.0, ts: start.1, next_ts: None, next_slack: 0 };
    for (_, lsn, ts, slack) in GROUPS.iter().filter(|g| g.0 == timeline.0) {
        if keep(*lsn, *ts) {
            (cut.lsn, cut.ts) = (Lsn(*lsn), Micros(*ts));
        } else {
            (cut.next_ts, cut.next_slack) = (Some(Micros(*ts)), *slack);
            break;
        }
    }
    cut
}

impl Facts for Fake {
    fn windows(&self) -> Vec<Window> {
        let window = |timeline, from, from_lsn, to, to_lsn| Window {
            timeline: TimelineId(timeline),
            from: Micros(from),
            from_lsn: Lsn(from_lsn),
            to: Micros(to),
            to_lsn: Lsn(to_lsn),
            damaged_behind: false,
        };
        vec![window(1, 100, 0, 160, 5), window(2, 300, 5, 400, 6)]
    }
    fn gaps(&self) -> Vec<Gap> {
        vec![Gap { from: Micros(160), to: Micros(300), after_lsn: Lsn(5), reason: "the server was replaced".into() }]
    }
    fn marks(&self) -> Vec<Mark> {
        let mark = |name: &str, ts, lsn| Mark { name: name.into(), ts: Micros(ts), lsn: Lsn(lsn) };
        vec![
            mark("start", 100, 0),
            mark("deploy", 115, 1),
            mark("deploy", 130, 4),
            mark("later", 305, 5),
            mark("end", 155, 5),
            mark("before the base", 250, 5),
        ]
    }
    fn snapshots(&self) -> Vec<SnapshotInfo> {
        vec![snapshot(1, 0, 100), snapshot(1, 4, 130), snapshot(2, 5, 300)]
    }
    fn notes(&self) -> Vec<String> {
        Vec::new()
    }
    fn last_timeline(&self) -> Option<TimelineId> {
        self.windows().last().map(|w| w.timeline)
    }
    fn cut_by_ts(&self, timeline: TimelineId, at: Micros) -> Result<Cut, ReadError> {
        Ok(cut(timeline, |_, ts| ts <= at.0))
    }
    fn cut_by_lsn(&self, timeline: TimelineId, lsn: Lsn) -> Result<Cut, ReadError> {
        Ok(cut(timeline, |end, _| end <= lsn.0))
    }
}

/// The same journal with damage behind the end of its last window.
struct Damaged;

impl Facts for Damaged {
    fn windows(&self) -> Vec<Window> {
        let mut windows = Fake.windows();
        windows[1].damaged_behind = true;
        windows
    }
    fn gaps(&self) -> Vec<Gap> {
        Fake.gaps()
    }
    fn marks(&self) -> Vec<Mark> {
        Fake.marks()
    }
    fn snapshots(&self) -> Vec<SnapshotInfo> {
        Fake.snapshots()
    }
    fn notes(&self) -> Vec<String> {
        vec!["a segment is corrupt".to_owned()]
    }
    fn last_timeline(&self) -> Option<TimelineId> {
        Fake.last_timeline()
    }
    fn cut_by_ts(&self, timeline: TimelineId, at: Micros) -> Result<Cut, ReadError> {
        Fake.cut_by_ts(timeline, at)
    }
    fn cut_by_lsn(&self, timeline: TimelineId, lsn: Lsn) -> Result<Cut, ReadError> {
        Fake.cut_by_lsn(timeline, lsn)
    }
}

fn at(us: i64) -> When {
    When::At(Micros(us))
}

#[test]
fn cut_and_base() {
    for (when, lsn, base_lsn, warned) in [
        (at(100), 0, 0, false),
        (at(109), 0, 0, false),
        (at(110), 1, 0, false),
        (at(119), 1, 0, false),
        (at(120), 4, 0, false), // the snapshot at LSN 4 shows a later moment
        (at(130), 4, 4, false),
        (at(150), 5, 4, false),
        (at(160), 5, 4, false),
        (When::Ago(890), 1, 0, false),
        (at(305), 5, 5, false),
        (at(306), 5, 5, true), // the next group ran between 306 and 310
        (at(310), 6, 5, false),
        (When::Latest, 6, 5, false),
        (When::Now, 6, 5, false),
        (When::Lsn(Lsn(0)), 0, 0, false),
        (When::Lsn(Lsn(2)), 1, 0, true), // inside a group
        (When::Lsn(Lsn(3)), 3, 0, false),
        (When::Lsn(Lsn(4)), 4, 4, false),
        (When::Lsn(Lsn(6)), 6, 5, false),
        (When::Mark("start".into()), 0, 0, false),
        (When::Mark("deploy".into()), 4, 4, false),
        (When::Mark("end".into()), 5, 4, false),
        (When::Mark("later".into()), 5, 5, false),
    ] {
        let point = found(&when, 1000, &Fake).unwrap_or_else(|e| panic!("{when:?}: {e}"));
        assert_eq!((point.lsn.0, point.base.manifest.lsn.0), (lsn, base_lsn), "{when:?}");
        assert_eq!(!point.warnings.is_empty(), warned, "{when:?} {:?}", point.warnings);
        assert!(point.ts <= point.asked.max(point.ts));
    }
}

#[test]
fn before_leaves_out_what_ran_at_that_time() {
    // Asked for, cut, base, the time that is shown as asked for, the dataset's clock, whether there is a warning.
    for (when, lsn, base_lsn, shown, clock, warned) in [
        (at(101), 0, 0, 101, 100, false),
        (at(110), 0, 0, 110, 109, false),
        (at(111), 1, 0, 111, 110, false),
        (at(120), 1, 0, 120, 119, false),
        (at(121), 4, 0, 121, 120, false),
        (at(130), 4, 0, 130, 129, false), // the snapshot at LSN 4 shows 130
        (at(131), 4, 4, 131, 130, false),
        (at(150), 4, 4, 150, 149, false),
        (at(161), 5, 4, 161, 160, false),
        (at(310), 5, 5, 310, 309, true), // the next group ran between 306 and 310
        (at(306), 5, 5, 306, 305, false),
        (at(401), 6, 5, 401, 400, false),
        (When::Lsn(Lsn(1)), 0, 0, 110, 100, false),
        (When::Lsn(Lsn(2)), 1, 0, 120, 110, false),
        (When::Lsn(Lsn(3)), 1, 0, 120, 110, true), // inside a group
        (When::Lsn(Lsn(4)), 3, 0, 120, 120, false),
        (When::Lsn(Lsn(5)), 4, 4, 150, 130, false),
        (When::Lsn(Lsn(6)), 5, 5, 310, 300, false),
        (When::Latest, 5, 5, 310, 300, false),
        (When::Mark("deploy".into()), 3, 0, 120, 120, false),
        (When::Mark("end".into()), 4, 4, 150, 130, false),
    ] {
        let point = asked(&AsOf::Before(when.clone()), 1000, &Fake).unwrap_or_else(|e| panic!("{when:?}: {e}"));
        assert_eq!((point.lsn.0, point.base.manifest.lsn.0), (lsn, base_lsn), "{when:?}");
        assert_eq!((point.asked, point.clock, point.before), (Micros(shown), Micros(clock), true), "{when:?}");
        assert_eq!(!point.warnings.is_empty(), warned, "{when:?} {:?}", point.warnings);
        assert!(point.echo().starts_with("before 1970-"), "{}", point.echo());
    }
    for (when, words) in [
        (at(100), "outside"),
        (at(402), "later than"),
        (at(200), "gap"),
        (at(300), "gap"),
        (When::Lsn(Lsn(0)), "nothing that can be restored lies before LSN 0"),
        (When::Lsn(Lsn(7)), "LSN 7 cannot be restored"),
        (When::Mark("start".into()), "nothing that can be restored lies before mark:start"),
        // Its LSN is also the end of the timeline before; nothing was written behind its own base.
        (When::Mark("later".into()), "nothing that can be restored lies before mark:later"),
        (When::Mark("before the base".into()), "lies in a gap"),
    ] {
        let error = asked(&AsOf::Before(when.clone()), 1000, &Fake).expect_err("refused").to_string();
        assert!(error.contains(words), "{when:?}: {error}");
    }
    assert!(asked(&AsOf::Before(When::Latest), 1000, &Damaged).is_err_and(|e| matches!(e, PointError::Damaged { .. })));
    let pruned = asked(&AsOf::Before(When::Lsn(Lsn(4))), 500, &Pruned);
    assert!(pruned.is_err_and(|e| matches!(e, PointError::NothingBefore { .. })));
}

#[test]
fn a_time_of_the_wall_clock_is_one_of_the_zone() {
    let when: When = "1970-01-01 01:00:00.000110".parse().expect("a time");
    let zone: Zone = "+01:00".parse().expect("a zone");
    let point = locate(&AsOf::At(when.clone()), Micros(1000), &zone, &Fake).expect("a point");
    assert_eq!((point.lsn, point.asked), (Lsn(1), Micros(110)));
    let shown = "1970-01-01T01:00:00.000110+01:00 (+01; 1970-01-01T00:00:00.000110Z), LSN 1, timeline 1";
    assert_eq!(point.echo(), shown);
    assert!(found(&when, 1000, &Fake).is_err(), "in UTC that is an hour later");
    let twice: When = "2026-10-25 02:30".parse().expect("a time");
    let berlin: Zone = "CET-1CEST,M3.5.0,M10.5.0/3".parse().expect("a zone");
    let error = locate(&AsOf::At(twice), Micros(1000), &berlin, &Fake).map_err(|e| match e {
        LocateError::Point(error) => RestoreError::from(error),
        LocateError::Read(error) => RestoreError::from(error),
    });
    let error = error.expect_err("which one?");
    assert!(error.kind() == ErrorKind::Usage && error.to_string().contains("came twice"), "{error}");
}

#[test]
fn refusals_name_what_can_be_had() {
    for (when, words) in [
        (at(99), &["outside", "LSN 0 to 5", "timeline 2"][..]),
        (at(401), &["later than", "--at latest"]),
        (at(200), &["gap", "the server was replaced", "00.000160Z and", "00.000300Z"]),
        (When::Lsn(Lsn(7)), &["LSN 7", "LSN 5 to 6"]),
        (When::Mark("nope".into()), &["\"nope\"", "deploy"]),
        // Its LSN is in both windows, its point in time in none.
        (When::Mark("before the base".into()), &["00.000250Z lies in a gap", "the server was replaced"]),
    ] {
        let error = found(&when, 1000, &Fake).expect_err("refused").to_string();
        for word in words {
            assert!(error.contains(word), "{when:?}: {error}");
        }
    }
}

#[test]
fn a_damaged_end_is_not_taken_for_the_end() {
    let find = |when: When| found(&when, 1000, &Damaged);
    let advice = "damaged after 1970-01-01T00:00:00.000400Z; `redtape journal verify` shows where; to restore up to there use --at 1970-01-01T00:00:00.000400Z";
    for when in [When::Latest, at(401), When::Lsn(Lsn(7))] {
        let error = find(when.clone()).expect_err("refused");
        assert!(error.to_string().contains(advice), "{when:?}: {error}");
        assert!(!error.to_string().contains("latest"), "{when:?}: {error}");
        let kind = RestoreError::from(error).kind();
        let damaged = ErrorKind::Storage(redtape_journal::ErrorKind::Damaged);
        assert_eq!(kind, if when == When::Latest { damaged } else { ErrorKind::NotInJournal }, "{when:?}");
    }
    for when in [at(400), at(110), When::Lsn(Lsn(6))] {
        let point = find(when.clone()).unwrap_or_else(|e| panic!("{when:?}: {e}"));
        assert_eq!(point.warnings, ["a segment is corrupt"], "{when:?}");
    }
}

/// The newest timeline began, and its base is gone.
struct NewestLost;

impl Facts for NewestLost {
    fn windows(&self) -> Vec<Window> {
        Fake.windows()
    }
    fn gaps(&self) -> Vec<Gap> {
        Fake.gaps()
    }
    fn marks(&self) -> Vec<Mark> {
        Fake.marks()
    }
    fn snapshots(&self) -> Vec<SnapshotInfo> {
        Fake.snapshots()
    }
    fn notes(&self) -> Vec<String> {
        Vec::new()
    }
    fn last_timeline(&self) -> Option<TimelineId> {
        Some(TimelineId(99))
    }
    fn cut_by_ts(&self, timeline: TimelineId, at: Micros) -> Result<Cut, ReadError> {
        Fake.cut_by_ts(timeline, at)
    }
    fn cut_by_lsn(&self, timeline: TimelineId, lsn: Lsn) -> Result<Cut, ReadError> {
        Fake.cut_by_lsn(timeline, lsn)
    }
}

#[test]
fn an_older_timeline_is_not_taken_for_the_latest() {
    let refused = found(&When::Latest, 1000, &NewestLost).expect_err("refused");
    assert!(matches!(refused, PointError::NewestLost { timeline: TimelineId(99), .. }), "{refused}");
    assert!(refused.to_string().contains("--at "), "{refused}");
    assert!(found(&When::Latest, 1000, &Fake).is_ok());
}

/// What pruning leaves of the same journal: of timeline 1 only the manual snapshot.
struct Pruned;

impl Facts for Pruned {
    fn windows(&self) -> Vec<Window> {
        let moment = Window {
            timeline: TimelineId(1),
            from: Micros(130),
            from_lsn: Lsn(4),
            to: Micros(130),
            to_lsn: Lsn(4),
            damaged_behind: false,
        };
        vec![moment, Fake.windows().remove(1)]
    }
    fn gaps(&self) -> Vec<Gap> {
        vec![Gap { from: Micros(130), to: Micros(300), after_lsn: Lsn(4), reason: "removed".into() }]
    }
    fn marks(&self) -> Vec<Mark> {
        Fake.marks()
    }
    fn snapshots(&self) -> Vec<SnapshotInfo> {
        Fake.snapshots().split_off(1)
    }
    fn notes(&self) -> Vec<String> {
        Vec::new()
    }
    fn last_timeline(&self) -> Option<TimelineId> {
        Some(TimelineId(2))
    }
    fn cut_by_ts(&self, timeline: TimelineId, at: Micros) -> Result<Cut, ReadError> {
        if timeline == TimelineId(1) { Err(ReadError::NoTimeline(timeline)) } else { Fake.cut_by_ts(timeline, at) }
    }
    fn cut_by_lsn(&self, timeline: TimelineId, lsn: Lsn) -> Result<Cut, ReadError> {
        if timeline == TimelineId(1) { Err(ReadError::NoTimeline(timeline)) } else { Fake.cut_by_lsn(timeline, lsn) }
    }
}

#[test]
fn a_snapshot_without_its_segments_is_restored_at_its_own_moment_and_no_other() {
    for when in [at(130), When::Lsn(Lsn(4)), When::Mark("deploy".into())] {
        let point = found(&when, 500, &Pruned).expect("a restore point");
        assert_eq!((point.timeline, point.lsn, point.ts), (TimelineId(1), Lsn(4), Micros(130)), "{when:?}");
        assert_eq!((point.base.manifest.lsn, point.next_ts), (Lsn(4), None), "{when:?}");
    }
    for outside in [at(129), at(131), When::Lsn(Lsn(3)), When::Mark("start".into())] {
        assert!(found(&outside, 500, &Pruned).is_err(), "{outside:?}");
    }
    assert_eq!(found(&When::Latest, 500, &Pruned).map(|p| p.lsn), Ok(Lsn(6)));
}

#[test]
fn a_replay_over_a_change_of_the_sources_id_is_labelled() {
    let change = |first_lsn, before: &str, after: &str| SourceChange {
        first_lsn: Lsn(first_lsn),
        offset: ReplOffset(0),
        ts: Micros(0),
        before: before.to_owned(),
        after: after.to_owned(),
    };
    let changes = [change(5, "a", "b"), change(9, "b", "c")];
    // (id and LSN of the base, LSN of the point in time, LSN of the change that is passed)
    for (id, base, lsn, passed) in [
        ("a", 0, 4, None),
        ("a", 0, 5, Some(5)),
        ("a", 0, 20, Some(5)),
        // Taken behind the change, before the next write.
        ("b", 4, 5, None),
        ("b", 4, 9, Some(9)),
        ("b", 7, 8, None),
        // Taken before it, though nothing was written in between.
        ("a", 4, 5, Some(5)),
        ("c", 8, 20, None),
    ] {
        let mut base = snapshot(1, base, 100).manifest;
        base.source_id = id.to_owned();
        let found = change_passed(&changes, &base, Lsn(lsn)).map(|c| c.first_lsn.0);
        assert_eq!(found, passed, "{id} {} {lsn}", base.lsn);
    }
}
