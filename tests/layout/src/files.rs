//! The sources of a tree, in memory: everything behind it is a function of this map.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};

/// Rust files and manifests by their path below the root, with `/` between the parts.
pub(crate) struct Files(BTreeMap<String, String>);

impl Files {
    /// Reads all of `root` except build output and hidden directories. A source folder may be called `target`.
    pub(crate) fn read(root: &Path) -> Result<Self> {
        let mut files = BTreeMap::new();
        let mut directories = vec![(root.to_path_buf(), String::new())];
        while let Some((directory, prefix)) = directories.pop() {
            let entries = std::fs::read_dir(&directory).with_context(|| format!("read {}", directory.display()))?;
            for entry in entries {
                let entry = entry?;
                let name = entry.file_name().to_string_lossy().into_owned();
                let kind = entry.file_type()?;
                if kind.is_dir() && !name.starts_with('.') && !is_build_output(&entry.path()) {
                    directories.push((entry.path(), format!("{prefix}{name}/")));
                } else if kind.is_file() && (is_rust(&name) || name == "Cargo.toml") {
                    let text = std::fs::read_to_string(entry.path())
                        .with_context(|| format!("read {}", entry.path().display()))?;
                    files.insert(format!("{prefix}{name}"), text);
                }
            }
        }
        Ok(Self(files))
    }

    /// A tree of `(path, text)`.
    #[cfg(test)]
    pub(crate) fn of(files: &[(&str, &str)]) -> Self {
        Self(files.iter().map(|&(path, text)| (path.to_owned(), text.to_owned())).collect())
    }

    pub(crate) fn get(&self, path: &str) -> Option<&str> {
        self.0.get(path).map(String::as_str)
    }

    pub(crate) fn contains(&self, path: &str) -> bool {
        self.0.contains_key(path)
    }

    /// The files below `directory` (which ends with `/`, or is empty), as paths below it.
    pub(crate) fn below<'a>(&'a self, directory: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.keys().filter_map(move |path| path.strip_prefix(directory))
    }
}

pub(crate) fn is_rust(path: &str) -> bool {
    Path::new(path).extension().is_some_and(|extension| extension == "rs")
}

/// Cargo marks the folder that it builds in.
fn is_build_output(directory: &Path) -> bool {
    directory.join("CACHEDIR.TAG").exists()
}
