//! Decides what to do with one wanted key, by what the target holds. Pure.
//!
//! | the target's key | `fail` | `skip` | `replace` | `rename` | `merge` |
//! | --- | --- | --- | --- | --- | --- |
//! | absent | created | created | created | created | created |
//! | equal | nothing | nothing | nothing | nothing | nothing |
//! | only another expiry time | conflict | stays | expiry time set | other name | judged |
//! | other elements | conflict | stays | replaced | other name | each judged |
//! | a stream that lacks entries or groups | conflict | stays | replaced | other name | rebuilt with them, or judged |
//! | another string, list, module's value, or type; a stream with other fields under one id | conflict | stays | replaced | other name | conflict, or judged |
//!
//! *Judged*: missing elements are added; anything else goes back only if its last write is one of those named by
//! `--broken-by`. A wanted key that has expired since the restore point is not written: the target's key stays. The
//! same holds for fields of a hash.

use redtape_wire::rdb::{ReadError, Stream, Value};

use super::policy::{OnConflict, Policy};
use crate::values::image::{Image, type_name};
use crate::values::merge::{Difference, differences};
use crate::values::stream_merge::{StreamMerge, merge_streams};

/// What to do with one wanted key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Decision {
    /// It would have expired by now.
    Expired,
    /// The target holds the same.
    Equal,
    /// The target lacks it: it is written.
    Create,
    /// The target's key stays.
    Skip,
    /// It replaces the target's key.
    Replace,
    /// Only the expiry time is set.
    SetTtl,
    /// It is stored under another name.
    Rename,
    /// Some elements are written.
    Merge(Differences),
    /// The live stream is rebuilt with the missing parts.
    MergeStream(Box<MergedStream>),
    /// The target's key stays and is listed.
    Conflict,
}

impl Decision {
    /// True if a whole key is written, the wanted one or one beside it.
    pub(crate) fn writes(&self) -> bool {
        matches!(self, Self::Create | Self::Replace | Self::SetTtl | Self::Rename | Self::MergeStream(_))
    }
}

/// See [`Decision::MergeStream`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MergedStream {
    /// The merged value.
    pub(crate) stream: Stream,
    /// Number of missing entries and groups.
    pub(crate) lacking: u64,
    /// The expiry times differ; the target's stays.
    pub(crate) ttl: bool,
}

/// The differences of a live key from the wanted one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Differences {
    /// Elements; `None` = the value as a whole.
    pub(crate) elements: Option<Vec<Difference>>,
    /// The expiry times differ.
    pub(crate) ttl: bool,
}

/// The decision. `wanted` has the expiry time to write. `now_ms`: the target's clock; `slack_ms`: see
/// [`Live`](super::live::Live).
pub(crate) fn decide(
    policy: &Policy,
    wanted: &Image,
    live: Option<&Image>,
    now_ms: i64,
    slack_ms: i64,
) -> Result<Decision, ReadError> {
    if wanted.expires_ms != 0 && wanted.expires_ms <= now_ms {
        return Ok(Decision::Expired);
    }
    let Some(live) = live else { return Ok(Decision::Create) };
    let values = if wanted.dump == live.dump { None } else { Some((wanted.value_at(now_ms)?, live.value_at(now_ms)?)) };
    if let Some((Value::Hash(fields), _)) = &values
        && fields.is_empty()
    {
        return Ok(Decision::Expired);
    }
    let same_value = values.as_ref().is_none_or(|(wanted, live)| wanted == live);
    let same_ttl = policy.ttl.same(wanted.expires_ms, live.expires_ms, slack_ms);
    if same_value && same_ttl {
        return Ok(Decision::Equal);
    }
    Ok(match policy.on_conflict {
        OnConflict::Fail => Decision::Conflict,
        OnConflict::Skip => Decision::Skip,
        OnConflict::Replace if same_value => Decision::SetTtl,
        OnConflict::Replace => Decision::Replace,
        OnConflict::Rename => Decision::Rename,
        OnConflict::Merge => {
            if let Some(merged) = merge_whole_streams(wanted, live, !same_ttl)? {
                return Ok(merged);
            }
            let elements = match values {
                Some((wanted, live)) if !same_value => differences(wanted, live),
                _ => Some(Vec::new()),
            };
            Decision::Merge(Differences { elements, ttl: !same_ttl })
        }
    })
}

/// For two streams: what to do with the live one; `None` = not two streams, or they contradict each other.
fn merge_whole_streams(wanted: &Image, live: &Image, ttl: bool) -> Result<Option<Decision>, ReadError> {
    if !(is_stream(wanted)? && is_stream(live)?) {
        return Ok(None);
    }
    // Includes what servers do not replicate: it must be kept.
    let (Value::Stream(wanted), Value::Stream(live)) = (wanted.full_value()?, live.full_value()?) else {
        return Ok(None);
    };
    Ok(match merge_streams(&wanted, &live) {
        StreamMerge::Conflict(_) => None,
        StreamMerge::NothingLacking => Some(Decision::Merge(Differences { elements: Some(Vec::new()), ttl })),
        StreamMerge::Lacking(stream, lacking) => {
            Some(Decision::MergeStream(Box::new(MergedStream { stream: *stream, lacking, ttl })))
        }
    })
}

fn is_stream(image: &Image) -> Result<bool, ReadError> {
    Ok(type_name(&image.dump)? == "stream")
}
