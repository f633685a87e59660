//! What kind of failure an error is; exit codes are made from it.

/// The kinds of failures of a start, or of a snapshot on request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The options cannot be used.
    Config,
    /// A server is not there, or not able.
    Unavailable,
    /// A server does not accept the user, or does not allow a command.
    Denied,
    /// The server is not the one that the journal records.
    OtherServer,
    /// The operating system refuses a port, a thread or the like.
    System,
    /// What a server sent broke off on its way.
    Transfer,
    /// The journal, or one of its files.
    Storage(redtape_journal::ErrorKind),
}
