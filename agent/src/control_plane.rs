//! How istiod is reached: which one, name resolution, TLS, and what a call proves itself with. Used by `identity`
//! and `xds`.
//!
//! The VM's resolver is the last resort: the bundle's `hosts` entries come first, so that a broken /etc/hosts
//! or a captured DNS never cuts the VM off its control plane. Always over TLS: a token never travels in the clear.

mod checks;
mod connect;
#[cfg(test)]
pub(crate) mod fixtures;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod proof;
mod pulse;
mod selector;
mod tls;
pub mod token;
mod version;

use std::time::SystemTime;

use anyhow::{Context, Result, anyhow};
use tonic::metadata::{Ascii, MetadataMap, MetadataValue};

use crate::facts::{Credentials, Membership};

pub use checks::{Inputs, check};
pub use connect::{Connection, certificate_refused, connect, listed};
pub use proof::Proof;
pub use selector::{ControlPlaneSelector, FAILOVER_TIMEOUT};
use token::{Token, TokenSource};
pub use version::version;

/// Headers of a call: the cluster whose API server judges the token, and a token when the connection shows no
/// certificate. Tokens are had anew for each call: from `tokens`, or else from the membership's file, which
/// something else refreshes. Says what the call proves itself with, so that a refusal can be explained.
pub async fn authorize(
    metadata: &mut MetadataMap,
    membership: &Membership,
    credentials: Option<&Credentials>,
    tokens: Option<&dyn TokenSource>,
    now: SystemTime,
) -> Result<Proof> {
    let cluster = membership
        .cluster_id
        .parse::<MetadataValue<Ascii>>()
        .with_context(|| format!("the cluster id {:?} can't be sent in a header", membership.cluster_id))?;
    metadata.insert("clusterid", cluster);
    if credentials.is_some_and(|credentials| credentials.valid_at(now)) {
        return Ok(Proof::Certificate);
    }
    let Some((place, token)) = find_token(membership, tokens).await? else {
        return Ok(Proof::Nothing);
    };
    let mut value: MetadataValue<Ascii> = format!("Bearer {}", token.expose())
        .parse()
        .map_err(|_| anyhow!("{place}: holds no JWT"))?;
    // Keeps it out of `Debug` and out of HPACK's tables.
    value.set_sensitive(true);
    metadata.insert("authorization", value);
    Ok(Proof::Token {
        place,
        claims: token.claims(),
    })
}

/// A fresh token of the source, else the one in the file.
async fn find_token(membership: &Membership, tokens: Option<&dyn TokenSource>) -> Result<Option<(String, Token)>> {
    let file = membership.token_file.as_deref();
    if let Some(source) = tokens {
        match source.token().await {
            Ok(token) => return Ok(Some((source.place(), token))),
            Err(error) if file.is_none() => return Err(error),
            Err(error) => tracing::warn!("no token from {}, trying the file: {error:#}", source.place()),
        }
    }
    file.map(|path| Ok((path.display().to_string(), Token::read(path)?)))
        .transpose()
}

#[cfg(test)]
mod tests;
