use super::*;
use crate::worker::session_writes::{Counts, Goal, ReplicaWait};

/// A table without sockets; whether a handshake is under way is all that is known of one.
type Table = ClientTable<bool>;

impl Handshake for bool {
    fn is_handshaking(&self) -> bool {
        *self
    }
}

const TIMEOUTS: Timeouts = Timeouts { handshake: Duration::from_secs(3), idle: None, draining: false };

fn table() -> Table {
    Table::with_memory(WorkerMemory::without_waker(Arc::new(ClientMemory::new(2)), 0))
}

fn add(table: &mut Table, session: u64, now: Instant) -> ClientRef {
    table.insert(Client::new(false, "127.0.0.1:1".to_owned(), session, Stage::Open, now))
}

/// As many requests are in flight.
fn ask(table: &mut Table, client: ClientRef, requests: usize) {
    let client = table.get_mut(client).expect("there");
    client.state.replies.forget();
    (0..requests).for_each(|_| client.state.ask_internally());
}

fn answered(table: &mut Table, client: ClientRef) -> AfterReplies {
    table.after_replies(client, false, 1 << 30)
}

fn wait(now: Instant, again_at: Instant) -> Box<ReplicaWait> {
    let goal = Goal { aof: false, wanted: Counts { local: 0, replicas: 1 } };
    Box::new(ReplicaWait {
        goal,
        until: None,
        shared_conns: smallvec::SmallVec::new(),
        on_pinned: false,
        least: None,
        said: Vec::new(),
        again_at,
        pause: again_at.saturating_duration_since(now),
    })
}

#[test]
fn a_client_is_queued_once() {
    let (mut table, now) = (table(), Instant::now());
    let (one, two) = (add(&mut table, 1, now), add(&mut table, 2, now));
    for client in [one, two, one] {
        table.queue(client);
    }
    assert_eq!((table.take_ready(), table.has_ready()), (vec![one, two], false));
    table[one.index].queued = false;
    table[one.index].waiting = true;
    assert!(!table[one.index].takes_requests());
    table.resume(one);
    assert!(table[one.index].takes_requests());
    assert_eq!(table.take_ready(), [one], "two is being served, and in the list no more than once");
}

#[test]
fn another_client_with_the_same_index_is_not_taken_for_the_one_that_is_gone() {
    let (mut table, now) = (table(), Instant::now());
    let old = add(&mut table, 1, now);
    assert!(table.remove(old.index).is_some() && table.remove(old.index).is_none() && table.is_empty());
    let new = add(&mut table, 2, now);
    assert_eq!(old.index, new.index);
    table.queue(old);
    table.resume(old);
    assert!(table.get(old).is_none() && table.get_mut(old).is_none() && !table.has_ready());
    assert_eq!((answered(&mut table, old), table.len()), (AfterReplies::Nothing, 1));
    assert_eq!(table.which(|client| client.generation == 2), [new.index]);
}

#[test]
fn a_waiting_request_continues_after_the_replies_in_flight() {
    let (mut table, now) = (table(), Instant::now());
    let client = add(&mut table, 1, now);
    for (on_shared, in_flight, goes_on) in
        [(true, 1, false), (true, 0, true), (false, 512, true), (false, 513, false), (false, 0, true)]
    {
        table[client.index].queued = false;
        (table[client.index].waiting, table[client.index].on_shared) = (true, on_shared);
        ask(&mut table, client, in_flight);
        assert_eq!(answered(&mut table, client), AfterReplies::Nothing);
        // By its own connection it has room for 1024 as long as the server has not admitted it.
        assert_eq!(table.take_ready() == [client], goes_on, "shared: {on_shared}, {in_flight} in flight");
        assert_eq!(table[client.index].waiting, !goes_on);
    }
}

#[test]
fn room_on_the_pinned_connection_resumes_only_its_users() {
    let (mut table, now) = (table(), Instant::now());
    let client = add(&mut table, 1, now);
    for (waiting, on_shared, goes_on) in [(true, true, false), (false, false, false), (true, false, true)] {
        (table[client.index].waiting, table[client.index].on_shared) = (waiting, on_shared);
        table.pinned_has_room(client);
        assert_eq!(table.take_ready() == [client], goes_on, "waiting: {waiting}, shared: {on_shared}");
    }
}

#[test]
fn a_half_closed_client_is_checked_when_all_is_answered() {
    let (mut table, now) = (table(), Instant::now());
    let client = add(&mut table, 1, now);
    (table[client.index].eof, table[client.index].on_shared) = (true, true);
    ask(&mut table, client, 1);
    answered(&mut table, client);
    assert!(!table.has_ready());
    ask(&mut table, client, 0);
    answered(&mut table, client);
    assert_eq!((table.take_ready(), table[client.index].on_shared), (vec![client], false));
}

#[test]
fn what_was_in_flight_when_its_pinned_connection_ended_is_answered_first() {
    let (mut table, now) = (table(), Instant::now());
    let client = add(&mut table, 1, now);
    table[client.index].stage = Stage::Ending { until: now + FINISH_MAX };
    ask(&mut table, client, 1);
    assert_eq!(answered(&mut table, client), AfterReplies::Nothing);
    ask(&mut table, client, 0);
    assert_eq!(answered(&mut table, client), AfterReplies::Finish);
}

#[test]
fn replies_that_are_not_read_pile_up_to_a_limit() {
    let (mut table, now) = (table(), Instant::now());
    let client = add(&mut table, 7, now);
    table[client.index].say(&vec![b'x'; 1 << 20]);
    assert_eq!(answered(&mut table, client), AfterReplies::Nothing);
    let limit = (1 << 20) - 1;
    let too_much = |limit| AfterReplies::TooMuchUnread { session: 7, limit };
    assert_eq!(table.after_replies(client, true, limit), too_much(limit));
    table[client.index].say(b"x");
    // Refusals of one that the server does not know are worth 1 MiB; a reply that has begun may be none.
    assert_eq!(answered(&mut table, client), too_much(1 << 20));
    assert_eq!(table.after_replies(client, true, 1 << 30), AfterReplies::Nothing);
}

#[test]
fn client_time_limits() {
    let (mut table, now) = (table(), Instant::now());
    let client = add(&mut table, 1, now);
    let later = now + Duration::from_mins(10);
    let mut closed = |at: Instant, timeouts: Timeouts, set: &dyn Fn(&mut Client<bool>)| {
        let mut one = Client::new(false, "127.0.0.1:1".to_owned(), 1, Stage::Open, now);
        set(&mut one);
        table[client.index] = one;
        !table.check(at, timeouts).close.is_empty()
    };
    let idle = Timeouts { idle: Some(Duration::from_mins(5)), ..TIMEOUTS };
    assert!(!closed(later, TIMEOUTS, &|_| {}), "an idle client may stay");
    assert!(closed(later, idle, &|_| {}));
    assert!(!closed(later, idle, &|c| c.state.ask_internally()), "the server works for it");
    assert!(!closed(later, idle, &|c| c.asking = true), "redtape works for it");
    let header = |c: &mut Client<bool>| c.stage = Stage::Header { tls: false };
    assert!(closed(now + TIMEOUTS.handshake, TIMEOUTS, &header) && !closed(now, TIMEOUTS, &header));
    assert!(closed(now + TIMEOUTS.handshake, TIMEOUTS, &|c| c.socket = true), "no handshake takes so long");
    let left = |c: &mut Client<bool>| (c.waiting, c.read_closed) = (true, true);
    assert!(closed(now + GONE_AFTER, TIMEOUTS, &left) && !closed(now + GONE_AFTER / 2, TIMEOUTS, &left));
    let finishing = |c: &mut Client<bool>| c.stage = Stage::Finishing { until: now + FINISH_MAX };
    assert!(closed(now + FINISH_MAX, TIMEOUTS, &finishing) && !closed(now, TIMEOUTS, &finishing));
    let draining = Timeouts { draining: true, ..TIMEOUTS };
    assert!(closed(now, draining, &|_| {}));
    assert!(!closed(now, draining, &|c| c.say(b"unsent")) && !closed(now, draining, &|c| c.asking = true));
}

#[test]
fn signs_of_life_are_rarer_with_more_sessions() {
    let (mut table, now) = (table(), Instant::now());
    for n in 0..2 * u64::from(KEEP_ALIVE_SESSIONS) {
        let client = add(&mut table, n, now);
        (table[client.index].behind, table[client.index].pinned) = (true, Some(1));
    }
    let (one, two) = (add(&mut table, 9999, now), add(&mut table, 9998, now));
    (table[one.index].behind, table[two.index].pinned) = (true, Some(1));
    // How many they are is known from the last look.
    assert_eq!(table.check(now, TIMEOUTS), ClientCheck::default());
    assert_eq!(table.check(now + KEEP_ALIVE * 2, TIMEOUTS).alive, Vec::<usize>::new());
    let alive = table.check(now + KEEP_ALIVE * 3, TIMEOUTS).alive;
    assert_eq!(alive.len(), 2000, "and nobody who has no connection of its own, or works there");
}

#[test]
fn replicas_are_counted_again_when_their_time_has_come() {
    let (mut table, now) = (table(), Instant::now());
    let at = |millis| now + Duration::from_millis(millis);
    let clients = [1, 2, 3, 4, 5].map(|n| add(&mut table, n, now));
    for (client, millis) in clients.into_iter().zip([10, 10, 30, 10, 10]) {
        table[client.index].replica_wait = Some(wait(now, at(millis)));
        table.count_later(client, at(millis));
    }
    table[clients[1].index].read_closed = true;
    table[clients[3].index].replica_wait = None;
    table.remove(clients[4].index);
    assert_eq!(table.next_count(), Some(at(10)));
    assert_eq!(table.due_counts(at(9)), []);
    assert_eq!(table.due_counts(at(10)), [(clients[0], Recount::Ask), (clients[1], Recount::Close)]);
    assert_eq!((table.next_count(), table.due_counts(at(10))), (Some(at(30)), vec![]));
    assert_eq!(table.due_counts(at(30)), [(clients[2], Recount::Ask)]);
    assert_eq!(table.next_count(), None);
}

#[test]
fn the_largest_client_is_disconnected_over_the_memory_limit() {
    let memory = Arc::new(ClientMemory::new(2));
    let mut here = Table::with_memory(WorkerMemory::without_waker(memory.clone(), 0));
    let mut elsewhere = Table::with_memory(WorkerMemory::without_waker(memory, 1));
    let now = Instant::now();
    let (small, large) = (add(&mut here, 1, now), add(&mut here, 2, now));
    here.account(small.index, 100);
    here.account(large.index, 5000);
    assert_eq!(here.check_memory(Some(5100)), OverMemory::No);
    assert_eq!((here.check_memory(Some(5099)), here.total_memory()), (OverMemory::Here, 5100));
    assert_eq!(here.check_memory(None), OverMemory::No, "no limit is set");
    assert_eq!(here.largest(), [(5000, large.index), (100, small.index)]);
    let other = add(&mut elsewhere, 3, now);
    elsewhere.account(other.index, 50_000);
    assert_eq!(elsewhere.check_memory(Some(5000)), OverMemory::Here);
    assert_eq!(here.check_memory(Some(5000)), OverMemory::Elsewhere(1));
    elsewhere.remove(other.index);
    assert_eq!((elsewhere.check_memory(Some(5000)), here.total_memory()), (OverMemory::Elsewhere(0), 5100));
    here.remove(large.index);
    assert_eq!((here.check_memory(Some(5000)), here.total_memory()), (OverMemory::No, 100));
}
