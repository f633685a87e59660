//! Every limit of a target is known before the first byte is written to it: provoked on real servers, refused or told, and nothing
//! was written then.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use redtape_journal::Micros;
use redtape_journal::query::When;
use redtape_net::Connector;
use redtape_net::tls::ClientTls;
use redtape_restore::ErrorKind::{Denied, Unavailable};
use redtape_restore::client::{CommandNames, Server as Client, Value};
use redtape_restore::plan::LimitState;
use redtape_restore::target::repair::{OnConflict, Policy, TtlPolicy};
use redtape_restore::undo::{UndoRequest, prepare_undo};
use redtape_restore::{
    ErrorKind, Event, Filter, ForcedMethod, Method, Observer, Plan, Report, Request, RestoreError, ServerAddress,
    Silent, Target, prepare,
};
use support::record::Recorder;
use support::{AtStep, Running, request, restore, run, version};

/// A journal of a server on which these ran.
fn journal_of(server: &[&str], lines: &[&str]) -> (tempfile::TempDir, Micros) {
    let dir = tempfile::tempdir().unwrap();
    let source = Running::start(server);
    let mut client = source.client();
    let mut recorder = Recorder::start(&dir.path().join("j"), &source);
    for line in lines {
        run(&mut client, line);
    }
    let at = recorder.catch_up();
    recorder.finish();
    (dir, at)
}

fn ask(journal: &(tempfile::TempDir, Micros), target: &Running, via: Option<ForcedMethod>) -> Request {
    request(&journal.0.path().join("j"), When::At(journal.1), target, via)
}

fn some(mut request: Request, glob: &str) -> Request {
    request.filter = Filter::new(&[glob], &[], &[]).unwrap();
    request
}

/// As another user.
fn by(mut request: Request, target: &Running, user: &str) -> Request {
    request.to = Target::Server(format!("redis://{user}:pw@127.0.0.1:{}", target.port).parse().unwrap());
    request
}

/// With other names for commands.
fn naming(mut request: Request, pairs: &[&str]) -> Request {
    let Target::Server(address) = &mut request.to else { panic!("a server") };
    for pair in pairs {
        address.commands.add(pair).unwrap();
    }
    request
}

/// What a server did that changes its data, role or functions.
fn writes(client: &mut Client) -> Vec<String> {
    let Ok(info) = client.info(Some("commandstats")) else { panic!("INFO") };
    let names = [
        "restore",
        "hset",
        "hdel",
        "del",
        "set",
        "flushall",
        "replicaof",
        "slaveof",
        "function|restore",
        "rename",
        "unlink",
        "eval",
    ];
    let called = |name: &&str| {
        let stats = info.get(&format!("cmdstat_{name}"))?;
        Some(format!("{name}: {stats}"))
    };
    names.iter().filter_map(called).filter(|stats| !stats.contains("calls=0")).collect()
}

#[track_caller]
fn refused(result: Result<impl std::fmt::Debug, RestoreError>, kind: ErrorKind, words: &[&str]) -> String {
    let error = result.unwrap_err();
    let text = error.to_string();
    assert_eq!(error.kind(), kind, "{text}");
    for word in words {
        assert!(text.contains(word), "{word:?} is not in: {text}");
    }
    text
}

#[track_caller]
fn limit(plan: &Plan, name: &str) -> (LimitState, String) {
    let found = plan.limits.iter().find(|limit| limit.name == name);
    let found = found.unwrap_or_else(|| panic!("{name}: {:?}", plan.limits));
    (found.state, found.text.clone())
}

fn observed(request: &Request, observer: &mut dyn Observer) -> Result<Report, RestoreError> {
    prepare(request, &mut Silent)?.run(observer)
}

#[test]
fn too_few_databases() {
    let mut lines: Vec<String> = (0..50).map(|n| format!("SET key:{n} v")).collect();
    lines.extend(["SELECT 20".to_owned(), "SET key:last v".to_owned()]);
    let journal = journal_of(&["--databases", "32"], &lines.iter().map(String::as_str).collect::<Vec<_>>());
    let target = Running::start(&[]);
    let mut client = target.client();
    let few = "ACL SETUSER few on >pw ~* +@all -config";
    run(&mut client, few);
    for hidden in [false, true] {
        let ask = |via| {
            let request = ask(&journal, &target, via);
            if hidden { by(request, &target, "few") } else { request }
        };
        let (whole, copy) = (ask(None), ask(Some(ForcedMethod::Scratch)));
        for request in [&whole, &copy] {
            let prepared = prepare(request, &mut Silent).unwrap();
            let (state, text) = limit(prepared.plan(), "databases");
            assert_eq!(state, LimitState::Open, "{text}");
            assert!(text.contains("16 databases") && text.contains("database 20"), "{text}");
            let json = serde_json::to_value(&prepared.plan().limits[0]).unwrap();
            assert_eq!((&json["target"], &json["needed"], &json["state"]), (&16.into(), &21.into(), &"open".into()));
            refused(prepared.run(&mut Silent), Unavailable, &["database", "20", "`databases` setting"]);
            assert_eq!((writes(&mut client), run(&mut client, "DBSIZE")), (Vec::new(), Value::Int(0)), "{hidden}");
        }
        // Some keys are looked for in the target before there is a plan.
        refused(restore(&some(copy, "key:*")), Unavailable, &["database", "20", "`databases` setting"]);
        assert_eq!((writes(&mut client), run(&mut client, "DBSIZE")), (Vec::new(), Value::Int(0)), "{hidden}");
    }
    // What is not there at the time is not missed.
    let mut first = ask(&journal, &target, None);
    first.filter = Filter::new(&["key:*"], &[], &[0]).unwrap();
    assert_eq!(restore(&first).unwrap().1.keys[&0], 50);
}

#[test]
fn too_few_databases_for_the_base() {
    let dir = tempfile::tempdir().unwrap();
    let source = Running::start(&["--databases", "32"]);
    let mut client = source.client();
    for line in ["SET k v", "SELECT 20", "SET last v", "SELECT 0"] {
        run(&mut client, line);
    }
    let mut recorder = Recorder::start(&dir.path().join("j"), &source);
    run(&mut client, "SET l w");
    let journal = (dir, recorder.catch_up());
    recorder.finish();
    // Sent to it as it is, the base would end the target.
    let target = Running::start(&[]);
    let mut client = target.client();
    for via in [None, Some(ForcedMethod::Link), Some(ForcedMethod::Scratch)] {
        let request = ask(&journal, &target, via);
        let prepared = prepare(&request, &mut Silent).unwrap();
        if via != Some(ForcedMethod::Scratch) {
            assert_eq!(prepared.plan().method, Method::LinkFromScratch, "{}", prepared.plan().reason);
            assert_eq!(limit(prepared.plan(), "databases").0, LimitState::Open);
        }
        refused(prepared.run(&mut Silent), Unavailable, &["has 16 databases", "database 20", "nothing was written"]);
        assert_eq!((writes(&mut client), run(&mut client, "DBSIZE")), (Vec::new(), Value::Int(0)), "{via:?}");
    }
}

/// A value that does not compress.
fn noise(bytes: usize) -> String {
    let mut seed = 7u64;
    let mut next = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from(b'0' + (seed >> 58) as u8)
    };
    std::iter::repeat_with(&mut next).filter(|c| *c != '\\').take(bytes).collect()
}

#[test]
fn values_that_are_too_large() {
    let (string, field) = (format!("SET string {}", noise(2 << 20)), noise(40_000));
    let fields: Vec<String> = (0..40).map(|n| format!("HSET hash f{n} {field}{n}")).collect();
    let mut lines = vec!["SET small v", string.as_str()];
    lines.extend(fields.iter().map(String::as_str));
    let journal = journal_of(&[], &lines);
    let wide = journal_of(&[], &[&format!("HSET wide f {}", noise(1_200_000))]);
    for setting in ["proto-max-bulk-len", "client-query-buffer-limit"] {
        let target = Running::start(&[&format!("--{setting}"), "1mb"]);
        let mut client = target.client();
        let copy = ask(&journal, &target, Some(ForcedMethod::Scratch));
        let prepared = prepare(&copy, &mut Silent).unwrap();
        assert_eq!(limit(prepared.plan(), "value").0, LimitState::Open);
        let words =
            ["2 values are too large", "\"string\" in db 0 (2097", "\"hash\" in db 0 (1600", setting, "CONFIG SET"];
        refused(prepared.run(&mut Silent), Unavailable, &words);
        assert_eq!(writes(&mut client), Vec::<String>::new());
        // Some keys go in pieces, if each element of theirs is small enough, and over the link values have no such limit. The server
        // measures strings as a whole by the first of these settings.
        let (glob, keys) = if setting == "proto-max-bulk-len" {
            let words = ["1 value is too large", "\"string\" in db 0 (2097", setting, "CONFIG SET"];
            refused(restore(&some(copy.clone(), "*")), Unavailable, &words);
            assert_eq!(writes(&mut client), Vec::<String>::new());
            ("[hs][am]*", 2)
        } else {
            ("*", 3)
        };
        let prepared = prepare(&some(copy.clone(), glob), &mut Silent).unwrap();
        assert_eq!(limit(prepared.plan(), "value").0, LimitState::Open);
        assert_eq!(prepared.run(&mut Silent).unwrap().keys[&0], keys);
        assert_eq!(run(&mut client, "STRLEN string"), Value::Int(if keys == 3 { 2 << 20 } else { 0 }));
        assert_eq!(run(&mut client, "HLEN hash"), Value::Int(40));
        run(&mut client, "FLUSHALL");
        run(&mut client, "CONFIG RESETSTAT");
        let words = ["1 value is too large", "\"wide\" in db 0 (", setting, "CONFIG SET"];
        refused(restore(&some(ask(&wide, &target, None), "*")), Unavailable, &words);
        assert_eq!(writes(&mut client), Vec::<String>::new());
        assert_eq!(restore(&ask(&journal, &target, None)).unwrap().1.keys[&0], 3);
        run(&mut client, "FLUSHALL");
        // With another setting it does what it was told.
        run(&mut client, &format!("CONFIG SET {setting} 3mb"));
        assert_eq!(restore(&copy).unwrap().1.keys[&0], 3);
    }
}

/// The names under which the commands of a restore go.
const RENAMED: [&str; 15] = [
    "AUTH", "ACL", "CLIENT", "COMMAND", "CONFIG", "DUMP", "EXISTS", "FUNCTION", "HDEL", "HGETALL", "HSET", "INFO",
    "RESTORE", "SELECT", "TIME",
];

#[test]
fn renamed_commands() {
    let journal = journal_of(&[], &["SET k v", "SELECT 3", "SET l w"]);
    let known = |name: &&&str| **name != "FUNCTION" || version().has_redis(7, 0);
    let new: Vec<[String; 3]> = RENAMED
        .iter()
        .filter(known)
        .map(|name| ["--rename-command".to_owned(), (*name).to_owned(), format!("my{name}")])
        .collect();
    let args: Vec<&str> = new.iter().flatten().map(String::as_str).collect();
    let target = Running::start(&args);
    let mut client = target.client();
    let pairs: Vec<String> = new.iter().map(|[_, old, new]| format!("{}={new}", old.to_ascii_lowercase())).collect();
    let pairs: Vec<&str> = pairs.iter().map(String::as_str).collect();
    let copy = ask(&journal, &target, Some(ForcedMethod::Scratch));
    let (plan, report) = restore(&naming(copy, &pairs)).unwrap();
    assert_eq!(report.keys, [(0, 1), (3, 1)].into(), "{report:?}");
    assert!(limit(&plan, "commands").1.contains("RESTORE"), "{:?}", plan.limits);
    assert_eq!(run(&mut client, "GET k"), Value::Bytes(b"v".to_vec()));
    run(&mut client, "FLUSHALL");
    // The link itself knows SELECT by its own name only.
    let (plan, _) = restore(&naming(ask(&journal, &target, None), &pairs)).unwrap();
    assert_eq!(plan.method, Method::Scratch, "{}", plan.reason);
    assert!(plan.reason.contains("another name for SELECT"), "{}", plan.reason);

    let target = Running::start(&["--rename-command", "RESTORE", "r1", "--rename-command", "FLUSHALL", "f1"]);
    let copy = ask(&journal, &target, Some(ForcedMethod::Scratch));
    let words = ["does not know RESTORE", "--target-command RESTORE="];
    refused(prepare(&copy, &mut Silent), Unavailable, &words);
    refused(prepare(&some(copy.clone(), "*"), &mut Silent), Unavailable, &words);
    // Without FLUSHALL a link that fails could not be undone.
    let whole = ask(&journal, &target, None);
    refused(prepare(&whole, &mut Silent), Unavailable, &words);
    let named = naming(whole.clone(), &["RESTORE=r1"]);
    let plan = prepare(&named, &mut Silent).unwrap().plan().clone();
    assert!(plan.method == Method::Scratch && plan.reason.contains("FLUSHALL"), "{}", plan.reason);
    assert_eq!(writes(&mut target.client()), Vec::<String>::new());
    let both = naming(whole, &["RESTORE=r1", "FLUSHALL=f1"]);
    let (plan, _) = restore(&both).unwrap();
    assert_ne!(plan.method, Method::Scratch, "{}", plan.reason);
}

#[test]
fn a_command_of_the_journal_with_another_name_goes_by_a_scratch_server() {
    let journal = journal_of(&[], &["SET k v", "SET l v", "DEL k"]);
    let target = Running::start(&["--rename-command", "DEL", "d1"]);
    let whole = ask(&journal, &target, None);
    if !version().has_field_ttl() {
        refused(prepare(&whole, &mut Silent), Unavailable, &["does not know DEL", "--target-command"]);
    }
    let (plan, report) = restore(&naming(whole, &["DEL=d1"])).unwrap();
    assert_eq!((plan.method, &report.keys), (Method::LinkFromScratch, &[(0, 1)].into()), "{}", plan.reason);
}

/// Rules of an access list as `docs/restore.md` has them: what a method needs, and what is useful.
fn documented(method: &str) -> (String, String) {
    let docs = include_str!("../../docs/restore.md");
    let line = docs.lines().find_map(|line| line.strip_prefix(&format!("- {method}: "))).unwrap();
    let parts: Vec<&str> = line.split('`').collect();
    let (required, useful) = (parts[1], parts.get(3).copied().unwrap_or_default());
    let known = |rules: &str| {
        let known = |rule: &&str| match *rule {
            "+pttl" => !version().has_redis(7, 0),
            "+hpexpireat" | "+hpexpiretime" => version().has_field_ttl(),
            "+pexpiretime" | "+acl|dryrun" => version().has_redis(7, 0),
            rule => version().has_redis(7, 0) || !rule.starts_with("+function"),
        };
        rules.split(' ').filter(known).collect::<Vec<_>>().join(" ")
    };
    (known(required), known(useful))
}

#[test]
fn each_method_works_with_exactly_the_documented_rights() {
    let journal = journal_of(&[], &["SET k v", "SELECT 3", "SET l w PX 100000000", "RPUSH m 1"]);
    for (name, via) in [("copy", ForcedMethod::Scratch), ("link", ForcedMethod::Link)] {
        let target = Running::start(&[]);
        let mut client = target.client();
        let (required, useful) = documented(name);
        for rules in [format!("{required} {useful}"), required.clone()] {
            run(&mut client, &format!("ACL SETUSER least reset on >pw ~* {rules}"));
            let request = by(ask(&journal, &target, Some(via)), &target, "least");
            let (plan, report) = restore(&request).unwrap_or_else(|e| panic!("{name} {rules}: {e}"));
            assert_eq!(report.keys, [(0, 1), (3, 2)].into());
            let all = rules.len() > required.len();
            let complete =
                plan.limits.iter().all(|limit| limit.state == LimitState::Fits || limit.name == "persistence");
            assert!(complete == all, "{rules}: {:?}", plan.limits);
            run(&mut client, "FLUSHALL");
            run(&mut client, "CONFIG RESETSTAT");
        }
        // Without one of them it is not begun.
        for missing in required.split(' ') {
            let rules = format!("{required} {useful}").replace(missing, "");
            run(
                &mut client,
                &format!(
                    "ACL SETUSER least reset on >pw ~* {}",
                    rules.split_whitespace().collect::<Vec<_>>().join(" ")
                ),
            );
            let request = by(ask(&journal, &target, Some(via)), &target, "least");
            let kind = if name == "link" && missing != "+info" { Unavailable } else { Denied };
            let text = refused(restore(&request), kind, &[]).to_lowercase();
            assert!(text.contains(&missing[1..]), "{missing}: {text}");
            assert_eq!(writes(&mut client), Vec::<String>::new(), "{missing}");
        }
    }
}

/// What a target holds before a repair: a key that is lacking, others that differ, one that did not exist.
fn damage(client: &mut Client) {
    for line in [
        "FLUSHALL",
        "SET equal v",
        "SET different other",
        "HSET hash a 1 b other",
        "SADD set a x",
        "ZADD zset 1 a",
        "SET ttl v PX 50000000",
        "SET added v",
        "CONFIG RESETSTAT",
    ] {
        run(client, line);
    }
}

const UNDAMAGED: [&str; 7] = [
    "SET lacking v",
    "SET equal v",
    "SET different v",
    "HSET hash a 1 b 2",
    "SADD set a b",
    "ZADD zset 1 a 2 b",
    "SET ttl v PX 100000000",
];

/// Policies of repairs, with the name under which the documentation has their rights.
fn repairs() -> [(Option<&'static str>, Policy); 5] {
    let of = |on_conflict| Policy { on_conflict, ..Policy::default() };
    [
        (None, of(OnConflict::Skip)),
        (Some("replace"), of(OnConflict::Replace)),
        (Some("merge"), of(OnConflict::Merge)),
        (Some("--delete-absent"), Policy { delete_absent: true, ..of(OnConflict::Skip) }),
        (Some("--replace-all"), Policy::replace_all(TtlPolicy::Absolute)),
    ]
}

fn repair(request: Request, state_dir: &tempfile::TempDir, policy: &Policy) -> Request {
    let state_dir = Some(state_dir.path().join("state"));
    Request { repair: Some(policy.clone()), state_dir, ..some(request, "*") }
}

/// The keys that a policy has put right.
#[track_caller]
fn repaired(client: &mut Client, policy: &Policy) {
    let [lacking, different, added] = ["GET lacking", "GET different", "EXISTS added"].map(|line| run(client, line));
    assert_eq!(lacking, Value::Bytes(b"v".to_vec()), "{policy:?}");
    let value: &[u8] = if policy.on_conflict == OnConflict::Replace { b"v" } else { b"other" };
    assert_eq!(different, Value::Bytes(value.to_vec()), "{policy:?}");
    assert_eq!(added, Value::Int(i64::from(!(policy.delete_absent || policy.replace_all))), "{policy:?}");
    let whole = i64::from(matches!(policy.on_conflict, OnConflict::Replace | OnConflict::Merge));
    assert_eq!(run(client, "SISMEMBER set b"), Value::Int(whole), "{policy:?}");
}

#[test]
fn each_repair_works_with_exactly_the_documented_rights() {
    let journal = journal_of(&[], &UNDAMAGED);
    let target = Running::start(&[]);
    let mut client = target.client();
    let (each, useful) = documented("repair");
    for (name, policy) in repairs() {
        let state = tempfile::tempdir().unwrap();
        let more = name.map(|name| documented(&format!("repair with `{name}`")).0).unwrap_or_default();
        let required = format!("{each} {more}").trim_end().to_owned();
        let request = repair(by(ask(&journal, &target, None), &target, "least"), &state, &policy);
        for rules in [required.clone(), format!("{required} {useful}")] {
            damage(&mut client);
            run(&mut client, &format!("ACL SETUSER least reset on >pw ~* {rules}"));
            restore(&request).unwrap_or_else(|e| panic!("{name:?} {rules}: {e}"));
            repaired(&mut client, &policy);
        }
        damage(&mut client);
        for missing in required.split(' ') {
            let rules: Vec<&str> =
                required.split(' ').chain(useful.split(' ')).filter(|rule| *rule != missing).collect();
            run(&mut client, &format!("ACL SETUSER least reset on >pw ~* {}", rules.join(" ")));
            let text = refused(restore(&request), Denied, &[]).to_lowercase();
            assert!(text.contains(&missing[1..]), "{missing}: {text}");
            assert_eq!(writes(&mut client), Vec::<String>::new(), "{name:?} without {missing}");
        }
    }
}

#[test]
fn repairs_and_their_undo_go_by_other_names_of_commands() {
    let journal = journal_of(&[], &UNDAMAGED);
    let names = documented("repair with `merge`").0 + " " + &documented("repair").0 + " +scan +eval +hgetall +time";
    let mut names: Vec<String> = names.split(' ').map(|rule| rule[1..].to_ascii_uppercase()).collect();
    names.sort_unstable();
    names.dedup();
    let new: Vec<[String; 3]> =
        names.iter().map(|name| ["--rename-command".to_owned(), name.clone(), format!("my{name}")]).collect();
    let args: Vec<&str> = new.iter().flatten().map(String::as_str).collect();
    let pairs: Vec<String> = names.iter().map(|name| format!("{name}=my{name}")).collect();
    let pairs: Vec<&str> = pairs.iter().map(String::as_str).collect();
    for (_, policy) in repairs() {
        let (target, state) = (Running::start(&args), tempfile::tempdir().unwrap());
        let mut client = named(&target, &pairs);
        damage(&mut client);
        let request = naming(repair(ask(&journal, &target, None), &state, &policy), &pairs);
        let prepared = prepare(&request, &mut Silent).unwrap();
        let file = prepared.plan().repair.as_ref().unwrap().undo_file.clone();
        prepared.run(&mut Silent).unwrap_or_else(|e| panic!("{policy:?}: {e}"));
        repaired(&mut client, &policy);
        let Target::Server(to) = request.to.clone() else { panic!("a server") };
        let undo = UndoRequest {
            file: file.into(),
            keyring: request.keyring.clone(),
            to,
            replace: false,
            state_dir: Some(state.path().join("undo")),
            interrupt: request.interrupt.clone(),
            limits: request.limits,
        };
        let outcome = prepare_undo(undo).unwrap().run(&mut Silent).unwrap();
        assert_eq!(outcome.left, 0, "{policy:?}: {:?}", outcome.listed);
        for (line, held) in [("EXISTS lacking", 0), ("EXISTS added", 1), ("SISMEMBER set b", 0), ("SISMEMBER set x", 1)]
        {
            assert_eq!(run(&mut client, line), Value::Int(held), "{policy:?} {line}");
        }
        assert_eq!(run(&mut client, "GET different"), Value::Bytes(b"other".to_vec()), "{policy:?}");
    }
}

/// A client of a server in which commands have these names.
fn named(target: &Running, pairs: &[&str]) -> Client {
    let mut names = CommandNames::default();
    for pair in pairs {
        names.add(pair).unwrap();
    }
    let connector = Connector::new(target.url().parse().unwrap(), &ClientTls::default()).unwrap();
    Client::open(connector, names).unwrap()
}

#[test]
fn keys_that_may_not_be_written() {
    let journal = journal_of(&[], &["SET app:1 v", "SET app:2 v", "SET other v"]);
    let target = Running::start(&[]);
    let mut client = target.client();
    let (required, useful) = documented("copy");
    for rules in [format!("{required} {useful}"), format!("{required} +multi +discard")] {
        run(&mut client, &format!("ACL SETUSER app reset on >pw ~app:* ~redtape:unfinished-restore {rules}"));
        let copy = by(ask(&journal, &target, Some(ForcedMethod::Scratch)), &target, "app");
        assert_eq!(
            limit(prepare(&copy, &mut Silent).unwrap().plan(), "rights").0,
            if rules.contains("multi") { LimitState::Lacks } else { LimitState::Open }
        );
        refused(restore(&copy), Denied, &["other", "Nothing was written"]);
        assert_eq!(writes(&mut client), Vec::<String>::new());
        // Some keys need what a repair needs.
        refused(restore(&some(copy.clone(), "app:*")), Denied, &["does not allow"]);
        let (required, useful) = documented("repair");
        let rules =
            if rules.contains("dryrun") { format!("{required} {useful}") } else { format!("{required} +discard") };
        let keys = "~app:* ~redtape:unfinished-restore ~redtape:tmp:*";
        run(&mut client, &format!("ACL SETUSER app reset on >pw {keys} {rules}"));
        assert_eq!(restore(&some(copy, "app:*")).unwrap().1.keys[&0], 2);
        run(&mut client, "FLUSHALL");
        run(&mut client, "CONFIG RESETSTAT");
    }
}

/// Takes its time where a step begins.
struct Slow<'a>(&'a [&'static str]);

impl Observer for Slow<'_> {
    fn on(&mut self, event: &Event<'_>) {
        if let Event::Step { name, .. } = event
            && self.0.contains(name)
        {
            std::thread::sleep(Duration::from_millis(2600));
        }
    }
}

#[test]
fn a_target_that_cuts_idle_connections() {
    let journal = journal_of(&[], &["SET k v", "SET l v"]);
    for via in [ForcedMethod::Scratch, ForcedMethod::Link] {
        let target = Running::start(&["--timeout", "1"]);
        let request = ask(&journal, &target, Some(via));
        // While the journal is read, a person is asked, a scratch server replays, and at each later step.
        let prepared = prepare(&request, &mut Slow(&["reading the journal"])).unwrap();
        std::thread::sleep(Duration::from_millis(2600));
        let steps = ["sending the base", "replaying the journal", "copying keys", "looking at the target again"];
        let report = prepared.run(&mut Slow(&steps)).unwrap();
        assert_eq!(report.keys[&0], 2);
    }
}

#[test]
fn a_target_that_persists_nothing_is_told() {
    let journal = journal_of(&[], &["SET k v"]);
    let said = |report: &Report| report.warnings.iter().any(|w| w.contains("persists nothing"));
    for via in [ForcedMethod::Scratch, ForcedMethod::Link] {
        let target = Running::start(&[]);
        let (plan, report) = restore(&ask(&journal, &target, Some(via))).unwrap();
        assert!(said(&report) && limit(&plan, "persistence").0 == LimitState::Lacks, "{report:?}");
        assert!(plan.to_string().contains("lacks        persistence: the target persists nothing"), "{plan}");
        for keeps in [["--appendonly", "yes"], ["--save", "900 1"]] {
            let target = Running::start(&keeps);
            let (plan, report) = restore(&ask(&journal, &target, Some(via))).unwrap();
            assert!(!said(&report) && limit(&plan, "persistence").0 == LimitState::Fits, "{report:?}");
        }
    }
    let target = Running::start(&[]);
    run(&mut target.client(), "ACL SETUSER few on >pw ~* +@all -config");
    let (plan, report) = restore(&by(ask(&journal, &target, None), &target, "few")).unwrap();
    assert!(!said(&report), "{report:?}");
    assert_eq!(limit(&plan, "persistence").0, LimitState::Unknown, "{:?}", plan.limits);
    assert!(plan.to_string().contains("unknown      persistence"), "{plan}");
}

#[test]
fn a_server_that_wants_replicas_or_local_clients() {
    let journal = journal_of(&[], &["SET k v"]);
    let target = Running::start(&["--min-replicas-to-write", "2"]);
    let copy = ask(&journal, &target, Some(ForcedMethod::Scratch));
    refused(prepare(&copy, &mut Silent), Unavailable, &["min-replicas-to-write", "0 of the replicas"]);
    assert_eq!(writes(&mut target.client()), Vec::<String>::new());

    let Some(own) = own_address() else { return };
    let target = Running::start(&["--bind", "0.0.0.0", "--protected-mode", "yes"]);
    let mut remote = copy;
    remote.to = Target::Server(format!("redis://{own}:{}", target.port).parse::<ServerAddress>().unwrap());
    refused(prepare(&remote, &mut Silent), Unavailable, &["protected mode", "requirepass"]);
}

/// An address of this machine that is none of the loopback's.
fn own_address() -> Option<std::net::IpAddr> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    socket.local_addr().ok().map(|address| address.ip()).filter(|ip| !ip.is_loopback() && !ip.is_unspecified())
}

/// Keeps the plan that is shown.
struct Kept<'a>(&'a mut Option<Plan>);
impl Observer for Kept<'_> {
    fn on(&mut self, event: &Event<'_>) {
        if let Event::Planned(plan) = event {
            *self.0 = Some((*plan).clone());
        }
    }
}

#[test]
fn what_is_told_of_limits_is_the_same_with_and_without_a_plan() {
    let journal = journal_of(&[], &["SET k v"]);
    let target = Running::start(&[]);
    let request = some(ask(&journal, &target, None), "k");
    let plan = prepare(&request, &mut Silent).unwrap().plan().clone();
    let mut shown = None;
    prepare(&request, &mut Kept(&mut shown)).unwrap().run(&mut Silent).unwrap();
    assert_eq!(shown.unwrap().limits, plan.limits);
    let text = plan.to_string();
    assert!(text.contains("target has   16 databases; no maxmemory; values up to 536870912 bytes"), "{text}");
}

#[test]
fn room_that_is_lost_in_the_middle_is_still_told() {
    // What is known before is not all: the checks on the way stay.
    let journal = journal_of(&[], &["SET k v", "SET l v"]);
    let target = Running::start(&[]);
    let mut during = AtStep::new("copying keys", 0, || {
        run(&mut target.client(), "CONFIG SET maxmemory 1");
    });
    let request = ask(&journal, &target, Some(ForcedMethod::Scratch));
    refused(observed(&request, &mut during), Unavailable, &["OOM"]);
}
