//! The zone in which times are read and shown.

use std::str::FromStr;

use jiff::Timestamp;
use jiff::tz::{Offset, TimeZone};

use crate::types::Micros;

/// A time zone, with the name that it is shown by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Zone {
    tz: TimeZone,
    name: String,
}

/// The text is not a zone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "there is no time zone {0:?} on this machine; write UTC, local, an offset (+01:00), or a name such as Europe/Berlin"
)]
pub struct ZoneError(String);

impl Default for Zone {
    fn default() -> Self {
        Self::utc()
    }
}

impl Zone {
    /// UTC.
    pub fn utc() -> Self {
        Self { tz: TimeZone::UTC, name: "UTC".to_owned() }
    }

    /// That of this machine (`TZ`, else `/etc/localtime`).
    pub fn local() -> Self {
        let tz = TimeZone::system();
        let name = tz.iana_name().unwrap_or("local time").to_owned();
        Self { tz, name }
    }

    /// Always this far from UTC.
    pub(super) fn fixed(offset: Offset) -> Self {
        Self { tz: TimeZone::fixed(offset), name: offset.to_string() }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn tz(&self) -> &TimeZone {
        &self.tz
    }

    /// RFC 3339 with its offset, always six digits of the second: it can be pasted back.
    pub fn show(&self, at: Micros) -> String {
        match Timestamp::from_microsecond(at.0) {
            Ok(_) if self.is_utc() => at.to_string(),
            Ok(time) => format!("{:.6}", time.display_with_offset(self.tz.to_offset(time))),
            Err(_) => at.to_string(),
        }
    }

    /// In this zone and in UTC, to be sure.
    pub fn show_with_utc(&self, at: Micros) -> String {
        if self.is_utc() { at.to_string() } else { format!("{} ({}; {at})", self.show(at), self.name) }
    }

    /// What it shows is UTC, under whatever name.
    fn is_utc(&self) -> bool {
        self.tz == TimeZone::UTC
    }
}

impl FromStr for Zone {
    type Err = ZoneError;

    fn from_str(text: &str) -> Result<Self, ZoneError> {
        let unknown = || ZoneError(text.to_owned());
        if text.eq_ignore_ascii_case("utc") || text.eq_ignore_ascii_case("z") {
            return Ok(Self::utc());
        }
        if text.eq_ignore_ascii_case("local") {
            return Ok(Self::local());
        }
        if let Some(offset) = parse_offset(text) {
            return Ok(Self::fixed(offset));
        }
        let name = text.to_owned();
        // A rule as in TZ needs no files: CET-1CEST,M3.5.0,M10.5.0/3.
        let tz = TimeZone::get(text).or_else(|_| TimeZone::posix(text)).map_err(|_| unknown())?;
        Ok(Self { tz, name })
    }
}

/// `+01:00`, `+0100`, `-05`.
pub(super) fn parse_offset(text: &str) -> Option<Offset> {
    let (sign, digits) = match text.as_bytes() {
        [b'+', ..] => (1, &text[1..]),
        [b'-', ..] => (-1, &text[1..]),
        _ => return None,
    };
    let (hours, minutes) = match digits.len() {
        5 if digits.as_bytes()[2] == b':' => (digits.get(..2)?, digits.get(3..)?),
        4 => (digits.get(..2)?, digits.get(2..)?),
        2 => (digits, "00"),
        _ => return None,
    };
    let (hours, minutes) = (two_digits(hours)?, two_digits(minutes)?);
    if hours > 23 || minutes > 59 {
        return None;
    }
    Offset::from_seconds(sign * (i32::from(hours) * 60 + i32::from(minutes)) * 60).ok()
}

pub(super) fn two_digits(text: &str) -> Option<i8> {
    let digits = text.len() == 2 && text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|_| digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Central European time, without the files of the system.
    const BERLIN: &str = "CET-1CEST,M3.5.0,M10.5.0/3";

    #[test]
    fn zones_and_how_they_show_a_time() {
        let at = Micros(1_795_176_000_000_001);
        for (zone, shown) in [
            ("UTC", "2026-11-20T12:00:00.000001Z"),
            ("z", "2026-11-20T12:00:00.000001Z"),
            ("+01:00", "2026-11-20T13:00:00.000001+01:00"),
            ("-0530", "2026-11-20T06:30:00.000001-05:30"),
            (BERLIN, "2026-11-20T13:00:00.000001+01:00"),
        ] {
            let zone: Zone = zone.parse().expect(zone);
            assert_eq!(zone.show(at), shown);
        }
        let berlin: Zone = BERLIN.parse().expect(BERLIN);
        let both = format!("2026-11-20T13:00:00.000001+01:00 ({BERLIN}; 2026-11-20T12:00:00.000001Z)");
        assert_eq!(berlin.show_with_utc(at), both);
        assert_eq!(Zone::utc().show_with_utc(at), "2026-11-20T12:00:00.000001Z");
        // In summer.
        assert!(berlin.show(Micros(1_782_907_200_000_000)).ends_with("+02:00"));
        assert_eq!(berlin.show(Micros(i64::MAX)), Micros(i64::MAX).to_string());
        for zone in ["", "nowhere", "+1", "+25:99", "2026"] {
            assert!(zone.parse::<Zone>().is_err(), "{zone}");
        }
    }
}
