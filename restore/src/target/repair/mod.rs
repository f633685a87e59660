//! Wanted keys into a live target that holds others, beside its clients.
//!
//! ```text
//! wanted (scratch server) ─► decide (pure) ─► engine ─► target
//!                    live ─┘     │              └─► what was there before ─► undo log
//!                                └ differences, judged (who wrote it last)
//! ```
//!
//! - `policy`: what the person wants done.
//! - `wanted`, `new_keys`, `datasets`, `live`: keys of both sides; `crate::values` says when they are equal.
//! - `decide`, `judged`: what is done with a key.
//! - `engine`, `elements`: writing, each key and each element atomically.
//! - `before`, `operation`: what is kept before a write, and what is known of an interrupted run.
//! - `job`: all of it, in order; `pace`: no faster than was asked for.
//! - `survey`: what will be found, before the first write.
//! - `absent`: keys to delete.
//! - `plan`, `outcome`: what will be done, and what was.
//!
//! Invariants: a key is never seen half-written; nothing is overwritten or deleted that is not in the undo log; what clients
//! write in between is seen, and decided upon again.

mod absent;
mod before;
mod datasets;
mod decide;
mod elements;
pub(crate) mod engine;
mod job;
mod judged;
pub(crate) mod live;
mod new_keys;
mod operation;
mod outcome;
mod pace;
mod plan;
mod policy;
mod survey;
mod wanted;

pub(crate) use before::{Added, Before, Doubt, UndoLog};
pub(crate) use datasets::{Batch, Datasets};
pub(crate) use elements::How;
pub(crate) use job::{Job, repair};
pub(crate) use judged::{Asked, Judged};
pub(crate) use operation::{FileLog, Operation};
pub(crate) use survey::{Look, NAMED_KEYS, Surveyed, survey};
pub(crate) use wanted::Wanted;

pub(crate) use outcome::LEFT_KEYS_MAX;

pub use outcome::{Listed, Outcome};
pub use plan::{JudgedCounts, RepairPlan, Survey, UndoRoom};
pub use policy::{NameTemplate, OnConflict, Policy, TemplateError, TtlPolicy};
