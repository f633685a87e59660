//! Matches each reply to its request of one session, and derives what it changed.
//!
//! Pure: frames in, state changes out. The tracker never alters the stream; if it cannot follow (MONITOR, replication,
//! protocol errors) it is desynced and reports nothing more.

use std::collections::VecDeque;

use redtape_wire::command::CommandId;
use redtape_wire::resp::{Frame, Head};
use redtape_wire::url::Secret;

use super::tracking::Tracking;
use crate::commands::Completion;

/// Effect of a request on the session if the server accepts it. Small: there is one for each request in flight.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Intent {
    /// Nothing.
    Plain,
    /// `SELECT n`.
    Select(u32),
    /// `AUTH` with these credentials.
    Auth(Box<Credential>),
    /// `HELLO`.
    Hello(Box<Hello>),
    /// `CLIENT SETNAME`.
    SetName(Box<str>),
    /// `RESET`.
    Reset,
    /// `MULTI`.
    Multi,
    /// A command inside MULTI, and its effect at EXEC.
    Queued(Box<Intent>),
    /// `EXEC`.
    Exec,
    /// `DISCARD`.
    Discard,
    /// A subscription command with this many confirmations.
    Subscribe(usize),
    /// `UNSUBSCRIBE` without channels: one confirmation for each, at least one.
    UnsubscribeAll(Kind, Option<u32>),
    /// `QUIT`: the server closes.
    Quit,
    /// `MONITOR`, `SYNC`, `PSYNC`, and `CLIENT REPLY` in a transaction: later replies are missing or cannot be matched.
    Raw,
    /// Pins the session to its pinned connection.
    Pin(PinReasons),
    /// Removes a pin reason.
    Unpin(PinReasons),
    /// An unknown command: it may do anything to the connection.
    Unknown,
    /// `CLIENT PAUSE` for so many milliseconds; 0 = `CLIENT UNPAUSE`.
    Pause(u64),
    /// `INFO` or `COMMAND`: the proxy completes the reply.
    Complete(Box<Completion>),
    /// An internal request; the client does not get the answer.
    Internal,
}

impl Intent {
    /// True if its success proves that the server accepts the session's credentials. Without credentials, `SELECT` is
    /// the only command that a shared connection may be refused for lack of rights.
    pub(crate) fn proves(&self, has_credential: bool) -> bool {
        match self {
            Self::Auth(_) => true,
            Self::Hello(hello) => hello.auth.is_some(),
            Self::Select(_) => !has_credential,
            _ => false,
        }
    }

    /// Size of the client's texts in it, in bytes.
    pub(crate) fn buffered(&self) -> usize {
        match self {
            Self::Auth(credential) => size_of::<Credential>() + credential.buffered(),
            Self::Hello(hello) => size_of::<Hello>() + hello.buffered(),
            Self::SetName(name) => name.len(),
            Self::Queued(inner) => size_of::<Self>() + inner.buffered(),
            Self::Complete(completion) => completion.buffered(),
            _ => 0,
        }
    }
}

/// A user with credentials. Kept only to open shared connections as this user, after the server has accepted them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Credential {
    /// As sent: a name need not be text.
    pub(crate) user: Vec<u8>,
    /// `None` = not text, so unusable.
    pub(crate) password: Option<Secret>,
}

impl Credential {
    fn buffered(&self) -> usize {
        self.user.len() + self.password.as_ref().map_or(0, |p| p.expose().len())
    }
}

impl Hello {
    fn buffered(&self) -> usize {
        self.auth.as_ref().map_or(0, Credential::buffered) + self.name.as_ref().map_or(0, String::len)
    }
}

/// `HELLO`: protocol, user, name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Hello {
    pub(crate) resp3: Option<bool>,
    /// The last user that it names.
    pub(crate) auth: Option<Credential>,
    pub(crate) name: Option<String>,
    /// It names several users: servers before 7.2 try each in turn until one is refused.
    pub(crate) several_users: bool,
}

/// Pin reasons besides a transaction and subscriptions: a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct PinReasons(u16);

impl PinReasons {
    pub(crate) const WATCH: Self = Self(1);
    pub(crate) const TRACKING: Self = Self(2);
    pub(crate) const NO_EVICT: Self = Self(4);
    pub(crate) const NO_TOUCH: Self = Self(8);
    /// `READONLY`, in a cluster.
    pub(crate) const READONLY: Self = Self(16);
    /// `ASKING`: for one command.
    pub(crate) const ASKING: Self = Self(32);
    /// Until the connection ends: `SCRIPT DEBUG`, `CLIENT CAPA`, unknown commands.
    pub(crate) const FOREVER: Self = Self(64);
    /// The request may have ended its own session; the next reply shows it.
    pub(crate) const DOUBT: Self = Self(128);
    /// `QUIT`: later requests are not run, and the connection may end after the answer.
    pub(crate) const LEAVING: Self = Self(256);

    pub(crate) fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(crate) fn set(&mut self, other: Self) {
        self.0 |= other.0;
    }

    pub(crate) fn unset(&mut self, other: Self) {
        self.0 &= !other.0;
    }

    /// Removes all but these.
    pub(crate) fn keep(&mut self, these: &[Self]) {
        self.0 &= these.iter().fold(0, |bits, hold| bits | hold.0);
    }

    pub(crate) fn contains(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

/// Channels, patterns, shard channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Channel,
    Pattern,
    Shard,
}

/// Capacity kept while no request is in flight.
const PENDING_KEPT: usize = 64;

/// A request in flight or waiting for its reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pending {
    pub(crate) intent: Intent,
    /// Id of its stamp, and its name.
    pub(crate) stamp: Option<(u64, CommandId)>,
    /// An earlier write gets no reply: this reply shows that it has run.
    pub(crate) tells: bool,
    /// It may change the session's identity or database.
    pub(crate) changes: bool,
}

/// What a reply shows about the transaction of its request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum InTransaction {
    /// Nothing, or the expected.
    AsAsked,
    /// The request should have been queued, but there was no transaction: it ran by itself, possibly up to an error.
    RanUnqueued,
    /// An EXEC that released watched keys: it ran, or ended a transaction by being refused.
    Unwatched,
}

/// Effect of a reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answered {
    pub(crate) pending: Pending,
    pub(crate) error: bool,
    pub(crate) in_transaction: InTransaction,
    pub(crate) kind: u8,
    /// Start of the reply's first line.
    pub(crate) line: Head,
}

/// Requests that begin or end a transaction.
#[derive(Debug, Default)]
struct Turns {
    pending: usize,
    /// After the last of them a transaction is open.
    queues: bool,
}

#[derive(Debug, Default)]
pub(crate) struct ReplyTracker {
    pending: VecDeque<Pending>,
    /// Of these: internal requests, and requests that pin the session.
    internal: usize,
    binding: usize,
    /// Of these: requests that make replies unmatchable if they run outside of a transaction.
    raws: usize,
    /// Size of their intents' texts, in bytes.
    texts: usize,
    turns: Turns,
    subscribed: [usize; 3],
    /// The server has accepted MULTI, and the transaction has not ended.
    in_multi: bool,
    tracking: Tracking,
    /// RESP3: pushes have a type of their own.
    pub(crate) resp3: bool,
}

impl ReplyTracker {
    pub(crate) fn expect(&mut self, pending: Pending) {
        if !self.is_desynced() {
            self.internal += usize::from(pending.intent == Intent::Internal);
            self.binding += usize::from(matches!(pending.intent, Intent::Pin(_)));
            self.raws += usize::from(queues(&pending.intent, &Intent::Raw));
            self.texts += pending.intent.buffered();
            if let Some(queues) = turn(&pending.intent) {
                self.turns = Turns { pending: self.turns.pending + 1, queues };
            }
            self.pending.push_back(pending);
        }
    }

    fn pop(&mut self) -> Option<Pending> {
        let pending = self.pending.pop_front()?;
        self.internal -= usize::from(pending.intent == Intent::Internal);
        self.binding -= usize::from(matches!(pending.intent, Intent::Pin(_)));
        self.raws -= usize::from(queues(&pending.intent, &Intent::Raw));
        self.texts -= pending.intent.buffered();
        if self.pending.is_empty() && self.pending.capacity() > PENDING_KEPT {
            self.pending = VecDeque::new();
        }
        self.turns.pending -= usize::from(turn(&pending.intent).is_some());
        Some(pending)
    }

    /// Number of internal requests in flight.
    pub(crate) fn internal(&self) -> usize {
        self.internal
    }

    /// True if a request in flight pins the session.
    pub(crate) fn binds(&self) -> bool {
        self.binding > 0
    }

    pub(crate) fn pending(&self) -> impl Iterator<Item = &Pending> {
        self.pending.iter()
    }

    /// Size of the requests in flight, in bytes.
    pub(crate) fn buffered(&self) -> usize {
        self.pending.capacity() * size_of::<Pending>() + self.texts
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.pending.len()
    }

    pub(crate) fn subscribed(&self) -> bool {
        self.subscribed.iter().any(|n| *n > 0)
    }

    /// True if replies are matched to requests.
    pub(super) fn tracking(&self) -> Tracking {
        self.tracking
    }

    /// As [`Self::tracking`], mutable.
    pub(super) fn tracking_mut(&mut self) -> &mut Tracking {
        &mut self.tracking
    }

    /// True if replies can no longer be matched to requests.
    pub(crate) fn is_desynced(&self) -> bool {
        self.tracking.is_desynced()
    }

    /// Replies can no longer be matched; returns the pending requests.
    pub(crate) fn desync(&mut self) -> VecDeque<Pending> {
        self.tracking.desync();
        self.forget()
    }

    /// The pending requests will get no reply; returns them.
    pub(crate) fn forget(&mut self) -> VecDeque<Pending> {
        (self.internal, self.binding, self.raws, self.texts, self.turns) = (0, 0, 0, 0, Turns::default());
        std::mem::take(&mut self.pending)
    }

    pub(crate) fn front(&self) -> Option<&Intent> {
        self.pending.front().map(|p| &p.intent)
    }

    /// A reply without a pending request.
    pub(crate) fn is_unasked(&self, frame: &Frame) -> bool {
        !self.is_desynced()
            && self.pending.is_empty()
            && frame.kind != b'>'
            && !(self.subscribed() && frame.kind == b'*' && is_message(frame.first.as_bytes()))
    }

    /// Takes one frame; returns the request that it completes.
    pub(crate) fn frame(&mut self, frame: &Frame) -> Option<Answered> {
        if self.is_desynced() {
            return None;
        }
        let first = frame.first.as_bytes();
        let confirmation = matches!(frame.kind, b'*' | b'>').then(|| confirmed(first)).flatten();
        if confirmation.is_some() {
            self.unqueue();
        }
        if let Some((kind, _)) = confirmation
            && matches!(self.front(), Some(Intent::Subscribe(_) | Intent::UnsubscribeAll(..)))
        {
            return self.confirm(kind, frame);
        }
        let push = frame.kind == b'>' || (!self.resp3 && self.subscribed() && frame.kind == b'*' && is_message(first));
        if push {
            if let Some((kind, false)) = confirmation {
                // The server itself ended a subscription (a slot moved away, a user lost a right).
                self.subscribed[kind as usize] = self.subscribed[kind as usize].saturating_sub(1);
            }
            return None;
        }
        let pending = self.pop()?;
        let error = matches!(frame.kind, b'-' | b'!');
        let (was_in_multi, line) = (self.in_multi, frame.line.as_bytes());
        let by_itself = matches!(pending.intent, Intent::Queued(_)) && line != b"QUEUED" && !(error && was_in_multi);
        match &pending.intent {
            Intent::Hello(hello) if !error => self.resp3 = hello.resp3.unwrap_or(self.resp3),
            Intent::Reset if !error => {
                self.resp3 = false;
                self.subscribed = [0; 3];
            }
            Intent::Raw if !error => self.tracking.desync(),
            _ => {}
        }
        match &pending.intent {
            // Some servers keep the transaction open when they refuse EXEC for another reason.
            Intent::Exec => self.in_multi &= error && !ends_transaction(line),
            Intent::Discard | Intent::Reset if !error => self.in_multi = false,
            Intent::Multi if !error => self.in_multi = true,
            Intent::Queued(inner) if by_itself && !error => match &**inner {
                Intent::Multi => self.in_multi = true,
                Intent::Hello(hello) => self.resp3 = hello.resp3.unwrap_or(self.resp3),
                _ => {}
            },
            _ => {}
        }
        let unwatched = pending.intent == Intent::Exec
            && (!error
                || line.starts_with(b"EXECABORT")
                || (was_in_multi && !self.in_multi && !line.starts_with(NO_TRANSACTION)));
        let in_transaction = match (by_itself, unwatched) {
            (true, _) => InTransaction::RanUnqueued,
            (false, true) => InTransaction::Unwatched,
            (false, false) => InTransaction::AsAsked,
        };
        Some(Answered { pending, error, in_transaction, kind: frame.kind, line: frame.line })
    }

    /// True if the server has accepted MULTI and the transaction has not ended.
    pub(crate) fn in_multi(&self) -> bool {
        self.in_multi
    }

    /// A transaction was discarded by an internal request.
    pub(crate) fn discarded(&mut self) {
        self.in_multi = false;
    }

    /// True if the server has opened the transaction in which the next request is queued.
    pub(crate) fn queues_for_sure(&self) -> bool {
        !self.is_desynced() && self.in_multi && self.turns.pending == 0
    }

    /// True if a transaction is open once everything pending is answered, if the server accepts it.
    pub(crate) fn queues_at_the_end(&self) -> bool {
        if self.turns.pending > 0 { self.turns.queues } else { self.in_multi }
    }

    /// True if a pending request should be queued and would make later replies unmatchable if it ran by itself.
    pub(crate) fn may_become_unknown(&self) -> bool {
        self.raws > 0
    }

    /// MULTI was refused: a subscription sent after it is confirmed as usual.
    fn unqueue(&mut self) {
        if let Some(Pending { intent, .. }) = self.pending.front_mut()
            && !self.in_multi
            && let Intent::Queued(inner) = intent
            && matches!(**inner, Intent::Subscribe(_) | Intent::UnsubscribeAll(..))
        {
            let inner = std::mem::replace(&mut **inner, Intent::Plain);
            // The box is dropped; a subscription has no texts.
            self.texts -= intent.buffered();
            *intent = inner;
        }
    }

    fn confirm(&mut self, kind: Kind, frame: &Frame) -> Option<Answered> {
        let count = usize::try_from(frame.last_integer).unwrap_or(0);
        let [channels, patterns, _] = self.subscribed;
        let slot = kind as usize;
        let before = self.subscribed[slot];
        // The count covers channels and patterns; shard channels have their own.
        self.subscribed[slot] = match kind {
            Kind::Channel => count.saturating_sub(patterns),
            Kind::Pattern => count.saturating_sub(channels),
            Kind::Shard => count,
        };
        let left = match &mut self.pending.front_mut()?.intent {
            Intent::Subscribe(left) => {
                *left = left.saturating_sub(1);
                *left
            }
            Intent::UnsubscribeAll(_, left) => {
                let now = left.unwrap_or(u32::try_from(before.max(1)).unwrap_or(u32::MAX)) - 1;
                *left = Some(now);
                now as usize
            }
            _ => return None,
        };
        if left > 0 {
            return None;
        }
        let pending = self.pop()?;
        let in_transaction = InTransaction::AsAsked;
        Some(Answered { pending, error: false, in_transaction, kind: frame.kind, line: Head::default() })
    }
}

/// The meaning of a request inside MULTI.
fn queues(intent: &Intent, what: &Intent) -> bool {
    matches!(intent, Intent::Queued(inner) if **inner == *what)
}

/// Whether a transaction is open after a request; `None` = as before it.
fn turn(intent: &Intent) -> Option<bool> {
    match intent {
        Intent::Multi => Some(true),
        Intent::Exec | Intent::Discard | Intent::Reset => Some(false),
        intent => queues(intent, &Intent::Multi).then_some(true),
    }
}

/// Error for an EXEC without a transaction.
const NO_TRANSACTION: &[u8] = b"ERR EXEC without";

/// Error for an EXEC after which no transaction is open.
fn ends_transaction(error: &[u8]) -> bool {
    [&b"EXECABORT"[..], NO_TRANSACTION, b"MOVED", b"ASK", b"CROSSSLOT", b"CLUSTERDOWN", b"TRYAGAIN"]
        .iter()
        .any(|start| error.starts_with(start))
}

fn confirmed(first: &[u8]) -> Option<(Kind, bool)> {
    Some(match first {
        b"subscribe" => (Kind::Channel, true),
        b"unsubscribe" => (Kind::Channel, false),
        b"psubscribe" => (Kind::Pattern, true),
        b"punsubscribe" => (Kind::Pattern, false),
        b"ssubscribe" => (Kind::Shard, true),
        b"sunsubscribe" => (Kind::Shard, false),
        _ => return None,
    })
}

fn is_message(first: &[u8]) -> bool {
    matches!(first, b"message" | b"pmessage" | b"smessage") || confirmed(first).is_some()
}

#[cfg(test)]
mod tests {
    use redtape_wire::resp::ReplyScanner;

    use super::*;

    fn play(tracker: &mut ReplyTracker, bytes: &[u8]) -> Vec<Intent> {
        let mut scanner = ReplyScanner::new();
        let (mut used, mut done) = (0, Vec::new());
        while used < bytes.len() {
            let (n, frame) = scanner.scan(&bytes[used..]).expect("sound");
            used += n;
            done.extend(frame.and_then(|f| tracker.frame(&f)).map(|a| a.pending.intent));
        }
        done
    }

    fn expect(tracker: &mut ReplyTracker, intents: &[Intent]) {
        for i in intents {
            tracker.expect(Pending { intent: i.clone(), stamp: None, tells: false, changes: false });
        }
    }

    #[test]
    fn subscriptions_in_resp2_with_messages_between() {
        let mut t = ReplyTracker::default();
        expect(&mut t, &[Intent::Subscribe(2), Intent::Plain]);
        let done = play(
            &mut t,
            b"*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$1\r\nx\r\n*3\r\n$9\r\nsubscribe\r\n$1\r\nb\r\n:2\r\n*2\r\n$4\r\npong\r\n$0\r\n\r\n",
        );
        assert_eq!(done, [Intent::Subscribe(0), Intent::Plain]);
        expect(&mut t, &[Intent::UnsubscribeAll(Kind::Channel, None), Intent::Plain]);
        let done = play(
            &mut t,
            b"*3\r\n$11\r\nunsubscribe\r\n$1\r\na\r\n:1\r\n*3\r\n$11\r\nunsubscribe\r\n$1\r\nb\r\n:0\r\n*1\r\n$1\r\nv\r\n",
        );
        assert_eq!(done, [Intent::UnsubscribeAll(Kind::Channel, Some(0)), Intent::Plain]);
        assert!(!t.subscribed());
        expect(&mut t, &[Intent::UnsubscribeAll(Kind::Pattern, None)]);
        assert_eq!(play(&mut t, b"*3\r\n$12\r\npunsubscribe\r\n$-1\r\n:0\r\n").len(), 1);
    }

    #[test]
    fn pushes_in_resp3_stand_between_replies() {
        let mut t = ReplyTracker { resp3: true, ..ReplyTracker::default() };
        expect(&mut t, &[Intent::Subscribe(1), Intent::Plain]);
        let done = play(
            &mut t,
            b">3\r\n$7\r\nmessage\r\n$1\r\na\r\n$1\r\nx\r\n>3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n>2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n+OK\r\n",
        );
        assert_eq!(done, [Intent::Subscribe(0), Intent::Plain]);
    }

    #[test]
    fn an_array_reply_that_looks_like_a_message_is_a_reply_outside_of_subscriptions() {
        let mut t = ReplyTracker::default();
        expect(&mut t, &[Intent::Plain, Intent::Raw]);
        assert_eq!(play(&mut t, b"*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$1\r\nx\r\n"), [Intent::Plain]);
        assert_eq!(play(&mut t, b"+OK\r\n+1700000000.1 [0 a] \"get\"\r\n"), [Intent::Raw]);
        assert!(t.is_desynced());
    }

    /// As in RESP2 with a subscription, or for a user without the right to MULTI.
    #[test]
    fn subscriptions_behind_a_refused_multi_are_confirmed_by_themselves() {
        let queued = |intent| Intent::Queued(Box::new(intent));
        let mut t = ReplyTracker::default();
        expect(
            &mut t,
            &[
                Intent::Multi,
                queued(Intent::Plain),
                queued(Intent::UnsubscribeAll(Kind::Pattern, None)),
                queued(Intent::Subscribe(2)),
                Intent::Plain,
            ],
        );
        let done = play(
            &mut t,
            b"-NOPERM no\r\n:1\r\n*3\r\n$12\r\npunsubscribe\r\n$-1\r\n:0\r\n*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n*3\r\n$9\r\nsubscribe\r\n$1\r\nb\r\n:2\r\n-ERR no\r\n",
        );
        let unsubscribed = Intent::UnsubscribeAll(Kind::Pattern, Some(0));
        assert_eq!(done, [Intent::Multi, queued(Intent::Plain), unsubscribed, Intent::Subscribe(0), Intent::Plain]);
        assert!(t.subscribed());
        assert_eq!(t.texts, 0, "what was queued is counted as long as it waits, and no longer");

        let mut t = ReplyTracker { resp3: true, ..ReplyTracker::default() };
        expect(&mut t, &[Intent::Multi, queued(Intent::UnsubscribeAll(Kind::Shard, None)), Intent::Plain]);
        let done = play(&mut t, b"+OK\r\n>3\r\n$12\r\nsunsubscribe\r\n$1\r\na\r\n:0\r\n+QUEUED\r\n");
        assert_eq!(done, [Intent::Multi, queued(Intent::UnsubscribeAll(Kind::Shard, None))]);
    }

    #[test]
    fn an_error_to_subscribe_is_its_reply() {
        let mut t = ReplyTracker::default();
        expect(&mut t, &[Intent::Subscribe(3), Intent::Plain]);
        assert_eq!(play(&mut t, b"-NOPERM no\r\n+OK\r\n").len(), 2);
    }
}
