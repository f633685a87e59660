//! What goes and what stays: a pure decision over the facts. The table of rules is in [`super`].

use std::collections::HashSet;
use std::fmt;
use std::path::{Path, PathBuf};

use super::facts::Facts;
use super::{PruneError, Retention};
use crate::catalog::Window;
use crate::catalog::window::{Stretch, is_left_alone, leads_on, windows};
use crate::snapshot::SnapshotKind;
use crate::types::{Lsn, Mark, Micros, TimelineId};

/// What is decided.
#[derive(Debug, Clone, PartialEq)]
pub struct PrunePlan {
    /// Every segment and every snapshot, in the order of the history, with its verdict.
    pub items: Vec<PruneItem>,
    /// The snapshot on which what remains rests, and its BLAKE3: to be compared before anything goes.
    pub base: Option<(PathBuf, String)>,
    /// What can be restored now.
    pub windows_before: Vec<Window>,
    /// What can be restored afterwards.
    pub windows_after: Vec<Window>,
    /// Marks that can be restored now, and not afterwards.
    pub lost_marks: Vec<Mark>,
    /// Automatic marks that go with the history they name.
    pub removed_marks: Vec<Mark>,
    /// Size of all segments, and snapshots with their key indexes, now.
    pub bytes_before: u64,
    /// The same afterwards.
    pub bytes_after: u64,
    /// From here on every point in time was to be kept; `None` = all.
    pub promised_from: Option<Micros>,
    /// The size limit took more than retention alone would have.
    pub cut_short: bool,
    /// The size limit cannot be met.
    pub shortfall: Option<Shortfall>,
}

/// A size limit that cannot be met, as the last snapshot and what lies behind it are never removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shortfall {
    /// The limit.
    pub limit: u64,
    /// What remains.
    pub bytes: u64,
    /// Of it, snapshots that were taken by hand and that nothing else needs.
    pub manual_bytes: u64,
}

/// A segment or a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PruneItem {
    /// The file; a snapshot's manifest goes with it.
    pub path: PathBuf,
    /// What it is.
    pub kind: ItemKind,
    /// Its timeline.
    pub timeline: TimelineId,
    /// Its first LSN; a snapshot's LSN.
    pub first_lsn: Lsn,
    /// Its last LSN; a snapshot's LSN.
    pub last_lsn: Lsn,
    /// Time of its first group; a snapshot's point in time.
    pub from: Micros,
    /// Up to where it reaches; a snapshot's point in time.
    pub to: Micros,
    /// Its size; a snapshot's with its key index.
    pub bytes: u64,
    /// It is removed.
    pub goes: bool,
    /// Why it goes, or stays.
    pub why: Why,
}

/// What an item is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ItemKind {
    /// A segment.
    Segment,
    /// A snapshot of this kind.
    Snapshot(SnapshotKind),
}

/// Why something goes or stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// Goes: older than what retention keeps, and nothing that is kept needs it.
    Expired,
    /// Goes: the journal is larger than it may be.
    OverLimit,
    /// Removed on request.
    Asked,
    /// Stays: what can be restored needs it.
    Needed,
    /// Stays: the newest snapshot from which segments lead on, or what lies behind it.
    LastBase,
    /// Stays: it was taken by hand.
    Manual,
    /// Stays: without any snapshot from which segments lead on, nothing is removed.
    NoBase,
    /// Stays: no restore can start from it, and it is not for pruning to judge why.
    Foreign,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Expired => "older than what is kept",
            Self::OverLimit => "the journal is larger than it may be",
            Self::Asked => "asked for",
            Self::Needed => "needed for what is kept",
            Self::LastBase => "the last base, or behind it",
            Self::Manual => "taken by hand: stays until `redtape snapshot rm`",
            Self::NoBase => "nothing goes while there is no base",
            Self::Foreign => "not of this history, or of a timeline that is only beginning",
        })
    }
}

impl PrunePlan {
    /// What goes.
    pub fn removed(&self) -> impl Iterator<Item = &PruneItem> {
        self.items.iter().filter(|i| i.goes)
    }

    /// Nothing goes.
    pub fn is_empty(&self) -> bool {
        self.removed().next().is_none()
    }
}

/// A place from which on everything is kept. In the order of the history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Start {
    /// The first segment that is kept.
    segment: usize,
    /// LSN and moment of the snapshot that leads on to it; the least where there is none.
    lsn: Lsn,
    ts: Micros,
    /// Which snapshot that is.
    snapshot: Option<usize>,
}

impl Start {
    fn at(segment: usize) -> Self {
        Self { segment, lsn: Lsn(0), ts: Micros(i64::MIN), snapshot: None }
    }
}

/// Where a snapshot lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Segments lead on from it.
    Base(Start),
    /// Before the first segment that is kept.
    Alone,
    /// Nowhere that is understood.
    Elsewhere,
}

struct Planner<'a> {
    facts: &'a Facts,
    stretches: Vec<Stretch<'a>>,
    /// In the order of the history.
    bases: Vec<Start>,
    cutoff: Option<Micros>,
}

/// Plans what `retention` leaves.
pub(super) fn retain(facts: &Facts, retention: &Retention, now: Micros) -> PrunePlan {
    let mut planner = Planner::new(facts, retention, now);
    let Some(newest) = planner.bases.last().copied() else {
        planner.cutoff = None;
        return planner.plan(Start::at(0), false, Why::NoBase);
    };
    let by_time = planner.start_by_time(Start::at(0)).min(newest);
    let (mut start, mut squeezed) = (by_time, false);
    if let Some(limit) = retention.max_bytes {
        // First what outlived its segments, then base by base.
        squeezed = planner.bytes_from(start, false) > limit;
        while planner.bytes_from(start, squeezed) > limit {
            let Some(next) = planner.bases.iter().copied().find(|b| *b > start) else { break };
            // What is left may hold bases that its own age makes unnecessary.
            start = planner.start_by_time(next).min(newest).max(next);
        }
    }
    let mut plan = planner.plan(start, squeezed, if start >= newest { Why::LastBase } else { Why::Needed });
    // The same items in the same order.
    let timely = planner.plan(by_time, false, Why::Needed);
    for (item, timely) in plan.items.iter_mut().zip(&timely.items).filter(|(i, t)| i.goes && !t.goes) {
        debug_assert_eq!(item.path, timely.path);
        item.why = Why::OverLimit;
    }
    let cut_short = plan.removed().any(|i| i.why == Why::OverLimit);
    plan.cut_short = cut_short;
    plan.shortfall = retention.max_bytes.filter(|limit| plan.bytes_after > *limit).map(|limit| Shortfall {
        limit,
        bytes: plan.bytes_after,
        manual_bytes: plan
            .items
            .iter()
            .filter(|i| !i.goes && i.kind == ItemKind::Snapshot(SnapshotKind::Manual) && planner.precedes(i, start))
            .map(|i| i.bytes)
            .sum(),
    });
    plan
}

/// Plans the removal of snapshots by name, and of nothing else.
pub(super) fn without(facts: &Facts, names: &[String], dir: &Path) -> Result<PrunePlan, PruneError> {
    let planner = Planner::new(facts, &Retention::default(), Micros(i64::MAX));
    let mut plan = planner.plan(Start::at(0), false, Why::Needed);
    for name in names {
        let wanted = name.strip_suffix(".json").or_else(|| name.strip_suffix(".rdb")).unwrap_or(name);
        let named = |i: &&mut PruneItem| {
            let stem = i.path.with_extension("");
            i.kind != ItemKind::Segment && (stem.file_name().is_some_and(|f| f == wanted) || stem == Path::new(wanted))
        };
        let item = plan.items.iter_mut().find(named);
        let item = item.ok_or_else(|| PruneError::NoSnapshot { name: name.clone(), dir: dir.to_owned() })?;
        (item.goes, item.why) = (true, Why::Asked);
    }
    let goes = |path: &Path| plan.items.iter().any(|i| i.goes && i.path == path);
    let stays = |b: &&Start| b.snapshot.is_some_and(|n| !goes(&facts.snapshots[n].path));
    let remaining: Vec<Start> = planner.bases.iter().filter(stays).copied().collect();
    if let (Some(last), true) = (planner.bases.last().and_then(|b| b.snapshot), remaining.is_empty()) {
        return Err(PruneError::LastBase { path: facts.snapshots[last].path.clone() });
    }
    // Whichever goes, what remains of each run rests on another one.
    let base = remaining.last().and_then(|b| b.snapshot).map(|n| &facts.snapshots[n]);
    plan.base = base.map(|b| (b.path.clone(), b.manifest.blake3.clone()));
    planner.sum_up(&mut plan);
    Ok(plan)
}

impl<'a> Planner<'a> {
    fn new(facts: &'a Facts, retention: &Retention, now: Micros) -> Self {
        let stretches: Vec<Stretch<'a>> = facts.segments.iter().map(super::facts::SegmentFact::stretch).collect();
        let mut bases = Vec::new();
        let mut begin = 0;
        for run in stretches.chunk_by(Stretch::leads_to) {
            for (n, info) in facts.snapshots.iter().enumerate() {
                let m = &info.manifest;
                if !leads_on(m, run) {
                    continue;
                }
                // The last one stays though it ends with the snapshot: it says up to when nothing happened.
                let behind = run.iter().position(|s| s.last_lsn > m.lsn).unwrap_or(run.len() - 1);
                bases.push(Start { segment: begin + behind, lsn: m.lsn, ts: m.ts, snapshot: Some(n) });
            }
            begin += run.len();
        }
        bases.sort_unstable();
        let end = stretches.iter().map(Stretch::end).max();
        let cutoff = retention.keep.zip(end).map(|(keep, end)| {
            let keep = i64::try_from(keep.as_micros()).unwrap_or(i64::MAX);
            Micros(now.min(end).0.saturating_sub(keep))
        });
        Self { facts, stretches, bases, cutoff }
    }

    /// By the first table of [`super`], `keep` alone, of what lies behind `from`.
    fn start_by_time(&self, from: Start) -> Start {
        let Some(cutoff) = self.cutoff else { return from };
        let mut begin = 0;
        for run in self.stretches.chunk_by(Stretch::leads_to) {
            let segments = begin.max(from.segment)..begin + run.len();
            begin = segments.end;
            if segments.is_empty() {
                continue;
            }
            let bases = || self.bases.iter().filter(|b| segments.contains(&b.segment) && **b >= from);
            let end = run[run.len() - 1].end().max(bases().map(|b| b.ts).max().unwrap_or(Micros(i64::MIN)));
            if end < cutoff {
                continue;
            }
            if let Some(base) = bases().filter(|b| b.ts <= cutoff).max() {
                return *base;
            }
            let reaching = segments.clone().find(|n| self.stretches[*n].end() >= cutoff);
            let first_base = bases().map(|b| b.segment).min();
            return Start::at(reaching.into_iter().chain(first_base).min().unwrap_or(segments.start));
        }
        // Every run ended before: the caller keeps the newest base.
        Start::at(self.stretches.len())
    }

    fn place(&self, n: usize, start: Start) -> Place {
        if let Some(base) = self.bases.iter().find(|b| b.snapshot == Some(n)) {
            return Place::Base(*base);
        }
        match self.stretches.get(start.segment) {
            Some(first) if is_left_alone(&self.facts.snapshots[n].manifest, first) => Place::Alone,
            _ => Place::Elsewhere,
        }
    }

    /// The snapshot is removed if everything from `start` on is kept.
    fn snapshot_goes(&self, n: usize, start: Start, squeezed: bool) -> bool {
        let manifest = &self.facts.snapshots[n].manifest;
        if manifest.kind == SnapshotKind::Manual {
            return false;
        }
        match self.place(n, start) {
            Place::Base(base) => base < start,
            Place::Alone => squeezed || self.cutoff.is_some_and(|cutoff| manifest.ts < cutoff),
            Place::Elsewhere => false,
        }
    }

    fn bytes_from(&self, start: Start, squeezed: bool) -> u64 {
        let segments = self.facts.segments[start.segment..].iter().map(|s| s.bytes);
        let stays = |n: &usize| !self.snapshot_goes(*n, start, squeezed);
        let snapshots = (0..self.facts.snapshots.len()).filter(stays);
        segments.chain(snapshots.map(|n| self.facts.snapshots[n].stored_bytes())).sum()
    }

    /// A snapshot that lies before `start`.
    fn precedes(&self, item: &PruneItem, start: Start) -> bool {
        let n = self.facts.snapshots.iter().position(|s| s.path == item.path);
        n.is_some_and(|n| match self.place(n, start) {
            Place::Base(base) => base < start,
            Place::Alone => true,
            Place::Elsewhere => false,
        })
    }

    /// Everything from `start` on is kept, for the reason `stays`.
    fn plan(&self, start: Start, squeezed: bool, stays: Why) -> PrunePlan {
        let segments = self.facts.segments.iter().enumerate().map(|(n, s)| PruneItem {
            path: s.path.clone(),
            kind: ItemKind::Segment,
            timeline: s.timeline.id,
            first_lsn: s.first_lsn,
            last_lsn: s.last_lsn,
            from: s.first_ts,
            to: s.stretch().end(),
            bytes: s.bytes,
            goes: n < start.segment,
            why: if n < start.segment { Why::Expired } else { stays },
        });
        let snapshots = self.facts.snapshots.iter().enumerate().map(|(n, info)| {
            let (m, goes) = (&info.manifest, self.snapshot_goes(n, start, squeezed));
            let why = match self.place(n, start) {
                _ if goes => Why::Expired,
                Place::Elsewhere => Why::Foreign,
                Place::Base(base) if base >= start => stays,
                _ if m.kind == SnapshotKind::Manual => Why::Manual,
                _ => Why::Needed,
            };
            PruneItem {
                path: info.path.clone(),
                kind: ItemKind::Snapshot(m.kind),
                timeline: m.timeline,
                first_lsn: m.lsn,
                last_lsn: m.lsn,
                from: m.ts,
                to: m.ts,
                bytes: info.stored_bytes(),
                goes,
                why,
            }
        });
        let mut items: Vec<PruneItem> = snapshots.chain(segments).collect();
        items.sort_by_key(|i| (i.timeline, i.first_lsn, i.kind == ItemKind::Segment, i.from));
        let base = self.bases.iter().find(|b| **b >= start).and_then(|b| b.snapshot);
        let base = base.map(|n| &self.facts.snapshots[n]).map(|s| (s.path.clone(), s.manifest.blake3.clone()));
        let mut plan = PrunePlan {
            items,
            base,
            windows_before: Vec::new(),
            windows_after: Vec::new(),
            lost_marks: Vec::new(),
            removed_marks: Vec::new(),
            bytes_before: 0,
            bytes_after: 0,
            promised_from: self.cutoff,
            cut_short: false,
            shortfall: None,
        };
        self.sum_up(&mut plan);
        plan
    }

    /// What the verdicts come to.
    fn sum_up(&self, plan: &mut PrunePlan) {
        let going: HashSet<&Path> = plan.removed().map(|i| i.path.as_path()).collect();
        let goes = |path: &Path| going.contains(path);
        let manifests: Vec<_> = self.facts.snapshots.iter().map(|s| &s.manifest).collect();
        let kept: Vec<_> = self.facts.snapshots.iter().filter(|s| !goes(&s.path)).map(|s| &s.manifest).collect();
        let first = self.facts.segments.iter().take_while(|s| goes(&s.path)).count();
        let before = windows(&self.stretches, &manifests);
        let after = windows(&self.stretches[first..], &kept);
        let names = |m: &Mark, w: &Window| w.from <= m.ts && m.ts <= w.to && w.from_lsn <= m.lsn && m.lsn <= w.to_lsn;
        let is_in = |m: &Mark, all: &[Window]| all.iter().any(|w| names(m, w));
        plan.lost_marks = self.facts.marks.iter().filter(|m| is_in(m, &before) && !is_in(m, &after)).cloned().collect();
        // What lies in no window for another reason (damage, a missing base) may be put right one day.
        let remains_from = self.facts.segments.get(first).map(|s| s.first_lsn);
        let is_past = |m: &Mark| remains_from.is_some_and(|from| m.lsn.0 + 1 < from.0) && !is_in(m, &after);
        plan.removed_marks = self.facts.marks.iter().filter(|m| m.is_automatic() && is_past(m)).cloned().collect();
        (plan.windows_before, plan.windows_after) = (before, after);
        plan.bytes_before = plan.items.iter().map(|i| i.bytes).sum();
        plan.bytes_after = plan.items.iter().filter(|i| !i.goes).map(|i| i.bytes).sum();
    }
}
