//! When a certificate ends: the one field of X.509 that rustls keeps to itself.
//!
//! ```text
//!     Certificate { TBS { [0] version?, serial, algorithm, issuer, Validity { notBefore, notAfter }, … }, … }
//! ```

/// `notAfter`, in seconds since 1970; `None` for what is not understood (it is for messages only).
pub(super) fn not_after(certificate: &[u8]) -> Option<i64> {
    let (_, certificate, _) = element(certificate)?;
    let (_, mut tbs, _) = element(certificate)?;
    if tbs.first() == Some(&EXPLICIT_VERSION) {
        tbs = element(tbs)?.2;
    }
    for _serial_algorithm_issuer in 0..3 {
        tbs = element(tbs)?.2;
    }
    let (_, validity, _) = element(tbs)?;
    let (_, _, rest) = element(validity)?;
    let (tag, time, _) = element(rest)?;
    let time = std::str::from_utf8(time).ok()?.strip_suffix('Z')?;
    let (century, time) = match tag {
        // Two digits: 1950 to 2049 (RFC 5280, 4.1.2.5.1).
        UTC_TIME => (if *time.as_bytes().first()? >= b'5' { "19" } else { "20" }, time),
        GENERALIZED_TIME => (time.get(..2)?, time.get(2..)?),
        _ => return None,
    };
    let part = |at: usize| time.get(at..at + 2).filter(|p| p.bytes().all(|b| b.is_ascii_digit()));
    let text = format!("{century}{}-{}-{}T{}:{}:{}Z", part(0)?, part(2)?, part(4)?, part(6)?, part(8)?, part(10)?);
    text.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_second)
}

const EXPLICIT_VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// Tag, content, and what follows.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = bytes.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = if first < 0x80 {
        (usize::from(first), rest)
    } else {
        let digits = usize::from(first & 0x7f);
        if digits > 4 {
            return None;
        }
        let (head, rest) = rest.split_at_checked(digits)?;
        (head.iter().fold(0, |n, b| n << 8 | usize::from(*b)), rest)
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}
