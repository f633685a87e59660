//! Connections to servers, and TLS towards servers and clients.
//!
//! ```text
//! Connector ──► connect()          async: the replication link, the probes, snapshots
//!     │    └──► tls()              for a loop that drives rustls itself: the proxy's workers
//! reply::read                      blocking: a restore's target
//! ```
//!
//! This crate opens connections and encrypts them. What is said on them is the caller's business.

mod connect;
pub mod reply;
pub mod tls;

pub use self::connect::{CONNECT_TIMEOUT, Connector, Stream, configure_tcp};
