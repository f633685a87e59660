//! Encodes the stream for a replica or for an append-only file: effects, `SELECT`s, transactions, and its offset.
//!
//! Invariants: the first command is a `SELECT`; a group's commands are consecutive, between `MULTI` and `EXEC` if they
//! were originally or if there are several; `offset` counts every byte, as the replica does.

use redtape_journal::Group;
use redtape_wire::resp::encode_command;

use super::absolute::absolute;

/// Builds the stream.
#[derive(Debug, Default)]
pub(crate) struct Encoder {
    /// Not sent yet.
    pub(crate) buffer: Vec<u8>,
    sent: u64,
    db: Option<u32>,
}

impl Encoder {
    /// The offset behind everything encoded so far.
    pub(crate) fn offset(&self) -> u64 {
        self.sent + self.buffer.len() as u64
    }

    /// The buffer has been sent.
    pub(crate) fn mark_sent(&mut self) {
        self.sent += self.buffer.len() as u64;
        self.buffer.clear();
    }

    /// Appends a group.
    pub(crate) fn group(&mut self, group: &Group) {
        let ts_ms = group.ts.0.div_euclid(1000);
        let changed: Vec<_> = group.records.iter().map(|r| absolute(&r.args, ts_ms)).collect();
        let commands: usize = changed.iter().map(|c| c.as_ref().map_or(1, Vec::len)).sum();
        let transaction = group.atomic || commands > 1;
        if let Some(first) = group.records.first() {
            self.select(first.db);
        }
        if transaction {
            encode_command(&mut self.buffer, &[b"MULTI"]);
        }
        for (record, changed) in group.records.iter().zip(changed) {
            self.select(record.db);
            match changed {
                None => encode_command(&mut self.buffer, &record.args),
                Some(commands) => commands.iter().for_each(|c| encode_command(&mut self.buffer, c)),
            }
        }
        if transaction {
            encode_command(&mut self.buffer, &[b"EXEC"]);
        }
    }

    /// Appends a `SELECT` where the database changes.
    pub(crate) fn select(&mut self, db: u32) {
        if self.db != Some(db) {
            encode_command(&mut self.buffer, &["SELECT", &db.to_string()]);
            self.db = Some(db);
        }
    }

    /// Appends what keeps the link alive.
    pub(crate) fn ping(&mut self) {
        encode_command(&mut self.buffer, &[b"PING"]);
    }

    /// Appends a request for an ACK; returns the offset that the ACK will show at least: the
    /// replica answers before it counts the request itself.
    pub(crate) fn ask_for_ack(&mut self) -> u64 {
        let before = self.offset();
        encode_command(&mut self.buffer, &["REPLCONF", "GETACK", "*"]);
        before
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::journal_range::by_hand::group;

    fn words(buffer: &[u8]) -> String {
        let mut args = redtape_wire::resp::Args::new();
        let (mut at, mut out) = (0, Vec::new());
        while at < buffer.len() {
            let parsed = redtape_wire::resp::parse_request(&buffer[at..], &mut args).expect("RESP");
            let redtape_wire::resp::Parsed::Whole { len } = parsed else { panic!("{parsed:?}") };
            let line: Vec<_> = args.iter().map(|(a, b)| String::from_utf8_lossy(&buffer[at + a..at + b])).collect();
            out.push(line.join(" "));
            at += len;
        }
        out.join("; ")
    }

    #[test]
    fn databases_and_transactions() {
        let mut encoder = Encoder::default();
        encoder.group(&group(1, 0, false, &[(0, "SET a 1")]));
        encoder.group(&group(2, 0, false, &[(0, "SET a 2")]));
        encoder.group(&group(3, 0, true, &[(3, "SET b 1"), (0, "DEL a")]));
        encoder.group(&group(5, 0, false, &[(0, "SREM s 1"), (0, "SREM s 2")]));
        encoder.group(&group(7, 0, true, &[(0, "SET c 1")]));
        encoder.group(&group(8, 5000, false, &[(0, "SETEX d 1 x")]));
        assert_eq!(
            words(&encoder.buffer),
            "SELECT 0; SET a 1; SET a 2; SELECT 3; MULTI; SET b 1; SELECT 0; DEL a; EXEC; \
             MULTI; SREM s 1; SREM s 2; EXEC; MULTI; SET c 1; EXEC; \
             MULTI; SET d x; PEXPIREAT d 1005; EXEC"
        );
    }

    #[test]
    fn offsets_count_every_byte() {
        let mut encoder = Encoder::default();
        encoder.select(0);
        let select = encoder.buffer.len() as u64;
        encoder.mark_sent();
        encoder.ping();
        assert_eq!(encoder.ask_for_ack(), select + 14);
        assert_eq!(encoder.offset(), select + encoder.buffer.len() as u64);
    }
}
