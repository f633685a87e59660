use redtape_journal::ReplOffset;

use super::*;

const PROBE: ConnRef = ConnRef { index: 5, generation: 50 };

fn client(n: usize) -> ClientRef {
    ClientRef { index: n, generation: n as u64 }
}

fn info(replid: &str, offset: u64) -> Vec<u8> {
    let text = format!("role:master\r\nmaster_replid:{replid}\r\nmaster_repl_offset:{offset}\r\n");
    format!("${}\r\n{text}\r\n", text.len()).into_bytes()
}

fn at(replid: &str, offset: u64) -> Arc<DurablePosition> {
    Arc::new(DurablePosition { replid: replid.into(), offset: ReplOffset(offset) })
}

fn answer(gate: &mut AckGate, bytes: &[u8], now: Instant) -> ProbeAction {
    gate.receive(bytes, now).1
}

fn connect(gate: &mut AckGate, replid: &str, now: Instant) -> ProbeAction {
    gate.opening(PROBE);
    gate.introduce(None, now);
    answer(gate, &info(replid, 1), now)
}

/// A gate whose probe is ready.
fn ready(now: Instant) -> AckGate {
    let mut gate = AckGate::new(now);
    let resumed = ProbeAction::Resume { other_history: false, blocked: Vec::new() };
    assert_eq!(connect(&mut gate, "one", now), resumed);
    gate
}

#[test]
fn a_write_is_forwarded_only_while_the_probe_is_ready() {
    let now = Instant::now();
    let mut gate = AckGate::new(now);
    assert!(!gate.wants_probe(true), "nobody waits for it");
    assert!(!gate.admits(client(1)) && !gate.admits(client(2)));
    assert!(gate.wants_probe(true) && !gate.wants_probe(false));
    assert_eq!((gate.missing(true), gate.missing(false)), (Missing::Open, Missing::NotFollowing));
    gate.opening(PROBE);
    assert!(!gate.wants_probe(true) && gate.missing(false) == Missing::No);
    gate.introduce(None, now);
    assert!(!gate.admits(client(3)));
    let blocked = vec![client(1), client(2), client(3)];
    assert_eq!(answer(&mut gate, &info("one", 1), now), ProbeAction::Resume { other_history: false, blocked });
    assert!(gate.admits(client(1)) && gate.take_blocked().is_empty());
}

#[test]
fn the_server_is_asked_once_a_turn_and_replies_go_when_its_offset_is_durable() {
    let now = Instant::now();
    let mut gate = ready(now);
    assert_eq!(gate.due(now), None, "nothing is withheld");
    assert_eq!(gate.covered(|| unreachable!("nothing waits")), None);
    let ticket = gate.hold(client(1), now);
    assert_eq!(gate.hold(client(1), now), ticket);
    gate.hold(client(2), now);
    assert_eq!(gate.waiting_change(), 2);
    assert_eq!((gate.due(now), gate.due(now)), (Some(PROBE), None));
    assert_eq!(gate.covered(|| at("one", 1000)), None, "not answered yet");
    assert_eq!(answer(&mut gate, &info("one", 100), now), ProbeAction::None);
    assert_eq!(gate.covered(|| at("one", 99)), None);
    assert_eq!(gate.covered(|| at("one", 100)), Some(ticket));
    assert_eq!(gate.next_covered(ticket), Some((client(1), now)));
    assert_eq!(gate.next_covered(ticket), Some((client(2), now)));
    assert_eq!(gate.next_covered(ticket), None);
    assert_eq!((gate.waiting_change(), gate.waiting_change()), (-2, 0));
}

#[test]
fn replies_of_a_later_turn_wait_for_their_own_offset() {
    let now = Instant::now();
    let mut gate = ready(now);
    let first = gate.hold(client(1), now);
    assert!(gate.due(now).is_some());
    gate.hold(client(2), now);
    answer(&mut gate, &info("one", 100), now);
    assert_eq!(gate.covered(|| at("one", 1000)), Some(first));
    assert!(gate.next_covered(first).is_some());
    assert_eq!(gate.next_covered(first), None, "nobody has said how far the server was by then");
}

/// When the journal fails its position stands still, and does not say so.
#[test]
fn replies_that_no_position_covers_are_late_and_not_given() {
    let now = Instant::now();
    let mut gate = ready(now);
    let ticket = gate.hold(client(1), now);
    gate.due(now);
    answer(&mut gate, &info("one", 100), now);
    let soon = now + ACK_TIMEOUT / 2;
    let second = gate.hold(client(2), soon);
    gate.due(soon);
    answer(&mut gate, &info("one", 200), soon);
    assert_eq!(gate.tick(now + (ACK_TIMEOUT * 9) / 10).late, []);
    assert_eq!(gate.tick(now + ACK_TIMEOUT).late, [client(1)]);
    assert_eq!(gate.next_covered(ticket), None, "it is not given later either");
    // The journal works again: a client that still waits gets its reply.
    assert_eq!(gate.covered(|| at("one", 200)), Some(second));
    assert_eq!(gate.next_covered(second), Some((client(2), soon)));
}

#[test]
fn a_lost_probe_takes_all_that_waits_with_it() {
    let now = Instant::now();
    let mut gate = ready(now);
    let ticket = gate.hold(client(1), now);
    gate.due(now);
    let loss = gate.probe_lost();
    assert_eq!(loss, ProbeLoss { conn: Some(PROBE), blocked: BlockedBy::Interruption(Vec::new()) });
    assert!(!gate.admits(client(2)), "what is forwarded now could not be acknowledged");
    let blocked = vec![client(2)];
    assert_eq!(connect(&mut gate, "one", now), ProbeAction::Resume { other_history: false, blocked });
    // What the old probe was asked the new one does not answer.
    assert_eq!(gate.covered(|| at("one", u64::MAX)), None);
    assert!(gate.hold(client(3), now) > ticket);
    gate.due(now);
    answer(&mut gate, &info("one", 7), now);
    let covered = gate.covered(|| at("one", 7)).expect("answered");
    assert_eq!(gate.next_covered(covered), Some((client(3), now)), "of the first nobody knows any more");
}

#[test]
fn a_probe_that_was_never_ready_fails_those_who_wait_and_says_so_once() {
    let now = Instant::now();
    let mut gate = AckGate::new(now);
    for is_news in [true, false] {
        assert!(!gate.admits(client(1)));
        gate.opening(PROBE);
        gate.introduce(None, now);
        let action = answer(&mut gate, b"-NOPERM no\r\n", now);
        assert_eq!(action, ProbeAction::Lose("the server refuses: NOPERM no".into()));
        let blocked = BlockedBy::Refusal { clients: vec![client(1)], is_news };
        assert_eq!(gate.probe_lost(), ProbeLoss { conn: Some(PROBE), blocked });
    }
    connect(&mut gate, "one", now);
    assert!(matches!(gate.probe_lost().blocked, BlockedBy::Interruption(_)));
    let refused = gate.probe_lost();
    assert!(matches!(refused.blocked, BlockedBy::Refusal { is_news: true, .. }), "it worked meanwhile: {refused:?}");
}

#[test]
fn another_history_at_the_same_address_is_reported() {
    let now = Instant::now();
    let mut gate = ready(now);
    gate.probe_lost();
    assert!(matches!(connect(&mut gate, "two", now), ProbeAction::Resume { other_history: true, .. }));
    gate.hold(client(1), now);
    gate.due(now);
    let changed = ProbeAction::Lose("the server's history has changed".into());
    assert_eq!(answer(&mut gate, &info("three", 1), now), changed);
}

#[test]
fn an_unsolicited_answer_ends_the_probe() {
    let now = Instant::now();
    let mut gate = ready(now);
    let lost = ProbeAction::Lose("an unsolicited answer".into());
    assert_eq!(answer(&mut gate, &info("one", 9), now), lost);
}

#[test]
fn an_idle_probe_is_used_and_a_silent_one_is_lost() {
    let now = Instant::now();
    let mut gate = ready(now);
    assert_eq!(gate.tick(now + KEEP_ALIVE / 2), GateTick::default());
    let asked = now + KEEP_ALIVE;
    assert_eq!(gate.tick(asked), GateTick { requests: 1, ..GateTick::default() });
    assert_eq!(gate.question(asked), Some(PROBE));
    assert_eq!(gate.tick(asked + ACK_TIMEOUT / 2), GateTick::default(), "one question at a time");
    assert_eq!(gate.tick(asked + ACK_TIMEOUT), GateTick { is_silent: true, ..GateTick::default() });
    // A server on which a script runs is not silent, and is asked again.
    assert_eq!(answer(&mut gate, b"-BUSY a script\r\n", asked + ACK_TIMEOUT), ProbeAction::None);
    assert_eq!(gate.tick(asked + ACK_TIMEOUT), GateTick { requests: 1, ..GateTick::default() });
}
