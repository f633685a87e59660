//! `WHEN`: a point in time as an operator writes it.
//!
//! | form | meaning |
//! | --- | --- |
//! | `2026-11-20T12:00:00.123456+01:00` | RFC 3339, up to microseconds, any offset |
//! | `@1795176000.000001` | seconds since 1970, up to microseconds |
//! | `10m ago`, `1h30m ago`, `10 minutes ago` | before now; `d`, `h`, `m`, `s` or their names |
//! | `lsn:4711` | after the group that ends with this record |
//! | `mark:NAME` | the newest mark of that name |
//! | `latest` | everything in the journal |

use std::str::FromStr;

use crate::types::{Lsn, Micros};

/// A point in time, as asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum When {
    /// This microsecond, inclusive.
    At(Micros),
    /// So many microseconds before now.
    Ago(i64),
    /// After this record.
    Lsn(Lsn),
    /// The newest mark of this name.
    Mark(String),
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

/// The text is not a point in time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is not a point in time ({reason}); write 2026-11-20T12:00:00.123456Z, @1795176000.5, \"10m ago\", lsn:N, mark:NAME or latest"
)]
pub struct WhenError {
    /// What was written.
    pub text: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

impl When {
    /// The point in time, where "ago" counts from `now`.
    pub fn resolve(&self, now: Micros) -> PointInTime {
        match self {
            Self::Ago(us) => PointInTime::At(Micros(now.0.saturating_sub(*us))),
            Self::At(at) => PointInTime::At(*at),
            Self::Lsn(lsn) => PointInTime::Lsn(*lsn),
            Self::Mark(name) => PointInTime::Mark(name.clone()),
            Self::Latest => PointInTime::Latest,
        }
    }
}

impl FromStr for When {
    type Err = WhenError;

    fn from_str(given: &str) -> Result<Self, WhenError> {
        let error = |reason| WhenError { text: given.to_owned(), reason };
        let text = given.trim();
        if text.eq_ignore_ascii_case("latest") {
            return Ok(Self::Latest);
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
        parse_rfc3339(text).map(Self::At).map_err(error)
    }
}

fn parse_unix(text: &str) -> Result<Micros, &'static str> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    if seconds.is_empty() || !digits(seconds) || !digits(fraction) || (text.contains('.') && fraction.is_empty()) {
        return Err("@ stands before seconds since 1970");
    }
    if fraction.len() > 6 {
        return Err("the journal knows microseconds: at most six digits behind the point");
    }
    let micros: i64 = format!("{fraction:0<6}").parse().map_err(|_| "not a number")?;
    let seconds: i64 = seconds.parse().map_err(|_| "too many seconds")?;
    seconds.checked_mul(1_000_000).and_then(|us| us.checked_add(micros)).map(Micros).ok_or("too many seconds")
}

const UNIT_MISSING: &str = "a unit (d, h, m, s) stands behind each number, as in \"1h30m ago\"";

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
            return Err("a number stands before each unit, as in \"1h30m ago\"");
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

fn parse_rfc3339(text: &str) -> Result<Micros, &'static str> {
    let zoned =
        text.len() > 10 && (text.ends_with(['Z', 'z']) || text.get(10..).is_some_and(|rest| rest.contains(['+', '-'])));
    let looks_like_time = text.as_bytes().get(..4).is_some_and(|y| y.iter().all(u8::is_ascii_digit));
    if looks_like_time && text.is_char_boundary(10.min(text.len())) && !zoned {
        return Err("a date needs its time and offset: end it with Z or +01:00");
    }
    let stamp: jiff::Timestamp = text.parse().map_err(|_| "no known form")?;
    if stamp.as_nanosecond() % 1000 != 0 {
        return Err("the journal knows microseconds: at most six digits behind the point");
    }
    Ok(Micros(stamp.as_microsecond()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(us: i64) -> When {
        When::At(Micros(us))
    }

    #[test]
    fn forms() {
        for (text, want) in [
            ("2026-11-20T12:00:00Z", at(1_795_176_000_000_000)),
            ("2026-11-20T12:00:00.000001Z", at(1_795_176_000_000_001)),
            ("2026-11-20T13:00:00.5+01:00", at(1_795_176_000_500_000)),
            ("2026-11-20 06:30:00-05:30", at(1_795_176_000_000_000)),
            ("@1795176000", at(1_795_176_000_000_000)),
            ("@1795176000.000001", at(1_795_176_000_000_001)),
            ("@1795176000.5", at(1_795_176_000_500_000)),
            ("10m ago", When::Ago(600_000_000)),
            ("1h30m ago", When::Ago(5_400_000_000)),
            ("2d 1s ago", When::Ago(172_801_000_000)),
            ("90s ago", When::Ago(90_000_000)),
            ("0s ago", When::Ago(0)),
            ("10 minutes ago", When::Ago(600_000_000)),
            ("1 day 2hours 3 min 4sec ago", When::Ago(93_784_000_000)),
            ("1minute1second ago", When::Ago(61_000_000)),
            ("lsn:42", When::Lsn(Lsn(42))),
            ("mark:before deploy", When::Mark("before deploy".into())),
            ("latest", When::Latest),
            (" LATEST ", When::Latest),
        ] {
            assert_eq!(text.parse(), Ok(want), "{text}");
        }
        assert_eq!(When::Ago(1).resolve(Micros(10)), PointInTime::At(Micros(9)));
        assert_eq!(When::Latest.resolve(Micros(10)), PointInTime::Latest);
    }

    #[test]
    fn refusals_say_what_is_meant() {
        for (text, reason) in [
            ("", "no known form"),
            ("yesterday", "no known form"),
            ("2026-11-20T12:00:00", "end it with Z"),
            ("2026-11-20", "end it with Z"),
            ("2026-11-20T12:00:00.1234567Z", "six digits"),
            ("2026-13-20T12:00:00Z", "no known form"),
            ("@12.1234567", "six digits"),
            ("@x", "seconds since 1970"),
            ("@12.", "seconds since 1970"),
            ("@99999999999999999999", "too many"),
            ("ago", "unit"),
            ("10 ago", "unit"),
            ("m ago", "number"),
            ("10y ago", "units are"),
            ("5 parsecs ago", "units are"),
            ("10 minutes and ago", "number"),
            ("99999999999999999d ago", "too long"),
            ("lsn:x", "whole number"),
            ("mark:", "name is missing"),
            ("äöüäöü2026-1+1", "no known form"),
            // The tenth byte is in the midst of a letter; found by fuzzing.
            ("ago\nm :\u{194}\u{194}", "no known form"),
        ] {
            let error = text.parse::<When>().expect_err(text);
            assert!(error.to_string().contains(reason), "{text}: {error}");
        }
    }
}
