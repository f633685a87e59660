//! One goal, and whether it was met.

use serde::Serialize;

/// One line of the list.
#[derive(Serialize)]
pub(crate) struct Goal {
    pub(crate) wanted: String,
    pub(crate) measured: String,
    /// `None`: not measured in this run.
    pub(crate) met: Option<bool>,
}
