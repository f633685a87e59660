//! Whether a session's replies can be matched to its requests. Pure.

/// State of matching. It is independent of the identity, which may be unknown while replies are matched (an `AUTH` in a
/// transaction), and known while they are not (`MONITOR`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Tracking {
    /// Each request is answered, and each reply is matched to its request.
    #[default]
    Followed,
    /// `CLIENT REPLY SKIP`: the next request is not answered.
    SkipsNext,
    /// `CLIENT REPLY OFF`: no request is answered.
    Silenced,
    /// Replies cannot be matched any more, until the connection ends. `wrote`: an unseen write may be in flight or
    /// answered.
    Desynced { wrote: bool },
}

impl Tracking {
    pub(super) fn is_desynced(self) -> bool {
        matches!(self, Self::Desynced { .. })
    }

    /// Replies are not matched from here on.
    pub(super) fn desync(&mut self) {
        if !self.is_desynced() {
            *self = Self::Desynced { wrote: false };
        }
    }

    /// Something that may write was forwarded, and its reply will not be recognised.
    pub(super) fn wrote_unseen(&mut self) {
        if let Self::Desynced { wrote } = self {
            *wrote = true;
        }
    }

    /// True if an unseen write may be in flight or answered.
    pub(super) fn has_written_unseen(self) -> bool {
        matches!(self, Self::Desynced { wrote: true })
    }

    /// `CLIENT REPLY ON` or `OFF`.
    pub(super) fn silence(&mut self, off: bool) {
        if !self.is_desynced() {
            *self = if off { Self::Silenced } else { Self::Followed };
        }
    }

    /// `CLIENT REPLY SKIP`.
    pub(super) fn skip_next(&mut self) {
        if *self == Self::Followed {
            *self = Self::SkipsNext;
        }
    }

    /// A request, or an empty line, is forwarded. True = it uses up a `CLIENT REPLY SKIP`.
    pub(super) fn next_forwarded(&mut self) -> bool {
        let skips = *self == Self::SkipsNext;
        if skips {
            *self = Self::Followed;
        }
        skips
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn skip_is_for_one_request_and_off_until_on() {
        let mut tracking = Tracking::default();
        tracking.skip_next();
        assert_eq!(tracking, Tracking::SkipsNext);
        assert!(tracking.next_forwarded() && !tracking.next_forwarded());
        assert_eq!(tracking, Tracking::Followed);
        tracking.skip_next();
        tracking.silence(true);
        tracking.skip_next();
        assert!(
            !tracking.next_forwarded() && tracking == Tracking::Silenced,
            "SKIP changes nothing while replies are off"
        );
        tracking.silence(false);
        assert_eq!(tracking, Tracking::Followed);
    }

    #[test]
    fn nothing_is_matched_again() {
        for mut tracking in [Tracking::Followed, Tracking::SkipsNext, Tracking::Silenced] {
            tracking.wrote_unseen();
            assert!(!tracking.has_written_unseen(), "its replies are known, or that there are none");
            tracking.desync();
            assert!(tracking.is_desynced() && !tracking.has_written_unseen());
            tracking.wrote_unseen();
            tracking.desync();
            tracking.silence(false);
            tracking.skip_next();
            assert!(!tracking.next_forwarded());
            assert_eq!(tracking, Tracking::Desynced { wrote: true });
        }
    }
}
