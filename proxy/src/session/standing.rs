//! Who a session is and where it works: pure.

use std::sync::Arc;

use super::replies::Intent;
use crate::tee::Identity;

/// Who a session is and where it works.
#[derive(Debug, Clone)]
pub(super) struct Standing {
    pub(super) who: Arc<Identity>,
    pub(super) db: u32,
}

impl Standing {
    /// What an agreed request changes.
    pub(super) fn advance(&mut self, intent: &Intent) {
        match intent {
            Intent::Select(db) => self.db = *db,
            Intent::Auth(credential) => self.rename(|i| i.user.clone_from(&credential.user)),
            Intent::SetName(name) => self.rename(|i| name.as_ref().clone_into(&mut i.name)),
            Intent::Hello(hello) if hello.auth.is_some() || hello.name.is_some() => self.rename(|i| {
                if let Some(credential) = &hello.auth {
                    i.user.clone_from(&credential.user);
                }
                if let Some(name) = &hello.name {
                    i.name.clone_from(name);
                }
            }),
            Intent::Reset => {
                self.db = 0;
                self.rename(|i| {
                    "default".clone_into(&mut i.user);
                    i.name.clear();
                });
            }
            _ => {}
        }
    }

    pub(super) fn rename(&mut self, change: impl FnOnce(&mut Identity)) {
        let mut identity = Identity::clone(&self.who);
        change(&mut identity);
        self.who = Arc::new(identity);
    }
}
