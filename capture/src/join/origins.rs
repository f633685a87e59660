//! Cache of origins in the journal's form, for identities that recur.

use std::collections::HashMap;
use std::sync::Arc;

use redtape_journal::{Origin, OriginKind};
use redtape_wire::command::CommandId;

use crate::tee::{Identity, Part, Stamp};

/// Cached origins.
const ORIGINS_MAX: usize = 4096;

/// Kinds of origin.
const KINDS: usize = OriginKind::Unknown as usize + 1;

/// Address of an identity, and the request's command if the effect has another name.
type Key = (usize, Option<CommandId>);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Origins {
    /// The identity is kept alive beside its address, so that the address cannot be reused.
    known: HashMap<Key, (Arc<Identity>, Arc<Origin>), foldhash::fast::FixedState>,
    last: Option<(Key, Arc<Origin>)>,
    /// Origins without a client, by kind.
    nobodies: [Option<Arc<Origin>>; KINDS],
}

impl Origins {
    /// The origin of a group with these parts that the stamp explains.
    pub(super) fn of(&mut self, stamp: &Stamp, parts: &[Part]) -> Arc<Origin> {
        let request = stamp.parts[0].name;
        let same = stamp.transaction || parts.iter().any(|p| p.name == request);
        let key = (Arc::as_ptr(&stamp.who) as usize, (!same).then_some(request));
        if let Some((last, origin)) = &self.last
            && *last == key
        {
            return Arc::clone(origin);
        }
        let origin = match self.known.get(&key) {
            Some((_, origin)) => Arc::clone(origin),
            None => self.add(key, &stamp.who),
        };
        self.last = Some((key, Arc::clone(&origin)));
        origin
    }

    /// The origin without a client.
    pub(super) fn nobody(&mut self, kind: OriginKind) -> Arc<Origin> {
        Arc::clone(self.nobodies[kind as usize].get_or_insert_with(|| Arc::new(Origin::of(kind))))
    }

    fn add(&mut self, key: Key, who: &Arc<Identity>) -> Arc<Origin> {
        let via = key.1.map_or(&b""[..], CommandId::name);
        let origin = Arc::new(Origin {
            kind: if who.in_doubt { OriginKind::Unknown } else { OriginKind::Client },
            addr: who.addr.clone(),
            user: who.user.clone(),
            name: who.name.clone(),
            via: String::from_utf8_lossy(via).into_owned(),
        });
        if self.known.len() >= ORIGINS_MAX {
            self.known.clear();
        }
        self.known.insert(key, (Arc::clone(who), Arc::clone(&origin)));
        origin
    }
}
