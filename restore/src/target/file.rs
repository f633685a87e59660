//! A file as the target: an RDB, a folder with an append-only file, or JSON lines.
//!
//! ```text
//! look at the name ─► (plan) ─► temporary file ─► dataset in a scratch server, saved as an RDB ─► format ─► looked at ─► its name
//! ```
//!
//! What a failure, a crash or a kill leaves: [`super::new_file`], [`super::new_folder`]. Standard output has no name that could wait: of JSON lines that end
//! without their last line nobody can think that they are whole.

use super::address::{FileAddress, FileFormat, Output};
use super::new_file::{NewFile, look};
use super::new_folder::NewFolder;
use super::restored::{Restored, Written, WrittenFile};
use super::{aof, jsonl, options, rdb};
use crate::error::RestoreError;
use crate::interrupt::Interrupt;
use crate::plan::{FileFacts, Plan, make_for_file};
use crate::progress::Observer;
use crate::request::Request;
use crate::source::Source;
use crate::source::binary::Binary;
use redtape_journal::query::Filter;

/// See the module.
pub(crate) struct FileTarget {
    address: FileAddress,
    filter: Filter,
    /// The server that saves an RDB, if it is not the scratch server.
    saver: Option<Binary>,
    interrupt: Interrupt,
}

impl FileTarget {
    /// Whether the file could be made; changes nothing.
    pub(crate) fn open(address: &FileAddress, request: &Request) -> Result<Self, RestoreError> {
        options::refuse_those_of_servers(request)?;
        if address.history && !request.filter.is_everything() {
            return Err(RestoreError::Usage(
                "--with-history keeps every record since the base: leave out either it or the selection of keys"
                    .to_owned(),
            ));
        }
        match (&address.to, address.format) {
            (Output::Path(path), _) => look(path)?,
            (Output::Stdout, FileFormat::JsonLines) => {}
            (Output::Stdout, FileFormat::Rdb | FileFormat::Aof) => return Err(not_to_stdout()),
        }
        let (filter, interrupt) = (request.filter.clone(), request.interrupt.clone());
        Ok(Self { address: address.clone(), filter, saver: None, interrupt })
    }

    /// Finds the servers that are needed, and makes the plan.
    pub(crate) fn plan(&mut self, source: &mut Source, request: &Request) -> Result<Plan, RestoreError> {
        let named = request.server_bin.as_deref();
        let binary = match self.address.format {
            FileFormat::JsonLines => source.find_any_binary(named)?,
            FileFormat::Rdb | FileFormat::Aof => {
                let (scratch, saver) = source.find_saver(named)?;
                if self.address.history {
                    aof::check_history(source, &scratch, saver.as_ref())?;
                }
                self.saver = saver;
                scratch
            }
        };
        let plan = make_for_file(&FileFacts {
            point: &source.point,
            rdb: source.rdb.version,
            range: &source.facts,
            slice: source.slice.as_ref(),
            filter: &self.filter,
            base_bytes: source.base_bytes(),
            format: self.address.format,
            to: &self.address.to,
            history: self.address.history,
            scratch: &binary,
            saver: self.saver.as_ref(),
        });
        source.binary = Some(binary);
        Ok(plan)
    }

    /// Writes it.
    pub(crate) fn restore(self, source: &Source, observer: &mut dyn Observer) -> Result<Restored, RestoreError> {
        let Self { address, filter, saver, interrupt } = self;
        let of_rdb = || rdb::Job { source, saver: saver.as_ref(), filter: &filter, interrupt: &interrupt };
        let of_lines = || jsonl::Job { source, filter: &filter, interrupt: &interrupt };
        let written = match (address.format, &address.to) {
            (FileFormat::Rdb, Output::Path(path)) => {
                NewFile::create(path).and_then(|file| rdb::write(&of_rdb(), file, observer))
            }
            (FileFormat::Aof, Output::Path(path)) if address.history => {
                NewFolder::create(path).and_then(|folder| aof::write_with_history(&of_rdb(), folder, observer))
            }
            (FileFormat::Aof, Output::Path(path)) => {
                let version = saver.as_ref().or(source.binary.as_ref()).map(|binary| binary.version);
                let version = version.ok_or_else(|| RestoreError::NoScratch("none was chosen".to_owned()))?;
                NewFolder::create(path).and_then(|folder| aof::write(&of_rdb(), version, folder, observer))
            }
            (FileFormat::JsonLines, Output::Path(path)) => {
                NewFile::create(path).and_then(|file| jsonl::write(&of_lines(), file, observer))
            }
            (FileFormat::JsonLines, Output::Stdout) => jsonl::write_to_stdout(&of_lines(), observer),
            (FileFormat::Rdb | FileFormat::Aof, Output::Stdout) => Err(not_to_stdout()),
        };
        let Written { keys, expired, functions, bytes, rdb, history, checks, warnings } =
            written.map_err(without_a_trace)?;
        let file = WrittenFile { format: address.format, path: address.to.to_string(), bytes, rdb, history };
        Ok(Restored { keys, expired: Some(expired), functions, checks, warnings, outcome: None, file: Some(file) })
    }
}

fn not_to_stdout() -> RestoreError {
    RestoreError::Usage(
        "only JSON lines go to standard output: name a file or folder that does not exist yet".to_owned(),
    )
}

/// Says of an interruption that no file is left.
fn without_a_trace(error: RestoreError) -> RestoreError {
    match error {
        RestoreError::Interrupted => {
            RestoreError::Undone { cause: Box::new(error), aftermath: "No file was written".to_owned() }
        }
        // Nothing was to be written to a server.
        RestoreError::Undone { cause, .. } if matches!(*cause, RestoreError::Interrupted) => {
            RestoreError::Undone { cause, aftermath: "No file was written".to_owned() }
        }
        other => other,
    }
}
