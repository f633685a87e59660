//! The windows of a journal that can be restored, for people.

use crate::catalog::Window;

/// One line for each window.
pub fn list_windows(windows: &[Window]) -> String {
    let line =
        |w: &Window| format!("  {} to {} (LSN {} to {}, timeline {})", w.from, w.to, w.from_lsn, w.to_lsn, w.timeline);
    windows.iter().map(line).collect::<Vec<_>>().join("\n")
}
