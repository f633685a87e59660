//! A restore that somebody ends leaves nothing half done, or says what it leaves.
#![allow(clippy::unwrap_used)]

mod support;

use redtape_journal::Micros;
use redtape_journal::query::When;
use redtape_restore::client::{Server as Client, Value};
use redtape_restore::{ErrorKind, Event, Filter, ForcedMethod, Interrupt, Observer, prepare};
use support::record::Recorder;
use support::{Running, request, run, version};

/// Ends the restore when a step begins.
struct EndAt {
    step: &'static str,
    interrupt: Interrupt,
    reached: bool,
}

impl Observer for EndAt {
    fn on(&mut self, event: &Event<'_>) {
        if matches!(event, Event::Step { name, .. } if *name == self.step) {
            self.reached = true;
            self.interrupt.set();
        }
    }
}

fn journal() -> (tempfile::TempDir, Micros) {
    let dir = tempfile::tempdir().unwrap();
    let source = Running::start(&[]);
    let mut client = source.client();
    for n in 0..40 {
        run(&mut client, &format!("SET base:{n} v"));
    }
    let mut recorder = Recorder::start(dir.path(), &source);
    for n in 0..2000 {
        run(&mut client, &format!("SET key:{n} v"));
    }
    let at = recorder.catch_up();
    recorder.finish();
    (dir, at)
}

/// The message with which a restore ends that is ended at this step.
fn ended_at(
    step: &'static str,
    dir: &tempfile::TempDir,
    at: Micros,
    target: &Running,
    via: Option<ForcedMethod>,
) -> String {
    let mut request = request(dir.path(), When::At(at), target, via);
    if step == "comparing with the target" {
        request.filter = Filter::new(&["key:*"], &[], &[]).unwrap();
    }
    let mut observer = EndAt { step, interrupt: request.interrupt.clone(), reached: false };
    let error = prepare(&request, &mut observer).and_then(|prepared| prepared.run(&mut observer)).unwrap_err();
    assert!(observer.reached, "{step}: {error}");
    assert_eq!(error.kind(), ErrorKind::Interrupted, "{step}: {error}");
    error.to_string()
}

#[track_caller]
fn assert_untouched(client: &mut Client) {
    let info = client.info(None).unwrap();
    assert_eq!((info.get("role"), info.keyspace().len()), (Some("master"), 0));
    run(client, "SET writable 1");
    run(client, "DEL writable");
}

#[test]
fn over_the_link_the_target_is_detached_and_emptied_again() {
    let (dir, at) = journal();
    let via_scratch = version().has_field_ttl();
    for step in ["sending the base", "replaying the journal"] {
        let target = Running::start(&[]);
        let message = ended_at(step, &dir, at, &target, Some(ForcedMethod::Link));
        // Where a scratch server goes first, the step is already that one's.
        let end = if via_scratch { "Nothing was written to the target" } else { "was detached and emptied again" };
        assert!(message.starts_with("interrupted. ") && message.ends_with(end), "{message}");
        assert_untouched(&mut target.client());
    }
}

#[test]
fn a_target_that_is_still_loading_is_waited_for() {
    if version().has_field_ttl() {
        return;
    }
    let (dir, at) = journal();
    // 40 keys of the base, 20 ms each.
    let target = Running::start(&["--key-load-delay", "20000"]);
    let message = ended_at("waiting for the server to load it", &dir, at, &target, None);
    assert!(message.ends_with("was detached and emptied again"), "{message}");
    assert_untouched(&mut target.client());
}

#[test]
fn by_copying_nothing_was_written_or_it_is_said_what() {
    let (dir, at) = journal();
    for step in ["replaying the journal", "comparing with the target", "copying keys"] {
        let target = Running::start(&[]);
        let message = ended_at(step, &dir, at, &target, Some(ForcedMethod::Scratch));
        assert_eq!(message, "interrupted. Nothing was written to the target", "{step}");
        assert_eq!(run(&mut target.client(), "DBSIZE"), Value::Int(0));
    }
}
