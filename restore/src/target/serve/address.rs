//! Where a read-only server listens, and who may come.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use redtape_wire::url::Secret;

use crate::error::RestoreError;

/// An address, and the password that clients give, if they have to give one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServeAddress {
    at: SocketAddr,
    password: Option<Secret>,
}

impl ServeAddress {
    /// Reads `IP:PORT` or `localhost:PORT`. Any client that can reach it can read everything: beyond this machine that takes a password.
    pub fn new(at: &str, password: Option<Secret>) -> Result<Self, RestoreError> {
        let at = parse(at).ok_or_else(|| {
            RestoreError::Usage(format!(
                "--serve {at}: expected an IP address or localhost, and a port, as in 127.0.0.1:7000 or [::1]:7000 (port 0: a free one)"
            ))
        })?;
        if password.as_ref().is_some_and(|password| password.expose().is_empty()) {
            return Err(RestoreError::Usage("the password for clients (--serve-password-file) is empty".to_owned()));
        }
        if password.is_none() && !at.ip().is_loopback() {
            return Err(RestoreError::Usage(format!(
                "--serve {at}: other machines reach this address, and could read everything; give a password (--serve-password-file FILE), or an address of this machine alone (127.0.0.1)"
            )));
        }
        Ok(Self { at, password })
    }

    pub(super) fn at(&self) -> SocketAddr {
        self.at
    }

    pub(super) fn password(&self) -> Option<&Secret> {
        self.password.as_ref()
    }
}

fn parse(text: &str) -> Option<SocketAddr> {
    if let Some(port) = text.strip_prefix("localhost:") {
        return port.parse().ok().map(|port| SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port));
    }
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(at: &str, password: Option<&str>) -> Result<String, String> {
        let address = ServeAddress::new(at, password.map(Secret::new));
        address.map(|address| address.at.to_string()).map_err(|e| e.to_string())
    }

    #[test]
    fn loopback_needs_no_password() {
        for (given, meant) in [
            ("127.0.0.1:7000", "127.0.0.1:7000"),
            ("127.9.9.9:1", "127.9.9.9:1"),
            ("[::1]:7000", "[::1]:7000"),
            ("localhost:0", "127.0.0.1:0"),
        ] {
            assert_eq!(read(given, None).as_deref(), Ok(meant));
        }
    }

    #[test]
    fn other_addresses_need_one() {
        for given in ["0.0.0.0:7000", "10.0.0.1:7000", "[::]:7000"] {
            let refused = read(given, None).expect_err("no password");
            assert!(refused.contains("--serve-password-file"), "{refused}");
            assert!(read(given, Some("")).is_err());
            assert_eq!(read(given, Some("open")).as_deref(), Ok(given));
        }
    }

    #[test]
    fn what_is_no_address_is_told() {
        for given in
            ["", "7000", ":7000", "localhost", "localhost:x", "::1:7000:", "db.example:7000", "127.0.0.1:70000"]
        {
            let refused = read(given, None).expect_err("no address");
            assert!(refused.contains("127.0.0.1:7000"), "{refused}");
        }
    }
}
