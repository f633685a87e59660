//! Power loss: what a run did to its disk is recorded, call by call, with what its clients were told; then the disk is
//! built as a power loss at any of these calls may leave it, and the journal is opened again.
//!
//! `kill -9` leaves the page cache alone, and so says nothing of a missing sync; here nothing is there but what was
//! synced, and of the rest whatever chance wants (`harness/record.rs`). After each such loss:
//! - the journal opens, and verifies to the last byte;
//! - what was acknowledged with `--ack journal` is there, and can be restored; with `--sync everysec` all but
//!   the last second is;
//! - every group is the one that was written, none is missing between others, nothing is invented;
//! - writing goes on.
//!
//! A failure keeps the recording: `REDTAPE_POWER_LOG=<folder> REDTAPE_SEED=<seed>` takes it again.

use crate::harness::record::{Event, Loss, Model, What};
use crate::harness::redtape::run_in;
use crate::harness::{Args, Conn, Recorder, Redtape, Server, env_number, seed};
use anyhow::{Context, ensure};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use redtape_journal::{
    BlockBuilder, Catalog, Group, GroupRef, Journal, KeysAt, Lsn, Micros, OpenOptions, Origin, OriginKind, RecordRef,
    ReplOffset, SyncPolicy, TimelineId, verify,
};
use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const CLIENTS: u64 = 8;
/// Below the folder that is watched; two of its folders do not exist before.
const JOURNAL: &str = "var/redtape/journal";
/// Client `n` counts up from `n` times this; so each of its replies is another number, of ten digits.
const COUNT_FROM: u64 = 1_000_000_000;
/// `everysec` promises a second; the rest is for a machine that is busy with other tests.
const EVERYSEC_NS: u64 = 2_000_000_000;

/// And the losses would show if the journal left out a sync: the same recording is taken as if it had.
#[test]
fn a_power_loss_keeps_acknowledged_writes() {
    let (seed, recorder) = (seed(), Recorder::new());
    let recorder = recorded(recorder, "always", 1, seed);
    let replay = Replay::of(&recorder, "always", seed);
    replay.run(300, "images", &|_| true).sound(&replay);
    let left_out: [(&str, Which<'_>); 8] = [
        ("of segments", &|path| is_segment(path)),
        ("of packed copies", &|path| in_journal(path, "segments/.tmp-")),
        ("of the segments' folder", &|path| path == Path::new(JOURNAL).join("segments")),
        // A key index that is torn is made again: its syncs are not needed here.
        ("of bases and their manifests", &|path| in_journal(path, "snapshots/.tmp-") && !is_key_index(path)),
        ("of the snapshots' folder", &|path| path == Path::new(JOURNAL).join("snapshots")),
        ("of the journal's folder", &|path| path == Path::new(JOURNAL)),
        ("of the folders above it", &|path| Path::new(JOURNAL).parent().is_some_and(|above| above.starts_with(path))),
        ("of marks", &|path| path == Path::new(JOURNAL).join("marks")),
    ];
    for (which, is_left_out) in left_out {
        let done = replay.run(300, "mutants", &|path| !is_left_out(path));
        let images = done.images;
        let failure = done.failure.unwrap_or_else(|| panic!("without the syncs {which}, {images} losses harm nothing"));
        println!("without the syncs {which}: {failure}");
    }
}

#[test]
fn with_everysec_a_power_loss_costs_a_second_at_most() {
    record_and_replay("everysec", 1, 150);
}

#[test]
#[ignore = "minutes: make power"]
fn ten_thousand_power_losses() {
    let images = env_number("REDTAPE_IMAGES", 10_000);
    record_and_replay("always", 3, images * 7 / 10);
    record_and_replay("everysec", 3, images * 3 / 10);
}

fn record_and_replay(sync: &str, rounds: u32, images: usize) {
    let (seed, recorder) = (seed(), Recorder::new());
    let recorder = recorded(recorder, sync, rounds, seed);
    let replay = Replay::of(&recorder, sync, seed);
    replay.run(images, "images", &|_| true).sound(&replay);
}

/// The recording, or the one that is to be taken again.
fn recorded(recorder: Recorder, sync: &str, rounds: u32, seed: u64) -> Recorder {
    if let Some(folder) = std::env::var_os("REDTAPE_POWER_LOG") {
        return Recorder::again(Path::new(&folder));
    }
    record(&recorder, sync, rounds, seed);
    recorder
}

// --- the run that is recorded ---------------------------------------------------------------------

fn record(recorder: &Recorder, sync: &str, rounds: u32, seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let journal = recorder.watched().join(JOURNAL);
    let server = Server::with(&["--repl-backlog-size", "64mb"]);
    let mut direct = server.conn();
    for n in 1..=CLIENTS {
        direct.must(&args!["SET", format!("ctr:{n}"), n * COUNT_FROM]);
    }
    let acknowledged = sync == "always";
    let mut options = vec!["--segment-mib", "1"];
    options.extend(if acknowledged { ["--ack", "journal"] } else { ["--sync", "everysec"] });
    let mut redtape = Redtape::start_in(recorder.environment(), &server.url(), &journal, &options);
    let (url, stop) = (redtape.url(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        for n in 1..=CLIENTS {
            let rng = StdRng::seed_from_u64(seed + n);
            let (url, stop) = (&url, &stop);
            scope.spawn(move || write_until(url, n, rng, stop));
        }
        let _stop = StopAtEnd(&stop);
        let mut pause = |from: u64, to: u64| std::thread::sleep(Duration::from_millis(rng.random_range(from..to)));
        for round in 0..rounds {
            pause(300, 500);
            ask(&redtape, &args!["REDTAPE.MARK", format!("first of {round}")]);
            recorder.note(&format!("mark first of {round}"));
            pause(50, 200);
            ask(&redtape, &args!["REDTAPE.SNAPSHOT"]);
            if acknowledged {
                recorder.between_calls(|| redtape.kill9());
                redtape.start_again();
                redtape.wait_streaming();
                pause(100, 300);
                // Another history: a new base, and a new timeline.
                direct.must(&args!["DEBUG", "CHANGE-REPL-ID"]);
                recorder.between_calls(|| redtape.kill9());
                redtape.start_again();
                redtape.wait_streaming();
            }
            pause(300, 500);
            ask(&redtape, &args!["REDTAPE.SNAPSHOT"]);
            pause(300, 500);
            // What is pruned cannot be compared with afterwards.
            copy(&journal, &recorder.reference(round));
            let journal = journal.to_str().expect("a plain path");
            let prune = ["journal", "prune", "--dir", journal, "--max-size", "1500kb", "--yes"];
            run_in(&recorder.environment(), &prune).expect_success("prune");
            if acknowledged {
                assert_eq!(redtape.terminate(), Some(0), "{}", redtape.said());
                redtape.start_again();
                redtape.wait_streaming();
            }
            pause(100, 300);
            ask(&redtape, &args!["REDTAPE.MARK", format!("second of {round}")]);
            recorder.note(&format!("mark second of {round}"));
        }
        pause(200, 400);
    });
    redtape.wait_caught_up();
    assert_eq!(redtape.terminate(), Some(0), "{}", redtape.said());
    copy(&journal, &recorder.reference(rounds));
}

struct StopAtEnd<'a>(&'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn ask(redtape: &Redtape, command: &Args) {
    Conn::open(&redtape.url()).expect("a client").must(command);
}

/// Pipelines of different lengths; what a client is told names the write: `INCRBYFLOAT` answers with the number that
/// its effect, a `SET`, carries.
fn write_until(url: &str, n: u64, mut rng: StdRng, stop: &AtomicBool) {
    let count = args!["INCRBYFLOAT", format!("ctr:{n}"), 1];
    while !stop.load(Ordering::Relaxed) {
        let Ok(mut conn) = Conn::open(url) else {
            std::thread::sleep(Duration::from_millis(5));
            continue;
        };
        while !stop.load(Ordering::Relaxed) {
            let mut batch = Vec::new();
            for _ in 0..rng.random_range(1..=12) {
                match rng.random_range(0..10) {
                    0..5 => batch.push(count.clone()),
                    5 => batch.extend([args!["MULTI"], count.clone(), count.clone(), args!["EXEC"]]),
                    _ => {
                        let len = if rng.random_bool(0.02) { 30_000 } else { rng.random_range(1..1500) };
                        let value: Vec<u8> = (0..len).map(|_| rng.random_range(b'g'..=b'z')).collect();
                        batch.push(args!["SET", format!("v:{n}:{}", rng.random_range(0..20)), value]);
                    }
                }
            }
            if conn.pipeline(&batch).is_err() {
                break;
            }
            std::thread::sleep(Duration::from_millis(rng.random_range(0..8)));
        }
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("a name");
        let to = to.join(entry.file_name());
        match entry.file_type().expect("a type").is_dir() {
            true => copy(&entry.path(), &to),
            // A temporary file may be gone by now.
            false => drop(std::fs::copy(entry.path(), &to)),
        }
    }
}

// --- what must be there ---------------------------------------------------------------------------

/// Everything that was ever in the journal.
#[derive(Default)]
struct Reference {
    groups: BTreeMap<Lsn, (TimelineId, Group)>,
    /// By the number that a client was told.
    told: HashMap<u64, Lsn>,
}

impl Reference {
    fn of(recorder: &Recorder) -> Self {
        let mut reference = Self::default();
        for round in 0.. {
            let folder = recorder.reference(round);
            if !folder.exists() {
                break;
            }
            let catalog = Catalog::open(&folder).expect("a journal");
            for timeline in catalog.timelines() {
                for group in catalog.groups(Lsn(0), timeline.id) {
                    reference.add(timeline.id, group.expect("a group"));
                }
            }
        }
        let last_of = |(_, group): &(_, Group)| group.records.last().expect("a record").lsn;
        let groups: Vec<_> = reference.groups.values().collect();
        assert!(groups.windows(2).all(|w| w[1].1.records[0].lsn.0 == last_of(w[0]).0 + 1), "no hole");
        reference
    }

    fn add(&mut self, timeline: TimelineId, group: Group) {
        for record in &group.records {
            if record.args.len() > 2 && record.args[1].starts_with(b"ctr:") {
                let number = std::str::from_utf8(&record.args[2]).expect("a number").parse().expect("a number");
                self.told.insert(number, record.lsn);
            }
        }
        let lsn = group.records[0].lsn;
        let before = self.groups.insert(lsn, (timeline, group));
        assert!(before.is_none_or(|before| before == self.groups[&lsn]), "{lsn} is another one later");
    }
}

/// What the clients know at a place in the log.
#[derive(Default)]
struct Known {
    /// All up to here is acknowledged.
    acknowledged: Lsn,
    /// With the time at which a client was told, for `everysec`.
    told: Vec<(u64, Lsn)>,
    marks: Vec<String>,
    /// Lines that came in parts.
    begun: HashMap<u64, Vec<u8>>,
}

impl Known {
    fn hear(&mut self, event: &Event, reference: &Reference) {
        match &event.what {
            What::Note(text) => self.marks.extend(text.strip_prefix("mark ").map(str::to_owned)),
            What::Send { connection, bytes } => {
                let mut all = self.begun.remove(connection).unwrap_or_default();
                all.extend_from_slice(bytes);
                let end = all.iter().rposition(|&b| b == b'\n').map_or(0, |at| at + 1);
                for line in all[..end].split(|&b| b == b'\n') {
                    let Some(line) = line.strip_suffix(b"\r").filter(|l| l.len() == 10) else { continue };
                    if line.iter().all(u8::is_ascii_digit) {
                        let number: u64 = std::str::from_utf8(line).expect("digits").parse().expect("a number");
                        let lsn = reference.told.get(&number);
                        let lsn = *lsn.unwrap_or_else(|| panic!("{number} was told and is in no journal"));
                        self.acknowledged = self.acknowledged.max(lsn);
                        self.told.push((event.at_ns, lsn));
                    }
                }
                // Requests with their values are sent, too: only the end of a line can be the rest of a number.
                let rest = &all[end..];
                self.begun.insert(*connection, rest[rest.len().saturating_sub(16)..].to_vec());
            }
            _ => {}
        }
    }

    /// What must be there after a loss at this moment.
    fn must_be_there(&self, sync: &str, now_ns: u64) -> Lsn {
        match sync {
            "always" => self.acknowledged,
            _ => {
                let old = self.told.partition_point(|(at, _)| at + EVERYSEC_NS <= now_ns);
                self.told[..old].iter().map(|(_, lsn)| *lsn).max().unwrap_or_default()
            }
        }
    }

    /// How long ago the first of what is missing was told, in ns.
    fn window(&self, last: Lsn, now_ns: u64) -> u64 {
        self.told.iter().find(|(_, lsn)| *lsn > last).map_or(0, |(at, _)| now_ns - at)
    }
}

// --- the losses -----------------------------------------------------------------------------------

/// Of the syncs, by path.
type Which<'a> = &'a (dyn Fn(&Path) -> bool + Sync);

struct Replay<'a> {
    recorder: &'a Recorder,
    sync: &'a str,
    seed: u64,
    events: Vec<Event>,
    /// How many losses come behind each event, in proportion.
    weights: Vec<usize>,
    reference: Reference,
}

impl<'a> Replay<'a> {
    fn of(recorder: &'a Recorder, sync: &'a str, seed: u64) -> Self {
        let events = recorder.events();
        // Where names change, and shortly behind, more losses than in the long rows of writes and syncs.
        let (mut weights, mut near) = (Vec::with_capacity(events.len()), 0);
        for event in &events {
            near = if event.concerns_names() { 6 } else { near };
            weights.push(match (event.concerns_files(), near) {
                (false, _) => 0,
                (true, 0) => 1,
                (true, _) => 12,
            });
            near -= i32::from(near > 0 && event.concerns_files());
        }
        let replay = Self { recorder, sync, seed, events, weights, reference: Reference::of(recorder) };
        let (changes, seals, copies) = (replay.changes(), replay.seals(), replay.copies());
        assert!(changes > 200 && seals > 2, "only {changes} changes and {seals} seals were recorded");
        // Blocks that wait for a sync each are small; those of a fast writer are not, and are left as they are.
        assert!(copies > 2 || sync != "always", "only {copies} compacted copies were put in place");
        replay
    }

    fn changes(&self) -> usize {
        self.weights.iter().filter(|w| **w > 0).count()
    }

    /// A segment is sealed before the next one is created.
    fn seals(&self) -> usize {
        let begins = |e: &&Event| matches!(&e.what, What::Create { path, .. } if is_segment(path));
        self.events.iter().filter(begins).count().saturating_sub(1)
    }

    /// Compacted copies that took the place of their segments.
    fn copies(&self) -> usize {
        let is_copy = |e: &&Event| matches!(&e.what, What::Rename { to, .. } if is_segment(to));
        self.events.iter().filter(is_copy).count()
    }

    /// Takes so many losses, up to the first that is one. A sync counts if `counts` says so.
    fn run(&self, images: usize, folder: &str, counts: Which<'_>) -> Done {
        let threads = std::thread::available_parallelism().map_or(2, usize::from);
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let stop = &stop;
            let work = |thread: usize| self.work((thread, threads), images, folder, counts, stop);
            let all: Vec<_> = (0..threads).map(|thread| scope.spawn(move || work(thread))).collect();
            let all = all.into_iter().map(|t| t.join().unwrap_or_else(|e| std::panic::resume_unwind(e)));
            all.fold(Done::default(), Done::and)
        })
    }

    fn work(
        &self,
        (thread, threads): (usize, usize),
        images: usize,
        folder: &str,
        counts: &dyn Fn(&Path) -> bool,
        stop: &AtomicBool,
    ) -> Done {
        let images_in = self.recorder.images(folder, thread);
        let (mut model, mut known, mut done) = (Model::new(), Known::default(), Done::default());
        let (mut so_far, mut number) = (0, 0);
        let whole: usize = self.weights.iter().sum();
        for (at, event) in self.events.iter().enumerate() {
            if !matches!(&event.what, What::Sync { path, .. } if !counts(path)) {
                model.apply(event);
            }
            known.hear(event, &self.reference);
            so_far += self.weights[at];
            while number < so_far * images / whole {
                number += 1;
                if number % threads != thread {
                    continue;
                }
                if stop.load(Ordering::Relaxed) {
                    return done;
                }
                // An image depends on seed and number alone, not on who builds it.
                let mut rng = StdRng::seed_from_u64(self.seed ^ (number as u64) << 20);
                let loss = match rng.random_range(0..10) {
                    0 => Loss::Nothing,
                    1 | 2 => Loss::Everything,
                    3..5 => Loss::OneWrite,
                    _ => Loss::Chance,
                };
                let image = images_in.join(number.to_string());
                std::fs::create_dir(&image).expect("a folder");
                model.image(&image, &images_in.join("kept"), loss, &mut rng);
                let must = known.must_be_there(self.sync, event.at_ns);
                match check(&image.join(JOURNAL), &self.reference, &known, must, number % 8 == 0) {
                    Ok(last) => {
                        done.images += 1;
                        *done.by_loss.entry(format!("{loss:?}")).or_default() += 1;
                        done.window = done.window.max(known.window(last, event.at_ns));
                        std::fs::remove_dir_all(&image).expect("an image to go");
                    }
                    Err(error) => {
                        let at = format!("{}, behind event {at} ({}), {loss:?}", image.display(), shown(event));
                        done.failure = Some(format!("{at}: {error:#}"));
                        stop.store(true, Ordering::Relaxed);
                        return done;
                    }
                }
            }
        }
        done
    }
}

impl std::fmt::Display for Replay<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (events, told) = (self.events.len(), self.reference.told.len());
        let (changes, seals, copies) = (self.changes(), self.seals(), self.copies());
        write!(f, "{events} events, {changes} of them changes, {seals} seals, {copies} copies, {told} numbers told")
    }
}

#[derive(Default)]
struct Done {
    images: usize,
    by_loss: BTreeMap<String, usize>,
    /// The longest time, in ns, that was lost.
    window: u64,
    failure: Option<String>,
}

impl Done {
    /// Nothing went wrong.
    fn sound(self, replay: &Replay<'_>) {
        println!("{}: {replay}; images: {self}", replay.sync);
        if let Some(failure) = self.failure {
            panic!("{failure}");
        }
    }

    fn and(mut self, other: Self) -> Self {
        self.images += other.images;
        other.by_loss.iter().for_each(|(loss, n)| *self.by_loss.entry(loss.clone()).or_default() += n);
        self.window = self.window.max(other.window);
        self.failure = self.failure.or(other.failure);
        self
    }
}

impl std::fmt::Display for Done {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {:?}, at most {} ms lost of what was told", self.images, self.by_loss, self.window / 1_000_000)
    }
}

fn in_journal(path: &Path, begins: &str) -> bool {
    let name = path.strip_prefix(JOURNAL).ok().and_then(Path::to_str);
    name.is_some_and(|name| name.starts_with(begins))
}

fn is_key_index(path: &Path) -> bool {
    path.extension().is_some_and(|e| e == "keys")
}

fn is_segment(path: &Path) -> bool {
    path.extension().is_some_and(|e| e == "seg")
}

fn shown(event: &Event) -> String {
    match &event.what {
        What::Write { offset, bytes, inode } => format!("{} bytes at {offset} of {inode}", bytes.len()),
        What::Send { .. } => "a send".to_owned(),
        other => format!("{other:?}"),
    }
}

fn options() -> OpenOptions {
    OpenOptions { segment_bytes: 1 << 20, sync: SyncPolicy::Always, ..OpenOptions::default() }
}

/// Opens what is left and compares; gives the last LSN that is there.
fn check(journal: &Path, reference: &Reference, known: &Known, must: Lsn, go_on: bool) -> anyhow::Result<Lsn> {
    // A reader before the writer is started again sees no damage, either.
    if must > Lsn(0) {
        let catalog = Catalog::open(journal).context("cannot be read")?;
        ensure!(catalog.notes().iter().all(|n| n.starts_with("marks ")), "{:?}", catalog.notes());
    }
    let (opened, recovered) = Journal::create_or_open(journal, options()).context("is not opened")?;
    let last = recovered.last.as_ref().map_or(Lsn(0), |l| l.last_lsn);
    ensure!(last >= must, "ends at {last}, and {must} was acknowledged");
    match recovered.last.filter(|_| go_on) {
        Some(last) => {
            let mut next = BlockBuilder::new(Lsn(last.last_lsn.0 + 1), last.last_ts, last.end_offset, last.db);
            let origin = Arc::new(Origin::of(OriginKind::Unknown));
            let args: [&[u8]; 3] = [b"SET", b"after", b"x"];
            let records = [RecordRef { db: 0, args: &args, keys: KeysAt::Arguments(&[1]) }];
            let end_offset = ReplOffset(last.end_offset.0 + 1);
            let group =
                GroupRef { ts: last.last_ts, slack: 0, origin: &origin, atomic: false, end_offset, records: &records };
            next.push(&group)?;
            let writer = opened.start(|_| ());
            writer.submit(next.finish(Micros(0))).context("does not go on")?;
            writer.close().context("does not go on")?;
        }
        None => drop(opened),
    }
    let catalog = Catalog::open(journal).context("cannot be read afterwards")?;
    let mut expected = None;
    for timeline in catalog.timelines() {
        for group in catalog.groups(Lsn(0), timeline.id) {
            let group = group?;
            let lsn = group.records[0].lsn;
            ensure!(expected.is_none_or(|e| e == lsn), "{lsn} comes where {expected:?} should");
            expected = Some(Lsn(group.records.last().expect("a record").lsn.0 + 1));
            if lsn <= last {
                let wanted = reference.groups.get(&lsn).with_context(|| format!("{lsn} was never written"))?;
                ensure!(*wanted == (timeline.id, group), "{lsn} is another group");
            } else {
                ensure!(go_on && lsn.0 == last.0 + 1, "{lsn} behind the end");
            }
        }
    }
    // All that is left may be in the base, if what was before it was pruned and nothing was written since.
    let in_base = expected.is_none() && catalog.snapshots().iter().any(|s| s.manifest.lsn == last);
    ensure!(last == Lsn(0) || in_base || expected.is_some_and(|e| e > last), "{last} is not found, only {expected:?}");
    if must > Lsn(0) {
        let windows = catalog.windows();
        let window = windows.last().context("nothing can be restored")?;
        ensure!(window.to_lsn >= must && !window.damaged_behind, "{must} cannot be restored: {windows:?}");
    }
    for mark in &known.marks {
        ensure!(catalog.marks().iter().any(|m| m.name == *mark), "no mark `{mark}`");
    }
    drop(catalog);
    let report = verify(journal, true, |_| ())?;
    let harmless = |p: &redtape_journal::Problem| p.file == Path::new("marks");
    ensure!(report.problems.iter().all(harmless), "{:?}", report.problems);
    Ok(last)
}
