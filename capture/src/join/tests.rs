use std::collections::HashMap;

use bytes::BytesMut;
use redtape_wire::resp::encode_command;

use super::*;
use crate::psync::effects::{EffectParser, StreamEvent};
use crate::tee::{Identity, Outcome, Stamp};

/// A join with its own stream, so that tests read as what clients and the server did.
struct Scene {
    join: Join,
    parser: EffectParser,
    table: Arc<CommandTable>,
    next_id: u64,
    /// By the client's name.
    clients: HashMap<String, Arc<Identity>>,
    /// The link was found empty then.
    quiet: Micros,
}

impl Scene {
    fn new() -> Self {
        let table = Arc::new(CommandTable::builtin());
        let mut join = Join::new(table.clone(), true);
        join.stream_starts(Micros(1), ReplOffset(0));
        let parser = EffectParser::new(ReplOffset(0), 0);
        Self { join, parser, table, next_id: 1, clients: HashMap::new(), quiet: Micros(0) }
    }

    fn words(line: &str) -> Vec<&[u8]> {
        line.split(' ').map(str::as_bytes).collect()
    }

    fn request(&mut self, who: &str, at: i64, lines: &[&str]) -> u64 {
        let parts = lines.iter().map(|l| describe(&self.table, &Self::words(l), Self::words(l).len(), 0)).collect();
        let new = || Arc::new(Identity { name: who.to_owned(), ..Identity::default() });
        let connection = who.bytes().next().map_or(0, u64::from);
        let who = self.clients.entry(who.to_owned()).or_insert_with(new).clone();
        let id = self.next_id;
        self.next_id += 1;
        let stamp = Stamp { id, at: Micros(at), who, connection, parts, transaction: lines.len() > 1 };
        self.join.tee(TeeMessage::Stamp(stamp));
        id
    }

    fn reply(&mut self, id: u64, at: i64, outcome: Outcome) {
        self.join.tee(TeeMessage::Replied { id, count: 1, at: Micros(at), outcome });
    }

    fn effect(&mut self, arrived: i64, lines: &[&str]) {
        let mut wire = Vec::new();
        for l in lines {
            encode_command(&mut wire, &Self::words(l));
        }
        let mut buf = BytesMut::from(&wire[..]);
        while let Some(StreamEvent::Group(group)) = self.parser.next(&mut buf, Micros(arrived)).expect("sound") {
            self.join.effect(group, self.quiet);
        }
    }

    fn offset(&self) -> u64 {
        self.parser.position().0.0
    }

    fn probe(&mut self, sent: i64, offset: u64, expired: u64, evicted: u64) {
        let offset = ReplOffset(offset);
        self.join.probe(Probe { sent: Micros(sent), received: Micros(sent + 10), offset, expired, evicted });
    }

    fn date(&mut self, now: i64) -> Option<Attributed> {
        self.join.workers_told(Micros(now));
        self.join.next(Micros(now))
    }

    fn next(&mut self, now: i64) -> Option<(String, i64)> {
        let attributed = self.date(now)?;
        let who = if attributed.origin.kind == OriginKind::Client {
            format!(
                "{}{}{}",
                attributed.origin.name,
                if attributed.origin.via.is_empty() { "" } else { " via " },
                attributed.origin.via
            )
        } else {
            format!("{:?}", attributed.origin.kind)
        };
        Some((who, attributed.ts.0))
    }
}

#[allow(clippy::unnecessary_wraps)] // Compared with what `next` gives.
fn got(who: &str, ts: i64) -> Option<(String, i64)> {
    Some((who.to_owned(), ts))
}

#[test]
fn the_oldest_equal_request_is_taken_once_its_reply_is_there() {
    let mut s = Scene::new();
    let a = s.request("a", 100, &["SETRANGE n 0 x"]);
    let b = s.request("b", 101, &["SETRANGE n 0 x"]);
    s.effect(200, &["SETRANGE n 0 x"]);
    assert_eq!(s.next(210), None, "nobody has a reply yet");
    s.reply(a, 205, Outcome::Ran);
    assert_eq!(s.next(210), None, "the other's reply may be on its way");
    assert_eq!(s.next(200 + SETTLED), got("a", 100), "the other has not run yet");
    s.effect(2200, &["SETRANGE n 0 x"]);
    s.reply(b, 2201, Outcome::Ran);
    assert_eq!(s.next(2202), got("b", 101));
    assert_eq!(s.join.stamps().0, 0);
}

#[test]
fn numbers_in_replies_tell_equal_requests_apart() {
    let mut s = Scene::new();
    let a = s.request("a", 100, &["INCR n"]);
    let b = s.request("b", 101, &["INCR n"]);
    s.effect(200, &["INCR n"]);
    s.effect(200, &["INCR n"]);
    s.reply(b, 205, Outcome::Number(7));
    assert_eq!(s.next(210), None, "the other may have been first");
    s.reply(a, 206, Outcome::Number(8));
    assert_eq!(s.next(210), got("b", 101));
    assert_eq!(s.next(210), got("a", 101));
}

#[test]
fn what_a_script_was_given_tells_scripts_apart() {
    let mut s = Scene::new();
    let a = s.request("a", 100, &["EVALSHA cafe 1 k from-a"]);
    let b = s.request("b", 101, &["EVALSHA cafe 1 k from-b"]);
    s.reply(a, 110, Outcome::Ran);
    s.reply(b, 110, Outcome::Ran);
    s.effect(200, &["MULTI", "INCR k", "SET other from-b", "EXEC"]);
    s.effect(200, &["MULTI", "INCR k", "SET other from-a", "EXEC"]);
    assert_eq!(s.next(210), got("b via evalsha", 101));
    assert_eq!(s.next(210), got("a via evalsha", 101));
}

#[test]
fn a_reply_that_says_no_effect_frees_the_effect_for_the_other() {
    let mut s = Scene::new();
    let a = s.request("a", 100, &["SADD k x"]);
    let b = s.request("b", 101, &["SADD k x"]);
    s.effect(200, &["SADD k x"]);
    s.reply(a, 201, Outcome::NoEffect);
    s.reply(b, 202, Outcome::Ran);
    assert_eq!(s.next(203), got("b", 101));
}

#[test]
fn equal_arguments_win_over_age() {
    let mut s = Scene::new();
    let a = s.request("a", 100, &["SET k one EX 5"]);
    let b = s.request("b", 101, &["SET k two EX 5"]);
    s.reply(a, 150, Outcome::Ran);
    s.reply(b, 150, Outcome::Ran);
    s.effect(200, &["SET k two PXAT 999"]);
    s.effect(200, &["SET k one PXAT 999"]);
    assert_eq!(s.next(201), got("b", 101));
    assert_eq!(s.next(201), got("a", 101), "ts never goes back");
}

#[test]
fn rewritten_commands_scripts_and_transactions_are_found() {
    for (request, effect, who) in [
        (&["SPOP s"][..], &["SREM s m"][..], "x via spop"),
        (&["INCRBYFLOAT f 1"], &["SET f 1 KEEPTTL"], "x via incrbyfloat"),
        (&["BLPOP a b 0"], &["LPOP b"], "x via blpop"),
        (&["EVALSHA cafe 1 k 7"], &["MULTI", "INCR k", "SET other 2", "EXEC"], "x via evalsha"),
        (&["EVALSHA cafe 0"], &["SET undeclared 2"], "x via evalsha"),
        (&["SET a 1", "LPUSH l 2"], &["MULTI", "SET a 1", "LPUSH l 2", "EXEC"], "x"),
        (&["SET a 1", "GET a"], &["SET a 1"], "x"),
        (&["XADD st * f v"], &["XADD st 5-0 f v"], "x"),
        (&["FLUSHALL"], &["FLUSHALL"], "x"),
        (&["EXPIRE k 10"], &["PEXPIREAT k 123"], "x via expire"),
        (&["MY.MODULE k"], &["MY.EFFECT k"], "x via my.module"),
    ] {
        let mut s = Scene::new();
        let id = s.request("x", 100, request);
        s.reply(id, 150, Outcome::Ran);
        s.effect(200, effect);
        // A script of whose arguments none is in the effect might still cause another.
        let attributed = s.next(201).or_else(|| s.next(200 + HOLD));
        assert_eq!(attributed, got(who, 100), "{request:?}");
        // What this request may still cause ends here.
        let offset = s.offset();
        s.probe(300, offset, 0, 0);
        s.join.reached(ReplOffset(offset));
        assert_eq!(s.join.stamps().0, 0, "{request:?}");
    }
}

#[test]
fn nobody_asked_for_it() {
    let mut s = Scene::new();
    s.probe(10, 0, 5, 5);
    s.effect(100, &["SET k v"]);
    assert_eq!(s.next(101), got("Outside", 100));
    s.effect(200, &["DEL k"]);
    assert_eq!(s.next(201), None);
    assert!(s.join.wants_probe());
    let offset = s.offset();
    s.probe(210, offset, 6, 5);
    assert_eq!(s.next(230), got("Expiry", 200));
    s.effect(300, &["DEL k2"]);
    let offset = s.offset();
    s.probe(310, offset, 6, 6);
    assert_eq!(s.next(330), got("Eviction", 300));
    s.effect(400, &["DEL k3"]);
    let offset = s.offset();
    s.probe(410, offset, 6, 6);
    assert_eq!(s.next(430), got("Outside", 400));
    s.join.unknown_until(ReplOffset(s.offset() + 1000));
    s.effect(500, &["SET k v"]);
    assert_eq!(s.next(501), got("Unknown", 500));
}

#[test]
fn where_the_machine_is_slow_what_the_server_removed_is_not_an_outsiders() {
    let mut s = Scene::new();
    s.probe(10, 0, 0, 0);
    for key in 0..3 {
        s.effect(200, &[&format!("DEL k{key}")]);
    }
    assert_eq!(s.next(200 + PROBE_WAIT_MAX - 1), None, "the probe is on its way");
    assert!(s.join.wants_probe());
    s.probe(200 + PROBE_WAIT_MAX, s.offset(), 3, 0);
    for _ in 0..3 {
        assert_eq!(s.next(201 + PROBE_WAIT_MAX).map(|(who, _)| who).as_deref(), Some("Expiry"));
    }
    s.effect(5_000_000, &["DEL k"]);
    let late = 5_000_000 + PROBE_WAIT_MAX;
    assert_eq!(s.next(late).map(|(who, _)| who).as_deref(), Some("Unknown"), "nobody knows what the server counted");
}

#[test]
fn nothing_is_complete_while_a_group_from_before_waits_for_its_time() {
    let mut s = Scene::new();
    s.probe(10, 0, 0, 0);
    s.effect(20_000, &["SET a 1"]);
    s.probe(20_100, s.offset(), 0, 0);
    s.effect(20_200, &["SET b 1"]);
    assert!(s.date(20_300).is_none(), "the time of the first may become better known");
    assert_eq!(s.join.complete_until(), Some(Micros(10)));
    let late = 20_200 + WAIT_MAX;
    assert!(s.date(late).is_some() && s.date(late).is_some());
    assert_eq!(s.join.complete_until(), Some(Micros(20_100)));
}

#[test]
fn who_asks_for_a_deletion_is_not_named_for_the_expiry_just_before() {
    let mut s = Scene::new();
    s.probe(10, 0, 0, 0);
    let counted = s.request("good", 100, &["INCR n"]);
    s.reply(counted, 150, Outcome::Number(1));
    let deleted = s.request("bad", 160, &["DEL k"]);
    s.reply(deleted, 170, Outcome::Wrote);
    // The link was read late.
    s.effect(200, &["DEL k"]);
    s.effect(200, &["INCR n"]);
    s.effect(200, &["DEL k"]);
    s.probe(300, s.offset(), 1, 0);
    let mut next = || s.next(300 + HOLD).map(|(who, _)| who).expect("a group");
    assert_eq!([next(), next(), next()], ["Expiry", "good", "bad"]);
}

#[test]
fn who_does_what_an_outsider_did_just_before_is_named_for_his_own() {
    let mut s = Scene::new();
    s.effect(50, &["SET other 1"]);
    assert_eq!(s.next(51), got("Outside", 50));
    let counted = s.request("good", 100, &["INCR n"]);
    s.reply(counted, 150, Outcome::Number(1));
    let set = s.request("client", 160, &["SET k v"]);
    s.reply(set, 170, Outcome::Wrote);
    for effect in ["SET k v", "INCR n", "SET k v"] {
        s.effect(200, &[effect]);
    }
    let mut next = || s.next(300 + HOLD).map(|(who, _)| who).expect("a group");
    assert_eq!([next(), next(), next()], ["Outside", "good", "client"]);
}

#[test]
fn the_servers_counters_may_begin_anew() {
    let mut s = Scene::new();
    s.probe(10, 0, 100, 50);
    for (at, expired, evicted, who) in [(200, 1, 0, "Expiry"), (400, 0, 0, "Outside"), (600, 0, 1, "Eviction")] {
        s.effect(at, &["DEL k"]);
        s.probe(at + 10, s.offset(), expired, evicted);
        assert_eq!(s.next(at + 20).map(|(who, _)| who).as_deref(), Some(who), "at {at}");
    }
}

#[test]
fn a_command_does_not_explain_a_group_of_effects_that_it_cannot_have() {
    let flushed = ["MULTI", "SELECT 0", "FLUSHDB", "HSET h f v", "MSET a 1 b 2", "EXEC"];
    let expired = ["MULTI", "SELECT 0", "DEL a", "INCR a", "EXEC"];
    for (request, group, who) in [
        (&["FLUSHALL"][..], &flushed[..], "Outside"),
        (&["FLUSHALL", "SET x 1"], &flushed, "Outside"),
        (&["FLUSHDB", "HSET h f v", "MSET a 1 b 2"], &flushed, "x"),
        (&["EVAL s 1 h"], &flushed, "x via eval"),
        (&["INCR a"], &expired, "x"),
    ] {
        let mut s = Scene::new();
        s.probe(50, 0, 0, 0);
        let id = s.request("x", 100, request);
        s.reply(id, 150, Outcome::Ran);
        s.effect(200, group);
        assert_eq!(s.next(200 + HOLD).map(|(who, _)| who).as_deref(), Some(who), "{request:?}");
    }
}

#[test]
fn while_a_session_may_write_without_stamps_nobody_is_an_outsider() {
    let mut s = Scene::new();
    s.probe(10, 0, 0, 0);
    s.join.unstamped_until(Some(Micros(i64::MAX)));
    s.effect(100, &["SET k v"]);
    assert_eq!(s.next(101), got("Unknown", 100));
    // It has gone: what it sent may run for a while.
    s.join.unstamped_until(Some(Micros(200)));
    s.effect(900_000, &["SET k v"]);
    assert_eq!(s.next(900_000 + WAIT_MAX), got("Unknown", 900_000));
    let offset = s.offset();
    s.probe(200 + LOST_FOR + 1, offset, 0, 0);
    s.effect(2_000_000, &["SET k v"]);
    assert_eq!(s.next(2_000_001), None, "what runs behind it would tell more");
    assert_eq!(s.next(2_000_000 + WAIT_MAX), got("Outside", 2_000_000));
}

#[test]
fn a_client_that_has_gone_is_not_named_for_what_it_did_not_ask_for_by_name() {
    for (request, want) in [("FOREIGN x", "Unknown"), ("EVAL text 0", "Unknown"), ("SPOP k", "ann via spop")] {
        let mut s = Scene::new();
        s.probe(10, 0, 0, 0);
        let id = s.request("ann", 100, &[request]);
        s.reply(id, 150, Outcome::Gone);
        s.effect(200, &["SREM k m"]);
        assert_eq!(s.next(300_000).map(|(who, _)| who), Some(want.to_owned()), "{request}");
    }
}

#[test]
fn probes_bound_the_time_of_what_arrives_late() {
    let mut s = Scene::new();
    s.effect(90_000, &["SET a 1"]);
    let first = s.offset();
    s.effect(90_000, &["SET b 2"]);
    // The server had the first at 5,000 and not the second.
    s.probe(4_000, 0, 0, 0);
    s.probe(5_000, first, 0, 0);
    s.probe(7_000, s.offset(), 0, 0);
    let j = s.join.next(Micros(90_001)).expect("first");
    assert_eq!((j.ts.0, j.slack), (5_010, 1_010));
    let j = s.join.next(Micros(90_001)).expect("second");
    assert_eq!((j.ts.0, j.slack), (7_010, 2_010));
    assert_eq!(s.join.complete_until(), Some(Micros(7_000)));
}

#[test]
fn a_request_that_waited_in_the_server_is_not_dated_before_the_last_probe_without_it() {
    let mut s = Scene::new();
    let id = s.request("x", 100, &["BLPOP l 0"]);
    s.probe(50_000, 0, 0, 0);
    s.reply(id, 60_000, Outcome::Ran);
    s.effect(60_000, &["LPOP l"]);
    assert_eq!(s.next(60_001), got("x via blpop", 50_000));
}

#[test]
fn stamps_without_effect_go_when_the_stream_has_passed_them() {
    let mut s = Scene::new();
    let id = s.request("x", 100, &["LTRIM missing 0 1"]);
    s.reply(id, 150, Outcome::Ran);
    s.probe(149, 0, 0, 0);
    assert_eq!(s.join.stamps().0, 1);
    s.probe(151, 0, 0, 0);
    assert_eq!(s.join.stamps().0, 0);
}

#[test]
fn a_client_that_never_reads_its_reply_holds_nobody_for_long() {
    let mut s = Scene::new();
    s.request("x", 100, &["SET k v"]);
    s.effect(200, &["SET k v"]);
    assert_eq!(s.next(200 + HOLD - 1), None);
    assert_eq!(s.next(200 + HOLD), got("x", 100));
}

#[test]
fn a_deletion_is_whose_command_takes_a_key_away_and_no_other_s() {
    // Request, its effect, and who is its cause (`None`: not the request).
    for (request, effect, cause) in [
        ("SET a 1 PXAT 1000", "UNLINK a", Some("x via set")),
        ("SET a 1 exat 1 GET", "DEL a", Some("x via set")),
        ("SET a 1 PXAT 1000", "DEL a b", None),
        ("SET a 1", "DEL a", None),
        ("SET a 1 PX 5", "DEL a", None),
        ("SET a exat PX 5", "DEL a", None),
        ("GETSET a 1", "DEL a", None),
        ("GETDEL a", "UNLINK a", Some("x via getdel")),
        ("GETDEL a", "DEL a b", None),
        ("DELIFEQ a 1", "DEL a", Some("x via delifeq")),
        ("DEL a b", "DEL a b", Some("x")),
        // The server found it expired.
        ("DEL a b", "DEL a", None),
        ("UNLINK a b", "DEL a b", None),
        ("EXPIRE a 0", "DEL a", Some("x via expire")),
        ("MIGRATE h 1  0 9 KEYS a b", "DEL a b", Some("x via migrate")),
    ] {
        let mut s = Scene::new();
        let id = s.request("x", 100, &[request]);
        s.reply(id, 150, Outcome::Ran);
        s.effect(200, &[effect]);
        s.probe(210, s.offset(), 0, 0);
        let found = s.next(100_000).map(|(who, _)| who);
        assert_eq!(found.as_deref(), Some(cause.unwrap_or("Outside")), "{request} and {effect}");
    }
}

#[test]
fn a_script_whose_arguments_are_not_in_the_effect_is_the_cause_if_nothing_else_can_be() {
    for (request, effect) in [
        ("EVAL s 1 acct 3", "INCRBY acct 6"),
        ("EVAL s 1 lock token", "DEL lock"),
        ("FCALL f 1 key arg", "SET key other"),
        ("EVAL s 0 arg", "SET undeclared 1"),
        ("EVAL s 1 key arg", "SET undeclared 1"),
    ] {
        let mut s = Scene::new();
        let id = s.request("x", 100, &[request]);
        s.reply(id, 150, Outcome::Ran);
        s.effect(200, &[effect]);
        s.probe(210, s.offset(), 0, 0);
        let name = request.split(' ').next().unwrap_or_default().to_lowercase();
        let want = got(&format!("x via {name}"), 100);
        assert_eq!(s.next(200 + SETTLED), want, "{request} and {effect}");
    }
}

#[test]
fn two_clients_that_may_both_be_the_cause_are_not_named() {
    let mut s = Scene::new();
    let a = s.request("a", 100, &["EVAL s 1 acct 3"]);
    let b = s.request("b", 110, &["EVAL s 1 acct 4"]);
    s.reply(a, 150, Outcome::Ran);
    s.effect(200, &["INCRBY acct 6"]);
    assert_eq!(s.next(200 + SETTLED), None, "the other's reply may be on its way");
    s.reply(b, 2150, Outcome::Ran);
    s.effect(2300, &["INCRBY acct 8"]);
    assert_eq!(s.next(2300 + WAIT_MAX).map(|(who, _)| who), Some("Unknown".to_owned()));
    assert_eq!(s.next(2300 + WAIT_MAX).map(|(who, _)| who), Some("Unknown".to_owned()));
    assert_eq!(s.join.stamps().0, 0, "both had their effects");
    // The next one is alone, and long behind them.
    let at = 9000 + TIES_FOR;
    let a = s.request("a", at, &["EVAL s 1 acct 3"]);
    s.reply(a, at + 50, Outcome::Ran);
    s.effect(at + 100, &["INCRBY acct 6"]);
    assert_eq!(s.next(at + 100 + SETTLED), got("a via eval", at));
}

#[test]
fn a_request_waits_for_the_effects_of_those_before_it_on_its_connection() {
    let mut s = Scene::new();
    // The server read the second client first.
    let a = [s.request("a", 100, &["LPUSH l 1"]), s.request("a", 100, &["LTRIM l 0 9"])];
    let b = [s.request("b", 101, &["LPUSH l 2"]), s.request("b", 101, &["LTRIM l 0 9"])];
    for (id, n) in [(b[0], 1), (a[0], 2)] {
        s.reply(id, 150, Outcome::Number(n));
        s.reply(id + 1, 150, Outcome::Ran);
    }
    for effect in ["LPUSH l 2", "LTRIM l 0 9", "LPUSH l 1", "LTRIM l 0 9"] {
        s.effect(200, &[effect]);
    }
    let names: Vec<_> = std::iter::from_fn(|| s.next(210)).map(|(who, _)| who).collect();
    assert_eq!((names, a[1]), (["b", "b", "a", "a"].map(str::to_owned).to_vec(), a[0] + 1));
}

#[test]
fn the_order_on_a_connection_weighs_more_than_the_same_words() {
    let mut s = Scene::new();
    // The first stands in the stream as the last does.
    let ids = ["GETSET s v", "GETEX other EX 60", "SET s v"].map(|line| s.request("a", 100, &[line]));
    for id in ids {
        s.reply(id, 150, Outcome::Wrote);
    }
    for effect in ["SET s v", "PEXPIREAT other 123", "SET s v"] {
        s.effect(200, &[effect]);
    }
    let names: Vec<_> = std::iter::from_fn(|| s.next(210)).map(|(who, _)| who).collect();
    assert_eq!(names, ["a via getset", "a via getex", "a"]);
}

#[test]
fn an_outsider_who_does_the_same_does_not_make_a_connection_run_ahead() {
    for outcome in [None, Some(Outcome::Ran), Some(Outcome::Wrote)] {
        let mut s = Scene::new();
        // Two clients on one connection; what the second asks for, somebody else has done before.
        let first = s.request("ann", 100, &["EXPIRE n 60"]);
        let second = s.request("alf", 101, &["PFCOUNT pf"]);
        let answered = |s: &mut Scene, outcome| {
            s.reply(first, 5_500, outcome);
            s.reply(second, 5_500, Outcome::Ran);
        };
        if let Some(outcome) = outcome {
            answered(&mut s, outcome);
        }
        s.effect(200, &["PFCOUNT pf"]);
        assert!(s.next(200 + HOLD).is_some());
        if outcome.is_none() {
            answered(&mut s, Outcome::Wrote);
        }
        s.effect(5_600, &["PEXPIREAT n 123"]);
        let found = s.next(5_600 + HOLD).map(|(who, _)| who);
        assert_eq!(found.as_deref(), Some("ann via expire"), "{outcome:?}");
    }
}

#[test]
fn what_nobody_asked_for_is_not_dated_behind_the_replies_to_what_came_later() {
    let mut s = Scene::new();
    s.probe(50, 0, 0, 0);
    let a = s.request("a", 100, &["SET k v"]);
    s.reply(a, 130, Outcome::Wrote);
    // Both were read late, together.
    s.effect(900, &["SET from-elsewhere 1"]);
    s.effect(900, &["SET k v"]);
    assert_eq!(s.next(901), got("Outside", 130));
    assert_eq!(s.next(901), got("a", 130));
}

#[test]
fn one_of_several_requests_of_a_client_is_not_dated_behind_the_replies_to_what_came_later() {
    let mut s = Scene::new();
    s.probe(50, 0, 0, 0);
    for at in [100, 500] {
        let id = s.request("x", at, &["EVAL s 1 k x"]);
        s.reply(id, at + 10, Outcome::Ran);
    }
    let other = s.request("y", 200, &["SET other v"]);
    s.reply(other, 230, Outcome::Wrote);
    // Read late, together.
    s.effect(900, &["SET k 1"]);
    s.effect(900, &["SET other v"]);
    let first = s.join.next(Micros(900 + HOLD)).expect("the script's");
    assert_eq!((first.origin.name.as_str(), first.ts.0, first.slack), ("x", 230, 130));
    assert_eq!(s.next(900 + HOLD), got("y", 230));
}

#[test]
fn a_script_from_before_a_tie_is_as_uncertain_where_its_effect_is_read_late() {
    let mut s = Scene::new();
    s.probe(50, 0, 0, 0);
    let ids = ["a", "b"].map(|who| s.request(who, 100, &["EVAL s 1 k x"]));
    let own = s.request("a", 160, &["EVAL s 1 own x"]);
    for id in [ids[0], ids[1], own] {
        s.reply(id, 190, Outcome::Ran);
    }
    s.effect(200, &["SET k 1"]);
    assert_eq!(s.next(200 + HOLD), got("Unknown", 200));
    // It may be the one above: then this is of another that it sent later.
    let late = 200 + 2 * TIES_FOR;
    s.effect(late, &["SET own 1"]);
    let script = s.date(late + WAIT_MAX).expect("the script's");
    assert_eq!((script.origin.name.as_str(), script.ts.0 - script.slack as i64), ("a", 50));
}

#[test]
fn near_a_tie_the_time_of_a_script_is_as_uncertain_as_the_tie() {
    let mut s = Scene::new();
    s.probe(50, 0, 0, 0);
    let ids = ["a", "b"].map(|who| s.request(who, 100, &["EVAL s 1 k x"]));
    for id in ids {
        s.reply(id, 150, Outcome::Ran);
    }
    s.effect(200, &["SET k 1"]);
    assert_eq!(s.next(200 + HOLD), got("Unknown", 200));
    // Its script may have been the one above, or this one: not one that it has not sent.
    let own = s.request("a", 6000, &["EVAL s 1 own x"]);
    s.reply(own, 6050, Outcome::Ran);
    s.effect(6100, &["SET own 1"]);
    let script = s.date(6100 + WAIT_MAX).expect("the script's");
    assert_eq!((script.origin.name.as_str(), script.ts.0, script.slack), ("a", 6000, 5950));
    // Nor may the worker have more to tell.
    let own = s.request("a", 6110, &["EVAL s 1 own x"]);
    s.reply(own, 6150, Outcome::Ran);
    s.effect(6160, &["SET own 1"]);
    s.join.workers_told(Micros(6159));
    let script = s.join.next(Micros(6160 + WAIT_MAX)).expect("the script's");
    assert_eq!((script.origin.name.as_str(), script.ts.0), ("a", 6160));
    // Where it has sent another by then, this may be that one's; what was answered says nothing of what ran before.
    let ids = [6200, 6300].map(|at| s.request("a", at, &["EVAL s 1 own x"]));
    for id in ids {
        s.reply(id, 6350, Outcome::Ran);
    }
    s.effect(6400, &["SET own 2"]);
    let script = s.date(6400 + WAIT_MAX).expect("the first script's");
    assert_eq!((script.origin.name.as_str(), script.ts.0, script.slack), ("a", 6400, 6350));
    s.effect(6400, &["SET own 3"]);
    assert_eq!(s.next(6400 + WAIT_MAX), got("a via eval", 6400));
    // A command that is no script is dated by its stamp.
    let expire = s.request("a", 7000, &["SPOP set"]);
    s.reply(expire, 7050, Outcome::Wrote);
    s.effect(7100, &["SREM set m"]);
    assert_eq!(s.next(7100 + HOLD), got("a via spop", 7000));
}

#[test]
fn a_script_that_found_a_key_expired_did_not_delete_it() {
    for (outcome, expired, who) in [
        (Outcome::Ran, 0, "x via eval"),
        (Outcome::Empty, 0, "x via eval"),
        (Outcome::Empty, 1, "Expiry"),
        (Outcome::Ran, 1, "x via eval"),
    ] {
        let mut s = Scene::new();
        s.probe(50, 0, 0, 0);
        let id = s.request("x", 100, &["EVAL s 1 lock token"]);
        s.reply(id, 150, outcome);
        s.effect(200, &["DEL lock"]);
        assert_eq!(s.next(200 + SETTLED), None, "the server's counters are asked for");
        assert!(s.join.wants_probe());
        s.probe(300, s.offset(), expired, 0);
        let found = s.next(200 + SETTLED).map(|(who, _)| who);
        assert_eq!(found.as_deref(), Some(who), "{outcome:?}, {expired} expired");
    }
}

#[test]
fn where_others_write_past_the_proxy_a_script_is_not_named_for_what_it_was_not_given() {
    let mut s = Scene::new();
    s.effect(100, &["SET elsewhere 1"]);
    assert_eq!(s.next(101), got("Outside", 100));
    let id = s.request("x", 200, &["EVAL s 1 mine arg"]);
    s.reply(id, 250, Outcome::Ran);
    s.effect(300, &["SET another 1"]);
    assert_eq!(s.next(300 + SETTLED), None, "the script's own effect may be on its way");
    assert_eq!(s.next(300 + HOLD).map(|(who, _)| who), Some("Unknown".to_owned()));
    s.effect(6000, &["SET mine 1"]);
    assert_eq!(s.next(6000 + HOLD).map(|(who, _)| who), Some("x via eval".to_owned()));
}

#[test]
fn a_script_whose_reply_came_late_is_not_named_for_what_an_outsider_did() {
    let mut s = Scene::new();
    s.effect(100, &["SET elsewhere 1"]);
    assert_eq!(s.next(101), got("Outside", 100));
    let id = s.request("x", 200, &["EVAL s 1 mine its-argument"]);
    s.effect(300, &["SET mine 1"]);
    assert_eq!(s.next(300 + SETTLED), None, "the reply may be on its way");
    // The link was not read since: the script's own effect may be there already.
    s.reply(id, 400 + HOLD, Outcome::Ran);
    assert_eq!(s.next(300 + HOLD).map(|(who, _)| who), Some("Unknown".to_owned()));
    s.effect(6000, &["SET mine its-argument"]);
    assert_eq!(s.next(6000 + HOLD).map(|(who, _)| who), Some("x via eval".to_owned()));
}

#[test]
fn what_outsiders_do_does_not_use_up_scripts_that_cannot_be_told_apart() {
    let mut s = Scene::new();
    s.effect(100, &["SET elsewhere 1"]);
    assert_eq!(s.next(101), got("Outside", 100));
    for (who, line) in [("a", "EVAL s 1 ka from-a"), ("b", "EVAL s 1 kb from-b")] {
        let id = s.request(who, 200, &[line]);
        s.reply(id, 250, Outcome::Ran);
    }
    for n in 0..2 {
        s.effect(300, &[&format!("APPEND elsewhere {n}")]);
        assert_eq!(s.next(300 + WAIT_MAX).map(|(who, _)| who), Some("Unknown".to_owned()));
    }
    for (who, effect) in [("a via eval", "SET ka from-a"), ("b via eval", "SET kb from-b")] {
        s.effect(11_000, &[effect]);
        assert_eq!(s.next(11_000 + HOLD).map(|(who, _)| who), Some(who.to_owned()));
    }
}

#[test]
fn scripts_of_one_client_are_dated_one_by_one_only_if_each_had_an_effect() {
    for (effects, first) in [(3, (100, 0)), (2, (300, 200))] {
        let mut s = Scene::new();
        s.probe(50, 0, 0, 0);
        for at in [100, 200, 300] {
            let id = s.request("x", at, &["EVAL s 1 k x"]);
            s.reply(id, at + 10, Outcome::Ran);
        }
        // Read late, together.
        (0..effects).for_each(|n| s.effect(400, &[&format!("SET k {n}")]));
        let got = s.join.next(Micros(400 + SETTLED)).expect("the first");
        assert_eq!((got.origin.name.as_str(), got.ts.0, got.slack), ("x", first.0, first.1), "{effects} effects");
    }
}

#[test]
fn a_script_that_may_be_the_cause_does_not_take_the_effect_of_a_client_that_has_gone() {
    let mut s = Scene::new();
    let gone = s.request("gone", 100, &["SET foo bar"]);
    s.reply(gone, 1_000_101, Outcome::Gone);
    let script = s.request("b", 110, &["EVAL s 1 other x"]);
    s.reply(script, 150, Outcome::Ran);
    s.effect(200, &["SET foo bar"]);
    assert_eq!(s.next(200 + SETTLED).map(|(who, _)| who), Some("gone".to_owned()));
    s.effect(2500, &["SET other 1"]);
    assert_eq!(s.next(2500 + SETTLED).map(|(who, _)| who), Some("b via eval".to_owned()));
}

#[test]
fn a_clock_that_steps_back_makes_nobody_an_outsider() {
    let mut s = Scene::new();
    s.probe(100_000_000, 0, 0, 0);
    s.effect(100_000_050, &["SET z 1"]);
    assert_eq!(s.next(100_000_060), got("Outside", 100_000_050));
    s.effect(100_000_100, &["SET a 1"]);
    let after_step = s.offset();
    s.probe(50_000_000, after_step, 0, 0);
    assert_eq!(s.next(50_000_100).map(|(who, _)| who), Some("Unknown".to_owned()), "it ran before the step");
    let id = s.request("x", 50_000_200, &["SET k v"]);
    s.reply(id, 50_000_250, Outcome::Wrote);
    s.effect(50_000_300, &["SET k v"]);
    let judged = s.join.next(Micros(50_000_301)).expect("known");
    assert_eq!((judged.origin.name.as_str(), judged.ts.0), ("x", 100_000_050), "time never goes back");
}

#[test]
fn many_refused_attempts_do_not_hide_the_one_that_succeeded() {
    let mut s = Scene::new();
    for n in 0..3_000 {
        let id = s.request("loser", 100 + n, &[&format!("SET lock token-{n} NX PX 30000")]);
        s.reply(id, 101 + n, Outcome::Empty);
    }
    let id = s.request("winner", 4_000, &["SET lock mine NX PX 30000"]);
    s.reply(id, 4_010, Outcome::Wrote);
    s.effect(4_100, &["SET lock mine PXAT 99"]);
    assert_eq!(s.next(4_101), got("winner", 4_000));
    // With GET, nil may be the old value.
    for n in 0..3_000 {
        let id = s.request("reader", 5_000 + n, &[&format!("SET lock token-{n} GET PX 30000")]);
        s.reply(id, 5_001 + n, Outcome::Empty);
    }
    s.effect(8_100, &["SET lock another PXAT 99"]);
    let got = s.next(8_100 + WAIT_MAX).map(|(who, _)| who);
    assert_eq!(got, Some("Unknown".to_owned()), "not all could be looked at");
}

#[test]
fn modules_and_newer_commands_may_stand_in_the_stream_otherwise_than_they_were_sent() {
    let table = CommandTable::from_text("ts.add -4 write 1 1 1\nmsetnew -3 write 1 1 1\nset -3 write 1 1 1");
    let table = Arc::new(table);
    for (request, effect) in [("TS.ADD k * 5", "TS.ADD k 1700 5"), ("MSETNEW k 1 EX 5", "MSETNEW k 1 PXAT 99")] {
        let mut s = Scene::new();
        s.join = Join::new(table.clone(), true);
        s.join.stream_starts(Micros(1), ReplOffset(0));
        s.table = table.clone();
        let id = s.request("x", 100, &[request]);
        s.reply(id, 150, Outcome::Ran);
        s.effect(200, &[effect]);
        assert_eq!(s.next(200 + HOLD), got("x", 100), "{request}");
    }
}

#[test]
fn what_replies_say() {
    for (request, reply, want) in [
        ("xclaim", "*0", Outcome::Ran),
        ("migrate", "-IOERR broke", Outcome::Ran),
        ("xreadgroup", "*-1", Outcome::Ran),
        ("evalsha", "-NOSCRIPT No matching script", Outcome::NoEffect),
        ("eval", "-ERR in the middle", Outcome::Ran),
        ("set", "$-1", Outcome::Empty),
        ("set", "+OK", Outcome::Wrote),
        ("set", "$3", Outcome::Ran),
        ("spop", "~0", Outcome::Ran),
        ("spop", "$3", Outcome::Wrote),
        ("zincrby", "$1", Outcome::Ran),
        ("smove", ":1", Outcome::Ran),
        ("smove", ":0", Outcome::NoEffect),
        ("linsert", ":-1", Outcome::NoEffect),
        ("incr", ":7", Outcome::Number(7)),
        ("sadd", ":2", Outcome::Wrote),
        ("sadd", ":0", Outcome::NoEffect),
    ] {
        let reply = reply.as_bytes();
        assert_eq!(outcome_of(request.as_bytes(), reply[0], &reply[1..]), want, "{request} {}", reply.escape_ascii());
    }
}
