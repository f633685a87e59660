//! Bytes of replies: builders for admin commands, and boundaries of elements in the server's replies.

/// A value in [`fields`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Field {
    Number(i64),
    Text(String),
}

/// An error line; line breaks are replaced by blanks, as Redis does.
pub(super) fn error(line: impl AsRef<[u8]>) -> Vec<u8> {
    let line = line.as_ref().iter().map(|b| if matches!(b, b'\r' | b'\n') { b' ' } else { *b });
    [b'-'].into_iter().chain(line).chain(*b"\r\n").collect()
}

/// A long text: in RESP3 a verbatim string, as in Redis's INFO.
pub(super) fn text(text: &str, resp3: bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() + 24);
    let (kind, format) = if resp3 { (b'=', "txt:") } else { (b'$', "") };
    push_header(&mut out, kind, text.len() + format.len());
    out.extend_from_slice(format.as_bytes());
    out.extend_from_slice(text.as_bytes());
    out.extend_from_slice(b"\r\n");
    out
}

/// Names and values: a map in RESP3, a flat array in RESP2.
pub(super) fn fields(all: &[(&str, Field)], resp3: bool) -> Vec<u8> {
    let mut out = Vec::new();
    if resp3 {
        push_header(&mut out, b'%', all.len());
    } else {
        push_header(&mut out, b'*', all.len() * 2);
    }
    for (name, value) in all {
        push_bulk(&mut out, name);
        match value {
            Field::Number(n) => out.extend_from_slice(format!(":{n}\r\n").as_bytes()),
            Field::Text(text) => push_bulk(&mut out, text),
        }
    }
    out
}

/// An array of status lines, the form of Redis's `HELP`.
pub(super) fn status_list(lines: &[&str]) -> Vec<u8> {
    let mut out = Vec::new();
    push_header(&mut out, b'*', lines.len());
    for line in lines {
        push_status(&mut out, line);
    }
    out
}

pub(super) fn push_header(out: &mut Vec<u8>, kind: u8, n: usize) {
    out.push(kind);
    out.extend_from_slice(n.to_string().as_bytes());
    out.extend_from_slice(b"\r\n");
}

pub(super) fn push_bulk(out: &mut Vec<u8>, text: &str) {
    push_header(out, b'$', text.len());
    out.extend_from_slice(text.as_bytes());
    out.extend_from_slice(b"\r\n");
}

pub(super) fn push_status(out: &mut Vec<u8>, line: &str) {
    out.push(b'+');
    out.extend_from_slice(line.as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// The header line of the element at `at`: its type, its number (0 if it has none), and the position behind the line.
pub(super) fn head(reply: &[u8], at: usize) -> Option<(u8, i64, usize)> {
    let kind = *reply.get(at)?;
    let line = reply.get(at + 1..)?;
    let end = line.iter().position(|b| *b == b'\n')?;
    let number = std::str::from_utf8(line[..end].strip_suffix(b"\r")?).ok().and_then(|n| n.parse().ok());
    Some((kind, number.unwrap_or(0), at + 1 + end + 1))
}

/// End of the element at `at`; `None` = truncated or invalid.
pub(super) fn element_end(reply: &[u8], mut at: usize) -> Option<usize> {
    let mut left = 1_u64;
    while left > 0 {
        let (kind, number, behind) = head(reply, at)?;
        let number = u64::try_from(number).ok();
        at = behind;
        match kind {
            b'$' | b'=' | b'!' => {
                if let Some(len) = number {
                    at = at.checked_add(usize::try_from(len).ok()?)?.checked_add(2)?;
                }
            }
            b'*' | b'~' | b'>' => left = left.checked_add(number.unwrap_or(0))?,
            b'%' => left = left.checked_add(number?.checked_mul(2)?)?,
            // An attribute precedes the value that it describes.
            b'|' => left = left.checked_add(number?.checked_mul(2)?)?.checked_add(1)?,
            b'+' | b'-' | b':' | b'_' | b'#' | b',' | b'(' => {}
            _ => return None,
        }
        left -= 1;
    }
    (at <= reply.len()).then_some(at)
}

/// The reply consists of one aggregate: returns its type, its count, and the position of its elements.
pub(super) fn aggregate(reply: &[u8]) -> Option<(u8, usize, usize)> {
    let (kind, count, body) = head(reply, 0)?;
    let count = usize::try_from(count).ok()?;
    matches!(kind, b'*' | b'~' | b'%').then_some((kind, count, body))
}

/// Appends `more` elements (of a map: pairs) to an aggregate.
pub(super) fn extended(reply: &[u8], more: usize, elements: &[u8]) -> Option<Vec<u8>> {
    let (kind, count, body) = aggregate(reply)?;
    let mut out = Vec::with_capacity(reply.len() + elements.len() + 8);
    push_header(&mut out, kind, count + more);
    out.extend_from_slice(&reply[body..]);
    out.extend_from_slice(elements);
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_of_admin_commands() {
        assert_eq!(error("ERR a\r\nb"), b"-ERR a  b\r\n");
        assert_eq!(text("# hw\r\n", false), b"$6\r\n# hw\r\n\r\n");
        assert_eq!(text("# hw\r\n", true), b"=10\r\ntxt:# hw\r\n\r\n");
        let all = [("lsn", Field::Number(7)), ("name", Field::Text("v".to_owned()))];
        assert_eq!(fields(&all, false), b"*4\r\n$3\r\nlsn\r\n:7\r\n$4\r\nname\r\n$1\r\nv\r\n");
        assert_eq!(fields(&all, true), b"%2\r\n$3\r\nlsn\r\n:7\r\n$4\r\nname\r\n$1\r\nv\r\n");
        assert_eq!(status_list(&["a", "b"]), b"*2\r\n+a\r\n+b\r\n");
    }

    #[test]
    fn elements_end_where_they_end() {
        for element in [
            &b"+OK\r\n"[..],
            b":-12\r\n",
            b"$-1\r\n",
            b"*-1\r\n",
            b"_\r\n",
            b"$3\r\na\r\n\r\n",
            b"*2\r\n*1\r\n:1\r\n%1\r\n+a\r\n~1\r\n$1\r\n:\r\n",
            b"|1\r\n+ttl\r\n:3\r\n$1\r\nv\r\n",
            b"=8\r\ntxt:abcd\r\n",
            b"*0\r\n",
        ] {
            let two = [element, b":1\r\n"].concat();
            assert_eq!(element_end(&two, 0), Some(element.len()), "{}", element.escape_ascii());
            for cut in 0..element.len() {
                assert_eq!(element_end(&element[..cut], 0), None, "{} cut at {cut}", element.escape_ascii());
            }
        }
        for bad in [&b"?x\r\n"[..], b"*9223372036854775807\r\n", b"$9223372036854775807\r\n", b"+OK\n", b"%-1\r\n"] {
            assert_eq!(element_end(bad, 0), None);
        }
    }
}
