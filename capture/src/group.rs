//! What took effect together: one command, or what stood between MULTI and EXEC.

use std::rc::Rc;

use bytes::Bytes;
use redtape_journal::{Micros, ReplOffset};
use smallvec::SmallVec;

/// One command of the stream.
#[derive(Debug, Clone)]
pub(crate) struct Effect {
    /// Database in which it ran.
    pub db: u32,
    /// What was read at once, with this effect in it.
    pub(crate) chunk: Rc<Bytes>,
    /// Where the arguments stand in the chunk.
    pub(crate) args: SmallVec<[(u32, u32); 4]>,
}

impl Effect {
    /// The arguments, lent.
    pub(crate) fn args(&self) -> SmallVec<[&[u8]; 8]> {
        let chunk = &self.chunk[..];
        self.args.iter().map(|(a, b)| &chunk[*a as usize..*b as usize]).collect()
    }

    /// Lends the arguments.
    pub(crate) fn with_args<R>(&self, f: impl FnOnce(&[&[u8]]) -> R) -> R {
        f(&self.args())
    }
}

/// What took effect together.
#[derive(Debug, Clone)]
pub(crate) struct EffectGroup {
    /// In order; never empty.
    pub effects: SmallVec<[Effect; 1]>,
    /// It stood between MULTI and EXEC.
    pub atomic: bool,
    /// Offset just behind it.
    pub end_offset: ReplOffset,
    /// Database selected behind it.
    pub end_db: u32,
    /// When its last byte was read.
    pub arrived: Micros,
}
