//! Redis's own languages, without I/O: RESP requests and replies, the command table, the replication handshake with its
//! RDB framing, the RDB itself (a walk over a file of any size, values decoded, values put together again), connection
//! URLs, hash slots, the PROXY protocol, what `INFO` and replies say, and how a server compares words. Beside them, the values of
//! options as people write them: settings, units, and bytes as text that can be pasted back.
//!
//! Both the proxy and the restore engine read these; everything here is a function from bytes to
//! data, testable without a socket.

pub mod command;
pub mod effect;
pub mod info;
pub mod outcome;
pub mod proxy_protocol;
pub mod psync;
pub mod quoted;
pub mod rdb;
pub mod resp;
pub mod settings;
pub mod slot;
pub mod units;
pub mod url;
pub mod word;
