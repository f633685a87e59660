//! The primaries of a cluster, each with a connection of its own, and the slots that each holds now.
//!
//! What a primary says of itself counts: others learn of a moved slot later. A slot that is on its way from one node to another is
//! nobody's meanwhile: some of its keys are here and some are there.

use std::time::{Duration, Instant};

use redtape_wire::slot::{SLOTS, SlotSet};
use redtape_wire::url::Endpoint;

use super::topology::{self, Node};
use crate::client::{Server, text};
use crate::error::RestoreError;
use crate::target::ServerAddress;
use crate::target::server::{ServerTarget, Wish};

/// So long slots that move are waited for while nothing else can be done.
pub(super) const MOVE_WAIT_MAX: Duration = Duration::from_mins(10);
/// Between two looks at slots that move.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(200);

/// A primary.
pub(crate) struct Primary {
    id: String,
    pub(crate) target: ServerTarget,
    /// It holds all keys of these.
    pub(crate) slots: SlotSet,
}

impl Primary {
    /// A restart or a failover may have taken back what was written to it.
    fn check_history(&mut self) -> Result<(), RestoreError> {
        let ServerTarget { server, facts, .. } = &mut self.target;
        let now = server.info(Some("replication"))?;
        if now.get("role") == Some("master") && now.get("master_replid").unwrap_or_default() == facts.replid {
            return Ok(());
        }
        Err(RestoreError::Unable(format!(
            "{} was restarted, or a replica has taken its place, and may have lost writes: when the cluster is well again, run the same command again",
            server.address
        )))
    }
}

/// See the module.
pub(crate) struct Primaries {
    address: ServerAddress,
    wish: Wish,
    pub(crate) all: Vec<Primary>,
    /// Slots on their way between two of them.
    pub(crate) moving: SlotSet,
}

impl std::fmt::Debug for Primaries {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let addresses = self.all.iter().map(|primary| &primary.target.server.address);
        f.debug_list().entries(addresses).finish()
    }
}

impl Primaries {
    /// Connects to all of them. `entry`: some node of the cluster.
    pub(crate) fn open(entry: &mut Server, address: &ServerAddress, wish: Wish) -> Result<Self, RestoreError> {
        let mut primaries = Self { address: address.clone(), wish, all: Vec::new(), moving: SlotSet::default() };
        let nodes = ask(entry)?;
        primaries.open_new(&nodes)?;
        primaries.refresh()?;
        let missing = primaries.without_node();
        if let Some(first) = missing.first() {
            return Err(RestoreError::Unable(format!(
                "the cluster of {} has no node for {} of its {SLOTS} slots ({first} is the first); repair it (redis-cli --cluster fix) and restore again",
                entry.address,
                missing.len(),
            )));
        }
        Ok(primaries)
    }

    /// Asks each of them which slots it holds now, and connects to new ones.
    pub(crate) fn refresh(&mut self) -> Result<(), RestoreError> {
        let mut at = 0;
        self.moving = SlotSet::default();
        while let Some(primary) = self.all.get_mut(at) {
            at += 1;
            primary.target.server.ensure_connected()?;
            primary.check_history()?;
            let nodes = ask(&mut primary.target.server)?;
            let own = nodes.iter().find(|node| node.is_self);
            let (slots, moving) = own.map(|own| (own.slots.clone(), own.moving.clone())).unwrap_or_default();
            primary.slots = slots;
            self.moving.add(&moving);
            self.open_new(&nodes)?;
        }
        for primary in &mut self.all {
            primary.slots.subtract(&self.moving);
        }
        Ok(())
    }

    /// Takes each of them for one restore.
    pub(crate) fn claim(&mut self) -> Result<(), RestoreError> {
        self.all.iter_mut().try_for_each(|primary| primary.target.claim())
    }

    /// Withdraws the names of the connections.
    pub(crate) fn clear_names(&mut self) {
        // They go with the connections in any case.
        self.all.iter_mut().for_each(|primary| drop(primary.target.server.clear_name()));
    }

    /// Runs commands on the node that holds this key, again when its slot moves.
    pub(crate) fn with_holder_of<T>(
        &mut self,
        key: &str,
        run: &mut dyn FnMut(&mut Server) -> Result<T, RestoreError>,
    ) -> Result<T, RestoreError> {
        let began = Instant::now();
        loop {
            self.wish.interrupt.check()?;
            let holder = self.all.iter_mut().find(|primary| primary.slots.has_key(key.as_bytes()));
            match holder.map(|primary| run(&mut primary.target.server)) {
                None | Some(Err(RestoreError::OtherNode { .. })) if began.elapsed() < MOVE_WAIT_MAX => {
                    std::thread::sleep(LOOK_EVERY);
                    self.refresh()?;
                }
                None => return Err(self.still_moving(&self.moving)),
                Some(done) => return done,
            }
        }
    }

    /// What is to be done about slots that do not come to rest.
    pub(super) fn still_moving(&self, left: &SlotSet) -> RestoreError {
        let first = left.first().unwrap_or_default();
        RestoreError::Unable(format!(
            "{} slots of the cluster of {} are moving, or have no node, since {} minutes ({first} is the first): end that (redis-cli --cluster fix), and run the same command again",
            left.len(),
            self.address.url.address(),
            MOVE_WAIT_MAX.as_secs() / 60
        ))
    }

    /// Slots that no primary holds and that are not on their way.
    fn without_node(&self) -> SlotSet {
        let mut missing = SlotSet::all();
        missing.subtract(&self.moving);
        self.all.iter().for_each(|primary| missing.subtract(&primary.slots));
        missing
    }

    /// Connects to primaries that are not known yet.
    fn open_new(&mut self, nodes: &[Node]) -> Result<(), RestoreError> {
        for node in nodes.iter().filter(|node| node.is_primary && node.is_up) {
            if self.all.iter().any(|known| known.id == node.id) {
                continue;
            }
            let mut address = self.address.clone();
            if !(node.is_self && node.host.is_empty()) {
                address.url.endpoint = Endpoint::Tcp { host: node.host.clone(), port: node.port };
            }
            let target = ServerTarget::open(address.connector()?, address.commands, self.wish.clone())?;
            // Others learn late that a node has become a replica.
            if target.facts.follows.is_some() {
                continue;
            }
            self.all.push(Primary { id: node.id.clone(), target, slots: SlotSet::default() });
        }
        Ok(())
    }
}

fn ask(server: &mut Server) -> Result<Vec<Node>, RestoreError> {
    let reply = server.call(&["CLUSTER", "NODES"])?;
    Ok(topology::parse(&text(&reply)))
}
