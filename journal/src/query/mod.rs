//! Which part of a journal is asked for: points in time and keys, as they are written, and the windows that can be restored.

mod filter;
mod when;
mod windows;

pub use filter::{Filter, FilterError, literal};
pub use when::{PointInTime, When, WhenError};
pub use windows::list_windows;
