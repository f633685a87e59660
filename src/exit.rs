//! Exit codes by `sysexits.h`, and the one message with which a failed command ends. `docs/exit-codes.md` lists them for users; a test
//! compares.
//!
//! This is the only place where a kind of failure becomes a code. The libraries give the kinds, so that the same failure
//! ends every command with the same code.
//!
//! | code | | from |
//! | --- | --- | --- |
//! | 1 | [`NOT_ALL`] | done, and what was asked for was not there, or some keys were left and listed |
//! | 64 | [`USAGE`] | arguments, settings |
//! | 65 | [`DATAERR`] | a damaged journal, none, one of a newer version, or one of another server |
//! | 66 | [`NOINPUT`] | no such point in time or keys |
//! | 69 | [`UNAVAILABLE`] | a server |
//! | 70 | [`SOFTWARE`] | a defect: an error without a kind, a panic, a restore of which the check failed |
//! | 71 | [`OSERR`] | a port, the system |
//! | 73 | [`CANTCREAT`] | what is in the target |
//! | 74 | [`IOERR`] | files; a transfer that broke off |
//! | 75 | [`TEMPFAIL`] | another process |
//! | 77 | [`NOPERM`] | rights and keys |
//! | 130 | [`INTERRUPTED`] | a signal, after which what was begun was undone |

use std::process::ExitCode;
use std::{fmt, io};

use redtape_journal::{FollowError, KeyringError, OpenError, PruneError, ReadError, StoreError};
use redtape_restore::RestoreError;

use crate::daemon::{CreateError, ErrorKind as DaemonErrorKind, StartError};

/// Done, but what was asked for was not there, or not all of it was done: what was left is listed.
pub(crate) const NOT_ALL: u8 = 1;
/// Wrong arguments.
pub(crate) const USAGE: u8 = 64;
/// Damaged or unsuitable data.
pub(crate) const DATAERR: u8 = 65;
/// What was asked for is not in the journal.
pub(crate) const NOINPUT: u8 = 66;
/// A service is not there, or not able.
pub(crate) const UNAVAILABLE: u8 = 69;
/// A defect of redtape itself.
pub(crate) const SOFTWARE: u8 = 70;
/// The operating system refuses something that is no file.
pub(crate) const OSERR: u8 = 71;
/// The target cannot take the data.
pub(crate) const CANTCREAT: u8 = 73;
/// A file cannot be read or written, or a copy broke off.
pub(crate) const IOERR: u8 = 74;
/// Not now: another process is in the way.
pub(crate) const TEMPFAIL: u8 = 75;
/// Not allowed, or the key is missing.
pub(crate) const NOPERM: u8 = 77;
/// Not one of `sysexits`: as shells have it, 128 + SIGINT.
pub(crate) const INTERRUPTED: u8 = 130;

/// The code of a failure of the journal, or of another file.
pub(crate) fn storage_code(kind: redtape_journal::ErrorKind) -> u8 {
    use redtape_journal::ErrorKind;
    match kind {
        ErrorKind::InUse => TEMPFAIL,
        ErrorKind::Refused => USAGE,
        ErrorKind::KeyMissing | ErrorKind::Denied => NOPERM,
        ErrorKind::NotAJournal | ErrorKind::Damaged => DATAERR,
        ErrorKind::Io => IOERR,
    }
}

/// The code of a restore that was not done.
fn restore_code(kind: redtape_restore::ErrorKind) -> u8 {
    use redtape_restore::ErrorKind;
    match kind {
        ErrorKind::Usage => USAGE,
        ErrorKind::NotInJournal => NOINPUT,
        ErrorKind::Storage(kind) => storage_code(kind),
        ErrorKind::Denied => NOPERM,
        ErrorKind::Unavailable => UNAVAILABLE,
        ErrorKind::System => OSERR,
        ErrorKind::Occupied => CANTCREAT,
        ErrorKind::Busy => TEMPFAIL,
        ErrorKind::Mismatch => SOFTWARE,
        ErrorKind::Interrupted => INTERRUPTED,
    }
}

/// The code of a proxy or capture that was not started, or of a snapshot that was not taken.
fn daemon_code(kind: DaemonErrorKind) -> u8 {
    use DaemonErrorKind as ErrorKind;
    match kind {
        ErrorKind::Config => USAGE,
        ErrorKind::Unavailable => UNAVAILABLE,
        ErrorKind::Denied => NOPERM,
        ErrorKind::OtherServer => DATAERR,
        ErrorKind::System => OSERR,
        ErrorKind::Transfer => IOERR,
        ErrorKind::Storage(kind) => storage_code(kind),
    }
}

/// The code of a file that cannot be read or written.
pub(crate) fn io_code(error: &io::Error) -> u8 {
    storage_code(error.into())
}

/// An error with the exit code that it ends in: for what no library reports.
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

impl From<KeyringError> for Failure {
    fn from(error: KeyringError) -> Self {
        Self::new(storage_code(error.kind()), error)
    }
}

/// Prints the error on stderr and gives its code.
pub(crate) fn report(error: &anyhow::Error) -> ExitCode {
    let (code, message) = outcome(error);
    crate::logging::say(&format!("redtape: {message}\n"));
    ExitCode::from(code)
}

/// The code, and the whole message. An error of no type with a kind is a defect.
fn outcome(error: &anyhow::Error) -> (u8, String) {
    fn of<E>(error: &anyhow::Error, code: fn(&E) -> u8) -> Option<(u8, String)>
    where
        E: std::error::Error + Send + Sync + 'static,
    {
        error.downcast_ref::<E>().map(|e| (code(e), e.to_string()))
    }
    let known = [
        of::<Failure>(error, |e| e.code),
        of::<OpenError>(error, |e| storage_code(e.kind())),
        of::<ReadError>(error, |e| storage_code(e.kind())),
        of::<FollowError>(error, |e| storage_code(e.kind())),
        of::<PruneError>(error, |e| storage_code(e.kind())),
        of::<StoreError>(error, |e| storage_code(e.kind())),
        of::<KeyringError>(error, |e| storage_code(e.kind())),
        of::<RestoreError>(error, |e| restore_code(e.kind())),
        of::<StartError>(error, |e| daemon_code(e.kind())),
        of::<CreateError>(error, |e| daemon_code(e.kind())),
        of::<io::Error>(error, io_code),
    ];
    let Some((code, own)) = known.into_iter().flatten().next() else {
        return (SOFTWARE, format!("{error:#}"));
    };
    // The libraries' messages hold their causes already: what was added to them by context stands before, and nothing behind.
    let mut said: Vec<String> = error.chain().map(ToString::to_string).take_while(|text| *text != own).collect();
    said.push(own);
    (code, said.join(": "))
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind::{NotFound, PermissionDenied, StorageFull};
    use std::path::PathBuf;

    use redtape_capture::snapshot::SnapshotError;
    use redtape_journal::{Damage, KeyFault, Lsn, Span};

    use super::*;

    /// A command that fails with this error ends with this code, whichever crate reports it.
    #[track_caller]
    fn ends_with(error: impl Into<anyhow::Error>, expected: u8) {
        let error = error.into();
        let own = error.to_string();
        assert_eq!(outcome(&error), (expected, own.clone()), "causes are said once");
        assert_eq!(outcome(&error.context("start")), (expected, format!("start: {own}")), "context hides nothing");
    }

    #[test]
    fn the_page_lists_the_same_codes() {
        let codes = |text: &str, from: &str, to: &str| {
            let section = text.split_once(from).expect(from).1;
            let section = section.split_once(to).expect(to).0;
            let numbers = section.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse::<u16>().ok());
            numbers.filter(|n| (64..=77).contains(n) || *n == 130).collect::<std::collections::BTreeSet<_>>()
        };
        let page = codes(include_str!("../docs/exit-codes.md"), "# Exit codes", "interrupted");
        let table = codes(include_str!("exit.rs"), "| --- |", "use std");
        assert_eq!(page, table);
        let constants =
            [USAGE, DATAERR, NOINPUT, UNAVAILABLE, SOFTWARE, OSERR, CANTCREAT, IOERR, TEMPFAIL, NOPERM, INTERRUPTED];
        assert_eq!(std::collections::BTreeSet::from(constants.map(u16::from)), table);
    }

    #[test]
    fn each_kind_of_failure_has_its_code() {
        use redtape_restore::ErrorKind as Restore;
        let io = || redtape_journal::ErrorKind::Io;
        for (kind, expected) in [
            (Restore::Usage, USAGE),
            (Restore::NotInJournal, NOINPUT),
            (Restore::Storage(io()), IOERR),
            (Restore::Denied, NOPERM),
            (Restore::Unavailable, UNAVAILABLE),
            (Restore::Occupied, CANTCREAT),
            (Restore::Busy, TEMPFAIL),
            (Restore::Mismatch, SOFTWARE),
            (Restore::Interrupted, INTERRUPTED),
        ] {
            assert_eq!(restore_code(kind), expected, "{kind:?}");
        }
        for (kind, expected) in [
            (DaemonErrorKind::Config, USAGE),
            (DaemonErrorKind::Unavailable, UNAVAILABLE),
            (DaemonErrorKind::Denied, NOPERM),
            (DaemonErrorKind::OtherServer, DATAERR),
            (DaemonErrorKind::System, OSERR),
            (DaemonErrorKind::Transfer, IOERR),
            (DaemonErrorKind::Storage(io()), IOERR),
        ] {
            assert_eq!(daemon_code(kind), expected, "{kind:?}");
        }
    }

    /// Whether a journal is opened to be read, written, pruned, restored from or recorded into.
    #[test]
    fn the_same_failure_has_the_same_code_whoever_meets_it() {
        let path = || PathBuf::from("j");
        let damage = || Box::new(Damage { expected: "a".to_owned(), found: "b".to_owned() });
        let open: [(&dyn Fn() -> OpenError, u8); 11] = [
            (&|| OpenError::Locked { dir: path(), pid: None }, TEMPFAIL),
            (&|| OpenError::Busy { dir: path() }, TEMPFAIL),
            (&|| OpenError::Key { file: path(), fault: KeyFault::Missing("k".to_owned()) }, NOPERM),
            (&|| OpenError::Key { file: path(), fault: KeyFault::Wrong("k".to_owned()) }, DATAERR),
            (&|| OpenError::NoJournal { dir: path() }, DATAERR),
            (&|| OpenError::NotAJournal { dir: path(), found: "x".to_owned() }, DATAERR),
            (&|| OpenError::NewerFormat { file: path(), found: 9, supported: 1 }, DATAERR),
            (&|| OpenError::Corrupt { file: path(), offset: 0, span: Span::default(), damage: damage() }, DATAERR),
            (&|| OpenError::Io { action: "open", path: path(), source: PermissionDenied.into() }, NOPERM),
            (&|| OpenError::Sync { action: "open", path: path(), source: PermissionDenied.into() }, NOPERM),
            (&|| OpenError::Io { action: "open", path: path(), source: NotFound.into() }, IOERR),
        ];
        for (error, expected) in open {
            ends_with(error(), expected);
            ends_with(FollowError::from(error()), expected);
            ends_with(PruneError::from(error()), expected);
            ends_with(RestoreError::from(error()), expected);
            ends_with(StartError::from(error()), expected);
            ends_with(CreateError::from(SnapshotError::from(error())), expected);
        }
        let lsn = Lsn(1);
        let read: [(&dyn Fn() -> ReadError, u8); 4] = [
            (&|| ReadError::Key { file: path(), fault: KeyFault::Missing("k".to_owned()) }, NOPERM),
            (&|| ReadError::Corrupt { file: path(), offset: 0, span: Span::default(), damage: damage() }, DATAERR),
            (&|| ReadError::Io { file: path(), offset: 0, lsn, source: PermissionDenied.into() }, NOPERM),
            (&|| ReadError::Io { file: path(), offset: 0, lsn, source: StorageFull.into() }, IOERR),
        ];
        for (error, expected) in read {
            ends_with(error(), expected);
            ends_with(FollowError::from(error()), expected);
            ends_with(RestoreError::from(error()), expected);
            ends_with(CreateError::from(SnapshotError::from(error())), expected);
        }
        for (kind, expected) in [(PermissionDenied, NOPERM), (NotFound, IOERR), (StorageFull, IOERR)] {
            let source = || io::Error::from(kind);
            let store = || StoreError { action: "write", path: path(), source: source() };
            ends_with(source(), expected);
            ends_with(store(), expected);
            ends_with(StartError::from(store()), expected);
            ends_with(CreateError::from(SnapshotError::Store(store())), expected);
            ends_with(PruneError::Io { action: "remove", path: path(), source: source() }, expected);
            ends_with(KeyringError::Io { path: path(), source: source() }, expected);
            ends_with(KeyringError::Write { path: path(), source: source() }, expected);
            ends_with(Failure::from(KeyringError::Io { path: path(), source: source() }), expected);
            ends_with(RestoreError::Io { action: "read", path: path(), source: source() }, expected);
        }
        ends_with(PruneError::Busy { dir: path() }, TEMPFAIL);
        ends_with(PruneError::InUse { dir: path() }, TEMPFAIL);
        ends_with(KeyringError::Busy { path: path() }, TEMPFAIL);
        ends_with(RestoreError::Busy { address: "a".to_owned(), who: "b".to_owned() }, TEMPFAIL);
        let undone = RestoreError::Undone { cause: Box::new(RestoreError::Interrupted), aftermath: "so".to_owned() };
        ends_with(undone, INTERRUPTED);
        assert_eq!(outcome(&anyhow::anyhow!("unknown").context("start")), (SOFTWARE, "start: unknown".to_owned()));
    }
}
