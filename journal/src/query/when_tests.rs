use super::*;

/// Central European time, without the files of the system: clocks are set forward at 02:00 on the last Sunday of March, and
/// back at 03:00 on that of October.
const BERLIN: &str = "CET-1CEST,M3.5.0,M10.5.0/3";
/// Clocks are set forward at midnight of the first Sunday of November, and back at midnight of the third one of February.
const MIDNIGHT: &str = "BRT3BRST,M11.1.0/0,M2.3.0/0";

fn at(us: i64) -> When {
    When::At(Micros(us))
}

fn utc(text: &str) -> Micros {
    let time: jiff::Timestamp = text.parse().expect(text);
    Micros(time.as_microsecond())
}

#[test]
fn forms() {
    for (text, want) in [
        ("2026-11-20T12:00:00Z", at(1_795_176_000_000_000)),
        ("2026-11-20T12:00Z", at(1_795_176_000_000_000)),
        ("2026-11-20T12:00:00.000001Z", at(1_795_176_000_000_001)),
        ("2026-11-20T13:00:00.5+01:00", at(1_795_176_000_500_000)),
        ("2026-11-20 06:30:00-05:30", at(1_795_176_000_000_000)),
        ("2026-11-20 06:30:00 -0530", at(1_795_176_000_000_000)),
        ("20261120T120000Z", at(1_795_176_000_000_000)),
        ("@1795176000", at(1_795_176_000_000_000)),
        ("@1795176000.000001", at(1_795_176_000_000_001)),
        ("@1795176000.5", at(1_795_176_000_500_000)),
        ("10m ago", When::Ago(600_000_000)),
        ("-10m", When::Ago(600_000_000)),
        ("-1h30m", When::Ago(5_400_000_000)),
        ("1h30m ago", When::Ago(5_400_000_000)),
        ("2d 1s ago", When::Ago(172_801_000_000)),
        ("90s ago", When::Ago(90_000_000)),
        ("0s ago", When::Ago(0)),
        ("now", When::Now),
        (" Now ", When::Now),
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
    let resolve = |when: When| when.resolve(Micros(10), &Zone::utc());
    assert_eq!(resolve(When::Ago(1)), Ok(PointInTime::At(Micros(9))));
    assert_eq!(resolve(When::Latest), Ok(PointInTime::Latest));
    assert_eq!(resolve(When::Lsn(Lsn(3))), Ok(PointInTime::Lsn(Lsn(3))));
}

/// Text, the present, the zone, and what is meant (or a part of the refusal, behind `!`).
#[test]
fn what_a_clock_on_the_wall_shows() {
    for (text, now, zone, want) in [
        // With a day.
        ("2026-11-20 12:00:00", "2026-11-30T00:00:00Z", "UTC", "2026-11-20T12:00:00Z"),
        ("2026-11-20T12:00:00.000001", "2026-11-30T00:00:00Z", BERLIN, "2026-11-20T11:00:00.000001Z"),
        ("2026-07-20 12:00", "2026-11-30T00:00:00Z", BERLIN, "2026-07-20T10:00:00Z"),
        ("2026-11-20", "2026-11-30T00:00:00Z", BERLIN, "2026-11-19T23:00:00Z"),
        ("2026-11-20Z", "2026-11-30T00:00:00Z", BERLIN, "2026-11-20T00:00:00Z"),
        ("2026-11-20+05:30", "2026-11-30T00:00:00Z", BERLIN, "2026-11-19T18:30:00Z"),
        ("yesterday", "2026-11-30T11:00:00Z", "UTC", "2026-11-29T00:00:00Z"),
        ("Yesterday", "2026-11-30T23:30:00Z", BERLIN, "2026-11-29T23:00:00Z"),
        ("yesterday 20:16", "2026-11-30T11:00:00Z", BERLIN, "2026-11-29T19:16:00Z"),
        ("yesterday 20:16Z", "2026-11-30T11:00:00Z", BERLIN, "2026-11-29T20:16:00Z"),
        // The last one, today or yesterday.
        ("20:16", "2026-11-30T20:15:59.999999Z", "UTC", "2026-11-29T20:16:00Z"),
        ("20:16", "2026-11-30T20:16:00Z", "UTC", "2026-11-30T20:16:00Z"),
        ("20:16:11.5", "2026-11-30T20:16:11.4Z", "UTC", "2026-11-29T20:16:11.5Z"),
        ("20:16:11.5", "2026-11-30T20:16:11.5Z", "UTC", "2026-11-30T20:16:11.5Z"),
        ("9:05", "2026-11-30T20:16:00Z", "UTC", "2026-11-30T09:05:00Z"),
        ("00:00", "2026-11-30T00:00:00Z", "UTC", "2026-11-30T00:00:00Z"),
        ("00:00", "2026-11-30T22:59:59Z", BERLIN, "2026-11-29T23:00:00Z"),
        ("00:00", "2026-11-30T23:00:00Z", BERLIN, "2026-11-30T23:00:00Z"),
        ("23:59", "2026-11-30T00:00:30Z", "UTC", "2026-11-29T23:59:00Z"),
        // The offset says which day it is.
        ("00:30+05:30", "2026-11-29T19:30:00Z", "UTC", "2026-11-29T19:00:00Z"),
        ("20:16-05:00", "2026-11-30T01:15:00Z", BERLIN, "2026-11-29T01:16:00Z"),
        // Set back at 2026-10-25T01:00Z, from 03:00 to 02:00.
        ("2026-10-25 01:59", "2026-11-30T00:00:00Z", BERLIN, "2026-10-24T23:59:00Z"),
        ("2026-10-25 02:30", "2026-11-30T00:00:00Z", BERLIN, "!came twice"),
        ("2026-10-25 02:30+02:00", "2026-11-30T00:00:00Z", BERLIN, "2026-10-25T00:30:00Z"),
        ("2026-10-25 02:30+01:00", "2026-11-30T00:00:00Z", BERLIN, "2026-10-25T01:30:00Z"),
        ("2026-10-25 03:00", "2026-11-30T00:00:00Z", BERLIN, "2026-10-25T02:00:00Z"),
        ("02:30", "2026-10-25T00:29:00Z", BERLIN, "2026-10-24T00:30:00Z"),
        ("02:30", "2026-10-25T01:29:00Z", BERLIN, "2026-10-25T00:30:00Z"),
        ("02:30", "2026-10-25T01:30:00Z", BERLIN, "!came twice"),
        ("02:30", "2026-10-26T01:29:00Z", BERLIN, "!came twice"),
        ("02:30", "2026-10-26T01:30:00Z", BERLIN, "2026-10-26T01:30:00Z"),
        // Set forward at 2026-03-29T01:00Z, from 02:00 to 03:00.
        ("2026-03-29 02:30", "2026-11-30T00:00:00Z", BERLIN, "!never came"),
        ("2026-03-29 03:00", "2026-11-30T00:00:00Z", BERLIN, "2026-03-29T01:00:00Z"),
        ("02:30", "2026-03-29T00:00:00Z", BERLIN, "2026-03-28T01:30:00Z"),
        ("02:30", "2026-03-29T12:00:00Z", BERLIN, "!never came"),
        ("02:30", "2026-03-30T00:29:00Z", BERLIN, "!never came"),
        ("02:30", "2026-03-30T00:30:00Z", BERLIN, "2026-03-30T00:30:00Z"),
        // A day without a midnight, and one whose last hour comes twice.
        ("2026-11-01", "2026-11-30T00:00:00Z", MIDNIGHT, "2026-11-01T03:00:00Z"),
        ("2026-11-01 00:00", "2026-11-30T00:00:00Z", MIDNIGHT, "!never came"),
        ("2026-02-14 23:30", "2026-11-30T00:00:00Z", MIDNIGHT, "!came twice"),
        ("2026-02-15", "2026-11-30T00:00:00Z", MIDNIGHT, "2026-02-15T03:00:00Z"),
        ("yesterday", "2026-11-02T12:00:00Z", MIDNIGHT, "2026-11-01T03:00:00Z"),
    ] {
        let when: When = text.parse().expect(text);
        let zone = zone.parse().expect(zone);
        match (when.resolve(utc(now), &zone), want.strip_prefix('!')) {
            (Ok(found), None) => assert_eq!(found, PointInTime::At(utc(want)), "{text} at {now}"),
            (Err(error), Some(part)) => assert!(error.to_string().contains(part), "{text} at {now}: {error}"),
            (found, _) => panic!("{text} at {now} in {}: {found:?}, not {want}", zone.name()),
        }
    }
}

#[test]
fn both_readings_are_shown_and_each_can_be_written() {
    let berlin: Zone = BERLIN.parse().expect(BERLIN);
    for (text, first, second) in [
        ("2026-10-25T02:30:00.5", "2026-10-25T00:30:00.5Z", "2026-10-25T01:30:00.5Z"),
        ("2026-03-29T02:30:00", "2026-03-29T00:30:00Z", "2026-03-29T01:30:00Z"),
    ] {
        let when: When = text.parse().expect(text);
        let error = when.resolve(utc("2026-11-30T00:00:00Z"), &berlin).expect_err(text);
        let (WhenError::Twice { readings, .. } | WhenError::Never { readings, .. }) = &error else { panic!("{error}") };
        for (reading, meant) in readings.iter().zip([first, second]) {
            let pasted = reading.split(' ').next().expect("a time");
            assert_eq!(pasted.parse(), Ok(When::At(utc(meant))), "{error}");
            assert!(error.to_string().contains(pasted) && error.to_string().contains(text), "{error}");
        }
    }
}

#[test]
fn refusals_say_what_is_meant() {
    for (text, reason) in [
        ("", "no known form"),
        ("tomorrow", "no known form"),
        ("yesterdays", "no known form"),
        ("2026-11-20T", "no known form"),
        ("2026-11-20x12:00", "no known form"),
        ("2026-11-20T12", "no known form"),
        ("12:00:00:00", "no known form"),
        ("12:0", "no known form"),
        ("1a:00", "no known form"),
        ("12:00:00.", "no known form"),
        ("2026-11-20T12:00:00.1234567Z", "six digits"),
        ("12:00:00.1234567", "six digits"),
        ("2026-13-20T12:00:00Z", "no such date"),
        ("2026-02-29", "no such date"),
        ("24:00", "no such time"),
        ("12:00:60", "no such time"),
        ("12:00+1", "an offset is"),
        ("2026-11-20 12:00+24:00", "an offset is"),
        ("@12.1234567", "six digits"),
        ("@x", "seconds since 1970"),
        ("@12.", "seconds since 1970"),
        ("@99999999999999999999", "too many"),
        ("ago", "unit"),
        ("10 ago", "unit"),
        ("-10", "unit"),
        ("-", "unit"),
        ("--plan", "number"),
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
    // No panic where the present is no date.
    for now in [i64::MIN, i64::MAX] {
        for text in ["20:16", "yesterday", "-9999-01-01", "9999-12-31 23:59", "0000-01-01"] {
            if let Ok(when) = text.parse::<When>() {
                assert!(when.resolve(Micros(now), &Zone::utc()).is_err() || text.len() >= 10, "{text}");
            }
        }
    }
}
