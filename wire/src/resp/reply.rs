//! A resumable scan over the reply stream of one connection: says where each top-level reply ends
//! and what its first line was, without keeping the bytes.
//!
//! The bytes themselves are passed on untouched by the caller; the scanner only watches.

use super::request::ParseError;

/// First bytes of a frame that are kept to tell what it is.
const HEAD_MAX: usize = 48;
/// Deepest nesting that a server may send: a script's tables go as deep as Lua's stack, some thousands.
const DEPTH_MAX: usize = 64 * 1024;

/// One top-level reply or push, just completed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Type byte: `+ - : $ * _ # , ( ! = % ~ >`.
    pub kind: u8,
    /// Its first line without the type byte and CRLF, cut at 48 bytes.
    pub line: Head,
    /// Of an aggregate: the first bulk element, cut at 48 bytes (`message`, `subscribe`, …).
    pub first: Head,
    /// The last integer inside (the count of a subscription's confirmation).
    pub last_integer: i64,
}

/// A few bytes, kept without allocation.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Head {
    bytes: [u8; HEAD_MAX],
    len: u8,
}

impl Default for Head {
    fn default() -> Self {
        Self { bytes: [0; HEAD_MAX], len: 0 }
    }
}

impl std::fmt::Debug for Head {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", String::from_utf8_lossy(self.as_bytes()))
    }
}

impl Head {
    /// The kept bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    fn extend(&mut self, from: &[u8]) {
        let at = usize::from(self.len);
        let n = from.len().min(HEAD_MAX - at);
        self.bytes[at..at + n].copy_from_slice(&from[..n]);
        self.len += n as u8;
    }

    fn clear(&mut self) {
        self.len = 0;
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before a type byte.
    Type,
    /// Inside the first line of an element.
    Line,
    /// Inside a bulk; so many bytes are missing, its CRLF included.
    Bulk(u64),
}

/// Watches one reply stream.
#[derive(Debug)]
pub struct ReplyScanner {
    state: State,
    /// Elements still to come on each open level.
    open: Vec<u64>,
    /// Type byte of the element being read.
    element: u8,
    line: Head,
    top_kind: u8,
    top_line: Head,
    first: Head,
    capture_first: bool,
    first_done: bool,
    last_integer: i64,
}

impl Default for ReplyScanner {
    fn default() -> Self {
        Self::new()
    }
}

impl ReplyScanner {
    /// At the start of a stream.
    pub fn new() -> Self {
        Self {
            state: State::Type,
            open: Vec::new(),
            element: 0,
            line: Head::default(),
            top_kind: 0,
            top_line: Head::default(),
            first: Head::default(),
            capture_first: false,
            first_done: false,
            last_integer: 0,
        }
    }

    /// No reply has begun and not ended.
    pub fn at_boundary(&self) -> bool {
        self.state == State::Type && self.open.is_empty()
    }

    /// Scans `bytes` up to the end of the next frame. Returns how many were used, and the frame
    /// if it ended there; call again with the rest.
    pub fn scan(&mut self, bytes: &[u8]) -> Result<(usize, Option<Frame>), ParseError> {
        let mut at = 0;
        while at < bytes.len() {
            match self.state {
                State::Type => {
                    self.element = bytes[at];
                    at += 1;
                    self.line.clear();
                    self.state = State::Line;
                }
                State::Line => {
                    let Some(end) = bytes[at..].iter().position(|&b| b == b'\n') else {
                        self.line.extend(&bytes[at..]);
                        return Ok((bytes.len(), None));
                    };
                    self.line.extend(&bytes[at..at + end]);
                    at += end + 1;
                    if self.line.as_bytes().last() == Some(&b'\r') {
                        self.line.len -= 1;
                    }
                    if self.end_line()? {
                        return Ok((at, Some(self.frame())));
                    }
                }
                State::Bulk(left) => {
                    let take = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len() - at);
                    if self.capture_first && left > 2 {
                        let body = take.min(usize::try_from(left - 2).unwrap_or(usize::MAX));
                        self.first.extend(&bytes[at..at + body]);
                    }
                    at += take;
                    let left = left - take as u64;
                    if left > 0 {
                        self.state = State::Bulk(left);
                    } else if self.end_element() {
                        return Ok((at, Some(self.frame())));
                    }
                }
            }
        }
        Ok((at, None))
    }

    fn frame(&mut self) -> Frame {
        let frame =
            Frame { kind: self.top_kind, line: self.top_line, first: self.first, last_integer: self.last_integer };
        self.first.clear();
        self.first_done = false;
        self.last_integer = 0;
        frame
    }

    fn number(&self) -> Result<i64, ParseError> {
        std::str::from_utf8(self.line.as_bytes()).ok().and_then(|s| s.parse().ok()).ok_or(ParseError)
    }

    /// Acts on a complete first line; true = the top-level frame is complete.
    fn end_line(&mut self) -> Result<bool, ParseError> {
        if self.open.is_empty() {
            self.top_kind = self.element;
            self.top_line = self.line;
        }
        match self.element {
            b'+' | b'-' | b'_' | b'#' | b',' | b'(' => Ok(self.end_element()),
            b':' => {
                self.last_integer = self.number().unwrap_or(0);
                Ok(self.end_element())
            }
            b'$' | b'!' | b'=' => {
                let len = self.number()?;
                if len < 0 {
                    return Ok(self.end_element());
                }
                self.capture_first = !self.open.is_empty() && !self.first_done;
                self.state = State::Bulk(len as u64 + 2);
                Ok(false)
            }
            b'*' | b'~' | b'>' | b'%' | b'|' => {
                let count = self.number()?;
                if count < 0 {
                    return Ok(self.end_element());
                }
                let doubled = matches!(self.element, b'%' | b'|');
                // An attribute stands before the value that it describes, and a push may stand before any element of a
                // reply: that value is one more element.
                let before = self.element == b'|' || (self.element == b'>' && !self.open.is_empty());
                let elements = (count as u64) * if doubled { 2 } else { 1 } + u64::from(before);
                if elements == 0 {
                    return Ok(self.end_element());
                }
                if self.open.len() >= DEPTH_MAX {
                    return Err(ParseError);
                }
                self.open.push(elements);
                self.state = State::Type;
                Ok(false)
            }
            _ => Err(ParseError),
        }
    }

    /// An element ended; true = the top-level frame is complete.
    fn end_element(&mut self) -> bool {
        self.state = State::Type;
        self.capture_first = false;
        if !self.open.is_empty() {
            self.first_done = true;
        }
        while let Some(left) = self.open.last_mut() {
            *left -= 1;
            if *left > 0 {
                return false;
            }
            self.open.pop();
        }
        true
    }
}
