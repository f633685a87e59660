//! A client cannot tell redtape from the server: the same requests, in the same order, get the same bytes.
//!
//! `REDTAPE_SEED` runs one conversation again, `REDTAPE_STEPS` says how long it is.

mod access;
mod commands;
mod frames;
mod hostile;
mod identity;
mod lockstep;
mod shared;
mod sides;
mod unfinished;

use crate::harness::{Conn, env_number, seed};
use lockstep::Lockstep;
use sides::Worlds;
use std::time::{Duration, Instant};

/// Client connections in each world.
const CONNECTIONS: usize = 6;
/// The same where some attack others: two victims of each user.
const ATTACKERS: usize = 4;
const VICTIMS: usize = 10;

fn users(conn: &mut Conn) {
    conn.must(&args!["ACL", "SETUSER", "ann", "on", ">annpw", "~*", "&*", "+@all"]);
    conn.must(&args!["ACL", "SETUSER", "bob", "on", ">bobpw", "~s*", "~l*", "&c*", "+@all", "-@dangerous"]);
}

fn random_conversations(sharing: &str) {
    conversation(sharing, seed(), env_number("REDTAPE_STEPS", 6000));
}

fn conversation(sharing: &str, seed: u64, steps: usize) {
    let worlds = Worlds::start(CONNECTIONS, sharing, &[], users);
    let mut lockstep = Lockstep::new(worlds, seed);
    lockstep.run(steps, Duration::from_secs(25));
    let told = &lockstep.told;
    // Short runs are for looking at one failure.
    if told.requests > 3000 {
        let seen =
            [told.errors, told.closed, told.blocked, told.in_multi, told.subscribed, told.resp3, told.pushes_to_others];
        assert!(seen.iter().all(|n| *n > 0), "something was never tried: {told:?}");
    }
}

/// What a client said before it said nonsense.
const BEFORE: [&[u8]; 6] = [
    b"",
    b"SET a 1\r\nGET a\r\n",
    b"MULTI\r\nSET a 2\r\n",
    b"HELLO 3\r\nSUBSCRIBE c\r\n",
    b"SUBSCRIBE c d\r\n",
    b"CLIENT REPLY OFF\r\nSET a 3\r\n",
];

/// Each in both ways of sharing, and where replies wait for the journal.
const WAYS: [&str; 3] = ["off", "auto", "acked"];

/// What redtape is told for a way.
fn flags(way: &str) -> &'static [&'static str] {
    match way {
        "off" => &["--sharing", "off"],
        "auto" => &["--sharing", "auto"],
        "acked" => &["--sharing", "auto", "--ack", "journal"],
        other => panic!("no way: {other}"),
    }
}

#[test]
fn random_conversations_are_the_same_with_a_connection_each() {
    random_conversations("off");
}

#[test]
fn random_conversations_are_the_same_with_shared_connections() {
    random_conversations("auto");
}

#[test]
fn random_conversations_are_the_same_where_replies_wait_for_the_journal() {
    random_conversations("acked");
}

/// A client without replies, told of all keys, pushes to a list and pops from it: the server may name the list once or twice.
#[test]
fn a_conversation_with_a_repeated_invalidation_is_the_same() {
    conversation("auto", 93_650_646_598_562, 5_200);
}

/// What these find is rare: the more, the better.
#[test]
#[ignore = "half an hour: make soak"]
fn many_random_conversations_are_the_same() {
    for n in 0..env_number("REDTAPE_CONVERSATIONS", 120) {
        let way = WAYS[n % WAYS.len()];
        println!("conversation {n}: {way}");
        random_conversations(way);
    }
}

/// `REDTAPE_FUZZ_SECONDS`: how long; each round has a seed of its own. `make fuzz-sessions` runs it for long.
#[test]
fn attackers_change_nothing_for_others() {
    let (seed, seconds) = (seed(), env_number("REDTAPE_FUZZ_SECONDS", 20) as u64);
    let started = Instant::now();
    for round in 0.. {
        let left = Duration::from_secs(seconds).saturating_sub(started.elapsed());
        if round > 0 && left < Duration::from_secs(5) {
            break;
        }
        let way = ["auto", "auto", "acked", "off"][round as usize % 4];
        println!("round {round}: {way}; alone: REDTAPE_SEED={} REDTAPE_FUZZ_WAY={way}", seed + round);
        let way = std::env::var("REDTAPE_FUZZ_WAY").unwrap_or_else(|_| way.to_owned());
        hostile_conversation(seed + round, &way, left.min(Duration::from_secs(20)));
    }
}

fn hostile_conversation(seed: u64, way: &str, limit: Duration) {
    let worlds = Worlds::start(ATTACKERS + VICTIMS, way, &[], hostile::users);
    let mut lockstep = Lockstep::hostile(worlds, seed, ATTACKERS);
    lockstep.run(env_number("REDTAPE_STEPS", usize::MAX), limit);
    println!("origins: {:?}", hostile::judge_origins(&lockstep.journal()));
}

#[test]
fn a_session_has_one_client_id() {
    WAYS.iter().for_each(|way| identity::ids_are_coherent(way));
}

#[test]
fn an_id_acts_on_its_session_and_no_other() {
    WAYS.iter().for_each(|way| identity::ids_act_on_their_session(way));
}

#[test]
fn unauthenticated_clients_get_the_same_errors() {
    WAYS.iter().for_each(|way| access::strangers_get_little(way));
}

#[test]
fn protocol_errors_are_answered_and_closed_alike() {
    WAYS.iter().for_each(|way| {
        access::protocol_errors(way, &BEFORE, lockstep::GARBAGE);
        access::protocol_errors(way, &BEFORE[..1], lockstep::ATTACKS);
    });
}

#[test]
fn a_user_who_changes_while_connected_sees_the_same() {
    WAYS.iter().for_each(|way| access::users_change(way));
}

#[test]
fn monitors_see_the_same_requests() {
    WAYS.iter().for_each(|way| access::monitors_see_the_same(way));
}

#[test]
fn requests_behind_a_blocked_one_keep_their_order() {
    WAYS.iter().for_each(|way| access::requests_behind_a_blocked_one(way));
}

/// The server refuses it as soon as it has read the length, which is all there is.
#[test]
fn a_first_argument_that_is_too_long_is_refused_at_once() {
    WAYS.iter()
        .for_each(|way| access::protocol_errors(way, &BEFORE, &[b"*1\r\n$99999999999\r\n", b"*3\r\n$536870913\r\n"]));
}

#[test]
fn incomplete_requests_are_handled_alike() {
    for way in WAYS {
        unfinished::are_treated_alike(way, None);
    }
    unfinished::are_treated_alike("auto", Some("sesame"));
    unfinished::a_lower_limit_of_bulks_holds_at_once();
}

#[test]
fn reads_pass_the_writes_that_a_pause_holds() {
    shared::reads_pass_paused_writes();
}

#[test]
fn the_servers_timeout_closes_only_idle_sessions() {
    shared::the_servers_timeout_holds("auto", 1);
    shared::the_servers_timeout_holds("auto", 3);
    shared::the_servers_timeout_holds("acked", 2);
}

#[test]
fn the_servers_timeout_spares_busy_sessions() {
    shared::the_servers_timeout_spares_those_who_always_have_requests_in_flight();
}

#[test]
fn refusals_during_a_pause_disconnect_no_client() {
    shared::refusals_during_a_pause_cut_nobody();
}

#[test]
fn a_write_that_waits_while_clients_are_drained_is_answered() {
    shared::a_paused_write_is_drained();
}

#[test]
fn the_server_notes_no_refusal_of_redtapes_own_making() {
    shared::nothing_is_refused_that_no_client_asked_for();
    shared::the_least_rights_are_enough();
}

#[test]
fn a_password_that_the_server_refused_is_not_tried_again() {
    shared::a_refused_password_is_not_tried_again();
}

#[test]
fn a_shared_connection_that_stalls_is_cut_and_no_other() {
    shared::a_shared_connection_that_stalls_is_cut();
}

#[test]
fn a_stopped_server_costs_no_connection() {
    shared::a_stopped_server_costs_no_connection();
}
