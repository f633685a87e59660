//! What is done with one wanted key, by what the target holds. Pure.
//!
//! | the target's key | `fail` | `skip` | `replace` | `rename` | `merge` |
//! | --- | --- | --- | --- | --- | --- |
//! | absent | created | created | created | created | created |
//! | equal | nothing | nothing | nothing | nothing | nothing |
//! | other time of expiry alone | conflict | stays | that is set | other name | judged |
//! | other elements | conflict | stays | replaced | other name | each judged |
//! | another string, list, stream, module's value, or type | conflict | stays | replaced | other name | conflict, or judged |
//!
//! *Judged*: lacking elements are added; all else goes back only if its last write is one of those that `--broken-by` names.
//! A wanted key that has expired since the restore point is none: the target's key stays. So are fields of a hash.

use redtape_wire::rdb::{ReadError, Value};

use super::policy::{OnConflict, Policy};
use crate::values::image::Image;
use crate::values::merge::{Difference, differences};

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
    /// The target's one stays, and is listed.
    Conflict,
}

impl Decision {
    /// The target's key, or one beside it, is written as a whole.
    pub(crate) fn writes(&self) -> bool {
        matches!(self, Self::Create | Self::Replace | Self::SetTtl | Self::Rename)
    }
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
            let elements = match values {
                Some((wanted, live)) if !same_value => differences(wanted, live),
                _ => Some(Vec::new()),
            };
            Decision::Merge(Differences { elements, ttl: !same_ttl })
        }
    })
}
