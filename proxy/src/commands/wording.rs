//! Error texts of each server version: clients compare them, and they differ between versions.

/// Shown bytes of an unknown command: of its name, and of its arguments (Redis 7.0 `server.c`).
const SHOWN: usize = 128;

/// Server version for the choice of texts. Valkey's numbers continue where Redis 7.2 stood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wording {
    version: (u32, u32),
}

impl Wording {
    /// From a version like `7.0.15`; an unreadable one is taken as new.
    pub(super) fn of(version: &str) -> Self {
        let mut parts = version.split('.').map(|part| part.parse().ok());
        let major = parts.next().flatten();
        Self { version: major.map_or((u32::MAX, 0), |major| (major, parts.next().flatten().unwrap_or(0))) }
    }

    /// Rows of `COMMAND` have 10 elements instead of 7, and mark a module's commands.
    pub(super) fn since_7(self) -> bool {
        self.version >= (7, 0)
    }

    /// Error for a command that does not exist.
    pub(super) fn unknown(self, args: &[&[u8]]) -> Vec<u8> {
        let (open, close, behind) = if self.since_7() { (b'\'', b'\'', " ") } else { (b'`', b'`', ", ") };
        let mut line = b"ERR unknown command ".to_vec();
        line.push(open);
        line.extend_from_slice(shown(args[0], if self.since_7() { SHOWN } else { usize::MAX }));
        line.push(close);
        line.extend_from_slice(b", with args beginning with: ");
        let from = line.len();
        for arg in &args[1..] {
            let used = line.len() - from;
            if used >= SHOWN {
                break;
            }
            line.push(open);
            line.extend_from_slice(shown(arg, SHOWN - used));
            line.push(close);
            line.extend_from_slice(behind.as_bytes());
        }
        line
    }

    /// Error for a command that the user may not run.
    pub(super) fn no_permission(self, user: &str, command: &str) -> String {
        match self.version {
            (..7, _) => {
                format!("NOPERM this user has no permissions to run the '{command}' command or its subcommand")
            }
            (7, ..2) => format!("NOPERM this user has no permissions to run the '{command}' command"),
            _ => format!("NOPERM User {user} has no permissions to run the '{command}' command"),
        }
    }
}

/// Up to `most` bytes, truncated at a NUL.
fn shown(arg: &[u8], most: usize) -> &[u8] {
    let cut = &arg[..arg.len().min(most)];
    cut.split(|b| *b == 0).next().unwrap_or(cut)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What Redis 6.0.16, 7.0.15, 8.0.6 and Valkey 9.1.2 answered.
    #[test]
    fn as_the_servers_say_it() {
        let (x200, x126) = ("x".repeat(200), "x".repeat(126));
        let name_200 = format!("redtape.{}", "n".repeat(192));
        let args: [&[&str]; 6] = [
            &["REDTAPE.foo", "a", "bb"],
            &["redtape.foo"],
            &["REDTAPE.foo", &x200, "y"],
            &["REDTAPE.foo", &x126, "yy", "z"],
            &["redtape.foo", "a\0b"],
            &[&name_200],
        ];
        let (x128, n120, n192) = ("x".repeat(128), "n".repeat(120), "n".repeat(192));
        let old = [
            "`REDTAPE.foo`, with args beginning with: `a`, `bb`, ".to_owned(),
            "`redtape.foo`, with args beginning with: ".to_owned(),
            format!("`REDTAPE.foo`, with args beginning with: `{x128}`, "),
            format!("`REDTAPE.foo`, with args beginning with: `{x126}`, "),
            "`redtape.foo`, with args beginning with: `a`, ".to_owned(),
            format!("`redtape.{n192}`, with args beginning with: "),
        ];
        let new = [
            "'REDTAPE.foo', with args beginning with: 'a' 'bb' ".to_owned(),
            "'redtape.foo', with args beginning with: ".to_owned(),
            format!("'REDTAPE.foo', with args beginning with: '{x128}' "),
            format!("'REDTAPE.foo', with args beginning with: '{x126}' "),
            "'redtape.foo', with args beginning with: 'a' ".to_owned(),
            format!("'redtape.{n120}', with args beginning with: "),
        ];
        for (version, expected) in [("6.0.16", &old), ("6.2.0", &old), ("7.0.15", &new), ("9.1.2", &new)] {
            for (args, expected) in args.iter().zip(expected) {
                let args: Vec<&[u8]> = args.iter().map(|a| a.as_bytes()).collect();
                let line = Wording::of(version).unknown(&args);
                assert_eq!(String::from_utf8_lossy(&line), format!("ERR unknown command {expected}"), "{version}");
            }
        }
        let denied = |version| Wording::of(version).no_permission("bob", "hw.rd");
        let no = "NOPERM this user has no permissions to run the 'hw.rd' command";
        assert_eq!(denied("6.0.16"), format!("{no} or its subcommand"));
        assert_eq!(denied("7.0.15"), no);
        for version in ["7.2.4", "8.0.6", "9.1.2", "", "unstable"] {
            assert_eq!(denied(version), "NOPERM User bob has no permissions to run the 'hw.rd' command");
        }
    }
}
