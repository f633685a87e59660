//! Names of segments and snapshots: `<LSN, 20 digits>-<timeline, 6 digits>`.
//!
//! A segment is named by the LSN of its first record. Two segments of one timeline never begin with
//! the same LSN, because a segment without a record is left only for a new timeline; so LSN and
//! timeline together are unique, and names sort in the order of the history.

use std::fmt;

use crate::types::{Lsn, TimelineId};

/// The name of a segment, without directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentName {
    /// LSN of its first record.
    pub first_lsn: Lsn,
    /// Its timeline.
    pub timeline: TimelineId,
}

impl SegmentName {
    /// Parses a file name; `None` if it is not one of a segment.
    pub fn parse(file_name: &str) -> Option<Self> {
        let stem = file_name.strip_suffix(".seg")?;
        let (lsn, timeline) = stem.split_once('-')?;
        let digits = |s: &str, len| s.len() == len && s.bytes().all(|b| b.is_ascii_digit());
        if !digits(lsn, 20) || timeline.len() < 6 || !digits(timeline, timeline.len()) {
            return None;
        }
        let name = Self { first_lsn: Lsn(lsn.parse().ok()?), timeline: TimelineId(timeline.parse().ok()?) };
        (name.to_string() == file_name).then_some(name)
    }
}

impl fmt::Display for SegmentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:020}-{:06}.seg", self.first_lsn.0, self.timeline.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back_and_others_are_refused() {
        for (lsn, timeline) in [(1, 1), (u64::MAX, 999_999), (42, u32::MAX)] {
            let name = SegmentName { first_lsn: Lsn(lsn), timeline: TimelineId(timeline) };
            assert_eq!(SegmentName::parse(&name.to_string()), Some(name));
        }
        for other in [
            "1-1.seg",
            "00000000000000000001-000001.rdb",
            "00000000000000000001-0000001.seg",
            "00000000000000000001.seg",
            "99999999999999999999-000001.seg",
            "0000000000000000000é-000001.seg",
        ] {
            assert_eq!(SegmentName::parse(other), None, "{other}");
        }
    }
}
