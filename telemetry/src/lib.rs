//! What this process does at present ([`Status`]), and the numbers that show it ([`Metrics`]).
//!
//! Capture, proxy and housekeeping report here; `/metrics`, `INFO redtape`, `/readyz` and `/journalz` read here.
//! The status is the truth: no decision reads a metric, and no metric can be read but as the page at `/metrics`.
//! The crate knows no other part of redtape: times are microseconds since 1970, positions are plain numbers.

mod errors;
mod journal;
mod metrics;
mod numbers;
mod recording;
mod status;

pub use self::errors::{Errors, LastError};
pub use self::journal::Watermarks;
pub use self::metrics::{CaptureMetrics, ClientMetrics, HousekeepingMetrics, Metrics, MetricsError, UpstreamMetrics};
pub use self::numbers::{CaptureNumbers, ClientNumbers, Count, JournalNumbers, Level, Numbers, Seconds};
pub use self::recording::{CaptureState, Recording};
pub use self::status::Status;

/// The wall clock, in microseconds since 1970.
fn now_us() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}
