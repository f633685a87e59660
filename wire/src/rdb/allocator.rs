//! What jemalloc gives out for a number of bytes, and for a string of a server (SDS).
//!
//! Sources: size classes of jemalloc 5 (`sc.h`) with the quantum of 16 bytes that it has by default, as in Debian; the copy that comes
//! with Redis and Valkey is built with 8 (`--with-lg-quantum=3`) and gives out up to 8 bytes less below 64. Headers of strings: `sds.h`.

/// The smallest piece.
const SMALLEST: u64 = 8;
/// Sizes up to here are multiples of [`QUANTUM`].
const LINEAR_MAX: u64 = 128;
const QUANTUM: u64 = 16;
/// Above, each doubling has so many sizes.
const SIZES_OF_A_DOUBLING: u64 = 4;

/// What is given out for so many bytes.
pub(super) fn allocated(bytes: u64) -> u64 {
    if bytes <= SMALLEST {
        return SMALLEST;
    }
    if bytes <= LINEAR_MAX {
        return bytes.next_multiple_of(QUANTUM);
    }
    // Of (2^n, 2^(n+1)], the sizes are a quarter of 2^n apart.
    let below = 1 << (u64::BITS - 1 - (bytes - 1).leading_zeros());
    bytes.checked_next_multiple_of(below / SIZES_OF_A_DOUBLING).unwrap_or(u64::MAX)
}

/// Bytes of a string of this length, with header and end mark.
pub(super) fn string_bytes(len: u64) -> u64 {
    let header = match len {
        0..32 => 1,
        32..256 => 3,
        256..65_536 => 5,
        65_536..0x1_0000_0000 => 9,
        _ => 17,
    };
    len.saturating_add(header + 1)
}

/// What is given out for a string of this length.
pub(super) fn string_allocated(len: u64) -> u64 {
    allocated(string_bytes(len))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_those_of_jemalloc() {
        for (bytes, given) in [
            (0, 8),
            (8, 8),
            (9, 16),
            (17, 32),
            (128, 128),
            (129, 160),
            (161, 192),
            (256, 256),
            (257, 320),
            (1003, 1024),
            (1025, 1280),
            (10_006, 10_240),
            (100_006, 114_688),
        ] {
            assert_eq!(allocated(bytes), given, "{bytes}");
        }
        assert_eq!(allocated(u64::MAX), u64::MAX);
        assert_eq!((string_allocated(5), string_allocated(31), string_allocated(44)), (8, 48, 48));
    }
}
