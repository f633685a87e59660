//! Repairs a live target that holds other keys, while clients use it.
//!
//! ```text
//! wanted (scratch server) ─► decide (pure) ─► engine ─► target
//!                    live ─┘     │              └─► what was there before ─► undo log
//!                                └ differences, judged by their last write
//! ```
//!
//! - `policy`: what the user wants.
//! - `wanted`, `new_keys`, `datasets`, `live`: the keys of both sides; `crate::values` defines equality.
//! - `decide`, `judged`: what to do with a key.
//! - `engine`, `elements`: writes each key and each element atomically.
//! - `before`, `operation`: the state before a write, and the state of an interrupted run.
//! - `job`: all steps in order; `pace`: the limit of keys per second.
//! - `survey`: the differences, before the first write.
//! - `absent`: keys to delete.
//! - `plan`, `outcome`: what will be done, and what was done.
//!
//! Invariants: a key is never visible half-written; nothing is overwritten or deleted before it is in the undo log; a
//! concurrent write by a client is detected, and the key is decided again.

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
