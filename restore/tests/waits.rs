//! No server is waited for without a limit: scratch servers that hang at any step, and targets.
#![allow(clippy::unwrap_used)]

mod support;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use redtape_journal::Micros;
use redtape_journal::query::When;
use redtape_restore::client::Value;
use redtape_restore::{ErrorKind, ForcedMethod, Limits, Request, RestoreError, Silent, prepare};
use rustix::process::{Pid, Signal, kill_process};
use support::record::Recorder;
use support::{AtStep, Running, binary, request, run, scratch_servers};

/// Far shorter than a person's, far longer than what a loaded machine needs for a small value.
const SHORT: Limits =
    Limits { reply: Duration::from_secs(3), start: Duration::from_secs(5), stall: Duration::from_secs(3) };
/// What a hang may cost on a loaded machine with [`SHORT`].
const PATIENCE: Duration = Duration::from_secs(45);

/// One test after the other: they tell their scratch servers by what this process has started.
static ALONE: std::sync::Mutex<()> = std::sync::Mutex::new(());

fn alone() -> std::sync::MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn journal() -> (tempfile::TempDir, Micros) {
    let dir = tempfile::tempdir().unwrap();
    let source = Running::start(&[]);
    let mut client = source.client();
    let mut recorder = Recorder::start(&dir.path().join("j"), &source);
    for n in 0..50 {
        run(&mut client, &format!("SET key:{n} v"));
    }
    let at = recorder.catch_up();
    recorder.finish();
    (dir, at)
}

fn ask(dir: &tempfile::TempDir, at: Micros, target: &Running) -> Request {
    let mut request = request(&dir.path().join("j"), When::At(at), target, Some(ForcedMethod::Scratch));
    request.limits = SHORT;
    request
}

#[track_caller]
fn given_up(result: Result<impl std::fmt::Debug, RestoreError>, began: Instant, words: &[&str]) {
    let error = result.unwrap_err();
    let text = error.to_string();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{text}");
    for word in words {
        assert!(text.contains(word), "{word:?} is not in: {text}");
    }
    assert!(began.elapsed() < PATIENCE, "after {:?}: {text}", began.elapsed());
}

/// The server's program: its path may be a link, as it looks at the name by which it is called.
fn program() -> PathBuf {
    let named = binary();
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&folders).map(|dir| dir.join(&named)).find(|path| path.is_file());
    found.unwrap_or(named)
}

/// A program in a server's place.
fn script(dir: &Path, text: &str) -> PathBuf {
    use std::os::unix::fs::PermissionsExt as _;
    let path = dir.join("server");
    std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

#[test]
fn a_program_that_does_not_tell_its_version() {
    let _alone = alone();
    let (dir, at) = journal();
    let target = Running::start(&[]);
    let mut request = ask(&dir, at, &target);
    for text in ["exec sleep 300", "sleep 300 & exit 0"] {
        request.server_bin = Some(script(dir.path(), text));
        let began = Instant::now();
        given_up(prepare(&request, &mut Silent), began, &["no scratch server", "--server-bin"]);
    }
}

#[test]
fn a_scratch_server_that_does_not_start() {
    let _alone = alone();
    let (dir, at) = journal();
    let target = Running::start(&[]);
    let mut request = ask(&dir, at, &target);
    // It tells where its configuration is, and sleeps.
    let told = dir.path().join("told");
    let text = format!(
        "[ \"$1\" = --version ] && exec {} --version; echo \"$1\" > {told}.new; mv {told}.new {told}; exec sleep 300",
        program().display(),
        told = told.display()
    );
    request.server_bin = Some(script(dir.path(), &text));
    let prepared = prepare(&request, &mut Silent).unwrap();
    let began = Instant::now();
    given_up(prepared.run(&mut Silent), began, &["the scratch server did not start"]);

    // Somebody accepts in its place and never answers.
    std::fs::remove_file(&told).unwrap();
    let silent = std::thread::spawn(move || {
        let start = Instant::now();
        let conf = loop {
            match std::fs::read_to_string(&told) {
                Ok(conf) => break conf,
                Err(_) => assert!(start.elapsed() < PATIENCE, "the scratch server is started"),
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        let socket = Path::new(conf.trim()).with_file_name("s");
        let listener = std::os::unix::net::UnixListener::bind(socket).unwrap();
        let accepted = listener.accept().unwrap();
        std::thread::sleep(SHORT.start * 2);
        drop(accepted);
    });
    let prepared = prepare(&request, &mut Silent).unwrap();
    let began = Instant::now();
    given_up(prepared.run(&mut Silent), began, &["the scratch server has not answered for 5 s", "--server-bin"]);
    silent.join().unwrap();
    assert_eq!(run(&mut target.client(), "DBSIZE"), Value::Int(0));
}

#[test]
fn a_scratch_server_that_hangs_in_the_middle() {
    let _alone = alone();
    let (dir, at) = journal();
    for step in [
        "sending the base",
        "waiting for the server to load it",
        "replaying the journal",
        "comparing with the target",
        "copying keys",
        "looking at the target again",
    ] {
        let target = Running::start(&[]);
        let mut request = ask(&dir, at, &target);
        if step == "comparing with the target" {
            request.filter = redtape_restore::Filter::new(&["key:*"], &[], &[]).unwrap();
        }
        let mut stop = AtStep::new(step, 0, || {
            let scratch = scratch_servers();
            assert_eq!(scratch.len(), 1, "{scratch:?}");
            kill_process(Pid::from_raw(scratch[0] as i32).unwrap(), Signal::STOP).unwrap();
        });
        let began = Instant::now();
        let result = prepare(&request, &mut stop).and_then(|prepared| prepared.run(&mut stop));
        assert!(stop.reached(), "{step}");
        given_up(result, began, &["the scratch server has not answered for 3 s", "--server-bin", "its log ends"]);
        assert_eq!(run(&mut target.client(), "EXISTS key:1"), Value::Int(i64::from(step.contains("again"))), "{step}");
    }
}

#[test]
fn a_target_that_hangs_in_the_middle() {
    let _alone = alone();
    let (dir, at) = journal();
    let target = Running::start(&[]);
    let pid = Pid::from_raw(target.pid() as i32).unwrap();
    let mut stop = AtStep::new("copying keys", 0, || kill_process(pid, Signal::STOP).unwrap());
    let began = Instant::now();
    let result = prepare(&ask(&dir, at, &target), &mut Silent).unwrap().run(&mut stop);
    kill_process(pid, Signal::CONT).unwrap();
    let address = format!("127.0.0.1:{} has not answered for 3 s", target.port);
    given_up(result, began, &[&address, "see in its log"]);
}
