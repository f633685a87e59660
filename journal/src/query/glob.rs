//! Globs as Redis has them: `stringmatchlen` of its `util.c`, on bytes, over the whole key.

use std::fmt::Write as _;

/// With what all keys begin that the glob matches; `true` = it is the only one.
pub(super) fn literal(glob: &[u8]) -> (Vec<u8>, bool) {
    let mut key = Vec::with_capacity(glob.len());
    let mut bytes = glob.iter().copied();
    while let Some(byte) = bytes.next() {
        match byte {
            b'*' | b'?' | b'[' => return (key, false),
            // At the end it stands for itself.
            b'\\' => key.push(bytes.next().unwrap_or(b'\\')),
            byte => key.push(byte),
        }
    }
    (key, true)
}

/// Translates a glob of Redis into an anchored regular expression over bytes.
pub(super) fn to_regex(glob: &[u8]) -> String {
    let mut out = String::from(r"(?s-u)\A");
    let mut at = 0;
    while at < glob.len() {
        match glob[at] {
            b'*' => {
                while glob.get(at + 1) == Some(&b'*') {
                    at += 1;
                }
                out.push_str(".*");
            }
            b'?' => out.push('.'),
            b'[' => at = push_class(glob, at + 1, &mut out),
            b'\\' if at + 1 < glob.len() => {
                at += 1;
                push_byte(glob[at], &mut out);
            }
            byte => push_byte(byte, &mut out),
        }
        at += 1;
    }
    out.push_str(r"\z");
    out
}

/// Translates the class that begins at `at`; returns the position of its last byte. A class without
/// an end goes to the end of the pattern, a range may stand backwards, as Redis has it.
fn push_class(glob: &[u8], mut at: usize, out: &mut String) -> usize {
    let negated = glob.get(at) == Some(&b'^');
    at += usize::from(negated);
    let mut members = [false; 256];
    loop {
        match glob.get(at) {
            None => {
                at -= 1;
                break;
            }
            Some(b']') => break,
            Some(b'\\') if at + 1 < glob.len() => {
                at += 1;
                members[usize::from(glob[at])] = true;
            }
            Some(&low) if glob.get(at + 1) == Some(&b'-') && at + 2 < glob.len() => {
                let high = glob[at + 2];
                for byte in low.min(high)..=low.max(high) {
                    members[usize::from(byte)] = true;
                }
                at += 2;
            }
            Some(&byte) => members[usize::from(byte)] = true,
        }
        at += 1;
    }
    if members.iter().all(|m| *m == negated) {
        // No byte at all.
        out.push_str("[a&&b]");
        return at;
    }
    out.push('[');
    for byte in 0..=255u8 {
        if members[usize::from(byte)] != negated {
            push_byte(byte, out);
        }
    }
    out.push(']');
    at
}

fn push_byte(byte: u8, out: &mut String) {
    // Writing to a String cannot fail.
    let _ = write!(out, r"\x{byte:02x}");
}

#[cfg(test)]
mod tests {
    use regex::bytes::Regex;

    use super::*;

    fn matches(glob: &[u8], key: &[u8]) -> bool {
        let by_pattern = Regex::new(&to_regex(glob)).expect("a pattern").is_match(key);
        let (beginning, is_only) = literal(glob);
        assert!(!by_pattern || key.starts_with(&beginning), "{glob:?} {key:?}");
        if is_only {
            assert_eq!(beginning == key, by_pattern, "{glob:?} {key:?}");
        }
        by_pattern
    }

    #[test]
    fn globs_match_as_in_redis() {
        for (pattern, yes, no) in [
            ("user:*", &["user:", "user:1", "user:\n"][..], &["user", "xuser:1"][..]),
            ("h?llo", &["hello", "h\nllo"], &["hllo", "heello"]),
            ("h[ae]llo", &["hello", "hallo"], &["hillo"]),
            ("h[^e]llo", &["hallo", "h^llo"], &["hello"]),
            ("h[a-c]llo", &["hallo", "hbllo", "hcllo"], &["hdllo", "h-llo"]),
            ("h[c-a]llo", &["hbllo"], &["hdllo"]),
            (r"h[\]x]", &["h]", "hx"], &["h\\"]),
            (r"\*lit\?", &["*lit?"], &["xlitx", "\\*lit?"]),
            ("a**b", &["ab", "axxb"], &["abc"]),
            ("[abc", &["a", "c"], &["d", "[abc"]),
            ("[]x", &[], &["x", "]x"]),
            ("[^]x", &["ax"], &["x"]),
            ("a\\", &["a\\"], &["a"]),
            ("", &[""], &["a"]),
            ("A", &["A"], &["a"]),
            ("a.c", &["a.c"], &["abc"]),
        ] {
            for key in yes {
                assert!(matches(pattern.as_bytes(), key.as_bytes()), "{pattern} must match {key:?}");
            }
            for key in no {
                assert!(!matches(pattern.as_bytes(), key.as_bytes()), "{pattern} must not match {key:?}");
            }
        }
        assert!(matches(b"?\xff*", b"\xfe\xff\x00"));
        assert!(!matches(b"?", "é".as_bytes()), "a glob's ? is one byte");
    }

    #[test]
    fn a_glob_without_metacharacters_is_a_key() {
        for (glob, key) in [
            ("user:1", Some("user:1")),
            ("a*", None),
            ("a?", None),
            ("[a]", None),
            (r"a\*b", Some("a*b")),
            (r"a\\b", Some(r"a\b")),
            ("a\\", Some("a\\")),
            (r"a\*b*", None),
            ("", Some("")),
            ("]", Some("]")),
        ] {
            let (found, is_only) = literal(glob.as_bytes());
            assert_eq!(is_only.then_some(found), key.map(|k| k.as_bytes().to_vec()), "{glob}");
            if let Some(key) = key {
                assert!(matches(glob.as_bytes(), key.as_bytes()) && !matches(glob.as_bytes(), b"other"), "{glob}");
            }
        }
    }
}
