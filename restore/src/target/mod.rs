//! Where a dataset goes. Each kind of target has a file or folder of its own; what they get is a
//! `Source`, which does not know them.
//!
//! | target | |
//! | --- | --- |
//! | a running server | `server/`, by one of the methods of [`crate::plan`] |
//! | a cluster | `cluster/`: each node its own keys, as into a server that holds others |
//! | an RDB, an append-only file, JSON lines | `file.rs`, which has them appear as a whole (`new_file.rs`, `new_folder.rs`); `rdb/`, `aof/`, `jsonl/` |
//! | a large value of a running server | `pieces/`, so that no other client waits |
//! | clients of a read-only server | `serve/`: the scratch server itself |
//! | the requester | nothing is written: [`mod@crate::get`] |

mod address;
pub(crate) mod aof;
pub mod claim;
pub(crate) mod cluster;
pub(crate) mod copy;
pub(crate) mod file;
pub(crate) mod fit;
pub(crate) mod jsonl;
pub mod limits;
pub(crate) mod lookup;
pub mod memory;
pub(crate) mod new_file;
pub(crate) mod new_folder;
mod options;
pub mod pieces;
pub mod preflight;
pub(crate) mod rdb;
pub mod repair;
pub(crate) mod restored;
pub mod rights;
pub mod serve;
pub(crate) mod server;
pub mod unfinished;
pub(crate) mod value_error;

pub use self::address::{FileAddress, FileFormat, Output, ServerAddress};
pub use self::restored::{History, WrittenFile};
pub use self::serve::address::ServeAddress;

/// Where to.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(clippy::large_enum_variant, reason = "a request has one")]
pub enum Target {
    /// A running server.
    Server(ServerAddress),
    /// A file that does not exist yet, or standard output.
    File(FileAddress),
    /// Clients of a read-only server, for as long as it is wanted ([`serve`]).
    Serve(ServeAddress),
    /// The requester: one key is read ([`crate::get::get`]).
    Reader,
}
