//! A new key, and the request to certify it.

use anyhow::{Context, Result};
use rcgen::{
    CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256, RsaKeySize, SanType,
};
use zeroize::Zeroizing;

use crate::config::KeyKind;
use crate::facts::{PrivateKey, SpiffeId};

/// A certificate signing request and the key that it is for.
#[derive(Debug)]
pub(super) struct Request {
    /// PEM, PKCS #8; never leaves the VM.
    pub(super) key: PrivateKey,
    /// PEM.
    pub(super) csr: String,
}

/// Makes a key and its request: an empty subject, and `id` as the one (hence critical) subject alternative name.
/// Takes up to a second for RSA.
pub(super) fn request(kind: KeyKind, id: &SpiffeId) -> Result<Request> {
    let key = Zeroizing::new(
        match kind {
            KeyKind::EcdsaP256 => KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256),
            KeyKind::Rsa2048 => KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048),
        }
        .context("failed to make a private key")?,
    );
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    let name = id
        .to_string()
        .try_into()
        .with_context(|| format!("{id} can't stand in a certificate: check the trust domain"))?;
    params.subject_alt_names = vec![SanType::URI(name)];
    let csr = params
        .serialize_request(&*key)
        .and_then(|csr| csr.pem())
        .context("failed to make a certificate signing request")?;
    Ok(Request {
        key: PrivateKey::new(key.serialize_pem()),
        csr,
    })
}

#[cfg(test)]
mod tests {
    use x509_parser::certification_request::X509CertificationRequest;
    use x509_parser::extensions::{GeneralName, ParsedExtension};
    use x509_parser::pem::parse_x509_pem;
    use x509_parser::prelude::FromDer;

    use super::*;
    use crate::control_plane::fixtures::id;

    #[test]
    fn request_is_for_the_identity_and_nothing_else() {
        for (kind, algorithm) in [
            (KeyKind::EcdsaP256, "1.2.840.10045.2.1"),
            (KeyKind::Rsa2048, "1.2.840.113549.1.1.1"),
        ] {
            let request = request(kind, &id()).unwrap();
            let (_, pem) = parse_x509_pem(request.csr.as_bytes()).unwrap();
            let (_, csr) = X509CertificationRequest::from_der(&pem.contents).unwrap();
            let info = &csr.certification_request_info;
            assert_eq!(info.subject.as_raw(), [0x30, 0], "an empty sequence");
            assert_eq!(info.subject_pki.algorithm.algorithm.to_id_string(), algorithm);
            let names: Vec<_> = csr.requested_extensions().unwrap().collect();
            let [ParsedExtension::SubjectAlternativeName(names)] = names.as_slice() else {
                panic!("{names:?}");
            };
            assert_eq!(
                names.general_names,
                [GeneralName::URI("spiffe://cluster.local/ns/shop/sa/catalog")]
            );
            let key = KeyPair::from_pem(request.key.expose_pem()).unwrap();
            assert_eq!(*info.subject_pki.subject_public_key.data, *key.public_key_raw());
        }
    }

    #[test]
    fn request_has_a_new_key_each_time() {
        let make = || request(KeyKind::EcdsaP256, &id()).unwrap().key;
        assert_ne!(make(), make());
    }
}
