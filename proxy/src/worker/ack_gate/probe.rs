//! Protocol of the offset probe, the worker's own connection for reading the server's offset: no I/O.
//!
//! ```text
//! Down ── introduce ──► LoggingIn ── AUTH (if any) and the first INFO are answered ──► Ready ── request, answer, …
//!   ▲                       │                                                            │
//!   └────── a refusal, a replica, another history, no RESP, silence (the caller) ◄───────┘
//! ```
//!
//! Invariant: while it is `Ready`, all offsets are of the history that the first answer named.

use std::borrow::Cow;
use std::time::Instant;

use redtape_journal::ReplOffset;
use redtape_wire::info::info_field;
use redtape_wire::resp::{ReplyScanner, encode_command};

use crate::worker::refs::ConnRef;

/// The `INFO replication` request, encoded.
pub(in crate::worker) const INFO_REPLICATION: &[u8] = b"*2\r\n$4\r\nINFO\r\n$11\r\nreplication\r\n";
/// Size limit of an answer.
const ANSWER_MAX: usize = 64 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Not connected, or being connected.
    Down,
    /// Number of answers still due before the first offset is known.
    LoggingIn(usize),
    Ready,
}

/// Meaning of bytes from the server.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ProbeEvent {
    /// Nothing yet.
    Nothing,
    /// The probe is ready. `other_history`: the previous ready probe saw another history.
    Ready { other_history: bool },
    /// The server's offset.
    Offset(String, ReplOffset),
    /// The probe cannot be used any longer.
    Failed(Cow<'static, str>),
}

/// State of the probe.
#[derive(Debug)]
pub(super) struct OffsetProbe {
    conn: Option<ConnRef>,
    phase: Phase,
    /// The server's replication id when the probe was last ready.
    history: Option<String>,
    input: Vec<u8>,
    scanner: ReplyScanner,
    /// Time of the last request.
    pub(super) asked_at: Instant,
    /// Time of the last answer, or of the oldest open request.
    pub(super) heard_at: Instant,
    /// Requests that a busy server has refused: they must be repeated.
    put_off: usize,
}

impl OffsetProbe {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            conn: None,
            phase: Phase::Down,
            history: None,
            input: Vec::new(),
            scanner: ReplyScanner::new(),
            asked_at: now,
            heard_at: now,
            put_off: 0,
        }
    }

    pub(super) fn is_ready(&self) -> bool {
        self.phase == Phase::Ready
    }

    pub(super) fn is_logging_in(&self) -> bool {
        matches!(self.phase, Phase::LoggingIn(_))
    }

    /// Its connection, open or being opened.
    pub(super) fn conn(&self) -> Option<ConnRef> {
        self.conn
    }

    /// A connection is being opened for it.
    pub(super) fn opening(&mut self, conn: ConnRef) {
        self.conn = Some(conn);
        self.input.clear();
        self.scanner = ReplyScanner::new();
    }

    /// Its first bytes. `login`: redtape's own user and password.
    pub(super) fn introduce(&mut self, login: Option<(Option<&str>, &str)>, now: Instant) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut answers = 1;
        if let Some((user, password)) = login {
            let auth: Vec<&str> = ["AUTH"].into_iter().chain(user).chain([password]).collect();
            encode_command(&mut bytes, &auth);
            answers += 1;
        }
        bytes.extend_from_slice(INFO_REPLICATION);
        self.phase = Phase::LoggingIn(answers);
        self.put_off = 0;
        (self.asked_at, self.heard_at) = (now, now);
        bytes
    }

    /// Gives up its connection; returns it, and whether the probe was ready.
    pub(super) fn reset(&mut self) -> (Option<ConnRef>, bool) {
        let was_ready = self.is_ready();
        self.phase = Phase::Down;
        (self.conn.take(), was_ready)
    }

    /// Number of requests to repeat since the last call.
    pub(super) fn take_put_off(&mut self) -> usize {
        std::mem::take(&mut self.put_off)
    }

    /// Takes bytes from the server, up to the end of one answer; returns how many, and their meaning.
    pub(super) fn receive(&mut self, bytes: &[u8], now: Instant) -> (usize, ProbeEvent) {
        let Ok((len, frame)) = self.scanner.scan(bytes) else {
            return (bytes.len(), ProbeEvent::Failed("what the server says is no RESP".into()));
        };
        self.input.extend_from_slice(&bytes[..len]);
        if frame.is_none() {
            let event = if self.input.len() > ANSWER_MAX {
                ProbeEvent::Failed("the answer to INFO replication is too long".into())
            } else {
                ProbeEvent::Nothing
            };
            return (len, event);
        }
        let answer = String::from_utf8_lossy(&self.input).into_owned();
        self.input.clear();
        self.heard_at = now;
        (len, self.answered(&answer))
    }

    fn answered(&mut self, answer: &str) -> ProbeEvent {
        let open = if let Phase::LoggingIn(open) = self.phase { open } else { 0 };
        if answer.starts_with("-BUSY") && open <= 1 {
            // A script runs for long. A later answer also covers the present.
            self.put_off += 1;
            return ProbeEvent::Nothing;
        }
        if let Some(refusal) = answer.strip_prefix('-') {
            return ProbeEvent::Failed(format!("the server refuses: {}", refusal.trim_end()).into());
        }
        if open > 1 {
            self.phase = Phase::LoggingIn(open - 1);
            return ProbeEvent::Nothing;
        }
        let offset = info_field(answer, "master_repl_offset").and_then(|n| n.parse().ok());
        let (Some(replid), Some(offset)) = (info_field(answer, "master_replid"), offset) else {
            return ProbeEvent::Failed("INFO replication has no replication id or offset".into());
        };
        if info_field(answer, "role") != Some("master") {
            return ProbeEvent::Failed("the upstream is a replica".into());
        }
        if open == 1 {
            self.phase = Phase::Ready;
            let before = self.history.replace(replid.to_owned());
            return ProbeEvent::Ready { other_history: before.is_some_and(|before| before != replid) };
        }
        if self.history.as_deref() != Some(replid) {
            return ProbeEvent::Failed("the server's history has changed".into());
        }
        ProbeEvent::Offset(replid.to_owned(), ReplOffset(offset))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(role: &str, replid: &str, offset: u64) -> Vec<u8> {
        let text = format!("role:{role}\r\nmaster_replid:{replid}\r\nmaster_repl_offset:{offset}\r\n");
        format!("${}\r\n{text}\r\n", text.len()).into_bytes()
    }

    /// A probe that was introduced with a password.
    fn introduced() -> OffsetProbe {
        let mut probe = OffsetProbe::new(Instant::now());
        probe.opening(ConnRef { index: 3, generation: 7 });
        assert!(!probe.is_logging_in(), "it is being connected");
        let bytes = probe.introduce(Some((Some("ann"), "pw")), Instant::now());
        assert!(
            bytes.starts_with(b"*3\r\n$4\r\nAUTH\r\n$3\r\nann\r\n$2\r\npw\r\n") && bytes.ends_with(INFO_REPLICATION)
        );
        probe
    }

    fn receive(probe: &mut OffsetProbe, bytes: &[u8]) -> ProbeEvent {
        let (used, event) = probe.receive(bytes, Instant::now());
        assert_eq!(used, bytes.len());
        event
    }

    #[test]
    fn it_is_ready_with_the_first_offset_and_then_tells_offsets() {
        let mut probe = introduced();
        assert_eq!(receive(&mut probe, b"+OK\r\n"), ProbeEvent::Nothing);
        assert!(probe.is_logging_in() && !probe.is_ready());
        let answer = info("master", "one", 5);
        assert_eq!(receive(&mut probe, &answer[..9]), ProbeEvent::Nothing, "half an answer");
        assert_eq!(receive(&mut probe, &answer[9..]), ProbeEvent::Ready { other_history: false });
        let two = [info("master", "one", 6), info("master", "one", 7)].concat();
        let (used, event) = probe.receive(&two, Instant::now());
        assert_eq!((used, event), (two.len() / 2, ProbeEvent::Offset("one".to_owned(), ReplOffset(6))));
    }

    #[test]
    fn any_other_answer_ends_the_probe() {
        for (what, bytes) in [
            ("no RESP", b"nonsense\r\n".to_vec()),
            ("a refusal", b"-NOPERM no\r\n".to_vec()),
            ("a replica", info("slave", "one", 5)),
            ("no fields", b"$2\r\nhm\r\n".to_vec()),
            ("another history", info("master", "two", 5)),
            ("too long", [format!("${}\r\n", 1 << 20).into_bytes(), vec![b'x'; ANSWER_MAX]].concat()),
        ] {
            let mut probe = introduced();
            receive(&mut probe, b"+OK\r\n");
            receive(&mut probe, &info("master", "one", 4));
            assert!(probe.is_ready());
            let event = receive(&mut probe, &bytes);
            assert!(matches!(event, ProbeEvent::Failed(_)), "{what}: {event:?}");
        }
    }

    #[test]
    fn the_next_one_knows_which_history_the_last_one_saw() {
        let mut probe = introduced();
        receive(&mut probe, b"+OK\r\n");
        receive(&mut probe, &info("master", "one", 4));
        for (replid, other_history) in [("one", false), ("two", true), ("two", false)] {
            assert_eq!(probe.reset(), (Some(ConnRef { index: 3, generation: 7 }), true));
            assert_eq!(probe.reset(), (None, false), "once");
            probe.opening(ConnRef { index: 3, generation: 7 });
            probe.introduce(None, Instant::now());
            assert_eq!(receive(&mut probe, &info("master", replid, 4)), ProbeEvent::Ready { other_history });
        }
    }

    #[test]
    fn a_busy_server_is_asked_again() {
        let mut probe = introduced();
        assert!(matches!(receive(&mut probe, b"-BUSY a script\r\n"), ProbeEvent::Failed(_)), "not for its login");
        let mut probe = introduced();
        receive(&mut probe, b"+OK\r\n");
        assert_eq!(receive(&mut probe, b"-BUSY a script\r\n"), ProbeEvent::Nothing);
        assert_eq!((probe.take_put_off(), probe.take_put_off()), (1, 0));
        assert_eq!(receive(&mut probe, &info("master", "one", 4)), ProbeEvent::Ready { other_history: false });
    }
}
