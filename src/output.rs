//! What commands print on stdout, and how sizes, counts and bytes are written for people.

use std::io::Write as _;

use redtape_wire::quoted::{quote, quote_cut};

/// Bytes of one argument that a person is shown.
const SHOWN_BYTES: usize = 60;
/// Bytes of a key that a person is shown.
const SHOWN_KEY_BYTES: usize = 1024;

/// Writes to stdout; a reader that has enough (`| head`) is no error.
pub(crate) fn out(text: &str) -> anyhow::Result<()> {
    out_bytes(text.as_bytes())
}

/// The same for bytes.
pub(crate) fn out_bytes(bytes: &[u8]) -> anyhow::Result<()> {
    // Stdout gathers what is behind the last line.
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
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

/// Bytes that can be pasted back (`redtape_wire::quoted`): quoted where needed, cut when long.
pub(crate) fn shown(arg: &[u8]) -> String {
    shown_up_to(arg, SHOWN_BYTES)
}

/// The same for a key, which is cut only when it is much longer: what was cut cannot be pasted.
pub(crate) fn shown_key(key: &[u8]) -> String {
    shown_up_to(key, SHOWN_KEY_BYTES)
}

fn shown_up_to(arg: &[u8], limit: usize) -> String {
    match quote_cut(arg, limit) {
        None => quote(arg),
        Some(cut) => format!("{cut}…({})", bytes(arg.len() as u64)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_for_people() {
        assert_eq!(shown(b"key:1"), "key:1");
        assert_eq!(shown(b""), "\"\"");
        assert_eq!(shown(b"a b\0\n"), "\"a b\\x00\\n\"");
        let cut = shown(&[b'x'; 3000]);
        assert!(cut.starts_with("\"xxx") && cut.ends_with("xxx\"…(2.9 KiB)"), "{cut}");
        assert!(redtape_wire::quoted::unquote(cut.as_bytes()).is_err());
        assert_eq!((shown(b"it's").as_str(), shown_key(&[b'x'; 1024]).len()), ("\"it\\x27s\"", 1024));
    }
}
