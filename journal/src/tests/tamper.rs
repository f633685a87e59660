//! Whatever somebody or something does to the files, a verification tells, and where; and no reader is given anything that
//! was not written.
//!
//! The tests flip every bit of small segments; `make tamper` does the same to larger ones in a release build
//! (`REDTAPE_TAMPER_BYTES`), which is too much for each `cargo test`.

use std::fs::{self, File};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;

use crate::block::{BLOCK_HEADER_LEN, BlockBuilder, BlockHeader, LARGE_BLOCK_BYTES};
use crate::bloom::BloomFilter;
use crate::catalog::Catalog;
use crate::compact::Compactor;
use crate::crypto::Keyring;
use crate::directory::Directory;
use crate::marks::add_mark;
use crate::model::{Fixture, NOW, OwnedGroup, counted, keyring, name_of, options};
use crate::open::{Environment, Journal, OpenOptions};
use crate::segment::footer::Footer;
use crate::segment::header::WholeHeader;
use crate::segment::load::{TailFact, load_segment};
use crate::segment::name::SegmentName;
use crate::segment::scan::{Blocks, Rest};
use crate::snapshot::SnapshotWriter;
use crate::snapshot::tests::manifest;
use crate::storage::LocalDirectory;
use crate::types::{Group, Lsn, Mark, Micros};
use crate::verify::{Problem, verify_with};

/// Size of the segment of which each bit is flipped.
const BYTES: usize = 3 << 10;
/// Of a larger one, in `cargo test`, a bit of every 16th byte is, each time another one.
const LARGE_BYTES: usize = 64 << 10;
const STEP: usize = 16;

pub(super) fn variants() -> [(&'static str, OpenOptions); 4] {
    let with = |compact, keyring| OpenOptions { compact, keyring, ..options(1 << 30) };
    let key = || keyring(&["one"]);
    [
        ("plain", with(false, Keyring::default())),
        ("packed", with(true, Keyring::default())),
        ("encrypted", with(false, key())),
        ("encrypted and packed", with(true, key())),
    ]
}

/// Groups with values of which every other run of eight does not compress; `bytes` of them.
fn groups(bytes: usize, seed: u8) -> Vec<OwnedGroup> {
    let mut value = [0; 150];
    (0..=bytes / 200)
        .map(|n| {
            let noise = if n / 8 % 2 == 0 { 150 } else { 75 };
            blake3::Hasher::new().update(&[seed]).update(&n.to_le_bytes()).finalize_xof().fill(&mut value[..noise]);
            OwnedGroup::set(0, format!("key:{seed}:{n}").as_bytes(), &value)
        })
        .collect()
}

/// A chain: a small segment, one of about `bytes`, and, if wanted, small ones behind it; a mark at the end.
pub(super) fn chain(options: OpenOptions, bytes: usize, behind: u8) -> Fixture {
    let mut journal = Fixture::with(options);
    for part in 0..2 + behind {
        journal.timeline();
        let all = groups(if part == 1 { bytes } else { 300 }, part);
        // Large blocks, some of them compressed, are not compacted.
        let in_a_block = if journal.options.compact { 2 } else { 8 };
        all.chunks(in_a_block).for_each(|some| journal.block(some));
        journal.block(&[]);
    }
    journal.close();
    assert_eq!(journal.packed(), vec![journal.options.compact; 2 + usize::from(behind)]);
    let mark =
        Mark { name: "end".to_owned(), ts: journal.builder.last_ts(), lsn: Lsn(journal.builder.next_lsn().0 - 1) };
    add_mark(journal.dir(), &mark).unwrap();
    assert_eq!(problems(journal.dir(), true, &journal.options.keyring), []);
    journal.check();
    journal
}

fn problems(dir: &Path, deep: bool, keyring: &Keyring) -> Vec<Problem> {
    verify_with(dir, deep, keyring, |_| ()).unwrap().problems
}

/// Header and footer of a sealed segment.
pub(super) fn sealed(path: &Path) -> (WholeHeader, Footer) {
    let storage = LocalDirectory::new(&Directory::new(path.parent().unwrap().parent().unwrap()));
    let facts = load_segment(&storage, name_of(path), path, false).unwrap();
    let (whole, TailFact::Sealed(footer)) = (facts.header.unwrap(), facts.tail) else { panic!("not sealed") };
    (whole, footer)
}

/// The parts of a sealed segment: header, each block, and what is behind the blocks.
pub(super) fn parts(path: &Path) -> Vec<Range<u64>> {
    let (whole, footer) = sealed(path);
    let mut parts = Vec::new();
    parts.push(0..whole.len);
    for block in Blocks::of(&File::open(path).unwrap(), &whole, footer.blocks_end) {
        let (block, _) = block.unwrap();
        parts.push(block.position..block.position + block.len());
    }
    parts.push(footer.blocks_end..fs::metadata(path).unwrap().len());
    parts
}

/// What a reader is given: what was written, or an error.
fn assert_nothing_else_is_read(journal: &Fixture, dir: &Path, what: &str) {
    let Ok(catalog) = Catalog::open_with(dir, &journal.options.keyring) else { return };
    for (id, expected) in &journal.expected {
        let read: Vec<Group> = catalog.groups(Lsn(0), *id).map_while(Result::ok).collect();
        assert!(expected.starts_with(&read), "{what}: timeline {id}");
    }
}

fn copy(from: &Path) -> tempfile::TempDir {
    fn copy_into(from: &Path, to: &Path) {
        for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
            let to = to.join(entry.file_name());
            if entry.file_type().unwrap().is_dir() {
                fs::create_dir(&to).unwrap();
                copy_into(&entry.path(), &to);
            } else {
                fs::copy(entry.path(), &to).unwrap();
            }
        }
    }
    let to = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    copy_into(from, to.path());
    to
}

/// Flips bits of one file, each alone, in as many copies of the journal as there are cores. `at` says where a problem
/// must be told for a damaged byte.
fn flip(journal: &Fixture, file: &Path, bits: &[usize], at: impl Fn(u64) -> Range<u64> + Sync, what: &str) {
    let relative = file.strip_prefix(journal.dir()).unwrap();
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                let dir = copy(journal.dir());
                let open = File::options().read(true).write(true).open(dir.path().join(relative)).unwrap();
                while let Some(&bit) = bits.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let (position, mut byte) = (bit as u64 / 8, [0]);
                    open.read_exact_at(&mut byte, position).unwrap();
                    open.write_all_at(&[byte[0] ^ (1 << (bit % 8))], position).unwrap();
                    let (what, place) = (format!("{what}, bit {bit}"), at(position));
                    let found = problems(dir.path(), true, &journal.options.keyring);
                    let right = |p: &Problem| p.file == relative && place.contains(&p.offset) && p.offset <= position;
                    assert!(found.iter().any(right), "{what}, in {place:?}: {found:?}");
                    if bit % 61 == 0 {
                        assert_nothing_else_is_read(journal, dir.path(), &what);
                    }
                    open.write_all_at(&byte, position).unwrap();
                }
                assert_eq!(problems(dir.path(), true, &journal.options.keyring), []);
            });
        }
    });
}

fn flip_a_segment(options: &OpenOptions, bytes: usize, behind: u8, each_bit: bool, what: &str) {
    let journal = chain(options.clone(), bytes, behind);
    let file = journal.segments()[1].clone();
    let parts = parts(&file);
    let len = parts.last().unwrap().end as usize;
    assert!(len > bytes * 3 / 4, "{what}: {len} bytes");
    let part = |at: u64| parts.iter().find(|part| part.contains(&at)).unwrap().clone();
    let all: Vec<usize> = (0..len * 8).filter(|bit| each_bit || bit % (8 * STEP + 1) == 0).collect();
    flip(&journal, &file, &all, part, what);
    // Header and footer are looked at without reading the blocks.
    let (header, footer) = (&parts[0], &parts[parts.len() - 1]);
    let whole = fs::read(&file).unwrap();
    let footer_len = u32::from_le_bytes(whole[whole.len() - 16..whole.len() - 12].try_into().unwrap());
    let footer_at = footer.end - u64::from(footer_len);
    for at in header.clone().chain(footer_at..footer.end) {
        let mut bytes = whole.clone();
        bytes[at as usize] ^= 1 << (at % 8);
        fs::write(&file, &bytes).unwrap();
        assert!(!problems(journal.dir(), false, &journal.options.keyring).is_empty(), "{what}: quick, byte {at}");
        fs::write(&file, &whole).unwrap();
    }
}

#[test]
fn every_flipped_bit_of_a_segment_is_found_in_its_place() {
    for (what, options) in variants() {
        for behind in [0, 1] {
            flip_a_segment(&options, BYTES, behind, true, &format!("{what}, {behind} behind"));
        }
    }
}

/// Blocks of the segment in use: small ones, large ones that are compressed, and one that does not compress.
fn in_use(keyring: Keyring) -> (Fixture, Vec<Range<u64>>) {
    let mut journal = Fixture::with(OpenOptions { compact: false, keyring, ..options(1 << 30) });
    journal.timeline();
    for n in 0..6u8 {
        journal.block(&groups(150, n));
        journal.block(&[OwnedGroup::set(0, &[b'k', n], &vec![n; 2 * LARGE_BLOCK_BYTES])]);
        journal.block(&groups(3 * LARGE_BLOCK_BYTES, 10 + n)[..4]);
    }
    journal.sync();
    journal.kill();
    let file = journal.last_segment();
    let storage = LocalDirectory::new(&Directory::new(journal.dir()));
    let facts = load_segment(&storage, name_of(&file), &file, true).unwrap();
    let (whole, TailFact::Open(scan)) = (facts.header.unwrap(), facts.tail) else { panic!("not in use") };
    assert!(scan.rest == Rest::Nothing);
    let mut blocks = Vec::new();
    let (mut compressed, mut plain) = (0, 0);
    for block in Blocks::of(&File::open(&file).unwrap(), &whole, scan.end) {
        let (block, _) = block.unwrap();
        if block.codec == 0 {
            plain += 1;
        } else {
            compressed += 1;
        }
        blocks.push(block.position..block.position + block.len());
    }
    assert!(compressed >= 6 && plain >= 6, "{compressed} compressed, {plain} not");
    (journal, blocks)
}

#[test]
fn every_flipped_bit_of_the_segment_in_use_is_found_or_is_a_torn_end() {
    for keyring in [Keyring::default(), keyring(&["one"])] {
        let (journal, blocks) = in_use(keyring);
        let file = journal.last_segment();
        let (last, before) = blocks.split_last().unwrap();
        let part = |at: u64| before.iter().find(|part| part.contains(&at)).unwrap().clone();
        let bits: Vec<usize> = (before[0].start as usize * 8..last.start as usize * 8).step_by(3).collect();
        flip(&journal, &file, &bits, part, "in use");
        // Behind the last block there is none that proves it to be damage: the next writer cuts it, and nothing before it.
        let whole = fs::read(&file).unwrap();
        let all = &journal.expected[0].1;
        for bit in (last.start as usize * 8..last.end as usize * 8).step_by(5) {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            fs::write(&file, &bytes).unwrap();
            let catalog = Catalog::open_with(journal.dir(), &journal.options.keyring).unwrap();
            let read: Vec<Group> = catalog.groups(Lsn(0), journal.expected[0].0).map(Result::unwrap).collect();
            assert_eq!(read, all[..all.len() - 4], "bit {bit}");
        }
    }
}

/// Whatever is wrong with how filters are made: a verification finds a key that they leave out.
#[test]
fn a_filter_that_leaves_out_a_key_is_found() {
    for (what, options) in variants() {
        let journal = chain(options.clone(), BYTES, 0);
        let file = journal.last_segment();
        let (whole, footer) = sealed(&file);
        let sealer = whole.header.unlock(&options.keyring).unwrap();
        let bytes = fs::read(&file).unwrap();
        let places = footer.filters.clone().unwrap();
        let with_keys = std::iter::once(&places.all).chain(&places.intervals).filter(|place| place.blocks > 0);
        for (n, place) in with_keys.enumerate() {
            // The same filter with a bit less, in pages that are as they should be.
            let open = File::open(&file).unwrap();
            let read = |at: u64, out: &mut [u8]| open.read_exact_at(out, at);
            let filter = BloomFilter::read(*place, sealer.as_deref(), read).unwrap();
            let mut pages = Vec::new();
            filter.without_first_bit().encode(place.position, sealer.as_deref(), &mut pages);
            let mut forged = bytes[..footer.position as usize].to_vec();
            forged[place.position as usize..][..pages.len()].copy_from_slice(&pages);
            let mut footer = footer.clone();
            footer.digest = *blake3::hash(&forged).as_bytes();
            footer.prove(sealer.as_deref());
            fs::write(&file, [&forged[..], &footer.encode()].concat()).unwrap();
            let found = problems(journal.dir(), true, &options.keyring);
            let told = |p: &Problem| p.what.contains("leaves out LSN");
            assert!(found.iter().any(told), "{what}, filter {n}: {found:?}");
            fs::write(&file, &bytes).unwrap();
        }
        assert_eq!(problems(journal.dir(), true, &options.keyring), []);
    }
}

#[test]
fn flipped_bits_all_over_a_larger_segment_are_found() {
    for (what, options) in variants() {
        flip_a_segment(&options, LARGE_BYTES, 0, false, what);
    }
}

#[test]
#[ignore = "takes a quarter of an hour; `make tamper`"]
fn every_flipped_bit_of_a_large_segment_is_found() {
    let bytes = std::env::var("REDTAPE_TAMPER_BYTES").map_or(LARGE_BYTES, |bytes| bytes.parse().unwrap());
    for (what, options) in variants() {
        flip_a_segment(&options, bytes, 1, true, what);
    }
}

#[test]
fn every_cut_of_a_segment_is_found() {
    for (what, options) in variants() {
        for behind in [0, 1] {
            let journal = chain(options.clone(), BYTES, behind);
            // Without marks: whatever is found is found in the segments.
            fs::remove_file(journal.dir().join("marks")).unwrap();
            let file = journal.segments()[1].clone();
            let (whole, parts) = (fs::read(&file).unwrap(), parts(&file));
            let relative = file.strip_prefix(journal.dir()).unwrap();
            for len in (0..whole.len()).rev() {
                File::options().write(true).open(&file).unwrap().set_len(len as u64).unwrap();
                let found = problems(journal.dir(), true, &journal.options.keyring);
                let what = format!("{what}, {behind} behind, {len} bytes");
                // The end of a journal that has not been packed looks like this after each block that is written.
                if behind == 0 && !options.compact && parts.iter().any(|part| part.end == len as u64) {
                    assert_eq!(found, [], "{what}");
                } else {
                    assert!(found.iter().any(|p| p.file == relative && p.offset <= len as u64), "{what}: {found:?}");
                }
                if len % 17 == 0 {
                    assert_nothing_else_is_read(&journal, journal.dir(), &what);
                }
            }
        }
    }
}

/// Another journal in the same place of the history.
fn foreign(options: &OpenOptions, id: [u8; 16], seed: u8) -> tempfile::TempDir {
    let new_id: fn() -> std::io::Result<[u8; 16]> =
        if id == crate::model::JOURNAL_ID { || Ok(crate::model::JOURNAL_ID) } else { || Ok(*b"another journal.") };
    let mut journal = Fixture::new(1 << 30);
    let dir = tempfile::tempdir().unwrap();
    let environment = Environment { now: || NOW, new_id, random: counted };
    let (opened, _) = Journal::open_in(environment, dir.path(), options.clone()).unwrap();
    journal.kill();
    journal.writer = Some(opened.start(|_| ()));
    for part in 0..4 {
        journal.timeline();
        journal.block(&groups(300, part + seed));
    }
    journal.close();
    dir
}

#[test]
fn a_segment_that_is_gone_swapped_doubled_or_foreign_is_found() {
    for (what, options) in variants() {
        let journal = chain(options.clone(), 300, 2);
        let named = |dir: &Path, n: usize| {
            let mut all: Vec<PathBuf> =
                fs::read_dir(dir.join("segments")).unwrap().map(|e| e.unwrap().path()).collect();
            all.sort();
            all.remove(n)
        };
        let told = |dir: &Path, what: &str| {
            let report = verify_with(dir, true, &options.keyring, |_| ()).unwrap();
            assert_nothing_else_is_read(&journal, dir, what);
            report
        };
        for n in 0..4 {
            let dir = copy(journal.dir());
            fs::remove_file(named(dir.path(), n)).unwrap();
            let report = told(dir.path(), what);
            // Pruning removes the first one, too: that is damage only if somebody did not want it.
            let notes = usize::from(n == 0 && !report.notes.is_empty());
            assert!(!report.problems.is_empty() || notes > 0 || n == 0, "{what}: {n} removed");
            for m in 0..n {
                let dir = copy(journal.dir());
                let (one, other) = (named(dir.path(), n), named(dir.path(), m));
                let bytes = fs::read(&one).unwrap();
                fs::copy(&other, &one).unwrap();
                assert!(
                    told(dir.path(), what).problems.iter().any(|p| dir.path().join(&p.file) == one),
                    "{what}: {m} for {n}"
                );
                fs::write(&other, bytes).unwrap();
                assert!(told(dir.path(), what).problems.len() > 1, "{what}: {m} and {n} swapped");
            }
            let dir = copy(journal.dir());
            let one = named(dir.path(), n);
            let again = one.with_file_name(SegmentName { first_lsn: Lsn(500), ..name_of(&one) }.to_string());
            fs::copy(&one, &again).unwrap();
            assert!(
                told(dir.path(), what).problems.iter().any(|p| dir.path().join(&p.file) == again),
                "{what}: {n} twice"
            );
            for (id, seed) in [(*b"another journal.", 0), (crate::model::JOURNAL_ID, 100)] {
                let (dir, other) = (copy(journal.dir()), foreign(&options, id, seed));
                let (one, stranger) = (named(dir.path(), n), named(other.path(), n));
                assert_eq!(one.file_name(), stranger.file_name());
                fs::copy(stranger, &one).unwrap();
                let report = verify_with(dir.path(), true, &options.keyring, |_| ()).unwrap();
                assert!(!report.problems.is_empty(), "{what}: {n} from another journal");
            }
        }
    }
}

/// Somebody without the key, who can compute every checksum, makes a sealed segment shorter.
#[test]
fn a_footer_made_without_the_key_is_found() {
    for compact in [true, false] {
        let options = OpenOptions { compact, keyring: keyring(&["one"]), ..options(1 << 30) };
        let journal = chain(options.clone(), BYTES, 0);
        fs::remove_file(journal.dir().join("marks")).unwrap();
        let file = journal.last_segment();
        let (whole, mut footer) = sealed(&file);
        let end = parts(&file)[2].end;
        let bytes = fs::read(&file).unwrap();
        let scan = crate::segment::scan::scan(&File::open(&file).unwrap(), end, &whole, |_, _, _| ()).unwrap();
        footer.tally = scan.tally;
        (footer.position, footer.blocks_end, footer.filters) = (end, end, None);
        footer.digest = *blake3::hash(&bytes[..end as usize]).as_bytes();
        for proof in [footer.proof, None] {
            footer.proof = proof;
            fs::write(&file, [&bytes[..end as usize], &footer.encode()].concat()).unwrap();
            let found = problems(journal.dir(), false, &options.keyring);
            assert!(found.iter().any(|p| p.offset == end), "{found:?}");
            assert!(Catalog::open_with(journal.dir(), &options.keyring).is_err());
            assert!(crate::model::open_with(journal.dir(), options.clone()).is_err());
        }
    }
}

/// Somebody without the key puts a copy in clear in the place of an encrypted segment, with all that can be computed, and with
/// the digest with which that was sealed.
#[test]
fn a_copy_made_without_the_key_is_found() {
    for copy in [true, false] {
        let journal = chain(OpenOptions { keyring: keyring(&["one"]), ..options(1 << 30) }, 300, 1);
        fs::remove_file(journal.dir().join("marks")).unwrap();
        let file = journal.segments()[1].clone();
        let (whole, footer) = sealed(&file);
        let header = &whole.header;
        let mut compactor =
            Compactor::create(&Directory::new(journal.dir()), header, 1 << 20, &Keyring::default(), counted).unwrap();
        let mut builder = BlockBuilder::new(header.first_lsn, header.last_ts, header.start_offset, header.start_db);
        for mut group in groups(300, 1) {
            group.records[0].1[2].fill(b'X');
            group.push(&mut builder).unwrap();
        }
        let mut block = builder.finish(footer.tally.complete_until);
        let bytes = block.place(0, 0, None);
        let (block, payload) = bytes.split_first_chunk::<BLOCK_HEADER_LEN>().unwrap();
        compactor.push(&BlockHeader::decode(block).unwrap(), &Bytes::copy_from_slice(payload)).unwrap();
        let sealed = copy.then(|| footer.copy_of.unwrap());
        compactor.finish(&footer.tally, sealed).unwrap().replace(&file).unwrap();
        let found = problems(journal.dir(), false, &journal.options.keyring);
        assert!(found.iter().any(|p| p.offset == 0), "{found:?}");
        assert!(crate::model::open_with(journal.dir(), journal.options.clone()).is_err());
        let catalog = Catalog::open_with(journal.dir(), &journal.options.keyring).unwrap();
        assert!(!catalog.notes().is_empty());
    }
}

#[test]
fn every_change_of_a_snapshot_is_found() {
    for keyring in [Keyring::default(), keyring(&["one"])] {
        let journal = Fixture::closed_with(OpenOptions { keyring: keyring.clone(), ..options(1 << 20) }, &[]);
        let content: Vec<u8> = (0..700u32).map(|n| (n * 7) as u8).collect();
        let paths: Vec<PathBuf> = [(0, 5), (7, 70)]
            .map(|(lsn, ts)| {
                let mut writer = SnapshotWriter::create_with(journal.dir(), &keyring).unwrap();
                writer.write(&[&content[..], &[lsn as u8]].concat()).unwrap();
                writer.commit(manifest(lsn, 1, ts)).unwrap()
            })
            .into();
        let found = |what: &str, deep: bool, file: &Path| {
            let found = problems(journal.dir(), deep, &keyring);
            assert!(found.iter().any(|p| journal.dir().join(&p.file) == file), "{what}: {found:?}");
        };
        let (file, beside) = (&paths[0], paths[0].with_extension("json"));
        let chunk = if keyring.current().is_some() { 64 + 40 } else { u64::MAX };
        let (stored, json) = (fs::read(file).unwrap(), fs::read(&beside).unwrap());
        let bits: Vec<usize> = (0..stored.len() * 8).collect();
        flip(&journal, file, &bits, |at| at / chunk * chunk..at + 1, "a snapshot");
        let bits: Vec<usize> = (0..json.len() * 8).collect();
        flip(&journal, &beside, &bits, |_| 0..1, "a manifest");
        for len in 0..stored.len() {
            fs::write(file, &stored[..len]).unwrap();
            found("a cut snapshot", false, &beside);
        }
        fs::write(file, &stored).unwrap();
        for len in 0..json.len() {
            fs::write(&beside, &json[..len]).unwrap();
            found("a cut manifest", false, &beside);
        }
        fs::remove_file(&beside).unwrap();
        found("no manifest", false, file);
        fs::write(&beside, &json).unwrap();
        fs::remove_file(file).unwrap();
        found("no file", false, &beside);
        // The files of two snapshots, then their manifests, then another journal's.
        fs::copy(&paths[1], file).unwrap();
        found("another one's file", true, file);
        fs::write(file, &stored).unwrap();
        fs::copy(paths[1].with_extension("json"), &beside).unwrap();
        found("another one's manifest", false, &beside);
        fs::write(&beside, &json).unwrap();
        let other = foreign(&options(1 << 20), *b"another journal.", 0);
        let mut writer = SnapshotWriter::create_with(other.path(), &keyring).unwrap();
        writer.write(&content).unwrap();
        let stranger = writer.commit(manifest(0, 1, 5)).unwrap();
        fs::copy(&stranger, file).unwrap();
        fs::copy(stranger.with_extension("json"), &beside).unwrap();
        found("another journal's snapshot", false, &beside);
    }
}

/// Somebody without the key moves an encrypted snapshot in time, or leaves out its end, and computes the checksums.
#[test]
fn a_manifest_made_without_the_key_is_found() {
    let key = keyring(&["one"]);
    let journal = Fixture::closed_with(OpenOptions { keyring: key.clone(), ..options(1 << 20) }, &[]);
    let mut writer = SnapshotWriter::create_with(journal.dir(), &key).unwrap();
    writer.write(&[7; 500]).unwrap();
    let path = writer.commit(manifest(0, 1, 5)).unwrap();
    let info = Catalog::open(journal.dir()).unwrap().snapshots()[0].clone();
    let stored = fs::read(&path).unwrap();
    let check = |what: &str, manifest: &crate::snapshot::SnapshotManifest| {
        fs::write(path.with_extension("json"), manifest.to_json().unwrap()).unwrap();
        assert!(!problems(journal.dir(), true, &key).is_empty(), "{what}");
    };
    check("a moved one", &crate::snapshot::SnapshotManifest { ts: Micros(6), ..info.manifest.clone() });
    let offset = crate::types::ReplOffset(1);
    check("one of another offset", &crate::snapshot::SnapshotManifest { offset, ..info.manifest.clone() });
    let short = &stored[..2 * (64 + 40)];
    fs::write(&path, short).unwrap();
    let (bytes, blake3) = (short.len() as u64, blake3::hash(short).to_hex().to_string());
    check("a cut one", &crate::snapshot::SnapshotManifest { bytes, blake3, ..info.manifest });
    assert!(Directory::new(journal.dir()).snapshots().is_dir());
}
