use redtape_capture::tee::{Tee, TeeMessage};
use redtape_wire::resp::ReplyScanner;

use super::answers::CORRECTED_MAX;
use super::transactions::AT_EXEC_MAX;
use super::*;

struct Scene {
    state: SessionState,
    tee: Arc<Tee>,
    sender: TeeSender,
    table: CommandTable,
}

impl Scene {
    fn new() -> Self {
        let tee = Arc::new(Tee::default());
        Self {
            state: SessionState::new(1, "1.2.3.4:5".to_owned()),
            sender: tee.sender(),
            tee,
            table: CommandTable::builtin(),
        }
    }

    fn ask(&mut self, line: &str) {
        let argc = line.split(' ').count();
        self.ask_in_part(line, argc);
    }

    /// Of so many arguments, only these are here.
    fn ask_in_part(&mut self, line: &str, argc: usize) {
        let args: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        let ask = self.state.classify(&self.table, &args, argc);
        self.state.forward(ask, &args, argc, &mut self.sender, Micros(1));
    }

    fn answer(&mut self, bytes: &[u8]) {
        let mut scanner = ReplyScanner::new();
        let mut used = 0;
        while used < bytes.len() {
            let (n, frame) = scanner.scan(&bytes[used..]).expect("sound");
            used += n;
            if let Some(frame) = frame {
                self.state.reply(&frame, &mut self.sender, Micros(2));
            }
        }
    }

    fn said(&mut self) -> Vec<String> {
        fn user(who: &Identity) -> &str {
            if who.in_doubt { "nobody" } else { &who.user }
        }
        self.sender.flush();
        let mut said = Vec::new();
        self.tee.drain(|m| {
            said.push(match m {
                TeeMessage::Stamp(s) => {
                    let part = |p: &Part| format!("{}:{:?}", p.db, p.name);
                    let parts: Vec<_> = s.parts.iter().map(part).collect();
                    format!("{} {} {}", parts.join(","), user(&s.who), s.who.name)
                }
                TeeMessage::Replied {
                    outcome: Outcome::Number(_) | Outcome::Wrote | Outcome::Empty, count, ..
                } => vec!["Ran"; count as usize].join(" "),
                TeeMessage::Replied { outcome, count, .. } => vec![format!("{outcome:?}"); count as usize].join(" "),
                TeeMessage::Correct { who, db, count, .. } => format!("{count} by {} {db}", user(&who)),
            });
        });
        said
    }
}

#[test]
fn identity_and_database_follow_what_the_server_agreed_to() {
    let mut s = Scene::new();
    s.ask("AUTH ann bad");
    s.ask("SELECT 99");
    s.ask("SET k v");
    s.answer(b"-WRONGPASS x\r\n-ERR range\r\n+OK\r\n");
    assert_eq!(s.said(), ["99:set nobody ", "1 by default 0", "Ran"]);
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
    s.ask("MULTI");
    s.answer(b"+OK\r\n");
    for line in ["SET a 1", "SELECT 4", "GET a", "DEL b", "EXEC"] {
        s.ask(line);
    }
    s.answer(b"+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n*4\r\n+OK\r\n+OK\r\n$-1\r\n:0\r\n");
    assert_eq!(s.said(), ["0:set,4:del nobody ", "1 by default 0", "Ran"]);
    s.ask("INCR n");
    assert_eq!(s.said(), ["4:incr default "]);
    s.answer(b":1\r\n");
    s.ask("MULTI");
    s.answer(b"+OK\r\n");
    for line in ["SELECT 5", "SET a 1", "EXEC"] {
        s.ask(line);
    }
    s.answer(b"+QUEUED\r\n+QUEUED\r\n*-1\r\n");
    assert_eq!(s.said(), ["Ran", "5:set nobody ", "1 by default 4", "NoEffect"]);
    assert!(s.state.is_idle());
    s.ask("INCR n");
    assert_eq!(s.said(), ["4:incr default "]);
}

#[test]
fn what_is_queued_before_multi_is_answered_is_stamped_for_itself_too() {
    let mut s = admitted();
    for line in ["MULTI", "SET a 1", "SELECT 4", "DEL b", "GET a", "EXEC"] {
        s.ask(line);
    }
    assert_eq!(s.said(), ["0:set default ", "4:del nobody ", "0:set,4:del nobody "]);
    // The server has queued them: alone they have no effect.
    s.answer(b"+OK\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n*4\r\n+OK\r\n+OK\r\n:0\r\n$-1\r\n");
    assert_eq!(s.said(), ["NoEffect", "2 by default 0", "NoEffect", "Ran"]);
    for line in ["MULTI", "SET a 1", "INCR n", "EXEC"] {
        s.ask(line);
    }
    assert_eq!(s.said(), ["4:set default ", "4:incr default ", "4:set,4:incr default "]);
    // It has refused MULTI: they ran, each by itself.
    s.answer(b"-NOPERM\r\n+OK\r\n:1\r\n-NOPERM\r\n");
    assert_eq!(s.said(), ["Ran", "Ran", "NoEffect"]);
}

#[test]
fn writes_may_be_without_a_stamp_once_a_session_may_block_unseen() {
    let mut s = admitted();
    s.ask("BLPOP k 0");
    assert_eq!(s.tee.unstamped_until(), None, "its reply will tell");
    s.answer(b"*-1\r\n");
    s.ask("CLIENT REPLY SKIP");
    s.ask("SET k v");
    assert_eq!(s.tee.unstamped_until(), None, "it runs at once");
    s.ask("CLIENT REPLY SKIP");
    s.ask("BLPOP k 0");
    assert_eq!(s.tee.unstamped_until(), Some(Micros(i64::MAX)));
    let tee = Arc::clone(&s.tee);
    let before = Micros::now();
    drop(s);
    assert!(tee.unstamped_until().is_some_and(|until| until >= before && until <= Micros::now()));
}

#[test]
fn after_a_pipelined_change_stamps_have_no_user_until_the_reply() {
    let mut s = Scene::new();
    s.ask("SELECT 2");
    s.ask("AUTH root guess");
    s.ask("SET k v");
    assert_eq!(s.said(), ["2:set nobody "]);
    s.answer(b"+OK\r\n-WRONGPASS\r\n+OK\r\n");
    assert_eq!(s.said(), ["1 by default 2", "Ran"]);
    s.ask("SET k v");
    assert_eq!(s.said(), ["2:set default "]);
}

#[test]
fn each_reply_names_whose_the_stamps_up_to_the_next_change_are() {
    let mut s = admitted();
    for line in ["SET a 1", "AUTH ann x", "SET a 2", "INCR n", "SELECT 3", "SET a 3", "CLIENT SETNAME app", "SET a 4"] {
        s.ask(line);
    }
    let sets = ["0:set default ", "0:set nobody ", "0:incr nobody ", "3:set nobody ", "3:set nobody "];
    assert_eq!(s.said(), sets);
    s.answer(b"+OK\r\n+OK\r\n+OK\r\n:1\r\n-ERR range\r\n+OK\r\n+OK\r\n+OK\r\n");
    assert_eq!(s.said(), ["Ran", "2 by ann 0", "Ran", "Ran", "1 by ann 0", "Ran", "1 by ann 0", "Ran"]);
    s.ask("SET a 5");
    assert_eq!(s.said(), ["0:set ann app"]);
}

/// Who it is would have been said by an answer that nobody saw.
#[test]
fn a_session_of_unknown_identity_is_not_named() {
    for (asks, answers) in [
        (&["AUTH root guess"][..], ""),
        (&["HELLO 3 AUTH root guess"], ""),
        (&["RESET"], ""),
        (&["SELECT 9"], ""),
        (&["CLIENT REPLY OFF", "AUTH root guess"], ""),
        (&["CLIENT REPLY SKIP", "HELLO 3 AUTH root guess"], ""),
        (&["CLIENT REPLY OFF", "MULTI", "AUTH root guess", "EXEC"], ""),
        (&["CLIENT REPLY OFF", "SELECT 3"], ""),
        (&["MULTI", "AUTH root guess", "EXEC"], "+OK\r\n+QUEUED\r\n*1\r\n+OK\r\n"),
        (&["MONITOR", "AUTH root guess"], "+OK\r\n"),
        (&["AUTH\0x root guess"], "+OK\r\n"),
        (&["\0 x"], "-ERR unknown command\r\n"),
        (&["CLIENT REPLY\0x off"], ""),
    ] {
        let mut s = after(asks, answers);
        s.said();
        s.ask("SET k v");
        s.state.close(&mut s.sender, Micros(3));
        let said = s.said();
        assert!(said[0].contains(":set nobody") && said.len() == 2, "{asks:?}: {said:?}");
        assert!(!s.state.is_multiplexable() && s.state.user() != Some("root"), "{asks:?}");
    }
    // The answer to the next AUTH says it.
    let mut s = after(&["HELLO 3 AUTH root guess SETNAME \t", "AUTH ann x"], "-ERR Client names\r\n+OK\r\n");
    s.ask("SET k v");
    assert_eq!(s.said(), ["0:set ann "]);
}

/// What decides is not here, or a name may be another command's.
#[test]
fn after_an_unknown_request_nothing_is_tracked() {
    for (line, argc) in [
        ("HELLO 3 SETNAME", 7),
        ("HELLO 3", 7),
        ("HELLO", 2),
        ("AUTH bob", 3),
        ("AUTH", 3),
        ("CLIENT", 3),
        ("CLIENT REPLY", 3),
        ("ACL", 3),
        ("SCRIPT", 3),
        ("GET\0 k", 2),
        ("REDTAPE.MARK\0 x", 2),
    ] {
        let mut s = admitted();
        s.ask_in_part(line, argc);
        assert!(
            s.state.replies.is_desynced() && !s.state.is_multiplexable() && s.state.user().is_none(),
            "{line:?} of {argc}"
        );
    }
    for (line, argc) in
        [("SET k", 3), ("SCRIPT LOAD", 3), ("CLIENT LIST ID 5", 99), ("HELLO 3", 2), ("ACL SETUSER x", 9)]
    {
        let mut s = admitted();
        s.ask_in_part(line, argc);
        assert!(!s.state.replies.is_desynced() && s.state.user().is_some(), "{line:?} of {argc}");
    }
}

/// Where `CLIENT REPLY SKIP` may have been said, an empty request uses it up.
#[test]
fn an_empty_request_is_forwarded_when_nothing_is_tracked() {
    for (line, passed_on) in [("GET k", false), ("CLIENT REPLY SKIP", true), ("CLIENT REPLY\0x SKIP", true)] {
        let mut s = admitted();
        s.ask(line);
        assert_eq!(s.state.nothing_asked(), passed_on, "{line:?}");
    }
}

#[test]
fn a_name_that_may_be_exec_runs_the_transaction_that_is_queued() {
    let mut s = after(&["MULTI"], "+OK\r\n");
    s.ask("SET a 1");
    s.answer(b"+QUEUED\r\n");
    let args: [&[u8]; 1] = [b"EXEC\0"];
    let ask = s.state.classify(&s.table, &args, 1);
    assert!(ask.is_unclear() && s.state.writes(&ask));
    s.ask("EXEC\0");
    assert_eq!(s.said(), ["0:set,0:exec\0 nobody ", "Gone"]);
}

#[test]
fn silenced_replies_do_not_shift_the_others() {
    let mut s = Scene::new();
    s.ask("GET k");
    s.answer(b"$-1\r\n");
    s.ask("CLIENT REPLY SKIP");
    s.ask("SET a 1");
    s.ask("SADD k v");
    s.answer(b":0\r\n");
    assert_eq!(s.said(), ["0:set default ", "Gone", "0:sadd default ", "NoEffect"]);
    s.ask("CLIENT REPLY OFF");
    s.ask("SET a 1");
    assert_eq!(s.said(), ["0:set default ", "Gone"]);
    s.ask("CLIENT REPLY ON");
    s.ask("SREM k v");
    s.answer(b"+OK\r\n:1\r\n");
    assert_eq!(s.said(), ["0:srem default ", "Ran"]);
    assert!(s.state.is_idle());
}

#[test]
fn only_a_session_without_pin_reasons_is_multiplexable() {
    let mut s = Scene::new();
    assert!(!s.state.is_multiplexable(), "the server has not said yet whether it needs a password");
    s.ask("GET k");
    s.answer(b"-NOAUTH Authentication required.\r\n");
    assert!(!s.state.is_multiplexable() && s.state.user().is_none());
    s.ask("GET k");
    assert!(!s.state.is_multiplexable(), "under way");
    s.answer(b"$-1\r\n");
    assert!(s.state.is_multiplexable());
    for (bind, answer, part, answer2) in [
        ("MULTI", "+OK", "DISCARD", "+OK"),
        ("MULTI", "+OK", "EXEC", "*0"),
        ("WATCH k", "+OK", "UNWATCH", "+OK"),
        (
            "SUBSCRIBE c",
            "*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1",
            "UNSUBSCRIBE",
            "*3\r\n$11\r\nunsubscribe\r\n$1\r\nc\r\n:0",
        ),
        ("CLIENT TRACKING on", "+OK", "CLIENT TRACKING off", "+OK"),
        ("CLIENT NO-EVICT on", "+OK", "CLIENT NO-EVICT off", "+OK"),
        ("ASKING", "+OK", "GET k", "$-1"),
        ("CLIENT KILL ID 7", ":1", "GET k", "$-1"),
        ("CLIENT TRACKING on", "+OK", "RESET", "+RESET"),
    ] {
        s.ask(bind);
        s.answer(format!("{answer}\r\n").as_bytes());
        assert!(!s.state.is_multiplexable(), "{bind}");
        s.ask(part);
        s.answer(format!("{answer2}\r\n").as_bytes());
        s.ask("GET k");
        s.answer(b"$-1\r\n");
        assert!(s.state.is_multiplexable(), "{bind}, {part}");
    }
    s.ask("NO.SUCH x");
    s.answer(b"-ERR unknown command\r\n");
    assert!(s.state.is_multiplexable());
    s.ask("NEW.MODULE x");
    s.answer(b"+OK\r\n");
    assert!(!s.state.is_multiplexable(), "who knows what it did");
}

fn admitted() -> Scene {
    let mut s = Scene::new();
    s.ask("GET k");
    s.answer(b"$-1\r\n");
    s
}

/// Asks all in one go; then the answers come.
fn after(asks: &[&str], answers: &str) -> Scene {
    let mut s = admitted();
    for line in asks {
        s.ask(line);
    }
    s.answer(answers.as_bytes());
    s
}

#[test]
fn an_unseen_answer_leaves_the_identity_unknown() {
    for (asks, answers) in [
        (&["CLIENT REPLY SKIP", "AUTH root guess", "PING"][..], "+PONG\r\n"),
        (&["CLIENT REPLY OFF", "AUTH root guess", "CLIENT REPLY ON"], "+OK\r\n"),
        (&["MULTI", "AUTH root guess", "EXEC"], "+OK\r\n+QUEUED\r\n*1\r\n-WRONGPASS\r\n"),
        (&["HELLO 3 AUTH root guess SETNAME \t"], "-ERR Client names cannot contain spaces\r\n"),
        (&["CLIENT REPLY SKIP", "PING", "GET k"], "-NOPERM\r\n+PONG\r\n$-1\r\n"),
    ] {
        let mut s = after(asks, answers);
        s.ask("GET k");
        s.answer(b"$-1\r\n");
        let state = &s.state;
        assert!(!state.is_multiplexable() && state.user() != Some("root") && state.context().2.is_none(), "{asks:?}");
    }
    let mut s = Scene::new();
    s.ask("CLIENT REPLY SKIP");
    s.ask("GET k");
    s.ask("PING");
    s.answer(b"-NOAUTH\r\n-NOAUTH\r\n-NOAUTH\r\n");
    assert!(!s.state.is_multiplexable() && s.state.user().is_none());
}

#[test]
fn the_next_reply_covers_unanswered_writes() {
    for (asks, answers, tells) in [
        (&["CLIENT REPLY OFF", "SET k v", "CLIENT REPLY ON"][..], &["+OK\r\n"][..], &[true][..]),
        (&["CLIENT REPLY SKIP", "SET k v", "PING", "PING"], &["+PONG\r\n", "+PONG\r\n"], &[true, false]),
        // One that was asked for before tells nothing of it.
        (&["PING", "CLIENT REPLY SKIP", "SET k v", "PING"], &["+PONG\r\n", "+PONG\r\n"], &[false, true]),
        (&["CLIENT REPLY SKIP", "GET k", "PING"], &["+PONG\r\n"], &[false]),
    ] {
        let mut s = admitted();
        for line in asks {
            s.ask(line);
        }
        assert_eq!(s.state.has_write_under_way(), tells.contains(&true), "{asks:?}");
        for (answer, tells) in answers.iter().zip(tells) {
            s.answer(answer.as_bytes());
            assert_eq!(s.state.take_acknowledged(), *tells, "{asks:?}, {answer:?}");
        }
        assert!(!s.state.has_write_under_way(), "{asks:?}");
    }
}

#[test]
fn unanswered_writes_are_kept_when_desynced() {
    let s = after(&["CLIENT REPLY OFF", "SET k v", "SELECT 1", "CLIENT REPLY ON"], "");
    assert!(s.state.replies.is_desynced() && s.state.has_write_under_way() && s.state.may_acknowledge(true));
}

#[test]
fn what_runs_by_itself_behind_a_refused_multi_counts() {
    let mut s = after(&["MULTI", "HELLO 3", "WATCH k"], "-NOPERM\r\n%1\r\n$5\r\nproto\r\n:3\r\n+OK\r\n");
    assert!(s.state.context().1 && !s.state.is_multiplexable(), "it speaks RESP3, and watches");
    s.ask("UNWATCH");
    s.answer(b"+OK\r\n");
    assert!(s.state.is_multiplexable());
}

#[test]
fn a_transaction_that_cannot_be_discarded_continues() {
    for (answer, free) in [("+OK\r\n", true), ("-NOPERM\r\n", false)] {
        let mut s = admitted();
        s.ask("MULTI");
        s.answer(b"+OK\r\n");
        s.state.discard_internally();
        s.answer(answer.as_bytes());
        assert_eq!(s.state.is_multiplexable(), free, "{answer}");
    }
}

#[test]
fn session_buffers_are_limited() {
    let mut s = admitted();
    s.ask("MULTI");
    for _ in 0..AT_EXEC_MAX {
        s.ask("MULTI");
        s.ask("NO.SUCH");
        s.ask("SELECT 1");
    }
    assert!(s.state.transactions.queueing().is_some_and(|t| t.at_exec.len() <= AT_EXEC_MAX + 1));
    // Each refusal would look at all that are under way behind it.
    let mut s = admitted();
    for _ in 0..=CORRECTED_MAX {
        s.ask("SELECT 99");
    }
    s.ask("GET k");
    s.answer(b"-ERR range\r\n");
    assert!(s.state.replies.is_desynced());
}

#[test]
fn after_quit_the_session_stays_pinned() {
    for (asks, answers, leaves) in [
        (&["QUIT"][..], "+OK\r\n", true),
        (&["RESET", "QUIT"], "+RESET\r\n+OK\r\n", true),
        (&["MULTI", "QUIT"], "+OK\r\n+OK\r\n", true),
        (&["QUIT", "GET k"], "-NOPERM\r\n$-1\r\n", false),
    ] {
        let mut s = admitted();
        for line in asks {
            s.ask(line);
        }
        assert!(!s.state.may_use_admin_commands() && s.state.is_leaving(), "{asks:?}, not answered");
        s.answer(answers.as_bytes());
        assert_eq!((s.state.is_multiplexable(), s.state.may_use_admin_commands()), (!leaves, !leaves), "{asks:?}");
        assert_eq!(s.state.is_leaving(), leaves, "{asks:?}");
    }
}

#[test]
fn pin_reasons_after_a_release_stay() {
    for (asks, answers) in [
        (["RESET", "CLIENT TRACKING on"], "+RESET\r\n+OK\r\n"),
        (["CLIENT TRACKING off", "CLIENT TRACKING on BCAST"], "+OK\r\n+OK\r\n"),
        (["UNWATCH", "WATCH k"], "+OK\r\n+OK\r\n"),
        (["CLIENT CAPA redirect", "NO.SUCH"], "+OK\r\n-ERR unknown command\r\n"),
    ] {
        let mut s = after(&asks, answers);
        s.ask("GET k");
        s.answer(b"$-1\r\n");
        assert!(!s.state.is_multiplexable(), "{asks:?}");
    }
}

#[test]
fn behind_a_refused_multi_requests_run_by_themselves() {
    let mut s = after(&["MULTI", "SELECT 5", "EXEC"], "-NOPERM\r\n+OK\r\n-ERR EXEC without MULTI\r\n");
    s.said();
    assert_eq!(s.state.context().0, 5);
}

/// What is asked in one go, what the server answers, and whether a transaction is being queued then.
#[test]
fn a_refused_multi_leaves_other_transactions_alone() {
    let refused = "-ERR Can't execute 'multi'\r\n";
    for (asks, answers, queues) in [
        (&["MULTI", "GET k"][..], format!("{refused}$-1\r\n"), false),
        (&["MULTI", "EXEC", "MULTI"], format!("{refused}-ERR EXEC without MULTI\r\n+OK\r\n"), true),
        (&["MULTI", "DISCARD"], format!("{refused}-ERR DISCARD without MULTI\r\n"), false),
        (&["MULTI", "DISCARD", "MULTI"], format!("{refused}-ERR DISCARD without MULTI\r\n+OK\r\n"), true),
        // Subscribed in RESP2, which a RESET or the last UNSUBSCRIBE ends.
        (&["MULTI", "RESET", "MULTI"], format!("{refused}+RESET\r\n+OK\r\n"), true),
        (&["MULTI", "RESET", "MULTI", "RESET"], format!("{refused}+RESET\r\n+OK\r\n+RESET\r\n"), false),
        (&["MULTI", "GET k", "MULTI", "GET k"], format!("{refused}{refused}+OK\r\n+QUEUED\r\n"), true),
        (&["MULTI", "MULTI", "GET k"], format!("{refused}{refused}$-1\r\n"), false),
        (&["MULTI", "MULTI", "GET k"], "+OK\r\n-ERR nested\r\n+QUEUED\r\n".to_owned(), true),
        (&["MULTI", "DISCARD", "GET k"], "+OK\r\n-NOPERM\r\n+QUEUED\r\n".to_owned(), true),
        (&["MULTI", "DISCARD", "EXEC"], "+OK\r\n-NOPERM\r\n-EXECABORT\r\n".to_owned(), false),
        (&["MULTI", "EXEC", "MULTI", "MULTI"], format!("{refused}-ERR EXEC without\r\n+OK\r\n{refused}"), true),
        // Older servers do not know RESET, or need a right for it; some leave the transaction on when they refuse EXEC.
        (&["MULTI", "RESET"], "+OK\r\n-ERR unknown command\r\n".to_owned(), true),
        (&["MULTI", "RESET", "EXEC"], "+OK\r\n-NOPERM\r\n-EXECABORT\r\n".to_owned(), false),
        (&["MULTI", "EXEC x"], "+OK\r\n-ERR wrong number of arguments\r\n".to_owned(), true),
    ] {
        let mut s = after(asks, &answers);
        assert_eq!(s.state.is_idle(), !queues, "{asks:?} {answers}");
        // A MULTI of which the answer came before the next was asked.
        s.ask("MULTI");
        s.answer(if queues { b"-ERR nested\r\n" } else { b"+OK\r\n" });
        assert!(!s.state.is_idle(), "{asks:?} {answers}, then MULTI");
        s.ask("EXEC");
        s.answer(b"*0\r\n");
        assert!(s.state.is_multiplexable(), "{asks:?} {answers}, then MULTI and EXEC");
    }
}

#[test]
fn behind_silence_in_a_transaction_no_reply_is_waited_for() {
    for (asks, answers) in [
        (&["MULTI", "GET k", "CLIENT REPLY OFF", "EXEC"][..], "+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n$-1\r\n"),
        (&["MULTI", "CLIENT REPLY SKIP", "EXEC"], "+OK\r\n+QUEUED\r\n*1\r\n"),
        // Runs by itself.
        (&["MULTI", "CLIENT REPLY OFF", "GET k", "COMMAND"], "-NOPERM\r\n"),
        (&["MULTI", "MONITOR", "GET k"], "-NOPERM\r\n+OK\r\n$-1\r\n"),
        (&["MULTI", "CLIENT REPLY OFF", "MULTI", "DISCARD", "CLIENT REPLY ON"], "-NOPERM\r\n+OK\r\n"),
    ] {
        let mut s = after(asks, answers);
        s.ask("COMMAND");
        assert!(s.state.replies.is_desynced(), "{asks:?}");
        assert!(!s.state.changes_a_reply() && !s.state.is_multiplexable(), "{asks:?}");
    }
}

#[test]
fn watched_keys_are_released_by_a_transaction_only() {
    for (multi, exec, watched) in [
        ("+OK", "*0", false),
        ("+OK", "*-1", false),
        ("+OK", "-EXECABORT x", false),
        ("+OK", "-MOVED 1 a:1", false),
        ("+OK", "-ERR x", true),
        ("-NOPERM", "-ERR EXEC without MULTI", true),
        ("-NOPERM", "-EXECABORT x", false),
    ] {
        let s = after(&["WATCH k", "MULTI", "EXEC"], &format!("+OK\r\n{multi}\r\n{exec}\r\n"));
        assert_eq!(s.state.is_multiplexable(), !watched, "{multi} {exec}");
    }
}

#[test]
fn keys_watched_after_a_refused_discard_stay_watched() {
    let mut s = after(&["MULTI", "EXEC", "DISCARD"], "+OK\r\n-ERR x\r\n+OK\r\n");
    for (ask, answer) in [("WATCH k", "+OK"), ("EXEC", "-ERR EXEC without MULTI")] {
        s.ask(ask);
        s.answer(format!("{answer}\r\n").as_bytes());
    }
    assert!(!s.state.is_multiplexable());
}

#[test]
fn what_is_shared() {
    let s = Scene::new();
    let shared = |line: &str| {
        let args: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        s.state.classify(&s.table, &args, args.len()).shareable
    };
    for line in ["GET k", "set k v", "XREAD STREAMS s 0", "PUBLISH c m", "FLUSHALL", "PING", "SORT l", "SCAN 0"] {
        assert!(shared(line), "{line}");
    }
    for line in [
        "BLPOP k 0",
        "EVAL x 0",
        "FCALL_RO f 0",
        "XREAD BLOCK 0 STREAMS s $",
        "XREAD block\0 0 STREAMS s $",
        "XREADGROUP GROUP g c BLOCK\0x 0 STREAMS s >",
        "GET\0 k",
        "WAIT 1 0",
        "SELECT 1",
        "AUTH x",
        "HELLO 3",
        "CLIENT ID",
        "MULTI",
        "EXEC",
        "WATCH k",
        "SUBSCRIBE c",
        "MONITOR",
        "CONFIG GET x",
        "DEBUG SLEEP 1",
        "SCRIPT KILL",
        "SHUTDOWN",
        "INFO",
        "NOSUCH",
        "ASKING",
        "QUIT",
        "RESET",
        "ACL WHOAMI",
        "CLUSTER MYID",
        "PSYNC ? -1",
        "BGSAVE",
        "COMMAND",
        "MIGRATE a b c d e",
    ] {
        assert!(!shared(line), "{line}");
    }
}

#[test]
fn a_client_stays_whatever_it_holds_only_when_the_server_says_so() {
    let mut s = Scene::new();
    s.ask("CLIENT NO-EVICT ON");
    assert!(!s.state.is_not_evicted());
    s.answer(b"-NOAUTH Authentication required.\r\n");
    assert!(!s.state.is_not_evicted(), "refused");
    s.ask("CLIENT NO-EVICT ON");
    s.answer(b"+OK\r\n");
    assert!(s.state.is_not_evicted());
    s.ask("CLIENT NO-EVICT OFF");
    assert!(s.state.is_not_evicted());
    s.answer(b"+OK\r\n");
    assert!(!s.state.is_not_evicted());
    s.ask("MULTI");
    s.ask("CLIENT NO-EVICT ON");
    s.ask("EXEC");
    s.answer(b"+OK\r\n+QUEUED\r\n*1\r\n+OK\r\n");
    assert!(s.state.is_not_evicted());
    s.ask("RESET");
    s.answer(b"+RESET\r\n");
    assert!(!s.state.is_not_evicted());
}

#[test]
fn what_is_kept_of_requests_is_counted_until_they_are_answered() {
    let mut s = Scene::new();
    let idle = s.state.buffered();
    let text = "x".repeat(10_000);
    for request in
        [format!("AUTH bob {text}"), format!("HELLO 3 AUTH bob pw SETNAME {text}"), format!("CLIENT SETNAME {text}")]
    {
        s.ask(&request);
        assert!((idle + 10_000..idle + 12_000).contains(&s.state.buffered()), "{}", s.state.buffered());
        s.answer(b"-ERR no\r\n");
        assert!(s.state.buffered() < idle + 2000, "{}", s.state.buffered());
    }
    // What is queued counts from when it is asked for until EXEC is answered.
    s.ask("MULTI");
    s.ask(&format!("AUTH bob {text}"));
    s.answer(b"+OK\r\n+QUEUED\r\n");
    assert!(s.state.buffered() > 10_000);
    s.ask("EXEC");
    assert!(s.state.buffered() > 10_000);
    s.answer(b"*1\r\n+OK\r\n");
    assert!(s.state.buffered() < 2000, "{}", s.state.buffered());
    // A long pipeline leaves no room behind.
    for _ in 0..10_000 {
        s.ask("GET k");
    }
    assert!(s.state.buffered() > 100_000);
    s.answer(&b"$-1\r\n".repeat(10_000));
    assert_eq!(s.state.buffered(), idle);
}

#[test]
fn only_a_client_that_was_admitted_adds_to_the_names_that_are_known() {
    let mut s = Scene::new();
    s.ask("NEVER.MET.BEFORE.1 x");
    s.answer(b"-NOAUTH Authentication required.\r\n");
    assert_eq!(CommandId::known(b"never.met.before.1"), CommandId::OTHER);
    s.ask("PING");
    s.answer(b"+PONG\r\n");
    s.ask("NEVER.MET.BEFORE.1 x");
    assert_ne!(CommandId::known(b"never.met.before.1"), CommandId::OTHER);
}
