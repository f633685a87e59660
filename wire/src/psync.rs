//! The replication handshake as data: what the server's lines mean, and the framing of the RDB.
//!
//! Source: Redis 7.0 `replication.c`; the same bytes from Redis 6.0 to 8.0 and Valkey 8 and 9 for a
//! replica that announces neither `dual-channel` nor `rdb-channel-repl`.

/// The server's answer to `PSYNC`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PsyncReply {
    /// A full copy follows; the first byte of the stream behind it has offset + 1.
    FullResync {
        /// The history's 40 characters.
        replid: String,
        /// Offset at which the copy was taken.
        offset: u64,
    },
    /// The stream goes on where asked; a changed replid means that the history changed hands.
    Continue {
        /// The new replid, if the server gave one.
        replid: Option<String>,
    },
    /// Not now: try again later.
    Later(String),
    /// Refused until the ACL or the configuration is changed.
    Refused(String),
}

/// Reads the line that answers `PSYNC`, without CRLF.
pub fn parse_psync_reply(line: &str) -> PsyncReply {
    let mut words = line.split_ascii_whitespace();
    match words.next() {
        Some("+FULLRESYNC") => {
            if let (Some(replid), Some(Ok(offset))) = (words.next(), words.next().map(str::parse)) {
                return PsyncReply::FullResync { replid: replid.to_owned(), offset };
            }
            PsyncReply::Refused(line.to_owned())
        }
        Some("+CONTINUE") => PsyncReply::Continue { replid: words.next().map(str::to_owned) },
        Some("-NOMASTERLINK" | "-LOADING" | "-MASTERDOWN" | "-BUSY") => PsyncReply::Later(line.to_owned()),
        _ => PsyncReply::Refused(line.to_owned()),
    }
}

/// Longest `$…` line.
const HEADER_MAX: usize = 128;
const MARK_LEN: usize = 40;

#[derive(Debug)]
enum Framing {
    /// Keep-alive newlines, then the `$` line.
    Header(Vec<u8>),
    /// `$<len>`: so many bytes are missing.
    Sized(u64),
    /// `$EOF:<mark>`: until the mark comes; `held` may be its beginning.
    Marked {
        mark: [u8; MARK_LEN],
        held: Vec<u8>,
    },
    Done,
}

/// Takes the RDB out of the link's bytes.
#[derive(Debug)]
pub struct RdbReceiver {
    framing: Framing,
}

/// The link does not carry an RDB where one was announced.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected the RDB's `$` line on the replication link, found {found:?}")]
pub struct FramingError {
    /// What came instead.
    pub found: String,
}

impl Default for RdbReceiver {
    fn default() -> Self {
        Self::new()
    }
}

impl RdbReceiver {
    /// Just behind `+FULLRESYNC …`.
    pub fn new() -> Self {
        Self { framing: Framing::Header(Vec::new()) }
    }

    /// Takes bytes of the link; the RDB's own are appended to `out`. Returns how many were used
    /// and whether the RDB is complete; what is not used then belongs to the stream.
    pub fn feed(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<(usize, bool), FramingError> {
        let mut used = 0;
        while used < input.len() {
            match &mut self.framing {
                Framing::Header(line) => {
                    let byte = input[used];
                    used += 1;
                    if byte != b'\n' {
                        line.push(byte);
                        if line.len() > HEADER_MAX || line[0] != b'$' {
                            return Err(FramingError { found: String::from_utf8_lossy(line).into_owned() });
                        }
                    } else if !line.is_empty() {
                        let line = line.strip_suffix(b"\r").unwrap_or(line);
                        self.framing = parse_rdb_header(line)?;
                        if matches!(self.framing, Framing::Sized(0)) {
                            self.framing = Framing::Done;
                        }
                    }
                }
                Framing::Sized(left) => {
                    let take = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len() - used);
                    out.extend_from_slice(&input[used..used + take]);
                    used += take;
                    *left -= take as u64;
                    if *left == 0 {
                        self.framing = Framing::Done;
                    }
                }
                Framing::Marked { mark, held } => {
                    let before = held.len();
                    held.extend_from_slice(&input[used..]);
                    if let Some(at) = memchr::memmem::find(held, mark) {
                        out.extend_from_slice(&held[..at]);
                        used += at + MARK_LEN - before;
                        self.framing = Framing::Done;
                    } else {
                        let ready = held.len().saturating_sub(MARK_LEN - 1);
                        out.extend_from_slice(&held[..ready]);
                        held.drain(..ready);
                        used = input.len();
                    }
                }
                Framing::Done => break,
            }
        }
        Ok((used, matches!(self.framing, Framing::Done)))
    }
}

fn parse_rdb_header(line: &[u8]) -> Result<Framing, FramingError> {
    let error = || FramingError { found: String::from_utf8_lossy(line).into_owned() };
    let rest = line.strip_prefix(b"$").ok_or_else(error)?;
    if let Some(mark) = rest.strip_prefix(b"EOF:") {
        let mark = <[u8; MARK_LEN]>::try_from(mark).map_err(|_| error())?;
        return Ok(Framing::Marked { mark, held: Vec::new() });
    }
    std::str::from_utf8(rest).ok().and_then(|s| s.parse().ok()).map(Framing::Sized).ok_or_else(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_to_psync() {
        let id = "8f6c1b6d3d1a0b7a3c2e4f5061728394a5b6c7d8";
        assert_eq!(
            parse_psync_reply(&format!("+FULLRESYNC {id} 14")),
            PsyncReply::FullResync { replid: id.to_owned(), offset: 14 }
        );
        assert_eq!(parse_psync_reply("+CONTINUE"), PsyncReply::Continue { replid: None });
        assert_eq!(parse_psync_reply(&format!("+CONTINUE {id}")), PsyncReply::Continue { replid: Some(id.to_owned()) });
        assert!(matches!(parse_psync_reply("-LOADING Redis is loading"), PsyncReply::Later(_)));
        assert!(matches!(parse_psync_reply("-NOPERM no"), PsyncReply::Refused(_)));
        assert!(matches!(parse_psync_reply("+FULLRESYNC x"), PsyncReply::Refused(_)));
    }

    fn receive(wire: &[u8], step: usize) -> (Vec<u8>, usize, bool) {
        let (mut r, mut out, mut used) = (RdbReceiver::new(), Vec::new(), 0);
        let mut done = false;
        while used < wire.len() && !done {
            let end = (used + step).min(wire.len());
            let (n, d) = r.feed(&wire[used..end], &mut out).expect("framing");
            used += n;
            done = d;
        }
        (out, used, done)
    }

    #[test]
    fn both_framings_at_every_split() {
        let mark = b"0123456789012345678901234567890123456789";
        let body = b"REDIS0010 012345678901234567890123456789012345678 body";
        let mut marked = b"\n\n$EOF:".to_vec();
        marked.extend_from_slice(mark);
        marked.extend_from_slice(b"\r\n");
        marked.extend_from_slice(body);
        marked.extend_from_slice(mark);
        let mut sized = format!("\n${}\r\n", body.len()).into_bytes();
        sized.extend_from_slice(body);
        for wire in [marked, sized] {
            let whole = wire.len();
            let mut with_stream = wire.clone();
            with_stream.extend_from_slice(b"*1\r\n$4\r\nPING\r\n");
            for step in 1..with_stream.len() {
                assert_eq!(receive(&with_stream, step), (body.to_vec(), whole, true), "step {step}");
            }
        }
        assert!(RdbReceiver::new().feed(b"-ERR no\r\n", &mut Vec::new()).is_err());
    }
}
