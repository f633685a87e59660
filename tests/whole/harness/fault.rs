//! A thread whose wait for sockets fails when the test wants it to (`fault.c`, preloaded into redtape).

use super::Dir;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Decides which thread fails. Lives as long as the handle.
#[derive(Debug)]
pub struct Fault {
    dir: Dir,
}

impl Fault {
    pub fn none_yet() -> Self {
        Self { dir: Dir::new("fault") }
    }

    /// From now on, the next wait of the thread with this name fails.
    pub fn of_thread(&self, name: &str) {
        let fresh = self.dir.join("fresh");
        std::fs::write(&fresh, name).expect("which thread fails");
        std::fs::rename(&fresh, self.control()).expect("which thread fails, in its place");
    }

    fn control(&self) -> PathBuf {
        self.dir.join("control")
    }

    /// What a process needs to have it.
    pub fn environment(&self) -> Vec<(String, String)> {
        let text = |path: &Path| path.to_str().expect("a plain path").to_owned();
        vec![("LD_PRELOAD".to_owned(), text(library())), ("REDTAPE_TEST_FAULT".to_owned(), text(&self.control()))]
    }
}

fn library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| super::clock::build_preloaded("fault", &["-shared", "-fPIC", "-O2"]))
}
