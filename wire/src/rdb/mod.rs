//! The RDB: what a server writes on `SAVE` and sends as a full copy.
//!
//! ```text
//! "REDIS0012" │ AUX name value … │ FUNCTION code … │ SELECTDB n │ RESIZEDB │ [EXPIRE] [IDLE] type key value … │ EOF │ CRC64
//! ```
//!
//! Layout (`rdb.c`): 9 bytes of magic and version (`REDIS0010`, `VALKEY080`), opcodes and values, opcode 255, then 8 bytes
//! of CRC64 (Jones, little-endian) over everything before; zero where the server writes no checksums (`rdbchecksum no`).
//!
//! - [`RdbVerifier`] checks the CRC64 of an RDB that streams by, and reads the fields at its front.
//! - [`Walker`] reads a whole RDB of any size through one buffer: every key with the place of its value.
//!
//! `table.rs` says which opcodes and value types each version has, and since which server.
//!
//! Nothing here trusts a length: it is compared with what is left, or with a named limit, before memory is taken for it.

mod aux;
mod fault;
mod header;
mod input;
mod length;
mod lzf;
mod module;
mod skip;
mod stream;
mod string;
mod table;
mod verifier;
mod walk;

pub use aux::parse_aux;
pub use fault::{Fault, ReadError};
pub use header::{Family, HEADER_LEN, RdbError, RdbVersion, parse_header};
pub use module::module_type;
pub use table::ValueType;
pub use verifier::{RdbSummary, RdbVerifier};
pub use walk::{AUX_KEPT_MAX, End, Entry, Extent, KEY_MAX, KeyEntry, Walker, read_key_entry};

#[cfg(test)]
mod tests;
