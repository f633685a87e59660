//! Which shared connection a session uses: two for each user, database and protocol, one for reads and one for writes.
//!
//! A shared connection logs in with credentials that the *server* accepted from a session, and serves only sessions
//! that the server accepted as the same user with the same credentials. A refused shared connection is retried after a
//! while; its sessions stay on their pinned connections. Refused credentials are not used again until the server has
//! accepted them from a session, since each refusal is recorded in its ACL LOG.
//!
//! Why two: a server that pauses writes (`CLIENT PAUSE WRITE`, `FAILOVER`, `SHUTDOWN`) reads nothing more from a
//! connection on which a write waits, and reads of other sessions would wait behind it.

use std::collections::{HashMap, VecDeque};
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::{Duration, Instant};

use redtape_wire::resp::encode_command;

use crate::session::Credential;

/// Shared connections of one worker; further sessions stay on their pinned connections.
pub(super) const SHARED_CONNS_MAX: usize = 256;
/// A refused shared connection is retried after this time.
const REFUSED_FOR: Duration = Duration::from_secs(5);
/// Refused credentials that are remembered; older ones may be tried once more.
const DENIED_MAX: usize = 1024;
/// An unused shared connection is closed after this time.
pub(super) const SHARED_IDLE: Duration = Duration::from_secs(30);
/// How long a session may request the replicas of its writes through a shared connection (`WAIT`); the connection is
/// kept until then.
pub(in crate::worker) const SHARED_KEPT: Duration = Duration::from_mins(10);
/// Name of shared connections in `CLIENT LIST`.
const SHARED_NAME: &str = "redtape-lane";

/// Common properties of all sessions of a shared connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::worker) struct SharedKey {
    pub(in crate::worker) credential: Option<Arc<Credential>>,
    pub(in crate::worker) db: u32,
    pub(in crate::worker) resp3: bool,
    /// For writes, and for reads after a session's own writes.
    pub(in crate::worker) writes: bool,
}

impl Hash for SharedKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.credential.as_ref().map(|c| &c.user).hash(state);
        (self.db, self.resp3, self.writes).hash(state);
    }
}

impl SharedKey {
    /// The first bytes on a shared connection, and how many replies without an error it must get; `None` = not
    /// possible.
    ///
    /// `HELLO` needs no right, while `CLIENT SETNAME` and `PING` do: for a user without them, each refusal would be
    /// recorded in the ACL LOG.
    pub(super) fn introduction(&self) -> Option<(Vec<u8>, usize)> {
        let mut bytes = Vec::new();
        let protocol: &[u8] = if self.resp3 { b"3" } else { b"2" };
        match &self.credential {
            Some(c) => {
                let password = c.password.as_ref()?.expose().as_bytes();
                encode_command(
                    &mut bytes,
                    &[b"HELLO", protocol, b"AUTH", &c.user, password, b"SETNAME", SHARED_NAME.as_bytes()],
                );
            }
            None => encode_command(&mut bytes, &[b"HELLO", protocol, b"SETNAME", SHARED_NAME.as_bytes()]),
        }
        if self.db == 0 {
            return Some((bytes, 1));
        }
        encode_command(&mut bytes, &["SELECT", &self.db.to_string()]);
        Some((bytes, 2))
    }
}

#[derive(Debug)]
enum Slot {
    Open(usize),
    Refused(Instant),
}

/// What to do for a session that may use a shared connection.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Choice {
    /// Use this connection if it is ready.
    Take(usize),
    /// Open one; meanwhile the session stays on its pinned connection.
    Open,
    /// Stay on the pinned connection.
    None,
}

/// The shared connections of one worker.
#[derive(Debug, Default)]
pub(super) struct SharedConns {
    by_key: HashMap<SharedKey, Slot>,
    /// Refused credentials, oldest first.
    denied: VecDeque<Option<Arc<Credential>>>,
}

impl SharedConns {
    pub(super) fn choose(&mut self, key: &SharedKey, now: Instant) -> Choice {
        match self.by_key.get(key) {
            Some(Slot::Open(conn)) => Choice::Take(*conn),
            Some(Slot::Refused(until)) if now < *until => Choice::None,
            None if self.by_key.len() >= SHARED_CONNS_MAX => {
                self.by_key.retain(|_, shared| !matches!(shared, Slot::Refused(until) if *until <= now));
                Choice::None
            }
            _ if self.denied.contains(&key.credential) => Choice::None,
            _ => Choice::Open,
        }
    }

    /// True if a shared connection with these credentials is being opened: the server's answer also holds for the next
    /// one.
    pub(super) fn is_showing(&self, credential: Option<&Arc<Credential>>, is_ready: impl Fn(usize) -> bool) -> bool {
        self.by_key.iter().any(|(key, shared)| {
            matches!(shared, Slot::Open(conn) if !is_ready(*conn)) && key.credential.as_ref() == credential
        })
    }

    pub(super) fn opened(&mut self, key: SharedKey, conn: usize) {
        self.by_key.insert(key, Slot::Open(conn));
    }

    pub(super) fn refused(&mut self, key: SharedKey, now: Instant) {
        self.by_key.insert(key, Slot::Refused(now + REFUSED_FOR));
    }

    /// The server refused the credentials, or a command of the login.
    pub(super) fn denied(&mut self, key: &SharedKey) {
        self.by_key.remove(key);
        if self.denied.contains(&key.credential) {
            return;
        }
        if self.denied.len() >= DENIED_MAX {
            self.denied.pop_front();
        }
        self.denied.push_back(key.credential.clone());
    }

    /// The server accepted these credentials from a session: they may be used again.
    pub(super) fn proved(&mut self, credential: Option<&Arc<Credential>>) {
        if !self.denied.is_empty() {
            self.denied.retain(|denied| denied.as_ref() != credential);
        }
    }

    /// This connection serves no more sessions under the key.
    pub(super) fn closed(&mut self, key: &SharedKey, conn: usize) {
        if matches!(self.by_key.get(key), Some(Slot::Open(open)) if *open == conn) {
            self.by_key.remove(key);
        }
    }

    pub(super) fn open(&self) -> impl Iterator<Item = usize> {
        self.by_key.values().filter_map(|shared| match shared {
            Slot::Open(conn) => Some(*conn),
            Slot::Refused(_) => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use redtape_wire::url::Secret;

    use super::*;

    const ANYONE: SharedKey = SharedKey { credential: None, db: 0, resp3: false, writes: false };

    fn key(user: &str, password: &str) -> SharedKey {
        let credential = Credential { user: user.into(), password: Some(Secret::new(password)) };
        SharedKey { credential: Some(Arc::new(credential)), ..ANYONE }
    }

    #[test]
    fn another_password_is_another_connection() {
        let (mut shared_conns, now) = (SharedConns::default(), Instant::now());
        assert_eq!(shared_conns.choose(&key("ann", "old"), now), Choice::Open);
        shared_conns.opened(key("ann", "old"), 7);
        assert_eq!(shared_conns.choose(&key("ann", "old"), now), Choice::Take(7));
        assert_eq!(shared_conns.choose(&SharedKey { writes: true, ..key("ann", "old") }, now), Choice::Open);
        assert_eq!(shared_conns.choose(&key("ann", "new"), now), Choice::Open);
        shared_conns.refused(key("ann", "new"), now);
        assert_eq!(shared_conns.choose(&key("ann", "new"), now), Choice::None);
        assert_eq!(shared_conns.choose(&key("ann", "new"), now + REFUSED_FOR), Choice::Open);
        shared_conns.closed(&key("ann", "old"), 8);
        assert_eq!(shared_conns.choose(&key("ann", "old"), now), Choice::Take(7));
        shared_conns.closed(&key("ann", "old"), 7);
        assert_eq!(shared_conns.choose(&key("ann", "old"), now), Choice::Open);
        assert!(!format!("{shared_conns:?}").contains("new"));
    }

    #[test]
    fn names_that_are_no_text_are_other_users() {
        let key = |user: &[u8]| {
            let credential = Credential { user: user.to_vec(), password: Some(Secret::new("pw")) };
            SharedKey { credential: Some(Arc::new(credential)), ..ANYONE }
        };
        let (mut shared_conns, now) = (SharedConns::default(), Instant::now());
        shared_conns.opened(key(b"\xff"), 7);
        assert_eq!(shared_conns.choose(&key(b"\xff"), now), Choice::Take(7));
        for other in [&b"\xfe"[..], "\u{fffd}".as_bytes(), b"\\xff"] {
            assert_eq!(shared_conns.choose(&key(other), now), Choice::Open, "{}", other.escape_ascii());
        }
        let (bytes, _) = key(b"\xff").introduction().expect("sayable");
        assert!(bytes.starts_with(b"*7\r\n$5\r\nHELLO\r\n$1\r\n2\r\n$4\r\nAUTH\r\n$1\r\n\xff\r\n"));
    }

    #[test]
    fn a_proof_is_shown_once_at_a_time() {
        let mut shared_conns = SharedConns::default();
        let (ann, bob) = (key("ann", "pw"), key("bob", "pw"));
        shared_conns.opened(ann.clone(), 7);
        assert!(shared_conns.is_showing(ann.credential.as_ref(), |_| false));
        assert!(!shared_conns.is_showing(ann.credential.as_ref(), |conn| conn == 7));
        assert!(!shared_conns.is_showing(bob.credential.as_ref(), |_| false));
    }

    #[test]
    fn a_refused_proof_is_shown_again_when_a_session_has_proved_it_anew() {
        let (mut shared_conns, now) = (SharedConns::default(), Instant::now());
        let (ann, late) = (key("ann", "old"), now + 2 * REFUSED_FOR);
        shared_conns.denied(&ann);
        for refused in [&ann, &SharedKey { writes: true, ..ann.clone() }, &SharedKey { db: 3, ..ann.clone() }] {
            assert_eq!(shared_conns.choose(refused, late), Choice::None);
        }
        assert_eq!(shared_conns.choose(&key("ann", "new"), now), Choice::Open);
        shared_conns.proved(key("ann", "new").credential.as_ref());
        assert_eq!(shared_conns.choose(&ann, late), Choice::None);
        shared_conns.proved(key("ann", "old").credential.as_ref());
        assert_eq!(shared_conns.choose(&ann, now), Choice::Open);
        for n in 0..2 * DENIED_MAX {
            shared_conns.denied(&key("bob", &n.to_string()));
        }
        assert_eq!(shared_conns.denied.len(), DENIED_MAX);
    }

    #[test]
    fn there_are_not_more_shared_connections_than_allowed() {
        let (mut shared_conns, now) = (SharedConns::default(), Instant::now());
        for db in 0..SHARED_CONNS_MAX as u32 {
            shared_conns.opened(SharedKey { db, ..ANYONE }, 1);
        }
        assert_eq!(shared_conns.choose(&key("ann", "x"), now), Choice::None);
    }

    #[test]
    fn introductions() {
        let (bytes, answers) = SharedKey { db: 3, resp3: true, ..key("ann", "pw") }.introduction().expect("sayable");
        assert!(
            bytes.starts_with(
                b"*7\r\n$5\r\nHELLO\r\n$1\r\n3\r\n$4\r\nAUTH\r\n$3\r\nann\r\n$2\r\npw\r\n$7\r\nSETNAME\r\n"
            )
        );
        assert_eq!(answers, 2);
        let (bytes, answers) = ANYONE.introduction().expect("sayable");
        assert!(bytes.starts_with(b"*4\r\n$5\r\nHELLO\r\n$1\r\n2\r\n$7\r\nSETNAME\r\n"));
        assert_eq!(answers, 1);
        let binary = Credential { user: b"ann".to_vec(), password: None };
        assert!(SharedKey { credential: Some(Arc::new(binary)), ..ANYONE }.introduction().is_none());
    }
}
