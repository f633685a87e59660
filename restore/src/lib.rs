//! The restore engine: brings what Redis held at a point in time into a target, exactly.
//!
//! ```text
//! request ─► point ─► source ─► target ─► plan ─► target.restore(plan, source) ─► report
//!  (when)   (where)  (what is   (where it
//!                     rebuilt)   goes)
//! ```
//!
//! - [`redtape_journal::query::When`]: the point in time that is asked for (`2026-11-20T12:00:00Z`, `10m ago`, `mark:before-deploy`, …).
//! - [`point`]: the restore point in the journal: timeline, cut, base. A cut never falls inside a group. Pure.
//! - [`plan`]: by which method, and why. Pure. Nothing is written before the plan is complete: what is used of the
//!   base has been read and its digest compared, every record that is replayed has been read, the target's version, role, emptiness
//!   and rights are known.
//! - [`mod@slice`]: which records of the journal and which keys of the base the wanted keys depend on.
//! - [`source`]: how the dataset is rebuilt: the journal range as it is, or replayed by a scratch server whose wall clock
//!   redtape holds.
//! - [`target`]: where it goes. A running server gets it over the replica link, or key by key; a file appears when it is whole.
//! - [`replica_link`]: redtape acts as the master of an empty server, then promotes it; source and target both use it.
//! - [`target::serve`]: a server of a point in time that clients may only read, which ends with the process.
//! - [`get`]: one key at a point in time, to be read: a source without a target.
//! - [`mod@diff`]: what is not the same at two points in time: two sources without a target.
//! - [`mod@report`]: what the newest base, or a point in time, consists of: a source without a target.
//! - [`mod@import`]: JSON lines, which a restore has written, into a server.
//! - [`undo`]: what a repair has overwritten goes back.
//! - [`mod@judge`]: whether the last write of a key, an element or a TTL is one of those that are selected.
//! - [`mistake`]: what selected writes have touched, directly and by what was made of it, and what others built on it.
//! - [`libraries`]: function libraries, and what is done with them.
//! - [`client`]: a connection to a server.
//!
//! # One at a time, and no success that was not looked at
//! - [`target::claim`]: a restore names its connection at the target and withdraws from one that is there already.
//! - [`target::unfinished`]: a copy leaves a marker in the target until all of it was checked.
//! - [`target::memory`]: what the target evicts is found before the promotion, and looked for after it.
//!
//! # After an interruption
//! SIGINT and SIGTERM set an [`Interrupt`]; what was begun is undone: a target fed over the link is
//! detached and emptied again.
//!
//! # After a crash or a kill
//! Before the promotion a target fed over the link is a read-only replica of a master that is gone:
//! clients see `READONLY` errors, the next restore says what it finds and how to clear it. A copy
//! from scratch that was cut short leaves a part of the wanted keys, each of them whole, and the marker of
//! [`target::unfinished`]; the next restore tells of it, refuses to overwrite keys and lists them. The scratch server
//! dies with its parent.

pub mod client;
mod clock_steps;
pub mod console;
pub mod diff;
mod error;
pub mod get;
pub mod import;
mod interrupt;
pub mod json;
pub mod judge;
pub mod libraries;
mod limits;
pub mod mistake;
pub mod plan;
pub mod point;
pub mod progress;
mod random;
mod refusal;
pub mod replica_link;
pub mod report;
mod request;
mod run;
pub mod slice;
pub mod source;
pub mod target;
pub mod undo;
mod values;
pub mod version;

pub use error::{ErrorKind, RestoreError};
pub use interrupt::Interrupt;
pub use limits::Limits;
pub use plan::{ForcedMethod, Method, Plan};
pub use progress::{Event, Observer, Silent};
pub use redtape_journal::query::Filter;
pub use request::Request;
pub use run::{Prepared, Report, prepare};
pub use target::{FileAddress, FileFormat, History, Output, ServeAddress, ServerAddress, Target, WrittenFile};
