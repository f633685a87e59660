//! Commands that write to a live server, killed while they are at work.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Starts redtape with these arguments, silent, with a temporary directory of its own.
pub fn spawn(args: &[String], tmp: &Path) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_redtape"));
    if let Some(server) = std::env::var_os("REDTAPE_TEST_SERVER") {
        command.env("REDTAPE_SERVER_BIN", server);
    }
    command.args(args).env("TMPDIR", tmp);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("redtape")
}

/// The undo files below a state directory.
pub fn undo_files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(undo_files(&path));
        } else if path.extension().is_some_and(|e| e == "undo") {
            found.push(path);
        }
    }
    found
}

/// Kills it once its undo file is there, so long after; whether it was still at work.
pub fn kill(mut child: Child, state: &Path, after: Duration) -> bool {
    let started = Instant::now();
    while undo_files(state).is_empty() && child.try_wait().expect("its state").is_none() {
        assert!(started.elapsed() < Duration::from_mins(1), "it does not begin");
        std::thread::sleep(Duration::from_micros(100));
    }
    std::thread::sleep(after);
    let at_work = child.try_wait().expect("its state").is_none();
    let _ = child.kill();
    let _ = child.wait();
    at_work
}
