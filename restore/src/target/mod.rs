//! Where a dataset goes. Each kind of target has a file or folder of its own; what they get is a
//! `Source`, which does not know them.
//!
//! | target | |
//! | --- | --- |
//! | a running server | `server/`, by one of the methods of [`crate::plan`] |
//! | the requester | nothing is written: [`mod@crate::get`] |

pub mod claim;
pub(crate) mod copy;
pub(crate) mod lookup;
pub mod memory;
pub mod preflight;
pub mod repair;
pub(crate) mod server;
pub mod unfinished;

use redtape_wire::url::RedisUrl;

/// Where to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A running server.
    Server(RedisUrl),
    /// The requester: one key is read ([`crate::get::get`]).
    Reader,
}
