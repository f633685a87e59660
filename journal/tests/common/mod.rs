//! A journal that a test fills by hand.

#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::Arc;

use redtape_journal::{
    BlockBuilder, GroupRef, Journal, KeysAt, Micros, OpenOptions, Origin, RecordRef, ReplOffset, TimelineId,
    TimelineStart, Writer,
};

/// The writer of a new journal, in its first timeline.
pub(crate) fn begin(dir: &Path, options: OpenOptions) -> Writer {
    let (journal, _) = Journal::create_or_open(dir, options).unwrap();
    let writer = journal.start(|_| ());
    let start = TimelineStart {
        timeline: TimelineId(1),
        source_id: "8f0c".to_owned(),
        offset: ReplOffset(0),
        reason: "first start".to_owned(),
        ts: Micros(1),
    };
    writer.begin_timeline(start).unwrap();
    writer
}

/// Sizes of its segments.
pub(crate) fn segments(dir: &Path) -> Vec<u64> {
    let files = std::fs::read_dir(dir.join("segments")).unwrap();
    files.map(|entry| entry.unwrap().metadata().unwrap().len()).collect()
}

/// A `SET` of database 0, as the capture gives it to the journal.
pub(crate) fn push_set(
    builder: &mut BlockBuilder,
    origin: &Arc<Origin>,
    ts: Micros,
    end_offset: ReplOffset,
    args: [&[u8]; 2],
) {
    let args: [&[u8]; 3] = [b"SET", args[0], args[1]];
    let records = &[RecordRef { db: 0, args: &args, keys: KeysAt::Arguments(&[1]) }];
    builder.push(&GroupRef { ts, slack: 0, origin, atomic: false, end_offset, records }).unwrap();
}
