//! What a target holds makes room for what is wanted: expired keys, memory, function libraries.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use redtape_journal::query::When;
use redtape_restore::client::{Server, Value};
use redtape_restore::target::repair::{OnConflict, Outcome, Policy, TtlPolicy};
use redtape_restore::{ErrorKind, Request, RestoreError, Silent, prepare};
use support::record::Recorder;
use support::{Running, request, run, state, version};

/// A server, its journal, and a point in it behind these commands.
struct Recorded {
    server: Running,
    folder: tempfile::TempDir,
    at: When,
}

impl Recorded {
    fn new(write: impl FnOnce(&mut Server)) -> Self {
        let server = Running::start(&["--enable-debug-command", "yes"]);
        let folder = tempfile::tempdir().unwrap();
        let mut recorder = Recorder::start(&folder.path().join("j"), &server);
        write(&mut server.client());
        let at = When::At(recorder.catch_up());
        recorder.finish();
        Self { server, folder, at }
    }

    fn restore(&self, to: &Running, policy: Policy) -> Result<Outcome, RestoreError> {
        let dir = self.folder.path().join("j");
        let state_dir = Some(self.folder.path().join("state"));
        let request = Request { repair: Some(policy), state_dir, ..request(&dir, self.at.clone(), to, None) };
        Ok(prepare(&request, &mut Silent)?.run(&mut Silent)?.repair.unwrap())
    }

    fn replace_all(&self, to: &Running) -> Result<Outcome, RestoreError> {
        self.restore(to, Policy::replace_all(TtlPolicy::Absolute))
    }
}

#[test]
fn what_stands_under_a_wanted_key_that_has_expired_goes() {
    let recorded = Recorded::new(|client| {
        run(client, "SET gone 1 PX 400");
        run(client, "SET stays 1");
    });
    std::thread::sleep(Duration::from_millis(450));
    let mut client = recorded.server.client();
    run(&mut client, "SET gone live");
    let outcome = recorded.replace_all(&recorded.server).unwrap();
    assert_eq!((outcome.expired, outcome.deleted, outcome.equal), (1, 1, 1), "{outcome:?}");
    assert_eq!(run(&mut client, "EXISTS gone stays"), Value::Int(1));
}

#[test]
fn the_memory_of_what_goes_is_there_for_what_comes() {
    let fill = |client: &mut Server, with: &str| {
        for n in 0..64 {
            client.call(&["SET", &format!("{with}:{n}"), &"x".repeat(64 << 10)]).unwrap();
        }
    };
    let recorded = Recorded::new(|client| fill(client, "wanted"));
    let target = Running::start(&[]);
    let mut client = target.client();
    fill(&mut client, "other");
    // Room for one of both.
    let used = client.info(Some("memory")).unwrap().number("used_memory").unwrap();
    run(&mut client, &format!("CONFIG SET maxmemory {}", used + (2 << 20)));
    let beside = Policy { on_conflict: OnConflict::Replace, ..Policy::default() };
    assert_eq!(recorded.restore(&target, beside).unwrap_err().kind(), ErrorKind::Unavailable);
    let outcome = recorded.replace_all(&target).unwrap();
    assert_eq!((outcome.created, outcome.deleted, outcome.left), (64, 64, 0), "{outcome:?}");
    assert_eq!(run(&mut client, "DBSIZE"), Value::Int(64));
}

fn library(name: &str, value: u32) -> String {
    format!("#!lua name={name}\nredis.register_function('{name}_f', function() return {value} end)")
}

#[test]
fn function_libraries_follow_the_policy() {
    if !version().has_redis(7, 0) {
        return;
    }
    let load =
        |client: &mut Server, name, value| drop(client.call(&["FUNCTION", "LOAD", "REPLACE", &library(name, value)]));
    let recorded = Recorded::new(|client| {
        run(client, "SET a 1");
        for name in ["same", "other", "lacking"] {
            load(client, name, 1);
        }
    });
    let mut client = recorded.server.client();
    run(&mut client, "FUNCTION DELETE lacking");
    load(&mut client, "other", 2);
    load(&mut client, "more", 1);
    let mut call = |name: &str| client.try_call(&["FCALL", &format!("{name}_f"), "0"]).unwrap().value();
    let (one, two) = (Some(Value::Int(1)), Some(Value::Int(2)));
    let policy = |on_conflict| Policy { on_conflict, ..Policy::default() };
    let refused = recorded.restore(&recorded.server, policy(OnConflict::Fail)).unwrap_err();
    assert!(refused.to_string().contains("function library \"other\""), "{refused}");
    let kept = recorded.restore(&recorded.server, policy(OnConflict::Skip)).unwrap().libraries;
    assert_eq!((kept.loaded, kept.replaced, kept.removed), (1, 0, 0));
    assert_eq!(kept.left, ["\"other\": has other code"]);
    assert_eq!(["lacking", "other", "more"].map(&mut call), [one.clone(), two.clone(), one.clone()]);
    let replaced = recorded.restore(&recorded.server, policy(OnConflict::Replace)).unwrap().libraries;
    assert_eq!((replaced.loaded, replaced.replaced, replaced.removed, replaced.left.len()), (0, 1, 0, 0));
    assert_eq!(["lacking", "other", "more"].map(&mut call), [one.clone(), one.clone(), one.clone()]);
    let all = recorded.replace_all(&recorded.server).unwrap().libraries;
    assert_eq!((all.loaded, all.replaced, all.removed), (0, 0, 1));
    assert_eq!(["same", "other", "more"].map(&mut call), [one.clone(), one, None]);
}

#[test]
fn a_moment_without_keys_empties_the_target() {
    let recorded = Recorded::new(|client| {
        run(client, "SET a 1");
        run(client, "FLUSHALL");
    });
    let mut client = recorded.server.client();
    for line in ["SET b 1", "RPUSH c 1 2"] {
        run(&mut client, line);
    }
    let outcome = recorded.replace_all(&recorded.server).unwrap();
    assert_eq!((outcome.deleted, outcome.created), (2, 0), "{outcome:?}");
    assert!(!state(&mut client).iter().any(|line| line.starts_with("db ")));
}
