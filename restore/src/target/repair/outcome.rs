//! What a repair has done, and what it has left.

use serde::Serialize;

use crate::libraries::LibrariesDone;
use crate::target::lookup::show;

/// Keys that are listed by name; all are counted.
const LISTED_MAX: usize = 1000;
/// Keys that are noted for another attempt.
pub(crate) const LEFT_KEYS_MAX: usize = 100_000;

/// See the module. All numbers are of keys unless they say otherwise.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Outcome {
    /// The target had none of that name.
    pub created: u64,
    /// The wanted value took the place of the target's.
    pub replaced: u64,
    /// Some elements were set.
    pub merged: u64,
    /// Elements that were set.
    pub elements: u64,
    /// The time of expiry was set, and nothing else.
    pub ttl_set: u64,
    /// Stored under another name.
    pub renamed: u64,
    /// Deleted: they did not exist at the restore point.
    pub deleted: u64,
    /// Nothing had to be done.
    pub equal: u64,
    /// Differing keys that stay, as was asked for.
    pub skipped: u64,
    /// Their time of expiry has passed since the restore point; the target's keys stay.
    pub expired: u64,
    /// Done before this restore was interrupted.
    pub done_before: u64,
    /// Function libraries.
    #[serde(skip_serializing_if = "LibrariesDone::is_nothing")]
    pub libraries: LibrariesDone,
    /// Differing keys of which something is left as it is.
    pub left: u64,
    /// Of these, wanted keys that the target does not have.
    #[serde(skip)]
    pub(crate) left_absent: u64,
    /// Some of these.
    pub listed: Vec<Listed>,
    /// The same, for another attempt; at most [`LEFT_KEYS_MAX`].
    #[serde(skip)]
    pub(crate) left_keys: Vec<(u32, Vec<u8>)>,
}

/// A key of which something is left as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Listed {
    /// Its database.
    pub db: u32,
    /// Its name, so that it can be pasted back.
    pub key: String,
    /// What is left, and why.
    pub why: String,
}

impl Outcome {
    /// Keys that were written.
    pub fn written(&self) -> u64 {
        self.created + self.replaced + self.merged + self.ttl_set + self.renamed + self.deleted
    }

    /// What was done in another part of the target.
    pub(crate) fn add(&mut self, other: Self) {
        self.created += other.created;
        self.replaced += other.replaced;
        self.merged += other.merged;
        self.elements += other.elements;
        self.ttl_set += other.ttl_set;
        self.renamed += other.renamed;
        self.deleted += other.deleted;
        self.equal += other.equal;
        self.skipped += other.skipped;
        self.expired += other.expired;
        self.done_before += other.done_before;
        self.libraries.add(other.libraries);
        self.left += other.left;
        self.left_absent += other.left_absent;
        self.listed.extend(other.listed);
        self.listed.truncate(LISTED_MAX);
        self.left_keys.extend(other.left_keys);
        self.left_keys.truncate(LEFT_KEYS_MAX);
    }

    /// Something differs and stays.
    pub fn leaves_some(&self) -> bool {
        self.left > 0 || !self.libraries.left.is_empty()
    }

    /// A key is left as it is.
    pub(crate) fn leave(&mut self, db: u32, key: &[u8], why: impl Into<String>) {
        self.left += 1;
        if self.left_keys.len() < LEFT_KEYS_MAX {
            self.left_keys.push((db, key.to_vec()));
        }
        if self.listed.len() < LISTED_MAX {
            self.listed.push(Listed { db, key: show(key), why: why.into() });
        }
    }
}
