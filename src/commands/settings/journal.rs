//! Which journal, and its keys: what every command that opens a journal takes, from flags, environment and file.

// The comments on arguments are their help texts.
#![allow(clippy::doc_markdown, rustdoc::broken_intra_doc_links)]

use std::path::PathBuf;

use clap::Args;
use redtape_journal::{Catalog, Keyring};
use serde::Deserialize;

use super::options::Or as _;
use super::{FileOption, KeyOptions};
use crate::exit::{DATAERR, Failure};
use crate::headings::JOURNAL;
use crate::shell::shell_word;

/// The default place of the journal.
const DEFAULT_DIR: &str = "redtape-journal";

/// Which journal.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct JournalOptions {
    /// Directory of the journal [default: dir of the settings, else redtape-journal]
    #[arg(help_heading = JOURNAL, long, visible_alias = "dir", env = "REDTAPE_DIR", value_name = "DIR")]
    from: Option<PathBuf>,
    #[command(flatten)]
    keys: KeyOptions,
    #[command(flatten)]
    file: FileOption,
}

/// The directory's name in the file.
#[derive(Debug, Default, Deserialize)]
struct InFile {
    dir: Option<PathBuf>,
}

/// A journal, and what it is encrypted with.
#[derive(Debug)]
pub(crate) struct JournalPlace {
    pub(crate) dir: PathBuf,
    pub(crate) keyring: Keyring,
}

impl JournalOptions {
    /// What is encrypted is opened with this, wherever the journal is.
    pub(crate) fn keyring(&self) -> Result<Keyring, Failure> {
        let file = self.file.read_if_allowed()?;
        self.keys.clone().or(file.group()?).keyring()
    }

    /// Where the journal would be, if that is a file: what a restore has written (`--to-jsonl`).
    pub(crate) fn written_file(&self) -> Option<PathBuf> {
        let named_so =
            |path: &PathBuf| path.extension().is_some_and(|extension| extension == "jsonl") && !path.is_dir();
        self.from.clone().filter(|path| path.is_file() || named_so(path))
    }

    /// Flags win, then the environment, then the file.
    pub(crate) fn place(&self) -> Result<JournalPlace, Failure> {
        let file = if self.from.is_some() { self.file.read_if_allowed()? } else { self.file.read()? };
        let keyring = self.keys.clone().or(file.group()?).keyring()?;
        let dir = match (&self.from, file.group::<InFile>()?.dir) {
            (Some(dir), _) => dir.clone(),
            (None, Some(dir)) if dir.exists() => dir,
            (None, Some(dir)) => {
                let place = file.place("dir").unwrap_or_default();
                let message = format!(
                    "there is no journal at {}, the dir of {place}: it is missing; give --from DIR",
                    dir.display()
                );
                return Err(Failure::new(DATAERR, message));
            }
            (None, None) => PathBuf::from(DEFAULT_DIR),
        };
        Ok(JournalPlace { dir, keyring })
    }

    /// The options that were given, to be given again, each quoted for a shell. What stands in the file needs none.
    pub(crate) fn words(&self) -> Vec<String> {
        let word =
            |option: &str, path: &PathBuf| format!("{option} {}", shell_word(path.as_os_str().as_encoded_bytes()));
        let from = self.from.iter().map(|dir| word("--from", dir));
        let keys = self.keys.journal_key_file.iter().flatten().map(|file| word("--journal-key-file", file));
        let config = self.file.config.iter().map(|file| word("--config", file));
        from.chain(keys).chain(config).collect()
    }
}

impl JournalPlace {
    /// Opens it for reading.
    pub(crate) fn open(&self) -> anyhow::Result<Catalog> {
        Ok(Catalog::open_with(&self.dir, &self.keyring)?)
    }
}
