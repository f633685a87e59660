//! How often a worker looks at the clock.

use std::time::Duration;

/// How often all clients and connections are looked at; stalls are counted in it.
pub(super) const TICK: Duration = Duration::from_millis(500);
/// The same while something is being connected.
pub(super) const TICK_CONNECTING: Duration = Duration::from_millis(100);
/// The same while clients are drained.
pub(super) const TICK_DRAINING: Duration = Duration::from_millis(5);
