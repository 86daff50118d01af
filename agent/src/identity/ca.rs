//! One certificate from istiod: a new key, one call, and a strict look at the answer.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Error, Result, anyhow, ensure};
use istio_api::ca::IstioCertificateRequest;
use istio_api::ca::istio_certificate_service_client::IstioCertificateServiceClient;
use istio_api::rpc::{Struct, Value, value};
use tonic::{Code, Request, Status};

use super::certificate;
use super::csr;
use crate::config::IdentityConfig;
use crate::control_plane::token::TokenSource;
use crate::control_plane::{self, AuthMethod, ControlPlaneSelector, FAILOVER_TIMEOUT};
use crate::facts::{Credentials, IssuedWith, Membership, date};
use crate::host::blocking;
use crate::supervise::Clock;

/// Longest time that CreateCertificate may take, and connecting before it, where no other control plane is left to ask.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// The meaning of an answer without CreateCertificate, and what to do.
const NO_CA: &str = "it signs nothing, as an istiod does whose CA is switched off (ENABLE_CA_SERVER): name the mesh's CA, such \
                     as istio-csr, in CA_ADDR of cluster.env";

/// An issuer of this VM's certificates; `renewal` is tested with a scripted one.
pub(super) trait CertificateIssuer: Send + Sync {
    /// Issues a new certificate for `membership`. `current` is the one that the VM holds, valid or not.
    ///
    /// # Errors
    /// When no CA gave one; it names the CA and the remedy.
    fn issue(
        &self,
        membership: &Membership,
        current: Option<&Credentials>,
    ) -> impl Future<Output = Result<Credentials>> + Send;
}

/// istiod's CA: the current control plane's, or at the membership's `ca_address` when that is another place.
#[derive(Debug)]
pub(super) struct IstiodCa {
    pub(super) selector: ControlPlaneSelector,
    pub(super) config: IdentityConfig,
    pub(super) tokens: Option<Arc<dyn TokenSource>>,
    pub(super) clock: Clock,
}

/// A certificate, and how the VM authenticated for it.
struct SignedChain {
    /// Leaf first, root last.
    chain: Vec<String>,
    auth: AuthMethod,
}

/// The reason why a call gave no certificate.
enum Failure {
    /// The CA refused the authentication; another method may do better.
    AuthRefused(Error),
    /// The CA can't be reached; another control plane may do better.
    Unreachable(Error),
    /// Any other reason.
    Other(Error),
}

/// No CA was reached, for these reasons.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Unreachable(String);

impl CertificateIssuer for IstiodCa {
    async fn issue(&self, membership: &Membership, current: Option<&Credentials>) -> Result<Credentials> {
        let (kind, id) = (self.config.key, membership.spiffe_id.clone());
        let request = blocking(move || csr::request(kind, &id)).await?;
        let (address, signed) = self.call_each(membership, current, &request.csr).await?;
        let (at, by) = (self.clock.now(), signed.auth.to_string());
        let credentials = accept(request, &signed.chain, membership, at)
            .with_context(|| format!("the CA at {address} gave an unusable answer"))?;
        Ok(Credentials {
            issued_with: Some(IssuedWith { by, at }),
            ..credentials
        })
    }
}

impl IstiodCa {
    /// Calls the current control plane, and the others when it can't be reached.
    async fn call_each(
        &self,
        membership: &Membership,
        current: Option<&Credentials>,
        csr: &str,
    ) -> Result<(String, SignedChain)> {
        let mut failures: Vec<String> = Vec::new();
        let mut addresses = self.addresses(membership).into_iter().peekable();
        while let Some(address) = addresses.next() {
            let limit = if addresses.peek().is_some() {
                FAILOVER_TIMEOUT
            } else {
                CALL_TIMEOUT
            };
            match self
                .call_with_token_fallback(membership, &address, current, csr, limit)
                .await
            {
                Ok(signed) => return Ok((address, signed)),
                Err(Failure::Unreachable(error)) => {
                    self.selector.mark_unreachable(&address, &error);
                    failures.push(format!("{error:#}"));
                }
                Err(Failure::AuthRefused(error) | Failure::Other(error)) => return Err(error),
            }
        }
        Err(Unreachable(failures.join("; ")).into())
    }

    fn addresses(&self, membership: &Membership) -> Vec<String> {
        if membership.ca_address == membership.discovery_address {
            self.selector.candidates()
        } else {
            vec![membership.ca_address.clone()]
        }
    }

    async fn call_with_token_fallback(
        &self,
        membership: &Membership,
        address: &str,
        current: Option<&Credentials>,
        csr: &str,
        limit: Duration,
    ) -> Result<SignedChain, Failure> {
        match self.call(membership, address, current, csr, limit).await {
            // The CA may have forgotten the root that signed the certificate it now refuses; the token is as good
            // as on the first day.
            Err(Failure::AuthRefused(error)) if current.is_some() && self.has_tokens(membership) => {
                tracing::warn!("the CA refused this VM's certificate, trying the token: {error:#}");
                self.call(membership, address, None, csr, limit).await
            }
            signed => signed,
        }
    }

    fn has_tokens(&self, membership: &Membership) -> bool {
        self.tokens.is_some() || membership.token_file.is_some()
    }

    /// Sends `csr`, authenticated by `credentials` or else by a token.
    async fn call(
        &self,
        membership: &Membership,
        address: &str,
        credentials: Option<&Credentials>,
        csr: &str,
        limit: Duration,
    ) -> Result<SignedChain, Failure> {
        let now = self.clock.now();
        let mut request = Request::new(IstioCertificateRequest {
            csr: csr.to_owned(),
            validity_duration: i64::try_from(self.config.ttl.as_secs()).unwrap_or(i64::MAX),
            metadata: Some(signer(membership)),
        });
        let auth = control_plane::authorize(
            request.metadata_mut(),
            membership,
            credentials,
            self.tokens.as_deref(),
            now,
        )
        .await
        .map_err(Failure::Other)?;
        let connection = control_plane::connect(membership, address, credentials, now, limit)
            .await
            .map_err(|error| match auth {
                AuthMethod::Certificate if control_plane::certificate_refused(&error) => Failure::AuthRefused(error),
                _ => Failure::Unreachable(error),
            })?;
        let mut client = IstioCertificateServiceClient::new(connection.channel);
        let answer = tokio::time::timeout(limit, client.create_certificate(request))
            .await
            .unwrap_or_else(|_| Err(Status::deadline_exceeded(format!("no answer within {limit:?}"))));
        match answer {
            Ok(answer) => Ok(SignedChain {
                chain: answer.into_inner().cert_chain,
                auth,
            }),
            Err(status) => {
                let meaning = match status.code() {
                    Code::Unimplemented => NO_CA.to_owned(),
                    _ => auth.explain(&status, membership, now),
                };
                let error = anyhow!(meaning).context(format!("the CA at {} gave no certificate", connection.address));
                Err(match status.code() {
                    _ if auth == AuthMethod::Certificate && auth.is_refused(&status) => Failure::AuthRefused(error),
                    Code::Unavailable | Code::DeadlineExceeded => Failure::Unreachable(error),
                    _ => Failure::Other(error),
                })
            }
        }
    }
}

/// The CA's signer that is asked for; istiod expects the key also when it is empty.
fn signer(membership: &Membership) -> Struct {
    let name = membership
        .env
        .get("ISTIO_META_CERT_SIGNER")
        .cloned()
        .unwrap_or_default();
    let value = Value {
        kind: Some(value::Kind::StringValue(name)),
    };
    Struct {
        fields: [("CertSigner".to_owned(), value)].into(),
    }
}

/// Credentials from the CA's answer. Its last element is the root, or several; the bundle's roots stay trusted
/// beside it, so that while a root is being rotated both sides of the rotation are.
pub(super) fn accept(
    request: csr::Request,
    chain: &[String],
    membership: &Membership,
    now: SystemTime,
) -> Result<Credentials> {
    ensure!(
        chain.len() > 1,
        "{} certificates, at least a leaf and its root are due",
        chain.len()
    );
    let size = chain.iter().map(String::len).sum::<usize>();
    ensure!(
        size <= certificate::MAX_PEM,
        "{size} bytes of certificates, at most {} are read",
        certificate::MAX_PEM
    );
    let mut whole = String::with_capacity(size + chain.len());
    for element in chain {
        whole.push_str(element.trim_end());
        whole.push('\n');
    }
    let root = chain.last().map_or("", String::as_str);
    let roots = certificate::merge(root, &membership.roots_pem).context("the root certificates are unusable")?;
    let credentials = certificate::credentials(request.key, &whole, &roots)?;
    ensure!(
        credentials.spiffe_id == membership.spiffe_id,
        "the certificate is for {}, this VM is {}: check the token's service account and the trust domain",
        credentials.spiffe_id,
        membership.spiffe_id
    );
    ensure!(
        credentials.valid_at(now),
        "the certificate is valid from {} to {}, and this VM's clock says {}: set the clock",
        date(credentials.not_before),
        date(credentials.not_after),
        date(now)
    );
    Ok(credentials)
}

#[cfg(test)]
mod tests;
