//! Exit codes by `sysexits.h`, and the one message with which a failed command ends. README lists them for users; a test
//! compares.
//!
//! | code | | from |
//! | --- | --- | --- |
//! | 64 | [`USAGE`] | arguments, settings |
//! | 65 | [`DATAERR`] | a damaged journal, none, or one of a newer version |
//! | 66 | `NOINPUT` | `redtape-restore`: no such moment or keys |
//! | 69 | [`UNAVAILABLE`] | a server |
//! | 70 | [`SOFTWARE`] | an error that nobody has given a code: a defect |
//! | 71 | `OSERR` | `redtape-proxy`: a port, the system |
//! | 73 | `CANTCREAT` | `redtape-restore`: what is in the target |
//! | 74 | [`IOERR`] | files |
//! | 75 | [`TEMPFAIL`] | another process |
//! | 77 | [`NOPERM`] | rights and keys |
//! | 130 | | `redtape-restore`: interrupted |

use std::process::ExitCode;
use std::{fmt, io};

use redtape_journal::{KeyFault, OpenError, ReadError};

/// Wrong arguments.
pub(crate) const USAGE: u8 = 64;
/// Damaged or unsuitable data.
pub(crate) const DATAERR: u8 = 65;
/// Not allowed, or the key is missing.
pub(crate) const NOPERM: u8 = 77;
/// A file cannot be read or written.
pub(crate) const IOERR: u8 = 74;
/// Not now: somebody else is in the way.
pub(crate) const TEMPFAIL: u8 = 75;
/// A defect of redtape itself.
pub(crate) const SOFTWARE: u8 = 70;
/// A service is not there.
pub(crate) const UNAVAILABLE: u8 = 69;

/// An error with the exit code that it ends in.
#[derive(Debug)]
pub(crate) struct Failure {
    code: u8,
    message: String,
}

impl Failure {
    /// A message that says what to do, and its code.
    pub(crate) fn new(code: u8, message: impl fmt::Display) -> Self {
        Self { code, message: message.to_string() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

/// The code of a file that cannot be read or written.
pub(crate) fn io_code(error: &io::Error) -> u8 {
    if error.kind() == io::ErrorKind::PermissionDenied { NOPERM } else { IOERR }
}

/// The code of a journal that cannot be opened.
pub(crate) fn open_code(error: &OpenError) -> u8 {
    match error {
        OpenError::Io { source, .. } | OpenError::Sync { source, .. } => io_code(source),
        OpenError::Locked { .. } => TEMPFAIL,
        OpenError::Key { fault, .. } => key_code(fault),
        _ => DATAERR,
    }
}

/// The code of a journal that cannot be read.
pub(crate) fn read_code(error: &ReadError) -> u8 {
    match error {
        ReadError::Io { source, .. } => io_code(source),
        ReadError::Key { fault, .. } => key_code(fault),
        _ => DATAERR,
    }
}

/// A wrong key cannot be told from a damaged one.
fn key_code(fault: &KeyFault) -> u8 {
    if matches!(fault, KeyFault::Missing(_)) { NOPERM } else { DATAERR }
}

/// A journal that can't be opened, with its exit code.
pub(crate) fn open_failure(error: OpenError) -> Failure {
    Failure::new(open_code(&error), error)
}

/// A journal that can't be read, with its exit code.
pub(crate) fn read_failure(error: ReadError) -> Failure {
    Failure::new(read_code(&error), error)
}

/// Prints the error on stderr and gives its code.
pub(crate) fn report(error: &anyhow::Error) -> ExitCode {
    crate::logging::say(&format!("redtape: {error:#}\n"));
    ExitCode::from(code(error))
}

/// An error that nobody has given a code, and whose kind does not tell it, is a defect.
fn code(error: &anyhow::Error) -> u8 {
    if let Some(failure) = error.downcast_ref::<Failure>() {
        return failure.code;
    }
    let by_kind = [
        error.downcast_ref::<OpenError>().map(open_code),
        error.downcast_ref::<ReadError>().map(read_code),
        error.downcast_ref::<io::Error>().map(io_code),
    ];
    by_kind.into_iter().flatten().next().unwrap_or(SOFTWARE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_readme_lists_the_same_codes() {
        let codes = |text: &str, from: &str, to: &str| {
            let section = text.split_once(from).expect(from).1;
            let section = section.split_once(to).expect(to).0;
            let numbers = section.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse::<u16>().ok());
            numbers.filter(|n| (64..=77).contains(n) || *n == 130).collect::<std::collections::BTreeSet<_>>()
        };
        let readme = codes(include_str!("../README.md"), "## Exit codes", "interrupted");
        let table = codes(include_str!("exit.rs"), "| --- |", "use std");
        assert_eq!(readme, table);
        let constants = [USAGE, DATAERR, UNAVAILABLE, SOFTWARE, IOERR, TEMPFAIL, NOPERM].map(u16::from);
        assert!(constants.iter().all(|code| table.contains(code)), "{constants:?} {table:?}");
    }

    #[test]
    fn a_journal_that_is_locked_or_closed_to_us() {
        let io = |kind| OpenError::Io { action: "open", path: "j".into(), source: io::Error::from(kind) };
        assert_eq!(open_code(&OpenError::Locked { dir: "j".into(), pid: None }), TEMPFAIL);
        assert_eq!(open_code(&io(io::ErrorKind::PermissionDenied)), NOPERM);
        assert_eq!(open_code(&io(io::ErrorKind::StorageFull)), IOERR);
        assert_eq!(open_code(&OpenError::NoJournal { dir: "j".into() }), DATAERR);
        let bare = anyhow::Error::from(io::Error::from(io::ErrorKind::StorageFull)).context("write");
        assert_eq!(code(&bare), IOERR);
        assert_eq!(code(&OpenError::NoJournal { dir: "j".into() }.into()), DATAERR);
        assert_eq!(code(&anyhow::anyhow!("unknown")), SOFTWARE);
    }
}
