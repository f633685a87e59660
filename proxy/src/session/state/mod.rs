//! What is known of one session, fed by both directions of its traffic: pure but for the tee.
//!
//! Order that matters: [`SessionState::forward`] leaves the stamp with the tee, and the tee is flushed before the
//! caller forwards the request's bytes.
//!
//! [`SessionState::is_multiplexable`] is the one place that says whether a session may leave its own connection.

mod answers;
mod transactions;

use std::collections::VecDeque;
use std::sync::Arc;

use redtape_capture::tee::{Identity, Outcome, Part, Stamp, TeeSender, Unstamped, describe_named};
use redtape_journal::Micros;
use redtape_wire::command::{CommandId, CommandSpec, CommandTable, NAME_MAX, lower_name};
use smallvec::SmallVec;

use self::transactions::{Transaction, Transactions};
use super::context::{SessionContext, Unconfirmed, changes, database, unsettles};
use super::replies::{Credential, Intent, Pending, PinReasons, ReplyTracker};
use super::requests::{Meaning, ReplyMode, meaning};
use super::sharing::is_shareable;
use super::tracking::Tracking;
use crate::commands::{completion, is_admin_command, may_lack};

/// A write whose reply is not seen is taken to have run so long after it was forwarded, in µs, if at all: a request that is known to
/// wait comes first.
const UNSEEN_FOR: i64 = 1_000_000;

/// A request that was read and not yet forwarded.
#[derive(Debug)]
pub(crate) struct ClassifiedRequest<'t> {
    spec: Option<&'t CommandSpec>,
    /// In lower case.
    name: SmallVec<[u8; 24]>,
    meaning: Meaning,
    /// It leaves nothing behind on the connection on which it runs.
    pub(crate) shareable: bool,
    /// `REDTAPE.*`.
    pub(crate) is_admin: bool,
}

impl ClassifiedRequest<'_> {
    /// What it does to its session can not be told: nothing may be under way when it is forwarded, and behind it nothing
    /// is followed.
    pub(crate) fn is_unclear(&self) -> bool {
        self.meaning == Meaning::Unclear
    }

    /// It changes nothing about its session.
    pub(crate) fn is_plain(&self) -> bool {
        self.meaning == Meaning::Normal(Intent::Plain)
    }

    /// It may write when it runs.
    pub(crate) fn may_write(&self) -> bool {
        self.spec.is_none_or(|spec| spec.write)
    }

    /// It writes and only waits for EXEC, unless there is no transaction after all.
    pub(crate) fn queues_a_write(&self) -> bool {
        matches!(self.meaning, Meaning::Normal(Intent::Queued(_))) && self.spec.is_none_or(|spec| spec.write)
    }

    /// The command's name in lower case, cut at [`NAME_MAX`] bytes.
    pub(crate) fn name(&self) -> &[u8] {
        &self.name
    }
}

/// A request as it was read: what its stamp is made from.
struct ReadRequest<'a> {
    spec: Option<&'a CommandSpec>,
    /// In lower case.
    name: &'a [u8],
    command: CommandId,
    /// May lack the end of a huge request.
    args: &'a [&'a [u8]],
    /// Its full count.
    argc: usize,
}

impl ReadRequest<'_> {
    fn may_write(&self) -> bool {
        self.spec.is_none_or(|spec| spec.write)
    }

    fn part(&self, db: u32) -> Part {
        describe_named(self.name, self.command, self.spec, self.args, self.argc, db)
    }
}

/// See the module.
#[derive(Debug)]
#[allow(clippy::struct_excessive_bools)] // Each is a fact of its own.
pub(crate) struct SessionState {
    id: u64,
    requests: u32,
    pub(crate) replies: ReplyTracker,
    /// As the server confirmed it.
    agreed: SessionContext,
    /// Where it will work once the server has agreed to all that is under way: a pipelined `SELECT` holds for the requests
    /// behind it. A stamp's effect is looked for there.
    asked_db: u32,
    /// Changes of user, name or database that the server has not answered yet.
    unconfirmed: Unconfirmed,
    /// The session without a user, for stamps that name nobody.
    nobody: Option<Arc<Identity>>,
    /// What the server took as proof of who it is; `None` = the default user, who needs none.
    credential: Option<Arc<Credential>>,
    /// The server has answered a command that it answers only to those whom it knows.
    admitted: bool,
    transactions: Transactions,
    /// Who it is now is not known: it may have asked to be somebody where the answer is not seen.
    identity_unknown: bool,
    /// A transaction that just ran has paused clients, or ended a pause.
    paused: Option<u64>,
    pin_reasons: PinReasons,
    /// `CLIENT NO-EVICT on`, granted.
    not_evicted: bool,
    /// A reply told of a write since that was asked last.
    acknowledged: bool,
    /// A write was forwarded that is never answered, and nothing behind it that is.
    wrote_silently: bool,
    /// Held while the server may run writes of this session that have no stamp.
    unstamped: Option<Unstamped>,
    /// We have discarded its transaction and were not answered yet.
    discarding: bool,
}

impl SessionState {
    pub(crate) fn new(id: u64, addr: String) -> Self {
        let who = Arc::new(Identity { addr, user: "default".to_owned(), ..Identity::default() });
        let agreed = SessionContext { who, db: 0 };
        Self {
            id,
            requests: 0,
            replies: ReplyTracker::default(),
            asked_db: agreed.db,
            agreed,
            unconfirmed: Unconfirmed::default(),
            nobody: None,
            credential: None,
            admitted: false,
            transactions: Transactions::default(),
            identity_unknown: false,
            paused: None,
            pin_reasons: PinReasons::default(),
            not_evicted: false,
            acknowledged: false,
            wrote_silently: false,
            unstamped: None,
            discarding: false,
        }
    }

    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// Who it is, as the server has confirmed; `None` = the server has not let it in yet, as far as is known.
    pub(crate) fn user(&self) -> Option<&str> {
        (self.admitted && !self.identity_unknown).then_some(self.agreed.who.user.as_str())
    }

    /// The server has let it in, as whomever.
    pub(crate) fn is_admitted(&self) -> bool {
        self.admitted
    }

    /// The server has not admitted it, and what it says to it is followed.
    pub(crate) fn is_refused_so_far(&self) -> bool {
        !self.admitted && !self.replies.is_desynced()
    }

    /// Database, protocol and proof, as the server has confirmed them.
    pub(crate) fn context(&self) -> (u32, bool, Option<&Arc<Credential>>) {
        (self.agreed.db, self.replies.resp3, self.credential.as_ref())
    }

    /// Nothing binds the session to its own connection, and nothing is under way: its next request may go elsewhere.
    pub(crate) fn is_multiplexable(&self) -> bool {
        self.admitted
            && self.replies.in_flight() == 0
            && !self.transactions.queues()
            && self.pin_reasons.is_empty()
            && self.replies.tracking() == Tracking::Followed
            && !self.identity_unknown
            && !self.replies.subscribed()
    }

    /// Requests forwarded now will be answered, and not only queued.
    pub(crate) fn is_answered_at_once(&self) -> bool {
        !self.transactions.queues() && self.replies.tracking() == Tracking::Followed
    }

    /// Whether a request may write when it runs: what only waits for EXEC does not.
    pub(crate) fn writes(&self, request: &ClassifiedRequest<'_>) -> bool {
        match &request.meaning {
            Meaning::Normal(Intent::Exec) => self.transactions.queues_writes(),
            Meaning::Normal(Intent::Plain | Intent::Unknown) => {
                !self.transactions.queues() && request.spec.is_none_or(|spec| spec.write)
            }
            // It may also be the EXEC of a transaction.
            Meaning::Unclear => request.spec.is_none_or(|spec| spec.write) || self.transactions.queues_writes(),
            _ => false,
        }
    }

    /// Whether a reply told of a write since this was asked last.
    pub(crate) fn take_acknowledged(&mut self) -> bool {
        std::mem::take(&mut self.acknowledged)
    }

    /// Whether bytes that were read last may tell of a write, beside whole replies: the beginning of one, or what cannot
    /// be followed.
    pub(crate) fn may_acknowledge(&self, at_boundary: bool) -> bool {
        // Of several confirmations, each may be the first to tell.
        let begun = |p: &Pending| !at_boundary || matches!(p.intent, Intent::Subscribe(_) | Intent::UnsubscribeAll(..));
        self.replies.tracking().has_written_unseen()
            || self.replies.pending().next().is_some_and(|p| begun(p) && may_run(p))
    }

    /// From here on the server may run writes of this session that have no stamp.
    pub(crate) fn writes_unstamped(&mut self, tee: &TeeSender) {
        self.unstamped.get_or_insert_with(|| tee.unstamped());
    }

    /// Something that may write was forwarded where no reply can be told from another.
    pub(crate) fn writes_unseen(&mut self) {
        self.replies.tracking_mut().wrote_unseen();
    }

    /// A write was forwarded and not answered, as far as is known.
    pub(crate) fn has_write_under_way(&self) -> bool {
        self.replies.tracking().has_written_unseen() || self.wrote_silently || self.replies.pending().any(may_run)
    }

    /// Whether the oldest request under way is one that a server answers only while it does not pause writes.
    pub(crate) fn front_would_pause(&self, table: &CommandTable) -> bool {
        let front = self.replies.pending().next().filter(|pending| !matches!(pending.intent, Intent::Queued(_)));
        front
            .and_then(|pending| pending.stamp.as_ref())
            .and_then(|(_, name)| table.get_lower(name.name()))
            .is_some_and(|spec| spec.write && is_shareable(spec, &[]))
    }

    /// The proxy discards the client's transaction, by a question of its own.
    pub(crate) fn discard_internally(&mut self) {
        self.transactions.set_queues(false);
        self.discarding = true;
        self.pin_reasons.unset(PinReasons::WATCH);
        self.replies.discarded();
        self.ask_internally();
    }

    /// It has said farewell: the server runs nothing of what stands behind it, unless it refuses.
    pub(crate) fn is_leaving(&self) -> bool {
        self.pin_reasons.contains(PinReasons::LEAVING) && !self.replies.is_desynced()
    }

    /// Whose the next reply is, is known.
    pub(crate) fn replies_can_be_told(&self) -> bool {
        matches!(self.replies.tracking(), Tracking::Followed | Tracking::Silenced)
    }

    /// A request that pauses clients if the server agrees: for so many milliseconds.
    pub(crate) fn pauses(&self, request: &ClassifiedRequest<'_>) -> Option<u64> {
        match &request.meaning {
            Meaning::Normal(Intent::Pause(millis)) => Some(*millis),
            Meaning::Normal(Intent::Exec) => self.transactions.queueing().and_then(Transaction::pauses),
            _ => None,
        }
    }

    /// The proxy's own commands are answered by the proxy. Where the server would refuse any command that it does not
    /// know (a transaction, subscriptions in RESP2), it is left to do so.
    pub(crate) fn may_use_admin_commands(&self) -> bool {
        let may_ask = match self.replies.tracking() {
            Tracking::Followed => true,
            // Who is not known yet is asked for, and that must be answered.
            Tracking::Silenced => self.admitted,
            Tracking::SkipsNext | Tracking::Desynced { .. } => false,
        };
        may_ask
            && !self.identity_unknown
            && !self.pin_reasons.contains(PinReasons::LEAVING)
            && !self.transactions.queues()
            && (self.replies.resp3 || !self.replies.subscribed())
    }

    /// A request without arguments, which is never answered: may it change what follows? It uses up a `CLIENT REPLY SKIP`.
    pub(crate) fn nothing_asked(&mut self) -> bool {
        self.replies.tracking_mut().next_forwarded() || self.replies.is_desynced()
    }

    /// Whether `CLIENT REPLY` silences the answer to a request that is not forwarded, which comes now.
    pub(crate) fn silences_own(&self) -> bool {
        self.replies.tracking() == Tracking::Silenced
    }

    /// Reads a request; nothing changes. `args` may lack the end of a huge one, `argc` is its full count.
    pub(crate) fn classify<'t>(&self, table: &'t CommandTable, args: &[&[u8]], argc: usize) -> ClassifiedRequest<'t> {
        let mut room = [0; NAME_MAX];
        let name = lower_name(args[0], &mut room);
        let spec = table.get_lower(name).filter(|_| args[0].len() <= NAME_MAX);
        let in_transaction = self.transactions.queues();
        let meaning = match meaning(name, args, argc, in_transaction) {
            Meaning::Normal(Intent::Plain) if spec.is_none() => Meaning::Normal(Intent::Unknown),
            Meaning::Normal(Intent::Queued(inner)) if spec.is_none() && *inner == Intent::Plain => {
                Meaning::Normal(Intent::Queued(Box::new(Intent::Unknown)))
            }
            Meaning::Normal(Intent::Plain) if !in_transaction && may_lack(name) && args.len() == argc => {
                completion(args)
                    .map_or(Meaning::Normal(Intent::Plain), |c| Meaning::Normal(Intent::Complete(Box::new(c))))
            }
            meaning => meaning,
        };
        let is_admin = meaning == Meaning::Normal(Intent::Unknown) && is_admin_command(name);
        let shareable = meaning == Meaning::Normal(Intent::Plain) && spec.is_some_and(|s| is_shareable(s, args));
        ClassifiedRequest { spec, name: SmallVec::from_slice(name), meaning, shareable, is_admin }
    }

    /// Takes note of a request that is about to be forwarded.
    pub(crate) fn forward(
        &mut self,
        request: ClassifiedRequest<'_>,
        args: &[&[u8]],
        argc: usize,
        tee: &mut TeeSender,
        now: Micros,
    ) {
        let ClassifiedRequest { spec, name, meaning, .. } = request;
        self.pin_reasons.unset(PinReasons::ASKING);
        let intent = match meaning {
            Meaning::Normal(intent) => intent,
            Meaning::Reply(mode) => return self.reply_mode(mode, tee, now),
            Meaning::Unclear => {
                let read = ReadRequest { spec, name: &name, command: self.command_id(spec, &name), args, argc };
                return self.forward_unclear(&read, tee, now);
            }
        };
        let answered = self.replies.tracking() == Tracking::Followed;
        let desynced = self.replies.is_desynced();
        // Where no answer is seen, nobody becomes somebody else, and nobody is sure to be who he was.
        let unseen = !answered && (unsettles(&intent) || intent == Intent::Exec && self.transactions.unsettles());
        // What became of each part is not looked for in the answer to EXEC.
        let unsaid = intent == Intent::Exec && self.transactions.changes_user();
        self.identity_unknown |= unseen || unsaid;
        let command = self.command_id(spec, &name);
        let stamp = self.stamp_for(&ReadRequest { spec, name: &name, command, args, argc }, &intent, now);
        let mut changes = changes(&intent);
        match &intent {
            // A doubt begins with its reply; whether what nobody knows binds is known then, too.
            Intent::Plain | Intent::Unknown | Intent::Pin(PinReasons::DOUBT) => {}
            Intent::Multi => self.transactions.set_queues(true),
            Intent::Queued(inner) => self.transactions.queue(inner),
            Intent::Exec => changes |= self.asked_at_exec(),
            Intent::Discard => self.transactions.set_queues(false),
            Intent::Pin(hold) => self.pin_reasons.set(*hold),
            Intent::Quit => self.pin_reasons.set(PinReasons::LEAVING),
            Intent::Reset => {
                self.transactions.set_queues(false);
                self.asked_db = 0;
            }
            _ => self.asked_db = database(self.asked_db, &intent),
        }
        self.replies.tracking_mut().next_forwarded();
        let id = stamp.as_ref().map(|s| s.id);
        if let Some(stamp) = stamp {
            tee.stamp(stamp);
        }
        if answered {
            self.expect(intent, id.map(|id| (id, command)), changes);
            if self.transactions.unsettles_replies() {
                self.close(tee, now);
            }
            return;
        }
        if id.is_some() && desynced {
            self.writes_unseen();
        } else if id.is_some() {
            self.wrote_silently = true;
        }
        if spec.is_none_or(|spec| spec.blocking) {
            // What stands behind it runs when it is served, whenever that is.
            self.writes_unstamped(tee);
        }
        // Nobody will say what became of it: it is not taken as agreed, and what it may have changed is not known from
        // here on. (Some versions confirm a subscription all the same.)
        if !desynced && !matches!(intent, Intent::Plain | Intent::Queued(_)) {
            self.close(tee, now);
        }
        if let Some(id) = id {
            tee.replied(id, Micros(now.0 + UNSEEN_FOR), Outcome::Gone);
        }
    }

    /// A request that may do anything to the session: from here on its replies are not followed, and who it is is not known.
    fn forward_unclear(&mut self, read: &ReadRequest<'_>, tee: &mut TeeSender, now: Micros) {
        self.close(tee, now);
        self.identity_unknown = true;
        // If it is EXEC, the transaction runs now.
        let mut parts = self.transactions.parts().cloned().unwrap_or_default();
        let transaction = !parts.is_empty();
        if read.may_write() {
            parts.push(read.part(self.asked_db));
        }
        if parts.is_empty() {
            return;
        }
        self.writes_unseen();
        let stamp = self.stamp(parts, transaction, now);
        let id = stamp.id;
        if read.spec.is_none_or(|spec| spec.blocking) {
            self.writes_unstamped(tee);
        }
        tee.stamp(stamp);
        tee.replied(id, Micros(now.0 + UNSEEN_FOR), Outcome::Gone);
    }

    /// An internal request goes to the session's pinned connection.
    pub(crate) fn ask_internally(&mut self) {
        debug_assert!(self.is_answered_at_once(), "the answer would be taken for another");
        self.expect(Intent::Internal, None, false);
    }

    fn expect(&mut self, intent: Intent, stamp: Option<(u64, CommandId)>, changes: bool) {
        if self.replies.is_desynced() {
            return;
        }
        // The client sees nothing of an internal request.
        let tells = intent != Intent::Internal && std::mem::take(&mut self.wrote_silently);
        if changes {
            self.unconfirmed.sent(self.requests);
        }
        self.replies.expect(Pending { intent, stamp, tells, changes });
    }

    /// Only a client that the server has admitted adds to the names that are known.
    fn command_id(&self, spec: Option<&CommandSpec>, name: &[u8]) -> CommandId {
        let unknown = if self.admitted { CommandId::of } else { CommandId::known };
        spec.map_or_else(|| unknown(name), |spec| spec.id)
    }

    fn stamp_for(&mut self, read: &ReadRequest<'_>, intent: &Intent, now: Micros) -> Option<Stamp> {
        if *intent == Intent::Exec {
            let parts = self.transactions.take_parts();
            return (!parts.is_empty()).then(|| self.stamp(parts, true, now));
        }
        let plain = matches!(intent, Intent::Plain | Intent::Unknown | Intent::Queued(_));
        if !read.may_write() || !plain {
            return None;
        }
        let part = read.part(self.transactions.db().unwrap_or(self.asked_db));
        if self.transactions.queues() {
            if self.replies.queues_for_sure() {
                self.transactions.queue_part(part);
                return None;
            }
            // Its MULTI may be refused: then the command runs by itself.
            self.transactions.queue_part(part.clone());
        }
        Some(self.stamp(smallvec::smallvec![part], false, now))
    }

    fn stamp(&mut self, parts: SmallVec<[Part; 1]>, transaction: bool, now: Micros) -> Stamp {
        self.requests = self.requests.wrapping_add(1);
        let who = if self.unconfirmed.is_empty() { self.who() } else { self.nobody() };
        // The sender knows the connection.
        Stamp { id: self.stamp_id(self.requests), at: now, who, connection: 0, parts, transaction }
    }

    fn stamp_id(&self, number: u32) -> u64 {
        self.id << 32 | u64::from(number)
    }

    /// Who it is, as the server has confirmed.
    fn who(&mut self) -> Arc<Identity> {
        if self.identity_unknown { self.nobody() } else { Arc::clone(&self.agreed.who) }
    }

    fn nobody(&mut self) -> Arc<Identity> {
        let addr = &self.agreed.who.addr;
        let nobody = || Arc::new(Identity { addr: addr.clone(), in_doubt: true, ..Identity::default() });
        Arc::clone(self.nobody.get_or_insert_with(nobody))
    }

    fn reply_mode(&mut self, mode: ReplyMode, tee: &mut TeeSender, now: Micros) {
        match mode {
            ReplyMode::Off => self.replies.tracking_mut().silence(true),
            // SKIP silences itself and the next request.
            ReplyMode::Skip => self.replies.tracking_mut().skip_next(),
            ReplyMode::On => {
                self.replies.tracking_mut().silence(false);
                self.expect(Intent::Plain, None, false);
            }
        }
        if mode != ReplyMode::On {
            // Whether it was taken is never said: the session stays where it is, and one that may be refused for being
            // unknown is not followed at all.
            self.pin_reasons.set(PinReasons::FOREVER);
            if !self.admitted {
                self.close(tee, now);
            }
        }
    }

    /// The shared connection on which requests are under way broke: they may have run.
    pub(crate) fn lose_all(&mut self, tee: &mut TeeSender, now: Micros) {
        let pending = self.replies.forget();
        self.identity_unknown |= self.unconfirmed.forget();
        settle(pending, Outcome::Gone, tee, now);
    }

    /// No more replies can be told apart, or the session ends: what was asked for has run by now, or
    /// never will. The stamps must not wait for it.
    pub(crate) fn close(&mut self, tee: &mut TeeSender, now: Micros) {
        let pending = self.replies.desync();
        self.identity_unknown |= self.unconfirmed.forget();
        self.transactions.forget_sent();
        if std::mem::take(&mut self.wrote_silently) || pending.iter().any(may_run) {
            self.writes_unseen();
        }
        settle(pending, Outcome::Gone, tee, now);
    }

    /// The transaction was sent off; its changes are expected to hold. True = there are some, of what stamps say.
    fn asked_at_exec(&mut self) -> bool {
        let t = self.transactions.take();
        for intent in &t.at_exec {
            match intent {
                Intent::Pin(hold) => self.pin_reasons.set(*hold),
                Intent::Auth(_) | Intent::Hello(_) | Intent::Unknown | Intent::Select(_) => {
                    self.pin_reasons.set(PinReasons::FOREVER);
                }
                _ => {}
            }
            self.asked_db = database(self.asked_db, intent);
        }
        let changing = t.at_exec.iter().any(changes);
        if !self.replies.is_desynced() {
            self.transactions.sent(t);
        }
        changing
    }

    /// Bytes that it keeps of requests that are under way or queued.
    pub(crate) fn buffered(&self) -> usize {
        self.replies.buffered() + self.transactions.buffered()
    }

    /// The server has granted it that it is not disconnected for the memory that it takes.
    pub(crate) fn is_not_evicted(&self) -> bool {
        self.not_evicted
    }

    /// A question of our own is under way.
    pub(crate) fn has_internal_request(&self) -> bool {
        self.replies.internal() > 0
    }

    /// Some reply is changed on its way to the client.
    pub(crate) fn changes_a_reply(&self) -> bool {
        self.replies.pending().any(|p| matches!(p.intent, Intent::Internal | Intent::Complete(_)))
    }

    /// Requests of the client that are under way.
    pub(crate) fn asked(&self) -> usize {
        self.replies.in_flight() - self.replies.internal()
    }

    /// Nothing is under way: the session may be closed without losing a reply.
    pub(crate) fn is_idle(&self) -> bool {
        self.replies.in_flight() == 0 && !self.transactions.queues()
    }

    /// It waits for what others say: messages, the commands of others, the replication stream.
    pub(crate) fn is_listening(&self) -> bool {
        self.replies.subscribed() || self.replies.is_desynced()
    }

    /// A load balancer has said where the client really comes from. Nothing was forwarded yet.
    pub(crate) fn rename_addr(&mut self, addr: String) {
        self.agreed.rename(|who| who.addr = addr);
        self.nobody = None;
    }

    /// Nothing of what was asked for has reached the server: all is as at the beginning.
    pub(crate) fn start_over(&mut self, tee: &mut TeeSender, now: Micros) {
        settle(self.replies.desync(), Outcome::NoEffect, tee, now);
        let requests = self.requests;
        *self = Self::new(self.id, self.agreed.who.addr.clone());
        self.requests = requests;
    }
}

/// Its reply may tell of a write.
fn may_run(pending: &Pending) -> bool {
    pending.stamp.is_some() || pending.tells || matches!(pending.intent, Intent::Queued(_))
}

/// Requests whose replies nobody will see. What the server has of them it may run for a while.
fn settle(pending: VecDeque<Pending>, outcome: Outcome, tee: &mut TeeSender, now: Micros) {
    let now = if outcome == Outcome::Gone { Micros(now.0 + UNSEEN_FOR) } else { now };
    for (id, _) in pending.into_iter().filter_map(|p| p.stamp) {
        tee.replied(id, now, outcome);
    }
}

#[cfg(test)]
mod tests;
