//! The wall clock of a server, set by a preloaded library (`clock.c`).
//!
//! Built here with the C compiler that Rust links with. libfaketime is not used: its package is bound
//! to one C library, so it can't be preloaded into servers of other suites.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// What a server's wall clock says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    Real,
    /// Stands still at this microsecond: nothing expires any more.
    At(i64),
    /// Starts at this microsecond and goes on.
    From(i64),
}

impl Clock {
    pub fn apply(self, command: &mut Command) {
        let (us, runs) = match self {
            Self::Real => return,
            Self::At(us) => (us, false),
            Self::From(us) => (us, true),
        };
        command.env("LD_PRELOAD", library()).env("REDTAPE_TEST_CLOCK", us.to_string());
        if runs {
            command.env("REDTAPE_TEST_CLOCK_RUNS", "1");
        }
    }
}

fn library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/harness/clock.c");
        let out = Path::new(env!("CARGO_TARGET_TMPDIR"));
        std::fs::create_dir_all(out).expect("the folder for test files");
        let built = out.join(format!("clock-{}.so", std::process::id()));
        let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".to_owned());
        let status = Command::new(&compiler)
            .args(["-shared", "-fPIC", "-O2", "-nostdlib", "-Wl,-z,undefs", "-fno-builtin", "-o"])
            .arg(&built)
            .arg(&source)
            .status()
            .unwrap_or_else(|e| panic!("{compiler} (set CC to a C compiler): {e}"));
        assert!(status.success(), "{compiler} could not build {}", source.display());
        // Test processes run beside each other: each builds its own, the last rename wins.
        let library = out.join("clock.so");
        std::fs::rename(&built, &library).expect("the library in its place");
        library
    })
}
