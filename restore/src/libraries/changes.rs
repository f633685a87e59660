//! Decides what happens to the function libraries of a target. Pure.
//!
//! | the target's library | [`Rule::Whole`] | [`Rule::Replace`] | [`Rule::Keep`] |
//! | --- | --- | --- | --- |
//! | absent | loaded | loaded | loaded |
//! | other code | replaced | replaced | stays, listed |
//! | not wanted | removed | stays | stays |

use redtape_wire::quoted::in_quotes;
use serde::Serialize;

use super::Libraries;
use crate::target::repair::{OnConflict, Policy};

/// What may be done to the target's libraries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rule {
    /// Afterwards the target holds exactly the wanted ones.
    Whole,
    /// Wanted ones replace those of the same name.
    Replace,
    /// Existing ones stay.
    Keep,
}

impl Rule {
    /// That of a policy for keys.
    pub(crate) fn of(policy: &Policy) -> Self {
        match policy.on_conflict {
            _ if policy.replace_all => Self::Whole,
            OnConflict::Replace => Self::Replace,
            _ => Self::Keep,
        }
    }
}

/// A library whose code changes; `None` = absent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) name: Vec<u8>,
    pub(crate) was: Option<Vec<u8>>,
    pub(crate) wanted: Option<Vec<u8>>,
}

/// See the module.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    pub(crate) changes: Vec<Change>,
    /// Libraries that stay although others are wanted, with the reason.
    pub(crate) left: Vec<(Vec<u8>, String)>,
}

/// Why a library with this code (`None` = absent) may not be changed.
pub(crate) type Stays<'a> = dyn Fn(&[u8], Option<&[u8]>) -> Option<String> + 'a;

/// Computes the changes. `stays`: why a library may not be changed, besides the rule.
pub(crate) fn changes(wanted: &Libraries, live: &Libraries, rule: Rule, stays: &Stays<'_>) -> Changes {
    let mut all = Changes::default();
    let unwanted = live.keys().filter(|name| rule == Rule::Whole && !wanted.contains_key(*name));
    for name in wanted.keys().chain(unwanted) {
        let (was, wanted) = (live.get(name), wanted.get(name));
        if was == wanted {
            continue;
        }
        let by_rule = (rule == Rule::Keep && was.is_some()).then(|| "has other code".to_owned());
        match by_rule.or_else(|| stays(name, was.map(Vec::as_slice))) {
            Some(why) => all.left.push((name.clone(), why)),
            None => all.changes.push(Change { name: name.clone(), was: was.cloned(), wanted: wanted.cloned() }),
        }
    }
    all
}

/// Names of function libraries, by what will be done with them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct LibrariesPlan {
    /// The target has none of that name.
    pub loaded: Vec<String>,
    /// The target's one has other code.
    pub replaced: Vec<String>,
    /// It is not wanted.
    pub removed: Vec<String>,
    /// It has other code, and stays.
    pub stay: Vec<String>,
}

/// What was done with function libraries.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct LibrariesDone {
    /// The target had none of that name.
    pub loaded: u64,
    /// It had other code.
    pub replaced: u64,
    /// It was not wanted.
    pub removed: u64,
    /// Those that stay though others are wanted, and why.
    pub left: Vec<String>,
}

impl LibrariesDone {
    /// What was done in another part of the target.
    pub(crate) fn add(&mut self, other: Self) {
        self.loaded += other.loaded;
        self.replaced += other.replaced;
        self.removed += other.removed;
        self.left.extend(other.left);
    }
}

impl Changes {
    /// As the plan shows it.
    pub(crate) fn plan(&self) -> LibrariesPlan {
        let mut plan =
            LibrariesPlan { stay: self.left.iter().map(|(name, _)| in_quotes(name)).collect(), ..Default::default() };
        for Change { name, was, wanted } in &self.changes {
            let list = match (was, wanted) {
                (None, _) => &mut plan.loaded,
                (Some(_), Some(_)) => &mut plan.replaced,
                (Some(_), None) => &mut plan.removed,
            };
            list.push(in_quotes(name));
        }
        plan
    }

    /// As the report shows it, when all of it was done.
    pub(crate) fn done(&self) -> LibrariesDone {
        let LibrariesPlan { loaded, replaced, removed, .. } = self.plan();
        let left = self.left.iter().map(|(name, why)| format!("{}: {why}", in_quotes(name))).collect();
        let count = |names: Vec<String>| names.len() as u64;
        LibrariesDone { loaded: count(loaded), replaced: count(replaced), removed: count(removed), left }
    }
}

impl LibrariesDone {
    /// Nothing was done, and nothing was left.
    pub(crate) fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

impl LibrariesPlan {
    /// Nothing has to be done.
    pub(crate) fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

impl std::fmt::Display for LibrariesPlan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kinds = [
            (&self.loaded, "loaded"),
            (&self.replaced, "replaced"),
            (&self.removed, "removed"),
            (&self.stay, "other, stay"),
        ];
        let some = kinds.iter().filter(|(names, _)| !names.is_empty());
        let told: Vec<String> = some.map(|(names, what)| format!("{} {what}", names.join(", "))).collect();
        f.write_str(&told.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_rule_does_what_it_says() {
        let libraries = |all: &[(&str, &str)]| -> Libraries {
            all.iter().map(|(name, code)| (name.as_bytes().to_vec(), code.as_bytes().to_vec())).collect()
        };
        let wanted = libraries(&[("same", "1"), ("other", "1"), ("new", "1")]);
        let live = libraries(&[("same", "1"), ("other", "2"), ("more", "1")]);
        let told = |rule| {
            let LibrariesPlan { loaded, replaced, removed, stay } = changes(&wanted, &live, rule, &|_, _| None).plan();
            [loaded, replaced, removed, stay].map(|names| names.join(" "))
        };
        let quoted = |names: [&str; 4]| {
            names.map(|name| if name.is_empty() { String::new() } else { in_quotes(name.as_bytes()) })
        };
        assert_eq!(told(Rule::Whole), quoted(["new", "other", "more", ""]));
        assert_eq!(told(Rule::Replace), quoted(["new", "other", "", ""]));
        assert_eq!(told(Rule::Keep), quoted(["new", "", "", "other"]));
        let doubtful = |name: &[u8], _: Option<&[u8]>| (name == b"more").then(|| "in doubt".to_owned());
        let left = changes(&wanted, &live, Rule::Whole, &doubtful);
        assert_eq!((left.changes.len(), left.done().left.len(), left.done().removed), (2, 1, 0));
    }
}
