//! Whether the server is recorded, and why not.

/// What the capture does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CaptureState {
    /// There is no replication link.
    Connecting,
    /// A base is being taken.
    FullSync,
    /// Writes are recorded as they happen.
    Streaming,
    /// Writes are not recorded, and will not be until something is repaired.
    Failed,
    /// The server is not the one that this journal records.
    Refused,
}

impl CaptureState {
    /// Every state.
    pub const ALL: [Self; 5] = [Self::Connecting, Self::FullSync, Self::Streaming, Self::Failed, Self::Refused];

    /// As metrics, `INFO` and `/journalz` show it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::FullSync => "full_sync",
            Self::Streaming => "streaming",
            Self::Failed => "failed",
            Self::Refused => "refused",
        }
    }
}

/// Whether writes are recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recording {
    /// What the capture does.
    pub state: CaptureState,
    /// Why they are not, as far as that is known.
    pub reason: Option<String>,
    /// Since when the state is this, in microseconds since 1970.
    pub since_us: i64,
}
