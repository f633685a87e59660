//! What is no whole request, or none at all: the server waits, answers or closes, and so does redtape, with the same bytes.

use super::access::{Pair, exchange};
use std::time::Duration;

/// So long a server says nothing that waits.
const QUIET: Duration = Duration::from_millis(700);

/// What was said before.
const BEFORE: [&[u8]; 5] =
    [b"", b"SET a 1\r\nGET a\r\n", b"CLIENT REPLY OFF\r\n", b"CLIENT REPLY SKIP\r\n", b"MULTI\r\nSET a 2\r\n"];

/// What follows. A header of the PROXY protocol where none is expected holds a NUL, and QUIT on a line of its own.
fn endings() -> Vec<Vec<u8>> {
    let bulk = |length: usize, here: &str| format!("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n${length}\r\n{here}").into_bytes();
    let proxy = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01";
    vec![
        b"GET a\0b\r\n".to_vec(),
        b"\0\r\nPING\r\n".to_vec(),
        b"GET \"\0\r\n".to_vec(),
        [&proxy[..], b"PING\r\n"].concat(),
        b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\nPING\r\n".to_vec(),
        bulk(536_870_913, ""),
        bulk(536_870_913, "abc"),
        bulk(536_870_912, "abc"),
        bulk(2_000_000, "abc"),
        bulk(20_000, "abc"),
        b"*x\r\n".to_vec(),
        b"*1\r\n:5\r\n".to_vec(),
        b"GET 'a\r\n".to_vec(),
        b"*1\r\n$536870913\r\n".to_vec(),
        vec![b'x'; 70_000],
        [&b"*2\r\n$3\r\nGET\r\n$"[..], &[b'1'; 70_000]].concat(),
    ]
}

/// Each behind each, at once and a moment later, of one that is known to the server and of one that is not.
pub fn are_treated_alike(sharing: &str, password: Option<&str>) {
    let pair = Pair::start(sharing, password);
    let compare = |before: &'static [u8], ending: &[u8]| {
        // What is said behind it may be answered, or lie there.
        for later in [&b""[..], b"PING\r\n"] {
            let sent = [before, ending, later].concat();
            let want = exchange(pair.direct.port, &sent, QUIET);
            let got = exchange(pair.redtape.port, &sent, QUIET);
            let shown: Vec<_> =
                [before, &ending[..ending.len().min(80)], later].map(|b| b.escape_ascii().to_string()).into();
            assert_eq!(got, want, "{shown:?}, password {password:?}, {sharing}");
        }
    };
    let endings = endings();
    std::thread::scope(|scope| {
        for before in BEFORE {
            for ending in &endings {
                scope.spawn(move || compare(before, ending));
            }
        }
    });
}

/// `proto-max-bulk-len` says from where on a bulk is refused, also when it is less than usual.
pub fn a_lower_limit_of_bulks_holds_at_once() {
    let pair = Pair::start("auto", None);
    for server in [&pair.direct, &pair.behind] {
        server.conn().must(&args!["CONFIG", "SET", "proto-max-bulk-len", "1mb"]);
    }
    for length in [1_048_576, 1_048_577] {
        let sent = format!("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n${length}\r\nabc").into_bytes();
        let want = exchange(pair.direct.port, &sent, QUIET);
        assert_eq!(want.1, length > 1_048_576, "{want:?}");
        assert_eq!(exchange(pair.redtape.port, &sent, QUIET), want, "{length}");
    }
}
