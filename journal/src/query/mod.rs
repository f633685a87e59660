//! Which part of a journal is asked for: points in time, keys and writes, as they are written, and the windows that can be
//! restored.

mod filter;
mod glob;
mod line_patterns;
mod name_patterns;
mod names;
mod wall_clock;
mod when;
mod when_error;
mod windows;
mod write_text;
mod writes;
mod zone;

pub use filter::{ExactKeys, Filter, FilterError};
pub use line_patterns::LinePatterns;
pub use name_patterns::{NamePatterns, client_names};
pub use wall_clock::WallClock;
pub use when::{AsOf, PointInTime, When};
pub use when_error::WhenError;
pub use windows::list_windows;
pub use write_text::{WriteFilterError, WriteQuery};
pub use writes::{LsnRange, Match, OriginKinds, Since, Until, WriteFilter};
pub use zone::{Zone, ZoneError};
