//! Words of a request (options, subcommands) as a server compares them.
//!
//! Redis and Valkey compare them with `strcasecmp`: without regard to ASCII case, and only up to the first NUL. So
//! `AUTH\0x` is the option `AUTH`. Whatever redtape decides by a word of a client, or of the replication stream, is
//! decided by [`is`]: a comparison of all bytes would see another command than the server does.
//!
//! A command or subcommand name is different: the server finds it by a hash of all its bytes and compares as a C string
//! within one bucket. So a name with a NUL may be every command that its front names, or none: see [`is_ambiguous`].

/// Whether a server takes `arg` for `word`, which has no NUL.
#[inline]
pub fn is(arg: &[u8], word: &str) -> bool {
    let word = word.as_bytes();
    match arg.split_at_checked(word.len()) {
        Some((front, rest)) => front.eq_ignore_ascii_case(word) && matches!(rest, [] | [0, ..]),
        None => false,
    }
}

/// Whether a server takes `arg` for one of these.
#[inline]
pub fn is_one_of(arg: &[u8], words: &[&str]) -> bool {
    words.iter().any(|word| is(arg, word))
}

/// What a server sees of `arg` where it reads a C string.
pub fn seen(arg: &[u8]) -> &[u8] {
    arg.split(|byte| *byte == 0).next().unwrap_or(arg)
}

/// Which command (or subcommand) a server finds under this name depends on its hash table: it holds a NUL.
#[inline]
pub fn is_ambiguous(name: &[u8]) -> bool {
    name.contains(&0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_end_at_a_nul_and_have_no_case() {
        for (arg, same) in [
            (&b"BLOCK"[..], true),
            (b"block", true),
            (b"bLoCk\0", true),
            (b"BLOCK\0\0anything", true),
            (b"BLOCKS", false),
            (b"BLOC", false),
            (b"BLOC\0K", false),
            (b"\0BLOCK", false),
            (b" BLOCK", false),
            (b"", false),
        ] {
            assert_eq!(is(arg, "block"), same, "{}", arg.escape_ascii());
            assert_eq!(is_one_of(arg, &["count", "block"]), same, "{}", arg.escape_ascii());
        }
        assert_eq!((seen(b"a\0b"), seen(b"ab"), seen(b"")), (&b"a"[..], &b"ab"[..], &b""[..]));
        assert!(is_ambiguous(b"AUTH\x00409") && is_ambiguous(b"\0") && !is_ambiguous(b"AUTH"));
    }
}
