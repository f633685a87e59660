//! Files of JSON lines with checksums: each line ends with a CRC32C of what is before it,
//! `{"name":…,"crc32c":"9a3f00d1"}`.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::directory::write_atomically;
use crate::files;

/// What stands between the fields and their checksum.
const CRC_FIELD: &str = ",\"crc32c\":\"";

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

/// Appends a line to an open file of such lines, in `folder`, and syncs it. If the file ends within a line, it begins a new one.
pub(crate) fn append(mut file: File, line: &str, folder: &Path) -> io::Result<()> {
    let len = file.metadata()?.len();
    let mut text = String::new();
    if len > 0 {
        let mut last = [0; 1];
        file.seek(SeekFrom::Start(len - 1))?;
        file.read_exact(&mut last)?;
        if last != *b"\n" {
            text.push('\n');
        }
    }
    text.push_str(line);
    file.write_all(text.as_bytes())?;
    files::sync(&file)?;
    if len == 0 { files::sync_dir(folder) } else { Ok(()) }
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
