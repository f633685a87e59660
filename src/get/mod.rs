//! One key at a point in time as people and programs see it: what `redtape get` and `REDTAPE.GET` have in common.
//!
//! ```text
//! redtape_restore::get ─► Got ─► element (one of it) ─► text, JSON, raw bytes
//! ```

pub(crate) mod element;
pub(crate) mod json;
pub(crate) mod text;

use redtape_journal::OriginKind;
use redtape_restore::get::{Got, LastTouch, State};
use redtape_wire::rdb::Value;

use crate::history::describe::{Cause, Change, change};

/// What a command did to a key.
pub(crate) fn done<'a>(touch: &'a LastTouch, key_db: u32, key: &[u8]) -> Change<'a> {
    let args: Vec<&[u8]> = touch.record.args.iter().map(|arg| &arg[..]).collect();
    let cause = match touch.origin.kind {
        OriginKind::Expiry => Cause::Expiry,
        OriginKind::Eviction => Cause::Eviction,
        _ => Cause::Asked,
    };
    change(cause, touch.record.db, &args, key_db, key)
}

/// Elements of a value; of a string, its bytes.
pub(super) fn size(value: &Value) -> usize {
    match value {
        Value::String(bytes) => bytes.len(),
        Value::List(elements) | Value::Set(elements) => elements.len(),
        Value::Zset(members) => members.len(),
        Value::Hash(fields) => fields.len(),
        Value::Stream(stream) => stream.entries.len(),
        Value::Module { data, .. } => data.len(),
    }
}

/// The value, if it was there.
pub(crate) fn value(got: &Got) -> Option<&Value> {
    if let State::Present(present) = &got.state { Some(&present.value) } else { None }
}
