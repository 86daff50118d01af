//! The way to the API server: its URL, who vouches for it, and what the VM proves itself with.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use reqwest::Identity;

use super::bearer::Bearer;
use super::exec::Plugin;
use crate::google::Metadata;
use crate::host::{Host, Read};
use crate::web::Trust;

/// Tokens have about a kilobyte, CA bundles a few.
const MAX_BYTES: usize = 1 << 20;

/// The way to one API server.
#[derive(Debug)]
pub(crate) struct Access {
    /// `https://host[:port][/path]`, without a slash at the end.
    pub(crate) server: String,
    pub(crate) trust: Trust,
    pub(crate) credential: Credential,
}

/// The credential that the VM proves itself with.
#[derive(Debug)]
pub(crate) enum Credential {
    /// The bearer token in a file that something else keeps fresh.
    TokenFile {
        /// The key that names it, for people.
        key: String,
        /// The file.
        path: PathBuf,
        /// The host that has the file.
        host: Host,
    },
    /// A bearer token that never changes.
    Token {
        /// The token.
        bearer: Bearer,
        /// The place where it is written, for people.
        place: String,
    },
    /// A client certificate, shown in TLS.
    Certificate {
        /// Chain and key.
        identity: Identity,
        /// The place where it is written, for people.
        place: String,
    },
    /// An access token of the instance's Google service account.
    Google(Metadata),
    /// A token that a program prints.
    Plugin(Plugin),
}

/// The ways in which a credential proves who the VM is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Method {
    /// A bearer token.
    Token,
    /// A client certificate.
    Certificate,
    /// An access token of Google's.
    Google,
}

impl Credential {
    /// The way of this one.
    pub(crate) fn method(&self) -> Method {
        match self {
            Self::TokenFile { .. } | Self::Token { .. } | Self::Plugin(_) => Method::Token,
            Self::Certificate { .. } => Method::Certificate,
            Self::Google(_) => Method::Google,
        }
    }

    /// The credential, for people.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::TokenFile { path, .. } => format!("the token of {}", path.display()),
            Self::Token { place, .. } => format!("the token of {place}"),
            Self::Certificate { place, .. } => format!("the client certificate of {place}"),
            Self::Google(_) => "the access token of this VM's Google service account".to_owned(),
            Self::Plugin(plugin) => format!("what {} gave", plugin.name()),
        }
    }

    /// The token to send with the next call, if it is one that is sent.
    pub(crate) async fn bearer(&self) -> Result<Option<Bearer>> {
        match self {
            Self::TokenFile { key, path, host } => token(path, host).with_context(|| key.clone()).map(Some),
            Self::Token { bearer, .. } => Ok(Some(bearer.clone())),
            Self::Certificate { .. } => Ok(None),
            Self::Google(metadata) => {
                let token = metadata.access_token().await?;
                Ok(Some(Bearer::new("the metadata server", token.expose())?))
            }
            Self::Plugin(plugin) => plugin.bearer().await.map(Some),
        }
    }

    /// A token that somebody else than this VM has to renew.
    pub(crate) fn unrenewed(&self) -> Option<Bearer> {
        match self {
            Self::TokenFile { path, host, .. } => token(path, host).ok(),
            Self::Token { bearer, .. } => Some(bearer.clone()),
            Self::Certificate { .. } | Self::Google(_) | Self::Plugin(_) => None,
        }
    }

    /// The server didn't accept it: what is kept of it is of no use.
    pub(crate) fn refused(&self) {
        match self {
            Self::Google(metadata) => metadata.forget_token(),
            Self::Plugin(plugin) => plugin.forget(),
            Self::TokenFile { .. } | Self::Token { .. } | Self::Certificate { .. } => {}
        }
    }

    pub(crate) fn identity(&self) -> Option<Identity> {
        match self {
            Self::Certificate { identity, .. } => Some(identity.clone()),
            _ => None,
        }
    }
}

/// Reads a file that must be there.
pub(crate) fn read(path: &Path, host: &Host) -> Result<String> {
    let text = host.read(path, Read::max(MAX_BYTES).following_links());
    text.context("failed to read")?
        .ok_or_else(|| anyhow!("{} is missing: put it there, or correct the path", path.display()))
}

/// Reads the bearer token in a file that must be there.
pub(crate) fn token(path: &Path, host: &Host) -> Result<Bearer> {
    Ok(Bearer::new(&path.display().to_string(), &read(path, host)?)?)
}
