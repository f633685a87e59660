//! What a catalog says, as the planner wants it: data only, so that any journal can be made up.

use std::path::PathBuf;

use crate::catalog::Catalog;
use crate::catalog::window::{Stretch, stretches};
use crate::segment::header::{SourceHistory, TimelineFacts};
use crate::snapshot::SnapshotInfo;
use crate::types::{Lsn, Mark, Micros};

/// Everything that a decision depends on.
#[derive(Debug, Clone, Default)]
pub(super) struct Facts {
    /// In the order of the history.
    pub(super) segments: Vec<SegmentFact>,
    pub(super) snapshots: Vec<SnapshotInfo>,
    pub(super) marks: Vec<Mark>,
}

/// One segment.
#[derive(Debug, Clone)]
pub(super) struct SegmentFact {
    pub(super) path: PathBuf,
    pub(super) timeline: TimelineFacts,
    pub(super) source: SourceHistory,
    pub(super) first_lsn: Lsn,
    pub(super) last_lsn: Lsn,
    /// Time of its first group, or of the last one before it.
    pub(super) first_ts: Micros,
    pub(super) last_ts: Micros,
    pub(super) complete_until: Micros,
    pub(super) damaged: bool,
    pub(super) bytes: u64,
}

impl SegmentFact {
    pub(super) fn stretch(&self) -> Stretch<'_> {
        Stretch {
            timeline: &self.timeline,
            source: &self.source,
            first_lsn: self.first_lsn,
            last_lsn: self.last_lsn,
            last_ts: self.last_ts,
            complete_until: self.complete_until,
            damaged: self.damaged,
        }
    }
}

impl Facts {
    pub(super) fn of(catalog: &Catalog) -> Self {
        let segment = |(stretch, info): (Stretch<'_>, &crate::catalog::SegmentInfo)| SegmentFact {
            path: info.path.clone(),
            timeline: stretch.timeline.clone(),
            source: stretch.source.clone(),
            first_lsn: stretch.first_lsn,
            last_lsn: stretch.last_lsn,
            first_ts: info.first_ts.unwrap_or(stretch.last_ts),
            last_ts: stretch.last_ts,
            complete_until: stretch.complete_until,
            damaged: stretch.damaged,
            bytes: info.bytes,
        };
        Self {
            segments: stretches(catalog.entries()).into_iter().zip(catalog.segments()).map(segment).collect(),
            snapshots: catalog.snapshots().to_vec(),
            marks: catalog.marks().to_vec(),
        }
    }
}
