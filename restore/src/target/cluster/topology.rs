//! Which node of a cluster holds which slots, as `CLUSTER NODES` tells it. Pure.
//!
//! A line is `ID HOST:PORT@BUSPORT[,NAME] FLAGS PRIMARY PING PONG EPOCH LINK SLOT…`. A slot is `7`, or `0-5460`; in the line of the node
//! that was asked, and only there, `[7->-ID]` is a slot that is moving away and `[7-<-ID]` one that is coming.
//!
//! Source: `clusterGenNodeDescription` in Redis 7.0 `cluster.c`; the same in Valkey.

use redtape_wire::slot::{SLOTS, SlotSet};

/// A node, as the node that was asked sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) id: String,
    /// Empty: that of the node that was asked.
    pub(super) host: String,
    pub(super) port: u16,
    /// It was asked.
    pub(super) is_self: bool,
    /// It holds slots, or may.
    pub(super) is_primary: bool,
    /// It has an address and is not known to have failed.
    pub(super) is_up: bool,
    pub(super) slots: SlotSet,
    /// On their way from this node or to it; known of the node that was asked.
    pub(super) moving: SlotSet,
}

/// Reads a reply to `CLUSTER NODES`; lines that are not understood are left out.
pub(super) fn parse(reply: &str) -> Vec<Node> {
    reply.lines().filter_map(node).collect()
}

fn node(line: &str) -> Option<Node> {
    let mut words = line.split_ascii_whitespace();
    let (id, address, flags) = (words.next()?, words.next()?, words.next()?);
    let address = address.split(',').next()?;
    let address = address.split('@').next()?;
    let (host, port) = address.rsplit_once(':')?;
    let has = |flag: &str| flags.split(',').any(|word| word == flag);
    let (mut slots, mut moving) = (SlotSet::default(), SlotSet::default());
    for word in words.skip(5) {
        if let Some(slot) = word.strip_prefix('[') {
            moving.insert(slot.split('-').next()?.parse().ok()?);
            continue;
        }
        let (first, last) = word.split_once('-').unwrap_or((word, word));
        let (first, last): (u16, u16) = (first.parse().ok()?, last.parse().ok()?);
        (first..=last.min(SLOTS - 1)).for_each(|slot| slots.insert(slot));
    }
    Some(Node {
        id: id.to_owned(),
        host: host.to_owned(),
        port: port.parse().ok()?,
        is_self: has("myself"),
        is_primary: has("master"),
        is_up: !has("fail") && !has("noaddr") && !has("handshake"),
        slots,
        moving,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPLY: &str = "\
        07c37df 127.0.0.1:30004@31004,host4 slave e7d1eec 0 1426238317239 4 connected\n\
        67ed2db 127.0.0.1:30002@31002 master - 0 1426238316232 2 connected 5461-10922 16383\n\
        292f8b3 ::1:30003@31003,,tls-port=0,shard-id=7 master,fail - 0 1426238318243 3 connected\n\
        e7d1eec :30001@31001 myself,master - 0 0 1 connected 0-5460 [93-<-292f8b3] [77->-67ed2db]\n\
        0000000 :0@0 master,noaddr - 0 0 0 disconnected\n\
        not a line\n";

    #[test]
    fn the_nodes_of_a_cluster() {
        let nodes = parse(REPLY);
        let about =
            |n: &Node| (n.host.clone(), n.port, n.is_primary, n.is_up, n.is_self, n.slots.len(), n.moving.len());
        let told: Vec<_> = nodes.iter().map(about).collect();
        let want = [
            ("127.0.0.1".to_owned(), 30004, false, true, false, 0, 0),
            ("127.0.0.1".to_owned(), 30002, true, true, false, 5463, 0),
            ("::1".to_owned(), 30003, true, false, false, 0, 0),
            (String::new(), 30001, true, true, true, 5461, 2),
            (String::new(), 0, true, false, false, 0, 0),
        ];
        assert_eq!(told, want);
        assert!(nodes[3].moving.has(93) && nodes[3].moving.has(77));
        assert!(nodes[1].slots.has(16_383) && !nodes[1].slots.has(0));
    }
}
