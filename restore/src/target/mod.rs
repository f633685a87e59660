//! Where a dataset goes. Each kind of target has a file or folder of its own; what they get is a
//! `Source`, which does not know them.
//!
//! | target | |
//! | --- | --- |
//! | a running server | `server/`, by one of the methods of [`crate::plan`] |
//! | a large value of a running server | `pieces/`, so that no other client waits |
//! | clients of a read-only server | `serve/`: the scratch server itself |
//! | the requester | nothing is written: [`mod@crate::get`] |

mod address;
pub mod claim;
pub(crate) mod copy;
pub mod limits;
pub(crate) mod lookup;
pub mod memory;
pub mod pieces;
pub mod preflight;
pub mod repair;
pub mod rights;
pub mod serve;
pub(crate) mod server;
pub mod unfinished;
pub(crate) mod value_error;

pub use self::address::ServerAddress;
pub use self::serve::address::ServeAddress;

/// Where to.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(clippy::large_enum_variant, reason = "a request has one")]
pub enum Target {
    /// A running server.
    Server(ServerAddress),
    /// Clients of a read-only server, for as long as it is wanted ([`serve`]).
    Serve(ServeAddress),
    /// The requester: one key is read ([`crate::get::get`]).
    Reader,
}
