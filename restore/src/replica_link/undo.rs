//! Resets a target that was not promoted: detaches it, and empties it if it received data.
//!
//! Only a server that still follows redtape is changed. One that follows another server, or none any more (it was
//! restarted, or an operator detached it), may hold others' data.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::sender::STALL_LIMIT;
use crate::client::{Info, Reply, Server};
use crate::error::RestoreError;
use crate::refusal::{Refusal, meaning};
use crate::target::preflight::contents;

/// How long to wait for a server that still loads the base, once it answers.
const LOADED_LIMIT: Duration = Duration::from_hours(1);
/// Between two attempts.
const ASK_EVERY: Duration = Duration::from_millis(50);

/// The master of a server. Pure.
fn master(info: &Info) -> Option<String> {
    let field = |name| info.get(name).unwrap_or("?");
    (info.get("role") == Some("slave")).then(|| format!("{}:{}", field("master_host"), field("master_port")))
}

/// Undoes, and adds the target's state to the error.
pub(super) fn undo(server: &mut Server, cause: RestoreError, fed: bool, us: SocketAddr) -> RestoreError {
    let aftermath = match (put_back(server, fed, us), fed) {
        (Ok(None), true) => "The target was detached and emptied again".to_owned(),
        (Ok(None), false) => "The target was detached again; nothing was written to it".to_owned(),
        (Ok(Some(found)), _) => found,
        (Err(e), _) => format!(
            "The target could not be put back ({e}): it may still be a read-only replica with a part of the data. Run REPLICAOF NO ONE and FLUSHALL on it before anything else"
        ),
    };
    RestoreError::Undone { cause: Box::new(cause), aftermath }
}

/// `Some` = the target no longer follows redtape and was left alone, as text.
fn put_back(server: &mut Server, fed: bool, us: SocketAddr) -> Result<Option<String>, RestoreError> {
    // The connection may be what failed.
    server.set_reply_limit(STALL_LIMIT)?;
    if server.info(Some("server")).is_err() {
        server.reconnect()?;
    }
    let info = server.info(None)?;
    let followed = master(&info);
    if followed.as_deref() != Some(&format!("{}:{}", us.ip(), us.port())) {
        let holds = contents(&info.keyspace(), 0).unwrap_or_else(|| "no keys".to_owned());
        let now = followed.map_or_else(|| "is a master".to_owned(), |other| format!("follows {other}"));
        let what = if fed { "; what was sent to it may be a part of that" } else { "" };
        return Ok(Some(format!(
            "Somebody else changed the target meanwhile, or it was started again: it {now} and holds {holds}. It was left alone{what}"
        )));
    }
    detach(server)?;
    if fed {
        // In the background: it may hold as much as was to be restored.
        server.call(&["FLUSHALL", "ASYNC"])?;
        // Unknown before 7.0, where there is nothing to flush either.
        let _ = server.try_call(&["FUNCTION", "FLUSH", "ASYNC"])?;
    }
    Ok(None)
}

/// `REPLICAOF NO ONE`, which a server that is still loading our base takes only afterwards.
fn detach(server: &mut Server) -> Result<(), RestoreError> {
    let start = Instant::now();
    loop {
        match server.try_call(&["REPLICAOF", "NO", "ONE"])? {
            Reply::Value(_) => return Ok(()),
            Reply::Error(e) if meaning(&e.code) == Refusal::Loading && start.elapsed() < LOADED_LIMIT => {
                std::thread::sleep(ASK_EVERY);
            }
            Reply::Error(e) => return Err(server.refused("REPLICAOF", &e)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whom_it_follows() {
        let info = Info::parse("role:slave\nmaster_host:127.0.0.1\nmaster_port:7000\n");
        assert_eq!(master(&info).as_deref(), Some("127.0.0.1:7000"));
        assert_eq!(master(&Info::parse("role:master\nmaster_host:x\n")), None);
    }
}
