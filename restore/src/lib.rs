//! The restore engine: brings what Redis held at a moment into a target, exactly.
//!
//! ```text
//! when ─► point ─► plan ─► (link | scratch ─► copy | scratch ─► link) ─► verify
//!   pure functions of data │ act on the target, in this order
//! ```
//!
//! - [`when`]: what a person asks for (`2026-11-20T12:00:00Z`, `10m ago`, `mark:before-deploy`, …).
//! - [`point`]: that moment in the journal: timeline, cut, base. A cut never falls inside a group.
//! - [`plan`]: by which way, and why. Nothing is written before the plan is complete: the base has been
//!   read through and its digest compared, every record up to the cut has been read, the target's
//!   version, role, emptiness and rights are known.
//! - [`link`]: redtape acts as the master of an empty target, then promotes it.
//! - [`scratch`]: the same into a local server whose wall clock redtape holds; `copy` takes keys from
//!   there by `DUMP`/`RESTORE`.
//!
//! # One at a time, and no success that was not looked at
//! - [`claim`]: a restore names its connection at the target and withdraws from one that is there already.
//! - [`unfinished`]: a copy leaves a marker in the target until all of it was checked.
//! - [`memory`]: what the target evicts is found before the promotion, and looked for after it.
//!
//! # After an interruption
//! SIGINT and SIGTERM set an [`Interrupt`]; what was begun is undone: a target fed over the link is
//! detached and emptied again.
//!
//! # After a crash or a kill
//! Before the promotion a target fed over the link is a read-only replica of a master that is gone:
//! clients see `READONLY` errors, the next restore says what it finds and how to clear it. A copy
//! from scratch that was cut short leaves a part of the wanted keys, each of them whole, and the marker of
//! [`unfinished`]; the next restore tells of it, refuses to overwrite keys and lists them. The scratch server
//! dies with its parent.

pub mod claim;
pub mod clock;
mod copy;
mod error;
pub mod filter;
mod interrupt;
mod limits;
pub mod link;
mod lookup;
pub mod memory;
pub mod plan;
pub mod point;
pub mod preflight;
pub mod progress;
mod run;
pub mod scratch;
pub mod server;
mod steps;
pub mod tape;
pub mod unfinished;
pub mod version;
pub mod when;

pub use error::RestoreError;
pub use filter::Filter;
pub use interrupt::Interrupt;
pub use limits::Limits;
pub use plan::{Forced, Plan, Via};
pub use progress::{Event, Observer, Silent};
pub use run::{Prepared, Report, Request, prepare};
pub use when::When;
