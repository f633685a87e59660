//! When the next snapshot is due: pure, so that clocks may step and processes restart.

use std::time::Duration;

use redtape_journal::{Micros, Retention};
use redtape_wire::units::TimeOfDay;

use crate::daemon::config::Config;

const MINUTE: i64 = 60_000_000;
const DAY: i64 = 24 * 60 * MINUTE;

/// Retention is enforced at least this often; more often when little is kept.
const PRUNE_EVERY: Duration = Duration::from_mins(1);
/// And at most this often.
const PRUNE_EVERY_MIN: Duration = Duration::from_secs(1);
/// A hundredth of what is kept is the least that is worth a look.
const LOOKS: u32 = 100;

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) retention: Retention,
    pub(crate) schedule: Option<Schedule>,
    /// Bytes a second.
    pub(crate) rate: Option<u64>,
}

impl From<&Config> for Settings {
    fn from(config: &Config) -> Self {
        let keep = config.retention.map(|p| p.0);
        let retention = Retention { keep, max_bytes: config.journal_max_size.map(|s| s.0) };
        Self { retention, schedule: Schedule::of(config), rate: config.snapshot_rate.map(|r| r.0) }
    }
}

impl Settings {
    pub(super) fn prune_every(&self) -> Duration {
        self.retention.keep.map_or(PRUNE_EVERY, |keep| (keep / LOOKS).clamp(PRUNE_EVERY_MIN, PRUNE_EVERY))
    }
}

/// When snapshots are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Schedule {
    /// So long after the last one.
    Every(Duration),
    /// Each day.
    At(TimeOfDay),
}

impl Schedule {
    pub(super) fn of(config: &Config) -> Option<Self> {
        let every = config.snapshot_every.map(|p| Self::Every(p.0));
        every.or_else(|| config.snapshot_at.map(Self::At))
    }

    /// When the next one is due: now or earlier = it is. `last` is the moment of the last one.
    ///
    /// A last one in the future means that the clock was set back: then the schedule goes on from now, and
    /// never waits for the clock to get there again. One that was missed while redtape was stopped is made up for once.
    pub(super) fn next_due(self, now: Micros, last: Option<Micros>) -> Micros {
        let Some(last) = last else { return now };
        match self {
            Self::Every(period) => {
                let period = i64::try_from(period.as_micros()).unwrap_or(i64::MAX);
                Micros(last.min(now).0.saturating_add(period))
            }
            Self::At(time) => {
                let into_the_day = (now.0 - i64::from(time.minutes) * MINUTE).rem_euclid(DAY);
                let latest = now.0 - into_the_day;
                Micros(if last.0 < latest { latest } else { latest + DAY })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn little_that_is_kept_is_looked_at_often() {
        let every = |keep: Option<u64>| {
            let retention = Retention { keep: keep.map(Duration::from_secs), max_bytes: None };
            Settings { retention, schedule: None, rate: None }.prune_every().as_secs()
        };
        assert_eq!([every(Some(5)), every(Some(1800)), every(Some(604_800)), every(None)], [1, 18, 60, 60]);
    }

    fn at(text: &str) -> Micros {
        let time: jiff::Timestamp = text.parse().expect(text);
        Micros(time.as_microsecond())
    }

    #[test]
    fn due_as_the_table_says() {
        let every = Schedule::Every(Duration::from_hours(6));
        let daily = Schedule::At("03:00".parse().expect("a time"));
        let late = Schedule::At("23:59".parse().expect("a time"));
        let now = "2026-11-21T15:00:00Z";
        for (what, schedule, last, due) in [
            ("nothing was ever taken", every, None, now),
            ("not yet", every, Some("2026-11-21T12:00:00Z"), "2026-11-21T18:00:00Z"),
            ("exactly now", every, Some("2026-11-21T09:00:00Z"), now),
            ("missed while nobody ran", every, Some("2026-11-01T00:00:00Z"), "2026-11-01T06:00:00Z"),
            ("the clock was set back", every, Some("2027-11-21T15:00:00Z"), "2026-11-21T21:00:00Z"),
            ("taken today", daily, Some("2026-11-21T03:00:01Z"), "2026-11-22T03:00:00Z"),
            ("exactly at the time", daily, Some("2026-11-21T03:00:00Z"), "2026-11-22T03:00:00Z"),
            ("taken before the time", daily, Some("2026-11-21T02:59:59Z"), "2026-11-21T03:00:00Z"),
            ("a base after it counts", daily, Some("2026-11-21T14:00:00Z"), "2026-11-22T03:00:00Z"),
            ("missed for days: once is enough", daily, Some("2026-11-01T03:00:00Z"), "2026-11-21T03:00:00Z"),
            ("the clock was set back by a year", daily, Some("2027-11-21T03:00:00Z"), "2026-11-22T03:00:00Z"),
            ("the time is still to come today", late, Some("2026-11-21T00:00:00Z"), "2026-11-21T23:59:00Z"),
            ("yesterday's was missed", late, Some("2026-11-20T23:58:59Z"), "2026-11-20T23:59:00Z"),
            ("nothing was ever taken, daily", daily, None, now),
        ] {
            assert_eq!(schedule.next_due(at(now), last.map(at)), at(due), "{what}");
        }
    }

    #[test]
    fn what_was_just_taken_is_not_due_and_becomes_due_once_a_period() {
        for schedule in [Schedule::Every(Duration::from_hours(7)), Schedule::At("17:30".parse().expect("a time"))] {
            let (mut taken, mut last) = (0, Micros(0));
            for minute in 0..10 * 24 * 60 {
                let now = Micros(minute * MINUTE);
                if schedule.next_due(now, Some(last)) <= now {
                    (taken, last) = (taken + 1, now);
                    assert!(schedule.next_due(now, Some(last)) > now);
                }
            }
            let expected = if matches!(schedule, Schedule::At(_)) { 10 } else { 10 * 24 / 7 };
            assert_eq!(taken, expected, "{schedule:?}");
        }
    }
}
