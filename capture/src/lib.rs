//! Capture: follows the server, finds out who caused each effect, and brings it to the journal.
//!
//! ```text
//! proxy's sessions ── Tee (stamps) ──┐
//! server ── psync: link ─► parser ───┴► join ─► recorder ─► journal's writer
//!                                                              │
//! proxy's sessions ◄── durability: how far the journal is ◄────┘
//! ```
//! The recorder also tells writes that take much away (`accident`), before which a mark is set (`automatic_marks`).
//!
//! [`run`] does it all on one thread; [`snapshot`] takes copies of the dataset beside it.

mod accident;
mod automatic_marks;
mod durability;
mod group;
mod identity;
mod join;
#[doc(hidden)]
pub mod measure;
mod options;
mod psync;
mod recorder;
pub mod snapshot;
pub mod tee;

pub use self::durability::{DurabilityTracker, DurablePosition, Gate, Waiter};
pub use self::identity::{Judgement, Mismatch, Recorded, ServerFacts};
pub use self::join::{Probe, outcome_of};
pub use self::options::{CaptureConfig, KeyringHandle, Thresholds, ThresholdsHandle, open_journal};
pub use self::psync::{CaptureInputs, Link, LinkError, Prober, is_unreachable, run};
