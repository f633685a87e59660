//! Exit codes by `sysexits.h`, and the one message with which a failed command ends.

use std::fmt;
use std::process::ExitCode;

/// Wrong arguments.
pub(crate) const USAGE: u8 = 64;
/// Damaged or unsuitable data.
pub(crate) const DATAERR: u8 = 65;
/// Not allowed, or the key is missing.
pub(crate) const NOPERM: u8 = 77;
/// A file can't be read or written.
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

/// Prints the error on stderr and gives its code.
pub(crate) fn report(error: &anyhow::Error) -> ExitCode {
    crate::logging::say(&format!("redtape: {error:#}\n"));
    let code = error.downcast_ref::<Failure>().map(|f| f.code);
    ExitCode::from(code.unwrap_or(SOFTWARE))
}
