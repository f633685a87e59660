//! So many in an hour, and no more.

use std::collections::VecDeque;

use redtape_journal::Micros;

const HOUR: i64 = 3_600_000_000;

/// Whether one more is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Allowed,
    /// It is not, and the one before was.
    Reached,
    /// It is not.
    Over,
}

/// See the module.
#[derive(Debug)]
pub(super) struct HourlyLimit {
    max: usize,
    /// When the last ones were allowed, at most `max`.
    allowed: VecDeque<Micros>,
    reached: bool,
}

impl HourlyLimit {
    pub(super) fn new(max: usize) -> Self {
        Self { max, allowed: VecDeque::new(), reached: false }
    }

    /// Asks for one at `ts`.
    pub(super) fn ask(&mut self, ts: Micros) -> Verdict {
        while self.allowed.pop_front_if(|at| at.0 <= ts.0.saturating_sub(HOUR)).is_some() {}
        if self.allowed.len() < self.max {
            self.allowed.push_back(ts);
            self.reached = false;
            return Verdict::Allowed;
        }
        if std::mem::replace(&mut self.reached, true) { Verdict::Over } else { Verdict::Reached }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_per_hour_are_limited_and_reported_once() {
        let mut limit = HourlyLimit::new(2);
        let mut ask = |minutes: i64| limit.ask(Micros(minutes * 60_000_000));
        assert_eq!(
            [ask(0), ask(30), ask(31), ask(59)],
            [Verdict::Allowed, Verdict::Allowed, Verdict::Reached, Verdict::Over]
        );
        assert_eq!([ask(60), ask(61), ask(62)], [Verdict::Allowed, Verdict::Reached, Verdict::Over]);
        assert_eq!(ask(90), Verdict::Allowed);
    }
}
