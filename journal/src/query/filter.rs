//! Which keys and databases are wanted.
//!
//! Several patterns of a kind are alternatives; `--key` and `--key-regex` are one kind. A key is
//! wanted when its database *and* its name are. Globs follow `stringmatchlen` of Redis's `util.c`,
//! on bytes, and match the whole key; a regular expression matches anywhere in it.
//!
//! It stands in the journal, with its dependency on `regex`, as whatever reads a journal asks for keys in this way: the
//! log, a restore, and what else chooses a part of the history.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use regex::bytes::{RegexSet, RegexSetBuilder};

/// Upper bound of a compiled set of patterns.
const COMPILED_LIMIT_BYTES: usize = 64 << 20;

/// What is wanted; the default is everything.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    keys: Option<RegexSet>,
    /// The keys that can match, if they can be named.
    exact: Option<BTreeSet<Vec<u8>>>,
    dbs: BTreeSet<u32>,
}

/// A pattern that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("--key-regex cannot be used: {0}")]
pub struct FilterError(String);

impl Filter {
    /// Compiles the patterns.
    pub fn new<G: AsRef<[u8]>>(globs: &[G], regexes: &[String], dbs: &[u32]) -> Result<Self, FilterError> {
        let patterns: Vec<String> =
            globs.iter().map(|g| glob_to_regex(g.as_ref())).chain(regexes.iter().cloned()).collect();
        let keys = if patterns.is_empty() {
            None
        } else {
            let set = RegexSetBuilder::new(&patterns).size_limit(COMPILED_LIMIT_BYTES).build();
            Some(set.map_err(|e| FilterError(e.to_string()))?)
        };
        let named = keys.is_some() && regexes.is_empty();
        let exact = if named { globs.iter().map(|glob| literal(glob.as_ref())).collect() } else { None };
        Ok(Self { keys, exact, dbs: dbs.iter().copied().collect() })
    }

    /// Wants everything.
    pub fn is_everything(&self) -> bool {
        self.keys.is_none() && self.dbs.is_empty()
    }

    /// Looks at names of keys.
    pub fn has_key_patterns(&self) -> bool {
        self.keys.is_some()
    }

    /// The keys that can be wanted, where they can be named: exact keys, and globs without a wildcard.
    pub fn exact_keys(&self) -> Option<&BTreeSet<Vec<u8>>> {
        self.exact.as_ref()
    }

    /// The databases of which keys are wanted; empty = all.
    pub fn databases(&self) -> &BTreeSet<u32> {
        &self.dbs
    }

    /// Wants keys of this database.
    pub fn wants_db(&self, db: u32) -> bool {
        self.dbs.is_empty() || self.dbs.contains(&db)
    }

    /// Wants this key, in a database that it wants.
    pub fn wants_key(&self, key: &[u8]) -> bool {
        self.keys.as_ref().is_none_or(|set| set.is_match(key))
    }
}

/// The only key that a glob matches, if there is but one.
pub fn literal(glob: &[u8]) -> Option<Vec<u8>> {
    let mut key = Vec::with_capacity(glob.len());
    let mut bytes = glob.iter().copied();
    while let Some(byte) = bytes.next() {
        match byte {
            b'*' | b'?' | b'[' => return None,
            // At the end it stands for itself.
            b'\\' => key.push(bytes.next().unwrap_or(b'\\')),
            byte => key.push(byte),
        }
    }
    Some(key)
}

/// Translates a glob of Redis into an anchored regular expression over bytes.
fn glob_to_regex(glob: &[u8]) -> String {
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
    use super::*;

    fn glob(pattern: &[u8], key: &[u8]) -> bool {
        Filter::new(&[pattern], &[], &[]).expect("pattern").wants_key(key)
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
                assert!(glob(pattern.as_bytes(), key.as_bytes()), "{pattern} must match {key:?}");
            }
            for key in no {
                assert!(!glob(pattern.as_bytes(), key.as_bytes()), "{pattern} must not match {key:?}");
            }
        }
        assert!(glob(b"?\xff*", b"\xfe\xff\x00"));
        assert!(!glob(b"?", "é".as_bytes()), "a glob's ? is one byte");
    }

    #[test]
    fn keys_can_be_named_or_not() {
        let exact = |globs: &[&str], regexes: &[String]| {
            let filter = Filter::new(globs, regexes, &[4]).expect("filter");
            assert!(filter.databases().iter().eq(&[4]));
            filter
                .exact_keys()
                .map(|keys| keys.iter().map(|k| String::from_utf8_lossy(k).into_owned()).collect::<Vec<_>>())
        };
        assert_eq!(exact(&["b", "a", "b"], &[]), Some(vec!["a".to_owned(), "b".to_owned()]));
        assert_eq!(exact(&[r"a\*b\", r"\["], &[]), Some(vec!["[".to_owned(), r"a*b\".to_owned()]));
        assert_eq!(exact(&["a", "b*"], &[]), None);
        assert_eq!(exact(&["a"], &["^b$".to_owned()]), None);
        assert_eq!(exact(&[], &[]), None);
        assert_eq!(Filter::default().exact_keys(), None);
    }

    #[test]
    fn kinds_combine() {
        let f = Filter::new(&["a*"], &["z$".to_owned()], &[1, 3]).expect("filter");
        assert!(f.wants_key(b"abc") && f.wants_key(b"xyz") && !f.wants_key(b"xyy"));
        assert!(f.wants_db(1) && !f.wants_db(0));
        assert!(!f.is_everything() && f.has_key_patterns());
        let all = Filter::default();
        assert!(all.is_everything() && all.wants_db(9) && all.wants_key(b"\xff"));
        let dbs = Filter::new::<&str>(&[], &[], &[2]).expect("filter");
        assert!(!dbs.is_everything() && !dbs.has_key_patterns() && dbs.wants_key(b"any"));
        assert!(Filter::new::<&str>(&[], &["(".to_owned()], &[]).is_err());
    }
}
