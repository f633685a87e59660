//! README and docs/ agree with the binary: every option stands on some page, every option and command on a page exists, every link
//! leads somewhere, and README stays short.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use clap::{Command, CommandFactory as _};

use crate::args::Args;

/// Options of every command, and of other programs that pages name.
const GENERAL: [&str; 4] = ["help", "version", "path", "truncate-to-timestamp"];
/// Pages of docs/ that describe no command.
const DEVELOPER_PAGES: [&str; 3] = ["performance.md", "redis-facts.md", "glossary.md"];
/// Lines of README, and those of it before the reference.
const README_LINES: usize = 200;
const LINES_BEFORE_REFERENCE: usize = 135;
/// Columns of README's text. Tables and commands may be wider.
const README_COLUMNS: usize = 100;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn markdown_in(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("an entry").path());
    let mut files: Vec<_> = entries.filter(|path| path.extension().is_some_and(|e| e == "md")).collect();
    files.sort();
    files
}

/// What users read: README and the pages of docs/, without those for developers.
fn user_pages() -> Vec<(PathBuf, String)> {
    let mut paths = vec![root().join("README.md")];
    let for_developers = |path: &Path| DEVELOPER_PAGES.iter().any(|page| path.ends_with(page));
    paths.extend(markdown_in(&root().join("docs")).into_iter().filter(|path| !for_developers(path)));
    paths.into_iter().map(|path| (path.clone(), std::fs::read_to_string(&path).expect("a page"))).collect()
}

fn commands() -> Command {
    let mut command = Args::command();
    command.build();
    command
}

fn options(command: &Command, found: &mut BTreeMap<String, String>) {
    for arg in command.get_arguments() {
        let aliases = arg.get_all_aliases().unwrap_or_default();
        for long in arg.get_long().into_iter().chain(aliases) {
            found.entry(long.to_owned()).or_insert_with(|| command.get_display_name().unwrap_or_default().to_owned());
        }
    }
    command.get_subcommands().for_each(|sub| options(sub, found));
}

/// The `--options` that a text names. One that ends with a dash (`--tls-…`) means all that begin so.
fn named(text: &str) -> BTreeSet<String> {
    let starts = text.match_indices("--").filter(|(at, _)| {
        let before = text[..*at].chars().next_back();
        before.is_none_or(|c| !c.is_alphanumeric() && c != '-')
    });
    let names = starts.map(|(at, _)| {
        let name = text[at + 2..].split(|c: char| !c.is_ascii_alphanumeric() && c != '-').next().unwrap_or_default();
        name.to_owned()
    });
    names.filter(|name| name.starts_with(|c: char| c.is_ascii_lowercase())).collect()
}

#[test]
fn every_option_stands_on_a_page_and_every_option_on_a_page_exists() {
    let mut known = BTreeMap::new();
    options(&commands(), &mut known);
    let mut described = BTreeSet::new();
    for (path, text) in user_pages() {
        for name in named(&text) {
            let all = name.ends_with('-') && known.keys().any(|option| option.starts_with(&name));
            let exists = all || known.contains_key(&name) || GENERAL.contains(&&name[..]);
            assert!(exists, "{}: there is no option --{name}", path.display());
            described.insert(name);
        }
    }
    let missing: Vec<_> =
        known.iter().filter(|(name, _)| !described.contains(*name) && !GENERAL.contains(&&name[..])).collect();
    assert!(missing.is_empty(), "on no page of docs/: {missing:?}");
}

/// The words of a shell's command, up to a comment; with pipes, of each command.
fn shell_commands(line: &str) -> Vec<Vec<String>> {
    let (mut all, mut words, mut word, mut quote) = (Vec::new(), Vec::new(), None::<String>, None);
    for c in line.chars().chain([' ']) {
        match (quote, c) {
            (Some(q), c) if q == c => quote = None,
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, '#') if word.is_none() => break,
            (None, '|') => all.push(std::mem::take(&mut words)),
            (None, ' ') => words.extend(word.take()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    all.push(words);
    // What goes into a file is no argument.
    all.into_iter().map(|words| words.into_iter().take_while(|word| word != ">").collect()).collect()
}

/// Refuses what the command line does not take. Lines with `…` are no whole commands. In a table, a command that names the journal is
/// whole.
fn check_commands(place: &str, text: &str) -> usize {
    let in_tables =
        text.lines().filter(|line| line.starts_with('|')).flat_map(|line| line.split('`').skip(1).step_by(2));
    let in_tables = in_tables.filter(|code| code.starts_with("redtape ") && code.contains(" --from journal"));
    let text = in_tables.fold(text.to_owned(), |text, code| format!("{text}\n    {code}"));
    let mut checked = 0;
    for line in text.replace("\\\n      ", "").lines().filter(|line| line.starts_with("  ") && !line.contains('…')) {
        let line = line.trim().trim_start_matches("$ ");
        // A remark stands behind a wide gap.
        let line = line.split("     ").next().unwrap_or_default();
        for words in shell_commands(line).iter().filter(|words| words.first().is_some_and(|word| word == "redtape")) {
            let parsed = Args::command().try_get_matches_from(words);
            let refused = parsed.err().filter(clap::Error::use_stderr);
            assert!(refused.is_none(), "{place}: {line}\n{}", refused.map(|e| e.to_string()).unwrap_or_default());
            checked += 1;
        }
    }
    checked
}

fn check_examples(command: &Command) -> usize {
    let examples = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    let name = command.get_display_name().unwrap_or_default();
    check_commands(name, &examples) + command.get_subcommands().map(check_examples).sum::<usize>()
}

#[test]
fn every_command_on_a_page_and_in_help_is_one_that_is_taken() {
    let on_pages: usize =
        user_pages().iter().map(|(path, text)| check_commands(&path.display().to_string(), text)).sum();
    assert!(on_pages > 50, "{on_pages}");
    let in_help = check_examples(&commands());
    assert!(in_help > 40, "{in_help}");
}

/// The anchor that GitHub gives a heading.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().to_lowercase();
    let kept = kept.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

fn anchors(text: &str) -> BTreeSet<String> {
    text.lines().filter(|line| line.starts_with('#')).map(|line| anchor(line.trim_start_matches('#'))).collect()
}

#[test]
fn every_link_leads_somewhere() {
    let dirs = [root().to_owned(), root().join("docs"), root().join("docs/internals")];
    let mut checked = 0;
    for path in dirs.iter().flat_map(|dir| markdown_in(dir)) {
        let text = std::fs::read_to_string(&path).expect("a page");
        for (at, _) in text.match_indices("](") {
            let link = text[at + 2..].split_once(')').expect("a link").0;
            if link.contains("://") {
                continue;
            }
            let (file, fragment) = link.split_once('#').map_or((link, None), |(file, fragment)| (file, Some(fragment)));
            let target = if file.is_empty() { path.clone() } else { path.parent().expect("a parent").join(file) };
            assert!(target.exists(), "{}: {link} leads nowhere", path.display());
            if let Some(fragment) = fragment {
                let there = anchors(&std::fs::read_to_string(&target).expect("a page"));
                assert!(there.contains(fragment), "{}: {link}: no such heading, but {there:?}", path.display());
            }
            checked += 1;
        }
    }
    assert!(checked > 50, "{checked}");
}

#[test]
fn readme_stays_short() {
    let text = std::fs::read_to_string(root().join("README.md")).expect("README");
    assert!(text.lines().count() <= README_LINES, "{}", text.lines().count());
    let before = text.lines().take_while(|line| *line != "## Reference").count();
    assert!(before <= LINES_BEFORE_REFERENCE, "{before} lines before the reference");
    for line in text.lines().filter(|line| !line.starts_with('|') && !line.starts_with("    ")) {
        assert!(line.chars().count() <= README_COLUMNS, "{line}");
    }
}
