//! A key's value and time of expiry, as one server holds it.
//!
//! Values are compared decoded: two servers write equal values in different ways (docs/redis-facts.md 3). Those of modules can
//! only be compared as they are written; where they differ, they are taken for different.

use std::borrow::Cow;

use redtape_wire::rdb::{ReadError, Value, ValueType, decode_value, module_type_of, parse_dump};

use super::digest::{Digest, digest};

/// Bytes that a decoded value may take: that of a string of 4 GiB is refused.
pub(crate) const DECODED_MAX: u64 = 2 << 30;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Image {
    /// What `DUMP` gives.
    pub(crate) dump: Vec<u8>,
    /// Milliseconds since 1970; 0 = never.
    pub(crate) expires_ms: i64,
}

impl Image {
    /// The value, without what servers do not replicate.
    pub(crate) fn value(&self) -> Result<Value, ReadError> {
        value(&self.dump)
    }

    /// The value, with all that is in it.
    pub(crate) fn full_value(&self) -> Result<Value, ReadError> {
        let payload = parse_dump(&self.dump)?;
        decode_value(payload.value_type, payload.value, DECODED_MAX)
    }

    /// The same without fields of a hash that have expired: servers give them in `DUMP` until they get round to removing them.
    pub(crate) fn value_at(&self, now_ms: i64) -> Result<Value, ReadError> {
        let mut value = self.value()?;
        if let Value::Hash(fields) = &mut value {
            fields.retain(|field| field.expires_at_ms.is_none_or(|at| at > now_ms));
        }
        Ok(value)
    }

    /// Of its value.
    pub(crate) fn digest(&self) -> Result<Digest, ReadError> {
        self.value().map(|value| digest(&value))
    }

    /// Whether both hold the same value; times of expiry are not looked at.
    pub(crate) fn same_value(&self, other: &Self) -> Result<bool, ReadError> {
        Ok(self.dump == other.dump || self.value()? == other.value()?)
    }
}

/// The type of the value of a `DUMP`, as `TYPE` names it.
pub(crate) fn type_name(dump: &[u8]) -> Result<Cow<'static, str>, ReadError> {
    let payload = parse_dump(dump)?;
    match payload.value_type.type_name() {
        Some(name) => Ok(name.into()),
        None => module_type_of(payload.value).map(Cow::Owned),
    }
}

/// The value of a `DUMP`.
pub(crate) fn value(dump: &[u8]) -> Result<Value, ReadError> {
    let payload = parse_dump(dump)?;
    replicated_value(payload.value_type, payload.value)
}

/// The value that stands in an RDB as these bytes, without what servers do not replicate.
pub(crate) fn replicated_value(value_type: ValueType, bytes: &[u8]) -> Result<Value, ReadError> {
    let mut value = decode_value(value_type, bytes, DECODED_MAX)?;
    if let Value::Stream(stream) = &mut value {
        stream.forget_unreplicated();
    }
    Ok(value)
}
