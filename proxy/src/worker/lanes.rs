//! Which lane serves whom: one for each user, database and protocol.
//!
//! A lane is opened with what the *server* took as proof from a session, and used only by sessions whose own
//! connection the server has let in as that very user, by that very proof. A lane that the server refuses is not
//! tried again for a while; its sessions stay at home.

use std::collections::HashMap;
use std::collections::VecDeque;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::{Duration, Instant};

use redtape_wire::resp::encode_command;

use super::link::Greeting;
use crate::session::Credential;

/// Lanes of one worker; sessions beyond stay at home.
pub(super) const LANES_MAX: usize = 256;
/// A lane that was refused is tried again after this time.
const REFUSED_FOR: Duration = Duration::from_secs(5);
/// A lane that nobody uses is closed after this time.
pub(super) const LANE_IDLE: Duration = Duration::from_secs(30);
/// How lanes name themselves in `CLIENT LIST`.
const LANE_NAME: &str = "redtape-lane";

/// What all sessions of a lane have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LaneKey {
    pub(super) credential: Option<Arc<Credential>>,
    pub(super) db: u32,
    pub(super) resp3: bool,
}

impl Hash for LaneKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.credential.as_ref().map(|c| &c.user).hash(state);
        (self.db, self.resp3).hash(state);
    }
}

impl LaneKey {
    /// What a lane says first, and what it must hear; `None` = it can't be said.
    pub(super) fn introduction(&self) -> Option<(Vec<u8>, VecDeque<Greeting>)> {
        let (mut bytes, mut greetings) = (Vec::new(), VecDeque::new());
        let mut say = |args: &[&[u8]], answer| {
            encode_command(&mut bytes, args);
            greetings.push_back(answer);
        };
        match &self.credential {
            Some(c) => say(&[b"AUTH", &c.user, c.password.as_ref()?.expose().as_bytes()], Greeting::Accepted),
            None => say(&[b"PING"], Greeting::Admitted),
        }
        if self.resp3 {
            say(&[b"HELLO", b"3"], Greeting::Accepted);
        }
        say(&[b"CLIENT", b"SETNAME", LANE_NAME.as_bytes()], Greeting::Any);
        if self.db != 0 {
            say(&[b"SELECT", self.db.to_string().as_bytes()], Greeting::Accepted);
        }
        Some((bytes, greetings))
    }
}

#[derive(Debug)]
enum Lane {
    Open(usize),
    Refused(Instant),
}

/// What to do for a session that wants a lane.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Choice {
    /// This link, if it is ready.
    Take(usize),
    /// Open one; meanwhile the session stays at home.
    Open,
    /// Stay at home.
    None,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    by_key: HashMap<LaneKey, Lane>,
}

impl Lanes {
    pub(super) fn choose(&mut self, key: &LaneKey, now: Instant) -> Choice {
        match self.by_key.get(key) {
            Some(Lane::Open(link)) => Choice::Take(*link),
            Some(Lane::Refused(until)) if now < *until => Choice::None,
            None if self.by_key.len() >= LANES_MAX => {
                self.by_key.retain(|_, lane| !matches!(lane, Lane::Refused(until) if *until <= now));
                Choice::None
            }
            _ => Choice::Open,
        }
    }

    pub(super) fn opened(&mut self, key: LaneKey, link: usize) {
        self.by_key.insert(key, Lane::Open(link));
    }

    pub(super) fn refused(&mut self, key: LaneKey, now: Instant) {
        self.by_key.insert(key, Lane::Refused(now + REFUSED_FOR));
    }

    pub(super) fn closed(&mut self, key: &LaneKey) {
        self.by_key.remove(key);
    }

    pub(super) fn open(&self) -> impl Iterator<Item = usize> {
        self.by_key.values().filter_map(|lane| match lane {
            Lane::Open(link) => Some(*link),
            Lane::Refused(_) => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use redtape_wire::url::Secret;

    use super::*;

    fn key(user: &str, password: &str) -> LaneKey {
        let credential = Credential { user: user.into(), password: Some(Secret::new(password)) };
        LaneKey { credential: Some(Arc::new(credential)), db: 0, resp3: false }
    }

    #[test]
    fn another_password_is_another_lane() {
        let (mut lanes, now) = (Lanes::default(), Instant::now());
        assert_eq!(lanes.choose(&key("ann", "old"), now), Choice::Open);
        lanes.opened(key("ann", "old"), 7);
        assert_eq!(lanes.choose(&key("ann", "old"), now), Choice::Take(7));
        assert_eq!(lanes.choose(&key("ann", "new"), now), Choice::Open);
        lanes.refused(key("ann", "new"), now);
        assert_eq!(lanes.choose(&key("ann", "new"), now), Choice::None);
        assert_eq!(lanes.choose(&key("ann", "new"), now + REFUSED_FOR), Choice::Open);
        lanes.closed(&key("ann", "old"));
        assert_eq!(lanes.choose(&key("ann", "old"), now), Choice::Open);
        assert!(!format!("{lanes:?}").contains("new"));
    }

    #[test]
    fn names_that_are_no_text_are_other_users() {
        let key = |user: &[u8]| {
            let credential = Credential { user: user.to_vec(), password: Some(Secret::new("pw")) };
            LaneKey { credential: Some(Arc::new(credential)), db: 0, resp3: false }
        };
        let (mut lanes, now) = (Lanes::default(), Instant::now());
        lanes.opened(key(b"\xff"), 7);
        assert_eq!(lanes.choose(&key(b"\xff"), now), Choice::Take(7));
        for other in [&b"\xfe"[..], "\u{fffd}".as_bytes(), b"\\xff"] {
            assert_eq!(lanes.choose(&key(other), now), Choice::Open, "{}", other.escape_ascii());
        }
        let (bytes, _) = key(b"\xff").introduction().expect("sayable");
        assert!(bytes.starts_with(b"*3\r\n$4\r\nAUTH\r\n$1\r\n\xff\r\n"));
    }

    #[test]
    fn there_are_not_more_lanes_than_allowed() {
        let (mut lanes, now) = (Lanes::default(), Instant::now());
        for db in 0..LANES_MAX as u32 {
            lanes.opened(LaneKey { credential: None, db, resp3: false }, 1);
        }
        assert_eq!(lanes.choose(&key("ann", "x"), now), Choice::None);
    }

    #[test]
    fn introductions() {
        let (bytes, greetings) = LaneKey { db: 3, resp3: true, ..key("ann", "pw") }.introduction().expect("sayable");
        assert!(bytes.starts_with(b"*3\r\n$4\r\nAUTH\r\n$3\r\nann\r\n$2\r\npw\r\n*2\r\n$5\r\nHELLO\r\n"));
        assert_eq!(greetings, [Greeting::Accepted, Greeting::Accepted, Greeting::Any, Greeting::Accepted]);
        let (_, greetings) = LaneKey { credential: None, db: 0, resp3: false }.introduction().expect("sayable");
        assert_eq!(greetings, [Greeting::Admitted, Greeting::Any]);
        let binary = Credential { user: b"ann".to_vec(), password: None };
        assert!(LaneKey { credential: Some(Arc::new(binary)), db: 0, resp3: false }.introduction().is_none());
    }
}
