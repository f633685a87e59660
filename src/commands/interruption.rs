//! A restore that somebody ends: by the first signal in an orderly way, by the second one at once, with words on what is left.

use std::io::Write as _;

use redtape_restore::Interrupt;

use crate::exit::INTERRUPTED;
use crate::signals::Signals;

/// From now on the first SIGINT or SIGTERM has what was begun undone; the second one ends the process.
pub(super) fn listen(interrupt: Interrupt, left_behind: String) -> anyhow::Result<()> {
    Signals::listen()?.watch(move |mut signals| {
        signals.wait();
        interrupt.set();
        signals.wait();
        // stderr may be closed.
        let _ = writeln!(std::io::stderr(), "redtape: {left_behind}");
        std::process::exit(i32::from(INTERRUPTED));
    })?;
    Ok(())
}

/// What a restore may leave that was ended while it put the target back.
pub(super) fn left_behind(method: redtape_restore::Method, to_file: bool) -> String {
    if to_file {
        return "ended while a file was written: what there is of it has a name that ends with .redtape-unfinished, and goes with the next run".to_owned();
    }
    match method {
        redtape_restore::Method::Serve => "ended while it served: nothing is left".to_owned(),
        redtape_restore::Method::Scratch => format!(
            "ended while keys were copied: some of those that are wanted may be in the target, whose key {} says so then",
            redtape_restore::target::unfinished::KEY
        ),
        redtape_restore::Method::Link | redtape_restore::Method::LinkFromScratch => {
            "ended while it put the target back: the target may be a read-only replica with a part of the data. Run REPLICAOF NO ONE and FLUSHALL on it before anything else".to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use redtape_restore::Method;

    use super::*;

    #[test]
    fn nobody_is_told_to_empty_a_server_that_keys_were_copied_to() {
        assert!(!left_behind(Method::Scratch, false).contains("FLUSHALL"));
        assert!(!left_behind(Method::Scratch, true).contains("FLUSHALL"));
        assert!(left_behind(Method::Link, false).contains("FLUSHALL"));
    }
}
