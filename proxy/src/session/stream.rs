//! Splits a client's byte stream into requests; streams huge ones without buffering them.
//!
//! Pure. A request that is incomplete after [`STREAM_FROM`] bytes is passed on in parts. Invalid RESP is passed on
//! unchanged, for the server to answer.

use redtape_wire::resp::{Args, Parsed, parse_number, parse_request};

/// A request that is incomplete after this many bytes is passed on in parts.
const STREAM_FROM: usize = 64 * 1024;
/// A server refuses a bulk longer than its `proto-max-bulk-len` as soon as it has read the length, and the limit may be
/// as low as this. The beginning of a longer one is therefore passed on at once.
const BULK_MAX: usize = 1024 * 1024;
/// Older servers refuse more arguments.
const ARGS_MAX: usize = 1024 * 1024;
/// Limits of a server for an unauthenticated client: arguments, and bytes of one argument.
const STRANGER_ARGS_MAX: usize = 10;
const STRANGER_BULK_MAX: usize = 16 * 1024;

/// Content of the front of a buffer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Scanned {
    /// More bytes are needed. `heavy`: the server would already refuse it from an unauthenticated client.
    Incomplete { heavy: bool },
    /// This many bytes hold no request and are never answered.
    Empty(usize),
    /// A whole request of this many bytes; `args` has the positions of its arguments.
    Whole(usize),
    /// As `Request`, as an inline command; `None` = unbalanced quotes.
    Inline(usize, Option<Vec<Vec<u8>>>),
    /// The beginning of a huge request; the rest comes as [`Self::Rest`] after [`RequestScan::go_on`].
    Begun(Begun),
    /// This many bytes of a started request.
    Rest(usize),
    /// Invalid RESP; nothing after it is parsed.
    Opaque,
}

/// The received part of a huge request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Begun {
    /// Bytes received.
    pub(crate) len: usize,
    /// Number of all arguments; `args` has the complete ones.
    pub(crate) argc: usize,
    args_left: usize,
    bytes_left: usize,
}

/// Position in the request stream.
#[derive(Debug, Default)]
pub(crate) struct RequestScan {
    args_left: usize,
    bytes_left: usize,
    opaque: bool,
}

impl RequestScan {
    /// Examines the front of `buf`. Whole requests and beginnings do not change the state: they may be scanned again.
    pub(crate) fn next(&mut self, buf: &[u8], args: &mut Args) -> Scanned {
        if buf.is_empty() {
            return Scanned::Incomplete { heavy: false };
        }
        if self.is_inside() {
            return self.rest(buf);
        }
        if self.opaque {
            return Scanned::Opaque;
        }
        match parse_request(buf, args) {
            Ok(Parsed::Whole { len }) if args.is_empty() => Scanned::Empty(len),
            Ok(Parsed::Whole { len }) => Scanned::Whole(len),
            Ok(Parsed::Inline { len, args }) if args.as_ref().is_some_and(Vec::is_empty) => Scanned::Empty(len),
            Ok(Parsed::Inline { len, args }) => Scanned::Inline(len, args),
            Ok(Parsed::Partial(Some(r))) => {
                let argc = args.len() + r.args_left + usize::from(r.bytes_left > 0);
                if buf.len() < STREAM_FROM && r.announced <= BULK_MAX && argc <= ARGS_MAX {
                    return Scanned::Incomplete { heavy: argc > STRANGER_ARGS_MAX || r.announced > STRANGER_BULK_MAX };
                }
                if args.is_empty() {
                    // No command has such a name.
                    self.opaque = true;
                    return Scanned::Opaque;
                }
                Scanned::Begun(Begun { len: r.consumed, argc, args_left: r.args_left, bytes_left: r.bytes_left })
            }
            Ok(Parsed::Partial(None)) => Scanned::Incomplete { heavy: false },
            Err(_) => {
                self.opaque = true;
                Scanned::Opaque
            }
        }
    }

    /// The beginning was passed on.
    pub(crate) fn go_on(&mut self, begun: Begun) {
        (self.args_left, self.bytes_left) = (begun.args_left, begun.bytes_left);
    }

    /// Later bytes are not parsed.
    pub(crate) fn stop(&mut self) {
        *self = Self { opaque: true, ..Self::default() };
    }

    /// True if the end of a request is missing.
    pub(crate) fn is_inside(&self) -> bool {
        self.args_left > 0 || self.bytes_left > 0
    }

    fn rest(&mut self, buf: &[u8]) -> Scanned {
        let mut at = 0;
        while at < buf.len() && self.is_inside() {
            if self.bytes_left > 0 {
                let take = self.bytes_left.min(buf.len() - at);
                self.bytes_left -= take;
                at += take;
                continue;
            }
            match (buf[at], parse_number(buf, at + 1)) {
                (b'$', Ok(None)) => break,
                (b'$', Ok(Some((len, body)))) if len >= 0 => {
                    self.args_left -= 1;
                    // No server accepts lengths beyond `usize`.
                    self.bytes_left = usize::try_from(len).unwrap_or(usize::MAX - 2) + 2;
                    at = body;
                }
                _ => {
                    *self = Self { opaque: true, ..Self::default() };
                    return if at > 0 { Scanned::Rest(at) } else { Scanned::Opaque };
                }
            }
        }
        if at > 0 { Scanned::Rest(at) } else { Scanned::Incomplete { heavy: false } }
    }
}

#[cfg(test)]
mod tests {
    use redtape_wire::resp::encode_command;

    use super::*;

    /// Forwards what `scan` returns; returns the commands found and how many bytes were used.
    fn drive(scan: &mut RequestScan, buf: &[u8], names: &mut Vec<(String, usize)>) -> usize {
        let (mut at, mut args) = (0, Args::new());
        loop {
            let rest = &buf[at..];
            let name = |args: &Args| args.first().map(|(a, b)| String::from_utf8_lossy(&rest[*a..*b]).into_owned());
            at += match scan.next(rest, &mut args) {
                Scanned::Incomplete { .. } => return at,
                Scanned::Empty(n) | Scanned::Rest(n) => n,
                Scanned::Whole(n) => {
                    names.push((name(&args).unwrap_or_default(), args.len()));
                    n
                }
                Scanned::Inline(n, args) => {
                    let args = args.unwrap_or_default();
                    names.push((String::from_utf8_lossy(&args[0]).into_owned(), args.len()));
                    n
                }
                Scanned::Begun(begun) => {
                    names.push((name(&args).unwrap_or_default(), begun.argc));
                    scan.go_on(begun);
                    begun.len
                }
                Scanned::Opaque => {
                    names.push(("opaque".to_owned(), 0));
                    return buf.len();
                }
            };
        }
    }

    #[test]
    fn every_split_forwards_everything_once_and_finds_every_command() {
        let mut wire = Vec::new();
        encode_command(&mut wire, &[b"SET".as_slice(), b"k", &vec![b'x'; 3 * STREAM_FROM]]);
        encode_command(&mut wire, &[b"MSET".as_slice(), b"a", &vec![b'y'; STREAM_FROM], b"b", &[b'z'; 100]]);
        wire.extend_from_slice(b"PING\r\n*0\r\n");
        encode_command(&mut wire, &["GET", "k"]);
        for step in [1, 7, 100, 1000, 65_535, 65_536, 65_537, 200_000, wire.len()] {
            let (mut scan, mut kept) = (RequestScan::default(), Vec::new());
            let (mut sent, mut names) = (0, Vec::new());
            for chunk in wire.chunks(step) {
                kept.extend_from_slice(chunk);
                let used = drive(&mut scan, &kept, &mut names);
                sent += used;
                kept.drain(..used);
                assert!(kept.len() <= STREAM_FROM + step, "step {step}: {} bytes kept", kept.len());
            }
            assert_eq!(sent, wire.len(), "step {step}");
            let want = [("SET", 3), ("MSET", 5), ("PING", 1), ("GET", 2)].map(|(n, c)| (n.to_owned(), c));
            assert_eq!(names, want, "step {step}");
        }
    }

    #[test]
    fn unauthenticated_limits_use_announced_lengths() {
        for (bytes, heavy) in [
            (&b"*10\r\n$3\r\nDEL\r\n"[..], false),
            (b"*11\r\n$3\r\nDEL\r\n", true),
            (b"*2\r\n$4\r\nAUTH\r\n$16384\r\nx", false),
            (b"*2\r\n$4\r\nAUTH\r\n$16385\r\nx", true),
            // Whatever part of it has arrived.
            (&[&b"*2\r\n$4\r\nAUTH\r\n$16385\r\n"[..], &[b'x'; 5000]].concat(), true),
            (b"*11\r\n", true),
        ] {
            let scanned = RequestScan::default().next(bytes, &mut Args::new());
            assert_eq!(scanned, Scanned::Incomplete { heavy }, "{}", bytes[..20.min(bytes.len())].escape_ascii());
        }
    }

    #[test]
    fn what_a_server_may_refuse_by_its_length_is_passed_on_as_soon_as_the_length_is_there() {
        let next = |announced: usize, here: usize| {
            let wire = [format!("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n${announced}\r\n").into_bytes(), vec![b'x'; here]];
            RequestScan::default().next(&wire.concat(), &mut Args::new())
        };
        for here in [0, 1, 1000] {
            assert_eq!(next(STRANGER_BULK_MAX, here), Scanned::Incomplete { heavy: false });
            assert_eq!(next(STRANGER_BULK_MAX + 1, here), Scanned::Incomplete { heavy: true });
            assert_eq!(next(BULK_MAX, here), Scanned::Incomplete { heavy: true });
            assert!(matches!(next(BULK_MAX + 1, here), Scanned::Begun(_)), "{here} bytes are here");
        }
    }

    #[test]
    fn what_is_not_resp_goes_to_the_server_as_it_is() {
        for bytes in [&b"*1\r\n$4\r\nPING\r\n*1\r\n!oops\r\nanything"[..], b"PING\r\n*01\r\n$4\r\nPING\r\n"] {
            let (mut scan, mut names) = (RequestScan::default(), Vec::new());
            assert_eq!(drive(&mut scan, bytes, &mut names), bytes.len());
            assert_eq!(names, [("PING".to_owned(), 1), ("opaque".to_owned(), 0)]);
            assert_eq!(drive(&mut scan, b"PING\r\n", &mut names), 6);
            assert_eq!(names.len(), 3, "nothing is understood any more");
        }
    }
}
