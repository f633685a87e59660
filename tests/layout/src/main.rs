//! The check that holds the layout of the workspace. `make lint` runs it.
//!
//! ```text
//! files ─► workspace (crates, targets, dependencies) ─► modules (what each file defines and names)
//!                        └─► layers: arrows                 └─► resolve: file -> file ─► layers: hidden files
//!                                                                       └─► cycles
//! ```
//!
//! It fails on:
//! - a dependency between two crates that the table in [`layers`] does not allow;
//! - a reference to a file that another crate may not see, also through a re-export;
//! - an import cycle between files of one crate. A module and its own descendants may name each other.
//!
//! A reference leads to the file that *defines* the item. A `pub use` on the way is followed, so a cycle behind a
//! `mod.rs` that re-exports everything is found. The import of a module alone is no reference: what is named through it is.
//! Code under `#[cfg(test)]` does not count. Methods are not seen: a call names no path.
//!
//! Run on any tree: `layout --root DIR`.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod cycles;
mod files;
mod layers;
mod modules;
mod paths;
mod resolve;
#[cfg(test)]
mod tests;
mod workspace;

use std::collections::HashSet;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, bail};

use crate::files::Files;

/// 0: the layout holds; 1: it does not; 2: the tree could not be read.
fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            // Nothing is left to be done where stderr is closed.
            let _ = writeln!(std::io::stderr(), "layout: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Whether the layout holds; what breaks it goes to stdout.
fn run() -> Result<bool> {
    let files = Files::read(&root_argument()?)?;
    let complaints = check(&files)?;
    let mut out = std::io::stdout().lock();
    for complaint in &complaints {
        writeln!(out, "{complaint}")?;
    }
    if !complaints.is_empty() {
        writeln!(out, "layout: {} to cut; ARCHITECTURE.md has the allowed arrows", complaints.len())?;
    }
    Ok(complaints.is_empty())
}

fn root_argument() -> Result<PathBuf> {
    let mut arguments = std::env::args_os().skip(1);
    match (arguments.next(), arguments.next(), arguments.next()) {
        (None, ..) => Ok(PathBuf::from(".")),
        (Some(option), Some(root), None) if option == "--root" => Ok(PathBuf::from(root)),
        _ => bail!("usage: layout [--root DIR]"),
    }
}

/// Everything in `files` that breaks the layout, each as text of one or more lines.
fn check(files: &Files) -> Result<Vec<String>> {
    let packages = workspace::packages(files)?;
    let mut complaints = layers::check_dependencies(&packages);
    let crates = modules::read(files, &packages)?;
    let references = resolve::references(&crates);
    complaints.extend(layers::check_hidden(&references));
    for each in &crates {
        complaints.extend(cycles::find(each, &references));
    }
    // A file that two targets share has the same cycle in both.
    let mut seen = HashSet::new();
    complaints.retain(|complaint| seen.insert(complaint.clone()));
    Ok(complaints)
}
