//! How the dataset of a restore point is rebuilt: the journal range behind its base, and a scratch server to replay it.

pub mod binary;
mod child;
pub mod clock;
pub mod journal_range;
pub mod scratch;
