//! Result of a repair: what was written, and what was left.

use serde::Serialize;

use crate::libraries::LibrariesDone;
use crate::target::lookup::show;

/// Keys listed by name; all are counted.
const LISTED_MAX: usize = 1000;
/// Keys recorded for another attempt.
pub(crate) const LEFT_KEYS_MAX: usize = 100_000;

/// Counts of a repair. All numbers are of keys unless noted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Outcome {
    /// The target did not have the key.
    pub created: u64,
    /// The wanted value replaced the target's.
    pub replaced: u64,
    /// Some elements were set.
    pub merged: u64,
    /// Elements that were set.
    pub elements: u64,
    /// Only the expiry time was set.
    pub ttl_set: u64,
    /// Stored under another name.
    pub renamed: u64,
    /// Deleted: they did not exist at the restore point.
    pub deleted: u64,
    /// The target held the same.
    pub equal: u64,
    /// Differing keys that stay, as requested.
    pub skipped: u64,
    /// The expiry time has passed since the restore point; the target's keys stay.
    pub expired: u64,
    /// Done before this restore was interrupted.
    pub done_before: u64,
    /// Function libraries.
    #[serde(skip_serializing_if = "LibrariesDone::is_nothing")]
    pub libraries: LibrariesDone,
    /// Differing keys that were left completely or in part.
    pub left: u64,
    /// Of these, wanted keys that the target does not have.
    #[serde(skip)]
    pub(crate) left_absent: u64,
    /// Some of the keys in `left`.
    pub listed: Vec<Listed>,
    /// The keys in `left`, for another attempt; at most [`LEFT_KEYS_MAX`].
    #[serde(skip)]
    pub(crate) left_keys: Vec<(u32, Vec<u8>)>,
}

/// A key that was left completely or in part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Listed {
    /// Its database.
    pub db: u32,
    /// Its name, quoted so that it can be pasted into a command.
    pub key: String,
    /// What is left, and why.
    pub why: String,
}

impl Outcome {
    /// Number of keys written.
    pub fn written(&self) -> u64 {
        self.created + self.replaced + self.merged + self.ttl_set + self.renamed + self.deleted
    }

    /// Adds the outcome of another part of the target.
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

    /// True if something differs and stays.
    pub fn leaves_some(&self) -> bool {
        self.left > 0 || !self.libraries.left.is_empty()
    }

    /// Counts and lists a key that is left.
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
