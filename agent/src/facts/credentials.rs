//! Published by `identity`.

use std::fmt;
use std::str::FromStr;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::Secret;

/// Reason why the CA gives no certificate.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct IdentityProblem {
    /// The reason, for people.
    pub text: String,
    /// True when no CA was reached; else one has refused, or gave what is of no use.
    pub is_unreachable: bool,
}

/// `spiffe://<trust domain>/ns/<namespace>/sa/<service account>`.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct SpiffeId {
    /// Mesh trust domain, `cluster.local` by default.
    pub trust_domain: String,
    /// Kubernetes namespace.
    pub namespace: String,
    /// Kubernetes service account.
    pub service_account: String,
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            trust_domain,
            namespace,
            service_account,
        } = self;
        write!(f, "spiffe://{trust_domain}/ns/{namespace}/sa/{service_account}")
    }
}

impl FromStr for SpiffeId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts: Option<Vec<&str>> = text.strip_prefix("spiffe://").map(|rest| rest.split('/').collect());
        match parts.as_deref() {
            Some([trust_domain, "ns", namespace, "sa", service_account])
                if ![trust_domain, namespace, service_account]
                    .iter()
                    .any(|part| part.is_empty()) =>
            {
                Ok(Self {
                    trust_domain: (*trust_domain).to_owned(),
                    namespace: (*namespace).to_owned(),
                    service_account: (*service_account).to_owned(),
                })
            }
            _ => Err(format!(
                "{text:?} is not spiffe://<trust domain>/ns/<namespace>/sa/<service account>"
            )),
        }
    }
}

/// A PEM private key.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PrivateKey(Secret);

impl PrivateKey {
    /// Wraps a PEM document.
    pub fn new(pem: impl Into<String>) -> Self {
        Self(Secret::new(pem))
    }

    /// The PEM document, for the TLS stack, the store and SDS only.
    pub fn expose_pem(&self) -> &str {
        self.0.expose()
    }
}

impl From<Secret> for PrivateKey {
    fn from(pem: Secret) -> Self {
        Self(pem)
    }
}

impl From<PrivateKey> for Secret {
    fn from(key: PrivateKey) -> Self {
        key.0
    }
}

/// Identity that the workload proves: one key, its chain, and the roots its peers are checked with.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Credentials {
    /// Identity in the certificate.
    pub spiffe_id: SpiffeId,
    /// PEM, leaf first, intermediates after it, root last: all that the CA answered.
    pub chain_pem: String,
    /// The key of the leaf.
    pub key: PrivateKey,
    /// PEM bundle that peers' certificates are verified with.
    pub roots_pem: String,
    /// Start of the leaf's validity.
    pub not_before: SystemTime,
    /// End of the leaf's validity.
    pub not_after: SystemTime,
    /// Serial number of the leaf, lower-case hex.
    pub serial: String,
    /// Authentication that the CA gave it for; unknown of a certificate that an earlier version stored.
    pub issued_with: Option<IssuedWith>,
}

/// Authentication that the CA gave a certificate for: by the one before, a fresh token, or a token from a file.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct IssuedWith {
    /// The means: `its certificate`, `a token from …`.
    pub by: String,
    /// Time at which the CA gave the certificate.
    #[serde(with = "humantime_serde")]
    pub at: SystemTime,
}

impl Credentials {
    /// True when the leaf is valid at `now`.
    pub fn valid_at(&self, now: SystemTime) -> bool {
        self.not_before <= now && now < self.not_after
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn spiffe_id_is_of_istios_shape_only() {
        let id: SpiffeId = "spiffe://cluster.local/ns/shop/sa/catalog".parse().unwrap();
        assert_eq!(
            (id.namespace.as_str(), id.service_account.as_str()),
            ("shop", "catalog")
        );
        for wrong in [
            "",
            "spiffe://a/ns//sa/b",
            "spiffe://a/ns/b/sa/c/d",
            "https://a/ns/b/sa/c",
            "spiffe://a/sa/b/ns/c",
        ] {
            assert!(wrong.parse::<SpiffeId>().is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn spiffe_id_is_written_as_it_was_read(text in "spiffe://[a-z./]{0,9}/ns/[a-z/]{0,5}/sa/[a-z/]{0,5}") {
            if let Ok(id) = text.parse::<SpiffeId>() {
                prop_assert_eq!(id.to_string(), text);
            }
        }
    }
}
