//! Repair: makes a damaged journal one that can be written to and restored from again, keeping all that can be read.
//!
//! ```text
//! plan_repair: files ─► survey, examine ─► runs of whole blocks, faults ─► plan (pure) ─► pieces ─► RepairPlan
//! repair:      the same under the lock ─► copies, new segments, splices (act) ─► RepairReport
//! ```
//!
//! Only on demand, and only without a writer. Nothing is invented: records that cannot be read are lost, and are named by LSNs
//! and times, now and by every later look at the journal ([`crate::splices`]). Every file that is changed or goes is
//! copied to the quarantine before.

mod act;
mod examine;
mod plan;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

pub use examine::Fault;
use examine::{Examined, Known, examine};
use plan::{How, Plan};

use crate::crypto::Keyring;
use crate::directory::Directory;
use crate::error::{OpenError, Span};
use crate::files::is_there;
use crate::filters_file;
use crate::lease::{PruneLock, ReadLease, RemovalLease};
use crate::lock::Lock;
use crate::marks::read_marks;
use crate::meta::{Meta, not_a_journal};
use crate::segment::header::{SegmentHeader, TimelineFacts};
use crate::segment::load::{list_segments, load_segment};
use crate::segment::name::SegmentName;
use crate::server::KnownServers;
use crate::snapshot::{KEY_INDEX, SnapshotInfo, SnapshotKind, list_snapshots_of};
use crate::splices::Splices;
use crate::storage::LocalDirectory;
use crate::types::{Lsn, Mark, TimelineId};

/// What is wrong with a journal, and what a repair does about it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RepairPlan {
    /// What is wrong; empty = there is nothing to repair.
    pub faults: Vec<Fault>,
    /// Records that are lost, including those of earlier repairs.
    pub lost: Vec<Span>,
    /// What is done, for a person to read.
    pub steps: Vec<String>,
}

impl RepairPlan {
    /// Nothing is wrong.
    pub fn is_sound(&self) -> bool {
        self.faults.is_empty()
    }
}

/// A repair that was made.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RepairReport {
    /// The plan that was carried out.
    pub plan: RepairPlan,
    /// The folder that keeps the files as they were; `None` = nothing was changed.
    pub copies: Option<PathBuf>,
}

/// Finds everything that keeps the journal in `dir` from being opened or read, and plans its repair. Changes nothing, and
/// works beside a live writer.
pub fn plan_repair(dir: impl AsRef<Path>, keyring: &Keyring) -> Result<RepairPlan, OpenError> {
    let dir = Directory::new(dir);
    // Before the first name is read: what is listed must still be there when it is opened.
    let _lease = ReadLease::take(&dir);
    refuse_other_directory(&dir)?;
    let survey = Survey::of(&dir, keyring)?;
    Ok(survey.decide(&dir).summary)
}

/// Repairs the journal in `dir`. Plans anew, under the journal's lock, as the journal may have changed since
/// [`plan_repair`].
pub fn repair(dir: impl AsRef<Path>, keyring: &Keyring) -> Result<RepairReport, OpenError> {
    let dir = Directory::new(dir);
    let lease = ReadLease::take(&dir);
    refuse_other_directory(&dir)?;
    let _lock = Lock::take(&dir)?;
    let survey = Survey::of(&dir, keyring)?;
    let decision = survey.decide(&dir);
    drop(lease);
    let copies = if decision.is_needed { Some(carry_out(&dir, &survey, &decision, keyring)?) } else { None };
    Ok(RepairReport { plan: decision.summary, copies })
}

fn refuse_other_directory(dir: &Directory) -> Result<(), OpenError> {
    let (names, _) = list_segments(&LocalDirectory::new(dir))?;
    if is_there(&dir.meta()) || !names.is_empty() { Ok(()) } else { Err(not_a_journal(dir)) }
}

/// Everything that was read of the journal.
struct Survey {
    meta: Meta,
    /// `meta` is whole; else it is made again.
    has_meta: bool,
    journal_id: [u8; 16],
    lines: Lines,
    snapshots: Snapshots,
    files: Vec<Examined>,
    /// Up to this LSN there were records, as snapshots and marks say.
    named: Lsn,
    /// Faults and steps that do not depend on the plan for the segments.
    summary: RepairPlan,
}

/// What is to be done.
struct Decision<'a> {
    plan: Plan<'a>,
    /// The timeline that begins behind what is left, if one has to.
    fresh: TimelineId,
    /// Files have to be changed.
    is_needed: bool,
    summary: RepairPlan,
}

impl Survey {
    fn of(dir: &Directory, keyring: &Keyring) -> Result<Self, OpenError> {
        let mut summary = RepairPlan::default();
        let (names, _) = list_segments(&LocalDirectory::new(dir))?;
        let (meta, has_meta) = meta(dir, &names, &mut summary)?;
        let journal_id = meta.id().unwrap_or_default();

        // Beside a writer: marks and snapshots name LSNs that the segments hold which are listed behind them, and a timeline
        // has a base among the snapshots that are listed behind it.
        let lines = Lines::load(dir)?;
        let earlier: Vec<PathBuf> = list_snapshots_of(&LocalDirectory::new(dir), &meta.journal_id)?
            .whole
            .into_iter()
            .map(|info| info.path)
            .collect();
        let (names, _) = list_segments(&LocalDirectory::new(dir))?;
        let snapshots = snapshots(dir, &meta.journal_id, keyring, &mut summary)?;
        let headers = headers(dir, &names, journal_id)?;
        let timelines = timelines(&headers, &snapshots.right);
        let known = Known { journal_id, timelines: &timelines, headers: &headers, keyring };
        let mut files: Vec<Examined> = Vec::new();
        for (n, (name, path)) in names.iter().enumerate() {
            files.extend(examine(*name, path, n + 1 == names.len(), &known)?);
        }
        summary.faults.extend(files.iter().flat_map(|f| f.faults.clone()));
        summary.faults.extend(lines.faults(dir));
        let earlier = snapshots.right.iter().filter(|s| earlier.contains(&s.path)).map(|s| s.manifest.lsn);
        let named = earlier.chain(lines.marks.iter().map(|m| m.lsn)).max().unwrap_or_default();
        Ok(Self { meta, has_meta, journal_id, lines, snapshots, files, named, summary })
    }

    fn decide(&self, dir: &Directory) -> Decision<'_> {
        let mut summary = self.summary.clone();
        let manifests: Vec<_> = self.snapshots.right.iter().map(|s| &s.manifest).collect();
        let plan = plan::plan(&self.files, &manifests, Lsn(self.named.0 + 1), &self.lines.splices);
        if summary.faults.is_empty()
            && plan.fresh.is_some()
            && let Some(last) = plan.pieces.last().filter(|p| p.run.tally.records == 0)
        {
            let what = "it is compacted and holds no record: a writer cannot continue it".to_owned();
            summary.faults.push(Fault { file: last.of.path.clone(), offset: 0, what });
        }
        let end = plan.pieces.last().map_or(Lsn(0), |p| Lsn(p.run.tally.extent.next_lsn.0 - 1));
        if self.named > end {
            let what = format!("they end with LSN {end}, and a snapshot or a mark was made at LSN {}", self.named);
            summary.faults.push(Fault { file: dir.segments(), offset: 0, what });
        }
        let fresh = plan::next_timeline(&plan.pieces, &manifests);
        describe(dir, &plan, fresh, &mut summary);
        let others = !self.has_meta || !self.snapshots.wrong.is_empty() || !self.lines.faults(dir).is_empty();
        let is_needed = others || !plan.changed.is_empty() || plan.fresh.is_some() || plan.unexplained;
        Decision { plan, fresh, is_needed, summary }
    }
}

/// Keeps copies of what is changed, and changes it. Returns the folder of the copies.
fn carry_out(
    dir: &Directory,
    survey: &Survey,
    Decision { plan, fresh, .. }: &Decision<'_>,
    keyring: &Keyring,
) -> Result<PathBuf, OpenError> {
    let Survey { meta, has_meta, journal_id, lines, snapshots, .. } = survey;
    let folder = act::new_folder(dir)?;
    for file in &plan.changed {
        act::keep(&folder, &file.path)?;
    }
    for path in snapshots.wrong.iter().chain([dir.marks(), dir.splices(), dir.server(), dir.meta()].iter()) {
        if is_there(path) {
            act::keep(&folder, path)?;
        }
    }
    act::kept(dir, &folder)?;
    if !has_meta {
        meta.store(dir)?;
    }
    let _prune = PruneLock::take(dir).map_err(OpenError::io("lock", dir.prune_lock()))?.ok_or_else(|| busy(dir))?;
    let _alone = RemovalLease::take(dir).map_err(OpenError::io("lock", dir.meta()))?.ok_or_else(|| busy(dir))?;
    filters_file::remove(dir);
    let prepared = act::prepare(dir, plan, &lines.splices, keyring)?;
    let fresh = act::fresh_header(plan, &prepared, *journal_id, *fresh);
    act::place(dir, plan, prepared, fresh, lines.splices.clone(), keyring)?;
    for path in &snapshots.wrong {
        std::fs::remove_file(path).map_err(OpenError::io("remove", path))?;
    }
    lines.store_without_damage(dir)?;
    Ok(folder)
}

/// The files that consist of lines.
struct Lines {
    marks: Vec<Mark>,
    wrong_marks: Vec<u64>,
    splices: Splices,
    servers: KnownServers,
}

impl Lines {
    fn load(dir: &Directory) -> Result<Self, OpenError> {
        let (marks, wrong_marks) = read_marks(dir).map_err(OpenError::io("read", dir.marks()))?;
        let splices = Splices::load(dir).map_err(OpenError::io("read", dir.splices()))?;
        let servers = KnownServers::load_in(dir).map_err(|e| OpenError::io(e.action, &e.path)(e.source))?;
        Ok(Self { marks, wrong_marks, splices, servers })
    }

    /// A fault for each damaged line.
    fn faults(&self, dir: &Directory) -> Vec<Fault> {
        let files = [
            (dir.splices(), &self.splices.wrong[..], ""),
            (dir.marks(), &self.wrong_marks, ": this mark is lost"),
            (dir.server(), self.servers.damaged(), ": this identity of a server is lost"),
        ];
        let of_file = |(file, offsets, lost): (PathBuf, &[u64], &str)| {
            let what = format!("a line with a wrong checksum{lost}");
            offsets.iter().map(|&offset| Fault { file: file.clone(), offset, what: what.clone() }).collect::<Vec<_>>()
        };
        files.into_iter().flat_map(of_file).collect()
    }

    /// Leaves out the damaged lines of marks and servers; those of splices went when what the repair adds was put in place.
    fn store_without_damage(&self, dir: &Directory) -> Result<(), OpenError> {
        if !self.wrong_marks.is_empty() {
            crate::jsonl::store(&dir.marks(), &self.marks).map_err(OpenError::io("write", dir.marks()))?;
        }
        if !self.servers.damaged().is_empty() {
            self.servers.store(dir).map_err(OpenError::io("write", dir.server()))?;
        }
        Ok(())
    }
}

fn busy(dir: &Directory) -> OpenError {
    OpenError::Busy { dir: dir.root().to_owned() }
}

/// What `meta` says, or would have said; whether it is there.
fn meta(
    dir: &Directory,
    names: &[(SegmentName, PathBuf)],
    summary: &mut RepairPlan,
) -> Result<(Meta, bool), OpenError> {
    let what = match Meta::load(dir) {
        Ok(Some(meta)) => return Ok((meta, true)),
        Ok(None) => "it is missing".to_owned(),
        Err(OpenError::Corrupt { damage, .. }) => damage.to_string(),
        Err(other) => return Err(other),
    };
    let storage = LocalDirectory::new(dir);
    // As most segments say.
    let mut ids: BTreeMap<[u8; 16], usize> = BTreeMap::new();
    let mut created = crate::types::Micros::now();
    for (name, path) in names {
        if let Ok(whole) = load_segment(&storage, *name, path, false)?.header {
            *ids.entry(whole.header.journal_id).or_default() += 1;
            created = created.min(whole.header.created);
        }
    }
    let Some((id, _)) = ids.into_iter().max_by_key(|(_, n)| *n) else { return Err(not_a_journal(dir)) };
    summary.faults.push(Fault { file: dir.meta(), offset: 0, what });
    summary.steps.push("meta is recreated from the segments; the data's source is unknown".to_owned());
    Ok((Meta::new(id, created, String::new()), false))
}

struct Snapshots {
    right: Vec<SnapshotInfo>,
    /// Files to take away.
    wrong: Vec<PathBuf>,
}

fn snapshots(
    dir: &Directory,
    journal_id: &str,
    keyring: &Keyring,
    summary: &mut RepairPlan,
) -> Result<Snapshots, OpenError> {
    let listed = list_snapshots_of(&LocalDirectory::new(dir), journal_id)?;
    let mut found = Snapshots { right: Vec::new(), wrong: Vec::new() };
    let mut wrong = |file: &Path, what: String, found: &mut Snapshots| {
        summary.faults.push(Fault { file: file.to_owned(), offset: 0, what });
        for path in ["json", "rdb", KEY_INDEX].map(|extension| file.with_extension(extension)) {
            if is_there(&path) {
                found.wrong.push(path);
            }
        }
        summary.steps.push(format!("{} goes to the quarantine: no restore can start from it", relative(dir, file)));
    };
    for (path, what) in listed.broken {
        wrong(&path, what, &mut found);
    }
    for info in listed.whole {
        let health = info.health(&LocalDirectory::new(dir), keyring)?;
        match health.damage {
            None if health.gone => {}
            None => found.right.push(info),
            Some((_, what)) => wrong(&info.path, what, &mut found),
        }
    }
    Ok(found)
}

/// The headers of this journal that are right, by the names of their files.
fn headers(
    dir: &Directory,
    names: &[(SegmentName, PathBuf)],
    journal_id: [u8; 16],
) -> Result<BTreeMap<SegmentName, SegmentHeader>, OpenError> {
    let storage = LocalDirectory::new(dir);
    let mut headers = BTreeMap::new();
    for (name, path) in names {
        if let Ok(whole) = load_segment(&storage, *name, path, false)?.header
            && whole.header.journal_id == journal_id
        {
            headers.insert(*name, whole.header);
        }
    }
    Ok(headers)
}

/// What segments and bases say of each timeline.
fn timelines(
    headers: &BTreeMap<SegmentName, SegmentHeader>,
    snapshots: &[SnapshotInfo],
) -> BTreeMap<TimelineId, TimelineFacts> {
    let mut timelines = BTreeMap::new();
    let mut bases: Vec<_> = snapshots.iter().map(|s| &s.manifest).filter(|m| m.kind == SnapshotKind::Base).collect();
    // The first is that with which the timeline begins; others were taken behind changes of its source's id.
    bases.sort_by_key(|m| (m.timeline, m.offset));
    for manifest in bases {
        let facts = TimelineFacts {
            id: manifest.timeline,
            source_id: manifest.source_id.clone(),
            reason: "unknown: it was lost with a header".to_owned(),
            start_offset: manifest.offset,
            start_ts: manifest.ts,
        };
        timelines.entry(manifest.timeline).or_insert(facts);
    }
    timelines.extend(headers.values().map(|header| (header.timeline.id, header.timeline.clone())));
    timelines
}

/// Puts a plan into words.
fn describe(dir: &Directory, plan: &Plan<'_>, fresh: TimelineId, summary: &mut RepairPlan) {
    for pair in plan.pieces.windows(2) {
        let next = &pair[1].run;
        if let Some(lost) = act::lost_between(&pair[0], next.header.first_lsn, pair[1].first_ts()) {
            summary.lost.push(lost.span());
        }
    }
    if let (Some(next), Some(last)) = (plan.fresh, plan.pieces.last())
        && let Some(lost) = act::lost_between(last, next, None)
    {
        summary.lost.push(lost.span());
    }
    if plan.unexplained && plan.changed.is_empty() {
        summary.faults.push(Fault {
            file: dir.segments(),
            offset: 0,
            what: "segments are missing, or are not the right ones".to_owned(),
        });
    }
    for file in &plan.changed {
        let of = plan.pieces.iter().filter(|p| std::ptr::eq(p.of, *file));
        let what: Vec<String> = of
            .map(|p| {
                let name = format!("LSN {} to {}", p.run.header.first_lsn, p.run.tally.extent.next_lsn.0 - 1);
                match p.how {
                    How::Renamed(_) => format!("gets its right name ({name})"),
                    _ if p.run.tally.records == 0 => "is rewritten, without a record".to_owned(),
                    _ => format!("is rewritten with {name}"),
                }
            })
            .collect();
        if file.faults.is_empty() && plan.fresh.is_none() {
            let what = "its records are in another segment already, or contradict it".to_owned();
            summary.faults.push(Fault { file: file.path.clone(), offset: 0, what });
        }
        let what = if what.is_empty() { "goes".to_owned() } else { what.join(", and ") };
        summary.steps.push(format!("{} {what}", relative(dir, &file.path)));
    }
    if plan.fresh.is_some() {
        summary.steps.push(format!(
            "timeline {fresh} begins after it: the next start of redtape takes a base, from which points in time can be restored again"
        ));
    }
}

fn relative(dir: &Directory, file: &Path) -> String {
    file.strip_prefix(dir.root()).unwrap_or(file).display().to_string()
}
