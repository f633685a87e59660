//! The journal: how far it is, what it holds, what can be restored.

use prometheus::{Gauge, IntGauge};

use super::MetricsError;
use super::register::Registrar;
use crate::numbers::JournalNumbers;

/// Metrics of the journal.
#[derive(Debug, Clone)]
pub(crate) struct JournalMetrics {
    pub(crate) captured_lsn: IntGauge,
    pub(crate) written_lsn: IntGauge,
    pub(crate) durable_lsn: IntGauge,
    pub(crate) window_start_seconds: Gauge,
    pub(crate) window_end_seconds: Gauge,
}

impl JournalMetrics {
    pub(super) fn register(r: &Registrar<'_>, shown: &JournalNumbers) -> Result<Self, MetricsError> {
        r.show_level("redtape_journal_bytes", "Bytes of all segments", &shown.bytes)?;
        r.show_level("redtape_journal_segments", "Segments", &shown.segments)?;
        r.show_level("redtape_timeline", "Number of the present timeline; it grows at each gap", &shown.timeline)?;
        r.show_level("redtape_journal_gaps", "Gaps between the restorable windows of the journal", &shown.gaps)?;
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
                "Everything that ran before this Unix time is in the journal's files: the end of the restorable window; 0 = none",
            )?,
        })
    }
}
