//! Certificate authorities: of meshes, of API servers, of web servers.

use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, CertifiedIssuer, CustomExtension,
    DistinguishedName, DnType, IsCa, KeyPair, KeyUsagePurpose, PublicKeyData, SanType,
};

/// Life of a root, before and after now.
const LONG: Duration = Duration::from_secs(10 * 365 * 86_400);

/// A certificate with what follows it in the chain, and its key, PEM.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// Leaf first.
    pub certificate: String,
    /// PKCS#8.
    pub key: String,
}

/// A CA that signs. As a root it is as old as one in production.
#[derive(Debug)]
pub struct Ca(CertifiedIssuer<'static, KeyPair>);

impl Ca {
    /// A root of this organization.
    pub fn new(name: &str) -> Self {
        let mut params = authority();
        params.distinguished_name.push(DnType::OrganizationName, name);
        Self(CertifiedIssuer::self_signed(params, new_key()).unwrap())
    }

    /// A CA below this one, whose certificate has the extension of this number, critical: an empty sequence.
    pub fn issuing(&self, name: &str, critical: &[u64]) -> Self {
        let mut params = authority();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        let mut extension = CustomExtension::from_oid_content(critical, vec![0x30, 0]);
        extension.set_criticality(true);
        params.custom_extensions.push(extension);
        Self(CertifiedIssuer::signed_by(params, new_key(), &self.0).unwrap())
    }

    /// The CA's own certificate.
    pub fn root_pem(&self) -> String {
        self.0.pem()
    }

    /// The certificate of these parameters for this public key.
    pub fn sign(&self, params: &CertificateParams, key: &impl PublicKeyData) -> String {
        params.signed_by(key, &self.0).unwrap().pem()
    }

    /// The certificate of these parameters and a new key.
    pub fn issue(&self, params: &CertificateParams) -> Credentials {
        let key = new_key();
        Credentials {
            certificate: self.sign(params, &key),
            key: key.serialize_pem(),
        }
    }

    /// Credentials of a server of these names or addresses, valid from `start` to `end`.
    pub fn serving(&self, names: &[&str], start: SystemTime, end: SystemTime) -> Credentials {
        let mut params = of_names(names);
        (params.not_before, params.not_after) = (start.into(), end.into());
        self.issue(&params)
    }

    /// A leaf for `id` and this public key.
    pub fn leaf(&self, id: &str, key: &impl PublicKeyData, start: SystemTime, end: SystemTime) -> String {
        let mut params = of_workload(id);
        params.distinguished_name = DistinguishedName::new();
        (params.not_before, params.not_after) = (start.into(), end.into());
        self.sign(&params, key)
    }
}

/// The parameters of a server's certificate, for names or addresses.
pub fn of_names(names: &[&str]) -> CertificateParams {
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    CertificateParams::new(names).unwrap()
}

/// The parameters of a workload's certificate.
pub fn of_workload(spiffe_id: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::URI(spiffe_id.try_into().unwrap())];
    params
}

fn authority() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    let now = SystemTime::now();
    (params.not_before, params.not_after) = ((now - LONG).into(), (now + LONG).into());
    params
}

fn new_key() -> KeyPair {
    KeyPair::generate().unwrap()
}

/// The question of a CSR, once its signature is verified.
pub fn parse_request(pem: &str) -> Result<CertificateSigningRequestParams> {
    CertificateSigningRequestParams::from_pem(pem).context("the CSR is not one")
}
