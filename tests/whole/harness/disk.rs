//! A disk that stalls or fails when the test wants it to (`disk.c`, preloaded into redtape).

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use super::Dir;

/// Decides what happens to segments. Lives as long as the handle.
#[derive(Debug)]
pub struct Disk {
    dir: Dir,
}

impl Disk {
    pub fn fine() -> Self {
        let disk = Self { dir: Dir::new("disk") };
        disk.is("fine");
        disk
    }

    /// From now on: `fine`, `stall <ms>`, `sync-error`, `write-full`, `sync-error-nth <n>`, `write-full-nth <n>`,
    /// `torn-copy-error` or `torn-cut-error` (see `disk.c`).
    pub fn is(&self, how: &str) {
        let fresh = self.dir.join("fresh");
        std::fs::write(&fresh, how).expect("what the disk does");
        std::fs::rename(&fresh, self.control()).expect("what the disk does, in its place");
    }

    /// The failures so far, a letter for each: `s` sync of a segment, `w` write to one, `o` any other.
    pub fn failures(&self) -> String {
        std::fs::read_to_string(self.dir.join("seen")).unwrap_or_default()
    }

    fn control(&self) -> PathBuf {
        self.dir.join("control")
    }

    /// What a process needs to have this disk.
    pub fn environment(&self) -> Vec<(String, String)> {
        let text = |path: &Path| path.to_str().expect("a plain path").to_owned();
        vec![("LD_PRELOAD".to_owned(), text(library())), ("REDTAPE_TEST_DISK".to_owned(), text(&self.control()))]
    }

    /// The same, with everything of this journal on it: bases, marks and names, too.
    pub fn environment_under(&self, journal: &Path) -> Vec<(String, String)> {
        let text = |path: &Path| path.to_str().expect("a plain path").to_owned();
        let mut environment = self.environment();
        environment.push(("REDTAPE_TEST_DISK_UNDER".to_owned(), text(journal)));
        environment.push(("REDTAPE_TEST_DISK_SEEN".to_owned(), text(&self.dir.join("seen"))));
        environment
    }
}

fn library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| super::clock::build_preloaded("disk", &["-shared", "-fPIC", "-O2", "-pthread"]))
}
