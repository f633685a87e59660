//! A small server: enough of each command to know what it changes.

use std::collections::{BTreeMap, BTreeSet};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    Str(String),
    List(Vec<String>),
    Set(BTreeSet<String>),
    Hash(BTreeMap<String, String>),
    Sorted(BTreeMap<String, i64>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) value: Value,
    pub(super) until: Option<i64>,
}

pub(super) type Database = BTreeMap<String, Key>;

#[derive(Debug, Clone, Default)]
pub(super) struct Model {
    pub(super) dbs: [Database; 2],
}

/// Its value where it is of the wanted type, or there is none: then a new one; `None` = another type.
macro_rules! of_type {
    ($db:expr, $key:expr, $kind:path) => {{
        let new = || Key { value: $kind(Default::default()), until: None };
        match &mut $db.entry($key.to_string()).or_insert_with(new).value {
            $kind(value) => Some(value),
            _ => None,
        }
    }};
}

impl Value {
    fn is_empty(&self) -> bool {
        match self {
            Self::Str(_) => false,
            Self::List(list) => list.is_empty(),
            Self::Set(set) => set.is_empty(),
            Self::Hash(hash) => hash.is_empty(),
            Self::Sorted(sorted) => sorted.is_empty(),
        }
    }

    /// An element, with its type.
    pub(super) fn element(&self, name: &str) -> Option<String> {
        match self {
            Self::Str(_) | Self::List(_) => None,
            Self::Set(set) => set.contains(name).then(|| "member".to_owned()),
            Self::Hash(hash) => hash.get(name).map(|value| format!("field {value}")),
            Self::Sorted(sorted) => sorted.get(name).map(|score| format!("score {score}")),
        }
    }
}

impl Model {
    /// Runs a command; whether it stands in the stream.
    pub(super) fn run(&mut self, db: usize, line: &str) -> bool {
        let words: Vec<&str> = line.split(' ').collect();
        let ran = self.command(db, &words);
        // What is empty is no key.
        self.dbs.iter_mut().for_each(|db| db.retain(|_, key| !key.value.is_empty()));
        ran
    }

    fn command(&mut self, db: usize, words: &[&str]) -> bool {
        match words {
            ["FLUSHALL"] => {
                self.dbs = Default::default();
                true
            }
            ["FLUSHDB"] => {
                self.dbs[db].clear();
                true
            }
            ["SWAPDB", "0", "1"] => {
                self.dbs.swap(0, 1);
                true
            }
            ["MOVE", key, _] => match (self.dbs[db].get(*key), self.dbs[1 - db].contains_key(*key)) {
                (Some(_), false) => {
                    let moved = self.dbs[db].remove(*key);
                    self.dbs[1 - db].extend(moved.map(|moved| ((*key).to_owned(), moved)));
                    true
                }
                _ => false,
            },
            _ => within(&mut self.dbs[db], words),
        }
    }
}

fn within(db: &mut Database, words: &[&str]) -> bool {
    match words {
        ["SET", key, value, options @ ..] => {
            let kept = db.get(*key).and_then(|key| key.until);
            let until = match options {
                ["KEEPTTL"] => kept,
                ["PXAT", until] => until.parse().ok(),
                _ => None,
            };
            db.insert((*key).to_owned(), Key { value: Value::Str((*value).to_owned()), until });
            true
        }
        ["DEL", keys @ ..] => keys.iter().filter(|key| db.remove(**key).is_some()).count() > 0,
        ["PEXPIREAT", key, until] => {
            let Some(found) = db.get_mut(*key) else { return false };
            found.until = until.parse().ok();
            true
        }
        ["PERSIST", key] => db.get_mut(*key).is_some_and(|key| key.until.take().is_some()),
        ["RENAME", from, to] if from != to => {
            let moved = db.remove(*from);
            let there = moved.is_some();
            db.extend(moved.map(|moved| ((*to).to_owned(), moved)));
            there
        }
        ["COPY", from, to, "REPLACE"] if from != to => {
            let copied = db.get(*from).cloned();
            let there = copied.is_some();
            db.extend(copied.map(|copied| ((*to).to_owned(), copied)));
            there
        }
        ["LPUSH", key, element] => of_type!(db, key, Value::List).is_some_and(|list| {
            list.insert(0, (*element).to_owned());
            true
        }),
        ["LPOP", key] => of_type!(db, key, Value::List).is_some_and(|list| {
            let there = !list.is_empty();
            list.drain(..usize::from(there));
            there
        }),
        _ => elements(db, words),
    }
}

fn elements(db: &mut Database, words: &[&str]) -> bool {
    match words {
        ["HSET", key, pairs @ ..] => of_type!(db, key, Value::Hash).is_some_and(|hash| {
            pairs.chunks(2).for_each(|pair| drop(hash.insert(pair[0].to_owned(), pair[1].to_owned())));
            true
        }),
        ["HDEL", key, fields @ ..] => of_type!(db, key, Value::Hash)
            .is_some_and(|hash| fields.iter().filter(|field| hash.remove(**field).is_some()).count() > 0),
        ["HINCRBY", key, field, "1"] => of_type!(db, key, Value::Hash).is_some_and(|hash| {
            let value = hash.get(*field).map_or(Ok(0), |value| value.parse::<i64>());
            value.is_ok_and(|value| hash.insert((*field).to_owned(), (value + 1).to_string()).is_none_or(|_| true))
        }),
        ["SADD", key, members @ ..] => of_type!(db, key, Value::Set)
            .is_some_and(|set| members.iter().filter(|member| set.insert((**member).to_owned())).count() > 0),
        ["SREM", key, members @ ..] => of_type!(db, key, Value::Set)
            .is_some_and(|set| members.iter().filter(|member| set.remove(**member)).count() > 0),
        ["SMOVE", from, to, member] if from != to => {
            let of_set = |db: &Database, key: &str| db.get(key).is_none_or(|key| matches!(key.value, Value::Set(_)));
            if !of_set(db, to) || !of_type!(db, from, Value::Set).is_some_and(|set| set.remove(*member)) {
                return false;
            }
            let Some(set) = of_type!(db, to, Value::Set) else { return false };
            set.insert((*member).to_owned());
            true
        }
        ["SUNIONSTORE", to, a, b] => {
            let mut union = BTreeSet::new();
            for key in [a, b] {
                match db.get(*key).map(|key| &key.value) {
                    None => {}
                    Some(Value::Set(set)) => union.extend(set.iter().cloned()),
                    Some(_) => return false,
                }
            }
            let removed = db.remove(*to).is_some();
            let stored = !union.is_empty();
            db.insert((*to).to_owned(), Key { value: Value::Set(union), until: None });
            removed || stored
        }
        ["ZADD", key, pairs @ ..] => of_type!(db, key, Value::Sorted).is_some_and(|sorted| {
            let score = |pair: &[&str]| pair[0].parse::<i64>().unwrap_or(0);
            let changed = |pair: &&[&str]| sorted.insert(pair[1].to_owned(), score(pair)) != Some(score(pair));
            pairs.chunks(2).filter(changed).count() > 0
        }),
        ["ZREM", key, members @ ..] => of_type!(db, key, Value::Sorted)
            .is_some_and(|sorted| members.iter().filter(|member| sorted.remove(**member).is_some()).count() > 0),
        ["ZREMRANGEBYSCORE", key, min, max] => of_type!(db, key, Value::Sorted).is_some_and(|sorted| {
            let range = min.parse::<i64>().unwrap_or(0)..=max.parse::<i64>().unwrap_or(0);
            let before = sorted.len();
            sorted.retain(|_, score| !range.contains(score));
            sorted.len() < before
        }),
        _ => false,
    }
}
