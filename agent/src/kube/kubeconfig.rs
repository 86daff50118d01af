//! kubectl's configuration file: one context of it is an [`Access`].

use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use reqwest::Identity;
use serde::Deserialize;

use super::access::{Access, Bearer, Credential, read};
use super::exec::{Exec, Plugin};
use super::yaml;
use crate::host::Host;
use crate::web::Trust;

/// client-go's tools/clientcmd/api/v1 Config.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct Kubeconfig {
    clusters: Vec<Named<Cluster>>,
    users: Vec<Named<User>>,
    contexts: Vec<Named<ContextEntry>>,
    current_context: Option<String>,
}

#[derive(Deserialize)]
struct Named<T> {
    name: String,
    #[serde(alias = "cluster", alias = "user", alias = "context")]
    content: T,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct Cluster {
    server: String,
    certificate_authority: Option<String>,
    certificate_authority_data: Option<String>,
    insecure_skip_tls_verify: bool,
    tls_server_name: Option<String>,
    proxy_url: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct User {
    client_certificate: Option<String>,
    client_certificate_data: Option<String>,
    client_key: Option<String>,
    client_key_data: Option<String>,
    token: Option<String>,
    #[serde(rename = "tokenFile")]
    token_file: Option<String>,
    exec: Option<Exec>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ContextEntry {
    cluster: String,
    user: String,
}

/// The file, and what its relative paths are relative to.
struct Folder<'a> {
    file: &'a Path,
    host: &'a Host,
}

/// Why a kubeconfig is of no use.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unusable {
    /// Nothing says which context of it is meant.
    #[error("has no current-context")]
    NoCurrentContext,
    /// A part of it is wrong.
    #[error(transparent)]
    Other(#[from] anyhow::Error),
}

/// Takes `context` of a file's text, or its current one; `file` is for messages and relative paths.
pub(crate) fn parse(text: &str, file: &Path, context: Option<&str>, host: &Host) -> Result<Access, Unusable> {
    let config: Option<Kubeconfig> = yaml::parse(text).map_err(|error| anyhow!("is not valid YAML: {error}"))?;
    let config = config.unwrap_or_default();
    let wanted = context
        .or(config.current_context.as_deref())
        .filter(|name| !name.is_empty())
        .ok_or(Unusable::NoCurrentContext)?
        .to_owned();
    Ok(config.access(&wanted, &Folder { file, host })?)
}

impl Kubeconfig {
    fn access(self, context: &str, folder: &Folder<'_>) -> Result<Access> {
        let context = find(self.contexts, context, "context")?;
        let cluster = find(self.clusters, &context.cluster, "cluster")?;
        let user = find(self.users, &context.user, "user")?;
        check(&cluster)?;
        Ok(Access {
            trust: folder.trust(&cluster).context("certificate-authority of the cluster")?,
            credential: folder.credential(user, &context.user)?,
            server: cluster.server.trim_end_matches('/').to_owned(),
        })
    }
}

fn find<T>(list: Vec<Named<T>>, name: &str, kind: &str) -> Result<T> {
    let found = list.into_iter().find(|entry| entry.name == name);
    found
        .map(|entry| entry.content)
        .with_context(|| format!("has no {kind} {name:?}"))
}

/// Refuses settings that are not supported, where they would weaken the connection or lead elsewhere.
fn check(cluster: &Cluster) -> Result<()> {
    if !cluster.server.starts_with("https://") {
        bail!(
            "server {:?} of the cluster must be https://…, or a token would go in plain text",
            cluster.server
        );
    }
    if cluster.insecure_skip_tls_verify {
        bail!("insecure-skip-tls-verify is refused: anybody could be the API server; set certificate-authority");
    }
    if cluster.tls_server_name.is_some() || cluster.proxy_url.is_some() {
        bail!("tls-server-name and proxy-url are not supported");
    }
    Ok(())
}

impl Folder<'_> {
    fn trust(&self, cluster: &Cluster) -> Result<Trust> {
        let pem = self.content(
            cluster.certificate_authority_data.as_deref(),
            cluster.certificate_authority.as_deref(),
        )?;
        Ok(pem.map_or(Trust::System, |pem| Trust::Roots {
            pem,
            place: self.file.display().to_string(),
        }))
    }

    /// The user's credential, in client-go's order: a certificate, a token, a plugin.
    fn credential(&self, user: User, name: &str) -> Result<Credential> {
        let place = format!("user {name} in {}", self.file.display());
        let chain = self.content(
            user.client_certificate_data.as_deref(),
            user.client_certificate.as_deref(),
        );
        let key = self.content(user.client_key_data.as_deref(), user.client_key.as_deref());
        if let (Some(chain), Some(key)) = (chain.context("client-certificate")?, key.context("client-key")?) {
            let identity = Identity::from_pem(format!("{key}\n{chain}").as_bytes())
                .with_context(|| format!("client-certificate and client-key of {place} are no pair in PEM"))?;
            return Ok(Credential::Certificate { identity, place });
        }
        if let Some(path) = &user.token_file {
            return Ok(Credential::TokenFile {
                path: self.path(path),
                host: self.host.clone(),
            });
        }
        if let Some(token) = &user.token {
            let bearer = Bearer::new(&place, token)?;
            return Ok(Credential::Token { bearer, place });
        }
        let exec = user.exec.with_context(|| {
            format!("{place} has none of client-certificate with client-key, token, tokenFile and exec; no other proof is supported")
        })?;
        let command = match exec.command().contains('/') {
            true => self.path(exec.command()).display().to_string(),
            false => exec.command().to_owned(),
        };
        Ok(Credential::Plugin(Plugin::new(exec, command, self.host)))
    }

    /// A file's content; of the two ways to give it, data wins.
    fn content(&self, data: Option<&str>, path: Option<&str>) -> Result<Option<String>> {
        match (data.filter(|data| !data.is_empty()), path) {
            (Some(data), _) => {
                let bytes = STANDARD.decode(data).map_err(|_| anyhow!("is not base64"))?;
                Ok(Some(String::from_utf8(bytes).map_err(|_| anyhow!("is not PEM"))?))
            }
            (None, Some(path)) => read(&self.path(path), self.host).map(Some),
            (None, None) => Ok(None),
        }
    }

    fn path(&self, path: &str) -> std::path::PathBuf {
        self.file.parent().unwrap_or_else(|| Path::new("/")).join(path)
    }
}

#[cfg(test)]
mod tests;
