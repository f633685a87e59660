//! `redtape.toml`: one `name = value` a line, named as the flags.
//!
//! Every group of options is read from the same text; what none of them knows is refused here, with the
//! line and the nearest name.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::de::value::{SeqAccessDeserializer, StrDeserializer};
use serde::de::{DeserializeOwned, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use toml::de::DeTable;

use crate::exit::{Failure, USAGE};

/// Names that differ in more letters are not suggested.
const DISTANCE_MAX: usize = 4;

/// The file as read, or nothing where there is none.
#[derive(Debug, Default)]
pub(crate) struct File {
    path: PathBuf,
    text: String,
    /// Where the value of each key is.
    keys: BTreeMap<String, Range<usize>>,
}

impl File {
    /// Reads one that was named, and refuses keys that are not `known`.
    pub(crate) fn read(path: &Path, known: &[String]) -> Result<Self, Failure> {
        let text = std::fs::read_to_string(path)
            .map_err(|e| Failure::new(USAGE, format!("cannot read --config {}: {e}", path.display())))?;
        Self::parse(path, text, known)
    }

    /// The same of one that nobody has named; `None` = it is not there, or is passed over.
    pub(crate) fn read_default(
        path: &Path,
        known: &[String],
        pass_over: fn(&io::Error) -> bool,
    ) -> Result<Option<Self>, Failure> {
        match std::fs::read_to_string(path) {
            Ok(text) => Self::parse(path, text, known).map(Some),
            Err(e) if e.kind() == io::ErrorKind::NotFound || pass_over(&e) => Ok(None),
            Err(e) => {
                let advice = "make it readable, or name another one with --config (--config /dev/null: none)";
                let message = format!("cannot read {}, where settings are looked for: {e}; {advice}", path.display());
                Err(Failure::new(USAGE, message))
            }
        }
    }

    fn parse(path: &Path, text: String, known: &[String]) -> Result<Self, Failure> {
        let mut file = Self { path: path.to_owned(), text, keys: BTreeMap::new() };
        let table = DeTable::parse(&file.text).map_err(|e| file.refuse(&e))?;
        let mut keys = BTreeMap::new();
        for (key, value) in table.get_ref() {
            let name: &str = key.get_ref();
            if !known.iter().any(|k| k == name) {
                let hint = nearest(name, known).map(|k| format!("; did you mean {k}?")).unwrap_or_default();
                return Err(file.at(key.span().start, &format!("{name}: there is no such option{hint}")));
            }
            keys.insert(name.to_owned(), value.span());
        }
        file.keys = keys;
        Ok(file)
    }

    /// The options of one group.
    pub(crate) fn group<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        toml::from_str(&self.text).map_err(|e| self.refuse(&e))
    }

    /// `FILE:LINE` of a key's value.
    pub(crate) fn place(&self, key: &str) -> Option<String> {
        let span = self.keys.get(key)?;
        Some(format!("{}:{}", self.path.display(), self.line(span.start)))
    }

    fn refuse(&self, error: &toml::de::Error) -> Failure {
        let at = error.span().map_or(0, |s| s.start);
        let key = self.keys.iter().find(|(_, span)| span.contains(&at)).map(|(key, _)| format!("{key}: "));
        self.at(at, &format!("{}{}", key.unwrap_or_default(), without_passwords(error.message())))
    }

    fn at(&self, at: usize, message: &str) -> Failure {
        Failure::new(USAGE, format!("{}:{}: {message}", self.path.display(), self.line(at)))
    }

    fn line(&self, at: usize) -> usize {
        1 + self.text.bytes().take(at).filter(|b| *b == b'\n').count()
    }
}

/// A URL in the wrong place would be quoted with its password.
fn without_passwords(message: &str) -> String {
    let mut out = String::new();
    let mut rest = message;
    while let Some((before, after)) = rest.split_once("://") {
        out += before;
        out += "://";
        rest = match after.rsplit_once('@') {
            Some((_, host)) => {
                out += "***@";
                host
            }
            None => after,
        };
    }
    out + rest
}

/// The known name with the fewest changed letters, if these are few.
fn nearest<'a>(name: &str, known: &'a [String]) -> Option<&'a String> {
    let ranked = known.iter().map(|k| (distance(name, k), k));
    ranked.min().filter(|(d, k)| *d <= DISTANCE_MAX.min(k.len() / 2)).map(|(_, k)| k)
}

/// Levenshtein's.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

/// A list; a single value may stand without brackets.
pub(super) fn one_or_many<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Option<Vec<T>>, D::Error> {
    struct List<T>(PhantomData<T>);
    impl<'de, T: Deserialize<'de>> Visitor<'de> for List<T> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a text, or a list of them")
        }

        fn visit_str<E: serde::de::Error>(self, one: &str) -> Result<Vec<T>, E> {
            T::deserialize(StrDeserializer::new(one)).map(|v| vec![v])
        }

        fn visit_seq<A: SeqAccess<'de>>(self, many: A) -> Result<Vec<T>, A::Error> {
            Vec::deserialize(SeqAccessDeserializer::new(many))
        }
    }
    from.deserialize_any(List(PhantomData)).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default, Deserialize)]
    #[serde(rename_all = "kebab-case")]
    struct Group {
        max_size: Option<u16>,
        #[serde(default, deserialize_with = "one_or_many")]
        names: Option<Vec<String>>,
    }

    fn parse(text: &str) -> Result<Group, String> {
        let known = ["max-size", "names", "other"].map(str::to_owned);
        let file = File::parse(Path::new("r.toml"), text.to_owned(), &known).map_err(|e| e.to_string())?;
        file.group().map_err(|e| e.to_string())
    }

    #[test]
    fn refusals_name_file_line_and_key() {
        let unknown = parse("# a comment\nmax-size = 1\nmax-sise = 2\n").expect_err("unknown");
        assert_eq!(unknown, "r.toml:3: max-sise: there is no such option; did you mean max-size?");
        let far = parse("something-else = 2\n").expect_err("unknown");
        assert_eq!(far, "r.toml:1: something-else: there is no such option");
        let kind = parse("\nmax-size = \"redis://u:hunter2@h:1\"\n").expect_err("kind");
        assert!(kind.starts_with("r.toml:2: max-size: ") && !kind.contains("hunter2"), "{kind}");
        assert!(parse("max-size = 70000").expect_err("range").starts_with("r.toml:1: max-size: "));
        assert!(parse("max-size = 1\nmax-size = 2").expect_err("twice").starts_with("r.toml:2: "));
        assert!(parse("names = [\n\"a\",\n1]").expect_err("element").contains("names: "));
        assert!(parse("what is this").expect_err("syntax").starts_with("r.toml:1: "));
    }

    #[test]
    fn a_list_of_one_needs_no_brackets() {
        assert_eq!(parse("names = 'a'").expect("one").names, Some(vec!["a".to_owned()]));
        assert_eq!(parse("names = ['a', 'b']").expect("two").names.map(|n| n.len()), Some(2));
        assert_eq!(parse("max-size = 7").expect("none").max_size, Some(7));
    }
}
