//! Segments: files of blocks, chained by digest, sealed with a footer.
//!
//! ```text
//! ┌────────┬───────┬───────┬───┬─────────────┬────────┐
//! │ header │ block │ block │ … │ key filters │ footer │      filters and footer: only when sealed
//! └────────┴───────┴───────┴───┴─────────────┴────────┘
//! ```
//!
//! A segment is sealed, and its footer synced, before the next one is created. So after a crash only
//! the last segment can be without a footer, and only the last can have an unfinished header.

pub(crate) mod footer;
pub(crate) mod header;
pub(crate) mod link;
pub(crate) mod load;
pub(crate) mod name;
pub(crate) mod scan;
pub(crate) mod tally;
#[cfg(test)]
mod tests;
