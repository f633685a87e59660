//! The compactor: writes the packed copy of a segment, the same groups in large, compressed blocks with Bloom filters over keys.
//!
//! The writer's own blocks are as small as the load makes them, so that a sync is cheap. The compactor works on bytes: it joins
//! small blocks and compresses them, and copies large ones as they are stored. The copy goes to a temporary file and is synced
//! once, at its end. [`super::background`] and the repair decide when one is made.
//!
//! Invariants:
//! - A copy is given out only as a whole, synced, if its tally is that of the segment. It is put in place only when it was read
//!   back, was what had been written, and gave the same groups ([`CompactedCopy::check`]).
//! - No block says to be complete up to a time from which a later block has a group.
//! - Memory: one block of the segment in up to four forms (stored, decrypted, decoded, encrypted again), beside the block that is
//!   gathered and the filters.

use std::fs::Permissions;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use super::digest::GroupsDigest;
use crate::block::{Block, BlockHeader, BlockJoiner, Compressor, GroupWalk, decode_payload, decompress};
use crate::bloom::{FilterBuilder, hash_key};
use crate::crypto::{KeyFault, Keyring, Random, Sealer};
use crate::directory::{Directory, TEMPORARY};
use crate::error::{Damage, OpenError};
use crate::files::{FILE_MODE, sync, sync_dir};
use crate::segment::footer::Footer;
use crate::segment::header::{SegmentHeader, tag_of};
use crate::segment::link::{Digest, Link, hash_range};
use crate::segment::load::{TailFact, load_open_segment};
use crate::segment::name::SegmentName;
use crate::segment::scan::{BlockFault, Blocks};
use crate::segment::tally::Tally;
use crate::types::Micros;

/// Groups are gathered into blocks of this size.
pub(crate) const COMPACTED_BLOCK_BYTES: usize = if cfg!(test) { 1 << 10 } else { 256 << 10 };

/// A block of this size stays as it is. One that was compressed when it was written, and is smaller, is joined with others: where each
/// write is synced, that takes 8 % off what is on the disk.
const COPIED_BLOCK_BYTES: usize = COMPACTED_BLOCK_BYTES / 2;

/// Why there is no copy.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CompactError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("a block cannot be read: {0}")]
    Unreadable(BlockFault),
    #[error("it is not what was sealed")]
    Different,
    #[error("its copy holds something else")]
    WrongCopy,
    #[error("there is no room for its copy")]
    NoRoom,
    #[error(transparent)]
    Key(#[from] KeyFault),
    #[error("there is no key to encrypt it again")]
    NoKey,
    /// The writer was closed, and there is no more time.
    #[error("the writer was closed")]
    GivenUp,
}

impl From<BlockFault> for CompactError {
    fn from(fault: BlockFault) -> Self {
        match fault {
            // It may be read another time.
            BlockFault::Io(e) => Self::Io(e),
            BlockFault::Damage(_) | BlockFault::UnknownCodec(_) => Self::Unreadable(fault),
        }
    }
}

impl From<Damage> for CompactError {
    fn from(damage: Damage) -> Self {
        Self::Unreadable(damage.into())
    }
}

/// Writes a packed copy.
#[derive(Debug)]
pub(crate) struct Compactor {
    file: tempfile::NamedTempFile,
    name: SegmentName,
    tag: u32,
    tally: Tally,
    hasher: blake3::Hasher,
    len: u64,
    pending: BlockJoiner,
    /// Hashes of the keys in `pending`; `None` for a record of which the keys are not known.
    pending_keys: Vec<Option<u64>>,
    complete_until: Micros,
    compressor: Compressor,
    sealer: Option<Arc<Sealer>>,
    filters: FilterBuilder,
    /// Over all groups pushed.
    content: GroupsDigest,
}

impl Compactor {
    /// Begins the copy of a segment with this header and about so many bytes.
    pub(crate) fn create(
        dir: &Directory,
        header: &SegmentHeader,
        bytes: u64,
        keyring: &Keyring,
        random: Random,
    ) -> Result<Self, CompactError> {
        let mut header = SegmentHeader { packed: true, ..header.clone() };
        let sealer = header.lock(keyring, random)?;
        let mut file = tempfile::Builder::new()
            .prefix(TEMPORARY)
            .permissions(Permissions::from_mode(FILE_MODE))
            .tempfile_in(dir.segments())?;
        let encoded = header.encode();
        file.write_all(&encoded)?;
        let mut hasher = blake3::Hasher::new();
        hasher.update(&encoded);
        Ok(Self {
            file,
            name: header.name(),
            tag: tag_of(&encoded),
            tally: Tally::begin(&header),
            hasher,
            len: encoded.len() as u64,
            pending: BlockJoiner::new(header.first_lsn, header.last_ts, header.start_offset, header.start_db),
            pending_keys: Vec::new(),
            complete_until: header.complete_until,
            // The copy is read back as a whole.
            compressor: Compressor::unchecked()?,
            sealer,
            filters: FilterBuilder::new(bytes),
            content: GroupsDigest::default(),
        })
    }

    /// Adds the groups of a block. `stored`: its payload as it is stored, decrypted.
    pub(crate) fn push(&mut self, header: &BlockHeader, stored: &Bytes) -> Result<(), CompactError> {
        let payload = decompress(header, stored.clone()).map_err(BlockFault::from)?;
        let is_large = payload.len() >= COPIED_BLOCK_BYTES;
        if is_large {
            self.flush()?;
        }
        // Not before: what was gathered is not complete up to where this block is.
        self.complete_until = self.complete_until.max(header.complete_until);
        if is_large { self.copy(header, stored, &payload) } else { self.join(header, &payload) }
    }

    /// Copies a large block; nothing is gathered.
    fn copy(&mut self, header: &BlockHeader, stored: &[u8], payload: &[u8]) -> Result<(), CompactError> {
        let mut block = Block::of_stored(*header, stored);
        // Large ones of earlier versions are not compressed.
        block.compress(&mut self.compressor)?;
        self.filters.begin_block(self.len, self.tally.opens_interval(&block.header, self.len));
        let Self { filters, content, .. } = self;
        content.add_block(header, payload, &mut |key| filters.add(key))?;
        self.write(block)?;
        self.pending = BlockJoiner::new(header.next_lsn(), header.last_ts, header.end_offset, header.end_db);
        Ok(())
    }

    /// Gathers the groups of a small block.
    fn join(&mut self, header: &BlockHeader, payload: &[u8]) -> Result<(), CompactError> {
        let Self { pending, pending_keys, content, .. } = self;
        content.begin_block();
        pending.begin_block();
        let mut walk = GroupWalk::new(*header, payload);
        let mut on_key = |key: Option<(u32, &[u8])>| pending_keys.push(key.map(|(db, key)| hash_key(db, key)));
        while let Some(group) = walk.next_group(&mut on_key)? {
            content.add(&group);
            pending.push(&group)?;
        }
        pending.end_block(header);
        if self.pending.len_bytes() >= COMPACTED_BLOCK_BYTES {
            self.flush()?;
        }
        Ok(())
    }

    /// Writes the groups that were gathered.
    fn flush(&mut self) -> Result<(), CompactError> {
        if self.pending.is_empty() {
            return Ok(());
        }
        self.write_pending()
    }

    fn write_pending(&mut self) -> Result<(), CompactError> {
        let mut block = self.pending.finish(self.complete_until);
        self.filters.begin_block(self.len, self.tally.opens_interval(&block.header, self.len));
        for hash in self.pending_keys.drain(..) {
            self.filters.add_hash(hash);
        }
        block.compress(&mut self.compressor)?;
        self.write(block)
    }

    fn write(&mut self, mut block: Block) -> Result<(), CompactError> {
        self.tally.check_next(&block.header)?;
        let bytes = block.place(self.len, self.tag, self.sealer.as_deref());
        self.file.write_all(bytes)?;
        self.hasher.update(bytes);
        let len = bytes.len() as u64;
        self.tally.add(&block.header, self.len);
        self.len += len;
        Ok(())
    }

    /// Ends the copy, of which the tally must equal `wanted`, and syncs it. It has no name yet. `copy_of`: the digest with which
    /// the segment was sealed, if it was.
    pub(crate) fn finish(mut self, wanted: &Tally, copy_of: Option<Digest>) -> Result<CompactedCopy, CompactError> {
        self.flush()?;
        let tally = &self.tally;
        let behind = (self.pending.end(), self.complete_until);
        if behind != ((tally.extent.end_offset, tally.end_db), tally.complete_until) {
            // What heartbeats have said since the last group.
            self.write_pending()?;
        }
        if !self.tally.same_history(wanted) {
            return Err(CompactError::Different);
        }
        let blocks_end = self.len;
        let (filters, bytes) = self.filters.encode(blocks_end, self.sealer.as_deref());
        self.file.write_all(&bytes)?;
        self.hasher.update(&bytes);
        let digest = *self.hasher.finalize().as_bytes();
        let position = blocks_end + bytes.len() as u64;
        let segment_tag = self.tag;
        let filters = Some(filters);
        let mut footer =
            Footer { tally: self.tally, digest, copy_of, filters, blocks_end, position, segment_tag, proof: None };
        footer.prove(self.sealer.as_deref());
        let bytes = footer.encode();
        self.file.write_all(&bytes)?;
        sync(self.file.as_file())?;
        Ok(CompactedCopy {
            file: self.file,
            name: self.name,
            len: position + bytes.len() as u64,
            link: footer.link(),
            digest,
            content: self.content.finish(),
        })
    }
}

/// A packed copy that is whole and synced.
#[derive(Debug)]
pub(crate) struct CompactedCopy {
    file: tempfile::NamedTempFile,
    name: SegmentName,
    len: u64,
    link: Link,
    /// Digest of the bytes that were written before its footer.
    digest: Digest,
    /// Digest of the groups that it was made of.
    content: u128,
}

impl CompactedCopy {
    /// The link by which the next segment names it.
    pub(crate) fn link(&self) -> Link {
        self.link
    }

    /// Reads it as a reader will: its bytes must be those that were written, its blocks must follow each other, and give the groups
    /// of which it was made. `go_on` is asked for each block.
    pub(crate) fn check(
        &self,
        keyring: &Keyring,
        mut go_on: impl FnMut() -> Result<(), CompactError>,
    ) -> Result<(), CompactError> {
        let file = self.file.as_file();
        let facts = load_open_segment(file, self.name, self.file.path(), false)?;
        let (Ok(whole), TailFact::Sealed(footer)) = (&facts.header, &facts.tail) else {
            return Err(CompactError::WrongCopy);
        };
        let sealer = whole.header.unlock(keyring)?;
        let (mut content, mut tally) = (GroupsDigest::default(), Tally::begin(&whole.header));
        let mut hasher = blake3::Hasher::new();
        hash_range(&mut hasher, file, 0..whole.len)?;
        for block in Blocks::of(file, whole, footer.blocks_end) {
            go_on()?;
            let (header, stored) = block?;
            hasher.update(&header.encode()).update(&stored);
            tally.check_next(&header)?;
            tally.add(&header, header.position);
            let payload = decode_payload(&header, stored, sealer.as_deref()).map_err(BlockFault::from)?;
            content.add_block(&header, &payload, &mut |_| ())?;
        }
        hash_range(&mut hasher, file, footer.blocks_end..footer.position)?;
        let is_right = content.finish() == self.content
            && *hasher.finalize().as_bytes() == self.digest
            && (&footer.digest, &footer.tally) == (&self.digest, &tally);
        if is_right { Ok(()) } else { Err(CompactError::WrongCopy) }
    }

    /// Puts it in the segment's place, and gives its size. Either of the two may be there until the folder is synced.
    pub(crate) fn put(self, path: &Path) -> io::Result<u64> {
        self.file.persist(path).map_err(|e| e.error)?;
        Ok(self.len)
    }

    /// The same, synced.
    pub(crate) fn replace(self, path: &Path) -> io::Result<()> {
        self.put(path)?;
        sync_dir(path.parent().unwrap_or(Path::new(".")))
    }
}

/// Removes the copies that a crash left unfinished. Called under the journal's lock.
pub(crate) fn remove_unfinished(dir: &Directory) -> io::Result<()> {
    for entry in std::fs::read_dir(dir.segments())? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(TEMPORARY) {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::FileExt;

    use super::*;
    use crate::block::LARGE_BLOCK_BYTES;
    use crate::model::{Fixture, OwnedGroup};

    #[test]
    fn small_blocks_become_large_and_large_ones_stay() {
        let mut journal = Fixture::new(1 << 20);
        journal.timeline();
        for n in 0..100u8 {
            let value = if n == 50 { vec![n; LARGE_BLOCK_BYTES] } else { vec![n; 20] };
            journal.block(&[OwnedGroup::simple(&value)]);
            journal.block(&[]);
        }
        while journal.writer().watermarks().written_lsn < crate::types::Lsn(100) {
            std::thread::yield_now();
        }
        let before = journal.writer().watermarks().journal_bytes;
        journal.close();
        journal.check();
        let size = std::fs::metadata(journal.last_segment()).unwrap().len();
        assert!(size < 3000 && before > 10_000, "{before} bytes became {size}");
        let report = crate::verify::verify(journal.dir(), true, |_| ()).unwrap();
        assert_eq!((report.problems.len(), report.records), (0, 100));
        assert!((3..10).contains(&report.blocks), "{} blocks", report.blocks);
    }

    /// Bytes that do not compress.
    fn noise(len: usize) -> Vec<u8> {
        let mut out = vec![0; len];
        blake3::Hasher::new().finalize_xof().fill(&mut out);
        out
    }

    /// Small and large blocks, a second apart, each complete up to its last group.
    fn mixed(sizes: &[usize]) -> Fixture {
        let mut journal = Fixture::new(1 << 20);
        journal.timeline();
        for size in sizes {
            journal.block(&[OwnedGroup::simple(b"first"), OwnedGroup::simple(&noise(*size))]);
        }
        journal.close();
        journal.check();
        journal
    }

    /// Headers of the blocks of the last segment.
    fn headers(journal: &Fixture) -> Vec<BlockHeader> {
        let path = journal.last_segment();
        let file = File::open(&path).unwrap();
        let facts = load_open_segment(&file, crate::model::name_of(&path), &path, false).unwrap();
        let (Ok(whole), TailFact::Sealed(footer)) = (&facts.header, &facts.tail) else { panic!("{facts:?}") };
        Blocks::of(&file, whole, footer.blocks_end).map(|block| block.unwrap().0).collect()
    }

    #[test]
    fn no_block_is_complete_up_to_behind_a_later_group() {
        const LARGE: usize = 2 * LARGE_BLOCK_BYTES;
        for sizes in
            [&[9, LARGE][..], &[9, 9, LARGE, 9, 9, LARGE, LARGE, 9, 9], &[LARGE, 9, 9], &[300, 300, 300, LARGE]]
        {
            let journal = mixed(sizes);
            assert_eq!(journal.packed(), [true], "{sizes:?}");
            let headers = headers(&journal);
            for (n, block) in headers.iter().enumerate() {
                let later = headers[n + 1..].iter().filter(|later| later.groups > 0);
                assert!(
                    later.map(|later| later.first_ts).all(|ts| block.complete_until <= ts),
                    "{sizes:?}: {headers:?}"
                );
            }
        }
    }

    #[test]
    fn what_is_large_as_it_was_written_is_left_alone() {
        for blocks in [1, 2, 8, 16, 20] {
            assert_eq!(mixed(&vec![40_000; blocks]).packed(), [false], "{blocks} large blocks");
            let mut sizes = vec![40_000; blocks];
            sizes.extend(vec![9; 3 * blocks]);
            assert_eq!(mixed(&sizes).packed(), [true], "and three times as many small ones");
        }
    }

    #[test]
    fn a_copy_that_is_not_what_was_written_is_not_used() {
        let mut journal = Fixture::new(1 << 20);
        journal.timeline();
        let dir = Directory::new(journal.dir());
        let facts = crate::recover::tests::header(1, 1, 0);
        let keyring = Keyring::default();
        let mut compactor = Compactor::create(&dir, &facts, 1 << 20, &keyring, |_| Ok(())).unwrap();
        let mut builder =
            crate::block::BlockBuilder::new(facts.first_lsn, facts.last_ts, facts.start_offset, facts.start_db);
        let mut wanted = Tally::begin(&facts);
        for size in [9, 3 * LARGE_BLOCK_BYTES, 20] {
            OwnedGroup::set(0, b"key", &noise(size)).push(&mut builder).unwrap();
            let block = builder.finish(Micros(9));
            wanted.add(&block.header, 0);
            compactor.push(&block.header, &Bytes::copy_from_slice(block.payload())).unwrap();
        }
        let copy = compactor.finish(&wanted, None).unwrap();
        copy.check(&keyring, || Ok(())).unwrap();
        let whole = std::fs::read(copy.file.path()).unwrap();
        for at in 0..whole.len() {
            let byte = whole[at] ^ (1 << (at % 8));
            copy.file.as_file().write_all_at(&[byte], at as u64).unwrap();
            assert!(copy.check(&keyring, || Ok(())).is_err(), "byte {at}");
            copy.file.as_file().write_all_at(&whole[at..=at], at as u64).unwrap();
        }
        copy.check(&keyring, || Ok(())).unwrap();
        journal.kill();
    }

    #[test]
    fn a_copy_that_comes_to_something_else_is_not_used() {
        let mut journal = Fixture::new(1 << 20);
        journal.timeline();
        let dir = Directory::new(journal.dir());
        let facts = crate::recover::tests::header(1, 1, 0);
        let compactor = Compactor::create(&dir, &facts, 1 << 20, &Keyring::default(), |_| Ok(())).unwrap();
        let wanted = Tally { records: 1, ..Tally::begin(&facts) };
        assert!(matches!(compactor.finish(&wanted, None), Err(CompactError::Different)));
        journal.kill();
        assert_eq!(journal.temporary(), 0);
    }

    #[test]
    fn what_a_crash_left_of_a_copy_is_removed() {
        let mut journal = Fixture::new(1 << 20);
        journal.timeline();
        journal.block(&[OwnedGroup::simple(&[7; 400])]);
        journal.kill();
        std::fs::write(journal.dir().join("segments/.tmp-dead"), "half a copy").unwrap();
        journal.check();
        let report = crate::verify::verify(journal.dir(), true, |_| ()).unwrap();
        assert_eq!(report.problems, []);
        journal.reopen();
        assert!(journal.recovered.notes.is_empty());
        assert_eq!(journal.temporary(), 0);
        journal.block(&[OwnedGroup::simple(&[8; 400])]);
        journal.close();
        assert_eq!(journal.temporary(), 0);
        assert!(std::fs::metadata(journal.last_segment()).unwrap().len() < 600);
        journal.check();
    }
}
