//! Why a text is no point in time, and what to write instead.

/// Why a text is no point in time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WhenError {
    /// It has no known form.
    #[error(
        "{text:?} is not a point in time ({reason}); write 2026-11-20T12:00:00.123456Z, \"2026-11-20 12:00\", 2026-11-20, 12:00, @1795176000.5, \"10m ago\", now, yesterday, lsn:N, mark:NAME or latest"
    )]
    Form {
        /// What was written.
        text: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The clocks were set back.
    #[error(
        "{wall} came twice in {zone}, as the clocks were set back: write {} for the first time, or {} for the second", readings[0], readings[1]
    )]
    Twice {
        /// What the clock showed.
        wall: String,
        /// In which zone.
        zone: String,
        /// Both times, as they can be written.
        readings: [String; 2],
    },
    /// The clocks were set forward.
    #[error(
        "{wall} never came in {zone}, as the clocks were set forward: write {} or {}", readings[0], readings[1]
    )]
    Never {
        /// What no clock showed.
        wall: String,
        /// In which zone.
        zone: String,
        /// As the clocks went after the change and before it.
        readings: [String; 2],
    },
}
