//! The meaning of a failed connection, and what to do about it.

use std::error::Error;
use std::fmt;
use std::io;
use std::time::SystemTime;

use rustls::{AlertDescription, CertificateError, Error as TlsError, InvalidMessage};

use crate::web::{causes, untimely};

/// webpki's name for a certificate with a critical extension that it doesn't know (rustls/webpki, src/error.rs).
const CRITICAL: &str = "UnsupportedCriticalExtension";

/// A failed connection. Its text has all of its causes, each once: every layer below quotes the one under it.
#[derive(Debug)]
pub(super) struct ConnectError(pub(super) tonic::transport::Error);

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The outermost one is of tonic's making and says nothing.
        let cause = self.0.source().unwrap_or(&self.0);
        f.write_str(&with_causes(cause.to_string(), cause.source()))
    }
}

impl Error for ConnectError {}

/// A name of istiod's without an address.
#[derive(Debug, thiserror::Error)]
#[error("failed to resolve {host}: {cause}")]
pub struct Unresolved {
    /// The name.
    pub host: String,
    /// Why it has none.
    pub cause: String,
}

/// `text` and every cause that it does not quote already.
pub(super) fn with_causes(mut text: String, cause: Option<&(dyn Error + 'static)>) -> String {
    for error in cause.into_iter().flat_map(causes) {
        let part = error.to_string();
        if !text.contains(&part) {
            text = format!("{text}: {part}");
        }
    }
    text
}

/// The remedy of a failed connection to `host`, where its cause has one.
pub(super) fn remedy(error: &anyhow::Error, host: &str, now: SystemTime) -> Option<String> {
    remedy_of(&error.downcast_ref::<ConnectError>()?.0, host, now)
}

/// True when a certificate of the chain has a critical extension that rustls doesn't know.
pub(super) fn is_of_unknown_critical(error: &anyhow::Error) -> bool {
    let tls = |ConnectError(error): &ConnectError| causes(error).find_map(|cause| cause.downcast_ref().cloned());
    match error.downcast_ref().and_then(tls) {
        Some(TlsError::InvalidCertificate(CertificateError::Other(other))) => other.to_string().contains(CRITICAL),
        _ => false,
    }
}

/// The remedy for such a chain, of which `certificate` names the certificate and the extension, where they are known.
pub(super) fn reissue(certificate: Option<&str>) -> String {
    let certificate = certificate.unwrap_or("a certificate of its chain has a critical extension");
    format!(
        "{certificate}, which this agent can't judge by: have its CA issue it again with that extension not critical, or \
         without it, from the same key"
    )
}

/// True when a connection failed because the other side's certificate is not valid yet, or no more, by this VM's clock.
pub fn is_untimely(error: &anyhow::Error) -> bool {
    error.downcast_ref().is_some_and(|ConnectError(error)| {
        let tls = causes(error).find_map(|cause| cause.downcast_ref());
        matches!(tls, Some(TlsError::InvalidCertificate(error)) if untimely(error, SystemTime::now()).is_some())
    })
}

/// True when a connection failed because istiod refused the certificate that this VM showed.
pub fn certificate_refused(error: &anyhow::Error) -> bool {
    error.downcast_ref().is_some_and(|ConnectError(error)| {
        let tls = causes(error).find_map(|cause| cause.downcast_ref());
        tls.is_some_and(is_refusal)
    })
}

fn remedy_of(error: &(dyn Error + 'static), host: &str, now: SystemTime) -> Option<String> {
    if let Some(error) = causes(error).find_map(|cause| cause.downcast_ref()) {
        return tls_remedy(error, host, now);
    }
    let io = causes(error).filter_map(|cause| cause.downcast_ref::<io::Error>());
    let remedy = match io.last()?.kind() {
        io::ErrorKind::ConnectionRefused => {
            "nothing listens there: is istiod, or the gateway before it, up, and is this its port?"
        }
        io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable | io::ErrorKind::TimedOut => {
            "it can't be reached from this VM: check routes and firewalls"
        }
        io::ErrorKind::ConnectionReset | io::ErrorKind::UnexpectedEof => {
            "it closed the connection: is this istiod's TLS port (15012)?"
        }
        _ => return None,
    };
    Some(remedy.to_owned())
}

fn tls_remedy(error: &TlsError, host: &str, now: SystemTime) -> Option<String> {
    use CertificateError as C;
    let remedy = match error {
        TlsError::InvalidCertificate(error) if untimely(error, now).is_some() => untimely(error, now)?,
        TlsError::InvalidCertificate(C::NotValidForName | C::NotValidForNameContext { .. }) => {
            format!("its certificate is not for {host:?}: use a name it is for, or add this one to ISTIOD_CUSTOM_HOST")
        }
        TlsError::InvalidCertificate(C::UnknownIssuer | C::BadSignature) => {
            "the root certificates of the bundle don't vouch for it: fetch root-cert.pem of this mesh again".to_owned()
        }
        TlsError::InvalidMessage(InvalidMessage::InvalidContentType) => {
            "it doesn't speak TLS there: use istiod's TLS port (15012), not 15010".to_owned()
        }
        error if is_refusal(error) => "it refused this VM's certificate".to_owned(),
        _ => return None,
    };
    Some(remedy)
}

fn is_refusal(error: &TlsError) -> bool {
    use AlertDescription as A;
    matches!(
        error,
        TlsError::AlertReceived(
            A::AccessDenied
                | A::BadCertificate
                | A::CertificateExpired
                | A::CertificateRevoked
                | A::CertificateUnknown
                | A::DecryptError
                | A::UnknownCA
                | A::UnsupportedCertificate
        )
    )
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    fn tls(error: TlsError) -> String {
        let io = io::Error::new(io::ErrorKind::InvalidData, error);
        remedy_of(&io, "istiod.example", UNIX_EPOCH).unwrap_or_default()
    }

    #[test]
    fn cause_has_its_remedy() {
        let certificate = TlsError::InvalidCertificate;
        let cases = [
            (
                certificate(CertificateError::NotValidYet),
                "1970-01-01T00:00:00Z: set the clock",
            ),
            (certificate(CertificateError::Expired), "has expired"),
            (
                certificate(CertificateError::NotValidForName),
                "not for \"istiod.example\"",
            ),
            (certificate(CertificateError::UnknownIssuer), "fetch root-cert.pem"),
            (TlsError::InvalidMessage(InvalidMessage::InvalidContentType), "15012"),
            (
                TlsError::AlertReceived(AlertDescription::UnknownCA),
                "refused this VM's certificate",
            ),
        ];
        for (error, expected) in cases {
            let text = tls(error.clone());
            assert!(text.contains(expected), "{error}: {text}");
        }
        assert_eq!(tls(TlsError::HandshakeNotComplete), "");
        let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
        assert!(remedy_of(&refused, "x", UNIX_EPOCH).is_some_and(|text| text.starts_with("nothing listens there")));
    }

    #[test]
    fn cause_is_said_once() {
        let io = io::Error::other("the end");
        let wrapped = anyhow::Error::new(io).context("outer: the end").into_boxed_dyn_error();
        let wrapped = io::Error::other(wrapped);
        assert_eq!(with_causes("top".to_owned(), Some(&wrapped)), "top: outer: the end");
    }
}
