//! Key, chain and roots, taken together only when they belong together. Pure.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, anyhow, bail, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::KeyPair;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use zeroize::Zeroizing;

use crate::facts::{Credentials, PrivateKey, SpiffeId};

/// Longest PEM document that is read, in bytes; a chain has some kB, a bundle of roots some ten.
pub(super) const MAX_PEM: usize = 512 << 10;
/// Most certificates in one document.
const MAX_CERTIFICATES: usize = 256;
/// Last second of the year 9999: X.509's "no end" (RFC 5280, 4.1.2.5), and the last that RFC 3339 can show.
const MAX_SECONDS: i64 = 253_402_300_799;

/// Credentials of a key, the chain that certifies it (leaf first, at least one issuer), and the roots that
/// peers are judged by; whether the leaf is valid now is the caller's question.
///
/// # Errors
/// When the leaf isn't the key's or names no identity of the mesh.
pub(super) fn credentials(key: PrivateKey, chain_pem: &str, roots_pem: &str) -> Result<Credentials> {
    let chain = parse(chain_pem).context("the certificate chain is unusable")?;
    ensure!(chain.len() > 1, "the certificate chain has no issuer's certificate");
    check_roots(roots_pem)?;
    let leaf = leaf_of(&chain, key.expose_pem())?;
    Ok(Credentials {
        spiffe_id: identity(&leaf)?,
        not_before: moment(leaf.validity().not_before.timestamp())?,
        not_after: moment(leaf.validity().not_after.timestamp())?,
        serial: leaf.serial.to_str_radix(16),
        chain_pem: chain_pem.to_owned(),
        key,
        roots_pem: roots_pem.to_owned(),
        issued_with: None,
    })
}

/// Fails unless `key_pem` is the key of the chain's first certificate.
pub(super) fn check_pair(chain_pem: &str, key_pem: &str) -> Result<()> {
    let chain = parse(chain_pem).context("the certificate chain is unusable")?;
    leaf_of(&chain, key_pem).map(drop)
}

/// Fails unless these are certificates.
pub(super) fn check_roots(pem: &str) -> Result<()> {
    parse(pem).context("the root certificates are unusable").map(drop)
}

/// The first certificate, which is of this key.
fn leaf_of<'a>(chain: &'a [CertificateDer<'static>], key_pem: &str) -> Result<X509Certificate<'a>> {
    let der = chain.first().context("it holds no certificate")?;
    let (rest, leaf) = x509_parser::parse_x509_certificate(der).context("the certificate is no X.509 certificate")?;
    ensure!(rest.is_empty(), "the certificate has bytes after its end");
    // What the parsers say of a key isn't repeated.
    let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes())
        .ok()
        .map(Zeroizing::new)
        .and_then(|der| KeyPair::try_from(&*der).ok())
        .map(Zeroizing::new)
        .context("the private key is unusable")?;
    ensure!(
        *leaf.public_key().subject_public_key.data == *key.public_key_raw(),
        "the certificate is not of this private key"
    );
    Ok(leaf)
}

/// The one URI among the leaf's names.
fn identity(leaf: &X509Certificate<'_>) -> Result<SpiffeId> {
    let names = leaf
        .subject_alternative_name()
        .context("the certificate's names are unreadable")?
        .map(|extension| extension.value.general_names.as_slice())
        .unwrap_or_default();
    let mut uris = names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    });
    let (Some(uri), None) = (uris.next(), uris.next()) else {
        bail!("the certificate names no identity, or several");
    };
    uri.parse().map_err(anyhow::Error::msg)
}

fn moment(seconds: i64) -> Result<SystemTime> {
    let in_range = u64::try_from(seconds).ok().filter(|_| seconds <= MAX_SECONDS);
    let seconds = in_range.context("the certificate's dates are before 1970 or after 9999")?;
    Ok(UNIX_EPOCH + Duration::from_secs(seconds))
}

/// The certificates of a PEM document, at least one.
fn parse(pem: &str) -> Result<Vec<CertificateDer<'static>>> {
    ensure!(
        pem.len() <= MAX_PEM,
        "{} bytes are too many, at most {MAX_PEM} are read",
        pem.len()
    );
    let mut found = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        found.push(certificate.map_err(|error| anyhow!("it is no PEM: {error}"))?);
        ensure!(
            found.len() <= MAX_CERTIFICATES,
            "it has more than {MAX_CERTIFICATES} certificates"
        );
    }
    ensure!(!found.is_empty(), "it holds no certificate");
    Ok(found)
}

/// The certificates of both documents, each once, the first one's first.
pub(super) fn merge(first: &str, second: &str) -> Result<String> {
    let mut all = parse(first)?;
    for certificate in parse(second)? {
        if !all.contains(&certificate) {
            all.push(certificate);
        }
    }
    Ok(all.iter().map(|certificate| encode(certificate)).collect())
}

/// True when every certificate of `some` is in `all`.
pub(super) fn contains(all: &str, some: &str) -> bool {
    let (Ok(all), Ok(some)) = (parse(all), parse(some)) else {
        return false;
    };
    some.iter().all(|certificate| all.contains(certificate))
}

fn encode(der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    for (index, character) in text.chars().enumerate() {
        if index > 0 && index % 64 == 0 {
            pem.push('\n');
        }
        pem.push(character);
    }
    pem + "\n-----END CERTIFICATE-----\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control_plane::fixtures::{Ca, id, issued_by};

    const HOUR: Duration = Duration::from_secs(3600);

    fn whole_second() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_800_000_000)
    }

    #[test]
    fn credentials_that_belong_together_are_taken() {
        let (ca, start) = (Ca::new("mesh"), whole_second());
        let given = issued_by(&ca, start, start + HOUR);
        let read = credentials(given.key.clone(), &given.chain_pem, &given.roots_pem).unwrap();
        let serial = read.serial.clone();
        assert_eq!(read, Credentials { serial, ..given });
    }

    #[test]
    fn credentials_that_do_not_are_refused_with_the_reason() {
        let (ca, start) = (Ca::new("mesh"), whole_second());
        let (one, two) = (issued_by(&ca, start, start + HOUR), issued_by(&ca, start, start + HOUR));
        let key = || one.key.clone();
        let pair = KeyPair::from_pem(one.key.expose_pem()).unwrap();
        let stranger = ca.leaf("https://example.com", &pair, start, start + HOUR) + &ca.root_pem();
        let alone = ca.leaf(&id().to_string(), &pair, start, start + HOUR);
        let early = SystemTime::UNIX_EPOCH - HOUR;
        let ancient = ca.leaf(&id().to_string(), &pair, early, start) + &ca.root_pem();
        let root = ca.root_pem();
        let cases = [
            (key(), two.chain_pem.as_str(), root.as_str(), "not of this private key"),
            (PrivateKey::new("x"), &one.chain_pem, &root, "private key is unusable"),
            (key(), &alone, &root, "no issuer's certificate"),
            (key(), &stranger, &root, "\"https://example.com\" is not spiffe://"),
            (key(), &ancient, &root, "before 1970"),
            (key(), "", &root, "chain is unusable: it holds no certificate"),
            (key(), &one.chain_pem, "", "root certificates are unusable"),
            (key(), &root, &root, "no issuer's certificate"),
        ];
        for (key, chain, roots, expected) in cases {
            let error = format!("{:#}", credentials(key, chain, roots).unwrap_err());
            assert!(error.contains(expected), "{error}");
        }
        let error = credentials(key(), &"x".repeat(MAX_PEM + 1), &root).unwrap_err();
        assert!(format!("{error:#}").contains("too many"), "{error:#}");
    }

    #[test]
    fn roots_are_merged_without_repeats() {
        let (a, b) = (Ca::new("a").root_pem(), Ca::new("b").root_pem());
        let both = merge(&format!("{a}{b}"), &b).unwrap();
        assert_eq!(parse(&both).unwrap(), parse(&format!("{a}{b}")).unwrap());
        assert!(contains(&both, &a) && contains(&both, &b) && !contains(&a, &b));
        assert!(merge(&a, "").is_err());
    }
}
