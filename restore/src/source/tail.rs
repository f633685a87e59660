//! The rest of a history over an ordinary connection to a scratch server, from the first record on that is left out.
//!
//! What a command does may be another thing than it was: its reply tells. And keys may live longer or shorter than they did, so
//! the server itself removes those whose time has come. For that its clock follows the journal, [`LAG_MS`] behind: by then every
//! key that expired is also removed in the journal, whatever the clocks' difference, and what has another time of expiry now is
//! removed when it is met. A removal in the journal is repeated only where the key's time had come in this history, too.
//!
//! `XCLAIM` takes no time ahead of the clock: for it, the clock shows that time.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use redtape_journal::{Group, Lsn, Micros, Origin, Record};
use redtape_wire::effect::{Dependence, Touch, Touched, dependence, swapped};
use redtape_wire::resp::encode_command;
use redtape_wire::word;

use super::clock::AT_REST;
use super::scratch::Scratch;
use crate::client::{Reply, Value};
use crate::error::RestoreError;
use crate::interrupt::Interrupt;
use crate::replica_link::absolute::absolute;
use crate::slice::{Lsns, command_name};

/// How far the clock stays behind the journal: servers' clocks and redtape's differ by less.
const LAG_MS: i64 = 1000;
/// The clock is moved when it is off by so much more.
const STEP_MS: i64 = 100;
/// Commands that are sent at once.
const BATCH_COMMANDS: usize = 1024;
/// Bytes of these, about.
const BATCH_BYTES: usize = 1 << 20;
/// Keys of failed commands that are noted.
const FAILED_MAX: usize = 100_000;

/// Removes a key whose time comes within so many milliseconds.
const REMOVE_KEY: &str = "if redis.replicate_commands then redis.replicate_commands() end \
     local left = redis.call('PTTL', KEYS[1]) \
     if left >= 0 and left <= tonumber(ARGV[1]) then return redis.call('DEL', KEYS[1]) end return 0";
/// The same of fields of a hash.
const REMOVE_FIELDS: &str = "local gone = 0 \
     for i = 2, #ARGV do \
       local left = redis.call('HPTTL', KEYS[1], 'FIELDS', 1, ARGV[i]) \
       left = type(left) == 'table' and left[1] or -2 \
       if left >= 0 and left <= tonumber(ARGV[1]) then gone = gone + redis.call('HDEL', KEYS[1], ARGV[i]) end \
     end return gone";

/// What went otherwise than it had.
#[derive(Debug, Default)]
pub(crate) struct Replayed {
    /// Keys that a command names which fails in this history; by database and name.
    pub(crate) failed: HashMap<(u32, Bytes), Failed>,
    /// There were more of them than are noted.
    pub(crate) more_failed: bool,
}

/// A command that fails.
#[derive(Debug, Clone)]
pub(crate) struct Failed {
    /// Which.
    pub(crate) lsn: Lsn,
    /// Whose.
    pub(crate) who: Arc<Origin>,
    /// Its name, and what the server says.
    pub(crate) why: String,
    /// What it did is in the dataset all the same: its effect does not fail.
    pub(crate) replayed: bool,
}

/// What a reply tells.
enum Sent {
    /// Nothing, but it must not fail.
    Plain,
    /// Whether the key's time had come.
    Removal(u32, Bytes),
    /// Whether the record's command fails.
    Effect(Record, Arc<Origin>),
    /// Whether its request, which was another one, would have found a string or nothing.
    TypeOf(Record, Arc<Origin>),
    /// Whether a key that it needs should have expired by then: its time came less than so many milliseconds ago, or comes then.
    Left(Record, Arc<Origin>, i64),
}

/// See the module.
pub(super) struct Tail<'a> {
    scratch: &'a mut Scratch,
    interrupt: &'a Interrupt,
    shown_ms: i64,
    packed: Vec<u8>,
    /// For each command in `packed`, what its reply tells.
    sent: Vec<Sent>,
    db: Option<u32>,
    replayed: Replayed,
}

impl<'a> Tail<'a> {
    pub(super) fn new(scratch: &'a mut Scratch, interrupt: &'a Interrupt) -> Self {
        Self {
            scratch,
            interrupt,
            shown_ms: AT_REST.0 / 1000,
            packed: Vec::new(),
            sent: Vec::new(),
            db: None,
            replayed: Replayed::default(),
        }
    }

    /// Adds a group; `true` = what has come together was sent. `removals`: records by which the server removed what had expired.
    pub(super) fn group(&mut self, group: &Group, removals: &Lsns) -> Result<bool, RestoreError> {
        let ts_ms = group.ts.0.div_euclid(1000);
        let behind = ts_ms - LAG_MS;
        if behind - self.shown_ms >= STEP_MS {
            self.show(behind)?;
        }
        for record in &group.records {
            if let Some(time) = claimed_at(record)
                && time > self.shown_ms
            {
                self.show(time)?;
            }
            self.select(record.db);
            if removals.contains(record.lsn) {
                self.remove(record, ts_ms);
                continue;
            }
            self.look_at_time(record, group, ts_ms);
            self.look_at_type(record, group);
            if let Some(args) = without_limit(&record.args) {
                self.push(&args, record, group);
                continue;
            }
            match absolute(&record.args, ts_ms) {
                None => self.push(&record.args, record, group),
                Some(commands) => commands.iter().for_each(|command| self.push(command, record, group)),
            }
            if let Some(first) = record.args.first()
                && (word::is(first, "SWAPDB") || word::is(first, "FLUSHALL"))
            {
                self.send()?;
                self.exchange(record);
            }
        }
        let full = self.sent.len() >= BATCH_COMMANDS || self.packed.len() >= BATCH_BYTES;
        if full {
            self.send()?;
        }
        Ok(full)
    }

    /// Everything was added: the server comes to rest.
    pub(super) fn finish(mut self) -> Result<Replayed, RestoreError> {
        self.send()?;
        self.scratch.show(AT_REST)?;
        self.scratch.server.call(&["SELECT", "0"])?;
        Ok(self.replayed)
    }

    fn push(&mut self, args: &[Bytes], record: &Record, group: &Group) {
        encode_command(&mut self.packed, args);
        self.sent.push(Sent::Effect(record.clone(), Arc::clone(&group.origin)));
    }

    /// Where a request became a `SET` or a `DEL`, these do not fail where it would have.
    fn look_at_type(&mut self, record: &Record, group: &Group) {
        let [name, key, ..] = &record.args[..] else { return };
        let becomes = |effect: &str, requests: &[&str]| {
            word::is(name, effect) && requests.iter().any(|via| via.eq_ignore_ascii_case(&group.origin.via))
        };
        if becomes("SET", &["GETSET", "INCRBYFLOAT"]) || becomes("DEL", &["GETDEL"]) || becomes("UNLINK", &["GETDEL"]) {
            encode_command(&mut self.packed, &[&b"TYPE"[..], key]);
            self.sent.push(Sent::TypeOf(record.clone(), Arc::clone(&group.origin)));
        }
    }

    /// Whether a key still was there whose time came just before: the clock is behind, so that it is.
    fn look_at_time(&mut self, record: &Record, group: &Group, ts_ms: i64) {
        let within = ts_ms - self.shown_ms;
        for touched in dependence(record.db, &record.args, record.keys.as_deref()).touched() {
            if touched.touch != Touch::Overwritten && touched.db == record.db {
                encode_command(&mut self.packed, &[&b"PTTL"[..], touched.key]);
                self.sent.push(Sent::Left(record.clone(), Arc::clone(&group.origin), within));
            }
        }
    }

    fn select(&mut self, db: u32) {
        if self.db != Some(db) {
            encode_command(&mut self.packed, &["SELECT", &db.to_string()]);
            self.sent.push(Sent::Plain);
            self.db = Some(db);
        }
    }

    /// Repeats a removal where the time has come in this history, too.
    fn remove(&mut self, record: &Record, ts_ms: i64) {
        let within = (ts_ms + LAG_MS - self.shown_ms).to_string();
        let Some((name, args)) = record.args.split_first() else { return };
        if word::is(name, "HDEL") {
            let mut command = vec![&b"EVAL"[..], REMOVE_FIELDS.as_bytes(), b"1"];
            let Some((key, fields)) = args.split_first() else { return };
            command.extend([&key[..], within.as_bytes()]);
            command.extend(fields.iter().map(|field| &field[..]));
            encode_command(&mut self.packed, &command);
            self.sent.push(Sent::Plain);
            return;
        }
        for key in args {
            encode_command(&mut self.packed, &[b"EVAL", REMOVE_KEY.as_bytes(), b"1", &key[..], within.as_bytes()]);
            self.sent.push(Sent::Removal(record.db, key.clone()));
        }
    }

    /// What is noted of the databases that an exchange of contents names goes with them; what was emptied has no failures.
    fn exchange(&mut self, record: &Record) {
        match dependence(record.db, &record.args, None) {
            Dependence::SwapDb(a, b) => {
                let failed = std::mem::take(&mut self.replayed.failed);
                let moved = failed.into_iter().map(|((db, key), why)| ((swapped(db, a, b), key), why));
                self.replayed.failed = moved.collect();
            }
            Dependence::FlushAll => self.replayed.failed.clear(),
            _ => {}
        }
    }

    fn show(&mut self, ms: i64) -> Result<(), RestoreError> {
        // What was met before must not see this time.
        self.send()?;
        self.scratch.show(Micros(ms.saturating_mul(1000)))?;
        self.shown_ms = ms;
        Ok(())
    }

    fn send(&mut self) -> Result<(), RestoreError> {
        self.interrupt.check()?;
        if self.sent.is_empty() {
            return Ok(());
        }
        let replies =
            self.scratch.server.pipeline(&self.packed, self.sent.len()).map_err(|e| self.scratch.explain(e))?;
        self.packed.clear();
        // The request of the next effect would have failed.
        let mut would_fail = false;
        for (reply, sent) in replies.into_iter().zip(std::mem::take(&mut self.sent)) {
            match (reply, sent) {
                (Reply::Error(error), Sent::Effect(record, who)) => self.failed(&record, &who, &error.text),
                (Reply::Value(Value::Int(left)), Sent::Left(record, who, within)) => {
                    if (0..=within).contains(&left) {
                        self.may_have_expired(&record, &who);
                    }
                }
                (Reply::Error(error), Sent::Plain | Sent::TypeOf(..) | Sent::Left(..) | Sent::Removal(..)) => {
                    return Err(RestoreError::Scratch(format!("refused a command of redtape: {}", error.text)));
                }
                (Reply::Value(_), Sent::Effect(..)) if std::mem::take(&mut would_fail) => {}
                (Reply::Value(_), Sent::Effect(record, who)) => self.succeeded(&record, &who),
                (Reply::Value(Value::Status(of)), Sent::TypeOf(record, who)) if of != "string" && of != "none" => {
                    would_fail = true;
                    self.request_failed(&record, &who, &of);
                }
                (Reply::Value(Value::Int(1)), Sent::Removal(db, key)) => drop(self.replayed.failed.remove(&(db, key))),
                (Reply::Value(_), Sent::Plain | Sent::TypeOf(..) | Sent::Left(..) | Sent::Removal(..)) => {}
            }
        }
        Ok(())
    }

    /// What is made of keys of a failed command is in doubt as well; what replaces a key as a whole ends the doubt.
    fn succeeded(&mut self, record: &Record, who: &Origin) {
        let failed = &mut self.replayed.failed;
        if failed.is_empty() {
            return;
        }
        let dependence = dependence(record.db, &record.args, record.keys.as_deref());
        let name = |touched: &Touched<'_>| (touched.db, Bytes::copy_from_slice(touched.key));
        let mut needed = dependence.touched().iter().filter(|touched| touched.touch != Touch::Overwritten);
        let doubt = needed.find_map(|touched| failed.get(&name(touched))).cloned();
        let moves = record.args.first().is_some_and(|name| word::is(name, "RENAME"));
        for (nth, touched) in dependence.touched().iter().enumerate() {
            match &doubt {
                // What was in doubt is elsewhere now.
                Some(_) if moves && nth == 0 => drop(failed.remove(&name(touched))),
                Some(doubt) => drop(failed.entry(name(touched)).or_insert_with(|| doubt.clone())),
                // A request that became this effect might have failed for the same reason.
                None if !who.via.is_empty() => {}
                None => drop(failed.remove(&name(touched))),
            }
        }
    }

    /// The request would have failed; its effect comes next, and does not.
    fn request_failed(&mut self, record: &Record, who: &Arc<Origin>, of: &str) {
        let why = format!("{} fails without the writes that are undone: it finds a {of}", who.via.to_ascii_uppercase());
        self.note(record, who, &why, true);
    }

    /// A key that the command needs expires just before it without the writes. It is replayed as if it found the key.
    fn may_have_expired(&mut self, record: &Record, who: &Arc<Origin>) {
        let why = format!(
            "without the writes that are undone the key expires just before {}, and whether that write found it is unknown",
            command_name(record)
        );
        self.note(record, who, &why, true);
    }

    fn failed(&mut self, record: &Record, who: &Arc<Origin>, error: &str) {
        let name = command_name(record);
        self.note(record, who, &format!("{name} fails without the writes that are undone: {error}"), false);
    }

    fn note(&mut self, record: &Record, who: &Arc<Origin>, why: &str, replayed: bool) {
        for touched in dependence(record.db, &record.args, record.keys.as_deref()).touched() {
            if self.replayed.failed.len() >= FAILED_MAX {
                self.replayed.more_failed = true;
                return;
            }
            let key = (touched.db, Bytes::copy_from_slice(touched.key));
            let why = why.to_owned();
            let failed = Failed { lsn: record.lsn, who: Arc::clone(who), why, replayed };
            self.replayed.failed.entry(key).and_modify(|known| known.replayed |= replayed).or_insert(failed);
        }
    }
}

/// Without the `LIMIT` of an exact trimming: the server passes the outcome of `MAXLEN ~ … LIMIT …` on as `MAXLEN = … LIMIT …`, and
/// takes that from its primary alone.
fn without_limit(args: &[Bytes]) -> Option<Vec<Bytes>> {
    let name = args.first()?;
    if !word::is_one_of(name, &["XADD", "XTRIM"]) {
        return None;
    }
    // What stands before it are words of one argument each; behind it are the id and the fields.
    let before = ["NOMKSTREAM", "KEEPREF", "DELREF", "ACKED"];
    let at = 2 + args.get(2..)?.iter().take_while(|arg| word::is_one_of(arg, &before)).count();
    let trims = word::is_one_of(args.get(at)?, &["MAXLEN", "MINID"]) && word::is(args.get(at + 1)?, "=");
    if !trims || !word::is(args.get(at + 3)?, "LIMIT") {
        return None;
    }
    let mut args = args.to_vec();
    args.drain(at + 3..(at + 5).min(args.len()));
    Some(args)
}

/// The time that an `XCLAIM` sets, in milliseconds since 1970.
fn claimed_at(record: &Record) -> Option<i64> {
    let (name, args) = record.args.split_first()?;
    if !word::is(name, "XCLAIM") {
        return None;
    }
    let at = args.iter().position(|arg| word::is(arg, "TIME"))?;
    std::str::from_utf8(args.get(at + 1)?).ok()?.parse().ok()
}
