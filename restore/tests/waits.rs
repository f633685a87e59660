//! No server is waited for without a limit: scratch servers that hang at any step, and targets.
#![allow(clippy::unwrap_used)]

mod support;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use redtape_journal::Micros;
use redtape_restore::server::Value;
use redtape_restore::{Forced, Limits, Request, RestoreError, Silent, When, prepare};
use rustix::process::{Pid, Signal, kill_process};
use support::record::Recorder;
use support::{AtStep, Running, binary, children_of_ours, request, run};

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
    let mut request = request(&dir.path().join("j"), When::At(at), target, Some(Forced::Scratch));
    request.limits = SHORT;
    request
}

#[track_caller]
fn given_up(result: Result<impl std::fmt::Debug, RestoreError>, began: Instant, words: &[&str]) {
    let error = result.unwrap_err();
    let text = error.to_string();
    assert_eq!(error.exit_code(), 69, "{text}");
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
    let real = program();
    // It never listens; or it is stopped as soon as it does.
    let sleeps = format!("[ \"$1\" = --version ] && exec {0} --version; exec sleep 300", real.display());
    let stops = format!(
        "[ \"$1\" = --version ] && exec {0} --version; {0} \"$1\" & while [ ! -S s ]; do sleep 0.02; done; kill -STOP $!; wait",
        real.display()
    );
    for (text, words) in [(sleeps, "did not start"), (stops, "has not answered for")] {
        request.server_bin = Some(script(dir.path(), &text));
        let prepared = prepare(&request, &mut Silent).unwrap();
        let began = Instant::now();
        given_up(prepared.run(&mut Silent), began, &["the scratch server", words]);
        for pid in stopped_orphans(&real.canonicalize().unwrap()) {
            kill_process(Pid::from_raw(pid as i32).unwrap(), Signal::KILL).unwrap();
        }
    }
    assert_eq!(run(&mut target.client(), "DBSIZE"), Value::Int(0));
}

/// Scratch servers that lost their parent while they were stopped.
fn stopped_orphans(program: &Path) -> Vec<u32> {
    let is_one = |pid: &u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        rest.trim_start().starts_with('T')
            && line.contains("redtape-scratch-")
            && std::fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe == program)
    };
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    entries.filter_map(|e| e.file_name().to_str()?.parse().ok()).filter(is_one).collect()
}

#[test]
fn a_scratch_server_that_hangs_in_the_middle() {
    let _alone = alone();
    let (dir, at) = journal();
    let real = program().canonicalize().unwrap();
    for step in ["looking for conflicts", "copying keys", "looking at the target again"] {
        let target = Running::start(&[]);
        let mut request = ask(&dir, at, &target);
        if step == "looking for conflicts" {
            request.filter = redtape_restore::Filter::new(&["key:*"], &[], &[]).unwrap();
        }
        let others: Vec<u32> = children_of_ours(&real);
        let mut stop = AtStep::new(step, 0, || {
            let scratch: Vec<u32> = children_of_ours(&real).into_iter().filter(|pid| !others.contains(pid)).collect();
            assert_eq!(scratch.len(), 1, "{scratch:?}");
            kill_process(Pid::from_raw(scratch[0] as i32).unwrap(), Signal::STOP).unwrap();
        });
        let began = Instant::now();
        let result = prepare(&request, &mut Silent).unwrap().run(&mut stop);
        assert!(stop.reached(), "{step}");
        given_up(result, began, &["the scratch server has not answered for 3 s", "--server-bin", "its log ends"]);
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
