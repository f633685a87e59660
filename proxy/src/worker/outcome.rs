//! Decisions of the worker about one request: whether it may be sent now, where, and the result.

/// Result of a check of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(super) enum Admission {
    /// Passed: the next check decides.
    Forward,
    /// The request stays at the front of the client's input until its client is served again.
    Wait,
    /// Finished: answered here, or its client is disconnected.
    Done,
}

impl Admission {
    /// The result for a request that does not pass.
    pub(super) fn stopped(self) -> Option<Forwarded> {
        match self {
            Self::Forward => None,
            Self::Wait => Some(Forwarded::Waits),
            Self::Done => Some(Forwarded::Done),
        }
    }
}

/// Result for a request, or for bytes that cannot be parsed as one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(super) enum Forwarded {
    /// Sent, or answered here: the next request follows.
    Done,
    /// The request stays at the front of the client's input.
    Waits,
}

/// Where a request is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Route {
    /// The session's pinned connection.
    Pinned,
    /// This shared connection.
    Shared(usize),
    /// Not yet: wait until everything in flight is answered, or until there is room.
    Wait,
}
