//! Bytes as text that can be pasted back: what one redtape command prints, another one reads as the same bytes.
//!
//! Bytes that are plain stand as they are; others stand in double quotes with escapes. No text holds a single quote, so
//! that any of it can stand between single quotes in a shell: `--exact-key '"\xff\x00k"'`.

/// As text: plain where that is enough, else quoted.
pub fn quote(bytes: &[u8]) -> String {
    if is_plain(bytes) { String::from_utf8_lossy(bytes).into_owned() } else { in_quotes(bytes) }
}

/// The first `limit` bytes in quotes, where there are more: what the caller adds behind them ("…") makes [`unquote`] refuse
/// the text.
pub fn quote_cut(bytes: &[u8], limit: usize) -> Option<String> {
    (bytes.len() > limit).then(|| in_quotes(&bytes[..limit]))
}

/// Quotes, escapes, and blanks would be lost or taken for something else.
fn is_plain(bytes: &[u8]) -> bool {
    // A line of brackets alone begins JSON, together with the lines behind it.
    let is_bracket = |b: &u8| matches!(b, b'[' | b']' | b'{' | b'}');
    !bytes.iter().all(is_bracket) && bytes.iter().all(|b| b.is_ascii_graphic() && !matches!(b, b'"' | b'\'' | b'\\'))
}

/// In double quotes even where plain text is enough: for a sentence.
pub fn in_quotes(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() + 2);
    text.push('"');
    for byte in bytes {
        match byte {
            b'\'' => text.push_str("\\x27"),
            byte => text.extend(byte.escape_ascii().map(char::from)),
        }
    }
    text.push('"');
    text
}

/// Why a quoted text cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum QuotedError {
    /// No quote at its end.
    #[error("the quote at its end is missing, or it was cut when it was printed")]
    Unclosed,
    /// Something behind the closing quote.
    #[error("text follows its closing quote (a quote inside is written \\\"); was it cut when it was printed?")]
    Behind,
    /// An escape that there is not.
    #[error("after \\ comes one of n r t 0 \\ \" ', or x and two hexadecimal digits")]
    Escape,
}

/// The bytes of a text: what begins with a double quote is decoded, everything else stands for itself.
pub fn unquote(text: &[u8]) -> Result<Vec<u8>, QuotedError> {
    let Some(quoted) = text.strip_prefix(b"\"") else { return Ok(text.to_vec()) };
    let mut bytes = Vec::with_capacity(quoted.len());
    let mut rest = quoted.iter();
    loop {
        match rest.next() {
            None => return Err(QuotedError::Unclosed),
            Some(b'"') if rest.as_slice().is_empty() => return Ok(bytes),
            Some(b'"') => return Err(QuotedError::Behind),
            Some(b'\\') => bytes.push(unescape(&mut rest)?),
            Some(byte) => bytes.push(*byte),
        }
    }
}

/// One byte, of which the backslash was read.
fn unescape(rest: &mut std::slice::Iter<'_, u8>) -> Result<u8, QuotedError> {
    Ok(match rest.next() {
        Some(b'n') => b'\n',
        Some(b'r') => b'\r',
        Some(b't') => b'\t',
        Some(b'0') => 0,
        Some(byte @ (b'\\' | b'"' | b'\'')) => *byte,
        Some(b'x') => {
            let mut digit = || char::from(*rest.next()?).to_digit(16);
            let (high, low) = (digit(), digit());
            let value = high.zip(low).map(|(high, low)| high << 4 | low);
            u8::try_from(value.ok_or(QuotedError::Escape)?).map_err(|_| QuotedError::Escape)?
        }
        _ => return Err(QuotedError::Escape),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn plain_where_that_is_enough() {
        for (bytes, text) in [
            (&b"key:1"[..], "key:1"),
            (b"", "\"\""),
            (b"a b\0\n", "\"a b\\x00\\n\""),
            (b"\xff\x00k", "\"\\xff\\x00k\""),
            (b"it's", "\"it\\x27s\""),
            (b"\"", "\"\\\"\""),
            (b"a\\b", "\"a\\\\b\""),
        ] {
            assert_eq!(quote(bytes), text);
            assert_eq!(unquote(text.as_bytes()), Ok(bytes.to_vec()));
        }
        assert_eq!(unquote(b"a\\n \xff'"), Ok(b"a\\n \xff'".to_vec()), "without quotes it is as it is");
        assert_eq!(unquote(b"\"\\0\\'\\xFf\""), Ok(b"\0'\xff".to_vec()));
    }

    #[test]
    fn what_was_cut_is_not_taken_for_a_key() {
        let cut = quote_cut(b"abcdef", 3).expect("longer");
        assert_eq!((cut.as_str(), quote_cut(b"abc", 3)), ("\"abc\"", None));
        assert_eq!(unquote(format!("{cut}…(6 B)").as_bytes()), Err(QuotedError::Behind));
        for (text, why) in [
            ("\"", QuotedError::Unclosed),
            ("\"abc", QuotedError::Unclosed),
            ("\"a\\\"", QuotedError::Unclosed),
            ("\"a\"b\"", QuotedError::Behind),
            ("\"\\q\"", QuotedError::Escape),
            ("\"\\x1\"", QuotedError::Escape),
            ("\"\\xg1\"", QuotedError::Escape),
            ("\"\\", QuotedError::Escape),
        ] {
            assert_eq!(unquote(text.as_bytes()), Err(why), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_come_back(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let text = quote(&bytes);
            prop_assert!(text.is_ascii() && !text.contains('\''));
            prop_assert_eq!(unquote(text.as_bytes()), Ok(bytes));
        }

        #[test]
        fn any_text_is_read_or_refused(text in proptest::collection::vec(any::<u8>(), 0..20)) {
            let quoted = [b"\"", &text[..], b"\""].concat();
            if let Ok(bytes) = unquote(&quoted) {
                prop_assert!(bytes.len() <= text.len());
                prop_assert_eq!(unquote(quote(&bytes).as_bytes()), Ok(bytes));
            }
        }
    }
}
