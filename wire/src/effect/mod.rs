//! What one command of the replication stream does, as far as its name and its arguments tell.
//!
//! Pure, and about effects only: a command stands in the stream because it changed something (Redis 7.0 `replication.c`,
//! `db.c`).
//!
//! - [`key_scope`]: which keys and databases it touches: for a search in the history.
//! - [`named_keys()`]: which of its arguments are keys, for the journal's key filters.
//! - [`writes()`]: what of a key it writes: which elements, the TTL, or all: for who asks which write was an element's last.
//! - [`dependence()`]: of which keys it needs the value, and of which it makes the old value irrelevant: for a replay of a
//!   part of the history.
//! - [`reading()`]: whether the request behind it wrote without reading: for who takes a write out of the history.

mod dependence;
mod element_shapes;
mod elements;
mod named_keys;
mod options;
mod reading;
mod rules;
mod scope;
mod touch;
mod written;

pub use dependence::dependence;
pub use elements::writes;
pub use named_keys::{OTHERS_TOO, named_keys};
pub use reading::{Reading, is_blind, reading};
pub use scope::{KeyScope, copied_to, is_only_read, key_scope};
pub use touch::{Dependence, Touch, Touched, TouchedKeys, swapped};
pub use written::{After, Elements, KeyWrite, KeyWrites, Write, Writes};
