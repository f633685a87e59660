//! What becomes of a defect: a panic ends the process with exit code 70, whichever thread it is in.
//!
//! Of a process that runs on (`proxy`, `follow`) no part may end unseen: applications would go on while nothing is
//! recorded, or hang. So a panic anywhere, in a thread, a task or a library, says what happened and ends the process at
//! once; what it leaves is what a crash leaves, from which the next start recovers. Parts that return although nothing has
//! stopped them panic as well (`redtape_proxy`, `parts.rs`).
//!
//! Other commands unwind, so that a restore puts its target back, and end with the same code.

use std::panic::PanicHookInfo;
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};

use crate::exit::SOFTWARE;
use crate::logging;

type Act = Box<dyn Fn() + Send>;

/// What is still done before the process ends.
static LAST_ACTS: Mutex<Vec<Act>> = Mutex::new(Vec::new());

/// From here on a panic of any thread ends the process.
pub(crate) fn end_process_at_panic() {
    std::panic::set_hook(Box::new(|info| {
        tell(info);
        // One that panics in here while it holds the lock must not wait for itself.
        if let Ok(acts) = LAST_ACTS.try_lock() {
            acts.iter().for_each(|act| act());
        }
        logging::flush();
        std::process::exit(i32::from(SOFTWARE));
    }));
}

/// Registers what is done before a defect ends the process: removing what a crash would leave behind and no other process removes.
pub(crate) fn at_end(act: impl Fn() + Send + 'static) {
    LAST_ACTS.lock().unwrap_or_else(PoisonError::into_inner).push(Box::new(act));
}

fn tell(info: &PanicHookInfo<'_>) {
    let thread = std::thread::current();
    let thread = thread.name().unwrap_or("?");
    let what = info.payload_as_str().unwrap_or("a panic without words");
    let place = info.location().map(ToString::to_string).unwrap_or_default();
    let backtrace = std::backtrace::Backtrace::capture();
    let backtrace = match backtrace.status() {
        std::backtrace::BacktraceStatus::Captured => format!("\n{backtrace}"),
        _ => String::new(),
    };
    if tracing::enabled!(tracing::Level::ERROR) {
        tracing::error!(thread, place, "a defect of redtape, please report it: {what}; the process ends{backtrace}");
    } else {
        // It is told though the log is off.
        logging::say(&format!(
            "redtape: a defect, please report it: {what} ({place}, thread {thread}); the process ends{backtrace}\n"
        ));
    }
}

/// Runs a command that ends by itself; a panic becomes its exit code.
pub(crate) fn caught(run: impl FnOnce() -> ExitCode) -> ExitCode {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).unwrap_or_else(|_| ExitCode::from(SOFTWARE))
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};
    use std::time::Duration;

    use super::*;

    /// What the child of these tests does; not set = it is no child.
    const CHILD: &str = "REDTAPE_TEST_DEFECT";

    /// Runs this test binary again, with that one test; gives its exit code and what it said.
    fn child(does: &str) -> (Option<i32>, String) {
        let output = Command::new(std::env::current_exe().expect("this binary"))
            .args(["--exact", "defect::tests::as_a_child", "--nocapture", "--test-threads=1"])
            .env(CHILD, does)
            .stdin(Stdio::null())
            .output()
            .expect("a child");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    }

    #[test]
    fn as_a_child() {
        let Ok(does) = std::env::var(CHILD) else { return };
        let filter = if does == "silent" { "off" } else { "info" };
        logging::start(tracing_subscriber::EnvFilter::new(filter), false, true);
        if does == "caught" {
            std::process::exit(if caught(|| panic!("on purpose")) == ExitCode::from(SOFTWARE) { 33 } else { 1 });
        }
        end_process_at_panic();
        at_end(|| logging::say("the last act\n"));
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        match does.as_str() {
            "thread" | "silent" => {
                drop(std::thread::Builder::new().name("some-part".to_owned()).spawn(|| panic!("on purpose")));
            }
            "task" => runtime.block_on(async { drop(tokio::spawn(async { panic!("on purpose") }).await) }),
            "index" => drop(std::thread::spawn(|| [0, 1].iter().map(|n| [1][*n]).sum::<i32>())),
            "hook" => {
                at_end(|| panic!("and once more"));
                panic!("on purpose");
            }
            _ => {}
        }
        // The thread is not joined, and the main one has other things to do.
        std::thread::sleep(Duration::from_secs(20));
        std::process::exit(0);
    }

    #[test]
    fn a_panic_of_any_thread_or_task_ends_the_process_and_is_told() {
        for (does, words) in [
            ("thread", &["some-part", "on purpose", "src/defect.rs", "please report", "the last act"][..]),
            ("silent", &["some-part", "on purpose", "please report"]),
            ("task", &["on purpose"]),
            ("index", &["index out of bounds"]),
        ] {
            let (code, said) = child(does);
            assert_eq!(code, Some(70), "{does}: {said}");
            assert!(words.iter().all(|word| said.contains(word)), "{does}: {said}");
        }
        // Whatever goes wrong while it ends, it ends.
        assert_ne!(child("hook").0, Some(0));
        assert_eq!(child("caught").0, Some(33));
    }
}
