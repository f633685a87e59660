//! RESP, the protocol of Redis and Valkey: requests as clients send them, replies as servers do.

pub mod encode;
pub mod reply;
pub mod request;

pub use encode::encode_command;
pub use reply::{Frame, Head, ReplyScanner};
pub use request::{Args, ParseError, Parsed, parse_number, parse_request};

#[cfg(test)]
mod tests;
