//! kubectl's configuration file: one context of it is an [`Access`].

use std::path::Path;

use anyhow::{Context, anyhow};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use reqwest::Identity;
use serde::Deserialize;
use serde_saphyr::{Location, Spanned};

use super::access::{Access, Credential, read};
use super::bearer::Bearer;
use super::exec::{Exec, Plugin};
use super::yaml;
use crate::host::Host;
use crate::web::Trust;

/// Most names that an error lists.
const MAX_NAMED: usize = 8;

/// A text that may be absent, and its place.
type Text = Option<Spanned<String>>;

/// client-go's tools/clientcmd/api/v1 Config.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct Kubeconfig {
    clusters: Vec<Named<Cluster>>,
    users: Vec<Named<User>>,
    contexts: Vec<Named<ContextEntry>>,
    current_context: Text,
}

#[derive(Deserialize)]
struct Named<T> {
    name: Spanned<String>,
    #[serde(alias = "cluster", alias = "user", alias = "context")]
    content: T,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct Cluster {
    server: Text,
    certificate_authority: Text,
    certificate_authority_data: Text,
    insecure_skip_tls_verify: Option<Spanned<bool>>,
    tls_server_name: Text,
    proxy_url: Text,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct User {
    client_certificate: Text,
    client_certificate_data: Text,
    client_key: Text,
    client_key_data: Text,
    token: Text,
    #[serde(rename = "tokenFile")]
    token_file: Text,
    exec: Option<Exec>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ContextEntry {
    cluster: Text,
    user: Text,
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
    #[error("{problem}")]
    Wrong {
        /// Line and column, counted from 1; absent where it is about the whole.
        at: Option<(usize, usize)>,
        /// The key, what is wrong with it, and what to do.
        problem: String,
    },
}

/// Takes `context` of a file's text, or its current one; `file` is for messages and relative paths.
pub(crate) fn parse(text: &str, file: &Path, context: Option<&str>, host: &Host) -> Result<Access, Unusable> {
    let config: Option<Kubeconfig> = yaml::parse(text).map_err(|error| {
        // Its own words may quote the file, secrets among them.
        let problem = "is not valid YAML, or no kubeconfig: lists of clusters, users and contexts, each with a name; `kubectl \
                       config view --kubeconfig` and its path shows what kubectl takes it for";
        wrong(error.location().as_ref(), problem)
    })?;
    let config = config.unwrap_or_default();
    let current = config.current_context.clone().filter(|name| !name.value.is_empty());
    let (wanted, at) = match (context, current) {
        (Some(context), _) => (context.to_owned(), None),
        (None, Some(current)) => (current.value, Some(current.referenced)),
        (None, None) => return Err(Unusable::NoCurrentContext),
    };
    config.access(&wanted, at.as_ref(), &Folder { file, host })
}

fn wrong(at: Option<&Location>, problem: impl Into<String>) -> Unusable {
    let number = |number: u64| usize::try_from(number).ok();
    Unusable::Wrong {
        at: at.and_then(|at| Some((number(at.line())?, number(at.column())?))),
        problem: problem.into(),
    }
}

/// The place of a value, where it is there.
fn at<T>(value: Option<&Spanned<T>>) -> Option<&Location> {
    value.map(|value| &value.referenced)
}

impl Kubeconfig {
    /// `at_name` is where `context` is named.
    fn access(self, context: &str, at_name: Option<&Location>, folder: &Folder<'_>) -> Result<Access, Unusable> {
        let context = find(self.contexts, context, "context", at_name)?;
        let named = |name: &Text| name.as_ref().map(|name| name.value.clone()).unwrap_or_default();
        let (cluster, user) = (named(&context.content.cluster), named(&context.content.user));
        let or_entry = |name: &Text| at(name.as_ref()).copied().unwrap_or(context.name.referenced);
        let (at_cluster, at_user) = (or_entry(&context.content.cluster), or_entry(&context.content.user));
        let cluster = find(self.clusters, &cluster, "cluster", Some(&at_cluster))?;
        let user = find(self.users, &user, "user", Some(&at_user))?;
        Ok(Access {
            server: server(&cluster)?,
            trust: folder.trust(&cluster.content)?,
            credential: folder.credential(user)?,
        })
    }
}

fn find<T>(list: Vec<Named<T>>, name: &str, kind: &str, at: Option<&Location>) -> Result<Named<T>, Unusable> {
    let names = list.iter().take(MAX_NAMED);
    let known: Vec<String> = names.map(|entry| format!("{:?}", entry.name.value)).collect();
    let found = list.into_iter().find(|entry| entry.name.value == name);
    found.ok_or_else(|| {
        let known = match known.is_empty() {
            true => format!("it has no {kind} at all"),
            false => format!("it has {}", known.join(", ")),
        };
        wrong(at, format!("has no {kind} {name:?}: {known}"))
    })
}

/// The server's URL, without a slash at the end. Settings are refused that are not supported where they would weaken the
/// connection or lead elsewhere.
fn server(Named { name, content: cluster }: &Named<Cluster>) -> Result<String, Unusable> {
    let server = cluster.server.as_ref().map_or("", |server| server.value.as_str());
    if !server.starts_with("https://") {
        return Err(wrong(
            at(cluster.server.as_ref()).or(Some(&name.referenced)),
            format!("server {server:?} of the cluster must be https://…, or a token would go in plain text"),
        ));
    }
    if let Some(insecure) = cluster.insecure_skip_tls_verify.as_ref().filter(|it| it.value) {
        return Err(wrong(
            Some(&insecure.referenced),
            "insecure-skip-tls-verify is refused: anybody could be the API server; set certificate-authority",
        ));
    }
    if let Some(set) = cluster.tls_server_name.as_ref().or(cluster.proxy_url.as_ref()) {
        return Err(wrong(
            Some(&set.referenced),
            "tls-server-name and proxy-url are not supported: give the cluster the API server's own URL, and take them out",
        ));
    }
    Ok(server.trim_end_matches('/').to_owned())
}

impl Folder<'_> {
    fn trust(&self, cluster: &Cluster) -> Result<Trust, Unusable> {
        let (data, path) = (&cluster.certificate_authority_data, &cluster.certificate_authority);
        let pem = self.content("certificate-authority of the cluster", data, path)?;
        Ok(pem.map_or(Trust::System, |pem| Trust::Roots {
            pem,
            place: self.file.display().to_string(),
        }))
    }

    /// The user's credential, in client-go's order: a certificate, a token, a plugin.
    fn credential(&self, Named { name, content: user }: Named<User>) -> Result<Credential, Unusable> {
        let place = format!("user {} in {}", name.value, self.file.display());
        let (data, path) = (&user.client_certificate_data, &user.client_certificate);
        let chain = self.content("client-certificate", data, path)?;
        let key = self.content("client-key", &user.client_key_data, &user.client_key)?;
        if let (Some(chain), Some(key)) = (chain, key) {
            let identity = Identity::from_pem(format!("{key}\n{chain}").as_bytes()).map_err(|_| {
                let problem =
                    format!("client-certificate and client-key of {place} are no pair in PEM: copy both again");
                wrong(at(data.as_ref().or(path.as_ref())), problem)
            })?;
            return Ok(Credential::Certificate { identity, place });
        }
        if let Some(path) = &user.token_file {
            return Ok(Credential::TokenFile {
                key: format!("tokenFile of {place}"),
                path: self.path(&path.value),
                host: self.host.clone(),
            });
        }
        if let Some(token) = &user.token {
            let bearer = Bearer::new(&place, &token.value);
            let bearer = bearer.map_err(|error| wrong(Some(&token.referenced), error.to_string()))?;
            return Ok(Credential::Token { bearer, place });
        }
        let none = format!(
            "{place} has none of client-certificate with client-key, token, tokenFile and exec; no other proof is supported"
        );
        let exec = user.exec.ok_or_else(|| wrong(Some(&name.referenced), none))?;
        let command = match exec.command().contains('/') {
            true => self.path(exec.command()).display().to_string(),
            false => exec.command().to_owned(),
        };
        Ok(Credential::Plugin(Plugin::new(exec, command, self.host)))
    }

    /// The content of a file, which `key` gives by its path or, which wins, as data.
    fn content(&self, key: &str, data: &Text, path: &Text) -> Result<Option<String>, Unusable> {
        let data = data.as_ref().filter(|data| !data.value.is_empty());
        let content = match (data, path) {
            (Some(data), _) => decoded(&data.value),
            (None, Some(path)) => read(&self.path(&path.value), self.host),
            (None, None) => return Ok(None),
        };
        let content = content.with_context(|| key.to_owned());
        content
            .map(Some)
            .map_err(|error| wrong(at(data.or(path.as_ref())), format!("{error:#}")))
    }

    fn path(&self, path: &str) -> std::path::PathBuf {
        self.file.parent().unwrap_or_else(|| Path::new("/")).join(path)
    }
}

fn decoded(data: &str) -> anyhow::Result<String> {
    let bytes = STANDARD
        .decode(data)
        .map_err(|_| anyhow!("is not base64: copy the kubeconfig again"))?;
    String::from_utf8(bytes).map_err(|_| anyhow!("is not PEM: copy the kubeconfig again"))
}

#[cfg(test)]
mod tests;
