//! Which part of a journal is asked for: points in time and keys, as they are written, and the windows that can be restored.

mod filter;
mod glob;
mod names;
mod wall_clock;
mod when;
mod when_error;
mod windows;
mod zone;

pub use filter::{ExactKeys, Filter, FilterError};
pub use wall_clock::WallClock;
pub use when::{AsOf, PointInTime, When};
pub use when_error::WhenError;
pub use windows::list_windows;
pub use zone::{Zone, ZoneError};
