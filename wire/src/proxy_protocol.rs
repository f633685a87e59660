//! The PROXY protocol, version 2 (haproxy's `proxy-protocol.txt`, 2.2): a load balancer in front of
//! redtape says where a client really comes from, before the client's first byte.
//!
//! ```text
//!     0              12        13         14        16                  16 + length
//!     | signature    | version | family   | length  | addresses | TLVs  | the client's bytes
//!     |              | command | transport| (BE)    |           |       |
//! ```
//!
//! Only the source is kept. TLVs are passed over unread. The header is to be read only from peers that are
//! known to send it: anybody else could name any address.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// With what a header begins.
pub const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Longer headers are refused. Two addresses take at most 232 bytes, TLVs a few hundred; those of a client's
/// whole certificate are not for us.
pub const HEADER_MAX: usize = 4096;

const FIXED: usize = 16;
const V1_START: &[u8] = b"PROXY ";

/// What the bytes so far are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyHeader {
    /// Not all is there.
    Incomplete {
        /// So many bytes are needed in all before it is worth to look again.
        need: usize,
    },
    /// A whole header.
    Complete {
        /// From whom.
        source: Source,
        /// Its length; the client's bytes follow.
        len: usize,
    },
}

/// Who is behind the sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The sender itself (a health check), or someone it says nothing of: the connection's own address counts.
    Local,
    /// A client with an address.
    Addr(SocketAddr),
    /// A client of the sender's unix socket.
    Unix,
}

/// Why the connection cannot be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProxyHeaderError {
    /// A client without a load balancer, or one that does not send the header.
    #[error("no PROXY protocol header: the load balancer must send one (version 2), or set proxy-protocol = off")]
    Missing,
    /// The old text form.
    #[error(
        "a PROXY protocol header of version 1; redtape reads version 2: set the load balancer to it (send-proxy-v2)"
    )]
    Version1,
    /// A version to come.
    #[error("a PROXY protocol header of version {0}; redtape reads version 2")]
    Version(u8),
    /// Neither LOCAL nor PROXY.
    #[error("a PROXY protocol header with the unknown command {0}")]
    Command(u8),
    /// Of a datagram or an unknown kind of socket.
    #[error("a PROXY protocol header of an unknown kind of connection ({0:#04x}); TCP and unix streams are known")]
    Kind(u8),
    /// Longer than [`HEADER_MAX`].
    #[error("a PROXY protocol header of {0} bytes; redtape takes at most {HEADER_MAX}")]
    TooLong(usize),
    /// Too short for its addresses.
    #[error("a PROXY protocol header whose {0} bytes cannot hold the addresses that it announces")]
    TooShort(usize),
}

/// Reads the header at the start of a connection.
pub fn parse(bytes: &[u8]) -> Result<ProxyHeader, ProxyHeaderError> {
    let known = bytes.len().min(SIGNATURE.len());
    if bytes[..known] != SIGNATURE[..known] {
        let start = bytes.len().min(V1_START.len());
        return match bytes[..start] == V1_START[..start] {
            true if start == V1_START.len() => Err(ProxyHeaderError::Version1),
            true => Ok(ProxyHeader::Incomplete { need: V1_START.len() }),
            false => Err(ProxyHeaderError::Missing),
        };
    }
    let Some((fixed, rest)) = bytes.split_at_checked(FIXED) else {
        return Ok(ProxyHeader::Incomplete { need: FIXED });
    };
    let (version, command, kind) = (fixed[12] >> 4, fixed[12] & 0xf, fixed[13]);
    if version != 2 {
        return Err(ProxyHeaderError::Version(version));
    }
    if command > 1 {
        return Err(ProxyHeaderError::Command(command));
    }
    let length = usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
    let len = FIXED + length;
    if len > HEADER_MAX {
        return Err(ProxyHeaderError::TooLong(len));
    }
    let Some(body) = rest.get(..length) else { return Ok(ProxyHeader::Incomplete { need: len }) };
    let source = if command == 0 { Source::Local } else { source(kind, body)? };
    Ok(ProxyHeader::Complete { source, len })
}

/// Source address, destination address, source port, destination port; then TLVs.
fn source(kind: u8, body: &[u8]) -> Result<Source, ProxyHeaderError> {
    let short = ProxyHeaderError::TooShort(body.len());
    let addr = |ip: IpAddr, port_at: usize| match body.get(port_at..port_at + 4) {
        Some(ports) => Ok(Source::Addr(SocketAddr::new(ip, u16::from_be_bytes([ports[0], ports[1]])))),
        None => Err(short),
    };
    match kind {
        // Unspecified: to be served all the same.
        0x00 => Ok(Source::Local),
        0x11 => {
            let ip: [u8; 4] = *body.first_chunk().ok_or(short)?;
            addr(Ipv4Addr::from(ip).into(), 8)
        }
        0x21 => {
            let ip: [u8; 16] = *body.first_chunk().ok_or(short)?;
            addr(Ipv6Addr::from(ip).into(), 32)
        }
        // Two paths of 108 bytes, an unused form.
        0x31 if body.len() >= 216 => Ok(Source::Unix),
        0x31 => Err(short),
        _ => Err(ProxyHeaderError::Kind(kind)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn header(version_command: u8, kind: u8, body: &[u8]) -> Vec<u8> {
        let length = u16::try_from(body.len()).expect("a short body");
        [&SIGNATURE[..], &[version_command, kind], &length.to_be_bytes(), body].concat()
    }

    fn v4(tlvs: &[u8]) -> Vec<u8> {
        [&[203, 0, 113, 9, 10, 0, 0, 1, 0xd4, 0x31, 0x19, 0x00][..], tlvs].concat()
    }

    #[test]
    fn whole_headers() {
        let v6: Vec<u8> = [&Ipv6Addr::LOCALHOST.octets()[..], &[0; 16], &[0, 80, 0, 81]].concat();
        let client = |text: &str| Source::Addr(text.parse().expect("an address"));
        for (bytes, source) in [
            (header(0x21, 0x11, &v4(b"")), client("203.0.113.9:54321")),
            (header(0x21, 0x11, &v4(b"\x04\x00\x03abc")), client("203.0.113.9:54321")),
            (header(0x21, 0x21, &v6), client("[::1]:80")),
            (header(0x21, 0x31, &[b'x'; 216]), Source::Unix),
            (header(0x20, 0x00, b""), Source::Local),
            (header(0x20, 0x11, &v4(b"")), Source::Local),
            (header(0x20, 0xff, b"anything"), Source::Local),
            (header(0x21, 0x00, b"anything"), Source::Local),
        ] {
            let len = bytes.len();
            let found = ProxyHeader::Complete { source, len };
            assert_eq!(parse(&bytes), Ok(found));
            assert_eq!(
                parse(&[&bytes[..], b"*1\r\n$4\r\nPING\r\n"].concat()),
                Ok(found),
                "what follows is not touched"
            );
            for cut in 0..len {
                let need = match parse(&bytes[..cut]) {
                    Ok(ProxyHeader::Incomplete { need }) => need,
                    other => panic!("{cut} of {len}: {other:?}"),
                };
                assert!(need > cut && need <= len, "{cut} of {len}: {need}");
            }
        }
    }

    #[test]
    fn what_is_refused() {
        use ProxyHeaderError as E;
        for (bytes, error) in [
            (b"*1\r\n$4\r\nPING\r\n".to_vec(), E::Missing),
            (b"PING\r\n".to_vec(), E::Missing),
            (b"\r\nPING".to_vec(), E::Missing),
            (b"\x16\x03\x01".to_vec(), E::Missing),
            (b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n".to_vec(), E::Version1),
            (b"PROXY ".to_vec(), E::Version1),
            (header(0x31, 0x11, &v4(b"")), E::Version(3)),
            (header(0x22, 0x11, &v4(b"")), E::Command(2)),
            (header(0x21, 0x12, &v4(b"")), E::Kind(0x12)),
            (header(0x21, 0x41, &v4(b"")), E::Kind(0x41)),
            (header(0x21, 0x11, &[1, 2, 3]), E::TooShort(3)),
            (header(0x21, 0x11, &v4(b"")[..11]), E::TooShort(11)),
            (header(0x21, 0x21, &[0; 35]), E::TooShort(35)),
            (header(0x21, 0x31, &[0; 215]), E::TooShort(215)),
            (header(0x21, 0x11, &[0; HEADER_MAX]), E::TooLong(HEADER_MAX + 16)),
        ] {
            assert_eq!(parse(&bytes), Err(error), "{bytes:?}");
        }
        // Known before the body is there.
        assert_eq!(parse(&header(0x21, 0x11, &[0; HEADER_MAX])[..16]), Err(E::TooLong(HEADER_MAX + 16)));
        assert_eq!(parse(b"PRO"), Ok(ProxyHeader::Incomplete { need: 6 }));
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(rest in proptest::collection::vec(any::<u8>(), 0..400), signed: bool) {
            let bytes = if signed { [&SIGNATURE[..], &rest].concat() } else { rest };
            match parse(&bytes) {
                Ok(ProxyHeader::Incomplete { need }) => prop_assert!(need > bytes.len() && need <= HEADER_MAX),
                Ok(ProxyHeader::Complete { len, .. }) => prop_assert!(len <= bytes.len()),
                Err(e) => prop_assert!(!e.to_string().is_empty()),
            }
        }
    }
}
