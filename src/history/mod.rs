//! Looking into the past: which writes are wanted, where they stand, and how they are shown. What `journal cat`,
//! `journal tail` and `log` have in common.
//!
//! ```text
//! arguments ─► Selection (what) + Range (when) ─► read (forward, backward) ─► show (text, JSON), bring_back
//!                                              └► stats (parts, several threads) ─► a table
//! ```

pub(crate) mod arguments;
pub(crate) mod bring_back;
mod command_line;
pub(crate) mod describe;
mod destroys;
mod fields;
mod former_names;
pub(crate) mod former_search;
mod key_search;
pub(crate) mod range;
pub(crate) mod read;
pub(crate) mod selection;
pub(crate) mod show;
pub(crate) mod stats;
