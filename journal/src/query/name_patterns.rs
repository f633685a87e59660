//! Names of clients, users and commands, as they are asked for.
//!
//! | pattern | wants |
//! | --- | --- |
//! | `billing` | this name |
//! | `bill*`, `?`, `[ab]` | names that the glob matches, as in Redis's `KEYS` |
//! | `[::1]`, `[::1]:6379`, `[::1]:5*` | this address: brackets around anything else are a class |
//! | `!PATTERN` | all but these; a `\` takes the meaning from a `!` |
//!
//! Several are alternatives; those with a `!` are taken off last, and alone they leave all the others.

use std::net::Ipv6Addr;

use super::filter::{Filter, FilterError};

/// Patterns for names; none = all names.
#[derive(Debug, Clone, Default)]
pub struct NamePatterns {
    wanted: Option<Filter>,
    unwanted: Option<Filter>,
    ignore_case: bool,
}

/// `None` = there is no pattern.
fn globs(patterns: &[String]) -> Result<Option<Filter>, FilterError> {
    if patterns.is_empty() {
        return Ok(None);
    }
    let globs: Vec<String> = patterns.iter().map(|pattern| with_literal_address(pattern)).collect();
    Ok(Some(Filter::new(&globs, &[], &[])?))
}

/// `[::1]` in front of a pattern, perhaps with a zone (`[fe80::1%eth0]`), is an address: its brackets stand for themselves.
fn with_literal_address(pattern: &str) -> String {
    let parts = pattern.strip_prefix('[').and_then(|rest| rest.split_once(']'));
    match parts.map(|(address, rest)| (address, address.split('%').next().unwrap_or_default(), rest)) {
        Some((address, ip, rest)) if ip.parse::<Ipv6Addr>().is_ok() => format!("\\[{address}\\]{rest}"),
        _ => pattern.to_owned(),
    }
}

impl NamePatterns {
    /// Compiles the patterns.
    pub fn new<S: AsRef<str>>(patterns: &[S]) -> Result<Self, FilterError> {
        Self::compile(patterns, false)
    }

    /// The same for names of which the case does not matter.
    pub fn ignoring_case<S: AsRef<str>>(patterns: &[S]) -> Result<Self, FilterError> {
        Self::compile(patterns, true)
    }

    fn compile<S: AsRef<str>>(patterns: &[S], ignore_case: bool) -> Result<Self, FilterError> {
        let (mut wanted, mut unwanted) = (Vec::new(), Vec::new());
        for pattern in patterns.iter().map(AsRef::as_ref) {
            let pattern = if ignore_case { pattern.to_ascii_lowercase() } else { pattern.to_owned() };
            match pattern.strip_prefix('!') {
                Some(pattern) => unwanted.push(pattern.to_owned()),
                None => wanted.push(pattern),
            }
        }
        Ok(Self { wanted: globs(&wanted)?, unwanted: globs(&unwanted)?, ignore_case })
    }

    /// There is no pattern.
    pub fn is_everything(&self) -> bool {
        self.wanted.is_none() && self.unwanted.is_none()
    }

    /// Some names are taken off.
    pub fn excludes_some(&self) -> bool {
        self.unwanted.is_some()
    }

    /// Whether something that has these names is wanted: one of them is, and none is taken off.
    pub fn wants(&self, names: &[&str]) -> bool {
        self.includes(names) && !self.excludes(names)
    }

    /// One of the names is wanted, or no name is asked for.
    pub fn includes(&self, names: &[&str]) -> bool {
        self.wanted.as_ref().is_none_or(|globs| self.any(globs, names))
    }

    /// One of the names is taken off.
    pub fn excludes(&self, names: &[&str]) -> bool {
        self.unwanted.as_ref().is_some_and(|globs| self.any(globs, names))
    }

    fn any(&self, globs: &Filter, names: &[&str]) -> bool {
        let holds = |name: &str| {
            if self.ignore_case {
                globs.wants(0, name.to_ascii_lowercase().as_bytes())
            } else {
                globs.wants(0, name.as_bytes())
            }
        };
        names.iter().any(|name| holds(name))
    }
}

/// The names of a client of which the address is known: with its port, without, without brackets, and the one that it has
/// given itself. Those that it does not have are left out.
pub fn client_names<'a>(addr: &'a str, name: &'a str) -> impl Iterator<Item = &'a str> {
    let (ip, _port) = addr.rsplit_once(':').unwrap_or((addr, ""));
    let bare = ip.trim_start_matches('[').trim_end_matches(']');
    [addr, ip, bare, name].into_iter().filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_alternatives_and_exclusions_are_last() {
        for (patterns, yes, no) in [
            (&[][..], &["a", ""][..], &[][..]),
            (&["a", "b*"], &["a", "b", "bcd"], &["ab", "A", ""]),
            (&["!a"], &["b", "", "!a"], &["a"]),
            (&["b*", "!bad*"], &["b", "bcd"], &["bad", "bad1", "a"]),
            (&["!b*", "!a"], &["c"], &["bad", "a"]),
            (&[r"\!a"], &["!a"], &["a"]),
            (&["[::1]"], &["[::1]"], &["1", ":", "::1"]),
            (&["[::1]:80"], &["[::1]:80"], &["::80", "1:80"]),
            (&["[::1]:8*"], &["[::1]:80", "[::1]:8"], &["[::1]:90", ":80", "[::1]"]),
            (&["[fe80::1%2]*"], &["[fe80::1%2]:80"], &["[fe80::1]:80", "%"]),
            (&["![::1]*", "*"], &["[::2]:80"], &["[::1]:80", "[::1]"]),
            (&["[ab]"], &["a", "b"], &["[ab]"]),
            (&["![::1]"], &["1"], &["[::1]"]),
            (&[""], &[""], &["a"]),
        ] {
            let compiled = NamePatterns::new(patterns).expect("patterns");
            assert_eq!(compiled.is_everything(), patterns.is_empty());
            for name in yes {
                assert!(compiled.wants(&[name]), "{patterns:?} {name:?}");
            }
            for name in no {
                assert!(!compiled.wants(&[name]), "{patterns:?} {name:?}");
            }
        }
    }

    #[test]
    fn one_of_several_names_is_enough_and_one_that_is_taken_off_too() {
        let patterns = NamePatterns::new(&["a", "!b"]).expect("patterns");
        assert!(patterns.wants(&["a", "c"]) && !patterns.wants(&["a", "b"]) && !patterns.wants(&[]));
        assert!(NamePatterns::new(&["!b"]).expect("a pattern").wants(&[]));
    }

    #[test]
    fn case_matters_or_not() {
        let commands = NamePatterns::ignoring_case(&["FLUSH*", "!flushdb"]).expect("patterns");
        assert!(commands.wants(&["flushall"]) && commands.wants(&["FlushAll"]) && !commands.wants(&["FLUSHDB"]));
        assert!(!NamePatterns::new(&["FLUSH*"]).expect("a pattern").wants(&["flushall"]));
    }

    #[test]
    fn a_client_has_several_names() {
        let names = |addr, name| client_names(addr, name).collect::<Vec<_>>();
        assert_eq!(names("10.0.0.5:51", "billing"), ["10.0.0.5:51", "10.0.0.5", "10.0.0.5", "billing"]);
        assert_eq!(names("[::1]:51", ""), ["[::1]:51", "[::1]", "::1"]);
        assert_eq!(names("", ""), Vec::<&str>::new());
    }
}
