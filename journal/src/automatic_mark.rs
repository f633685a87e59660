//! Marks that redtape sets by itself, just before a write that takes much away.
//!
//! Their names have a form of their own, `before-FLUSHALL@2026-11-30T18:02:11.123456Z`: the command and the time of the write. Nobody
//! else may give a name of that form, so these marks can be told from those of people. They are removed with the history that they
//! name.

use std::fmt::Display;

const PREFIX: &str = "before-";

/// The name of the mark before a write at `ts`; `command` is in capital letters.
pub(crate) fn name(command: &str, ts: impl Display) -> String {
    format!("{PREFIX}{command}@{ts}")
}

/// Tells two such writes of one microsecond apart.
pub(crate) fn with_lsn(name: &str, lsn: impl Display) -> String {
    format!("{name}#{lsn}")
}

/// Whether it is the name of a mark that redtape sets by itself.
pub(crate) fn is_automatic(name: &str) -> bool {
    let Some((command, rest)) = name.strip_prefix(PREFIX).and_then(|rest| rest.split_once('@')) else { return false };
    let (time, lsn) = rest.split_once('#').unwrap_or((rest, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let is_command = !command.is_empty() && command.bytes().all(|b| b.is_ascii_uppercase());
    is_command && digits(lsn) && time.parse().is_ok_and(|t: jiff::Timestamp| format!("{t:.6}") == time)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Lsn, Mark, Micros};

    #[test]
    fn an_automatic_mark_is_told_by_its_name() {
        let mark = Mark::automatic("FLUSHALL", Micros(1_795_000_000_000_123), Lsn(7));
        assert_eq!(mark.name, "before-FLUSHALL@2026-11-18T11:06:40.000123Z");
        assert_eq!((mark.ts, mark.lsn), (Micros(1_795_000_000_000_123), Lsn(7)));
        let other = mark.clone().with_lsn_in_name();
        assert_eq!(other.name, "before-FLUSHALL@2026-11-18T11:06:40.000123Z#7");
        for mark in [mark, other] {
            assert!(mark.is_automatic());
            assert!(Mark::check_name(&mark.name).is_err_and(|why| why.contains("by itself")), "{}", mark.name);
        }
    }

    #[test]
    fn people_keep_all_other_names() {
        for name in [
            "before-deploy",
            "before-deploy@2026-11-18T11:06:40.000123Z",
            "before-FLUSHALL",
            "before-FLUSHALL@noon",
            "before-FLUSHALL@2026-11-18T10:53:20Z",
            "before-FLUSHALL@2026-11-18T11:06:40.000123Z#",
            "before-FLUSHALL@2026-11-18T11:06:40.000123Z#x",
            "before-@2026-11-18T11:06:40.000123Z",
            "clock-7200s@2026-11-20T11:00:00.000000Z",
        ] {
            assert!(!is_automatic(name), "{name}");
            assert_eq!(Mark::check_name(name), Ok(()), "{name}");
        }
    }
}
