//! What the user wants where the target already holds keys. Pure.

use serde::Serialize;

/// What to do with a wanted key that the target holds with another value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnConflict {
    /// Nothing is restored.
    #[default]
    Fail,
    /// The target's key stays.
    Skip,
    /// The wanted value replaces it.
    Replace,
    /// The wanted value is stored under another name.
    Rename,
    /// Elements that the target's key lacks are added.
    Merge,
}

/// What to do with a key's expiry time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum TtlPolicy {
    /// The original expiry time.
    #[default]
    Absolute,
    /// The time that remained at the restore point, counted from now.
    Remaining,
    /// No expiry.
    None,
}

impl TtlPolicy {
    /// The expiry time to write, in ms since 1970; 0 = never. `expires_ms`: the original one; `at_ms`: the restore
    /// point.
    pub fn apply(self, expires_ms: i64, at_ms: i64, now_ms: i64) -> i64 {
        match self {
            _ if expires_ms == 0 => 0,
            Self::Absolute => expires_ms,
            Self::Remaining => now_ms.saturating_add(expires_ms.saturating_sub(at_ms).max(1)),
            Self::None => 0,
        }
    }

    /// True if the live expiry time satisfies this policy: under `Remaining` any does, since the result depends on the
    /// time of writing. `slack_ms`: inaccuracy of the live one.
    pub fn same(self, wanted_ms: i64, live_ms: i64, slack_ms: i64) -> bool {
        if wanted_ms == 0 || live_ms == 0 {
            return wanted_ms == live_ms;
        }
        match self {
            Self::Absolute | Self::None => wanted_ms.abs_diff(live_ms) <= slack_ms.unsigned_abs(),
            Self::Remaining => true,
        }
    }
}

/// Names for keys that are stored beside those of the target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NameTemplate(String);

/// A template that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("--as {0:?} does not hold {{key}}: all keys would get one name; for example {{key}}:restored:{{id}}")]
pub struct TemplateError(String);

impl Default for NameTemplate {
    fn default() -> Self {
        Self("{key}:restored:{id}".to_owned())
    }
}

impl std::str::FromStr for NameTemplate {
    type Err = TemplateError;

    fn from_str(text: &str) -> Result<Self, TemplateError> {
        if text.contains("{key}") { Ok(Self(text.to_owned())) } else { Err(TemplateError(text.to_owned())) }
    }
}

impl NameTemplate {
    /// The key to which this name belongs; `None` = not a name of this template.
    pub(crate) fn key_of<'n>(&self, name: &'n [u8], id: &str) -> Option<&'n [u8]> {
        let template = self.0.replace("{id}", id);
        let parts: Vec<&[u8]> = template.split("{key}").map(str::as_bytes).collect();
        let (times, around) = (parts.len() - 1, parts.iter().map(|part| part.len()).sum::<usize>());
        let key_len = name.len().checked_sub(around)? / times;
        let key = name.get(parts[0].len()..parts[0].len() + key_len)?;
        (self.name(key, id) == name).then_some(key)
    }

    /// The name for a key; `id` is that of the restore.
    pub fn name(&self, key: &[u8], id: &str) -> Vec<u8> {
        let mut name = Vec::with_capacity(self.0.len() + key.len());
        for (n, part) in self.0.replace("{id}", id).split("{key}").enumerate() {
            if n > 0 {
                name.extend_from_slice(key);
            }
            name.extend_from_slice(part.as_bytes());
        }
        name
    }
}

/// All parts of the policy.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Policy {
    /// A wanted key exists with another value.
    pub on_conflict: OnConflict,
    /// For [`OnConflict::Rename`].
    pub name_template: NameTemplate,
    /// Selected keys of the target that did not exist at the restore point are deleted.
    pub delete_absent: bool,
    /// Keys and function libraries of the target that are not wanted are deleted: afterwards it holds exactly the
    /// wanted ones. Requires [`OnConflict::Replace`].
    pub replace_all: bool,
    /// Expiry times.
    pub ttl: TtlPolicy,
}

impl Policy {
    /// The policy of `--replace-all`.
    pub fn replace_all(ttl: TtlPolicy) -> Self {
        Self { on_conflict: OnConflict::Replace, replace_all: true, ttl, ..Self::default() }
    }

    /// True if keys of the target may be deleted.
    pub(crate) fn deletes(&self) -> bool {
        self.delete_absent || self.replace_all
    }

    /// Template and id for names beside the target's keys; `None` = none are used.
    pub(crate) fn own_names<'a>(&'a self, id: &'a str) -> Option<(&'a NameTemplate, &'a str)> {
        (self.on_conflict == OnConflict::Rename).then_some((&self.name_template, id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_expiry() {
        for (policy, expires, want) in [
            (TtlPolicy::Absolute, 0, 0),
            (TtlPolicy::Absolute, 1500, 1500),
            (TtlPolicy::Remaining, 0, 0),
            (TtlPolicy::Remaining, 1500, 5500),
            // It was about to expire.
            (TtlPolicy::Remaining, 1000, 5001),
            (TtlPolicy::None, 1500, 0),
        ] {
            assert_eq!(policy.apply(expires, 1000, 5000), want, "{policy:?} {expires}");
        }
        assert!(TtlPolicy::Absolute.same(5, 5, 0) && !TtlPolicy::Absolute.same(5, 6, 0));
        assert!(TtlPolicy::Absolute.same(5, 6, 1) && !TtlPolicy::Absolute.same(0, 1, 1));
        assert!(TtlPolicy::Remaining.same(5, 6, 0) && !TtlPolicy::Remaining.same(5, 0, 0));
    }

    #[test]
    fn names() {
        let default = NameTemplate::default();
        assert_eq!(default.name(b"a\xff", "7f"), b"a\xff:restored:7f");
        let twice: NameTemplate = "{key}/{key}".parse().expect("a template");
        // Placeholders within a key are not replaced.
        assert_eq!(twice.name(b"{id}{key}", "7f"), b"{id}{key}/{id}{key}");
        assert!("restored".parse::<NameTemplate>().is_err());
        for template in [default, twice, "a{id}{key}b{key}".parse().expect("a template")] {
            for key in [&b"k:1"[..], b"", b"{key}", b"\xff:restored:7f"] {
                assert_eq!(template.key_of(&template.name(key, "7f"), "7f"), Some(key), "{template:?}");
            }
            for other in [&b"k:1"[..], b"", b"k:1:restored:7e", b"/a"] {
                assert_eq!(template.key_of(other, "7f"), None, "{template:?}");
            }
        }
    }
}
