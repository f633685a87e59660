//! Option values as people write them: addresses, modes, switches.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use serde::Deserialize;

use crate::units::{Raw, read_as_text};

read_as_text!(ListenAddr, SocketMode, Switch, Sharing, Ack, OnJournalFailure);

/// Where clients are served.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Deserialize)]
#[serde(try_from = "Raw")]
pub enum ListenAddr {
    /// Address and port.
    Tcp(SocketAddr),
    /// Path of a unix socket.
    Unix(PathBuf),
}

impl FromStr for ListenAddr {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix("unix://") {
            Some(path) if path.starts_with('/') && path.len() > 1 => Ok(Self::Unix(path.into())),
            Some(_) => Err("a unix socket needs an absolute path, as in unix:///run/redtape.sock".to_owned()),
            None => text
                .parse()
                .map(Self::Tcp)
                .map_err(|_| "expected ADDRESS:PORT (127.0.0.1:6400, [::1]:6400) or unix:///PATH".to_owned()),
        }
    }
}

impl fmt::Display for ListenAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(addr) => write!(f, "{addr}"),
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
        }
    }
}

/// The mode of a unix socket, in octal digits (Redis's `unixsocketperm`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Raw")]
pub struct SocketMode(pub u32);

impl FromStr for SocketMode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mode = u32::from_str_radix(text, 8).ok().filter(|m| *m <= 0o777);
        mode.map(Self).ok_or_else(|| "expected an octal mode such as 770".to_owned())
    }
}

impl fmt::Display for SocketMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:o}", self.0)
    }
}

/// On or off.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Raw")]
pub enum Switch {
    /// On.
    On,
    /// Off.
    #[default]
    Off,
}

impl FromStr for Switch {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "on" => Ok(Self::On),
            "off" => Ok(Self::Off),
            _ => Err("expected on or off".to_owned()),
        }
    }
}

impl fmt::Display for Switch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if *self == Self::On { "on" } else { "off" })
    }
}

/// Whether sessions may share upstream connections.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Raw")]
pub enum Sharing {
    /// Where nothing can tell.
    #[default]
    Auto,
    /// One connection for each session.
    Off,
}

impl FromStr for Sharing {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "off" => Ok(Self::Off),
            _ => Err("expected auto or off".to_owned()),
        }
    }
}

impl fmt::Display for Sharing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if *self == Self::Auto { "auto" } else { "off" })
    }
}

/// When a client hears that its write was done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Raw")]
pub enum Ack {
    /// When the server has done it.
    #[default]
    Upstream,
    /// When its effect is in the journal and synced.
    Journal,
}

impl FromStr for Ack {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "upstream" => Ok(Self::Upstream),
            "journal" => Ok(Self::Journal),
            _ => Err("expected upstream or journal".to_owned()),
        }
    }
}

impl fmt::Display for Ack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if *self == Self::Upstream { "upstream" } else { "journal" })
    }
}

/// What becomes of writes while the journal cannot be written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Raw")]
pub enum OnJournalFailure {
    /// They go on and are missing in the journal, which says so.
    #[default]
    Pass,
    /// They are refused with `-JOURNAL`; reads go on.
    Reject,
}

impl FromStr for OnJournalFailure {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "pass" => Ok(Self::Pass),
            "reject" => Ok(Self::Reject),
            _ => Err("expected pass or reject".to_owned()),
        }
    }
}

impl fmt::Display for OnJournalFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if *self == Self::Pass { "pass" } else { "reject" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_modes() {
        for good in ["127.0.0.1:6400", "[::1]:6400", "unix:///run/redtape.sock"] {
            assert_eq!(good.parse::<ListenAddr>().expect(good).to_string(), good);
        }
        for bad in ["6400", "localhost:6400", "unix://", "unix:///", "unix://rel", "127.0.0.1:99999"] {
            assert!(bad.parse::<ListenAddr>().is_err(), "{bad}");
        }
        assert_eq!("770".parse(), Ok(SocketMode(0o770)));
        assert!("789".parse::<SocketMode>().is_err() && "7777".parse::<SocketMode>().is_err());
    }
}
