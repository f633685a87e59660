//! Parses a server's `INFO`.

use std::collections::{BTreeMap, HashMap};

/// The fields of an `INFO` reply.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Info(HashMap<String, String>);

impl Info {
    /// Reads `name:value` lines.
    pub fn parse(text: &str) -> Self {
        let fields = text.lines().filter_map(|line| line.split_once(':'));
        Self(fields.map(|(k, v)| (k.to_owned(), v.trim_end().to_owned())).collect())
    }

    /// One field.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// One field as a number.
    pub fn number(&self, name: &str) -> Option<u64> {
        self.get(name)?.parse().ok()
    }

    /// Keys in each database.
    pub fn keyspace(&self) -> BTreeMap<u32, u64> {
        self.in_databases("keys=")
    }

    /// Keys with a TTL in each database.
    pub fn volatile(&self) -> BTreeMap<u32, u64> {
        self.in_databases("expires=")
    }

    fn in_databases(&self, what: &str) -> BTreeMap<u32, u64> {
        let count = |(name, value): (&String, &String)| {
            let db = name.strip_prefix("db")?.parse().ok()?;
            let keys = value.split(',').find_map(|f| f.strip_prefix(what))?.parse().ok()?;
            Some((db, keys))
        };
        self.0.iter().filter_map(count).filter(|(_, keys)| *keys > 0).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn info_fields() {
        let info = Info::parse(
            "# Server\r\nredis_version:7.0.15\r\nmaxmemory:0\r\n# Keyspace\r\ndb0:keys=3,expires=1,avg_ttl=0\r\ndb12:keys=1,expires=0,avg_ttl=0,subexpiry=0\r\n",
        );
        assert_eq!(info.get("redis_version"), Some("7.0.15"));
        assert_eq!(info.number("maxmemory"), Some(0));
        assert_eq!(info.keyspace(), BTreeMap::from([(0, 3), (12, 1)]));
        assert_eq!(info.volatile(), BTreeMap::from([(0, 1)]));
        assert_eq!(info.get("nope"), None);
    }
}
