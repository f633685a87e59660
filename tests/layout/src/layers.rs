//! The table of allowed arrows between crates. ARCHITECTURE.md draws it.

use crate::resolve::Reference;
use crate::workspace::Package;

/// Each crate with all that it may depend on, the highest first: a row names only rows below it.
pub(crate) const LAYERS: &[(&str, &[&str])] = &[
    (
        "redtape",
        &[
            "redtape-proxy",
            "redtape-restore",
            "redtape-capture",
            "redtape-telemetry",
            "redtape-net",
            "redtape-journal",
            "redtape-wire",
        ],
    ),
    ("redtape-proxy", &["redtape-capture", "redtape-telemetry", "redtape-net", "redtape-journal", "redtape-wire"]),
    ("redtape-restore", &["redtape-net", "redtape-journal", "redtape-wire"]),
    ("redtape-capture", &["redtape-telemetry", "redtape-net", "redtape-journal", "redtape-wire"]),
    ("redtape-net", &["redtape-wire"]),
    ("redtape-journal", &["redtape-wire"]),
    ("redtape-telemetry", &[]),
    ("redtape-wire", &[]),
    ("redtape-layout", &[]),
];

/// Files (a path, or a folder with `/`) that the sources below a folder may not reach, although the crates may see each other.
const HIDDEN: &[(&str, &[&str], &str)] =
    &[("journal/", &["wire/src/resp/", "wire/src/resp.rs"], "the journal holds opaque commands and never sees RESP")];

/// Dependencies that no row allows, and crates without a row.
pub(crate) fn check_dependencies(packages: &[Package]) -> Vec<String> {
    let mut complaints = Vec::new();
    for package in packages {
        let Some((_, allowed)) = LAYERS.iter().find(|(name, _)| *name == package.name) else {
            let manifest = format!("{}Cargo.toml", package.directory);
            complaints
                .push(format!("{manifest}: {} has no row in the table of tests/layout/src/layers.rs", package.name));
            continue;
        };
        for dependency in &package.dependencies {
            if !allowed.contains(&dependency.on.as_str()) {
                complaints.push(format!(
                    "upward arrow: {} -> {}\n    {}Cargo.toml:{}",
                    package.name, dependency.on, package.directory, dependency.line
                ));
            }
        }
    }
    complaints
}

/// References into files that are hidden from their place.
pub(crate) fn check_hidden(references: &[Reference]) -> Vec<String> {
    let mut complaints = Vec::new();
    for reference in references {
        for (from, hidden, why) in HIDDEN {
            if reference.from.starts_with(from) && hidden.iter().any(|file| reference.to.starts_with(file)) {
                complaints.push(format!(
                    "forbidden: {} -> {}: {why}\n    {}:{} names {}",
                    reference.from, reference.to, reference.from, reference.line, reference.path
                ));
            }
        }
    }
    complaints
}
