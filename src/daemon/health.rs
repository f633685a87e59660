//! What `/livez`, `/readyz` and `/journalz` answer.
//!
//! | endpoint | question | what depends on it |
//! | --- | --- | --- |
//! | `/livez`, `/healthz` | does the process answer? | a restart |
//! | `/readyz` | can clients be served, under the chosen failure policy? | a place behind a load balancer |
//! | `/journalz` | are writes being recorded? | an alarm |
//!
//! With `on-journal-failure pass` writes go on while the journal cannot take them, so a full disk or a first full copy
//! leaves the proxy ready. Without listeners (`redtape follow`) recording is all there is to be ready for.

use std::sync::Arc;

use redtape_capture::DurabilityTracker;
use redtape_journal::Micros;
use redtape_telemetry::{CaptureState, Recording, Status};

/// What the answers are derived from.
#[derive(Debug, Clone)]
pub(crate) struct Health {
    pub(crate) status: Arc<Status>,
    pub(crate) durability: Arc<DurabilityTracker>,
    /// There are listeners for clients.
    pub(crate) serves: bool,
}

/// An answer: `Ok` is a 200, `Err` a 503, each with its text.
pub(crate) type Answer = Result<String, String>;

impl Health {
    /// `/readyz`.
    pub(crate) fn ready(&self) -> Answer {
        if !self.serves {
            return self.journal();
        }
        let unreachable = self.status.unreachable();
        ready(unreachable.as_deref().map(String::as_str), self.durability.refuses().as_deref())
    }

    /// `/journalz`.
    pub(crate) fn journal(&self) -> Answer {
        let replaced = self.status.last_replaced();
        let notice =
            replaced.as_deref().map(|(at, what)| format!("note: since {}, {what}\n", Micros(*at))).unwrap_or_default();
        let text = |answer: String| answer + &notice;
        journal(&self.status.recording()).map(text).map_err(text)
    }
}

fn ready(unreachable: Option<&str>, refuses: Option<&str>) -> Answer {
    if let Some(why) = unreachable {
        return Err(format!("the upstream is not reachable: {}\n", one_line(why)));
    }
    match refuses {
        // What clients are told of their writes.
        Some(why) => Err(format!("{}\n", one_line(why))),
        None => Ok("ready\n".to_owned()),
    }
}

fn journal(recording: &Recording) -> Answer {
    let Recording { state, reason, since_us } = recording;
    let since = Micros(*since_us);
    if *state == CaptureState::Streaming {
        return Ok("streaming\n".to_owned());
    }
    let reason = reason.as_deref().unwrap_or(match state {
        CaptureState::FullSync => "a full copy of the server's data is being taken",
        _ => "the server is not followed yet",
    });
    Err(format!("{}: {} (since {since})\n", state.name(), one_line(reason)))
}

fn one_line(text: &str) -> String {
    text.replace(['\r', '\n'], " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_is_who_can_serve_clients_and_nothing_else() {
        for (unreachable, refuses, answer) in [
            (None, None, Ok("ready\n")),
            (Some("Connection\nrefused"), None, Err("the upstream is not reachable: Connection refused\n")),
            (None, Some("redtape: the journal"), Err("redtape: the journal\n")),
            (Some("a"), Some("b"), Err("the upstream is not reachable: a\n")),
        ] {
            let expected = answer.map(str::to_owned).map_err(str::to_owned);
            assert_eq!(ready(unreachable, refuses), expected, "{unreachable:?} {refuses:?}");
        }
    }

    #[test]
    fn the_journal_is_fine_only_while_it_streams() {
        for state in CaptureState::ALL {
            for reason in [None, Some("No space\nleft")] {
                let recording = Recording { state, reason: reason.map(str::to_owned), since_us: 0 };
                let answer = journal(&recording);
                assert_eq!(answer.is_ok(), state == CaptureState::Streaming, "{state:?}");
                let (Ok(text) | Err(text)) = answer;
                assert!(text.starts_with(state.name()) && text.matches('\n').count() == 1, "{text}");
                assert!(
                    state == CaptureState::Streaming || reason.is_none() || text.contains("No space left"),
                    "{text}"
                );
            }
        }
    }
}
