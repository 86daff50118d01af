//! A real Kubernetes API: kube-apiserver with RBAC on and TLS as in production, over etcd, on the control plane's host or another.
//!
//! ```no_run
//! # fn case() -> anyhow::Result<()> {
//! let network = e2e::network::Network::new()?;
//! let cluster = e2e::kubernetes::Cluster::start(&network)?; // about four seconds
//! cluster.apply("{apiVersion: v1, kind: Namespace, metadata: {name: onlineboutique}}")?;
//! cluster.apply(e2e::kubernetes::MESH)?; // what istiod and Istio's operator leave: ConfigMaps, ingress
//! let (token, ca) = (cluster.token(e2e::kubernetes::GOOGLE_SERVICE_ACCOUNT)?, cluster.ca_pem());
//! let kubeconfig = cluster.kubeconfig("jane")?; // a client certificate for any name
//! # Ok(()) }
//! ```
//!
//! A second one beside it runs on another host ([`Cluster::start_on`]). [`Cluster::address`] is reached from every host of the network. There is no controller: a namespace has no ServiceAccount
//! `default`, and nothing fills a status but [`Cluster::apply`], which writes the documents' own. Istio's kinds are
//! defined as far as the agent reads and prints them. Dropped: both processes are gone; the network takes the files.

mod client;
mod documents;
mod servers;

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use rcgen::{KeyPair, PKCS_RSA_SHA256, RsaKeySize};
use serde_json::{Value, json};

use crate::istiod::State;
use crate::network::{Host, Network};
use crate::pki::Pki;
use crate::process::Process;
use crate::{PATIENCE, eventually};

pub use client::{Answer, As};
pub(crate) use servers::service_range;

/// Objects that an Istio installation with a load balancer leaves in the cluster: namespaces istio-system and
/// onlineboutique, the mesh's ConfigMaps, the ingress for VMs at the control plane's address. The root:
/// [`Cluster::publish_root`].
pub const MESH: &str = include_str!("../data/kubernetes/installed.yaml");

/// The kinds of the Gateway API that a mesh's calls are split by.
pub const GATEWAY_KINDS: &str = include_str!("../data/kubernetes/gateway-kinds.yaml");

/// A VM's own identity, with the name that GKE gives it. It may do nothing until a Role says so.
pub const GOOGLE_SERVICE_ACCOUNT: &str = "vm@boutique.iam.gserviceaccount.com";

/// Users in `--token-auth-file`, with their groups. A user's token is `token-of-USER`.
const USERS: [(&str, &str); 3] = [
    ("admin", "system:masters"),
    (GOOGLE_SERVICE_ACCOUNT, "vms"),
    ("stranger", ""),
];

const PORT: u16 = 6443;

/// See the module.
#[derive(Debug)]
pub struct Cluster {
    host: Host,
    namespace: String,
    folder: PathBuf,
    pki: Pki,
    apiserver: Process,
    _etcd: Process,
}

impl Cluster {
    /// Starts it, and waits until it serves Istio's kinds too.
    pub fn start(network: &Network) -> Result<Self> {
        Self::start_signing_with(
            network,
            &KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048)?,
        )
    }

    /// As [`Self::start`], with tokens that the stand-in istiod believes.
    pub fn start_for(network: &Network, istiod: &State) -> Result<Self> {
        Self::start_signing_with(network, istiod.tokens.key())
    }

    /// On another host than the control plane's.
    pub fn start_on(host: Host, network: &Network) -> Result<Self> {
        Self::with_istios_kinds(Self::start_bare(host, network, &new_signing_key()?)?)
    }

    fn start_signing_with(network: &Network, signing: &KeyPair) -> Result<Self> {
        Self::with_istios_kinds(Self::start_bare(Host::ControlPlane, network, signing)?)
    }

    fn with_istios_kinds(cluster: Self) -> Result<Self> {
        cluster.apply(include_str!("../data/kubernetes/istio-kinds.yaml"))?;
        eventually("Istio's kinds", PATIENCE, || {
            let networking = [
                "workloadgroups",
                "virtualservices",
                "destinationrules",
                "gateways",
                "sidecars",
            ];
            for kind in networking {
                cluster.get(&format!("/apis/networking.istio.io/v1/{kind}"))?;
            }
            for kind in ["peerauthentications", "authorizationpolicies"] {
                cluster.get(&format!("/apis/security.istio.io/v1/{kind}"))?;
            }
            cluster
                .get("/apis/monitoring.coreos.com/v1alpha1/scrapeconfigs")
                .map(drop)
        })?;
        Ok(cluster)
    }

    /// Without Istio's kinds: the real ones are to come.
    pub(crate) fn start_without_istio(host: Host, network: &Network) -> Result<Self> {
        Self::start_bare(host, network, &new_signing_key()?)
    }

    fn start_bare(host: Host, network: &Network, signing: &KeyPair) -> Result<Self> {
        let folder = network.folder().join(format!("kubernetes-{host}"));
        fs::create_dir_all(&folder)?;
        let pki = Pki::default();
        let mut cluster = Self {
            host,
            namespace: network.namespace(host),
            _etcd: servers::start_etcd(host, network, &folder)?,
            apiserver: servers::start_apiserver(host, network, &folder, &pki, signing)?,
            folder,
            pki,
        };
        eventually("the API server", PATIENCE, || {
            cluster.apiserver.check_alive()?;
            cluster.get("/readyz").map(drop)
        })?;
        Ok(cluster)
    }

    /// `https://10.200.0.2:6443`, of the control plane's host.
    pub fn address(&self) -> String {
        format!("https://{}", Network::address(self.host, PORT))
    }

    /// Who signed its certificate.
    pub fn ca_pem(&self) -> String {
        self.pki.root_pem()
    }

    /// The bearer token of a user whom the token file knows: `admin`, [`GOOGLE_SERVICE_ACCOUNT`] (in group `vms`),
    /// `stranger`. For others there is [`Self::kubeconfig`].
    pub fn token(&self, user: &str) -> Result<String> {
        ensure!(
            USERS.iter().any(|(known, _)| *known == user),
            "the token file doesn't know {user}"
        );
        Ok(token_of(user))
    }

    /// A token of a ServiceAccount that exists; `audience` None: the API server's own.
    pub fn service_account_token(&self, namespace: &str, name: &str, audience: Option<&str>) -> Result<String> {
        let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token");
        let audiences: Vec<&str> = audience.into_iter().collect();
        let body = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
            "spec": {"audiences": audiences, "expirationSeconds": 600}});
        let answer = self.ask(&As::Token(token_of("admin")), "POST", &path, "application/json", &body)?;
        let token = answer.expect_success()?["status"]["token"].as_str().map(str::to_owned);
        token.context("no token in the answer")
    }

    /// A kubeconfig with a client certificate for `user`, whatever the name; in the groups of the token file, if any.
    pub fn kubeconfig(&self, user: &str) -> Result<PathBuf> {
        let groups = USERS
            .iter()
            .filter(|(known, group)| *known == user && !group.is_empty());
        let groups: Vec<&str> = groups.map(|(_, group)| *group).collect();
        let credentials = self.pki.issue_for_user(user, &groups);
        let path = self.folder.join(format!("kubeconfig-{user}"));
        let text = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "cluster",
            "clusters": [{"name": "cluster", "cluster": {
                "server": self.address(), "certificate-authority-data": base64(&self.ca_pem())}}],
            "users": [{"name": user, "user": {"client-certificate-data": base64(&credentials.certificate),
                "client-key-data": base64(&credentials.key)}}],
            "contexts": [{"name": "cluster", "context": {"cluster": "cluster", "user": user}}],
        });
        fs::write(&path, serde_json::to_vec_pretty(&text)?)?;
        Ok(path)
    }

    /// Applies every document of a YAML (or JSON) text as admin, status included, and refuses unknown fields.
    pub fn apply(&self, text: &str) -> Result<()> {
        for object in documents::parse(text)? {
            self.apply_object(&object, "")?;
        }
        Ok(())
    }

    /// The ConfigMap that istiod writes into each namespace.
    pub fn publish_root(&self, namespace: &str, pem: &str) -> Result<()> {
        let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"root-cert.pem": pem},
            "metadata": {"name": "istio-ca-root-cert", "namespace": namespace}});
        self.apply(&map.to_string())
    }

    /// Has the API server check a text as [`Self::apply`] would, and change nothing. A namespace that the text itself
    /// brings must exist.
    pub fn check(&self, text: &str) -> Result<()> {
        for object in documents::parse(text)? {
            self.apply_object(&object, "&dryRun=All")?;
        }
        Ok(())
    }

    /// Deletes the objects that a text names.
    pub fn delete(&self, text: &str) -> Result<()> {
        for object in documents::parse(text)? {
            let path = documents::path(self, &object)?;
            let answer = self.ask(
                &As::Token(token_of("admin")),
                "DELETE",
                &path,
                "application/json",
                &Value::Null,
            )?;
            answer.expect_success().with_context(|| documents::name(&object))?;
        }
        Ok(())
    }

    /// Object that admin reads at a path.
    pub fn get(&self, path: &str) -> Result<Value> {
        let admin = As::Token(token_of("admin"));
        let answer = self.ask(&admin, "GET", path, "application/json", &Value::Null)?;
        answer.expect_success()
    }

    /// One request by anybody.
    pub fn ask(&self, user: &As, method: &str, path: &str, content_type: &str, body: &Value) -> Result<Answer> {
        let request = client::Request {
            url: format!("{}{path}", self.address()),
            method,
            content_type,
            body,
        };
        crate::network::within_namespace(&self.namespace, || request.send(user, &self.ca_pem()))
    }

    /// kill -9 for the API server.
    pub fn kill(&mut self) -> Result<()> {
        self.apiserver.kill()
    }

    /// Starts the API server again, on what etcd has kept.
    pub fn restart(&mut self, network: &Network) -> Result<()> {
        self.apiserver = servers::spawn_apiserver(self.host, network, &self.folder)?;
        eventually("the API server", PATIENCE, || self.get("/readyz").map(drop))
    }

    fn apply_object(&self, object: &Value, more: &str) -> Result<()> {
        let path = documents::path(self, object)?;
        let query = format!("?fieldManager=e2e&force=true&fieldValidation=Strict{more}");
        let mut paths = vec![format!("{path}{query}")];
        if object.get("status").is_some() && more.is_empty() {
            paths.push(format!("{path}/status{query}"));
        }
        for path in paths {
            let admin = As::Token(token_of("admin"));
            let answer = self.ask(&admin, "PATCH", &path, "application/apply-patch+yaml", object)?;
            let accepted = answer.expect_success().with_context(|| documents::name(object))?;
            if accepted["kind"] != object["kind"] {
                bail!("{}: the answer is about {}", documents::name(object), accepted["kind"]);
            }
        }
        Ok(())
    }
}

fn new_signing_key() -> Result<KeyPair> {
    Ok(KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048)?)
}

fn token_of(user: &str) -> String {
    format!("token-of-{user}")
}

fn base64(text: &str) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(text)
}
