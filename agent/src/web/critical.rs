//! Critical extensions of certificates that rustls' verifier knows nothing of, and so refuses, where Go and OpenSSL don't.

use x509_parser::certificate::X509Certificate;

/// Extensions that webpki reads (rustls/webpki, src/cert.rs and src/verify_cert.rs).
const KNOWN: [&str; 6] = [
    "2.5.29.15",
    "2.5.29.17",
    "2.5.29.19",
    "2.5.29.30",
    "2.5.29.31",
    "2.5.29.37",
];
/// Names of others (RFC 5280, 4.2.1).
const NAMES: [(&str, &str); 5] = [
    ("2.5.29.32", "certificatePolicies"),
    ("2.5.29.33", "policyMappings"),
    ("2.5.29.36", "policyConstraints"),
    ("2.5.29.46", "freshestCRL"),
    ("2.5.29.54", "inhibitAnyPolicy"),
];

/// The first one of a certificate, by name and number.
pub(crate) fn unknown_critical(certificate: &X509Certificate<'_>) -> Option<String> {
    let mut critical = certificate.extensions().iter().filter(|extension| extension.critical);
    let oid = critical
        .by_ref()
        .map(|extension| extension.oid.to_id_string())
        .find(|oid| !KNOWN.contains(&oid.as_str()))?;
    let name = NAMES.iter().find(|(number, _)| *number == oid).map(|(_, name)| *name);
    Some(match name {
        Some(name) => format!("{name} ({oid})"),
        None => oid,
    })
}
