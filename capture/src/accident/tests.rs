//! Which writes get a mark, and where it stands.
#![allow(clippy::print_stdout)]

use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use redtape_journal::ReplOffset;

use super::*;
use crate::group::Effect;

fn effect(command: &str) -> Effect {
    let (mut at, mut args) = (0, Vec::new());
    for word in command.split(' ') {
        args.push((at, at + word.len() as u32));
        at += word.len() as u32 + 1;
    }
    Effect { db: 0, chunk: Rc::new(Bytes::copy_from_slice(command.as_bytes())), args: args.into() }
}

fn group(commands: &[&str]) -> EffectGroup {
    EffectGroup {
        effects: commands.iter().map(|command| effect(command)).collect(),
        atomic: commands.len() > 1,
        end_offset: ReplOffset(0),
        end_db: 0,
        arrived: Micros(0),
    }
}

fn client(addr: &str) -> Origin {
    Origin { addr: addr.to_owned(), ..Origin::of(OriginKind::Client) }
}

/// A journal in which each group is one record, ten of them in 10 seconds being many.
struct World {
    accidents: Accidents,
    thresholds: Thresholds,
    lsn: u64,
}

impl World {
    fn new() -> Self {
        let thresholds = Thresholds { enabled: true, mass_keys: 10, mass_time: Duration::from_secs(10) };
        Self { accidents: Accidents::default(), thresholds, lsn: 100 }
    }

    /// A write at so many milliseconds; gives what is found.
    fn write(&mut self, ms: i64, origin: &Origin, commands: &[&str]) -> Option<Found> {
        let before = Lsn(self.lsn);
        self.lsn += commands.len() as u64;
        let losses = Losses::of(&group(commands))?;
        self.accidents.look(&losses, origin, (Micros(ms * 1000), before), &self.thresholds)
    }

    /// The same, of which a mark before this record of this time is expected, or nothing.
    fn expect(&mut self, ms: i64, origin: &Origin, commands: &[&str], mark: Option<(&str, i64, u64)>) {
        let expected =
            mark.map(|(command, ms, lsn)| Found::Mark(Mark::automatic(command, Micros(ms * 1000), Lsn(lsn))));
        assert_eq!(self.write(ms, origin, commands), expected, "{commands:?} at {ms}");
    }
}

#[test]
fn a_mark_stands_before_each_flush_and_swap() {
    let mut world = World::new();
    let a = client("a");
    world.expect(1, &a, &["SET k v"], None);
    world.expect(2, &a, &["FLUSHALL"], Some(("FLUSHALL", 2, 101)));
    world.expect(3, &a, &["flushdb ASYNC"], Some(("FLUSHDB", 3, 102)));
    world.expect(3, &Origin::of(OriginKind::Outside), &["SwapDB 0 1"], Some(("SWAPDB", 3, 103)));
    world.expect(4, &Origin::of(OriginKind::Unknown), &["flushall"], Some(("FLUSHALL", 4, 104)));
    // One for a group: before all of it.
    world.expect(5, &a, &["SET k v", "FLUSHDB", "FLUSHALL", "DEL k"], Some(("FLUSHDB", 5, 105)));
    for other in ["SET flushall 1", "FLUSHALLX", "DELE k", "GETDEL k", "HDEL h f"] {
        world.expect(6, &a, &[other], None);
    }
}

#[test]
fn the_mark_stands_before_the_first_write_of_a_mass_deletion() {
    let mut world = World::new();
    let a = client("a");
    for n in 0..9 {
        world.expect(n, &a, &["DEL k"], None);
    }
    world.expect(9, &a, &["UNLINK k"], Some(("DEL", 0, 100)));
    // One command, or one transaction, may be enough.
    world.expect(10, &client("b"), &["unlink 1 2 3 4 5 6 7 8 9 10"], Some(("UNLINK", 10, 110)));
    world.expect(11, &client("c"), &["SET a b", "DEL 1 2 3 4 5", "DEL 6 7 8 9 10"], Some(("DEL", 11, 111)));
    for n in 0..9 {
        world.expect(20 + n, &client("d"), &["PEXPIREAT k 1"], None);
    }
    world.expect(30, &client("d"), &["expire k 1"], Some(("EXPIRE", 20, 114)));
}

#[test]
fn only_deletions_close_together_are_a_mass() {
    // So long between the first nine and the tenth, in ms: within seven eighths of the time it is surely counted.
    for (apart, counted) in [(8_750, true), (10_000, true), (10_001, false), (60_000, false)] {
        let mut world = World::new();
        let a = client("a");
        (0..9).for_each(|_| world.expect(0, &a, &["DEL k"], None));
        world.expect(apart, &a, &["DEL k"], counted.then_some(("DEL", 0, 100)));
    }
    // However the writes are spread, what is counted lies within the time, and the mark stands before it.
    for every in [1, 7, 300, 900, 971] {
        let mut world = World::new();
        let marked = (0..50).find_map(|n| Some((n, world.write(n * every, &client("a"), &["DEL k"])?)));
        let (n, Found::Mark(mark)) = marked.expect("a mark") else { panic!("too many") };
        assert!((9..=10).contains(&n), "{every}: {n}");
        assert_eq!(mark.lsn.0, 100 + (mark.ts.0 / 1000 / every) as u64, "{every}");
        assert!(n * every - mark.ts.0 / 1000 <= 10_000);
    }
    let mut world = World::new();
    assert!((0..500).all(|n| world.write(n * 1200, &client("a"), &["DEL k"]).is_none()), "one in 1.2 s");
}

#[test]
fn each_accident_gets_one_mark() {
    let mut world = World::new();
    let a = client("a");
    world.expect(0, &a, &["DEL 1 2 3 4 5 6 7 8 9 10"], Some(("DEL", 0, 100)));
    // It goes on for an hour.
    for n in 1..3600 {
        world.expect(n * 1000, &a, &["DEL 1 2 3 4 5 6 7 8 9 10"], None);
    }
    // Then the client deletes little all the time: that does not keep it going.
    let mut ms = 3_600_000;
    while ms < 3_800_000 {
        world.expect(ms, &a, &["DEL 1"], None);
        ms += 5000;
    }
    let lsn = world.lsn;
    // The mark may stand before a write or two that lie close before.
    let Some(Found::Mark(mark)) = world.write(ms, &a, &["DEL 1 2 3 4 5 6 7 8 9 10"]) else { panic!("no mark") };
    assert!((lsn - 2..=lsn).contains(&mark.lsn.0), "{mark:?}, {lsn}");
}

#[test]
fn clients_are_counted_apart_and_the_server_is_not() {
    let mut world = World::new();
    for n in 0..9 {
        for addr in 0..40 {
            world.expect(n, &client(&format!("client {addr}")), &["DEL k"], None);
        }
        world.expect(n, &client("a"), &["DEL k"], None);
        world.expect(n, &client("a"), &["PEXPIREAT k 1"], None);
    }
    for kind in [OriginKind::Expiry, OriginKind::Eviction] {
        (0..100).for_each(|n| world.expect(n, &Origin::of(kind), &["DEL k"], None));
    }
    // Who has no address is one client, and another name or request makes no other of it.
    let lsn = world.lsn;
    (0..9).for_each(|_| world.expect(100, &Origin::of(OriginKind::Outside), &["DEL k"], None));
    (0..9).for_each(|_| world.expect(100, &Origin::of(OriginKind::Unknown), &["DEL k"], None));
    world.expect(100, &Origin::of(OriginKind::Outside), &["DEL k"], Some(("DEL", 100, lsn)));
    let renamed = Origin { via: "EVAL".to_owned(), name: "app".to_owned(), ..client("a") };
    world.expect(100, &renamed, &["DEL k"], Some(("DEL", 0, 140)));
}

#[test]
fn marks_are_limited_by_the_hour() {
    let mut world = World::new();
    let mass = ["DEL 1 2 3 4 5 6 7 8 9 10"];
    let many = |world: &mut World, ms: i64, commands: &[&str], limit: usize| {
        let found: Vec<_> = (0..limit + 5)
            .map(|n| world.write(ms, &client(&format!("{ms} {n}")), commands))
            .map(|found| matches!(found, Some(Found::Mark(_))).then_some(true).or(found.map(|_| false)))
            .collect();
        assert_eq!(found[..limit], vec![Some(true); limit]);
        assert_eq!(found[limit..], [Some(false), None, None, None, None], "said once");
    };
    many(&mut world, 0, &mass, MASS_MARKS_AN_HOUR);
    // Neither is in the way of the others.
    let expiries = vec!["PEXPIREAT k 1"; 10];
    many(&mut world, 1, &expiries, MASS_MARKS_AN_HOUR);
    many(&mut world, 2, &["FLUSHALL"], FLUSH_MARKS_AN_HOUR);
    many(&mut world, 3_700_000, &mass, MASS_MARKS_AN_HOUR);
    world.accidents.forget_clients();
    assert_eq!(world.write(3_700_001, &client("z"), &mass), None, "still in force when the journal was opened again");
}

#[test]
fn masses_may_be_left_out() {
    let mut world = World::new();
    world.thresholds.mass_keys = 0;
    (0..100).for_each(|n| world.expect(n, &client("a"), &["DEL 1 2 3 4 5 6 7 8 9 10"], None));
    let lsn = world.lsn;
    world.expect(100, &client("a"), &["FLUSHALL"], Some(("FLUSHALL", 100, lsn)));
}

#[test]
#[ignore = "make measure: needs a release build and a quiet machine"]
fn cost_of_a_check() {
    const GROUPS: u32 = 2_000_000;
    let mut world = World::new();
    let clients: Vec<Origin> = (0..1000).map(|n| client(&format!("10.0.0.1:{n}"))).collect();
    for (what, command) in
        [("SET", "SET k v"), ("HSET", "HSET h f v"), ("DEL", "DEL k"), ("PEXPIREAT", "PEXPIREAT k 1")]
    {
        let group = group(&[command]);
        let began = Instant::now();
        let mut found = 0;
        for n in 0..GROUPS {
            let Some(losses) = std::hint::black_box(Losses::of(std::hint::black_box(&group))) else { continue };
            let at = (Micros(i64::from(n) * 10), Lsn(n.into()));
            let origin = &clients[n as usize % clients.len()];
            found += u32::from(world.accidents.look(&losses, origin, at, &world.thresholds).is_some());
        }
        let ns = began.elapsed().as_nanos() / u128::from(GROUPS);
        println!("{what}: {ns} ns a write, {found} found");
        assert!(ns < 1000, "{what}");
    }
}
