//! What commands print on stdout, and how sizes, counts and bytes are written for people.

use std::io::Write as _;

/// Bytes of one argument that a person is shown.
const SHOWN_BYTES: usize = 60;

/// Writes to stdout; a reader that has enough (`| head`) is no error.
pub(crate) fn out(text: &str) -> anyhow::Result<()> {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
        other => Ok(other?),
    }
}

/// A size for people.
pub(crate) fn bytes(n: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut value, mut unit) = (n as f64, 0);
    while value >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{n} B") } else { format!("{value:.1} {}", units[unit]) }
}

/// `1 key`, `2 keys`.
pub(crate) fn count(n: u64, one: &str, many: &str) -> String {
    format!("{n} {}", if n == 1 { one } else { many })
}

/// As redis-cli shows bytes: quoted where needed, cut when long.
pub(crate) fn shown(arg: &[u8]) -> String {
    let cut = &arg[..arg.len().min(SHOWN_BYTES)];
    let plain = !arg.is_empty() && cut.iter().all(|b| b.is_ascii_graphic() && *b != b'"' && *b != b'\\');
    let mut text =
        if plain { String::from_utf8_lossy(cut).into_owned() } else { format!("\"{}\"", cut.escape_ascii()) };
    if arg.len() > SHOWN_BYTES {
        text += &format!("…({})", bytes(arg.len() as u64));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_for_people() {
        assert_eq!(shown(b"key:1"), "key:1");
        assert_eq!(shown(b""), "\"\"");
        assert_eq!(shown(b"a b\0\n"), "\"a b\\x00\\n\"");
        assert!(shown(&[b'x'; 3000]).ends_with("…(2.9 KiB)"));
    }
}
