//! An RDB of values that were cut out of another one of the same version, byte for byte as they were.

use std::io::{self, Write};

use crc_fast::{CrcAlgorithm, Digest};

use super::header::{Family, RdbVersion};
use super::length::write_length;
use super::string::write_string;
use super::table::{
    OPCODE_AUX, OPCODE_END, OPCODE_EXPIRE_MS, OPCODE_FREQ, OPCODE_FUNCTION, OPCODE_IDLE, OPCODE_SELECT_DB,
};
use super::walk::KeyEntry;

/// Writes an RDB from front to end. A server loads it if the pieces are sound: they are not looked into.
pub struct RdbWriter<W> {
    to: W,
    digest: Digest,
    db: Option<u32>,
}

impl<W> std::fmt::Debug for RdbWriter<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RdbWriter").field("db", &self.db).finish_non_exhaustive()
    }
}

impl<W: Write> RdbWriter<W> {
    /// Begins with the header, and with the version of the server that wrote the values, if it is known.
    pub fn new(to: W, version: RdbVersion, server_version: Option<&str>) -> io::Result<Self> {
        let mut writer = Self { to, digest: Digest::new(CrcAlgorithm::Crc64Redis), db: None };
        writer.put(version.to_string().as_bytes())?;
        if let Some(text) = server_version {
            let name = match version.family {
                Family::Redis => "redis-ver",
                Family::Valkey => "valkey-ver",
            };
            writer.aux(name.as_bytes(), text.as_bytes())?;
        }
        Ok(writer)
    }

    /// An auxiliary field.
    pub fn aux(&mut self, name: &[u8], value: &[u8]) -> io::Result<()> {
        let mut bytes = vec![OPCODE_AUX];
        write_string(name, &mut bytes);
        write_string(value, &mut bytes);
        self.put(&bytes)
    }

    /// A function library, as it was cut out (`Entry::Function`).
    pub fn function(&mut self, string: &[u8]) -> io::Result<()> {
        self.put(&[OPCODE_FUNCTION])?;
        self.put(string)
    }

    /// What has been written to, to be taken away piece by piece.
    pub fn get_mut(&mut self) -> &mut W {
        &mut self.to
    }

    /// A key with everything that belongs to it, as it was cut out (`KeyEntry::entry`). May be given in pieces, one after the other,
    /// and several keys of one database at once.
    pub fn entry(&mut self, db: u32, entry: &[u8]) -> io::Result<()> {
        self.select(db)?;
        self.put(entry)
    }

    /// A key whose name or expiry may be another than in the RDB that its value was cut out of (`KeyEntry::value`).
    /// Extents in `key` are not used; `metadata`: what `KeyEntry::metadata` refers to.
    pub fn key(&mut self, key: &KeyEntry<'_>, metadata: &[u8], value: &[u8]) -> io::Result<()> {
        self.select(key.db)?;
        let mut bytes = Vec::new();
        if let Some(ms) = key.expires_at_ms {
            bytes.push(OPCODE_EXPIRE_MS);
            bytes.extend_from_slice(&ms.to_le_bytes());
        }
        if let Some(seconds) = key.idle_seconds {
            bytes.push(OPCODE_IDLE);
            write_length(seconds, &mut bytes);
        }
        if let Some(frequency) = key.frequency {
            bytes.extend_from_slice(&[OPCODE_FREQ, frequency]);
        }
        // Servers write it directly in front of the type.
        bytes.extend_from_slice(metadata);
        bytes.push(key.value_type.number());
        write_string(key.key, &mut bytes);
        self.put(&bytes)?;
        self.put(value)
    }

    /// End mark and checksum.
    pub fn finish(mut self) -> io::Result<W> {
        self.put(&[OPCODE_END])?;
        let checksum = self.digest.finalize();
        self.to.write_all(&checksum.to_le_bytes())?;
        Ok(self.to)
    }

    fn select(&mut self, db: u32) -> io::Result<()> {
        if self.db == Some(db) {
            return Ok(());
        }
        self.db = Some(db);
        let mut bytes = vec![OPCODE_SELECT_DB];
        write_length(db.into(), &mut bytes);
        self.put(&bytes)
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.digest.update(bytes);
        self.to.write_all(bytes)
    }
}

/// An RDB that holds one key, as it was cut out (`KeyEntry::entry`).
pub fn single_key_rdb(version: RdbVersion, server_version: Option<&str>, db: u32, entry: &[u8]) -> io::Result<Vec<u8>> {
    let mut writer = RdbWriter::new(Vec::with_capacity(entry.len() + 64), version, server_version)?;
    writer.entry(db, entry)?;
    writer.finish()
}
