//! From the paths that a file names to the files that define what they name, across re-exports and crates.

use std::collections::{HashMap, HashSet};

use crate::modules::{Crate, Definition};
use crate::paths::{Kind, Path};

/// One file names what another one defines.
pub(crate) struct Reference {
    pub(crate) from: String,
    pub(crate) to: String,
    /// Of the first place in `from`.
    pub(crate) line: usize,
    pub(crate) path: String,
}

/// What a path leads to: a module, or something that a module's file defines.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Target {
    Module(usize, usize),
    Item(usize, usize),
}

/// Every pair of files once, in the order of the sources.
pub(crate) fn references(crates: &[Crate]) -> Vec<Reference> {
    let libraries = crates
        .iter()
        .enumerate()
        .filter(|(_, each)| each.is_library)
        .map(|(index, each)| (each.name.as_str(), index))
        .collect();
    let resolver = Resolver { crates, libraries };
    let mut places: HashMap<(&str, &str), usize> = HashMap::new();
    let mut references: Vec<Reference> = Vec::new();
    for (number, each) in crates.iter().enumerate() {
        for (module, content) in each.modules.iter().enumerate() {
            for mention in &content.mentions {
                for target in resolver.mention(number, module, &mention.path) {
                    let (owner, target) = match target {
                        Target::Item(owner, target) => (owner, target),
                        Target::Module(owner, target) if mention.kind == Kind::Text => (owner, target),
                        Target::Module(..) => continue,
                    };
                    let to = &crates[owner].modules[target].file;
                    let is_own = owner == number && each.is_within(target, module);
                    if *to == content.file || (mention.kind == Kind::Reexport && is_own) {
                        continue;
                    }
                    let place = *places.entry((&content.file, to)).or_insert_with(|| {
                        references.push(Reference {
                            from: content.file.clone(),
                            to: to.clone(),
                            line: usize::MAX,
                            path: String::new(),
                        });
                        references.len() - 1
                    });
                    if mention.line < references[place].line {
                        references[place].line = mention.line;
                        references[place].path = mention.path.text();
                    }
                }
            }
        }
    }
    references
}

struct Resolver<'a> {
    crates: &'a [Crate],
    libraries: HashMap<&'a str, usize>,
}

/// Names and globs that are being looked up: one that needs itself is not found that way.
type Open = HashSet<(usize, usize, String, usize)>;

impl Resolver<'_> {
    /// A path as it stands in a module's code, `use` inside functions included.
    fn mention(&self, number: usize, module: usize, path: &Path) -> Vec<Target> {
        let mut open = Open::new();
        let content = &self.crates[number].modules[module];
        if !path.is_external
            && let Some(first) = path.segments.first()
        {
            for definition in content.block_names.get(first).into_iter().flatten() {
                let Definition::Import(import) = definition else { continue };
                if import.segments == path.segments {
                    continue;
                }
                let found = self.walk(self.path(number, module, import, &mut open), &path.segments[1..], &mut open);
                if !found.is_empty() {
                    return found;
                }
            }
        }
        let found = self.path(number, module, path, &mut open);
        if found.is_empty() && !path.is_external {
            for glob in &content.block_globs {
                let start = self.path(number, module, glob, &mut open);
                let found = self.walk_found(start, &path.segments, &mut open);
                if !found.is_empty() {
                    return found;
                }
            }
        }
        found
    }

    fn path(&self, number: usize, module: usize, path: &Path, open: &mut Open) -> Vec<Target> {
        let Some((first, rest)) = path.segments.split_first() else { return Vec::new() };
        let mut rest = rest;
        let start = if path.is_external {
            self.library(first)
        } else {
            match first.as_str() {
                "crate" => vec![Target::Module(number, 0)],
                "self" => vec![Target::Module(number, module)],
                "super" => {
                    let mut at = self.crates[number].modules[module].parent;
                    while let (Some(above), Some(("super", after))) =
                        (at, rest.split_first().map(|(first, after)| (first.as_str(), after)))
                    {
                        at = self.crates[number].modules[above].parent;
                        rest = after;
                    }
                    at.map(|above| Target::Module(number, above)).into_iter().collect()
                }
                name => {
                    let found = self.lookup(number, module, name, open);
                    if found.is_empty() { self.library(name) } else { found }
                }
            }
        };
        self.walk(start, rest, open)
    }

    fn library(&self, name: &str) -> Vec<Target> {
        self.libraries.get(name).map(|&number| Target::Module(number, 0)).into_iter().collect()
    }

    /// Follows `segments`. A name that a module does not seem to define (a macro makes it) counts as defined in its file.
    fn walk(&self, start: Vec<Target>, segments: &[String], open: &mut Open) -> Vec<Target> {
        self.follow(start, segments, true, open)
    }

    /// Follows `segments` through names that are there.
    fn walk_found(&self, start: Vec<Target>, segments: &[String], open: &mut Open) -> Vec<Target> {
        self.follow(start, segments, false, open)
    }

    fn follow(&self, start: Vec<Target>, segments: &[String], guess: bool, open: &mut Open) -> Vec<Target> {
        let mut targets = start;
        for (index, segment) in segments.iter().enumerate() {
            let has_module = targets.iter().any(|target| matches!(target, Target::Module(..)));
            let mut next = Vec::new();
            for target in targets {
                match target {
                    Target::Module(number, module) => {
                        let found = self.lookup(number, module, segment, open);
                        if found.is_empty() && (guess || index > 0) {
                            next.push(Target::Item(number, module));
                        }
                        next.extend(found);
                    }
                    // What follows is a variant, or an associated item; beside a module of its name it is the module's.
                    Target::Item(..) if !has_module => next.push(target),
                    Target::Item(..) => {}
                }
            }
            targets = next;
        }
        let mut seen = HashSet::new();
        targets.retain(|target| seen.insert(*target));
        targets
    }

    /// What `name` is in a module: all its meanings, through imports and globs.
    fn lookup(&self, number: usize, module: usize, name: &str, open: &mut Open) -> Vec<Target> {
        let content = &self.crates[number].modules[module];
        let mut found = Vec::new();
        for (index, definition) in content.names.get(name).into_iter().flatten().enumerate() {
            match definition {
                Definition::Item => found.push(Target::Item(number, module)),
                Definition::Module(child) => found.push(Target::Module(number, *child)),
                Definition::Import(path) => {
                    let key = (number, module, name.to_owned(), index);
                    if open.insert(key.clone()) {
                        found.extend(self.path(number, module, path, open));
                        open.remove(&key);
                    }
                }
            }
        }
        if !found.is_empty() {
            return found;
        }
        for (index, glob) in content.globs.iter().enumerate() {
            let key = (number, module, format!("*{name}"), index);
            if open.insert(key.clone()) {
                for target in self.path(number, module, glob, open) {
                    if let Target::Module(number, module) = target {
                        found.extend(self.lookup(number, module, name, open));
                    }
                }
                open.remove(&key);
            }
        }
        found
    }
}
