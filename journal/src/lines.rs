//! Lines of JSON that prove themselves: each ends with a CRC32C of what is before it,
//! `{"name":…,"crc32c":"9a3f00d1"}`.

use std::io;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::directory::write_atomically;

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
