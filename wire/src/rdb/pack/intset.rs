//! Intsets (`intset.c`): 4 bytes width of a number, 4 bytes count, the numbers in rising order.

use super::super::fault::Fault;
use super::signed;

const BAD: Fault = Fault::Invalid("an intset is damaged");

/// Its numbers.
pub(in crate::rdb) fn numbers(bytes: &[u8]) -> Result<impl Iterator<Item = i64> + '_, Fault> {
    let (head, rest) = bytes.split_first_chunk::<8>().ok_or(BAD)?;
    let width = match head[..4] {
        [width @ (2 | 4 | 8), 0, 0, 0] => usize::from(width),
        _ => return Err(BAD),
    };
    let count = u32::from_le_bytes([head[4], head[5], head[6], head[7]]);
    if u64::from(count) * width as u64 != rest.len() as u64 {
        return Err(BAD);
    }
    let numbers = rest.chunks_exact(width).map(signed);
    if numbers.clone().zip(numbers.clone().skip(1)).any(|(a, b)| a >= b) {
        return Err(BAD);
    }
    Ok(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(bytes: &[u8]) -> Option<Vec<i64>> {
        numbers(bytes).ok().map(Iterator::collect)
    }

    #[test]
    fn three_widths_and_their_damage() {
        assert_eq!(all(b"\x02\0\0\0\x02\0\0\0\xff\xff\x01\0"), Some(vec![-1, 1]));
        assert_eq!(all(b"\x04\0\0\0\x01\0\0\0\0\0\0\x80"), Some(vec![-2_147_483_648]));
        assert_eq!(all(b"\x08\0\0\0\x01\0\0\0\xff\xff\xff\xff\xff\xff\xff\x7f"), Some(vec![i64::MAX]));
        assert_eq!(all(b"\x02\0\0\0\0\0\0\0"), Some(vec![]));
        for bad in [
            &b"\x02\0\0\0\x02\0\0\0\x01\0\x01\0"[..],
            b"\x02\0\0\0\x02\0\0\0\x02\0\x01\0",
            b"\x03\0\0\0\x01\0\0\0\0\0\0",
            b"\x02\0\0\0\x02\0\0\0\x01\0",
            b"\x02\0\0\0\x01\0\0\0\x01\0\0",
            b"\x02\0\0",
        ] {
            assert_eq!(all(bad), None, "{bad:?}");
        }
    }
}
