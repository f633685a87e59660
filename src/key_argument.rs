//! A key as an argument: as any command of redtape prints it.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;

use clap::builder::{OsStringValueParser, TypedValueParser};
use redtape_wire::quoted::{QuotedError, unquote};

/// Any bytes: of a key, a field, a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeyArgument(pub(crate) Vec<u8>);

impl KeyArgument {
    /// Reads `"\xff\x00k"` (decoded) or `key:1` (as it is).
    fn parse(text: OsString) -> Result<Self, QuotedError> {
        unquote(&text.into_vec()).map(Self)
    }

    /// For `#[arg(value_parser = …)]`.
    pub(crate) fn parser() -> impl TypedValueParser<Value = Self> {
        OsStringValueParser::new().try_map(Self::parse)
    }
}
