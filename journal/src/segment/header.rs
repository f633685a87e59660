//! The header of a segment: who it belongs to, where the history stands at its beginning, and the
//! link to its predecessor.
//!
//! It carries all that a restart needs, so a timeline without a single block survives, and so does
//! a journal whose older segments were pruned.

use std::sync::Arc;

use crate::FORMAT_VERSION;
use crate::crypto::{KeyFault, Keyring, Random, Sealer, WRAPPED_LEN, Wrapped};
use crate::directory::has_hole;
use crate::encoding::Cursor;
use crate::error::Damage;
use crate::segment::link::Link;
use crate::segment::name::SegmentName;
use crate::types::{Lsn, Micros, ReplOffset, TimelineId};

/// First bytes of a segment.
pub(crate) const SEGMENT_MAGIC: [u8; 8] = *b"RTAPESEG";
/// Size of the header up to the first string.
pub(crate) const FIXED_HEADER_LEN: usize = 132;
/// No header is larger; texts are cut when written.
pub(crate) const MAX_HEADER_LEN: usize = 16 << 10;
/// Longest source id and reason, in bytes.
const MAX_TEXT: usize = 4 << 10;

/// How often the source of the timeline has changed its id so far.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) enum SourceHistory {
    /// It has had one id since the timeline began.
    #[default]
    Unchanged,
    /// It had another id until this segment.
    ChangedHere {
        /// Which.
        before: String,
    },
    /// It had another id before an earlier segment of the timeline.
    ChangedBefore,
}

impl SourceHistory {
    /// What the next segment says, if nothing changes.
    pub(crate) fn after(&self) -> Self {
        match self {
            Self::Unchanged => Self::Unchanged,
            Self::ChangedHere { .. } | Self::ChangedBefore => Self::ChangedBefore,
        }
    }

    fn encode(&self) -> u8 {
        match self {
            Self::Unchanged => 0,
            Self::ChangedHere { .. } => 1,
            Self::ChangedBefore => 2,
        }
    }
}

/// A timeline, as each of its segments says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TimelineFacts {
    pub(crate) id: TimelineId,
    /// May change from a segment to the next: see [`SourceHistory`].
    pub(crate) source_id: String,
    pub(crate) reason: String,
    pub(crate) start_offset: ReplOffset,
    pub(crate) start_ts: Micros,
}

impl TimelineFacts {
    /// The same timeline, whatever id its source has.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        (self.id, self.start_offset, self.start_ts) == (other.id, other.start_offset, other.start_ts)
            && self.reason == other.reason
    }
}

/// The header, decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) journal_id: [u8; 16],
    pub(crate) first_lsn: Lsn,
    pub(crate) timeline: TimelineFacts,
    /// Whether its source has changed its id.
    pub(crate) source: SourceHistory,
    /// By what it names the segment before; zeros for the very first.
    pub(crate) prev_link: Link,
    pub(crate) created: Micros,
    /// Where the history stands at the beginning of this segment.
    pub(crate) last_ts: Micros,
    pub(crate) complete_until: Micros,
    pub(crate) start_offset: ReplOffset,
    pub(crate) start_db: u32,
    /// It was written anew after it was sealed.
    pub(crate) packed: bool,
    /// The wrapped data key, if the segment is encrypted.
    pub(crate) cipher: Option<Wrapped>,
}

/// A header that is right, with its size and its checksum.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WholeHeader {
    pub(crate) header: SegmentHeader,
    pub(crate) len: u64,
    pub(crate) tag: u32,
}

/// Why a header cannot be decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum HeaderFault {
    /// The file ends inside the header, or sectors of it never reached the disk: the segment was being created.
    Unfinished,
    /// It is whole and wrong.
    Bad(Damage),
    /// It has a newer format.
    Newer(u32),
}

impl From<Damage> for HeaderFault {
    fn from(damage: Damage) -> Self {
        Self::Bad(damage)
    }
}

impl SegmentHeader {
    /// The name of its segment.
    pub(crate) fn name(&self) -> SegmentName {
        SegmentName { first_lsn: self.first_lsn, timeline: self.timeline.id }
    }

    /// The source's id before this segment, in the same timeline.
    pub(crate) fn source_before(&self) -> &str {
        match &self.source {
            SourceHistory::ChangedHere { before } => before,
            SourceHistory::Unchanged | SourceHistory::ChangedBefore => &self.timeline.source_id,
        }
    }

    /// Whether the ids of the source go on from this segment, before it in the same timeline.
    pub(crate) fn continues_source_of(&self, before: &Self) -> bool {
        let changes = matches!(self.source, SourceHistory::ChangedHere { .. });
        self.source_before() == before.timeline.source_id && (changes || self.source == before.source.after())
    }

    /// Draws a data key for a segment with this header, if there is a key to wrap it.
    pub(crate) fn lock(&mut self, keyring: &Keyring, random: Random) -> std::io::Result<Option<Arc<Sealer>>> {
        self.cipher = keyring.current().map(|id| Wrapped { key_id: id.to_owned(), bytes: [0; WRAPPED_LEN] });
        if self.cipher.is_none() {
            return Ok(None);
        }
        let sealed = keyring.new_sealer(random, &self.encode_unwrapped())?;
        Ok(sealed.map(|(sealer, wrapped)| {
            self.cipher = Some(wrapped);
            Arc::new(sealer)
        }))
    }

    /// The data key of an encrypted segment.
    pub(crate) fn unlock(&self, keyring: &Keyring) -> Result<Option<Arc<Sealer>>, KeyFault> {
        let Some(wrapped) = &self.cipher else { return Ok(None) };
        keyring.unwrap(wrapped, &self.encode_unwrapped()).map(|sealer| Some(Arc::new(sealer)))
    }

    /// Encodes the header with its checksum.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = self.encode_unwrapped();
        if let Some(cipher) = &self.cipher {
            out.extend_from_slice(&cipher.bytes);
        }
        let crc = crc32c::crc32c(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        out
    }

    /// Everything before the wrapped data key, which is bound to it.
    fn encode_unwrapped(&self) -> Vec<u8> {
        let source_id = cut(&self.timeline.source_id);
        let reason = cut(&self.timeline.reason);
        let before = match &self.source {
            SourceHistory::ChangedHere { before } => Some(cut(before)),
            SourceHistory::Unchanged | SourceHistory::ChangedBefore => None,
        };
        let key_id = self.cipher.as_ref().map(|cipher| cipher.key_id.as_str());
        let texts = [Some(source_id), Some(reason), before, key_id];
        let texts_len: usize = texts.into_iter().flatten().map(|text| 4 + text.len()).sum();
        let len = FIXED_HEADER_LEN + texts_len + key_id.map_or(0, |_| WRAPPED_LEN) + 4;
        let mut out = Vec::with_capacity(len);
        out.extend_from_slice(&SEGMENT_MAGIC);
        out.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        out.extend_from_slice(&(len as u32).to_le_bytes());
        out.extend_from_slice(&self.journal_id);
        out.extend_from_slice(&self.first_lsn.0.to_le_bytes());
        out.extend_from_slice(&self.timeline.id.0.to_le_bytes());
        out.extend_from_slice(&self.start_db.to_le_bytes());
        out.extend_from_slice(&self.prev_link);
        out.extend_from_slice(&self.created.0.to_le_bytes());
        out.extend_from_slice(&self.last_ts.0.to_le_bytes());
        out.extend_from_slice(&self.complete_until.0.to_le_bytes());
        out.extend_from_slice(&self.start_offset.0.to_le_bytes());
        out.extend_from_slice(&self.timeline.start_offset.0.to_le_bytes());
        out.extend_from_slice(&self.timeline.start_ts.0.to_le_bytes());
        out.extend_from_slice(&[u8::from(self.packed), u8::from(key_id.is_some()), self.source.encode(), 0]);
        for text in texts.into_iter().flatten() {
            out.extend_from_slice(&(text.len() as u32).to_le_bytes());
            out.extend_from_slice(text.as_bytes());
        }
        out
    }

    /// Decodes the beginning of a file of `file_len` bytes; `bytes` are its first
    /// [`MAX_HEADER_LEN`] or all. Returns the header, its size and its tag (its checksum).
    pub(crate) fn decode(bytes: &[u8], file_len: u64) -> Result<(Self, u64, u32), HeaderFault> {
        if file_len < FIXED_HEADER_LEN as u64 || bytes.iter().all(|&b| b == 0) {
            return Err(HeaderFault::Unfinished);
        }
        let mut c = Cursor::new(bytes);
        let magic = c.array::<8>()?;
        if magic != SEGMENT_MAGIC {
            if has_hole(&bytes[..FIXED_HEADER_LEN], 0) {
                return Err(HeaderFault::Unfinished);
            }
            let found = format!("bytes `{}`", magic.escape_ascii());
            return Err(Damage::new("a segment (`RTAPESEG`)", found).into());
        }
        let version = c.u32()?;
        let len = c.u32()? as usize;
        if !(FIXED_HEADER_LEN + 12..=MAX_HEADER_LEN).contains(&len) {
            return Err(Damage::new("a segment header's length", format!("{len}")).into());
        }
        if len as u64 > file_len {
            return Err(HeaderFault::Unfinished);
        }
        let tag = Cursor::at(bytes, len - 4).u32()?;
        let computed = crc32c::crc32c(&bytes[..len - 4]);
        if tag != computed {
            if has_hole(&bytes[..len], 0) {
                return Err(HeaderFault::Unfinished);
            }
            return Err(Damage::new(format!("segment header checksum {tag:08x}"), format!("{computed:08x}")).into());
        }
        if version > FORMAT_VERSION {
            return Err(HeaderFault::Newer(version));
        }
        let header = Self::decode_fields(&mut c)?;
        if c.pos() != len - 4 {
            let found = format!("fields that end at byte {}", c.pos());
            return Err(Damage::new(format!("a header of {len} bytes"), found).into());
        }
        Ok((header, len as u64, tag))
    }

    fn decode_fields(c: &mut Cursor<'_>) -> Result<Self, Damage> {
        let journal_id = c.array()?;
        let first_lsn = Lsn(c.u64()?);
        let id = TimelineId(c.u32()?);
        let start_db = c.u32()?;
        let prev_link = c.array()?;
        let created = Micros(c.i64()?);
        let last_ts = Micros(c.i64()?);
        let complete_until = Micros(c.i64()?);
        let start_offset = ReplOffset(c.u64()?);
        let timeline_offset = ReplOffset(c.u64()?);
        let start_ts = Micros(c.i64()?);
        let form = c.array::<4>()?;
        if form[0] > 1 || form[1] > 1 || form[2] > 2 || form[3] != 0 {
            let expected = "form 0 or 1, cipher 0 or 1, source 0 to 2 and a zero byte";
            return Err(Damage::new(expected, format!("{form:?}")));
        }
        let source_id = c.string32()?;
        let reason = c.string32()?;
        let source = match form[2] {
            0 => SourceHistory::Unchanged,
            1 => SourceHistory::ChangedHere { before: c.string32()? },
            _ => SourceHistory::ChangedBefore,
        };
        let cipher = match form[1] {
            0 => None,
            _ => Some(Wrapped { key_id: c.string32()?, bytes: c.array()? }),
        };
        if first_lsn.0 == 0 {
            return Err(Damage::new("a first LSN of at least 1", "0"));
        }
        if id == TimelineId(u32::MAX) {
            return Err(Damage::new("a timeline that another can follow", id.to_string()));
        }
        Ok(Self {
            journal_id,
            first_lsn,
            timeline: TimelineFacts { id, source_id, reason, start_offset: timeline_offset, start_ts },
            source,
            prev_link,
            created,
            last_ts,
            complete_until,
            start_offset,
            start_db,
            packed: form[0] == 1,
            cipher,
        })
    }
}

/// The tag of a segment whose encoded header this is: the header's own checksum.
pub(crate) fn tag_of(encoded: &[u8]) -> u32 {
    encoded.last_chunk().map_or(0, |crc| u32::from_le_bytes(*crc))
}

/// Cuts a text to what a header holds, between characters.
fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(MAX_TEXT)]
}
