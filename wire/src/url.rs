//! Connection URLs as redis-cli has them: `redis://user:pass@host:port/db`, `rediss://`, `unix://`.

use std::fmt;

/// A secret: prints as `***`, so that it cannot reach a log by accident.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret.
    pub fn new(secret: impl Into<String>) -> Self {
        Self(secret.into())
    }

    /// The secret itself, for the wire only.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// Host (name or address, without brackets) and port.
    Tcp {
        /// Name or address.
        host: String,
        /// Port.
        port: u16,
    },
    /// Path of a unix socket.
    Unix(String),
}

/// How to reach a server and as whom.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisUrl {
    /// Where.
    pub endpoint: Endpoint,
    /// `rediss://`.
    pub tls: bool,
    /// ACL user, if named.
    pub username: Option<String>,
    /// Password, if given.
    pub password: Option<Secret>,
    /// Database number.
    pub db: u32,
}

/// What is wrong with a URL; never repeats a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a Redis URL ({reason}); expected redis://[user:password@]host[:port][/db] or unix:///path/to/socket")]
pub struct UrlError {
    reason: String,
}

fn error(reason: impl Into<String>) -> UrlError {
    UrlError { reason: reason.into() }
}

impl std::str::FromStr for RedisUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        let (scheme, rest) = text.split_once("://").unwrap_or(("redis", text));
        let (tls, unix) = match scheme {
            "redis" | "valkey" => (false, false),
            "rediss" | "valkeys" => (true, false),
            "unix" | "redis+unix" => (false, true),
            other => return Err(error(format!("unknown scheme {other:?}"))),
        };
        let (rest, query) = rest.split_once('?').map_or((rest, None), |(r, q)| (r, Some(q)));
        let (auth, rest) = rest.rsplit_once('@').map_or((None, rest), |(a, r)| (Some(a), r));
        let (username, password) = match auth.map(|a| a.split_once(':').unwrap_or((a, ""))) {
            None => (None, None),
            Some((user, pass)) => (non_empty(decode(user)?), non_empty(decode(pass)?).map(Secret)),
        };
        let (endpoint, mut db) = if unix {
            if !rest.starts_with('/') {
                return Err(error("a unix socket needs an absolute path"));
            }
            (Endpoint::Unix(decode(rest)?), 0)
        } else {
            let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
            (parse_authority(authority)?, if path.is_empty() { 0 } else { parse_db(path)? })
        };
        for pair in query.unwrap_or_default().split('&').filter(|p| !p.is_empty()) {
            match pair.split_once('=') {
                Some(("db", value)) => db = parse_db(value)?,
                _ => return Err(error("unknown query parameter; only db= is known")),
            }
        }
        Ok(Self { endpoint, tls, username, password, db })
    }
}

fn parse_db(text: &str) -> Result<u32, UrlError> {
    text.parse().map_err(|_| error("the database must be a number"))
}

fn parse_authority(authority: &str) -> Result<Endpoint, UrlError> {
    let (host, port) = if let Some(v6) = authority.strip_prefix('[') {
        let (host, rest) = v6.split_once(']').ok_or_else(|| error("unclosed bracket"))?;
        (host, rest.strip_prefix(':'))
    } else {
        authority.split_once(':').map_or((authority, None), |(h, p)| (h, Some(p)))
    };
    if host.is_empty() {
        return Err(error("no host"));
    }
    let port = match port {
        None => 6379,
        Some(p) => {
            p.parse().ok().filter(|p| *p != 0).ok_or_else(|| error("the port must be a number from 1 to 65535"))?
        }
    };
    Ok(Endpoint::Tcp { host: decode(host)?, port })
}

fn non_empty(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

fn decode(text: &str) -> Result<String, UrlError> {
    let bad = || error("broken percent-encoding");
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(b) = bytes.next() {
        if b == b'%' {
            let mut digit = || bytes.next().and_then(|b| (b as char).to_digit(16)).ok_or_else(bad);
            out.push((digit()? * 16 + digit()?) as u8);
        } else {
            out.push(b);
        }
    }
    String::from_utf8(out).map_err(|_| bad())
}

fn encode(text: &str) -> String {
    use std::fmt::Write as _;
    let mut out = String::new();
    for b in text.bytes() {
        if b.is_ascii_alphanumeric() || b"-._~".contains(&b) {
            out.push(b as char);
        } else {
            // Writing to a String cannot fail.
            let _ = write!(out, "%{b:02X}");
        }
    }
    out
}

impl RedisUrl {
    /// `host:port`, or the socket's path: for messages and metrics.
    pub fn address(&self) -> String {
        match &self.endpoint {
            Endpoint::Tcp { host, port } if host.contains(':') => format!("[{host}]:{port}"),
            Endpoint::Tcp { host, port } => format!("{host}:{port}"),
            Endpoint::Unix(path) => path.clone(),
        }
    }

    /// The same with this password.
    #[must_use]
    pub fn with_password(mut self, password: Secret) -> Self {
        self.password = Some(password);
        self
    }

    /// The whole URL, secrets included: for a client library only, never for people.
    pub fn expose(&self) -> String {
        let auth = match (&self.username, &self.password) {
            (None, None) => String::new(),
            (user, pass) => format!(
                "{}:{}@",
                encode(user.as_deref().unwrap_or_default()),
                encode(pass.as_ref().map(Secret::expose).unwrap_or_default())
            ),
        };
        match &self.endpoint {
            Endpoint::Tcp { .. } => {
                format!("{}://{auth}{}/{}", if self.tls { "rediss" } else { "redis" }, self.address(), self.db)
            }
            // The client library takes a socket's credentials from the query.
            Endpoint::Unix(path) => {
                let mut url = format!("unix://{path}?db={}", self.db);
                if let Some(user) = &self.username {
                    url.push_str("&user=");
                    url.push_str(&encode(user));
                }
                if let Some(pass) = &self.password {
                    url.push_str("&pass=");
                    url.push_str(&encode(pass.expose()));
                }
                url
            }
        }
    }
}

/// With the password as `***`.
impl fmt::Display for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match (&self.endpoint, self.tls) {
            (Endpoint::Unix(_), _) => "unix",
            (_, true) => "rediss",
            (_, false) => "redis",
        };
        write!(f, "{scheme}://")?;
        match (&self.username, &self.password) {
            (None, None) => {}
            (user, Some(_)) => write!(f, "{}:***@", user.as_deref().unwrap_or_default())?,
            (Some(user), None) => write!(f, "{user}@")?,
        }
        f.write_str(&self.address())?;
        if self.db != 0 {
            write!(f, "/{}", self.db)?;
        }
        Ok(())
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<RedisUrl, UrlError> {
        text.parse()
    }

    #[test]
    fn forms() {
        let url = parse("redis://ann:p%40ss@db.example:7000/3").expect("full");
        assert_eq!(url.endpoint, Endpoint::Tcp { host: "db.example".into(), port: 7000 });
        assert_eq!((url.username.as_deref(), url.password.as_ref().map(Secret::expose)), (Some("ann"), Some("p@ss")));
        assert_eq!((url.db, url.tls), (3, false));
        assert_eq!(url.to_string(), "redis://ann:***@db.example:7000/3");
        assert_eq!(format!("{url:?}"), url.to_string());
        assert_eq!(parse(&url.expose()).expect("round trip"), url);
        assert_eq!(parse("redis://:secret@h").expect("password only").username, None);
        assert_eq!(parse("127.0.0.1:6380").expect("bare").address(), "127.0.0.1:6380");
        assert_eq!(parse("rediss://[::1]:6380").expect("v6").address(), "[::1]:6380");
        assert!(parse("rediss://h").expect("tls").tls);
        assert_eq!(parse("unix:///run/redis.sock?db=2").expect("unix").db, 2);
    }

    #[test]
    fn refusals_say_why_and_keep_secrets() {
        for bad in [
            "http://h",
            "redis://",
            "redis://h:0",
            "redis://h:x",
            "redis://h/x",
            "unix://rel",
            "redis://:s%zz@h",
            "redis://h?x=1",
        ] {
            let message = parse(bad).expect_err(bad).to_string();
            assert!(message.contains("redis://[user:password@]"), "{message}");
        }
        assert!(!parse("redis://u:hunter2@h:x").expect_err("port").to_string().contains("hunter2"));
    }
}
