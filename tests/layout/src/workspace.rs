//! The packages of the workspace, from their manifests: targets, and dependencies on each other.

use anyhow::{Context, Result, bail};
use toml::{Table, Value};

use crate::files::{Files, is_rust};

pub(crate) struct Package {
    pub(crate) name: String,
    /// `""`, or a path with `/` at its end.
    pub(crate) directory: String,
    pub(crate) targets: Vec<Target>,
    pub(crate) dependencies: Vec<Dependency>,
}

/// One crate that is compiled of the package.
pub(crate) struct Target {
    pub(crate) root: String,
    pub(crate) is_library: bool,
}

/// On another package of the workspace; dev- and build-dependencies count alike.
pub(crate) struct Dependency {
    pub(crate) on: String,
    pub(crate) line: usize,
}

/// All members of the workspace whose manifest is `Cargo.toml` at the root.
pub(crate) fn packages(files: &Files) -> Result<Vec<Package>> {
    let root = manifest(files, "")?;
    let mut directories = Vec::new();
    if root.contains_key("package") {
        directories.push(String::new());
    }
    let members = root.get("workspace").and_then(|workspace| workspace.get("members")).and_then(Value::as_array);
    for member in members.into_iter().flatten() {
        let member = member.as_str().context("a member of the workspace is no string")?;
        if member.contains('*') {
            bail!("patterns in `members` are not understood; name {member} one by one");
        }
        directories.push(format!("{}/", member.trim_end_matches('/')));
    }
    let mut packages = Vec::new();
    for directory in directories {
        let manifest = manifest(files, &directory)?;
        let name = string(&manifest, &["package", "name"]).context("a package without a name")?;
        let targets = targets(files, &directory, &manifest);
        packages.push(Package { name, directory, targets, dependencies: Vec::new() });
    }
    let names: Vec<String> = packages.iter().map(|package| package.name.clone()).collect();
    for package in &mut packages {
        package.dependencies = dependencies(files, &package.directory, &names)?;
    }
    Ok(packages)
}

fn manifest(files: &Files, directory: &str) -> Result<Table> {
    let path = format!("{directory}Cargo.toml");
    let text = files.get(&path).with_context(|| format!("{path} is missing"))?;
    text.parse().with_context(|| format!("parse {path}"))
}

fn string(table: &Table, keys: &[&str]) -> Option<String> {
    let (first, rest) = keys.split_first()?;
    let mut value = table.get(*first)?;
    for key in rest {
        value = value.get(*key)?;
    }
    value.as_str().map(str::to_owned)
}

/// As cargo finds them. A build script is a file of its own and sees nobody.
fn targets(files: &Files, directory: &str, manifest: &Table) -> Vec<Target> {
    let mut targets = Vec::new();
    let library = string(manifest, &["lib", "path"]).unwrap_or_else(|| "src/lib.rs".to_owned());
    if files.contains(&format!("{directory}{library}")) {
        targets.push(Target { root: format!("{directory}{library}"), is_library: true });
    }
    let mut roots = Vec::new();
    for (kind, folder, switch) in [
        ("bin", "src/bin", "autobins"),
        ("test", "tests", "autotests"),
        ("bench", "benches", "autobenches"),
        ("example", "examples", "autoexamples"),
    ] {
        for target in manifest.get(kind).and_then(Value::as_array).into_iter().flatten() {
            let named = target.get("name").and_then(Value::as_str).unwrap_or_default();
            let path = target.get("path").and_then(Value::as_str).map(str::to_owned);
            roots.push(path.unwrap_or_else(|| format!("{folder}/{named}.rs")));
        }
        let automatic = manifest.get("package").and_then(|package| package.get(switch)).and_then(Value::as_bool);
        if automatic.unwrap_or(true) {
            for path in files.below(&format!("{directory}{folder}/")) {
                let is_root = !path.contains('/') || path.split_once('/').is_some_and(|(_, rest)| rest == "main.rs");
                if is_root && is_rust(path) {
                    roots.push(format!("{folder}/{path}"));
                }
            }
        }
    }
    roots.push("src/main.rs".to_owned());
    roots.sort();
    roots.dedup();
    for root in roots {
        let root = format!("{directory}{root}");
        if files.contains(&root) {
            targets.push(Target { root, is_library: false });
        }
    }
    targets
}

fn dependencies(files: &Files, directory: &str, names: &[String]) -> Result<Vec<Dependency>> {
    let text = files.get(&format!("{directory}Cargo.toml")).unwrap_or_default();
    let manifest = manifest(files, directory)?;
    let mut tables = vec![&manifest];
    tables.extend(
        manifest.get("target").and_then(Value::as_table).into_iter().flatten().filter_map(|(_, t)| t.as_table()),
    );
    let mut found = Vec::new();
    for table in tables {
        for kind in ["dependencies", "dev-dependencies", "build-dependencies"] {
            for (key, value) in table.get(kind).and_then(Value::as_table).into_iter().flatten() {
                let on = value.get("package").and_then(Value::as_str).unwrap_or(key);
                if names.iter().any(|name| name == on) {
                    found.push(Dependency { on: on.to_owned(), line: line_of(text, kind, key) });
                }
            }
        }
    }
    Ok(found)
}

/// Where `key` stands in the section `kind`; 0 if it is written in another way.
fn line_of(text: &str, kind: &str, key: &str) -> usize {
    let mut inside = false;
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.starts_with('[') {
            inside = line.ends_with(&format!("{kind}]"));
        } else if inside && line.strip_prefix(key).is_some_and(|rest| rest.starts_with(['.', ' ', '='])) {
            return index + 1;
        }
    }
    0
}
