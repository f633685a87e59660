//! What one client writes and what it must get back. Everything is made before the clock runs; only the
//! digits of keys are written anew for each round, so that the generator costs little but its system calls.

use anyhow::{Result, bail};
use memchr::memchr;

use crate::cells::{Cell, Work};

/// Digits of a key's or a member's number.
const DIGITS: usize = 12;

/// One request, and where in it numbers are to be written.
#[derive(Clone)]
struct Request {
    bytes: Vec<u8>,
    numbers: Vec<usize>,
    reply: Reply,
}

/// What a request must be answered by.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reply {
    Ok,
    /// A string of the cell's length.
    Value,
    Integer,
}

/// The requests of one cell.
#[derive(Clone)]
pub(crate) struct Requests {
    /// One request, or the write and the read of mixed work.
    kinds: Vec<Request>,
    value_bytes: usize,
    value_head: Vec<u8>,
    keys: u64,
}

/// A number is put wherever this stands in an argument.
const NUMBER: &[u8] = b"############";

impl Request {
    fn new(args: &[&[u8]], reply: Reply) -> Self {
        let mut bytes = format!("*{}\r\n", args.len()).into_bytes();
        let mut numbers = Vec::new();
        for arg in args {
            bytes.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
            if let Some(at) = arg.windows(DIGITS).position(|w| w == NUMBER) {
                numbers.push(bytes.len() + at);
            }
            bytes.extend_from_slice(arg);
            bytes.extend_from_slice(b"\r\n");
        }
        Self { bytes, numbers, reply }
    }
}

impl Requests {
    pub(crate) fn of(cell: &Cell) -> Self {
        let value = value(cell.bytes);
        let set = Request::new(&[b"SET", b"key:############", &value], Reply::Ok);
        let get = Request::new(&[b"GET", b"key:############"], Reply::Value);
        let kinds = match cell.work {
            Work::Set => vec![set],
            Work::Get => vec![get],
            Work::Mixed => vec![set, get],
            Work::Lpush => vec![Request::new(&[b"LPUSH", b"list:############", &value], Reply::Integer)],
            Work::Zadd => {
                vec![Request::new(&[b"ZADD", b"zset", b"############", b"element:############"], Reply::Integer)]
            }
        };
        let value_head = format!("${}\r\n", cell.bytes).into_bytes();
        Self { kinds, value_bytes: cell.bytes, value_head, keys: cell.keys() as u64 }
    }

    /// A SET of each key, for a server that is to be read from.
    pub(crate) fn all_keys(cell: &Cell) -> impl Iterator<Item = Vec<u8>> {
        let set = Request::new(&[b"SET", b"key:############", &value(cell.bytes)], Reply::Ok);
        (0..cell.keys() as u64).map(move |key| {
            let mut bytes = set.bytes.clone();
            for &at in &set.numbers {
                write_number(&mut bytes[at..at + DIGITS], key);
            }
            bytes
        })
    }
}

/// Letters and digits without a pattern: nobody gains from compressing well.
fn value(bytes: usize) -> Vec<u8> {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    (0..bytes).map(|_| LETTERS[(random.next() >> 58) as usize]).collect()
}

/// xorshift64*: quick, and good enough to spread keys.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, n: u64) -> u64 {
        ((self.next() >> 32) * n) >> 32
    }
}

fn write_number(field: &mut [u8], mut number: u64) {
    for digit in field.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

/// One client's requests under way, and how far their replies have come.
pub(crate) struct Batch {
    pub(crate) out: Vec<u8>,
    pipeline: usize,
    kinds: Vec<u8>,
    answered: usize,
    /// Bytes of a value, with its CRLF, that are still to come.
    body: usize,
    /// The beginning of a reply's first line, where a read ended in it.
    head: Vec<u8>,
}

impl Batch {
    pub(crate) fn new(pipeline: usize) -> Self {
        Self { out: Vec::new(), pipeline, kinds: Vec::new(), answered: 0, body: 0, head: Vec::new() }
    }

    /// The next requests are in `out`.
    pub(crate) fn refill(&mut self, requests: &Requests, random: &mut Random) {
        self.answered = 0;
        let mixed = requests.kinds.len() > 1;
        if mixed || self.out.is_empty() {
            self.out.clear();
            self.kinds.clear();
            for _ in 0..self.pipeline {
                let kind = usize::from(mixed && random.below(5) != 0);
                self.out.extend_from_slice(&requests.kinds[kind].bytes);
                self.kinds.push(kind as u8);
            }
        }
        let mut start = 0;
        for &kind in &self.kinds {
            let request = &requests.kinds[usize::from(kind)];
            for &at in &request.numbers {
                let field = start + at;
                write_number(&mut self.out[field..field + DIGITS], random.below(requests.keys));
            }
            start += request.bytes.len();
        }
    }

    pub(crate) fn done(&self) -> bool {
        self.answered == self.pipeline
    }

    /// Takes what was read; gives the number of replies that are whole now. Fails at a reply of another kind.
    pub(crate) fn take(&mut self, mut data: &[u8], requests: &Requests) -> Result<usize> {
        let before = self.answered;
        while !data.is_empty() {
            if self.body > 0 {
                let n = self.body.min(data.len());
                data = &data[n..];
                self.body -= n;
                self.answered += usize::from(self.body == 0);
                continue;
            }
            if self.done() {
                bail!("a reply that nobody asked for: {}", data[..data.len().min(80)].escape_ascii());
            }
            let reply = requests.kinds[usize::from(self.kinds[self.answered])].reply;
            let Some(end) = memchr(b'\n', data) else {
                self.head.extend_from_slice(data);
                break;
            };
            let (line, rest) = data.split_at(end + 1);
            data = rest;
            if self.head.is_empty() {
                self.line(line, reply, requests)?;
            } else {
                let mut head = std::mem::take(&mut self.head);
                head.extend_from_slice(line);
                self.line(&head, reply, requests)?;
            }
        }
        Ok(self.answered - before)
    }

    fn line(&mut self, line: &[u8], reply: Reply, requests: &Requests) -> Result<()> {
        match reply {
            Reply::Ok if line == b"+OK\r\n" => self.answered += 1,
            Reply::Value if line == requests.value_head => self.body = requests.value_bytes + 2,
            Reply::Integer if line[0] == b':' && line[1..line.len() - 2].iter().all(u8::is_ascii_digit) => {
                self.answered += 1;
            }
            _ => bail!("not the reply that was due: {}", line.escape_ascii()),
        }
        Ok(())
    }
}
