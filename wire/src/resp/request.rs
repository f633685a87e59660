//! Finds the boundaries and arguments of one request without copying it.
//!
//! The data path calls [`parse_request`] on what it has buffered; a request that is not whole yet
//! gives [`Parsed::Partial`] with what is known, so that a huge one can be passed on while it comes.

use smallvec::SmallVec;

/// Byte ranges of the arguments, relative to the start of the parsed buffer.
pub type Args = SmallVec<[(usize, usize); 8]>;

/// Longest inline request or header line, as Redis has it (`PROTO_INLINE_MAX_SIZE`).
pub const INLINE_MAX: usize = 64 * 1024;

/// What the front of the buffer holds.
#[derive(Debug, PartialEq, Eq)]
pub enum Parsed {
    /// One whole request of so many bytes; no arguments = a request that gets no reply (`*0`, an empty line).
    Whole {
        /// Its length in bytes.
        len: usize,
    },
    /// A whole inline request: its arguments may need unquoting, so they are not ranges.
    Inline {
        /// Its length in bytes.
        len: usize,
        /// Arguments after unquoting; `None` when the quotes are unbalanced (Redis refuses it).
        args: Option<Vec<Vec<u8>>>,
    },
    /// The request goes on behind the buffer's end.
    Partial(Option<Rest>),
}

/// What is still to come of a partial request whose array header is complete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rest {
    /// Arguments not begun yet (their header is not complete).
    pub args_left: usize,
    /// Bytes still missing of the argument that has begun, its CRLF included.
    pub bytes_left: usize,
    /// Length of the argument that has begun, as its header announces it; 0 = none has.
    pub announced: usize,
    /// Bytes at the front of the buffer that are accounted for; the rest is an incomplete header.
    pub consumed: usize,
}

/// The bytes are not RESP: Redis would answer with a protocol error and close, or never find the end of the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a RESP request")]
pub struct ParseError;

/// Parses the request at the front of `buf`; `args` receives the ranges of what is complete.
pub fn parse_request(buf: &[u8], args: &mut Args) -> Result<Parsed, ParseError> {
    args.clear();
    let Some(&first) = buf.first() else { return Ok(Parsed::Partial(None)) };
    if first != b'*' {
        return parse_inline(buf);
    }
    let Some((count, mut at)) = parse_number(buf, 1)? else { return Ok(Parsed::Partial(None)) };
    if count <= 0 {
        return Ok(Parsed::Whole { len: at });
    }
    let count = usize::try_from(count).map_err(|_| ParseError)?;
    if count > i32::MAX as usize {
        return Err(ParseError);
    }
    for n in 0..count {
        let rest = |consumed, bytes_left, announced| Rest {
            args_left: count - n - usize::from(bytes_left > 0),
            bytes_left,
            announced,
            consumed,
        };
        match buf.get(at) {
            None => return Ok(Parsed::Partial(Some(rest(at, 0, 0)))),
            Some(b'$') => {}
            Some(_) => return Err(ParseError),
        }
        let Some((len, body)) = parse_number(buf, at + 1)? else {
            return Ok(Parsed::Partial(Some(rest(at, 0, 0))));
        };
        let len = usize::try_from(len).map_err(|_| ParseError)?;
        let end = body.checked_add(len).and_then(|e| e.checked_add(2)).ok_or(ParseError)?;
        if end > buf.len() {
            return Ok(Parsed::Partial(Some(rest(buf.len(), end - buf.len(), len))));
        }
        args.push((body, body + len));
        at = end;
    }
    Ok(Parsed::Whole { len: at })
}

/// Parses the number behind a type byte; `None` = the line is not complete. Returns the position behind CRLF.
pub fn parse_number(buf: &[u8], from: usize) -> Result<Option<(i64, usize)>, ParseError> {
    let mut at = from;
    let negative = buf.get(at) == Some(&b'-');
    at += usize::from(negative);
    let mut value: i64 = 0;
    let digits_from = at;
    loop {
        match buf.get(at) {
            None if at - from > INLINE_MAX => return Err(ParseError),
            None => return Ok(None),
            Some(d @ b'0'..=b'9') => {
                value = value.checked_mul(10).and_then(|v| v.checked_add(i64::from(d - b'0'))).ok_or(ParseError)?;
                at += 1;
            }
            // Redis's `string2ll`: no leading zeros, no minus zero.
            Some(b'\r') if buf[digits_from] == b'0' && (at > digits_from + 1 || negative) => return Err(ParseError),
            Some(b'\r') if at > digits_from => match buf.get(at + 1) {
                None => return Ok(None),
                // Redis skips two bytes behind the digits without looking at the second.
                Some(_) => return Ok(Some((if negative { -value } else { value }, at + 2))),
            },
            Some(_) => return Err(ParseError),
        }
    }
}

fn parse_inline(buf: &[u8]) -> Result<Parsed, ParseError> {
    let Some(newline) = buf.iter().position(|&b| matches!(b, b'\n' | 0)) else {
        return if buf.len() > INLINE_MAX { Err(ParseError) } else { Ok(Parsed::Partial(None)) };
    };
    // Redis looks for the end of the line in a C string: behind a NUL it finds none, and reads on until it gives up.
    if buf[newline] == 0 {
        return Err(ParseError);
    }
    let line = buf[..newline].strip_suffix(b"\r").unwrap_or(&buf[..newline]);
    Ok(Parsed::Inline { len: newline + 1, args: split_inline(line) })
}

/// Splits a line as Redis's `sdssplitargs` does: blanks, double quotes with escapes, single quotes.
fn split_inline(line: &[u8]) -> Option<Vec<Vec<u8>>> {
    let blank = |b: u8| b.is_ascii_whitespace() || b == 0x0b;
    let mut args = Vec::new();
    let mut at = 0;
    loop {
        while at < line.len() && blank(line[at]) {
            at += 1;
        }
        if at >= line.len() {
            return Some(args);
        }
        let mut arg = Vec::new();
        while at < line.len() && !blank(line[at]) {
            match line[at] {
                quote @ (b'"' | b'\'') => {
                    at = unquote(line, at + 1, quote, &mut arg)?;
                    if at < line.len() && !blank(line[at]) {
                        return None;
                    }
                }
                b => {
                    arg.push(b);
                    at += 1;
                }
            }
        }
        args.push(arg);
    }
}

/// Copies a quoted part that starts at `at`; returns the position behind the closing quote.
fn unquote(line: &[u8], mut at: usize, quote: u8, arg: &mut Vec<u8>) -> Option<usize> {
    loop {
        match *line.get(at)? {
            b if b == quote => return Some(at + 1),
            b'\\' if quote == b'"' => {
                let hex = |i: usize| line.get(i).and_then(|b| (*b as char).to_digit(16));
                if line.get(at + 1) == Some(&b'x')
                    && let (Some(high), Some(low)) = (hex(at + 2), hex(at + 3))
                {
                    arg.push((high * 16 + low) as u8);
                    at += 4;
                    continue;
                }
                arg.push(match *line.get(at + 1)? {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 8,
                    b'a' => 7,
                    other => other,
                });
                at += 2;
            }
            b'\\' if line.get(at + 1) == Some(&b'\'') => {
                arg.push(b'\'');
                at += 2;
            }
            b => {
                arg.push(b);
                at += 1;
            }
        }
    }
}
