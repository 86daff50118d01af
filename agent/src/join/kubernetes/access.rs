//! The way to the API server: its URL, who vouches for it, and what the VM proves itself with.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use reqwest::Identity;

use super::exec::Plugin;
use super::kubeconfig;
use crate::config::{ConfigError, KubernetesConfig};
use crate::facts::Secret;
use crate::google::Metadata;
use crate::host::{Host, Read};
use crate::web::Trust;

/// Tokens have about a kilobyte, CA bundles a few.
const MAX_BYTES: usize = 1 << 20;

/// How one API server is reached.
#[derive(Debug)]
pub(in crate::join) struct Access {
    /// `https://host[:port][/path]`, without a slash at the end.
    pub(in crate::join) server: String,
    pub(in crate::join) trust: Trust,
    pub(in crate::join) credential: Credential,
}

/// What the VM proves itself with.
#[derive(Debug)]
pub(in crate::join) enum Credential {
    /// The bearer token in a file that something else keeps fresh.
    TokenFile {
        /// The file.
        path: PathBuf,
        /// Where it is.
        host: Host,
    },
    /// A bearer token that never changes.
    Token {
        /// The token.
        bearer: Bearer,
        /// Where it is written.
        place: String,
    },
    /// A client certificate, shown in TLS.
    Certificate {
        /// Chain and key.
        identity: Identity,
        /// Where it is written.
        place: String,
    },
    /// An access token of the instance's Google service account.
    Google(Metadata),
    /// What a program prints.
    Plugin(Plugin),
}

/// A bearer token.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(in crate::join) struct Bearer(Secret);

impl Bearer {
    /// A token that came from `place`, surrounding blanks aside.
    pub(in crate::join) fn new(place: &str, text: &str) -> Result<Self> {
        let text = text.trim();
        if text.is_empty() {
            bail!("{place} is empty: put a bearer token for the API server there");
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            bail!("{place} holds no bearer token: there are blanks or control characters in it");
        }
        Ok(Self(Secret::new(text)))
    }

    /// The token, for the `authorization` header, and to read its claims.
    pub(super) fn expose(&self) -> &str {
        self.0.expose()
    }
}

impl Access {
    /// As configured. Reads what doesn't change: the CA, the kubeconfig.
    pub(super) fn open(config: &KubernetesConfig, host: &Host) -> Result<Self, ConfigError> {
        if let Some(path) = &config.kubeconfig {
            let wrong = |error: anyhow::Error| ConfigError::new(path, format!("{error:#}"));
            return kubeconfig::access(path, config.context.as_deref(), host).map_err(wrong);
        }
        let key = |key: &str, error: anyhow::Error| ConfigError::key(key, format!("{error:#}"));
        let trust = match &config.ca_file {
            None => Trust::System,
            Some(path) => Trust::Roots {
                pem: read(path, host).map_err(|error| key("join.kubernetes.ca_file", error))?,
                place: path.display().to_string(),
            },
        };
        let credential = if config.google {
            Credential::Google(Metadata::of_this_vm(host).map_err(|error| key("join.kubernetes.google", error))?)
        } else {
            let path = config.token_file.clone();
            Credential::TokenFile {
                path: path.ok_or_else(|| key("join.kubernetes.token_file", anyhow!("is missing")))?,
                host: host.clone(),
            }
        };
        Ok(Self {
            server: config
                .server
                .as_deref()
                .unwrap_or_default()
                .trim_end_matches('/')
                .to_owned(),
            trust,
            credential,
        })
    }
}

impl Credential {
    /// For people.
    pub(super) fn name(&self) -> String {
        match self {
            Self::TokenFile { path, .. } => format!("the token of {}", path.display()),
            Self::Token { place, .. } => format!("the token of {place}"),
            Self::Certificate { place, .. } => format!("the client certificate of {place}"),
            Self::Google(_) => "the access token of this VM's Google service account".to_owned(),
            Self::Plugin(plugin) => format!("what {} gave", plugin.name()),
        }
    }

    /// The token to send with the next call, if it is one that is sent.
    pub(super) async fn bearer(&self) -> Result<Option<Bearer>> {
        match self {
            Self::TokenFile { path, host } => Bearer::new(&path.display().to_string(), &read(path, host)?).map(Some),
            Self::Token { bearer, .. } => Ok(Some(bearer.clone())),
            Self::Certificate { .. } => Ok(None),
            Self::Google(metadata) => {
                Bearer::new("the metadata server", metadata.access_token().await?.expose()).map(Some)
            }
            Self::Plugin(plugin) => plugin.bearer().await.map(Some),
        }
    }

    /// The server didn't accept it: what is kept of it is of no use.
    pub(super) fn refused(&self) {
        match self {
            Self::Google(metadata) => metadata.forget_token(),
            Self::Plugin(plugin) => plugin.forget(),
            Self::TokenFile { .. } | Self::Token { .. } | Self::Certificate { .. } => {}
        }
    }

    pub(super) fn identity(&self) -> Option<Identity> {
        match self {
            Self::Certificate { identity, .. } => Some(identity.clone()),
            _ => None,
        }
    }
}

/// A file that must be there.
pub(super) fn read(path: &Path, host: &Host) -> Result<String> {
    let text = host.read(path, Read::max(MAX_BYTES).following_links());
    text.context("failed to read")?
        .ok_or_else(|| anyhow!("{} is missing", path.display()))
}
