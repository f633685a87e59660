//! `redtape journal keygen`: a new key in a file that only its owner can read.
//!
//! The file is replaced as a whole, so that whoever reads it at a SIGHUP finds the old keys or all of them.

// The comments on arguments are their help texts.
#![allow(clippy::doc_markdown, rustdoc::broken_intra_doc_links)]

use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use redtape_journal::{Keyring, KeyringError, Micros};

use super::journal::out;
use crate::exit::{Failure, IOERR, USAGE};

/// `redtape journal keygen`.
#[derive(Debug, Args)]
pub(crate) struct KeygenArgs {
    /// The key file. If there is one, the new key is added at its end: the journal is encrypted with the last key of a
    /// file, and read with all of them.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Name of the key, which stands in the journal: letters, digits, `.`, `_` and `-` [default: today's date]
    #[arg(long, value_name = "ID")]
    id: Option<String>,
}

pub(crate) fn run(args: &KeygenArgs) -> anyhow::Result<ExitCode> {
    let file = &args.file;
    let usage = |e: KeyringError| Failure::new(USAGE, e);
    let failed = |e: io::Error| Failure::new(IOERR, format!("cannot write {}: {e}", file.display()));
    let before = match Keyring::from_file(file) {
        Err(KeyringError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => None,
        other => Some(other.map_err(usage)?),
    };
    let id = args.id.clone().unwrap_or_else(|| free_id(&before.clone().unwrap_or_default(), Micros::now()));
    let line = Keyring::new_line(&id).map_err(failed)?;
    let mut text = if before.is_some() { std::fs::read_to_string(file).map_err(failed)? } else { String::new() };
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    text += &line;
    // The id may be wrong, or be there; or another key may be marked as the one to use.
    let after = Keyring::parse(&text).map_err(usage)?;
    if after.current() != Some(&id) {
        let marked = after.current().unwrap_or_default();
        let what = format!("{}: the key `{marked}` is marked with `*`; take the mark out first", file.display());
        return Err(Failure::new(USAGE, what).into());
    }
    store(file, &text).map_err(failed)?;
    let next = match before.as_ref().and_then(Keyring::current) {
        None => "give it to redtape proxy (or follow) with --journal-key-file".to_owned(),
        Some(old) => format!("kill -HUP the running redtape to use it; keep `{old}` for what is encrypted with it"),
    };
    out(&format!(
        "key `{id}` is in {}: {next}. Keep a copy elsewhere: without its key, a journal can't be restored\n",
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

/// Mode 0600 from the first byte on.
fn store(file: &Path, text: &str) -> io::Result<()> {
    let folder = file.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut temporary = tempfile::NamedTempFile::new_in(folder)?;
    temporary.write_all(text.as_bytes())?;
    temporary.as_file().sync_all()?;
    temporary.persist(file).map_err(|e| e.error)?;
    File::open(folder)?.sync_all()
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
