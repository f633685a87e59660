//! The id of an operation: the same command for the same target has the same one, so that a second run finds the file of the first.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::hex::{hex, unhex};

/// What is hashed, in the words of BLAKE3's `derive_key`.
const CONTEXT: &str = "redtape journal 1, ids of operations";

/// Names an operation that writes to a target. Shown as 32 hex digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OperationId([u8; 16]);

impl OperationId {
    /// The id of what these labelled byte strings describe: journal, timeline, restore point, selection, policies, target. It is a
    /// pure function of labels, values and their order. It is not a secret, and who can guess all of them can confirm the guess.
    pub fn derive(described_by: &[(&str, &[u8])]) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key(CONTEXT);
        for (label, value) in described_by {
            for bytes in [label.as_bytes(), value] {
                hasher.update(&(bytes.len() as u64).to_le_bytes()).update(bytes);
            }
        }
        let mut id = [0; 16];
        hasher.finalize_xof().fill(&mut id);
        Self(id)
    }
}

impl fmt::Display for OperationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

/// A text that is not 32 lower-case hex digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an operation id has 32 lower-case hex digits")]
pub struct NotAnOperationId;

impl FromStr for OperationId {
    type Err = NotAnOperationId;

    fn from_str(text: &str) -> Result<Self, NotAnOperationId> {
        let id = unhex(text).map(Self).ok_or(NotAnOperationId)?;
        // One id has one text, as it names a file.
        if id.to_string() == text { Ok(id) } else { Err(NotAnOperationId) }
    }
}

impl Serialize for OperationId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for OperationId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_a_pure_function_of_what_describes_the_operation() {
        let id = |described: &[(&str, &[u8])]| OperationId::derive(described).to_string();
        let one = id(&[("journal", b"8f0c"), ("lsn", b"17")]);
        assert_eq!(one, "4700fea440814d1ed499fde3c3dc1e14");
        assert_eq!(one.parse::<OperationId>().unwrap().to_string(), one);
        for other in [
            id(&[]),
            id(&[("journal", b"8f0c")]),
            id(&[("lsn", b"17"), ("journal", b"8f0c")]),
            id(&[("journal", b"8f0cl"), ("sn", b"17")]),
            id(&[("journal", b"8f0"), ("clsn", b"17")]),
            id(&[("journal", b"8f0c"), ("lsn", b"17"), ("", b"")]),
        ] {
            assert_ne!(one, other);
        }
    }

    #[test]
    fn only_32_lower_case_hex_digits_are_an_id() {
        for text in ["", "4700", &"A".repeat(32), &"g".repeat(32), &"0".repeat(33), "../../../../../../etc/passwd0000"]
        {
            assert_eq!(text.parse::<OperationId>(), Err(NotAnOperationId), "{text}");
        }
    }
}
