//! Large values in pieces, on a real server: what is built, read and made as a payload is what the server had.
//!
//! `REDTAPE_TEST_SERVER` chooses the server, `REDTAPE_SEED` repeats a dataset.
#![allow(clippy::unwrap_used, clippy::pedantic, clippy::print_stdout, missing_docs, dead_code)]

#[path = "../../../wire/tests/rdb/dataset.rs"]
mod dataset;
mod edges;
mod faults;
mod measure;
mod names;
#[path = "../../../wire/tests/rdb/server.rs"]
mod server;

use std::collections::BTreeSet;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use dataset::Generator;
use redtape_journal::undo_file::OperationId;
use redtape_restore::client::{Server as Client, Value as Reply};
use redtape_restore::target::pieces::name::temporary_name;
use redtape_restore::target::pieces::read::Reader;
use redtape_restore::target::pieces::{
    BuildError, Builder, PieceLimits, ReadPiecesError, TEMPORARY_TTL_MS, swap::swap,
};
use redtape_restore::version::ServerVersion;
use redtape_wire::rdb::{DECODED_MAX, Value, decode_value, encode_dump, parse_dump};
use server::Server;

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64
}

fn version() -> ServerVersion {
    let binary = std::env::var("REDTAPE_TEST_SERVER").unwrap_or_else(|_| "redis-server".to_owned());
    let banner = Command::new(binary).arg("--version").output().unwrap().stdout;
    ServerVersion::from_banner(&String::from_utf8_lossy(&banner)).unwrap()
}

fn port(server: &Server) -> String {
    server.conn().must(&["CONFIG", "GET", "port"]).items()[1].text()
}

fn client(server: &Server) -> Client {
    Client::connect(&format!("redis://127.0.0.1:{}", port(server)).parse().unwrap()).unwrap()
}

/// One that nobody else has on the servers of this process.
fn operation() -> OperationId {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    OperationId::derive(&[("number", &NEXT.fetch_add(1, Ordering::Relaxed).to_le_bytes())])
}

/// Pieces so small that every value has several, and as they are used.
const TINY: PieceLimits = PieceLimits { bytes: 64, elements: 3, unanswered: 2, pending: usize::MAX };

fn int(reply: Reply) -> i64 {
    if let Reply::Int(number) = reply { number } else { panic!("{reply:?}") }
}

fn dumped(client: &mut Client, key: &[u8]) -> Value {
    let Reply::Bytes(payload) = client.call(&[b"DUMP", key]).unwrap() else { panic!("no {}", key.escape_ascii()) };
    let payload = parse_dump(&payload).unwrap();
    decode_value(payload.value_type, payload.value, DECODED_MAX).unwrap()
}

/// That a key of the selected database can be read, built and restored.
#[track_caller]
fn check(client: &mut Client, key: &[u8], limits: PieceLimits) {
    let shown = key.escape_ascii().to_string();
    let version = version();
    let want = dumped(client, key);
    read_equals(client, key, limits, &want);

    let operation = operation();
    let name = temporary_name(key, &operation, 1);
    let builder = Builder { version, limits };
    if let Value::Module { .. } = want {
        assert!(matches!(builder.build(client, &name, &want), Err(BuildError::NotInPieces(_))), "{shown}");
        assert_eq!(client.call(&[b"EXISTS", &name[..]]).unwrap(), Reply::Int(0));
        return;
    }
    let built = builder.build(client, &name, &want).unwrap_or_else(|e| panic!("{shown}: {e}"));
    assert!(built.exists && built.expired_fields == 0, "{shown}: {built:?}");
    let left = int(client.call(&[b"PTTL", &name[..]]).unwrap());
    assert!((1..=TEMPORARY_TTL_MS as i64).contains(&left), "{shown}: {left}");
    assert_eq!(dumped(client, &name), want, "built {shown}");

    let made = encode_dump(&want, version.writes()).unwrap();
    let restored = temporary_name(key, &operation, 2);
    client.call(&[b"RESTORE", &restored[..], b"0", &made]).unwrap_or_else(|e| panic!("{shown}: {e}"));
    assert_eq!(dumped(client, &restored), want, "restored {shown}");

    // Over a key that exists, with and without a TTL.
    let expires = (left % 2 == 0).then(|| now_ms() + 5_000_000);
    swap(client, &name, &restored, expires).unwrap_or_else(|e| panic!("{shown}: {e}"));
    assert_eq!(client.call(&[b"EXISTS", &name[..]]).unwrap(), Reply::Int(0));
    assert_eq!(dumped(client, &restored), want, "swapped {shown}");
    let left = int(client.call(&[b"PTTL", &restored[..]]).unwrap());
    match expires {
        None => assert_eq!(left, -1),
        Some(at) => assert!((0..=1000).contains(&(now_ms() + left - at).abs()), "{left}"),
    }
    client.call(&[b"DEL", &restored[..]]).unwrap();
}

#[track_caller]
fn read_equals(client: &mut Client, key: &[u8], limits: PieceLimits, want: &Value) {
    let read = Reader { version: version(), limits }.read(client, key);
    let has_producers = |value: &Value| matches!(value, Value::Stream(stream) if stream.idempotence.as_ref().is_some_and(|i| !i.producers.is_empty()));
    match read {
        Ok(read) => assert_eq!(read, *want, "read {}", key.escape_ascii()),
        Err(ReadPiecesError::NotInPieces(why)) => {
            let expected = matches!(want, Value::Module { .. }) || has_producers(want);
            assert!(expected, "{}: {why}", key.escape_ascii());
        }
        Err(e) => panic!("{}: {e}", key.escape_ascii()),
    }
}

#[test]
fn random_values_of_every_type_in_every_encoding() {
    let seed = std::env::var("REDTAPE_SEED")
        .map_or_else(|_| rand::random::<u64>() >> 16, |s| s.parse().expect("REDTAPE_SEED is a number"));
    println!("seed: REDTAPE_SEED={seed}");
    let server = Server::start();
    Generator::new(seed, now_ms()).fill(&mut server.conn(), 3);
    let mut client = client(&server);
    let mut kinds = BTreeSet::new();
    for db in ["0", "1", "15"] {
        client.call(&["SELECT", db]).unwrap();
        let Reply::Array(keys) = client.call(&["KEYS", "*"]).unwrap() else { panic!("KEYS") };
        for key in keys {
            let Reply::Bytes(key) = key else { panic!("key") };
            kinds.insert(dumped(&mut client, &key).type_name());
            for limits in [TINY, PieceLimits::default()] {
                check(&mut client, &key, limits);
            }
        }
    }
    assert!(kinds.is_superset(&["hash", "list", "set", "stream", "string", "zset"].into()), "{kinds:?}");
}
