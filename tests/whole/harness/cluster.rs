//! A cluster of servers on this machine.

use std::collections::BTreeMap;
use std::time::Duration;

use super::conn::{Value, items, text};
use super::server::Version;
use super::{Args, Conn, Server, State, free_port, wait_for};

const SLOTS: usize = 16_384;
/// A command is sent on to another node so often at most.
const REDIRECTS_MAX: usize = 1000;

/// Primaries first, then as many replicas.
pub struct Cluster {
    pub nodes: Vec<Server>,
    pub primaries: usize,
}

impl Cluster {
    /// So many primaries, each with a replica if `replicas`.
    pub fn start(primaries: usize, replicas: bool) -> Self {
        let count = if replicas { 2 * primaries } else { primaries };
        let nodes: Vec<Server> = (0..count).map(|_| node()).collect();
        let cluster = Self { nodes, primaries };
        for (n, node) in cluster.nodes.iter().enumerate().take(primaries) {
            let slots = n * SLOTS / primaries..(n + 1) * SLOTS / primaries;
            let mut args = args!["CLUSTER", "ADDSLOTS"];
            slots.for_each(|slot| args.push(slot));
            node.conn().must(&args);
        }
        for node in &cluster.nodes[1..] {
            cluster.nodes[0].conn().must(&meeting(node));
        }
        wait_for("all nodes", Duration::from_secs(30), || cluster.all_know(count).then_some(()));
        for n in primaries..count {
            let id = cluster.id(n - primaries);
            wait_for("a replica", Duration::from_secs(30), || {
                let followed = cluster.nodes[n].conn().call(&args!["CLUSTER", "REPLICATE", &id]);
                followed.is_ok_and(|v| !matches!(v, Value::Error(_))).then_some(())
            });
        }
        cluster.wait_ok();
        cluster
    }

    /// All nodes see each slot served.
    pub fn wait_ok(&self) {
        let is_ok = |node: &Server| text(&node.conn().must(&args!["CLUSTER", "INFO"])).contains("cluster_state:ok");
        wait_for("the cluster", Duration::from_secs(60), || self.nodes.iter().all(is_ok).then_some(()));
    }

    fn all_know(&self, count: usize) -> bool {
        self.nodes.iter().all(|node| {
            let known = text(&node.conn().must(&args!["CLUSTER", "NODES"]));
            known.lines().count() == count && !known.contains("handshake")
        })
    }

    pub fn id(&self, node: usize) -> String {
        text(&self.nodes[node].conn().must(&args!["CLUSTER", "MYID"]))
    }

    pub fn url(&self) -> String {
        self.nodes[0].url()
    }

    pub fn client(&self) -> ClusterClient {
        ClusterClient { conns: BTreeMap::new(), last: self.nodes[0].port }
    }

    /// What the primaries hold together.
    pub fn state(&self) -> State {
        let mut states = self.nodes[..self.primaries].iter().map(|node| State::record(&mut node.conn()));
        let mut all = states.next().expect("a primary");
        for state in states {
            for (db, keys) in state.dbs {
                all.dbs.entry(db).or_default().extend(keys);
            }
            for (db, size) in state.sizes {
                *all.sizes.entry(db).or_default() += size;
            }
            assert_eq!(all.functions, state.functions, "each node has the same functions");
        }
        // That of a cluster is none.
        all.digest.clear();
        all
    }

    /// Moves a slot with all its keys, as `redis-cli --cluster reshard` does.
    pub fn move_slot(&self, slot: u16, from: usize, to: usize) {
        let (from_id, to_id) = (self.id(from), self.id(to));
        let (mut source, mut target) = (self.nodes[from].conn(), self.nodes[to].conn());
        target.must(&args!["CLUSTER", "SETSLOT", slot, "IMPORTING", &from_id]);
        source.must(&args!["CLUSTER", "SETSLOT", slot, "MIGRATING", &to_id]);
        loop {
            let keys = items(&source.must(&args!["CLUSTER", "GETKEYSINSLOT", slot, 3]));
            if keys.is_empty() {
                break;
            }
            let mut args = args!["MIGRATE", "127.0.0.1", self.nodes[to].port, "", 0, 5000, "KEYS"];
            keys.iter().for_each(|key| args.push(super::conn::bytes(key)));
            source.must(&args);
            std::thread::sleep(Duration::from_millis(1));
        }
        for conn in [&mut target, &mut source] {
            conn.must(&args!["CLUSTER", "SETSLOT", slot, "NODE", &to_id]);
        }
    }

    /// The slot of a key.
    pub fn slot(&self, key: &str) -> u16 {
        super::conn::int(&self.nodes[0].conn().must(&args!["CLUSTER", "KEYSLOT", key])) as u16
    }
}

fn node() -> Server {
    let bus = free_port().to_string();
    let mut args = vec!["--cluster-enabled", "yes", "--cluster-node-timeout", "5000"];
    if Version::tested().at_least((7, 0), (0, 0)) {
        args.extend(["--cluster-port", &bus]);
    }
    Server::with(&args)
}

fn meeting(node: &Server) -> Args {
    let meet = args!["CLUSTER", "MEET", "127.0.0.1", node.port];
    let nodes = text(&node.conn().must(&args!["CLUSTER", "NODES"]));
    match nodes.split('@').nth(1).and_then(|rest| rest.split([' ', ',']).next()) {
        Some(bus) => meet.and(bus),
        None => meet,
    }
}

/// Follows `MOVED` and `ASK`.
pub struct ClusterClient {
    conns: BTreeMap<u16, Conn>,
    last: u16,
}

impl ClusterClient {
    pub fn must(&mut self, command: &Args) -> Value {
        let (mut port, mut asking) = (self.last, false);
        for _ in 0..REDIRECTS_MAX {
            let conn = self
                .conns
                .entry(port)
                .or_insert_with(|| Conn::open(&format!("redis://127.0.0.1:{port}")).expect("a node"));
            if asking {
                conn.must(&args!["ASKING"]);
            }
            match conn.call(command).expect("a reply") {
                Value::Error(e) if e.starts_with("MOVED ") || e.starts_with("ASK ") => {
                    port = e.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port");
                    asking = e.starts_with("ASK ");
                    if !asking {
                        self.last = port;
                    }
                }
                Value::Error(e) if e.starts_with("TRYAGAIN") => {}
                Value::Error(e) => panic!("{}: {e}", command.name()),
                value => return value,
            }
        }
        panic!("{} is sent from node to node", command.name());
    }
}
