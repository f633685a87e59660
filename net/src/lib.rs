//! Connections to servers, and TLS towards servers and clients.
//!
//! ```text
//! Connector ──► connect()           async: the replication link, the probes, snapshots
//!     │    ├──► tls()               for a loop that drives rustls itself: the proxy's workers
//!     │    └──► connect_blocking()  a restore's servers
//! reply::read                       replies from the latter
//! ```
//!
//! This crate opens connections and encrypts them. What is said on them is the caller's business.

mod blocking;
mod connect;
pub mod reply;
pub mod tls;

pub use self::blocking::{BlockingStream, CONNECT_TIMEOUT, route};
pub use self::connect::{Connector, Stream, configure_tcp};
