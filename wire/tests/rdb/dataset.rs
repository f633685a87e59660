//! Random datasets with every type in every encoding that a server can be brought to use.

use crate::server::Conn;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// Settings by their names before and since Redis 7.0; what a server does not know it refuses.
const PACKED: &[(&str, &str)] = &[
    ("hash-max-ziplist-entries", "128"),
    ("hash-max-ziplist-value", "20000"),
    ("zset-max-ziplist-entries", "128"),
    ("zset-max-ziplist-value", "20000"),
    ("set-max-listpack-value", "20000"),
    ("set-max-intset-entries", "512"),
    ("set-max-listpack-entries", "128"),
    ("list-max-ziplist-size", "-2"),
    ("list-compress-depth", "0"),
    ("stream-node-max-entries", "100"),
];
const FULL: &[(&str, &str)] = &[
    ("hash-max-ziplist-entries", "0"),
    ("hash-max-ziplist-value", "0"),
    ("zset-max-ziplist-entries", "0"),
    ("set-max-intset-entries", "0"),
    ("set-max-listpack-entries", "0"),
    ("list-max-ziplist-size", "3"),
    ("list-compress-depth", "1"),
    ("stream-node-max-entries", "3"),
];

/// Whether the server packs small values.
pub(crate) fn set_packed(conn: &mut Conn, packed: bool) {
    for (name, value) in if packed { PACKED } else { FULL } {
        conn.call(&["CONFIG", "SET", name, value]);
    }
}

pub(crate) struct Generator {
    rng: StdRng,
    /// Where TTLs lie: no key expires while a test runs.
    later_ms: i64,
}

impl Generator {
    pub(crate) fn new(seed: u64, now_ms: i64) -> Self {
        Self { rng: StdRng::seed_from_u64(seed), later_ms: now_ms + 3_600_000 }
    }

    /// Fills three databases; `size` keys of each type and way of encoding.
    pub(crate) fn fill(&mut self, conn: &mut Conn, size: usize) {
        // Large elements as nodes of their own (Redis 7.0).
        conn.call(&["DEBUG", "QUICKLIST-PACKED-THRESHOLD", "300b"]);
        for way in ["packed", "full"] {
            set_packed(conn, way == "packed");
            for number in 0..size {
                conn.must(&["SELECT", ["0", "1", "15"][number % 3]]);
                for kind in ["string", "list", "set", "ints", "zset", "hash", "ttl-hash", "stream"] {
                    let key = self.key(&format!("{way}:{kind}:{number}"));
                    self.write(conn, kind, &key);
                    if self.rng.random_bool(0.3) {
                        let at = (self.later_ms + self.rng.random_range(0..1_000_000)).to_string();
                        conn.must(&[&b"PEXPIREAT"[..], &key, at.as_bytes()]);
                    }
                }
                if conn.knows("VADD") {
                    let key = self.key(&format!("{way}:vectors:{number}"));
                    for element in 0..self.rng.random_range(1..10) {
                        let values: Vec<String> = (0..4).map(|_| self.rng.random::<f32>().to_string()).collect();
                        let mut args = vec![b"VADD".to_vec(), key.clone(), b"VALUES".to_vec(), b"4".to_vec()];
                        args.extend(values.into_iter().map(String::into_bytes));
                        args.push(format!("element {element}").into_bytes());
                        conn.must(&args);
                    }
                }
            }
        }
        // Keys that look like numbers, are long enough to be compressed, or hold any bytes.
        conn.must(&["SELECT", "1"]);
        for key in [&b"7"[..], b"-129", b"70000", &b"long ".repeat(200), b"\0\xff\r\n"] {
            conn.must(&[&b"SET"[..], key, b"value"]);
        }
        conn.must(&[&b"SET"[..], b"compressed", &b"ab".repeat(500)]);
    }

    fn key(&mut self, name: &str) -> Vec<u8> {
        if self.rng.random_bool(0.2) { name.repeat(4).into_bytes() } else { name.as_bytes().to_vec() }
    }

    /// Numbers at every border of every encoding, short and long, random and repetitive bytes.
    fn element(&mut self) -> Vec<u8> {
        match self.rng.random_range(0..9) {
            0 => self.rng.random_range(-1..13).to_string().into_bytes(),
            1 | 2 => {
                let bits = [7, 8, 12, 13, 15, 16, 23, 24, 31, 32, 62][self.rng.random_range(0..11)];
                let near = (1i64 << bits) + self.rng.random_range(-2..=2);
                (if self.rng.random_bool(0.5) { near } else { -near }).to_string().into_bytes()
            }
            3 => [&b"-0"[..], b"007", b"9223372036854775807", b"-9223372036854775808", b"9223372036854775808", b""]
                [self.rng.random_range(0..6)]
            .to_vec(),
            4 => {
                let len = [63, 64, 127, 128, 253, 254, 4095, 4096, 17_000][self.rng.random_range(0..9)];
                self.bytes(len)
            }
            5 => {
                let (len, times) = (self.rng.random_range(1..20), self.rng.random_range(2..200));
                self.bytes(len).repeat(times)
            }
            _ => {
                let len = self.rng.random_range(1..24);
                self.bytes(len)
            }
        }
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.rng.random()).collect()
    }

    fn write(&mut self, conn: &mut Conn, kind: &str, key: &[u8]) {
        let count = if self.rng.random_bool(0.2) { 200 } else { self.rng.random_range(1..40) };
        match kind {
            "string" => {
                let value = self.element();
                conn.must(&[b"SET", key, &value[..]]);
            }
            "list" => {
                for _ in 0..count {
                    let element = self.element();
                    conn.must(&[if self.rng.random_bool(0.7) { b"RPUSH" } else { b"LPUSH" }, key, &element[..]]);
                }
            }
            "set" => {
                for _ in 0..count {
                    let member = self.element();
                    conn.must(&[b"SADD", key, &member[..]]);
                }
            }
            "ints" => {
                let bits = [10, 20, 40][self.rng.random_range(0..3)];
                for _ in 0..count {
                    let member = self.rng.random_range(-(1i64 << bits)..1 << bits).to_string();
                    conn.must(&[b"SADD", key, member.as_bytes()]);
                }
            }
            "zset" => {
                for _ in 0..count {
                    let (member, score) = (self.element(), self.score());
                    conn.must(&[b"ZADD", key, score.as_bytes(), &member[..]]);
                }
            }
            "hash" => self.write_fields(conn, key, count),
            "ttl-hash" => self.write_hash_with_ttls(conn, key, count),
            _ => self.write_stream(conn, key, count),
        }
    }

    fn score(&mut self) -> String {
        match self.rng.random_range(0..5) {
            0 => self.rng.random_range(-5..5).to_string(),
            1 => ["inf", "-inf", "0", "1e300", "-1e-300", "3.0000000000000004"][self.rng.random_range(0..6)].to_owned(),
            _ => f64::to_string(&(self.rng.random::<f64>() * 1e9)),
        }
    }

    fn write_fields(&mut self, conn: &mut Conn, key: &[u8], count: usize) {
        for _ in 0..count {
            let (field, value) = (self.element(), self.element());
            conn.must(&[b"HSET", key, &field[..], &value[..]]);
        }
    }

    /// Some fields with, some without a TTL; in packed form only with short elements.
    fn write_hash_with_ttls(&mut self, conn: &mut Conn, key: &[u8], count: usize) {
        if !conn.knows("HPEXPIREAT") {
            return self.write_fields(conn, key, count);
        }
        for number in 0..count {
            let field = format!("field {number}");
            let value = self.rng.random_range(0..100_000).to_string();
            conn.must(&[&b"HSET"[..], key, field.as_bytes(), value.as_bytes()]);
            // The first has one, so that there is one.
            if number == 0 || self.rng.random_bool(0.5) {
                let at = (self.later_ms + self.rng.random_range(0..10_000_000)).to_string();
                conn.must(&[b"HPEXPIREAT", key, at.as_bytes(), b"FIELDS", b"1", field.as_bytes()]);
            }
        }
    }

    fn write_stream(&mut self, conn: &mut Conn, key: &[u8], count: usize) {
        let call = |conn: &mut Conn, words: &[&[u8]]| conn.must(words);
        let mut ids = Vec::new();
        for number in 0..count {
            let id = format!("{}-{}", number / 3 + 1, self.rng.random_range(0..5) + 10 * (number % 3) + 1);
            let mut args = vec![b"XADD".to_vec(), key.to_vec(), id.clone().into_bytes()];
            let same = self.rng.random_bool(0.6);
            for field in 0..if same { 2 } else { self.rng.random_range(1..4) } {
                args.push(if same { format!("field{field}").into_bytes() } else { self.element() });
                args.push(self.element());
            }
            conn.must(&args);
            ids.push(id);
        }
        if self.rng.random_bool(0.2) {
            call(conn, &[b"XADD", key, b"18446744073709551615-18446744073709551614", b"last", b"id"]);
        }
        for name in ["ops", "audit"] {
            call(conn, &[b"XGROUP", b"CREATE", key, name.as_bytes(), b"0"]);
            for consumer in ["zoe", "adam"] {
                let n = self.rng.random_range(1..6).to_string();
                let group =
                    [b"XREADGROUP", &b"GROUP"[..], name.as_bytes(), consumer.as_bytes(), b"COUNT", n.as_bytes()];
                conn.must(&[&group[..], &[b"STREAMS", key, b">"]].concat());
            }
            let first = ids[0].as_bytes();
            call(conn, &[b"XACK", key, name.as_bytes(), first]);
        }
        call(conn, &[b"XCLAIM", key, b"ops", b"carol", b"0", ids[ids.len() / 2].as_bytes()]);
        if self.rng.random_bool(0.5) {
            call(conn, &[b"XDEL", key, ids[ids.len() / 3].as_bytes()]);
        }
        if self.rng.random_bool(0.1) {
            call(conn, &[b"XTRIM", key, b"MAXLEN", b"0"]);
        }
        if conn.knows("XCFGSET") && self.rng.random_bool(0.5) {
            for id in ["a", "b", "a"] {
                conn.call(&[b"XADD", key, b"IDMP", b"producer", id.as_bytes(), b"*", b"f", b"v"]);
            }
        }
    }
}
