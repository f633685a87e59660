//! What servers of a family and version can do, as far as a restore depends on it.
//!
//! Sources: `RDB_VERSION` in `rdb.h` of each release; Valkey 8 refuses RDB versions 12 to 79 as
//! foreign, Valkey 9 writes `VALKEY080`.

use std::fmt;

use redtape_wire::rdb::{Family, RdbVersion};

/// Family and version of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct ServerVersion {
    /// Valkey, else Redis.
    pub valkey: bool,
    /// Major, minor, patch.
    pub number: (u32, u32, u32),
}

impl fmt::Display for ServerVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (major, minor, patch) = self.number;
        write!(f, "{} {major}.{minor}.{patch}", if self.valkey { "Valkey" } else { "Redis" })
    }
}

/// Reads `7.0.15`, `8.0`, `255.255.255`, ignoring what stands behind.
pub fn parse_number(text: &str) -> Option<(u32, u32, u32)> {
    let mut parts = text.split('.').map(|p| {
        let digits: String = p.chars().take_while(char::is_ascii_digit).collect();
        digits.parse::<u32>().ok()
    });
    let major = parts.next()??;
    Some((major, parts.next().flatten().unwrap_or(0), parts.next().flatten().unwrap_or(0)))
}

impl ServerVersion {
    /// Reads the line that `redis-server --version` prints.
    pub fn from_banner(banner: &str) -> Option<Self> {
        let number = banner.split_ascii_whitespace().find_map(|w| parse_number(w.strip_prefix("v=")?))?;
        Some(Self { valkey: banner.to_ascii_lowercase().contains("valkey"), number })
    }

    /// At least this Redis (Valkey descends from 7.2.4 and counts as that).
    pub fn has_redis(&self, major: u32, minor: u32) -> bool {
        let (m, n, _) = if self.valkey { (7, 2, 4) } else { self.number };
        (m, n) >= (major, minor)
    }

    /// Knows TTLs of hash fields, so that its RDBs may hold some.
    pub fn has_field_ttl(&self) -> bool {
        if self.valkey { self.number.0 >= 9 } else { self.number >= (7, 4, 0) }
    }

    /// Version of the RDBs and `DUMP` payloads that it writes; for releases newer than this table, of
    /// the newest release in it.
    pub fn writes(&self) -> RdbVersion {
        let redis = |version| RdbVersion { family: Family::Redis, version };
        match (self.valkey, self.number) {
            (true, n) if n >= (9, 0, 0) => RdbVersion { family: Family::Valkey, version: 80 },
            (true, _) => redis(11),
            (false, n) if n >= (8, 6, 0) => redis(13),
            (false, n) if n >= (7, 4, 0) => redis(12),
            (false, n) if n >= (7, 2, 0) => redis(11),
            (false, n) if n >= (7, 0, 0) => redis(10),
            (false, n) if n >= (5, 0, 0) => redis(9),
            (false, n) if n >= (4, 0, 0) => redis(8),
            (false, _) => redis(7),
        }
    }

    /// Whether it loads such an RDB; `made_by` is the number of the server that made it, if known.
    pub fn loads(&self, rdb: RdbVersion, made_by: Option<(u32, u32, u32)>) -> bool {
        match (self.valkey, rdb.family) {
            (true, Family::Redis) => rdb.version <= 11,
            (true, Family::Valkey) => self.number.0 >= 9,
            (false, Family::Valkey) => false,
            (false, Family::Redis) => {
                // Releases behind the table: what an older one made, they load.
                rdb.version <= self.writes().version || made_by.is_some_and(|m| m <= self.number)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(banner: &str) -> ServerVersion {
        ServerVersion::from_banner(banner).expect(banner)
    }

    #[test]
    fn banners() {
        let redis = server("Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.2.1 bits=64 build=a1");
        assert_eq!((redis.valkey, redis.number), (false, (7, 0, 15)));
        let valkey = server("Valkey server v=8.1.1 sha=00000000:0 malloc=jemalloc-5.3.0");
        assert_eq!(valkey.to_string(), "Valkey 8.1.1");
        assert!(ServerVersion::from_banner("something else").is_none());
        assert_eq!(parse_number("8.2-rc1"), Some((8, 2, 0)));
        assert_eq!(parse_number("x"), None);
    }

    #[test]
    fn who_loads_what() {
        let rdb = |text: &str| redtape_wire::rdb::parse_header(text.as_bytes()).expect(text);
        let made = parse_number;
        for (banner, header, maker, want) in [
            ("Redis v=6.0.16", "REDIS0009", "6.0.16", true),
            ("Redis v=6.0.16", "REDIS0010", "7.0.15", false),
            ("Redis v=7.0.15", "REDIS0009", "6.0.16", true),
            ("Redis v=7.0.15", "REDIS0011", "7.2.0", false),
            ("Redis v=8.0.2", "REDIS0012", "8.0.2", true),
            ("Redis v=8.0.2", "VALKEY080", "9.1.0", false),
            ("Redis v=8.6.0", "REDIS0013", "8.4.0", true),
            ("Redis v=8.0.2", "REDIS0013", "8.4.0", false),
            ("Redis v=8.0.2", "REDIS0013", "", false),
            ("Valkey v=8.1.1", "REDIS0011", "8.1.1", true),
            ("Valkey v=8.1.1", "REDIS0012", "7.4.0", false),
            ("Valkey v=8.1.1", "VALKEY080", "9.0.0", false),
            ("Valkey v=9.1.2", "VALKEY080", "9.0.0", true),
            ("Valkey v=9.1.2", "REDIS0011", "8.0.1", true),
            ("Valkey v=9.1.2", "REDIS0012", "8.0.1", false),
        ] {
            assert_eq!(server(banner).loads(rdb(header), made(maker)), want, "{banner} {header} of {maker}");
        }
        assert!(server("Redis v=7.4.0").has_field_ttl() && !server("Redis v=7.2.9").has_field_ttl());
        assert!(server("Valkey v=9.0.0").has_field_ttl() && !server("Valkey v=8.1.0").has_field_ttl());
        assert!(server("Valkey v=8.0.1").has_redis(7, 0) && !server("Redis v=6.2.0").has_redis(7, 0));
    }
}
