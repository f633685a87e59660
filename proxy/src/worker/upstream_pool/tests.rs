use std::sync::Arc;
use std::time::Duration;

use redtape_wire::url::Secret;

use super::progress::{PAUSED_TICKS, STALLED_TICKS};
use super::shared_conns::SHARED_IDLE;
use super::upkeep::Stalls;
use super::upstream_conn::STALLED_AFTER;
use super::*;
use crate::worker::clock::TICK;
use crate::worker::refs::ClientRef;

/// A pool without sockets.
type Pool = UpstreamPool<()>;

const HELLO: &[u8] = b"%1\r\n$7\r\nversion\r\n$5\r\n7.4.0\r\n";

fn key(writes: bool) -> SharedKey {
    let credential = Credential { user: b"ann".to_vec(), password: Some(Secret::new("pw")) };
    SharedKey { credential: Some(Arc::new(credential)), db: 0, resp3: false, writes }
}

fn client(n: usize) -> ClientRef {
    ClientRef { index: n, generation: n as u64 }
}

fn connecting(now: Instant) -> Stage {
    Stage::Connecting { attempt: 2, until: now + Duration::from_secs(1) }
}

/// Opens a shared connection; the server has not let it in.
fn open(pool: &mut Pool, writes: bool, now: Instant) -> ConnRef {
    let conn = pool.insert((), Role::Shared(key(writes)), connecting(now), now);
    assert_eq!(pool.connected(conn.index, now), Some(2));
    conn
}

/// The same, and the server has.
fn ready(pool: &mut Pool, writes: bool, now: Instant) -> ConnRef {
    let conn = open(pool, writes, now);
    assert!(matches!(pool.greet(conn.index, HELLO, now), Greeted::Took(len) if len == HELLO.len()));
    assert!(pool[conn.index].is_ready());
    conn
}

fn route(pool: &mut Pool, writes: bool, now: Instant) -> SharedRoute {
    pool.route(&mut None, || key(writes), now)
}

#[test]
fn a_shared_connection_is_opened_once_and_used_when_the_server_has_let_it_in() {
    let (mut pool, now) = (Pool::new(0), Instant::now());
    assert_eq!(route(&mut pool, false, now), SharedRoute::Open(key(false)));
    let conn = pool.insert((), Role::Shared(key(false)), connecting(now), now);
    assert!(pool.is_connecting());
    assert_eq!(route(&mut pool, false, now), SharedRoute::None);
    assert_eq!(route(&mut pool, true, now), SharedRoute::None, "the same proof is shown once at a time");
    assert_eq!((pool.connected(conn.index, now), pool.is_connecting()), (Some(2), false));
    assert_eq!(pool.connected(conn.index, now), None, "once");
    assert_eq!(route(&mut pool, false, now), SharedRoute::None, "it was not let in yet");
    pool.greet(conn.index, HELLO, now);
    assert_eq!(route(&mut pool, false, now), SharedRoute::Use(conn.index));
    assert_eq!(route(&mut pool, true, now), SharedRoute::Open(key(true)));
}

#[test]
fn a_session_finds_its_last_connection_without_its_key_until_that_is_retired() {
    let (mut pool, now) = (Pool::new(0), Instant::now());
    let conn = ready(&mut pool, false, now);
    let mut last = None;
    assert_eq!(pool.route(&mut last, || key(false), now), SharedRoute::Use(conn.index));
    assert_eq!(last, Some(conn));
    let no_key = || unreachable!("it is known");
    assert_eq!(pool.route(&mut last, no_key, now), SharedRoute::Use(conn.index));
    assert!(pool.goes_on(conn));
    pool.retire(conn);
    assert!(!pool.goes_on(conn));
    assert_eq!(pool.route(&mut last, || key(false), now), SharedRoute::Open(key(false)));
    let next = ready(&mut pool, false, now);
    assert!(pool.remove(conn.index).is_some(), "the retired one");
    assert_eq!(
        pool.route(&mut last, || key(false), now),
        SharedRoute::Use(next.index),
        "is not taken for its successor"
    );
}

#[test]
fn another_connection_with_the_same_index_is_not_taken_for_the_last() {
    let (mut pool, now) = (Pool::new(7), Instant::now());
    let old = ready(&mut pool, false, now);
    pool.queue(old);
    assert!(pool.remove(old.index).is_some() && pool.remove(old.index).is_none());
    assert_eq!(route(&mut pool, false, now), SharedRoute::Open(key(false)), "none is found that is gone");
    let new = ready(&mut pool, true, now);
    assert!(new.index == old.index && new.generation > old.generation && old.generation > 7);
    assert!(pool.get(old).is_none() && pool.get(new).is_some() && !pool.goes_on(old));
    assert_eq!(pool.route(&mut Some(old), || key(false), now), SharedRoute::Open(key(false)));
    assert_eq!(pool.take_ready(), [old], "who reads the list looks whether it is there");
}

#[test]
fn one_that_has_stalled_takes_no_more() {
    let (mut pool, now) = (Pool::new(0), Instant::now());
    let conn = ready(&mut pool, false, now);
    pool[conn.index].wait(client(1), now);
    assert_eq!(route(&mut pool, false, now + STALLED_AFTER / 2), SharedRoute::Use(conn.index));
    assert_eq!(route(&mut pool, false, now + STALLED_AFTER), SharedRoute::None);
    pool[conn.index].answered(now + STALLED_AFTER);
    assert_eq!(route(&mut pool, false, now + STALLED_AFTER), SharedRoute::Use(conn.index));
}

#[test]
fn a_refused_proof_is_not_shown_again_until_a_session_proves_it() {
    let (mut pool, now) = (Pool::new(0), Instant::now());
    let late = now + Duration::from_hours(1);
    for (line, again) in [("-WRONGPASS no\r\n", false), ("-ERR max clients\r\n", true)] {
        let conn = open(&mut pool, false, now);
        let greeted = pool.greet(conn.index, line.as_bytes(), now);
        assert!(matches!(greeted, Greeted::Refused(_, said) if line.contains(&said)));
        assert!(pool.get(conn).is_none(), "it is removed");
        assert_eq!(route(&mut pool, false, now), SharedRoute::None);
        assert_eq!(route(&mut pool, false, late) == SharedRoute::Open(key(false)), again, "{line}");
        pool.proved(key(false).credential.as_ref());
        assert_eq!(route(&mut pool, false, late), SharedRoute::Open(key(false)));
    }
    let conn = open(&mut pool, false, now);
    assert!(matches!(pool.greet(conn.index, b"nonsense\r\n", now), Greeted::NoResp));
}

#[test]
fn a_greeting_that_comes_in_pieces_counts_when_it_is_whole() {
    let (mut pool, now) = (Pool::new(0), Instant::now());
    let conn = open(&mut pool, false, now);
    let old = b"%1\r\n$7\r\nversion\r\n$5\r\n7.0.9\r\n";
    assert!(matches!(pool.greet(conn.index, &old[..12], now), Greeted::Took(12)));
    assert!(!pool[conn.index].is_ready());
    pool.greet(conn.index, &old[12..], now);
    assert!(pool[conn.index].is_ready() && pool.moves_by_any_command());
    ready(&mut pool, true, now);
    assert!(!pool.moves_by_any_command());
}

#[test]
fn when_a_shared_connection_breaks_only_the_oldest_may_have_half_a_reply() {
    let (mut pool, now) = (Pool::new(0), Instant::now());
    let conn = ready(&mut pool, false, now);
    for n in [1, 1, 2] {
        pool[conn.index].wait(client(n), now);
    }
    pool[conn.index].scanner.scan(b"$5\r\nhal").expect("sound");
    let mut lost = pool.remove(conn.index).expect("there");
    assert_eq!(lost.take_unanswered(), [(client(1), Unanswered::MidReply), (client(2), Unanswered::Whole)]);
    let conn = ready(&mut pool, false, now);
    pool[conn.index].wait(client(3), now);
    let mut lost = pool.remove(conn.index).expect("there");
    assert_eq!(lost.take_unanswered(), [(client(3), Unanswered::Whole)]);
}

#[test]
fn attempts_that_take_too_long_are_given_up_and_no_other() {
    let (mut pool, now) = (Pool::new(0), Instant::now());
    open(&mut pool, false, now);
    let pinned = pool.insert((), Role::Pinned(client(1)), connecting(now), now);
    assert!(pool.overdue(now).is_empty());
    assert_eq!(pool.overdue(now + Duration::from_secs(1)), [pinned.index]);
    pool.remove(pinned.index);
    assert!(!pool.is_connecting() && pool.overdue(now + Duration::from_secs(1)).is_empty());
}

#[test]
fn idle_shared_connections_are_closed_unless_they_carried_writes() {
    let (mut pool, now) = (Pool::new(0), Instant::now());
    let (reads, writes) = (ready(&mut pool, false, now), ready(&mut pool, true, now));
    let both = vec![reads.index, writes.index];
    let later = now + SHARED_IDLE;
    assert_eq!(pool.upkeep(now).alive, both);
    assert_eq!(pool.upkeep(later).close, both);
    assert!(pool.keep(writes, Kept::Counted) && !pool.keep(ConnRef { index: 9, generation: 9 }, Kept::InUse));
    let upkeep = pool.upkeep(later);
    assert_eq!((upkeep.alive, upkeep.close), (vec![writes.index], vec![reads.index]));
    pool.keep_none();
    pool.retire(writes);
    assert_eq!(pool.upkeep(now).close, [writes.index], "one that takes no more and that nobody needs, at once");
    pool[reads.index].wait(client(1), now);
    assert!(!pool.upkeep(later).close.contains(&reads.index), "it is in use");
}

#[test]
fn a_stalled_connection_is_cut_only_while_the_server_answers_others() {
    let (mut pool, now) = (Pool::new(0), Instant::now());
    let (reads, writes) = (ready(&mut pool, false, now), ready(&mut pool, true, now));
    pool.check_stalls(now, false);
    for conn in [reads, writes] {
        pool[conn.index].wait(client(conn.index), now);
    }
    let later = now + TICK;
    assert!(!pool.has_stalled());
    let stalls = pool.check_stalls(later, false);
    assert_eq!((stalls.cut, stalls.ask_witness, pool.has_stalled()), (vec![], true, true));
    let witness = pool.insert((), Role::Witness, connecting(now), now);
    pool.witness_opened(witness);
    assert_eq!(pool.check_stalls(later, false), Stalls::default(), "one witness at a time, and nothing is answered");
    assert_eq!((pool.witness_answered(true), pool.witness_answered(false)), (Some(witness), None));
    // The witness's answer counted as the first tick in which others are answered.
    for _ in 1..STALLED_TICKS {
        assert_eq!(pool.check_stalls(later, false), Stalls::default());
        pool.served(false);
    }
    assert_eq!(pool.check_stalls(later, true), Stalls::default(), "while a pause is known none is cut");
    pool.served(false);
    assert_eq!(pool.check_stalls(later, false).cut, [reads.index], "writes may be paused");
    pool.remove(reads.index);
    let ticks = (1..=PAUSED_TICKS).find(|_| {
        pool.wrote_elsewhere();
        !pool.check_stalls(later, false).cut.is_empty()
    });
    assert_eq!(ticks, Some(STALLED_TICKS), "they are not: other writes are answered");
}

#[test]
fn a_connection_is_queued_once_for_a_flush() {
    let (mut pool, now) = (Pool::new(0), Instant::now());
    let (one, two) = (ready(&mut pool, false, now), ready(&mut pool, true, now));
    assert!(pool.is_clean());
    for conn in [one, two, one] {
        pool[conn.index].wait(client(1), now);
        pool.make_dirty(conn.index);
    }
    assert_eq!(pool.gathered(), 3);
    pool.remove(two.index);
    assert_eq!(pool.take_dirty(), [one.index, two.index]);
    assert!(pool.is_clean());
    assert!(pool.begin_flush(one.index) && !pool.begin_flush(one.index) && !pool.begin_flush(two.index));
}

#[test]
fn what_was_left_unread_has_its_turn() {
    let (mut pool, now) = (Pool::new(0), Instant::now());
    let pinned = pool.insert((), Role::Pinned(client(1)), connecting(now), now);
    pool.nudge(Some(pinned.index));
    pool.nudge(None);
    assert!(!pool.has_ready());
    pool[pinned.index].readable = true;
    pool.nudge(Some(pinned.index));
    assert_eq!(pool.take_ready(), [pinned]);
    assert!(!pool.has_ready() && pool.pinned(Some(pinned.index)).is_some() && pool.pinned(None).is_none());
}
