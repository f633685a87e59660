//! What a write is counted under.

use std::borrow::Cow;

use redtape_journal::query::client_names;
use redtape_journal::{Origin, OriginKind, Record};
use redtape_wire::effect::{KeyScope, key_scope};
use smallvec::{SmallVec, smallvec};

use super::{Asked, By};
use crate::history::selection::Selection;

/// A name, or why there is none.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Value<'a> {
    Named(Cow<'a, [u8]>),
    Without(Nameless),
}

/// What has no name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Nameless {
    Expiry,
    Eviction,
    Outside,
    Unknown,
    /// A key without a colon.
    NoPrefix,
    /// It touches no key.
    NoKey,
    /// It touches all keys, of a database at least.
    EveryKey,
    /// The keys that it touches are unknown.
    UnknownKeys,
}

impl Nameless {
    /// In JSON.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Expiry => "expiry",
            Self::Eviction => "eviction",
            Self::Outside => "outside",
            Self::Unknown => "unknown",
            Self::NoPrefix => "no_prefix",
            Self::NoKey => "no_key",
            Self::EveryKey => "every_key",
            Self::UnknownKeys => "unknown_keys",
        }
    }

    /// For a person.
    pub(super) fn shown(self) -> &'static str {
        match self {
            Self::Expiry => "(expiry)",
            Self::Eviction => "(eviction)",
            Self::Outside => "(outside the proxy)",
            Self::Unknown => "(unknown)",
            Self::NoPrefix => "(keys without a colon)",
            Self::NoKey => "(no key)",
            Self::EveryKey => "(every key)",
            Self::UnknownKeys => "(keys not known)",
        }
    }
}

fn named(name: &[u8]) -> Value<'_> {
    Value::Named(Cow::Borrowed(name))
}

/// The client or the user.
pub(super) fn of_origin(by: By, origin: &Origin) -> Value<'_> {
    let name = match by {
        By::User => Some(origin.user.as_str()),
        _ if !origin.name.is_empty() => Some(origin.name.as_str()),
        // Without its port: connections come and go.
        _ => client_names(&origin.addr, "").nth(1),
    };
    match name.filter(|name| !name.is_empty()) {
        Some(name) => named(name.as_bytes()),
        None => Value::Without(match origin.kind {
            OriginKind::Expiry => Nameless::Expiry,
            OriginKind::Eviction => Nameless::Eviction,
            OriginKind::Outside => Nameless::Outside,
            OriginKind::Client | OriginKind::Unknown => Nameless::Unknown,
        }),
    }
}

/// The command, or the prefixes of the wanted keys that it touches, each once.
pub(super) fn of_record<'a>(selection: &Selection, asked: Asked, record: &'a Record) -> SmallVec<[Value<'a>; 2]> {
    if asked.by == By::Command {
        let name = record.args.first().map_or(&b""[..], |name| name);
        let is_upper = !name.iter().any(u8::is_ascii_lowercase);
        let name = if is_upper { Cow::Borrowed(name) } else { Cow::Owned(name.to_ascii_uppercase()) };
        return smallvec![Value::Named(name)];
    }
    let args: SmallVec<[&[u8]; 8]> = record.args.iter().map(|arg| &arg[..]).collect();
    let mut values: SmallVec<[Value<'a>; 2]> = match key_scope(record.db, &args, record.keys.as_deref()) {
        KeyScope::Keys(keys) if keys.is_empty() => smallvec![Value::Without(Nameless::NoKey)],
        KeyScope::Keys(keys) => {
            let wanted = keys.into_iter().filter(|(db, key)| selection.wants_key(record.lsn, *db, key));
            wanted.map(|(_, key)| prefix(key, asked.depth)).collect()
        }
        KeyScope::Databases(_) | KeyScope::Everything => smallvec![Value::Without(Nameless::EveryKey)],
        KeyScope::Unknown => smallvec![Value::Without(Nameless::UnknownKeys)],
    };
    if values.len() > 1 {
        values.sort_unstable();
        values.dedup();
    }
    values
}

/// Up to the colon of this number, and with it; of fewer colons, up to the last one.
fn prefix(key: &[u8], depth: usize) -> Value<'_> {
    let colons = key.iter().enumerate().filter(|(_, byte)| **byte == b':').map(|(at, _)| at);
    colons.take(depth).last().map_or(Value::Without(Nameless::NoPrefix), |at| named(&key[..=at]))
}
