//! A short digest of a value in its canonical form: equal values have equal digests, on whatever server they are.
//!
//! An undo file keeps it of what was written, so that it can be told later whether it has been changed since.

use redtape_wire::rdb::{Group, Stream, StreamId, Value};

/// Bytes of a digest.
pub(crate) const DIGEST_BYTES: usize = 16;
/// Stands where there is no value.
pub(crate) const NOTHING: Digest = [0; DIGEST_BYTES];
/// See the module.
pub(crate) type Digest = [u8; DIGEST_BYTES];

/// Longest input whose digest is made in one go: one chunk of BLAKE3.
const SHORT: usize = 1024;
/// Bytes of a length.
const LEN_BYTES: usize = 8;

/// Of a string: what [`digest`] gives, without the cost of a hash that can be fed.
pub(crate) fn digest_of_string(bytes: &[u8]) -> Digest {
    const NAME: &[u8] = b"string";
    let end = 2 * LEN_BYTES + NAME.len() + bytes.len();
    if end > SHORT {
        let mut fields = Fields(blake3::Hasher::new());
        fields.bytes(NAME);
        fields.bytes(bytes);
        return fields.finish();
    }
    let mut input = [0; SHORT];
    let begin = end - bytes.len();
    input[..LEN_BYTES].copy_from_slice(&(NAME.len() as u64).to_le_bytes());
    input[LEN_BYTES..LEN_BYTES + NAME.len()].copy_from_slice(NAME);
    input[begin - LEN_BYTES..begin].copy_from_slice(&(bytes.len() as u64).to_le_bytes());
    input[begin..end].copy_from_slice(bytes);
    let hash = blake3::hash(&input[..end]);
    let mut digest = [0; DIGEST_BYTES];
    digest.copy_from_slice(&hash.as_bytes()[..DIGEST_BYTES]);
    digest
}

/// Of a value without what servers do not replicate ([`Stream::forget_unreplicated`]).
pub(crate) fn digest(value: &Value) -> Digest {
    let mut fields = Fields(blake3::Hasher::new());
    fields.bytes(value.type_name().as_bytes());
    match value {
        Value::String(bytes) => fields.bytes(bytes),
        Value::List(items) | Value::Set(items) => items.iter().for_each(|item| fields.bytes(item)),
        Value::Zset(members) => {
            for (name, score) in members {
                fields.bytes(name);
                fields.number(score.get().to_bits());
            }
        }
        Value::Hash(all) => {
            for field in all {
                fields.bytes(&field.name);
                fields.bytes(&field.value);
                fields.number(field.expires_at_ms.map_or(0, i64::cast_unsigned));
            }
        }
        Value::Stream(stream) => fields.stream(stream),
        Value::Module { id, data } => {
            fields.number(*id);
            fields.bytes(data);
        }
    }
    fields.finish()
}

/// Feeds a hash so that no two sequences of fields look alike: each is led by its length, or has a fixed one.
struct Fields(blake3::Hasher);

impl Fields {
    fn number(&mut self, number: u64) {
        self.0.update(&number.to_le_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.update(bytes);
    }

    fn id(&mut self, id: StreamId) {
        self.number(id.ms);
        self.number(id.seq);
    }

    fn stream(&mut self, stream: &Stream) {
        self.number(stream.entries.len() as u64);
        for entry in &stream.entries {
            self.id(entry.id);
            self.number(entry.fields.len() as u64);
            for (name, value) in &entry.fields {
                self.bytes(name);
                self.bytes(value);
            }
        }
        self.id(stream.last_id);
        self.id(stream.max_deleted_id);
        self.number(stream.entries_added);
        self.number(stream.groups.len() as u64);
        stream.groups.iter().for_each(|group| self.group(group));
    }

    fn group(&mut self, group: &Group) {
        self.bytes(&group.name);
        self.id(group.last_id);
        self.number(group.consumers.len() as u64);
        group.consumers.iter().for_each(|consumer| self.bytes(&consumer.name));
        self.number(group.pending.len() as u64);
        for pending in &group.pending {
            self.id(pending.id);
            self.number(pending.delivered_ms.cast_unsigned());
            self.number(pending.deliveries);
            self.number(pending.consumer as u64);
        }
    }

    fn finish(&self) -> Digest {
        let mut digest = [0; DIGEST_BYTES];
        self.0.finalize_xof().fill(&mut digest);
        digest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_of_every_length_have_one_digest() {
        for len in (0..200).chain(900..1100) {
            let bytes = vec![b'x'; len];
            assert_eq!(digest_of_string(&bytes), digest(&Value::String(bytes)), "{len}");
        }
    }

    #[test]
    fn neighbours_are_not_joined() {
        let list = |items: &[&str]| digest(&Value::List(items.iter().map(|i| i.as_bytes().to_vec()).collect()));
        assert_eq!(list(&["ab", "c"]), list(&["ab", "c"]));
        assert_ne!(list(&["ab", "c"]), list(&["a", "bc"]));
        assert_ne!(list(&["a"]), digest(&Value::Set(vec![b"a".to_vec()])));
        assert_ne!(list(&[]), list(&[""]));
    }
}
