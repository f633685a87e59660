//! The journal: how far it is, what it holds, what can be restored.

use prometheus::{Gauge, IntGauge};

use super::MetricsError;
use super::register::Registrar;

/// Metrics of the journal.
#[derive(Debug, Clone)]
#[allow(missing_docs)] // Each is described where it is registered, for the reader of /metrics too.
pub struct JournalMetrics {
    pub(crate) captured_lsn: IntGauge,
    pub(crate) written_lsn: IntGauge,
    pub(crate) durable_lsn: IntGauge,
    pub(crate) window_start_seconds: Gauge,
    pub(crate) window_end_seconds: Gauge,
    pub bytes: IntGauge,
    pub segments: IntGauge,
    pub timeline: IntGauge,
    pub gaps: IntGauge,
}

impl JournalMetrics {
    pub(super) fn register(r: &Registrar<'_>) -> Result<Self, MetricsError> {
        Ok(Self {
            captured_lsn: r.gauge("redtape_journal_captured_lsn", "LSN of the last record handed to the journal")?,
            written_lsn: r
                .gauge("redtape_journal_written_lsn", "LSN of the last record handed to the operating system")?,
            durable_lsn: r.gauge("redtape_journal_durable_lsn", "LSN of the last record synced to the disk")?,
            window_start_seconds: r.float(
                "redtape_window_start_seconds",
                "Start of the present restorable window, Unix time; 0 = none",
            )?,
            window_end_seconds: r.float(
                "redtape_journal_complete_until_seconds",
                "Everything that ran before this Unix time is in the journal: the end of the restorable window; 0 = none",
            )?,
            bytes: r.gauge("redtape_journal_bytes", "Bytes of all segments")?,
            segments: r.gauge("redtape_journal_segments", "Segments")?,
            timeline: r.gauge("redtape_timeline", "Number of the present timeline; it grows at each gap")?,
            gaps: r.gauge("redtape_journal_gaps", "Gaps between the restorable windows of the journal")?,
        })
    }
}
