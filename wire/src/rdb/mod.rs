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
//! - [`decode_value`] makes of one value's bytes what clients see, the same for equal values in different encodings.
//! - [`encode_dump`] makes a payload of `DUMP` of a value; [`losses`] says what a version cannot hold of it.
//! - [`MemoryModel`] estimates how much memory a server takes for a key.
//! - [`RdbWriter`] puts values that were cut out together to an RDB of the same version.
//!
//! `table.rs` says which opcodes and value types each version has, and since which server.
//!
//! Nothing here trusts a length: it is compared with what is left, or with a named limit, before memory is taken for it.

mod allocator;
mod aux;
mod decode;
mod dump;
mod encode;
mod fault;
mod header;
mod input;
mod length;
mod loss;
mod lzf;
mod measure;
mod memory;
mod module;
mod pack;
mod skip;
mod stream;
mod string;
mod table;
mod value;
mod verifier;
mod walk;
mod write;

pub use aux::parse_aux;
pub use decode::{DECODED_MAX, decode_string, decode_value};
pub use dump::{DumpPayload, FOOTER_LEN as DUMP_FOOTER_LEN, dump_payload, end_dump, functions_payload, parse_dump};
pub use encode::encode_dump;
pub use fault::{Fault, ReadError};
pub use header::{Family, HEADER_LEN, RdbError, RdbVersion, parse_header};
pub use loss::{Inexpressible, Loss, losses};
pub use measure::{Measure, PACK_MEASURED_MAX, Parts};
pub use memory::{MemoryModel, StoredIn};
pub use module::{module_type, module_type_of};
pub use table::ValueType;
pub use value::{Bytes, Consumer, Field, Group, Idempotence, Pending, Score, Stream, StreamEntry, StreamId, Value};
pub use verifier::{RdbSummary, RdbVerifier};
pub use walk::{AUX_KEPT_MAX, End, Entry, Extent, KEY_MAX, KeyEntry, Walker, read_entry_key, read_key_entry};
pub use write::{RdbWriter, StringEntry, put_database_size, put_select_db, single_key_rdb};

#[cfg(test)]
mod property_tests;
#[cfg(test)]
mod tests;
