//! What to make of what is left: which files stand, which are written anew, which go. Pure.
//!
//! | file | what becomes of it |
//! | --- | --- |
//! | as it was written, named right, in its place | stands |
//! | as it was written, another name | gets its name |
//! | its end torn, the last one | stands: the next start cuts it |
//! | its end torn, not the last one | its whole blocks are written anew and sealed |
//! | header, footer, filters or blocks damaged | each run of whole blocks is written anew as a segment |
//! | of another journal, or nothing can be made of it | goes |
//! | a second one of the same records | goes |
//!
//! Whatever is changed or goes is kept in the quarantine, as it was. LSNs have no holes, so that one in the result is
//! a loss; and where two links meet that do not name each other, there is a splice.

use super::examine::{Examined, Run, State};
use crate::segment::link::Link;
use crate::snapshot::SnapshotManifest;
use crate::splices::Splices;
use crate::types::{Lsn, Micros, TimelineId};

/// One segment of the result.
#[derive(Debug)]
pub(super) struct Piece<'a> {
    pub(super) of: &'a Examined,
    pub(super) run: &'a Run,
    pub(super) how: How,
}

/// How it comes to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum How {
    /// It is there.
    Stands(Link),
    /// It is there, unsealed.
    Open,
    /// It is there under another name.
    Renamed(Link),
    /// Its blocks are written anew.
    Recreated,
}

/// The result.
#[derive(Debug, Default)]
pub(super) struct Plan<'a> {
    pub(super) pieces: Vec<Piece<'a>>,
    /// Files that are changed or go, for the quarantine.
    pub(super) changed: Vec<&'a Examined>,
    /// Runs that hold nothing which is not elsewhere, or that contradict the others.
    pub(super) dropped: Vec<&'a Run>,
    /// Two pieces meet in a way that neither a header nor a splice explains.
    pub(super) unexplained: bool,
    /// A timeline has to begin anew behind all of it, with this LSN.
    pub(super) fresh: Option<Lsn>,
}

impl Piece<'_> {
    fn link(&self) -> Option<Link> {
        match self.how {
            How::Stands(link) | How::Renamed(link) => Some(link),
            How::Open | How::Recreated => None,
        }
    }

    /// Time of its first group, if it has one.
    pub(super) fn first_ts(&self) -> Option<Micros> {
        (self.run.tally.groups > 0).then_some(self.run.tally.first_ts)
    }

    fn next_lsn(&self) -> Lsn {
        self.run.tally.extent.next_lsn
    }
}

/// Decides. `files` in any order; `snapshots` are those that are right; `claims`: records up to before this LSN were
/// there once, as snapshots and marks say; `splices`: those of earlier repairs.
pub(super) fn plan<'a>(
    files: &'a [Examined],
    snapshots: &[&SnapshotManifest],
    claims: Lsn,
    splices: &Splices,
) -> Plan<'a> {
    let mut plan = Plan::default();
    choose(&mut plan, candidates(files));
    if let Some(first) = plan.pieces.first_mut()
        && first.run.header.first_lsn == Lsn(1)
        && first.run.header.timeline.id == TimelineId(1)
        && first.run.header.prev_link != [0; 32]
    {
        // Nothing can have been before it.
        first.how = How::Recreated;
    }
    let end = plan.pieces.last().map_or(Lsn(1), Piece::next_lsn);
    // A guess counts only if nothing that is right lies behind.
    let last = plan.pieces.last().map_or(Lsn(0), |p| p.run.header.first_lsn);
    let counts = |f: &&Examined| f.whole.is_some() || f.name.first_lsn >= last;
    let claims = files.iter().filter(counts).map(|f| f.claims).fold(claims, Lsn::max);
    plan.unexplained = unexplained(&plan.pieces, splices);
    let wrong = files.iter().any(|f| !f.faults.is_empty()) || !plan.dropped.is_empty() || plan.unexplained;
    // A writer goes on in a last segment without a record, which it cannot if that is packed.
    let packed = |p: &Piece<'_>| p.how == How::Recreated || (p.run.header.packed && p.how != How::Open);
    let empty = plan.pieces.last().is_some_and(|p| packed(p) && p.run.tally.records == 0);
    if claims > end || empty || (wrong && !leads_to_the_end(&plan.pieces, snapshots)) {
        plan.fresh = Some(claims.max(end));
    }
    let last = plan.pieces.len().saturating_sub(1);
    for (n, piece) in plan.pieces.iter_mut().enumerate() {
        if piece.how == How::Open && (n < last || plan.fresh.is_some()) {
            piece.how = How::Recreated;
        }
    }
    let stands = |file: &Examined| {
        let of = |p: &&Piece<'_>| std::ptr::eq(p.of, file);
        plan.pieces.iter().find(of).is_some_and(|p| matches!(p.how, How::Stands(_) | How::Open))
    };
    plan.changed = files.iter().filter(|file| !stands(file)).collect();
    plan
}

/// Every run of whole blocks, in the order of the history; of several for one place, the best comes first.
fn candidates(files: &[Examined]) -> Vec<Piece<'_>> {
    let mut all: Vec<Piece<'_>> = Vec::new();
    for of in files {
        for run in &of.runs {
            let named = run.header.first_lsn == of.name.first_lsn && run.header.timeline.id == of.name.timeline;
            let how = match of.state {
                State::Sealed(link) if named => How::Stands(link),
                State::Sealed(link) => How::Renamed(link),
                State::Open if named => How::Open,
                State::Open | State::Broken => How::Recreated,
            };
            all.push(Piece { of, run, how });
        }
    }
    let rank = |how: &How| match how {
        How::Stands(_) => 0,
        How::Renamed(_) => 1,
        How::Open => 2,
        How::Recreated => 3,
    };
    all.sort_by_key(|p| {
        let header = &p.run.header;
        (header.first_lsn, header.timeline.id, std::cmp::Reverse(p.next_lsn()), rank(&p.how))
    });
    all
}

/// Takes the pieces that make a history, one for each place; the others are dropped.
fn choose<'a>(plan: &mut Plan<'a>, candidates: Vec<Piece<'a>>) {
    let mut rest = candidates.into_iter().peekable();
    while let Some(first) = rest.next() {
        let place = |p: &Piece<'_>| (p.run.header.first_lsn, p.run.header.timeline.id);
        let mut same = vec![first];
        while let Some(other) = rest.next_if(|p| place(p) == place(&same[0])) {
            same.push(other);
        }
        let before = plan.pieces.last();
        // Of several for one place, the one that names its predecessor, else the longest.
        let chained = |p: &Piece<'_>| before.is_some_and(|b| b.link() == Some(p.run.header.prev_link));
        let chosen = same.swap_remove(same.iter().position(chained).unwrap_or(0));
        plan.dropped.extend(same.iter().map(|p| p.run));
        match before {
            Some(before) if !follows(before.run, chosen.run) => plan.dropped.push(chosen.run),
            _ => plan.pieces.push(chosen),
        }
    }
}

/// Nothing of `next` is before the end of `run`.
fn follows(run: &Run, next: &Run) -> bool {
    let (end, begin) = (&run.tally, &next.header);
    let same = run.header.timeline.id == begin.timeline.id;
    begin.first_lsn >= end.extent.next_lsn
        && begin.timeline.id >= run.header.timeline.id
        && begin.last_ts >= end.extent.last_ts
        && (!same || begin.timeline.is_same(&run.header.timeline) && begin.start_offset >= end.extent.end_offset)
}

/// Whether two pieces meet in a way that neither a header nor a splice explains.
fn unexplained(pieces: &[Piece<'_>], splices: &Splices) -> bool {
    pieces.windows(2).any(|pair| {
        let (Some(before), header) = (pair[0].link(), &pair[1].run.header) else { return false };
        let hole = header.first_lsn > pair[0].next_lsn();
        (hole || header.prev_link != before) && !splices.explains(header, &before, hole)
    })
}

/// From some snapshot on, nothing is missing up to the end.
fn leads_to_the_end(pieces: &[Piece<'_>], snapshots: &[&SnapshotManifest]) -> bool {
    let Some(last) = pieces.last() else { return false };
    let (mut first, timeline) = (last.run.header.first_lsn, &last.run.header.timeline);
    let mut ids = vec![timeline.source_id.as_str(), last.run.header.source_before()];
    if timeline.source_id.is_empty() {
        // An earlier repair has begun it: a base is to come.
        return true;
    }
    for pair in pieces.windows(2).rev() {
        let (before, after) = (&pair[0], &pair[1]);
        if before.run.header.timeline.id != timeline.id || before.next_lsn() != after.run.header.first_lsn {
            break;
        }
        first = before.run.header.first_lsn;
        ids.push(before.run.header.source_before());
    }
    let leads_on = |m: &&SnapshotManifest| {
        m.timeline == timeline.id
            && ids.contains(&m.source_id.as_str())
            && m.offset >= timeline.start_offset
            && m.lsn.0 + 1 >= first.0
            && m.lsn < last.next_lsn()
    };
    snapshots.iter().any(leads_on)
}

/// The number of a timeline that begins behind all of this.
pub(super) fn next_timeline(pieces: &[Piece<'_>], snapshots: &[&SnapshotManifest]) -> TimelineId {
    let pieces = pieces.iter().map(|p| p.run.header.timeline.id);
    let last = pieces.chain(snapshots.iter().map(|m| m.timeline)).max();
    TimelineId(last.unwrap_or_default().0.saturating_add(1))
}
