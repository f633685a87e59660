//! Which part of a journal is asked for, as text: points in time, and the windows that can be restored.

mod when;
mod windows;

pub use when::{PointInTime, When, WhenError};
pub use windows::list_windows;
