//! Removes the folder of a scratch server when the process that owns it was killed.
//!
//! A shell waits for the end of a pipe of which this process alone holds the other end. So it learns of every end of the process,
//! also of one in which nothing can be tidied up any more.

use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};

/// What the shell does; `$1` is the folder.
const SCRIPT: &str = "read -r _; rm -rf -- \"$1\"";
/// How it is called in a list of processes.
const NAME: &str = "redtape-cleanup";

/// Waits as long as it lives; dropped, it does its work, and has ended.
#[derive(Debug)]
pub(super) struct Reaper {
    /// First: its end lets the shell go on.
    pipe: Option<ChildStdin>,
    shell: Child,
}

impl Reaper {
    /// `None` where there is no shell: then the next restore removes the folder.
    pub(super) fn of(dir: &Path) -> Option<Self> {
        let mut shell = Command::new("/bin/sh")
            .args(["-c", SCRIPT, NAME])
            .arg(dir)
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            // Ctrl-C is for redtape.
            .process_group(0)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        Some(Self { pipe: shell.stdin.take(), shell })
    }
}

impl Drop for Reaper {
    fn drop(&mut self) {
        drop(self.pipe.take());
        // Removing takes as long as it takes.
        let _ = self.shell.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_goes_with_the_pipe() {
        let parent = tempfile::tempdir().expect("a folder");
        let dir = parent.path().join("it is 'one'");
        std::fs::create_dir(&dir).expect("a folder");
        std::fs::write(dir.join("file"), "x").expect("a file");
        let reaper = Reaper::of(&dir).expect("a shell");
        assert!(dir.join("file").exists());
        drop(reaper);
        assert!(!dir.exists() && parent.path().exists());
    }
}
