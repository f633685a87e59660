//! `--keys-from`: keys in a file, as any command of redtape prints them.
//!
//! | the file begins with | it is |
//! | --- | --- |
//! | `[`, and then `"`, `{"`, `{}` or `]` | one JSON list of entries |
//! | anything else | lines, empty ones of which are passed over |
//!
//! | a line that | is |
//! | --- | --- |
//! | begins with `{` and holds a `"` | an entry: a JSON object |
//! | begins with `"` | a key in quotes, as redtape prints it, or a JSON string |
//! | any other | the key itself |
//!
//! redtape prints no key with a `"` in it without quotes, so what it prints as a key is never taken for JSON.
//!
//! An entry is a string, or an object with `key` or `key_base64` and perhaps `db`, or with `keys`, a list of entries, as the log has
//! it. Other fields are passed over.
//!
//! Limits: [`Limits`], over all files of a command. Nothing is held but the keys and one line. Messages name lines and
//! never hold anything of them.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, ErrorKind, Read};
use std::path::{Path, PathBuf};

use redtape_journal::query::Filter;
use redtape_wire::quoted::{QuotedError, unquote};

use crate::exit::{Failure, USAGE, io_code};
use crate::keys_json::{Collector, Refused, entry, list};

/// Bytes of a file that are looked at, again and again, to tell a list from lines.
const HEAD_BYTES: u64 = 1 << 16;

/// What the files of one command may hold together.
#[derive(Debug, Clone, Copy)]
struct Limits {
    /// With that many keys of 30 bytes, a process has about 750 MiB.
    keys: u64,
    bytes: u64,
}

const LIMITS: Limits = Limits { keys: 10_000_000, bytes: 1 << 30 };

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
enum Problem {
    #[error("{0}")]
    Io(io::Error),
    #[error("it and the files before it hold more than {} MiB", .0 >> 20)]
    TooLarge(u64),
    #[error("line {line}: {why}")]
    Line { line: u64, why: String },
    #[error("it holds no key")]
    Empty,
}

/// Adds the keys in these files to what a filter wants.
pub(crate) fn add_keys(filter: &mut Filter, paths: &[PathBuf]) -> Result<(), Failure> {
    if paths.iter().filter(|path| is_stdin(path)).count() > 1 {
        return Err(Failure::new(USAGE, "--keys-from -: stdin can be read only once"));
    }
    let mut left = LIMITS;
    for path in paths {
        let mut add = |db, key| filter.add_key(db, key);
        let read = if is_stdin(path) {
            read(io::stdin().lock(), &mut left, &mut add)
        } else {
            File::open(path).map_err(Problem::Io).and_then(|file| read(file, &mut left, &mut add))
        };
        read.map_err(|problem| {
            let code = if let Problem::Io(e) = &problem { io_code(e) } else { USAGE };
            let verb = if code == USAGE { "use" } else { "read" };
            Failure::new(code, format!("cannot {verb} the keys of --keys-from {}: {problem}", path.display()))
        })?;
    }
    Ok(())
}

fn is_stdin(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// Reads one file. Of `left`, what it holds is taken away.
fn read(file: impl Read, left: &mut Limits, add: &mut dyn FnMut(Option<u32>, Vec<u8>)) -> Result<(), Problem> {
    let mut reader = BufReader::new(Limited { file, left: left.bytes });
    let mut collector = Collector::new(left.keys, add);
    let mut head = Vec::new();
    let is_list = begins_a_list(&mut reader, &mut head).map_err(|e| failed(e, left.bytes))?;
    let mut all = Cursor::new(head).chain(&mut reader);
    if is_list {
        list(&mut all, &mut collector).map_err(|refused| of_list(refused, left.bytes))?;
    } else {
        lines(&mut all, &mut collector, left.bytes)?;
    }
    let found = collector.found();
    *left = Limits { keys: left.keys - found, bytes: reader.get_ref().left };
    if found == 0 { Err(Problem::Empty) } else { Ok(()) }
}

/// Reads no more than so many bytes.
struct Limited<R> {
    file: R,
    left: u64,
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.file.read(buffer)?;
        self.left = self.left.checked_sub(n as u64).ok_or(ErrorKind::FileTooLarge)?;
        Ok(n)
    }
}

fn failed(error: io::Error, limit: u64) -> Problem {
    if error.kind() == ErrorKind::FileTooLarge { Problem::TooLarge(limit) } else { Problem::Io(error) }
}

fn of_list(refused: Refused, limit: u64) -> Problem {
    match refused {
        Refused::Io(e) => failed(e, limit),
        Refused::Entry { line, why } => Problem::Line { line, why },
    }
}

/// Reads so much into `head` that a list can be told from lines.
fn begins_a_list(reader: &mut impl BufRead, head: &mut Vec<u8>) -> io::Result<bool> {
    loop {
        if let Some(known) = is_list(head) {
            return Ok(known);
        }
        if reader.by_ref().take(HEAD_BYTES).read_until(b'\n', head)? == 0 {
            return Ok(false);
        }
    }
}

/// Whether a text begins a JSON list; `None` = it is too short to tell.
fn is_list(head: &[u8]) -> Option<bool> {
    let (first, rest) = head.trim_ascii_start().split_first()?;
    let (second, rest) = if *first == b'[' { rest.trim_ascii_start().split_first()? } else { return Some(false) };
    match second {
        b'"' => Some(true),
        // A key may begin with brackets as well: without a quote, only a whole line of nothing else is a list.
        b']' => Some(rest.trim_ascii().is_empty()),
        b'{' => rest.trim_ascii_start().split_first().map(|(third, rest)| match third {
            b'"' => true,
            b'}' => rest.trim_ascii() == b"]",
            _ => false,
        }),
        _ => Some(false),
    }
}

fn lines(reader: &mut impl BufRead, collector: &mut Collector<'_>, limit: u64) -> Result<(), Problem> {
    let (mut line, mut number) = (Vec::new(), 0);
    loop {
        line.clear();
        number += 1;
        if reader.read_until(b'\n', &mut line).map_err(|e| failed(e, limit))? == 0 {
            return Ok(());
        }
        let text = line.strip_suffix(b"\n").unwrap_or(&line);
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        one_line(text, collector).map_err(|why| Problem::Line { line: number, why })?;
    }
}

fn one_line(line: &[u8], collector: &mut Collector<'_>) -> Result<(), String> {
    let text = line.trim_ascii();
    let as_entry = |collector: &mut Collector<'_>| {
        entry(text, collector).map_err(|refused| match refused {
            Refused::Io(e) => e.to_string(),
            Refused::Entry { why, .. } => why,
        })
    };
    match text.first() {
        None => Ok(()),
        Some(b'{') if text.contains(&b'"') => as_entry(collector),
        Some(b'"') => match unquote(text) {
            Ok(key) => collector.take(None, key).map_err(str::to_owned),
            // Escapes of JSON are others.
            Err(wrong @ QuotedError::Escape) => as_entry(collector).map_err(|_| wrong.to_string()),
            Err(wrong) => Err(wrong.to_string()),
        },
        Some(_) if text.len() < line.len() => {
            Err("a key that begins or ends with a blank must be in double quotes".to_owned())
        }
        Some(_) => collector.take(None, text.to_vec()).map_err(str::to_owned),
    }
}

#[cfg(test)]
#[path = "keys_file_tests.rs"]
mod tests;
