//! What a person can do about a TLS connection to a server that failed.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use rustls::{AlertDescription, CertificateError, Error, InvalidMessage};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::OptionNames;

/// A TLS failure in words that say what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("TLS: {0}")]
pub struct TlsFailure(pub(crate) String);

impl TlsFailure {
    /// Of a connection to the server that is recorded.
    pub fn explain(error: &Error) -> Self {
        Self::explain_to(error, OptionNames::UPSTREAM)
    }

    /// Of a connection to a server with these options.
    pub fn explain_to(error: &Error, names: OptionNames) -> Self {
        Self(match error {
            Error::InvalidCertificate(e) => certificate(e, names),
            Error::AlertReceived(
                AlertDescription::CertificateRequired
                | AlertDescription::HandshakeFailure
                | AlertDescription::NoCertificate,
            ) => format!(
                "the server refused the handshake ({error}); if it wants a client certificate, name one with \
                 --{} and --{}",
                names.cert_file, names.key_file
            ),
            Error::AlertReceived(
                AlertDescription::UnknownCA
                | AlertDescription::BadCertificate
                | AlertDescription::UnsupportedCertificate
                | AlertDescription::CertificateRevoked
                | AlertDescription::CertificateExpired
                | AlertDescription::CertificateUnknown
                | AlertDescription::DecryptError
                | AlertDescription::AccessDenied,
            ) => {
                format!("the server does not accept our certificate ({error}); check --{}", names.cert_file)
            }
            Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
                "the server does not speak TLS on this port; use its tls-port, or redis:// instead of rediss://"
                    .to_owned()
            }
            other => other.to_string(),
        })
    }

    /// The error behind an `io::Error` that may come from TLS, explained.
    fn from_io(error: io::Error) -> io::Error {
        let Some(tls) = error.get_ref().and_then(|e| e.downcast_ref::<Error>()) else { return error };
        io::Error::new(error.kind(), Self::explain(tls))
    }

    /// The handshake's error.
    pub fn in_handshake(error: io::Error) -> io::Error {
        if error.kind() == io::ErrorKind::UnexpectedEof { Self::closed_in_handshake() } else { Self::from_io(error) }
    }

    pub(crate) fn closed_in_handshake() -> io::Error {
        let why = "the server closed the connection during the handshake; is this its tls-port?";
        io::Error::new(io::ErrorKind::UnexpectedEof, Self(why.to_owned()))
    }

    /// A server that does not speak TLS waits for the end of a line.
    pub(crate) fn no_handshake(error: &io::Error) -> io::Error {
        let why = format!("no answer to the handshake ({error}); is this the server's tls-port?");
        io::Error::new(io::ErrorKind::TimedOut, Self(why))
    }

    /// Whether TLS is at the bottom of an error, however wrapped.
    pub fn is_in(error: &(dyn std::error::Error + 'static)) -> bool {
        type Boxed = std::sync::Arc<dyn std::error::Error + Send + Sync>;
        let mut next = Some(error);
        while let Some(error) = next {
            if error.is::<Self>() {
                return true;
            }
            next = if let Some(io) = error.downcast_ref::<io::Error>() {
                io.get_ref().map(|e| e as &(dyn std::error::Error + 'static))
            } else if let Some(boxed) = error.downcast_ref::<Boxed>() {
                Some(&**boxed)
            } else {
                error.source()
            };
        }
        false
    }
}

fn certificate(error: &CertificateError, names: OptionNames) -> String {
    match error {
        CertificateError::UnknownIssuer => format!(
            "the server's certificate is signed by a CA that is not trusted here; name the CA with --{}",
            names.ca_file
        ),
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            format!("the server's certificate is for another name ({error}); set --{} to a name in it", names.sni)
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            format!("the server's certificate has expired ({error}); renew it there")
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            format!("the server's certificate is not valid yet ({error}); is the clock right?")
        }
        CertificateError::Other(other) if matches!(other.0.downcast_ref(), Some(webpki::Error::CaUsedAsEndEntity)) => {
            "the server shows a CA's certificate as its own; give it one that is signed by the CA (basicConstraints \
             CA:FALSE)"
                .to_owned()
        }
        other => format!("the server's certificate cannot be used: {other}"),
    }
}

/// A TLS stream whose errors are explained: with TLS 1.3 a server refuses a client's certificate only after
/// the handshake, in the first read.
///
/// One task must drive both directions: a read also sends what an earlier write left behind, since a write
/// returns when TLS has taken the bytes, not when the socket has.
pub struct Explained<S>(pub(crate) S);

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Explained<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        // If it fails, the read tells why.
        let _ = Pin::new(&mut self.0).poll_flush(cx);
        Pin::new(&mut self.0).poll_read(cx, buf).map_err(TlsFailure::from_io)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Explained<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf).map_err(TlsFailure::from_io)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx).map_err(TlsFailure::from_io)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx).map_err(TlsFailure::from_io)
    }
}
