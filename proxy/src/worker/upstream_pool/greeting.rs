//! Handles the first answers on a new shared connection: whether the server accepts it, and the server's version.

use std::time::Instant;

use super::UpstreamPool;
use super::upstream_conn::{Role, Stage, UpstreamConn};

/// Bytes of the answer to `HELLO` that are examined.
const HELLO_MAX: usize = 4096;

/// Result of the first answers.
#[derive(Debug)]
pub(in crate::worker) enum Greeted<S> {
    /// Number of bytes used.
    Took(usize),
    /// Invalid RESP: the connection must be closed.
    NoResp,
    /// The server refuses: the connection was removed, and its sessions stay on their pinned connections.
    Refused(Box<UpstreamConn<S>>, String),
}

impl<S> UpstreamPool<S> {
    /// Processes the first answers of a new shared connection.
    pub(in crate::worker) fn greet(&mut self, index: usize, bytes: &[u8], now: Instant) -> Greeted<S> {
        let conn = &mut self.conns[index];
        let Stage::Greeting(answers) = &mut conn.stage else { return Greeted::NoResp };
        let Ok((len, frame)) = conn.scanner.scan(bytes) else { return Greeted::NoResp };
        self.served.any = true;
        conn.progress = now;
        if conn.hello.len() < HELLO_MAX {
            conn.hello.extend_from_slice(&bytes[..len]);
        }
        let Some(frame) = frame else { return Greeted::Took(len) };
        *answers = answers.saturating_sub(1);
        if matches!(frame.kind, b'-' | b'!') {
            return self.refused(index, frame.line.as_bytes(), now);
        }
        if *answers == 0 {
            self.moves_by_any_command = moves_by_any_command(&std::mem::take(&mut conn.hello));
            conn.stage = Stage::Ready;
        }
        Greeted::Took(len)
    }

    /// The server refuses a new shared connection.
    fn refused(&mut self, index: usize, line: &[u8], now: Instant) -> Greeted<S> {
        let Some(conn) = self.remove(index) else { return Greeted::NoResp };
        if let Role::Shared(key) = &conn.role {
            let codes: &[&[u8]] = match key.credential {
                Some(_) => &[b"WRONGPASS", b"NOPERM", b"NOAUTH"],
                // No credentials were sent, and the ACL LOG has no entry.
                None => &[b"NOPERM"],
            };
            if codes.iter().any(|code| line.starts_with(code)) {
                self.shared.denied(key);
            } else {
                self.shared.refused(key.clone(), now);
            }
        }
        Greeted::Refused(Box::new(conn), String::from_utf8_lossy(line).into_owned())
    }
}

/// True if, by its answer to `HELLO`, the server advances a connection's offset at any command (before 7.2).
fn moves_by_any_command(hello: &[u8]) -> bool {
    let mut lines = hello.split(|b| *b == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let version = lines.by_ref().find(|line| *line == b"version").and_then(|_| lines.nth(1));
    let mut numbers =
        version.unwrap_or_default().split(|b| *b == b'.').map(|n| std::str::from_utf8(n).ok()?.parse().ok());
    let (major, minor): (Option<u32>, Option<u32>) = (numbers.next().flatten(), numbers.next().flatten());
    matches!((major, minor), (Some(major), Some(minor)) if (major, minor) < (7, 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn which_servers_move_the_offset_by_any_command() {
        let hello = |version: &str| {
            format!(
                "*14\r\n$6\r\nserver\r\n$5\r\nredis\r\n$7\r\nversion\r\n${}\r\n{version}\r\n$5\r\nproto\r\n:2\r\n",
                version.len()
            )
        };
        for (version, moves) in
            [("6.0.16", true), ("7.0.15", true), ("7.2.0", false), ("8.0.6", false), ("10.0.1", false), ("", false)]
        {
            assert_eq!(moves_by_any_command(hello(version).as_bytes()), moves, "{version}");
        }
        assert!(!moves_by_any_command(b"-ERR unknown command\r\n"));
    }
}
