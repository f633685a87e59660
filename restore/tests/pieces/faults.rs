//! Other clients get in the way.

use std::time::Duration;

use redtape_restore::client::Value as Reply;
use redtape_restore::target::pieces::read::Reader;
use redtape_restore::target::pieces::{BuildError, Builder, PieceLimits, ReadPiecesError};
use redtape_wire::rdb::Value;

use crate::server::Server;
use crate::{client, version};

/// So many pieces that another client comes in between.
const SLOW: PieceLimits = PieceLimits { bytes: 1 << 20, elements: 5, unanswered: 1, pending: usize::MAX };

fn list() -> Value {
    Value::List((0..20_000u32).map(|n| n.to_le_bytes().to_vec()).collect())
}

#[test]
fn a_temporary_key_that_is_taken_away_is_noticed_and_nothing_is_left() {
    let server = Server::start();
    let mut builder = client(&server);
    let mut other = client(&server);
    for command in [&["DEL", "name"][..], &["SET", "name", "other"], &["RPUSH", "name", "other"]] {
        let build = Builder { version: version(), limits: SLOW };
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while other.call(&["EXISTS", "name"]).unwrap() != Reply::Int(1) {
                    std::thread::sleep(Duration::from_micros(100));
                }
                other.call(command).unwrap();
            });
            match build.build(&mut builder, b"name", &list()) {
                Err(BuildError::Lost(_) | BuildError::Server(_)) => {}
                unnoticed => panic!("{command:?}: {unnoticed:?}"),
            }
        });
        assert_eq!(builder.call(&["EXISTS", "name"]).unwrap(), Reply::Int(0), "{command:?}");
    }
    // The connection has no replies left over.
    assert!(Builder::new(version()).build(&mut builder, b"name", &list()).unwrap().exists);
    assert_eq!(crate::dumped(&mut builder, b"name"), list());
}

#[test]
fn a_key_that_changes_while_it_is_read_is_noticed() {
    let server = Server::start();
    let mut reader = client(&server);
    let mut other = client(&server);
    for command in [&["DEL", "key"][..], &["SET", "key", "string"], &["RPUSH", "key", "more"]] {
        Builder::new(version()).build(&mut other, b"key", &list()).unwrap();
        other.call(&["CONFIG", "RESETSTAT"]).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while other.info(Some("commandstats")).unwrap().get("cmdstat_lrange").is_none() {
                    std::thread::sleep(Duration::from_micros(100));
                }
                other.call(command).unwrap();
            });
            let read = Reader { version: version(), limits: SLOW }.read(&mut reader, b"key");
            assert!(matches!(read, Err(ReadPiecesError::Changed)), "{command:?}: {read:?}");
        });
    }
    assert!(matches!(Reader::new(version()).read(&mut reader, b"nothing"), Err(ReadPiecesError::Gone)));
}
