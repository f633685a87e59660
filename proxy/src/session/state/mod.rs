//! State of one session, derived from both directions of its traffic. Pure except for the tee.
//!
//! Required order: [`SessionState::forward`] puts the stamp into the tee, and the tee is flushed before the caller
//! forwards the request's bytes.
//!
//! [`SessionState::is_multiplexable`] alone decides whether a session may leave its pinned connection.

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

/// A write whose reply is not seen is assumed to run, if at all, within this time of being forwarded, in µs. Requests
/// known to wait are preferred.
const UNSEEN_FOR: i64 = 1_000_000;

/// A request that was read and not yet forwarded.
#[derive(Debug)]
pub(crate) struct ClassifiedRequest<'t> {
    spec: Option<&'t CommandSpec>,
    /// In lower case.
    name: SmallVec<[u8; 24]>,
    meaning: Meaning,
    /// It leaves no state on its connection.
    pub(crate) shareable: bool,
    /// `REDTAPE.*`.
    pub(crate) is_admin: bool,
}

impl ClassifiedRequest<'_> {
    /// Its effect on the session is unknown: nothing may be in flight when it is forwarded, and nothing after it is
    /// tracked.
    pub(crate) fn is_unclear(&self) -> bool {
        self.meaning == Meaning::Unclear
    }

    /// It does not change its session.
    pub(crate) fn is_plain(&self) -> bool {
        self.meaning == Meaning::Normal(Intent::Plain)
    }

    /// It may write when it runs.
    pub(crate) fn may_write(&self) -> bool {
        self.spec.is_none_or(|spec| spec.write)
    }

    /// It writes, but is only queued until EXEC, unless there is no transaction.
    pub(crate) fn queues_a_write(&self) -> bool {
        matches!(self.meaning, Meaning::Normal(Intent::Queued(_))) && self.spec.is_none_or(|spec| spec.write)
    }

    /// The command's name in lower case, cut at [`NAME_MAX`] bytes.
    pub(crate) fn name(&self) -> &[u8] {
        &self.name
    }
}

/// A request as read, the source of its stamp.
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

/// State of one session.
#[derive(Debug)]
#[allow(clippy::struct_excessive_bools)] // Independent facts.
pub(crate) struct SessionState {
    id: u64,
    requests: u32,
    pub(crate) replies: ReplyTracker,
    /// As confirmed by the server.
    agreed: SessionContext,
    /// The database after all pending changes: a pipelined `SELECT` applies to later requests, and the effects of their
    /// stamps are searched there.
    asked_db: u32,
    /// Pending changes of user, name or database.
    unconfirmed: Unconfirmed,
    /// The identity without a user, for stamps without a confirmed one.
    nobody: Option<Arc<Identity>>,
    /// The credentials that the server accepted; `None` = the default user without a password.
    credential: Option<Arc<Credential>>,
    /// The server has answered a command that requires authentication.
    admitted: bool,
    transactions: Transactions,
    /// The identity is unknown: a change may have been requested whose answer is not seen.
    identity_unknown: bool,
    /// A transaction that just ran has started or ended a pause.
    paused: Option<u64>,
    pin_reasons: PinReasons,
    /// `CLIENT NO-EVICT on`, granted.
    not_evicted: bool,
    /// A reply showed a write since the last query.
    acknowledged: bool,
    /// A write was forwarded that gets no answer, nor does any request after it.
    wrote_silently: bool,
    /// Held while the server may run writes of this session without stamps.
    unstamped: Option<Unstamped>,
    /// redtape has discarded its transaction and awaits the answer.
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

    /// The confirmed identity; `None` = the server has not accepted the client yet, as far as known.
    pub(crate) fn user(&self) -> Option<&str> {
        (self.admitted && !self.identity_unknown).then_some(self.agreed.who.user.as_str())
    }

    /// True if the server has accepted the client, under any identity.
    pub(crate) fn is_admitted(&self) -> bool {
        self.admitted
    }

    /// True if the server has not accepted the client, and its replies are tracked.
    pub(crate) fn is_refused_so_far(&self) -> bool {
        !self.admitted && !self.replies.is_desynced()
    }

    /// Database, protocol and credentials, as confirmed by the server.
    pub(crate) fn context(&self) -> (u32, bool, Option<&Arc<Credential>>) {
        (self.agreed.db, self.replies.resp3, self.credential.as_ref())
    }

    /// True if no pin reason exists and nothing is in flight: its next request may use another connection.
    pub(crate) fn is_multiplexable(&self) -> bool {
        self.admitted
            && self.replies.in_flight() == 0
            && !self.transactions.queues()
            && self.pin_reasons.is_empty()
            && self.replies.tracking() == Tracking::Followed
            && !self.identity_unknown
            && !self.replies.subscribed()
    }

    /// True if requests forwarded now are answered with a result and not only queued.
    pub(crate) fn is_answered_at_once(&self) -> bool {
        !self.transactions.queues() && self.replies.tracking() == Tracking::Followed
    }

    /// True if a request may write when it runs; false for one that is only queued.
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

    /// True if a reply showed a write since the last call.
    pub(crate) fn take_acknowledged(&mut self) -> bool {
        std::mem::take(&mut self.acknowledged)
    }

    /// True if the bytes just read may show a write besides whole replies: the beginning of a reply, or untracked
    /// bytes.
    pub(crate) fn may_acknowledge(&self, at_boundary: bool) -> bool {
        // Of several confirmations, each may be the first to show it.
        let begun = |p: &Pending| !at_boundary || matches!(p.intent, Intent::Subscribe(_) | Intent::UnsubscribeAll(..));
        self.replies.tracking().has_written_unseen()
            || self.replies.pending().next().is_some_and(|p| begun(p) && may_run(p))
    }

    /// From here on the server may run writes of this session without stamps.
    pub(crate) fn writes_unstamped(&mut self, tee: &TeeSender) {
        self.unstamped.get_or_insert_with(|| tee.unstamped());
    }

    /// Something that may write was forwarded while replies cannot be matched.
    pub(crate) fn writes_unseen(&mut self) {
        self.replies.tracking_mut().wrote_unseen();
    }

    /// True if a write was forwarded and not answered, as far as known.
    pub(crate) fn has_write_under_way(&self) -> bool {
        self.replies.tracking().has_written_unseen() || self.wrote_silently || self.replies.pending().any(may_run)
    }

    /// True if the oldest request in flight is one that a server answers only without a pause of writes.
    pub(crate) fn front_would_pause(&self, table: &CommandTable) -> bool {
        let front = self.replies.pending().next().filter(|pending| !matches!(pending.intent, Intent::Queued(_)));
        front
            .and_then(|pending| pending.stamp.as_ref())
            .and_then(|(_, name)| table.get_lower(name.name()))
            .is_some_and(|spec| spec.write && is_shareable(spec, &[]))
    }

    /// The proxy discards the client's transaction with an internal request.
    pub(crate) fn discard_internally(&mut self) {
        self.transactions.set_queues(false);
        self.discarding = true;
        self.pin_reasons.unset(PinReasons::WATCH);
        self.replies.discarded();
        self.ask_internally();
    }

    /// It has sent QUIT: the server runs no later request, unless it refuses QUIT.
    pub(crate) fn is_leaving(&self) -> bool {
        self.pin_reasons.contains(PinReasons::LEAVING) && !self.replies.is_desynced()
    }

    /// True if the next reply can be matched.
    pub(crate) fn replies_can_be_told(&self) -> bool {
        matches!(self.replies.tracking(), Tracking::Followed | Tracking::Silenced)
    }

    /// A request that pauses clients if the server accepts it: for this many milliseconds.
    pub(crate) fn pauses(&self, request: &ClassifiedRequest<'_>) -> Option<u64> {
        match &request.meaning {
            Meaning::Normal(Intent::Pause(millis)) => Some(*millis),
            Meaning::Normal(Intent::Exec) => self.transactions.queueing().and_then(Transaction::pauses),
            _ => None,
        }
    }

    /// The proxy answers its own commands. Where the server would refuse any unknown command (a transaction,
    /// subscriptions in RESP2), the request is forwarded for the server to refuse.
    pub(crate) fn may_use_admin_commands(&self) -> bool {
        let may_ask = match self.replies.tracking() {
            Tracking::Followed => true,
            // A session without a confirmed identity is checked with the server first, which requires an answer.
            Tracking::Silenced => self.admitted,
            Tracking::SkipsNext | Tracking::Desynced { .. } => false,
        };
        may_ask
            && !self.identity_unknown
            && !self.pin_reasons.contains(PinReasons::LEAVING)
            && !self.transactions.queues()
            && (self.replies.resp3 || !self.replies.subscribed())
    }

    /// A request without arguments is never answered: may it change later replies? It uses up a `CLIENT REPLY SKIP`.
    pub(crate) fn nothing_asked(&mut self) -> bool {
        self.replies.tracking_mut().next_forwarded() || self.replies.is_desynced()
    }

    /// True if `CLIENT REPLY` suppresses the answer to a request that is answered here.
    pub(crate) fn silences_own(&self) -> bool {
        self.replies.tracking() == Tracking::Silenced
    }

    /// Classifies a request without changing anything. `args` may lack the end of a huge one, `argc` is its full count.
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

    /// Records a request that is about to be forwarded.
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
        // If the answer is not seen, a change of identity is neither accepted nor ruled out.
        let unseen = !answered && (unsettles(&intent) || intent == Intent::Exec && self.transactions.unsettles());
        // The results of the parts are not extracted from the answer to EXEC.
        let unsaid = intent == Intent::Exec && self.transactions.changes_user();
        self.identity_unknown |= unseen || unsaid;
        let command = self.command_id(spec, &name);
        let stamp = self.stamp_for(&ReadRequest { spec, name: &name, command, args, argc }, &intent, now);
        let mut changes = changes(&intent);
        match &intent {
            // Doubt begins with its reply, which also shows whether an unknown command pins the session.
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
            // Later requests run when it is served, at an unknown time.
            self.writes_unstamped(tee);
        }
        // Its result will not be seen: it does not count as accepted, and what it may have changed is unknown from here
        // on. (Some versions confirm a subscription anyway.)
        if !desynced && !matches!(intent, Intent::Plain | Intent::Queued(_)) {
            self.close(tee, now);
        }
        if let Some(id) = id {
            tee.replied(id, Micros(now.0 + UNSEEN_FOR), Outcome::Gone);
        }
    }

    /// A request that may do anything to the session: replies are no longer tracked, and the identity is unknown.
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
        // The client does not see an internal request.
        let tells = intent != Intent::Internal && std::mem::take(&mut self.wrote_silently);
        if changes {
            self.unconfirmed.sent(self.requests);
        }
        self.replies.expect(Pending { intent, stamp, tells, changes });
    }

    /// Only an accepted client adds to the table of names.
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
        // The sender has the connection.
        Stamp { id: self.stamp_id(self.requests), at: now, who, connection: 0, parts, transaction }
    }

    fn stamp_id(&self, number: u32) -> u64 {
        self.id << 32 | u64::from(number)
    }

    /// The confirmed identity.
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
            // SKIP suppresses its own answer and that of the next request.
            ReplyMode::Skip => self.replies.tracking_mut().skip_next(),
            ReplyMode::On => {
                self.replies.tracking_mut().silence(false);
                self.expect(Intent::Plain, None, false);
            }
        }
        if mode != ReplyMode::On {
            // It is never known whether it was accepted: the session stays on its connection, and a client that may be
            // refused as unknown is not tracked at all.
            self.pin_reasons.set(PinReasons::FOREVER);
            if !self.admitted {
                self.close(tee, now);
            }
        }
    }

    /// The shared connection with its requests in flight broke: they may have run.
    pub(crate) fn lose_all(&mut self, tee: &mut TeeSender, now: Micros) {
        let pending = self.replies.forget();
        self.identity_unknown |= self.unconfirmed.forget();
        settle(pending, Outcome::Gone, tee, now);
    }

    /// Replies can no longer be matched, or the session ends: the pending requests have run by now or never will, and
    /// their stamps must not wait for replies.
    pub(crate) fn close(&mut self, tee: &mut TeeSender, now: Micros) {
        let pending = self.replies.desync();
        self.identity_unknown |= self.unconfirmed.forget();
        self.transactions.forget_sent();
        if std::mem::take(&mut self.wrote_silently) || pending.iter().any(may_run) {
            self.writes_unseen();
        }
        settle(pending, Outcome::Gone, tee, now);
    }

    /// The transaction was sent; its changes are assumed to be accepted. True = some of them affect stamps.
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

    /// Memory of requests in flight or queued, in bytes.
    pub(crate) fn buffered(&self) -> usize {
        self.replies.buffered() + self.transactions.buffered()
    }

    /// The server has granted `CLIENT NO-EVICT on`.
    pub(crate) fn is_not_evicted(&self) -> bool {
        self.not_evicted
    }

    /// True if an internal request is in flight.
    pub(crate) fn has_internal_request(&self) -> bool {
        self.replies.internal() > 0
    }

    /// True if a reply in flight is rewritten for the client.
    pub(crate) fn changes_a_reply(&self) -> bool {
        self.replies.pending().any(|p| matches!(p.intent, Intent::Internal | Intent::Complete(_)))
    }

    /// Number of the client's requests in flight.
    pub(crate) fn asked(&self) -> usize {
        self.replies.in_flight() - self.replies.internal()
    }

    /// True if nothing is in flight: the session can be closed without losing a reply.
    pub(crate) fn is_idle(&self) -> bool {
        self.replies.in_flight() == 0 && !self.transactions.queues()
    }

    /// True if it waits for messages: subscriptions, MONITOR, the replication stream.
    pub(crate) fn is_listening(&self) -> bool {
        self.replies.subscribed() || self.replies.is_desynced()
    }

    /// The PROXY protocol header gave the client's address. Nothing was forwarded yet.
    pub(crate) fn rename_addr(&mut self, addr: String) {
        self.agreed.rename(|who| who.addr = addr);
        self.nobody = None;
    }

    /// None of its requests has reached the server: back to the initial state.
    pub(crate) fn start_over(&mut self, tee: &mut TeeSender, now: Micros) {
        settle(self.replies.desync(), Outcome::NoEffect, tee, now);
        let requests = self.requests;
        *self = Self::new(self.id, self.agreed.who.addr.clone());
        self.requests = requests;
    }
}

/// True if its reply may show a write.
fn may_run(pending: &Pending) -> bool {
    pending.stamp.is_some() || pending.tells || matches!(pending.intent, Intent::Queued(_))
}

/// Requests whose replies will not be seen. The server may still run those that it has received.
fn settle(pending: VecDeque<Pending>, outcome: Outcome, tee: &mut TeeSender, now: Micros) {
    let now = if outcome == Outcome::Gone { Micros(now.0 + UNSEEN_FOR) } else { now };
    for (id, _) in pending.into_iter().filter_map(|p| p.stamp) {
        tee.replied(id, now, outcome);
    }
}

#[cfg(test)]
mod tests;
