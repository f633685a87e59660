//! What the worker decides about one request: may it be sent now, where, and what became of it.

/// Whether a check lets a request pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(super) enum Admission {
    /// It passes: the next check decides.
    Forward,
    /// It stays at the front of the client's input until its client is served again.
    Wait,
    /// It is done with: answered here, or its client is disconnected.
    Done,
}

impl Admission {
    /// What became of a request that does not pass.
    pub(super) fn stopped(self) -> Option<Forwarded> {
        match self {
            Self::Forward => None,
            Self::Wait => Some(Forwarded::Waits),
            Self::Done => Some(Forwarded::Done),
        }
    }
}

/// What became of a request, or of bytes that cannot be told from one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(super) enum Forwarded {
    /// Sent, or answered here: the next one is looked at.
    Done,
    /// It stays at the front of the client's input.
    Waits,
}

/// Where a request is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Route {
    /// The session's own connection.
    Pinned,
    /// This shared connection.
    Shared(usize),
    /// Nowhere yet: what is in flight has to be answered first, or there is no room.
    Wait,
}
