//! Which options of a request have a meaning for its target. Pure.

use crate::error::RestoreError;
use crate::plan::ForcedMethod;
use crate::request::Request;

/// Refuses what has a meaning for a running server only, where a file is written or a read-only server is started.
pub(crate) fn refuse_those_of_servers(request: &Request) -> Result<(), RestoreError> {
    let given = [
        (request.repair.is_some(), "--on-conflict, --replace-all, --delete-absent and --ttl"),
        (request.broken_by.is_some(), "--broken-by"),
        (request.unchanged_since.is_some(), "--if-unchanged"),
        (request.rate.is_some(), "--rate"),
        (request.accept_eviction, "--accept-eviction"),
        (request.method == Some(ForcedMethod::Link), "--via link"),
    ];
    match given.into_iter().find(|(given, _)| *given) {
        Some((_, option)) => Err(RestoreError::Usage(format!("{option} can be used with --to URL only: leave it out"))),
        None => Ok(()),
    }
}
