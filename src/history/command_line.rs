//! A command with its arguments as one line of bytes, for `--grep`.

use redtape_journal::Record;
use redtape_journal::query::LinePatterns;
use redtape_wire::quoted::quote;

/// Whether a pattern matches the command: as its bytes are, with a blank between arguments, or as they are printed, where
/// that is something else. Nothing is cut.
pub(super) fn matches_line(patterns: &LinePatterns, record: &Record) -> bool {
    let mut line = Vec::with_capacity(record.args.iter().map(|arg| arg.len() + 1).sum());
    for arg in &record.args {
        if !line.is_empty() {
            line.push(b' ');
        }
        line.extend_from_slice(arg);
    }
    if patterns.is_match(&line) {
        return true;
    }
    let printed = record.args.iter().map(|arg| quote(arg)).collect::<Vec<_>>().join(" ");
    printed.as_bytes() != line && patterns.is_match(printed.as_bytes())
}
