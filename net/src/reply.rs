//! Reads RESP2 replies from a blocking stream.
//!
//! A restore reads millions of them, many of them in one pipeline; the client library's resumable decoder
//! gives up on an interrupted system call.

use std::io::{self, BufRead, ErrorKind, Read as _};

/// A value of a reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// No value.
    Nil,
    /// A number.
    Int(i64),
    /// `+…`: a status.
    Status(String),
    /// Bytes.
    Bytes(Vec<u8>),
    /// Several values.
    Array(Vec<Value>),
    /// An error inside of an array, as `EXEC` gives it for one of its commands.
    Error(ErrorReply),
}

/// An error reply of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrorReply {
    /// Its first word, such as `NOPERM`.
    pub code: String,
    /// The whole text.
    pub text: String,
}

/// Deepest nesting of arrays that is read.
const DEPTH_MAX: u32 = 16;
/// Longest first line of a reply.
const LINE_MAX: u64 = 64 * 1024;
/// Bytes of a value that are allocated before they have come.
const TRUST_BYTES: usize = 1 << 20;

/// Reads one reply.
pub fn read(from: &mut impl BufRead) -> io::Result<Result<Value, ErrorReply>> {
    read_nested(from, 0)
}

fn read_nested(from: &mut impl BufRead, depth: u32) -> io::Result<Result<Value, ErrorReply>> {
    let broken = |what: &str| io::Error::new(ErrorKind::InvalidData, format!("not a RESP reply: {what}"));
    let mut line = Vec::new();
    from.by_ref().take(LINE_MAX).read_until(b'\n', &mut line)?;
    if line.is_empty() {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    let line = line.strip_suffix(b"\r\n").ok_or_else(|| broken("no line"))?;
    let (kind, rest) = line.split_first().ok_or_else(|| broken("an empty line"))?;
    let text = || String::from_utf8_lossy(rest).into_owned();
    let number =
        || std::str::from_utf8(rest).ok().and_then(|s| s.parse::<i64>().ok()).ok_or_else(|| broken("no number"));
    let value = match kind {
        b'+' => Value::Status(text()),
        b':' => Value::Int(number()?),
        b'-' => {
            let text = text();
            let code = text.split(' ').next().unwrap_or_default().to_owned();
            return Ok(Err(ErrorReply { code, text }));
        }
        b'$' | b'*' if number()? < 0 => Value::Nil,
        b'$' => {
            let len = usize::try_from(number()?).map_err(|_| broken("too long"))?;
            let mut bytes = Vec::with_capacity(len.min(TRUST_BYTES));
            if from.by_ref().take(len as u64).read_to_end(&mut bytes)? < len {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            let mut end = [0; 2];
            from.read_exact(&mut end)?;
            Value::Bytes(bytes)
        }
        b'*' if depth < DEPTH_MAX => {
            let count = usize::try_from(number()?).map_err(|_| broken("too long"))?;
            let mut items = Vec::with_capacity(count.min(TRUST_BYTES / 64));
            for _ in 0..count {
                items.push(read_nested(from, depth + 1)?.unwrap_or_else(Value::Error));
            }
            Value::Array(items)
        }
        _ => return Err(broken("an unknown type")),
    };
    Ok(Ok(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form() {
        let wire =
            b"+OK\r\n:-5\r\n$3\r\na\r\n\r\n$-1\r\n*-1\r\n*2\r\n$0\r\n\r\n*1\r\n:1\r\n-NOPERM no\r\n*1\r\n-ERR x\r\n";
        let mut from = &wire[..];
        let mut next = || read(&mut from).expect("whole");
        assert_eq!(next(), Ok(Value::Status("OK".into())));
        assert_eq!(next(), Ok(Value::Int(-5)));
        assert_eq!(next(), Ok(Value::Bytes(b"a\r\n".to_vec())));
        assert_eq!(next(), Ok(Value::Nil));
        assert_eq!(next(), Ok(Value::Nil));
        assert_eq!(next(), Ok(Value::Array(vec![Value::Bytes(vec![]), Value::Array(vec![Value::Int(1)])])));
        assert_eq!(next(), Err(ErrorReply { code: "NOPERM".into(), text: "NOPERM no".into() }));
        assert_eq!(
            next(),
            Ok(Value::Array(vec![Value::Error(ErrorReply { code: "ERR".into(), text: "ERR x".into() })]))
        );
        assert!(read(&mut &b""[..]).is_err());
        for bad in [&b"?\r\n"[..], b"$5\r\nab", b":x\r\n", b"$99999999999\r\nab", b"+OK", b"\r\n"] {
            assert!(read(&mut &bad[..]).is_err(), "{bad:?}");
        }
        let deep = b"*1\r\n".repeat(100);
        assert!(read(&mut &deep[..]).is_err());
    }
}
