//! Time limits for servers. A server that makes progress is never given up.

use std::time::Duration;

use crate::client::REPLY_LIMIT;

/// The limits of one restore; tests have shorter ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Longest silence of a server that owes a reply.
    pub reply: Duration,
    /// Time limit of a scratch server's start and first answer, and of its binary's `--version`.
    pub start: Duration,
    /// Longest time without progress of a scratch server: neither CPU time nor a growing file.
    pub stall: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { reply: REPLY_LIMIT, start: Duration::from_secs(20), stall: Duration::from_mins(1) }
    }
}
