//! Option values as people write them: addresses, sizes, switches.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use serde::Deserialize;

/// A value in a file: TOML's numbers mean what they mean as text.
#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a text or a number")]
enum Raw {
    Number(u64),
    Text(String),
}

macro_rules! read_as_text {
    ($($type:ty),*) => {$(
        impl TryFrom<Raw> for $type {
            type Error = String;

            fn try_from(raw: Raw) -> Result<Self, String> {
                match raw {
                    Raw::Number(n) => n.to_string().parse(),
                    Raw::Text(text) => text.parse(),
                }
            }
        }
    )*};
}

read_as_text!(ListenAddr, ByteSize, SocketMode, Switch, Sharing, Ack, OnJournalFailure);

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

/// Bytes, written as in `redis.conf`: `1k` is 1000, `1kb` is 1024, and so for `m` and `g`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "Raw")]
pub struct ByteSize(pub u64);

impl FromStr for ByteSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "expected a size such as 1048576, 256mb or 1gb".to_owned();
        let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (digits, unit) = text.split_at(end);
        let factor: u64 = match unit.to_ascii_lowercase().as_str() {
            "" | "b" => 1,
            "k" => 1000,
            "kb" => 1 << 10,
            "m" => 1_000_000,
            "mb" => 1 << 20,
            "g" => 1_000_000_000,
            "gb" => 1 << 30,
            _ => return Err(wrong()),
        };
        let number: u64 = digits.parse().map_err(|_| wrong())?;
        number.checked_mul(factor).map(Self).ok_or_else(wrong)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (shift, unit) in [(30, "gb"), (20, "mb"), (10, "kb")] {
            if self.0 != 0 && self.0.is_multiple_of(1 << shift) {
                return write!(f, "{}{unit}", self.0 >> shift);
            }
        }
        write!(f, "{}", self.0)
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

/// What becomes of writes while the journal can't be written.
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
    fn sizes_are_those_of_redis() {
        for (text, bytes) in [("0", 0), ("12", 12), ("7b", 7), ("1k", 1000), ("1kb", 1024), ("2M", 2_000_000)] {
            assert_eq!(text.parse(), Ok(ByteSize(bytes)), "{text}");
        }
        for (text, bytes) in [("256mb", 256 << 20), ("1gb", 1 << 30), ("3g", 3_000_000_000)] {
            assert_eq!(text.parse(), Ok(ByteSize(bytes)), "{text}");
        }
        for bad in ["", "mb", "-1", "1.5gb", "1 gb", "1tb", "99999999999999999999", "18446744073709551615gb"] {
            assert!(bad.parse::<ByteSize>().is_err(), "{bad}");
        }
        for shown in ["0", "1000", "1kb", "256mb", "1gb", "1025"] {
            assert_eq!(shown.parse::<ByteSize>().expect(shown).to_string(), shown);
        }
    }

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
