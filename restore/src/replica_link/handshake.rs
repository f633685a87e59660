//! The master's side of the replication handshake, without I/O.
//!
//! Order of a real replica (Redis 6.0 to 8.0, Valkey 8 to 9): `PING`, `AUTH`, `REPLCONF
//! listening-port`, `REPLCONF capa …`, `REPLCONF version`, `PSYNC`. Every `PSYNC` gets a full sync: the
//! history that redtape sends has never existed anywhere else.

use redtape_wire::url::Secret;

/// What a replica has to show.
#[derive(Debug, Clone, Default)]
pub struct Expected {
    /// The port that it announces; `None` = any.
    pub port: Option<u16>,
    /// The password that it sends; `None` = none is asked for.
    pub password: Option<Secret>,
}

/// What to do about one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    /// Send this.
    Say(&'static str),
    /// Send `+FULLRESYNC`, then the RDB.
    FullSync,
    /// Close: this is not the replica that is waited for.
    Stranger(String),
}

/// One replica's handshake so far.
#[derive(Debug)]
pub(super) struct Handshake<'a> {
    expected: &'a Expected,
    authenticated: bool,
    port: Option<u16>,
}

impl<'a> Handshake<'a> {
    /// Before its first request.
    pub(super) fn new(expected: &'a Expected) -> Self {
        Self { expected, authenticated: expected.password.is_none(), port: None }
    }

    /// The answer to a request.
    pub(super) fn answer(&mut self, args: &[&[u8]]) -> Answer {
        let Some(name) = args.first() else { return Answer::Stranger("an empty request".to_owned()) };
        let is = |word: &str| name.eq_ignore_ascii_case(word.as_bytes());
        if is("AUTH") {
            // A target may have `masterauth` set from before: only a password that we gave is compared.
            if let Some(password) = &self.expected.password {
                if args.last().copied() != Some(password.expose().as_bytes()) {
                    return Answer::Stranger("a wrong password".to_owned());
                }
                self.authenticated = true;
            }
            return Answer::Say("+OK\r\n");
        }
        if !self.authenticated {
            return if is("PING") {
                Answer::Say("-NOAUTH Authentication required.\r\n")
            } else {
                Answer::Stranger("no password".to_owned())
            };
        }
        if is("PING") {
            Answer::Say("+PONG\r\n")
        } else if is("REPLCONF") {
            for pair in args[1..].chunks(2) {
                if let [option, value] = pair
                    && option.eq_ignore_ascii_case(b"listening-port")
                {
                    self.port = std::str::from_utf8(value).ok().and_then(|p| p.parse().ok());
                }
            }
            Answer::Say("+OK\r\n")
        } else if is("PSYNC") {
            match (self.expected.port, self.port) {
                (Some(want), got) if got != Some(want) => Answer::Stranger(format!(
                    "a replica that announces port {} instead of {want}",
                    got.map_or_else(|| "none".to_owned(), |p| p.to_string())
                )),
                _ => Answer::FullSync,
            }
        } else {
            Answer::Stranger("a request that no replica sends".to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn talk(expected: &Expected, lines: &[&str]) -> Vec<Answer> {
        let mut handshake = Handshake::new(expected);
        let mut say = |line: &&str| handshake.answer(&line.split(' ').map(str::as_bytes).collect::<Vec<_>>());
        lines.iter().map(&mut say).collect()
    }

    const OK: Answer = Answer::Say("+OK\r\n");

    #[test]
    fn a_replica_gets_its_full_sync() {
        let expected = Expected { port: Some(6380), password: None };
        let lines = [
            "PING",
            "AUTH old",
            "REPLCONF listening-port 6380",
            "REPLCONF capa eof capa psync2",
            "REPLCONF version 9.0.0",
            "PSYNC ? -1",
        ];
        let answers = talk(&expected, &lines);
        assert_eq!(answers, [Answer::Say("+PONG\r\n"), OK, OK, OK, OK, Answer::FullSync]);
        assert_eq!(talk(&Expected::default(), &["ping", "psync abc 5"])[1], Answer::FullSync);
    }

    #[test]
    fn strangers_get_nothing() {
        let port = Expected { port: Some(6380), password: None };
        assert!(matches!(talk(&port, &["PSYNC ? -1"])[0], Answer::Stranger(_)));
        assert!(matches!(talk(&port, &["REPLCONF listening-port 1", "PSYNC ? -1"])[1], Answer::Stranger(_)));
        assert!(matches!(talk(&port, &["GET key"])[0], Answer::Stranger(_)));
        let password = Expected { port: None, password: Some(Secret::new("pw")) };
        assert!(matches!(talk(&password, &["PSYNC ? -1"])[0], Answer::Stranger(_)));
        assert!(matches!(talk(&password, &["AUTH no"])[0], Answer::Stranger(_)));
        assert_eq!(talk(&password, &["AUTH pw", "PSYNC ? -1"]), [OK, Answer::FullSync]);
        assert_eq!(talk(&password, &["AUTH default pw", "PSYNC ? -1"]), [OK, Answer::FullSync]);
    }
}
