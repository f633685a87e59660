//! Keys in JSON, taken from a text as it is read: nothing is held but the keys. `keys_file` says what an entry is.

use std::fmt;
use std::io::{self, Read};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as BASE64;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::error::Category;

/// What is expected in the place of what stands there.
const EXPECTED: &str = "a key is a string, or an object with `key` (a string) or `key_base64`, and perhaps `db` (a number), or with `keys`";
const NO_KEY: &str = "it names no key; a write that touches every key (FLUSHALL) names none";
const TWO_KEYS: &str = "it names more than one key";
const NO_BASE64: &str = "`key_base64` is not Base64";
const NO_JSON: &str = "not valid JSON";
const TOO_MANY: &str = "there are too many keys: at most 10 million can be given";

/// Takes keys, up to a limit.
pub(crate) struct Collector<'a> {
    limit: u64,
    found: u64,
    add: &'a mut dyn FnMut(Option<u32>, Vec<u8>),
    /// Why the last entry was refused, if that is more than being not [`EXPECTED`].
    problem: Option<&'static str>,
}

/// Why a text cannot be used.
#[derive(Debug)]
pub(crate) enum Refused {
    Io(io::Error),
    /// Nothing of the text is in `why`.
    Entry {
        line: u64,
        why: String,
    },
}

impl<'a> Collector<'a> {
    pub(crate) fn new(limit: u64, add: &'a mut dyn FnMut(Option<u32>, Vec<u8>)) -> Self {
        Self { limit, found: 0, add, problem: None }
    }

    /// How many were taken, some of them perhaps twice.
    pub(crate) fn found(&self) -> u64 {
        self.found
    }

    /// Takes a key: of this database alone, if one is named.
    pub(crate) fn take(&mut self, db: Option<u32>, key: Vec<u8>) -> Result<(), &'static str> {
        if self.found == self.limit {
            return Err(TOO_MANY);
        }
        self.found += 1;
        (self.add)(db, key);
        Ok(())
    }

    fn refuse<E: Error>(&mut self, why: &'static str) -> E {
        self.problem = Some(why);
        E::custom(why)
    }

    /// Serde's own words may hold something of the text.
    fn refused(&mut self, error: serde_json::Error) -> Refused {
        let line = error.line() as u64;
        match error.classify() {
            Category::Io => Refused::Io(error.into()),
            Category::Syntax | Category::Eof => {
                Refused::Entry { line, why: format!("{NO_JSON} (column {})", error.column()) }
            }
            Category::Data => Refused::Entry { line, why: self.problem.take().unwrap_or(EXPECTED).to_owned() },
        }
    }
}

/// Takes the keys of one entry.
pub(crate) fn entry(text: &[u8], collector: &mut Collector<'_>) -> Result<(), Refused> {
    let mut json = serde_json::Deserializer::from_slice(text);
    let read = Entry(collector).deserialize(&mut json).and_then(|()| json.end());
    read.map_err(|error| collector.refused(error))
}

/// Takes the keys of a list of entries.
pub(crate) fn list(text: impl Read, collector: &mut Collector<'_>) -> Result<(), Refused> {
    let mut json = serde_json::Deserializer::from_reader(text);
    let read = List(collector).deserialize(&mut json).and_then(|_| json.end());
    read.map_err(|error| collector.refused(error))
}

struct Entry<'a, 'b>(&'a mut Collector<'b>);

impl<'de> DeserializeSeed<'de> for Entry<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Entry<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(EXPECTED)
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<(), E> {
        self.0.take(None, key.as_bytes().to_vec()).map_err(|why| self.0.refuse(why))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Self(collector) = self;
        let (mut key, mut db, mut names_keys) = (None::<Vec<u8>>, None::<u32>, false);
        while let Some(name) = map.next_key::<String>()? {
            let text = match &name[..] {
                "db" => {
                    db = map.next_value()?;
                    continue;
                }
                "keys" => {
                    names_keys |= map.next_value_seed(List(collector))?;
                    continue;
                }
                "key" => map.next_value::<Option<String>>()?.map(String::into_bytes),
                "key_base64" => match map.next_value::<Option<String>>()? {
                    Some(text) => Some(BASE64.decode(text).map_err(|_| collector.refuse(NO_BASE64))?),
                    None => None,
                },
                _ => {
                    map.next_value::<IgnoredAny>()?;
                    continue;
                }
            };
            if key.is_some() && text.is_some() {
                return Err(collector.refuse(TWO_KEYS));
            }
            key = key.or(text);
        }
        match key {
            Some(key) => collector.take(db, key).map_err(|why| collector.refuse(why)),
            None if names_keys => Ok(()),
            None => Err(collector.refuse(NO_KEY)),
        }
    }
}

/// Gives whether there is a list; null is none.
struct List<'a, 'b>(&'a mut Collector<'b>);

impl<'de> DeserializeSeed<'de> for List<'_, '_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<bool, D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for List<'_, '_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_unit<E: Error>(self) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<bool, A::Error> {
        while list.next_element_seed(Entry(self.0))?.is_some() {}
        Ok(true)
    }
}
