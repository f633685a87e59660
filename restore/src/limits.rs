//! How long servers are waited for. A server that shows progress is never given up.

use std::time::Duration;

use crate::client::REPLY_LIMIT;

/// The limits of one restore; tests have shorter ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Longest silence of a server that owes a reply.
    pub reply: Duration,
    /// How long a scratch server may take to start and to answer for the first time, and its binary to tell its version.
    pub start: Duration,
    /// How long a scratch server may show no progress: neither processor time nor a growing file.
    pub stall: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { reply: REPLY_LIMIT, start: Duration::from_secs(20), stall: Duration::from_mins(1) }
    }
}
