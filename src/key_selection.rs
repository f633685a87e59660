//! Which keys: the options that are the same for every command that chooses some.
//!
//! Of several options of one kind any is enough, options of different kinds must all hold, exclusions come last
//! ([`redtape_journal::query::Filter`] has the rules). `--key`, `--exact-key`, `--keys-from` and `--key-regex` are one kind.

// The comments on arguments are their help texts.
#![allow(clippy::doc_markdown, rustdoc::broken_intra_doc_links)]

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use clap::Args;
use redtape_journal::query::{Filter, FilterError};
use redtape_wire::quoted::quote;

use crate::exit::{Failure, USAGE};
use crate::headings::KEYS;
use crate::key_argument::KeyArgument;
use crate::keys_file::add_keys;
use crate::shell::shell_word;

/// Flattened into the arguments of commands that choose keys.
#[derive(Debug, Args)]
pub(crate) struct KeySelection {
    /// Keys that match this glob, as in Redis's KEYS; may be given several times, as may all of these options.
    #[arg(help_heading = KEYS, long = "key", value_name = "GLOB")]
    keys: Vec<OsString>,
    /// This key, as any command of redtape prints it: no glob; '"\xff\x00k"' is three bytes.
    #[arg(
        help_heading = KEYS,
        long = "exact-key",
        value_name = "KEY",
        value_parser = KeyArgument::parser(),
        allow_hyphen_values = true
    )]
    exact_keys: Vec<KeyArgument>,
    /// The keys in this file (- is stdin): one a line as any command of redtape prints it, or the JSON of `redtape log --json`
    /// or `redtape get --json`. An entry with a database means the key of that database alone. At most 10 million keys and 1 GiB.
    #[arg(help_heading = KEYS, long, value_name = "FILE")]
    keys_from: Vec<PathBuf>,
    /// Keys in which this regular expression matches, anywhere in the name.
    #[arg(help_heading = KEYS, long, value_name = "RE")]
    key_regex: Vec<String>,
    /// Leave out keys that match this glob.
    #[arg(help_heading = KEYS, long = "exclude-key", value_name = "GLOB")]
    excluded_keys: Vec<OsString>,
    /// Keys of this database.
    #[arg(help_heading = KEYS, long = "db", value_name = "N")]
    dbs: Vec<u32>,
}

impl KeySelection {
    /// What is selected; reads the files that hold keys.
    pub(crate) fn filter(&self) -> Result<Filter, Failure> {
        let usage = |e: FilterError| Failure::new(USAGE, e);
        let filter = Filter::new(&bytes(&self.keys), &self.key_regex, &self.dbs).map_err(usage)?;
        let filter = filter.excluding(&bytes(&self.excluded_keys)).map_err(usage)?;
        let mut filter = filter.and_exact_keys(self.exact_keys.iter().map(|key| &key.0[..]));
        add_keys(&mut filter, &self.keys_from)?;
        Ok(filter)
    }

    /// The options as they can be given again, each quoted for a shell. What was read from stdin has no name.
    pub(crate) fn words(&self) -> Vec<String> {
        let mut words = Vec::new();
        let mut add = |option: &str, value: &[u8]| words.push(format!("{option} {}", shell_word(value)));
        self.keys.iter().for_each(|glob| add("--key", glob.as_bytes()));
        self.exact_keys.iter().for_each(|key| add("--exact-key", quote(&key.0).as_bytes()));
        for file in &self.keys_from {
            let file = file.as_os_str().as_bytes();
            add("--keys-from", if file == b"-" { b"FILE" } else { file });
        }
        self.key_regex.iter().for_each(|regex| add("--key-regex", regex.as_bytes()));
        self.excluded_keys.iter().for_each(|glob| add("--exclude-key", glob.as_bytes()));
        self.dbs.iter().for_each(|db| add("--db", db.to_string().as_bytes()));
        words
    }
}

fn bytes(globs: &[OsString]) -> Vec<&[u8]> {
    globs.iter().map(|glob| glob.as_bytes()).collect()
}
