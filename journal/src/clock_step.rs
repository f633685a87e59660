//! The mark that a step of the wall clock leaves in the journal.

use std::fmt;
use std::str::FromStr;

use crate::Micros;

/// By how much the wall clock has stepped, and to which time. The mark's name says both, easily typed and another one for
/// each step: `clock-7200s@2026-11-20T11:00:00.000000Z`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockStep {
    /// In µs; negative = back. A name says whole seconds of it.
    pub by: i64,
    /// What the clock showed behind the step.
    pub to: Micros,
}

impl ClockStep {
    /// The step of which a mark's name tells, if it does.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        let (by, to) = name.strip_prefix("clock")?.split_once("s@")?;
        let back = match by.as_bytes().first()? {
            b'-' => -1,
            b'+' => 1,
            _ => return None,
        };
        let seconds: i64 = by[1..].parse().ok().filter(|_| by.as_bytes().get(1).is_some_and(u8::is_ascii_digit))?;
        let to = Micros(jiff::Timestamp::from_str(to).ok()?.as_microsecond());
        Some(Self { by: seconds.checked_mul(back * 1_000_000)?, to })
    }
}

/// The mark's name.
impl fmt::Display for ClockStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.by < 0 { '-' } else { '+' };
        write!(f, "clock{sign}{}s@{}", self.by.unsigned_abs() / 1_000_000, self.to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Mark;

    #[test]
    fn a_name_can_be_typed_and_says_what_happened() {
        for (by, start) in [(-7_200_000_000, "clock-7200s@2026-"), (3_000_000, "clock+3s@2026-")] {
            let step = ClockStep { by, to: Micros(1_795_000_000_000_123) };
            let name = step.to_string();
            assert!(name.starts_with(start) && name.ends_with(".000123Z"), "{name}");
            assert_eq!(Mark::check_name(&name), Ok(()));
            assert_eq!(ClockStep::of(&name), Some(step));
        }
        for name in [
            "deploy",
            "clock",
            "clock3600s@1970-01-01T01:00:00Z",
            "clock-3600s@yesterday",
            "clock-s@1970-01-01T01:00:00.000000Z",
            "clock--1s@1970-01-01T01:00:00.000000Z",
            "clock-9999999999999999s@1970-01-01T01:00:00.000000Z",
        ] {
            assert_eq!(ClockStep::of(name), None, "{name}");
        }
    }
}
