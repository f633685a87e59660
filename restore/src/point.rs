//! Resolves the requested point in time to a restore point in the journal.
//!
//! Pure: [`locate`] maps facts of the catalog to a [`RestorePoint`]. The cut is after the last whole group with `ts <=
//! T`; the base is the newest snapshot of that timeline that contains nothing behind the cut and shows a point in time
//! not after T.

use std::path::PathBuf;

use redtape_journal::query::{AsOf, PointInTime, When, WhenError, Zone, list_windows};
use redtape_journal::{
    Catalog, Cut, Gap, Lsn, Mark, Micros, ReadError, SnapshotInfo, SnapshotManifest, SourceChange, TimelineId,
    TimelineInfo, Window,
};

use crate::clock_steps::came_twice;

/// Where exactly a restore begins and ends.
#[derive(Debug, Clone, PartialEq)]
pub struct RestorePoint {
    /// The timeline.
    pub timeline: TimelineId,
    /// Everything up to this record is restored.
    pub lsn: Lsn,
    /// Time of the last group that is restored, or of the base if there is none behind it.
    pub ts: Micros,
    /// The requested time. For a requested record: the time of the last group before the cut or, with `before`, of the
    /// first one behind it.
    pub asked: Micros,
    /// Writes at the requested time are left out.
    pub before: bool,
    /// The zone of the request.
    pub zone: Zone,
    /// Time of the dataset's clock: a TTL that ends at or before it has passed.
    pub clock: Micros,
    /// The base.
    pub base: SnapshotInfo,
    /// Time of the first group that is left out.
    pub next_ts: Option<Micros>,
    /// Warnings.
    pub warnings: Vec<String>,
}

impl RestorePoint {
    /// The request in its own zone and in UTC, and the cut.
    pub fn echo(&self) -> String {
        let before = if self.before { "before " } else { "" };
        format!("{before}{}, LSN {}, timeline {}", self.zone.show_with_utc(self.asked), self.lsn, self.timeline)
    }

    /// True if a key with this expiry time, in ms since 1970, is gone for a client.
    pub(crate) fn has_passed(&self, at_ms: i64) -> bool {
        // A server keeps a key for the millisecond in which it expires.
        self.clock.0.div_euclid(1000) > at_ms
    }
}

/// The catalog's facts, and its search for cuts.
pub trait Facts {
    /// Ranges that can be restored.
    fn windows(&self) -> Vec<Window>;
    /// Ranges that cannot.
    fn gaps(&self) -> Vec<Gap>;
    /// Named points in time.
    fn marks(&self) -> Vec<Mark>;
    /// Snapshots.
    fn snapshots(&self) -> Vec<SnapshotInfo>;
    /// Damage that was avoided.
    fn notes(&self) -> Vec<String>;
    /// The newest timeline, restorable or not.
    fn last_timeline(&self) -> Option<TimelineId>;
    /// The change of the source's id that a replay from this base to `lsn` passes, if any.
    fn change_passed(&self, _base: &SnapshotManifest, _lsn: Lsn) -> Option<SourceChange> {
        None
    }
    /// The last whole group with `ts <= at`.
    fn cut_by_ts(&self, timeline: TimelineId, at: Micros) -> Result<Cut, ReadError>;
    /// The last whole group that ends at or before `lsn`.
    fn cut_by_lsn(&self, timeline: TimelineId, lsn: Lsn) -> Result<Cut, ReadError>;
}

impl Facts for Catalog {
    fn windows(&self) -> Vec<Window> {
        Self::windows(self)
    }
    fn gaps(&self) -> Vec<Gap> {
        Self::gaps(self)
    }
    fn marks(&self) -> Vec<Mark> {
        Self::marks(self).to_vec()
    }
    fn snapshots(&self) -> Vec<SnapshotInfo> {
        // Only those within their timeline's history, or without segments: then a window belongs to them alone.
        let (timelines, windows) = (self.timelines(), self.windows());
        let belongs = |s: &&SnapshotInfo| {
            let m = &s.manifest;
            let known =
                |t: &TimelineInfo| t.id == m.timeline && t.had_source(&m.source_id) && m.offset >= t.start_offset;
            let alone = |w: &Window| w.timeline == m.timeline && w.from_lsn == m.lsn && w.from == m.ts;
            timelines.iter().any(known) || windows.iter().any(alone)
        };
        Self::snapshots(self).iter().filter(belongs).cloned().collect()
    }
    fn last_timeline(&self) -> Option<TimelineId> {
        self.timelines().last().map(|t| t.id)
    }
    fn notes(&self) -> Vec<String> {
        Self::notes(self).to_vec()
    }
    fn change_passed(&self, base: &SnapshotManifest, lsn: Lsn) -> Option<SourceChange> {
        let timelines = self.timelines();
        change_passed(&timelines.iter().find(|t| t.id == base.timeline)?.source_changes, base, lsn).cloned()
    }
    fn cut_by_ts(&self, timeline: TimelineId, at: Micros) -> Result<Cut, ReadError> {
        self.find_cut_by_ts(timeline, at)
    }
    fn cut_by_lsn(&self, timeline: TimelineId, lsn: Lsn) -> Result<Cut, ReadError> {
        self.find_cut_by_lsn(timeline, lsn)
    }
}

/// The first change of a timeline's source id that has no base after it, if `lsn` lies behind it. A base records the
/// source's id.
fn change_passed<'a>(changes: &'a [SourceChange], base: &SnapshotManifest, lsn: Lsn) -> Option<&'a SourceChange> {
    let before_base = changes.iter().rposition(|c| c.after == base.source_id).map_or(0, |n| n + 1);
    changes[before_base..].iter().find(|c| c.first_lsn <= lsn)
}

/// Why a point in time cannot be restored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum PointError {
    #[error(
        "the journal holds no restorable point in time yet: it has no base snapshot; let `redtape proxy` or `redtape follow` finish its first full sync"
    )]
    NoWindow,
    #[error("{}", damaged_behind(*.end))]
    Damaged { end: Micros },
    /// The newest timeline cannot be restored, and an older one was not requested.
    #[error(
        "the base of the newest timeline ({timeline}) is missing or damaged, so nothing of it can be restored; \
         `redtape journal verify` says more; to restore up to the end of the one before use --at {end}"
    )]
    NewestLost { timeline: TimelineId, end: Micros },
    #[error("{asked} is outside of the restorable windows. Restorable:\n{windows}")]
    Outside { asked: Micros, windows: String },
    #[error(
        "{asked} is later than the journal's end ({end}); {}. Restorable:\n{windows}",
        if *.damaged { damaged_behind(*.end) } else { "use --at latest for the newest state in it".to_owned() }
    )]
    Future { asked: Micros, end: Micros, damaged: bool, windows: String },
    #[error(
        "{asked} lies in a gap of the journal, from {from} to {to}: {reason}. Nearest restorable points in time: {nearest}"
    )]
    InGap { asked: Micros, from: Micros, to: Micros, reason: String, nearest: String },
    #[error("there is no mark named {name:?}; {known}")]
    NoMark { name: String, known: String },
    #[error(
        "LSN {lsn} cannot be restored{}. Restorable:\n{windows}",
        damaged.map(|end| format!(": {}", damaged_behind(end))).unwrap_or_default()
    )]
    NoLsn { lsn: Lsn, damaged: Option<Micros>, windows: String },
    #[error("no snapshot lies at or before {asked} in timeline {timeline}; restorable:\n{windows}")]
    NoBase { asked: Micros, timeline: TimelineId, windows: String },
    #[error("the snapshot {} is listed but its file is missing", .0.display())]
    BaseMissing(PathBuf),
    /// True if it is before everything restorable.
    #[error("nothing that can be restored lies before {what}. Restorable:\n{windows}")]
    NothingBefore { what: String, windows: String },
    #[error(transparent)]
    When(#[from] WhenError),
}

fn damaged_behind(end: Micros) -> String {
    format!(
        "the journal is damaged after {end}; `redtape journal verify` shows where; to restore up to there use --at {end}"
    )
}

/// Why no restore point was found.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum LocateError {
    /// There is none.
    #[error(transparent)]
    Point(#[from] PointError),
    /// The journal cannot be read there.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// Finds the restore point. `now` is the reference of "ago", `zone` that of times without one.
pub fn locate(as_of: &AsOf, now: Micros, zone: &Zone, facts: &dyn Facts) -> Result<RestorePoint, LocateError> {
    let (when, before) = match as_of {
        AsOf::At(when) => (when, false),
        AsOf::Before(when) => (when, true),
    };
    // The journal ends shortly before the present, and holds nothing from behind it.
    let (when, before) = if *when == When::Now { (&When::Latest, false) } else { (when, before) };
    let when = when.resolve(now, zone).map_err(PointError::When)?;
    let windows = facts.windows();
    let Some(newest) = windows.iter().max_by_key(|w| (w.timeline, w.to)) else {
        return Err(PointError::NoWindow.into());
    };
    let found = match &when {
        PointInTime::At(at) => by_time(*at, before, &windows, facts)?,
        PointInTime::Latest if newest.damaged_behind => return Err(PointError::Damaged { end: newest.to }.into()),
        PointInTime::Latest if facts.last_timeline().is_some_and(|last| last > newest.timeline) => {
            let timeline = facts.last_timeline().unwrap_or_default();
            return Err(PointError::NewestLost { timeline, end: newest.to }.into());
        }
        PointInTime::Latest if before => {
            before_record(newest.to_lsn, Some(newest.to), "the last write", &windows, facts)?
        }
        PointInTime::Latest => {
            let by_lsn = || facts.cut_by_lsn(newest.timeline, newest.to_lsn);
            Found::new(newest, without_segments(newest).map_or_else(by_lsn, Ok)?, newest.to)
        }
        PointInTime::Lsn(lsn) if before => before_record(*lsn, None, &format!("LSN {lsn}"), &windows, facts)?,
        PointInTime::Lsn(lsn) => by_lsn(*lsn, None, &windows, facts)?,
        PointInTime::Mark(name) => {
            let marks = facts.marks();
            let Some(mark) = marks.iter().filter(|m| m.name == *name).max_by_key(|m| (m.lsn, m.ts)) else {
                return Err(PointError::NoMark { name: name.clone(), known: list_marks(&marks) }.into());
            };
            if before {
                before_record(mark.lsn, Some(mark.ts), &format!("mark:{}", mark.shown_name()), &windows, facts)?
            } else {
                Found { asked: mark.ts, clock: mark.ts, ..by_lsn(mark.lsn, Some(mark.ts), &windows, facts)? }
            }
        }
    };
    with_base(found, &when, before, zone, &windows, facts)
}

/// Adds the base to the result.
fn with_base(
    found: Found<'_>,
    when: &PointInTime,
    before: bool,
    zone: &Zone,
    windows: &[Window],
    facts: &dyn Facts,
) -> Result<RestorePoint, LocateError> {
    let Found { window, cut, asked, clock, mut warnings } = found;
    warnings.extend(facts.notes());
    let timed = matches!(when, PointInTime::At(_));
    let snapshots = facts.snapshots();
    let base = snapshots
        .iter()
        .filter(|s| s.manifest.timeline == window.timeline)
        .filter(|s| window.from_lsn <= s.manifest.lsn && s.manifest.lsn <= cut.lsn)
        .filter(|s| !timed || s.manifest.ts <= clock)
        .max_by_key(|s| (s.manifest.lsn, s.manifest.ts));
    let Some(base) = base else {
        return Err(PointError::NoBase { asked, timeline: window.timeline, windows: list_windows(windows) }.into());
    };
    if base.manifest.lsn == cut.lsn && timed && clock.0 - base.manifest.ts.0 < 0 {
        warnings.push(format!("the base shows {}, later than the requested point in time", base.manifest.ts));
    }
    if let Some(change) = facts.change_passed(&base.manifest, cut.lsn) {
        warnings.push(format!(
            "at LSN {}, between the base and this point in time, the server continued its history under another replication id \
             ({}, before {}): a transaction that held a REPLICAOF may have lost writes there. Points in time behind the next base are \
             certain",
            change.first_lsn, change.after, change.before
        ));
    }
    let ts = if base.manifest.lsn == cut.lsn { base.manifest.ts.max(cut.ts.min(clock)) } else { cut.ts };
    Ok(RestorePoint {
        timeline: window.timeline,
        lsn: cut.lsn,
        ts,
        asked,
        before,
        zone: zone.clone(),
        clock: clock.max(ts),
        base: base.clone(),
        next_ts: cut.next_ts,
        warnings,
    })
}

/// The last whole group that ran at this time or earlier; with `before`, earlier.
fn by_time<'a>(at: Micros, before: bool, windows: &'a [Window], facts: &dyn Facts) -> Result<Found<'a>, LocateError> {
    let last = Micros(at.0.saturating_sub(i64::from(before)));
    let Some(window) = windows.iter().rev().find(|w| w.from <= last && last <= w.to) else {
        return Err(not_in_a_window(last, windows, &facts.gaps()).into());
    };
    let cut = without_segments(window).map_or_else(|| facts.cut_by_ts(window.timeline, last), Ok)?;
    let slack = slack_warning(&cut, last);
    let warnings = slack.into_iter().chain(came_twice(&facts.marks(), last)).collect();
    Ok(Found { window, cut, asked: at, clock: last, warnings })
}

/// The last whole group before the one that holds this record. `near` tells windows apart, as in [`by_lsn`].
fn before_record<'a>(
    lsn: Lsn,
    near: Option<Micros>,
    what: &str,
    windows: &'a [Window],
    facts: &dyn Facts,
) -> Result<Found<'a>, LocateError> {
    let holds = |w: &&Window| w.from_lsn < lsn && lsn <= w.to_lsn && near.is_none_or(|ts| w.from <= ts && ts <= w.to);
    let Some(window) = windows.iter().find(holds) else {
        // There is a point in time to restore, but no write before it.
        let at_base = windows.iter().any(|w| w.from_lsn == lsn && near.is_none_or(|ts| w.from <= ts && ts <= w.to));
        if at_base {
            return Err(PointError::NothingBefore { what: what.to_owned(), windows: list_windows(windows) }.into());
        }
        return by_lsn(lsn, near, windows, facts);
    };
    let cut = facts.cut_by_lsn(window.timeline, Lsn(lsn.0 - 1))?;
    let mut found = Found::new(window, cut, cut.next_ts.unwrap_or(cut.ts));
    found.clock = cut.ts;
    if cut.lsn.0 + 1 < lsn.0 {
        found.warnings.push(format!(
            "LSN {lsn} lies inside a group (a transaction or script), which is left out as a whole: the cut is after LSN {}",
            cut.lsn
        ));
    }
    Ok(found)
}

/// The cut in a window of a single point in time: that of a snapshot behind which the segments were removed.
fn without_segments(window: &Window) -> Option<Cut> {
    let single = window.from == window.to && window.from_lsn == window.to_lsn;
    single.then_some(Cut { lsn: window.from_lsn, ts: window.from, next_ts: None, next_slack: 0 })
}

/// A window, a cut in it, and what [`RestorePoint`] says of them.
struct Found<'a> {
    window: &'a Window,
    cut: Cut,
    asked: Micros,
    clock: Micros,
    warnings: Vec<String>,
}

impl<'a> Found<'a> {
    fn new(window: &'a Window, cut: Cut, asked: Micros) -> Self {
        Self { window, cut, asked, clock: asked, warnings: Vec::new() }
    }
}

fn by_lsn<'a>(
    lsn: Lsn,
    near: Option<Micros>,
    windows: &'a [Window],
    facts: &dyn Facts,
) -> Result<Found<'a>, LocateError> {
    // The last LSN of a timeline is also that of the next one's base: the time decides which is meant.
    let holds = |w: &&Window| w.from_lsn <= lsn && lsn <= w.to_lsn;
    let named = |w: &&Window| near.is_none_or(|ts| w.from <= ts && ts <= w.to);
    if let Some(ts) = near
        && !windows.iter().any(|w| named(&w))
    {
        // Its LSN may lie in a window that shows another point in time there.
        return Err(not_in_a_window(ts, windows, &facts.gaps()).into());
    }
    let Some(window) = windows.iter().find(|w| holds(w) && named(w)) else {
        // The last window before it.
        let before = windows.iter().filter(|w| w.to_lsn < lsn).max_by_key(|w| (w.to_lsn, w.timeline));
        let damaged = before.filter(|w| w.damaged_behind).map(|w| w.to);
        return Err(PointError::NoLsn { lsn, damaged, windows: list_windows(windows) }.into());
    };
    let cut = without_segments(window).map_or_else(|| facts.cut_by_lsn(window.timeline, lsn), Ok)?;
    let mut found = Found::new(window, cut, cut.ts);
    if cut.lsn < lsn {
        found.warnings.push(format!(
            "LSN {lsn} lies inside a group (a transaction or script), which is left out as a whole: the cut is after LSN {}",
            cut.lsn
        ));
    }
    Ok(found)
}

/// The next group may have run before T although its time is later.
fn slack_warning(cut: &Cut, asked: Micros) -> Option<String> {
    let next = cut.next_ts?;
    let earliest = next.0.saturating_sub(i64::try_from(cut.next_slack).unwrap_or(i64::MAX));
    (earliest <= asked.0).then(|| {
        format!(
            "the first write that is left out ran between {} and {next}: it may have run before the requested point in time. To include it, ask for {next}",
            Micros(earliest)
        )
    })
}

fn not_in_a_window(asked: Micros, windows: &[Window], gaps: &[Gap]) -> PointError {
    if let Some(gap) = gaps.iter().find(|g| g.from < asked && asked < g.to) {
        let before = windows.iter().filter(|w| w.to <= asked).max_by_key(|w| w.to);
        let after = windows.iter().filter(|w| w.from >= asked).min_by_key(|w| w.from);
        let nearest = [before.map(|w| w.to), after.map(|w| w.from)];
        let nearest: Vec<String> = nearest.iter().flatten().map(ToString::to_string).collect();
        return PointError::InGap {
            asked,
            from: gap.from,
            to: gap.to,
            reason: gap.reason.clone(),
            nearest: nearest.join(" and "),
        };
    }
    match windows.iter().max_by_key(|w| (w.to, w.timeline)) {
        Some(last) if asked > last.to => {
            PointError::Future { asked, end: last.to, damaged: last.damaged_behind, windows: list_windows(windows) }
        }
        _ => PointError::Outside { asked, windows: list_windows(windows) },
    }
}

fn list_marks(marks: &[Mark]) -> String {
    const SHOWN: usize = 20;
    if marks.is_empty() {
        return "the journal has no marks (set one with `redtape journal mark NAME`)".to_owned();
    }
    let line = |m: &Mark| format!("{} ({}, LSN {})", m.shown_name(), m.ts, m.lsn);
    let shown: Vec<String> = marks.iter().rev().take(SHOWN).map(line).collect();
    let more = marks.len().saturating_sub(SHOWN);
    let more = if more > 0 { format!(", and {more} older ones") } else { String::new() };
    format!("the newest are: {}{more}", shown.join(", "))
}

#[cfg(test)]
#[path = "point_tests.rs"]
mod tests;
