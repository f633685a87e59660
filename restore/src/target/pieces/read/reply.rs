//! What stands in replies.

use redtape_wire::rdb::StreamId;

use crate::client::{Value, text};
use crate::target::pieces::error::ReadPiecesError;

/// The strings of a reply.
pub(super) fn strings(reply: Value, command: &'static str) -> Result<Vec<Vec<u8>>, ReadPiecesError> {
    let Value::Array(items) = reply else { return Err(ReadPiecesError::Reply(command)) };
    let bytes = |item| if let Value::Bytes(bytes) = item { Ok(bytes) } else { Err(ReadPiecesError::Reply(command)) };
    items.into_iter().map(bytes).collect()
}

/// An id as servers print it.
pub(super) fn id(reply: &Value) -> Result<StreamId, ReadPiecesError> {
    let text = text(reply);
    let parsed =
        text.split_once('-').and_then(|(ms, seq)| Some(StreamId { ms: ms.parse().ok()?, seq: seq.parse().ok()? }));
    parsed.ok_or(ReadPiecesError::Reply("a question about a stream"))
}

/// The value of `name` in a flat list of names and values.
pub(super) fn field<'v>(reply: &'v Value, name: &str) -> Option<&'v Value> {
    let is_it = |pair: &&[Value]| matches!(&pair[0], Value::Bytes(bytes) if bytes == name.as_bytes());
    items(reply)?.chunks_exact(2).find(is_it).map(|pair| &pair[1])
}

pub(super) fn items(reply: &Value) -> Option<&[Value]> {
    if let Value::Array(items) = reply { Some(items) } else { None }
}

pub(super) fn bytes(reply: Option<&Value>) -> Option<Vec<u8>> {
    if let Some(Value::Bytes(bytes)) = reply { Some(bytes.clone()) } else { None }
}

/// A number; `None` also where the server says that it does not know it.
pub(super) fn number(reply: &Value, name: &str) -> Option<u64> {
    if let Some(Value::Int(number)) = field(reply, name) { Some(number.cast_unsigned()) } else { None }
}
