//! Import cycles between the files of one crate.
//!
//! A cycle is allowed if one of its files is the ancestor module of all others: a module and its own descendants are one unit
//! as seen from outside. So, in a strongly connected set of files: if one is the ancestor of all others, every cycle through
//! it is allowed, and what remains without it is looked at again. Else the set has files below two or more topmost modules,
//! and a cycle that crosses from one to another exists.
//!
//! One misplaced item can close a hundred cycles. So for each import that crosses, only the shortest cycle through it is
//! considered; of all these, one with the import that most of them share is shown; then that import counts as cut, and what is
//! left is looked at again. The number of cycles shown is about the number of cuts to make.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use crate::modules::Crate;
use crate::resolve::Reference;

/// The cycles that are not allowed, each with the place of every import.
pub(crate) fn find(each: &Crate, references: &[Reference]) -> Vec<String> {
    let mut graph = Graph::new(each, references);
    let mut shown = Vec::new();
    let mut sets = vec![(0..graph.files.len()).collect::<BTreeSet<_>>()];
    while let Some(set) = sets.pop() {
        for component in graph.components(&set) {
            let tops = graph.topmost(&component);
            if let [top] = tops[..] {
                let mut rest = component;
                rest.remove(&top);
                sets.push(rest);
                continue;
            }
            let cycles = graph.crossing(&component, &tops);
            if let Some(shared) = most_shared(&cycles) {
                let cycle = cycles.iter().find(|cycle| edges(cycle).any(|edge| edge == shared.edge));
                shown.extend(cycle.map(|cycle| graph.show(cycle, &shared)));
                graph.imports[shared.edge.0].remove(&shared.edge.1);
                sets.push(component);
            }
        }
    }
    shown.sort();
    shown
}

/// An import, and in how many cycles it is.
struct Shared {
    edge: (usize, usize),
    cycles: usize,
}

fn most_shared(cycles: &[Vec<usize>]) -> Option<Shared> {
    let mut counts: BTreeMap<(usize, usize), usize> = BTreeMap::new();
    for edge in cycles.iter().flat_map(|cycle| edges(cycle)) {
        *counts.entry(edge).or_default() += 1;
    }
    let most = counts.into_iter().max_by_key(|&(edge, count)| (count, std::cmp::Reverse(edge)));
    most.map(|(edge, cycles)| Shared { edge, cycles })
}

struct Graph<'a> {
    files: Vec<&'a str>,
    /// Files whose module contains this one's, itself included.
    ancestors: Vec<BTreeSet<usize>>,
    imports: Vec<BTreeMap<usize, &'a Reference>>,
}

impl<'a> Graph<'a> {
    fn new(each: &'a Crate, references: &'a [Reference]) -> Self {
        let mut numbers: HashMap<&str, usize> = HashMap::new();
        let mut files = Vec::new();
        let mut ancestors: Vec<BTreeSet<usize>> = Vec::new();
        for module in &each.modules {
            let number = *numbers.entry(&module.file).or_insert_with(|| {
                files.push(module.file.as_str());
                ancestors.push(BTreeSet::from([files.len() - 1]));
                files.len() - 1
            });
            let mut at = module.parent;
            while let Some(above) = at {
                ancestors[number].insert(numbers[each.modules[above].file.as_str()]);
                at = each.modules[above].parent;
            }
        }
        let mut imports = vec![BTreeMap::new(); files.len()];
        for reference in references {
            if let (Some(&from), Some(&to)) = (numbers.get(&*reference.from), numbers.get(&*reference.to)) {
                imports[from].insert(to, reference);
            }
        }
        Self { files, ancestors, imports }
    }

    fn is_within(&self, file: usize, top: usize) -> bool {
        self.ancestors[file].contains(&top)
    }

    /// Those that lie below no other of the set.
    fn topmost(&self, set: &BTreeSet<usize>) -> Vec<usize> {
        let is_top = |&file: &usize| self.ancestors[file].iter().all(|&above| above == file || !set.contains(&above));
        set.iter().copied().filter(is_top).collect()
    }

    /// Strongly connected sets of two files or more.
    fn components(&self, set: &BTreeSet<usize>) -> Vec<BTreeSet<usize>> {
        let reach = |from: usize| {
            let mut seen = BTreeSet::new();
            let mut open = vec![from];
            while let Some(file) = open.pop() {
                for &next in self.imports[file].keys() {
                    if set.contains(&next) && seen.insert(next) {
                        open.push(next);
                    }
                }
            }
            seen
        };
        // Some hundred files: the plain way is quick enough.
        let reachable: BTreeMap<usize, BTreeSet<usize>> = set.iter().map(|&file| (file, reach(file))).collect();
        let mut left = set.clone();
        let mut components = Vec::new();
        while let Some(file) = left.pop_first() {
            let mut component: BTreeSet<usize> = left
                .iter()
                .copied()
                .filter(|other| reachable[&file].contains(other) && reachable[other].contains(&file))
                .collect();
            if component.is_empty() {
                continue;
            }
            left = left.difference(&component).copied().collect();
            component.insert(file);
            components.push(component);
        }
        components
    }

    /// The shortest cycle through each import from below one of `tops` to below another; shorter ones first.
    fn crossing(&self, set: &BTreeSet<usize>, tops: &[usize]) -> Vec<Vec<usize>> {
        let group = |file: usize| tops.iter().copied().find(|&top| self.is_within(file, top));
        let mut cycles = Vec::new();
        for &from in set {
            for &to in self.imports[from].keys() {
                if set.contains(&to) && group(from) != group(to) {
                    cycles.extend(self.shortest(to, from, set));
                }
            }
        }
        for cycle in &mut cycles {
            let first = cycle.iter().enumerate().min_by_key(|(_, file)| self.files[**file]).map_or(0, |(at, _)| at);
            cycle.rotate_left(first);
        }
        cycles.sort_by_key(|cycle| (cycle.len(), cycle.clone()));
        cycles.dedup();
        cycles
    }

    /// The files from `from` to `to` inside `set`, both included.
    fn shortest(&self, from: usize, to: usize, set: &BTreeSet<usize>) -> Option<Vec<usize>> {
        let mut before = BTreeMap::from([(from, from)]);
        let mut open = VecDeque::from([from]);
        while let Some(file) = open.pop_front() {
            if file == to {
                let mut way = vec![to];
                while let Some(&last) = way.last()
                    && last != from
                {
                    way.push(before[&last]);
                }
                way.reverse();
                return Some(way);
            }
            for &next in self.imports[file].keys() {
                if set.contains(&next) && !before.contains_key(&next) {
                    before.insert(next, file);
                    open.push_back(next);
                }
            }
        }
        None
    }

    fn show(&self, cycle: &[usize], shared: &Shared) -> String {
        let mut text = String::from("import cycle: ");
        for &file in cycle {
            text += self.files[file];
            text += " -> ";
        }
        text += self.files[cycle[0]];
        for edge in edges(cycle) {
            let import = self.imports[edge.0][&edge.1];
            text += &format!("\n    {}:{} names {}", import.from, import.line, import.path);
            if edge == shared.edge && shared.cycles > 1 {
                text += &format!("    (in {} cycles)", shared.cycles);
            }
        }
        text
    }
}

fn edges(cycle: &[usize]) -> impl Iterator<Item = (usize, usize)> {
    cycle.iter().copied().zip(cycle.iter().copied().cycle().skip(1))
}
