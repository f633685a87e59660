//! The data path: clients on one side, the server on the other.
//!
//! ```text
//! clients ─► listen ─► worker ─► upstream ─► server
//!                       │  └──► admin commands (`REDTAPE.*`)
//!                       └─────► tee (stamps for the capture)
//! ```
//!
//! [`ProxySetup::start`] serves clients until [`Serving::drain`].

mod commands;
#[cfg(test)]
mod cost;
mod listen;
mod live;
mod parts;
mod serve;
mod session;
mod upstream;
mod worker;

pub use crate::commands::{AdminCommands, AdminSetup, KeyQuery, KeyReader, ReadFailure};
pub use crate::listen::{ListenOptions, Listener};
pub use crate::live::Live;
pub use crate::parts::{Parts, Running};
pub use crate::serve::{ProxySetup, Serving};
