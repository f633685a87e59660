//! Verification: everything that can be checked without the source, and what each problem means for
//! a restore. Changes nothing, works beside a live writer, holds pruning off meanwhile.
//!
//! Shallow: meta, headers, chain, footers, the unsealed segment, names, sizes, marks. Deep: also
//! every block and every group inside, the footers' sums and digests, the snapshots' digests, and their key indexes.

mod files;
mod segments;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use files::unless_wrong_kind;

use crate::crypto::Keyring;
use crate::directory::Directory;
use crate::error::{OpenError, Span};
use crate::lease::ReadLease;
use crate::marks::read_marks;
use crate::meta::{Meta, not_a_journal};
use crate::splices::Splices;
use crate::storage::LocalDirectory;
use crate::types::{Lsn, TimelineId};

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file, relative to the journal's directory.
    pub file: PathBuf,
    /// Where in it.
    pub offset: u64,
    /// What is wrong.
    pub what: String,
    /// LSNs and times affected, if any.
    pub span: Option<Span>,
    /// What it means for a restore.
    pub consequence: String,
}

/// What was checked and what was found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct VerifyReport {
    /// Segments checked.
    pub segments: u64,
    /// Blocks in them.
    pub blocks: u64,
    /// Groups in them.
    pub groups: u64,
    /// Records in them.
    pub records: u64,
    /// Finished snapshots.
    pub snapshots: u64,
    /// Size of segments, snapshots and their key indexes.
    pub bytes: u64,
    /// What is wrong; empty = the journal is whole.
    pub problems: Vec<Problem>,
    /// What is no damage: snapshots and marks that lie before the first segment of their timeline, as somebody may have wanted
    /// it; key indexes that will be made again.
    pub notes: Vec<String>,
}

/// How far verification is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifyProgress {
    /// The file in work, relative to the journal's directory.
    pub file: PathBuf,
    /// Bytes of segments and snapshots done.
    pub done_bytes: u64,
    /// Bytes of segments and snapshots there were at the beginning.
    pub total_bytes: u64,
}

/// Checks the journal in `dir`; `deep` reads every byte. `progress` is called after each file.
pub fn verify(
    dir: impl AsRef<Path>,
    deep: bool,
    progress: impl FnMut(&VerifyProgress),
) -> Result<VerifyReport, OpenError> {
    verify_with(dir, deep, &Keyring::default(), progress)
}

/// The same for a journal that is encrypted, at least in part. What has another key is checked as far as that is
/// possible without, and noted.
pub fn verify_with(
    dir: impl AsRef<Path>,
    deep: bool,
    keyring: &Keyring,
    progress: impl FnMut(&VerifyProgress),
) -> Result<VerifyReport, OpenError> {
    let dir = Directory::new(dir);
    let Some(meta) = Meta::load(&dir)? else {
        return Err(not_a_journal(&dir));
    };
    let _lease = ReadLease::take(&dir);
    let splices = unless_wrong_kind(Splices::load(&dir).map_err(OpenError::io("read", dir.splices())))?;
    let (marks, _) = unless_wrong_kind(read_marks(&dir).map_err(OpenError::io("read", dir.marks())))?;
    let storage = LocalDirectory::new(&dir);
    let mut verifier = Verifier {
        total: files::total_bytes(&storage),
        storage,
        dir,
        deep,
        keyring,
        splices,
        report: VerifyReport::default(),
        end: Lsn(1),
        progress,
    };
    let begins = verifier.segments(meta.id().unwrap_or_default())?;
    verifier.snapshots()?;
    verifier.marks()?;
    verifier.servers()?;
    verifier.damaged_splices();
    verifier.beyond_the_end(&marks);
    verifier.before_the_segments(&begins)?;
    verifier.other_files()?;
    Ok(verifier.report)
}

/// For each timeline the LSN with which its segments begin.
type Begins = BTreeMap<TimelineId, Lsn>;

struct Verifier<'a, P> {
    dir: Directory,
    storage: LocalDirectory,
    deep: bool,
    keyring: &'a Keyring,
    splices: Splices,
    report: VerifyReport,
    total: u64,
    /// The LSN after the last one that was found.
    end: Lsn,
    progress: P,
}

impl<P: FnMut(&VerifyProgress)> Verifier<'_, P> {
    fn problem(&mut self, file: &Path, offset: u64, what: impl Into<String>, span: Option<Span>, consequence: &str) {
        self.report.problems.push(Problem {
            file: self.relative(file),
            offset,
            what: what.into(),
            span,
            consequence: consequence.to_owned(),
        });
    }

    /// Turns a refusal into a problem; anything else stays an error.
    fn refusal(&mut self, error: OpenError, consequence: &str) -> Result<(), OpenError> {
        match error {
            OpenError::Corrupt { file, offset, span, damage } => {
                self.problem(&file, offset, damage.to_string(), Some(span), consequence);
                Ok(())
            }
            OpenError::WrongKind { file, found, wanted } => {
                self.problem(&file, 0, format!("{found}, not {wanted}"), None, consequence);
                Ok(())
            }
            other => Err(other),
        }
    }

    fn relative(&self, file: &Path) -> PathBuf {
        file.strip_prefix(self.dir.root()).unwrap_or(file).to_owned()
    }

    fn done(&mut self, file: &Path, bytes: u64) {
        self.report.bytes += bytes;
        let progress =
            VerifyProgress { file: self.relative(file), done_bytes: self.report.bytes, total_bytes: self.total };
        (self.progress)(&progress);
    }
}
