//! Names of temporary keys: `redtape:tmp:OPERATION:NUMBER:{TAG}`.
//!
//! The tag puts the name into the slot of the key that it stands for, whatever that key holds: braces, nothing, any bytes.
//! So `RENAME` works in a cluster, and the name is short and printable even where the key is neither.

use redtape_journal::undo_file::OperationId;
use redtape_wire::slot::{hash_slot, tag_in_slot};

/// What every temporary name begins with. A user of the target needs the right to keys of this prefix.
pub const PREFIX: &str = "redtape:tmp:";
/// Decimal digits of the largest number and of the longest tag: no temporary name is longer than these allow.
const NUMBER_DIGITS: usize = 20;
const TAG_DIGITS: usize = 10;

/// A temporary name, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TemporaryName {
    /// Whose it is.
    pub operation: OperationId,
    /// Its number in the operation.
    pub number: u64,
    /// Where it lies in a cluster.
    pub slot: u16,
}

/// The temporary name for a key, in the slot of the key.
pub fn temporary_name(key: &[u8], operation: &OperationId, number: u64) -> Vec<u8> {
    format!("{PREFIX}{operation}:{number}:{{{}}}", tag_in_slot(hash_slot(key))).into_bytes()
}

/// Recognises a temporary name; `None` for any other key, also one that only begins like it.
pub fn parse(key: &[u8]) -> Option<TemporaryName> {
    let rest = std::str::from_utf8(key.strip_prefix(PREFIX.as_bytes())?).ok()?;
    let (operation, rest) = rest.split_once(':')?;
    let (number, tag) = rest.split_once(":{")?;
    let tag = tag.strip_suffix('}')?;
    let are_digits = |text: &str, max| (1..=max).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    if !are_digits(number, NUMBER_DIGITS) || !are_digits(tag, TAG_DIGITS) {
        return None;
    }
    Some(TemporaryName { operation: operation.parse().ok()?, number: number.parse().ok()?, slot: hash_slot(key) })
}

/// Whether a key is temporary: selections leave it out.
pub fn is_temporary(key: &[u8]) -> bool {
    parse(key).is_some()
}

/// The pattern of `SCAN … MATCH` for the names of an operation. What it finds is to be recognised by [`parse`].
pub fn pattern(operation: &OperationId) -> String {
    format!("{PREFIX}{operation}:*")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn operation() -> OperationId {
        "0123456789abcdef0123456789abcdef".parse().expect("an id")
    }

    #[track_caller]
    fn check(key: &[u8], number: u64) {
        let name = temporary_name(key, &operation(), number);
        assert_eq!(hash_slot(&name), hash_slot(key), "{}", key.escape_ascii());
        let want = TemporaryName { operation: operation(), number, slot: hash_slot(key) };
        assert_eq!(parse(&name), Some(want), "{}", key.escape_ascii());
    }

    #[test]
    fn every_kind_of_key() {
        for key in [
            &b"user:1"[..],
            b"",
            b"{}",
            b"{}a",
            b"{",
            b"}",
            b"}{",
            b"{a",
            b"a}",
            b"{a}{b}",
            b"x{{a}}y",
            b"{}{a}",
            b"\xff\0}\r\n",
            b"redtape:tmp:0123456789abcdef0123456789abcdef:7:{3}",
        ] {
            check(key, 0);
            check(key, u64::MAX);
        }
        check(&vec![b'}'; 100_000], 1);
    }

    proptest! {
        #[test]
        fn any_key(key in proptest::collection::vec(prop_oneof![Just(b'{'), Just(b'}'), any::<u8>()], 0..20), number: u64) {
            check(&key, number);
        }
    }

    #[test]
    fn other_keys_are_not_temporary() {
        let id = operation();
        let good = format!("redtape:tmp:{id}:1:{{7}}");
        assert!(is_temporary(good.as_bytes()));
        for other in [
            String::new(),
            "redtape:tmp:".to_owned(),
            format!("redtape:tmp:{id}"),
            format!("redtape:tmp:{id}:1"),
            format!("redtape:tmp:{id}:1:{{}}"),
            format!("redtape:tmp:{id}:1:{{a}}"),
            format!("redtape:tmp:{id}:1:{{7}}x"),
            format!("redtape:tmp:{id}:x:{{7}}"),
            format!("redtape:tmp:{id}:-1:{{7}}"),
            format!("redtape:tmp:{id}:99999999999999999999:{{7}}"),
            format!("redtape:tmp:{}:1:{{7}}", id.to_string().to_uppercase()),
            format!("x{good}"),
        ] {
            assert!(!is_temporary(other.as_bytes()), "{other}");
        }
        assert!("0123".parse::<OperationId>().is_err());
        assert_eq!(id.to_string().parse(), Ok(id));
        assert!(pattern(&id).starts_with(PREFIX));
    }
}
