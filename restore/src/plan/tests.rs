use std::collections::{BTreeMap, BTreeSet};

use redtape_journal::query::Filter;
use redtape_journal::{Micros, ReplOffset, SnapshotInfo, SnapshotKind, SnapshotManifest, TimelineId};

use super::*;
use crate::error::ErrorKind;
use crate::target::claim::OtherRestores;
use crate::target::limits::ServerLimits;
use crate::target::memory::MemoryState;
use crate::target::rights::Rights;
use crate::target::unfinished::Unfinished;

fn point(server_version: &str) -> RestorePoint {
    RestorePoint {
        timeline: TimelineId(1),
        lsn: Lsn(10),
        ts: Micros(5),
        asked: Micros(6),
        before: false,
        zone: "+01:00".parse().expect("a zone"),
        clock: Micros(6),
        base: SnapshotInfo {
            path: "/j/snapshots/1.rdb".into(),
            manifest: SnapshotManifest {
                journal_id: String::new(),
                lsn: Lsn(1),
                timeline: TimelineId(1),
                source_id: String::new(),
                offset: ReplOffset(0),
                db: None,
                ts: Micros(1),
                kind: SnapshotKind::Base,
                bytes: 300_000_000,
                blake3: String::new(),
                magic_version: String::new(),
                server_version: server_version.to_owned(),
                checksum_present: true,
                encryption: None,
                command_table: None,
            },
            key_index_bytes: 0,
        },
        next_ts: None,
        warnings: vec!["from the point".to_owned()],
    }
}

fn memory(limit: u64, policy: &str) -> MemoryState {
    MemoryState { limit: Some(limit), policy: policy.to_owned(), used: 900, evicted: 0 }
}

fn target(banner: &str) -> TargetFacts {
    TargetFacts {
        address: "t:1".to_owned(),
        version: ServerVersion::from_banner(banner).expect(banner),
        cluster: false,
        follows: None,
        replicas: 0,
        replid: String::new(),
        is_source: false,
        memory: memory(0, "noeviction"),
        replica_evicts: false,
        loading: false,
        disk_trouble: None,
        others: OtherRestores::Absent,
        unfinished: Vec::new(),
        keys: BTreeMap::new(),
        functions: 0,
        functions_hidden: false,
        tls_replication: false,
        writable_replica: false,
        rights: Rights::default(),
        limits: ServerLimits { databases: Some(16), ..ServerLimits::default() },
        renamed: BTreeSet::new(),
        tls: false,
        announced_port: 6379,
        unix: false,
        unknown_commands: Vec::new(),
    }
}

/// One case: changes to the usual facts, and the way or the words of the refusal.
struct Case {
    rdb: &'static str,
    made_by: &'static str,
    target: TargetFacts,
    range: RangeFacts,
    filter: Filter,
    forced: Option<ForcedMethod>,
    base_highest_db: Option<u32>,
}

fn usual() -> Case {
    Case {
        rdb: "REDIS0010",
        made_by: "7.0.15",
        target: target("Redis v=7.0.15"),
        range: RangeFacts { records: 9, groups: 1, ..RangeFacts::default() },
        filter: Filter::default(),
        forced: None,
        base_highest_db: Some(0),
    }
}

fn outcome(change: impl FnOnce(&mut Case)) -> Result<(Method, String), RestoreError> {
    let mut case = usual();
    change(&mut case);
    choose(&Facts {
        replaces_all: false,
        point: &point(case.made_by),
        rdb: redtape_wire::rdb::parse_header(case.rdb.as_bytes()).expect(case.rdb),
        range: &case.range,
        target: &case.target,
        base_memory: None,
        whole: case.filter.is_everything(),
        filter: &case.filter,
        repairs: Repairs::default(),
        base_bytes: 300_000_000,
        base_highest_db: case.base_highest_db,
        slice: None,
        forced: case.forced,
    })
}

#[track_caller]
fn method(change: impl FnOnce(&mut Case), want: Method, word: &str) {
    let (method, reason) = outcome(change).expect("possible");
    assert_eq!(method, want, "{reason}");
    assert!(reason.contains(word), "{reason}");
}

#[track_caller]
fn refusal(change: impl FnOnce(&mut Case), kind: ErrorKind, word: &str) {
    let error = outcome(change).expect_err("refused");
    assert_eq!(error.kind(), kind, "{error}");
    assert!(error.to_string().contains(word), "{error}");
}

fn some_keys() -> Filter {
    Filter::new(&["a*"], &[], &[]).expect("filter")
}

#[test]
fn ways() {
    method(|_| {}, Method::Link, "empty");
    method(|c| c.filter = some_keys(), Method::Scratch, "some keys");
    method(|c| c.forced = Some(ForcedMethod::Scratch), Method::Scratch, "--via scratch");
    method(|c| c.target.is_source = true, Method::Scratch, "continues its history");
    let over_the_link_all_the_same = |c: &mut Case| {
        c.target.is_source = true;
        c.forced = Some(ForcedMethod::Link);
    };
    method(over_the_link_all_the_same, Method::Link, "empty");
    method(|c| c.forced = Some(ForcedMethod::Link), Method::Link, "empty");
    method(
        |c| (c.target.replica_evicts, c.target.memory) = (true, memory(9, "noeviction")),
        Method::Scratch,
        "ignore-maxmemory",
    );
    method(|c| c.target.replica_evicts = true, Method::Link, "empty");
    method(|c| c.target.writable_replica = true, Method::Scratch, "replica-read-only no");
    method(|c| c.target.tls_replication = true, Method::Scratch, "TLS");
    method(|c| c.target.tls = true, Method::Scratch, "would show the data to the network");
    for rule in ["replicaof", "flushall"] {
        method(|c| c.target.rights = Rights::without(&[rule]), Method::Scratch, "renamed");
    }
    let renamed = |name: &str| BTreeSet::from([name.as_bytes().to_vec()]);
    method(|c| c.target.renamed = renamed("REPLCONF"), Method::Scratch, "REPLCONF");
    method(|c| c.target.renamed = renamed("CONFIG"), Method::Link, "");
    let in_the_journal = |c: &mut Case| {
        (c.target.renamed, c.range.commands) = (renamed("DEL"), BTreeSet::from([b"DEL".to_vec()]));
    };
    method(in_the_journal, Method::LinkFromScratch, "DEL");
    method(|c| c.target.memory = memory(1000, "noeviction"), Method::LinkFromScratch, "maxmemory");
    method(|c| c.range.max_db = 16, Method::Scratch, "database 16");
    method(|c| c.range.field_ttl = true, Method::LinkFromScratch, "fields");
    method(|c| c.range.scripts = true, Method::LinkFromScratch, "scripts");
    method(|c| c.target.limits.databases = Some(4), Method::Link, "");
    method(|c| c.base_highest_db = Some(16), Method::LinkFromScratch, "keys in database 16");
    method(|c| c.base_highest_db = None, Method::LinkFromScratch, "unknown");
    method(|c| c.target.limits.databases = None, Method::Link, "");
    let hidden = |c: &mut Case| {
        (c.target.limits.databases, c.range.max_db) = (None, 1);
    };
    method(hidden, Method::Scratch, "unknown");
    let redis8 = |c: &mut Case| {
        (c.rdb, c.made_by, c.target) = ("REDIS0012", "8.0.2", target("Redis v=8.0.2"));
    };
    method(redis8, Method::LinkFromScratch, "may hold");
    let valkey9 = |c: &mut Case| {
        (c.rdb, c.made_by, c.target) = ("VALKEY080", "9.1.2", target("Valkey v=9.1.2"));
    };
    method(valkey9, Method::LinkFromScratch, "may hold");
    let valkey8 = |c: &mut Case| {
        (c.rdb, c.made_by, c.target) = ("REDIS0011", "8.1.1", target("Valkey v=8.1.1"));
    };
    method(valkey8, Method::Link, "");
    // Keys are added to what is there.
    let filtered = |c: &mut Case| {
        c.filter = some_keys();
        c.target.keys = BTreeMap::from([(0, 7)]);
    };
    method(filtered, Method::Scratch, "some keys");
}

#[test]
fn refusals() {
    refusal(|c| c.target.keys = BTreeMap::from([(0, 7), (3, 1)]), ErrorKind::Occupied, "7 keys in db 0, 1 key in db 3");
    refusal(|c| c.target.functions = 1, ErrorKind::Occupied, "1 function library");
    refusal(|c| c.target.follows = Some(("m:1".into(), false)), ErrorKind::Unavailable, "replica of m:1 (link down)");
    // Nobody is told to empty the replica of a master that is there.
    let error = outcome(|c| c.target.follows = Some(("m:1".into(), true))).expect_err("a replica").to_string();
    assert!(error.contains("link up") && !error.contains("FLUSHALL"), "{error}");
    refusal(
        |c| c.target.version = ServerVersion { valkey: false, number: (6, 0, 16) },
        ErrorKind::Unavailable,
        "does not load",
    );
    refusal(|c| c.target.unknown_commands = vec!["LMPOP".into()], ErrorKind::Unavailable, "LMPOP");
    let forced = |c: &mut Case| {
        c.forced = Some(ForcedMethod::Link);
        c.filter = some_keys();
    };
    refusal(forced, ErrorKind::Unavailable, "--via link is not possible: only some keys");
}

#[test]
fn targets_that_take_nothing() {
    let copied = |c: &mut Case| c.forced = Some(ForcedMethod::Scratch);
    for rule in ["restore", "exists", "select", "dump"] {
        let missing = |c: &mut Case| {
            copied(c);
            c.target.rights = Rights::without(&[rule]);
        };
        refusal(missing, ErrorKind::Unavailable, "--target-command");
    }
    let lonely = |c: &mut Case| {
        copied(c);
        c.target.limits.few_replicas = Some("0 replicas".into());
    };
    refusal(lonely, ErrorKind::Unavailable, "min-replicas-to-write 0");
    let a_cluster_over_the_link = |c: &mut Case| {
        c.target.cluster = true;
        c.forced = Some(ForcedMethod::Link);
    };
    refusal(a_cluster_over_the_link, ErrorKind::Unavailable, "each node of a cluster");
    refusal(|c| c.target.loading = true, ErrorKind::Unavailable, "loading its data");
    refusal(
        |c| c.target.disk_trouble = Some("its last save failed".into()),
        ErrorKind::Unavailable,
        "takes no writes: its last save failed",
    );
}

#[test]
fn a_restore_that_did_not_end_is_pointed_out() {
    let part = |c: &mut Case| {
        c.target.keys = BTreeMap::from([(0, 7)]);
        c.target.unfinished =
            vec![Unfinished { field: "whole:abc".into(), whole: true, what: "everything of /j".into() }];
    };
    refusal(part, ErrorKind::Occupied, "only a part of a restore that did not end: everything of /j");
    // That one is still at work, or was for some keys of a server with others.
    let busy = |c: &mut Case| {
        part(c);
        c.target.others = OtherRestores::Seen("client 7".into());
    };
    refusal(busy, ErrorKind::Occupied, "is not empty");
    let some = |c: &mut Case| {
        part(c);
        c.target.unfinished[0].whole = false;
    };
    refusal(some, ErrorKind::Occupied, "is not empty");
}

fn warnings_of(change: impl FnOnce(&mut Case), base_memory: Option<u64>) -> Vec<String> {
    let mut case = usual();
    change(&mut case);
    let mut point = point(case.made_by);
    point.warnings.clear();
    let facts = Facts {
        replaces_all: false,
        point: &point,
        rdb: redtape_wire::rdb::parse_header(b"REDIS0010").expect("header"),
        range: &case.range,
        target: &case.target,
        base_memory,
        whole: case.filter.is_everything(),
        filter: &case.filter,
        repairs: Repairs::default(),
        base_bytes: 300_000_000,
        base_highest_db: case.base_highest_db,
        slice: None,
        forced: None,
    };
    make(&facts, Method::Link, String::new(), None).warnings
}

#[test]
fn what_the_target_may_not_hold_is_said_before() {
    let limited = |policy: &'static str| move |c: &mut Case| c.target.memory = memory(1000, policy);
    for (found, words) in [
        (warnings_of(limited("noeviction"), Some(2000)), "too small for the base alone, which took 2000 bytes"),
        (
            warnings_of(limited("allkeys-lru"), Some(500)),
            "took 500 bytes on the server that made it. If the data does not fit, nothing is written",
        ),
        (warnings_of(limited("noeviction"), None), "unknown in advance. If it does not fit, nothing is written"),
        (warnings_of(|c| c.target.functions_hidden = true, None), "FUNCTION LIST is not allowed"),
        (warnings_of(|c| c.target.memory.limit = None, None), "is unknown: neither INFO nor CONFIG"),
        (
            warnings_of(|c| c.target.others = OtherRestores::Seen("client 7".into()), None),
            "another restore is at work on the target (client 7)",
        ),
        (warnings_of(|c| c.target.others = OtherRestores::Unknown("NOPERM".into()), None), "cannot be seen (NOPERM)"),
    ] {
        assert!(found.len() == 1 && found[0].contains(words), "{words}: {found:?}");
    }
    assert_eq!(warnings_of(|_| {}, Some(u64::MAX)), Vec::<String>::new());
    let some = |c: &mut Case| {
        c.filter = some_keys();
        c.target.unfinished = vec![Unfinished { field: "keys:abc".into(), whole: false, what: "some keys".into() }];
    };
    let found = warnings_of(some, None);
    assert!(
        found
            .iter()
            .any(|w| w.contains("did not end: some keys") && w.contains("HDEL redtape:unfinished-restore keys:abc")),
        "{found:?}"
    );
}

#[test]
fn the_plan_says_everything() {
    let mut case = usual();
    case.target.memory = memory(1, "allkeys-lru");
    case.filter = some_keys();
    let point = point(case.made_by);
    let facts = Facts {
        replaces_all: false,
        point: &point,
        rdb: redtape_wire::rdb::parse_header(b"REDIS0010").expect("header"),
        range: &case.range,
        target: &case.target,
        base_memory: None,
        whole: case.filter.is_everything(),
        filter: &case.filter,
        repairs: Repairs::default(),
        base_bytes: 300_000_000,
        base_highest_db: case.base_highest_db,
        slice: None,
        forced: None,
    };
    let binary = Binary { path: "/usr/bin/redis-server".into(), version: case.target.version };
    let plan = make(&facts, Method::Scratch, "why".to_owned(), Some(&binary));
    let text = plan.to_string();
    for word in [
        "t:1 (Redis 7.0.15)",
        "LSN 10",
        "scratch server and copy: why",
        "/usr/bin/redis-server",
        "9 records in 1 group, 0 bytes",
        "from the point",
        "functions are left out",
    ] {
        assert!(text.contains(word), "{word} in {text}");
    }
    assert!(plan.estimate_seconds > 2.0 && !plan.functions);
    let json = serde_json::to_value(&plan).expect("json");
    assert_eq!((json["via"].as_str(), json["lsn"].as_u64()), (Some("scratch"), Some(10)));
    let link = make(&Facts { whole: true, filter: &Filter::default(), ..facts }, Method::Link, String::new(), None);
    assert!(link.functions && link.warnings.iter().any(|w| w.contains("allkeys-lru")));
}

#[test]
fn who_follows_the_target_is_told() {
    let warnings = |replicas, is_source, method| {
        let mut case = usual();
        (case.target.replicas, case.target.is_source) = (replicas, is_source);
        let point = point(case.made_by);
        let facts = Facts {
            replaces_all: false,
            point: &point,
            rdb: redtape_wire::rdb::parse_header(b"REDIS0010").expect("header"),
            range: &case.range,
            target: &case.target,
            base_memory: None,
            whole: case.filter.is_everything(),
            filter: &case.filter,
            repairs: Repairs::default(),
            base_bytes: 300_000_000,
            base_highest_db: case.base_highest_db,
            slice: None,
            forced: None,
        };
        make(&facts, method, String::new(), None).warnings.split_off(1)
    };
    assert_eq!(warnings(0, false, Method::Link), Vec::<String>::new());
    assert_eq!(warnings(1, false, Method::Link), ["1 replica follows the target; it gets everything too"]);
    assert_eq!(warnings(2, false, Method::Link), ["2 replicas follow the target; they get everything too"]);
    // The recorded server itself: one of its replicas is redtape.
    let into_source = warnings(1, true, Method::LinkFromScratch);
    assert!(into_source.len() == 1 && into_source[0].contains("Stop the writers first"), "{into_source:?}");
    assert_eq!(warnings(2, true, Method::Link).len(), 2);
    // Copied keys are writes like any other.
    assert_eq!(warnings(1, true, Method::Scratch), Vec::<String>::new());
}
