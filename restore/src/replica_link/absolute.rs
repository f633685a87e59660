//! Relative TTLs in the stream, made absolute.
//!
//! Redis before 7.0 sends `SET … EX`, `SETEX`, `EXPIRE` and `RESTORE` to its replicas as the client sent
//! them: a replica that gets them later counts from then. Replayed hours later they would live hours too
//! long, so redtape counts from the group's own time. Streams of 7.0 and later hold none of these forms.

use bytes::Bytes;
use redtape_wire::word;

/// The commands to send instead of this one, which ran at `ts_ms`; `None` = as it is.
pub(crate) fn absolute(args: &[Bytes], ts_ms: i64) -> Option<Vec<Vec<Bytes>>> {
    let name = args.first()?;
    let is = |word: &[u8]| name.eq_ignore_ascii_case(word);
    let number = |at: usize| -> Option<i64> { std::str::from_utf8(args.get(at)?).ok()?.parse().ok() };
    let until = |at: usize, unit: i64| -> Option<Bytes> {
        let relative = number(at)?.checked_mul(unit)?;
        Some(Bytes::from(ts_ms.checked_add(relative)?.to_string()))
    };
    let set =
        |rest: Vec<Bytes>, until: Bytes| vec![rest, vec![Bytes::from_static(b"PEXPIREAT"), args[1].clone(), until]];
    match name.len() {
        3 if is(b"SET") && args.len() > 4 => {
            let at = (3..args.len() - 1).find(|n| word::is_one_of(&args[*n], &["EX", "PX"]))?;
            let until = until(at + 1, if word::is(&args[at], "EX") { 1000 } else { 1 })?;
            let rest = args.iter().enumerate().filter(|(n, _)| *n != at && *n != at + 1);
            Some(set(rest.map(|(_, a)| a.clone()).collect(), until))
        }
        5 | 6 if args.len() == 4 && (is(b"SETEX") || is(b"PSETEX")) => {
            let until = until(2, if is(b"SETEX") { 1000 } else { 1 })?;
            Some(set(vec![Bytes::from_static(b"SET"), args[1].clone(), args[3].clone()], until))
        }
        6 | 7 if args.len() >= 3 && (is(b"EXPIRE") || is(b"PEXPIRE")) => {
            let until = until(2, if is(b"EXPIRE") { 1000 } else { 1 })?;
            Some(vec![vec![Bytes::from_static(b"PEXPIREAT"), args[1].clone(), until]])
        }
        7 if is(b"RESTORE") && args.len() >= 4 && number(2)? > 0 => {
            if args[4..].iter().any(|a| word::is(a, "ABSTTL")) {
                return None;
            }
            let mut changed = args.to_vec();
            changed[2] = until(2, 1)?;
            changed.push(Bytes::from_static(b"ABSTTL"));
            Some(vec![changed])
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relative_times_count_from_the_group() {
        for (line, want) in [
            ("SET k v PX 300", "SET k v; PEXPIREAT k 1300"),
            ("set k v NX ex 2", "set k v NX; PEXPIREAT k 3000"),
            ("SET k v px\0x 300", "SET k v; PEXPIREAT k 1300"),
            ("SETEX k 2 v", "SET k v; PEXPIREAT k 3000"),
            ("PSETEX k 2 v", "SET k v; PEXPIREAT k 1002"),
            ("EXPIRE k 5", "PEXPIREAT k 6000"),
            ("PEXPIRE k 5", "PEXPIREAT k 1005"),
            ("RESTORE k 5 data REPLACE", "RESTORE k 1005 data REPLACE ABSTTL"),
            // As they are.
            ("SET k v", ""),
            ("SET k EX", ""),
            ("SET EX PX", ""),
            ("SET k v PXAT 300", ""),
            ("SET k v KEEPTTL", ""),
            ("RESTORE k 0 data", ""),
            ("RESTORE k 5 data ABSTTL", ""),
            ("RESTORE k 5 data absttl\0", ""),
            ("PEXPIREAT k 5", ""),
            ("EXPIRE k x", ""),
            ("SET k v EX 9223372036854775807", ""),
        ] {
            let args: Vec<Bytes> = line.split(' ').map(|w| Bytes::copy_from_slice(w.as_bytes())).collect();
            let got = absolute(&args, 1000).unwrap_or_default();
            let got: Vec<String> = got
                .iter()
                .map(|c| c.iter().map(|a| String::from_utf8_lossy(a).into_owned()).collect::<Vec<_>>().join(" "))
                .collect();
            assert_eq!(got.join("; "), want, "{line}");
        }
    }
}
