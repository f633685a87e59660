//! Words for a shell.

use std::fmt::Write as _;

/// One word of a command line, which holds no NUL, as a POSIX shell reads it: plain where that is enough, else in single quotes. What would control a
/// terminal, and what is not UTF-8, stands as escapes in `$'…'`, which the usual shells know.
pub(crate) fn shell_word(bytes: &[u8]) -> String {
    let is_plain = |b: &u8| b.is_ascii_alphanumeric() || b"_-./:=@%+,".contains(b);
    match std::str::from_utf8(bytes) {
        Ok(text) if !bytes.is_empty() && bytes.iter().all(is_plain) => text.to_owned(),
        Ok(text) if !text.chars().any(char::is_control) => format!("'{}'", text.replace('\'', "'\\''")),
        _ => in_escapes(bytes),
    }
}

fn in_escapes(bytes: &[u8]) -> String {
    let mut word = String::from("$'");
    for byte in bytes {
        match byte {
            b'\'' | b'\\' => {
                word.push('\\');
                word.push(char::from(*byte));
            }
            // Three digits always, so that what follows is no part of it. Writing to a String cannot fail.
            _ if !(b' '..=b'~').contains(byte) => {
                let _ = write!(word, "\\{byte:03o}");
            }
            _ => word.push(char::from(*byte)),
        }
    }
    word.push('\'');
    word
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_reads_the_same_bytes() {
        let words: [&[u8]; 9] = [
            b"user:1",
            b"",
            b"user:*",
            b"it's",
            b"a b",
            b"\"\\xff\"",
            "ö".as_bytes(),
            b"\xff\x01271'\\\n",
            b"$HOME `x`",
        ];
        for word in words {
            let line = format!("printf %s {}", shell_word(word));
            let out = std::process::Command::new("bash").args(["-c", &line]).output().expect("bash");
            assert_eq!(out.stdout, word, "{line}");
        }
        assert_eq!((shell_word(b"user:1"), shell_word(b"user:*")), ("user:1".to_owned(), "'user:*'".to_owned()));
    }
}
