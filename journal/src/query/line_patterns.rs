//! Regular expressions over commands with their arguments.

use regex::bytes::{RegexSet, RegexSetBuilder};

use super::filter::FilterError;

/// Upper bound of a compiled set of patterns.
const COMPILED_LIMIT_BYTES: usize = 64 << 20;

/// Several are alternatives. They look at bytes: `(?-u:\xff)` is one that is not UTF-8.
#[derive(Debug, Clone)]
pub struct LinePatterns(RegexSet);

impl LinePatterns {
    /// Compiles them; `None` = there is none, and every line is meant.
    pub fn new(patterns: &[String]) -> Result<Option<Self>, FilterError> {
        if patterns.is_empty() {
            return Ok(None);
        }
        let set = RegexSetBuilder::new(patterns).size_limit(COMPILED_LIMIT_BYTES).build();
        set.map(|set| Some(Self(set))).map_err(|e| FilterError { option: "--grep", why: e.to_string() })
    }

    /// One of them matches somewhere.
    pub fn is_match(&self, line: &[u8]) -> bool {
        self.0.is_match(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_of_them_matches_any_bytes() {
        let patterns = ["^SET a", r"(?-u:\xff)\x00"].map(str::to_owned);
        let patterns = LinePatterns::new(&patterns).expect("patterns").expect("some");
        assert!(patterns.is_match(b"SET a 1") && patterns.is_match(b"SET b x\xff\x00"));
        assert!(!patterns.is_match(b"MSET a 1") && !patterns.is_match(b"SET b \xff"));
        assert!(LinePatterns::new(&[]).expect("none").is_none());
        let wrong = LinePatterns::new(&["(".to_owned()]).expect_err("no regular expression");
        assert!(wrong.to_string().contains("--grep"), "{wrong}");
    }
}
