//! The demo tells its whole story, quickly, and leaves nothing behind: no process, no file, also when
//! it is interrupted or cannot begin.

use crate::harness::{Dir, tail, wait_for};
use rustix::process::{Pid, Signal, kill_process};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// One run with a folder for temporary files of its own, by which its processes can be told, too.
struct Demo {
    child: Child,
    tmp: Dir,
    logs: Dir,
    started: Instant,
}

impl Demo {
    fn start(settings: &[(&str, &str)]) -> Self {
        let (tmp, logs) = (Dir::new("demo"), Dir::new("demo-logs"));
        let create = |name: &str| std::fs::File::create(logs.join(name)).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_redtape"));
        command.arg("demo").env("TMPDIR", tmp.path()).envs(settings.iter().copied());
        command.stdin(Stdio::null()).stdout(create("stdout")).stderr(create("stderr"));
        Self { child: command.spawn().unwrap(), tmp, logs, started: Instant::now() }
    }

    fn said(&self, name: &str) -> String {
        tail(&self.logs.join(name), usize::MAX)
    }

    /// Waits for its end, looks at what it left behind, and gives its exit code.
    fn end(&mut self) -> Option<i32> {
        let status = wait_for("the demo's end", Duration::from_mins(1), || self.child.try_wait().unwrap());
        println!("{}\n{}", self.said("stdout"), self.said("stderr"));
        let left: Vec<_> = std::fs::read_dir(self.tmp.path()).unwrap().map(|e| e.unwrap().path()).collect();
        assert!(left.is_empty(), "files left behind: {left:?}");
        let left = self.processes();
        assert!(left.is_empty(), "processes left behind: {left:?}");
        status.code()
    }

    /// Everything that was started with this run's folder in its environment.
    fn processes(&self) -> Vec<String> {
        let marker = format!("TMPDIR={}", self.tmp.path().display());
        let folders = std::fs::read_dir("/proc").unwrap().map(|e| e.unwrap().path());
        let mine = |folder: &PathBuf| {
            let environment = std::fs::read(folder.join("environ")).unwrap_or_default();
            environment.split(|b| *b == 0).any(|pair| pair == marker.as_bytes())
        };
        let command = |folder: PathBuf| {
            let line = std::fs::read(folder.join("cmdline")).unwrap_or_default();
            format!("{}: {}", folder.display(), String::from_utf8_lossy(&line).replace('\0', " "))
        };
        folders.filter(mine).map(command).collect()
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn demo_runs_to_the_end_and_cleans_up() {
    // What is set for this machine's own journals must not matter.
    let mut demo = Demo::start(&[("REDTAPE_DIR", "/nonexistent"), ("REDTAPE_UPSTREAM", "redis://127.0.0.1:1")]);
    let code = demo.end();
    let took = demo.started.elapsed();
    let said = demo.said("stdout");
    assert_eq!(code, Some(0), "the exit code");
    assert!(took < Duration::from_mins(1), "it took {took:?}");
    assert_eq!(demo.said("stderr"), "", "nothing to complain about");
    for wanted in [
        "$ redtape proxy --upstream redis://127.0.0.1:",
        "FLUSHALL        # by somebody called intern",
        "0 keys left of ",
        "$ redtape journal cat --from ",
        " intern ",
        // A time, not a number: nothing else was written in the microsecond before.
        "--at is the FLUSHALL's time less a microsecond",
        "$ redtape restore --from ",
        "equal: every key, value and TTL to the millisecond, stream groups, functions",
        "In short: intern (127.0.0.1:",
        "its servers and files are gone again",
    ] {
        assert!(said.contains(wanted), "it does not say {wanted:?}");
    }
    for app in ["checkout", "cart", "analytics", "couriers", "mailer", "pricing", "sessions"] {
        assert!(said.lines().any(|l| l.trim().starts_with(app) && l.ends_with(" commands")), "it does not show {app}");
    }
    for kind in ["hash", "list", "set", "stream", "string", "zset"] {
        assert!(said.contains(kind), "it does not write a {kind}");
    }
    assert!(!said.contains('\x1b'), "no colour where nobody looks");
    let widest = said.lines().filter(|l| !l.contains("$ redtape")).map(|l| l.chars().count()).max().unwrap();
    assert!(widest <= 130, "a line of {widest} characters");
}

#[test]
fn an_interrupted_demo_cleans_up() {
    // Not begun; while it writes; while it waits for the journal, restores or compares.
    for (signal, after) in [(Signal::INT, 150), (Signal::TERM, 1500), (Signal::HUP, 2600)] {
        let mut demo = Demo::start(&[]);
        wait_for("the first line", Duration::from_secs(20), || demo.said("stdout").contains("redtape").then_some(()));
        std::thread::sleep(Duration::from_millis(after));
        kill_process(Pid::from_raw(demo.child.id() as i32).unwrap(), signal).expect("it still runs");
        let asked = Instant::now();
        let code = demo.end();
        assert!(asked.elapsed() < Duration::from_secs(10), "it took {:?} to end", asked.elapsed());
        assert_eq!(code, Some(130), "{signal:?} after {after} ms");
        assert!(demo.said("stderr").contains("interrupted"), "{}", demo.said("stderr"));
    }
}

#[test]
fn demo_without_a_server_gives_advice() {
    let mut demo = Demo::start(&[("PATH", "/nonexistent"), ("REDTAPE_SERVER_BIN", "")]);
    assert_eq!(demo.end(), Some(69), "unavailable");
    let mut demo = Demo::start(&[("PATH", "/nonexistent"), ("REDTAPE_SERVER_BIN", "/bin/false")]);
    assert_eq!(demo.end(), Some(69), "unavailable");
    assert!(demo.said("stderr").contains("/bin/false"), "{}", demo.said("stderr"));
}
