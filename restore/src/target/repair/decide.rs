//! What is done with one wanted key, by what the target holds. Pure.
//!
//! | the target's key | `fail` | `skip` | `replace` | `rename` | `merge` |
//! | --- | --- | --- | --- | --- | --- |
//! | absent | created | created | created | created | created |
//! | equal | nothing | nothing | nothing | nothing | nothing |
//! | other time of expiry alone | conflict | stays | that is set | other name | judged |
//! | other elements | conflict | stays | replaced | other name | each judged |
//! | a stream that lacks entries or groups | conflict | stays | replaced | other name | rebuilt with them, or judged |
//! | another string, list, module's value, or type; a stream with other fields under one id | conflict | stays | replaced | other name | conflict, or judged |
//!
//! *Judged*: lacking elements are added; all else goes back only if its last write is one of those that `--broken-by` names.
//! A wanted key that has expired since the restore point is none: the target's key stays. So are fields of a hash.

use redtape_wire::rdb::{ReadError, Stream, Value};

use super::policy::{OnConflict, Policy};
use crate::values::image::{Image, type_name};
use crate::values::merge::{Difference, differences};
use crate::values::stream_merge::{StreamMerge, merge_streams};

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Decision {
    /// It would be gone by now.
    Expired,
    /// Nothing has to be done.
    Equal,
    /// It is written; the target has none.
    Create,
    /// The target's one stays.
    Skip,
    /// It takes the place of the target's.
    Replace,
    /// Only the time of expiry is set.
    SetTtl,
    /// It is stored under another name.
    Rename,
    /// Some elements are written.
    Merge(Differences),
    /// The live stream is rebuilt with what it lacks.
    MergeStream(Box<MergedStream>),
    /// The target's one stays, and is listed.
    Conflict,
}

impl Decision {
    /// The target's key, or one beside it, is written as a whole.
    pub(crate) fn writes(&self) -> bool {
        matches!(self, Self::Create | Self::Replace | Self::SetTtl | Self::Rename | Self::MergeStream(_))
    }
}

/// See [`Decision::MergeStream`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MergedStream {
    /// What it should be.
    pub(crate) stream: Stream,
    /// Entries and groups that it lacks.
    pub(crate) lacking: u64,
    /// The time of expiry is another one, and stays.
    pub(crate) ttl: bool,
}

/// In what a live key differs from the wanted one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Differences {
    /// Elements; `None` = the value as a whole.
    pub(crate) elements: Option<Vec<Difference>>,
    /// The time of expiry is another one.
    pub(crate) ttl: bool,
}

/// The decision; `wanted` has the time of expiry that is to be written. `now_ms`: the target's clock; `slack_ms`: of [`Live`](super::live::Live).
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

/// Of two streams, what is done with the live one; `None` = they are no streams, or contradict each other.
fn merge_whole_streams(wanted: &Image, live: &Image, ttl: bool) -> Result<Option<Decision>, ReadError> {
    if !(is_stream(wanted)? && is_stream(live)?) {
        return Ok(None);
    }
    // With what servers do not replicate: it stays as it is.
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
