//! Files of JSON lines with checksums: each line ends with a CRC32C of what is before it,
//! `{"name":…,"crc32c":"9a3f00d1"}`.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::directory::write_atomically;
use crate::files;

/// What stands between the fields and their checksum.
const CRC_FIELD: &str = ",\"crc32c\":\"";

/// Longest torn line that is cut off: longer than any line that is written.
const TORN_MAX: u64 = 1 << 16;

/// One line, with its end.
pub(crate) fn encode(value: &impl Serialize) -> io::Result<String> {
    let mut line = serde_json::to_string(value).map_err(io::Error::other)?;
    line.pop();
    let crc = crc32c::crc32c(line.as_bytes());
    Ok(format!("{line}{CRC_FIELD}{crc:08x}\"}}\n"))
}

/// Puts a file of such lines in place as a whole.
pub(crate) fn store(path: &Path, values: &[impl Serialize]) -> io::Result<()> {
    let lines: io::Result<String> = values.iter().map(encode).collect();
    write_atomically(path, lines?.as_bytes())
}

/// What a line without its end says; `None` = it is damaged.
pub(crate) fn decode<T: DeserializeOwned>(line: &[u8]) -> Option<T> {
    let line = std::str::from_utf8(line).ok()?;
    let (body, crc) = line.rsplit_once(CRC_FIELD)?;
    if crc.strip_suffix("\"}")? != format!("{:08x}", crc32c::crc32c(body.as_bytes())) {
        return None;
    }
    serde_json::from_str(&format!("{body}}}")).ok()
}

/// Appends a line to an open file of such lines, in `folder`, and syncs it. A torn line at the end, of an append that failed or was
/// cut short, goes first: nobody was told that it was written. If this append fails, it leaves no part of its line, where the disk
/// allows that.
pub(crate) fn append(mut file: File, line: &str, folder: &Path) -> io::Result<()> {
    let len = file.metadata()?.len();
    let torn = torn_bytes(&file, len)?;
    let mut text = String::new();
    let begin = if torn <= TORN_MAX { len - torn } else { len };
    if begin < len {
        file.set_len(begin)?;
    } else if torn > 0 {
        // No append has left that: it stays to be looked at.
        text.push('\n');
    }
    text.push_str(line);
    if let Err(e) = file.write_all(text.as_bytes()) {
        // On a full disk a part of the line may stand there.
        let _ = file.set_len(begin);
        return Err(e);
    }
    files::sync(&file)?;
    if len == 0 { files::sync_dir(folder) } else { Ok(()) }
}

/// Bytes behind the last whole line of a file of `len` bytes; more than [`TORN_MAX`] are not counted to the end.
fn torn_bytes(file: &File, len: u64) -> io::Result<u64> {
    let mut tail = vec![0; len.min(TORN_MAX + 1) as usize];
    let from = len - tail.len() as u64;
    file.read_exact_at(&mut tail, from)?;
    let behind = tail.iter().rev().take_while(|&&byte| byte != b'\n').count();
    Ok(behind as u64)
}

/// What the lines say, in order, and the offsets of those that are damaged. A last line without its end is torn or being
/// written: it is left out silently.
pub(crate) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> (Vec<T>, Vec<u64>) {
    let (mut values, mut wrong, mut offset) = (Vec::new(), Vec::new(), 0);
    for line in bytes.split_inclusive(|&b| b == b'\n') {
        if let Some(line) = line.strip_suffix(b"\n")
            && !line.is_empty()
        {
            match decode(line) {
                Some(value) => values.push(value),
                None => wrong.push(offset),
            }
        }
        offset += line.len() as u64;
    }
    (values, wrong)
}
