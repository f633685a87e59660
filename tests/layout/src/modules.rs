//! The module tree of each crate: what every module defines, what it brings in, and which paths it names.

use std::collections::HashMap;

use anyhow::{Context, Result, bail};
use syn::{Item, UseTree};

use crate::files::Files;
use crate::paths::{self, Kind, Mention, Path};
use crate::workspace::Package;

/// A target as the compiler sees it: one tree of modules. The root is module 0.
pub(crate) struct Crate {
    /// As it is named in paths: `redtape_wire`. Only libraries are named by others.
    pub(crate) name: String,
    pub(crate) is_library: bool,
    pub(crate) modules: Vec<Module>,
}

impl Crate {
    /// Whether `module` is `ancestor` or lies below it.
    pub(crate) fn is_within(&self, module: usize, ancestor: usize) -> bool {
        let mut at = Some(module);
        while let Some(here) = at {
            if here == ancestor {
                return true;
            }
            at = self.modules[here].parent;
        }
        false
    }
}

pub(crate) struct Module {
    pub(crate) parent: Option<usize>,
    /// An inline module has the file of its parent.
    pub(crate) file: String,
    pub(crate) names: HashMap<String, Vec<Definition>>,
    pub(crate) globs: Vec<Path>,
    /// Brought in by a `use` inside a function: seen by this module's own paths only.
    pub(crate) block_names: HashMap<String, Vec<Definition>>,
    pub(crate) block_globs: Vec<Path>,
    pub(crate) mentions: Vec<Mention>,
}

/// What a name in a module stands for. One name may stand for several things (type, value, macro).
pub(crate) enum Definition {
    Item,
    Module(usize),
    Import(Path),
}

/// Every target of every package. The targets of a package may name its library.
pub(crate) fn read(files: &Files, packages: &[Package]) -> Result<Vec<Crate>> {
    let mut crates = Vec::new();
    for package in packages {
        for target in &package.targets {
            let mut reader = Reader { files, modules: Vec::new() };
            reader.file(&target.root, None, &directory_of(&target.root))?;
            crates.push(Crate {
                name: package.name.replace('-', "_"),
                is_library: target.is_library,
                modules: reader.modules,
            });
        }
    }
    Ok(crates)
}

struct Reader<'a> {
    files: &'a Files,
    modules: Vec<Module>,
}

impl Reader<'_> {
    /// Reads a file as a module whose children lie in `directory`. `None` if all of it is for tests.
    fn file(&mut self, file: &str, parent: Option<usize>, directory: &str) -> Result<Option<usize>> {
        let text = self.files.get(file).with_context(|| format!("{file} is missing"))?;
        let parsed = syn::parse_file(text).map_err(|error| {
            let line = error.span().start().line;
            anyhow::anyhow!("{file}:{line}: {error}")
        })?;
        if paths::is_for_tests(&parsed.attrs) {
            return Ok(None);
        }
        let module = self.module(file, parent);
        let mut mentions = Vec::new();
        paths::in_attributes(&parsed.attrs, &mut mentions);
        self.modules[module].mentions = mentions;
        self.items(&parsed.items, module, directory)?;
        Ok(Some(module))
    }

    fn module(&mut self, file: &str, parent: Option<usize>) -> usize {
        self.modules.push(Module {
            parent,
            file: file.to_owned(),
            names: HashMap::new(),
            globs: Vec::new(),
            block_names: HashMap::new(),
            block_globs: Vec::new(),
            mentions: Vec::new(),
        });
        self.modules.len() - 1
    }

    fn items(&mut self, items: &[Item], module: usize, directory: &str) -> Result<()> {
        for item in items {
            if paths::is_for_tests(paths::attributes_of(item)) {
                continue;
            }
            match item {
                Item::Mod(child) => self.child(child, module, directory)?,
                Item::Use(import) => {
                    let mut leaves = Vec::new();
                    flatten(&import.tree, import.leading_colon.is_some(), &mut Vec::new(), &mut leaves);
                    let is_private = matches!(import.vis, syn::Visibility::Inherited);
                    let kind = if is_private { Kind::Code } else { Kind::Reexport };
                    for leaf in leaves {
                        self.import(leaf, kind, module);
                    }
                }
                other => {
                    if let Some(name) = paths::name_of(other) {
                        self.modules[module].names.entry(name).or_default().push(Definition::Item);
                    }
                    self.mentions(other, module);
                }
            }
        }
        Ok(())
    }

    fn import(&mut self, leaf: Leaf, kind: Kind, module: usize) {
        let into = &mut self.modules[module];
        into.mentions.push(Mention { path: leaf.path.clone(), line: leaf.line, kind });
        match leaf.name {
            Some(name) => into.names.entry(name).or_default().push(Definition::Import(leaf.path)),
            None => into.globs.push(leaf.path),
        }
    }

    fn mentions(&mut self, item: &Item, module: usize) {
        let found = paths::in_item(item);
        let into = &mut self.modules[module];
        into.mentions.extend(found.mentions);
        for import in found.imports {
            let mut leaves = Vec::new();
            flatten(&import.tree, import.leading_colon.is_some(), &mut Vec::new(), &mut leaves);
            for leaf in leaves {
                into.mentions.push(Mention { path: leaf.path.clone(), line: leaf.line, kind: Kind::Code });
                match leaf.name {
                    Some(name) => into.block_names.entry(name).or_default().push(Definition::Import(leaf.path)),
                    None => into.block_globs.push(leaf.path),
                }
            }
        }
    }

    fn child(&mut self, child: &syn::ItemMod, parent: usize, directory: &str) -> Result<()> {
        let name = paths::plain(&child.ident);
        let below = format!("{directory}{name}/");
        let module = if let Some((_, items)) = &child.content {
            let file = self.modules[parent].file.clone();
            let module = self.module(&file, Some(parent));
            self.items(items, module, &below)?;
            Some(module)
        } else if let Some(path) = paths::path_attribute(&child.attrs) {
            let file = normal(&format!("{}{path}", directory_of(&self.modules[parent].file)));
            let below = directory_of(&file);
            self.file(&file, Some(parent), &below)?
        } else {
            let candidates = [format!("{directory}{name}.rs"), format!("{below}mod.rs")];
            let Some(file) = candidates.iter().find(|file| self.files.contains(file)) else {
                bail!("{}: there is no file for `mod {name}`", self.modules[parent].file);
            };
            self.file(file, Some(parent), &below)?
        };
        if let Some(module) = module {
            self.modules[parent].names.entry(name).or_default().push(Definition::Module(module));
        }
        Ok(())
    }
}

/// One name that a `use` brings in; no name: everything (`*`).
struct Leaf {
    name: Option<String>,
    path: Path,
    line: usize,
}

fn flatten(tree: &UseTree, is_external: bool, prefix: &mut Vec<String>, leaves: &mut Vec<Leaf>) {
    let path = |prefix: &[String], last: Option<&syn::Ident>| {
        let mut segments = prefix.to_vec();
        // `use a::{self}` brings in `a`.
        segments.extend(last.map(paths::plain).filter(|last| last != "self" || prefix.is_empty()));
        Path { is_external, segments }
    };
    match tree {
        UseTree::Path(inner) => {
            prefix.push(paths::plain(&inner.ident));
            flatten(&inner.tree, is_external, prefix, leaves);
            prefix.pop();
        }
        UseTree::Name(name) => {
            let path = path(prefix, Some(&name.ident));
            leaves.push(Leaf { name: path.segments.last().cloned(), path, line: paths::line(&name.ident) });
        }
        UseTree::Rename(rename) => {
            let name = Some(paths::plain(&rename.rename));
            leaves.push(Leaf { name, path: path(prefix, Some(&rename.ident)), line: paths::line(&rename.ident) });
        }
        UseTree::Glob(glob) => {
            let line = glob.star_token.spans[0].start().line;
            leaves.push(Leaf { name: None, path: path(prefix, None), line });
        }
        UseTree::Group(group) => {
            for tree in &group.items {
                flatten(tree, is_external, prefix, leaves);
            }
        }
    }
}

/// With `/` at its end; `""` for the root.
fn directory_of(file: &str) -> String {
    file.rfind('/').map_or_else(String::new, |slash| file[..=slash].to_owned())
}

/// Without `.` and `..`.
fn normal(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}
