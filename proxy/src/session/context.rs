//! Who a session is and where it works: pure.
//!
//! Invariant: what a stamp says of its session was confirmed by the server. Behind a request that may change it, and
//! before the reply to that, nobody is named: the reply decides for all stamps up to the next such request.

use std::collections::VecDeque;
use std::sync::Arc;

use redtape_capture::tee::Identity;

use super::replies::Intent;

/// Who a session is and where it works.
#[derive(Debug, Clone)]
pub(super) struct SessionContext {
    pub(super) who: Arc<Identity>,
    pub(super) db: u32,
}

impl SessionContext {
    /// What an agreed request changes.
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

/// In which database a session works after a request, if the server agrees.
pub(super) fn database(before: u32, intent: &Intent) -> u32 {
    match intent {
        Intent::Select(db) => *db,
        Intent::Reset => 0,
        _ => before,
    }
}

/// A user's name as text. A name that is no text is shown escaped, and with a space: no user of a server has one, so it is
/// never that of another.
fn shown(user: &[u8]) -> String {
    match std::str::from_utf8(user) {
        Ok(text) => text.to_owned(),
        Err(_) => format!("{} (bytes)", user.escape_ascii()),
    }
}

/// A request may change the user or the database, and with that where its session may work.
pub(super) fn unsettles(intent: &Intent) -> bool {
    match intent {
        Intent::Select(_) | Intent::Auth(_) | Intent::Reset => true,
        Intent::Hello(hello) => hello.auth.is_some(),
        Intent::Queued(inner) => unsettles(inner),
        _ => false,
    }
}

/// A request may change what stamps say of its session.
pub(super) fn changes(intent: &Intent) -> bool {
    match intent {
        Intent::SetName(_) => true,
        Intent::Hello(hello) => hello.auth.is_some() || hello.name.is_some(),
        // It may run by itself, if MULTI is refused.
        Intent::Queued(inner) => changes(inner),
        intent => unsettles(intent),
    }
}

/// Changes under way, oldest first. Each is the number of stamps that its session had left before it counts.
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

    /// The oldest is answered: it decides for the stamps behind the first number, up to the second. `stamps`: how many
    /// there are by now.
    pub(super) fn answered(&mut self, stamps: u32) -> Option<(u32, u32)> {
        let from = self.0.pop_front()?;
        Some((from, self.0.front().copied().unwrap_or(stamps)))
    }

    /// Nobody will answer them; true = there were some.
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
