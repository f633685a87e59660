//! Times as a clock on the wall shows them: what they mean depends on the zone, and some of them on the present.
//!
//! When clocks are set back, an hour comes twice; when they are set forward, one never comes. Such a time is refused, with both
//! readings: a restore must not guess which hour is meant. A date alone is its first instant, which there always is.

use std::fmt;

use jiff::Timestamp;
use jiff::civil::{Date, Time};
use jiff::tz::{AmbiguousOffset, Offset};

use super::when_error::WhenError;
use super::zone::{Zone, parse_offset, two_digits};
use crate::types::Micros;

/// A date, a time of the day, or both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WallClock {
    day: Day,
    /// `None` = the first instant of the day.
    time: Option<Time>,
    /// If it says how far it is from UTC.
    offset: Option<Offset>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Day {
    Date(Date),
    Yesterday,
    /// That on which the clock showed the time last.
    Last,
}

/// The refusal of what is no time at all.
pub(super) const NO_FORM: &str = "no known form";
const DIGITS: &str = "the journal knows microseconds: at most six digits after the point";

impl WallClock {
    /// `2026-11-20T12:00:00.5+01:00`, `2026-11-20 12:00`, `2026-11-20`, `20:16:11Z`, `20:16`, `yesterday`, `yesterday 20:16`.
    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
        let (text, offset) = split_offset(text)?;
        let (day, rest) = split_day(text)?;
        let time = match rest {
            "" if day == Day::Last => return Err(NO_FORM),
            "" => None,
            rest => Some(parse_time(rest)?),
        };
        Ok(Self { day, time, offset })
    }

    /// What it means in every zone and at any time, if it says so.
    pub(super) fn instant(&self) -> Option<Micros> {
        let (Day::Date(date), Some(time), Some(offset)) = (self.day, self.time, self.offset) else { return None };
        offset.to_timestamp(date.to_datetime(time)).ok().map(|at| Micros(at.as_microsecond()))
    }

    /// The time that it means.
    pub(super) fn resolve(&self, now: Micros, zone: &Zone) -> Result<Micros, WhenError> {
        let fixed = self.offset.map(Zone::fixed);
        let zone = fixed.as_ref().unwrap_or(zone);
        let present = Timestamp::from_microsecond(now.0).map_err(|_| self.out_of_range())?;
        let today = zone.tz().to_datetime(present).date();
        match (self.day, self.time) {
            (Day::Date(date), time) => self.on(date, time, zone),
            (Day::Yesterday, time) => self.on(self.before(today)?, time, zone),
            (Day::Last, time) => self.last(today, time.unwrap_or_default(), now, zone),
        }
    }

    fn on(&self, date: Date, time: Option<Time>, zone: &Zone) -> Result<Micros, WhenError> {
        let Some(time) = time else { return self.first_instant(date, zone) };
        match self.readings(date, time, zone)? {
            Readings::One(at) => Ok(at),
            Readings::Never { before, after } => Err(never(date, time, zone, [before, after])),
            Readings::Twice { first, second } => Err(twice(date, time, zone, [first, second])),
        }
    }

    /// The last one that is not later than `now`.
    fn last(&self, today: Date, time: Time, now: Micros, zone: &Zone) -> Result<Micros, WhenError> {
        match self.readings(today, time, zone)? {
            Readings::One(at) if at <= now => Ok(at),
            // The second one is still to come.
            Readings::Twice { first, second } if first <= now && now < second => Ok(first),
            Readings::Twice { first, second } if second <= now => Err(twice(today, time, zone, [first, second])),
            // What the clock would have shown has passed, in whichever way it is read.
            Readings::Never { before, after } if before.max(after) <= now => {
                Err(never(today, time, zone, [before, after]))
            }
            _ => self.on(self.before(today)?, Some(time), zone),
        }
    }

    fn readings(&self, date: Date, time: Time, zone: &Zone) -> Result<Readings, WhenError> {
        let wall = date.to_datetime(time);
        let at = |offset: Offset| {
            let time = offset.to_timestamp(wall).map_err(|_| self.out_of_range())?;
            Ok::<_, WhenError>(Micros(time.as_microsecond()))
        };
        Ok(match zone.tz().to_ambiguous_timestamp(wall).offset() {
            AmbiguousOffset::Unambiguous { offset } => Readings::One(at(offset)?),
            AmbiguousOffset::Gap { before, after } => Readings::Never { before: at(before)?, after: at(after)? },
            AmbiguousOffset::Fold { before, after } => Readings::Twice { first: at(before)?, second: at(after)? },
        })
    }

    /// Midnight; where there is none, the instant at which the clocks were set forward.
    fn first_instant(&self, date: Date, zone: &Zone) -> Result<Micros, WhenError> {
        let start = zone.tz().to_zoned(date.to_datetime(Time::midnight())).map_err(|_| self.out_of_range())?;
        let start = start.start_of_day().map_err(|_| self.out_of_range())?;
        Ok(Micros(start.timestamp().as_microsecond()))
    }

    fn before(&self, day: Date) -> Result<Date, WhenError> {
        day.yesterday().map_err(|_| self.out_of_range())
    }

    fn out_of_range(&self) -> WhenError {
        WhenError::Form { text: self.to_string(), reason: "too far from now" }
    }
}

fn twice(date: Date, time: Time, zone: &Zone, readings: [Micros; 2]) -> WhenError {
    let wall = date.to_datetime(time).to_string();
    WhenError::Twice { wall, zone: zone.name().to_owned(), readings: readings.map(|at| shown_twice(zone, at)) }
}

fn never(date: Date, time: Time, zone: &Zone, [before, after]: [Micros; 2]) -> WhenError {
    let wall = date.to_datetime(time).to_string();
    // Read with the offset from before the change it is the later one.
    let readings = [after, before].map(|at| shown_twice(zone, at));
    WhenError::Never { wall, zone: zone.name().to_owned(), readings }
}

fn shown_twice(zone: &Zone, at: Micros) -> String {
    format!("{} ({at})", zone.show(at))
}

enum Readings {
    One(Micros),
    /// As the clocks went on from an earlier time to a later one.
    Never {
        before: Micros,
        after: Micros,
    },
    Twice {
        first: Micros,
        second: Micros,
    },
}

impl fmt::Display for WallClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.day {
            Day::Date(date) => write!(f, "{date}")?,
            Day::Yesterday => f.write_str("yesterday")?,
            Day::Last => {}
        }
        if let Some(time) = self.time {
            let blank = if self.day == Day::Last { "" } else { " " };
            write!(f, "{blank}{time}")?;
        }
        self.offset.map_or(Ok(()), |offset| write!(f, "{offset}"))
    }
}

/// What stands before the offset, and the offset.
fn split_offset(text: &str) -> Result<(&str, Option<Offset>), &'static str> {
    if let Some(text) = text.strip_suffix(['Z', 'z']) {
        return Ok((text.trim_end(), Some(Offset::UTC)));
    }
    // A date has hyphens of its own.
    let from = if has_date(text) { DATE_LEN } else { text.find(':').unwrap_or(text.len()) };
    match text[from..].find(['+', '-']) {
        None => Ok((text, None)),
        Some(at) => {
            let (text, offset) = text.split_at(from + at);
            let offset = parse_offset(offset).ok_or("an offset is +HH:MM or -HH:MM")?;
            Ok((text.trim_end(), Some(offset)))
        }
    }
}

const DATE_LEN: usize = "2026-11-20".len();

fn has_date(text: &str) -> bool {
    let is = |(at, byte): (usize, &u8)| if at == 4 || at == 7 { *byte == b'-' } else { byte.is_ascii_digit() };
    text.as_bytes().get(..DATE_LEN).is_some_and(|date| date.iter().enumerate().all(is))
}

/// The day, and the time as text.
fn split_day(text: &str) -> Result<(Day, &str), &'static str> {
    const YESTERDAY: &str = "yesterday";
    if has_date(text) {
        let (date, rest) = text.split_at(DATE_LEN);
        let date = date.parse().map_err(|_| "there is no such date")?;
        let time = match rest.as_bytes() {
            [] => "",
            [b'T' | b't' | b' ', ..] => rest[1..].trim_start(),
            _ => return Err(NO_FORM),
        };
        return if time.is_empty() && !rest.is_empty() { Err(NO_FORM) } else { Ok((Day::Date(date), time)) };
    }
    match text.split_at_checked(YESTERDAY.len()) {
        Some((word, rest)) if word.eq_ignore_ascii_case(YESTERDAY) => match rest.as_bytes() {
            [] | [b' ', ..] => Ok((Day::Yesterday, rest.trim_start())),
            _ => Err(NO_FORM),
        },
        _ => Ok((Day::Last, text)),
    }
}

/// `20:16`, `20:16:11`, `20:16:11.123456`.
fn parse_time(text: &str) -> Result<Time, &'static str> {
    let mut parts = text.split(':');
    let (Some(hour), Some(minute)) = (parts.next(), parts.next()) else { return Err(NO_FORM) };
    let second = parts.next().unwrap_or("00");
    if parts.next().is_some() {
        return Err(NO_FORM);
    }
    let (second, fraction) = match second.split_once('.') {
        Some((_, "")) => return Err(NO_FORM),
        Some((second, fraction)) => (second, fraction),
        None => (second, ""),
    };
    if !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return Err(NO_FORM);
    }
    if fraction.len() > 6 {
        return Err(DIGITS);
    }
    let hour = if hour.len() == 1 { one_digit(hour) } else { two_digits(hour) };
    let (hour, minute, second) =
        (hour.ok_or(NO_FORM)?, two_digits(minute).ok_or(NO_FORM)?, two_digits(second).ok_or(NO_FORM)?);
    let micros: i32 = format!("{fraction:0<6}").parse().map_err(|_| NO_FORM)?;
    Time::new(hour, minute, second, micros * 1000).map_err(|_| "there is no such time of the day")
}

fn one_digit(text: &str) -> Option<i8> {
    text.parse().ok().filter(|n| (0..=9).contains(n))
}
