//! How large a piece is.

/// Bounds of a piece and of what is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PieceLimits {
    /// Bytes of elements; an element that is longer is a piece of its own.
    pub bytes: usize,
    /// Elements.
    pub elements: usize,
    /// Pieces that were sent and have no reply yet.
    pub unanswered: usize,
    /// Pending entries of a stream that are restored at once: only so does a server learn when consumers were seen. Those
    /// beyond are claimed for their consumers, which by that count as seen when the stream is built. Servers do not
    /// replicate these times either.
    pub pending: usize,
}

impl Default for PieceLimits {
    /// A server takes half a millisecond for such a piece. All pending entries are restored at once, so that nothing is lost;
    /// it takes about as long for a thousand of them.
    fn default() -> Self {
        Self { bytes: 256 * 1024, elements: 500, unanswered: 4, pending: usize::MAX }
    }
}

/// Elements in their order, a piece at a time; each piece has one at least.
pub(crate) fn cut<T>(items: &[T], limits: PieceLimits, weight: impl Fn(&T) -> usize) -> impl Iterator<Item = &[T]> {
    let mut rest = items;
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fits = |item: &&T| {
            bytes += weight(item);
            bytes <= limits.bytes
        };
        let count = rest.iter().take(limits.elements).take_while(fits).count();
        let piece;
        (piece, rest) = rest.split_at(count.max(1).min(rest.len()));
        (!piece.is_empty()).then_some(piece)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_bounded_and_whole() {
        let limits = PieceLimits { bytes: 10, elements: 3, ..PieceLimits::default() };
        let pieces = |weights: &[usize]| cut(weights, limits, |w| *w).map(<[usize]>::to_vec).collect::<Vec<_>>();
        assert_eq!(pieces(&[1, 1, 1, 1]), [vec![1, 1, 1], vec![1]]);
        assert_eq!(pieces(&[6, 4, 1]), [vec![6, 4], vec![1]]);
        assert_eq!(pieces(&[6, 5, 100, 1, 10]), [vec![6], vec![5], vec![100], vec![1], vec![10]]);
        assert!(pieces(&[]).is_empty());
    }
}
