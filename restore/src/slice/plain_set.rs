//! `SET key value`, with or without `PXAT ms`, and nothing else: the most frequent record by far. It changes one key, whatever that
//! held, so it is passed without a look at the table of commands; and what it leaves behind is the same as an entry of an RDB.

use redtape_journal::{Record, RecordView};
use redtape_wire::rdb::StringEntry;

/// The key's place among the arguments.
pub(super) const KEY: usize = 1;

/// What such a record of which this is the number of arguments leaves behind; `None` = it is not one.
fn parse<'a>(
    len: usize,
    arg: impl Fn(usize) -> Option<&'a [u8]>,
    keys: Option<&[usize]>,
) -> Option<(StringEntry<'a>, usize)> {
    if !(len == 3 || len == 5) || !arg(0)?.eq_ignore_ascii_case(b"SET") || keys.is_some_and(|keys| keys != [KEY]) {
        return None;
    }
    let (key, value) = (arg(KEY)?, arg(2)?);
    let name_key_and_value = 3 + key.len() + value.len();
    if len == 3 {
        return Some((StringEntry { key, value, expires_at_ms: None }, name_key_and_value));
    }
    let (option, until) = (arg(3)?, arg(4)?);
    if !option.eq_ignore_ascii_case(b"PXAT") {
        return None;
    }
    let expires_at_ms = Some(milliseconds(until)?);
    Some((StringEntry { key, value, expires_at_ms }, name_key_and_value + option.len() + until.len()))
}

/// A time as servers write it; others would be refused, or understood by some servers only.
fn milliseconds(text: &[u8]) -> Option<i64> {
    let plain = matches!(text, [b'1'..=b'9', rest @ ..] if rest.iter().all(u8::is_ascii_digit));
    std::str::from_utf8(text).ok().filter(|_| plain)?.parse().ok()
}

/// What it leaves behind, and the bytes of its arguments.
pub(super) fn of_view<'a>(record: &RecordView<'a>) -> Option<(StringEntry<'a>, usize)> {
    parse(record.len(), |n| record.arg(n), record.keys)
}

/// The same of a record.
pub(super) fn of_record(record: &Record) -> Option<(StringEntry<'_>, usize)> {
    parse(record.args.len(), |n| record.args.get(n).map(|arg| &arg[..]), record.keys.as_deref())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::journal_range::by_hand::group;

    #[test]
    fn only_what_an_entry_of_an_rdb_can_say() {
        let parsed = |line: &str| {
            let group = group(1, 1, false, &[(0, line)]);
            let bytes: usize = group.records[0].args.iter().map(bytes::Bytes::len).sum();
            of_record(&group.records[0]).map(|(entry, of_args)| {
                assert_eq!(of_args, bytes, "{line}");
                (entry.key.to_vec(), entry.value.to_vec(), entry.expires_at_ms)
            })
        };
        assert_eq!(parsed("SET k v"), Some((b"k".to_vec(), b"v".to_vec(), None)));
        assert_eq!(parsed("set k "), Some((b"k".to_vec(), b"".to_vec(), None)));
        assert_eq!(parsed("sEt k v pXAT 15"), Some((b"k".to_vec(), b"v".to_vec(), Some(15))));
        assert_eq!(parsed("SET k v PXAT 9223372036854775807").and_then(|set| set.2), Some(i64::MAX));
        for line in [
            "SET k",
            "SET k v NX",
            "SET k v XX",
            "SET k v KEEPTTL",
            "SET k v GET",
            "SET k v EX 5",
            "SET k v PX 5",
            "SET k v EXAT 5",
            "SET k v IFEQ 5",
            "SET k v PXAT 5 NX",
            "SET k v PXAT 0",
            "SET k v PXAT 05",
            "SET k v PXAT +5",
            "SET k v PXAT -5",
            "SET k v PXAT ",
            "SET k v PXAT 5x",
            "SET k v PXAT 9223372036854775808",
            "SET k v PXAT\0 5",
            "SET\0 k v",
            "SETEX k 5 v",
            "GETSET k v",
            "APPEND k v",
        ] {
            assert_eq!(parsed(line), None, "{line}");
        }
        let mut record = group(1, 1, false, &[(0, "SET k v")]).records.remove(0);
        for (keys, known) in [(&[1][..], true), (&[2], false), (&[0, 1], false), (&[], false)] {
            record.keys = Some(keys.iter().copied().collect());
            assert_eq!(of_record(&record).is_some(), known, "{keys:?}");
        }
    }
}
