//! Addresses to listen on as people write them: a name stands for the addresses that it has on this machine.
//!
//! Names are looked up when the settings are read; the proxy only knows addresses.

use std::fmt;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs as _};
use std::str::FromStr;

use redtape_wire::settings::ListenAddr;
use serde::Deserialize;

use crate::exit::{Failure, USAGE};

/// `HOST:PORT`: an address, or a name.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) enum HostPort {
    /// As it is.
    Addr(SocketAddr),
    /// To be looked up.
    Name(String, u16),
}

/// Where clients are served.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) enum Listen {
    /// By TCP.
    Tcp(HostPort),
    /// By a unix socket.
    Unix(ListenAddr),
}

impl FromStr for HostPort {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || "expected HOST:PORT (127.0.0.1:6400, [::1]:6400, localhost:6400)".to_owned();
        if let Ok(addr) = text.parse() {
            return Ok(Self::Addr(addr));
        }
        let (name, port) = text.rsplit_once(':').ok_or_else(expected)?;
        let is_name = name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'));
        // What looks like an address and is none is no name either.
        let has_letter = name.bytes().any(|b| b.is_ascii_alphabetic());
        match port.parse() {
            Ok(port) if is_name && has_letter => Ok(Self::Name(name.to_owned(), port)),
            _ => Err(expected()),
        }
    }
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.starts_with("unix://") {
            return text.parse().map(Self::Unix);
        }
        text.parse().map(Self::Tcp).map_err(|e| format!("{e} or unix:///PATH"))
    }
}

impl TryFrom<String> for HostPort {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl TryFrom<String> for Listen {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Addr(addr) => write!(f, "{addr}"),
            Self::Name(name, port) => write!(f, "{name}:{port}"),
        }
    }
}

impl HostPort {
    /// Its addresses on this machine, IPv4 first; never empty. One that no interface has (IPv6 where there is none) is left
    /// out, if there is another.
    pub(super) fn resolve(&self, option: &str) -> Result<Vec<SocketAddr>, Failure> {
        let (name, port) = match self {
            Self::Addr(addr) => return Ok(vec![*addr]),
            Self::Name(name, port) => (name.as_str(), *port),
        };
        let failed = |why: String| Failure::new(USAGE, format!("{option}: cannot look up {self}: {why}"));
        let mut all: Vec<SocketAddr> = (name, port).to_socket_addrs().map_err(|e| failed(e.to_string()))?.collect();
        all.sort();
        all.dedup();
        if all.is_empty() {
            return Err(failed("it has no address".to_owned()));
        }
        let ours: Vec<SocketAddr> =
            all.iter().copied().filter(|addr| TcpListener::bind((addr.ip(), 0)).is_ok()).collect();
        Ok(if ours.is_empty() { all } else { ours })
    }
}

impl Listen {
    /// The addresses that it stands for.
    pub(super) fn resolve(&self) -> Result<Vec<ListenAddr>, Failure> {
        match self {
            Self::Unix(addr) => Ok(vec![addr.clone()]),
            Self::Tcp(addr) => Ok(addr.resolve("--listen")?.into_iter().map(ListenAddr::Tcp).collect()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_names_and_sockets() {
        for good in ["127.0.0.1:6400", "[::1]:6400", "localhost:6400", "cache-1.example_x.org:1"] {
            assert_eq!(good.parse::<HostPort>().expect(good).to_string(), good);
            assert!(matches!(good.parse(), Ok(Listen::Tcp(_))), "{good}");
        }
        assert!(matches!("unix:///run/r.sock".parse(), Ok(Listen::Unix(_))));
        for bad in
            ["6400", "localhost", ":6400", "localhost:", "local host:1", "127.0.0.300:1", "::1:6400", "a:99999", ""]
        {
            let error = bad.parse::<Listen>().expect_err(bad);
            assert!(error.contains("HOST:PORT") && error.ends_with("unix:///PATH"), "{error}");
        }
        for bad in ["unix://", "unix:///", "unix://rel"] {
            assert!(bad.parse::<Listen>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_name_stands_for_its_addresses_here() {
        let found = "localhost:6400".parse::<Listen>().expect("a name").resolve().expect("localhost");
        assert_eq!(found[0], ListenAddr::Tcp(([127, 0, 0, 1], 6400).into()), "{found:?}");
        let error =
            "nowhere.invalid:1".parse::<HostPort>().expect("a name").resolve("--metrics").expect_err("no such name");
        assert!(error.to_string().starts_with("--metrics: cannot look up nowhere.invalid:1: "), "{error}");
    }
}
