//! Sizes, lengths of time and times of day as people write them.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::Deserialize;

/// Units, the largest first: letter and seconds.
const UNITS: [(char, u64); 5] = [('w', 7 * 86_400), ('d', 86_400), ('h', 3600), ('m', 60), ('s', 1)];
const MINUTES_A_DAY: u32 = 24 * 60;

/// A value in a file: TOML's numbers mean what they mean as text.
#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a text or a number")]
pub(crate) enum Raw {
    Number(u64),
    Text(String),
}

macro_rules! read_as_text {
    ($($type:ty),*) => {$(
        impl TryFrom<Raw> for $type {
            type Error = String;

            fn try_from(raw: Raw) -> Result<Self, String> {
                match raw {
                    Raw::Number(n) => n.to_string().parse(),
                    Raw::Text(text) => text.parse(),
                }
            }
        }
    )*};
}

pub(crate) use read_as_text;

read_as_text!(ByteSize);

/// Bytes, written as in `redis.conf`: `1k` is 1000, `1kb` is 1024, and so for `m` and `g`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "Raw")]
pub struct ByteSize(pub u64);

impl FromStr for ByteSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "expected a size such as 1048576, 256mb or 1gb".to_owned();
        let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (digits, unit) = text.split_at(end);
        let factor: u64 = match unit.to_ascii_lowercase().as_str() {
            "" | "b" => 1,
            "k" => 1000,
            "kb" => 1 << 10,
            "m" => 1_000_000,
            "mb" => 1 << 20,
            "g" => 1_000_000_000,
            "gb" => 1 << 30,
            _ => return Err(wrong()),
        };
        let number: u64 = digits.parse().map_err(|_| wrong())?;
        number.checked_mul(factor).map(Self).ok_or_else(wrong)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (shift, unit) in [(30, "gb"), (20, "mb"), (10, "kb")] {
            if self.0 != 0 && self.0.is_multiple_of(1 << shift) {
                return write!(f, "{}{unit}", self.0 >> shift);
            }
        }
        write!(f, "{}", self.0)
    }
}

/// A length of time: `90s`, `30m`, `6h`, `7d`, `2w`. Never zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct Period(pub Duration);

impl FromStr for Period {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "expected a length of time such as 90s, 30m, 6h or 7d".to_owned();
        let unit = text.chars().next_back().ok_or_else(wrong)?;
        let (_, seconds) = UNITS.into_iter().find(|(letter, _)| *letter == unit).ok_or_else(wrong)?;
        let digits = &text[..text.len() - 1];
        if !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Err(wrong());
        }
        let number: u64 = digits.parse().map_err(|_| wrong())?;
        match number.checked_mul(seconds) {
            // As many as microseconds since 1970 can hold.
            Some(total @ 1..=9_000_000_000_000) => Ok(Self(Duration::from_secs(total))),
            _ => Err(wrong()),
        }
    }
}

impl TryFrom<String> for Period {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        let (letter, unit) = UNITS.into_iter().find(|(_, unit)| seconds.is_multiple_of(*unit)).unwrap_or(('s', 1));
        write!(f, "{}{letter}", seconds / unit)
    }
}

/// A time of day: `03:00` is UTC, `03:00+02:00` is not. Kept in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct TimeOfDay {
    /// Minutes since midnight, UTC.
    pub minutes: u32,
}

impl FromStr for TimeOfDay {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "expected a time of day: 03:00 (UTC), or with an offset as in 03:00+02:00".to_owned();
        let minutes = |text: &str, hours_max: u32| {
            let (hours, minutes) = text.split_once(':')?;
            let two = |s: &str| (s.len() == 2 && s.bytes().all(|b| b.is_ascii_digit())).then(|| s.parse::<u32>().ok());
            let (hours, minutes) = (two(hours)??, two(minutes)??);
            (hours <= hours_max && minutes < 60).then_some(hours * 60 + minutes)
        };
        let (time, east) = match text.find(['+', '-', 'Z']) {
            None => (text, 0),
            Some(at) if &text[at..] == "Z" => (&text[..at], 0),
            Some(at) => {
                let offset = minutes(&text[at + 1..], 14).ok_or_else(wrong)?;
                (&text[..at], if text[at..].starts_with('+') { offset } else { MINUTES_A_DAY - offset })
            }
        };
        let local = minutes(time, 23).ok_or_else(wrong)?;
        Ok(Self { minutes: (local + MINUTES_A_DAY - east) % MINUTES_A_DAY })
    }
}

impl TryFrom<String> for TimeOfDay {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl fmt::Display for TimeOfDay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}:{:02}", self.minutes / 60, self.minutes % 60)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_those_of_redis() {
        for (text, bytes) in [("0", 0), ("12", 12), ("7b", 7), ("1k", 1000), ("1kb", 1024), ("2M", 2_000_000)] {
            assert_eq!(text.parse(), Ok(ByteSize(bytes)), "{text}");
        }
        for (text, bytes) in [("256mb", 256 << 20), ("1gb", 1 << 30), ("3g", 3_000_000_000)] {
            assert_eq!(text.parse(), Ok(ByteSize(bytes)), "{text}");
        }
        for bad in ["", "mb", "-1", "1.5gb", "1 gb", "1tb", "99999999999999999999", "18446744073709551615gb"] {
            assert!(bad.parse::<ByteSize>().is_err(), "{bad}");
        }
        for shown in ["0", "1000", "1kb", "256mb", "1gb", "1025"] {
            assert_eq!(shown.parse::<ByteSize>().expect(shown).to_string(), shown);
        }
    }

    #[test]
    fn periods() {
        for (text, seconds, shown) in [
            ("90s", 90, "90s"),
            ("30m", 1800, "30m"),
            ("48h", 172_800, "2d"),
            ("7d", 604_800, "1w"),
            ("2w", 1_209_600, "2w"),
        ] {
            let period: Period = text.parse().expect(text);
            assert_eq!((period.0.as_secs(), period.to_string()), (seconds, shown.to_owned()), "{text}");
        }
        for bad in ["", "7", "d", "0d", "-1d", "1.5h", "7 d", "7D", "1y", "+1d", "99999999999999999w", "é"] {
            assert!(bad.parse::<Period>().is_err(), "{bad}");
        }
    }

    #[test]
    fn times_of_day() {
        for (text, utc) in [
            ("03:00", "03:00"),
            ("03:00Z", "03:00"),
            ("03:00+02:00", "01:00"),
            ("01:00+02:00", "23:00"),
            ("23:30-05:45", "05:15"),
            ("00:00", "00:00"),
            ("03:00+00:00", "03:00"),
            ("03:00-00:00", "03:00"),
        ] {
            assert_eq!(text.parse::<TimeOfDay>().expect(text).to_string(), utc, "{text}");
        }
        for bad in ["", "3", "3:00", "24:00", "12:60", "12:00:00", "03:00 CET", "03:00+2", "03:00+15:00", "0é:00"] {
            assert!(bad.parse::<TimeOfDay>().is_err(), "{bad}");
        }
    }
}
