//! A temporary folder that stays when the test fails.

use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// Removed on drop, kept (and named) while panicking or when `REDTAPE_KEEP` is set.
#[derive(Debug)]
pub struct Dir(TempDir);

impl Dir {
    pub fn new(purpose: &str) -> Self {
        let prefix = format!("redtape-test-{purpose}-");
        Self(tempfile::Builder::new().prefix(&prefix).tempdir().expect("a temporary folder"))
    }

    /// In memory where that is possible, so that thousands of files cost little.
    pub fn in_memory(purpose: &str) -> Self {
        let memory = Path::new("/dev/shm");
        if !memory.is_dir() {
            return Self::new(purpose);
        }
        let prefix = format!("redtape-test-{purpose}-");
        Self(tempfile::Builder::new().prefix(&prefix).tempdir_in(memory).expect("a temporary folder"))
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn join(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        if std::thread::panicking() || std::env::var_os("REDTAPE_KEEP").is_some() {
            self.0.disable_cleanup(true);
            eprintln!("kept: {}", self.0.path().display());
        }
    }
}
