//! Who calls: by certificate if there is one, else by token, in istiod's order.

use std::fmt;

use anyhow::{Context, Result};
use tonic::{Request, Status};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::state::{Authenticated, State};

/// A service account.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Caller {
    /// Namespace of the account.
    pub namespace: String,
    /// Name of the account.
    pub service_account: String,
}

impl Caller {
    /// Name of the account in certificates.
    pub fn spiffe_id(&self) -> String {
        format!(
            "spiffe://cluster.local/ns/{}/sa/{}",
            self.namespace, self.service_account
        )
    }
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.spiffe_id())
    }
}

impl State {
    /// The caller, or UNAUTHENTICATED.
    pub(super) fn authenticate<T>(&self, request: &Request<T>) -> Result<(Caller, Authenticated), Status> {
        let refused = |error: anyhow::Error| Status::unauthenticated(format!("{error:#}"));
        if let Some(leaf) = request.peer_certs().and_then(|chain| chain.first().cloned()) {
            return Ok((by_certificate(&leaf).map_err(refused)?, Authenticated::Certificate));
        }
        let header = request
            .metadata()
            .get("authorization")
            .and_then(|value| value.to_str().ok());
        let token = header.and_then(|value| value.strip_prefix("Bearer "));
        let caller = token
            .context("neither a certificate nor a token")
            .and_then(|token| self.tokens.review(token, self.pki.clock()));
        Ok((caller.map_err(refused)?, Authenticated::Token))
    }
}

fn by_certificate(der: &[u8]) -> Result<Caller> {
    let (_, certificate) = X509Certificate::from_der(der)?;
    let names = certificate
        .subject_alternative_name()?
        .context("a certificate without a name")?;
    let uri = names.value.general_names.iter().find_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    });
    let parts: Vec<&str> = uri.context("a certificate without a URI")?.split('/').collect();
    let ["spiffe:", "", "cluster.local", "ns", namespace, "sa", service_account] = parts[..] else {
        anyhow::bail!("{uri:?} is not a SPIFFE id of this mesh");
    };
    Ok(Caller {
        namespace: namespace.to_owned(),
        service_account: service_account.to_owned(),
    })
}
