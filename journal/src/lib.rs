//! The journal: a self-describing, append-only directory of stamped, ordered groups of opaque
//! commands. It knows nothing of Redis.
//!
//! ```text
//! groups ─► BlockBuilder ─► Block ─► Writer (thread) ─► segments/*.seg
//!                                      └─► watermarks: durable <= written
//! Catalog ─► timelines, windows, gaps, snapshots, marks
//!         └► find_cut_by_* ─► groups(after, timeline) ─► Group, Group, …
//! Follower ─► Group, Group, … as they are written
//! ```
//!
//! `journal/FORMAT.md` draws every byte of the directory. One process writes (it holds `lock`); any
//! number read beside it; snapshots and marks may be added by any process.
//!
//! Invariants:
//! - LSNs have no holes, over all timelines. Times never go back; offsets never within a timeline.
//! - A group is written, found and read as a whole or not at all.
//! - What is reported as durable is found by the next open, whatever happened in between.
//! - Opening repairs a torn tail and keeps its bytes; damage anywhere else refuses the opening and
//!   changes nothing. See `recover` for the table of cases.
//!
//! An unsealed last segment is continued by the next writer. A writer that is closed seals its
//! segment, unless that holds no record; then the next one continues it, too.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod automatic_mark;
mod block;
mod bloom;
mod catalog;
mod clock_step;
mod compact;
mod crypto;
mod directory;
mod encoding;
mod error;
mod error_kind;
mod files;
mod filters_file;
mod follow;
#[cfg(fuzzing)]
#[doc(hidden)]
#[allow(missing_docs, clippy::expect_used)]
pub mod fuzzing;
mod hex;
mod in_order;
mod jsonl;
mod lease;
mod lock;
mod mark_now;
mod marks;
mod meta;
#[cfg(test)]
mod model;
mod open;
mod prune;
pub mod query;
mod recover;
mod repair;
mod segment;
mod server;
mod snapshot;
mod splices;
mod storage;
#[cfg(test)]
mod tests;
mod types;
pub mod undo_file;
mod verify;
mod writer;

pub use block::{Block, BlockBuilder, LARGE_BLOCK_BYTES, MAX_GROUP_BYTES, RecordView};
pub use catalog::{
    AtOffset, Catalog, Cut, Gap, GroupReader, PartJob, PartReader, ReverseReader, Searched, SegmentInfo, SourceChange,
    TakeRecords, TimelineInfo, WantedKeys, Window,
};
pub use clock_step::ClockStep;
pub use crypto::{AddedKey, KEYS_VARIABLE, KeyFault, Keyring, KeyringError};
pub use error::{
    AppendError, Damage, GroupTooLarge, OpenError, ReadError, Span, StoreError, SubmitError, WriterFailure,
};
pub use error_kind::ErrorKind;
pub use files::FileKind;
pub use follow::{FollowError, Followed, Follower, Note};
pub use in_order::in_order;
pub use mark_now::{MarkError, Present, mark_now, wait_complete};
pub use marks::{add_automatic_mark, add_mark, add_new_mark};
pub use meta::Meta;
pub use open::{Journal, OpenOptions, Recovered};
pub use prune::{
    ItemKind, PruneError, PruneItem, PrunePlan, Retention, Shortfall, Why, plan_prune, plan_removal, prune,
    remove_snapshots,
};
pub use repair::{Fault, RepairPlan, RepairReport, plan_repair, repair};
pub use segment::name::SegmentName;
pub use server::{KnownServers, PreviousHistory, ServerIdentity, add_server};
pub use snapshot::key_index::{
    ContentReader, GoOn, KeyIndex, KeyIndexError, KeyIndexFile, KeyIndexWriter, KeyPlace, ReadKey, Scan, Workspace,
    check_key_index,
};
pub use snapshot::{SnapshotEncryption, SnapshotInfo, SnapshotKind, SnapshotManifest, SnapshotReader, SnapshotWriter};
pub use types::*;
pub use verify::{Problem, VerifyProgress, VerifyReport, verify, verify_with};
pub use writer::{MAX_QUEUED_BYTES, Progress, TimelineStart, Watermarks, Writer};

/// The newest format that this version reads, and the one that it writes.
pub const FORMAT_VERSION: u32 = 1;
