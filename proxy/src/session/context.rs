//! A session's identity and database. Pure.
//!
//! Invariant: the identity in a stamp was confirmed by the server. Between a request that may change it and its reply,
//! stamps carry no identity: the reply decides for all stamps up to the next such request.

use std::collections::VecDeque;
use std::sync::Arc;

use redtape_capture::tee::Identity;

use super::replies::Intent;

/// Identity and database.
#[derive(Debug, Clone)]
pub(super) struct SessionContext {
    pub(super) who: Arc<Identity>,
    pub(super) db: u32,
}

impl SessionContext {
    /// The change made by an accepted request.
    pub(super) fn advance(&mut self, intent: &Intent) {
        self.db = database(self.db, intent);
        match intent {
            Intent::Auth(credential) => self.rename(|i| i.user = shown(&credential.user)),
            Intent::SetName(name) => self.rename(|i| name.as_ref().clone_into(&mut i.name)),
            Intent::Hello(hello) if hello.auth.is_some() || hello.name.is_some() => self.rename(|i| {
                if let Some(credential) = &hello.auth {
                    i.user = shown(&credential.user);
                }
                if let Some(name) = &hello.name {
                    i.name.clone_from(name);
                }
            }),
            Intent::Reset => self.rename(|i| {
                "default".clone_into(&mut i.user);
                i.name.clear();
            }),
            _ => {}
        }
    }

    pub(super) fn rename(&mut self, change: impl FnOnce(&mut Identity)) {
        let mut identity = Identity::clone(&self.who);
        change(&mut identity);
        self.who = Arc::new(identity);
    }
}

/// A session's database after a request, if the server accepts it.
pub(super) fn database(before: u32, intent: &Intent) -> u32 {
    match intent {
        Intent::Select(db) => *db,
        Intent::Reset => 0,
        _ => before,
    }
}

/// A user's name as text. A name that is not text is escaped and contains a space: no server has such a user, so it
/// cannot be confused with another.
fn shown(user: &[u8]) -> String {
    match std::str::from_utf8(user) {
        Ok(text) => text.to_owned(),
        Err(_) => format!("{} (bytes)", user.escape_ascii()),
    }
}

/// True if a request may change the user or the database, and so what the session may access.
pub(super) fn unsettles(intent: &Intent) -> bool {
    match intent {
        Intent::Select(_) | Intent::Auth(_) | Intent::Reset => true,
        Intent::Hello(hello) => hello.auth.is_some(),
        Intent::Queued(inner) => unsettles(inner),
        _ => false,
    }
}

/// True if a request may change the identity in the session's stamps.
pub(super) fn changes(intent: &Intent) -> bool {
    match intent {
        Intent::SetName(_) => true,
        Intent::Hello(hello) => hello.auth.is_some() || hello.name.is_some(),
        // It runs by itself if MULTI is refused.
        Intent::Queued(inner) => changes(inner),
        intent => unsettles(intent),
    }
}

/// Pending changes, oldest first. Each is the number of stamps that the session had sent before it.
#[derive(Debug, Default)]
pub(super) struct Unconfirmed(VecDeque<u32>);

impl Unconfirmed {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A change is sent.
    pub(super) fn sent(&mut self, stamps: u32) {
        self.0.push_back(stamps);
    }

    /// The oldest change is answered: the reply decides for the stamps from the first number to the second. `stamps`:
    /// their number so far.
    pub(super) fn answered(&mut self, stamps: u32) -> Option<(u32, u32)> {
        let from = self.0.pop_front()?;
        Some((from, self.0.front().copied().unwrap_or(stamps)))
    }

    /// Pending changes will not be answered; true = there were some.
    pub(super) fn forget(&mut self) -> bool {
        !std::mem::take(&mut self.0).is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_differ_are_shown_differently() {
        let names: [&[u8]; 6] = [b"ann", b"\xff", b"\xfe", "\u{fffd}".as_bytes(), b"\\xff", b"\xff\xfe"];
        let mut shown: Vec<String> = names.iter().map(|name| shown(name)).collect();
        assert_eq!(shown[..2], ["ann", "\\xff (bytes)"]);
        shown.sort();
        shown.dedup();
        assert_eq!(shown.len(), names.len());
    }

    #[test]
    fn a_change_decides_for_the_stamps_up_to_the_next() {
        let mut unconfirmed = Unconfirmed::default();
        for stamps in [3, 3, 7] {
            unconfirmed.sent(stamps);
        }
        let ranges: Vec<_> = (0..4).map(|_| unconfirmed.answered(9)).collect();
        assert_eq!(ranges, [Some((3, 3)), Some((3, 7)), Some((7, 9)), None]);
        unconfirmed.sent(9);
        assert!(unconfirmed.forget() && !unconfirmed.forget() && unconfirmed.is_empty());
    }
}
