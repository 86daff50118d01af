//! One cluster's API server: objects by name and by list, each call bounded in time.

use std::time::Duration;

use anyhow::{Result, anyhow};
use http::{Method, Request};
use hyper_timeout::TimeoutConnector;
use hyper_util::rt::TokioExecutor;
use kube::Client;
use kube::client::{AuthError, ClientBuilder, ConfigExt as _};
use kube::config::{Config, KubeConfigOptions, Kubeconfig};
use serde_json::{Value, json};
use tower::{BoxError, ServiceBuilder};

use crate::migration::Entry;
use crate::names;
use crate::objects::{Kind, MANAGER};

/// Time for one call. An API server that needs longer is as good as gone while two clusters have to move together.
const DEADLINE: Duration = Duration::from_secs(10);
/// Time for a connection.
const CONNECT: Duration = Duration::from_secs(3);

/// A cluster, and the way to it.
pub(crate) struct Cluster {
    pub(crate) entry: Entry,
    /// Or why there is none: what is asked of other clusters goes on without this one.
    client: Result<Client, String>,
}

/// A call that came to nothing.
#[derive(Debug, thiserror::Error)]
#[error("cluster {cluster}: failed to {what}")]
pub(crate) struct Failure {
    cluster: String,
    what: String,
    /// HTTP's status; absent: there was no answer, and nobody knows whether it was done.
    pub(crate) code: Option<u16>,
    source: anyhow::Error,
}

impl Failure {
    /// True when somebody else was faster, or manages what was to be written.
    pub(crate) fn is_conflict(&self) -> bool {
        self.code == Some(409)
    }
}

/// Mode of a change.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Mode {
    /// The change is made.
    Real,
    /// The API server checks it, and changes nothing.
    DryRun,
}

impl Cluster {
    /// The cluster of `entry`, by its kubeconfig; nothing is asked of it yet. Without a way to it each call fails.
    pub(crate) async fn new(entry: &Entry) -> Self {
        let client = match tokio::time::timeout(DEADLINE, client(entry.clone())).await {
            Ok(client) => client.map_err(|error| with_causes(&error)),
            Err(_) => Err(format!(
                "the kubeconfig's plugin gave nothing within {} s",
                DEADLINE.as_secs()
            )),
        };
        Self {
            entry: entry.clone(),
            client,
        }
    }

    pub(crate) fn name(&self) -> &str {
        self.entry.name.as_str()
    }

    /// The object, if there is one.
    pub(crate) async fn get(&self, kind: Kind, namespace: &str, name: &str) -> Result<Option<Value>, Failure> {
        let what = format!("get {} {namespace}/{name}", kind.plural);
        let path = format!("{}/{name}", path(kind, namespace));
        match self.call(what, Method::GET, &path, &Value::Null).await {
            Err(failure) if failure.code == Some(404) => Ok(None),
            answer => answer.map(Some),
        }
    }

    /// All objects of a kind in a namespace; none where the cluster has no such kind.
    pub(crate) async fn list(&self, kind: Kind, namespace: &str) -> Result<Vec<Value>, Failure> {
        let what = format!("list {} in {namespace}", kind.plural);
        let answer = match self.call(what, Method::GET, &path(kind, namespace), &Value::Null).await {
            Err(failure) if failure.code == Some(404) => return Ok(Vec::new()),
            answer => answer?,
        };
        Ok(answer["items"].as_array().cloned().unwrap_or_default())
    }

    /// Applies an object as this program's, without force: a field that somebody else manages is a conflict (409), and
    /// so is a `metadata.resourceVersion` that is not the current one.
    pub(crate) async fn apply(&self, kind: Kind, object: &Value, mode: Mode) -> Result<(), Failure> {
        self.patch(kind, object, mode, "").await
    }

    /// Applies an object as this program's, and takes its fields from whoever manages them. A
    /// `metadata.resourceVersion` that is not the current one is a conflict all the same.
    pub(crate) async fn take_over(&self, kind: Kind, object: &Value, mode: Mode) -> Result<(), Failure> {
        self.patch(kind, object, mode, "&force=true").await
    }

    async fn patch(&self, kind: Kind, object: &Value, mode: Mode, force: &str) -> Result<(), Failure> {
        let metadata = &object["metadata"];
        let [namespace, name] = [&metadata["namespace"], &metadata["name"]].map(|value| value.as_str().unwrap_or("?"));
        let what = format!("apply {} {namespace}/{name}", kind.plural);
        let dry_run = if mode == Mode::DryRun { "&dryRun=All" } else { "" };
        let query = format!("?fieldManager={MANAGER}&fieldValidation=Strict{force}{dry_run}");
        let path = format!("{}/{name}{query}", path(kind, namespace));
        self.call(what, Method::PATCH, &path, object).await.map(drop)
    }

    /// Deletes an object in the very state in which it was read; one that is gone is no failure.
    pub(crate) async fn delete(&self, kind: Kind, object: &Value, mode: Mode) -> Result<(), Failure> {
        let metadata = &object["metadata"];
        let [namespace, name] = [&metadata["namespace"], &metadata["name"]].map(|value| value.as_str().unwrap_or("?"));
        let what = format!("delete {} {namespace}/{name}", kind.plural);
        let preconditions = json!({ "uid": metadata["uid"], "resourceVersion": metadata["resourceVersion"] });
        // Beside a body the API server reads no query.
        let dry_run: &[&str] = if mode == Mode::DryRun { &["All"] } else { &[] };
        let body =
            json!({ "apiVersion": "v1", "kind": "DeleteOptions", "preconditions": preconditions, "dryRun": dry_run });
        let path = format!("{}/{name}", path(kind, namespace));
        match self.call(what, Method::DELETE, &path, &body).await {
            Err(failure) if failure.code == Some(404) => Ok(()),
            answer => answer.map(drop),
        }
    }

    /// Posts a question: an access review, or a request for a token.
    pub(crate) async fn ask(&self, what: &str, path: &str, body: &Value) -> Result<Value, Failure> {
        self.call(what.to_owned(), Method::POST, path, body).await
    }

    async fn call(&self, what: String, method: Method, path: &str, body: &Value) -> Result<Value, Failure> {
        let content = match method {
            Method::PATCH => "application/apply-patch+yaml",
            _ => "application/json",
        };
        let bytes = match body {
            Value::Null => Vec::new(),
            body => body.to_string().into_bytes(),
        };
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("content-type", content);
        let failure = |code, source| Failure {
            cluster: self.name().to_owned(),
            what: what.clone(),
            code,
            source,
        };
        let request = request.body(bytes).map_err(|error| failure(None, error.into()))?;
        let client = self.client.as_ref();
        let client = client.map_err(|why| failure(None, anyhow!("no way to the API server: {why}")))?;
        match tokio::time::timeout(DEADLINE, client.request(request)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(kube::Error::Api(status))) => Err(failure(Some(status.code), anyhow!("{}", status.message))),
            Ok(Err(error)) => Err(failure(None, without_secrets(error))),
            Err(_) => Err(failure(None, anyhow!("no answer within {} s", DEADLINE.as_secs()))),
        }
    }
}

/// An error and its causes, each once: some quote the one below them.
fn with_causes(error: &anyhow::Error) -> String {
    error
        .chain()
        .fold(String::new(), |text, cause| match cause.to_string() {
            cause if text.is_empty() => cause,
            cause if text.contains(&cause) => text,
            cause => format!("{text}: {cause}"),
        })
}

/// The client of an entry's kubeconfig, whose plugin may take its time.
#[expect(
    clippy::disallowed_methods,
    reason = "no Host here, and nobody waits for a plugin that hangs when the program ends"
)]
async fn client(entry: Entry) -> Result<Client> {
    let kubeconfig = match &entry.kubeconfig {
        Some(path) => Kubeconfig::read_from(path),
        None => Kubeconfig::read(),
    };
    let options = KubeConfigOptions {
        context: entry.context.as_ref().map(ToString::to_string),
        ..KubeConfigOptions::default()
    };
    let config = Config::from_custom_kubeconfig(kubeconfig?, &options).await?;
    let made = tokio::task::spawn_blocking(|| connected(config)).await?;
    made.map_err(without_secrets)
}

/// A client as kube's own is, but that it finds addresses by [`names`], and that nothing is tried again: a write that is
/// made again hides that the first was made, and ends as a conflict with itself.
fn connected(config: Config) -> Result<Client, kube::Error> {
    if config.proxy_url.is_some() {
        // It says that there is none by a proxy.
        return Client::try_from(config);
    }
    let tls = config.rustls_https_connector_with_connector(names::connector())?;
    let mut connector = TimeoutConnector::new(tls);
    connector.set_connect_timeout(Some(CONNECT));
    let http = hyper_util::client::legacy::Client::builder(TokioExecutor::new()).build(connector);
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_err(BoxError::from)
        .service(http);
    Ok(ClientBuilder::new(service, config.default_namespace).build())
}

/// The error, without a plugin's arguments and variables, nor its stdout, which has the token.
fn without_secrets(error: kube::Error) -> anyhow::Error {
    let error = anyhow::Error::from(error);
    match error.chain().find_map(|cause| cause.downcast_ref::<AuthError>()) {
        Some(AuthError::AuthExecRun { out, .. }) => anyhow!(
            "the kubeconfig's plugin ended with {}: {}",
            out.status,
            String::from_utf8_lossy(&out.stderr).trim()
        ),
        Some(AuthError::AuthExecParse(_)) => anyhow!("the kubeconfig's plugin printed no ExecCredential"),
        _ => error,
    }
}

/// The path of a kind in a namespace.
fn path(kind: Kind, namespace: &str) -> String {
    let folder = if kind.api.contains('/') { "apis" } else { "api" };
    format!("/{folder}/{}/namespaces/{namespace}/{}", kind.api, kind.plural)
}

#[cfg(test)]
pub(crate) mod tests;
