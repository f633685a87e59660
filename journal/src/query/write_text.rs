//! A filter of writes as one argument: `client=intern,command=HSET`.
//!
//! ```text
//! FILTER = TERM { "," TERM }
//! TERM   = NAME "=" [ "!" ] VALUE | "lsn:" N | "lsn:" A ".." B
//! NAME   = client | user | command | origin | key | db | since | until
//! VALUE  = text up to the next comma | '"' text, with \" and \\ in it, '"'
//! ```
//!
//! Blanks around terms, names and values do not count; inside a value they do. In quotes a comma is a part of the value; any
//! other `\` is one, too, as globs have it.

use std::str::FromStr;

use super::filter::{Filter, FilterError};
use super::name_patterns::NamePatterns;
use super::when::{PointInTime, When};
use super::when_error::WhenError;
use super::writes::{LsnRange, OriginKinds, Since, Until, WriteFilter};
use super::zone::Zone;
use crate::types::{Lsn, Mark, Micros, OriginKind};

/// Terms of one text: a filter is typed, not generated.
const TERMS_MAX: usize = 1024;

/// What can stand in a term.
const ALLOWED: &str = "write NAME=VALUE with client, user, command, origin, key, db, since or until, or lsn:N, lsn:A..B, with commas between: client=intern,command=HSET";

/// A filter as it is asked for, by a text or option by option: patterns that are not compiled, times that are not resolved.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WriteQuery {
    /// Patterns for clients, with or without `!`; see [`NamePatterns`].
    pub clients: Vec<String>,
    /// The same for users.
    pub users: Vec<String>,
    /// The same for commands.
    pub commands: Vec<String>,
    /// Causes.
    pub origins: OriginKinds,
    /// Globs.
    pub keys: Vec<Vec<u8>>,
    /// Keys that are no globs.
    pub exact_keys: Vec<Vec<u8>>,
    /// Globs of keys that are taken off.
    pub excluded_keys: Vec<Vec<u8>>,
    /// Databases.
    pub dbs: Vec<u32>,
    /// From when.
    pub since: Option<When>,
    /// To when.
    pub until: Option<When>,
    /// Ranges of LSNs.
    pub lsns: Vec<LsnRange>,
}

/// Why a text is no filter, or a filter cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum WriteFilterError {
    #[error("{0:?} is no filter: {ALLOWED}")]
    Form(String),
    #[error("there is no filter {0:?}: {ALLOWED}")]
    Name(String),
    #[error("{0}= has no value; {ALLOWED}")]
    NoValue(String),
    #[error(
        "the quote in {0:?} is not closed, or text follows it; inside quotes a quote is written \\\" and a backslash \\\\"
    )]
    Quote(String),
    #[error("{0:?} is no origin: client, expiry, eviction, outside or unknown, with ! in front for all but these")]
    Origin(String),
    #[error("{0:?} is no database: a number")]
    Database(String),
    #[error("{0:?} are no LSNs: write lsn:18546, or lsn:18546..18600 from the first to the last, both included")]
    Lsn(String),
    #[error("{0}= was given twice; a write has one time: use one")]
    Twice(&'static str),
    #[error("{0}= takes no !")]
    Negated(&'static str),
    #[error("a filter has at most {TERMS_MAX} terms")]
    TooMany,
    #[error(transparent)]
    When(#[from] WhenError),
    #[error("there is no mark {0:?}; `redtape journal ls` lists them")]
    Mark(String),
    #[error("since= is later than until=: no write is meant")]
    Backwards,
    #[error("the patterns of a filter are too large together: use fewer, or shorter ones")]
    Pattern(#[from] FilterError),
}

impl FromStr for WriteQuery {
    type Err = WriteFilterError;

    fn from_str(text: &str) -> Result<Self, WriteFilterError> {
        let mut query = Self::default();
        let mut rest = text;
        for _ in 0..TERMS_MAX {
            let Some(behind) = query.term(rest)? else { return Ok(query) };
            rest = behind;
        }
        Err(WriteFilterError::TooMany)
    }
}

impl WriteQuery {
    /// Reads the first term; what stands behind its comma, if there is one.
    fn term<'a>(&mut self, text: &'a str) -> Result<Option<&'a str>, WriteFilterError> {
        let (front, behind) = text.split_once(',').map_or((text, None), |(front, behind)| (front, Some(behind)));
        if let Some(lsns) = front.trim().strip_prefix("lsn:") {
            self.lsns.push(lsns.parse()?);
            return Ok(behind);
        }
        let (name, _) = front.split_once('=').ok_or_else(|| WriteFilterError::Form(front.trim().to_owned()))?;
        let value = &text[name.len() + 1..];
        let (negated, value) = match value.trim_start().strip_prefix('!') {
            Some(value) => (true, value),
            None => (false, value),
        };
        let (value, behind) = read_value(value)?;
        let name = name.trim();
        if value.is_empty() {
            return Err(WriteFilterError::NoValue(name.to_owned()));
        }
        self.add(name, negated, value)?;
        Ok(behind)
    }

    fn add(&mut self, name: &str, negated: bool, value: String) -> Result<(), WriteFilterError> {
        // In quotes, a ! is a part of the name.
        let pattern = |value: String| match (negated, value.starts_with('!')) {
            (false, false) => value,
            (false, true) => format!("\\{value}"),
            (true, _) => format!("!{value}"),
        };
        let positive = |name| if negated { Err(WriteFilterError::Negated(name)) } else { Ok(()) };
        match name {
            "client" => self.clients.push(pattern(value)),
            "user" => self.users.push(pattern(value)),
            "command" => self.commands.push(pattern(value)),
            "origin" => {
                self.origins.add(negated, &value)?;
            }
            "key" => if negated { &mut self.excluded_keys } else { &mut self.keys }.push(value.into_bytes()),
            "db" => {
                positive("db")?;
                self.dbs.push(value.parse().map_err(|_| WriteFilterError::Database(value))?);
            }
            "since" => {
                positive("since")?;
                once(&mut self.since, value.parse()?).map_err(|()| WriteFilterError::Twice("since"))?;
            }
            "until" => {
                positive("until")?;
                once(&mut self.until, value.parse()?).map_err(|()| WriteFilterError::Twice("until"))?;
            }
            other => return Err(WriteFilterError::Name(other.to_owned())),
        }
        Ok(())
    }

    /// Compiles the patterns, and resolves the times: "ago" counts from `now`, times without an offset are of `zone`.
    pub fn resolve(&self, now: Micros, zone: &Zone, marks: &[Mark]) -> Result<WriteFilter, WriteFilterError> {
        let mark = |name: String| {
            let found = marks.iter().rev().find(|mark| mark.name == name).map(|mark| mark.lsn);
            found.ok_or(WriteFilterError::Mark(name))
        };
        let since = match self.since.as_ref().map(|when| when.resolve(now, zone)).transpose()? {
            None => None,
            Some(PointInTime::At(ts)) => Some(Since::Time(ts)),
            Some(PointInTime::Lsn(lsn)) => Some(Since::After(Lsn(lsn.0.saturating_sub(1)))),
            Some(PointInTime::Mark(name)) => Some(Since::After(mark(name)?)),
            // Nothing comes after the end.
            Some(PointInTime::Latest) => Some(Since::After(Lsn(u64::MAX))),
        };
        let until = match self.until.as_ref().map(|when| when.resolve(now, zone)).transpose()? {
            None | Some(PointInTime::Latest) => None,
            Some(PointInTime::At(ts)) => Some(Until::Time(ts)),
            Some(PointInTime::Lsn(lsn)) => Some(Until::Upto(lsn)),
            Some(PointInTime::Mark(name)) => Some(Until::Upto(mark(name)?)),
        };
        let backwards = match (since, until) {
            (Some(Since::Time(since)), Some(Until::Time(until))) => since > until,
            (Some(Since::After(after)), Some(Until::Upto(upto))) => after >= upto,
            _ => false,
        };
        if backwards {
            return Err(WriteFilterError::Backwards);
        }
        let excluded = (!self.excluded_keys.is_empty()).then(|| Filter::new(&self.excluded_keys, &[], &[]));
        Ok(WriteFilter {
            clients: NamePatterns::new(&self.clients)?,
            users: NamePatterns::new(&self.users)?,
            commands: NamePatterns::ignoring_case(&self.commands)?,
            origins: self.origins.clone(),
            since,
            until,
            lsns: self.lsns.clone(),
            keys: Filter::new(&self.keys, &[], &self.dbs)?.and_exact_keys(self.exact_keys.iter().cloned()),
            excluded_keys: excluded.transpose()?,
        })
    }
}

/// Sets what is not set yet.
fn once<T>(place: &mut Option<T>, value: T) -> Result<(), ()> {
    if place.replace(value).is_some() { Err(()) } else { Ok(()) }
}

/// A value, and what stands behind its comma.
fn read_value(text: &str) -> Result<(String, Option<&str>), WriteFilterError> {
    let Some(quoted) = text.trim_start().strip_prefix('"') else {
        let (value, behind) = text.split_once(',').map_or((text, None), |(value, behind)| (value, Some(behind)));
        return Ok((value.trim().to_owned(), behind));
    };
    let wrong = || WriteFilterError::Quote(text.to_owned());
    let mut value = String::new();
    let mut rest = quoted.char_indices();
    loop {
        match rest.next().ok_or_else(wrong)? {
            (at, '"') => {
                let behind = quoted[at + 1..].trim_start();
                return match behind.strip_prefix(',') {
                    Some(behind) => Ok((value, Some(behind))),
                    None if behind.is_empty() => Ok((value, None)),
                    None => Err(wrong()),
                };
            }
            (_, '\\') => match rest.next().ok_or_else(wrong)?.1 {
                escaped @ ('"' | '\\') => value.push(escaped),
                other => value.extend(['\\', other]),
            },
            (_, other) => value.push(other),
        }
    }
}

impl OriginKinds {
    /// Of patterns: globs in any case, with `!` in front for what is not meant. Each means one of the causes at least.
    pub fn of_patterns<S: AsRef<str>>(patterns: &[S]) -> Result<Self, WriteFilterError> {
        let mut kinds = Self::default();
        for pattern in patterns.iter().map(AsRef::as_ref) {
            match pattern.strip_prefix('!') {
                Some(pattern) => kinds.add(true, pattern)?,
                None => kinds.add(false, pattern)?,
            }
        }
        Ok(kinds)
    }

    fn add(&mut self, negated: bool, pattern: &str) -> Result<(), WriteFilterError> {
        let globs = Filter::new(&[pattern.to_ascii_lowercase()], &[], &[])?;
        let is_meant = |kind: &OriginKind| globs.wants(0, kind.name().as_bytes());
        let kinds: Vec<OriginKind> = OriginKind::ALL.into_iter().filter(is_meant).collect();
        if kinds.is_empty() {
            return Err(WriteFilterError::Origin(pattern.to_owned()));
        }
        if negated { &mut self.unwanted } else { &mut self.wanted }.extend(kinds);
        Ok(())
    }
}

impl FromStr for LsnRange {
    type Err = WriteFilterError;

    /// `N`, or `A..B`.
    fn from_str(text: &str) -> Result<Self, WriteFilterError> {
        let wrong = || WriteFilterError::Lsn(text.to_owned());
        let number = |text: &str| text.trim().parse().map(Lsn).map_err(|_| wrong());
        let (first, last) = text.split_once("..").unwrap_or((text, text));
        let range = Self { first: number(first)?, last: number(last)? };
        if range.first > range.last { Err(wrong()) } else { Ok(range) }
    }
}

#[cfg(test)]
#[path = "write_text_tests.rs"]
mod tests;
