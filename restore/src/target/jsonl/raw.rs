//! What a line holds, as it stands there. Fields that this version does not know are refused: nothing of a dataset is passed over.

use std::fmt;

use redtape_wire::rdb::{Bytes, Score, StreamId};
use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, Visitor};

use crate::json::from_base64;

/// Any line; what it is, is told by what is in it.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawLine {
    // The first line.
    pub(super) format: Option<String>,
    pub(super) version: Option<u64>,
    pub(super) point: Option<RawPoint>,
    pub(super) journal: Option<String>,
    pub(super) server: Option<String>,
    pub(super) selection: Option<String>,
    // The last line.
    pub(super) end: Option<bool>,
    pub(super) keys: Option<std::collections::BTreeMap<String, u64>>,
    pub(super) functions: Option<u64>,
    pub(super) lines: Option<u64>,
    // A function library.
    pub(super) name: Option<String>,
    pub(super) code: Option<String>,
    pub(super) code_base64: Option<String>,
    // A key.
    pub(super) db: Option<u32>,
    pub(super) key: Option<String>,
    pub(super) key_base64: Option<String>,
    #[serde(rename = "type")]
    pub(super) kind: Option<String>,
    pub(super) size: Option<u64>,
    #[serde(rename = "expiration")]
    pub(super) _expiration: Option<String>,
    pub(super) expiration_ms: Option<i64>,
    pub(super) part: Option<u64>,
    pub(super) more: Option<bool>,
    pub(super) value: Option<String>,
    pub(super) value_base64: Option<String>,
    pub(super) values: Option<Vec<String>>,
    pub(super) values_base64: Option<Vec<String>>,
    pub(super) members: Option<Vec<String>>,
    pub(super) members_base64: Option<Vec<String>>,
    pub(super) entries: Option<Vec<RawEntry>>,
    pub(super) hash: Option<Pairs>,
    pub(super) fields: Option<Vec<RawField>>,
    pub(super) stream: Option<RawStream>,
    pub(super) group: Option<String>,
    pub(super) group_base64: Option<String>,
    pub(super) pending: Option<Vec<RawPending>>,
    pub(super) module: Option<RawModule>,
    pub(super) data_base64: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawPoint {
    pub(super) time: String,
    #[serde(rename = "time_us")]
    pub(super) _time_us: i64,
    pub(super) before: bool,
    pub(super) lsn: u64,
    #[serde(rename = "timeline")]
    pub(super) _timeline: u32,
}

/// Of a sorted set or a stream.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawEntry {
    pub(super) member: Option<String>,
    pub(super) member_base64: Option<String>,
    pub(super) score: Option<RawScore>,
    pub(super) id: Option<RawId>,
    pub(super) fields: Option<Vec<RawField>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawField {
    pub(super) field: Option<String>,
    pub(super) field_base64: Option<String>,
    pub(super) value: Option<String>,
    pub(super) value_base64: Option<String>,
    #[serde(rename = "expiration")]
    pub(super) _expiration: Option<String>,
    pub(super) expiration_ms: Option<i64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawStream {
    pub(super) last_id: RawId,
    pub(super) first_id: RawId,
    pub(super) max_deleted_id: RawId,
    pub(super) entries_added: u64,
    pub(super) groups: Vec<RawGroup>,
    pub(super) idempotence: Option<RawIdempotence>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawGroup {
    pub(super) name: Option<String>,
    pub(super) name_base64: Option<String>,
    pub(super) last_id: RawId,
    pub(super) entries_read: Option<u64>,
    pub(super) consumers: Vec<RawConsumer>,
    pub(super) pending_count: u64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawConsumer {
    pub(super) name: Option<String>,
    pub(super) name_base64: Option<String>,
    pub(super) seen_ms: i64,
    pub(super) active_ms: i64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawPending {
    pub(super) id: RawId,
    pub(super) consumer: Option<String>,
    pub(super) consumer_base64: Option<String>,
    pub(super) delivered_ms: i64,
    pub(super) deliveries: u64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawIdempotence {
    pub(super) duration_seconds: u64,
    pub(super) max_ids: u64,
    pub(super) producers: Vec<RawProducer>,
    pub(super) added: u64,
    pub(super) duplicates: u64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawProducer {
    pub(super) name: Option<String>,
    pub(super) name_base64: Option<String>,
    pub(super) ids: Vec<RawProducerId>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawProducerId {
    pub(super) id: Option<String>,
    pub(super) id_base64: Option<String>,
    pub(super) entry: RawId,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawModule {
    #[serde(rename = "type")]
    pub(super) name: String,
    pub(super) version: u16,
    pub(super) id: String,
}

/// The bytes under a name, which may have `_base64` behind it: one of both.
pub(super) fn bytes(name: &str, text: Option<String>, coded: Option<String>) -> Result<Bytes, String> {
    match (text, coded) {
        (Some(text), None) => Ok(text.into_bytes()),
        (None, Some(coded)) => from_base64(&coded).ok_or_else(|| format!("{name}_base64 is no Base64")),
        (None, None) => Err(format!("{name} is missing")),
        (Some(_), Some(_)) => Err(format!("{name} and {name}_base64 are both there")),
    }
}

/// The same of a list.
pub(super) fn all_bytes(
    name: &str,
    texts: Option<Vec<String>>,
    coded: Option<Vec<String>>,
) -> Result<Vec<Bytes>, String> {
    match (texts, coded) {
        (Some(texts), None) => Ok(texts.into_iter().map(String::into_bytes).collect()),
        (None, Some(coded)) => {
            let one =
                |coded: String| from_base64(&coded).ok_or_else(|| format!("{name}_base64 holds what is no Base64"));
            coded.into_iter().map(one).collect()
        }
        (None, None) => Err(format!("{name} is missing")),
        (Some(_), Some(_)) => Err(format!("{name} and {name}_base64 are both there")),
    }
}

/// Bytes that elements of these lengths take.
pub(super) fn weigh(lengths: impl Iterator<Item = usize>) -> u64 {
    const ELEMENT_COST: u64 = 64;
    lengths.map(|len| len as u64 + ELEMENT_COST).sum()
}

/// A number, `"inf"` or `"-inf"`.
#[derive(Debug, Clone, Copy)]
pub(super) struct RawScore(pub(super) Score);

impl<'de> Deserialize<'de> for RawScore {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Number;
        impl Visitor<'_> for Number {
            type Value = f64;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number, \"inf\" or \"-inf\"")
            }

            fn visit_f64<E>(self, number: f64) -> Result<f64, E> {
                Ok(number)
            }

            fn visit_u64<E>(self, number: u64) -> Result<f64, E> {
                Ok(number as f64)
            }

            fn visit_i64<E>(self, number: i64) -> Result<f64, E> {
                Ok(number as f64)
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<f64, E> {
                match text {
                    "inf" => Ok(f64::INFINITY),
                    "-inf" => Ok(f64::NEG_INFINITY),
                    _ => Err(E::invalid_value(serde::de::Unexpected::Str(text), &self)),
                }
            }
        }
        let number = from.deserialize_any(Number)?;
        Score::new(number).map(Self).ok_or_else(|| D::Error::custom("a score is no number"))
    }
}

/// `ms-seq`.
#[derive(Debug, Clone, Copy)]
pub(super) struct RawId(pub(super) StreamId);

impl<'de> Deserialize<'de> for RawId {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let parsed =
            text.split_once('-').and_then(|(ms, seq)| Some(StreamId { ms: ms.parse().ok()?, seq: seq.parse().ok()? }));
        parsed.map(Self).ok_or_else(|| D::Error::custom(format!("{text:?} is no id of a stream's entry (1-0)")))
    }
}

/// The members of an object in their order; a name may not stand twice, which is looked at where all of a hash is there.
#[derive(Debug)]
pub(super) struct Pairs(pub(super) Vec<(String, String)>);

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Vec<(String, String)>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of strings")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut all = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    all.push(pair);
                }
                Ok(all)
            }
        }
        from.deserialize_map(Members).map(Self)
    }
}
