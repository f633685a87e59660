//! How a payload is stored: as it is, or compressed.
//!
//! Invariant: nothing is allocated for a length that only the disk claims. A compressed payload may
//! hold [`MAX_COMPRESSED_RAW`] bytes at most; larger ones are stored as they are, so what they claim is there.

use std::cell::RefCell;

use bytes::Bytes;

use super::header::{BlockHeader, CODEC_NONE, CODEC_ZSTD};
use crate::crypto::Sealer;
use crate::error::Damage;

/// Largest payload that is compressed.
pub(crate) const MAX_COMPRESSED_RAW: u32 = 64 << 20;
/// Smaller payloads are stored as they are.
const MIN_COMPRESSED_RAW: usize = 128;
/// Of what a tape holds (keys and values that come again), less is left at this level than at zstd's default of 3, for
/// two thirds of the time: `cargo bench -p redtape-journal --bench writer`.
const LEVEL: i32 = 1;

/// Why a payload cannot be decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PayloadFault {
    /// Stored in a way that this program does not know.
    UnknownCodec(u8),
    /// It is not what the header says.
    Damage(Damage),
}

impl From<Damage> for PayloadFault {
    fn from(damage: Damage) -> Self {
        Self::Damage(damage)
    }
}

/// Buffers that have grown over this size are not kept.
const KEPT_BYTES: usize = 4 << 20;

/// Compresses payloads one after the other.
pub(crate) struct Compressor {
    zstd: zstd::bulk::Compressor<'static>,
    /// Decompresses what was compressed, to compare it.
    check: Option<zstd::bulk::Decompressor<'static>>,
    output: Vec<u8>,
    again: Vec<u8>,
}

impl std::fmt::Debug for Compressor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Compressor")
    }
}

impl Compressor {
    /// For who forgets the original at once.
    pub(crate) fn new() -> std::io::Result<Self> {
        let check = zstd::bulk::Decompressor::new()?;
        Ok(Self { check: Some(check), ..Self::unchecked()? })
    }

    /// For who reads what was written, and compares, before the original is forgotten.
    pub(crate) fn unchecked() -> std::io::Result<Self> {
        Ok(Self { zstd: zstd::bulk::Compressor::new(LEVEL)?, check: None, output: Vec::new(), again: Vec::new() })
    }

    /// The compressed payload, if that saves at least a twentieth. Unless it is [`Compressor::unchecked`], what is given was
    /// decompressed again and compared.
    pub(crate) fn compress(&mut self, raw: &[u8]) -> std::io::Result<Option<&[u8]>> {
        if raw.len() < MIN_COMPRESSED_RAW || raw.len() > MAX_COMPRESSED_RAW as usize {
            return Ok(None);
        }
        self.output.clear();
        self.output.shrink_to(KEPT_BYTES);
        self.output.reserve(zstd::zstd_safe::compress_bound(raw.len()));
        self.zstd.compress_to_buffer(raw, &mut self.output)?;
        if self.output.len() > raw.len() - raw.len() / 20 {
            return Ok(None);
        }
        if let Some(check) = &mut self.check {
            self.again.clear();
            self.again.shrink_to(KEPT_BYTES);
            self.again.reserve(raw.len());
            check.decompress_to_buffer(&self.output, &mut self.again)?;
            if self.again != raw {
                return Err(std::io::Error::other("a block was not the same after compression"));
            }
        }
        Ok(Some(&self.output))
    }

    /// What was given last.
    pub(crate) fn output(&self) -> &[u8] {
        &self.output
    }
}

/// The payload as it was encoded; `stored` has the right checksum. `sealer` is that of the segment, if it is
/// encrypted.
pub(crate) fn decode(header: &BlockHeader, stored: Bytes, sealer: Option<&Sealer>) -> Result<Bytes, PayloadFault> {
    decompress(header, decrypt(header, stored, sealer)?)
}

/// The payload as it was before it was encrypted, if it was.
pub(crate) fn decrypt(header: &BlockHeader, stored: Bytes, sealer: Option<&Sealer>) -> Result<Bytes, Damage> {
    match sealer {
        None if !header.encrypted => Ok(stored),
        Some(sealer) if header.encrypted => {
            let opened = sealer.open(&header.place(), &stored);
            opened.map(Bytes::from).ok_or_else(|| Damage::new("a payload encrypted for this place", "another one"))
        }
        _ => {
            let expected = if sealer.is_some() { "an encrypted block" } else { "a block that is not encrypted" };
            Err(Damage::new(expected, "the other"))
        }
    }
}

/// The payload as it was before it was compressed, if it was.
pub(crate) fn decompress(header: &BlockHeader, stored: Bytes) -> Result<Bytes, PayloadFault> {
    match header.codec {
        CODEC_NONE => Ok(stored),
        CODEC_ZSTD => {
            if header.raw_len > MAX_COMPRESSED_RAW {
                let expected = format!("a compressed payload of at most {MAX_COMPRESSED_RAW} bytes");
                return Err(Damage::new(expected, format!("{} bytes", header.raw_len)).into());
            }
            let expected = || format!("zstd data of {} bytes", header.raw_len);
            let raw = unpack(&stored, header.raw_len as usize).map_err(|e| Damage::new(expected(), e.to_string()))?;
            if raw.len() != header.raw_len as usize {
                return Err(Damage::new(expected(), format!("{} bytes", raw.len())).into());
            }
            Ok(Bytes::from(raw))
        }
        other => Err(PayloadFault::UnknownCodec(other)),
    }
}

/// To make a context takes as long as to decompress a few kilobytes: each thread keeps one.
fn unpack(stored: &[u8], raw_len: usize) -> std::io::Result<Vec<u8>> {
    thread_local! {
        static ZSTD: RefCell<Option<zstd::bulk::Decompressor<'static>>> = const { RefCell::new(None) };
    }
    ZSTD.with_borrow_mut(|zstd| {
        let zstd = match zstd {
            Some(zstd) => zstd,
            None => zstd.insert(zstd::bulk::Decompressor::new()?),
        };
        zstd.decompress(stored, raw_len)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::block::Block;
    use crate::block::header::BlockKind;
    use crate::types::{Lsn, Micros, ReplOffset};

    fn header(codec: u8, raw_len: usize) -> BlockHeader {
        let heartbeat = Block::heartbeat(Lsn(1), Micros(0), Micros(0), ReplOffset(0), 0).header;
        BlockHeader { kind: BlockKind::Data, codec, raw_len: raw_len as u32, ..heartbeat }
    }

    proptest! {
        #[test]
        fn what_is_compressed_comes_back(word in prop::collection::vec(any::<u8>(), 1..40), times in 1usize..200) {
            let raw = word.repeat(times);
            let mut compressor = Compressor::new().unwrap();
            let compressed = compressor.compress(&raw).unwrap().map(<[u8]>::to_vec);
            prop_assert!(compressed.is_some() || raw.len() < 1000);
            if let Some(compressed) = compressed {
                let decoded = decode(&header(CODEC_ZSTD, raw.len()), Bytes::from(compressed.clone()), None).unwrap();
                prop_assert_eq!(&decoded[..], &raw[..]);
                for wrong in [raw.len() - 1, raw.len() + 1] {
                    prop_assert!(decode(&header(CODEC_ZSTD, wrong), Bytes::from(compressed.clone()), None).is_err());
                }
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>, raw_len in 0usize..100_000) {
            let _ = decode(&header(CODEC_ZSTD, raw_len), Bytes::from(bytes), None);
        }
    }

    #[test]
    fn what_does_not_shrink_is_left_alone() {
        let noise: Vec<u8> = (0..200u32).flat_map(|n| *blake3::hash(&n.to_le_bytes()).as_bytes()).collect();
        assert_eq!(Compressor::new().unwrap().compress(&noise).unwrap(), None);
    }

    #[test]
    fn a_bomb_is_refused_before_anything_is_allocated() {
        let bomb = zstd::bulk::compress(&vec![0; MAX_COMPRESSED_RAW as usize + 1], LEVEL).unwrap();
        assert!(bomb.len() < 10_000);
        for raw_len in [100, MAX_COMPRESSED_RAW as usize + 1, u32::MAX as usize] {
            let fault = decode(&header(CODEC_ZSTD, raw_len), Bytes::from(bomb.clone()), None).unwrap_err();
            assert!(matches!(fault, PayloadFault::Damage(_)));
        }
        let fault = decode(&header(9, 1), Bytes::new(), None).unwrap_err();
        assert_eq!(fault, PayloadFault::UnknownCodec(9));
    }
}
