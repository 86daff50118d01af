//! `[identity]`.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Checks, duration};

/// The shortest life of a certificate that a renewal, tried again for a while, fits into.
pub(crate) const SHORTEST_TTL: Duration = Duration::from_secs(10 * 60);

/// `[identity]`.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct IdentityConfig {
    /// Kind of the private key.
    pub key: KeyKind,
    /// Life asked of the CA, ten minutes at least; istiod refuses more than its MAX_WORKLOAD_CERT_TTL, 90 days.
    #[serde(with = "duration")]
    pub ttl: Duration,
}

impl Default for IdentityConfig {
    fn default() -> Self {
        Self {
            key: KeyKind::default(),
            ttl: Duration::from_secs(24 * 60 * 60),
        }
    }
}

impl IdentityConfig {
    pub(super) fn checks(&self) -> Checks {
        vec![match self.ttl < SHORTEST_TTL {
            true => Err(format!(
                "identity.ttl = \"{}\": must be \"10m\" or longer, such as \"24h\": the certificate is renewed at half \
                 of it",
                humantime::format_duration(self.ttl)
            )),
            false => Ok(()),
        }]
    }
}

/// Kind of the private key.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub enum KeyKind {
    /// ECDSA on P-256: made in microseconds.
    #[default]
    #[serde(rename = "ecdsa-p256")]
    EcdsaP256,
    /// RSA of 2048 bits, for CAs that sign nothing else.
    #[serde(rename = "rsa-2048")]
    Rsa2048,
}
