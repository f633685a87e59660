//! Why a value was not built or read in pieces, and what the caller can do.

use redtape_wire::rdb::Inexpressible;

use crate::error::RestoreError;

/// Why a value was not built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// It can only be restored as a whole, by `RESTORE`. Nothing was written.
    #[error("{0} cannot be built in pieces")]
    NotInPieces(&'static str),
    /// The server cannot hold all of it. Nothing was written. Who accepts that takes the losses out of the value first.
    #[error(transparent)]
    Inexpressible(#[from] Inexpressible),
    /// The temporary key was removed or changed by another client, or evicted; what was left of it was removed.
    #[error("the temporary key {0} is not what was written to it: another client changed it, or the server evicted it")]
    Lost(String),
    /// The server refused a piece, or was lost. What was built was removed, if the server could be reached.
    #[error(transparent)]
    Server(#[from] RestoreError),
}

/// Why a value was not read.
#[derive(Debug, thiserror::Error)]
pub enum ReadPiecesError {
    /// There is no such key.
    #[error("the key is gone")]
    Gone,
    /// Another client has written to it meanwhile.
    #[error("the key was changed while it was read")]
    Changed,
    /// It can only be read as a whole, by `DUMP`.
    #[error("{0} cannot be read in pieces")]
    NotInPieces(&'static str),
    /// A reply that no server gives.
    #[error("the server's reply to {0} is not understood")]
    Reply(&'static str),
    /// The server refused a command, or was lost.
    #[error(transparent)]
    Server(#[from] RestoreError),
}
