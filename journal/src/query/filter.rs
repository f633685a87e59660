//! Which keys and databases are wanted.
//!
//! Several patterns of a kind are alternatives; `--key`, `--exact-key` and `--key-regex` are one kind. A key is
//! wanted when its database *and* its name are. Globs follow `stringmatchlen` of Redis's `util.c`,
//! on bytes, and match the whole key; a regular expression matches anywhere in it. Exact keys, and globs that match one key
//! only, are looked up in a hash set: however many there are, a key costs one look.
//!
//! It stands in the journal, with its dependency on `regex`, as whatever reads a journal asks for keys in this way: the
//! log, a restore, and what else chooses a part of the history.

use std::collections::{BTreeSet, HashSet};
use std::fmt::Write as _;

use regex::bytes::{RegexSet, RegexSetBuilder};

/// Upper bound of a compiled set of patterns.
const COMPILED_LIMIT_BYTES: usize = 64 << 20;

/// What is wanted; the default is everything.
#[derive(Debug, Clone)]
pub struct Filter {
    exact: HashSet<Vec<u8>>,
    patterns: Option<RegexSet>,
    /// With what keys begin that the globs among the patterns match; `None` = with anything.
    prefixes: Option<Vec<Vec<u8>>>,
    dbs: BTreeSet<u32>,
}

impl Default for Filter {
    fn default() -> Self {
        Self { exact: HashSet::new(), patterns: None, prefixes: Some(Vec::new()), dbs: BTreeSet::new() }
    }
}

/// A pattern that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("--key-regex cannot be used: {0}")]
pub struct FilterError(String);

impl Filter {
    /// Compiles the patterns.
    pub fn new<G: AsRef<[u8]>>(globs: &[G], regexes: &[String], dbs: &[u32]) -> Result<Self, FilterError> {
        let mut exact = HashSet::new();
        let mut patterns = regexes.to_vec();
        let mut prefixes = regexes.is_empty().then(Vec::new);
        for glob in globs.iter().map(AsRef::as_ref) {
            match literal(glob) {
                (key, true) => drop(exact.insert(key)),
                (prefix, false) => {
                    patterns.push(glob_to_regex(glob));
                    prefixes = prefixes.filter(|_| !prefix.is_empty());
                    if let Some(all) = &mut prefixes {
                        all.push(prefix);
                    }
                }
            }
        }
        let patterns = if patterns.is_empty() {
            None
        } else {
            let set = RegexSetBuilder::new(&patterns).size_limit(COMPILED_LIMIT_BYTES).build();
            Some(set.map_err(|e| FilterError(e.to_string()))?)
        };
        Ok(Self { exact, patterns, prefixes, dbs: dbs.iter().copied().collect() })
    }

    /// Wants these keys as well.
    #[must_use]
    pub fn and_exact_keys(mut self, keys: impl IntoIterator<Item = Vec<u8>>) -> Self {
        self.exact.extend(keys);
        self
    }

    /// Wants everything.
    pub fn is_everything(&self) -> bool {
        !self.has_key_patterns() && self.dbs.is_empty()
    }

    /// Looks at names of keys.
    pub fn has_key_patterns(&self) -> bool {
        self.patterns.is_some() || !self.exact.is_empty()
    }

    /// All keys that are wanted, in the order of their bytes; `None` where they cannot be listed, as a pattern may match any
    /// number of them, or everything is wanted.
    pub fn exact_keys(&self) -> Option<Vec<&[u8]>> {
        if self.patterns.is_some() || self.exact.is_empty() {
            return None;
        }
        let mut keys: Vec<&[u8]> = self.exact.iter().map(Vec::as_slice).collect();
        keys.sort_unstable();
        Some(keys)
    }

    /// Beginnings of which each wanted key has one, in the order of their bytes, none of them the beginning of another; `None`
    /// where a wanted key may begin with anything. An exact key is its own.
    pub fn prefixes(&self) -> Option<Vec<&[u8]>> {
        let globs = self.prefixes.as_ref().filter(|_| self.has_key_patterns())?;
        let mut all: Vec<&[u8]> = globs.iter().chain(&self.exact).map(Vec::as_slice).collect();
        all.sort_unstable();
        let mut prefixes: Vec<&[u8]> = Vec::with_capacity(all.len());
        for prefix in all {
            // Keys that begin alike stand side by side.
            if prefixes.last().is_none_or(|last| !prefix.starts_with(last)) {
                prefixes.push(prefix);
            }
        }
        // The key without a name begins every other one.
        (!prefixes.iter().any(|prefix| prefix.is_empty())).then_some(prefixes)
    }

    /// The databases of which keys are wanted; empty = all.
    pub fn databases(&self) -> &BTreeSet<u32> {
        &self.dbs
    }

    /// What is wanted, as a text that is the same for the same patterns in any order.
    pub fn canonical(&self) -> String {
        let mut exact: Vec<&Vec<u8>> = self.exact.iter().collect();
        exact.sort_unstable();
        let mut patterns: Vec<&String> = self.patterns.iter().flat_map(RegexSet::patterns).collect();
        patterns.sort_unstable();
        format!("{exact:?} {patterns:?} {:?}", self.dbs)
    }

    /// Wants keys of this database.
    pub fn wants_db(&self, db: u32) -> bool {
        self.dbs.is_empty() || self.dbs.contains(&db)
    }

    /// Wants this key, in a database that it wants.
    pub fn wants_key(&self, key: &[u8]) -> bool {
        !self.has_key_patterns()
            || self.exact.contains(key)
            || self.patterns.as_ref().is_some_and(|set| set.is_match(key))
    }
}

/// With what all keys begin that the glob matches; `true` = it is the only one.
fn literal(glob: &[u8]) -> (Vec<u8>, bool) {
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
                let filter = Filter::new(&[glob], &[], &[]).expect("a glob");
                assert!(filter.wants_key(key.as_bytes()) && !filter.wants_key(b"other"), "{glob}");
                assert_eq!(filter.exact_keys(), Some(vec![key.as_bytes()]), "{glob}");
                // As a regular expression it would be the same.
                let pattern = glob_to_regex(glob.as_bytes());
                let same = Filter::new::<&str>(&[], &[pattern], &[]).expect("a pattern");
                assert!(same.wants_key(key.as_bytes()) && !same.wants_key(b"other"), "{glob}");
            }
        }
    }

    #[test]
    fn exact_keys_are_bytes_and_can_be_listed() {
        let exact = [b"*".to_vec(), b"\xff\x00k".to_vec()];
        let filter = Filter::default().and_exact_keys(exact.clone());
        assert!(filter.wants_key(b"*") && filter.wants_key(b"\xff\x00k") && !filter.wants_key(b"a"));
        assert!(filter.has_key_patterns() && !filter.is_everything());
        assert_eq!(filter.exact_keys(), Some(vec![&b"*"[..], b"\xff\x00k"]));
        let with_glob = Filter::new(&["user:1", "a"], &[], &[7]).expect("globs").and_exact_keys(exact.clone());
        assert_eq!(with_glob.exact_keys(), Some(vec![&b"*"[..], b"a", b"user:1", b"\xff\x00k"]));
        assert_eq!(with_glob.databases(), &BTreeSet::from([7]));
        for (globs, regexes) in [(&["a*"][..], &[][..]), (&[], &["^a$".to_owned()])] {
            let filter = Filter::new(globs, regexes, &[]).expect("patterns").and_exact_keys(exact.clone());
            assert_eq!(filter.exact_keys(), None, "{globs:?} {regexes:?}");
            assert!(filter.wants_key(b"a") && filter.wants_key(b"*") && !filter.wants_key(b"b"));
        }
        assert_eq!((Filter::default().exact_keys(), Filter::default().databases().len()), (None, 0));
    }

    #[test]
    fn each_wanted_key_begins_with_a_prefix() {
        let of = |globs: &[&str], regexes: &[&str], exact: &[&str]| {
            let regexes: Vec<String> = regexes.iter().map(|&r| r.to_owned()).collect();
            let filter = Filter::new(globs, &regexes, &[]).expect("patterns");
            let filter = filter.and_exact_keys(exact.iter().map(|key| key.as_bytes().to_vec()));
            filter.prefixes().map(|all| all.into_iter().map(|p| String::from_utf8_lossy(p).into_owned()).collect())
        };
        let some = |prefixes: &[&str]| Some(prefixes.iter().map(|&p| p.to_owned()).collect::<Vec<_>>());
        assert_eq!(of(&["user:1*"], &[], &[]), some(&["user:1"]));
        assert_eq!(of(&["b?", "a[12]*", r"c\*d*e"], &[], &["x"]), some(&["a", "b", "c*d", "x"]));
        // One covers another, whichever kind it is.
        assert_eq!(of(&["user:*", "user:1*", "user:", "us*"], &[], &["user:7", "u"]), some(&["u"]));
        assert_eq!(of(&["ab*"], &[], &["a-b", "abc"]), some(&["a-b", "ab"]));
        assert_eq!(of(&["a", "b"], &[], &[]), some(&["a", "b"]));
        for (globs, regexes, exact) in [
            (&["*"][..], &[][..], &[][..]),
            (&["a*", "?b"], &[], &[]),
            (&["a*"], &["^a"], &[]),
            (&[], &["^a"], &["a"]),
            (&["a*"], &[], &[""]),
            (&[], &[], &[]),
        ] {
            assert_eq!(of(globs, regexes, exact), None, "{globs:?} {regexes:?} {exact:?}");
        }
        assert_eq!(Filter::default().prefixes(), None);
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
