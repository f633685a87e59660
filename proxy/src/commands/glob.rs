//! Redis's glob patterns (`util.c`, `stringmatchlen`), ignoring case: `*`, `?`, `[a-z]`, `[^a]`, `\x`.

/// True if the whole of `text` matches. Time is bounded by the product of the lengths: backtracking goes to the last
/// star only.
pub(super) fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        if pattern.get(p) == Some(&b'*') {
            star = Some((p + 1, t));
            p += 1;
        } else if let Some(behind) = one(pattern, p, text[t]) {
            (p, t) = (behind, t + 1);
        } else if let Some((behind, from)) = star {
            star = Some((behind, from + 1));
            (p, t) = (behind, from + 1);
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|b| *b == b'*')
}

/// Matches one byte against the pattern at `p`; returns where the pattern continues.
fn one(pattern: &[u8], p: usize, byte: u8) -> Option<usize> {
    let same = |a: u8, b: u8| a.eq_ignore_ascii_case(&b);
    match *pattern.get(p)? {
        b'?' => Some(p + 1),
        b'\\' if p + 1 < pattern.len() => same(pattern[p + 1], byte).then_some(p + 2),
        b'[' => {
            let negated = pattern.get(p + 1) == Some(&b'^');
            let mut at = p + 1 + usize::from(negated);
            let mut found = false;
            // An open bracket ends with the pattern.
            while at < pattern.len() && pattern[at] != b']' {
                if pattern[at] == b'\\' && at + 1 < pattern.len() {
                    found |= same(pattern[at + 1], byte);
                    at += 2;
                } else if pattern.get(at + 1) == Some(&b'-') && at + 2 < pattern.len() {
                    let [mut low, mut high] = [pattern[at], pattern[at + 2]].map(|b| b.to_ascii_lowercase());
                    if low > high {
                        (low, high) = (high, low);
                    }
                    found |= (low..=high).contains(&byte.to_ascii_lowercase());
                    at += 3;
                } else {
                    found |= same(pattern[at], byte);
                    at += 1;
                }
            }
            (found != negated).then_some((at + 1).min(pattern.len()))
        }
        literal => same(literal, byte).then_some(p + 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_redis_matches() {
        for (pattern, text, expected) in [
            ("*", "redtape.mark", true),
            ("redtape.*", "redtape.mark", true),
            ("REDTAPE.M*", "redtape.mark", true),
            ("*mark", "redtape.mark", true),
            ("*a*a*k", "redtape.mark", true),
            ("*a*a*a*a", "redtape.mark", false),
            ("redtape.????", "redtape.mark", true),
            ("redtape.???", "redtape.mark", false),
            ("redtape.[k-n]ark", "redtape.mark", true),
            ("redtape.[n-k]ark", "redtape.mark", true),
            ("redtape.[^m]ark", "redtape.mark", false),
            ("redtape.[xm", "redtape.m", true),
            ("redtape\\.mark", "redtape.mark", true),
            ("redtape.\\*", "redtape.mark", false),
            ("redtape", "redtape.mark", false),
            ("redtape.mark***", "redtape.mark", true),
            ("", "redtape.mark", false),
        ] {
            assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), expected, "{pattern} {text}");
        }
    }
}
