//! The meaning of a failed exchange, and what to do about it.

use std::error::Error;
use std::io;
use std::iter;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::{CertificateError, Error as TlsError, InvalidMessage};
use rustls_pki_types::UnixTime;

use super::Trust;
use crate::facts;

/// The HTTP client's words for a name that has no address; the resolver's own error has no kind.
const DNS_ERROR: &str = "dns error";

/// The error with its remedy before it, where its cause has one. The URL is the caller's to name.
pub(super) fn explained(error: reqwest::Error, trust: &Trust, now: SystemTime) -> anyhow::Error {
    let remedy = remedy(&error, trust, now);
    let error = anyhow::Error::from(error.without_url());
    match remedy {
        Some(remedy) => error.context(remedy),
        None => error,
    }
}

fn remedy(error: &(dyn Error + 'static), trust: &Trust, now: SystemTime) -> Option<String> {
    if let Some(error) = causes(error).find_map(|cause| cause.downcast_ref()) {
        return tls_remedy(error, trust, now);
    }
    if causes(error).any(|cause| cause.to_string() == DNS_ERROR) {
        return Some("this VM's resolver doesn't know its name: check the name, and /etc/resolv.conf".to_owned());
    }
    // The last one: others pass its kind on as `Other`.
    let io = causes(error).filter_map(|cause| cause.downcast_ref::<io::Error>());
    let remedy = match io.last()?.kind() {
        io::ErrorKind::ConnectionRefused => "nothing listens there: is it up, and is this its port?",
        io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable | io::ErrorKind::TimedOut => {
            "it can't be reached from this VM: check routes and firewalls"
        }
        io::ErrorKind::ConnectionReset | io::ErrorKind::UnexpectedEof => "it closed the connection",
        _ => return None,
    };
    Some(remedy.to_owned())
}

pub(super) fn tls_remedy(error: &TlsError, trust: &Trust, now: SystemTime) -> Option<String> {
    use CertificateError as C;
    let remedy = match error {
        TlsError::InvalidCertificate(error) if untimely(error, now).is_some() => untimely(error, now)?,
        TlsError::InvalidCertificate(C::NotValidForName | C::NotValidForNameContext { .. }) => {
            "its certificate is not for this name: use a name that it is for".to_owned()
        }
        TlsError::InvalidCertificate(C::UnknownIssuer | C::BadSignature) => match trust {
            Trust::Roots { place, .. } => {
                format!("the roots of {place} don't vouch for its certificate: put those of its CA there")
            }
            Trust::System | Trust::Plain => {
                "no root certificate of this VM vouches for its certificate: name a file with its CA's in ca_file \
                 (of `up`: --ca-file), or add that to the VM's with update-ca-certificates"
                    .to_owned()
            }
        },
        TlsError::InvalidCertificate(_) => {
            "its certificate is no server's that TLS could trust: have one issued by its CA, \
                                            not the CA's own, of X.509 version 3 and with its name (subjectAltName)"
                .to_owned()
        }
        TlsError::InvalidMessage(InvalidMessage::InvalidContentType) => {
            "it doesn't speak TLS there: is this its port?".to_owned()
        }
        _ => return None,
    };
    Some(remedy)
}

/// A word on a certificate that isn't valid now, by this VM's clock; `None`: that is not its flaw.
pub(crate) fn untimely(error: &CertificateError, now: SystemTime) -> Option<String> {
    use CertificateError as C;
    let date = |at: UnixTime| {
        // A certificate's year has four digits, as RFC 3339's.
        let at = UNIX_EPOCH.checked_add(Duration::from_secs(at.as_secs()));
        at.map_or_else(String::new, |at| format!(" ({})", facts::date(at)))
    };
    let (flaw, remedy) = match error {
        C::NotValidYet => ("is not valid yet".to_owned(), "set the clock"),
        C::NotValidYetContext { not_before, .. } => (format!("is not valid yet{}", date(*not_before)), "set the clock"),
        C::Expired => ("has expired".to_owned(), "set the clock, or renew the certificate"),
        C::ExpiredContext { not_after, .. } => (
            format!("has expired{}", date(*not_after)),
            "set the clock, or renew the certificate",
        ),
        _ => return None,
    };
    let clock = facts::date(now);
    Some(format!(
        "its certificate {flaw}, and this VM's clock says {clock}: {remedy}"
    ))
}

/// `error` and all below it. An `io::Error` passes over its own content when it is asked for its source.
pub(crate) fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    iter::successors(Some(error), |error| {
        let error: &'a (dyn Error + 'static) = *error;
        match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(content) => Some(content),
            None => error.source(),
        }
    })
}
