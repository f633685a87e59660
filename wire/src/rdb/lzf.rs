//! `LibLZF`, the compression of strings in an RDB (`lzf_d.c`).

use super::fault::Fault;

/// Three bytes give at most 264.
const MAX_RATIO: u64 = 88;

/// Whether `compressed` bytes can become `plain` ones at all: asked before anything is allocated.
pub(super) fn is_plausible(compressed: u64, plain: u64) -> bool {
    plain > 0 && plain <= compressed.saturating_mul(MAX_RATIO)
}

/// Appends exactly `plain` bytes to `out`. Nothing before the end of `out` as it was can be referred to.
pub(super) fn decompress(from: &[u8], plain: usize, out: &mut Vec<u8>) -> Result<(), Fault> {
    const BAD: Fault = Fault::Invalid("a compressed string (LZF) is damaged");
    let first = out.len();
    let end = first.checked_add(plain).ok_or(BAD)?;
    let mut rest = from;
    while let Some((&control, behind)) = rest.split_first() {
        let control = usize::from(control);
        if control < 32 {
            let (run, behind) = behind.split_at_checked(control + 1).ok_or(BAD)?;
            if run.len() > end - out.len() {
                return Err(BAD);
            }
            out.extend_from_slice(run);
            rest = behind;
            continue;
        }
        let (mut len, mut behind) = ((control >> 5) + 2, behind);
        if control >> 5 == 7 {
            let (&more, after) = behind.split_first().ok_or(BAD)?;
            (len, behind) = (len + usize::from(more), after);
        }
        let (&low, after) = behind.split_first().ok_or(BAD)?;
        rest = after;
        let back = ((control & 0x1f) << 8) + usize::from(low) + 1;
        if back > out.len() - first || len > end - out.len() {
            return Err(BAD);
        }
        let source = out.len() - back;
        if back >= len {
            out.extend_from_within(source..source + len);
        } else {
            // The run repeats what it writes.
            for at in source..source + len {
                out.push(out[at]);
            }
        }
    }
    if out.len() == end { Ok(()) } else { Err(BAD) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(from: &[u8], len: usize) -> Option<Vec<u8>> {
        let mut out = b"before".to_vec();
        decompress(from, len, &mut out).ok()?;
        Some(out.split_off(6))
    }

    #[test]
    fn runs_and_references() {
        assert_eq!(plain(b"\x02abc", 3).as_deref(), Some(&b"abc"[..]));
        // One byte, then nine times the byte before: a run that repeats what it writes.
        assert_eq!(plain(b"\x00a\xe0\x00\x00", 10).as_deref(), Some(&b"aaaaaaaaaa"[..]));
        assert_eq!(plain(b"\x03abcd\x40\x03", 8).as_deref(), Some(&b"abcdabcd"[..]));
    }

    #[test]
    fn damage_is_refused() {
        for (from, len) in [
            (&b"\x02ab"[..], 3),
            (b"\x00a\xe0\x00\x01", 10),
            (b"\x00a\xe0\x00\x00", 9),
            (b"\x00a\xe0\x00\x00", 11),
            (b"\x00a\xe0", 10),
            (b"\x00a\x20", 4),
            (b"\x02abc", 2),
        ] {
            assert_eq!(plain(from, len), None, "{from:?}");
        }
        assert!(!is_plausible(3, 265) && is_plausible(3, 264) && !is_plausible(3, 0));
    }
}
