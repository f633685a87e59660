//! `redtape journal keygen`: a new key in a file that only its owner can read.
//!
//! The file is replaced as a whole, so that a reload at a SIGHUP finds the old keys or all of them.

// The comments on arguments are their help texts.
#![allow(clippy::doc_markdown, rustdoc::broken_intra_doc_links)]

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use redtape_journal::{Keyring, Micros};

use crate::headings::JOURNAL;
use crate::output::out;

const EXAMPLES: &str = "Examples:
  redtape journal keygen /etc/redtape/journal.keys
  redtape journal keygen /etc/redtape/journal.keys --id 2027-q1
Keep a copy of the file elsewhere: without its key, an encrypted journal cannot be restored.";

/// `redtape journal keygen`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct KeygenArgs {
    /// The key file, made with mode 0600. If it exists, the new key is added at its end: the last key of a file encrypts, all of
    /// them decrypt.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Name of the key, which stands in the journal: letters, digits, `.`, `_` and `-` [default: today's date]
    #[arg(help_heading = JOURNAL, long, value_name = "ID")]
    id: Option<String>,
}

pub(crate) fn run(args: &KeygenArgs) -> anyhow::Result<ExitCode> {
    let file = &args.file;
    let id = |taken: &Keyring| args.id.clone().unwrap_or_else(|| free_id(taken, Micros::now()));
    let added = Keyring::add_to_file(file, id)?;
    let next = match &added.before {
        None => "give it to redtape proxy (or follow) with --journal-key-file".to_owned(),
        Some(old) => format!("kill -HUP the running redtape to use it; keep `{old}` for what is encrypted with it"),
    };
    out(&format!(
        "key `{}` is in {}: {next}. Keep a copy elsewhere: without its key, a journal cannot be restored\n",
        added.id,
        file.display()
    ))?;
    Ok(ExitCode::SUCCESS)
}

/// The day, and a number if it is not the first key of that day.
fn free_id(taken: &Keyring, now: Micros) -> String {
    let day: String = now.to_string().chars().take(10).collect();
    let ids = std::iter::once(day.clone()).chain((2..).map(|n| format!("{day}.{n}")));
    ids.into_iter().find(|id| taken.ids().all(|known| known != id)).unwrap_or(day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_one_day_have_different_names() {
        let now = Micros(1_795_176_000_000_000);
        let key = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
        let taken = |text: &str| Keyring::parse(text).expect("keys");
        assert_eq!(free_id(&Keyring::default(), now), "2026-11-20");
        assert_eq!(free_id(&taken(&format!("a:{key},2026-11-20:{key},2026-11-20.2:{key}")), now), "2026-11-20.3");
    }
}
