//! Service account tokens: made for bundles, checked as the API server's TokenReview does.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::{KeyPair, PKCS_RSA_SHA256, RsaKeySize, SigningKey};
use serde::{Deserialize, Serialize};

use super::caller::Caller;
use crate::clock::Clock;

/// Audience that istiod asks of a token (TOKEN_AUDIENCES).
const AUDIENCE: &str = "istio-ca";

/// Claims of a token.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct TokenClaims {
    /// For whom it is.
    pub aud: Vec<String>,
    /// `system:serviceaccount:NAMESPACE:NAME`.
    pub sub: String,
    /// Seconds since 1970.
    pub exp: u64,
    /// Seconds since 1970.
    pub iat: u64,
    /// Issuer.
    pub iss: String,
}

impl TokenClaims {
    /// Claims of a token as `kubectl create token` gives it for an hour.
    pub fn of_service_account(namespace: &str, name: &str) -> Self {
        let now = Clock::default().seconds();
        Self {
            aud: vec![AUDIENCE.to_owned()],
            sub: format!("system:serviceaccount:{namespace}:{name}"),
            exp: now + Duration::from_secs(3600).as_secs(),
            iat: now,
            iss: "https://kubernetes.default.svc".to_owned(),
        }
    }
}

/// Signs tokens (RS256), and checks them by signing again: the signature is deterministic.
#[derive(Debug)]
pub(crate) struct TokenIssuer {
    key: KeyPair,
}

impl TokenIssuer {
    pub(super) fn new() -> Result<Self> {
        let key = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048)?;
        Ok(Self { key })
    }

    /// Key that an API server must sign with for its tokens to be believed.
    pub(crate) fn key(&self) -> &KeyPair {
        &self.key
    }

    pub(crate) fn issue(&self, claims: &TokenClaims) -> Result<String> {
        let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"RS256","kid":"e2e"}"#);
        let payload = format!("{header}.{}", URL_SAFE_NO_PAD.encode(serde_json::to_vec(claims)?));
        let signature = URL_SAFE_NO_PAD.encode(self.key.sign(payload.as_bytes())?);
        Ok(format!("{payload}.{signature}"))
    }

    pub(super) fn review(&self, token: &str, clock: &Clock) -> Result<Caller> {
        let (payload, signature) = token.rsplit_once('.').context("not a JWT")?;
        let expected = URL_SAFE_NO_PAD.encode(self.key.sign(payload.as_bytes())?);
        ensure!(signature == expected, "the signature is not the API server's");
        let (_, claims) = payload.split_once('.').context("not a JWT")?;
        let claims: TokenClaims = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims)?)?;
        ensure!(
            claims.aud.iter().any(|aud| aud == AUDIENCE),
            "audience {:?} is not {AUDIENCE}",
            claims.aud
        );
        ensure!(claims.exp > clock.seconds(), "expired");
        let mut parts = claims.sub.split(':').skip(2);
        ensure!(
            claims.sub.starts_with("system:serviceaccount:"),
            "{} is not a service account",
            claims.sub
        );
        Ok(Caller {
            namespace: parts.next().context("no namespace")?.to_owned(),
            service_account: parts.next().context("no service account")?.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_is_good_for_its_audience_and_time_only() {
        let (issuer, clock) = (TokenIssuer::new().unwrap(), Clock::default());
        let good = TokenClaims::of_service_account("onlineboutique", "productcatalog");
        let caller = issuer.review(&issuer.issue(&good).unwrap(), &clock).unwrap();
        assert_eq!(
            caller.spiffe_id(),
            "spiffe://cluster.local/ns/onlineboutique/sa/productcatalog"
        );

        let bad = [
            TokenClaims {
                aud: vec!["vault".to_owned()],
                ..good.clone()
            },
            TokenClaims { exp: 1, ..good.clone() },
            TokenClaims {
                sub: "system:node:vm".to_owned(),
                ..good.clone()
            },
        ];
        for claims in bad {
            assert!(
                issuer.review(&issuer.issue(&claims).unwrap(), &clock).is_err(),
                "{claims:?}"
            );
        }
        let foreign = TokenIssuer::new().unwrap().issue(&good).unwrap();
        assert!(issuer.review(&foreign, &clock).is_err());
        clock.set(1);
        assert!(issuer.review(&issuer.issue(&good).unwrap(), &clock).is_err());
    }
}
