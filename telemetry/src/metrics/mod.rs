//! The numbers at `/metrics`, in Prometheus's text form and base units.
//!
//! Each part of redtape has its own file here, which names, describes and registers its metrics.

mod capture;
mod clients;
mod housekeeping;
mod journal;
mod process;
mod register;
mod upstream;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use prometheus::{Encoder as _, Registry, TextEncoder};

pub use self::capture::CaptureMetrics;
pub use self::clients::ClientMetrics;
pub use self::housekeeping::HousekeepingMetrics;
use self::journal::JournalMetrics;
use self::process::ProcessMetrics;
use self::register::Registrar;
pub use self::upstream::UpstreamMetrics;
use crate::errors::Errors;
use crate::numbers::Numbers;
use crate::recording::CaptureState;

/// Two metrics have the same name, or one has a name that Prometheus does not take.
pub type MetricsError = prometheus::Error;

/// Every metric that redtape exports; made once, shared by all threads.
#[derive(Debug, Clone)]
pub struct Metrics {
    registry: Registry,
    /// The status's; some of these metrics are views of them.
    numbers: Numbers,
    process: ProcessMetrics,
    /// Clients.
    pub clients: ClientMetrics,
    /// Capture.
    pub capture: CaptureMetrics,
    /// The journal.
    pub(crate) journal: JournalMetrics,
    /// The upstream.
    pub upstream: UpstreamMetrics,
    /// Snapshots and retention.
    pub housekeeping: HousekeepingMetrics,
}

impl Metrics {
    /// Registers everything. `lost_log_lines` is read whenever the page is rendered.
    pub fn new(lost_log_lines: Arc<AtomicU64>) -> Result<Self, MetricsError> {
        let (registry, numbers) = (Registry::new(), Numbers::default());
        let r = Registrar(&registry);
        Ok(Self {
            process: ProcessMetrics::register(&r, lost_log_lines)?,
            clients: ClientMetrics::register(&r, &numbers.clients)?,
            capture: CaptureMetrics::register(&r, &numbers.capture)?,
            journal: JournalMetrics::register(&r, &numbers.journal)?,
            upstream: UpstreamMetrics::register(&r)?,
            housekeeping: HousekeepingMetrics::register(&r)?,
            registry,
            numbers,
        })
    }

    /// Shows the capture's state, which [`Status`](crate::Status) holds.
    pub(crate) fn capture_state(&self, now: CaptureState) {
        for state in CaptureState::ALL {
            self.capture.state.with_label_values(&[state.name()]).set(i64::from(state == now));
        }
    }

    /// Counts an error.
    pub fn error(&self, kind: &str) {
        self.process.error(kind);
    }

    /// The status's numbers.
    pub(crate) fn numbers(&self) -> Numbers {
        self.numbers.clone()
    }

    /// The status's errors.
    pub(crate) fn errors(&self) -> Arc<Errors> {
        self.process.seen()
    }

    /// The page.
    pub(crate) fn page(&self) -> String {
        self.process.count_lost_log_lines();
        let mut page = Vec::new();
        match TextEncoder::new().encode(&self.registry.gather(), &mut page) {
            // The encoder writes infinity as Rust does.
            Ok(()) => String::from_utf8_lossy(&page).replace(" inf\n", " +Inf\n"),
            Err(e) => format!("# {e}\n"),
        }
    }
}
