//! The wall clock of a server, set by a preloaded library (`clock.c`, built here with the C compiler that Rust links
//! with), and that of redtape, by libfaketime.

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI64, Ordering};

/// What a server's wall clock says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    Real,
    /// Stands still at this microsecond: nothing expires any more.
    At(i64),
    /// Starts at this microsecond and goes on.
    From(i64),
    /// Says what a [`SharedClock`] says, and draws the same hash seeds as every other such server: two of
    /// them answer the same commands with the same bytes, in the same order.
    Twin(&'static SharedClock),
}

/// A clock of several servers that moves only when the test moves it.
#[derive(Debug)]
pub struct SharedClock {
    file: std::fs::File,
    path: PathBuf,
    _dir: super::Dir,
    us: AtomicI64,
}

impl PartialEq for SharedClock {
    fn eq(&self, other: &Self) -> bool {
        self.path == other.path
    }
}
impl Eq for SharedClock {}

impl SharedClock {
    /// Stands at this microsecond. Lives as long as the test's process.
    pub fn at(us: i64) -> &'static Self {
        let dir = super::Dir::new("clock");
        let path = dir.join("now");
        let file = std::fs::File::create(&path).expect("the clock's file");
        let clock = Self { file, path, _dir: dir, us: AtomicI64::new(us) };
        clock.advance(0);
        Box::leak(Box::new(clock))
    }

    pub fn advance(&self, by_us: i64) {
        let us = self.us.fetch_add(by_us, Ordering::SeqCst) + by_us;
        self.file.write_all_at(&us.to_ne_bytes(), 0).expect("the clock is set");
    }

    pub fn now_us(&self) -> i64 {
        self.us.load(Ordering::SeqCst)
    }

    /// A process that leaks its clock can still clean up behind it.
    pub fn remove(&self) {
        let _ = std::fs::remove_dir_all(self.path.parent().expect("a folder"));
    }
}

impl Clock {
    pub fn apply(self, command: &mut Command) {
        let (us, runs) = match self {
            Self::Real => return,
            Self::At(us) => (us, false),
            Self::From(us) => (us, true),
            Self::Twin(clock) => {
                command.env("LD_PRELOAD", library()).env("REDTAPE_TEST_CLOCK_FILE", &clock.path);
                command.env("REDTAPE_TEST_NO_ENTROPY", "1");
                return;
            }
        };
        command.env("LD_PRELOAD", library()).env("REDTAPE_TEST_CLOCK", us.to_string());
        if runs {
            command.env("REDTAPE_TEST_CLOCK_RUNS", "1");
        }
    }
}

/// The wall clock of redtape, stepped by libfaketime while it runs; its monotonic clock stays right. (Servers have
/// [`Clock`]: libfaketime's package is bound to one C library, so it cannot be preloaded into those of other suites.)
#[derive(Debug)]
pub struct SteppedClock {
    dir: super::Dir,
    library: PathBuf,
}

impl SteppedClock {
    /// It is right as yet.
    pub fn right() -> Self {
        let folders = std::fs::read_dir("/usr/lib").into_iter().flatten().flatten().map(|e| e.path());
        let libraries = folders.map(|folder| folder.join("faketime/libfaketimeMT.so.1"));
        let library = libraries.into_iter().find(|path| path.exists());
        let library = library.expect("libfaketime (scripts/install-servers.sh brings it)");
        let clock = Self { dir: super::Dir::new("stepped-clock"), library };
        clock.is_off_by("+0");
        clock
    }

    /// As in `+2h` or `-90m`.
    pub fn is_off_by(&self, offset: &str) {
        let fresh = self.dir.join("fresh");
        std::fs::write(&fresh, format!("{offset}\n")).expect("the clock's offset");
        std::fs::rename(&fresh, self.file()).expect("the clock's offset, in its place");
    }

    fn file(&self) -> PathBuf {
        self.dir.join("offset")
    }

    /// What a process needs to have this clock.
    pub fn environment(&self) -> Vec<(String, String)> {
        let text = |path: &Path| path.to_str().expect("a plain path").to_owned();
        let set = |name: &str, value: String| (name.to_owned(), value);
        vec![
            set("LD_PRELOAD", text(&self.library)),
            set("FAKETIME_TIMESTAMP_FILE", text(&self.file())),
            set("FAKETIME_NO_CACHE", "1".to_owned()),
            set("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ]
    }
}

fn library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    let options = ["-shared", "-fPIC", "-O2", "-nostdlib", "-Wl,-z,undefs", "-fno-builtin"];
    LIBRARY.get_or_init(|| build_preloaded("clock", &options))
}

/// Builds `tests/whole/harness/<name>.c` into a library that can be preloaded.
pub(super) fn build_preloaded(name: &str, options: &[&str]) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/whole/harness/{name}.c"));
    let out = Path::new(env!("CARGO_TARGET_TMPDIR"));
    std::fs::create_dir_all(out).expect("the folder for test files");
    let built = out.join(format!("{name}-{}.so", std::process::id()));
    let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".to_owned());
    let status = Command::new(&compiler)
        .args(options)
        .arg("-o")
        .arg(&built)
        .arg(&source)
        .status()
        .unwrap_or_else(|e| panic!("{compiler} (set CC to a C compiler): {e}"));
    assert!(status.success(), "{compiler} could not build {}", source.display());
    // Test processes run beside each other: each builds its own, the last rename wins.
    let library = out.join(format!("{name}.so"));
    std::fs::rename(&built, &library).expect("the library in its place");
    library
}
