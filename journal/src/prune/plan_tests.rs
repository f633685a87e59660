//! The planner: a table of cases, and random journals.

use proptest::prelude::*;

use super::facts::SegmentFact;
use super::*;
use crate::catalog::Window;
use crate::catalog::window::Stretch;
use crate::segment::header::{SourceHistory, TimelineFacts};
use crate::snapshot::{SnapshotInfo, SnapshotKind, tests::manifest};
use crate::types::{Lsn, Mark, ReplOffset, TimelineId};

/// Size of every segment and every snapshot of the table.
const BYTES: u64 = 100;

fn timeline(id: u32) -> TimelineFacts {
    TimelineFacts {
        id: TimelineId(id),
        source_id: format!("source {id}"),
        reason: format!("reason {id}"),
        start_offset: ReplOffset(1000 * u64::from(id)),
        start_ts: Micros(0),
    }
}

/// A segment of records `lsns`, complete until `to`.
fn segment(id: u32, lsns: std::ops::RangeInclusive<u64>, from: i64, to: i64) -> SegmentFact {
    SegmentFact {
        path: format!("s{}-{id}", lsns.start()).into(),
        timeline: timeline(id),
        source: SourceHistory::Unchanged,
        first_lsn: Lsn(*lsns.start()),
        last_lsn: Lsn(*lsns.end()),
        first_ts: Micros(from),
        last_ts: Micros(to),
        complete_until: Micros(to),
        damaged: false,
        bytes: BYTES,
    }
}

fn snapshot(id: u32, lsn: u64, ts: i64, kind: SnapshotKind) -> SnapshotInfo {
    let manifest = crate::snapshot::SnapshotManifest { kind, bytes: BYTES, ..manifest(lsn, id, ts) };
    SnapshotInfo { path: format!("r{lsn}-{id}-{ts}.rdb").into(), manifest, key_index_bytes: 0 }
}

use SnapshotKind::{Base, Manual, Scheduled};

/// Four segments of ten records, ten seconds each, with a snapshot in front of each.
fn usual() -> Facts {
    Facts {
        segments: (0..4).map(|n| segment(1, 10 * n + 1..=10 * n + 10, 10 * n as i64, 10 * n as i64 + 10)).collect(),
        snapshots: [(0, Base), (10, Scheduled), (20, Manual), (30, Scheduled)]
            .map(|(lsn, kind)| snapshot(1, lsn, lsn as i64, kind))
            .into(),
        marks: vec![Mark { name: "early".into(), ts: Micros(5), lsn: Lsn(5) }],
    }
}

fn keep(micros: i64) -> Retention {
    Retention { keep: Some(Duration::from_micros(micros as u64)), max_bytes: None }
}

fn at_most(max_bytes: u64) -> Retention {
    Retention { keep: None, max_bytes: Some(max_bytes) }
}

pub(super) fn names_of(plan: &PrunePlan) -> String {
    let names: Vec<_> = plan.removed().map(|i| i.path.file_name().unwrap().to_string_lossy()).collect();
    names.join(" ")
}

fn damaged(mut facts: Facts, n: usize) -> Facts {
    facts.segments[n].damaged = true;
    facts
}

fn without_snapshots(mut facts: Facts, lsns: &[u64]) -> Facts {
    facts.snapshots.retain(|s| !lsns.contains(&s.manifest.lsn.0));
    facts
}

/// Two timelines of two segments each, with their bases alone.
fn two_timelines() -> Facts {
    Facts {
        segments: vec![
            segment(1, 1..=10, 0, 10),
            segment(1, 11..=20, 10, 20),
            segment(2, 21..=30, 25, 30),
            segment(2, 31..=40, 30, 40),
        ],
        snapshots: vec![snapshot(1, 0, 0, Base), snapshot(2, 20, 22, Base)],
        marks: vec![],
    }
}

/// A timeline that ends where the next one begins, which has a second snapshot of its first point in time.
fn two_bases_of_one_point() -> Facts {
    let mut again = snapshot(2, 10, 10, Scheduled);
    again.path = "r10-again.rdb".into();
    Facts {
        segments: vec![segment(1, 1..=10, 0, 10), segment(2, 11..=20, 10, 20), segment(2, 21..=30, 20, 40)],
        snapshots: vec![snapshot(1, 0, 0, Base), snapshot(2, 10, 10, Base), again],
        marks: vec![],
    }
}

#[test]
fn what_goes() {
    let everything = "r0-1-0.rdb s1-1 r10-1-10.rdb s11-1 s21-1";
    let cases: Vec<(&str, Facts, Retention, i64, &str)> = vec![
        ("nothing is asked for", usual(), Retention::default(), 40, ""),
        ("all is young", usual(), keep(100), 40, ""),
        ("the window begins within a base's segments", usual(), keep(25), 40, "r0-1-0.rdb s1-1"),
        ("exactly at a snapshot", usual(), keep(30), 40, "r0-1-0.rdb s1-1"),
        ("a moment before it", usual(), keep(31), 40, ""),
        ("a manual snapshot is a base like others", usual(), keep(15), 40, "r0-1-0.rdb s1-1 r10-1-10.rdb s11-1"),
        ("and stays alone when its segments go", usual(), keep(5), 40, everything),
        ("the last base stays, whatever the time", usual(), keep(0), 40, everything),
        ("a clock that is ahead costs nothing", usual(), keep(25), i64::MAX, "r0-1-0.rdb s1-1"),
        ("nor one that is behind", usual(), keep(25), 10, ""),
        ("without a base nothing goes", without_snapshots(usual(), &[0, 10, 20, 30]), keep(0), 40, ""),
        ("nor what only an old base leads to", without_snapshots(usual(), &[10, 20, 30]), keep(5), 40, ""),
        // The second segment is damaged, and nothing starts behind it before LSN 30.
        (
            "a damaged run reaches into the window",
            damaged(without_snapshots(usual(), &[20]), 1),
            keep(22),
            40,
            "r0-1-0.rdb s1-1",
        ),
        (
            "a stretch without a base is kept while it is young",
            damaged(without_snapshots(usual(), &[20]), 1),
            keep(15),
            40,
            "r0-1-0.rdb s1-1 r10-1-10.rdb s11-1",
        ),
        (
            "and goes when all that is kept is newer",
            damaged(without_snapshots(usual(), &[20]), 1),
            keep(9),
            40,
            "r0-1-0.rdb s1-1 r10-1-10.rdb s11-1 s21-1",
        ),
        ("an old timeline goes as a whole", two_timelines(), keep(10), 40, "r0-1-0.rdb s1-1 s11-1"),
        ("not while a moment of it is promised", two_timelines(), keep(20), 40, ""),
        ("in the gap between them neither is", two_timelines(), keep(19), 40, "r0-1-0.rdb s1-1 s11-1"),
        ("small enough", usual(), at_most(8 * BYTES), 40, ""),
        ("one base with its segment", usual(), at_most(8 * BYTES - 1), 40, "r0-1-0.rdb s1-1"),
        ("two", usual(), at_most(5 * BYTES), 40, "r0-1-0.rdb s1-1 r10-1-10.rdb s11-1"),
        ("the last base stays, whatever the size", usual(), at_most(0), 40, everything),
        (
            "what the size takes leaves nothing that time alone would take",
            two_bases_of_one_point(),
            Retention { keep: Some(Duration::from_micros(30)), max_bytes: Some(4 * BYTES) },
            40,
            "r0-1-0.rdb s1-1 r10-2-10.rdb",
        ),
    ];
    for (what, facts, retention, now, goes) in cases {
        let plan = plan::retain(&facts, &retention, Micros(now));
        assert_eq!(names_of(&plan), goes, "{what}: {plan:#?}");
        let left: u64 = plan.items.iter().filter(|i| !i.goes).map(|i| i.bytes).sum();
        assert_eq!(plan.bytes_after, left, "{what}");
    }
}

fn window(from: i64, from_lsn: u64, to: i64, to_lsn: u64) -> Window {
    Window {
        timeline: TimelineId(1),
        from: Micros(from),
        from_lsn: Lsn(from_lsn),
        to: Micros(to),
        to_lsn: Lsn(to_lsn),
        damaged_behind: false,
    }
}

#[test]
fn a_plan_says_what_remains_and_why() {
    let plan = plan::retain(&usual(), &keep(5), Micros(40));
    assert_eq!(plan.windows_before, [window(0, 0, 40, 40)]);
    assert_eq!(plan.windows_after, [window(20, 20, 20, 20), window(30, 30, 40, 40)], "the manual one's own moment");
    assert_eq!(plan.base.as_ref().map(|(path, _)| path.display().to_string()), Some("r30-1-30.rdb".to_owned()));
    assert_eq!(plan.lost_marks.iter().map(|m| m.name.as_str()).collect::<Vec<_>>(), ["early"]);
    let why = |name: &str| plan.items.iter().find(|i| i.path == Path::new(name)).map(|i| i.why);
    assert_eq!(why("s1-1"), Some(Why::Expired));
    assert_eq!(why("r20-1-20.rdb"), Some(Why::Manual));
    assert_eq!(why("s31-1"), Some(Why::LastBase));
    assert_eq!((plan.cut_short, plan.shortfall), (false, None));

    let both = Retention { max_bytes: Some(2 * BYTES), ..keep(25) };
    let plan = plan::retain(&usual(), &both, Micros(40));
    let why: Vec<_> = plan.removed().map(|i| i.why).collect();
    assert_eq!(why, [Why::Expired, Why::Expired, Why::OverLimit, Why::OverLimit, Why::OverLimit]);
    let shortfall = Shortfall { limit: 2 * BYTES, bytes: 3 * BYTES, manual_bytes: BYTES };
    assert_eq!((plan.cut_short, plan.shortfall), (true, Some(shortfall)), "the manual snapshot is in the way");
}

#[test]
fn while_nothing_is_written_only_the_newest_old_snapshot_is_needed() {
    let mut facts = usual();
    facts.segments.truncate(1);
    facts.snapshots = [(0, 0, Base), (10, 12, Scheduled), (10, 14, Scheduled), (10, 16, Scheduled)]
        .map(|(lsn, ts, kind)| snapshot(1, lsn, ts, kind))
        .into();
    facts.segments[0].complete_until = Micros(20);
    let plan = plan::retain(&facts, &keep(5), Micros(20));
    assert_eq!(names_of(&plan), "r0-1-0.rdb r10-1-12.rdb");
    assert_eq!(plan.windows_after, [window(14, 10, 20, 10)]);
}

#[test]
fn a_base_whose_timeline_begins_and_one_of_another_history_stay() {
    let mut facts = usual();
    facts.snapshots.push(snapshot(2, 40, 40, Base));
    let mut foreign = snapshot(1, 15, 15, Base);
    foreign.manifest.source_id = "another".to_owned();
    facts.snapshots.push(foreign);
    let plan = plan::retain(&facts, &keep(0), Micros(40));
    let stays = |name: &str| plan.items.iter().any(|i| i.path == Path::new(name) && i.why == Why::Foreign && !i.goes);
    assert!(stays("r40-2-40.rdb") && stays("r15-1-15.rdb"), "{plan:#?}");
}

#[test]
fn snapshots_are_removed_by_name_but_never_the_last_base() {
    let plan = |names: &[&str]| {
        let names: Vec<String> = names.iter().map(|&n| n.to_owned()).collect();
        plan::without(&usual(), &names, Path::new("dir"))
    };
    let two = plan(&["r0-1-0", "r20-1-20.rdb"]).unwrap();
    assert_eq!(names_of(&two), "r0-1-0.rdb r20-1-20.rdb");
    assert_eq!(two.windows_after, [window(10, 10, 40, 40)]);
    assert_eq!(two.lost_marks.len(), 1);
    assert!(matches!(plan(&["r1-1-0"]), Err(PruneError::NoSnapshot { .. })));
    let all = ["r0-1-0", "r10-1-10", "r20-1-20", "r30-1-30"];
    assert!(plan(&all[..3]).is_ok());
    assert!(matches!(plan(&all), Err(PruneError::LastBase { .. })));
}

/// One step of a made-up history.
#[derive(Debug, Clone)]
enum Step {
    Segment { records: u64, lasts: i64, bytes: u64, damaged: bool },
    Snapshot { kind: SnapshotKind, back: u64, bytes: u64 },
    Timeline { after: i64, has_base: bool },
    Mark,
}

fn any_step() -> impl Strategy<Value = Step> {
    let kind = prop_oneof![Just(Base), Just(Scheduled), Just(Manual)];
    prop_oneof![
        6 => (0u64..20, 0i64..30, 0u64..500, prop::bool::weighted(0.1))
            .prop_map(|(records, lasts, bytes, damaged)| Step::Segment { records, lasts, bytes, damaged }),
        4 => (kind, 0u64..15, 0u64..500).prop_map(|(kind, back, bytes)| Step::Snapshot { kind, back, bytes }),
        1 => (0i64..20, prop::bool::weighted(0.8)).prop_map(|(after, has_base)| Step::Timeline { after, has_base }),
        1 => Just(Step::Mark),
    ]
}

fn made_up(steps: &[Step]) -> Facts {
    let mut facts = Facts::default();
    let (mut now, mut lsn, mut id, mut begun_at) = (0, 0u64, 1, 0);
    facts.snapshots.push(snapshot(1, 0, 0, Base));
    for step in steps {
        match *step {
            Step::Segment { records, lasts, bytes, damaged } => {
                // A segment without a record is left only for a new timeline.
                if facts.segments.last().is_some_and(|s| s.timeline.id.0 == id && s.last_lsn < s.first_lsn) {
                    continue;
                }
                let mut segment = segment(id, lsn + 1..=lsn + records, now, now + lasts);
                (segment.bytes, segment.damaged) = (bytes, damaged);
                facts.segments.push(segment);
                // What is missing behind damage has numbers, too.
                lsn += records + u64::from(damaged) * 3;
                now += lasts;
            }
            Step::Snapshot { kind, back, bytes } => {
                // As old as the record with which it ends.
                let lsn = lsn.saturating_sub(back).max(begun_at);
                let covering = facts.segments.iter().find(|s| s.timeline.id.0 == id && s.last_lsn.0 >= lsn);
                let ts = covering.map_or(now, |s| s.last_ts.0);
                let mut info = snapshot(id, lsn, ts, kind);
                info.path = format!("r{}", facts.snapshots.len()).into();
                info.manifest.bytes = bytes;
                facts.snapshots.push(info);
            }
            Step::Timeline { after, has_base } => {
                (id, now, begun_at) = (id + 1, now + after, lsn);
                if has_base {
                    facts.snapshots.push(snapshot(id, lsn, now, Base));
                }
            }
            Step::Mark => facts.marks.push(Mark { name: "m".into(), ts: Micros(now), lsn: Lsn(lsn) }),
        }
    }
    facts
}

fn after(facts: &Facts, plan: &PrunePlan) -> Facts {
    let stays = |path: &Path| plan.items.iter().any(|i| !i.goes && i.path == path);
    Facts {
        segments: facts.segments.iter().filter(|s| stays(&s.path)).cloned().collect(),
        snapshots: facts.snapshots.iter().filter(|s| stays(&s.path)).cloned().collect(),
        marks: facts.marks.clone(),
    }
}

fn covers(windows: &[Window], ts: i64) -> bool {
    windows.iter().any(|w| w.from.0 <= ts && ts <= w.to.0)
}

/// Segments lead on from a snapshot.
fn has_base(facts: &Facts) -> bool {
    let stretches: Vec<_> = facts.segments.iter().map(SegmentFact::stretch).collect();
    let leads_on = |s: &SnapshotInfo| {
        stretches.chunk_by(Stretch::leads_to).any(|run| crate::catalog::window::leads_on(&s.manifest, run))
    };
    facts.snapshots.iter().any(leads_on)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, ..ProptestConfig::default() })]

    #[test]
    fn what_is_promised_stays(
        steps in prop::collection::vec(any_step(), 0..40),
        keep_micros in prop::option::of(0i64..300), limit in prop::option::of(0u64..8000), late in -50i64..50,
    ) {
        let facts = made_up(&steps);
        let end = facts.segments.iter().map(|s| s.last_ts.0).max().unwrap_or(0);
        let now = Micros(end + late);
        let retention =
            Retention { keep: keep_micros.map(|k| Duration::from_micros(k as u64)), max_bytes: limit };
        let plan = plan::retain(&facts, &retention, now);

        // Only the oldest segments, and never the one in use.
        let kept: Vec<bool> = facts.segments.iter().map(|s| plan.items.iter().any(|i| i.path == s.path && !i.goes)).collect();
        prop_assert!(kept.is_sorted(), "a hole: {kept:?}");
        prop_assert!(kept.last().is_none_or(|&last| last), "the segment in use");
        // Nothing taken by hand.
        prop_assert!(plan.removed().all(|i| i.kind != ItemKind::Snapshot(SnapshotKind::Manual)));
        // A base stays.
        let left = after(&facts, &plan);
        prop_assert_eq!(has_base(&facts), has_base(&left));
        prop_assert!(has_base(&facts) || plan.is_empty());
        // Every promised point in time stays, unless the size takes it.
        let cutoff = keep_micros.map_or(i64::MIN, |k| now.0.min(end) - k);
        if limit.is_none() {
            for ts in cutoff.max(-1)..=end + 60 {
                prop_assert!(
                    !covers(&plan.windows_before, ts) || covers(&plan.windows_after, ts),
                    "{ts} is lost, kept from {cutoff}: {plan:#?}"
                );
            }
            prop_assert!(!plan.cut_short && plan.shortfall.is_none());
        }
        // No window claims more than before, but for the own points in time of snapshots within damage.
        for ts in -1..=end + 60 {
            let own = || facts.snapshots.iter().any(|s| s.manifest.ts.0 == ts);
            prop_assert!(covers(&plan.windows_before, ts) || !covers(&plan.windows_after, ts) || own(), "{ts} appears");
        }
        // The limit holds, or it is said.
        if let Some(limit) = limit && has_base(&facts) {
            prop_assert_eq!(plan.bytes_after > limit, plan.shortfall.is_some());
        }
        // Once is enough.
        let again = plan::retain(&left, &retention, now);
        prop_assert!(again.is_empty(), "first {plan:#?} then {again:#?}");
        prop_assert_eq!(again.windows_before, plan.windows_after);
    }
}
