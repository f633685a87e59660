//! `WHEN`: a point in time as an operator writes it.
//!
//! | form | meaning |
//! | --- | --- |
//! | `2026-11-20T12:00:00.123456+01:00` | RFC 3339, up to microseconds, any offset |
//! | `2026-11-20 12:00:00`, `2026-11-20 12:00` | the same in the zone that is given beside it |
//! | `2026-11-20` | the first instant of that day |
//! | `20:16:11`, `20:16`, `20:16+01:00` | when the clock showed that last |
//! | `yesterday`, `yesterday 20:16` | the first instant of yesterday, or that time |
//! | `@1795176000.000001` | seconds since 1970, up to microseconds |
//! | `10m ago`, `-10m`, `1h30m ago`, `10 minutes ago` | before now; `d`, `h`, `m`, `s` or their names |
//! | `now` | now |
//! | `lsn:4711` | after the group that ends with this record |
//! | `mark:NAME` | the newest mark of that name |
//! | `latest` | everything in the journal |
//!
//! Pure: the present and the zone are arguments of [`When::resolve`].

use std::str::FromStr;

use super::wall_clock::{NO_FORM, WallClock};
use super::when_error::WhenError;
use super::zone::Zone;
use crate::types::{Lsn, Micros};

/// A point in time, as asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum When {
    /// This microsecond, inclusive.
    At(Micros),
    /// So many microseconds before now.
    Ago(i64),
    /// What a clock on the wall shows.
    WallClock(WallClock),
    /// After this record.
    Lsn(Lsn),
    /// The newest mark of this name.
    Mark(String),
    /// The present. The journal ends a moment before it.
    Now,
    /// The end of the journal.
    Latest,
}

/// A point in time that does not depend on the present.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PointInTime {
    /// This microsecond, inclusive.
    At(Micros),
    /// After this record.
    Lsn(Lsn),
    /// The newest mark of this name.
    Mark(String),
    /// The end of the journal.
    Latest,
}

/// A point in time, and on which side of it the cut lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AsOf {
    /// What was written then is included.
    At(When),
    /// What was written then is left out, as is the group that holds that record, or the one that the mark stands behind.
    Before(When),
}

impl When {
    /// The point in time, where "ago" and times without a day count from `now`, and times without an offset are of `zone`.
    pub fn resolve(&self, now: Micros, zone: &Zone) -> Result<PointInTime, WhenError> {
        Ok(match self {
            Self::Ago(us) => PointInTime::At(Micros(now.0.saturating_sub(*us))),
            Self::WallClock(wall) => PointInTime::At(wall.resolve(now, zone)?),
            Self::At(at) => PointInTime::At(*at),
            Self::Lsn(lsn) => PointInTime::Lsn(*lsn),
            Self::Mark(name) => PointInTime::Mark(name.clone()),
            Self::Now => PointInTime::At(now),
            Self::Latest => PointInTime::Latest,
        })
    }
}

impl FromStr for When {
    type Err = WhenError;

    fn from_str(given: &str) -> Result<Self, WhenError> {
        let error = |reason| WhenError::Form { text: given.to_owned(), reason };
        let text = given.trim();
        if text.eq_ignore_ascii_case("latest") {
            return Ok(Self::Latest);
        }
        if text.eq_ignore_ascii_case("now") {
            return Ok(Self::Now);
        }
        if let Some(lsn) = text.strip_prefix("lsn:") {
            return lsn.parse().map(|n| Self::Lsn(Lsn(n))).map_err(|_| error("an LSN is a whole number"));
        }
        if let Some(name) = text.strip_prefix("mark:") {
            return if name.is_empty() {
                Err(error("the mark's name is missing"))
            } else {
                Ok(Self::Mark(name.to_owned()))
            };
        }
        if let Some(unix) = text.strip_prefix('@') {
            return parse_unix(unix).map(Self::At).map_err(error);
        }
        if let Some(span) = text.strip_suffix("ago") {
            return parse_span(span.trim_end()).map(Self::Ago).map_err(error);
        }
        if let Some(span) = text.strip_prefix('-') {
            return parse_span(span).map(Self::Ago).map_err(error);
        }
        match WallClock::parse(text) {
            Ok(wall) => Ok(wall.instant().map_or(Self::WallClock(wall), Self::At)),
            // RFC 3339 has more forms.
            Err(NO_FORM) => parse_rfc3339(text).map(Self::At).ok_or_else(|| error(NO_FORM)),
            Err(reason) => Err(error(reason)),
        }
    }
}

fn parse_unix(text: &str) -> Result<Micros, &'static str> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    if seconds.is_empty() || !digits(seconds) || !digits(fraction) || (text.contains('.') && fraction.is_empty()) {
        return Err("@ must be followed by seconds since 1970");
    }
    if fraction.len() > 6 {
        return Err("the journal knows microseconds: at most six digits after the point");
    }
    let micros: i64 = format!("{fraction:0<6}").parse().map_err(|_| "not a number")?;
    let seconds: i64 = seconds.parse().map_err(|_| "too many seconds")?;
    seconds.checked_mul(1_000_000).and_then(|us| us.checked_add(micros)).map(Micros).ok_or("too many seconds")
}

const UNIT_MISSING: &str = "a unit (d, h, m, s) must follow each number, as in \"1h30m ago\"";

fn parse_span(text: &str) -> Result<i64, &'static str> {
    let mut total: i64 = 0;
    let mut rest = text.trim_start();
    if rest.is_empty() {
        return Err(UNIT_MISSING);
    }
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (number, behind) = rest.split_at(end);
        if number.is_empty() {
            return Err("a number must precede each unit, as in \"1h30m ago\"");
        }
        let number: i64 = number.parse().map_err(|_| "too long ago")?;
        let behind = behind.trim_start();
        let end = behind.find(|c: char| c.is_ascii_digit() || c.is_whitespace()).unwrap_or(behind.len());
        let (unit, behind) = behind.split_at(end);
        let seconds: i64 = match unit {
            "" => return Err(UNIT_MISSING),
            "s" | "sec" | "secs" | "second" | "seconds" => 1,
            "m" | "min" | "mins" | "minute" | "minutes" => 60,
            "h" | "hour" | "hours" => 3600,
            "d" | "day" | "days" => 86400,
            _ => return Err("units are d, h, m and s, or day, hour, minute and second, as in \"1h30m ago\""),
        };
        let us = number.checked_mul(seconds * 1_000_000).ok_or("too long ago")?;
        total = total.checked_add(us).ok_or("too long ago")?;
        rest = behind.trim_start();
    }
    Ok(total)
}

fn parse_rfc3339(text: &str) -> Option<Micros> {
    let stamp: jiff::Timestamp = text.parse().ok()?;
    (stamp.as_nanosecond() % 1000 == 0).then_some(Micros(stamp.as_microsecond()))
}

#[cfg(test)]
#[path = "when_tests.rs"]
mod tests;
