//! A connection that speaks raw commands: any bytes as arguments, errors as values, pipelines.
//!
//! Reads replies itself, RESP2 and RESP3: an error reply may quote a binary argument, at which client
//! libraries that expect text give up. For a client library's own view, see `Server::client`.

use std::io::{BufRead, BufReader, Error, ErrorKind, Read, Result, Write};
use std::net::TcpStream;
use std::time::Duration;

/// One reply.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Nil,
    Int(i64),
    /// A bulk or verbatim string, or a big number.
    Bytes(Vec<u8>),
    /// A simple string.
    Text(String),
    Error(String),
    Double(f64),
    Bool(bool),
    Array(Vec<Value>),
    /// Key, value, key, value.
    Map(Vec<Value>),
    Set(Vec<Value>),
    Push(Vec<Value>),
}

/// One command, as the server gets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Args(pub Vec<Vec<u8>>);

impl Args {
    /// The command's name in upper case.
    pub fn name(&self) -> String {
        String::from_utf8_lossy(&self.0[0]).to_ascii_uppercase()
    }

    #[must_use]
    pub fn and(mut self, arg: impl Arg) -> Self {
        self.0.push(arg.bytes());
        self
    }

    pub fn push(&mut self, arg: impl Arg) {
        self.0.push(arg.bytes());
    }

    /// Appended to `out` as a RESP array.
    pub fn pack(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(format!("*{}\r\n", self.0.len()).as_bytes());
        for arg in &self.0 {
            out.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
            out.extend_from_slice(arg);
            out.extend_from_slice(b"\r\n");
        }
    }
}

/// What can stand as an argument.
pub trait Arg {
    fn bytes(&self) -> Vec<u8>;
}

macro_rules! arg_as_text {
    ($($t:ty),*) => { $(impl Arg for $t { fn bytes(&self) -> Vec<u8> { self.to_string().into_bytes() } })* };
}
arg_as_text!(str, String, i32, i64, u8, u16, u32, u64, usize, f64);

impl Arg for Vec<u8> {
    fn bytes(&self) -> Vec<u8> {
        self.clone()
    }
}
impl Arg for [u8] {
    fn bytes(&self) -> Vec<u8> {
        self.to_vec()
    }
}
impl<T: Arg + ?Sized> Arg for &T {
    fn bytes(&self) -> Vec<u8> {
        (**self).bytes()
    }
}

/// `args!["SET", key, 1]`
macro_rules! args {
    ($($arg:expr),* $(,)?) => {
        $crate::harness::conn::Args(vec![$($crate::harness::conn::Arg::bytes(&$arg)),*])
    };
}

/// A connection without a protocol, on which nothing is waited for longer than some seconds.
pub fn raw(port: u16) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port)).expect("a connection");
    stream.set_read_timeout(Some(Duration::from_secs(8))).expect("a limit");
    stream.set_write_timeout(Some(Duration::from_secs(8))).expect("a limit");
    stream
}

/// What comes until the end; panics when there is no end in time.
#[track_caller]
pub fn until_closed(stream: &mut impl Read) -> Vec<u8> {
    let mut got = Vec::new();
    match stream.read_to_end(&mut got) {
        Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => panic!("it is not closed"),
        _ => got,
    }
}

/// A client. Replies with errors inside are values: only a broken connection is an `Err`.
pub struct Conn(BufReader<TcpStream>);

impl Conn {
    /// `redis://host:port`, or `redis://host:port/?protocol=resp3`.
    pub fn open(url: &str) -> Result<Self> {
        let address = url.strip_prefix("redis://").expect("a redis:// URL");
        let (address, query) = address.split_once('/').unwrap_or((address, ""));
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_mins(1)))?;
        stream.set_write_timeout(Some(Duration::from_mins(1)))?;
        let mut conn = Self(BufReader::with_capacity(64 * 1024, stream));
        if query.contains("protocol=resp3")
            && let Value::Error(e) = conn.call(&args!["HELLO", 3])?
        {
            return Err(Error::other(e));
        }
        Ok(conn)
    }

    pub fn call(&mut self, command: &Args) -> Result<Value> {
        let mut bytes = Vec::new();
        command.pack(&mut bytes);
        self.send(&bytes)?;
        self.reply()
    }

    /// Like `call`, for what must work.
    #[track_caller]
    pub fn must(&mut self, command: &Args) -> Value {
        match self.call(command) {
            Ok(Value::Error(e)) => panic!("{}: {e}", show(command)),
            Ok(value) => value,
            Err(e) => panic!("{}: {e}", show(command)),
        }
    }

    pub fn pipeline(&mut self, commands: &[Args]) -> Result<Vec<Value>> {
        let mut bytes = Vec::new();
        for command in commands {
            command.pack(&mut bytes);
        }
        self.send(&bytes)?;
        commands.iter().map(|_| self.reply()).collect()
    }

    /// Raw bytes, without reading a reply.
    pub fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.0.get_mut().write_all(bytes)
    }

    /// The next reply; pushes that come before it are dropped.
    pub fn reply(&mut self) -> Result<Value> {
        loop {
            match read_value(&mut self.0)? {
                Value::Push(_) => {}
                other => return Ok(other),
            }
        }
    }

    /// The next reply, if it begins to come within this time.
    pub fn reply_within(&mut self, limit: Duration) -> Option<Value> {
        self.0.get_ref().set_read_timeout(Some(limit)).expect("a limit");
        let reply = match self.reply() {
            Ok(value) => Some(value),
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => None,
            Err(e) => panic!("a reply: {e}"),
        };
        self.0.get_ref().set_read_timeout(Some(Duration::from_mins(1))).expect("a limit");
        reply
    }

    /// The text of `INFO section`'s field.
    pub fn info(&mut self, section: &str, field: &str) -> String {
        let text = text(&self.must(&args!["INFO", section]));
        text.lines()
            .find_map(|l| l.strip_prefix(field)?.strip_prefix(':').map(str::to_owned))
            .unwrap_or_else(|| panic!("INFO {section} has no {field}"))
    }
}

/// A command in a message: printable, and not too long.
pub fn show(command: &Args) -> String {
    let words: Vec<String> = command.0.iter().take(12).map(|a| show_bytes(a)).collect();
    words.join(" ")
}

pub fn show_bytes(bytes: &[u8]) -> String {
    let mut text = bytes[..bytes.len().min(60)].escape_ascii().to_string();
    if bytes.len() > 60 {
        text.push_str(&format!("…({} bytes)", bytes.len()));
    }
    text
}

fn read_value(from: &mut impl BufRead) -> Result<Value> {
    let mut line = Vec::new();
    from.read_until(b'\n', &mut line)?;
    let Some((kind, rest)) = line.strip_suffix(b"\r\n").and_then(|l| l.split_first()) else {
        return Err(ErrorKind::UnexpectedEof.into());
    };
    let text = String::from_utf8_lossy(rest).into_owned();
    let bad = || Error::new(ErrorKind::InvalidData, format!("not a reply: {:?}", line.escape_ascii().to_string()));
    let number = || text.parse::<i64>().map_err(|_| bad());
    let list = |from: &mut _, each: i64| (0..number()? * each).map(|_| read_value(from)).collect::<Result<Vec<_>>>();
    Ok(match kind {
        b'+' => Value::Text(text),
        b'-' => Value::Error(text),
        b':' => Value::Int(number()?),
        b'_' => Value::Nil,
        b',' => Value::Double(text.parse().map_err(|_| bad())?),
        b'#' => Value::Bool(text == "t"),
        b'(' => Value::Bytes(rest.to_vec()),
        b'$' | b'!' | b'=' => {
            let Ok(len) = usize::try_from(number()?) else { return Ok(Value::Nil) };
            let mut bytes = vec![0; len + 2];
            from.read_exact(&mut bytes)?;
            bytes.truncate(len);
            match kind {
                b'!' => Value::Error(String::from_utf8_lossy(&bytes).into_owned()),
                // A verbatim string starts with its format, as in `txt:`.
                b'=' => Value::Bytes(bytes.split_off(4)),
                _ => Value::Bytes(bytes),
            }
        }
        b'*' if text == "-1" => Value::Nil,
        b'*' => Value::Array(list(from, 1)?),
        b'%' => Value::Map(list(from, 2)?),
        b'~' => Value::Set(list(from, 1)?),
        b'>' => Value::Push(list(from, 1)?),
        // An attribute stands before the value that it belongs to.
        b'|' => {
            list(from, 2)?;
            read_value(from)?
        }
        _ => return Err(bad()),
    })
}

/// The bytes of a reply that is a string of any kind.
#[track_caller]
pub fn bytes(value: &Value) -> Vec<u8> {
    match value {
        Value::Bytes(b) => b.clone(),
        Value::Text(s) => s.clone().into_bytes(),
        Value::Int(n) => n.to_string().into_bytes(),
        other => panic!("a string was expected: {other:?}"),
    }
}

#[track_caller]
pub fn text(value: &Value) -> String {
    String::from_utf8_lossy(&bytes(value)).into_owned()
}

#[track_caller]
pub fn int(value: &Value) -> i64 {
    match value {
        Value::Int(n) => *n,
        other => text(other).parse().unwrap_or_else(|_| panic!("a number was expected: {other:?}")),
    }
}

/// The items of an array, set, or map (as key, value, key, value).
#[track_caller]
pub fn items(value: &Value) -> Vec<Value> {
    match value {
        Value::Array(items) | Value::Set(items) | Value::Map(items) => items.clone(),
        Value::Nil => Vec::new(),
        other => panic!("an array was expected: {other:?}"),
    }
}
