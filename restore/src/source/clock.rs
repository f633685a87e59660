//! The wall clock of a scratch server, held by redtape.
//!
//! A server that replays a stream must read, for each command, a clock that the command can stand:
//! - `XCLAIM … TIME t` is clamped to the clock: it must show at least `t`;
//! - `HPEXPIREAT h t` drops the field when the clock has passed `t`: it must show less;
//! - to `HPERSIST` and whatever else sets the end of a field, a field is gone once its present end has passed: the clock
//!   must not be ahead of the journal. That it is behind does them no harm;
//! - scripts that are in the stream as such (Redis 6) see the clock: it must show the script's time;
//! - a stream's consumers remember when they were seen: the nearer to the group's time the better.
//!
//! So the clock **follows the journal**: [`Pace`] decides, before each group is sent, whether the clock
//! moves and whether the server must first have processed all that is under way ("barrier"). At rest
//! (loading the base, being read) it shows [`AT_REST`], long before any TTL: nothing expires.
//!
//! The clock is a file that the preloaded `clock/clock.c` maps.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use redtape_journal::{Group, Micros};
use redtape_wire::word;

use crate::error::RestoreError;
use crate::source::journal_range::{FIELD_TTL, SCRIPTS};

/// What the clock shows while nothing is replayed: the second day of 1970.
pub const AT_REST: Micros = Micros(86_400_000_000);
/// The clock is moved when it is off by this much.
const STEP_US: i64 = 1000;
/// How far it stays below the end of a hash field: servers add monotonic time to a clock they read before.
const MARGIN_US: i64 = 5000;
/// How far it stays behind the journal rather than to wait for the server.
const LAG_US: i64 = 250_000;
/// How far ahead of an `XCLAIM` it is set.
const LEAD_US: i64 = 1_000_000;
/// Environment variable in which the preloaded library finds the file.
pub const FILE_VARIABLE: &str = "REDTAPE_CLOCK_FILE";
/// The preloaded library.
pub const LIBRARY: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/clock.so"));
/// After so long every server has looked at its clock again.
pub const SETTLE: Duration = Duration::from_millis(2);
/// Bytes of the clock's file: one page, so that it can be mapped.
const FILE_BYTES: usize = 4096;

/// What to do before a group is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Move {
    /// Wait until the server has processed everything sent before.
    pub barrier: bool,
    /// Then let the clock show this.
    pub to: Micros,
}

/// Decides how the clock follows the journal. Pure.
#[derive(Debug)]
pub struct Pace {
    shown: i64,
    /// What the next command sees at least: a server may keep a time that it has read for the commands
    /// that it finds waiting, and for a millisecond (Valkey 9.1), so that only a barrier and [`SETTLE`]
    /// make it look again.
    seen: i64,
    /// The clock must stay below this until the next barrier.
    ceiling: i64,
}

impl Pace {
    /// The clock shows `shown` and nothing is under way.
    pub fn new(shown: Micros) -> Self {
        Self { shown: shown.0, seen: shown.0, ceiling: i64::MAX }
    }

    /// The move before this group, if any.
    pub fn before(&mut self, group: &Group) -> Option<Move> {
        let needs = Needs::of(group);
        let mut wanted = self.shown.max(group.ts.0);
        let unseen = needs.at_least > self.seen;
        if unseen {
            // Some way ahead, so that not every XCLAIM needs a barrier of its own.
            wanted = wanted.max(needs.at_least.saturating_add(LEAD_US));
        }
        let limit = if needs.field { group.ts.0.max(needs.at_least).min(needs.below - MARGIN_US) } else { i64::MAX };
        wanted = wanted.min(limit);
        if needs.script {
            wanted = group.ts.0;
        }
        let exact = unseen || needs.script || self.shown > limit;
        let moved = if exact {
            wanted != self.shown
        } else {
            // Behind a script it waits at once.
            let waits = wanted >= self.ceiling && self.ceiling != i64::MIN;
            wanted - self.shown >= if waits { LAG_US } else { STEP_US }
        };
        let action = moved.then(|| {
            let barrier = unseen || wanted < self.shown || wanted >= self.ceiling || needs.script;
            self.shown = wanted;
            if barrier {
                self.seen = wanted;
                self.ceiling = i64::MAX;
            }
            Move { barrier, to: Micros(wanted) }
        });
        // When its fields end that this group finds, is not known here.
        self.ceiling = self.ceiling.min(limit.saturating_add(1));
        if needs.script {
            // The next move of the clock waits for the script.
            self.ceiling = i64::MIN;
        }
        action
    }
}

/// What a group's commands need of the clock, in microseconds.
struct Needs {
    at_least: i64,
    below: i64,
    /// Something happens to a field that has an end, or is given one.
    field: bool,
    script: bool,
}

impl Needs {
    fn of(group: &Group) -> Self {
        let mut needs = Self { at_least: i64::MIN, below: i64::MAX, field: false, script: false };
        for record in &group.records {
            let args = &record.args;
            let Some(name) = args.first() else { continue };
            let is = |known: &[u8]| name.eq_ignore_ascii_case(known);
            let number = |at: usize, unit: i64| -> Option<i64> {
                let value: i64 = std::str::from_utf8(args.get(at)?).ok()?.parse().ok()?;
                value.checked_mul(unit)
            };
            let option = |option: &str, unit: i64| -> Option<i64> {
                let at = args.iter().skip(2).position(|a| word::is(a, option))?;
                number(at + 3, unit)
            };
            if is(b"XCLAIM") {
                needs.at_least = needs.at_least.max(option("TIME", 1000).unwrap_or(i64::MIN));
            } else if FIELD_TTL.iter().any(|known| is(known)) {
                needs.field = true;
                let until = if is(b"HPEXPIREAT") {
                    number(2, 1000)
                } else if is(b"HEXPIREAT") {
                    number(2, 1_000_000)
                } else {
                    option("PXAT", 1000).or_else(|| option("EXAT", 1_000_000))
                };
                needs.below = needs.below.min(until.unwrap_or(i64::MAX));
            } else {
                needs.script |= SCRIPTS.iter().any(|known| is(known));
            }
        }
        needs
    }
}

/// The file that the preloaded library maps.
#[derive(Debug)]
pub struct ClockFile {
    file: File,
    path: PathBuf,
    runs: bool,
}

impl ClockFile {
    /// Creates it, at rest. With `runs` the clock goes on from whatever it is set to: servers before
    /// 6.2 run their timers on the wall clock and would stand still with it.
    pub fn create(path: &Path, runs: bool) -> Result<Self, RestoreError> {
        let file = File::options().write(true).create_new(true).open(path);
        let file = file.map_err(RestoreError::io("create", path))?;
        file.write_all_at(&[0; FILE_BYTES], 0).map_err(RestoreError::io("write", path))?;
        let clock = Self { file, path: path.to_owned(), runs };
        clock.set(AT_REST)?;
        Ok(clock)
    }

    /// Lets the clock show this.
    pub fn set(&self, to: Micros) -> Result<(), RestoreError> {
        self.write(to, self.runs)
    }

    /// Lets it show this and stand still, even where it runs otherwise.
    pub fn stop(&self, at: Micros) -> Result<(), RestoreError> {
        self.write(at, false)
    }

    fn write(&self, to: Micros, runs: bool) -> Result<(), RestoreError> {
        let started = if runs {
            let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
            now.tv_sec * 1_000_000 + now.tv_nsec / 1000
        } else {
            0
        };
        let mut bytes = [0u8; 16];
        bytes[..8].copy_from_slice(&to.0.to_le_bytes());
        bytes[8..].copy_from_slice(&started.to_le_bytes());
        self.file.write_all_at(&bytes, 0).map_err(RestoreError::io("write", &self.path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::journal_range::by_hand::group;

    /// Runs groups (ts in ms, command) past a clock that shows 0 ms; gives (barrier, to in ms) for each.
    fn moves(groups: &[(i64, &str)]) -> Vec<Option<(bool, i64)>> {
        let mut pace = Pace::new(Micros(0));
        let mut run = |(ts, line): &(i64, &str)| {
            pace.before(&group(1, ts * 1000, false, &[(0, line)])).map(|m| (m.barrier, m.to.0 / 1000))
        };
        groups.iter().map(&mut run).collect()
    }

    #[test]
    fn the_clock_follows_the_journal() {
        // Plain commands never need a barrier.
        assert_eq!(moves(&[(5, "SET a 1"), (5, "SET a 2"), (9, "DEL a")]), [Some((false, 5)), None, Some((false, 9))]);
        // Behind what concerns a field the clock goes on when the server is through with it, and waits for that a while.
        let field = "HPEXPIREAT h 100 FIELDS 1 f";
        assert_eq!(
            moves(&[(5, field), (50, "SET a 1"), (254, "SET a 1"), (255, "SET a 1"), (256, "SET a 1")]),
            [Some((false, 5)), None, None, Some((true, 255)), Some((false, 256))]
        );
        assert_eq!(moves(&[(5, field), (9, field), (255, field)]), [Some((false, 5)), None, None]);
        assert_eq!(moves(&[(5, "HPERSIST h FIELDS 1 f"), (300, field)]), [Some((false, 5)), None]);
        assert_eq!(
            moves(&[(5, "HPERSIST h FIELDS 1 f"), (300, "HPERSIST h FIELDS 1 g")]),
            [Some((false, 5)), Some((true, 300))]
        );
        // The server's clock is behind this one: the field's end is before the group's time.
        assert_eq!(moves(&[(150, "SET a 1"), (151, field)]), [Some((false, 150)), Some((true, 95))]);
        // The server's clock is ahead: XCLAIM's time must not be clamped.
        let claim = "XCLAIM s g c 0 1-1 TIME 70 RETRYCOUNT 1 FORCE JUSTID LASTID 1-1";
        assert_eq!(moves(&[(50, claim), (60, "SET a 1"), (71, claim)]), [Some((true, 1070)), None, None]);
        // Nor must it be ahead of the journal where a field would seem to be gone by then.
        assert_eq!(
            moves(&[(50, claim), (60, "HPERSIST h FIELDS 1 f"), (61, "SET a 1"), (71, claim)]),
            [Some((true, 1070)), Some((true, 60)), None, Some((true, 1070))]
        );
        assert_eq!(moves(&[(150, "HSETEX h FXX PXAT 100 FIELDS 1 f v")]), [Some((false, 95))]);
        // Scripts see their own time, and the clock waits for them.
        assert_eq!(moves(&[(5, "EVAL x 0"), (9, "SET a 1")]), [Some((true, 5)), Some((true, 9))]);
    }
}
