//! Function libraries of a repair: what is done with them, and doing it.

use super::ServerTarget;
use crate::error::RestoreError;
use crate::libraries::{self, Changes, Rule, Stays, changes};
use crate::target::repair::{Datasets, FileLog, Outcome, Policy};

/// What is done with function libraries, and which the target has; `None` = they are left out. `stays`: as for [`changes`].
pub(super) fn library_changes(
    target: &mut ServerTarget,
    datasets: &mut Datasets,
    policy: &Policy,
    stays: &Stays<'_>,
) -> Result<Option<(libraries::Libraries, Changes)>, RestoreError> {
    if !target.filter.is_everything() && !policy.replace_all {
        return Ok(None);
    }
    let wanted = libraries::read(&mut datasets.wanted.server)?.unwrap_or_default();
    let Some(live) = libraries::read(&mut target.server)? else { return Ok(None) };
    let changes = changes(&wanted, &live, Rule::of(policy), stays);
    Ok(Some((live, changes)))
}

/// Brings function libraries to the target; how many of the wanted ones it has then.
pub(super) fn restore_functions(
    target: &mut ServerTarget,
    datasets: &mut Datasets,
    policy: &Policy,
    (log, outcome): (&mut FileLog, &mut Outcome),
    warnings: &mut Vec<String>,
) -> Result<usize, RestoreError> {
    let stays = |name: &[u8], live: Option<&[u8]>| log.library_stays(name, live);
    let Some((live, changes)) = library_changes(target, datasets, policy, &stays)? else {
        if target.filter.is_everything() {
            warnings.push("functions were left out: the target does not show its own (FUNCTION LIST)".to_owned());
        }
        return Ok(0);
    };
    libraries::put(&mut target.server, log, &live, &changes.changes)?;
    outcome.libraries = changes.done();
    let wanted = datasets.wanted.server.functions()?.unwrap_or(0);
    Ok(wanted.saturating_sub(outcome.libraries.left.len()))
}
