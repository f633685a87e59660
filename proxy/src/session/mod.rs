//! What is known of one client and its connection to the server: pure, but for what it tells the tee.
//!
//! The bytes are moved by [`crate::worker`]; here is what they mean.

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
