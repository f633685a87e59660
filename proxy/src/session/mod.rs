//! State of one client and its connection to the server. Pure, except for messages to the tee.
//!
//! [`crate::worker`] moves the bytes; this module interprets them.

mod context;
mod replies;
mod requests;
mod sharing;
mod state;
mod stream;
mod tracking;

pub(crate) use self::replies::{Credential, Intent};
pub(crate) use self::state::{ClassifiedRequest, SessionState};
pub(crate) use self::stream::{RequestScan, Scanned};
