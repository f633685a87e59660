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

    /// From now on: `fine`, `stall <ms>`, `sync-error` or `write-full`.
    pub fn is(&self, how: &str) {
        let fresh = self.dir.join("fresh");
        std::fs::write(&fresh, how).expect("what the disk does");
        std::fs::rename(&fresh, self.control()).expect("what the disk does, in its place");
    }

    fn control(&self) -> PathBuf {
        self.dir.join("control")
    }

    /// What a process needs to have this disk.
    pub fn environment(&self) -> Vec<(String, String)> {
        let text = |path: &Path| path.to_str().expect("a plain path").to_owned();
        vec![("LD_PRELOAD".to_owned(), text(library())), ("REDTAPE_TEST_DISK".to_owned(), text(&self.control()))]
    }
}

fn library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| super::clock::build_preloaded("disk", &["-shared", "-fPIC", "-O2"]))
}
