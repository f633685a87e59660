//! What is known of one session, fed by both directions of its traffic: pure but for the tee.
//!
//! Order that matters: [`SessionState::request`] leaves the stamp with the tee before the caller
//! forwards the request's bytes.

use std::collections::VecDeque;
use std::sync::Arc;

use redtape_journal::Micros;
use redtape_wire::command::CommandTable;
use redtape_wire::resp::Frame;
use smallvec::SmallVec;

use super::replies::{Answered, Intent, Pending, ReplyTracker};
use super::requests::{Meaning, ReplyMode, meaning};
use crate::join::says_no_effect;
use crate::tee::{Identity, Name, Outcome, Part, Stamp, Tee, TeeMessage, describe};

/// Commands of one transaction whose keys are remembered for its stamp.
const TRANSACTION_PARTS_MAX: usize = 256;

/// A transaction being queued.
#[derive(Debug, Default)]
struct Transaction {
    parts: SmallVec<[Part; 1]>,
    /// Database selected inside.
    db: Option<u32>,
    /// What takes effect at EXEC.
    at_exec: Vec<Intent>,
}

/// Who a session is and where it works.
#[derive(Debug, Clone)]
struct Standing {
    who: Arc<Identity>,
    db: u32,
}

impl Standing {
    /// What an agreed request changes.
    fn advance(&mut self, intent: &Intent) {
        match intent {
            Intent::Select(db) => self.db = *db,
            Intent::Auth(user) => self.rename(|i| i.user.clone_from(user)),
            Intent::SetName(name) => self.rename(|i| i.name.clone_from(name)),
            Intent::Hello { user, name, .. } if user.is_some() || name.is_some() => self.rename(|i| {
                if let Some(user) = user {
                    i.user.clone_from(user);
                }
                if let Some(name) = name {
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

    fn rename(&mut self, change: impl FnOnce(&mut Identity)) {
        let mut identity = Identity::clone(&self.who);
        change(&mut identity);
        self.who = Arc::new(identity);
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct SessionState {
    id: u64,
    requests: u32,
    pub(crate) replies: ReplyTracker,
    /// As the server confirmed it.
    agreed: Standing,
    /// As it will be once the server has agreed to all that is under way: what stamps say, since a
    /// pipelined `AUTH` or `SELECT` holds for the requests behind it.
    asked: Standing,
    /// Being queued.
    transaction: Option<Transaction>,
    /// Sent off with EXEC, not yet answered.
    executing: VecDeque<Transaction>,
    replies_off: bool,
    skip: u8,
    /// Reply bytes are on their way to the client.
    pub(crate) unsent: bool,
    /// The server is in the middle of a reply.
    pub(crate) mid_reply: bool,
    /// Stamps of requests that are being collected for one write.
    stamps: Vec<Stamp>,
}

impl SessionState {
    pub(crate) fn new(id: u64, addr: String) -> Self {
        let who = Arc::new(Identity { addr, user: "default".to_owned(), name: String::new() });
        let agreed = Standing { who, db: 0 };
        Self {
            id,
            requests: 0,
            replies: ReplyTracker::default(),
            asked: agreed.clone(),
            agreed,
            transaction: None,
            executing: VecDeque::new(),
            replies_off: false,
            skip: 0,
            unsent: false,
            mid_reply: false,
            stamps: Vec::new(),
        }
    }

    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// Takes note of a request that is about to be forwarded.
    pub(crate) fn request(&mut self, table: &CommandTable, args: &[&[u8]], argc: usize) {
        if args.is_empty() {
            return;
        }
        let mut name = Name::from_slice(&args[0][..args[0].len().min(redtape_wire::command::NAME_MAX)]);
        name.make_ascii_lowercase();
        let intent = match meaning(&name, args, argc, self.transaction.is_some()) {
            Meaning::Normal(intent) => intent,
            Meaning::Reply(mode) => return self.reply_mode(mode),
        };
        let stamp = self.stamp_for(table, &name, args, argc, &intent);
        match &intent {
            Intent::Multi if self.transaction.is_none() => self.transaction = Some(Transaction::default()),
            Intent::Queued(inner) => self.queue(inner),
            Intent::Exec => self.asked_at_exec(),
            Intent::Discard => self.transaction = None,
            Intent::Reset => {
                self.transaction = None;
                self.asked.advance(&intent);
            }
            _ => self.asked.advance(&intent),
        }
        let answered = !self.replies_off && self.skip == 0;
        self.skip = self.skip.saturating_sub(1);
        if answered && !self.replies.is_lost() {
            let stamp = stamp.as_ref().map(|s| (s.id, name));
            self.replies.expect(Pending { intent: intent.clone(), stamp });
        } else if !self.replies.is_lost() {
            // No reply will tell: take it as agreed.
            self.apply(&intent, false, true);
        }
        self.stamps.extend(stamp);
    }

    fn stamp_for(
        &mut self,
        table: &CommandTable,
        name: &[u8],
        args: &[&[u8]],
        argc: usize,
        intent: &Intent,
    ) -> Option<Stamp> {
        let may_write = table.get(name).is_none_or(|spec| spec.write);
        if *intent == Intent::Exec {
            let parts = std::mem::take(&mut self.transaction.as_mut()?.parts);
            return (!parts.is_empty()).then(|| self.stamp(parts, true));
        }
        let plain = matches!(intent, Intent::Plain | Intent::Queued(_));
        if !may_write || !plain {
            return None;
        }
        if let Some(t) = &mut self.transaction {
            if t.parts.len() < TRANSACTION_PARTS_MAX {
                t.parts.push(describe(table, args, argc, t.db.unwrap_or(self.asked.db)));
            }
            return None;
        }
        let part = describe(table, args, argc, self.asked.db);
        Some(self.stamp(smallvec::smallvec![part], false))
    }

    fn stamp(&mut self, parts: SmallVec<[Part; 1]>, transaction: bool) -> Stamp {
        self.requests = self.requests.wrapping_add(1);
        let id = self.id << 32 | u64::from(self.requests);
        Stamp { id, at: Micros(0), who: self.asked.who.clone(), parts, transaction }
    }

    fn queue(&mut self, inner: &Intent) {
        if let Some(t) = &mut self.transaction {
            if let Intent::Select(db) = inner {
                t.db = Some(*db);
            }
            if !matches!(inner, Intent::Plain) {
                t.at_exec.push(inner.clone());
            }
        }
    }

    fn reply_mode(&mut self, mode: ReplyMode) {
        match mode {
            ReplyMode::Off => self.replies_off = true,
            // SKIP silences itself and the next request.
            ReplyMode::Skip => self.skip = u8::from(!self.replies_off),
            ReplyMode::On => {
                self.replies_off = false;
                self.skip = 0;
                self.replies.expect(Pending { intent: Intent::Plain, stamp: None });
            }
        }
    }

    /// Hands the collected stamps to the tee: the bytes are forwarded right after. Returns how many.
    pub(crate) fn leave_stamps(&mut self, tee: &Tee, now: Micros) -> usize {
        let unreplied = self.replies_off || self.replies.is_lost();
        let n = self.stamps.len();
        for mut stamp in self.stamps.drain(..) {
            stamp.at = now;
            let id = stamp.id;
            tee.send(TeeMessage::Stamp(Box::new(stamp)));
            if unreplied {
                tee.send(TeeMessage::Replied { id, at: now, outcome: Outcome::Ran });
            }
        }
        n
    }

    /// Takes one frame of the reply stream.
    pub(crate) fn reply(&mut self, frame: &Frame, tee: &Tee, now: Micros) {
        let Some(Answered { pending, error, kind, line }) = self.replies.frame(frame) else { return };
        if let Some((id, name)) = pending.stamp {
            let outcome = match (kind, std::str::from_utf8(&line).ok().and_then(|l| l.parse().ok())) {
                _ if says_no_effect(&name, kind, &line) => Outcome::NoEffect,
                (b':', Some(number)) => Outcome::Number(number),
                _ => Outcome::Ran,
            };
            tee.send(TeeMessage::Replied { id, at: now, outcome });
        }
        let under_way = |p: &Pending| matches!(p.intent, Intent::Exec | Intent::Discard);
        if error && pending.intent == Intent::Multi && !self.replies.pending().any(under_way) {
            self.transaction = None;
        }
        let nothing = matches!(kind, b'_') || line == b"-1";
        self.apply(&pending.intent, error, !nothing);
        let changes = !matches!(pending.intent, Intent::Plain | Intent::Queued(_) | Intent::Subscribe(_));
        if changes && (error || nothing) {
            self.correct(tee);
        }
    }

    /// No more replies can be told apart, or the session ends: what was asked for has run by now, or
    /// never will. The stamps must not wait for it.
    pub(crate) fn close(&mut self, tee: &Tee, now: Micros) {
        for (id, _) in self.replies.lose().into_iter().filter_map(|p| p.stamp) {
            tee.send(TeeMessage::Replied { id, at: now, outcome: Outcome::Gone });
        }
    }

    /// What the server agreed to (`error`: refused; `value` false: EXEC found its keys changed).
    fn apply(&mut self, intent: &Intent, error: bool, value: bool) {
        match intent {
            Intent::Exec => {
                if let Some(t) = self.executing.pop_front()
                    && !error
                    && value
                {
                    t.at_exec.iter().for_each(|i| self.agreed.advance(i));
                }
            }
            _ if error => {}
            _ => self.agreed.advance(intent),
        }
    }

    /// The transaction was sent off; its changes are expected to hold.
    fn asked_at_exec(&mut self) {
        if let Some(t) = self.transaction.take() {
            t.at_exec.iter().for_each(|i| self.asked.advance(i));
            self.executing.push_back(t);
        }
    }

    /// A change was refused: what was stamped behind it was not said by whom we thought.
    fn correct(&mut self, tee: &Tee) {
        self.asked = self.agreed.clone();
        let mut executing = self.executing.iter();
        for pending in self.replies.pending() {
            if let Some((id, _)) = &pending.stamp {
                tee.send(TeeMessage::Correct { id: *id, who: self.asked.who.clone(), db: self.asked.db });
            }
            match &pending.intent {
                Intent::Exec => {
                    executing.next().into_iter().flat_map(|t| &t.at_exec).for_each(|i| self.asked.advance(i));
                }
                intent => self.asked.advance(intent),
            }
        }
    }

    /// Nothing is under way: the session may be closed without losing a reply.
    pub(crate) fn idle(&self) -> bool {
        !self.unsent && self.replies.in_flight() == 0 && self.transaction.is_none()
    }
}

#[cfg(test)]
mod tests {
    use redtape_wire::resp::ReplyScanner;

    use super::*;

    struct Scene {
        state: SessionState,
        tee: Tee,
        table: CommandTable,
    }

    impl Scene {
        fn new() -> Self {
            Self {
                state: SessionState::new(1, "1.2.3.4:5".to_owned()),
                tee: Tee::default(),
                table: CommandTable::builtin(),
            }
        }

        fn ask(&mut self, line: &str) {
            let args: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
            self.state.request(&self.table, &args, args.len());
            self.state.leave_stamps(&self.tee, Micros(1));
        }

        fn answer(&mut self, bytes: &[u8]) {
            let mut scanner = ReplyScanner::new();
            let mut used = 0;
            while used < bytes.len() {
                let (n, frame) = scanner.scan(&bytes[used..]).expect("sound");
                used += n;
                if let Some(frame) = frame {
                    self.state.reply(&frame, &self.tee, Micros(2));
                }
            }
        }

        fn said(&self) -> Vec<String> {
            std::iter::from_fn(|| self.tee.take())
                .map(|m| match m {
                    TeeMessage::Stamp(s) => {
                        let parts: Vec<_> =
                            s.parts.iter().map(|p| format!("{}:{}", p.db, String::from_utf8_lossy(&p.name))).collect();
                        format!("{} {} {}", parts.join(","), s.who.user, s.who.name)
                    }
                    TeeMessage::Replied { outcome: Outcome::Number(_), .. } => "Ran".to_owned(),
                    TeeMessage::Replied { outcome, .. } => format!("{outcome:?}"),
                    TeeMessage::Correct { who, db, .. } => format!("correct {} {db}", who.user),
                })
                .collect()
        }
    }

    #[test]
    fn identity_and_database_follow_what_the_server_agreed_to() {
        let mut s = Scene::new();
        s.ask("AUTH ann bad");
        s.ask("SELECT 99");
        s.ask("SET k v");
        s.answer(b"-WRONGPASS x\r\n-ERR range\r\n+OK\r\n");
        assert_eq!(s.said(), ["99:set ann ", "correct default 99", "correct default 0", "Ran"]);
        s.ask("HELLO 3 AUTH ann good SETNAME app");
        s.answer(b"%1\r\n$6\r\nserver\r\n$5\r\nredis\r\n");
        s.ask("SELECT 3");
        s.answer(b"+OK\r\n");
        s.ask("SADD k v");
        s.answer(b":0\r\n");
        assert_eq!(s.said(), ["3:sadd ann app", "NoEffect"]);
        s.ask("RESET");
        s.answer(b"+RESET\r\n");
        s.ask("GET k");
        s.ask("DEL k");
        s.answer(b"$-1\r\n:1\r\n");
        assert_eq!(s.said(), ["0:del default ", "Ran"]);
    }

    #[test]
    fn a_transaction_is_one_stamp_and_selects_at_exec() {
        let mut s = Scene::new();
        for line in ["MULTI", "SET a 1", "SELECT 4", "GET a", "DEL b", "EXEC"] {
            s.ask(line);
        }
        s.answer(b"+OK\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n*4\r\n+OK\r\n+OK\r\n$-1\r\n:0\r\n");
        assert_eq!(s.said(), ["0:set,4:del default ", "Ran"]);
        s.ask("INCR n");
        assert_eq!(s.said(), ["4:incr default "]);
        s.answer(b":1\r\n");
        for line in ["MULTI", "SELECT 5", "SET a 1", "EXEC"] {
            s.ask(line);
        }
        s.answer(b"+OK\r\n+QUEUED\r\n+QUEUED\r\n*-1\r\n");
        assert_eq!(s.said(), ["Ran", "5:set default ", "NoEffect"]);
        assert!(s.state.idle());
        s.ask("INCR n");
        assert_eq!(s.said(), ["4:incr default "]);
    }

    #[test]
    fn pipelined_changes_hold_at_once_and_are_corrected_when_refused() {
        let mut s = Scene::new();
        s.ask("SELECT 2");
        s.ask("AUTH root guess");
        s.ask("SET k v");
        assert_eq!(s.said(), ["2:set root "]);
        s.answer(b"+OK\r\n-WRONGPASS\r\n+OK\r\n");
        assert_eq!(s.said(), ["correct default 2", "Ran"]);
        s.ask("SET k v");
        assert_eq!(s.said(), ["2:set default "]);
    }

    #[test]
    fn silenced_replies_do_not_shift_the_others() {
        let mut s = Scene::new();
        s.ask("CLIENT REPLY SKIP");
        s.ask("SET a 1");
        s.ask("SADD k v");
        s.answer(b":0\r\n");
        assert_eq!(s.said(), ["0:set default ", "0:sadd default ", "NoEffect"]);
        s.ask("CLIENT REPLY OFF");
        s.ask("SET a 1");
        assert_eq!(s.said(), ["0:set default ", "Ran"]);
        s.ask("CLIENT REPLY ON");
        s.ask("SREM k v");
        s.answer(b"+OK\r\n:1\r\n");
        assert_eq!(s.said(), ["0:srem default ", "Ran"]);
        assert!(s.state.idle());
    }
}
